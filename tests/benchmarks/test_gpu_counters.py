"""The counters of a GPU: what ncu is asked, how its table is read, and that a machine without it is no failure."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from tests.backends.conftest import fake_backend, fake_cupy
from tests.backends.fake_cupy import FakeCupy

__all__ = ["fake_backend", "fake_cupy"]

# by name, because the benchmarks are no part of what is type-checked
counters: Any = importlib.import_module("benchmarks.gpu.counters")
few_steps: Any = importlib.import_module("benchmarks.gpu.few_steps")
ncu: Any = importlib.import_module("benchmarks.gpu.ncu")
tables: Any = importlib.import_module("benchmarks.gpu.tables")
workloads: Any = importlib.import_module("benchmarks.gpu.workloads")

STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
COLUMNS = {
    "ID": ("", "0", "1"),
    "Process ID": ("", "4711", "4711"),
    "Process Name": ("", "python3.11", "python3.11"),
    "Host Name": ("", "127.0.0.1", "127.0.0.1"),
    "Kernel Name": ("", "resident", "void cutlass::Kernel2<A, 8>(int, float)"),
    "Context": ("", "1", "1"),
    "Stream": ("", "7", "7"),
    "Block Size": ("block", "(256, 1, 1)", "(128, 1, 1)"),
    "Grid Size": ("grid", "(8, 1, 1)", "(32, 10, 1)"),
    "Device": ("", "0", "0"),
    "CC": ("", "9.0", "9.0"),
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": ("%", "0.25", "61.5"),
    "gpu__time_duration.sum": ("ns", "432,128", "196,864"),
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_active": ("%", "38.2", "12"),
    "launch__registers_per_thread": ("register/thread", "96", "168"),
    "launch__shared_mem_per_block": ("byte/block", "204,800", "n/a"),
    "lts__t_sectors.avg.pct_of_peak_sustained_elapsed": ("%", "1.5", "33"),
    "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active": ("%", "99", "99"),
    "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": ("%", "21.4", "(!) n/a"),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("%", "12.5", "24.8"),
    **{
        name: ("", *values)
        for reason, values in {
            "barrier": ("4", "0.25"), "long_scoreboard": ("2", "2.25"), "selected": ("1", "1.5"),
            "short_scoreboard": ("0.5", "0.25"), "wait": ("2.5", "0.75"),
        }.items()
        for name, values in (
            (STALL.format(f"{reason}_not_issued"), ("7", "7")), (STALL.format(reason), values),
            (STALL.format(reason).replace("issue_active", "warp_active").replace("ratio", "pct"), ("9", "9")),
        )
    },
}  # fmt: skip
"""A table as ``ncu --page raw --csv --print-units base`` writes it: names, units and two launches."""


def raw(columns: dict[str, tuple[str, ...]]) -> str:
    rows = [list(columns), *([column[k] for column in columns.values()] for k in range(3))]
    table = [",".join(f'"{cell}"' for cell in row) for row in rows]
    before = [
        "==PROF== Connected to process 4711 (/usr/bin/python3.11)",
        '==PROF== Profiling "resident": 0%....100% - 12 passes',
    ]
    return "\n".join([*before, "==PROF== Disconnected from process 4711", *table, ""])


def test_the_examples() -> None:
    found = doctest.testmod(ncu)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_table_of_ncu_is_read() -> None:
    first, second = (ncu.facts(columns) for columns in ncu.launches(raw(COLUMNS)))
    assert first == {
        "kernel": "resident", "grid": "8,1,1", "block": "256,1,1", "us": pytest.approx(432.128), "fma_percent": 21.4,
        "tensor_percent": None, "shared_percent": 38.2, "l2_percent": 1.5, "memory_percent": 0.25,
        "memory_bytes_per_second": None, "busy_percent": None, "issue_percent": None, "occupancy_percent": 12.5,
        "possible_occupancy_percent": None, "registers": 96.0, "shared_bytes": 204800.0, "waves": None, "passes": None,
        "stalls": [("barrier", 40.0), ("wait", 25.0), ("long scoreboard", 20.0)],
    }  # fmt: skip
    assert second["kernel"] == "cutlass::Kernel2<A, 8>"
    assert second["fma_percent"] == 99, "the next best counter, where there is no better one"
    assert second["shared_bytes"] is None
    assert second["stalls"] == [("long scoreboard", 45.0), ("wait", 15.0), ("barrier", 5.0)], "who is selected runs"


def test_units_that_ncu_has_chosen() -> None:
    scaled = COLUMNS | {
        "gpu__time_duration.sum": ("us", "432.128", "0.2"),
        "launch__shared_mem_per_block": ("Kbyte/block", "204.8", "1"),
    }
    first, _ = (ncu.facts(columns) for columns in ncu.launches(raw(scaled)))
    assert (first["us"], first["shared_bytes"]) == (pytest.approx(432.128), pytest.approx(204800))


@pytest.mark.parametrize(
    "text", ["", "==ERROR== nothing\n", '"ID","Kernel Name"\n', '"ID","Kernel Name"\n"",""\n"0"\n']
)
def test_what_is_no_table_has_no_launches(text: str) -> None:
    assert list(ncu.launches(text)) == []


def test_the_table_for_readers() -> None:
    kernels = [ncu.facts(columns) for columns in ncu.launches(raw(COLUMNS))]
    part = {
        "status": "failed",
        "targets": {
            "nielsen, persistent": {"status": "ok", "steps": 32, "kernels": kernels},
            "wide-bf16, wide": {"status": "failed", "why": "it took too long", "kernels": []},
        },
    }
    text = "\n".join(tables.counters(json.loads(json.dumps(part, allow_nan=False))))
    row = "| resident | barrier 40, wait 25, long scoreboard 20 | 432 | 21.4 |  | 38.2 | 1.5 | 0.25 |  |  | 12.5 () |"
    assert f"{row} 96 | 8 x 256 |" in text
    assert "32,10 x 128" in text
    assert "**nielsen, persistent**, 32 steps\n" in text
    assert "**wide-bf16, wide**\n\nFailed: it took too long." in text
    assert "Not measured: no." in "\n".join(tables.counters({"status": "skipped", "why": "no", "targets": {}}))


# ------------------------------------------------------------------------------------------ under ncu, or a play of it

FAKE_NCU = """#!/bin/sh
# writes its command line, and plays ncu: the text for its log file is beside it
echo "$@" >> "{folder}/asked"
if [ "$1" = --version ]; then echo "Version 2025.4.0.0"; exit 0; fi
while [ "$1" != --log-file ]; do shift; done
cp "{folder}/log" "$2"
cat "{folder}/said"
exit {code}
"""


@pytest.fixture
def plays_ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a program in the place of ncu; return what sets its words."""

    def play(log: str, said: str = "", code: int = 0) -> Path:
        program = tmp_path / "ncu"
        program.write_text(FAKE_NCU.format(folder=tmp_path, code=code), "utf-8")
        program.chmod(0o755)
        (tmp_path / "log").write_text(log, "utf-8")
        (tmp_path / "said").write_text(said, "utf-8")
        return tmp_path / "asked"

    monkeypatch.setattr(ncu, "find_ncu", lambda: str(tmp_path / "ncu"))
    monkeypatch.setattr(counters, "prepare", lambda targets, seconds: None)
    return play


def looked(seconds: float = 60.0, targets: Any = None) -> tuple[dict[str, Any], list[int]]:
    written: list[int] = []
    targets = targets or (counters.Target("nielsen", "persistent", ("resident",), steps=32, most=1),)
    found = counters.measure(seconds, lambda result: written.append(len(result["targets"])), lambda text: None, targets)
    return found, written


def test_a_target_is_looked_at(plays_ncu: Any) -> None:
    asked = plays_ncu(raw(COLUMNS))
    found, written = looked(targets=(*counters.TARGETS[:1], counters.Target("wide-bf16", "wide")))
    assert (found["status"], found["ncu"], written) == ("ok", "Version 2025.4.0.0", [1, 2])
    names = [kernel["kernel"] for kernel in found["targets"]["wide-bf16, wide"]["kernels"]]
    assert names == ["resident", "cutlass::Kernel2<A, 8>"]
    _, first, second = asked.read_text("utf-8").splitlines()
    for words in ("--clock-control none", "--profile-from-start off", "--page raw", "--kernel-name regex:^(resident)$"):
        assert words in first
    assert first.endswith("-m benchmarks.gpu.few_steps digits-small persistent --steps 32")
    assert "--kernel-name" not in second, "all kernels"


def test_no_ncu_and_no_permission_are_said_and_are_no_failure(
    plays_ncu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plays_ncu("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters\n", code=1)
    found, _ = looked()
    assert found["status"] == "skipped"
    assert "ERR_NVGPUCTRPERM" in found["why"]
    monkeypatch.setattr(ncu, "find_ncu", lambda: None)
    assert looked()[0]["why"] == "ncu (Nsight Compute) is not installed"
    assert counters.main(["--output", str(tmp_path / "found.json")]) == 1
    assert json.loads((tmp_path / "found.json").read_text("utf-8"))["status"] == "skipped"


def test_a_name_that_ncu_does_not_know_is_left_out_with_all_others(plays_ncu: Any) -> None:
    asked = plays_ncu("==ERROR== Failed to find metric dram__nonsense.sum\n", code=1)
    found, _ = looked()
    assert (found["status"], found["targets"]["nielsen, persistent"]["status"]) == ("failed", "failed")
    assert "Failed to find metric" in found["targets"]["nielsen, persistent"]["why"]
    _, first, second = asked.read_text("utf-8").splitlines()
    assert "--metrics" in first
    assert "--metrics" not in second
    assert "--section SpeedOfLight" in second


def test_what_a_plan_cannot_do_and_what_there_was_no_time_for(plays_ncu: Any) -> None:
    plays_ncu("==ERROR== The application returned an error code (2).\n", "nothing was run: no GPU is here\n", 2)
    found, _ = looked()
    assert (found["status"], found["why"]) == ("skipped", "no GPU is here"), "nothing was looked at"
    assert found["targets"]["nielsen, persistent"]["why"] == "no GPU is here"
    found, written = looked(seconds=0.0)
    assert (found["status"], written) == ("out of time", [])
    assert found["targets"]["nielsen, persistent"]["status"] == "not done"


def test_the_targets_are_workloads_of_the_race() -> None:
    assert {target.workload for target in counters.TARGETS} <= set(workloads.WORKLOADS)
    assert len({target.name for target in counters.TARGETS}) == len(counters.TARGETS)


# ------------------------------------------------------------------------------------------ the steps


@pytest.mark.parametrize("plan", ["persistent", "graph"])
def test_only_the_last_steps_are_looked_at(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """What is launched between start and stop is what the steps need, and nothing is built or captured there."""
    monkeypatch.setattr(bp, "get_backend", lambda name: fake_backend)
    seen: list[tuple[Any, int, int]] = []

    def look() -> None:
        seen.append((fake_cupy.count.copy(), len(fake_cupy.launches), len(fake_backend.gpu.loader._modules)))

    fake_cupy.cuda.runtime.profilerStart = fake_cupy.cuda.runtime.profilerStop = look
    assert few_steps.take("smoke", plan, 3) == plan
    (before, first, built), (after, last, built_then) = seen
    assert built == built_then > 0
    assert after["graph"] - before["graph"] == (3 if plan == "graph" else 0)
    names = [name for name, _, _ in fake_cupy.launches[first:last]]
    assert names.count("resident") == (1 if plan == "persistent" else 0), "all steps in one launch"
    assert "forward" not in names, "that was captured before"


def test_without_a_gpu_the_steps_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    if "cupy" in [status.name for status in bp.backends() if status.usable]:
        pytest.skip("there is a GPU here")
    assert few_steps.main(["smoke", "graph"]) == 2
    assert capsys.readouterr().err.startswith("nothing was run: backend 'cupy' cannot run")
