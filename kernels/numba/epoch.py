"""A run of training steps as one compiled loop: gather, forward, loss, BP1 to BP4, penalty, clipping, update.

Nothing here belongs to a particular network. Widths, depth and batch size are numbers in a table, what is declared
(activations, loss, rule, ...) comes as functions (:mod:`bpcore.kernels.numba.pieces`), so the loop is compiled once
for each dtype (:mod:`bpcore.kernels.numba.calls`). Inside there is no Python and no allocation; the GIL is released
for the whole run.

What belongs to the layers lies in one flat vector ``work``, at the places that the table gives.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Numba types these functions; annotations would be ignored by it.

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types

from bpcore.kernels.numba import philox, rowwise
from bpcore.kernels.numba.cache import compile_function
from bpcore.kernels.numba.calls import caller
from bpcore.kernels.numba.pieces import ARGUMENTS, MAX_STATES
from bpcore.kernels.numba.products import product, product_left_transposed, product_right_transposed
from bpcore.random import Purpose

__all__ = ["CLIP_ALL", "CLIP_ELEMENT", "CLIP_LAYER", "CLIP_NOT", "COLUMNS", "compile_run", "run"]

COLUMNS = ("size", "weights", "bias", "z", "h", "passed", "delta", "mask", "limit")
"""Columns of the table of layers, one row a layer: the width; where W and b that lead to the next layer lie in theta;
where Z, H, what is handed on, Delta and the dropout mask (-1 for none) lie in ``work``; below which random word a
neuron is dropped."""

CLIP_NOT, CLIP_ELEMENT, CLIP_ALL, CLIP_LAYER = range(4)

_SIZE, _W, _B, _Z, _H, _PASSED, _DELTA, _MASK, _LIMIT = range(len(COLUMNS))
_DROPOUT = np.uint64(Purpose.DROPOUT)
_OPTIONS = {"nogil": True, "error_model": "numpy"}


_take_rows = caller(*rowwise.take_rows.arguments)
_row_hits = caller(*rowwise.row_hits.arguments)
_column_sums = caller(*rowwise.column_sums.arguments)
_total = caller(*rowwise.total.arguments)
_sum_squares = caller(*rowwise.sum_squares.arguments)
_dropout_mask = caller(*philox.dropout_mask.arguments)
_output, _penalty, _scalars, _update, _forward, _backward = (
    caller(*ARGUMENTS[kind]) for kind in ("output", "penalty", "scalars", "update", "forward", "backward")
)
TAKE_X, TAKE_Y, HITS, COLUMN_SUMS, TOTAL, SUM_SQUARES, MASK, OUTPUT, PENALTY, SCALARS, UPDATE, GEMM, LAYERS = range(13)
"""Places of the functions; from LAYERS on ``forward`` and ``backward`` of each layer from the second."""


@numba.njit(forceinline=True, **_OPTIONS)
def _part(flat, start, size):
    return flat[start : start + size]


@numba.njit(**_OPTIONS)
def _drop(source, mask, out):
    """Multiply every row by the mask, or, where they are of one size, every element by its own."""
    n = mask.size
    for start in range(0, source.size, n):
        for j in range(n):
            out[start + j] = source[start + j] * mask[j]


@numba.njit(**_OPTIONS)
def _clip(functions, part, scope, limit, one, cell):
    """Clip a part of the gradient as :mod:`bpcore.functions.clipping` says; NaN is handed on."""
    if scope == CLIP_ELEMENT:
        cell[0], cell[1] = -limit, limit
        low, high = cell[0], cell[1]
        for p in range(part.size):
            g = part[p]
            g = low if g < low else g
            part[p] = high if g > high else g
        return
    _sum_squares(functions, SUM_SQUARES, part, one)
    norm = math.sqrt(one[0])
    scale = limit / (1e-37 if norm < 1e-37 else norm)
    cell[0] = 1.0 if scale > 1.0 else scale
    factor = cell[0]
    for p in range(part.size):
        part[p] *= factor


def run(
    X,
    Y,
    labels,
    weights,
    index,
    etas,
    records,
    theta,
    grad,
    s0,
    s1,
    s2,
    s3,
    running,
    hyper,
    numbers,
    prices,
    table,
    work,
    kept,
    ones,
    batch_labels,
    rows,
    sums,
    cells,
    first,
    seed,
    per_sample,
    s,
    threshold,
    scope,
    limit,
    functions,
):
    """Run one step for each row of the index.

    Parameters
    ----------
    X, Y : array (p, n_1), (p, n_L)
        The data.
    labels, weights : array of int64 (p,), array (p,)
        Classes and weights of the samples; empty if there are none.
    index : array of int64 (steps, m)
        Samples of each step, all within [0, p).
    etas : array of float64 (steps,)
        Learning rates.
    records : array of float64 (3, steps)
        Receives loss, hits and weight.
    theta, grad, s0, s1, s2, s3 : array (P,)
        Parameters, gradient, state of the rule (empty if the rule has fewer).
    running, hyper, numbers, prices : array of float64
        Running numbers, hyper parameters and what the update reads; constants of the penalty and one number
        more (nothing: no penalty).
    table : array of int64 (L, 9)
        See :data:`COLUMNS`.
    work, ones, cells : array
        Memory of the layers; ones; scratch for two numbers.
    kept : array of float64 (L,)
        What the mask holds for a neuron that stays; 0 where no neuron is dropped.
    batch_labels, rows, sums : array of int64 (m,), array (4, m), array of float64
        Scratch: labels of the batch; weights, scales and hits of its samples; sums of columns.
    first, seed : int
        Finished steps; seed of the masks.
    per_sample : int
        Whether each sample has a mask of its own.
    s, threshold : float
        Factor of the loss; output above which one neuron says class 1.
    scope, limit : int, float
        Clipping.
    functions : array of int64
        See :data:`LAYERS`.

    Returns
    -------
    int
        Steps that were run: all, or those before one at which a number of the rule was not finite.
    """
    L, (steps, m) = table.shape[0], index.shape
    n_out, size = table[L - 1, _SIZE], m * table[L - 1, _SIZE]
    X_batch = _part(work, table[0, _H], m * table[0, _SIZE]).reshape(m, table[0, _SIZE])
    Z_out, H_out = _part(work, table[L - 1, _Z], size), _part(work, table[L - 1, _H], size)
    Delta_out = _part(work, table[L - 1, _DELTA], size)
    # behind the output layer: loss terms and targets of the batch
    terms, Y_batch = _part(work, table[L - 1, _PASSED], size), _part(work, table[L - 1, _MASK], size)
    Y_rows, H_rows = Y_batch.reshape(m, n_out), H_out.reshape(m, n_out)
    w, scales, hits = rows[0, :m], rows[1, :m], rows[2, :m]
    one, refused = sums[:1], batch_labels[m:]
    masked = kept.any() and not per_sample
    for k in range(steps):
        step = first + k
        _scalars(functions, SCALARS, np.float64(step + 1), etas[k], hyper, running, numbers, one)
        if one[0] == 0:
            return k
        _take_rows(functions, TAKE_X, X, index[k], X_batch, refused)
        _take_rows(functions, TAKE_Y, Y, index[k], Y_rows, refused)

        # weights of the samples in the mean
        if weights.size > 0:
            for i in range(m):
                w[i] = weights[index[k, i]]
            _total(functions, TOTAL, w, one)
            records[2, k] = one[0]
            cells[0], cells[1] = one[0], s
            total, factor = cells[0], cells[1]
            for i in range(m):
                scales[i] = factor * w[i] / total if total > 0 else 0
        else:
            records[2, k] = m

        # forward
        for l in range(L - 1):
            n_in, n = table[l, _SIZE], table[l + 1, _SIZE]
            A, W = _part(work, table[l, _PASSED], m * n_in), _part(theta, table[l, _W], n_in * n)
            Z, H = _part(work, table[l + 1, _Z], m * n), _part(work, table[l + 1, _H], m * n)
            product(functions[GEMM], A, W, Z, m, n_in, n)
            _forward(functions, LAYERS + 2 * l, Z, _part(theta, table[l, _B], n), H)
            if kept[l + 1] > 0:
                mask = _part(work, table[l + 1, _MASK], m * n if per_sample else n)
                limit_of_words = np.uint64(table[l + 1, _LIMIT])
                counters = np.uint64(seed), _DROPOUT, np.uint64(step), np.uint64(l + 2)
                _dropout_mask(functions, MASK, mask, limit_of_words, kept[l + 1], *counters)
                _drop(H, mask, _part(work, table[l + 1, _PASSED], m * n))

        # loss, BP1, hits
        _output(functions, OUTPUT, Z_out, H_out, Y_batch, s / m, scales, terms, Delta_out, n_out, one)
        records[0, k] = one[0]
        if labels.size > 0:
            for i in range(m):
                batch_labels[i] = labels[index[k, i]]
            _row_hits(functions, HITS, H_rows, batch_labels[:m], threshold, hits)
            if weights.size > 0:
                for i in range(m):
                    hits[i] *= w[i]
            _total(functions, TOTAL, hits, one)
            records[1, k] = one[0]

        # BP3, BP4, BP2
        for l in range(L - 2, -1, -1):
            n_in, n = table[l, _SIZE], table[l + 1, _SIZE]
            Delta, A = _part(work, table[l + 1, _DELTA], m * n), _part(work, table[l, _PASSED], m * n_in)
            W, dW = _part(theta, table[l, _W], n_in * n), _part(grad, table[l, _W], n_in * n)
            _column_sums(functions, COLUMN_SUMS, Delta.reshape(m, n), sums, _part(grad, table[l, _B], n))
            product_left_transposed(functions[GEMM], A, Delta, dW, n_in, m, n)
            if l > 0:
                E = _part(work, table[l, _DELTA], m * n_in)
                product_right_transposed(functions[GEMM], Delta, W, E, m, n, n_in)
                if kept[l] > 0:
                    _drop(E, _part(work, table[l, _MASK], m * n_in if per_sample else n_in), E)
                Z, H = _part(work, table[l, _Z], m * n_in), _part(work, table[l, _H], m * n_in)
                _backward(functions, LAYERS + 2 * l - 1, E, Z, H, n_in)

        # what is done to the gradient
        if prices.size > 0:
            for l in range(L - 1):
                start, end = table[l, _W], table[l, _W] + table[l, _SIZE] * table[l + 1, _SIZE]
                _penalty(functions, PENALTY, grad[start:end], theta[start:end], prices)
        if scope == CLIP_LAYER:
            for l in range(L - 1):
                _clip(functions, grad[table[l, _W] : table[l + 1, _W]], scope, limit, one, cells)
        elif scope != CLIP_NOT:
            _clip(functions, grad, scope, limit, one, cells)

        # update: of everything, or of each block around the neurons that were dropped
        if not masked:
            _update(functions, UPDATE, theta, grad, s0, s1, s2, s3, ones, ones, numbers)
        else:
            for l in range(L - 1):
                n_in, n = table[l, _SIZE], table[l + 1, _SIZE]
                keep_in = _part(work, table[l, _MASK], n_in) if kept[l] > 0 else ones[:n_in]
                keep_out = _part(work, table[l + 1, _MASK], n) if kept[l + 1] > 0 else ones[:n]
                for block in range(2):
                    at, size_in = (table[l, _B], 1) if block else (table[l, _W], n_in)
                    here = slice(at, at + size_in * n)
                    states = s0[here], s1[here], s2[here], s3[here]
                    keep = ones[:1] if block else keep_in
                    _update(functions, UPDATE, theta[here], grad[here], *states, keep, keep_out, numbers)
    return steps


@functools.lru_cache(maxsize=2)
def compile_run(dtype: np.dtype[Any]) -> Callable[..., int]:
    """Return :func:`run`, compiled for float32 or float64 parameters and data."""
    real: Any = types.float32 if dtype.itemsize == 4 else types.float64
    whole, number = types.int64, types.float64

    def array(element: Any, axes: int, layout: str = "C", *, readonly: bool = False) -> Any:
        return types.Array(element, axes, layout, readonly=readonly)

    data = array(real, 2, "A", readonly=True)
    arguments = [data, data, array(whole, 1, readonly=True), array(real, 1, readonly=True)]
    arguments += [array(whole, 2, readonly=True), array(number, 1), array(number, 2, "A")]
    arguments += [array(real, 1)] * (2 + MAX_STATES) + [array(number, 1)] * 4
    arguments += [array(whole, 2), array(real, 1), array(number, 1), array(real, 1), array(whole, 1), array(real, 2)]
    arguments += [array(number, 1), array(real, 1), whole, types.uint64, types.boolean, number, number, whole, number]
    return compile_function(run, whole(*arguments, array(whole, 1)))
