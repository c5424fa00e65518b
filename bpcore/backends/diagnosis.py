"""Diagnosis: facts about this machine and its settings, all JSON-serialisable.

:func:`diagnose` gathers them and asks :mod:`bpcore.backends.checks` what is wrong.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bpcore.backends import checks
from bpcore.backends.registry import backends, gpu_visible, selection
from bpcore.cores import cpu_quota, usable_cores

__all__ = ["blas_libraries", "diagnose", "threading_layers"]

Facts = dict[str, Any]

PREFIXES = ("BPCORE_", "OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "NUMBA_")
NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_PATH", "VECLIB_MAXIMUM_THREADS")


def diagnose() -> Facts:
    """Examine this machine.

    Returns
    -------
    dict
        Keys ``bpcore``, ``python``, ``platform``, ``cpu``, ``backends``, ``selection``, ``blas``, ``threading``,
        ``gpu``, ``environment``, ``cupy_wheels``, and ``warnings``: a list of dicts with ``what`` was found, what
        it may ``cost``, and the ``repair``.

    Notes
    -----
    Starts the selected backend (that is the question), hence imports Numba or CuPy.
    """
    from bpcore._version import __version__
    from bpcore.backends.cupy_probe import driver_cuda_version, installed_wheels

    environment = settings(os.environ)
    facts: Facts = {
        "bpcore": __version__,
        "python": {"version": platform.python_version(), "implementation": sys.implementation.name},
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "cpu": cpu(),
        "selection": _selection(),
        "backends": [
            {"name": s.name, "usable": s.usable, "reason": s.reason, "repair": s.repair, "facts": s.facts}
            for s in backends()
        ],
        "blas": blas_libraries(),
        "threading": threading_facts(),
        "gpu": gpus(),
        "environment": environment,
        "cupy_wheels": installed_wheels(),
    }
    cores = facts["cpu"]["usable_cores"]
    layers = facts["threading"]["layers"]
    cupy_usable = any(status["name"] == "cupy" and status["usable"] for status in facts["backends"])
    seen = bool(facts["gpu"]) or gpu_visible()
    facts["warnings"] = [
        *checks.check_core_type(environment, facts["blas"], facts["cpu"]["flags"]),
        *checks.check_openblas_cache(environment),
        *checks.check_thread_limits(environment, cores),
        *checks.check_pool_sizes(facts["blas"], cores),
        *checks.check_quota(facts["cpu"]["quota"], cores),
        *checks.check_several_blas(facts["blas"]),
        *checks.check_threading_layers(layers, sys.platform),
        *checks.check_numba_settings(environment),
        *checks.check_wheels(facts["cupy_wheels"], driver_cuda_version()),
        *checks.check_idle_gpu(seen, cupy_usable, facts["cupy_wheels"], driver_cuda_version()),
    ]
    return facts


def _selection() -> Facts:
    try:
        chosen = selection()
    except Exception as error:
        return {"name": None, "source": None, "why": f"{type(error).__name__}: {error}"}
    return {"name": chosen.name, "source": chosen.source, "why": chosen.why}


# -------------------------------------------------------------------------------- facts


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that bpcore and the libraries below it read."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith(PREFIXES) or name in NAMES}


def cpu() -> Facts:
    """Model, cores (in the machine, usable by this process), quota and vector instructions, where known."""
    info = _read("/proc/cpuinfo")
    return {
        "model": _cpu_model(info),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "quota": cpu_quota(_read("/sys/fs/cgroup/cpu.max")),
        "flags": cpu_flags(info),
    }


def _cpu_model(info: str) -> str:
    for line in info.splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.processor()
    return platform.processor() or platform.machine()


def cpu_flags(info: str) -> list[str]:
    """Vector instruction sets named in the text of ``/proc/cpuinfo``."""
    known = "sse4_2 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 amx_tile asimd sve"
    for line in info.splitlines():
        if line.lower().startswith(("flags", "features")):
            present = set(line.partition(":")[2].split())
            return [flag for flag in known.split() if flag in present]
    return []


def blas_libraries() -> list[Facts]:
    """BLAS libraries loaded in this process, with version, kernels (core type) and threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [
        {
            "library": pool.get("internal_api"),
            "version": pool.get("version"),
            "core_type": pool.get("architecture"),
            "threads": pool.get("num_threads"),
            "threading": pool.get("threading_layer"),
            "file": pool.get("filepath"),
        }
        for pool in threadpool_info()
        if pool.get("user_api") == "blas"
    ]


def threading_layers() -> dict[str, bool]:
    """Which of Numba's threading layers can be loaded; loading one starts no thread. Empty without Numba."""
    try:
        importlib.import_module("numba")
    except Exception:
        return {}
    found: dict[str, bool] = {}
    for layer, module in (("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")):
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
            found[layer] = True
        except Exception:
            found[layer] = False
    return found


def threading_facts() -> Facts:
    """Threading layers and thread count of Numba."""
    layers = threading_layers()
    if not layers:
        return {"layers": {}, "threads": None}
    numba = importlib.import_module("numba")
    return {"layers": layers, "threads": int(numba.config.NUMBA_NUM_THREADS)}


def gpus() -> list[Facts]:
    """Names, memory (bytes) and driver of the GPUs: asked of CuPy where it runs, else of nvidia-smi."""
    from bpcore.backends.cupy_probe import device_facts

    try:
        runtime = importlib.import_module("cupy").cuda.runtime
        driver = int(runtime.driverGetVersion())
        found = []
        for index in range(int(runtime.getDeviceCount())):
            device = device_facts(runtime.getDeviceProperties(index))
            version = f"CUDA {driver // 1000}.{driver % 1000 // 10}"
            found.append({"name": device["gpu"], "memory": device["gpu_memory"], "driver": version})
        return found
    except Exception:
        return smi_gpus(_output(SMI)) if shutil.which(SMI[0]) else []


SMI = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]


def smi_gpus(text: str) -> list[Facts]:
    """Read the lines that nvidia-smi prints for :data:`SMI`: name, MiB, driver."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3:
            memory = int(parts[1]) * 2**20 if parts[1].isdigit() else None
            found.append({"name": parts[0], "memory": memory, "driver": parts[2]})
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
