"""Diagnosis: facts about this machine and warnings about settings that make it slow.

:func:`diagnose` gathers; each check is a function of the facts that it needs, so it can be asked about machines that
are not here. All values are JSON-serialisable.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bpcore.backends.registry import backends, gpu_visible, selection

__all__ = ["blas_libraries", "diagnose", "threading_layers"]

Facts = dict[str, Any]
Finding = dict[str, str]

PREFIXES = ("BPCORE_", "OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "NUMBA_")
NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_PATH", "VECLIB_MAXIMUM_THREADS")

CORE_LEVELS = {
    "sse": ("prescott", "core2", "penryn", "dunnington", "atom", "nehalem", "barcelona", "opteron", "generic"),
    "avx": ("sandybridge", "bulldozer", "piledriver", "bobcat"),
    "avx2": ("haswell", "zen", "excavator", "steamroller"),
    "avx512": ("skylakex", "cooperlake", "sapphirerapids"),
}
"""OpenBLAS's names of x86 kernels, by the vector instructions that they use."""


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
    import bpcore
    from bpcore.backends.cupy_probe import driver_cuda_version, installed_wheels

    environment = settings(os.environ)
    facts: Facts = {
        "bpcore": bpcore.__version__,
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
        *check_core_type(environment, facts["blas"], facts["cpu"]["flags"]),
        *check_openblas_cache(environment),
        *check_thread_limits(environment, cores),
        *check_pool_sizes(facts["blas"], cores),
        *check_quota(facts["cpu"]["quota"], cores),
        *check_several_blas(facts["blas"]),
        *check_threading_layers(layers, sys.platform),
        *check_numba_settings(environment),
        *check_wheels(facts["cupy_wheels"], driver_cuda_version()),
        *check_idle_gpu(seen, cupy_usable, facts["cupy_wheels"], driver_cuda_version()),
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
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": _cpu_model(info),
        "cores": os.cpu_count() or 1,
        "usable_cores": affinity or 1,
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


def cpu_quota(text: str) -> float | None:
    """Cores that the text of cgroup's ``cpu.max`` (``"150000 100000"``) grants; None without a limit."""
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


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
    try:
        runtime = importlib.import_module("cupy").cuda.runtime
        driver = int(runtime.driverGetVersion())
        found = []
        for index in range(int(runtime.getDeviceCount())):
            properties = runtime.getDeviceProperties(index)
            name = properties["name"]
            found.append(
                {
                    "name": name.decode() if isinstance(name, bytes) else str(name),
                    "memory": int(properties["totalGlobalMem"]),
                    "driver": f"CUDA {driver // 1000}.{driver % 1000 // 10}",
                }
            )
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


# -------------------------------------------------------------------------------- checks


def _finding(what: str, cost: str, repair: str) -> Finding:
    return {"what": what, "cost": cost, "repair": repair}


def _core_level(name: object) -> int | None:
    """Position in :data:`CORE_LEVELS` of an OpenBLAS core type, None for an unknown one."""
    for level, names in enumerate(CORE_LEVELS.values()):
        if str(name).lower() in names:
            return level
    return None


def check_core_type(environment: Mapping[str, str], blas: Iterable[Facts], flags: Iterable[str]) -> list[Finding]:
    """OpenBLAS uses kernels for an older processor than this one: by a variable, or because it does not know it."""
    present = set(flags)
    able = 3 if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= present else 2 if "avx2" in present else None
    names = list(CORE_LEVELS)
    for library in blas:
        used = _core_level(library.get("core_type"))
        if library.get("library") != "openblas" or able is None or used is None or used >= able:
            continue
        core, forced = library["core_type"], environment.get("OPENBLAS_CORETYPE")
        cost = f"matrix products run at about half speed ({names[used]} kernels on a processor with {names[able]})"
        if forced:
            return [_finding(f"OPENBLAS_CORETYPE={forced} makes OpenBLAS use {core}", cost, "unset OPENBLAS_CORETYPE")]
        better = "SkylakeX" if able == 3 else "Haswell"
        repair = f"export OPENBLAS_CORETYPE={better}, or a newer NumPy (pip install --upgrade numpy)"
        return [_finding(f"OpenBLAS took this processor for {core}", cost, repair)]
    return []


def check_openblas_cache(environment: Mapping[str, str]) -> list[Finding]:
    """The size of the second-level cache is overridden, which decides the blocking of products."""
    value = environment.get("OPENBLAS_L2_SIZE")
    if value is None:
        return []
    return [
        _finding(
            f"OPENBLAS_L2_SIZE={value} overrides the detected cache size",
            "a wrong value gives slow, a very wrong one wrong blocking of matrix products",
            "unset OPENBLAS_L2_SIZE",
        )
    ]


def check_thread_limits(environment: Mapping[str, str], cores: int) -> list[Finding]:
    """A variable holds a library to one thread, or asks for more threads than cores."""
    findings = []
    variables = [
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "GOTO_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
        "BPCORE_NUM_THREADS",
    ]
    for name in variables:
        text = environment.get(name, "").strip().partition(",")[0]
        if not text.isdigit():
            continue
        if int(text) == 1 and cores > 1:
            cost = f"large products use one of {cores} cores (small networks lose nothing)"
            findings.append(_finding(f"{name}=1", cost, f"unset {name}"))
        elif int(text) > cores:
            cost = "threads wait for one another instead of computing"
            findings.append(_finding(f"{name}={text}, but {cores} cores are usable", cost, f"export {name}={cores}"))
    return findings


def check_pool_sizes(blas: Iterable[Facts], cores: int) -> list[Finding]:
    """A BLAS pool is larger than the number of cores this process may use (typical under an affinity mask)."""
    return [
        _finding(
            f"{library.get('library')} has {library['threads']} threads, but {cores} cores are usable",
            "threads wait for one another: products become several times slower",
            f"export OMP_NUM_THREADS={cores}",
        )
        for library in blas
        if (library.get("threads") or 0) > cores
    ]


def check_quota(quota: float | None, cores: int) -> list[Finding]:
    """A container may use less processor time than the cores that libraries see."""
    if quota is None or quota >= cores:
        return []
    threads = max(1, int(quota))
    return [
        _finding(
            f"the container may use {quota:g} cores, but libraries see {cores}",
            "the kernel stops all threads for the rest of each 100 ms period: pauses, products several times slower",
            f"export OMP_NUM_THREADS={threads} NUMBA_NUM_THREADS={threads}",
        )
    ]


def check_several_blas(blas: Iterable[Facts]) -> list[Finding]:
    """Different BLAS libraries are loaded at once, each with threads of its own."""
    names = sorted({str(library.get("library")) for library in blas})
    if len(names) < 2:
        return []
    return [
        _finding(
            f"several BLAS libraries are loaded: {', '.join(names)}",
            "each keeps its own threads; used in turn they displace one another",
            "install numpy and scipy from one source (both by pip, or both by conda)",
        )
    ]


def check_threading_layers(layers: Mapping[str, bool], system: str) -> list[Finding]:
    """Numba has no threading layer but workqueue."""
    if not layers or layers.get("omp") or layers.get("tbb"):
        return []
    repair = "brew install libomp, or: pip install tbb" if system == "darwin" else "pip install tbb"
    return [
        _finding(
            "Numba can load no threading layer but workqueue",
            "a parallel region costs about 100 us instead of 2, and two threads that use one abort the process",
            repair,
        )
    ]


def check_numba_settings(environment: Mapping[str, str]) -> list[Finding]:
    """Variables for debugging Numba are set."""
    costs = {
        "NUMBA_DISABLE_JIT": "nothing is compiled: loops run a thousand times slower",
        "NUMBA_DEBUG": "everything is printed while compiling",
        "NUMBA_DEBUGINFO": "compiled code is larger and slower",
        "NUMBA_FULL_TRACEBACKS": "only error messages differ",
        "NUMBA_OPT": "compiled code is less optimised",
        "NUMBA_BOUNDSCHECK": "every array access is checked: loops do not vectorise",
        "NUMBA_ENABLE_AVX": "loops use narrow vectors",
        "NUMBA_CPU_NAME": "code is compiled for another processor",
    }
    harmless = {"NUMBA_OPT": ("3", "max"), "NUMBA_ENABLE_AVX": ("1",)}
    return [
        _finding(f"{name}={environment[name]}", cost, f"unset {name}")
        for name, cost in costs.items()
        if environment.get(name, "") not in ("", *(() if name in harmless else ("0",)), *harmless.get(name, ()))
    ]


def _install_cupy(driver: int) -> str:
    """Command for the CuPy that a driver (CUDA version as 1000 * major + 10 * minor, 0 if unknown) can serve."""
    return f'pip install "bpcore[{"cuda12x" if 0 < driver < 13000 else "cuda13x"}]"'


def check_wheels(wheels: list[str], driver: int) -> list[Finding]:
    """More than one distribution of CuPy is installed."""
    if len(wheels) < 2:
        return []
    return [
        _finding(
            f"several CuPy packages are installed: {', '.join(wheels)}",
            "they overwrite one another's files; importing CuPy fails or finds the wrong CUDA libraries",
            f"pip uninstall -y {' '.join(wheels)} && {_install_cupy(driver)}",
        )
    ]


def check_idle_gpu(seen: bool, usable: bool, wheels: list[str], driver: int) -> list[Finding]:
    """There is a GPU that bpcore cannot use."""
    if not seen or usable:
        return []
    repair = "see the reason of backend cupy above" if wheels else _install_cupy(driver)
    state = "the backend cupy cannot run" if wheels else "CuPy is not installed"
    return [_finding(f"a GPU seems to be present, but {state}", "everything runs on the CPU", repair)]
