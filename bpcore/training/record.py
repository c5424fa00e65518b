"""The run record: where, how and with what a run was made, so that it can be judged and repeated."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from bpcore.backends.contract import Backend
from bpcore.network import MLP
from bpcore.training.spec import StepSpec

__all__ = ["make_record", "versions"]

_PACKAGES = ("numpy", "scipy", "numba", "cupy-cuda12x", "cupy-cuda13x")


def versions() -> dict[str, str]:
    """Versions of Python, bpcore and the array libraries that are installed, without importing them."""
    from bpcore._version import __version__

    found = {"python": platform.python_version(), "bpcore": __version__}
    installed = {package: _version_of(package) for package in _PACKAGES}
    return found | {package: version for package, version in installed.items() if version is not None}


@cache  # reading it takes milliseconds, longer than a short training
def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def make_record(
    net: MLP,
    be: Backend,
    spec: StepSpec,
    *,
    seed: int,
    plan: str,
    plan_why: str,
    backend_why: str,
    threads: int | None,
    threads_why: str,
    n_samples: int,
    n_validation: int,
    data: dict[str, Any],
) -> dict[str, Any]:
    """Collect the facts of a run as JSON-serialisable values.

    Parameters
    ----------
    net, be, spec
        What is trained, where, and how.
    seed : int
        Seed of shuffles and masks; the network's own is recorded beside it.
    plan, plan_why, backend_why : str
        The choices and their reasons.
    threads : int or None
        Number of threads, where the plan or a limit decides it.
    threads_why : str
        The reason.
    n_samples, n_validation : int
        Sizes of the data sets.
    data : dict
        Where the data was, and why; see :class:`~bpcore.training.memory.Placement`.

    Returns
    -------
    dict
        The record.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": be.name,
        "backend_why": backend_why,
        "device": be.device,
        "plan": plan,
        "plan_why": plan_why,
        "threads": blas_threads() if threads is None else threads,
        "threads_why": threads_why,
        "seed": seed,
        "network_seed": net.seed,
        "n_parameters": net.n_parameters,
        "n_samples": n_samples,
        "n_validation": n_validation,
        "data": data,
        "spec": spec.describe(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, {sys.implementation.name}",
    }


def blas_threads() -> int | None:
    """Number of threads that NumPy's BLAS uses, or None when it does not say."""
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return max(pools, default=None)
