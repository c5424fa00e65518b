"""Finds out whether CuPy can run here, and what to do when it cannot; never raises, never starts the GPU.

Each answer names one cause. "Installed", "imports", "has a device" and "has its libraries" are separate facts, and the
first that fails is the one to repair.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from bpcore.backends.contract import Probe

__all__ = ["device_facts", "driver_cuda_version", "install_command", "installed_wheels", "probe_cupy"]

_WHEEL = re.compile(r"(amd-)?cupy(-cuda\d+x?|-rocm[-\d]*)?\Z")


def probe_cupy() -> Probe:
    """Probe CuPy: installation, driver, device and the two CUDA libraries that bpcore calls.

    Returns
    -------
    Probe
        Facts hold ``cupy``, ``wheel``, ``driver`` and ``runtime`` (CUDA versions as text), ``gpu``,
        ``compute_capability``, ``gpu_memory`` (bytes), ``multiprocessors``, ``nvrtc``, as far as they were found.
    """
    facts: dict[str, Any] = {}
    try:
        return _probe(facts)
    except Exception as error:  # a probe that raises would hide every other backend
        return Probe(False, f"probing CuPy failed: {type(error).__name__}: {error}", install_command(), facts)


def driver_cuda_version() -> int:
    """Newest CUDA version that the installed NVIDIA driver serves, as 1000 * major + 10 * minor; 0 without a driver."""
    names = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
    for name in names:
        try:
            library = ctypes.CDLL(name)
            version = ctypes.c_int(0)
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
                return version.value
        except (OSError, AttributeError):
            continue
    return 0


def _probe(facts: dict[str, Any]) -> Probe:
    driver = driver_cuda_version()
    if driver:
        facts["driver"] = _version(driver)
    wheels = installed_wheels()
    if len(wheels) > 1:
        return Probe(
            False,
            f"several CuPy packages are installed and overwrite one another: {', '.join(wheels)}",
            f"pip uninstall -y {' '.join(wheels)} && {install_command(driver)}",
            facts,
        )
    if not wheels and "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        where = "" if driver else ", and no NVIDIA driver was found"
        return Probe(False, f"CuPy is not installed{where}", install_command(driver), facts)
    facts["wheel"] = wheels[0] if wheels else "unknown"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cupy = importlib.import_module("cupy")
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Probe(False, f"CuPy is installed but cannot be imported: {text[:300]}", install_command(driver), facts)
    facts["cupy"] = str(cupy.__version__)
    return _probe_device(cupy, driver, facts)


def _probe_device(cupy: Any, driver: int, facts: dict[str, Any]) -> Probe:
    runtime = cupy.cuda.runtime
    built = int(runtime.runtimeGetVersion())
    facts["runtime"] = _version(built)
    if not cupy.cuda.is_available():
        if not driver:
            return Probe(False, "no NVIDIA driver was found", "use a machine with an NVIDIA GPU and its driver", facts)
        if driver // 1000 < built // 1000:
            return Probe(
                False,
                f"the NVIDIA driver serves CUDA {_version(driver)}, and this CuPy was built for CUDA {_version(built)}",
                f"update the driver, or: pip uninstall -y {facts['wheel']} && {install_command(driver)}",
                facts,
            )
        return Probe(
            False,
            "the CUDA driver reports no device",
            "check `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES; in a container, give it the GPU",
            facts,
        )
    facts |= device_facts(runtime.getDeviceProperties(int(runtime.getDevice())))
    missing = _missing_libraries(facts)
    if missing:
        return Probe(False, f"CuPy lacks CUDA libraries: {missing}", install_command(driver, "--upgrade "), facts)
    return Probe(True, f"{facts['gpu']}, CuPy {facts['cupy']}, CUDA {facts['runtime']}", facts=facts)


def device_facts(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Name, compute capability, memory in bytes and multiprocessors, from CUDA's description of a device."""
    name = properties["name"]
    return {
        "gpu": name.decode() if isinstance(name, bytes) else str(name),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "gpu_memory": int(properties["totalGlobalMem"]),
        "multiprocessors": int(properties["multiProcessorCount"]),
    }


def installed_wheels() -> list[str]:
    """Names of the installed distributions that bring a package ``cupy``; more than one is a clash."""
    names = {(distribution.metadata["Name"] or "").lower() for distribution in importlib.metadata.distributions()}
    return sorted(name for name in names if _WHEEL.match(name))


def _missing_libraries(facts: dict[str, Any]) -> str:
    """Load NVRTC and cuBLAS; return what could not be loaded, with the loader's first words."""
    problems = []
    try:
        nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        facts["nvrtc"] = ".".join(map(str, nvrtc.getVersion()))
    except Exception as error:
        problems.append(f"NVRTC ({_first_words(error)})")
    try:
        # attribute access, not an import of the submodule: CuPy loads the library on the way
        _ = importlib.import_module("cupy_backends.cuda.libs").cublas
    except Exception as error:
        problems.append(f"cuBLAS ({_first_words(error)})")
    return ", ".join(problems)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def install_command(driver: int | None = None, options: str = "") -> str:
    """Command that installs the CuPy that a driver (by default this machine's) can serve; 0 stands for no driver."""
    driver = driver_cuda_version() if driver is None else driver
    extra = "cuda12x" if 0 < driver < 13000 else "cuda13x"
    return f'pip install {options}"bpcore[{extra}]"'


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
