"""Launches of kernels that begin while the one before them ends, which CuPy does not offer.

NVIDIA calls them *programmatic dependent launches*. A kernel that is launched so has to say where it depends on the
kernels before it, by ``follow()`` of ``kernels/cuda/cluster.cuh``: it waits there until these have ended. What it does
up to that point, and the launch itself, takes place meanwhile. Inside a CUDA graph this needs CUDA 12.3 and compute
capability 9.0.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from bpcore.errors import BackendError

__all__ = ["EarlyLaunch", "load_driver"]

_PROGRAMMATIC_STREAM_SERIALIZATION = 6


class _Attribute(ctypes.Structure):
    """``CUlaunchAttribute`` of the driver's interface: a name, and a value of up to 64 bytes."""

    _fields_ = (("id", ctypes.c_int), ("_", ctypes.c_int), ("value", ctypes.c_int), ("_rest", ctypes.c_byte * 60))


class _Configuration(ctypes.Structure):
    """``CUlaunchConfig``."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


class EarlyLaunch:
    """Queue kernels that begin while what is queued before them ends.

    Parameters
    ----------
    driver : ctypes library
        NVIDIA's driver.
    """

    def __init__(self, driver: Any) -> None:
        self._launch = driver.cuLaunchKernelEx
        self._early = _Attribute(_PROGRAMMATIC_STREAM_SERIALIZATION, 0, 1)

    def __call__(
        self,
        function: Any,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: tuple[Any, ...],
        *,
        shared: int,
        stream: int,
    ) -> None:
        """Queue a kernel.

        Parameters
        ----------
        function : cupy.cuda.Function
            The kernel.
        grid, block : tuple of int
            One to three sizes.
        arguments : tuple
            CuPy arrays, of which the address is passed, and NumPy scalars.
        shared : int
            Bytes of dynamic shared memory.
        stream : int
            Address of the stream.

        Raises
        ------
        BackendError
            If the driver refuses.
        """
        sizes = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        configuration = _Configuration(*sizes, shared, stream, ctypes.pointer(self._early), 1)
        values = [np.array(a.data.ptr if hasattr(a.data, "ptr") else a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        status = self._launch(ctypes.byref(configuration), ctypes.c_void_p(function.ptr), pointers, None)
        if status:
            raise BackendError(
                f"cuLaunchKernelEx of the NVIDIA driver says {status}; see CUresult in its documentation"
            )


def load_driver() -> Any:
    """Return NVIDIA's driver as a ctypes library; None if it is not there, or too old."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return library if hasattr(library, "cuLaunchKernelEx") else None
