"""Where and with what is measured: processor, cores, load, commit; and the environment of the workers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make one BLAS look slow or fast; no worker sees them."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BPCORE_NUM_THREADS",
    "NPROC",  # XLA's pools
    "NUM_CPU_THREADS",  # tinygrad
)


def cpu_model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def simd() -> list[str]:
    """The wider vector instructions of the processor, which the name does not tell."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text("utf-8").split()) if info.exists() else set()
    return [name for name in ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "amx_tile") if name in flags]


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
    found = {name: value for name, value in os.environ.items() if name not in REMOVED}
    found |= {name: str(threads) for name in THREAD_VARIABLES}
    found["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no second pool of processes
    found["JAX_PLATFORMS"] = "cpu"
    if caches is not None:
        for name in ("BPCORE_CACHE_DIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME"):
            found[name] = str(caches / name.lower())
    return found


def git(*words: str) -> str | None:
    """Return what git says about this checkout, or None without one."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def load() -> list[float] | None:
    """Mean number of busy threads over 1, 5 and 15 minutes."""
    return [round(number, 2) for number in os.getloadavg()] if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Describe machine and checkout, as they are before the first measurement."""
    changed = git("status", "--porcelain")
    return {
        "cpu": cpu_model(),
        "simd": simd(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "load": load(),
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "removed_variables": [name for name in REMOVED if name in os.environ],
    }
