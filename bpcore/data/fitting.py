"""Fitting what prepares the features: missing values filled, numbers standardised, categories as columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpcore.data.missing import Imputer, fill_values, refuse_infinite
from bpcore.data.moments import Moments
from bpcore.data.one_hot import OneHot, Pipeline
from bpcore.data.preprocessing import Preprocessing, Standardizer
from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["assemble", "fit_preprocessing", "standardizer_of"]

Categories = Mapping[str, Sequence[str]]


def fit_preprocessing(
    X: NDArray[Any],
    names: tuple[str, ...],
    missing: str = "refuse",
    *,
    constant: float = 0.0,
    categories: Categories | None = None,
) -> Preprocessing:
    """Fit the preparation of features to the training part.

    Parameters
    ----------
    X : ndarray, shape (m, n)
        The training part alone; NaN is a missing value, a category its code.
    names : tuple of str, length n
        Names of the columns.
    missing : str
        ``"refuse"``, ``"mean"``, ``"median"``, ``"most-frequent"`` or ``"constant"``. What is missing among categories
        becomes the most frequent one, whichever of the latter four is chosen.
    constant : float
        The value for ``"constant"``.
    categories : mapping of str to sequence of str, optional
        Columns that hold codes of categories.

    Returns
    -------
    Preprocessing
        A :class:`Standardizer`, or a :class:`Pipeline` with one.

    Raises
    ------
    DataError
        If a column has nothing to be filled from.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [np.nan, 1.0], [3.0, 1.0]])
    >>> fitted = fit_preprocessing(X, ("size", "colour"), "mean", categories={"colour": ["red", "blue"]})
    >>> fitted.apply([[2.0, np.nan]]).tolist()
    [[0.0, 0.0, 1.0]]
    """
    categories = categories or {}
    X = np.asarray(X, np.float64)
    if missing == "refuse":
        return assemble(None, Standardizer.fit(X), names, categories)
    refuse_infinite(X, "X")
    values = []
    for j, name in enumerate(names):
        column = X[:, j : j + 1]
        how = "most-frequent" if name in categories else missing
        try:
            values += fill_values(column, how, constant)
        except DataError:
            raise DataError(
                f"in the training part every value of column {name!r} is missing, so there is nothing to fill it from; "
                "remove the column, or choose --missing constant"
            ) from None
    imputer = Imputer(tuple(values), missing)
    return assemble(imputer, Standardizer.fit(imputer.apply(X)), names, categories)


def assemble(
    imputer: Imputer | None, standardizer: Standardizer, names: tuple[str, ...], categories: Categories
) -> Preprocessing:
    """Put the steps together; codes of categories are left as they are by the standardiser."""
    steps: list[Preprocessing] = [] if imputer is None else [imputer]
    if categories:
        plain = [name not in categories for name in names]
        mean = tuple(value if keep else 0.0 for value, keep in zip(standardizer.mean, plain, strict=True))
        scale = tuple(value if keep else 1.0 for value, keep in zip(standardizer.scale, plain, strict=True))
        steps += [Standardizer(mean, scale), OneHot(tuple(len(categories.get(name, ())) for name in names))]
    else:
        steps.append(standardizer)
    return steps[0] if len(steps) == 1 else Pipeline(tuple(steps))


def standardizer_of(moments: Moments) -> Standardizer:
    """Build the standardiser of columns whose moments are known; see :meth:`Standardizer.fit`."""
    mean, scale = moments.mean, moments.deviation
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return Standardizer(tuple(mean.tolist()), tuple(np.where(constant, 1.0, scale).tolist()))
