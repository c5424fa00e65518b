"""The history of a run: one row an epoch, as dictionaries or as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from bpcore.errors import unknown
from bpcore.typing import NDArray

__all__ = ["History", "Row"]

Row = dict[str, float]

COUNTS = ("epoch", "step")
"""Columns of whole numbers."""


class History(Sequence[Row]):
    """Rows of numbers, one for each epoch.

    Attributes
    ----------
    steps : ndarray of float64
        Loss of every step, when it was asked for (``record_steps=True``), else empty.
    etas : ndarray of float64
        Learning rate of every step, likewise; empty for full-batch methods, which have none.

    Notes
    -----
    The columns are ``epoch`` (from 1), ``step`` (steps so far), ``loss`` (weighted mean over the epoch of the losses
    before each update), ``accuracy`` (likewise, for classes), ``penalty`` (at the end of the epoch, when there is one),
    ``val_loss`` and other ``val_`` metrics (at the end of the epoch, with validation data), ``eta`` (last learning
    rate) and ``seconds`` (since the start).

    Examples
    --------
    >>> history = History()
    >>> history.append({"epoch": 1, "loss": 0.7}); history.append({"epoch": 2, "loss": 0.4})
    >>> history[-1]["loss"], history["loss"]
    (0.4, array([0.7, 0.4]))
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._losses: list[NDArray[np.float64]] = []
        self.etas: NDArray[np.float64] = np.empty(0)

    def append(self, row: Row) -> None:
        """Add the row of an epoch."""
        self._rows.append(row)

    def append_steps(self, losses: NDArray[np.float64]) -> None:
        """Add the losses of some steps."""
        self._losses.append(losses)

    def to_table(self) -> tuple[list[str], NDArray[np.float64], NDArray[np.bool_]]:
        """Return the columns, the numbers, and which of them there are, both of shape (rows, columns).

        Examples
        --------
        >>> history = History()
        >>> history.append({"epoch": 1, "loss": 0.7})
        >>> history.to_table()[0], list(History.from_table(*history.to_table()))
        (['epoch', 'loss'], [{'epoch': 1, 'loss': 0.7}])
        """
        names = list(self.columns)
        values = np.array([[row.get(name, 0.0) for name in names] for row in self._rows], np.float64)
        there = np.array([[name in row for name in names] for row in self._rows], np.bool_)
        shape = len(self._rows), len(names)
        return names, values.reshape(shape), there.reshape(shape)

    @classmethod
    def from_table(cls, names: Sequence[str], values: NDArray[np.float64], there: NDArray[np.bool_]) -> History:
        """Rebuild what :meth:`to_table` has returned; ``epoch`` and ``step`` are whole numbers."""
        history = cls()
        kinds = [int if name in COUNTS else float for name in names]
        for row, has in zip(values.tolist(), there.tolist(), strict=True):
            cells = zip(names, kinds, row, has, strict=True)
            history.append({name: kind(value) for name, kind, value, found in cells if found})
        return history

    @property
    def steps(self) -> NDArray[np.float64]:
        """Loss of every step."""
        return np.concatenate(self._losses) if self._losses else np.empty(0)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(dict.fromkeys(name for row in self._rows for name in row))

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> list[Row]: ...
    @overload
    def __getitem__(self, key: str) -> NDArray[np.float64]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a row by number, or a column by name (NaN where a row does not have it)."""
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self.columns:
            raise unknown("column of the history", key, self.columns)
        return np.array([row.get(key, np.nan) for row in self._rows])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"<history of {len(self)} epochs: {', '.join(self.columns)}>"
