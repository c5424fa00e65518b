"""cuBLAS as ctypes sees it, for the stand-in of CuPy: addresses and numbers come as the C interface takes them.

Products are computed in float64 from the operands as the precision has them: numbers of 16 bits as they are, those of
TF32 rounded to ten bits of their fraction. The result is rounded once, to the type of the output.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.backends.fake_cupy import FakeCupy

__all__ = ["FakeLibrary", "from_bfloat16", "to_bfloat16", "to_tf32"]

# CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = 0, 1, 2, 14
# CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32
COMPUTE_32F, COMPUTE_64F, FAST_TF32 = 68, 70, 77
_DTYPES = {FLOAT32: np.float32, FLOAT64: np.float64, FLOAT16: np.float16, BFLOAT16: np.uint16}


def from_bfloat16(bits: Any) -> Any:
    """Values of numbers whose 16 bits are given."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bfloat16(values: Any) -> Any:
    """Round to the nearest, to the even one of two, and return the 16 bits."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_tf32(values: Any) -> Any:
    """Round to ten bits of the fraction."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


class FakeLibrary:
    """The functions of cuBLAS that bpcore calls."""

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self.stream: int | None = None
        self.workspace = 0
        self.pointers_of_device = False

    def cublasCreate_v2(self, handle: Any) -> int:
        handle._obj.value = 7
        return 0

    def cublasDestroy_v2(self, handle: Any) -> int:
        assert handle.value == 7
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self.stream, self.workspace = stream.value or 0, 0
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, address: Any, size: Any) -> int:
        assert self._cupy.is_device_memory(address.value, size.value)
        self.workspace = size.value
        return 0

    def cublasSetPointerMode_v2(self, handle: Any, mode: int) -> int:
        self.pointers_of_device = {0: False, 1: True}[mode]
        return 0

    def cublasGemmEx(
        self, handle: Any, op_a: int, op_b: int, m: int, n: int, k: int, alpha: Any, a: Any, a_type: int, lda: int,
        b: Any, b_type: int, ldb: int, beta: Any, c: Any, c_type: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        assert handle.value == 7
        assert self.stream == self._cupy.stream, "the handle is on another stream"
        assert self.workspace, "cuBLAS would allocate"
        assert a_type == b_type
        assert (a_type, c_type, compute) in {
            *((FLOAT32, FLOAT32, COMPUTE_32F), (FLOAT32, FLOAT32, FAST_TF32), (FLOAT64, FLOAT64, COMPUTE_64F)),
            *((kind, out, COMPUTE_32F) for kind in (FLOAT16, BFLOAT16) for out in (kind, FLOAT32)),
        }, "CUBLAS_STATUS_NOT_SUPPORTED"
        on_device, scalars = self.pointers_of_device, np.float64 if compute == COMPUTE_64F else np.float32

        def multiply() -> None:
            self._cupy.count["gemm"] += 1
            one, zero = (self._number(address.value, scalars, on_device) for address in (alpha, beta))
            assert zero == 0
            A = self._matrix(a_type, a.value, lda, *((k, m) if op_a else (m, k)))
            B = self._matrix(b_type, b.value, ldb, *((n, k) if op_b else (k, n)))
            C = self._matrix(c_type, c.value, ldc, m, n)
            A, B = (self._values(X.T if op else X, a_type, compute) for X, op in ((A, op_a), (B, op_b)))
            with np.errstate(all="ignore"):
                found = float(one) * (A @ B)
                C[...] = to_bfloat16(found) if c_type == BFLOAT16 else found

        self._cupy.do(multiply)
        return 0

    def _number(self, address: int, dtype: Any, on_device: bool) -> Any:
        size = np.dtype(dtype).itemsize
        assert self._cupy.is_device_memory(address, size) == on_device, "a factor on the wrong side"
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)[0]

    def _matrix(self, kind: int, address: int, leading: int, rows: int, columns: int) -> Any:
        return self._cupy.cuda.cublas._matrix(np.dtype(_DTYPES[kind]), address, leading, rows, columns)

    @staticmethod
    def _values(X: Any, kind: int, compute: int) -> Any:
        """Return the numbers that tensor cores multiply."""
        found = from_bfloat16(X) if kind == BFLOAT16 else to_tf32(X) if compute == FAST_TF32 else X
        return found.astype(np.float64)
