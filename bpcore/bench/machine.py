"""Where and with what is measured: machine, load and checkout; and the environment of processes that measure."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bpcore.bench import smi

__all__ = ["REMOVED", "available_memory", "clock_mhz", "describe", "environment", "git", "load"]

REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make one BLAS look slow or fast; no process that measures sees them."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BPCORE_NUM_THREADS",
)


def environment(threads: int | None = None, variables: Iterable[str] = THREAD_VARIABLES) -> dict[str, str]:
    """Return the environment of a process that measures.

    Parameters
    ----------
    threads : int, optional
        Each library's own variable for this number is set; by default they are left as they are.
    variables : iterable of str
        Their names.
    """
    found = {name: value for name, value in os.environ.items() if name not in REMOVED}
    if threads is not None:
        found |= dict.fromkeys(variables, str(threads))
    return found


def git(*words: str, folder: Path | None = None) -> str | None:
    """Return what git says about the checkout that bpcore lies in, or None without one."""
    here = Path(__file__).resolve().parents[2] if folder is None else folder
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def load() -> list[float] | None:
    """Mean number of busy threads over 1, 5 and 15 minutes, where the system tells."""
    return [round(number, 2) for number in os.getloadavg()] if hasattr(os, "getloadavg") else None


def clock_mhz() -> float | None:
    """Mean clock of the processors at this moment, where the system tells."""
    found = []
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        try:
            found.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    return round(sum(found) / len(found), 1) if found else None


def available_memory() -> int | None:
    """Bytes that programs can still take before the system swaps, where it tells; a container's limit counts."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        if limit.isdigit():
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text("ascii")))
    except (OSError, ValueError, IndexError):
        pass
    return max(min(found), 0) if found else None


def describe() -> dict[str, Any]:
    """Describe machine, checkout and settings, as they are before the first measurement.

    Returns
    -------
    dict
        JSON-serialisable facts: ``cpu``, ``simd``, ``cores``, ``usable_cores``, ``quota``, ``gpus``,
        ``nvidia_smi`` and ``gpu_state`` (clocks, power, temperature) of each, ``system``,
        ``python``, ``load``, ``clock_mhz``, ``available_memory``, ``commit``, ``dirty``, ``environment`` (what decides
        about speed) and ``removed_variables`` (what was set and is kept from the measurements).
    """
    from bpcore.backends.diagnosis import cpu, gpus, settings

    facts, changed = cpu(), git("status", "--porcelain")
    return {
        "cpu": facts["model"],
        "simd": facts["flags"],
        "cores": facts["cores"],
        "usable_cores": facts["usable_cores"],
        "quota": facts["quota"],
        "gpus": gpus(),
        "nvidia_smi": smi.ask(smi.WHAT),
        "gpu_state": smi.ask(smi.MOMENT),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "load": load(),
        "clock_mhz": clock_mhz(),
        "available_memory": available_memory(),
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "environment": settings(os.environ),
        "removed_variables": [name for name in REMOVED if name in os.environ],
    }
