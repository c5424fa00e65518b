"""Compiles CUDA sources with NVRTC and loads them, each once a device.

NVRTC is called directly, with the options below, and CuPy loads the result. CuPy's own ``RawModule(code=...)`` would
add ``-ftz=true``, which flushes subnormal float32 numbers to zero: ``log(1e-40)`` would be minus infinity on the GPU
and -92 everywhere else. It also means that the compilation that runs on a GPU machine is, option for option, the one
that is tested on machines without a GPU.

Machine code is kept in the cache folder under the hash of everything that determines it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpcore.errors import BackendError
from bpcore.settings import cache_dir

__all__ = [
    "OPTIONS",
    "KernelLoader",
    "cache_folder",
    "compile_with_nvcc",
    "compile_with_nvrtc",
    "nvrtc_target",
    "observed",
]

OPTIONS = ("--std=c++17", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
"""Options of NVRTC and nvcc: no shortcut that changes what NaN, infinity or a subnormal number means."""

_NVRTC_OPTIONS = (*OPTIONS, "-default-device")
"""Without the last, NVRTC before 13.1 takes generic lambdas for functions of the host."""


_observers: list[Callable[[], None]] = []


@contextmanager
def observed(begins: Callable[[], None]) -> Iterator[None]:
    """Call a function whenever a thread of this process begins to compile for a GPU inside a ``with`` block.

    Parameters
    ----------
    begins : callable
        Called for what is not in the cache folder, before it is compiled.
    """
    _observers.append(begins)
    try:
        yield
    finally:
        _observers.remove(begins)


def cache_folder() -> Path:
    """Folder for compiled kernels, in the cache folder."""
    return cache_dir() / "cuda"


def nvrtc_target(capability: int, supported: tuple[int, ...]) -> str:
    """Architecture option for a device: its own machine code, or PTX for the driver to compile if it is too new.

    Parameters
    ----------
    capability : int
        Compute capability as one number, 90 for 9.0.
    supported : tuple of int
        Architectures that NVRTC knows.

    Returns
    -------
    str
        ``"sm_90"`` or ``"compute_90"``.

    Raises
    ------
    BackendError
        If the device is older than everything that NVRTC supports.

    Examples
    --------
    >>> nvrtc_target(90, (75, 80, 90)), nvrtc_target(130, (75, 80, 90))
    ('sm_90', 'compute_90')
    """
    if capability in supported:
        return f"sm_{capability}"
    older = [known for known in supported if known < capability]
    if not older:
        raise BackendError(
            f"this GPU has compute capability {capability / 10}, and the installed NVRTC compiles for "
            f'{min(supported) / 10} and newer; install an older CUDA: pip install "bpcore[cuda12x]"'
        )
    return f"compute_{max(older)}"


def compile_with_nvrtc(source: str, arch: str, name: str = "bpcore.cu") -> bytes:
    """Compile CUDA C++ in this process; needs no GPU and no driver.

    Parameters
    ----------
    source : str
        CUDA C++.
    arch : str
        ``"sm_90"`` for machine code, ``"compute_90"`` for PTX.
    name : str
        File name in messages of the compiler.

    Returns
    -------
    bytes
        A cubin, or PTX.

    Raises
    ------
    BackendError
        If the source does not compile; the message holds the compiler's.
    ImportError
        If CuPy or NVRTC is not installed.
    """
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source, name, (), ())
    try:
        try:
            nvrtc.compileProgram(program, (*_NVRTC_OPTIONS, f"-arch={arch}"))
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise BackendError(f"NVRTC cannot compile {name} for {arch} ({error}):\n{log}") from None
        code: bytes | str = nvrtc.getCUBIN(program) if arch.startswith("sm_") else nvrtc.getPTX(program)
    finally:
        nvrtc.destroyProgram(program)
    return code.encode() if isinstance(code, str) else code


def compile_with_nvcc(source: str, arch: str, nvcc: str | None = None) -> bytes:
    """Compile CUDA C++ with the ``nvcc`` command: the second opinion, for tests where NVRTC is not installed.

    Parameters
    ----------
    source : str
        CUDA C++.
    arch : str
        ``"sm_90"``.
    nvcc : str, optional
        The compiler; by default the one on the path.

    Returns
    -------
    bytes
        A cubin.

    Raises
    ------
    BackendError
        If there is no nvcc or it refuses the source.
    """
    nvcc = nvcc or shutil.which("nvcc")
    if nvcc is None:
        raise BackendError('nvcc is not on the path; install the CUDA toolkit, or NVRTC with "bpcore[cuda13x]"')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "bpcore.cu").write_text(source, encoding="utf-8")
        command = [nvcc, "-cubin", f"-arch={arch}", *OPTIONS, "-o", "bpcore.cubin", "bpcore.cu"]
        done = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackendError(f"nvcc cannot compile for {arch}:\n{done.stdout}{done.stderr}")
        return (path / "bpcore.cubin").read_bytes()


class KernelLoader:
    """Kernels of one device, compiled on first use.

    Parameters
    ----------
    cupy : module
        CuPy.
    capability : int
        Compute capability of the device, 90 for 9.0. The device must be current when kernels are loaded.

    Attributes
    ----------
    compiled : int
        Number of translation units that this loader compiled.
    reused : int
        Number that it found in the cache folder.
    """

    def __init__(self, cupy: Any, capability: int) -> None:
        self._cupy = cupy
        self.capability = capability
        self._modules: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.compiled = 0
        self.reused = 0

    def function(self, source: str, name: str) -> Any:
        """Return a kernel of a translation unit: a callable of (grid, block, arguments)."""
        with self._lock:
            module = self._modules.get(source)
            if module is None:
                module = self._cupy.cuda.Module()
                module.load(self._code(source))
                self._modules[source] = module
            return module.get_function(name)

    def _code(self, source: str) -> bytes:
        from cupy_backends.cuda.libs import nvrtc

        target = nvrtc_target(self.capability, tuple(nvrtc.getSupportedArchs()))
        parts = (source, target, *_NVRTC_OPTIONS, str(nvrtc.getVersion()))
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        path = cache_folder() / f"{key}.{'cubin' if target.startswith('sm_') else 'ptx'}"
        try:
            code = path.read_bytes()
        except OSError:
            for begins in tuple(_observers):
                begins()
            code = compile_with_nvrtc(source, target)
            self.compiled += 1
            _store(path, code)
        else:
            self.reused += 1
        return code


def _store(path: Path, code: bytes) -> None:
    """Write a file of the cache whole or not at all; a cache that cannot be written costs time, not results."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(code)
            os.replace(fresh, path)
        except OSError:
            os.unlink(fresh)
    except OSError:
        return
