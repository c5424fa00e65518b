"""Samples from Parquet files, with pyarrow (the extra ``data``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import BpcoreError, DataError, missing_extra, unknown
from bpcore.typing import NDArray

__all__ = ["import_parquet", "parquet_blocks"]


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


def parquet_blocks(
    path: Path, width: int, features: Sequence[str] | None, target: str | None, rows: int
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Read columns of a Parquet file, a block of rows at a time; see :func:`bpcore.data.sample_blocks.sample_blocks`.

    Parameters
    ----------
    path : Path
        The file.
    width : int
        How many columns there must be.
    features : sequence of str or None
        Their names; None for all columns but the target, in their order.
    target : str or None
        Column to leave out.
    rows : int
        Rows in a block.

    Yields
    ------
    X : ndarray of float64, shape (at most rows, width)
        The next samples.
    done : float
        The share of the rows that has been read.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, or a value is missing or no number.
    MissingExtraError
        If pyarrow is not installed.
    """
    arrow, parquet = import_parquet("reading Parquet files")
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            names = _choose(path, file.schema_arrow, width, features, target)
            if file.metadata.num_rows == 0:
                raise DataError(f"{path} has no rows")
            start = 0
            for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
                X = np.empty((batch.num_rows, width))
                for j, name in enumerate(names):
                    X[:, j] = _numbers(path, arrow, batch.column(name), name, start)
                start += batch.num_rows
                if batch.num_rows:
                    yield X, start / file.metadata.num_rows
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, BpcoreError):
            raise
        raise DataError(f"cannot read {path} as a Parquet file: {error}") from error


def _choose(path: Path, schema: Any, width: int, features: Sequence[str] | None, target: str | None) -> list[str]:
    found = list(schema.names)
    if target is not None and target not in found:
        raise unknown(f"column in {path}", target, found)
    names = [name for name in found if name != target] if features is None else list(features)
    absent = [name for name in names if name not in found]
    if absent:
        raise DataError(
            f"{path} lacks the columns {', '.join(absent)}, on which the model was trained; it has {', '.join(found)}"
        )
    repeated = [name for name in names if found.count(name) > 1]
    if repeated:
        raise DataError(f"{path} has the column {repeated[0]!r} more than once; names must differ")
    if len(names) != width:
        raise DataError(f"{path} has {len(names)} columns of features, but the model takes {width}")
    return names


def _numbers(path: Path, arrow: Any, column: Any, name: str, start: int) -> NDArray[np.float64]:
    """Convert a column of a batch; `start` is the number of its first row."""
    kind = column.type
    types = arrow.types
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
        raise DataError(f"{path}, column {name!r}: its type is {kind}; features must be numeric: encode it as numbers")
    if column.null_count:
        row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{path}, row {row}, column {name!r}: the value is missing; fill it in, or remove the row")
    values = np.asarray(column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False))
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"{path}, row {start + row}, column {name!r}: {values[row]} is not a finite number")
    return values
