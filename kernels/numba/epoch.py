"""A run of training steps as one compiled loop: gather, forward, loss, BP1 to BP4, penalty, clipping, update.

Nothing here belongs to a particular network. Widths, depth and batch size are numbers in a table, what is declared
(activations, loss, rule, ...) comes as functions (:mod:`bpcore.kernels.numba.pieces`), so the loop is compiled once
for each dtype (:mod:`bpcore.kernels.numba.calls`). Inside there is no Python and no allocation; the GIL is released
for the whole run.

One thread or a team of threads runs it (:mod:`bpcore.kernels.numba.team`). A step has two halves, after each of which
the members wait for one another. In the first a member takes some samples of the batch from their inputs to their
Delta[2]: no other sample has a part in that. In the second it computes some rows of every dW, from all samples, and
updates the parameters that belong to them while the gradient is still in its cache. So nothing is computed twice and
no gradients are added up across threads.

Of the first layer, often the widest, a member may keep its rows of W for itself (``partials``): it gathers only the
inputs that meet these rows, of all samples, and multiplies them; what the members have found for Z[2] is added up.
Then neither W[1] nor X ever moves from one core to another.

W of a wide layer is larger than a cache and would be read by every member. Where the table says so, the members share
its products by columns instead (``shared``): each reads its part of W only, for all samples, and they meet before and
after.

What belongs to the layers lies in one flat vector ``work``, at the places that the table gives.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Numba types these functions; annotations would be ignored by it.

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from bpcore.kernels.numba import parts, philox, rowwise
from bpcore.kernels.numba.cache import compile_function, inner
from bpcore.kernels.numba.calls import caller
from bpcore.kernels.numba.pieces import ARGUMENTS, MAX_STATES
from bpcore.kernels.numba.products import multiply
from bpcore.kernels.numba.team import meet
from bpcore.kernels.numba.vectors import prefetch
from bpcore.random import Purpose

__all__ = [
    "BIAS",
    "CLIP_ALL",
    "CLIP_ELEMENT",
    "CLIP_LAYER",
    "CLIP_NOT",
    "COLUMNS",
    "PER_BATCH",
    "PER_SAMPLE",
    "compile_run",
    "run",
]

COLUMNS = ("size", "weights", "bias", "z", "h", "passed", "delta", "mask", "limit", "blas", "shared")
"""Columns of the table of layers, one row a layer: the width; where W and b that lead to the next layer lie in theta;
where Z, H, what is handed on, Delta and the dropout mask (-1 for none) lie in ``work``; below which random word a
neuron is dropped; where BLAS multiplies by W (0: nowhere); whether the members share the products with W by columns."""

CLIP_NOT, CLIP_ELEMENT, CLIP_ALL, CLIP_LAYER = range(4)

PER_BATCH, PER_SAMPLE = 1, 2

BIAS = -1
"""Row of a share that stands for the bias."""

_SIZE, _W, _B, _Z, _H, _PASSED, _DELTA, _MASK, _LIMIT, _BLAS, _SHARED = range(len(COLUMNS))
_DROPOUT = np.uint64(Purpose.DROPOUT)


_row_hits = caller(*rowwise.row_hits.arguments)
_dropout_mask = caller(*philox.dropout_mask.arguments)
_drop, _limit = caller(*parts.drop.arguments), caller(*parts.limit.arguments)
_squares, _shorten = caller(*parts.squares.arguments), caller(*parts.shorten.arguments)
_multiply = caller(*multiply.arguments)
_output, _penalty, _scalars, _update, _forward, _backward = (
    caller(*ARGUMENTS[kind]) for kind in ("output", "penalty", "scalars", "update", "forward", "backward")
)
HITS, MASK, DROP, LIMIT, SQUARES, SHORTEN = range(6)
OUTPUT, PENALTY, SCALARS, UPDATE, MULTIPLY, YIELD, LAYERS = range(6, 13)
"""Places of the functions; from LAYERS on ``forward`` and ``backward`` of each layer from the second."""

# Slices and reshapes take Numba long to compile: what is called gets whole vectors and places in them.


@inner
def _gather(X, index, k, top, count, work, at):
    """Copy some of the samples of step k."""
    n, line = X.shape[1], 64 // X.itemsize
    for i in range(count):
        if i + 1 < count:
            # they lie anywhere: while one is copied, the next is on its way
            following = index[k, top + i + 1] * n
            for j in range(0, n, line):
                prefetch(X, following + j)
        p, row = index[k, top + i], work[at + i * n : at + (i + 1) * n]
        for j in range(n):
            row[j] = X[p, j]


@inner
def _gather_columns(X, index, k, first, end, work, at):
    """Copy some columns of all samples of step k."""
    n, m, width, line = X.shape[1], index.shape[1], end - first, 64 // X.itemsize
    for i in range(m):
        if i + 1 < m:
            following = index[k, i + 1] * n + first
            for j in range(0, width, line):
                prefetch(X, following + j)
        p, row = index[k, i], work[at + i * width : at + (i + 1) * width]
        for j in range(width):
            row[j] = X[p, first + j]


@inner
def _add_partials(work, partials, T, size, begin, count, z):
    """Add up what the members have found for some elements of Z."""
    target = work[z : z + count]
    for t in range(T):
        part = work[partials + t * size + begin : partials + t * size + begin + count]
        if t == 0:
            for i in range(count):
                target[i] = part[i]
        else:
            for i in range(count):
                target[i] += part[i]


@inner
def _columns(n, t, T, w):
    """Return the first of the columns of member t, and how many there are: whole tiles but for the last member."""
    first, end = t * n // T // (2 * w) * 2 * w, n
    if t < T - 1:
        end = (t + 1) * n // T // (2 * w) * 2 * w
    return first, end - first


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
    all_running,
    hyper,
    all_numbers,
    prices,
    table,
    work,
    ones,
    kept,
    batch_labels,
    scales,
    hits,
    all_ones,
    all_cells,
    all_scratch,
    partial,
    shares,
    begins,
    squares,
    first,
    seed,
    dropout,
    s,
    threshold,
    scope,
    limit,
    w,
    block,
    partials,
    t,
    place,
    functions,
):
    """Run one step for each row of the index, as member t of a team of T.

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
    all_running, hyper, all_numbers : array of float64 (T, .), (.,), (T, .)
        Running numbers of the rule, hyper parameters and what the update reads.
    prices : array of float64
        Constants of the penalty and one number more (nothing: no penalty).
    table : array of int64 (L, 11)
        See :data:`COLUMNS`.
    work : array
        Memory of the layers.
    ones : int
        Where ones lie in ``work``, as many as the widest layer has neurons.
    kept : array of float64 (L,)
        What the mask holds for a neuron that stays; 0 where no neuron is dropped.
    batch_labels, scales, hits : array of int64 (m,), array (m,), array (m,)
        Scratch: labels of the batch; weights of its samples in the mean; which of them are hits.
    all_ones, all_cells, all_scratch : array of float64 (T, 8), array (T, 2), array (T, .)
        Scratch of each member: one number that a function returns, two numbers, for products.
    partial : array of float64 (T, 8)
        Loss and hits of each member's samples.
    shares, begins, squares : array of int64 (., 3), array of int64 (T + 1,), array of float64
        The parts of the gradient: the layer, the first row of dW (or :data:`BIAS`) and the row after the last; which
        of them are whose; scratch for the sum of the squares of each.
    first, seed : int
        Finished steps; seed of the masks.
    dropout : int
        0 for none, :data:`PER_BATCH` or :data:`PER_SAMPLE`.
    s, threshold : float
        Factor of the loss; output above which one neuron says class 1.
    scope, limit : int, float
        Clipping.
    w, block : int
        Width of a SIMD vector; samples that go through the layers at once, so that what they need stays in cache.
    partials : int
        Where in ``work`` each member puts its part of Z[2], if each keeps its rows of W[1] for itself; else -1.
    t, place : int, array of int64
        Which member this is; where the team meets.
    functions : array of int64
        See :data:`LAYERS`.

    Returns
    -------
    int
        Steps that were run: all, or those before one at which a number of the rule was not finite.
    """
    L, (steps, m), T = table.shape[0], index.shape, all_cells.shape[0]
    n_1, n_out, out = table[0, _SIZE], table[L - 1, _SIZE], L - 1
    running, numbers, one, cells, scratch = all_running[t], all_numbers[t], all_ones[t], all_cells[t], all_scratch[t]
    mine, end = t * m // T, (t + 1) * m // T  # the samples of this member
    per_sample, masked = dropout == PER_SAMPLE, dropout == PER_BATCH
    together = 0
    for l in range(L - 1):
        together = max(together, table[l, _SHARED])
    for k in range(steps):
        step = first + k
        _scalars(functions, SCALARS, np.float64(step + 1), etas[k], hyper, running, numbers, one)
        if one[0] == 0:
            return k

        # weights of the samples in the mean
        weight = np.float64(m)
        if weights.size > 0:
            weight = np.float64(0)
            for i in range(m):
                weight += weights[index[k, i]]
            cells[0], cells[1] = weight, s

        first_in, end_in, n_up = t * n_1 // T, (t + 1) * n_1 // T, table[1, _SIZE]
        if partials >= 0:
            a, n_in, b = table[0, _H] + m * first_in, end_in - first_in, table[0, _B] if t == 0 else -1
            _gather_columns(X, index, k, first_in, end_in, work, a)
            factors: tuple[Any, ...] = (work, a, n_in, 1, theta, table[0, _W] + first_in * n_up, n_up, 1)
            z, blas = partials + t * m * n_up, table[0, _BLAS]
            _multiply(functions, MULTIPLY, *factors, work, z, n_up, theta, b, m, n_in, n_up, w, scratch, blas)
            if not meet(place, T, functions[YIELD]):
                return k

        loss, right = 0.0, 0.0
        # where products are shared by columns, a member without samples takes part all the same
        for top in range(mine, max(end, mine + together), block):
            count = min(block, end - top)
            if partials < 0:
                _gather(X, index, k, top, count, work, table[0, _H] + top * n_1)
            y = table[out, _MASK] + top * n_out  # behind the output layer: targets of the batch
            _gather(Y, index, k, top, count, work, y)

            # forward
            z, h, n = 0, table[0, _PASSED] + top * n_1, n_1
            for l in range(L - 1):
                a, n_in, n = h, n, table[l + 1, _SIZE]
                z, h = table[l + 1, _Z] + top * n, table[l + 1, _H] + top * n
                blas, W, b = table[l, _BLAS], table[l, _W], table[l, _B]
                # Z = A @ W + b
                if l == 0 and partials >= 0:
                    _add_partials(work, partials, T, m * n, top * n, count * n, z)
                elif table[l, _SHARED]:
                    # of all samples, some columns
                    j, columns = _columns(n, t, T, w)
                    if not meet(place, T, functions[YIELD]):
                        return k
                    factors = work, table[l, _PASSED], n_in, 1, theta, W + j, n, 1, work, table[l + 1, _Z] + j, n
                    if columns > 0:
                        _multiply(functions, MULTIPLY, *factors, theta, b + j, m, n_in, columns, w, scratch, blas)
                    if not meet(place, T, functions[YIELD]):
                        return k
                else:
                    factors = work, a, n_in, 1, theta, W, n, 1, work, z, n
                    if count > 0:
                        _multiply(functions, MULTIPLY, *factors, theta, b, count, n_in, n, w, scratch, blas)
                _forward(functions, LAYERS + 2 * l, work, z, h, count, n)
                if dropout and kept[l + 1] > 0:
                    # four random words come at once, so a mask begins at a multiple of four; what is then written of
                    # the rows above is what belongs there
                    mask, rows_up = table[l + 1, _MASK], top * n if per_sample else 0
                    begin, size = rows_up // 4 * 4, count * n
                    drawn = work[mask + begin : mask + rows_up + (size if per_sample else n)]
                    limit_of_words = np.uint64(table[l + 1, _LIMIT])
                    counters = begin // 4, np.uint64(seed), _DROPOUT, np.uint64(step), np.uint64(l + 2)
                    _dropout_mask(functions, MASK, drawn, limit_of_words, kept[l + 1], *counters)
                    passed = table[l + 1, _PASSED] + top * n
                    _drop(functions, DROP, work, h, passed, size, mask + rows_up, size if per_sample else n)
                    h = passed

            # loss, BP1, hits
            if weights.size > 0:
                for i in range(top, top + count):
                    scales[i] = cells[1] * weights[index[k, i]] / cells[0] if cells[0] > 0 else 0
            h, delta = table[out, _H] + top * n_out, table[out, _DELTA] + top * n_out
            terms = table[out, _PASSED] + top * n_out
            _output(functions, OUTPUT, work, z, h, y, terms, delta, count, n_out, s / m, scales, top, one)
            loss += one[0]
            if labels.size > 0:
                for i in range(top, top + count):
                    batch_labels[i] = labels[index[k, i]]
                H, some = work[h : h + count * n_out].reshape(count, n_out), hits[top : top + count]
                _row_hits(functions, HITS, H, batch_labels[top : top + count], threshold, some)
                for i in range(count):
                    right += some[i] * (weights[index[k, top + i]] if weights.size > 0 else 1)

            # BP2
            n = n_out
            for l in range(L - 2, 0, -1):
                n_in = table[l, _SIZE]
                e, z, h = table[l, _DELTA] + top * n_in, table[l, _Z] + top * n_in, table[l, _H] + top * n_in
                blas, W = table[l, _BLAS], table[l, _W]
                # E = Delta @ W.T
                if table[l, _SHARED]:
                    j, columns = _columns(n_in, t, T, w)
                    if not meet(place, T, functions[YIELD]):
                        return k
                    factors = work, table[l + 1, _DELTA], n, 1, theta, W + j * n, 1, n, work, table[l, _DELTA] + j, n_in
                    if columns > 0:
                        _multiply(functions, MULTIPLY, *factors, work, -1, m, n, columns, w, scratch, blas)
                    if not meet(place, T, functions[YIELD]):
                        return k
                else:
                    factors = work, delta, n, 1, theta, W, 1, n, work, e, n_in
                    if count > 0:
                        _multiply(functions, MULTIPLY, *factors, work, -1, count, n, n_in, w, scratch, blas)
                if dropout and kept[l] > 0:
                    mask, size = table[l, _MASK] + (top * n_in if per_sample else 0), count * n_in
                    _drop(functions, DROP, work, e, e, size, mask, size if per_sample else n_in)
                _backward(functions, LAYERS + 2 * l - 1, work, e, z, h, count, n_in)
                delta, n = e, n_in

        partial[t, 0], partial[t, 1] = loss, right
        if T > 1 and not meet(place, T, functions[YIELD]):
            return k
        if t == 0:
            for member in range(1, T):
                loss += partial[member, 0]
                right += partial[member, 1]
            records[0, k], records[2, k] = loss, weight
            if labels.size > 0:
                records[1, k] = right

        # BP3, BP4; where clipping must see all of the gradient first, the update comes in a second round
        rounds = 2 if scope == CLIP_ALL or scope == CLIP_LAYER else 1
        for r in range(rounds):
            for q in range(begins[t], begins[t + 1]):
                l, i = shares[q, 0], shares[q, 1]
                n_in, n, W, b = table[l, _SIZE], table[l + 1, _SIZE], table[l, _W], table[l, _B]
                rows = 1 if i == BIAS else shares[q, 2] - i
                begin, size = b if i == BIAS else W + i * n, rows * n
                if r == 0:
                    # db = 1.T @ Delta, dW = A.T @ Delta
                    a, a_term, blas = table[l, _PASSED] + i, n_in, table[l, _BLAS]
                    if i == BIAS:
                        a, a_term, blas = ones, 0, 0
                    elif l == 0 and partials >= 0:
                        a, a_term = table[0, _H] + m * first_in + i - first_in, end_in - first_in
                    factors = work, a, 1, a_term, work, table[l + 1, _DELTA], n, 1
                    _multiply(functions, MULTIPLY, *factors, grad, begin, n, grad, -1, rows, m, n, w, scratch, blas)
                    if i != BIAS and prices.size > 0:
                        _penalty(functions, PENALTY, grad, theta, begin, size, prices)
                    if scope == CLIP_ELEMENT:
                        _limit(functions, LIMIT, grad, begin, size, limit, cells)
                    elif rounds == 2:
                        _squares(functions, SQUARES, grad, begin, size, squares, q)
                else:
                    total = 0.0
                    for other in range(begins[T]):
                        if scope == CLIP_ALL or shares[other, 0] == l:
                            total += squares[other]
                    _shorten(functions, SHORTEN, grad, begin, size, total, limit, cells)
                if r == rounds - 1:
                    keep_in, keep_out = ones, ones
                    if masked:
                        if i != BIAS and kept[l] > 0:
                            keep_in = table[l, _MASK] + i
                        if kept[l + 1] > 0:
                            keep_out = table[l + 1, _MASK]
                    _update(
                        functions, UPDATE, theta, grad, s0, s1, s2, s3, begin, rows, n, work, keep_in, keep_out, numbers
                    )
            if T > 1 and not meet(place, T, functions[YIELD]):
                return k
    return steps


@functools.lru_cache(maxsize=2)
def compile_run(dtype: np.dtype[Any]) -> Callable[..., int]:
    """Return :func:`run`, compiled for float32 or float64 parameters and data."""
    real: Any = types.float32 if dtype.itemsize == 4 else types.float64
    whole, number = types.int64, types.float64

    def array(element: Any, axes: int, layout: str = "C", *, readonly: bool = False) -> Any:
        return types.Array(element, axes, layout, readonly=readonly)

    data = array(real, 2, readonly=True)
    arguments = [data, data, array(whole, 1, readonly=True), array(real, 1, readonly=True)]
    arguments += [array(whole, 2, readonly=True), array(number, 1), array(number, 2, "A")]
    arguments += [array(real, 1)] * (2 + MAX_STATES) + [array(number, axes) for axes in (2, 1, 2, 1)]
    arguments += [array(whole, 2), array(real, 1), whole, array(number, 1), array(whole, 1)] + [array(real, 1)] * 2
    arguments += [array(number, 2), array(real, 2), array(real, 2), array(number, 2)]
    arguments += [array(whole, 2), array(whole, 1), array(number, 1)]
    arguments += [whole, types.uint64, whole, number, number, whole, number, whole, whole, whole, whole]
    arguments += [array(whole, 1)]
    return compile_function(run, whole(*arguments, array(whole, 1)))
