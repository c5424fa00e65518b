"""Loops over parts of vectors that only some trainings need: dropout and clipping.

Each is compiled by itself when a training first needs it (:mod:`bpcore.kernels.numba.calls`).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# Numba types these functions for each dtype; annotations would be ignored by it.

from __future__ import annotations

import math

import numpy as np

from bpcore.kernels.numba.cache import Kernel

__all__ = ["drop", "limit", "shorten", "squares"]


@Kernel("T1!", *("int64",) * 5)
def drop(work, source, target, size, mask, n):
    """Multiply every n elements by the mask."""
    factors = work[mask : mask + n]
    for start in range(0, size, n):
        A, B = work[source + start : source + start + n], work[target + start : target + start + n]
        for j in range(n):
            B[j] = A[j] * factors[j]


@Kernel("T1!", "int64", "int64", "float64", "T1!")
def limit(grad, begin, size, most, cell):
    """Clip every element; NaN is handed on."""
    cell[0], cell[1] = -most, most
    low, high, part = cell[0], cell[1], grad[begin : begin + size]
    for p in range(size):
        g = part[p]
        g = low if g < low else g
        part[p] = high if g > high else g


@Kernel("T1", "int64", "int64", "float64 1!", "int64", reassociate=True)
def squares(grad, begin, size, out, q):
    """Sum of the squares of some elements, into ``out[q]``."""
    total, part = 0.0, grad[begin : begin + size]
    for p in range(size):
        g = np.float64(part[p])
        total += g * g
    out[q] = total


@Kernel("T1!", "int64", "int64", "float64", "float64", "T1!")
def shorten(grad, begin, size, total, most, cell):
    """Scale a part of a gradient, as :mod:`bpcore.functions.clipping` says, by the sum of the squares of all of it."""
    norm = math.sqrt(total)
    scale = most / (1e-37 if norm < 1e-37 else norm)
    cell[0] = 1.0 if scale > 1.0 else scale
    factor, part = cell[0], grad[begin : begin + size]
    for p in range(size):
        part[p] *= factor
