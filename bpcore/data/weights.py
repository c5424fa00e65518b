"""Weights of samples and of classes, checked and brought to one float64 number a row.

Weight 2 means what the row twice would mean, weight 0 what its absence would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from bpcore.data.arrays import check_finite, host_array
from bpcore.errors import DataError, ShapeError, unknown
from bpcore.typing import NDArray

__all__ = ["check_sample_weight", "class_weight_to_row_weights"]


def check_sample_weight(sample_weight: object, *, n_rows: int, name: str = "sample_weight") -> NDArray[np.float64]:
    """Check the weights of the samples.

    Parameters
    ----------
    sample_weight : array_like, shape (m,)
        Finite, none negative, not all 0. Not modified.
    n_rows : int
        The number m of samples.
    name : str, default "sample_weight"
        What to call it in errors.

    Returns
    -------
    ndarray of float64, shape (m,), C-contiguous
        Shares memory with the input where possible.

    Raises
    ------
    ShapeError
        If it is not a vector of length m.
    DataError
        If a weight is negative or not finite, or all are 0.

    Examples
    --------
    >>> check_sample_weight([1, 0, 2], n_rows=3)
    array([1., 0., 2.])
    """
    weights = host_array(sample_weight, name=name)
    if weights.shape != (n_rows,):
        hint = f"; use {name}.ravel()" if weights.ndim == 2 and weights.size == n_rows else ""
        raise ShapeError(f"{name} has shape {weights.shape}; expected ({n_rows},), one weight for each row{hint}")
    check_finite(weights, name=name)
    if weights.size and weights.min() < 0:
        row = int(np.argmin(weights >= 0))
        raise DataError(f"{name}[{row}] is {weights[row]}; weights must be 0 or positive")
    if not weights.any():
        raise DataError(f"{name} is 0 for every row, so nothing would be learned; some weight must be positive")
    return np.ascontiguousarray(weights, dtype=np.float64)


def class_weight_to_row_weights(
    labels: NDArray[np.int64],
    class_weight: Mapping[Any, float] | Literal["balanced"],
    *,
    n_classes: int | None = None,
    classes: Sequence[Any] | None = None,
) -> NDArray[np.float64]:
    """Give every row the weight of its class.

    Parameters
    ----------
    labels : ndarray of int64, shape (m,)
        Class of each row, from 0.
    class_weight : mapping or "balanced"
        Class to weight (0 or positive); a class that is not named has weight 1. The keys are the entries of
        `classes` if that is given, else the integers. ``"balanced"`` gives class c the weight m / (K m_c) for
        the K classes that occur, m_c times each, so that each counts alike and the mean weight is 1.
    n_classes : int, optional
        Number of classes; by default the length of `classes`, else one more than the largest label.
    classes : sequence, optional
        Names of the classes in the order of the labels.

    Returns
    -------
    ndarray of float64, shape (m,)

    Raises
    ------
    UnknownNameError
        If `class_weight` names a class that does not exist, or is a text other than ``"balanced"``.
    DataError
        If a weight is negative or not finite, or all rows get 0.

    Examples
    --------
    >>> class_weight_to_row_weights(np.array([0, 0, 0, 1]), "balanced")
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    >>> class_weight_to_row_weights(np.array([0, 1, 1]), {1: 5.0})
    array([1., 5., 5.])
    """
    if classes is not None:
        n_classes = len(classes)
    elif n_classes is None:
        n_classes = int(labels.max()) + 1
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise unknown("class_weight", class_weight, ["balanced"])
        counts = np.bincount(labels, minlength=n_classes)
        present = int(np.count_nonzero(counts))
        balanced = len(labels) / (present * np.maximum(counts, 1))
        return np.asarray(balanced[labels], dtype=np.float64)
    names = list(classes) if classes is not None else list(range(n_classes))
    table = np.ones(n_classes, dtype=np.float64)
    for key, weight in class_weight.items():
        if key not in names:
            raise unknown("class in class_weight", key, [str(name) for name in names])
        try:
            value = float(weight)
        except (TypeError, ValueError):
            raise DataError(f"class_weight[{key!r}] is {weight!r}; a number is needed") from None
        if not (np.isfinite(value) and value >= 0):
            raise DataError(f"class_weight[{key!r}] is {value}; weights must be finite and 0 or positive")
        table[names.index(key)] = value
    rows = table[labels]
    if not rows.any():
        raise DataError("class_weight gives every row the weight 0; some weight must be positive")
    return rows
