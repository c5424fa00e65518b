"""What there is for the acceptance: the GPU as bpcore finds it, and what is missing for which of the parts.

Asked before anything runs, so that nobody waits for minutes to read that a package is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.ncu import find_ncu
from benchmarks.gpu.parts import run

__all__ = ["find_sanitizer", "gpu", "missing", "smi"]

LIMIT = 120.0
"""Seconds for starting CUDA and CuPy."""

_LOOK = """
import json
import bpcore as bp

try:
    be = bp.get_backend("cupy")
    device = be.xp.cuda.Device(be.gpu.number)
    told = be.describe()
    found = {"name": told["gpu"], "capability": told["compute_capability"], "memory": told["gpu_memory"]}
    found |= {"cuda": be.xp.cuda.runtime.runtimeGetVersion(), "driver_cuda": be.xp.cuda.runtime.driverGetVersion()}
    found |= {"bus": str(device.pci_bus_id), "cupy": be.xp.__version__}
except Exception as error:
    found = {"why": f"{error}" if isinstance(error, bp.errors.BackendError) else f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(found))
"""

_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "pytest": (("tests", "sanitizers"), "no test runs"),
    "pytest-xdist": (("tests",), "tests run one after the other, so that many may not be reached"),
    "torch": (
        ("race", "costs"),
        "nothing is compared with PyTorch; rates of products, floors, the products of a step alone and predictions are "
        "not measured",
    ),
    "jax": (("race",), "nothing is compared with JAX"),
    "compute-sanitizer": (("sanitizers",), "no kernel is checked by it"),
    "ncu": (("profile",), "the counters of the GPU are not read"),
}
_MODULES = {"pytest": "pytest", "pytest-xdist": "xdist", "torch": "torch", "jax": "jax"}


def gpu(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Ask bpcore for its GPU, in a process of its own.

    Parameters
    ----------
    folder : Path
        What :func:`benchmarks.gpu_acceptance.lay_out` has made.
    environment : dict
        Variables.

    Returns
    -------
    dict
        Name, compute capability, bytes of memory, versions of CUDA and CuPy, number on the bus; or ``why`` there is
        none.
    """
    part = run([sys.executable, "-c", _LOOK], LIMIT, folder, environment)
    lines = part["output"].strip().splitlines() or ["Python wrote nothing"]
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except ValueError:
        return {"why": lines[-1] if part["status"] != "out of time" else f"CuPy did not start within {LIMIT:.0f} s"}
    return found


def smi(found: dict[str, Any], folder: Path, environment: dict[str, str]) -> str:
    """Describe this GPU, and no other of the machine, in the words of nvidia-smi; without it in those of CUDA."""
    query = "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm"
    part = run(["nvidia-smi", "-i", found["bus"], query, "--format=csv,noheader"], 20, folder, environment)
    lines = part["output"].strip().splitlines()
    if part["status"] == "ok" and lines:
        return str(lines[0])
    memory = f"{found['memory'] / 2**20:.0f} MiB"
    return f"{found['name']}, CUDA {found['driver_cuda']} by its driver, {memory}, {found['capability']}"


def find_sanitizer() -> str | None:
    """Return compute-sanitizer, from the path or where CUDA is installed."""
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


def missing(asked: Iterable[str]) -> dict[str, str]:
    """Return what is not installed and would be used by the parts that are asked for, with what is not done for it.

    Examples
    --------
    >>> set(missing(["crossovers"]))
    set()
    """
    asked, found = set(asked), {}
    for name, (parts, lost) in _NEEDS.items():
        if not asked & set(parts):
            continue
        if name in _MODULES:
            there = importlib.util.find_spec(_MODULES[name]) is not None
        else:
            there = (find_sanitizer() if name == "compute-sanitizer" else find_ncu()) is not None
        if not there:
            found[name] = lost
    return found
