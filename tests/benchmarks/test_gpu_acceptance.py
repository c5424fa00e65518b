"""The acceptance script for GPU machines: it refuses without a GPU, bounds its time, and says what it did not do."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# by name, because the benchmarks are no part of what is type-checked
gpu_acceptance: Any = importlib.import_module("benchmarks.gpu_acceptance")
step_throughput: Any = importlib.import_module("benchmarks.step_throughput")

MACHINE = {
    "when": "2026-01-01T00:00:00+00:00", "gpu": None, "processor": "p", "cores": 2, "python": "3", "system": "s",
    "versions": {"numpy": "2.4"}, "commit": "c", "changed_files": 0,
}  # fmt: skip


def _row(engine: str, losses: list[float], **changes: Any) -> dict[str, Any]:
    row = {
        "status": "ok", "workload": "smoke", "engine": engine, "losses": losses, "finite_at_the_end": True,
        "us_per_step": 2.0, "us_per_step_min": 1.0, "us_per_step_max": 3.0, "start_up_seconds": 0.5,
    }  # fmt: skip
    return row | changes


def _result(*rows: dict[str, Any], dry_run: bool = True) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "machine": MACHINE if dry_run else MACHINE | {"gpu": "NVIDIA H200, 580"},
        "tests": {"status": "ok", "counts": {"passed": 3}, "seconds": 1.0},
        "sanitizers": {"memcheck": {"status": "not done", "why": "compute-sanitizer is not installed"}},
        "throughput": {"rows": gpu_acceptance.compare_losses(list(rows))},
    }


def test_without_a_gpu_it_refuses_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_acceptance, "machine", lambda: MACHINE)
    assert gpu_acceptance.main(["--output", str(tmp_path)]) == 2
    assert "nothing was run and nothing written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_parity_needs_equal_and_finite_losses() -> None:
    nan = float("nan")
    rows = [
        _row("a", [1.0, 0.5]), _row("b", [1.0, 0.5001]), _row("c", [1.0, 0.6]), _row("d", [1.0, nan]),
        _row("e", [1.0, 0.5], finite_at_the_end=False), {"status": "failed", "workload": "smoke", "engine": "f"},
    ]  # fmt: skip
    gpu_acceptance.compare_losses(rows)
    assert [row.get("parity") for row in rows] == [True, True, False, False, False, None]


def test_what_was_not_done_is_said_and_counts() -> None:
    failed = {"status": "out of time", "workload": "smoke", "engine": "b", "why": "no output"}
    table = gpu_acceptance.markdown(_result(_row("a", [1.0]), failed))
    assert table.startswith("# DRY RUN: no GPU was used, these are not GPU results")
    assert "compute-sanitizer memcheck: not done (compute-sanitizer is not installed)" in table
    assert "| smoke | b | out of time: no output | | |" in table
    assert "| smoke | a | 2.0 (1.0 to 3.0) | 0.5 | yes (0.0e+00) |" in table
    assert gpu_acceptance.complete(_result(_row("a", [1.0])))
    assert not gpu_acceptance.complete(_result(_row("a", [1.0]), failed))
    assert not gpu_acceptance.complete(_result(_row("a", [1.0]), dry_run=False)), "memcheck was not done"
    assert "GPU run on NVIDIA H200" in gpu_acceptance.markdown(_result(_row("a", [1.0]), dry_run=False))


def test_every_part_ends_in_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    part = gpu_acceptance.run(command, 1, tmp_path, dict(os.environ))
    assert part["status"] == "out of time"
    assert part["output"].strip() == "begun"
    assert part["seconds"] < 20
    part = gpu_acceptance.run(["/no/such/program"], 1, tmp_path, {})
    assert part["status"] == "could not start"
    part = gpu_acceptance.run([sys.executable, "-c", "raise SystemExit(3)"], 20, tmp_path, dict(os.environ))
    assert (part["status"], part["returncode"]) == ("failed", 3)


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    rows = gpu_acceptance.throughput(tmp_path, {}, 0, True, ["smoke"])["rows"]
    assert {row["status"] for row in rows} == {"not done"}


def test_the_laid_out_package_runs_a_workload(tmp_path: Path) -> None:
    environment = gpu_acceptance.lay_out(tmp_path)
    assert environment["PYTHONPATH"] == str(tmp_path)
    assert "gpu: needs a CUDA device" in (tmp_path / "pytest.ini").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.step_throughput", "smoke", "bpcore-numpy", "--steps", "3"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["losses"]) == step_throughput.PARITY_STEPS
    assert found["losses"][-1] < found["losses"][0]
    assert found["us_per_step_min"] <= found["us_per_step"] <= found["us_per_step_max"]
    assert found["facts"]["backend"]["name"] == "numpy"


@pytest.mark.witness
@pytest.mark.parametrize("workload", ["smoke", "nielsen"])
def test_pytorch_takes_the_same_steps(workload: str) -> None:
    """The comparison of engines compares like with like: the losses of bpcore and PyTorch agree step by step."""
    rows = [
        {"status": "ok", **step_throughput.measure(workload, engine, 2)}
        for engine in ("bpcore-numpy", "torch-eager-cpu")
    ]
    assert [row["parity"] for row in gpu_acceptance.compare_losses(rows)] == [True, True]
    assert rows[1]["loss_difference"] > 0, "two engines never agree in every bit: one was compared with itself"
