"""Tables that are written while they are computed: CSV and Parquet, to a file that appears at the end, or as text."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.data.parquet_files import import_parquet
from bpcore.data.sample_blocks import NUMBERS
from bpcore.persistence.atomic import check_writable, replacing, write_all
from bpcore.typing import NDArray

__all__ = ["CsvText", "Write", "table_file"]

Columns = Mapping[str, NDArray[Any]]
Write = Callable[[Columns], None]
"""Takes the next rows of a table, as columns by name; the same names each time."""


class CsvText:
    r"""Turns columns into lines of CSV; the header comes before the first of them.

    Examples
    --------
    >>> text = CsvText()
    >>> text({"prediction": np.array([1, 2])})
    'prediction\n1\n2\n'
    >>> text({"prediction": np.array([3])})
    '3\n'
    """

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, columns: Columns) -> str:
        """Return the lines of the next rows."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._begun:
            writer.writerow(columns)
            self._begun = True
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
        return text.getvalue()


@contextlib.contextmanager
def table_file(path: str | os.PathLike[str]) -> Iterator[Write]:
    """Open a table for writing; an existing file is replaced at the end, in one step, or stays as it is.

    Parameters
    ----------
    path : str or PathLike
        ``*.parquet`` is written as Parquet, everything else as CSV.

    Yields
    ------
    callable
        Writes the next rows.

    Raises
    ------
    ModelFileError
        If the file cannot be written.
    MissingExtraError
        If Parquet is asked for and pyarrow is not installed.
    """
    check_writable(path)
    if Path(path).suffix.lower() == ".parquet":
        with _parquet(path) as write:
            yield write
        return
    text = CsvText()
    with replacing(path) as descriptor:
        yield lambda columns: write_all(descriptor, text(columns).encode())


@contextlib.contextmanager
def _parquet(path: str | os.PathLike[str]) -> Iterator[Write]:
    arrow, parquet = import_parquet("writing Parquet files")
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        writer: Any = None
        waiting: list[Any] = []

        def flush() -> None:
            nonlocal writer
            if waiting:
                table = arrow.Table.from_batches(waiting)
                writer = writer or parquet.ParquetWriter(file, table.schema)
                writer.write_table(table)
                waiting.clear()

        def write(columns: Columns) -> None:
            waiting.append(arrow.RecordBatch.from_pydict({name: _array(arrow, v) for name, v in columns.items()}))
            # many small row groups would make a file slow to read
            if sum(batch.num_rows * batch.num_columns for batch in waiting) >= NUMBERS:
                flush()

        yield write
        flush()
        if writer is not None:
            writer.close()


def _array(arrow: Any, values: NDArray[Any]) -> Any:
    return (
        arrow.array(values.tolist(), arrow.string()) if values.dtype.kind in "UT" else arrow.array(np.asarray(values))
    )
