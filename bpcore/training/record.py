"""The run record: where, how and with what a run was made, so that it can be judged and repeated."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from bpcore.training.spec import StepSpec

if TYPE_CHECKING:
    from bpcore.training.trainer import Trainer

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


def make_record(trainer: Trainer, spec: StepSpec, n_samples: int, n_validation: int) -> dict[str, Any]:
    """Collect the facts of a run as JSON-serialisable values.

    Parameters
    ----------
    trainer : Trainer
        With its plan built and its data placed: what is trained, where, how, and why so.
    spec : StepSpec
        Of a step.
    n_samples, n_validation : int
        Sizes of the data sets.

    Returns
    -------
    dict
        The record.
    """
    assert trainer.placement is not None
    net, be, threads = trainer.net, trainer.be, trainer.team or trainer.threads
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": be.name,
        "backend_why": trainer.backend_why,
        "device": be.device,
        "plan": trainer.plan_name,
        "plan_why": trainer.plan_why,
        "threads": blas_threads() if threads is None else threads,
        "threads_why": trainer.team_why,
        "seed": trainer.seed,
        "network_seed": net.seed,
        "n_parameters": net.n_parameters,
        "n_samples": n_samples,
        "n_validation": n_validation,
        "data": trainer.placement.record,
        "spec": spec.describe(),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, {sys.implementation.name}",
    }


def blas_threads() -> int | None:
    """Number of threads that NumPy's BLAS uses, or None when it does not say."""
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return max(pools, default=None)
