"""The forward pass as one compiled loop: what a trained network answers, without Python between the layers.

As in training (:mod:`bpcore.kernels.numba.epoch`), widths and depth are numbers in a table and activations come as
functions, so the loop is compiled once for each dtype. A block of samples goes through all layers before the next
begins; it needs two matrices, the weighted inputs of a layer and what the layer before hands on.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# Numba types these functions; annotations would be ignored by it.

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from bpcore.kernels.numba.cache import compile_function, inner
from bpcore.kernels.numba.calls import caller
from bpcore.kernels.numba.pieces import ARGUMENTS
from bpcore.kernels.numba.products import multiply

__all__ = ["COLUMNS", "LAYERS", "MULTIPLY", "compile_answer"]

COLUMNS = ("size", "weights", "bias", "blas")
"""Columns of the table of layers, one row a layer: the width; where W and b that lead to the next layer lie in theta;
where BLAS multiplies by W (0: nowhere)."""

_SIZE, _W, _B, _BLAS = range(len(COLUMNS))

MULTIPLY, LAYERS = 0, 1
"""Places of the functions; from LAYERS on ``forward`` of each layer from the second."""

_multiply, _forward = caller(*multiply.arguments), caller(*ARGUMENTS["forward"])


@inner
def _take(X, top, count, work):
    """Copy some samples to the beginning of ``work``; return whether all are finite."""
    n, bad = X.shape[1], False
    for i in range(count):
        row = work[i * n : (i + 1) * n]
        for j in range(n):
            x = X[top + i, j]
            row[j] = x
            # NaN for NaN and infinities; "or" is a reduction that vectorises, an early exit is not
            bad |= x - x != 0
    return not bad


def answer(X, out, theta, table, work, z, scratch, w, block, begin, end, functions):
    """Compute ``out[begin:end]``.

    Parameters
    ----------
    X, out : array (m, n_1), (m, n_L)
        Samples; receives H[L].
    theta : array
        Parameters.
    table : array of int64 (L, 4)
        See :data:`COLUMNS`.
    work : array
        Memory of one thread: H at its beginning and Z at place ``z``, each with room for a block of the widest layer.
    z : int
        Place of Z.
    scratch : array
        For products.
    w, block : int
        Width of a SIMD vector; samples that go through the layers at once.
    begin, end : int
        Samples of this thread.
    functions : array of int64
        See :data:`LAYERS`.

    Returns
    -------
    bool
        False if a sample is not finite; what was not yet computed then is not touched.
    """
    L = table.shape[0]
    n_out = table[L - 1, _SIZE]
    for top in range(begin, end, block):
        count = min(block, end - top)
        if not _take(X, top, count, work):
            return False
        n = table[0, _SIZE]
        for l in range(L - 1):
            n_in, n = n, table[l + 1, _SIZE]
            blas, W, b = table[l, _BLAS], table[l, _W], table[l, _B]
            # Z = H @ W + b
            factors = work, 0, n_in, 1, theta, W, n, 1
            _multiply(functions, MULTIPLY, *factors, work, z, n, theta, b, count, n_in, n, w, scratch, blas)
            _forward(functions, LAYERS + l, work, z, 0, count, n)
        for i in range(count):
            for j in range(n_out):
                out[top + i, j] = work[i * n_out + j]
    return True


@functools.lru_cache(maxsize=2)
def compile_answer(dtype: np.dtype[Any]) -> Callable[..., bool]:
    """Return :func:`answer`, compiled for float32 or float64."""
    real: Any = types.float32 if dtype.itemsize == 4 else types.float64
    whole = types.int64

    def array(element: Any, axes: int) -> Any:
        return types.Array(element, axes, "C")

    arguments = [array(real, 2), array(real, 2), array(real, 1), array(whole, 2), array(real, 1), whole]
    arguments += [array(real, 1), whole, whole, whole, whole, array(whole, 1)]
    return compile_function(answer, types.boolean(*arguments))
