"""Reading Parquet files by pyarrow, whole or some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import DataError, missing_extra
from bpcore.typing import NDArray

__all__ = ["ParquetPart", "iterate_parquet", "parquet_rows", "read_parquet"]

PART_ROWS, PART_CELLS = 2**16, 2**20
"""Rows, and numbers, that are read together."""


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


def iterate_parquet(path: Path, part_rows: int = PART_ROWS) -> Iterator[ParquetPart]:
    """Read a Parquet file some rows at a time.

    Parameters
    ----------
    path : Path
        The file.
    part_rows : int
        Most rows of a part.

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
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data", f"reading {path.name}") from error
    try:
        with pq.ParquetFile(path, memory_map=False, buffer_size=2**20, pre_buffer=False) as file:
            names = _names(path, file.schema_arrow.names)
            first = 0
            rows = max(1, min(part_rows, PART_CELLS // len(names)))
            for batch in file.iter_batches(batch_size=rows, use_threads=False):
                if batch.num_rows:
                    yield ParquetPart(path, names, list(batch.columns), first)
                first += batch.num_rows
    except OSError as error:  # pyarrow's own errors of files derive from it
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise DataError(f"cannot read {path} as a Parquet file: {error}") from error
    if not first:
        raise DataError(f"{path} has no rows; at least one sample is needed")


def parquet_rows(path: Path) -> int:
    """Return the number of rows that a Parquet file says it has; 0 for one that cannot be read."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data", f"reading {path.name}") from error
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 0  # reading it says why


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
