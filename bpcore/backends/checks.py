"""Checks of a machine's settings: what makes products slow, GPUs idle and thread pools fight.

Each is a function of the facts that it needs, so it can be asked about machines that are not here. It returns a list
of findings: dicts with ``what`` was found, what it may ``cost``, and the ``repair``; an empty list is good news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bpcore.backends.cupy_probe import install_command

__all__ = [
    "check_core_type",
    "check_idle_gpu",
    "check_numba_settings",
    "check_openblas_cache",
    "check_pool_sizes",
    "check_quota",
    "check_several_blas",
    "check_thread_limits",
    "check_threading_layers",
    "check_wheels",
]

Facts = dict[str, Any]
Finding = dict[str, str]

CORE_LEVELS = {
    "sse": ("prescott", "core2", "penryn", "dunnington", "atom", "nehalem", "barcelona", "opteron", "generic"),
    "avx": ("sandybridge", "bulldozer", "piledriver", "bobcat"),
    "avx2": ("haswell", "zen", "excavator", "steamroller"),
    "avx512": ("skylakex", "cooperlake", "sapphirerapids"),
}
"""OpenBLAS's names of x86 kernels, by the vector instructions that they use."""


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


def check_wheels(wheels: list[str], driver: int) -> list[Finding]:
    """More than one distribution of CuPy is installed."""
    if len(wheels) < 2:
        return []
    return [
        _finding(
            f"several CuPy packages are installed: {', '.join(wheels)}",
            "they overwrite one another's files; importing CuPy fails or finds the wrong CUDA libraries",
            f"pip uninstall -y {' '.join(wheels)} && {install_command(driver)}",
        )
    ]


def check_idle_gpu(seen: bool, usable: bool, wheels: list[str], driver: int) -> list[Finding]:
    """There is a GPU that bpcore cannot use."""
    if not seen or usable:
        return []
    repair = "see the reason of backend cupy above" if wheels else install_command(driver)
    state = "the backend cupy cannot run" if wheels else "CuPy is not installed"
    return [_finding(f"a GPU seems to be present, but {state}", "everything runs on the CPU", repair)]
