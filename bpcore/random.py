"""Counter-based random numbers: Philox4x32-10, the same bits on every backend.

A counter-based generator has no state: a random word is a pure function of *what it is for*. bpcore addresses
every word by (seed, purpose, step, layer, position), so a dropout mask, a shuffle or an initial weight can be
computed by any backend, in any order, by any number of threads, and again when a run is resumed.

The layout below is a contract: Numba and CUDA kernels follow it bit for bit.

======  ==============================================================================
word    content (each word is 32 bits; block = position // 4, at most 48 bits)
======  ==============================================================================
key 0   seed, low 32 bits
key 1   seed, high 32 bits
ctr 0   block, low 32 bits
ctr 1   layer (16 bits) << 16 | block, high 16 bits
ctr 2   step, low 32 bits
ctr 3   purpose (8 bits) << 24 | step, high 24 bits
======  ==============================================================================

One Philox call turns (counter, key) into four words; position p is word ``p % 4`` of block ``p // 4``.

Derived numbers (all computed on the host, in float64):

- ``uniform`` draw i uses the words lo = 2i and hi = 2i + 1: ``x = hi << 32 | lo``,
  ``u = (x >> 11 | 1) * 2**-53``. The 53-bit numerator is odd, so u is never 0 or 1 and ``1 - u`` is exactly
  as likely as u.
- ``normal`` draws 2i and 2i + 1 are the Box-Muller pair of the uniforms 2i and 2i + 1 (the four words of
  block i): ``r = sqrt(-2 ln u[2i])``, ``r cos(2 pi u[2i+1])`` and ``r sin(2 pi u[2i+1])``. The bits below
  them are the same on every machine; log, cos and sin are NumPy's, which may differ in the last place between
  processors.
- ``permutation`` sorts the 64-bit keys ``hi << 32 | lo`` of words 2i and 2i + 1; equal keys keep their order.

References
----------
.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
   2011.
.. [2] G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", 1958.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpcore.errors import ConfigurationError, ShapeError

__all__ = ["Purpose", "normal", "permutation", "philox4x32", "random_bits", "uniform"]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF
BLOCK = 2048  # counters in one pass: seven arrays of 16 KiB stay in a core's L2 cache


class Purpose(IntEnum):
    """What a random word is for; words of different purposes never coincide.

    Examples
    --------
    >>> Purpose.DROPOUT.value
    2
    """

    WEIGHTS = 0
    """Initial weights and biases."""
    SHUFFLE = 1
    """Order of the samples in an epoch (step = epoch)."""
    DROPOUT = 2
    """Dropout masks (step = training step, layer = layer whose neurons are dropped)."""
    SPLIT = 3
    """Division of data into training and validation parts."""
    USER = 4
    """Anything a user draws; bpcore itself never uses it."""
    BLOCKS = 5
    """Order of the blocks of a data set on disk (step = epoch)."""


class _Scratch(threading.local):
    """Work arrays of one thread, so that filling an output allocates nothing."""

    def __init__(self) -> None:
        self.iota = np.arange(BLOCK, dtype=np.uint64)
        self.c0, self.c1, self.c2, self.c3, self.p0, self.p1 = np.empty((6, BLOCK), np.uint64)
        self.words = np.empty((BLOCK, 4), np.uint32)


_SCRATCH = _Scratch()


def _ten_rounds(s: _Scratch, blocks: int, key0: int, key1: int) -> None:
    """Apply the ten Philox rounds to the first `blocks` counters in ``s.c0 ... s.c3``, in place.

    The words live in 64-bit lanes: one multiplication gives the high and the low half that a round needs.
    """
    c0, c1, c2, c3, p0, p1 = (lane[:blocks] for lane in (s.c0, s.c1, s.c2, s.c3, s.p0, s.p1))
    for _ in range(ROUNDS):
        np.multiply(c0, MULTIPLIERS[0], out=p0)
        np.multiply(c2, MULTIPLIERS[1], out=p1)
        np.right_shift(p1, 32, out=c0)
        np.bitwise_xor(c0, c1, out=c0)
        np.bitwise_xor(c0, key0, out=c0)
        np.bitwise_and(p1, MASK, out=c1)
        np.right_shift(p0, 32, out=c2)
        np.bitwise_xor(c2, c3, out=c2)
        np.bitwise_xor(c2, key1, out=c2)
        np.bitwise_and(p0, MASK, out=c3)
        key0 = (key0 + WEYL[0]) & MASK
        key1 = (key1 + WEYL[1]) & MASK


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10: four random words for every counter.

    Parameters
    ----------
    counter : ndarray of uint32, shape (..., 4)
        The counters, not modified.
    key : ndarray of uint32, shape (2,)
        The key, shared by all counters.

    Returns
    -------
    ndarray of uint32, shape (..., 4)
        The random words.

    Raises
    ------
    ShapeError
        If the last axis of `counter` is not 4, or `key` is not of shape (2,), or either is not uint32.

    Notes
    -----
    Salmon et al. 2011 [1]_, section 3.3; the words are those of the authors' Random123 library.

    Examples
    --------
    >>> import numpy as np
    >>> [hex(w) for w in philox4x32(np.zeros(4, np.uint32), np.zeros(2, np.uint32)).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    if counter.dtype != np.uint32 or counter.ndim == 0 or counter.shape[-1] != 4:
        raise ShapeError(f"counter must be uint32 of shape (..., 4), got {counter.dtype} {counter.shape}")
    if key.dtype != np.uint32 or key.shape != (2,):
        raise ShapeError(f"key must be uint32 of shape (2,), got {key.dtype} {key.shape}")
    flat = counter.reshape(-1, 4)
    result = np.empty_like(flat)
    s = _SCRATCH
    for start in range(0, len(flat), BLOCK):
        part = flat[start : start + BLOCK]
        for w, lane in enumerate((s.c0, s.c1, s.c2, s.c3)):
            lane[: len(part)] = part[:, w]
        _ten_rounds(s, len(part), int(key[0]), int(key[1]))
        for w, lane in enumerate((s.c0, s.c1, s.c2, s.c3)):
            result[start : start + BLOCK, w] = lane[: len(part)]
    return result.reshape(counter.shape)


def _integer(name: str, value: int, bits: int) -> int:
    """Return `value` as an int of at most `bits` bits, or say why it is not one."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigurationError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if not 0 <= number < 1 << bits:
        raise ConfigurationError(f"{name} must be from 0 to 2**{bits} - 1, got {number}")
    return number


def random_bits(
    n: int,
    *,
    seed: int,
    purpose: int,
    step: int = 0,
    layer: int = 0,
    out: NDArray[np.uint32] | None = None,
    offset: int = 0,
) -> NDArray[np.uint32]:
    """Random 32-bit words at the positions offset, ..., offset + n - 1.

    Parameters
    ----------
    n : int
        Number of words; ``offset + n`` is at most 2**50.
    seed : int
        From 0 to 2**64 - 1.
    purpose : Purpose or int
        What the words are for, 0 to 255.
    step : int, default 0
        Training step or epoch, 0 to 2**56 - 1.
    layer : int, default 0
        Layer, 0 to 65535.
    out : ndarray of uint32, shape (n,), optional
        Where to write; may be strided. With `out`, no array memory is allocated after a thread's first call.
    offset : int, default 0
        First position. The result equals the slice ``[offset : offset + n]`` of a longer one.

    Returns
    -------
    ndarray of uint32, shape (n,)
        `out` when it was given.

    Raises
    ------
    ConfigurationError
        If a number is not an integer or out of its range.
    ShapeError
        If `out` is not a writeable uint32 array of shape (n,).

    Examples
    --------
    >>> whole = random_bits(10, seed=0, purpose=Purpose.USER)
    >>> part = random_bits(4, seed=0, purpose=Purpose.USER, offset=3)
    >>> bool((part == whole[3:7]).all())
    True
    """
    n = _integer("n", n, 50)
    seed = _integer("seed", seed, 64)
    purpose = _integer("purpose", purpose, 8)
    step = _integer("step", step, 56)
    layer = _integer("layer", layer, 16)
    offset = _integer("offset", offset, 50)
    _integer("offset + n - 1", max(offset + n - 1, 0), 50)
    if out is None:
        out = np.empty(n, np.uint32)
    elif not isinstance(out, np.ndarray) or out.dtype != np.uint32 or out.shape != (n,):
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ShapeError(f"out must be a uint32 ndarray of shape ({n},), got {found}")
    elif not out.flags.writeable:
        raise ShapeError("out is read-only; pass a writeable array")
    s = _SCRATCH
    words = s.words.reshape(-1)
    done = 0
    while done < n:
        block, skip = divmod(offset + done, 4)
        count = min(n - done, 4 * BLOCK - skip)
        blocks = (skip + count + 3) // 4
        np.add(s.iota[:blocks], block, out=s.c0[:blocks])
        np.right_shift(s.c0[:blocks], 32, out=s.c1[:blocks])
        np.bitwise_or(s.c1[:blocks], layer << 16, out=s.c1[:blocks])
        np.bitwise_and(s.c0[:blocks], MASK, out=s.c0[:blocks])
        s.c2[:blocks] = step & MASK
        s.c3[:blocks] = purpose << 24 | step >> 32
        _ten_rounds(s, blocks, seed & MASK, seed >> 32)
        for w, lane in enumerate((s.c0, s.c1, s.c2, s.c3)):
            np.copyto(s.words[:blocks, w], lane[:blocks], casting="unsafe")
        np.copyto(out[done : done + count], words[skip : skip + count])
        done += count
    return out


def _wide_words(n: int, seed: int, purpose: int, step: int, layer: int, offset: int) -> NDArray[np.uint64]:
    """64-bit words offset, ..., offset + n - 1: word i is (32-bit word 2i+1) << 32 | (32-bit word 2i)."""
    n, offset = _integer("n", n, 49), _integer("offset", offset, 49)
    return _join(random_bits(2 * n, seed=seed, purpose=purpose, step=step, layer=layer, offset=2 * offset))


def _join(bits: NDArray[np.uint32]) -> NDArray[np.uint64]:
    little_endian = bits.astype("<u4", copy=False).view("<u8")
    return little_endian.astype(np.uint64, copy=False)


def uniform(n: int, *, seed: int, purpose: int, step: int = 0, layer: int = 0, offset: int = 0) -> NDArray[np.float64]:
    """Uniform random numbers in the open interval (0, 1).

    Parameters
    ----------
    n : int
        How many.
    seed, purpose, step, layer : int
        As in :func:`random_bits`.
    offset : int, default 0
        Index of the first draw; draw i uses the words 2i and 2i + 1.

    Returns
    -------
    ndarray of float64, shape (n,)
        Odd multiples of 2**-53, so never exactly 0 or 1.

    Raises
    ------
    ConfigurationError
        As in :func:`random_bits`.

    Examples
    --------
    >>> u = uniform(1000, seed=0, purpose=Purpose.USER)
    >>> bool(u.min() > 0), bool(u.max() < 1), round(float(u.mean()), 1)
    (True, True, 0.5)
    """
    wide = _wide_words(n, seed, purpose, step, layer, offset)
    numerator = (wide >> np.uint64(11)) | np.uint64(1)
    return numerator.astype(np.float64) * 2.0**-53


def normal(n: int, *, seed: int, purpose: int, step: int = 0, layer: int = 0, offset: int = 0) -> NDArray[np.float64]:
    """Random numbers from the standard normal distribution N(0, 1).

    Parameters
    ----------
    n : int
        How many.
    seed, purpose, step, layer : int
        As in :func:`random_bits`.
    offset : int, default 0
        Index of the first draw; draws 2i and 2i + 1 come from the uniforms 2i and 2i + 1.

    Returns
    -------
    ndarray of float64, shape (n,)
        Absolute values are at most ``sqrt(106 ln 2)``, about 8.57.

    Raises
    ------
    ConfigurationError
        As in :func:`random_bits`.

    Notes
    -----
    Box and Muller 1958 [2]_.

    Examples
    --------
    >>> x = normal(10_000, seed=0, purpose=Purpose.USER)
    >>> round(float(x.std()), 1)
    1.0
    """
    n, offset = _integer("n", n, 49), _integer("offset", offset, 49)
    first, end = offset // 2, (offset + n + 1) // 2
    u = uniform(2 * (end - first), seed=seed, purpose=purpose, step=step, layer=layer, offset=2 * first)
    # Contiguous operands: NumPy may take another code path, with another last bit, for strided ones.
    radius = np.sqrt(-2.0 * np.log(u[0::2].copy()))
    angle = 2.0 * np.pi * u[1::2]
    pairs = np.empty((end - first, 2))
    np.multiply(radius, np.cos(angle), out=pairs[:, 0])
    np.multiply(radius, np.sin(angle), out=pairs[:, 1])
    start = offset - 2 * first
    return pairs.reshape(-1)[start : start + n].copy()


def permutation(
    n: int,
    seed: int,
    epoch: int = 0,
    *,
    purpose: int = Purpose.SHUFFLE,
    layer: int = 0,
    draw: Callable[..., Any] | None = None,
) -> NDArray[np.int64]:
    """Return a random order of 0, ..., n - 1: the stable argsort of 64-bit random keys.

    Parameters
    ----------
    n : int
        Number of items.
    seed : int
        From 0 to 2**64 - 1.
    epoch : int, default 0
        A new epoch gives a new order. It is the `step` of :func:`random_bits`.
    purpose : Purpose or int, default Purpose.SHUFFLE
        Use ``Purpose.SPLIT`` to divide data independently of the shuffles.
    layer : int, default 0
        Number of the part of an epoch, where each has an order of its own; the `layer` of :func:`random_bits`.
    draw : callable, optional
        Another way to the same bits, such as :meth:`bpcore.backends.contract.Backend.random_bits` of a backend on the
        CPU: ``draw(out, seed=, purpose=, step=, layer=)`` fills a uint32 array.

    Returns
    -------
    ndarray of int64, shape (n,)
        Every index once.

    Raises
    ------
    ConfigurationError
        As in :func:`random_bits`.

    Examples
    --------
    >>> sorted(permutation(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    if draw is None:
        keys = _wide_words(n, seed, purpose, epoch, layer, 0)
    else:
        words = np.empty(2 * _integer("n", n, 49), np.uint32)
        draw(words, seed=seed, purpose=purpose, step=epoch, layer=layer)
        keys = _join(words)
    order = np.argsort(keys)
    ranked = keys[order]
    if (ranked[1:] == ranked[:-1]).any():
        # only equal keys make a stable sort, which takes five times as long, another one
        order = np.argsort(keys, kind="stable")
    return order.astype(np.int64, copy=False)
