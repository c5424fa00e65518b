"""An own handle of cuBLAS, called through ctypes: matrix products inside a CUDA graph, and in lower precision.

CuPy refuses to call cuBLAS while a stream is captured, because cuBLAS might allocate. A handle whose workspace was
given to it beforehand allocates nothing. The library is the one that CuPy has loaded.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bpcore.errors import BackendError
from bpcore.typing import Array

__all__ = ["PRECISIONS", "Cublas", "load_cublas"]

WORKSPACE = 32 * 2**20
"""Bytes that NVIDIA recommends for compute capability 9.0."""

_R_32F, _R_64F, _R_16F, _R_16BF = 0, 1, 2, 14
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _COMPUTE_64F = 68, 77, 70
_DEFAULT_ALGORITHM = -1
_POINTERS_OF_HOST, _POINTERS_OF_DEVICE = 0, 1

PRECISIONS = {
    "float32": (_R_32F, _R_32F, _COMPUTE_32F),
    "tf32": (_R_32F, _R_32F, _COMPUTE_32F_FAST_TF32),
    "bf16": (_R_16BF, _R_32F, _COMPUTE_32F),
    "fp16": (_R_16F, _R_32F, _COMPUTE_32F),
    "float64": (_R_64F, _R_64F, _COMPUTE_64F),
}
"""How products are computed: type of the operands, type of what is added up, and what cuBLAS may do inside. ``tf32``
reads float32 operands with ten bits of their fraction; ``tf32x3`` is three such products."""


class Cublas:
    """Products on one device.

    Parameters
    ----------
    library : ctypes library
        cuBLAS.
    workspace : Array of uint8
        Device memory that the handle may use, at least :data:`WORKSPACE` bytes.

    Raises
    ------
    BackendError
        If cuBLAS cannot be used.
    """

    def __init__(self, library: Any, workspace: Array) -> None:
        self._library, self._workspace = library, workspace
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # cuBLAS reads the factors of a product and of what was there before from these addresses
        self._one: dict[int, Any] = {_R_32F: np.ones(1, np.float32), _R_64F: np.ones(1, np.float64)}
        self._zero: dict[int, Any] = {_R_32F: np.zeros(1, np.float32), _R_64F: np.zeros(1, np.float64)}

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            self._failed(name, status)

    @staticmethod
    def _failed(name: str, status: int) -> NoReturn:
        raise BackendError(f"{name} of cuBLAS says {status}; see CUBLAS_STATUS in NVIDIA's documentation")

    def use_stream(self, stream: int) -> None:
        """Queue what follows on a stream (its address)."""
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        # a new stream takes the workspace away
        address, size = ctypes.c_void_p(self._workspace.data.ptr), ctypes.c_size_t(WORKSPACE)
        self._call("cublasSetWorkspace_v2", self._handle, address, size)

    def multiply(
        self,
        A: Array,
        B: Array,
        out: Array,
        precision: str,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        factors: Array | None = None,
    ) -> None:
        """Queue ``out = A @ B``; matrices are C-contiguous and fit, which is not checked.

        Parameters
        ----------
        A, B : Array, or pair of Array
            Matrices of the type of the operands; numbers of 16 bits are kept in uint16. For ``tf32x3`` pairs of
            matrices: the numbers rounded to ten bits of their fraction, and the rest of them.
        out : Array
            A matrix of the type of the operands, or of what is added up.
        precision : str
            One of :data:`PRECISIONS`, or ``tf32x3``.
        transpose_a, transpose_b : bool
            Whether the transpose of A or B is meant.
        factors : Array, shape (2,), optional
            By what the product is multiplied, and a zero: read by the device when it computes the product. Not for
            ``tf32x3``.
        """
        transposed = {"transpose_a": transpose_a, "transpose_b": transpose_b}
        if precision != "tf32x3":
            self._multiply(A, B, out, precision, **transposed, factors=factors)
            return
        (A_high, A_low), (B_high, B_low) = A, B
        # the smallest first; the product of the rests is left out, at most 2**-22 of |A| @ |B|
        self._multiply(A_low, B_high, out, "tf32", **transposed)
        self._multiply(A_high, B_low, out, "tf32", **transposed, adds=True)
        self._multiply(A_high, B_high, out, "tf32", **transposed, adds=True)

    def _multiply(
        self,
        A: Array,
        B: Array,
        out: Array,
        precision: str,
        *,
        transpose_a: bool,
        transpose_b: bool,
        factors: Array | None = None,
        adds: bool = False,
    ) -> None:
        """Queue one product; with ``adds`` to what is in ``out`` already."""
        kind, sums, compute = PRECISIONS[precision]
        m, n = out.shape
        k = A.shape[0] if transpose_a else A.shape[1]
        one = self._one[sums].ctypes.data
        before = one if adds else self._zero[sums].ctypes.data
        if factors is not None:
            one, before = factors.data.ptr, factors.data.ptr + factors.itemsize
            self._call("cublasSetPointerMode_v2", self._handle, _POINTERS_OF_DEVICE)
        # to cuBLAS, row-major matrices are their transposes: out.T = B.T @ A.T
        self._call(
            "cublasGemmEx",
            self._handle,
            int(transpose_b),
            int(transpose_a),
            n,
            m,
            k,
            ctypes.c_void_p(one),
            ctypes.c_void_p(B.data.ptr),
            kind,
            B.shape[1],
            ctypes.c_void_p(A.data.ptr),
            kind,
            A.shape[1],
            ctypes.c_void_p(before),
            ctypes.c_void_p(out.data.ptr),
            kind if out.dtype == A.dtype else sums,
            n,
            compute,
            _DEFAULT_ALGORITHM,
        )
        if factors is not None:
            self._call("cublasSetPointerMode_v2", self._handle, _POINTERS_OF_HOST)

    def prepare(self, m: int, k: int, n: int, precision: str) -> Callable[[int, int, int], None]:
        """Return a function of three addresses that queues a product, for calls whose time counts.

        Parameters
        ----------
        m, k, n : int
            Sizes below 2**31: A (m, k), B (k, n) and the result (m, n) are C-contiguous, of the type of the operands.
        precision : str
            One of :data:`PRECISIONS`.

        Returns
        -------
        callable
            Called with the addresses of A, B and the result.
        """
        kind, sums, compute = PRECISIONS[precision]
        address, gemm, handle = ctypes.c_void_p, self._library.cublasGemmEx, self._handle
        one, zero = address(self._one[sums].ctypes.data), address(self._zero[sums].ctypes.data)

        def multiply(A: int, B: int, out: int) -> None:
            # to cuBLAS, row-major matrices are their transposes: out.T = B.T @ A.T
            status = gemm(
                *(handle, 0, 0, n, m, k, one, address(B), kind, n, address(A), kind, k),
                *(zero, address(out), kind, n, compute, _DEFAULT_ALGORITHM),
            )
            if status:
                self._failed("cublasGemmEx", status)

        return multiply

    def __del__(self) -> None:
        # the interpreter may be shutting down, and with it the library
        handle, self._handle = getattr(self, "_handle", None), None
        if handle and self._library is not None:
            self._library.cublasDestroy_v2(handle)


def load_cublas(cupy: Any, name: str = "cublas") -> Any:
    """Return the cuBLAS that CuPy uses, as a ctypes library.

    Parameters
    ----------
    cupy : module
        CuPy.
    name : str
        ``"cublas"`` or ``"cublasLt"``, which the former has loaded.

    Raises
    ------
    BackendError
        If it is not found.
    """
    cupy.cuda.get_cublas_handle()  # makes CuPy load it
    major = int(cupy.cuda.runtime.runtimeGetVersion()) // 1000
    tried: list[str] = []
    for path in _paths(name, major):
        try:
            return ctypes.CDLL(path)
        except OSError:
            tried.append(path)
    raise BackendError(f"the {name} that CuPy has loaded was not found under the names {', '.join(tried)}")


def _paths(name: str, major: int) -> Iterable[str]:
    if sys.platform == "win32":
        yield f"{name}64_{major}.dll"
        return
    yield f"lib{name}.so.{major}"
    maps = Path("/proc/self/maps")
    if maps.exists():  # loaded under another name, or from a folder that the linker does not search
        lines = maps.read_text("utf-8", "replace").splitlines()
        yield from sorted({line.split()[-1] for line in lines if f"lib{name}.so" in line})
