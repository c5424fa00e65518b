"""Columns of categories as columns of 0 and 1, and several transformations one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.data.arrays import check_matrix
from bpcore.errors import ConfigurationError, DataError
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.data.preprocessing import Preprocessing

__all__ = ["OneHot", "Pipeline"]


@dataclass(frozen=True)
class OneHot:
    """Columns that hold codes 0 ... K-1 become K columns of 0 and 1 each; the others stay, all in their order.

    Parameters
    ----------
    counts : tuple of int, length n
        Number of categories K of each column; 0 for a column of numbers.

    Raises
    ------
    ConfigurationError
        If a count is negative, or no column is left.

    Examples
    --------
    >>> OneHot((0, 3)).apply([[0.5, 2.0], [0.7, 0.0]])
    array([[0.5, 0. , 0. , 1. ],
           [0.7, 1. , 0. , 0. ]])
    """

    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.counts or any(type(count) is not int or count < 0 for count in self.counts):
            raise ConfigurationError(f"counts must be whole numbers from 0, one for each column, got {self.counts}")

    @property
    def width(self) -> int:
        """Number of columns that come out."""
        return sum(max(count, 1) for count in self.counts)

    def apply(self, X: object) -> NDArray[Any]:
        """Return a new matrix, shape (m, width); floats keep their dtype."""
        array = check_matrix(X, n_columns=len(self.counts))
        out, begin = np.zeros((len(array), self.width), array.dtype), 0
        for j, count in enumerate(self.counts):
            column = array[:, j]
            if not count:
                out[:, begin] = column
            else:
                good = (column >= 0) & (column < count) & (column == np.floor(column))
                if not good.all():
                    row = int(np.argmin(good))
                    raise DataError(
                        f"X[{row}, {j}] is {column[row]}; it must be the code of a category, 0 to {count - 1}"
                    )
                out[np.arange(len(array)), begin + column.astype(np.int64)] = 1
            begin += max(count, 1)
        return out

    def undo(self, X: object) -> NDArray[Any]:
        """Return the codes again, shape (m, n): of several columns the largest counts."""
        array = check_matrix(X, n_columns=self.width)
        out, begin = np.empty((len(array), len(self.counts)), array.dtype), 0
        for j, count in enumerate(self.counts):
            out[:, j] = array[:, begin : begin + count].argmax(axis=1) if count else array[:, begin]
            begin += max(count, 1)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "one-hot", "counts": [...]}``."""
        return {"kind": "one-hot", "counts": list(self.counts)}


@dataclass(frozen=True)
class Pipeline:
    """Transformations one after the other.

    Parameters
    ----------
    steps : tuple of Preprocessing
        At least one, in the order in which they are applied.

    Examples
    --------
    >>> from bpcore.data import Imputer, Scaler
    >>> Pipeline((Imputer((4.0,)), Scaler(2.0))).apply([[float("nan")], [8.0]]).tolist()
    [[2.0], [4.0]]
    """

    steps: tuple[Preprocessing, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigurationError("a pipeline needs at least one step")

    def apply(self, X: object) -> NDArray[Any]:
        """Return a new matrix, after all steps."""
        for step in self.steps:
            X = step.apply(X)
        return np.asarray(X)

    def undo(self, X: object) -> NDArray[Any]:
        """Return a new matrix, with all steps undone, the last first."""
        for step in reversed(self.steps):
            X = step.undo(X)
        return np.asarray(X)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "pipeline", "steps": [...]}``."""
        return {"kind": "pipeline", "steps": [step.to_dict() for step in self.steps]}
