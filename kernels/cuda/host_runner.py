"""Runs CUDA sources on the CPU, for tests: g++ builds them with ``host.h``, ctypes launches them on NumPy arrays.

What runs their threads, ``host.cpp``, is built once in a folder: most of the time of a small kernel would be its.

Nothing here measures or claims anything about a GPU. It shows that the text that a GPU would get computes the right
numbers, under several orders of its threads, and stays inside its arrays.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SCALARS", "SEEDS", "HostModule", "HostRunError", "unavailable"]

SEEDS = (0, 1, 2, 3)
"""Schedules worth trying: threads in order, in reverse order, at random, and warp by warp at random."""

_HERE = Path(str(files(__package__)))
_KERNEL = re.compile(r'extern "C" __global__ void ((?:__\w+__\([\w, ]+\) )*)(\w+)\(([^)]*)\)')
_CLUSTER = re.compile(r"__cluster_dims__\((\d+), 1, 1\)")
_COMMENT = re.compile(r"/\*.*?\*/")
_WAITS = re.compile(r"__syncthreads\(\)|__shfl_xor_sync\(|cluster_wait\(\)")
_FLAGS = (
    "-std=c++17",
    "-O0",
    "-g1",
    "-fPIC",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
    "-w",
)
_ITEM = re.compile(r"typedef (\w+) T;")
SCALARS = {
    "int": np.int32,
    "long long": np.int64,
    "unsigned int": np.uint32,
    "unsigned long long": np.uint64,
    "float": np.float32,
    "double": np.float64,
}
"""Types of C that kernels take."""
_SANITIZE = ("-fsanitize=address", "-fno-omit-frame-pointer")
_TELL = ("-fsanitize=thread", "--param=tsan-distinguish-volatile=1")
_WATCH = ("-DHOST_RACES", "-gdwarf-4")  # addr2line takes one file for the other in what g++ 12 writes by itself
_PLACE = re.compile(r" (in|called in) <([0-9a-f]+)>")


class HostRunError(RuntimeError):
    """A kernel does something that would hang or be undefined on a GPU, or its source does not compile."""


class _Later(ctypes.Structure):
    _fields_ = (("to", ctypes.c_void_p), ("from_", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("cluster", ctypes.c_uint),
        ("shared", ctypes.c_uint),
        ("seed", ctypes.c_ulonglong),
        ("fibers", ctypes.c_int),
        ("early", ctypes.c_int),
        ("later", ctypes.POINTER(_Later)),
        ("laters", ctypes.c_int),
        ("followed", ctypes.c_int),
        ("history", ctypes.c_void_p),
    )


def unavailable() -> str:
    """Why kernels cannot be run on this machine's CPU; empty when they can."""
    if platform.system() != "Linux":
        return f"the fibers of host.h are written for Linux, this is {platform.system()}"
    return "" if shutil.which("g++") else "g++ is not installed"


class HostModule:
    """Kernels of one translation unit, built for the CPU.

    Parameters
    ----------
    source : str
        CUDA C++, as from :func:`bpcore.kernels.cuda.source.unit_source`.
    folder : Path
        Where to build; a library that is there already for the same text is used again.
    sanitize : bool, default False
        Build with AddressSanitizer. The process must have been started with its library preloaded.
    races : bool, optional
        Watch all accesses, and fail at the first two that nothing orders (``races.cpp``), or that are not aligned. It
        takes ten times as long. Default: :attr:`watch_races`.

    Raises
    ------
    HostRunError
        If g++ refuses the source.
    """

    watch_races = False
    _history: int | None = None  # what races.cpp has seen

    def __init__(self, source: str, folder: Path, *, sanitize: bool = False, races: bool | None = None) -> None:
        races = self.watch_races if races is None else races
        item = _ITEM.search(source)
        element = item.group(1) if item else "T"
        found = _KERNEL.findall(_COMMENT.sub("", source))
        self.kernels = {name: _parameters(text, element) for _, name, text in found}
        self.clusters = {name: int((_CLUSTER.findall(about) or [1])[0]) for about, name, _ in found}
        # Threads may run one after another only if none of them ever waits for another.
        self.fibers = races or bool(_WAITS.search(source))
        flags = _FLAGS + (_SANITIZE if sanitize else ()) + (_WATCH if races else ())
        names = ("host.cpp", "races.cpp") if races else ("host.cpp",)
        machinery = "".join(f'#include "{_HERE / name}"\n' for name in names)
        objects = [_built(folder, machinery, ".o", (*flags, "-O2", "-c"))]
        text = "\n".join(
            [f'#include "{_HERE / "host.h"}"', source, *(f"HOST_KERNEL({name})" for name in self.kernels), ""]
        )
        self._lines = text.splitlines()
        if races:  # linked by itself: what g++ calls at every access is in races.cpp, not in the library of g++
            objects.append(_built(folder, text, ".o", (*flags, *_TELL, "-c")))
            text = ""
        # -Bsymbolic: a kernel may have the name of a function of the C library
        options = (*flags, "-shared", "-Wl,-Bsymbolic", *map(str, objects))
        self._path = _built(folder, text, ".so", options)
        self._library = ctypes.CDLL(str(self._path))

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[Any, ...],
        *,
        seed: int = 2,
        shared: int = 0,
        early: bool = False,
        later: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """Run a kernel to its end.

        Parameters
        ----------
        name : str
            Name of the kernel.
        grid, block : tuple of int
            One to three sizes, as in a CUDA launch.
        arguments : tuple
            NumPy arrays (their address is passed) and NumPy scalars (their bytes are).
        seed : int, default 2
            The schedule, see :data:`SEEDS`.
        shared : int, default 0
            Bytes of dynamic shared memory.
        early : bool, default False
            Whether the kernel begins before the last one has ended, and waits for it in ``follow()``.
        later : sequence of (address, bytes), default ()
            Memory that is changed when it comes to ``follow()``.

        Raises
        ------
        HostRunError
            If the arguments do not fit the parameters, which a GPU would not notice, if threads wait for threads that
            never come, or if a kernel that begins early waits for nobody.
        """
        self._check(name, arguments)
        cluster = self.clusters[name]
        if grid[0] % cluster:
            raise HostRunError(f"{name}: {grid[0]} blocks cannot be clusters of {cluster}")
        launch = _Launch((*grid, 1, 1)[:3], (*block, 1, 1)[:3], cluster, shared, seed, self.fibers)
        launch.early = early
        launch.history = HostModule._history
        sources = [ctypes.create_string_buffer(contents, len(contents)) for _, contents in later]
        changes = [
            _Later(address, ctypes.addressof(source), len(contents))
            for (address, contents), source in zip(later, sources, strict=True)
        ]
        launch.later, launch.laters = (_Later * len(changes))(*changes), len(changes)
        values = [
            np.array(argument.ctypes.data if isinstance(argument, np.ndarray) else argument) for argument in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        function = getattr(self._library, f"host_launch_{name}")
        function.restype = ctypes.c_char_p
        message = function(ctypes.byref(launch), pointers)
        HostModule._history = launch.history
        if message is not None:
            raise HostRunError(f"{name}: {_PLACE.sub(self._line, message.decode())}")
        if early and not launch.followed:
            raise HostRunError(f"{name} was launched to begin early, and does not follow()")

    def _line(self, place: re.Match[str]) -> str:
        """The line of the source at a place in the library, if it is one of the kernels'."""
        address = f"{int(place.group(2), 16) - 1:x}"  # calls are told by what comes after them
        command = ["addr2line", "-e", str(self._path), address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        file, _, line = done.stdout.split(" ")[0].strip().rpartition(":")
        if not Path(file).name.startswith("host-") or not line.isdigit():
            return ""
        return f" {place.group(1)} line {line}, `{self._lines[int(line) - 1].strip()}`"

    def _check(self, name: str, arguments: tuple[Any, ...]) -> None:
        parameters = self.kernels[name]
        if len(arguments) != len(parameters):
            raise HostRunError(f"{name} takes {len(parameters)} arguments, got {len(arguments)}")
        for number, (argument, parameter) in enumerate(zip(arguments, parameters, strict=True)):
            is_array = isinstance(argument, np.ndarray)
            expected = SCALARS.get(parameter.rstrip("*"))
            if is_array != parameter.endswith("*") or (
                expected and argument.dtype.itemsize != np.dtype(expected).itemsize
            ):
                found = f"an array of {argument.dtype}" if is_array else repr(argument)
                raise HostRunError(f"{name}: argument {number} is {found}, the parameter is {parameter}")
            if not is_array and expected is not None and argument.dtype != expected:
                raise HostRunError(f"{name}: argument {number} is {argument!r}, the parameter is {parameter}")


@functools.cache
def _digest_of_host() -> str:
    return hashlib.sha256(
        b"".join((_HERE / name).read_bytes() for name in ("host.h", "host.cpp", "races.h", "races.cpp"))
    ).hexdigest()


def _built(folder: Path, text: str, suffix: str, options: tuple[str, ...]) -> Path:
    """Build a text, unless the folder has what was built of it; any number of processes may do so at the same time."""
    key = hashlib.sha256("\0".join([text, _digest_of_host(), *options]).encode()).hexdigest()[:24]
    result = folder / f"host-{key}{suffix}"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / f"host-{key}-{os.getpid()}.cpp"
        source.write_text(text, encoding="utf-8")
        fresh = source.with_suffix(suffix)
        command = ["g++", str(source), *options, "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HostRunError(f"g++ refuses {source}:\n{done.stderr[:4000]}")
        source.unlink()
        fresh.replace(result)
    return result


def _parameters(text: str, element: str) -> tuple[str, ...]:
    """Types of a kernel's parameters, for example ``("float*", "long long")``."""
    types = []
    for parameter in text.split(","):
        words, star, _ = parameter.replace("const ", "").rpartition("*")
        word = words.strip() if star else " ".join(parameter.replace("const ", "").split()[:-1])
        types.append((element if word == "T" else word) + star)
    return tuple(types)
