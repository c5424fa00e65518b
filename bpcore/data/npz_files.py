"""Reading data from NumPy's ``.npz`` archives. Pickled objects are refused: they can run code."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import DataError, UnknownNameError, unknown
from bpcore.typing import NDArray

__all__ = ["choose_arrays", "map_npz", "read_npz"]

LOCAL_HEADER = "<4s5H3I2H"
"""Of a member of a zip archive; the last two numbers are the lengths of its name and of its extra field."""


def read_npz(
    path: Path, target: str | None = None, *, read_target: bool = True, mapped: bool = False
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Read the features ``X`` and the targets from an archive.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        Name of the array of targets; by default ``"y"``.
    read_target : bool, default True
        False to read `X` alone.
    mapped : bool, default False
        See :func:`map_npz`.

    Returns
    -------
    X : ndarray
        The array ``X`` as it is stored.
    y : ndarray or None
        The targets as they are stored, as many as `X` has rows; None if they are not read.
    target : str
        The name of the targets.

    Raises
    ------
    DataError
        If the file cannot be read, has no ``X`` or no targets, holds pickled objects, or the lengths differ.
    UnknownNameError
        If it has no array named `target`.
    """
    try:
        with open(path, "rb") as file:
            return _from_archive(path, np.load(file, allow_pickle=False), target, read_target, mapped)
    except (DataError, UnknownNameError):
        raise
    except Exception as error:
        # NumPy and zipfile raise some ten different classes for damaged files; all of them mean the same here.
        if "pickle" in str(error):
            raise DataError(
                f"{path} holds pickled Python objects, which are refused because they can run code; "
                "save plain arrays of numbers (or of text, for labels)"
            ) from error
        raise DataError(f"cannot read {path} as an .npz archive: {error}") from error


def map_npz(
    path: Path, target: str | None = None, *, read_target: bool = True
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Map the features and the targets of an archive into memory; arguments and result as for :func:`read_npz`.

    What ``np.savez`` writes is mapped and not read; what is compressed (``np.savez_compressed``) is read as a whole.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "d.npz"), X=np.eye(2), y=np.arange(2))
    ...     X, y, name = map_npz(Path(folder, "d.npz"))
    ...     type(X).__name__, X.tolist(), y.tolist(), name
    ('memmap', [[1.0, 0.0], [0.0, 1.0]], [0, 1], 'y')
    """
    return read_npz(path, target, read_target=read_target, mapped=True)


class _Mapped(Mapping[str, NDArray[Any]]):
    """The arrays of an archive, mapped where they are stored as they are."""

    def __init__(self, path: Path, archive: Any) -> None:
        self.path, self.archive = path, archive

    def __iter__(self) -> Iterator[str]:
        return iter(self.archive)

    def __len__(self) -> int:
        return len(self.archive)

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self.archive.zip.NameToInfo.get(f"{name}.npy")
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return self.archive[name]  # type: ignore[no-any-return]
        with open(self.path, "rb") as file:
            file.seek(info.header_offset)
            local = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
            start = file.seek(local[-2] + local[-1], os.SEEK_CUR)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, in_columns, dtype = read(file)
            offset = file.tell()
        size = dtype.itemsize * math.prod(shape)
        if dtype.hasobject or not size or offset + size - start != info.file_size:
            return self.archive[name]  # type: ignore[no-any-return]  # which says what is wrong
        return np.memmap(self.path, dtype, "r", offset=offset, shape=shape, order="F" if in_columns else "C")


def _from_archive(
    path: Path, archive: Any, target: str | None, read_target: bool, mapped: bool
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} holds a single array; save both with np.savez(path, X=X, y=y)")
    arrays: Mapping[str, Any] = _Mapped(path, archive) if mapped else archive
    return choose_arrays(path, arrays, target, read_target, "np.savez(path, X=X, y=y)")


def choose_arrays(
    path: Path, arrays: Mapping[str, Any], target: str | None, read_target: bool, advice: str
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Choose features and targets among arrays by name, for files that hold several.

    Parameters
    ----------
    path : Path
        The file, for errors.
    arrays : mapping of str to ndarray
        What it holds; only what is chosen is asked for.
    target, read_target
        As for :func:`read_npz`.
    advice : str
        How to write such a file, for errors.

    Returns
    -------
    X, y, target
        As :func:`read_npz`.
    """
    names, wanted = list(arrays), target or "y"
    if "X" not in names:
        found = ", ".join(names) or "nothing"
        raise DataError(f"{path} has no array 'X'; found: {found}. Save the data with {advice}")
    X = arrays["X"]
    if not read_target:
        return X, None, wanted
    if wanted not in names and target is not None:
        raise unknown(f"array in {path}", target, names)
    if wanted not in names:
        raise DataError(f"{path} has no array 'y'; found: {', '.join(names)}. Name the targets with --target")
    y = arrays[wanted]
    if y.ndim == 0 or X.ndim == 0 or len(X) != len(y):
        raise DataError(f"{path}: X has shape {X.shape} but {wanted} has shape {y.shape}; the rows must match")
    return X, y, wanted
