"""A training that was cut off goes on as if it never was: the same bits, whatever it carries from step to step."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import ConfigurationError, DivergenceError, ModelFileError
from bpcore.functions.update_rule import UpdateRule
from bpcore.persistence import checkpoint_writer
from bpcore.persistence.checkpoint_file import read_checkpoint, write_checkpoint
from bpcore.training import fingerprint, placement
from bpcore.training.device_steps import step_numbers
from bpcore.training.moment import Moment
from bpcore.training.stretches import Stretches
from tests.helpers.compare import assert_same_bits

ROWS, BATCH, EPOCHS = 61, 6, 5  # ten steps an epoch and a short one
STEPS = 11 * EPOCHS
SEEN = UpdateRule(
    "seen",
    "v = mu*v + ramp*g; theta = theta - eta*v",
    state=("v",),
    hyper={"mu": 0.8},
    scalars="seen = seen + eta; ramp = min(seen, 1)",
    running={"seen": 0.5},
)
PLATEAU = bp.ReduceOnPlateau(0.05, factor=0.5, patience=0, threshold=0.5)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"optimizer": bp.Momentum(0.05), "shuffle": False},
    "adam": {"optimizer": bp.Adam(0.01), "record_steps": True},
    "running numbers": {"optimizer": SEEN.bind(eta=0.05), "penalty": bp.L2(1e-3), "clip": bp.ClipNorm(0.5)},
    "dropout of batches": {"dropout": 0.4, "optimizer": bp.Nesterov(0.05)},
    "dropout of samples": {"dropout": bp.Dropout(0.4, per="sample"), "optimizer": bp.NAdam(0.01)},
    "rate of the step": {"optimizer": bp.Momentum(bp.InverseTime(0.1, rate=0.05)), "dropout": 0.2},
    "plateau": {"optimizer": bp.Adam(PLATEAU)},
    "weights": {"sample_weight": np.arange(ROWS) % 4, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "record_steps": True},
    "patience": {"stop": [bp.Patience(30), bp.LossBelow(1e-9)], "optimizer": bp.Adam(0.05)},
    "best": {"keep": "best", "optimizer": bp.SGD(1.5)},
    "stops by patience": {"stop": bp.Patience(1), "optimizer": bp.SGD(3.0)},
    "norms": {"stop": bp.GradientNorm(1e-9) | bp.LossChange(1e-12)},
    "streamed": {"data": "stream", "dropout": 0.3, "sample_weight": np.arange(ROWS) % 3, "optimizer": bp.Adam(0.01)},
}
CUTS = (1, 10, 11, 17, 33)
"""After the first step, before the short one, between epochs, in the middle of one, between epochs again."""


class Crash(BaseException):
    """What nothing catches: the process is gone."""


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 4)), rng.integers(0, 3, ROWS)


def train(
    be: Any, folder: Path, *, every: int = 1, resume: bool = False, dtype: str = "float32", **options: Any
) -> Any:
    """Train a small network with checkpoints; one that resumes begins with other parameters, which do not count."""
    X, y = data()
    net = bp.MLP([4, 7, 5, 3], ["tanh", "relu"], "softmax", seed=99 if resume else 3, dtype=dtype, backend=be)
    common: dict[str, Any] = {"batch_size": BATCH, "epochs": EPOCHS, "seed": 5, "validation": (X[:20], y[:20])}
    common["checkpoint"] = bp.Checkpoint(folder, every_steps=every, keep=1000)
    return bp.train(net, X, y, resume=resume, verbose=False, **{**common, **options})


@contextmanager
def crash_after(step: int) -> Iterator[None]:
    """Let the process end when the checkpoint after a step is on the disk."""

    def write_and_crash(path: Any, net: Any, moment: Moment, notes: Any) -> int:
        length = write_checkpoint(path, net, moment, notes)
        if moment.step == step:
            raise Crash
        return length

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "write_checkpoint", write_and_crash)
        try:
            yield
        except Crash:
            return
    pytest.fail(f"no checkpoint after step {step}")


def train_in_pieces(be: Any, folder: Path, cuts: Any, **options: Any) -> Any:
    """Crash after each of some steps, and resume each time."""
    for k, cut in enumerate(cuts):
        with crash_after(cut):
            train(be, folder, resume=k > 0, **options)
    return train(be, folder, resume=True, **options)


def rows_of(run: bp.Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def without_time(moment: Moment) -> dict[str, Any]:
    facts = {key: value for key, value in moment.facts.items() if key not in ("seconds", "resumed")}
    k = facts["columns"].index("seconds") if "seconds" in facts["columns"] else None
    history = moment.arrays["history"] if k is None else np.delete(moment.arrays["history"], k, axis=1)
    return {**facts, "history": history.tolist()}


def assert_same_training(run: bp.Run, folder: Path, wanted: bp.Run, its_folder: Path) -> None:
    """Compare the results, and all that the last checkpoints hold: state, schedules, rules, best, history."""
    be = run.net._backend
    assert_same_bits(be.to_numpy(run.net.theta), be.to_numpy(wanted.net.theta))
    assert rows_of(run) == rows_of(wanted)
    np.testing.assert_array_equal(run.history.steps, wanted.history.steps)
    for name in ("stopped_because", "steps", "best_epoch", "kept"):
        assert getattr(run, name) == getattr(wanted, name), name
    one, other = (read_checkpoint(bp.Checkpoint(path).files()[0]) for path in (folder, its_folder))
    assert without_time(one) == without_time(other)
    assert set(one.arrays) == set(other.arrays)
    for name in set(one.arrays) - {"history"}:
        assert_same_bits(one.arrays[name], other.arrays[name])
    for pair in zip(one.weights, other.weights, strict=True):
        for a, b in zip(*pair, strict=True):
            assert_same_bits(a, b)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps in a buffer of streamed data."""
    monkeypatch.setattr(placement, "STAGE_BYTES", 18 * 36)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_bits_after_several_crashes(cpu_backend: Any, name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    wanted = train(cpu_backend, tmp_path / "whole", **options)
    cuts = [cut for cut in CUTS if cut < wanted.steps]
    run = train_in_pieces(cpu_backend, tmp_path / "pieces", cuts, **options)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")
    assert [entry["step"] for entry in run.record["resumed"]] == cuts
    assert wanted.record["resumed"] == []
    if name == "stops by patience":
        assert wanted.steps < STEPS
    if name == "plateau":
        assert len(set(wanted.history["eta"])) > 2


@pytest.mark.parametrize("window", [2, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_store_goes_on_in_the_middle_of_an_epoch(
    cpu_backend: Any, shuffle: bool, window: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"shuffle": shuffle, "dropout": bp.Dropout(0.3, per="sample"), "record_steps": True}
    X, y = data()

    def run_on(folder: Path, crash: int | None = None, resume: bool = False, blocks: int = window) -> Any:
        net = bp.MLP([4, 7, 3], "tanh", seed=99 if resume else 3, dtype="float32", backend=cpu_backend)
        with bp.data.from_chunks(lambda: [(X, y)], block_bytes=16 * 5, window=blocks) as store:
            common: dict[str, Any] = {"batch_size": BATCH, "epochs": 3, "seed": 5, "verbose": False, "resume": resume}
            common["checkpoint"] = bp.Checkpoint(folder, every_steps=1, keep=1000)
            if crash is None:
                return bp.train(net, store, **common, **options)
            with crash_after(crash):
                bp.train(net, store, **common, **options)
            return None

    wanted = run_on(tmp_path / "whole")
    for k, cut in enumerate((1, 9, 10, 11, 17)):
        run_on(tmp_path / "pieces", cut, resume=k > 0)
    run = run_on(tmp_path / "pieces", resume=True)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")
    with pytest.raises(ConfigurationError, match=r"data\.blocks"):
        run_on(tmp_path / "pieces", resume=True, blocks=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_teams_of_threads(threads: int, dtype: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"threads": threads, "optimizer": bp.Adam(0.01), "dropout": 0.3, "dtype": dtype}
    wanted = train("numba", tmp_path / "whole", **options)
    run = train_in_pieces("numba", tmp_path / "pieces", CUTS, **options)
    assert (run.record["plan"], run.record["threads"]) == ("compiled", threads)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")


@pytest.mark.parametrize("name", ["adam", "running numbers", "dropout of samples", "streamed"])
@pytest.mark.parametrize("plan", ["graph", "wide", "persistent"])
def test_plans_of_a_gpu(cupy_backend: CupyBackend, plan: str, name: str, tmp_path: Path) -> None:
    options = {"plan": plan, "epochs": 3, **OPTIONS[name]}
    wanted = train(cupy_backend, tmp_path / "whole", **options)
    run = train_in_pieces(cupy_backend, tmp_path / "pieces", (10, 17, 22), **options)
    assert run.record["plan"] == plan
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")


@pytest.mark.parametrize(("plan", "precision"), [("fused", "bf16"), ("wide", "tf32x3")])
def test_a_precision_goes_on(cupy_backend: CupyBackend, plan: str, precision: str, tmp_path: Path) -> None:
    options = {"plan": plan, "precision": precision, "epochs": 3, "optimizer": bp.Adam(0.01)}
    wanted = train(cupy_backend, tmp_path / "whole", **options)
    run = train_in_pieces(cupy_backend, tmp_path / "pieces", (10, 17), **options)
    assert (run.record["plan"], run.record["spec"]["precision"]) == (plan, precision)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")
    message = rf"cannot go on from .*: .*spec.precision is 'float32', that of the checkpoint '{precision}'"
    with pytest.raises(ConfigurationError, match=message):
        train(cupy_backend, tmp_path / "whole", resume=True, **options | {"precision": None, "plan": "wide"})


def test_the_loss_scale_goes_on(cupy_backend: CupyBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins where steps of fp16 overflow, and has moved when the training is cut off."""
    monkeypatch.setattr("bpcore.training.wide.FIRST_SCALE", 2.0**30)
    options: dict[str, Any] = {"plan": "wide", "precision": "fp16", "epochs": 3, "optimizer": bp.Adam(0.01)}
    wanted = train(cupy_backend, tmp_path / "whole", **options)
    assert wanted.record["loss_scaling"]["skipped_steps"] > 0
    run = train_in_pieces(cupy_backend, tmp_path / "pieces", (10, 17), **options)
    assert run.record["loss_scaling"] == wanted.record["loss_scaling"]
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")


def train_cut(be: Any, seed: int | None, **options: Any) -> tuple[Any, bp.Run]:
    """Train with stretches of random lengths, or (None) as they come."""
    X, y = data()
    net = bp.MLP([4, 7, 5, 3], ["tanh", "relu"], "softmax", seed=3, dtype="float32", backend=be)
    common: dict[str, Any] = {"batch_size": BATCH, "epochs": EPOCHS, "seed": 5, "validation": (X[:20], y[:20])}
    with pytest.MonkeyPatch.context() as patch:
        if seed is not None:
            rng, at_once = np.random.default_rng(seed), Stretches._steps_at_once
            patch.setattr(Stretches, "_steps_at_once", lambda *args: min(at_once(*args), int(rng.integers(1, 5))))
        run = bp.train(net, X, y, verbose=False, **{**common, **options, "record_steps": True})
    return np.array(be.to_numpy(net.theta)), run


@pytest.mark.parametrize("name", OPTIONS)
def test_where_a_run_is_cut_into_stretches_changes_no_bit(cpu_backend: Any, name: str) -> None:
    wanted, its_run = train_cut(cpu_backend, None, **OPTIONS[name])
    for seed in range(3):
        theta, run = train_cut(cpu_backend, seed, **OPTIONS[name])
        assert_same_bits(theta, wanted)
        np.testing.assert_array_equal(run.history.steps, its_run.history.steps)


@pytest.mark.parametrize("plan", ["graph", "wide", "persistent"])
def test_cuts_on_a_gpu(cupy_backend: CupyBackend, plan: str) -> None:
    options = {"plan": plan, "epochs": 2, **OPTIONS["running numbers"]}
    wanted, _ = train_cut(cupy_backend, None, **options)
    theta, _ = train_cut(cupy_backend, 1, **options)
    assert_same_bits(theta, wanted)


@pytest.mark.parametrize("rule", [bp.Adam(0.01), bp.NAdam(0.01), SEEN], ids=["adam", "nadam", "seen"])
def test_the_numbers_of_a_rule_do_not_depend_on_the_cut(rule: Any) -> None:
    """They are computed for many steps at once; NumPy must give a power the same bits at every place of an array."""
    from bpcore.kernels.cuda.source import print_point

    point, etas = print_point(rule.program, rule.scalar_names), [0.01 + 1e-4 * k for k in range(97)]
    whole, end = step_numbers(rule, point, 0, etas, rule.initial_running())
    running, parts, done = rule.initial_running(), [], 0
    for length in (1, 2, 3, 5, 7, 11, 13, 1, 54):
        table, running = step_numbers(rule, point, done, etas[done : done + length], running)
        parts.append(table)
        done += length
    assert done == len(etas)
    assert_same_bits(np.concatenate(parts), whole)
    assert running == end


@pytest.mark.parametrize(("first", "second"), [("numpy", "numba"), ("numba", "numpy")])
def test_on_another_backend_alike_to_rounding(
    first: str, second: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"optimizer": bp.Adam(0.01), "dropout": 0.3, "dtype": "float64"}
    wanted = train(first, tmp_path / "whole", **options)
    with crash_after(17):
        train(first, tmp_path / "pieces", **options)
    with caplog.at_level(logging.INFO, "bpcore"):
        run = train(second, tmp_path / "pieces", resume=True, **options)
    assert run.record["backend"] == second
    assert rf"backend is '{second}', that of the checkpoint '{first}'" in caplog.text
    assert "alike to rounding" in caplog.text
    # 38 steps of Adam in float64 over sums of seven terms
    np.testing.assert_allclose(run.net.theta, wanted.net.theta, rtol=1e-9, atol=1e-11)


def test_more_epochs_than_before(cpu_backend: Any, tmp_path: Path) -> None:
    wanted = train(cpu_backend, tmp_path / "whole", optimizer=bp.Adam(0.01))
    short = train(cpu_backend, tmp_path / "pieces", optimizer=bp.Adam(0.01), epochs=2)
    assert short.stopped_because == "reached 2 epochs"
    run = train(cpu_backend, tmp_path / "pieces", optimizer=bp.Adam(0.01), resume=True)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")
    again = train(cpu_backend, tmp_path / "pieces", optimizer=bp.Adam(0.01), resume=True)
    assert_same_training(again, tmp_path / "pieces", wanted, tmp_path / "whole")
    assert again.history["seconds"].tolist() == run.history["seconds"].tolist()


def test_what_a_rule_has_ended_stays_ended(tmp_path: Path) -> None:
    options: dict[str, Any] = {"stop": bp.MaxSteps(17)}
    first = train("numpy", tmp_path, **options)
    assert first.stopped_because == "reached 17 steps"
    again = train("numpy", tmp_path, resume=True, **options)
    assert (again.stopped_because, again.steps) == ("reached 17 steps", 17)
    on = train("numpy", tmp_path, resume=True, stop=bp.MaxSteps(20))
    assert (on.stopped_because, on.steps) == ("reached 20 steps", 20)
    behind = train("numpy", tmp_path, resume=True, stop=bp.MaxSteps(5))
    assert (behind.stopped_because, behind.steps) == ("reached 5 steps", 20)


def test_a_changed_rule_knows_the_epochs_before(tmp_path: Path) -> None:
    """Patience(4) after three epochs without progress waits for one more, not for four."""
    options: dict[str, Any] = {"optimizer": bp.SGD(1e-9), "epochs": 12}
    stop = bp.Patience(4, min_delta=1.0)
    wanted = train("numpy", tmp_path / "whole", stop=stop, **options)
    assert len(wanted.history) == 5
    train("numpy", tmp_path / "pieces", **{**options, "epochs": 4, "keep": "best"})
    run = train("numpy", tmp_path / "pieces", resume=True, stop=stop, **options)
    assert rows_of(run) == rows_of(wanted)
    assert run.stopped_because == wanted.stopped_because


def test_the_clock_counts_all_runs(tmp_path: Path) -> None:
    train("numpy", tmp_path, epochs=1)
    moment = read_checkpoint(bp.Checkpoint(tmp_path).files()[0])
    run = train("numpy", tmp_path, resume=True)
    assert run.history["seconds"][0] < moment.facts["seconds"] < run.history["seconds"][1] < run.seconds
    assert (np.diff(run.history["seconds"]) > 0).all()


def test_ctrl_c_writes_a_last_checkpoint(cpu_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch, with no other checkpoint in sight; history.steps then holds each loss once."""
    options: dict[str, Any] = {"record_steps": True, "optimizer": bp.Adam(0.01), "every": 10**6}
    wanted = train(cpu_backend, tmp_path / "whole", **options)
    run_stretch = Stretches._run_stretch
    monkeypatch.setattr(Stretches, "_steps_at_once", lambda *args: 2)

    def press(self: Stretches, *args: Any) -> Any:
        records = run_stretch(self, *args)
        if self.state.step == 17:
            signal.raise_signal(signal.SIGINT)
        return records

    monkeypatch.setattr(Stretches, "_run_stretch", press)
    first = train(cpu_backend, tmp_path / "pieces", **options)
    assert (first.stopped_because, first.steps) == ("interrupted by Ctrl-C", 17)
    assert len(first.history.steps) == 17
    assert [path.name for path in bp.Checkpoint(tmp_path / "pieces").files()] == ["checkpoint-000000000017.safetensors"]
    monkeypatch.setattr(Stretches, "_run_stretch", run_stretch)
    run = train(cpu_backend, tmp_path / "pieces", resume=True, **options)
    assert_same_training(run, tmp_path / "pieces", wanted, tmp_path / "whole")


def test_divergence_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": bp.SGD(1e30), "penalty": bp.L2(1.0)}
    with pytest.raises(DivergenceError) as caught:
        train("numpy", tmp_path, **options)
    files = bp.Checkpoint(tmp_path).files()
    assert files == [] or read_checkpoint(files[0]).step < int(caught.value.step or 0)


def test_seed_of_the_checkpoint_unless_one_is_given(tmp_path: Path) -> None:
    wanted = train("numpy", tmp_path / "whole", seed=5)
    train("numpy", tmp_path / "pieces", seed=5, epochs=2)
    run = train("numpy", tmp_path / "pieces", seed=None, resume=True)
    assert run.record["seed"] == 5
    assert_same_bits(run.net.theta, wanted.net.theta)


OTHER_TANH = bp.Activation("tanh", "tanh(z) + 0.0 * z")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 5}, "spec.batch_size is 5, that of the checkpoint 6"),
        ({"seed": 6}, "seed is 6, that of the checkpoint 5"),
        ({"optimizer": bp.Adam(0.01)}, "spec.optimizer.name is 'adam', that of the checkpoint 'sgd'"),
        ({"optimizer": bp.SGD(0.2)}, r"spec.optimizer.eta.eta is 0\.2, that of the checkpoint 0\.1"),
        ({"optimizer": UpdateRule("sgd", "theta = theta - eta*g*1.0", eta=0.1)}, "formulas.optimizer differs"),
        ({"dropout": 0.5}, "spec.dropout is .*, that of the checkpoint None"),
        ({"penalty": bp.L2(0.1)}, "spec.penalty is"),
        ({"clip": bp.ClipNorm(1.0)}, "spec.clip is"),
        ({"shuffle": False}, "shuffle is False, that of the checkpoint True"),
        ({"sample_weight": np.ones(ROWS)}, "spec.weighted is True, that of the checkpoint False; .*weights differs"),
        ({"dtype": "float64"}, "spec.dtype is 'float64', that of the checkpoint 'float32'"),
        ({"loss": "mse"}, "spec.loss is 'mse', that of the checkpoint 'cross_entropy'"),
    ],
)  # fmt: skip
def test_another_training_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    train("numpy", tmp_path, epochs=1)
    with pytest.raises(ConfigurationError, match=rf"cannot go on from .*000011\.safetensors: .*{message}"):
        train("numpy", tmp_path, resume=True, **change)


@pytest.mark.parametrize(
    ("X_change", "y_change", "message"),
    [
        (lambda X: X[:-1], lambda y: y[:-1], "data.rows is 60, that of the checkpoint 61"),
        (lambda X: X + np.eye(ROWS, 4, k=-57) * 1e-3, lambda y: y, "data.X differs"),
        (lambda X: X, lambda y: y[::-1], "data.Y differs"),
    ],
)
@pytest.mark.parametrize("where", ["resident", "stream"])
def test_other_data_is_refused(tmp_path: Path, where: Any, X_change: Any, y_change: Any, message: str) -> None:
    X, y = data()
    net = bp.MLP([4, 3], output="softmax", seed=0, dtype="float32", backend="numpy")
    options: dict[str, Any] = {"epochs": 2, "seed": 0, "verbose": False}
    bp.train(net, X, y, checkpoint=bp.Checkpoint(tmp_path, every_epochs=1), **options)
    other = bp.MLP([4, 3], output="softmax", seed=1, dtype="float32", backend="numpy")
    theta = other.theta.copy()
    with pytest.raises(ConfigurationError, match=message):
        bp.train(other, X_change(X), y_change(y), checkpoint=tmp_path, resume=True, data=where, **options)
    assert_same_bits(other.theta, theta)
    assert other.meta == {}
    bp.train(other, X, y, checkpoint=tmp_path, resume=True, data=where, **options)
    assert_same_bits(other.theta, net.theta)


def test_another_network_is_refused(tmp_path: Path) -> None:
    X, y = data()
    options: dict[str, Any] = {"epochs": 1, "seed": 0, "checkpoint": tmp_path, "verbose": False}
    bp.train(bp.MLP([4, 5, 3], "tanh", seed=0, backend="numpy"), X, y, **options)
    for net, message in (
        (
            bp.MLP([4, 6, 3], "tanh", seed=0, backend="numpy"),
            r"spec.sizes is \[4, 6, 3\], that of the checkpoint \[4, 5",
        ),
        (bp.MLP([4, 5, 3], "relu", seed=0, backend="numpy"), "spec.activations is"),
        (bp.MLP([4, 5, 3], OTHER_TANH, seed=0, backend="numpy"), "formulas.activations differs"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            bp.train(net, X, y, resume=True, **options)


def test_which_rows_are_compared() -> None:
    assert fingerprint.checked_rows(1).tolist() == [0]
    assert fingerprint.checked_rows(1024).tolist() == list(range(1024))
    for m in (1025, 10**6, 10**9 + 7):
        rows = fingerprint.checked_rows(m)
        assert (len(rows), rows[0], rows[-1]) == (1024, 0, m - 1)


def test_what_is_needed_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"resume=True needs checkpoint="):
        train("numpy", tmp_path, checkpoint=None, resume=True)
    with pytest.raises(ConfigurationError, match=r"checkpoint is 7; give a folder, or bp\.Checkpoint"):
        train("numpy", tmp_path, checkpoint=7)
    with pytest.raises(ConfigurationError, match="keeps its memory inside SciPy"):
        train("numpy", tmp_path, optimizer=bp.LBFGS())
    train("numpy", tmp_path, epochs=1)
    with pytest.raises(
        ConfigurationError, match=r"holds 11 checkpoints of a training, the newest after step 11; resume"
    ):
        train("numpy", tmp_path)
    with pytest.raises(ConfigurationError, match="were not recorded; resume with record_steps=False"):
        train("numpy", tmp_path, resume=True, record_steps=True)
    train("numpy", tmp_path / "last", epochs=1, keep="last")
    with pytest.raises(ConfigurationError, match=r"best epoch by val_loss are asked for; .* has none"):
        train("numpy", tmp_path / "last", resume=True, keep="best")


def test_an_empty_folder_begins_afresh_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bpcore"):
        run = train("numpy", tmp_path / "new" / "folder", resume=True)
    assert "there is no checkpoint in" in caplog.text
    assert "begins afresh" in caplog.text
    assert run.record["resumed"] == []
    assert run.record["checkpoint"]["written"] == STEPS + 1  # the last says how it ended


def test_torn_files_are_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = train("numpy", tmp_path / "whole")
    folder = tmp_path / "pieces"
    train("numpy", folder, epochs=2)
    files = bp.Checkpoint(folder).files()
    files[0].write_bytes(files[0].read_bytes()[:-3])
    files[1].write_bytes(b"")
    damaged = bytearray(files[2].read_bytes())
    damaged[-5] ^= 1
    files[2].write_bytes(damaged)
    run = train("numpy", folder, resume=True)
    assert run.record["resumed"][0]["step"] == 19
    assert run.record["resumed"][0]["file"] == str(files[3])
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 3
    assert re.search("passed over: .*cut short", warned[0])
    assert re.search("passed over: .*is empty", warned[1])
    assert re.search("passed over: .*its content does not match its checksum", warned[2])
    assert_same_training(run, folder, wanted, tmp_path / "whole")


def test_what_is_passed_over_is_told_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = data()
    net = bp.MLP([4, 3], seed=0, backend="numpy")
    options: dict[str, Any] = {"seed": 0, "checkpoint": bp.Checkpoint(tmp_path, every_steps=1), "epochs": 1}
    bp.train(net, X, y, batch_size=30, verbose=False, **options)
    newest = bp.Checkpoint(tmp_path).files()[0]
    newest.write_bytes(newest.read_bytes()[:100])
    capsys.readouterr()
    bp.train(net, X, y, batch_size=30, verbose=True, resume=True, **options)
    told = capsys.readouterr().err
    assert "bpcore: a checkpoint cannot be used and is passed over: " in told
    assert "bpcore: the training goes on after step 2, from " in told


def test_no_usable_file_is_an_error(tmp_path: Path) -> None:
    train("numpy", tmp_path, epochs=1)
    for path in bp.Checkpoint(tmp_path).files():
        path.write_bytes(b"no checkpoint")
    with pytest.raises(ModelFileError, match=r"none of the 11 checkpoints in .* can be used: .*Remove them to begin"):
        train("numpy", tmp_path, resume=True)


def test_meta_that_is_no_json_is_refused_before_the_first_step(tmp_path: Path) -> None:
    X, y = data()
    net = bp.MLP([4, 3], seed=0, backend="numpy")
    net.meta = {"x": {1, 2}}
    theta = net.theta.copy()
    with pytest.raises(ModelFileError, match=r"net\.meta, or the state of a rule, is not plain JSON"):
        bp.train(net, X, y, checkpoint=tmp_path, verbose=False)
    assert_same_bits(net.theta, theta)
