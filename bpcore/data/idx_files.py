"""Reading IDX files, the format of MNIST: a header of a few bytes, then numbers with the most significant byte first.

The header is two zero bytes, one byte for the type of the numbers, one for how many axes there are, and the length of
each axis in four bytes (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["MNIST_FILES", "is_idx_name", "load_idx", "mnist_files"]

TYPES: dict[int, str] = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Byte of the header that names the type of the numbers, and the dtype."""

MOST_COMPRESSED = 1032
"""Bytes that one byte of deflate can at most stand for (zlib's documentation): what claims more is torn."""

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""The files of MNIST and of the data sets in its form: images and labels to train with, images and labels to test."""

_NAME = re.compile(r"(\.idx|[.-]idx\d+(-\w+)?)(\.gz)?$", re.I)


def is_idx_name(path: str | Path) -> bool:
    """Whether a file has a name that IDX files have.

    Examples
    --------
    >>> [is_idx_name(name) for name in ("train-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte", "a.idx", "a.csv.gz")]
    [True, True, True, False]
    """
    return _NAME.search(Path(path).name) is not None


def load_idx(path: str | Path) -> NDArray[Any]:
    """Read an IDX file, plain or compressed with gzip.

    Parameters
    ----------
    path : str or Path
        The file; compressed if it begins with the two bytes that gzip files begin with, whatever its name is.

    Returns
    -------
    ndarray
        With the axes of the file, of dtype uint8, int8, int16, int32, float32 or float64. A plain file is mapped into
        memory, read-only, in its own byte order; a compressed one is read, in the byte order of the machine.

    Raises
    ------
    DataError
        If there is no such file, it is not IDX, or it has fewer or more bytes than its header says. Sizes are compared
        before memory is allocated.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     load_idx(path).tolist()
    [7, 2, 1]
    """
    import gzip

    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if compressed:
                with gzip.open(file) as unpacked:
                    return _read_compressed(path, cast("IO[bytes]", unpacked), size)
            dtype, shape, begin = _header(path, file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or was cut off: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    _check_size(path, shape, dtype, size - begin)
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=begin, shape=shape)


def _header(path: Path, file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read the header; return dtype, shape and the number of its bytes."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 32:
        known = ", ".join(f"{code:#04x}" for code in TYPES)
        raise DataError(
            f"{path} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}; expected 00 00, a type "
            f"({known}) and the number of axes"
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise DataError(f"{path} was cut off in its header, which has {magic[3]} axes; get the file again")
    return np.dtype(TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", lengths), 4 + 4 * magic[3]


def _check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], found: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if found != needed:
        what = "was cut off" if found < needed else "is longer than it should be"
        raise DataError(
            f"{path} {what}: its header says {' x '.join(map(str, shape))} numbers of {dtype.itemsize} bytes, "
            f"{needed} bytes, and {found} follow; get the file again"
        )


def _read_compressed(path: Path, file: IO[bytes], size: int) -> NDArray[Any]:
    dtype, shape, _ = _header(path, file)
    needed = math.prod(shape) * dtype.itemsize
    if needed > MOST_COMPRESSED * size:
        raise DataError(
            f"{path} was cut off or is damaged: its header says {needed} bytes, more than {size} compressed bytes can "
            "stand for; get the file again"
        )
    data = np.empty(needed, np.uint8)
    done, view = 0, memoryview(data)  # type: ignore[arg-type]
    while done < needed:
        count = file.readinto(view[done : done + 2**24])  # type: ignore[attr-defined]
        if not count:
            _check_size(path, shape, dtype, done)
        done += count
    more = len(file.read(2**16))  # reaching the end also compares the checksum
    if more:
        _check_size(path, shape, dtype, needed + more)
    array = data.view(dtype).reshape(shape)
    return array.byteswap(inplace=True).view(dtype.newbyteorder("=")) if not dtype.isnative else array


def mnist_files(folder: Path) -> tuple[Path, Path, Path, Path]:
    """Find the four files of MNIST in a folder, plain or compressed, also with a dot in place of the last hyphens.

    Raises
    ------
    DataError
        If one is not there.
    """
    found = []
    for name in MNIST_FILES:
        spellings = (name, name.replace("-idx", ".idx"))
        candidates = [folder / f"{spelling}{end}" for spelling in spellings for end in ("", ".gz")]
        there = [path for path in candidates if path.is_file()]
        if not there:
            raise DataError(
                f"{folder} is a folder without {name} or {name}.gz; a folder as data holds the four files of MNIST: "
                f"{', '.join(MNIST_FILES)}"
            )
        found.append(there[0])
    return found[0], found[1], found[2], found[3]
