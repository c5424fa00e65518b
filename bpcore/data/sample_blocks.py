"""Samples from files of any length, a block of rows at a time.

No more than :data:`NUMBERS` numbers are in memory at once (or two rows, if these are longer), whatever the file
holds: ``.csv`` is read line by line, ``.npy`` and ``.npz`` are read on from the beginning, ``.parquet`` comes in
record batches, ``.safetensors`` is mapped. Arrays in Fortran's order have their rows scattered over the file: a
``.npy`` is mapped then, an ``.npz`` is read whole.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from bpcore.data.arrays import check_matrix
from bpcore.data.csv_files import open_csv, read_tables
from bpcore.data.files import columns_of, file_kind, open_arrays
from bpcore.data.idx_files import mnist_files
from bpcore.data.missing import refuse_infinite
from bpcore.data.npy_files import RecordPart, load_npy
from bpcore.data.npz_files import read_npz
from bpcore.data.parquet_files import iterate_parquet, parquet_head
from bpcore.data.safetensors_files import read_safetensors
from bpcore.data.tables import Columns, TablePart
from bpcore.errors import BpcoreError, DataError
from bpcore.typing import NDArray

__all__ = ["NUMBERS", "sample_blocks"]

NUMBERS = 2**18
"""Numbers in a block: 2 MiB in float64, some 20 MiB as cells of text."""

Block = tuple[NDArray[np.float64], float]


def sample_blocks(
    path: str | Path,
    width: int,
    *,
    features: Sequence[str] | None = None,
    target: str | None = None,
    keep_missing: bool = False,
    categories: Mapping[str, Sequence[str]] | None = None,
    numbers: int = NUMBERS,
) -> Iterator[Block]:
    """Read the samples of a file, a block of rows at a time; targets are left out.

    Parameters
    ----------
    path : str or Path
        As for :func:`~bpcore.data.files.load_file`.
    width : int
        How many features a model takes, before its preprocessing.
    features : sequence of str, optional
        Names of the columns, as for :func:`~bpcore.data.files.load_file`.
    target : str, optional
        Column of a table to leave out, or several, separated by commas.
    keep_missing : bool, default False
        Whether missing features become NaN; by default they are refused.
    categories : mapping of str to sequence of str, optional
        The categories of a trained model, of which blocks hold the codes.
    numbers : int, default 2**18
        Numbers in a block.

    Yields
    ------
    X : ndarray of float64, shape (rows, width)
        The next samples; at least one. Images are bytes, not divided by anything.
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
    kind = file_kind(path)
    read = _Reader(path, width, features, target, keep_missing, categories)
    rows = max(1, numbers // width)
    if kind == "csv":
        yield from _csv_blocks(read, numbers)
    elif kind == "parquet":
        yield from _parquet_blocks(read, rows)
    elif kind in ("npy", "npz"):
        yield from _array_blocks(read, rows)
    elif kind == "safetensors":
        X = read_safetensors(path, read_target=False)[0]
        _check_header(path, X.shape, X.dtype, width)
        for start in range(0, len(X), rows):
            yield read.checked(X[start : start + rows], start), min(1.0, (start + rows) / len(X))
    else:
        yield from _image_blocks(read, kind, rows)


@dataclass
class _Reader:
    """What is to be read of a file: see :func:`sample_blocks`."""

    path: Path
    width: int
    features: Sequence[str] | None
    target: str | None
    keep_missing: bool
    categories: Mapping[str, Sequence[str]] | None

    def columns(self, table: TablePart) -> Columns:
        """Choose the columns of a table."""
        found, _ = columns_of(table, self.target, False, self.features, None, ())
        if len(found.columns) != self.width:
            raise DataError(
                f"{self.path} has {len(found.columns)} columns of features, but the model takes {self.width}"
            )
        found.keep_missing, found.text, found.fixed = self.keep_missing, bool(self.categories), True
        found.categories = {name: list(texts) for name, texts in (self.categories or {}).items()}
        return found

    def checked(self, block: NDArray[Any], start: int) -> NDArray[np.float64]:
        """Check the rows of an array."""
        name = f"{self.path}: X"
        X = check_matrix(block, name=name, dtype=np.float64, allow_nonfinite=self.keep_missing, first_row=start)
        if self.keep_missing:
            refuse_infinite(X, name)
        return X


def _csv_blocks(read: _Reader, numbers: int) -> Iterator[Block]:
    size = max(1, os.path.getsize(read.path))
    columns: Columns | None = None
    with open_csv(read.path) as file:
        for table in read_tables(read.path, file, read.target, numbers):
            columns = columns or read.columns(table)
            yield columns.matrix(table), min(1.0, file.buffer.tell() / size)


def _parquet_blocks(read: _Reader, rows: int) -> Iterator[Block]:
    head, m = parquet_head(read.path)
    columns = read.columns(head)
    names = [head.names[column] for column in columns.columns]
    columns.columns = list(range(len(names)))
    for part in iterate_parquet(read.path, rows, names):
        yield columns.matrix(part), min(1.0, (part.first_row + part.m) / m)


def _record_blocks(read: _Reader, rows: int) -> Iterator[Block]:
    array = load_npy(read.path)
    columns = read.columns(RecordPart(read.path, array))
    for start in range(0, len(array), rows):
        part = RecordPart(read.path, array[start : start + rows], start)
        yield columns.matrix(part), (start + part.m) / len(array)


def _image_blocks(read: _Reader, kind: str, rows: int) -> Iterator[Block]:
    """Read IDX: a file, or of a folder with the files of MNIST the images to train with, then those to test with."""
    paths = [read.path] if kind == "idx" else [mnist_files(read.path)[0], mnist_files(read.path)[2]]
    arrays = [open_arrays(path, "idx", None, False)[0] for path in paths]
    total, done = sum(map(len, arrays)), 0
    for path, array in zip(paths, arrays, strict=True):
        if array.ndim == 2:
            _check_header(path, array.shape, array.dtype, read.width)
        for start in range(0, len(array), rows):
            block = read.checked(array[start : start + rows], start)
            done += len(block)
            yield block, done / total


def _array_blocks(read: _Reader, rows: int) -> Iterator[Block]:
    path = read.path
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                yield from _npy_blocks(read, file, rows)
        elif not zipfile.is_zipfile(path):
            read_npz(path, read_target=False)  # says what is wrong
        else:
            with zipfile.ZipFile(path) as archive:
                if "X.npy" not in archive.namelist():
                    read_npz(path, read_target=False)
                with archive.open("X.npy") as member:
                    yield from _npy_blocks(read, member, rows)
    except BpcoreError:
        raise
    except Exception as error:
        # as in read_npz: some ten different classes for damaged files
        raise DataError(f"cannot read {path}: {error}") from error


def _npy_blocks(read: _Reader, file: IO[bytes], rows: int) -> Iterator[Block]:
    """Read an array of the format ``.npy`` from where a file stands."""
    path, width = read.path, read.width
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = header(file)
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects, which are refused because they can run code; save plain numbers"
        )
    if dtype.names is not None and path.suffix.lower() == ".npy":
        yield from _record_blocks(read, rows)
        return
    _check_header(path, shape, dtype, width)
    if in_columns and min(shape) > 1:
        whole = _whole(path, file)
        for start in range(0, shape[0], rows):
            yield read.checked(whole[start : start + rows], start), min(1.0, (start + rows) / shape[0])
        return
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        data = file.read(count * width * dtype.itemsize)
        if len(data) < count * width * dtype.itemsize:
            raise DataError(f"{path} is cut short: it ends in row {start + len(data) // (width * dtype.itemsize)}")
        block = np.frombuffer(data, dtype).reshape(count, width)
        yield read.checked(block, start), (start + count) / shape[0]


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
