"""Missing values: a value for each column, fitted once and put in their place from then on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.data.arrays import check_finite, check_matrix
from bpcore.errors import ConfigurationError, DataError, unknown
from bpcore.typing import NDArray

__all__ = ["FILLS", "Imputer", "fill_values"]

FILLS = ("mean", "median", "most-frequent", "constant")
"""What a missing value can be replaced by."""


@dataclass(frozen=True)
class Imputer:
    """Replacement of missing values (NaN) by one value for each column.

    Parameters
    ----------
    values : tuple of float, length n
        What takes their place, finite.
    how : str
        How it was found: ``"mean"``, ``"median"``, ``"most-frequent"`` or ``"constant"``.

    Raises
    ------
    ConfigurationError
        If there is no value, or one is not finite.

    Examples
    --------
    >>> nan = float("nan")
    >>> fitted = Imputer.fit([[1.0, nan], [3.0, 5.0]], "mean")
    >>> fitted
    Imputer(values=(2.0, 5.0), how='mean')
    >>> fitted.apply([[nan, nan]])
    array([[2., 5.]])
    """

    values: tuple[float, ...]
    how: str = "constant"

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values)):
            raise ConfigurationError(f"an imputer needs a finite value for each column, got {self.values}")

    @classmethod
    def fit(cls, X: object, how: str, constant: float = 0.0) -> Imputer:
        """Find the values from the columns of `X`, shape (m, n), of which those that are there count.

        Parameters
        ----------
        X : array_like, shape (m, n)
            NaN is a missing value.
        how : str
            ``"mean"``, ``"median"``, ``"most-frequent"`` (the smallest of several) or ``"constant"``.
        constant : float, default 0
            The value for ``"constant"``.

        Raises
        ------
        DataError
            If a column has no values, or an infinite one.
        """
        array = check_matrix(X, dtype=np.float64, allow_nonfinite=True)
        refuse_infinite(array, "X")
        return cls(tuple(fill_values(array, how, constant)), how)

    def apply(self, X: object) -> NDArray[Any]:
        """Return a new matrix without NaN, shape (m, n); floats keep their dtype. Infinities are refused."""
        array = check_matrix(X, n_columns=len(self.values), allow_nonfinite=True)
        filled = np.where(np.isnan(array), np.array(self.values, array.dtype), array)
        check_finite(filled, name="X")
        return filled

    def undo(self, X: object) -> NDArray[Any]:
        """Return a copy of `X`: what was missing is not known any more."""
        return np.array(check_matrix(X, n_columns=len(self.values)))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "imputer", "values": [...], "how": ...}``."""
        return {"kind": "imputer", "values": list(self.values), "how": self.how}


def fill_values(X: NDArray[np.float64], how: str, constant: float = 0.0) -> list[float]:
    """Value for each column of `X`, shape (m, n), where NaN is missing; see :meth:`Imputer.fit`."""
    if how not in FILLS:
        raise unknown("way to fill missing values", how, FILLS)
    if how == "constant":
        if not math.isfinite(constant):
            raise ConfigurationError(f"the constant for missing values must be finite, got {constant}")
        return [float(constant)] * X.shape[1]
    values = []
    for j in range(X.shape[1]):
        there = X[:, j][~np.isnan(X[:, j])]
        if not there.size:
            raise DataError(
                f"every value of column {j} (counted from 0) is missing, so there is nothing to fill it from; remove "
                "the column, or fill with a constant"
            )
        values.append(_fill(there, how))
    return values


def _fill(there: NDArray[np.float64], how: str) -> float:
    if how == "mean":
        return float(there[0] + np.mean(there - there[0]))
    if how == "median":
        return float(np.median(there))
    different, counts = np.unique(there, return_counts=True)
    return float(different[np.argmax(counts)])


def refuse_infinite(X: NDArray[Any], name: str) -> None:
    """Refuse infinities, and let NaN pass."""
    check_finite(np.where(np.isnan(X), 0, X), name=name)
