"""Nsight Compute: its command line, and what it says, read into a few figures for each launch of a kernel.

``ncu --page raw --csv`` writes a line of names, a line of units and a line for each launch. Which counters a GPU has
differs from chip to chip, so each figure is looked for under several names and may be missing.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ALL_METRICS", "FIGURES", "command", "facts", "find_ncu", "launches", "refusal"]

SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "SchedulerStats", "WarpStateStats")

FIGURES = {
    "us": ("gpu__time_duration.sum",),
    "fma_percent": (
        "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
        "smsp__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
        "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active",
    ),
    "tensor_percent": (
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
        "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    ),
    "shared_percent": (
        "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_active",
        "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_elapsed",
    ),
    "l2_percent": (
        "lts__throughput.avg.pct_of_peak_sustained_elapsed",
        "lts__t_sectors.avg.pct_of_peak_sustained_elapsed",
    ),
    "memory_percent": (
        "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    ),
    "memory_bytes_per_second": ("dram__bytes.sum.per_second",),
    "busy_percent": ("sm__cycles_active.avg.pct_of_peak_sustained_elapsed",),
    "issue_percent": (
        "smsp__issue_active.avg.pct_of_peak_sustained_active",
        "sm__inst_issued.avg.pct_of_peak_sustained_active",
    ),
    "occupancy_percent": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "possible_occupancy_percent": ("sm__maximum_warps_per_active_cycle_pct",),
    "registers": ("launch__registers_per_thread",),
    "shared_bytes": ("launch__shared_mem_per_block",),
    "waves": ("launch__waves_per_multiprocessor",),
    "passes": ("profiler__replayer_passes",),
}
"""What is kept of a launch, and the names under which a version of ncu or a chip may have it, the best first.

Shares of FMA, tensor cores, shared memory and issue slots are of the multiprocessors that work while they work; those
of the second-level cache and of the memory are of the whole device for the whole time.
"""

ALL_METRICS = tuple(name for names in FIGURES.values() for name in names if not name.startswith("profiler__"))

STALLED = re.compile(r"smsp__average_warps?_(?:latency_)?issue_stalled_(\w+?)(_not_issued)?(?:_per_\w+)?\.ratio")
"""Warps that wait, by what for, for each instruction issued; or the cycles of an instruction, by what it waited for."""
TOP_STALLS = 3

PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BASES = ("second", "s", "byte")


def find_ncu() -> str | None:
    """Return the program, from the path or where CUDA and Nsight Compute are installed."""
    found = shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")
    if found is None:
        versions = sorted(Path("/opt/nvidia/nsight-compute").glob("*/ncu"))
        found = str(versions[-1]) if versions else None
    return found


def command(
    ncu: str, log: Path, kernels: Sequence[str], most: int, target: Sequence[str], *, more: bool = True
) -> list[str]:
    """Return the command that looks at some launches of a program.

    The clock stays as it is, and so do the caches: a training step finds in them what the one before has left.

    Parameters
    ----------
    ncu : str
        The program.
    log : Path
        The file it writes.
    kernels : sequence of str
        Names of kernels; empty for all.
    most : int
        Launches after which it looks no more.
    target : sequence of str
        What it runs. It looks at what is launched after ``cudaProfilerStart`` only.
    more : bool
        Whether it counts more than its sections do; a version that knows one of these names no more may refuse all.
    """
    words = [ncu, "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log)]
    words += ["--clock-control", "none", "--cache-control", "none", "--profile-from-start", "off"]
    words += ["--graph-profiling", "node"]  # each kernel of a CUDA graph, and not the graph as one
    words += ["--launch-count", str(most)]
    words += ["--kernel-name", f"regex:^({'|'.join(kernels)})$"] if kernels else []
    for section in SECTIONS:
        words += ["--section", section]
    words += ["--metrics", ",".join(ALL_METRICS)] if more else []
    return [*words, *target]


def refusal(text: str) -> str | None:
    """Why ncu may not look, if it says so; None if it may.

    Examples
    --------
    >>> refusal("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance")
    'the driver keeps its counters from this user (ERR_NVGPUCTRPERM); an administrator can allow them'
    >>> refusal("==PROF== Connected to process 1")
    """
    if "ERR_NVGPUCTRPERM" in text:
        return "the driver keeps its counters from this user (ERR_NVGPUCTRPERM); an administrator can allow them"
    if "another driver resource" in text or "Profiling is not supported" in text:
        lines = [line for line in text.splitlines() if line.startswith("==ERROR==")]
        return f"ncu cannot look here: {(lines or [text])[0].removeprefix('==ERROR==').strip()}"
    return None


def launches(text: str) -> Iterator[dict[str, tuple[str, str]]]:
    """Read what ncu wrote: for each launch the value and the unit in each column.

    Parameters
    ----------
    text : str
        With lines of its own (``==PROF==``) before and after the table; without a table there are no launches.
    """
    lines = text.splitlines()
    begin = next((k for k, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        return
    names, *rows = csv.reader([line for line in lines[begin:] if not line.startswith("==")])
    if not rows:
        return
    units, *rows = rows
    for row in rows:
        if len(row) == len(names):
            yield dict(zip(names, zip(row, units, strict=True), strict=True))


def number(value: str, unit: str) -> float | None:
    """Return a value in seconds, bytes, or whatever it is counted in; None if it is not there.

    Examples
    --------
    >>> number("1,234.5", "ns"), number("2.5", "Mbyte/second"), number("12", "%"), number("n/a", "%")
    (1.2345e-06, 2500000.0, 12.0, None)
    """
    try:
        found = float(value.replace(",", ""))
    except ValueError:
        return None
    if found != found:
        return None
    first = re.split(r"[/ ]", unit)[0]
    for base in BASES:
        if first.endswith(base) and first.removesuffix(base) in PREFIXES:
            return found * PREFIXES[first.removesuffix(base)]
    return found


def facts(columns: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return the figures of a launch, and what its warps waited for.

    Parameters
    ----------
    columns : mapping
        Of :func:`launches`.

    Returns
    -------
    dict
        ``kernel``, ``grid``, ``block``, the names of `FIGURES` (None where there is none), and ``stalls``: the largest
        shares, in percent, of the time that a warp waits between two instructions.
    """
    found: dict[str, Any] = {"kernel": columns.get("Kernel Name", ("", ""))[0].split("(")[0].removeprefix("void ")}
    for word, name in (("grid", "Grid Size"), ("block", "Block Size")):
        found[word] = re.sub(r"[() ]", "", columns.get(name, ("", ""))[0])
    for word, names in FIGURES.items():
        values = (number(*columns[name]) for name in names if name in columns)
        found[word] = next((value for value in values if value is not None), None)
    if found["us"] is not None:
        found["us"] *= 1e6
    return found | {"stalls": _stalls(columns)}


def _stalls(columns: Mapping[str, tuple[str, str]]) -> list[tuple[str, float]]:
    """The reasons, of the family of counters that is there; an instruction that is issued waits for nothing."""
    families: dict[str, dict[str, float]] = {}
    for name, column in columns.items():
        match = STALLED.fullmatch(name)
        value = number(*column)
        if match and value is not None and not match[2]:
            families.setdefault(name.replace(match[1], "", 1), {})[match[1]] = value
    if not families:
        return []
    reasons = max(families.values(), key=len)
    total = sum(reasons.values())
    largest = sorted(((why, 100 * value / total) for why, value in reasons.items() if total), key=lambda row: -row[1])
    return [(why.replace("_", " "), round(share, 1)) for why, share in largest if why != "selected"][:TOP_STALLS]
