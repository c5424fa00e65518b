"""Matrix products inside compiled loops: own ones for narrow layers, BLAS for wide ones.

A product of BLAS begins with an overhead that a narrow layer cannot pay back: it prepares its operands for caches that
are much larger than they are, and its kernels are made for blocks that are wider. :func:`multiply` keeps six rows of
the result, two vectors wide, in registers (:mod:`bpcore.kernels.numba.vectors`) and copies only what would otherwise
be read across rows. Where the matrix of weights outgrows the caches, BLAS is faster; the limit is measured
(:mod:`bpcore.kernels.numba.machine`).

Every matrix lies in C order in a vector, at the place that follows the vector among the arguments. Every element of a
product is a sum in the order of its terms, whatever part of the matrix a thread computes.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic
from numpy.lib.stride_tricks import as_strided

from bpcore.kernels.numba.cache import Kernel, inner
from bpcore.kernels.numba.vectors import dots, move, narrow, prefetch, strip, tile, transpose, width

__all__ = ["gemm_address", "kernel", "multiply", "reference", "scratch_size"]

ROWS = 6
"""Rows of a tile."""
TERMS = 256
"""Terms added at a time: a panel of B, two vectors wide, stays in the first-level cache. Half as many where A is
transposed and lies where it is: there six rows of A, which are apart, need as much room again."""
BLOCK = 240
"""About how many rows of A at a time: together with TERMS they stay in the second-level cache."""
WIDE = 640
"""Columns from which on a block of A is read so often that it is copied to one place first, if it is transposed: its
terms are far apart then."""
FEW_TERMS = 64
"""B is read where it lies if there are no more terms than this, and its rows are not longer than WIDE_ROW."""
WIDE_ROW = 256
"""Reading down a column of a matrix with long rows meets the same few lines of the cache."""

_six, _four, _two, _one = (tile(rows) for rows in (ROWS, 4, 2, 1))
_eight_narrow, _four_narrow, _two_narrow, _one_narrow = (narrow(rows) for rows in (8, 4, 2, 1))
_strip16, _strip8, _strip4, _strip2, _strip1 = (strip(vectors) for vectors in (16, 8, 4, 2, 1))


def scratch_size(itemsize: int) -> int:
    """Return how many numbers of scratch :func:`multiply` needs: a panel of B and a block of A."""
    return TERMS * (2 * width(itemsize) + BLOCK * 3 // 2)


@inner
def _rows(A, a, a_six, a_row, a_term, B, b, b_term, b_second, C, c, c_row, c_second, D, d, d_row, m, k, add):
    """Compute m rows of the result, up to two vectors wide; from six rows of A to the next it is ``a_six``."""
    i = 0
    while i < m:
        at, to, old = a + i // ROWS * a_six + i % ROWS * a_row, c + i * c_row, d + i * d_row
        if m - i >= ROWS:
            _six(A, at, a_row, a_term, B, b, b_term, b_second, C, to, c_row, c_second, D, old, d_row, k, add)
            i += ROWS
        elif m - i >= 4:
            _four(A, at, a_row, a_term, B, b, b_term, b_second, C, to, c_row, c_second, D, old, d_row, k, add)
            i += 4
        elif m - i >= 2:
            _two(A, at, a_row, a_term, B, b, b_term, b_second, C, to, c_row, c_second, D, old, d_row, k, add)
            i += 2
        else:
            _one(A, at, a_row, a_term, B, b, b_term, b_second, C, to, c_row, c_second, D, old, d_row, k, add)
            i += 1


@inner
def _pack(B, b, b_term, b_column, k, columns, panel, w):
    """Copy a panel of B, one to two vectors wide, so that the columns of each term lie together."""
    second = columns - w
    if b_column == 1:
        for p in range(k):
            # the panel after this one: its rows are far apart, and only we know that it comes next
            prefetch(B, b + p * b_term + 2 * w)
            prefetch(B, b + p * b_term + 3 * w)
            move(B, b + p * b_term, panel, p * 2 * w)
            move(B, b + p * b_term + second, panel, p * 2 * w + w)
    else:
        # here b_term is 1: what is a row of the panel is a column in memory
        for v in range(2):
            at, to = b + v * second * b_column, v * w
            for p in range(0, k, w):
                transpose(B, at + p, b_column, k - p, panel, to + p * 2 * w, 2 * w)


@intrinsic
def _gemm(typingctx, address, A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, m, k, n):
    """Call BLAS."""

    def codegen(context, builder, signature, args):
        address, A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, m, k, n = args
        one = ir.Constant(ir.IntType(64), 1)

        def matrix(place, array, begin):
            return builder.gep(context.make_array(signature.args[place])(context, builder, array).data, [begin])

        def reference(value):
            return cgutils.alloca_once_value(builder, value)

        def whole(value):
            return reference(builder.trunc(value, ir.IntType(32)))

        def layout(across, down):
            """Return whether a matrix is transposed, and how far apart its rows are."""
            plain = builder.icmp_signed("==", across, one)
            letters = (ir.Constant(ir.IntType(8), ord(letter)) for letter in "NT")
            return reference(builder.select(plain, *letters)), whole(builder.select(plain, down, across))

        a, b, c = matrix(1, A, a), matrix(5, B, b), matrix(9, C, c)
        (turned_a, apart_a), (turned_b, apart_b) = layout(a_term, a_row), layout(b_column, b_term)
        factors = (reference(ir.Constant(context.get_value_type(signature.args[1].dtype), x)) for x in (1.0, 0.0))
        alpha, beta = factors
        # BLAS counts columns first, so it sees every matrix transposed: C.T = B.T @ A.T
        arguments = [turned_b, turned_a, whole(n), whole(m), whole(k), alpha, b, apart_b, a, apart_a, beta, c]
        arguments.append(whole(c_row))
        function = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(builder.inttoptr(address, function.as_pointer()), arguments)
        return context.get_dummy_value()

    n_ = types.int64
    return types.none(n_, A, n_, n_, n_, B, n_, n_, n_, C, n_, n_, n_, n_, n_), codegen


def gemm_address(dtype: np.dtype[Any]) -> int:
    """Return where BLAS multiplies matrices of a dtype; 0 when nothing is compiled."""
    if numba.config.DISABLE_JIT:
        return 0
    name = "sgemm" if dtype.itemsize == 4 else "dgemm"
    return int(get_cython_function_address("scipy.linalg.cython_blas", name))


def reference(A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, D, d, m, k, n, w, scratch, blas):
    """:func:`multiply` by NumPy."""
    left = as_strided(A[a:], (m, k), (a_row * A.itemsize, a_term * A.itemsize))
    right = as_strided(B[b:], (k, n), (b_term * B.itemsize, b_column * B.itemsize))
    result = as_strided(C[c:], (m, n), (c_row * C.itemsize, C.itemsize))
    result[...] = left @ right + (D[d : d + n] if d >= 0 else 0)


_MATRIX = ("T1!", "int64", "int64", "int64")


@Kernel(*_MATRIX, *_MATRIX, "T1!", "int64", "int64", "T1!", *("int64",) * 5, "T1!", "int64", reassociate=True)
def multiply(A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, D, d, m, k, n, w, scratch, blas):
    """``C[c + i c_row + j] = D[d + j] + sum_p A[a + i a_row + p a_term] B[b + p b_term + j b_column]``.

    Of each pair of strides of A and of B at least one is 1. ``c_row`` is n, unless C has a vector's width of columns or
    more: these may be some of a wider matrix. With d = -1 nothing is added. ``w`` is the width of a vector and
    ``scratch`` has :func:`scratch_size` numbers. With ``blas``, from
    :func:`gemm_address`, other than 0 BLAS multiplies, if no size is 1.
    """
    if blas != 0 and min(m, k, n) > 1:
        _gemm(blas, A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, m, k, n)
        if d >= 0:
            for i in range(m):
                for j in range(n):
                    C[c + i * c_row + j] += D[d + j]
    elif n == 1 and a_term == 1:
        # the last layer of a regression or of a classifier with two classes
        _one_column(A, a, a_row, B, b, C, c, D, d, m, k, w)
    elif n == 1:
        # its gradient: one row of B.T @ A.T
        _one_row(B, b, b_term, A, a, a_term, 1, C, c, k, m, w, scratch)
        if d >= 0:
            for i in range(m):
                C[c + i] += D[d]
    elif m == 1:
        _one_row(A, a, a_term, B, b, b_term, b_column, C, c, k, n, w, scratch)
        if d >= 0:
            for j in range(n):
                C[c + j] += D[d + j]
    elif n < w:
        _narrow(A, a, a_row, a_term, B, b, b_term, b_column, C, c, D, d, m, k, n, w, scratch)
    else:
        _tiles(A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, D, d, m, k, n, w, scratch)


def kernel(dtype: np.dtype[Any]) -> Callable[..., Any]:
    """Return :func:`multiply` for a dtype; when nothing is compiled, :func:`reference`, which is much faster then."""
    return reference if numba.config.DISABLE_JIT else multiply[dtype]


@inner(reassociate=True)
def _one_column(A, a, a_row, B, b, C, c, D, d, m, k, w):
    """Every element is a sum along a row of A."""
    if m < w:
        column = B[b : b + k]
        for i in range(m):
            row, total = A[a + i * a_row : a + i * a_row + k], A[a] - A[a]
            for p in range(k):
                total += row[p] * column[p]
            C[c + i] = total
    else:
        for i in range(0, m, w):
            i = min(i, m - w)  # some rows once more
            dots(A, a + i * a_row, a_row, B, b, C, c + i, k)
    if d >= 0:
        for i in range(m):
            C[c + i] += D[d]


@inner(reassociate=True)
def _one_row(A, a, a_term, B, b, b_term, b_column, C, c, k, n, w, scratch):
    """B is read once: as much of a row at a time as there are registers; or, where it is transposed, row by row."""
    if b_column != 1:
        for j in range(n):
            row, total = B[b + j * b_column : b + j * b_column + k], A[a] - A[a]
            for p in range(k):
                total += A[a + p * a_term] * row[p]
            C[c + j] = total
        return
    if n < w:
        _narrow(A, a, 0, a_term, B, b, b_term, 1, C, c, C, -1, 1, k, n, w, scratch)
        return
    j, most = 0, 16 if w * A.itemsize == 64 else 8  # vectors that fit the registers: there are 32, or only 16
    while j < n:
        j, vectors = min(j, n - w), max((n - j) // w, 1)  # some columns once more
        for first in range(0, k, TERMS):
            x, y, terms = a + first * a_term, b + first * b_term + j, min(TERMS, k - first)
            target, to = C, c + j
            if first > 0:
                target, to = scratch, 0
            if vectors >= 16 and most == 16:
                vectors = 16
                _strip16(A, x, a_term, B, y, b_term, target, to, terms)
            elif vectors >= 8:
                vectors = 8
                _strip8(A, x, a_term, B, y, b_term, target, to, terms)
            elif vectors >= 4:
                vectors = 4
                _strip4(A, x, a_term, B, y, b_term, target, to, terms)
            elif vectors >= 2:
                vectors = 2
                _strip2(A, x, a_term, B, y, b_term, target, to, terms)
            else:
                _strip1(A, x, a_term, B, y, b_term, target, to, terms)
            if first > 0:
                for i in range(vectors * w):
                    C[c + j + i] += scratch[i]
        j += vectors * w


@inner
def _narrow(A, a, a_row, a_term, B, b, b_term, b_column, C, c, D, d, m, k, n, w, scratch):
    """The result has fewer columns than a vector has numbers."""
    for first in range(0, k, TERMS):
        terms, x = min(TERMS, k - first), a + first * a_term
        panel, y, step = B, b + first * b_term, b_term
        if b_column != 1:
            panel, y, step = scratch, 0, w
            for j in range(n):
                for p in range(terms):
                    scratch[p * w + j] = B[b + (first + p) * b_term + j * b_column]
        old, at, d_row, add = C, c, n, first
        if first == 0 and d >= 0:
            old, at, d_row, add = D, d, 0, 1
        i = 0
        while i < m:
            u, v, z = x + i * a_row, c + i * n, at + i * d_row
            if m - i >= 8:
                _eight_narrow(A, u, a_row, a_term, panel, y, step, C, v, n, old, z, d_row, n, terms, add)
                i += 8
            elif m - i >= 4:
                _four_narrow(A, u, a_row, a_term, panel, y, step, C, v, n, old, z, d_row, n, terms, add)
                i += 4
            elif m - i >= 2:
                _two_narrow(A, u, a_row, a_term, panel, y, step, C, v, n, old, z, d_row, n, terms, add)
                i += 2
            else:
                _one_narrow(A, u, a_row, a_term, panel, y, step, C, v, n, old, z, d_row, n, terms, add)
                i += 1


@inner
def _pack_rows(A, a, a_term, height, terms, block, at):
    """Copy a block of A, which is transposed, so that for six rows of it all terms lie together."""
    for i in range(0, height, ROWS):
        rows, panel = min(ROWS, height - i), at + i * terms
        for p in range(terms):
            for r in range(rows):
                block[panel + p * ROWS + r] = A[a + i + r + p * a_term]


@inner
def _tiles(A, a, a_row, a_term, B, b, b_term, b_column, C, c, c_row, D, d, m, k, n, w, scratch):
    direct = b_column == 1 and (m <= 2 * ROWS or k == 1 or (b_term < WIDE_ROW and k <= FEW_TERMS))
    copied = a_term != 1 and n >= WIDE
    most = TERMS if a_term == 1 or copied else TERMS // 2
    blocks = max(1, (2 * m + BLOCK) // (2 * BLOCK))  # never more than half as many rows again
    block = (m + blocks - 1) // blocks
    for first in range(0, k, most):
        terms = min(most, k - first)
        for top in range(0, m, block):
            height = min(block, m - top)
            X, origin, x_row, x_term, x_six = A, a + top * a_row + first * a_term, a_row, a_term, ROWS * a_row
            if copied:
                _pack_rows(A, origin, a_term, height, terms, scratch, TERMS * 2 * w)
                X, origin, x_row, x_term, x_six = scratch, TERMS * 2 * w, 1, ROWS, ROWS * terms
            j = 0
            while j < n:
                columns = min(2 * w, n - j)
                if 0 < n - j - columns < w:
                    columns = w  # what is left then is a vector or more
                second = columns - w
                panel, begin, step, b_second = B, b + first * b_term + j * b_column, b_term, second
                if not direct:
                    _pack(B, begin, b_term, b_column, terms, columns, scratch, w)
                    panel, begin, step, b_second = scratch, 0, 2 * w, w
                place = c + top * c_row + j
                old, at, d_row, add = C, place, c_row, first
                if first == 0 and d >= 0:
                    old, at, d_row, add = D, d + j, 0, 1
                # fmt: off
                _rows(X, origin, x_six, x_row, x_term, panel, begin, step, b_second, C, place, c_row, second, old, at,
                      d_row, height, terms, add)
                # fmt: on
                j += columns
