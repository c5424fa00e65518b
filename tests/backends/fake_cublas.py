"""cuBLAS as ctypes sees it, for the stand-in of CuPy: addresses and numbers come as the C interface takes them.

Products are computed in float64 from the operands as the precision has them: numbers of 16 bits as they are, those of
TF32 rounded to ten bits of their fraction, or cut off after them. The result, with what it is added to, is rounded
once, to the type of the output.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tests.backends.fake_cupy import FakeCupy

__all__ = ["FakeLibrary", "cut_to_tf32", "from_bfloat16", "split_into_tf32", "to_bfloat16", "to_tf32"]

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
    """Round to ten bits of the fraction; an infinity or NaN stays one."""
    values = np.asarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)


def cut_to_tf32(values: Any) -> Any:
    """Cut off the fraction after ten bits, as hardware may do instead of rounding; a NaN stays one."""
    values = np.asarray(values, np.float32)
    return np.where(np.isnan(values), values, (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))


def split_into_tf32(values: Any) -> tuple[Any, Any]:
    """Take float32 apart as ``tf32x3`` has it, with the arithmetic of float64: rounded to eleven digits, and the rest.

    Numbers next to the largest are cut off instead of rounded; what is not finite is its own rest.
    """
    values = np.asarray(values, np.float32)
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    _, exponent = np.frexp(finite)  # |x| < 2**exponent
    digit = np.ldexp(1.0, np.maximum(exponent - 11, -136))  # below 2**-126 the digits of float32 end at 2**-149
    high = np.rint(finite / digit) * digit  # to the even one of two
    high = np.where(np.abs(high) > np.finfo(np.float32).max, np.trunc(finite / digit) * digit, high)
    low = np.where(np.isfinite(values), (finite - high).astype(np.float32), values)
    return high.astype(np.float32), low


class FakeLibrary:
    """The functions of cuBLAS that bpcore calls."""

    def __init__(self, cupy: FakeCupy, name: str = "cublas") -> None:
        assert name in ("cublas", "cublasLt")
        self._cupy = cupy
        self._made: dict[int, Any] = {}  # descriptors of cuBLASLt
        self.rounds = to_tf32  # what tensor cores do to a float
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
            one, before = (self._number(address.value, scalars, on_device) for address in (alpha, beta))
            assert before in (0, 1)
            A = self._matrix(a_type, a.value, lda, *((k, m) if op_a else (m, k)))
            B = self._matrix(b_type, b.value, ldb, *((n, k) if op_b else (k, n)))
            C = self._matrix(c_type, c.value, ldc, m, n)
            A, B = (self._values(X.T if op else X, a_type, compute) for X, op in ((A, op_a), (B, op_b)))
            with np.errstate(all="ignore"):
                found = float(one) * (A @ B)
                if before:  # else C is not read, whatever it holds
                    assert c_type == FLOAT32
                    found += C
                C[...] = to_bfloat16(found) if c_type == BFLOAT16 else found

        self._cupy.do(multiply)
        return 0

    # ------------------------------------------------------------------ cuBLASLt

    def cublasLtCreate(self, handle: Any) -> int:
        handle._obj.value = 8
        return 0

    def cublasLtDestroy(self, handle: Any) -> int:
        assert handle.value == 8
        return 0

    def _make(self, made: Any, what: Any) -> int:
        made._obj.value = 100 + len(self._made)
        self._made[made._obj.value] = what
        return 0

    def cublasLtMatmulDescCreate(self, made: Any, compute: int, scale: int) -> int:
        assert (compute, scale) in {(COMPUTE_32F, FLOAT32), (FAST_TF32, FLOAT32)}
        return self._make(made, {"compute": compute})

    def cublasLtMatrixLayoutCreate(self, made: Any, kind: int, rows: Any, columns: Any, leading: Any) -> int:
        return self._make(made, (kind, leading.value, rows.value, columns.value))

    def cublasLtMatmulPreferenceCreate(self, made: Any) -> int:
        return self._make(made, {})

    def _destroy(self, made: Any) -> int:
        self._made[made.value] = None
        return 0

    cublasLtMatmulDescDestroy = cublasLtMatrixLayoutDestroy = cublasLtMatmulPreferenceDestroy = _destroy

    def _set(self, made: Any, attribute: int, value: Any, size: Any) -> int:
        assert ctypes.sizeof(value._obj) == size.value
        self._made[made.value][attribute] = value._obj.value
        return 0

    cublasLtMatmulDescSetAttribute = cublasLtMatmulPreferenceSetAttribute = _set

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle: Any, description: Any, a: Any, b: Any, c: Any, d: Any, preference: Any, wanted: int,
        found: Any, count: Any,
    ) -> int:  # fmt: skip
        self._cupy.not_while_capturing("a question to cuBLASLt")
        assert wanted == 1
        assert self._made[preference.value] == {1: 32 * 2**20}
        kind = self._made[d.value][0]
        alignment = 8 if kind in (FLOAT16, BFLOAT16) else 4
        if any(self._made[layout.value][2] % alignment for layout in (a, b, d)):
            return 15  # CUBLAS_STATUS_NOT_SUPPORTED
        found._obj.algorithm[0] = 42
        count._obj.value = 1
        return 0

    def cublasLtMatmul(
        self, handle: Any, description: Any, alpha: Any, a: Any, a_layout: Any, b: Any, b_layout: Any, beta: Any,
        c: Any, c_layout: Any, d: Any, d_layout: Any, algorithm: Any, workspace: Any, size: Any, stream: Any,
    ) -> int:  # fmt: skip
        assert handle.value == 8
        assert (stream.value or 0) == self._cupy.stream
        assert algorithm._obj.algorithm[0] == 42
        assert self._cupy.is_device_memory(workspace.value, size.value)
        how = dict(self._made[description.value])
        (a_kind, *a_shape), (b_kind, *b_shape), (kind, *shape) = (
            self._made[layout.value] for layout in (a_layout, b_layout, d_layout)
        )
        assert c.value == d.value
        assert a_kind == b_kind == kind
        assert how[7] == 6, "CUBLASLT_EPILOGUE_RELU_BIAS"

        def multiply() -> None:
            self._cupy.count["gemm"] += 1
            assert (self._number(alpha.value, np.float32, False), self._number(beta.value, np.float32, False)) == (1, 0)
            A = self._matrix(kind, a.value, *a_shape)
            B = self._matrix(kind, b.value, *b_shape)
            D = self._matrix(kind, d.value, *shape)
            A, B = (self._values(X, kind, how["compute"]) for X in (A, B))
            with np.errstate(all="ignore"):
                bias = self._matrix(kind, how[8], len(D), len(D), 1)
                found = np.maximum(A @ B + (from_bfloat16(bias) if kind == BFLOAT16 else bias), 0)
                D[...] = to_bfloat16(found) if kind == BFLOAT16 else found

        self._cupy.do(multiply)
        return 0

    def _number(self, address: int, dtype: Any, on_device: bool) -> Any:
        size = np.dtype(dtype).itemsize
        assert self._cupy.is_device_memory(address, size) == on_device, "a factor on the wrong side"
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)[0]

    def _matrix(self, kind: int, address: int, leading: int, rows: int, columns: int) -> Any:
        return self._cupy.cuda.cublas._matrix(np.dtype(_DTYPES[kind]), address, leading, rows, columns)

    def _values(self, X: Any, kind: int, compute: int) -> Any:
        """Return the numbers that tensor cores multiply."""
        found = from_bfloat16(X) if kind == BFLOAT16 else self.rounds(X) if compute == FAST_TF32 else X
        return found.astype(np.float64)
