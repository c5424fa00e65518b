"""Compiling ahead of time: every piece is covered, nothing is compiled twice, and later processes compile nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

import bpcore as bp
from bpcore.errors import ConfigurationError, UnknownNameError
from bpcore.functions.update_rules import UPDATE_RULES
from bpcore.kernels.numba import cache
from bpcore.training import announcement
from bpcore.training.announcement import announced_compiling
from bpcore.training.warmup import Recipe, recipes, run_recipe, warm_up

TRAIN = """
import sys
from numba.core import event

class Compilations(event.Listener):
    names = []
    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__qualname__)
    def on_end(self, event):
        pass

event.register("numba:compile", Compilations())
import numpy as np
import bpcore as bp

rng = np.random.default_rng(3)
X, labels, values = rng.normal(size=(40, 7)), np.arange(40) % 4, rng.normal(size=(40, 1))
for weights in (None, rng.random(40)):
    net = bp.MLP([7, 9, 8, 4], activation="tanh", output="softmax", seed=1, backend="numba")
    assert bp.train(net, X, labels, loss="cross_entropy", optimizer=bp.Adam(), batch_size=16, epochs=2,
                    sample_weight=weights, validation=(X, labels)).record["plan"] == "compiled"
    net.evaluate(X, labels), net.predict(X), net.predict_classes(X[:1])
    net = bp.MLP([7, 5, 1], activation="tanh", output="tanh", seed=1, backend="numba")
    bp.train(net, X, values, loss="mse", optimizer=bp.Adam(), batch_size=40, epochs=2, sample_weight=weights,
             validation=(X, values), dropout=0.2, penalty=bp.L2(0.1), clip=bp.ClipNorm(1.0))
    net.evaluate(X, values, "mse", sample_weight=weights)
# so large that threads may share a step
X, labels = rng.normal(size=(300, 200)), np.arange(300) % 4
for threads in (None, 1, 2):
    net = bp.MLP([200, 300, 300, 4], activation="tanh", output="softmax", seed=1, backend="numba")
    bp.train(net, X, labels, optimizer=bp.Adam(), batch_size=100, epochs=1, threads=threads, clip=bp.ClipNorm(1.0),
             stop=bp.GradientNorm(1e-9), dropout=bp.Dropout(0.5, "sample"))
print(len(Compilations.names), *Compilations.names)
"""


def run_python(code: str, **environment: str) -> str:
    settings = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cache folder that a process filled, and what it said of it."""
    root = tmp_path_factory.mktemp("cache")
    words = ["warmup", "--activations", "tanh", "--losses", "cross_entropy,mse", "--optimizers", "adam", "--json"]
    text = run_python(f"from bpcore.cli import main; main({words})", BPCORE_CACHE_DIR=str(root))
    report = json.loads(text)
    # now: a later process writes down what this machine can do, where it was too busy until then to be measured
    report["found"] = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return root, report


@pytest.mark.slow
def test_a_process_after_it_compiles_nothing(warm: tuple[Path, dict[str, Any]]) -> None:
    root, _ = warm
    assert run_python(TRAIN, BPCORE_CACHE_DIR=str(root)).split() == ["0"]


@pytest.mark.slow
def test_the_report_counts_what_is_on_disk(warm: tuple[Path, dict[str, Any]]) -> None:
    root, report = warm
    assert report["present"] == []
    assert len(report["compiled"]) == len(list(root.rglob("*.nbc"))) > 30
    assert report["bytes"] == report["found"]
    assert Path(report["folder"]).parent == root / "numba"


@pytest.mark.slow
def test_a_second_run_compiles_nothing(warm: tuple[Path, dict[str, Any]]) -> None:
    root, first = warm
    code = "import json; from bpcore.training.warmup import warm_up\n"
    code += "r = warm_up(activations=['tanh'], losses=['mse', 'cross_entropy'], optimizers=['adam'])\n"
    code += "print(json.dumps([r.compiled, r.present]))"
    compiled, present = json.loads(run_python(code, BPCORE_CACHE_DIR=str(root)))
    assert compiled == []
    # the machine is measured once, and the figures are stored
    assert present == [name for name in first["compiled"] if not name.startswith("machine.")]


# -------------------------------------------------------------------------------- what a run may compile


BUDGET = """
from bpcore.kernels.numba.cache import Observer, observed

class Asked(Observer):
    names = []
    def ends(self, name, compiled, seconds):
        self.names.append(name.partition("(")[0])

import numpy as np
import bpcore as bp

X, y = np.random.default_rng(0).normal(size=(64, 5)), np.arange(64) % 3
with observed(Asked()):
    net = bp.MLP([5, 8, 3], activation="relu", output="softmax", seed=0, dtype="float32", backend="numba")
    bp.train(net, X, y, optimizer=bp.SGD(0.1), batch_size=16, epochs=1)
print(len(Asked.names), *Asked.names)
"""

FUNCTIONS = 16
"""What an ordinary run asks for, compiled or loaded: the first call of a user waits for all of it."""


def test_an_ordinary_run_asks_for_few_functions() -> None:
    count, *names = run_python(BUDGET).split()
    assert 0 < int(count) <= FUNCTIONS, names
    assert len(set(names)) == len(names), "a function was compiled for more than one signature"


# -------------------------------------------------------------------------------- what is run


def test_the_usual_set_covers_every_built_in() -> None:
    found = recipes()
    trainable = {name for name, f in bp.ACTIVATIONS.items() if f.differentiable and not f.rowwise}
    rules = {str(make().name) for make in UPDATE_RULES.values()}
    assert {recipe.activation for recipe in found} == trainable
    assert {recipe.optimizer for recipe in found} == rules
    assert {recipe.optimizer for recipe in found if recipe.dropout == "batch"} == rules
    for weighted in (False, True):
        pairs = {(recipe.loss, recipe.output) for recipe in found if recipe.weighted == weighted}
        assert pairs >= {(loss.name, output) for loss in bp.LOSSES.values() for output in loss.pairs}
        assert {loss for loss, _ in pairs} == set(bp.LOSSES)
    assert {recipe.n_out for recipe in found if recipe.output == "sigmoid"} == {1, 3}
    assert {recipe.dtype for recipe in found} == {"float32"}


def test_everything_is_every_pair_that_fits_on_both_plans() -> None:
    found = recipes(["float64"], "all", activations=["relu"], optimizers=["sgd"])
    fitting = set()
    for loss in bp.LOSSES.values():
        for output in bp.ACTIVATIONS.values():
            if output.differentiable:
                try:
                    loss.check_output(output)
                except ConfigurationError:
                    continue
                fitting.add((loss.name, output.name))
    for plan in ("auto", "reference"):
        assert {(recipe.loss, recipe.output) for recipe in found if recipe.plan == plan} == fitting
    assert {recipe.dtype for recipe in found} == {"float64"}


def test_the_quick_set_is_small_and_names_restrict() -> None:
    assert len(recipes(scope="quick")) <= 12
    found = recipes(["float32", "float64"], activations=["swish"], losses=["bce"], optimizers=["SGD"])
    assert {recipe.activation for recipe in found} == {"silu"}
    assert {recipe.loss for recipe in found} == {"binary_cross_entropy"}
    assert {recipe.optimizer for recipe in found} == {"sgd"}
    assert {recipe.dtype for recipe in found} == {"float32", "float64"}
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("float32", "relu", "cross_entropy", "softmax", "sgd", classes=True),
        Recipe("float64", "tanh", "hinge", "identity", "adam", 1, classes=True, weighted=True),
        Recipe("float32", "relu", "mse", "identity", "sgd", dropout="sample", penalty="l1+l2", clip="layer_norm"),
        Recipe("float32", "relu", "quadratic", "sigmoid", "sgd", classes=True, dropout="batch", plan="reference"),
    ],
)
def test_a_recipe_trains_as_it_says(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    seen: list[Any] = []
    module = sys.modules["bpcore.training.warmup"]
    real = bp.train

    def spy(*args: Any, **options: Any) -> Any:
        run = real(*args, **options)
        seen.append(run)
        return run

    monkeypatch.setattr(module, "train", spy)
    run_recipe(recipe)
    (run,) = seen
    spec = run.record["spec"]
    assert run.record["backend"] == "numba"
    assert run.record["plan"] == ("reference" if recipe.plan == "reference" else "compiled")
    assert np.isfinite(run.history[-1]["loss"])
    assert ("accuracy" in run.history[-1]) == recipe.classes
    text = json.dumps(spec, default=str)
    for word in (recipe.loss, recipe.output, recipe.optimizer, recipe.activation, recipe.dtype):
        assert word in text


def test_a_loop_is_filed_under_the_name_that_a_later_process_looks_for() -> None:
    # next to tanh and to sigmoid, the formula of mse is the same: a backend that has one does not ask for the other
    for output in ("sigmoid", "tanh"):
        compiled, loaded = run_recipe(Recipe("float32", "relu", "mse", output, "sgd"))
        assert any(name.startswith(f"lossmse{output}") for name in compiled + loaded)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scope": "some"}, UnknownNameError, "unknown scope 'some'"),
        ({"dtype": "float16"}, UnknownNameError, "unknown dtype 'float16'"),
        ({"activations": ["relo"]}, UnknownNameError, "unknown activation 'relo'"),
        ({"activations": ["step"]}, ConfigurationError, "'step' has no derivative"),
        ({"losses": []}, ConfigurationError, "empty list of names"),
        ({"processes": 0}, ConfigurationError, "processes is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        warm_up(**options)


def test_other_processes_start_only_when_there_is_something_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = sys.modules["bpcore.training.warmup"]
    todo = [Recipe(dtype, name, "mse", "identity", "sgd") for dtype in ("float32", "float64") for name in "abc"]
    alone: list[Recipe] = []
    handed: list[Recipe] = []
    compiling: set[Recipe] = set()

    def run(recipe: Recipe) -> tuple[list[str], list[str]]:
        alone.append(recipe)
        return (["new"] if recipe in compiling else []), ["old"]

    def in_processes(rest: list[Recipe], processes: int) -> Any:
        handed.extend(rest)
        return iter([(["new"], ["old"])] * len(rest))

    monkeypatch.setattr(module, "run_recipe", run)
    monkeypatch.setattr(module, "_run_in_processes", in_processes)
    for expected, news in ((6, []), (2, todo[:1]), (3, todo[1:2])):
        compiling.clear()
        compiling.update(news)
        alone.clear()
        handed.clear()
        assert len(list(module._run(todo, 2))) == len(todo)
        assert alone[:2] == [todo[0], todo[3]], "the first of each dtype comes first"
        assert (len(alone), sorted(map(str, alone + handed))) == (expected, sorted(map(str, todo)))
    alone.clear()
    list(module._run(todo, 1))
    assert len(alone) == 6


# -------------------------------------------------------------------------------- the message


@pytest.mark.parametrize(
    ("backend", "verbose", "cached", "lines"),
    [("numba", True, False, 1), ("numba", False, False, 0), ("numba", True, True, 0), ("numba", None, False, 0)],
)
def test_a_user_is_told_once_that_something_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    verbose: bool | None,
    cached: bool,
    lines: int,
) -> None:
    from bpcore.functions.program import Program
    from bpcore.kernels.numba.elementwise import compile_program
    from bpcore.kernels.numba.operands import Operand

    def compile_some(factor: int) -> None:
        compile_program(Program(f"h = {factor}*z"), (Operand("full", 1),), (Operand("full", 1),), np.dtype(float))

    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(announcement, "_told", False)
    if cached:
        compile_some(2)
        compile_some(3)
    for factor in (2, 3):
        with announced_compiling(bp.get_backend(backend), verbose):
            compile_some(factor)
    assert capsys.readouterr().err.count(announcement.TEXT) == lines
    assert not cache._observers


def test_a_terminal_is_told_and_other_backends_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "_told", False)
    with announced_compiling(bp.get_backend("numpy"), True):
        assert not cache._observers
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with announced_compiling(bp.get_backend("numba"), None):
        assert len(cache._observers) == 1


def test_compiling_for_a_gpu_is_announced_once_and_only_if_it_happens(monkeypatch, capsys, tmp_path):
    import types

    from bpcore.kernels.cuda import build

    nvrtc = types.SimpleNamespace(getSupportedArchs=lambda: [90], getVersion=lambda: (13, 0))
    libs: Any = types.ModuleType("cupy_backends.cuda.libs")
    libs.nvrtc = nvrtc
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libs)
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build, "compile_with_nvrtc", lambda source, target: b"code")
    monkeypatch.setattr(announcement, "_told", False)
    loader = build.KernelLoader(None, 90)
    gpu = types.SimpleNamespace(name="cupy")
    loader._code("before")
    for source, lines in (("before", 0), ("first", 1), ("second", 0), ("first", 0)):
        with announced_compiling(gpu, True):
            loader._code(source)
        told = capsys.readouterr().err
        assert told.count(announcement.TEXT_OF_GPU) == lines, source
        assert "warmup" not in told, "which compiles for the processor only"
    monkeypatch.setattr(announcement, "_told", False)
    with announced_compiling(gpu, False):
        loader._code("third")
    assert capsys.readouterr().err == ""
    assert (loader.compiled, loader.reused) == (4, 2)
