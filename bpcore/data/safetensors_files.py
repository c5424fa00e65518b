"""Reading data from safetensors files: arrays by name, mapped into memory without being read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.data.npz_files import choose_arrays
from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["LONGEST_HEADER", "MOST_PARTS", "header_of", "load_safetensors", "read_safetensors", "too_long"]

LONGEST_HEADER = 2**24
"""Bytes; the longest in use, of model files, hold the names of some thousand features and numbers for each."""
MOST_PARTS = 2**16
"""Lists and objects in a header; a tensor is three of them."""

DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
"""NumPy's dtypes by their names in the files; bfloat16 and the 8-bit floats have none."""


def header_of(path: Path) -> tuple[bytes, str]:
    """Return the header of a safetensors file as it is stored, and why it is too long to be parsed, or empty text.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is too short for its header, so that it is no such file, or cut short.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError(f"it has {size:,} bytes, but its header would have {length:,}")
        if length > LONGEST_HEADER:
            return b"", _bytes(length)
        header = file.read(length)
    return header, too_long(header)


def too_long(header: bytes) -> str:
    """Say why a header takes more memory than a reader should give it; empty text if it does not.

    Examples
    --------
    >>> too_long(b"{}"), too_long(b"[" * 70_000)
    ('', '70,000 lists and objects, 65,536 are possible')
    """
    if len(header) > LONGEST_HEADER:
        return _bytes(len(header))
    parts = header.count(b"[") + header.count(b"{")
    return f"{parts:,} lists and objects, {MOST_PARTS:,} are possible" if parts > MOST_PARTS else ""


def _bytes(length: int) -> str:
    return f"{length:,} bytes, {LONGEST_HEADER:,} are possible"


def load_safetensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """Map the arrays of a safetensors file into memory; nothing is read before it is used.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict of str to ndarray
        Read-only arrays by name.

    Raises
    ------
    DataError
        If the file cannot be read, is cut short, or has an array of a dtype that NumPy lacks.

    Examples
    --------
    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"X": np.eye(2), "y": np.arange(2)}, Path(folder, "data.safetensors"))
    ...     {name: array.tolist() for name, array in load_safetensors(Path(folder, "data.safetensors")).items()}
    {'X': [[1.0, 0.0], [0.0, 1.0]], 'y': [0, 1]}
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        header, reason = header_of(path)
        if reason:
            raise DataError(f"{path} has a header that is too long to be parsed: {reason}")
        with safe_open(str(path), framework="np") as file:  # compares dtypes, shapes and offsets with the size
            names = list(file.keys())
        entries = json.loads(header)
        return {name: _mapped(path, name, entries[name], 8 + len(header)) for name in names}
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a safetensors file, or is cut short or damaged ({error!s:.200})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_safetensors(
    path: Path, target: str | None = None, *, read_target: bool = True
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Map the features ``X`` and the targets; as :func:`~bpcore.data.npz_files.read_npz`."""
    arrays = load_safetensors(path)
    return choose_arrays(path, arrays, target, read_target, "safetensors.numpy.save_file({'X': X, 'y': y}, path)")


def _mapped(path: Path, name: str, entry: dict[str, Any], start: int) -> NDArray[Any]:
    shape = tuple(entry["shape"])
    if entry["dtype"] not in DTYPES:
        raise DataError(f"{path}: {name} is of dtype {entry['dtype']}, which NumPy lacks; save it as F32")
    dtype = np.dtype(DTYPES[entry["dtype"]])
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    begin = start + entry["data_offsets"][0]
    return np.memmap(path, dtype, "r", offset=begin, shape=shape)
