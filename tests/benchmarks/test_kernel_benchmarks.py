"""The benchmarks of the kernels: each module has one, they run, and they refuse what makes a figure meaningless."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bpcore.backends.ops import OPS
from bpcore.functions.program import Program

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "kernels"

# by name, because the benchmarks are no part of what is type-checked
costs: Any = importlib.import_module("benchmarks.kernels.costs")
measuring: Any = importlib.import_module("benchmarks.kernels.measuring")
smi: Any = importlib.import_module("bpcore.bench.smi")

MEASURED_WITH = {
    "bits": "scalar",  # polynomials and exponents, of which the functions are made
    "calls": "step",  # how a step calls its functions
    "epoch": "step",
    "error_function": "scalar",
    "exponential": "scalar",
    "vectors": "products",  # the tiles of a product
}
"""Modules that are measured through what is made of them."""

NOT_MEASURED = {
    "accuracy": "a table of promises",
    "cache": "compiles, once for each version of bpcore",
    "cache_folders": "tidies the cache, once for each version of bpcore",
    "erf_coefficients": "numbers",
    "machine": "measures the machine itself",
    "operands": "looks at arguments; part of every call in bench_elementwise.py",
}
"""Modules without a benchmark, and why."""

OTHERS = {"inspection"}
"""Benchmarks of what calls the kernels and is none."""

needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None,
    reason='pytest-benchmark is not installed; the extra "bench" brings it',
)


def modules() -> set[str]:
    paths = (ROOT / "kernels" / "numba").glob("*.py")
    return {path.stem for path in paths if not path.stem.startswith("_")}


def benchmarks() -> set[str]:
    return {path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")}


def run(cache: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest from the root, without what this run of pytest was told."""
    told = ("PYTEST_", "OPENBLAS_", "BPCORE_", "NUMBA_", "COVERAGE_", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    environment |= {"BPCORE_CACHE_DIR": str(cache), **variables}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ which there are


def test_every_kernel_module_is_measured_or_says_why_not() -> None:
    assert len(modules()) > 15, "the search for modules is broken"
    assert modules() - benchmarks() == {*MEASURED_WITH, *NOT_MEASURED}
    assert set(MEASURED_WITH.values()) <= benchmarks()


def test_every_benchmark_is_of_a_module() -> None:
    assert benchmarks() - modules() <= {*MEASURED_WITH.values(), *OTHERS}


def of_all_backends() -> list[Any]:
    """Return the benchmarks that take every backend in turn."""
    found = []
    for name in sorted(benchmarks()):
        module = importlib.import_module(f"benchmarks.kernels.bench_{name}")
        functions = [value for key, value in vars(module).items() if key.startswith("test_")]
        found += [function for function in functions if "backend" in inspect.signature(function).parameters]
    return found


def test_every_operation_is_measured_on_every_backend() -> None:
    named = [name for function in of_all_backends() for name in getattr(function, "operations", ())]
    assert len(named) == len(set(named)), "each in one place"
    assert set(named) == set(OPS)
    for function in of_all_backends():
        for name in getattr(function, "operations", ()):
            code = inspect.getsource(function)
            assert f"backend.{name}(" in code or "getattr(backend, name)(" in code, f"{function} does not call {name}"


def test_training_and_prediction_are_measured_on_every_backend() -> None:
    names = {function.__name__ for function in of_all_backends()}
    assert {"test_stretch", "test_epoch", "test_predict"} <= names


@needs_plugin
def test_every_plan_trains_every_workload(cache_dir: Path) -> None:
    """Plans as ``Trainer`` documents them."""
    done = run(cache_dir, "benchmarks/kernels/bench_step.py", "--collect-only", "-q", "-k", "test_stretch")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "::" in line}
    runs = ["numpy-reference", "numba-compiled", "numba-reference"]
    runs += [f"cupy-{plan}" for plan in ("reference", "persistent", "graph", "wide")]
    workloads: Any = importlib.import_module("benchmarks.peers.workloads").WORKLOADS
    names = [name for name, work in workloads.items() if work.kind == "train"]
    assert len(names) == 8
    assert found == {f"{run}-{name}" for run in runs for name in names}
    done = run(cache_dir, "benchmarks", "--collect-only", "-q", "-m", "gpu")
    lines = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(lines) > 100
    assert all("cupy" in line for line in lines)


def test_plain_pytest_runs_none() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"]
    assert not list((ROOT / "tests").rglob("bench_*.py"))


# ------------------------------------------------------------------------------------------ running them


@pytest.mark.parametrize("name", ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"])
def test_a_blas_that_was_told_what_to_be_is_refused(name: str, cache_dir: Path) -> None:
    done = run(cache_dir, "benchmarks", "--collect-only", **{name: "512"})
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{name} would decide how fast BLAS is" in done.stderr
    assert "env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python -m pytest benchmarks --benchmark-only" in done.stderr
    assert "bench_products" not in done.stdout


def test_without_the_plugin_it_says_what_to_install(cache_dir: Path) -> None:
    done = run(cache_dir, "-p", "no:benchmark", "benchmarks", "--collect-only")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert 'benchmarks need pytest-benchmark: pip install -e ".[bench]"' in done.stderr


@needs_plugin
def test_all_files_are_collected(cache_dir: Path) -> None:
    done = run(cache_dir, "benchmarks", "--benchmark-only", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found == {f"benchmarks/kernels/bench_{name}.py" for name in benchmarks()}


@needs_plugin
def test_one_runs_and_is_compared(cache_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    storage = f"file://{tmp_path / 'saved'}"
    command = ["benchmarks/kernels/bench_parts.py", "--benchmark-only", "-k", "test_limit"]
    command += ["--benchmark-max-time=0.01", f"--benchmark-storage={storage}"]
    path = fake_smi(tmp_path)
    done = run(cache_dir, *command, "--benchmark-save=first", f"--benchmark-json={tmp_path / 'first.json'}", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "first.json").read_text("utf-8"))
    facts = written["machine_info"]
    assert {"cpu_model", "simd", "cores", "usable_cores", "blas", "gpus", "commit", "load"} <= facts.keys()
    told = {"name": "GPU 0", "driver_version": "580.1", "clocks.max.sm": "1980 MHz", "power.limit": "700.00 W"}
    assert [told.items() <= gpu.items() for gpu in facts["nvidia_smi"]] == [True]
    assert [facts["gpu_state"][when][0]["clocks.sm"] for when in ("before", "after")] == ["345 MHz", "345 MHz"]
    assert facts["threads"] == 1
    assert [library["threads"] for library in facts["blas"]] == [1] * len(facts["blas"])
    assert facts["versions"].keys() >= {"numpy", "numba", "scipy"}
    assert len(written["benchmarks"]) == 2
    for one in written["benchmarks"]:
        found, seconds = one["extra_info"], one["stats"]["median"]
        # clipped at both ends, read and written
        assert (found["flops"], found["bytes"]) == (2 * 65536, 2 * 4 * 65536)
        assert found["gb_per_s"] == pytest.approx(found["bytes"] / seconds / 1e9)
        assert one["options"]["min_rounds"] == 3, "what is not asked for on the command line"
        assert one["options"]["max_time"] == 0.01, "what is asked for"

    (tmp_path / "clock").write_text("1755 MHz")  # of the moment
    again = {"PATH": path, "BPCORE_NUM_THREADS": "2"}
    done = run(cache_dir, *command, "--benchmark-compare", "--benchmark-save=second", **again)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if "not comparable?" in line]
    assert "not comparable? threads was 1, it is 2" in said
    assert {line.split()[2] for line in said} <= {"threads", "blas", "environment"}
    assert "test_limit[bpcore] (NOW)" in done.stdout

    saved = ["*first", "*second", "--columns=min,median", "--group-by=fullname"]
    compare = [sys.executable, "-m", "pytest_benchmark", f"--storage={storage}", "compare", *saved]
    done = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for contestant in ("bpcore", "numpy"):
        for number, name in ((1, "first"), (2, "second")):
            assert f"test_limit[{contestant}] (000{number}_{name})" in done.stdout


def fake_smi(folder: Path) -> str:
    """Write an nvidia-smi with one GPU, and return a PATH on which it is found first."""
    program = folder / "nvidia-smi"
    program.write_text(
        f"""#!{sys.executable}
import pathlib, sys
clock = pathlib.Path(__file__).with_name("clock")
known = {{"name": "GPU 0", "driver_version": "580.1", "clocks.max.sm": "1980 MHz", "power.limit": "700.00 W",
    "clocks.sm": clock.read_text() if clock.exists() else "345 MHz", "memory.total": "81559"}}
fields = sys.argv[1].removeprefix("--query-gpu=").split(",")
print(", ".join(known.get(field, "[N/A]") for field in fields))
"""
    )
    program.chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def test_without_nvidia_smi_there_are_no_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smi.ask(smi.WHAT) == []
    program = tmp_path / "nvidia-smi"
    for text in ("exit 9", "echo NVIDIA-SMI has failed"):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        assert smi.ask(smi.WHAT) == []


# ------------------------------------------------------------------------------------------ measuring


class Timer:
    """A stand-in for the fixture of pytest-benchmark: calls a function three times, each taking half a second."""

    def __init__(self) -> None:
        self.calls, self.extra_info, self.group = 0, dict[str, Any](), ""
        self.stats: Any = SimpleNamespace(stats=SimpleNamespace(median=0.5))

    def __call__(self, function: Any) -> Any:
        self.calls += 1
        return [function() for _ in range(3)][-1]


def judge_of(right: list[int]) -> Any:
    def judge(result: int) -> None:
        assert result in right, f"{result} is wrong"

    return judge


def test_a_wrong_result_is_not_timed() -> None:
    timer = Timer()
    with pytest.raises(AssertionError, match="7 is wrong"):
        measuring.measure(timer, lambda: 7, judge_of([8]), group="g")
    assert timer.calls == 0


def test_a_result_that_becomes_wrong_is_seen() -> None:
    numbers = iter(range(10))
    timer = Timer()
    with pytest.raises(AssertionError, match="3 is wrong"):
        measuring.measure(timer, lambda: next(numbers), judge_of([0]), group="g")
    assert timer.calls == 1


def test_what_changes_its_beginning_is_judged_from_there() -> None:
    state = [5]

    def run_once() -> int:
        state[0] += 1
        return state[0]

    timer = Timer()
    cost = costs.Cost(10**9, 0)
    measuring.measure(
        timer, run_once, judge_of([1]), group="g", reset=lambda: state.__setitem__(0, 0), cost=cost, per=("row", 4), a=1
    )
    assert timer.group == "g"
    assert timer.extra_info == {"a": 1, "flops": 10**9, "gflop_per_s": 2.0, "ns_per_row": 0.125e9}


# ------------------------------------------------------------------------------------------ what it costs


def test_costs_counted_by_hand() -> None:
    assert costs.operation("matmul", 4, m=2, k=3, n=5) == costs.Cost(60, 4 * (6 + 15 + 10))
    # mu*v, + g, eta*v, theta - ...; v, g, theta read, v, theta written
    step = Program("v = mu*v + g; theta = theta - eta*v")
    assert costs.program(step, ["v", "g", "theta"], 100, 4) == costs.Cost(400, 5 * 400)
    # 1 - mu is the same for all elements, tanh(z) is computed once
    once = Program("h = (1 - mu) * tanh(z) + tanh(z)")
    assert costs.program(once, ["z"], 10, 8) == costs.Cost(30, 160)
    # a name that stands for a number is one as well
    named = Program("d = 1 - mu; h = d * z", outputs=["h"])
    assert costs.program(named, ["z", "unused"], 1, 4) == costs.Cost(1, 8)
