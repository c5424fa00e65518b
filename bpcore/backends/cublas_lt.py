"""Products of cuBLASLt that go on with the bias and ReLU while the result is on chip.

A product alone is followed by a pass that reads and writes the result. For operands of 16 bits cuBLASLt has kernels
that do without: on an H200 their products ran at 630 TFLOP/s, and those without an epilogue at 650. It takes bias and
ReLU for float32 and TF32 too, and the mask of ReLU for BP2, but then runs a kernel of its own after the product, which
moves its bytes at less than a third of the bandwidth of the memory. So those are not asked for.

An algorithm is asked for when a product is made, so that nothing is decided, allocated or loaded while a stream is
captured.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from bpcore.backends.cublas import PRECISIONS, WORKSPACE
from bpcore.errors import BackendError
from bpcore.typing import Array

__all__ = ["CublasLt", "ReluProduct"]

# cublasLtMatmulDescAttributes_t
_EPILOGUE, _BIAS_POINTER = 7, 8
# cublasLtEpilogue_t
_RELU_BIAS = 2 | 4
# cublasLtMatmulPreferenceAttributes_t
_MOST_WORKSPACE = 1
_NOT_SUPPORTED = 15


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class CublasLt:
    """A handle of cuBLASLt.

    Parameters
    ----------
    library : ctypes library
        cuBLASLt.
    workspace : Array of uint8
        Device memory, at least :data:`~bpcore.backends.cublas.WORKSPACE` bytes; may be shared with other products on
        the same stream.

    Raises
    ------
    BackendError
        If cuBLASLt cannot be used.
    """

    def __init__(self, library: Any, workspace: Array) -> None:
        self._library, self.workspace = library, workspace
        self.one, self.zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        self.handle: ctypes.c_void_p | None = ctypes.c_void_p()
        self.call("cublasLtCreate", ctypes.byref(self.handle))

    def call(self, name: str, *arguments: Any, may_refuse: bool = False) -> bool:
        """Call a function; False if it may refuse and says that it does not support what was asked."""
        status = getattr(self._library, name)(*arguments)
        if status == _NOT_SUPPORTED and may_refuse:
            return False
        if status:
            raise BackendError(f"{name} of cuBLASLt says {status}; see CUBLAS_STATUS in NVIDIA's documentation")
        return True

    def __del__(self) -> None:
        # the interpreter may be shutting down, and with it the library
        handle, self.handle = getattr(self, "handle", None), None
        if handle and self._library is not None:
            self._library.cublasLtDestroy(handle)


class ReluProduct:
    """A product with bias and ReLU behind it: ``out = max(A @ B + b, 0)``.

    Parameters
    ----------
    lt : CublasLt
        The handle.
    A, B, out : Array
        C-contiguous matrices of operands.
    b : Array
        The bias, of the type of the operands.
    precision : str
        One of :data:`~bpcore.backends.cublas.PRECISIONS`, not float64.

    Attributes
    ----------
    supported : bool
        Whether cuBLASLt has an algorithm for these sizes.
    """

    def __init__(self, lt: CublasLt, A: Array, B: Array, b: Array, out: Array, precision: str) -> None:
        self._lt = lt
        self._alive = A, B, b, out
        kind, sums, compute = PRECISIONS[precision]
        self._description = self._create("cublasLtMatmulDescCreate", compute, sums)
        # to cuBLASLt, row-major matrices are their transposes: out.T = B.T @ A.T
        self._layouts = [
            self._create(
                "cublasLtMatrixLayoutCreate",
                kind,
                ctypes.c_uint64(matrix.shape[1]),
                ctypes.c_uint64(matrix.shape[0]),
                ctypes.c_int64(matrix.shape[1]),
            )
            for matrix in (B, A, out)
        ]
        self._describe(_EPILOGUE, ctypes.c_uint32(_RELU_BIAS))
        self._describe(_BIAS_POINTER, ctypes.c_void_p(b.data.ptr))
        self._found = _Heuristic()
        self.supported = self._ask()

    def _create(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._lt.call(name, ctypes.byref(made), *arguments)
        return made

    def _describe(self, attribute: int, value: Any) -> None:
        self._lt.call(
            "cublasLtMatmulDescSetAttribute",
            self._description,
            attribute,
            ctypes.byref(value),
            ctypes.c_size_t(ctypes.sizeof(value)),
        )

    def _ask(self) -> bool:
        """Let cuBLASLt choose an algorithm."""
        preference, size, count = self._create("cublasLtMatmulPreferenceCreate"), ctypes.c_size_t(8), ctypes.c_int(0)
        most = ctypes.c_uint64(WORKSPACE)
        self._lt.call("cublasLtMatmulPreferenceSetAttribute", preference, _MOST_WORKSPACE, ctypes.byref(most), size)
        B, A, out = self._layouts
        found = self._lt.call(
            "cublasLtMatmulAlgoGetHeuristic",
            *(self._lt.handle, self._description, B, A, out, out, preference),
            *(1, ctypes.byref(self._found), ctypes.byref(count)),
            may_refuse=True,
        )
        self._lt.call("cublasLtMatmulPreferenceDestroy", preference)
        return found and count.value > 0 and self._found.state == 0

    def queue(self, stream: int) -> None:
        """Queue the product on a stream (its address)."""
        lt, (A, B, _, out) = self._lt, self._alive
        address = ctypes.c_void_p(out.data.ptr)
        B_layout, A_layout, layout = self._layouts
        lt.call(
            "cublasLtMatmul",
            *(lt.handle, self._description, ctypes.c_void_p(lt.one.ctypes.data)),
            *(ctypes.c_void_p(B.data.ptr), B_layout, ctypes.c_void_p(A.data.ptr), A_layout),
            *(ctypes.c_void_p(lt.zero.ctypes.data), address, layout, address, layout),
            *(ctypes.byref(self._found), ctypes.c_void_p(lt.workspace.data.ptr), ctypes.c_size_t(WORKSPACE)),
            ctypes.c_void_p(stream),
        )

    def __del__(self) -> None:
        lt = getattr(self, "_lt", None)
        if lt is None or lt.handle is None:
            return
        for layout in getattr(self, "_layouts", ()):
            lt.call("cublasLtMatrixLayoutDestroy", layout)
        if getattr(self, "_description", None) is not None:
            lt.call("cublasLtMatmulDescDestroy", self._description)
