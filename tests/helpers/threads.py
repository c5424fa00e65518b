"""Threads that begin together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

__all__ = ["at_once"]


def at_once(work: Callable[[int], T], count: int) -> list[T]:
    """Call ``work(0)`` ... ``work(count - 1)``, each in a thread, all at the same time; an error is raised here."""
    barrier = threading.Barrier(count)

    def begin(k: int) -> T:
        barrier.wait(60)
        return work(k)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))
