"""Mean and variance of columns in one pass over chunks, as exact as two passes over the whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["Moments"]


class Moments:
    """Count, mean and sum of squared deviations of every column, of which chunks are added one after the other.

    Parameters
    ----------
    n : int
        Number of columns.

    Attributes
    ----------
    rows : int
        Rows that were seen.
    count : ndarray of int64, shape (n,)
        Values of each column that were there; NaN counts as missing.

    Notes
    -----
    Within a chunk, the mean comes first and the deviations from it second; chunks are joined by the formulas of Chan,
    Golub and LeVeque [1]_. Two more things keep digits: values are measured from the first one of their column, so that
    a mean that is large beside the spread costs nothing; and in units of about the largest so far, a power of two,
    so that squares do not overflow.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis and
       recommendations", The American Statistician 37, 1983.

    Examples
    --------
    >>> moments = Moments(1)
    >>> moments.add(np.array([[1.0], [2.0]]))
    >>> moments.add(np.array([[6.0], [np.nan]]))
    >>> moments.count.tolist(), moments.mean.tolist()
    ([3], [3.0])
    """

    def __init__(self, n: int) -> None:
        self.rows = 0
        self.count: NDArray[np.int64] = np.zeros(n, np.int64)
        self._shift, self._unit = np.zeros(n), np.zeros(n)  # a unit of 0: nothing was seen yet
        self._mean, self._m2 = np.zeros(n), np.zeros(n)  # from the shift, in units

    def add(self, X: NDArray[Any]) -> None:
        """Add a chunk of rows, shape (m, n); NaN is a missing value."""
        X = np.asarray(X, np.float64)
        there = ~np.isnan(X)
        count = there.sum(axis=0)
        self.rows += len(X)
        fresh = (self.count == 0) & (count > 0)
        if fresh.any():
            first = X[np.argmax(there, axis=0), np.arange(X.shape[1])]
            self._shift = np.where(fresh, first, self._shift)
        self._grow(np.max(np.abs(X), axis=0, where=there, initial=0.0))
        unit = np.where(self._unit > 0, self._unit, 1.0)
        D = X / unit
        D -= self._shift / unit
        D[~there] = 0
        some = np.maximum(count, 1)
        mean = D.sum(axis=0) / some
        D -= mean
        D[~there] = 0
        # the mean is rounded: the sum of the deviations, which should be 0, says how far it is off
        m2 = np.square(D).sum(axis=0) - D.sum(axis=0) ** 2 / some
        self._join(count, mean, np.maximum(m2, 0))

    def add_constant(self, values: NDArray[np.float64], count: NDArray[np.int64]) -> None:
        """Add to each column so many times one value: what missing ones are replaced by."""
        self._grow(np.where(count > 0, np.abs(values), 0))
        unit = np.where(self._unit > 0, self._unit, 1.0)
        self._join(count, values / unit - self._shift / unit, np.zeros(len(values)))

    def _grow(self, largest: NDArray[np.float64]) -> None:
        """Measure in larger units from now on, where values have become larger."""
        # A column of zeros has the unit 1; subnormal numbers are measured as they are.
        with np.errstate(under="ignore"):
            wanted = np.ldexp(1.0, np.clip(np.frexp(largest)[1], -1000, 1023))
            unit = np.where(largest > 0, np.maximum(self._unit, wanted), np.maximum(self._unit, 2.0**-1000))
            ratio = np.where(self._unit > 0, self._unit / unit, 1.0)
            self._mean *= ratio
            self._m2 *= ratio**2
            self._unit = unit

    def _join(self, count: NDArray[np.int64], mean: NDArray[np.float64], m2: NDArray[np.float64]) -> None:
        total = self.count + count
        share = count / np.maximum(total, 1)
        delta = np.where(count > 0, mean - self._mean, 0.0)
        self._m2 += np.where(count > 0, m2, 0) + delta**2 * self.count * share
        self._mean += delta * share
        self.count = total

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each column, shape (n,); 0 where nothing was there."""
        unit = np.where(self._unit > 0, self._unit, 1.0)
        return np.asarray((self._mean + self._shift / unit) * unit)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of each column (of all that was there, not of a sample), shape (n,)."""
        return np.asarray(np.sqrt(self._m2 / np.maximum(self.count, 1)) * self._unit)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Number of missing values of each column, shape (n,)."""
        return self.rows - self.count

    def check_some(self, names: tuple[str, ...]) -> None:
        """Refuse columns of which nothing is there."""
        empty = [name for name, count in zip(names, self.count, strict=True) if not count]
        if empty:
            raise DataError(
                f"in the training part every value of column {empty[0]!r} is missing, so there is nothing to fill it "
                "from; remove the column, or choose --missing constant"
            )
