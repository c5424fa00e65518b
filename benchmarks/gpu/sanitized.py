"""The tests that run under compute-sanitizer, which makes a test ten to a hundred times slower.

They are few: each kernel runs in one of them, and those in which blocks wait for one another, the persistent and the
fused one and the products, in several. What hundreds of further shapes would add is left to the tests without one.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.here import find_sanitizer
from benchmarks.gpu.parts import run, tail

__all__ = ["TESTS", "TOOLS", "findings", "named", "sanitizers"]

TOOLS = ("memcheck", "racecheck")
SHARDS = 2
"""Processes of a tool; each takes every second test."""
WARM_SHARE = 0.3
"""Of the time, for running the tests once without a sanitizer: what they compile is compiled then, by many."""

REPORT = r"(?:Invalid|Error|Warning|Race|Barrier|Program hit|Potential).*"
"""What compute-sanitizer writes at the beginning of each of its findings, behind its mark."""
MOST_REPORTS = 20

_RESIDENT = "tests/training/test_persistent_plan.py::test_equals_the_reference"
_GRAPH = "tests/training/test_graph_plan.py"
_FUSED = "tests/training/test_fused_plan.py"
_LOWER = "tests/training/test_wide_plan.py::test_lower_precision_is_near_float64_and_not_float32"
_PLANES = "tests/training/test_wide_plan.py::test_two_planes_hold_what_is_read"
_INFERENCE = "tests/inference/test_cuda_results.py"
_BACKEND = "tests/backends/test_cupy_backend.py"

TESTS = (
    f"{_RESIDENT}[{{on}}-two blocks-masked rows-float32]",
    f"{_FUSED}::test_the_gradient_is_that_of_rounded_operands[{{on}}-ragged]",
    f"{_FUSED}::test_the_gradient_in_float32[{{on}}-ragged]",
    f"{_GRAPH}::test_equals_the_reference[{{on}}-graph-tiles-float32]",
    f"{_GRAPH}::test_equals_the_reference[{{on}}-graph-log-softmax rows-float32]",
    f"{_GRAPH}::test_equals_the_reference[{{on}}-wide-log-softmax rows-float32]",
    f"{_RESIDENT}[{{on}}-four blocks, two columns-log-softmax rows-float32]",
    f"{_GRAPH}::test_equals_the_reference[{{on}}-graph-norm-float64]",
    f"{_LOWER}[{{on}}-fp16-large]",
    f"{_LOWER}[{{on}}-fp16-dropped]",
    f"{_PLANES}[{{on}}-odd]",
    f"{_PLANES}[{{on}}-rows]",
    f"{_FUSED}::test_near_float64_and_not_float32[{{on}}-adam]",
    f"{_GRAPH}::test_outputs_of_more_columns_than_a_tile[{{on}}]",
    f"{_INFERENCE}::test_by_a_graph[{{on}}-float32-wider rows than a warp-33]",
    f"{_INFERENCE}::test_by_blocks[{{on}}-wide-rows inside-33]",
    f"{_INFERENCE}::test_by_blocks[{{on}}-wide-tiles-33]",
    f"{_INFERENCE}::test_few_samples[{{on}}-float32-sizes0]",
    f"{_BACKEND}::test_rows[{{on}}-shape6-float32]",
    f"{_BACKEND}::test_rows[{{on}}-shape0-float32]",
    f"{_BACKEND}::test_reductions[{{on}}-shape7-float32]",
    f"{_BACKEND}::test_row_hits[{{on}}-515-float32]",
    f"{_BACKEND}::test_take_rows[{{on}}-rest3-float32]",
    f"{_BACKEND}::test_random_bits[{{on}}-1025]",
    f"{_BACKEND}::test_dropout_mask_is_that_of_numpy[{{on}}-0.25-float32]",
    "tests/training/test_device_memory.py::test_parts_of_a_mask_on_the_device[{on}]",
    f"{_GRAPH}::test_divergence_is_found_and_the_parameters_before_it_are_kept[{{on}}-graph]",
    f"{_GRAPH}::test_a_watched_run_shows_every_quantity[{{on}}-graph]",
    f"{_RESIDENT}[{{on}}-each does all-tiles-float32]",
    f"{_RESIDENT}[{{on}}-one block-weights-float32]",
)
"""By their names in pytest, ``on`` a GPU or the stand-in for CuPy; the first ones matter most."""


def named(on: str) -> list[str]:
    """Return the tests on ``gpu`` or on the ``stand-in``.

    Examples
    --------
    >>> named("gpu")[0].partition("::")[2]
    'test_equals_the_reference[gpu-two blocks-masked rows-float32]'
    """
    return [test.format(on=on) for test in TESTS]


def sanitizers(folder: Path, environment: dict[str, str], limit: float, dry: bool, cache: Path) -> dict[str, Any]:
    """Run memcheck and racecheck at the same time, each in some processes.

    Parameters
    ----------
    folder : Path
        What :func:`benchmarks.gpu_acceptance.lay_out` has made.
    environment : dict
        Variables.
    limit : float
        Seconds.
    dry : bool
        Say why nothing is done.
    cache : Path
        Where the tests keep compiled code.

    Returns
    -------
    dict
        For each tool the status, how many tests passed, and what was found.
    """
    program = find_sanitizer()
    if program is None or dry:
        why = "compute-sanitizer is not installed" if program is None else "a dry run has no kernels on a GPU"
        return {tool: {"status": "not done", "why": why} for tool in TOOLS}
    pytest = [sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider", "--require-backend", "cupy"]
    pytest += [f"--kept-cache={cache}"]
    tests = named("gpu")
    shards = [tests[k::SHARDS] for k in range(SHARDS)]
    count = min(os.cpu_count() or 1, 2 * SHARDS)

    def warm(k: int) -> float:
        return float(run([*pytest, *tests[k::count]], WARM_SHARE * limit, folder, environment)["seconds"])

    def check(job: tuple[str, list[str]]) -> dict[str, Any]:
        tool, shard = job
        return run([program, "--tool", tool, "--error-exitcode", "99", *pytest, *shard], rest, folder, environment)

    jobs = [(tool, shard) for tool in TOOLS for shard in shards]
    with ThreadPoolExecutor(max(count, len(jobs))) as pool:
        rest = limit - max(pool.map(warm, range(count)))
        parts = list(pool.map(check, jobs))
    return {
        tool: merged([part for part, job in zip(parts, jobs, strict=True) if job[0] == tool]) for tool in TOOLS
    }  # fmt: skip


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One answer of several processes: the worst status, the ends of their output, what all of them found."""
    parts = list(parts)
    worst = next((part for part in parts if part["status"] != "ok"), parts[0])
    output = "\n".join(part["output"] for part in parts)
    facts = {name: worst[name] for name in ("status", "command", "limit_seconds")}
    seconds = max(part["seconds"] for part in parts)
    found = findings(output)
    if facts["status"] == "ok" and (not found["passed"] or found["passed"] + found["skipped"] < len(TESTS)):
        facts |= {"status": "failed"}  # nobody has complained, because not all of them have run
    return facts | {"seconds": seconds, "of": len(TESTS), **found, "output": tail(worst)["output"]}


def findings(output: str) -> dict[str, Any]:
    """What compute-sanitizer and pytest say, also of a run that did not come to its end.

    Examples
    --------
    >>> findings("a.py::test PASSED [ 10%]\\n========= Invalid __global__ read of size 4 bytes")["summary"]
    '1 tests of 30 passed, 1 reports'
    """
    passed = len(re.findall(r"(?:^|\s)PASSED\b", output, re.M))
    skipped = len(re.findall(r"(?:^|\s)SKIPPED\b(?! \[\d+\] )", output, re.M))  # and not where pytest sums up
    reports = len(re.findall(f"========= {REPORT}", output))
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", output)
    left = f", {skipped} skipped" if skipped else ""
    told = [*summary, f"{passed} tests of {len(TESTS)} passed{left}, {reports} reports"]
    counted = {"passed": passed, "skipped": skipped, "reports": reports}
    return counted | {"summary": "; ".join(told), "found": reported(output)}


def reported(output: str) -> list[dict[str, Any]]:
    """What was reported, each once with how often, and in which test first.

    Pytest has written the name of a test when the sanitizer interrupts the line.

    Examples
    --------
    >>> reported("t/a.py::test[x y] ========= Error: Race between A\\n=========     and B [8 hazards]\\nPASSED [9%]")
    [{'test': 't/a.py::test[x y]', 'report': 'Error: Race between A and B [8 hazards]', 'times': 1}]
    """
    found: dict[str, dict[str, Any]] = {}
    test, open_report = "", ""
    for line in [*output.splitlines(), ""]:
        _, mark, told = line.partition("========= ")
        name = re.match(r"\S+\.py::.*?(?= (?:PASSED|FAILED|ERROR|SKIPPED|=========)|$)", line)
        if open_report and not (mark and told.startswith(" ") and told.strip()):
            row = found.setdefault(open_report, {"test": test, "report": open_report, "times": 0})
            row["times"] += 1
            open_report = ""
        test = name[0].strip() if name else test
        if mark and re.match(REPORT, told):
            open_report = told.strip()
        elif mark and open_report and told.strip().startswith(("and ", "at ")):  # not which thread, and who called
            open_report += f" {told.strip()}"
    return list(found.values())[:MOST_REPORTS]
