"""How every benchmark is measured: its result is judged before and after the timing, its cost is written beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kernels.costs import NOTHING, Cost

__all__ = ["FLOAT32", "finished", "measure", "measures", "threads", "unwritten"]

FLOAT32 = np.dtype(np.float32)
"""What networks compute in unless told otherwise."""


def threads() -> int:
    """Return how many threads compute."""
    return int(os.environ.get("BPCORE_NUM_THREADS", 1))


def measures(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Say which operations of :data:`bpcore.backends.ops.OPS` a benchmark measures: a test looks for one of each."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        function.operations = names  # type: ignore[attr-defined]
        return function

    return mark


def unwritten(be: Any, *shape: int, dtype: Any = FLOAT32) -> Any:
    """Return an array of NaN: what a kernel does not write is not taken for a result."""
    return be.fill(be.empty(shape, dtype), float("nan"))


def finished(be: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that runs and waits for the device; on a CPU there is nothing to wait for."""
    if be.device == "cpu":
        return run

    def both() -> Any:
        result = run()
        be.synchronize()
        return result

    return both


def measure(
    benchmark: Any,
    run: Callable[[], Any],
    judge: Callable[[Any], None],
    *,
    group: str,
    cost: Cost = NOTHING,
    reset: Callable[[], object] | None = None,
    per: tuple[str, int] | None = None,
    **facts: Any,
) -> None:
    """Judge, time, judge again.

    Parameters
    ----------
    benchmark : fixture
        Of pytest-benchmark.
    run : callable
        What is timed. It has run once before, so nothing is compiled meanwhile.
    judge : callable
        Raises AssertionError if the result is wrong: what ``run`` returned, or left in its arrays.
    group : str
        Those that compute the same share a group.
    cost : Cost
        Of one call.
    reset : callable, optional
        For a ``run`` that changes what it begins from: brings the beginning back. It is not timed, and what is judged
        is a call that follows it.
    per : (str, int), optional
        A smaller unit and how many of it a call handles, such as ``("sample", 640)``.
    **facts
        Go into ``extra_info``.
    """
    if reset is not None:
        reset()
    judge(run())
    benchmark.group = group
    result = benchmark(run)
    if reset is not None:
        reset()
        result = run()
    judge(result)
    # without timing (--benchmark-disable) there are no statistics
    seconds = None if benchmark.stats is None else benchmark.stats.stats.median
    benchmark.extra_info.update(facts | cost.facts(seconds))
    if per is not None and seconds is not None:
        unit, count = per
        benchmark.extra_info[f"ns_per_{unit}"] = seconds / count * 1e9
