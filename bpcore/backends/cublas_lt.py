"""Products of cuBLASLt that go on with ReLU while the result is on chip: forward with the bias, backward with the mask.

What it saves, in passes over a (samples, neurons) array of operands for each ReLU layer: the product alone is followed
by a pass that reads and writes it (2), and backward by one that reads it and H and writes Delta (3). With ReLU inside
the products there remains one pass that reads Delta for BP3. So a layer costs 7 passes instead of 11, its three
products included; where layers are narrow and the batch is large, that is most of the time of a step.

The mask has one bit for each element, its rows are multiples of 128 bits long. An algorithm is asked for when a product
is made, so that nothing is decided, allocated or loaded while a stream is captured.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from bpcore.backends.cublas import PRECISIONS, WORKSPACE
from bpcore.errors import BackendError
from bpcore.typing import Array

__all__ = ["CublasLt", "ReluProduct", "mask_bytes"]

# cublasLtMatmulDescAttributes_t
_TRANSPOSE_A, _TRANSPOSE_B, _EPILOGUE, _BIAS_POINTER, _AUX_POINTER, _AUX_LEADING = 3, 4, 7, 8, 11, 12
# cublasLtEpilogue_t
_RELU_AUX_BIAS, _DRELU = 2 | 4 | 128, 8 | 128
# cublasLtMatmulPreferenceAttributes_t
_MOST_WORKSPACE = 1
_NOT_SUPPORTED = 15
_MASK_BITS = 128


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


def mask_bytes(n: int) -> int:
    """Bytes of a row of the mask of n neurons.

    Examples
    --------
    >>> mask_bytes(64), mask_bytes(130)
    (16, 32)
    """
    return -(-n // _MASK_BITS) * _MASK_BITS // 8


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
    """A product with ReLU behind it: ``out = max(A @ B + b, 0)``, or with a mask ``out = (A @ B.T) * mask``.

    Parameters
    ----------
    lt : CublasLt
        The handle.
    A, B, out : Array
        C-contiguous matrices of operands.
    mask : Array of uint8, shape (m, mask_bytes(n))
        Where ``out`` is positive: written by the first form, read by the second.
    precision : str
        One of :data:`~bpcore.backends.cublas.PRECISIONS`, not float64.
    b : Array, optional
        The bias, of the type of the operands. With it this is the first form.

    Attributes
    ----------
    supported : bool
        Whether cuBLASLt has an algorithm for these sizes.
    """

    def __init__(
        self, lt: CublasLt, A: Array, B: Array, out: Array, mask: Array, precision: str, b: Array | None = None
    ) -> None:
        self._lt = lt
        self._alive = A, B, out, mask, b
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
        self._describe(_TRANSPOSE_A, ctypes.c_int32(b is None))
        self._describe(_TRANSPOSE_B, ctypes.c_int32(0))
        self._describe(_EPILOGUE, ctypes.c_uint32(_DRELU if b is None else _RELU_AUX_BIAS))
        self._describe(_AUX_POINTER, ctypes.c_void_p(mask.data.ptr))
        self._describe(_AUX_LEADING, ctypes.c_int64(8 * mask.shape[1]))
        if b is not None:
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
        lt, (A, B, out, _, _) = self._lt, self._alive
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
