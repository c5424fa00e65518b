"""The acceptance for GPU machines: it refuses without a GPU, bounds its time, and says what it did not do."""

from __future__ import annotations

import copy
import doctest
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bpcore.kernels.cuda import host_runner

# by name, because the benchmarks are no part of what is type-checked
acceptance: Any = importlib.import_module("benchmarks.gpu_acceptance")
here: Any = importlib.import_module("benchmarks.gpu.here")
parts: Any = importlib.import_module("benchmarks.gpu.parts")
report: Any = importlib.import_module("benchmarks.gpu.report")
sanitized: Any = importlib.import_module("benchmarks.gpu.sanitized")
schedule: Any = importlib.import_module("benchmarks.gpu.schedule")

MACHINE = {
    "when": "2026-01-01T00:00:00+00:00", "gpu": None, "processor": "p", "cores": 2, "python": "3", "system": "s",
    "versions": {"numpy": "2.4"}, "commit": "c", "changed_files": 0,
}  # fmt: skip
PART = {"status": "ok", "seconds": 1.0, "limit_seconds": 9}
TIMES = {"median": 2.0, "q1": 1.5, "q3": 2.5, "least": 1.0, "rounds": [1.0, 2.0, 3.0]}
COSTS = PART | {
    "second_level_cache": 10**9,
    "parts": {
        # 1 GFLOP/s, so that the 2112 operations of smoke take 2.112 us
        "products": {"status": "ok", "best_tflops": {"float32": 1e-3}},
        "copies": {"status": "ok", "device_gb_per_s": 1000.0},
        "steps": {"status": "failed", "why": "RuntimeError: no"},
    },
}


def contestant(**changes: Any) -> dict[str, Any]:
    return {
        "status": "ok", "us_per_step": TIMES, "prepared_in_s": 0.5, "off": 1e-7, "over_best_torch": 1.0, "facts": {},
    } | changes  # fmt: skip


def result_of(dry_run: bool = True, **contestants: dict[str, Any]) -> dict[str, Any]:
    raced = contestants or {"torch": contestant(), "bpcore-auto": contestant()}
    row = {"flops": 2112, "at_most_us": 3.0, "precision": "float32", "contestants": raced}
    found = {
        "tests": PART | {"counts": {"passed": 3}},
        "sanitizers": {"memcheck": {"status": "not done", "why": "compute-sanitizer is not installed"}},
        "costs": COSTS,
        "race": PART | {"rows": {"smoke": row}},
    }
    about = MACHINE if dry_run else MACHINE | {"gpu": "NVIDIA H200, 580"}
    return {"dry_run": dry_run, "machine": about, "asked": list(found), "parts": found}


def test_the_examples() -> None:
    for module in (acceptance, here, sanitized, schedule):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


def test_without_a_gpu_it_refuses_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert acceptance.main(["--output", str(tmp_path / "results")]) == 2
    told = capsys.readouterr().out
    assert "bpcore has no GPU here: backend 'cupy' cannot run: " in told, "the words of the backend, and what to do"
    assert "Nothing was run and nothing written" in told
    assert list(tmp_path.iterdir()) == []


FOUND = {
    "name": "NVIDIA L4", "capability": "8.9", "memory": 24 * 2**30, "cuda": 12090, "driver_cuda": 12080,
    "bus": "0000:81:00.0", "cupy": "14.2.0",
}  # fmt: skip


def test_the_gpu_that_is_named_is_the_one_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may have several; without nvidia-smi CUDA says what there is."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$2" = 0000:81:00.0 ] && echo "NVIDIA L4, 570.1, 23034 MiB, 8.9, 2040 MHz"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert here.smi(FOUND, tmp_path, dict(os.environ)) == "NVIDIA L4, 570.1, 23034 MiB, 8.9, 2040 MHz"
    by_cuda = "NVIDIA L4, CUDA 12080 by its driver, 24576 MiB, 8.9"
    assert here.smi(FOUND | {"bus": "0000:01:00.0"}, tmp_path, dict(os.environ)) == by_cuda
    program.unlink()
    assert here.smi(FOUND, tmp_path, dict(os.environ)) == by_cuda


def test_what_is_not_installed_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(here, "gpu", lambda *_: FOUND)
    monkeypatch.setattr(here, "find_ncu", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    monkeypatch.setattr(acceptance, "lay_out", lambda folder: dict(os.environ))
    monkeypatch.setitem(acceptance.PARTS, "costs", lambda *_: COSTS)
    monkeypatch.setitem(acceptance.PARTS, "profile", lambda *_: PART | {"status": "skipped", "why": "no ncu"})
    assert acceptance.main(["--only", "costs,profile", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.index("torch is not installed: nothing is compared with PyTorch") < told.index("costs (at most")
    (file,) = tmp_path.glob("gpu-nvidia-l4-*.json")
    found = json.loads(file.read_text("utf-8"))
    assert set(found["missing"]) == {"torch", "ncu"}, "and nothing that no part asks for"
    assert found["machine"]["cuda"] == FOUND
    assert "- not installed: ncu: the counters of the GPU are not read" in file.with_suffix(".md").read_text("utf-8")


def test_what_has_no_group_of_processes_is_ended_as_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, played: there is no killpg, and taskkill ends a process with those that it has started."""
    program = tmp_path / "taskkill"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delattr(os, "killpg")
    part = parts.run([sys.executable, "-c", "import time; time.sleep(60)"], 1, tmp_path, dict(os.environ))
    assert part["status"] == "out of time"
    assert part["seconds"] < 20
    assert (tmp_path / "asked").read_text("utf-8").startswith("/F /T /PID ")
    assert parts.run([sys.executable, "-c", ""], 20, tmp_path, dict(os.environ))["status"] == "ok"


def test_a_part_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        acceptance.main(["--only", "tests,rase"])
    assert "there is no part rase; parts: tests, sanitizers, race, costs, profile" in capsys.readouterr().err


def test_what_was_not_done_is_said_and_counts() -> None:
    mine = {"bpcore-auto": contestant()}
    good = result_of(torch=contestant(), other={"status": "skipped", "why": "not supported: dropout"}, **mine)
    table = report.markdown(good)
    assert table.startswith("# DRY RUN: no GPU was used, these are not GPU results")
    assert "- compute-sanitizer memcheck: not done (compute-sanitizer is not installed)" in table
    assert "- other: skipped: not supported: dropout" in table
    assert "| steps | failed: RuntimeError: no |" in table
    assert acceptance.complete(good)
    assert "GPU run on NVIDIA H200" in report.markdown(result_of(False))

    good["parts"]["profile"] = {"status": "skipped", "why": "ncu is not installed"}
    assert acceptance.complete(good), "a machine that keeps its counters to itself"

    def spoilt(*path: str, value: Any) -> dict[str, Any]:
        bad = copy.deepcopy(good)
        place: Any = bad
        for word in path[:-1]:
            place = place[word]
        place[path[-1]] = value
        return bad

    rows = "parts", "race", "rows", "smoke", "contestants"
    for bad in (
        spoilt("parts", "tests", "status", value="out of time"),
        spoilt("parts", "race", "status", value="out of time"),
        spoilt(*rows, "torch", "status", value="differs"),
        spoilt(*rows, "other", value={"status": "failed", "why": "ArithmeticError"}),
        spoilt(*rows, value={}),
        spoilt("parts", "bench", value={"status": "failed"}),
        spoilt("parts", "crossovers", value={"status": "failed"}),
        spoilt("parts", "profile", value={"status": "out of time"}),
        spoilt("asked", value=["tests", "unheard-of"]),
        spoilt("dry_run", value=False),  # on a GPU memcheck must be done
        spoilt("parts", "tests", "counts", value={"skipped": 900}),
        spoilt("parts", "tests", "counts", value={"passed": 3, "error": 1}),
        spoilt("parts", "race", "rows", value={}),
    ):
        assert not acceptance.complete(bad)

    nothing = {"dry_run": False, "asked": ["profile"], "parts": {"profile": good["parts"]["profile"]}}
    assert not acceptance.complete(good | nothing), "all that was asked for was skipped"
    good |= {"dry_run": False}
    good["parts"]["sanitizers"]["memcheck"]["status"] = "ok"
    assert acceptance.complete(good)
    refused = {"status": "skipped", "why": "backend 'cupy' cannot run"}
    bad = spoilt(*rows, "bpcore-auto", value=refused)
    assert not acceptance.complete(bad), "nothing of bpcore was raced"
    bad["parts"]["race"]["rows"]["smoke"]["precision"] = "bf16"
    assert acceptance.complete(bad), "which not every GPU can do"


def test_the_table_by_hand() -> None:
    slow = contestant(us_per_step=TIMES | {"median": 8.0}, over_best_torch=4.0, status="differs", off=None)
    table = report.markdown(result_of(torch=slow, **{"bpcore-auto": contestant(facts={"ran": "graph"})}))
    first = "| bpcore-auto (graph) | 2 | 1 to 3 | 1 | 105.6 % | 0.5 | 1e-07 |"
    second = "| torch | 8 | 1 to 3 | 4 | 26.4 % | 0.5 | not finite (NO PARITY) |"
    assert f"{first}\n{second}\n" in table, "sorted by time, and the floor of 2.112 us as a share of it"
    assert "Goal: at most 3 µs: reached." in table
    without = result_of(torch=slow, **{"bpcore-numba": contestant()})  # the goals are those of a GPU
    del without["parts"]["costs"]
    assert "Goal: at most 3 µs: not measured." in report.markdown(without)
    assert "| torch | 8 | 1 to 3 | 4 |  | 0.5 | not finite (NO PARITY) |" in report.markdown(without)


RACED = "Race reported between Write access at resident+0x3d0 and Write access at resident+0x1620 [8 hazards]"
SANITIZED = """a.py::test_one[x] PASSED [ 50%]
tests/b.py::test[gpu-two blocks-masked rows] ========= Error: Race reported between Write access at resident+0x3d0
=========     and Write access at resident+0x1620 [8 hazards]
=========
========= Error: Race reported between Write access at resident+0x3d0
=========     and Write access at resident+0x1620 [8 hazards]
=========
PASSED [ 30%]
a.py::test_two FAILED [100%]
========= Invalid __global__ read of size 4 bytes
=========     at forward+0x10
=========     by thread (3,0,0) in block (0,0,0)
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""


def test_an_interrupted_sanitizer_says_how_far_it_came_and_what_it_found() -> None:
    found = sanitized.findings(SANITIZED)
    assert (found["passed"], found["reports"]) == (2, 3)
    told = f"2 tests of {len(sanitized.TESTS)} passed, 3 reports"
    assert found["summary"] == f"RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings); {told}"
    assert found["found"] == [
        {"test": "tests/b.py::test[gpu-two blocks-masked rows]", "report": f"Error: {RACED}", "times": 2},
        {"test": "a.py::test_two", "report": "Invalid __global__ read of size 4 bytes at forward+0x10", "times": 1},
    ]
    assert sanitized.findings("")["summary"] == f"0 tests of {len(sanitized.TESTS)} passed, 0 reports"
    result = result_of()
    result["parts"]["sanitizers"] = {"racecheck": {"status": "failed", **found}}
    assert f"    - tests/b.py::test[gpu-two blocks-masked rows]: Error: {RACED} (2 times)" in report.markdown(result)


def test_every_part_ends_in_time_and_so_does_what_it_started(tmp_path: Path) -> None:
    child = "import pathlib, time; time.sleep(8); pathlib.Path('outlived').touch()"
    text = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    text += "print('begun', flush=True); time.sleep(60)"
    begun = time.monotonic()
    part = parts.run([sys.executable, "-c", text], 2, tmp_path, dict(os.environ))
    assert part["status"] == "out of time"
    assert part["output"].split()[0] == "begun"
    assert part["seconds"] < 20
    part = parts.run(["/no/such/program"], 1, tmp_path, {})
    assert part["status"] == "could not start"
    part = parts.run([sys.executable, "-c", "raise SystemExit(3)"], 20, tmp_path, dict(os.environ))
    assert (part["status"], part["returncode"]) == ("failed", 3)
    time.sleep(max(0.0, begun + 11 - time.monotonic()))
    assert not (tmp_path / "outlived").exists()


@pytest.mark.parametrize(
    ("ended_with", "said", "status"),
    [
        ("out of time", "ok", "out of time"), ("ok", "ok", "ok"), ("failed", "out of time", "out of time"),
        pytest.param("failed", "ok", "failed", id="it broke down after writing"),
    ],
)  # fmt: skip
def test_what_a_module_wrote_before_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_with: str, said: str, status: str
) -> None:
    def ended(command: list[str], *_: Any) -> dict[str, Any]:
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"status": said, "rows": {"a": 1}}))
        return {"status": ended_with, "seconds": 1.0, "limit_seconds": 1, "output": ""}

    monkeypatch.setattr(acceptance, "run", ended)
    assert acceptance.module("race", tmp_path, {}, 1.0) == {
        "status": status, "rows": {"a": 1}, "seconds": 1.0, "limit_seconds": 1, "output": "",
    }  # fmt: skip


def test_files_are_written_after_each_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A part that brings everything down leaves those before it."""

    def breaks(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(acceptance, "machine", lambda commit: MACHINE)
    monkeypatch.setattr(acceptance, "lay_out", lambda folder: {})
    monkeypatch.setitem(acceptance.PARTS, "tests", lambda *_: PART | {"counts": {"passed": 3}})
    monkeypatch.setitem(acceptance.PARTS, "costs", breaks)
    with pytest.raises(KeyboardInterrupt):
        acceptance.main(["--dry-run", "--only", "costs,tests", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "dry-run.json").read_text("utf-8"))
    assert list(found["parts"]) == ["tests"]
    assert "- costs: not done" in (tmp_path / "dry-run.md").read_text("utf-8")


def test_the_laid_out_package_is_found_as_an_installed_one(tmp_path: Path) -> None:
    environment = acceptance.lay_out(tmp_path)
    assert environment["PYTHONPATH"] == str(tmp_path)
    assert "gpu: needs a CUDA device" in (tmp_path / "pytest.ini").read_text("utf-8")
    text = "import importlib.metadata, bpcore.kernels as k; print(importlib.metadata.version('bpcore'), k.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    version, file = done.stdout.split()
    assert version == importlib.import_module("bpcore").__version__
    assert Path(file).is_relative_to(tmp_path / "bpcore" / "kernels")


def test_measuring_waits_for_tests_and_compiling_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The race begins at once, and finds its gate when the tests have ended; the parts after it begin in turn."""
    told: list[str] = []
    begun = threading.Event()

    def fake(name: str) -> Any:
        def part(folder: Path, environment: dict[str, str], limit: float, dry: bool) -> dict[str, Any]:
            gate = folder / acceptance.GATE.format(name)
            if name == "race":
                begun.set()
                while not gate.exists():
                    time.sleep(0.01)
            if name == "tests":
                assert begun.wait(20), "the race compiles meanwhile"
                assert not (folder / acceptance.GATE.format("race")).exists()
            told.append(f"{name} {limit / 60:.1f}")
            assert gate.exists()
            if name in ("race", "tests"):
                return dict(result_of()["parts"][name])
            return PART | {"rows": {}, "targets": {}, "result": None}

        return part

    monkeypatch.setattr(acceptance, "machine", lambda commit: MACHINE)
    monkeypatch.setattr(acceptance, "lay_out", lambda folder: {})
    for name in acceptance.PARTS:
        monkeypatch.setitem(acceptance.PARTS, name, fake(name))
    words = ["--dry-run", "--minutes", "100", "--only", "bench,tests,crossovers,race,profile", "--cache", "kept"]
    assert acceptance.main([*words, "--output", str(tmp_path)]) == 0
    assert told == ["tests 28.9", "race 72.2", "profile 44.4", "crossovers 66.7", "bench 100.0"]


def test_two_calls_are_all_parts_and_fit_into_a_quarter_of_an_hour() -> None:
    assert {part for parts in schedule.CALLS for part in parts} == set(acceptance.PARTS) == set(schedule.ORDER)
    assert sum(schedule.CALLS.values()) < 12
    for call, minutes in schedule.CALLS.items():
        assert list(call) == [part for part in schedule.ORDER if part in call]
        assert f"--minutes {minutes:g} --cache /tmp/gpu-cache --only {','.join(call)}" in acceptance.__doc__


def test_a_run_of_tests_that_is_ended_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_a(): pass\ndef test_b(): assert False, 'b is wrong'\ndef test_c(): time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    part = parts.run(command, 4, tmp_path, dict(os.environ))
    assert part["status"] == "out of time"
    assert "b is wrong" in part["output"]
    assert acceptance.counts(part["output"]) == {"failed": 1, "passed": 1}


def test_tests_stop_in_time_to_say_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ended(command: list[str], *_: Any) -> dict[str, Any]:
        asked.append(command)
        told = (
            "FAILED a.py::test_b\n!!! Interrupted: 80 seconds are over (--stop-after) !!!\n1 failed, 7 passed in 82.13s"
        )
        return PART | {"status": "failed", "output": told}

    monkeypatch.setattr(acceptance, "run", ended)
    found = acceptance.tests(tmp_path, {"BPCORE_CACHE_DIR": "/kept"}, 100.0, False)
    assert (found["status"], found["counts"]) == ("out of time", {"failed": 1, "passed": 7})
    assert {"--stop-after=80", "--kept-cache=/kept/tests"} <= set(asked[0])
    assert asked[0][-1] == "cupy" or "-n" in asked[0]


def test_a_sanitizer_that_saw_no_kernel_has_not_succeeded() -> None:
    """Tests that were skipped are counted once, and are no reason to be content when there are no others."""
    run = PART | {"command": "x", "output": ""}

    def judged(passed: int, skipped: int) -> dict[str, Any]:
        lines = ["a.py::test PASSED [ 50%]"] * passed + ["a.py::test SKIPPED (no clusters here) [ 60%]"] * skipped
        lines += ["=== short test summary info ===", "SKIPPED [1] a.py:3: no clusters here"]
        return dict(sanitized.merged([run | {"output": "\n".join(lines)}, run]))

    count = len(sanitized.TESTS)
    assert judged(count, 0)["status"] == judged(count - 4, 4)["status"] == "ok"
    assert judged(count - 4, 4)["summary"] == f"{count - 4} tests of {count} passed, 4 skipped, 0 reports"
    assert judged(0, count)["status"] == judged(count - 1, 0)["status"] == "failed"


FAKE_SANITIZER = """#!/bin/sh
# plays compute-sanitizer: writes what it was asked, and a report of one tool
echo "$@" >> "{folder}/asked"
for test in $(seq {tests}); do echo "a.py::test_one[x] PASSED [ 50%]"; done
case "$2" in racecheck)
    echo "========= Race reported between Write access at k+0x10 and Read access at k+0x20 [4 hazards]"; exit 99;; esac
"""


def test_the_sanitizers_share_the_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "compute-sanitizer"
    each = len(sanitized.TESTS) // sanitized.SHARDS
    program.write_text(FAKE_SANITIZER.format(folder=tmp_path, tests=each), "utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(program))
    warmed: list[list[str]] = []
    run = sanitized.run

    def only_the_play(command: list[str], limit: float, *others: Any) -> dict[str, Any]:
        if command[0] == sys.executable:
            warmed.append(command)
            return PART | {"output": "", "seconds": 40.0}
        assert limit == 60, "what is left of 100 s after 40"
        return dict(run(command, limit, *others))

    monkeypatch.setattr(sanitized, "run", only_the_play)
    found = sanitized.sanitizers(tmp_path, dict(os.environ), 100.0, False, tmp_path / "cache")
    assert (found["memcheck"]["status"], found["memcheck"]["passed"]) == ("ok", len(sanitized.TESTS))
    assert (found["racecheck"]["status"], found["racecheck"]["reports"]) == ("failed", sanitized.SHARDS)
    assert found["racecheck"]["of"] == len(sanitized.TESTS)
    asked = (tmp_path / "asked").read_text("utf-8")
    for test in sanitized.named("gpu"):
        assert asked.count(test) == 2, "once by each tool"
        assert sum(test in command for command in warmed) == 1, "and once before, to compile"
    result = result_of()
    result["parts"]["sanitizers"] = found
    told = f"{len(sanitized.TESTS)} tests of {len(sanitized.TESTS)}"
    assert f"racecheck: failed ({told} passed, 2 reports)" in report.markdown(result)


def kernels_of(folders: list[Path]) -> set[str]:
    """All kernels whose source is in a file, apart from those that are printed for a formula."""
    pattern = r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\("
    texts = [path.read_text("utf-8") for folder in folders for path in folder.glob("*.cu*")]
    return {name for text in texts for name in re.findall(pattern, text)}


RECORDER = """
import json, pathlib
from bpcore.kernels.cuda import build
seen, function = set(), build.KernelLoader.function

def recorded(self, source, name):
    seen.add(name)
    return function(self, source, name)

build.KernelLoader.function = recorded

def pytest_sessionfinish(session):
    pathlib.Path("seen.json").write_text(json.dumps(sorted(seen)))
"""


@pytest.mark.slow
def test_each_kernel_runs_under_a_sanitizer(tmp_path: Path, kernel_folder: Path) -> None:
    """Over the stand-in for CuPy, where the same tests load the same kernels."""
    if host_runner.unavailable():
        pytest.skip(host_runner.unavailable())
    (tmp_path / "recorder.py").write_text(RECORDER, "utf-8")
    (tmp_path / kernel_folder.name).symlink_to(kernel_folder)  # what others have built need not be built again
    tests = [str(acceptance.ROOT / test) for test in sanitized.named("stand-in")]
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "recorder", "--rootdir", str(acceptance.ROOT)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, f"--kept-cache={tmp_path}", *tests],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tests)} passed" in done.stdout
    seen = json.loads((tmp_path / "seen.json").read_text("utf-8"))
    known = kernels_of([acceptance.ROOT / "kernels" / "cuda"]) | {"resident"}
    assert len(known) > 45
    assert known - set(seen) == set()


@pytest.mark.slow
def test_the_dry_run(tmp_path: Path, cache_dir: Path) -> None:
    """All that can run without a GPU does: the tests over the stand-in, the costs up to the GPU, and the race."""
    command = [sys.executable, "benchmarks/gpu_acceptance.py", "--dry-run", "--minutes", "4", "--output", str(tmp_path)]
    command += ["--cache", str(cache_dir)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=acceptance.ROOT, env=environment, capture_output=True, text=True, check=False)
    found = json.loads((tmp_path / "dry-run.json").read_text("utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["parts"]["tests"]["counts"]["passed"] > 10
    assert found["parts"]["costs"]["status"] == "failed", "without a GPU"
    assert found["parts"]["profile"]["status"] in ("skipped", "ok")
    assert [set(row["us"]) for row in found["parts"]["crossovers"]["rows"]] == [{"reference", "compiled"}] * 2
    rows = found["parts"]["race"]["rows"]["smoke"]["contestants"]
    assert {rows[name]["status"] for name in ("bpcore-numpy", "bpcore-numba")} == {"ok"}
    assert all(row["status"] in ("ok", "skipped") for row in rows.values())
    assert len(rows["bpcore-numpy"]["us_per_step"]["rounds"]) > 1


def test_it_starts_in_a_checkout_that_was_not_installed(tmp_path: Path) -> None:
    for name in ("bpcore", "kernels", "benchmarks", "tests", "docs"):
        shutil.copytree(acceptance.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(acceptance.ROOT / "pyproject.toml", tmp_path)
    # what an editable installation of the environment of the tests would find
    text = (
        "import runpy, sys\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder).lower()]\n"
        "sys.argv = ['', '--dry-run', '--only', 'costs', '--minutes', '0.5', '--output', 'found']\n"
        "runpy.run_path('benchmarks/gpu_acceptance.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "found" / "dry-run.json").exists()


OLDER = """
import os
from tests.backends import fake_cupy

fake_cupy.CAPABILITY = tuple(map(int, os.environ["STAND_IN"].split(".")))
fake_cupy.SHARED_MEMORY = int(os.environ["STAND_IN_KIB"]) * 1024
"""


@pytest.mark.long
@pytest.mark.parametrize(("capability", "kib"), [("7.5", "64"), ("8.9", "99")], ids=["T4", "L4 and RTX 4090"])
def test_the_suite_fails_on_no_older_gpu(tmp_path: Path, kernel_folder: Path, capability: str, kib: str) -> None:
    """What such a device cannot do is skipped; over the stand-in for CuPy, told that it is one."""
    if host_runner.unavailable():
        pytest.skip(host_runner.unavailable())
    (tmp_path / "older.py").write_text(OLDER, "utf-8")
    (tmp_path / kernel_folder.name).symlink_to(kernel_folder)
    words = ["-q", "-p", "no:cacheprovider", "-p", "older", "-k", "stand-in", f"--kept-cache={tmp_path}"]
    places = [str(acceptance.ROOT / "tests" / name) for name in ("training", "backends")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{acceptance.ROOT}"}
    environment |= {"STAND_IN": capability, "STAND_IN_KIB": kib}
    command = [sys.executable, "-m", "pytest", *words, *places]
    done = subprocess.run(command, cwd=acceptance.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    found = acceptance.counts(done.stdout)
    assert found["passed"] > 300
    assert found["skipped"] > 30
