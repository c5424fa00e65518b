"""Rows on disk: what does not fit in memory, as plain numbers in a file, read a block at a time.

A store holds features and targets as they came; what prepares them (:mod:`bpcore.data.fitting`) is applied when rows
are read. It is read by plain reads and not mapped into memory, so that what was read does not count as memory of the
process.
:func:`bpcore.data.from_chunks` and :func:`bpcore.data.store_file` make stores.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from bpcore.data.block_order import BlockOrder
from bpcore.data.preprocessing import Preprocessing, Standardizer
from bpcore.errors import ConfigurationError, DataError
from bpcore.settings import check_count
from bpcore.typing import DType, IntArray, NDArray

__all__ = ["BLOCK_BYTES", "WINDOW", "LabelMap", "Store", "StoreFiles"]

BLOCK_BYTES = 2**20
"""Bytes of a block. A disk needs about ten milliseconds to find it and to read it; an SSD, half a millisecond."""
WINDOW = 64
"""Blocks of a window: 64 MiB, of which two are in memory."""


@dataclass(frozen=True)
class LabelMap:
    """Which class a number in the file of the targets stands for.

    Attributes
    ----------
    values : ndarray of float64, shape (K,)
        The numbers, increasing.
    labels : ndarray of int64, shape (K,)
        Class of each.
    """

    values: NDArray[np.float64]
    labels: IntArray

    def decode(self, raw: NDArray[np.float64]) -> IntArray:
        """Return the classes of some numbers, shape (m,)."""
        return self.labels[np.searchsorted(self.values, raw)]


class StoreFiles:
    """The two files of a store, in a folder of their own that is removed with it.

    Parameters
    ----------
    folder : str or Path, optional
        Where the folder is made; by default where temporary files are.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        import tempfile

        if folder is not None and not Path(folder).is_dir():
            raise ConfigurationError(f"there is no folder {folder} to keep rows in; create it first")
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="bpcore-", dir=folder))
        except OSError as error:
            raise DataError(f"cannot make a folder in {folder or tempfile.gettempdir()}: {error.strerror}") from error
        self._open: dict[str, IO[bytes]] = {}
        self._lock = threading.Lock()
        self._removal = weakref.finalize(self, _remove, str(self.folder), self._open)

    @property
    def closed(self) -> bool:
        """Whether the files were removed."""
        return not self._removal.alive

    def append(self, name: str, array: NDArray[Any]) -> None:
        """Write an array at the end of a file."""
        file = self._file(name, "wb")
        try:
            if array.size:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise DataError(f"cannot write {file.name}: {error.strerror or error}") from error

    def finish(self) -> None:
        """Close what was written; it is read from now on."""
        try:
            for file in self._open.values():
                file.close()
        except OSError as error:  # a full disk may be noticed as late as here
            raise DataError(f"cannot write in {self.folder}: {error.strerror or error}") from error
        finally:
            self._open.clear()

    def read(self, name: str, offset: int, out: NDArray[Any]) -> None:
        """Fill a C-contiguous array with the bytes of a file from an offset on; may be called by several threads."""
        view = out.reshape(-1).view(np.uint8).data
        with self._lock:
            file = self._file(name, "rb")
            file.seek(offset)
            while view:
                count = file.readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise DataError(f"{file.name} was cut off: {len(view)} bytes are missing")
                view = view[count:]

    def _file(self, name: str, mode: str) -> IO[bytes]:
        if self.closed:
            raise DataError(f"the rows in {self.folder} were removed when their store was closed; make a new one")
        if name not in self._open:
            buffering = 0 if mode == "rb" else -1
            try:
                self._open[name] = open(self.folder / name, mode, buffering)
            except OSError as error:
                raise DataError(f"cannot open {self.folder / name}: {error.strerror}") from error
        return self._open[name]

    def free_bytes(self) -> int:
        """Bytes that the disk has left."""
        import shutil

        return shutil.disk_usage(self.folder).free

    def close(self) -> None:
        """Remove the files."""
        self._removal()


def _remove(folder: str, opened: dict[str, IO[bytes]]) -> None:
    import shutil

    for file in opened.values():
        file.close()
    opened.clear()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class Store:
    """Samples and targets on disk, accepted as data by :func:`bpcore.train` and :func:`bpcore.evaluate`.

    Attributes
    ----------
    files : StoreFiles
        Where they are. The files are removed with the last store that reads them, or by :meth:`close`.
    n_columns : int
        Columns that are stored.
    n_targets : int
        Numbers of a target.
    dtype : dtype
        float32 or float64, of the features.
    first, m : int
        The rows of the files that belong to it.
    names : tuple of str
        Names of the columns that are stored.
    label_map : LabelMap or None
        For targets that are classes, collected; None for numbers.
    integers : bool
        Whether targets are whole numbers as they were given: labels, if a network has several outputs.
    classes : tuple of str, tuple of int, or None
        What the classes are called, if the labels were collected.
    categories : dict of str to tuple of str
        Columns that hold codes of categories.
    preprocessing : Preprocessing or None
        What is applied to rows when they are read.
    target_preprocessing : Standardizer or None
        The same for targets that are numbers.
    block_bytes, window : int
        Bytes of a block (of rows as they come out of it) and blocks of a window; see
        :class:`~bpcore.data.block_order.BlockOrder`.
    """

    files: StoreFiles
    n_columns: int
    n_targets: int
    dtype: DType
    first: int
    m: int
    names: tuple[str, ...]
    label_map: LabelMap | None = None
    integers: bool = False
    classes: tuple[str, ...] | tuple[int, ...] | None = None
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    target_preprocessing: Standardizer | None = None
    block_bytes: int = BLOCK_BYTES
    window: int = WINDOW

    def __post_init__(self) -> None:
        for name in ("block_bytes", "window"):
            check_count(name, getattr(self, name))

    def __len__(self) -> int:
        return self.m

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store of {self.m} rows of {self.width} numbers in {self.files.folder}>"

    @property
    def width(self) -> int:
        """Numbers of a row as it is read."""
        step: Any
        steps = getattr(self.preprocessing, "steps", (self.preprocessing,))
        width = self.n_columns
        for step in steps:
            width = getattr(step, "width", width)
        return width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers of a row as it is read."""
        return self.m, self.width

    @property
    def order(self) -> BlockOrder:
        """The order in which an epoch visits the rows."""
        rows = max(1, self.block_bytes // (self.width * self.dtype.itemsize))
        return BlockOrder(self.m, min(rows, self.m), self.window)

    def raw(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows as they are stored, shape (stop - start, n_columns); NaN is a missing value."""
        out = np.empty((stop - start, self.n_columns), self.dtype)
        self.files.read("rows", (self.first + start) * self.n_columns * self.dtype.itemsize, out)
        return out

    def prepared(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Apply the preprocessing to rows as they are stored."""
        return raw if self.preprocessing is None else self.preprocessing.apply(raw)

    def X(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read rows and prepare them, shape (stop - start, width)."""
        return self.prepared(self.raw(start, self.m if stop is None else stop))

    def y(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read targets: labels and whole numbers, int64 of shape (k,), or numbers, float64 of shape (k, n_targets)."""
        stop = self.m if stop is None else stop
        raw = np.empty((stop - start, self.n_targets))
        self.files.read("targets", (self.first + start) * self.n_targets * 8, raw)
        if self.label_map is not None:
            return self.label_map.decode(raw[:, 0])
        if self.integers:
            return raw[:, 0].astype(np.int64)
        return raw if self.target_preprocessing is None or not len(raw) else self.target_preprocessing.apply(raw)

    def blocks(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield features and targets, a block of rows at a time, in their order."""
        rows = self.order.block_rows
        for start in range(0, self.m, rows):
            stop = min(start + rows, self.m)
            yield self.X(start, stop), self.y(start, stop)

    def part(self, start: int, stop: int) -> Store:
        """Some of the rows, in the same files."""
        return replace(self, first=self.first + start, m=stop - start)

    def close(self) -> None:
        """Remove the files; whatever reads them cannot go on."""
        self.files.close()
