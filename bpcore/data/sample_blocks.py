"""Samples from files of any length, a block of rows at a time.

No more than :data:`NUMBERS` numbers are in memory at once (or two rows, if these are longer), whatever the file
holds: ``.csv`` is read line by line, ``.npy`` and ``.npz`` are read on from the beginning, ``.parquet`` comes in
record batches. Arrays in Fortran's order have their rows scattered over the file: a ``.npy`` is mapped then, an
``.npz`` is read whole.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bpcore.data.arrays import check_matrix
from bpcore.data.csv_files import open_csv, read_tables
from bpcore.data.files import table_columns
from bpcore.data.npz_files import read_npz
from bpcore.data.parquet_files import parquet_blocks
from bpcore.errors import BpcoreError, DataError
from bpcore.typing import NDArray

__all__ = ["NUMBERS", "SUFFIXES", "sample_blocks"]

SUFFIXES = (".csv", ".npz", ".npy", ".parquet")

NUMBERS = 2**18
"""Numbers in a block: 2 MiB in float64, some 20 MiB as cells of text."""

Block = tuple[NDArray[np.float64], float]


def sample_blocks(
    path: str | Path,
    width: int,
    *,
    features: Sequence[str] | None = None,
    target: str | None = None,
    numbers: int = NUMBERS,
) -> Iterator[Block]:
    """Read the samples of a file, a block of rows at a time; targets are left out.

    Parameters
    ----------
    path : str or Path
        A ``.csv``, ``.npz`` (array ``X``), ``.npy`` or ``.parquet`` file.
    width : int
        How many features a model takes.
    features : sequence of str, optional
        Names of the columns, as for :func:`~bpcore.data.files.load_file`.
    target : str, optional
        Column of a table to leave out.
    numbers : int, default 2**18
        Numbers in a block.

    Yields
    ------
    X : ndarray of float64, shape (rows, width)
        The next samples; at least one.
    done : float
        The share of the file that has been read, 0 to 1.

    Raises
    ------
    DataError, ShapeError, UnknownNameError
        As :func:`~bpcore.data.files.load_file`, when the offending row is reached.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "X.npy"), np.arange(10.0).reshape(5, 2))
    ...     [(X.tolist(), done) for X, done in sample_blocks(Path(folder, "X.npy"), 2, numbers=6)]
    [([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], 0.6), ([[6.0, 7.0], [8.0, 9.0]], 1.0)]
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: cannot read files of type {suffix or 'unknown'!r}; possible: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"there is no file {path} (looked in {path.absolute().parent})")
    if suffix == ".csv":
        yield from _csv_blocks(path, width, features, target, numbers)
    elif suffix == ".parquet":
        yield from parquet_blocks(path, width, features, target, max(1, numbers // width))
    else:
        yield from _array_blocks(path, width, max(1, numbers // width))


def _csv_blocks(
    path: Path, width: int, features: Sequence[str] | None, target: str | None, numbers: int
) -> Iterator[Block]:
    size = max(1, os.path.getsize(path))
    with open_csv(path) as file:
        for table in read_tables(path, file, target, numbers):
            X = table.numbers(table_columns(table, target, features))
            if X.shape[1] != width:
                raise DataError(f"{path} has {X.shape[1]} columns of features, but the model takes {width}")
            yield X, min(1.0, file.buffer.tell() / size)


def _array_blocks(path: Path, width: int, rows: int) -> Iterator[Block]:
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                yield from _npy_blocks(path, file, width, rows)
        elif not zipfile.is_zipfile(path):
            read_npz(path, read_target=False)  # says what is wrong
        else:
            with zipfile.ZipFile(path) as archive:
                if "X.npy" not in archive.namelist():
                    read_npz(path, read_target=False)
                with archive.open("X.npy") as member:
                    yield from _npy_blocks(path, member, width, rows)
    except BpcoreError:
        raise
    except Exception as error:
        # as in read_npz: some ten different classes for damaged files
        raise DataError(f"cannot read {path}: {error}") from error


def _npy_blocks(path: Path, file: IO[bytes], width: int, rows: int) -> Iterator[Block]:
    """Read an array of the format ``.npy`` from where a file stands."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = header(file)
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects, which are refused because they can run code; save plain numbers"
        )
    _check_header(path, shape, dtype, width)
    if in_columns and min(shape) > 1:
        whole = _whole(path, file)
        for start in range(0, shape[0], rows):
            yield _checked(path, whole[start : start + rows], start), min(1.0, (start + rows) / shape[0])
        return
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        data = file.read(count * width * dtype.itemsize)
        if len(data) < count * width * dtype.itemsize:
            raise DataError(f"{path} is cut short: it ends in row {start + len(data) // (width * dtype.itemsize)}")
        block = np.frombuffer(data, dtype).reshape(count, width)
        yield _checked(path, block, start), (start + count) / shape[0]


def _check_header(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], width: int) -> None:
    """Refuse what a header says before anything of that size is read."""
    if len(shape) == 2 and shape[1] not in (0, width):
        raise DataError(f"{path}: X has {shape[1]} columns, but the model was trained on {width}")
    if len(shape) != 2 or math.prod(shape) == 0 or dtype.kind not in "biuf":
        # a stand-in of no size, so that the message is the usual one
        check_matrix(np.broadcast_to(np.zeros((), dtype), shape), name=f"{path}: X")
        raise DataError(f"{path}: X has dtype {dtype}; real numbers are needed")


def _whole(path: Path, file: IO[bytes]) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    return read_npz(path, read_target=False)[0]


def _checked(path: Path, block: NDArray[Any], start: int) -> NDArray[np.float64]:
    return check_matrix(block, name=f"{path}: X", dtype=np.float64, first_row=start)
