"""Setting a part of the data aside."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.random import Purpose, permutation
from bpcore.typing import IntArray, NDArray

__all__ = ["train_test_split_indices"]


def train_test_split_indices(
    n: int, fraction: float, seed: int, labels: NDArray[Any] | None = None
) -> tuple[IntArray, IntArray]:
    """Divide the rows 0 ... n-1 at random into a training and a test part.

    Parameters
    ----------
    n : int
        Number of rows, at least 2.
    fraction : float
        Share of the rows in the test part, more than 0 and less than 1; rounded to whole rows, at least one
        in each part.
    seed : int
        Seed of the division, from 0 to 2**64 - 1. Shuffles of training with the same seed are independent.
    labels : ndarray, shape (n,), optional
        Class of each row. With it, every class is divided in the same proportion to within one row, and no
        class is in the test part alone.

    Returns
    -------
    train, test : ndarray of int64
        Row numbers in increasing order; together all rows, each once.

    Raises
    ------
    ConfigurationError
        If `fraction` is not between 0 and 1.
    DataError
        If there are fewer than 2 rows, or `labels` names no class twice.
    ShapeError
        If `labels` is not of shape (n,).

    Notes
    -----
    The rows left over by rounding each class down go to the classes with the largest remainders (Hamilton's
    method of apportionment).

    Examples
    --------
    >>> train, test = train_test_split_indices(5, 0.4, seed=0)
    >>> len(train), len(test), sorted([*train.tolist(), *test.tolist()])
    (3, 2, [0, 1, 2, 3, 4])
    """
    if not 0 < fraction < 1:
        raise ConfigurationError(f"the test fraction must be between 0 and 1, got {fraction}")
    if n < 2:
        raise DataError(f"{n} rows cannot be divided into a training and a test part; at least 2 are needed")
    n_test = min(max(round(n * fraction), 1), n - 1)
    order = permutation(n, seed, purpose=Purpose.SPLIT)
    if labels is None:
        return np.sort(order[n_test:]), np.sort(order[:n_test])
    if labels.shape != (n,):
        raise ShapeError(f"labels has shape {labels.shape}; expected ({n},), one label for each row")
    _, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    if counts.max() == 1:
        raise DataError(
            f"each of the {n} rows is the only one of its class, so none can be set aside for testing; "
            "at least one class with 2 rows is needed"
        )
    quota = _apportion(counts, n_test)
    shuffled = order[np.argsort(codes[order], kind="stable")]
    rank = np.arange(n) - np.searchsorted(codes[shuffled], codes[shuffled])
    in_test = rank < quota[codes[shuffled]]
    return np.sort(shuffled[~in_test]), np.sort(shuffled[in_test])


def _apportion(counts: IntArray, n_test: int) -> IntArray:
    """Test rows of each class: in proportion to `counts`, fewer than it has, `n_test` in all if possible."""
    exact = counts * n_test / counts.sum()
    quota: IntArray = np.floor(exact).astype(np.int64)
    for c in np.argsort(quota - exact, kind="stable"):
        if quota.sum() == n_test:
            break
        if quota[c] + 1 < counts[c]:
            quota[c] += 1
    return quota
