"""The sweep: whom it ranks, whom it finds out, what it leaves out and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpcore.backends import cublas
from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.bench import machine, pace, sweep
from bpcore.bench.contender import Contender
from bpcore.bench.networks import NETWORKS
from bpcore.bench.result import schema
from bpcore.bench.worker import Holder
from tests.backends.fake_cublas import FakeLibrary
from tests.bench.conftest import SMALL, InThisProcess

jsonschema = pytest.importorskip("jsonschema")

Run = Callable[..., dict[str, Any]]


def validate(result: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema()).validate(result)


def statuses(result: dict[str, Any], k: int = 0) -> dict[str, str]:
    return {name: row["status"] for name, row in result["networks"][0]["cells"][k]["contenders"].items()}


def test_planted_mistakes_are_found_out_and_not_ranked(in_process: Run) -> None:
    result = in_process("numpy", "wrong", "tiring", "broken")
    validate(result)
    (network,) = result["networks"]
    last = network["cells"][-1]
    assert statuses(result, -1)["wrong"] == statuses(result, -1)["tiring"] == "differs"
    assert statuses(result, -1)["broken"] == "failed"
    assert statuses(result, -1)["numpy"] in ("ok", "noisy")
    assert (last["best"], last["ties"]) == ("numpy", [])
    rows = last["contenders"]
    assert rows["broken"]["why"] == "ArithmeticError: no more"
    # the losses are right as far as anybody can see: what gives the wrong gradient away is how the parameters moved
    assert rows["wrong"]["parity"]["before"]["values"] < 1e-3 < 0.01 < rows["wrong"]["parity"]["before"]["movement"]
    first = network["cells"][0]["contenders"]["tiring"]["parity"]
    assert first["before"]["movement"] < 1e-3 < first["after"]["movement"]
    assert rows["numpy"]["parity"]["after"]["movement"] < 1e-3


def test_a_complete_result(in_process: Run) -> None:
    result = in_process("numpy", "numba")
    validate(result)
    (network,) = result["networks"]
    assert [cell["batch"] for cell in network["cells"]] == [1, 4]
    for cell in network["cells"]:
        for row in cell["contenders"].values():
            assert row["checked"]
            times = row["us_per_step"]
            assert times["q1"] <= times["q3"]
            assert row["samples_per_second"] == pytest.approx(cell["batch"] / times["median"] * 1e6)
            assert row["gflops"] == pytest.approx(cell["flops"] / times["median"] * 1e-3)
            assert row["of_peak"] == pytest.approx(row["gflops"] / 1e4)
    assert network["cells"][0]["contenders"]["numba"]["plan"] == "compiled"
    assert network["cells"][0]["contenders"]["numpy"]["over_numpy"] == pytest.approx(1)
    assert network["parts"]["batch"] == 4
    for found in network["parts"]["contenders"].values():
        assert set(found["us"]) == {"gather", "forward", "BP1", "BP2", "BP3", "BP4", "update", "step"}
        assert all(us > 0 for us in found["us"].values())
    assert sum(cost["flops"] for cost in network["parts"]["costs"].values()) == network["cells"][1]["flops"]


def test_prediction(in_process: Run) -> None:
    result = in_process("numpy", "numba", kind="predict", batch_sizes=(2,))
    validate(result)
    assert result["mode"] == "inference"
    assert set(statuses(result).values()) <= {"ok", "noisy"}
    assert result["networks"][0]["parts"] == {}


def test_visits_are_interleaved_and_nobody_is_always_first(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "VISITS", 3)
    in_process("numpy", "numba", batch_sizes=(1,), parts=False)
    assert [name for name, do, _ in InThisProcess.asked if do == "visit"] == [
        "numpy", "numba", "numba", "numpy", "numpy", "numba",
    ]  # fmt: skip


def test_a_figure_above_the_peak_is_suspect(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"status": "ok", "gflops": {"256": 1e-7}, "gb_per_second": 10.0}
    monkeypatch.setattr("bpcore.bench.worker.Holder.peak", lambda self: slow)
    result = in_process("numpy", batch_sizes=(4,))
    validate(result)
    assert statuses(result) == {"numpy": "suspect"}
    assert result["networks"][0]["cells"][0]["best"] is None
    assert any("above the measured peak" in text for text in result["warnings"])


def test_what_takes_too_long_or_too_much_is_left_out_with_the_reason(
    in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FIRST_STEP", 60.0)
    result = in_process("numpy", parts=False)
    validate(result)
    why = result["networks"][0]["cells"][0]["contenders"]["numpy"]["why"]
    assert why == "a step would take about 60 s; a longer --budget measures it"
    monkeypatch.setattr(pace, "FIRST_STEP", 1e-3)
    monkeypatch.setattr(machine, "available_memory", lambda: 2**20)
    result = in_process("numpy", parts=False)
    assert "GiB of 0.0 that are free" in result["networks"][0]["cells"][0]["contenders"]["numpy"]["why"]
    assert result["networks"][0]["winners"] == []


def test_a_workload_that_the_witness_cannot_do_in_time_is_not_checked(
    in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "WITNESS_RATE", 1e-3)
    result = in_process("numpy", "wrong")
    validate(result)
    row = result["networks"][0]["cells"][0]["contenders"]["wrong"]
    assert not row["checked"]
    assert row["parity"] == {}
    assert not any(do == "expected" for _, do, _ in InThisProcess.asked)


def test_an_interruption_keeps_what_was_measured(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [SMALL, NETWORKS["tiny"]]
    run = sweep.Sweep._run_network

    def interrupted(self: Any, network: Any, seconds: float) -> Any:
        if network is networks[1]:
            raise KeyboardInterrupt
        return run(self, network, seconds)

    monkeypatch.setattr(sweep.Sweep, "_run_network", interrupted)
    result = in_process("numpy", networks=networks, parts=False)
    validate(result)
    assert result["interrupted"]
    assert [network["name"] for network in result["networks"]] == ["small"]


def test_what_disturbs_is_said(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(machine, "load", lambda: [3.5, 0.0, 0.0])
    peaks = iter([100.0, 50.0])
    monkeypatch.setattr(
        "bpcore.bench.worker.Holder.peak",
        lambda self: {"status": "ok", "gflops": {"256": next(peaks)}, "gb_per_second": 10.0},
    )
    result = in_process("numpy", batch_sizes=(4,), parts=False)
    text = "\n".join(result["warnings"])
    assert "kept 3.5 threads busy" in text
    assert "OPENBLAS_CORETYPE is set here and was removed" in text
    assert "ran at 100 GFLOP/s in the beginning and at 50 in the end" in text
    assert result["machine"]["removed_variables"] == ["OPENBLAS_CORETYPE"]
    assert "OPENBLAS_CORETYPE" not in machine.environment()
    assert machine.environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_step_is_expected_to_take_what_products_or_memory_take() -> None:
    small, work, large = (NETWORKS["wide"].workload(batch, "train", "float32") for batch in (1, 64, 8192))
    assert pace.expected_step(work, [], 400.0) == pace.FIRST_STEP
    # one sample is bound by memory: 64 of them do not take 64 times as long
    seconds = pace.expected_step(work, [(small, 0.04)], 400.0)
    assert 0.04 < seconds < 0.3
    assert pace.expected_step(work, [(large, 9.0), (small, 0.04)], 400.0) == seconds, "the nearest one decides"
    assert pace.expected_step(small, [(work, 0.06)], 400.0) == 0.06


@pytest.mark.parametrize("count", range(1, 20))
def test_first_visits_are_far_apart(count: int) -> None:
    sizes = [2**k for k in range(count)]
    found = pace.spread_out(sizes)
    assert sorted(found) == sizes
    assert found[0] == 1
    if count == 17:
        assert found[:5] == [1, 256, 65536, 16, 4096]


def test_the_operations(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.backends.ops import OPS
    from bpcore.bench import operations

    few = [operations.Case(case.name, {letter: min(size, 8) for letter, size in case.sizes.items()})
           for case in operations.CASES]  # fmt: skip
    few = list({(case.name, tuple(case.sizes.items())): case for case in few}.values())
    assert {case.name for case in few} == set(OPS)
    monkeypatch.setattr(operations, "CASES", few)
    result = in_process("numpy", "numba", ops=True)
    validate(result)
    for part in result["operations"]:
        for row in part["contenders"].values():
            assert row["status"] in ("ok", "noisy"), (part["name"], row)
    monkeypatch.setattr(NumpyBackend, "total", lambda self, A, out: out)
    result = in_process("numpy", ops=True)
    wrong = {part["name"] for part in result["operations"] if part["contenders"]["numpy"]["status"] == "differs"}
    assert wrong == {"total"}


def test_a_gpu_with_its_plans_and_precisions(fake_cupy: object, in_process: Run) -> None:
    """Over the stand-in: what is measured there is nothing, but all of it runs and agrees with the witness."""
    contenders = [
        Contender("numpy", "float32"), Contender("cupy", "float32"), Contender("cupy", "bf16"),
        Contender("cupy", "float32", "graph"), Contender("cupy", "float32", "wide"), Contender("cupy", "bf16", "wide"),
    ]  # fmt: skip
    result = in_process("numpy", contenders=contenders, batch_sizes=(4,))
    validate(result)
    (cell,) = result["networks"][0]["cells"]
    rows = cell["contenders"]
    assert list(rows) == ["numpy", "cupy", "cupy:bf16", "cupy:graph", "cupy:wide", "cupy:bf16:wide"]
    for name, row in rows.items():
        assert row["status"] in ("ok", "noisy"), (name, row)
        assert row["checked"]
    assert [row["plan"] for row in rows.values()] == ["reference", "persistent", "fused", "graph", "wide", "wide"]
    assert result["contenders"]["cupy"]["memory"]["available"] > 0
    assert set(result["networks"][0]["parts"]["contenders"]["cupy:graph"]["us"]) >= {"forward", "BP4", "step"}


@pytest.mark.parametrize("precision", ["tf32x3", "tf32", "bf16", "fp16", "float32"])
def test_the_peak_of_a_gpu_is_that_of_its_precision(
    fake_cupy: object, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cublas, "load_cublas", FakeLibrary)
    monkeypatch.setattr("bpcore.bench.worker.PEAK_SIZES", {"gpu": (16, 32)})
    monkeypatch.setattr("bpcore.bench.worker.PEAK_SECONDS", 0.001)
    monkeypatch.setattr("bpcore.bench.worker.COPIED_BYTES", 2**12)
    holder = Holder(Contender("cupy", precision), None)
    assert holder.load()["status"] == "ok"
    found = holder.peak()
    assert set(found["gflops"]) == {"16", "32"}
    assert min(found["gflops"].values()) > 0
    assert found["gb_per_second"] > 0
