"""Setting a part of the data aside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.random import Purpose, permutation, uniform
from bpcore.typing import IntArray, NDArray

__all__ = ["group_split_indices", "ordered_split_indices", "part_of_rows", "train_test_split_indices"]


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
    n_test = _n_test(n, fraction)
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


def ordered_split_indices(n: int, fraction: float) -> tuple[IntArray, IntArray]:
    """Divide the rows 0 ... n-1 in their order: the first ones to train, the last ones to test (time series).

    Parameters
    ----------
    n, fraction
        As for :func:`train_test_split_indices`.

    Returns
    -------
    train, test : ndarray of int64
        Row numbers; every one of `test` is larger than every one of `train`.

    Raises
    ------
    ConfigurationError, DataError
        As for :func:`train_test_split_indices`.

    Examples
    --------
    >>> [rows.tolist() for rows in ordered_split_indices(5, 0.4)]
    [[0, 1, 2], [3, 4]]
    """
    n_test = _n_test(n, fraction)
    return np.arange(n - n_test), np.arange(n - n_test, n)


def group_split_indices(groups: NDArray[Any], fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Divide rows at random so that no group (patient, site, day, ...) is in both parts.

    Parameters
    ----------
    groups : ndarray, shape (n,)
        Group of each row, numbers or text; at least two different ones.
    fraction, seed
        As for :func:`train_test_split_indices`. Groups come in a random order, and go to the test part as long as that
        brings its share of the rows closer to `fraction`; at least one goes to each part.

    Returns
    -------
    train, test : ndarray of int64
        Row numbers in increasing order.

    Raises
    ------
    ConfigurationError
        If `fraction` is not between 0 and 1.
    DataError
        If there is one group only.

    Examples
    --------
    >>> groups = np.array(["a", "a", "b", "c", "c"])
    >>> train, test = group_split_indices(groups, 0.4, seed=0)
    >>> set(groups[train]) & set(groups[test])
    set()
    """
    n_test = _n_test(len(groups), fraction)
    different, codes = np.unique(groups, return_inverse=True)
    if len(different) < 2:
        raise DataError(
            f"all {len(groups)} rows are of the group {different[0].item()!r}, so there are none to be set aside; at "
            "least two groups are needed"
        )
    counts = np.bincount(codes.reshape(-1))
    taken, chosen = 0, np.zeros(len(different), bool)
    for group in permutation(len(different), seed, purpose=Purpose.SPLIT):
        if chosen.sum() < len(different) - 1 and abs(taken + counts[group] - n_test) < abs(taken - n_test):
            taken += int(counts[group])
            chosen[group] = True
    if not taken:
        chosen[np.argmin(counts)] = True
    in_test = chosen[codes.reshape(-1)]
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def part_of_rows(
    first: int, m: int, fractions: Sequence[float], seed: int, groups: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """Draw for each row, or for each group, the part that it belongs to, of data whose end is not known yet.

    Parameters
    ----------
    first, m : int
        The rows first ... first + m - 1 are asked for.
    fractions : sequence of float
        Share of each part but the first, which gets what is left; together less than 1.
    seed : int
        Seed of the division.
    groups : ndarray, shape (m,), optional
        Group of each row: then a group is drawn as a whole, by a keyed hash of its name.

    Returns
    -------
    ndarray of int64, shape (m,)
        0 for the first part, k for the part of ``fractions[k - 1]``. The shares hold on average: each row is drawn by
        itself, so that the answer does not depend on how the rows are cut into pieces.

    Examples
    --------
    >>> whole = part_of_rows(0, 1000, [0.2], seed=0)
    >>> bool((part_of_rows(300, 50, [0.2], seed=0) == whole[300:350]).all()), bool(150 < whole.sum() < 250)
    (True, True)
    """
    if not all(share > 0 for share in fractions) or sum(fractions) >= 1:
        raise ConfigurationError(f"shares of the rows must be more than 0, and together less than 1; got {fractions}")
    if groups is None:
        u = uniform(m, seed=seed, purpose=Purpose.SPLIT, offset=first)
    else:
        different, codes = np.unique(groups, return_inverse=True)
        u = np.array([_hashed(name, seed) for name in different.tolist()])[codes.reshape(-1)]
    # the parts that are set aside lie at the beginning of [0, 1)
    edges = np.cumsum([0.0, *fractions])
    part = np.searchsorted(edges, u, side="right").astype(np.int64)
    return np.where(part > len(fractions), 0, part)


def _hashed(name: object, seed: int) -> float:
    key = hashlib.blake2b(repr(name).encode(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(key, "little") / 2.0**64


def _n_test(n: int, fraction: float) -> int:
    """Rows of the test part, at least one in each part."""
    if not 0 < fraction < 1:
        raise ConfigurationError(f"the test fraction must be between 0 and 1, got {fraction}")
    if n < 2:
        raise DataError(f"{n} rows cannot be divided into a training and a test part; at least 2 are needed")
    return min(max(round(n * fraction), 1), n - 1)


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
