"""Reading tables of numbers from CSV files, with errors that name the line and the column."""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from bpcore.errors import BpcoreError, DataError, unknown
from bpcore.typing import NDArray

__all__ = ["Table", "open_csv", "read_table", "read_tables"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file.

    Attributes
    ----------
    path : Path
        The file, for errors.
    names : tuple of str
        Column names; ``"0"``, ``"1"``, ... without a header.
    rows : list of list of str
        The cells of each data row, stripped of blanks.
    lines : list of int
        Line of the file (from 1) on which each row ends.
    has_header : bool
        Whether the names come from the file.
    """

    path: Path
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    has_header: bool

    def column_index(self, column: str) -> int:
        """Find a column by its name, or by its number from 0 (negative: from the end).

        Raises
        ------
        UnknownNameError
            If there is no such column.
        """
        if column in self.names:
            return self.names.index(column)
        try:
            number = int(column)
        except ValueError:
            number = len(self.names)
        if not -len(self.names) <= number < len(self.names):
            hint = "" if self.has_header else " (the file has no header: columns are counted from 0)"
            raise unknown(f"column in {self.path}{hint}", column, self.names)
        return number % len(self.names)

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """Convert columns to float64, shape (m, number of columns).

        Raises
        ------
        DataError
            For the first cell that is missing, is no number or is not finite, with line and column.
        """
        result = np.empty((len(self.rows), len(columns)), dtype=np.float64)
        for i, row in enumerate(self.rows):
            for j, column in enumerate(columns):
                value = parse_number(row[column])
                if value is None:
                    raise self._cell_error(i, column)
                result[i, j] = value
        return result

    def column(self, column: int) -> NDArray[Any]:
        """Convert one column to float64 if every cell is a number, else to text, shape (m,).

        Raises
        ------
        DataError
            For the first cell that is missing.
        """
        cells = [row[column] for row in self.rows]
        for i, cell in enumerate(cells):
            if cell.lower() in MISSING:
                raise self._cell_error(i, column)
        values = [parse_number(cell) for cell in cells]
        if any(value is None for value in values):
            return np.array(cells, dtype=np.str_)
        return np.array(values, dtype=np.float64)

    def _cell_error(self, row: int, column: int) -> DataError:
        cell = self.rows[row][column]
        place = f"{self.path}, line {self.lines[row]}, column {self.names[column]!r}"
        if cell.lower() in MISSING:
            return DataError(f"{place}: the value is missing ({cell!r}); fill it in, or remove the row or the column")
        return DataError(
            f"{place}: {cell[:40]!r} is not a finite number; features must be numeric: encode the column "
            "as numbers (one 0/1 column for each category) or remove it"
        )


def parse_number(cell: str) -> float | None:
    """Return the number that a cell spells, or None; blanks, ``inf``, ``nan`` and ``1_000`` are none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def read_table(path: Path, target: str | None = None) -> Table:
    """Read a CSV file: UTF-8, separated by commas, semicolons or tabs, with or without a header line.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        Name of a column that will be asked for; if the first line has it, that line is the header.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        If the file cannot be read, has no data rows, or its rows differ in length.

    Notes
    -----
    The first line is the header if it names `target`, or holds no number at all, or has text in a column
    whose next cell is a number.
    """
    with open_csv(path) as file:
        return next(read_tables(path, file, target))


@contextlib.contextmanager
def open_csv(path: Path) -> Iterator[TextIO]:
    """Open a CSV file for :func:`read_tables`; what goes wrong inside becomes a DataError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
    except OSError as error:
        if isinstance(error, BpcoreError):
            raise
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_tables(path: Path, file: TextIO, target: str | None = None, cells: int | None = None) -> Iterator[Table]:
    """Read a CSV file a part at a time, by the rules of :func:`read_table`.

    Parameters
    ----------
    path : Path
        The file, for errors.
    file : text file
        What :func:`open_csv` gives.
    target : str, optional
        As for :func:`read_table`.
    cells : int, optional
        How many cells a part has at most, or two rows of them; by default the whole file is one part.

    Yields
    ------
    Table
        At least one, each with at least one row.

    Raises
    ------
    DataError
        As for :func:`read_table`, when the line in question is reached.
    """
    first = file.readline()
    file.seek(0)
    counts = Counter({mark: first.count(mark) for mark in ",;\t"})
    numbered = _numbered_rows(file, counts.most_common(1)[0][0])
    head = list(itertools.islice(numbered, 2))
    if not head:
        raise DataError(f"{path} is empty; expected one sample a line, columns separated by commas")
    width = len(head[0][0])
    numbered = _of_one_width(path, itertools.chain(head, numbered), width)
    size = None if cells is None else max(2, cells // width)
    part = list(itertools.islice(numbered, size))
    has_header = _is_header([row for row, _ in head], target)
    names = tuple(head[0][0]) if has_header else tuple(str(i) for i in range(width))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: the header has the column {repeated[0]!r} more than once; names must differ")
    if has_header:
        part = part[1:]
        if not part:
            raise DataError(f"{path} has a header but no data rows")
    while part:
        yield Table(path, names, [row for row, _ in part], [line for _, line in part], has_header)
        part = [] if size is None else list(itertools.islice(numbered, size))


def _numbered_rows(file: TextIO, delimiter: str) -> Iterator[tuple[list[str], int]]:
    """Yield the cells of each row that is not blank, and the line on which it ends."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    for cells in reader:
        row = [cell.strip() for cell in cells]
        if any(row):
            yield row, reader.line_num


def _of_one_width(path: Path, rows: Iterable[tuple[list[str], int]], width: int) -> Iterator[tuple[list[str], int]]:
    for row, line in rows:
        if len(row) != width:
            raise DataError(
                f"{path}, line {line}: {len(row)} columns, but the first line has {width}; "
                "every line needs the same number"
            )
        yield row, line


def _is_header(rows: list[list[str]], target: str | None) -> bool:
    first = rows[0]
    is_number = [parse_number(cell) is not None for cell in first]
    if target is not None and target in first and not is_number[first.index(target)]:
        return True
    if not any(is_number):
        return True
    if len(rows) < 2:
        return False
    return any(
        not before and cell.lower() not in MISSING and parse_number(after) is not None
        for before, cell, after in zip(is_number, first, rows[1], strict=True)
    )
