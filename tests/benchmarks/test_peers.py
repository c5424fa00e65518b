"""The race against other libraries: what it counts, what it refuses, whom it ranks, and the page that it writes."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.bench.machine import REMOVED, describe
from bpcore.bench.problem import Problem
from bpcore.bench.process import serve
from bpcore.bench.witness import CHUNKS, expected, losses
from bpcore.bench.workload import Workload

# by name, because the benchmarks are no part of what is type-checked
adapters: Any = importlib.import_module("benchmarks.peers.adapters")
command: Any = importlib.import_module("benchmarks.peers.__main__")
holder: Any = importlib.import_module("benchmarks.peers.holder")
machine: Any = importlib.import_module("benchmarks.peers.machine")
race: Any = importlib.import_module("benchmarks.peers.race")
report: Any = importlib.import_module("benchmarks.peers.report")
results: Any = importlib.import_module("benchmarks.peers.results")
table: Any = importlib.import_module("benchmarks.peers.table")
with_bpcore: Any = importlib.import_module("benchmarks.peers.adapters.with_bpcore")
with_numpy: Any = importlib.import_module("benchmarks.peers.adapters.with_numpy")
workloads: Any = importlib.import_module("benchmarks.peers.workloads")

SMALL = workloads.RacedWorkload("train", (3, 4, 2), "tanh", "softmax", "cross_entropy", "momentum", 5, 50, 6, 0.1)
KINDS = [
    ("softmax", "cross_entropy", 3), ("sigmoid", "binary_cross_entropy", 1), ("identity", "mse", 2),
    ("sigmoid", "quadratic", 3),
]  # fmt: skip


@pytest.mark.parametrize("name", ["results", "race"])
def test_the_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"benchmarks.peers.{name}"))
    assert found.attempted > 1
    assert found.failed == 0


# ------------------------------------------------------------------------------------------ workloads


def test_goals_follow_what_every_workload_has() -> None:
    """The table gives them by position."""
    small = workloads.RacedWorkload("train", (3, 2), "tanh", "identity", "mse", "sgd", 5, 50, 6, 0.1, 1.5, 18.0)
    assert issubclass(workloads.RacedWorkload, Workload)
    assert (small.eta, small.over_best, small.over_torch, small.at_most_us, small.share) == (0.1, 1.5, 18.0, 0.0, 1.0)
    assert small.precision == "float32"
    times = {name: work.at_most_us for name, work in workloads.WORKLOADS.items() if work.at_most_us}
    assert times == {"predict-small-1": 6.0, "predict-mid-1": 35.0}


def test_products_are_those_of_the_equations() -> None:
    found = [(product.part, *(product.sizes[letter] for letter in "mkn")) for product in workloads.products(SMALL)]
    assert sorted(found) == [
        ("BP2", 5, 2, 4), ("BP4", 3, 5, 4), ("BP4", 4, 5, 2), ("forward", 5, 3, 4), ("forward", 5, 4, 2),
    ]  # fmt: skip
    floor = with_numpy.prepare_products(SMALL, Problem.make(SMALL), 1)
    assert sorted((*A.shape, B.shape[1], *C.shape) for A, B, C in floor.calls) == [
        (m, k, n, m, n) for _, m, k, n in sorted(found, key=lambda product: product[1:])
    ]
    assert {A.shape for A, _, _ in floor.calls if not A.flags.c_contiguous} == {(3, 5), (4, 5)}, "H.T"
    assert {B.shape for _, B, _ in floor.calls if not B.flags.c_contiguous} == {(2, 4)}, "W.T"


# ------------------------------------------------------------------------------------------ parity


def evidence_of(runner: Any, problem: Any, chunks: int = CHUNKS) -> Any:
    runner.reset()
    return runner.evidence(runner.run(problem.order(0, chunks)))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(("output", "loss", "n_out"), KINDS)
def test_witness_numpy_and_bpcore_take_the_same_steps(output: str, loss: str, n_out: int, optimizer: str) -> None:
    """Three ways that share no code; the hidden activation changes with the loss, so that each is met."""
    activation = {"mse": "relu", "quadratic": "sigmoid"}.get(loss, "tanh")
    work = Workload("train", (3, 5, 4, n_out), activation, output, loss, optimizer, 5, 50, 6, 0.1)
    problem = Problem.make(work)
    wanted = expected(work, problem)
    untrained = losses(replace(work, eta=0.0), problem)
    assert wanted[-4:].mean() < untrained[-4:].mean(), "of the same mini-batches"
    for runner in (
        with_numpy.prepare(work, problem, 1),
        with_bpcore.prepare(work, problem, 1, plan="reference", backend="numpy"),
    ):
        for _ in range(2):  # the second time shows whether reset forgets everything
            assert results.difference(evidence_of(runner, problem), wanted) < results.TOLERANCE


OTHERS = [
    pytest.param("softmax", "cross_entropy", 3, "momentum"), pytest.param("sigmoid", "binary_cross_entropy", 1, "adam"),
    pytest.param("identity", "mse", 1, "adam"), pytest.param("sigmoid", "quadratic", 3, "sgd"),
]  # fmt: skip
"""The ways of training of the workloads."""


@pytest.mark.parametrize(("output", "loss", "n_out", "optimizer"), OTHERS[:3])
def test_scikit_learn_takes_the_same_steps(output: str, loss: str, n_out: int, optimizer: str) -> None:
    pytest.importorskip("sklearn")
    with_sklearn: Any = importlib.import_module("benchmarks.peers.adapters.with_sklearn")
    work = Workload("train", (3, 5, 4, n_out), "tanh", output, loss, optimizer, 5, 50, 6, 0.1)
    problem = Problem.make(work)
    runner = with_sklearn.prepare(work, problem, 1)
    for _ in range(2):
        assert results.difference(evidence_of(runner, problem), expected(work, problem)) < results.TOLERANCE


@pytest.mark.witness
@pytest.mark.parametrize(("output", "loss", "n_out", "optimizer"), OTHERS)
def test_pytorch_takes_the_same_steps(output: str, loss: str, n_out: int, optimizer: str) -> None:
    torch = pytest.importorskip("torch")
    with_torch: Any = importlib.import_module("benchmarks.peers.adapters.with_torch")
    work = Workload("train", (3, 5, 4, n_out), "tanh", output, loss, optimizer, 5, 50, 6, 0.1)
    problem = Problem.make(work)
    runner = with_torch.prepare(work, problem, torch.get_num_threads())
    assert runner.facts["optimizer"] in {"plain", "foreach", "fused"}
    for _ in range(2):
        assert results.difference(evidence_of(runner, problem), expected(work, problem)) < results.TOLERANCE


@pytest.mark.parametrize("kind", ["full-batch", "predict", "predict-many"])
def test_the_other_kinds_of_work(kind: str) -> None:
    work = {
        "full-batch": replace(SMALL, batch=50),
        "predict": replace(SMALL, kind="predict", activation="relu"),
        "predict-many": replace(SMALL, kind="predict", batch=100, rows=100),
    }[kind]
    problem = Problem.make(work)
    wanted = expected(work, problem)
    for runner in (
        with_numpy.prepare(work, problem, 1),
        with_bpcore.prepare(work, problem, 1, plan="reference", backend="numpy"),
    ):
        assert results.difference(evidence_of(runner, problem), wanted) < results.TOLERANCE


def test_difference_takes_means_of_chunks_and_refuses_what_does_not_fit() -> None:
    assert results.difference([2.0, 6.0], [1.0, 3.0, 5.0, 7.0]) == 0
    assert results.difference([2.0, 7.0], [1.0, 3.0, 5.0, 7.0]) == pytest.approx(1 / 6)
    assert results.difference([1.0, 3.0, 5.0], [1.0, 3.0, 5.0, 7.0]) == math.inf
    assert results.difference([], [1.0]) == math.inf
    assert results.difference([[1.0, 2.0]], [[1.0, math.nan]]) != 0


# ------------------------------------------------------------------------------------------ the race, in this process


class InThisProcess:
    """A worker without a process, which notes who was asked."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012  (emptied by the fixture)
    alive = True

    def __init__(self, name: str, threads: int, cpus: list[int] | None, caches: Path | None = None) -> None:
        self.holder = holder.Holder(name, threads)

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        self.asked.append((self.holder.name, do))
        replies: list[str] = []
        serve(self.holder, [json.dumps({"do": do, **arguments})], replies.append)
        return dict(json.loads(replies[0]))

    def close(self) -> None:
        pass


def careless(runner: Any) -> None:
    """Forget the velocity: SGD where momentum was asked for."""
    update = runner.update

    def forgetful() -> None:
        runner.first[...] = 0
        update()

    runner.update = forgetful


def wrong_later(runner: Any) -> None:
    """Be right when looked at first, and then no more."""
    run, runs = runner.run, [0]

    def tiring(order: Any) -> Any:
        runs[0] += 1
        return run(order) if runs[0] < 4 else [0.5] * len(order)

    runner.run = tiring


def lazy(runner: Any) -> None:
    """Leave the second half of the steps out."""
    run, chunk = runner.run, runner.work.chunk
    runner.run = lambda order: run(order if len(order) <= chunk else order[: len(order) // 2])


def fails(runner: Any) -> None:
    """Raise when run."""

    def run(order: Any) -> Any:
        raise ArithmeticError("no more\nthan this")

    runner.run = run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Races without processes, among NumPy's contestants and some that are planted."""
    planted = types.ModuleType("planted")
    entries = {}
    for spoil in (careless, wrong_later, lazy, fails):

        def prepare(work: Any, problem: Any, threads: int, spoil: Any = spoil) -> Any:
            runner = with_numpy.prepare(work, problem, threads)
            spoil(runner)
            return runner

        setattr(planted, spoil.__name__, prepare)
        entries[spoil.__name__] = adapters.Contestant("planted", spoil.__name__, ("numpy",))
    entries["absent"] = adapters.Contestant("no_such_adapter", "prepare", ("numpy",))
    monkeypatch.setitem(sys.modules, "benchmarks.peers.adapters.planted", planted)
    for name, entry in entries.items():
        monkeypatch.setitem(adapters.CONTESTANTS, name, entry)
    monkeypatch.setattr(race, "start_worker", InThisProcess)
    monkeypatch.setattr(holder.Holder, "peak", lambda self: {"status": "ok", "gflops": {"1024": 100.0}})
    monkeypatch.setattr(InThisProcess, "asked", [])

    def run(*names: str, rounds: int = 2) -> dict[str, Any]:
        told: list[str] = []
        return dict(
            race.run(
                ["smoke"], list(names), [1], told.append, lambda *_: None,
                rounds=rounds, seconds=0.05, limit=60.0, cold=False,
            )
        )  # fmt: skip

    return run


def test_planted_contestants_are_found_out_and_not_ranked(in_process: Any) -> None:
    found = in_process("numpy", "careless", "wrong_later", "lazy", "fails", "absent")["runs"][0]["workloads"]["smoke"]
    rows = found["contestants"]
    assert {name: row["status"] for name, row in rows.items()} == {
        "numpy": "ok", "careless": "differs", "wrong_later": "differs", "lazy": "differs", "fails": "failed",
        "absent": "skipped",
    }  # fmt: skip
    assert found["ranking"] == ["numpy"]
    assert found["best_peer"] == "numpy"
    assert rows["careless"]["parity"]["before"] > results.TOLERANCE
    assert rows["wrong_later"]["parity"]["before"] < results.TOLERANCE < rows["wrong_later"]["parity"]["after"]
    assert rows["lazy"]["parity"]["after"] is None
    assert rows["fails"]["why"] == "ArithmeticError: no more"
    assert rows["absent"]["why"] == "not installed: benchmarks.peers.adapters.no_such_adapter"
    assert "not ranked" in report.cells("careless", rows["careless"])[-1]


def test_rounds_are_interleaved_and_nobody_is_always_first(in_process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "plan_rounds", lambda seconds, share, rounds: (rounds, 1, True))
    in_process("numpy", "bpcore-numpy", "products", rounds=3)
    rounds = [name for name, do in InThisProcess.asked if do == "round"]
    assert rounds == [
        "numpy", "bpcore-numpy", "products",
        "bpcore-numpy", "products", "numpy",
        "products", "numpy", "bpcore-numpy",
    ]  # fmt: skip
    assert [do for name, do in InThisProcess.asked if name == "numpy"] == [
        "load", "prepare", "round", "round", "round", "release",
    ]  # fmt: skip


def test_a_library_that_is_missing_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.adapters.with_torch", raising=False)
    reply = holder.Holder("torch", 1).load()
    assert reply == {"status": "skipped", "why": "not installed: torch"}


def test_what_cannot_be_expressed_is_skipped_with_the_reason() -> None:
    pytest.importorskip("sklearn")
    with_sklearn: Any = importlib.import_module("benchmarks.peers.adapters.with_sklearn")
    work = replace(workloads.SMOKE, output="sigmoid", loss="quadratic")
    with pytest.raises(adapters.Skip, match="quadratic loss and sigmoid cannot be expressed"):
        with_sklearn.prepare(work, Problem.make(work), 1)


# ------------------------------------------------------------------------------------------ figures


def timed(status: str, *times: float) -> dict[str, Any]:
    return {"status": status} | results.rates(SMALL, list(times), peak=100.0)


def test_ranking_and_ratios() -> None:
    rows = {
        "bpcore": timed("ok", 10.0, 11.0, 9.0), "bpcore-numpy": timed("ok", 15.0), "torch": timed("ok", 80.0),
        "numpy": timed("ok", 20.0), "jax-scan": timed("differs", 5.0), "products": timed("ok", 1.0),
        "tinygrad": {"status": "skipped", "why": "not installed: tinygrad"},
    }  # fmt: skip
    found = results.judge(replace(SMALL, over_best=2.0), rows)
    assert found["ranking"] == ["bpcore", "bpcore-numpy", "numpy", "torch"]
    assert found["best_peer"] == "numpy"
    assert (found["over_best"], found["over_torch"]) == (2.0, 8.0)
    assert (rows["torch"]["over_bpcore"], rows["torch"]["over_best_peer"]) == (8.0, 4.0)
    assert rows["bpcore"]["us_per_step"] == {
        "median": 10.0, "q1": 9.5, "q3": 10.5, "least": 9.0, "rounds": [10.0, 11.0, 9.0],
    }  # fmt: skip
    # 480 operations in 10 us are 0.048 GFLOP/s; 5 samples are half a million a second
    assert rows["bpcore"]["gflops"] == pytest.approx(0.048)
    assert rows["bpcore"]["of_peak"] == pytest.approx(0.00048)
    assert rows["bpcore"]["samples_per_second"] == pytest.approx(5e5)
    full = {"flops": 480, "bytes": 1, "batch": 5, "kind": "train", "contestants": rows} | found
    assert report.headline(full) == ["10", "numpy, 20", "2.00 (goal 2: reached)", "8.00"]
    assert report.order_of(full)[4:] == ["jax-scan", "products", "tinygrad"]


def test_without_bpcore_nothing_is_claimed() -> None:
    found = results.judge(SMALL, {"numpy": timed("ok", 20.0), "bpcore": {"status": "failed", "why": "x"}})
    assert (found["best_peer"], found["over_best"], found["over_torch"]) == ("numpy", None, None)
    assert results.judge(SMALL, {"bpcore": timed("ok", 1.0)})["over_best"] is None


def test_numbers_as_words() -> None:
    assert [report.number(value) for value in (None, 0.0, 1234.5, 12.345, 0.01234)] == [
        "",
        "0",
        "1230",
        "12.3",
        "0.0123",
    ]
    assert [report.rate(value) for value in (1.5e6, 2500.0, 12.0)] == ["1.5 M", "2.5 k", "12"]
    assert report.against(1.19, 1.2) == "1.19 (goal 1.2: missed)"


def test_a_result_file_comes_back_and_becomes_a_page(in_process: Any, tmp_path: Path) -> None:
    result = in_process("numpy", "bpcore-numpy", "careless", "absent", "products")
    results.save(result, tmp_path / "2026-01-31-cpu.json")
    assert results.load(tmp_path / "2026-01-31-cpu.json") == result
    older = copy.deepcopy(result)
    older["machine"]["cpu"] = "An older one"
    results.save(older, tmp_path / "2025-01-31-cpu.json")
    text = table.page(tmp_path)
    assert text.index("## 2026-01-31-cpu") < text.index("## 2025-01-31-cpu") < text.index("An older one")
    found = result["runs"][0]["workloads"]["smoke"]
    for name in ("numpy", "bpcore-numpy"):
        line = f"| {' | '.join(report.cells(name, found['contestants'][name]))} |\n"
        assert text.count(line) == 2, line
    assert "| products (floor) | " in text
    assert "Without a figure: absent skipped (not installed" in text
    assert "sgemm peak 100 GFLOP/s" in text
    (tmp_path / "gpu-nvidia-h200.json").write_text("[]", "utf-8")
    assert table.page(tmp_path) == text, "a result of benchmarks/gpu_acceptance.py is none of this race"
    with pytest.raises(ValueError, match="JSON compliant"):
        results.save({"format": results.FORMAT, "x": math.nan}, tmp_path / "nan.json")
    (tmp_path / "other.json").write_text("[]", "utf-8")
    with pytest.raises(ValueError, match=r"other\.json is no result of format 1"):
        table.page(tmp_path)


def test_the_page_is_what_the_recorded_results_say() -> None:
    assert table.PAGE.read_text("utf-8") == table.page(), "out of date: run python -m benchmarks.peers.table"


# ------------------------------------------------------------------------------------------ the machine


@pytest.mark.skipif(not hasattr(machine.os, "sched_getaffinity"), reason="this system cannot hold a process to cores")
def test_one_thread_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = [{0, 1}, {2, 3}]
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "siblings", lambda cpu: next(core for core in cores if cpu in core))
    assert machine.choose_cpus(1) == [3]
    assert machine.choose_cpus(2) == [1, 3]
    with pytest.raises(ValueError, match="3 threads were asked for; this process may use 2 cores"):
        machine.choose_cpus(3)


def test_the_surroundings_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = machine.surroundings(2, tmp_path)
    assert not set(REMOVED) & set(found)
    assert {found[name] for name in machine.ALL_THREAD_VARIABLES} == {"2"}
    assert found["BPCORE_CACHE_DIR"].startswith(str(tmp_path))
    assert {"NPROC", "NUM_CPU_THREADS", "OMP_NUM_THREADS"} <= set(machine.ALL_THREAD_VARIABLES)
    assert describe()["removed_variables"] == ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"]


# ------------------------------------------------------------------------------------------ real processes


def test_a_small_race_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    names = ["numpy", "bpcore-numpy", "products"]
    words = ["--workloads", "smoke", "--threads", "1", "--rounds", "2", "--seconds", "0.2", "--json", str(path)]
    assert command.main([*words, "--contestants", *names]) == 0
    shown = capsys.readouterr().out
    result = results.load(path)
    (run,) = result["runs"]
    rows = run["workloads"]["smoke"]["contestants"]
    assert list(rows) == names
    assert {row["status"] for row in rows.values()} == {"ok"}
    for name in names:
        row = rows[name]
        assert name in shown
        assert 0 < row["us_per_step"]["q1"] <= row["us_per_step"]["median"] <= row["us_per_step"]["q3"]
        assert len(row["us_per_step"]["rounds"]) == 2
        assert row["idle_load"] is None or row["idle_load"] < 0.1, "a waiting worker must sleep"
    assert rows["products"]["us_per_step"]["median"] < rows["numpy"]["us_per_step"]["median"]
    assert 1 < max(run["sgemm_peak_gflops"].values()) < 2000
    assert {pool["num_threads"] for pool in run["blas"]} == {1}
    assert run["workers"]["numpy"]["versions"] == {"numpy": np.__version__}
    assert "goals" in run["workloads"]["smoke"]


@pytest.mark.parametrize(
    "name",
    [
        "scikit-learn",
        pytest.param("torch", marks=pytest.mark.slow),
        pytest.param("torch-compile", marks=pytest.mark.slow),
        pytest.param("jax-jit", marks=pytest.mark.slow),
        pytest.param("jax-scan", marks=pytest.mark.slow),
        pytest.param("tinygrad", marks=pytest.mark.slow),
    ],
)
def test_a_peer_takes_the_same_steps(name: str) -> None:
    work = workloads.SMOKE
    wanted = expected(work, Problem.make(work))
    process = race.start_worker(name, 1, machine.choose_cpus(1))
    try:
        reply = process.ask("load", 120.0)
        if reply["status"] == "ok":
            reply = process.ask("prepare", 250.0, workload="smoke")
        if reply["status"] == "skipped":
            pytest.skip(reply["why"])
        assert reply["status"] == "ok", reply
        assert results.difference(reply["evidence"], wanted) < results.TOLERANCE
        # a second start gives the same losses again, or reset forgot something
        again = process.ask("round", 60.0, chunks=1, warm=True)
        assert results.difference(again["evidence"], wanted[work.chunk :]) < results.TOLERANCE
    finally:
        process.close()


def test_the_command_lists_and_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*workloads.WORKLOADS, *adapters.CONTESTANTS))
    for words, message in (
        (["--threads", "0"], "--threads 0; at least 1"),
        (["--json", str(tmp_path / "none" / "x.json")], "there is no folder"),
        (["--workloads", "nilesen"], "invalid choice: 'nilesen'"),
    ):
        with pytest.raises(SystemExit):
            command.main(words)
        assert message in capsys.readouterr().err
