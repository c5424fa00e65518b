"""What is made of the measurements: parity, medians, ranks, and the result file."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.adapters import CONTESTANTS
from benchmarks.peers.workloads import RacedWorkload
from bpcore.bench.process import OK
from bpcore.bench.workload import Workload

FORMAT = 1

TOLERANCE = 1e-4
"""Largest difference of losses or outputs from float64, as a share of the largest of them."""

DIFFERS = "differs"
"""The status, beside those of :mod:`bpcore.bench.process`, of who computes something else."""


def difference(evidence: Any, expected: Any) -> float:
    """Largest distance between evidence and what was expected, over the largest expected; inf if it does not fit.

    Losses may come one a step or one mean for each chunk; the expected ones are averaged to match.

    Examples
    --------
    >>> difference([1.0, 2.0], [1.0, 2.0])
    0.0
    >>> difference([1.5], [1.0, 2.0])
    0.0
    >>> difference([float("nan")], [1.0])
    inf
    """
    found, wanted = np.asarray(evidence, float), np.asarray(expected, float)
    if wanted.ndim == 1 and found.ndim == 1 and found.size and wanted.size % found.size == 0:
        wanted = wanted.reshape(found.size, -1).mean(axis=1)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return math.inf
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def summary(times: list[float]) -> dict[str, Any]:
    """Median and quartiles of the rounds."""
    q1, median, q3 = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "q1": q1, "q3": q3, "least": min(times), "rounds": times}


def rates(work: Workload, times: list[float], peak: float | None) -> dict[str, Any]:
    """Everything that follows from the times of the rounds."""
    found = summary(times)
    gflops = work.flops() / found["median"] * 1e-3
    return {
        "us_per_step": found,
        "samples_per_second": work.batch / found["median"] * 1e6,
        "gflops": gflops,
        "of_peak": gflops / peak if peak else None,
    }


def judge(work: RacedWorkload, contestants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Rank those that compute the right thing, and compare all with bpcore and the best peer.

    Parameters
    ----------
    work : RacedWorkload
        Gives the goals.
    contestants : dict
        Rows with ``status``; those with status ``ok`` or ``differs`` have times. ``over_bpcore`` and ``over_best_peer``
        are added to them: how many times as long as those they take.

    Returns
    -------
    dict
        ``ranking``, ``best_peer``, and bpcore's ``over_best`` and ``over_torch``, with the goals beside them.
    """
    valid = {name: row for name, row in contestants.items() if row["status"] == OK and CONTESTANTS[name].ranked}
    time_of = {name: row["us_per_step"]["median"] for name, row in valid.items()}
    ranking = sorted(time_of, key=lambda name: time_of[name])
    best = next((name for name in ranking if not CONTESTANTS[name].ours), None)
    for row in contestants.values():
        if "us_per_step" in row:
            mine = row["us_per_step"]["median"]
            row["over_bpcore"] = mine / time_of["bpcore"] if "bpcore" in time_of else None
            row["over_best_peer"] = mine / time_of[best] if best else None

    def ahead(peer: str | None) -> float | None:
        return time_of[peer] / time_of["bpcore"] if peer in time_of and "bpcore" in time_of else None

    return {
        "ranking": ranking,
        "best_peer": best,
        "over_best": ahead(best),
        "over_torch": ahead("torch"),
        "goals": {"over_best": work.over_best, "over_torch": work.over_torch, "at_most_us": work.at_most_us},
    }


def median_load(loads: list[float | None]) -> float | None:
    """Median share of a core that a worker used while it should have slept."""
    known = [load for load in loads if load is not None]
    return statistics.median(known) if known else None


def save(result: dict[str, Any], path: Path) -> None:
    """Write a result file; the folder must exist."""
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8", newline="\n")


def load(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises
    ------
    ValueError
        If it is not one of this format.
    """
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of format {FORMAT}; python -m benchmarks.peers --json writes them")
    return found
