"""What the race adds to :mod:`bpcore.bench.machine`: the cores of the workers, and their environment."""

from __future__ import annotations

import os
from pathlib import Path

from bpcore.bench.machine import THREAD_VARIABLES, environment

__all__ = ["ALL_THREAD_VARIABLES", "ROOT", "choose_cpus", "siblings", "surroundings"]

ROOT = Path(__file__).resolve().parents[2]

ALL_THREAD_VARIABLES = (
    *THREAD_VARIABLES,
    "NPROC",  # XLA's pools
    "NUM_CPU_THREADS",  # tinygrad
)


def siblings(cpu: int) -> frozenset[int]:
    """Return the logical processors that share a core with this one."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    if not path.exists():
        return frozenset({cpu})
    found: set[int] = set()
    for part in path.read_text("utf-8").strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def choose_cpus(threads: int) -> list[int] | None:
    """Return one logical processor for each thread, no two on a core; None where a process cannot be held to cores.

    The last ones, because interrupts tend to go to the first.

    Raises
    ------
    ValueError
        If there are fewer cores than threads.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    chosen: list[int] = []
    taken: set[int] = set()
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        if cpu not in taken and len(chosen) < threads:
            chosen.append(cpu)
            taken |= siblings(cpu)
    if len(chosen) < threads:
        raise ValueError(f"{threads} threads were asked for; this process may use {len(chosen)} cores")
    return sorted(chosen)


def surroundings(threads: int, caches: Path | None = None) -> dict[str, str]:
    """Return the environment of a worker.

    Parameters
    ----------
    threads : int
        Each library's own variable for this number is set.
    caches : Path, optional
        An empty folder for what is compiled; by default the caches are where the user has them.
    """
    found = environment(threads, ALL_THREAD_VARIABLES)
    found["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no second pool of processes
    found["JAX_PLATFORMS"] = "cpu"
    if caches is not None:
        for name in ("BPCORE_CACHE_DIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"):
            found[name] = str(caches / name.lower())
    return found
