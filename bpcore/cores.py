"""How many cores this process may use."""

from __future__ import annotations

import os

__all__ = ["cpu_quota", "usable_cores", "usable_threads"]

_LIMITS = ("BPCORE_NUM_THREADS", "OMP_NUM_THREADS")


def cpu_quota(text: str) -> float | None:
    """Cores that the text of cgroup's ``cpu.max`` (``"150000 100000"``) grants; None without a limit."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def usable_cores() -> int:
    """Cores on which the system lets this process run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def usable_threads() -> int:
    """Threads that may compute at once: no more than usable cores, a container's quota, and what variables say.

    ``BPCORE_NUM_THREADS`` and ``OMP_NUM_THREADS`` count; joblib sets the latter in its worker processes, so that they
    share the cores.

    Examples
    --------
    >>> 1 <= usable_threads() <= usable_cores()
    True
    """
    limits = [usable_cores()]
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota = cpu_quota(file.read())
        if quota is not None:
            limits.append(max(1, int(quota)))
    except (OSError, ValueError):
        pass
    for name in _LIMITS:
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            limits.append(int(first))
    return min(limits)
