"""Philox4x32-10 as loops: the bits of :mod:`bpcore.random`, which describes the layout of the counter.

The words live in 64-bit lanes, so that one multiplication gives the high and the low half that a round needs.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Numba types these functions; annotations would be ignored by it.

from __future__ import annotations

import numpy as np

from bpcore import random
from bpcore.kernels.numba.cache import Kernel, inner

__all__ = ["dropout_mask", "random_bits"]

# Typed constants: in Numba an unsigned 64-bit number and a plain integer would meet in float64.
_M0, _M1 = (np.uint64(multiplier) for multiplier in random.MULTIPLIERS)
_W0, _W1 = (np.uint64(weyl) for weyl in random.WEYL)
_MASK = np.uint64(random.MASK)
_ROUNDS = random.ROUNDS
_HALF, _HALF_LAYER = np.uint64(32), np.uint64(16)
_PURPOSE_SHIFT = np.uint64(24)


@inner(inline=True)
def _four_words(block, seed, purpose, step, layer):
    """Return the four random words of one block, as uint64."""
    c0 = block & _MASK
    c1 = (layer << _HALF_LAYER) | (block >> _HALF)
    c2 = step & _MASK
    c3 = (purpose << _PURPOSE_SHIFT) | (step >> _HALF)
    k0 = seed & _MASK
    k1 = seed >> _HALF
    for _ in range(_ROUNDS):
        p0 = c0 * _M0
        p1 = c2 * _M1
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _MASK, (p0 >> _HALF) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@Kernel("T1!", "uint64", "uint64", "uint64", "uint64")
def random_bits(out, seed, purpose, step, layer):
    """Fill a uint32 array with the words at positions 0, 1, ..."""
    whole = out.size // 4
    for b in range(whole):
        w0, w1, w2, w3 = _four_words(np.uint64(b), seed, purpose, step, layer)
        out[4 * b] = w0
        out[4 * b + 1] = w1
        out[4 * b + 2] = w2
        out[4 * b + 3] = w3
    if 4 * whole < out.size:
        words = _four_words(np.uint64(whole), seed, purpose, step, layer)
        for w in range(out.size - 4 * whole):
            out[4 * whole + w] = words[w]


@Kernel("T1!", "uint64", "float64", "int64", "uint64", "uint64", "uint64", "uint64")
def dropout_mask(out, limit, kept, first, seed, purpose, step, layer):
    """Write 0 where the word at the element's position is below ``limit``, else ``kept``.

    The mask begins at position ``4 first``.
    """
    whole = out.size // 4
    for b in range(whole):
        w0, w1, w2, w3 = _four_words(np.uint64(first + b), seed, purpose, step, layer)
        out[4 * b] = 0.0 if w0 < limit else kept
        out[4 * b + 1] = 0.0 if w1 < limit else kept
        out[4 * b + 2] = 0.0 if w2 < limit else kept
        out[4 * b + 3] = 0.0 if w3 < limit else kept
    if 4 * whole < out.size:
        words = _four_words(np.uint64(first + whole), seed, purpose, step, layer)
        for w in range(out.size - 4 * whole):
            out[4 * whole + w] = 0.0 if words[w] < limit else kept
