"""What is measured when, and what is not: the order of first visits, and how long a step may take."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bpcore.bench.workload import Workload

__all__ = ["FIRST_STEP", "ROUNDS", "expected_step", "first_visit", "later_visit", "rounds_of", "spread_out"]

ROUNDS = 3
"""Rounds of a visit."""
VISIT_OVERHEAD = 0.06
"""Seconds that a visit takes besides its rounds."""
FIRST_STEP = 1e-3
"""Seconds that a step is expected to take before anything is known."""
SLOW_STEP = 0.1
"""Seconds from which a step is a round, and a round is a visit."""
SLOW_PRODUCTS = 0.2
"""Share of the peak that the products of a step are expected to reach at least."""


def spread_out(batch_sizes: Sequence[int]) -> list[int]:
    """Return batch sizes in an order in which the first few are far apart: time may end before all had their turn.

    Examples
    --------
    >>> spread_out([1, 2, 4, 8, 16, 32, 64, 128, 256])
    [1, 16, 256, 4, 64, 2, 8, 32, 128]
    """
    count, chosen = len(batch_sizes), dict[int, None]()
    # begin with the smallest, a middle one, and the largest, whose time can be told from the middle one
    step = max(1, (1 << max(count - 2, 0).bit_length()) // 2)
    while step:
        chosen |= dict.fromkeys(k for k in range(0, count, step) if k not in chosen)
        step //= 2
    return [batch_sizes[k] for k in chosen]


def rounds_of(step_seconds: float) -> int:
    """Rounds of a visit: one, where a single step takes long."""
    return ROUNDS if step_seconds < SLOW_STEP else 1


def expected_step(work: Workload, known: Sequence[tuple[Workload, float]], peak: float) -> float:
    """Return the seconds that a step may take, judged by the nearest batch size whose time is known.

    Parameters
    ----------
    work : Workload
        What is to be measured.
    known : sequence of (Workload, seconds)
        The same network at other batch sizes.
    peak : float
        Largest rate of products, in GFLOP/s.
    """
    if not known:
        return FIRST_STEP
    other, seconds = min(known, key=lambda found: abs(math.log(found[0].batch / work.batch)))
    if other.batch >= work.batch:
        return seconds
    # either memory sets the pace, or the products do, and they are never slower than before
    by_products = work.flops() / (SLOW_PRODUCTS * max(peak, 1.0) * 1e9)
    return min(seconds * work.flops() / other.flops(), max(seconds * work.bytes() / other.bytes(), by_products))


def first_visit(work: Workload, step: float) -> float:
    """Seconds of the steps of a first visit: those that are compared, before and after; warming up; and the rounds."""
    return step * (2 * work.parity_steps + 1 + rounds_of(step))


def later_visit(work: Workload, step: float, round_seconds: float) -> float:
    """Seconds of a visit that compares afterwards only."""
    return VISIT_OVERHEAD + step * (work.parity_steps + 1) + rounds_of(step) * max(round_seconds, step)
