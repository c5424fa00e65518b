"""What is made of times: medians, spreads, who is best, and from which batch size on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["best_of", "crossover", "faster", "judge", "quartiles", "summary", "verdict", "winners"]

NOISY = 0.15
"""Spread from which a time is called noisy."""

LEAST_SPREAD, UNKNOWN_SPREAD = 0.03, 0.1
"""What is taken for a spread that is smaller, or not known."""

ABOVE_PEAK = 1.05
"""Share of the measured peak from which a figure must be wrong."""

Row = Mapping[str, Any]
Cell = dict[str, Any]


def summary(visits: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Summarise the rounds of several visits.

    Parameters
    ----------
    visits : sequence of sequences of float
        Seconds of a step, by visit and round. Visits are apart in time, so that what changes slowly shows.

    Returns
    -------
    dict
        ``median`` of the medians of the visits, ``q1`` and ``q3`` of all rounds, in microseconds; ``spread``: half of
        the way from q1 to q3, as a share of the median, None for a single visit, whose rounds have the same moment and
        the same memory; ``visits``.

    Examples
    --------
    >>> found = summary([[1e-6, 1e-6], [1.2e-6, 1.2e-6]])
    >>> round(found["median"], 3), round(found["spread"], 3)
    (1.1, 0.091)
    """
    rounds = 1e6 * np.concatenate([np.asarray(visit, float) for visit in visits])
    median = 1e6 * float(np.median([np.median(visit) for visit in visits]))
    q1, q3 = np.quantile(rounds, [0.25, 0.75]).tolist()
    return {
        "median": median,
        "q1": q1,
        "q3": q3,
        "spread": (q3 - q1) / 2 / median if len(visits) > 1 else None,
        "visits": [[round(1e6 * float(seconds), 4) for seconds in visit] for visit in visits],
    }


def quartiles(row: Row) -> tuple[float, float]:
    """Return the quartiles of a time, no closer together than those of two runs on a quiet machine."""
    times = row["us_per_step"]
    around = (UNKNOWN_SPREAD if times["spread"] is None else LEAST_SPREAD) * times["median"]
    return min(times["q1"], times["median"] - around), max(times["q3"], times["median"] + around)


def faster(a: Row, b: Row) -> bool:
    """Whether the upper quartile of the first time lies below the lower one of the second."""
    return quartiles(a)[1] < quartiles(b)[0]


def ranked(rows: Mapping[str, Row]) -> list[str]:
    """Return who computes the right thing at a possible speed, the fastest first."""
    valid = [name for name, row in rows.items() if row["status"] in ("ok", "noisy")]
    return sorted(valid, key=lambda name: float(rows[name]["us_per_step"]["median"]))


def best_of(rows: Mapping[str, Row]) -> tuple[str | None, list[str]]:
    """Return the fastest contender of a batch size, and those that the spread does not tell from it."""
    order = ranked(rows)
    if not order:
        return None, []
    return order[0], [name for name in order[1:] if not faster(rows[order[0]], rows[name])]


def crossover(cells: Sequence[Cell], name: str, other: str) -> int | None:
    """Return the batch size from which one contender is faster than another at every larger one that was measured.

    Parameters
    ----------
    cells : sequence of dict
        By batch size, ascending; what is missing or not ranked in a cell decides nothing.
    name, other : str
        Contenders.

    Returns
    -------
    int or None
        None if at the largest batch size that both have it is not faster.
    """
    found = None
    for cell in cells:
        rows = cell["contenders"]
        order = ranked(rows)
        if name not in order or other not in order:
            continue
        if faster(rows[name], rows[other]):
            found = cell["batch"] if found is None else found
        else:
            found = None
    return found


def winners(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return ranges of batch sizes with one best contender each; a tie goes to whom the range has already."""
    found: list[dict[str, Any]] = []
    for cell in cells:
        best = cell["best"]
        if best is None:
            continue
        if found and found[-1]["best"] in (best, *cell["ties"]):
            found[-1]["to"] = cell["batch"]
        else:
            found.append({"from": cell["batch"], "to": cell["batch"], "best": best})
    return found


def judge(network: dict[str, Any], peaks: Mapping[str, float | None]) -> None:
    """Add to the part of a result for one network what follows from its times.

    Rates, the share of the peak, the speed-up over NumPy, who is noisy or suspect, the best of each batch size, and
    from which batch size on each contender is faster than each other one.

    Parameters
    ----------
    network : dict
        With ``cells``, whose rows have ``us_per_step`` and a ``status``; changed in place.
    peaks : mapping of str to float
        Measured peak of each contender, in GFLOP/s.
    """
    cells: list[Cell] = network["cells"]
    names: dict[str, None] = {}
    for cell in cells:
        rows = {name: row for name, row in cell["contenders"].items() if "us_per_step" in row}
        numpy = rows.get("numpy")
        for name, row in rows.items():
            names[name] = None
            seconds, peak = 1e-6 * row["us_per_step"]["median"], peaks.get(name)
            row["samples_per_second"] = cell["batch"] / seconds
            row["gflops"] = 1e-9 * cell["flops"] / seconds
            row["of_peak"] = row["gflops"] / peak if peak else None
            row["over_numpy"] = 1e-6 * numpy["us_per_step"]["median"] / seconds if numpy else None
            if row["status"] in ("ok", "noisy", "suspect"):
                row["status"], row["why"] = verdict(row)
        cell["best"], cell["ties"] = best_of(cell["contenders"])
    network["winners"] = winners(cells)
    network["crossovers"] = [
        {"contender": name, "over": other, "from_batch": crossover(cells, name, other)}
        for name, other in itertools.permutations(names, 2)
    ]


def verdict(row: Row) -> tuple[str, str]:
    """Return the status that a time deserves, and why."""
    if row["of_peak"] is not None and row["of_peak"] > ABOVE_PEAK:
        return "suspect", "above the measured peak of this machine, so the clock or the peak is wrong"
    spread = row["us_per_step"]["spread"]
    if spread is not None and spread > NOISY:
        return "noisy", f"half of the rounds are {100 * spread:.0f} % or more away from the median"
    return "ok", ""
