"""Reading tables of numbers from CSV files, with errors that name the line and the column."""

from __future__ import annotations

import contextlib
import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from bpcore.data.tables import names_among, parse_number
from bpcore.errors import BpcoreError, DataError
from bpcore.typing import NDArray

__all__ = ["MISSING", "Table", "iterate_csv", "open_csv", "read_table", "read_tables"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""Cells that say that there is no value, in lower case."""

PART_ROWS = 8192
"""Rows that are read together from a file that is read in parts."""

PART_CELLS = 2**18
"""Cells, likewise: each takes some sixty bytes while it is text."""


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

    @property
    def m(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def values(self, column: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a column, shape (m,), as float64 if all of it is numbers, else as text; and what is missing."""
        cells = [row[column] for row in self.rows]
        try:
            quick = np.array(cells, np.float64)
        except ValueError:
            pass
        else:
            if np.isfinite(quick.sum()) and "_" not in "".join(cells):
                return quick, np.zeros(len(cells), bool)
        missing = np.array([cell.lower() in MISSING for cell in cells], dtype=bool)
        numbers = np.full(len(cells), np.nan)
        for i, cell in enumerate(cells):
            if not missing[i]:
                value = parse_number(cell)
                if value is None:
                    return np.array(cells, dtype=np.str_), missing
                numbers[i] = value
        return numbers, missing

    def place(self, row: int, column: int) -> str:
        """Spell file, line and column."""
        return f"{self.path}, line {self.lines[row]}, column {self.names[column]!r}"

    def cell(self, row: int, column: int) -> str:
        """Return a cell as it is written."""
        return self.rows[row][column]


def read_table(path: Path, target: str | None = None) -> Table:
    """Read a CSV file: UTF-8, separated by commas, semicolons or tabs, with or without a header line.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        Name of a column that will be asked for, or names of several, separated by commas; if the first line has one,
        that line is the header.

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


def iterate_csv(path: Path, target: str | None = None, part_rows: int = PART_ROWS) -> Iterator[Table]:
    """Read a CSV file as :func:`read_table` does, some rows at a time.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        As for :func:`read_table`.
    part_rows : int
        Rows of a part; the last one may have fewer.

    Yields
    ------
    Table
        At least one, with at least one row.

    Raises
    ------
    DataError
        As :func:`read_table`, when the place of the error is reached.
    """
    with open_csv(path) as file:
        yield from read_tables(path, file, target, PART_CELLS, part_rows)


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


def read_tables(
    path: Path, file: TextIO, target: str | None = None, cells: int | None = None, rows: int | None = None
) -> Iterator[Table]:
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
    rows : int, optional
        How many rows a part has at most, where `cells` is given.

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
    start = next(numbered, None)
    if start is None:
        raise DataError(f"{path} is empty; expected one sample a line, columns separated by commas")
    width = len(start[0])
    numbered = _of_one_width(path, itertools.chain([start], numbered), width)
    head = list(itertools.islice(numbered, 2))
    has_header = _is_header([row for row, _ in head], target)
    names = tuple(head[0][0]) if has_header else tuple(str(i) for i in range(width))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: the header has the column {repeated[0]!r} more than once; names must differ")
    numbered = itertools.chain(head[1:] if has_header else head, numbered)
    size = None if cells is None else max(2, cells // width)
    if size is not None and rows is not None:
        size = min(size, rows)
    part = list(itertools.islice(numbered, size))
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
    named = [] if target is None else [name for name in names_among(first, target) if name in first]
    if any(not is_number[first.index(name)] for name in named):
        return True
    if not any(is_number):
        return True
    if len(rows) < 2:
        return False
    return any(
        not before and cell.lower() not in MISSING and parse_number(after) is not None
        for before, cell, after in zip(is_number, first, rows[1], strict=True)
    )
