"""Reading Parquet files by pyarrow, whole or some rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import BpcoreError, DataError, missing_extra
from bpcore.typing import NDArray

__all__ = ["ParquetPart", "import_parquet", "iterate_parquet", "parquet_head", "parquet_rows", "read_parquet"]

PART_ROWS, PART_CELLS = 2**16, 2**20
"""Rows, and numbers, that are read together."""


def import_parquet(purpose: str) -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Parameters
    ----------
    purpose : str
        What they are needed for, for the error.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data", purpose) from error
    return pyarrow, pyarrow.parquet


@dataclass(frozen=True)
class ParquetPart:
    """Rows of a Parquet file; see :class:`~bpcore.data.tables.TablePart`.

    Attributes
    ----------
    path : Path
        The file.
    names : tuple of str
        Names of the columns.
    columns : list of pyarrow.ChunkedArray or pyarrow.Array
        The columns.
    first_row : int
        Number of its first row in the file.
    """

    path: Path
    names: tuple[str, ...]
    columns: list[Any]
    first_row: int
    has_header: bool = True

    @property
    def m(self) -> int:
        """Number of rows."""
        return len(self.columns[0])

    def values(self, column: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a column as float64 or as text, and what is missing: null, or a NaN among the numbers.

        Raises
        ------
        DataError
            If it holds dates or times, or anything else that is neither a number, a truth value nor text.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        data, types = self.columns[column], pa.types
        kind = data.type
        if types.is_dictionary(kind):
            data = data.cast(kind.value_type)
            kind = data.type
        if types.is_null(kind):
            return np.full(self.m, np.nan), np.ones(self.m, bool)
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
            if types.is_boolean(kind):
                data = data.cast(pa.uint8())
            filled = pc.fill_null(data.cast(pa.float64(), safe=False), np.nan)
            numbers = np.array(filled)  # arrays and chunked arrays alike
            if np.isinf(numbers).any():
                row = int(np.argmax(np.isinf(numbers)))
                raise DataError(
                    f"{self.place(row, column)}: {numbers[row]} is not a finite number; repair or remove it"
                )
            return numbers, np.isnan(numbers)
        if types.is_string(kind) or types.is_large_string(kind):
            texts = data.to_pylist()
            missing = np.array([text is None for text in texts], dtype=bool)
            return np.array(["" if text is None else text for text in texts], dtype=np.str_), missing
        name = self.names[column]
        if types.is_temporal(kind):
            raise DataError(
                f"{self.path}: column {name!r} holds dates or times ({kind}), and what of them matters is not known "
                f"here; make numbers of it (year, month, weekday, seconds since a date), or leave it out with "
                f"--drop {name}"
            )
        raise DataError(
            f"{self.path}: column {name!r} is of type {kind}; possible: numbers, truth values, text. Convert it, or "
            f"leave it out with --drop {name}"
        )

    def place(self, row: int, column: int) -> str:
        """Spell file, row (from 0) and column."""
        return f"{self.path}, row {self.first_row + row} (counted from 0), column {self.names[column]!r}"

    def cell(self, row: int, column: int) -> str:
        """Spell one value."""
        return str(self.columns[column][row])


def iterate_parquet(
    path: Path, part_rows: int = PART_ROWS, columns: Sequence[str] | None = None
) -> Iterator[ParquetPart]:
    """Read a Parquet file some rows at a time.

    Parameters
    ----------
    path : Path
        The file.
    part_rows : int
        Most rows of a part.
    columns : sequence of str, optional
        Names of the columns to read, of which the parts consist; by default all.

    Yields
    ------
    ParquetPart
        At least one.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    DataError
        If the file cannot be read or has no rows.
    """
    with _opened(path) as file:
        names = _names(path, file.schema_arrow.names) if columns is None else tuple(columns)
        first = 0
        rows = max(1, min(part_rows, PART_CELLS // len(names)))
        for batch in file.iter_batches(batch_size=rows, columns=list(names), use_threads=False):
            if batch.num_rows:
                yield ParquetPart(path, names, [batch.column(name) for name in names], first)
            first += batch.num_rows
    if not first:
        raise DataError(f"{path} has no rows; at least one sample is needed")


def parquet_head(path: Path) -> tuple[ParquetPart, int]:
    """Return a part with the names of a Parquet file and no rows, and how many rows the file says it has.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    DataError
        If the file cannot be read.
    """
    with _opened(path) as file:
        return ParquetPart(path, _names(path, file.schema_arrow.names), [], 0), int(file.metadata.num_rows)


def parquet_rows(path: Path) -> int:
    """Return the number of rows that a Parquet file says it has; 0 for one that cannot be read."""
    try:
        return parquet_head(path)[1]
    except DataError:
        return 0  # reading it says why


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a Parquet file; what goes wrong inside becomes a DataError."""
    arrow, parquet = import_parquet("reading Parquet files")
    try:
        with parquet.ParquetFile(path, memory_map=False, buffer_size=2**20, pre_buffer=False) as file:
            yield file
    except BpcoreError:
        raise
    except (OSError, arrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path} as a Parquet file: {reason}") from error


def read_parquet(path: Path) -> ParquetPart:
    """Read a Parquet file as a whole; see :func:`iterate_parquet`."""
    parts = list(iterate_parquet(path, 2**20))
    if len(parts) == 1:
        return parts[0]
    import pyarrow as pa

    columns = [pa.chunked_array([part.columns[i] for part in parts]) for i in range(len(parts[0].names))]
    return ParquetPart(path, parts[0].names, columns, 0)


def _names(path: Path, names: list[str]) -> tuple[str, ...]:
    if not names:
        raise DataError(f"{path} has no columns")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has the column {repeated[0]!r} more than once; names must differ")
    return tuple(names)
