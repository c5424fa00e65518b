"""Kernels over the rows and columns of a matrix: the softmax family, sums, gathers, hits.

Each is a serial loop. ``Z``, ``H``, ``G``, ``A`` have shape (m, n), one sample a row. Sums over rows or over
everything are accumulated in float64. The NumPy reference of each stands in :data:`bpcore.backends.ops.OPS`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment, untyped-decorator"
# Numba types these functions for each dtype; annotations would be ignored by it.

from __future__ import annotations

import numpy as np

from bpcore.kernels.numba.cache import Kernel, inner
from bpcore.kernels.numba.scalar import exp_, from_ordered_, log_, ordered_

__all__ = [
    "SUMS",
    "all_finite",
    "backprop_log_softmax",
    "backprop_softmax",
    "column_sums",
    "log_of_softmax",
    "log_softmax",
    "row_hits",
    "softmax",
    "sum_squares",
    "take_rows",
    "total",
]

ROWS = 2048
"""Elements of whole rows that softmax works on at a time: 16 KiB of float64 stay in the first-level cache."""

SHORT = 64
"""Rows with fewer columns are not worth a vector loop that cannot stop early."""

SUMS = 256
"""Columns summed at a time by ``column_sums``: 2 KiB of float64, far inside the first-level cache."""


@inner(inline=True)
def _largest(A, i):
    """Return the largest number of a row."""
    best = ordered_(A[i, 0])
    for j in range(1, A.shape[1]):
        key = ordered_(A[i, j])
        best = key if key > best else best
    return from_ordered_(best)


@Kernel("T2", "T2!", reassociate=True)
def softmax(Z, out):
    """``exp(z - max) / sum(exp(z - max))`` in every row; a NaN makes its whole row NaN, through the sum."""
    m, n = Z.shape
    flat, at_once = out.reshape(m * n), max(1, ROWS // n)
    for top in range(0, m, at_once):
        end = min(top + at_once, m)
        for i in range(top, end):
            largest = _largest(Z, i)
            for j in range(n):
                out[i, j] = Z[i, j] - largest
        # one loop over all of them: a row alone is often shorter than a vector
        part = flat[top * n : end * n]
        for p in range(part.size):
            part[p] = exp_(part[p])
        for i in range(top, end):
            row_sum = out[i, 0]
            for j in range(1, n):
                row_sum += out[i, j]
            for j in range(n):
                out[i, j] /= row_sum


@Kernel("T2", "T2!", reassociate=True)
def log_softmax(Z, out):
    """``z - max - ln(sum(exp(z - max)))`` in every row."""
    m, n = Z.shape
    for i in range(m):
        largest = _largest(Z, i)
        row_sum = largest - largest
        for j in range(n):
            row_sum += exp_(Z[i, j] - largest)
        shift = log_(row_sum)
        for j in range(n):
            out[i, j] = (Z[i, j] - largest) - shift


@Kernel("T2", "T2", "T2!", reassociate=True)
def log_of_softmax(Z, H, out):
    """:func:`log_softmax` of Z where H, its softmax, is known.

    The largest element of a row of H is 1 over the sum that the logarithm is taken of: no other exponential is needed.
    """
    m, n = Z.shape
    for i in range(m):
        largest, shift = _largest(Z, i), log_(_largest(H, i))
        for j in range(n):
            out[i, j] = (Z[i, j] - largest) + shift


@Kernel("T2", "T2", "T2!", reassociate=True)
def backprop_softmax(G, H, out):
    """``h (g - sum(g h))`` in every row, h the output of softmax."""
    m, n = G.shape
    for i in range(m):
        row_sum = G[i, 0] * H[i, 0]
        for j in range(1, n):
            row_sum += G[i, j] * H[i, j]
        for j in range(n):
            out[i, j] = H[i, j] * (G[i, j] - row_sum)


@Kernel("T2", "T2", "T2!", reassociate=True)
def backprop_log_softmax(G, H, out):
    """``g - exp(h) sum(g)`` in every row, h the output of log-softmax."""
    m, n = G.shape
    for i in range(m):
        row_sum = G[i, 0]
        for j in range(1, n):
            row_sum += G[i, j]
        for j in range(n):
            out[i, j] = G[i, j] - exp_(H[i, j]) * row_sum


@Kernel("T2", "float64 1!", "T1!")
def column_sums(A, sums, out):
    """Sum the rows of A into out (n,); ``sums`` is scratch for :data:`SUMS` numbers."""
    m, n = A.shape
    for start in range(0, n, SUMS):
        width = min(SUMS, n - start)
        for j in range(width):
            sums[j] = 0.0
        end = start + width
        # four rows at a time: the accumulators are read and written a quarter as often
        for i in range(0, m - 3, 4):
            first, second, third, fourth = (
                A[i, start:end],
                A[i + 1, start:end],
                A[i + 2, start:end],
                A[i + 3, start:end],
            )
            for j in range(width):
                above = np.float64(first[j]) + np.float64(second[j])
                sums[j] += above + (np.float64(third[j]) + np.float64(fourth[j]))
        for i in range(m - m % 4, m):
            row = A[i, start:end]
            for j in range(width):
                sums[j] += np.float64(row[j])
        for j in range(width):
            out[start + j] = sums[j]


@Kernel("T1", "float64 1!", reassociate=True)
def total(A, out):
    """Sum of all elements, into ``out[0]``."""
    value = 0.0
    for p in range(A.size):
        value += np.float64(A[p])
    out[0] = value


@Kernel("T1", "float64 1!", reassociate=True)
def sum_squares(A, out):
    """Sum of the squares of all elements, into ``out[0]``."""
    value = 0.0
    for p in range(A.size):
        a = np.float64(A[p])
        value += a * a
    out[0] = value


@Kernel("T1", "T1", "boolean 1!")
def all_finite(A, largest, out):
    """Whether every element lies within the finite range, into ``out[0]``; ``largest[0]`` is its end."""
    bad = False
    for p in range(A.size):
        # false for NaN; "or" is a reduction that vectorises, an early exit is not
        bad |= not (abs(A[p]) <= largest[0])
    out[0] = not bad


@Kernel("T2", "int64 1", "T2!", "int64 1!")
def take_rows(X, index, out, refused):
    """Gather ``out[i] = X[index[i]]``; ``refused[0]`` receives the first i whose index is out of range, else -1."""
    rows, n = X.shape
    refused[0] = -1
    for i in range(index.size):
        k = index[i]
        if k < 0 or k >= rows:
            refused[0] = i
            return
        for j in range(n):
            out[i, j] = X[k, j]


@Kernel("T2", "int64 1", "float64", "T1!")
def row_hits(H, labels, threshold, out):
    """1 where the predicted class is the label, else 0; see :meth:`bpcore.backends.contract.Backend.row_hits`."""
    m, n = H.shape
    for i in range(m):
        label, hit = labels[i], False
        if n < SHORT:
            best, guess = H[i, 0], 0
            hit = best == best
            for j in range(1, n):
                h = H[i, j]
                hit = hit and h == h
                if h > best:
                    best, guess = h, j
            if n == 1 and best > threshold:
                guess = 1
            hit = hit and guess == label
        elif 0 <= label < n:
            # the first largest: above all before it, and at least as large as all behind it; NaN is neither
            row, best = H[i], H[i, label]
            hit = best == best
            for j in range(label):
                hit &= row[j] < best
            for j in range(label + 1, n):
                hit &= row[j] <= best
        out[i] = 1.0 if hit else 0.0
