"""Matrix products inside compiled loops: BLAS through SciPy, called without a check, and own loops for one column.

Matrices are given as vectors (C order) and sizes. ``np.dot`` in compiled code would do the same call, but takes two
seconds to compile and needs an array object for every operand. BLAS is not made for a matrix of one column, the last
layer of a regression or of a classifier with two classes: there its overhead is longer than the work.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic, overload

__all__ = ["gemm_address", "product", "product_left_transposed", "product_right_transposed"]


def gemm_address(dtype: np.dtype[Any]) -> int:
    """Return where BLAS multiplies matrices of a dtype; 0 when nothing is compiled."""
    if numba.config.DISABLE_JIT:
        return 0
    name = "sgemm" if dtype.itemsize == 4 else "dgemm"
    return int(get_cython_function_address("scipy.linalg.cython_blas", name))


def _gemm_intrinsic(transpose_a: bool, transpose_b: bool) -> Any:
    @intrinsic
    def gemm(typingctx, address, A, B, out, m, k, n):
        def codegen(context, builder, signature, args):
            address, *vectors = args[:4]
            a, b, c = (
                context.make_array(kind)(context, builder, vector).data
                for kind, vector in zip(signature.args[1:4], vectors, strict=True)
            )
            int32, real = ir.IntType(32), c.type.pointee
            rows, inner, columns = (builder.trunc(size, int32) for size in args[4:])

            def at(value):
                return cgutils.alloca_once_value(builder, value)

            def letter(transposed):
                return at(ir.Constant(ir.IntType(8), ord("T" if transposed else "N")))

            # BLAS counts columns first, so it sees every matrix transposed: out.T = B.T @ A.T
            arguments = [letter(transpose_b), letter(transpose_a), at(columns), at(rows), at(inner)]
            arguments += [at(ir.Constant(real, 1.0)), b, at(inner if transpose_b else columns)]
            arguments += [a, at(rows if transpose_a else inner), at(ir.Constant(real, 0.0)), c, at(columns)]
            function = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(builder.inttoptr(address, function.as_pointer()), arguments)
            return context.get_dummy_value()

        whole = types.int64
        return types.none(whole, A, B, out, whole, whole, whole), codegen

    return gemm


_gemm, _gemm_left, _gemm_right = (_gemm_intrinsic(*flags) for flags in ((False, False), (True, False), (False, True)))
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}


def product(address, A, B, out, m, k, n):
    """``out = A @ B`` with A (m, k) and B (k, n)."""
    np.dot(A.reshape(m, k), B.reshape(k, n), out.reshape(m, n))


def product_left_transposed(address, A, B, out, m, k, n):
    """``out = A.T @ B`` with A (k, m) and B (k, n)."""
    np.dot(A.reshape(k, m).T, B.reshape(k, n), out.reshape(m, n))


def product_right_transposed(address, A, B, out, m, k, n):
    """``out = A @ B.T`` with A (m, k) and B (n, k)."""
    np.dot(A.reshape(m, k), B.reshape(n, k).T, out.reshape(m, n))


@overload(product, jit_options=_OPTIONS)
def _product_overload(address, A, B, out, m, k, n):
    def impl(address, A, B, out, m, k, n):
        if n > 1:
            _gemm(address, A, B, out, m, k, n)
            return
        for i in range(m):
            start = i * k
            total = A[start] * B[0]
            for p in range(1, k):
                total += A[start + p] * B[p]
            out[i] = total

    return impl


@overload(product_left_transposed, jit_options=_OPTIONS)
def _product_left_overload(address, A, B, out, m, k, n):
    def impl(address, A, B, out, m, k, n):
        if n > 1:
            _gemm_left(address, A, B, out, m, k, n)
            return
        for i in range(m):
            out[i] = A[i] * B[0]
        for p in range(1, k):
            start, factor = p * m, B[p]
            for i in range(m):
                out[i] += A[start + i] * factor

    return impl


@overload(product_right_transposed, jit_options=_OPTIONS)
def _product_right_overload(address, A, B, out, m, k, n):
    def impl(address, A, B, out, m, k, n):
        if k > 1:
            _gemm_right(address, A, B, out, m, k, n)
            return
        for i in range(m):
            start, factor = i * n, A[i]
            for j in range(n):
                out[start + j] = factor * B[j]

    return impl
