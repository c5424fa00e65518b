"""What tables have in common, whatever file they come from: columns by name, missing values, text as categories.

A table, or a part of a long one, gives its columns one at a time as numbers or as text (:class:`TablePart`). The
functions here choose the columns of the features and make one matrix of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bpcore.errors import ConfigurationError, DataError, unknown
from bpcore.typing import NDArray

__all__ = [
    "MISSING_CHOICES",
    "Columns",
    "TablePart",
    "choose_columns",
    "column_index",
    "column_indices",
    "names_among",
    "target_matrix",
    "target_values",
]

MISSING_CHOICES = ("refuse", "mean", "median", "most-frequent", "constant")
"""What may be done about missing values."""

MOST_CATEGORIES = 1000
"""As many different texts in a column as are taken for categories."""


class TablePart(Protocol):
    """Rows of a table.

    Attributes
    ----------
    path : Path
        The file, for errors.
    names : tuple of str
        Names of its columns.
    has_header : bool
        Whether the names come from the file.
    m : int
        Number of rows.
    """

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns."""

    @property
    def has_header(self) -> bool:
        """Whether the names come from the file."""

    @property
    def m(self) -> int:
        """Number of rows."""

    def values(self, column: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a column, shape (m,), as float64 if all that is there is a number, else as text; and what is missing.

        Numbers that are missing are NaN; numbers are finite otherwise.
        """

    def place(self, row: int, column: int) -> str:
        """Spell file, row and column, for errors."""

    def cell(self, row: int, column: int) -> str:
        """Spell one value, for errors."""


def column_index(table: TablePart, column: str) -> int:
    """Find a column by its name, or by its number from 0 (negative: from the end).

    Raises
    ------
    UnknownNameError
        If there is no such column.
    """
    if column in table.names:
        return table.names.index(column)
    try:
        number = int(column)
    except ValueError:
        number = len(table.names)
    if not -len(table.names) <= number < len(table.names):
        hint = "" if table.has_header else " (the file has no header: columns are counted from 0)"
        raise unknown(f"column in {table.path}{hint}", column, table.names)
    return number % len(table.names)


def names_among(names: Sequence[str], columns: str) -> list[str]:
    """Take a text for the name of one column if there is such a column, else for several, separated by commas.

    Examples
    --------
    >>> names_among(["x", "a,b"], "a,b"), names_among(["x", "y", "z"], "x, y")
    (['a,b'], ['x', 'y'])
    """
    return [columns] if columns in names else [name.strip() for name in columns.split(",")]


def column_indices(table: TablePart, columns: str) -> list[int]:
    """Find one column, or several separated by commas; see :func:`column_index`.

    Raises
    ------
    UnknownNameError
        If there is no such column.
    ConfigurationError
        If one is named twice.
    """
    found = [column_index(table, name) for name in names_among(table.names, columns)]
    for i, number in enumerate(found):
        if number in found[:i]:
            raise ConfigurationError(f"{columns!r} names the column {table.names[number]!r} of {table.path} twice")
    return found


def choose_columns(
    table: TablePart, apart: Sequence[int], features: Sequence[str] | None, beside: str
) -> tuple[list[int], tuple[str, ...]]:
    """Choose the columns of the features.

    Parameters
    ----------
    table : TablePart
        The table.
    apart : sequence of int
        Columns that are no features: the target, the groups, what is dropped.
    features : sequence of str or None
        Names of those to take, for a trained model.
    beside : str
        What to call the columns of `apart` in errors; empty where no target was named.

    Returns
    -------
    columns : list of int
        Their numbers.
    names : tuple of str
        Their names.

    Raises
    ------
    DataError
        If one is absent, or there are none.
    """
    rest = [i for i in range(len(table.names)) if i not in apart]
    if features is not None and table.has_header:
        absent = [name for name in features if name not in table.names]
        if absent:
            raise DataError(
                f"{table.path} lacks the columns {', '.join(absent)}, on which the model was trained; "
                f"it has {', '.join(table.names)}"
            )
        rest = [table.names.index(name) for name in features]
    elif features is not None and len(features) != len(rest):
        hint = "" if beside else "; name a column of targets with --target to leave it out"
        raise DataError(
            f"{table.path} has {len(rest)} columns{beside}, but the model was trained on "
            f"{len(features)}: {', '.join(features)}{hint}"
        )
    if not rest:
        raise DataError(f"{table.path} has no column beside the target; at least one feature is needed")
    return rest, tuple(features) if features is not None else tuple(table.names[i] for i in rest)


@dataclass
class Columns:
    """Makes matrices of the features of a table, part by part.

    Parameters
    ----------
    columns : list of int
        Numbers of the columns.
    names : tuple of str
        Their names, in the same order.
    keep_missing : bool
        Whether missing values become NaN; they are refused otherwise.
    text : bool
        Whether columns of text are taken, as categories.
    categories : dict of str to list of str
        The categories of each column of text, in the order of their codes; collected on the way.
    fixed : bool
        Whether the categories are those of a trained model, so that others are refused.
    """

    columns: list[int]
    names: tuple[str, ...]
    keep_missing: bool = False
    text: bool = False
    categories: dict[str, list[str]] = field(default_factory=dict)
    fixed: bool = False
    _numeric: set[str] = field(default_factory=set)

    def matrix(self, table: TablePart) -> NDArray[np.float64]:
        """Convert a part: float64, shape (m, number of columns); a category becomes its code, what is missing NaN.

        Raises
        ------
        DataError
            For what is missing, no number, or no category, with its place.
        """
        result = np.empty((table.m, len(self.columns)))
        for j, (column, name) in enumerate(zip(self.columns, self.names, strict=True)):
            values, missing = table.values(column)
            if missing.any() and not self.keep_missing:
                raise self._missing(table, column, missing)
            if name in self.categories:
                result[:, j] = self._codes(table, column, name, _as_text(table, column, values), missing)
            elif values.dtype.kind == "f":
                result[:, j] = values
                if not missing.all():
                    self._numeric.add(name)
            elif self.text and not self.fixed and name not in self._numeric and not _numbers_in(values, missing):
                self.categories[name] = []
                result[:, j] = self._codes(table, column, name, values, missing)
            else:
                raise self._no_number(table, column, values, missing)
        return result

    def finish(self) -> None:
        """Put categories that were collected from the whole of a table in their final state."""
        self.fixed = True

    def _codes(
        self, table: TablePart, column: int, name: str, values: NDArray[Any], missing: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        known = self.categories[name]
        index = {text: float(code) for code, text in enumerate(known)}
        there = np.flatnonzero(~missing)
        unique, first, inverse = np.unique(values[there], return_index=True, return_inverse=True)
        codes = np.full(len(unique), np.nan)
        for i in np.argsort(first):  # in the order of their appearance, wherever a table is cut into parts
            text = str(unique[i])
            if text not in index and self.fixed:
                row = int(there[first[i]])
                shown = ", ".join(map(repr, known[:12])) + (", ..." if len(known) > 12 else "")
                raise DataError(
                    f"{table.place(row, column)}: {text[:40]!r} is not one of the categories the model was trained on: "
                    f"{shown}"
                )
            if text not in index:
                if len(known) == MOST_CATEGORIES:
                    raise DataError(
                        f"{table.path}: column {name!r} has more than {MOST_CATEGORIES} different texts (such as "
                        f"{known[0][:40]!r}), too many to be categories; remove it with --drop {name}"
                    )
                index[text] = float(len(known))
                known.append(text)
            codes[i] = index[text]
        found = np.full(len(values), np.nan)
        found[there] = codes[inverse.reshape(-1)]
        return found

    def _missing(self, table: TablePart, column: int, missing: NDArray[np.bool_]) -> DataError:
        row = int(np.argmax(missing))
        counts = []
        for other in self.columns:
            count = int(np.count_nonzero(table.values(other)[1]))
            if count:
                counts.append(f"{count} in {table.names[other]!r}")
        return DataError(
            f"{table.place(row, column)}: the value is missing ({table.cell(row, column)!r}); fill it in, or remove "
            f"the row or the column, or let it be filled with --missing mean, median, most-frequent or constant "
            f"(missing in {table.m} rows: {', '.join(counts)})"
        )

    def _no_number(self, table: TablePart, column: int, values: NDArray[Any], missing: NDArray[np.bool_]) -> DataError:
        row = next(i for i, text in enumerate(values.tolist()) if not missing[i] and parse_number(text) is None)
        advice = (
            "features must be numeric: encode the column as numbers (one 0/1 column for each category, which "
            "--text one-hot does) or remove it"
        )
        if self.text:
            advice = "other values of the column are numbers, and a column is either; repair it or remove it"
        return DataError(f"{table.place(row, column)}: {values[row][:40]!r} is not a finite number; {advice}")


def target_values(table: TablePart, column: int) -> NDArray[Any]:
    """Return a column of targets or groups: float64 if every value is a number, else text, shape (m,).

    Raises
    ------
    DataError
        If a value is missing.
    """
    values, missing = table.values(column)
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(
            f"{table.place(row, column)}: the value is missing ({table.cell(row, column)!r}); fill it in, or remove "
            f"the row or the column ({int(np.count_nonzero(missing))} of {table.m} are missing; targets and groups are "
            "never made up)"
        )
    return values


def target_matrix(table: TablePart, columns: Sequence[int]) -> NDArray[Any]:
    """Return one column as :func:`target_values` does, or several, all of numbers, as float64 of shape (m, columns).

    Raises
    ------
    DataError
        If a value is missing, or text beside other columns.
    """
    found = [target_values(table, column) for column in columns]
    if len(found) == 1:
        return found[0]
    for column, values in zip(columns, found, strict=True):
        if values.dtype.kind != "f":
            row = next(i for i, cell in enumerate(values.tolist()) if parse_number(cell) is None)
            raise DataError(
                f"{table.place(row, column)}: {values[row][:40]!r} is not a finite number; several targets are "
                "numbers, and classes are one target: name one column"
            )
    return np.stack(found, axis=1)


def parse_number(cell: str) -> float | None:
    """Return the number that a cell spells, or None; blanks, ``inf``, ``nan`` and ``1_000`` are none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in cell else None


def _numbers_in(values: Iterable[str], missing: NDArray[np.bool_]) -> bool:
    return any(not gone and parse_number(text) is not None for text, gone in zip(values, missing, strict=True))


def _as_text(table: TablePart, column: int, values: NDArray[Any]) -> NDArray[Any]:
    """Text of a column of categories, of which a part may happen to hold numbers only."""
    if values.dtype.kind != "f":
        return values
    return np.array([table.cell(row, column) for row in range(table.m)], dtype=np.str_)


def frozen(categories: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Categories as values that do not change."""
    return {name: tuple(texts) for name, texts in categories.items()}
