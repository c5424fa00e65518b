"""Exact medians of columns that do not fit in memory: a few passes, each of which finds some more bits of them.

Floating-point numbers, with the sign handled, are ordered as their bits are. A pass counts, among the numbers whose
leading bits are those of the median, how many have each value of the next twelve bits; the counts say which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bpcore.typing import NDArray

__all__ = ["medians"]

DIGIT = 12
"""Bits that are found in a pass: three passes for float32, six for float64."""


def medians(blocks: Callable[[], Iterable[NDArray[Any]]], count: NDArray[np.int64], dtype: Any) -> NDArray[np.float64]:
    """Find the median of each column, as :func:`numpy.nanmedian` does.

    Parameters
    ----------
    blocks : callable
        Returns the blocks of rows, each of shape (m, n), once again with each call; NaN does not count.
    count : ndarray of int64, shape (n,)
        Values of each column that are not NaN, at least one.
    dtype : dtype
        float32 or float64, of the blocks.

    Returns
    -------
    ndarray of float64, shape (n,)

    Examples
    --------
    >>> X = np.array([[1.0, 5.0], [-3.0, np.nan], [2.0, 7.0]])
    >>> medians(lambda: [X[:2], X[2:]], np.array([3, 2]), X.dtype).tolist()
    [1.0, 6.0]
    """
    width = 8 * np.dtype(dtype).itemsize
    n = len(count)
    # two numbers of each column: below and above the middle; they are the same one where the count is odd
    rank = np.stack([(count - 1) // 2, count // 2])
    prefix = np.zeros((2, n), np.uint64)
    done = 0
    while done < width:
        bits = min(DIGIT, width - done)
        counts = np.zeros((2, n, 2**bits), np.int64)
        shift, known = np.uint64(width - done - bits), np.uint64(width - done)
        for block in blocks():
            keys = _keys(block)
            for j in range(n):
                column = keys[~np.isnan(block[:, j]), j]
                for side in range(2):
                    if side and prefix[0, j] == prefix[1, j]:
                        continue
                    mine = column if not done else column[column >> known == prefix[side, j]]
                    digits = (mine >> shift) & np.uint64(2**bits - 1)
                    counts[side, j] += np.bincount(digits.astype(np.int64), minlength=2**bits)
        for j in range(n):
            same = prefix[0, j] == prefix[1, j]
            for side in range(2):
                below = np.cumsum(counts[0 if same else side, j])
                digit = int(np.searchsorted(below, rank[side, j], side="right"))
                rank[side, j] -= below[digit - 1] if digit else 0
                prefix[side, j] = prefix[side, j] << np.uint64(bits) | np.uint64(digit)
        done += bits
    low, high = (_numbers(prefix[side], np.dtype(dtype)) for side in range(2))
    return np.where(low == high, low, low / 2 + high / 2)


def _keys(block: NDArray[Any]) -> NDArray[np.uint64]:
    """Unsigned integers in the order of the numbers."""
    width = 8 * block.dtype.itemsize
    bits = np.ascontiguousarray(block + 0).view(f"u{block.dtype.itemsize}")  # + 0: there is one zero
    sign = bits.dtype.type(1 << (width - 1))
    return np.where(bits & sign, ~bits, bits | sign).astype(np.uint64)


def _numbers(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    bits = keys.astype(f"u{dtype.itemsize}")
    sign = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    return np.where(bits & sign, bits & ~sign, ~bits).view(dtype).astype(np.float64)
