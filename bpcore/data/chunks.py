"""From chunks of rows, of which only one is in memory at a time, to a store on disk: one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.bar import Bar
from bpcore.data.arrays import check_matrix
from bpcore.data.datasets import Task
from bpcore.data.missing import refuse_infinite
from bpcore.data.preprocessing import Preprocessing, Standardizer, fills_missing
from bpcore.data.statistics import Statistics
from bpcore.data.store import BLOCK_BYTES, WINDOW, LabelMap, Store, StoreFiles
from bpcore.data.tables import frozen
from bpcore.data.target_columns import TargetColumns
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.typing import DType, IntArray, NDArray

__all__ = ["Chunk", "Converter", "from_chunks"]

RESERVE = 2**26
"""Bytes that are left free on the disk."""


def from_chunks(
    chunks: Callable[[], Iterable[tuple[Any, Any]]] | Iterable[tuple[Any, Any]],
    *,
    folder: str | Path | None = None,
    dtype: Any = "float32",
    standardize: bool = False,
    missing: str = "refuse",
    fill: float = 0.0,
    like: Store | None = None,
    rows: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    window: int = WINDOW,
    verbose: bool | None = None,
) -> Store:
    """Write rows that come in chunks to a store on disk, which :func:`bpcore.train` takes as data.

    Parameters
    ----------
    chunks : callable or iterable
        Pairs (X, y), or a function that returns them: X of shape (m, n), with as many rows as are comfortable to have
        in memory, and y of shape (m,) or (m, n_L), labels or numbers. Each is read once.
    folder : str or Path, optional
        Where the rows are kept, in a folder of their own that is removed with the store; by default where temporary
        files are.
    dtype : dtype
        float32 (default) or float64, in which features are kept. Targets are kept in float64.
    standardize : bool
        Whether features, and targets that are numbers (of a float dtype), are standardised when they are read, by the
        mean and deviation of this data. Default False.
    missing : str
        ``"refuse"`` (default), or what NaN among the features is replaced by: ``"mean"``, ``"median"``,
        ``"most-frequent"`` or ``"constant"``.
    fill : float
        The value for ``"constant"``.
    like : Store, optional
        Store of the data that a network is trained with: what was fitted there, and the classes, are those of this one,
        too. For validation data.
    rows : int, optional
        Rows that will come, if that is known: for the progress bar, and to see beforehand whether the disk has room.
    block_bytes, window : int
        Bytes of a block, and blocks of a window; see :class:`~bpcore.data.block_order.BlockOrder`. Training holds two
        windows in memory.
    verbose : bool, optional
        Whether to show a progress bar; by default when standard error is a terminal.

    Returns
    -------
    Store
        Its files are removed by ``close()``, at the end of a ``with`` block, or when nothing refers to it any more.

    Raises
    ------
    ShapeError, DataError
        If chunks do not fit together, a value is refused (its row is counted through all chunks), or the disk is full.

    Examples
    --------
    >>> import bpcore as bp
    >>> def chunks():
    ...     for k in range(10):
    ...         X = np.random.default_rng(k).normal(size=(50, 2))
    ...         yield X, (X[:, 0] > X[:, 1]).astype(int)
    >>> with bp.data.from_chunks(chunks, standardize=True) as store:
    ...     run = bp.train(bp.MLP([2, 8, 2], seed=0), store, epochs=20, optimizer=bp.Adam(0.01), seed=0)
    >>> len(store), store.shape, bool(run.history[-1]["accuracy"] > 0.9)
    (500, (500, 2), True)
    """
    found = chunks() if callable(chunks) else chunks
    converter = Converter(
        folder=folder, dtype=dtype, missing=missing, fill=fill, task="as given", like=like, rows=rows, verbose=verbose
    )
    (store,) = converter.run(Chunk(X, y) for X, y in found)
    preprocessing, target = (
        (like.preprocessing, like.target_preprocessing) if like else converter.fit(store, standardize)
    )
    return replace(
        store, preprocessing=preprocessing, target_preprocessing=target, block_bytes=block_bytes, window=window
    )


@dataclass(frozen=True)
class Chunk:
    """Some rows.

    Attributes
    ----------
    X : array_like, shape (m, n)
        Features.
    y : array_like
        Targets.
    part : ndarray of int64, shape (m,), or None
        The part that each row belongs to; None if there is one part only.
    share : float or None
        How much of everything has been read with it, for the progress bar.
    """

    X: Any
    y: Any
    part: IntArray | None = None
    share: float | None = None


@dataclass
class Converter:
    """Writes chunks to one or several stores, and gathers statistics of the first of them on the way.

    Parameters
    ----------
    folder, dtype, missing, fill, like, rows, verbose
        As for :func:`from_chunks`.
    task : str
        As for :class:`~bpcore.data.target_columns.TargetColumns`.
    parts : int
        Number of stores.
    names : tuple of str, optional
        Names of the columns; by default x0, x1, ...
    categories : mapping of str to sequence of str
        Columns of categories; may grow while chunks come.
    known : (LabelMap or None, classes), optional
        Classes that the targets have to be of, of a trained model.
    keep_missing : bool
        Whether missing values are kept for a preprocessing that knows what to do about them.
    """

    folder: str | Path | None = None
    dtype: Any = "float32"
    missing: str = "refuse"
    fill: float = 0.0
    task: Task | Literal["auto", "as given"] = "as given"
    like: Store | None = None
    rows: int | None = None
    verbose: bool | None = None
    parts: int = 1
    names: tuple[str, ...] | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: tuple[LabelMap | None, Any] | None = None
    keep_missing: bool = False
    statistics: Statistics | None = None
    target_statistics: Statistics | None = None

    def run(self, chunks: Iterable[Chunk]) -> list[Store]:
        """Write everything; return a store for each part, with nothing fitted yet."""
        dtype = np.dtype(self.dtype)
        if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ConfigurationError(f"a store is of float32 or float64, not of {dtype}")
        known = self.known if self.like is None else (self.like.label_map, self.like.classes)
        targets = TargetColumns(self.task, known)
        files = [StoreFiles(self.folder) for _ in range(self.parts)]
        counts, n = [0] * self.parts, None if self.like is None else self.like.n_columns
        try:
            with Bar("reading", float(self.rows or 1), self.verbose, percentage=False) as bar:
                for chunk in chunks:
                    first = sum(counts)
                    X = self._checked(chunk.X, dtype, n, first)
                    y = targets.add(chunk.y, first, len(X))
                    if n is None or self.statistics is None:
                        n = X.shape[1]
                        self._begin(n, y.shape[1])
                        self._check_room(files[0], (n * dtype.itemsize + 8 * y.shape[1]) * (self.rows or 0))
                    self._check_room(files[0], X.nbytes + y.nbytes)
                    for k in range(self.parts):
                        mine = slice(None) if chunk.part is None or self.parts == 1 else chunk.part == k
                        rows, values = X[mine], y[mine]
                        files[k].append("rows", rows)
                        files[k].append("targets", values)
                        counts[k] += len(rows)
                        if k == 0 and self.statistics is not None and self.target_statistics is not None:
                            self.statistics.add(rows)
                            self.target_statistics.add(values)
                    done = float(sum(counts)) if self.rows else chunk.share
                    bar.show(done=done, text=f"{sum(counts):,} rows")
            if n is None or not counts[0]:
                raise DataError("no rows came; at least one chunk with at least one sample is needed")
            for file in files:
                file.finish()
            label_map, classes = targets.finish()
        except BaseException:
            for file in files:
                file.close()
            raise
        assert self.names is not None
        assert targets.width is not None
        return [
            Store(
                file,
                n,
                targets.width,
                dtype,
                0,
                m,
                self.names,
                label_map,
                targets.integers,
                classes,
                frozen(self.categories),
            )
            for file, m in zip(files, counts, strict=True)
        ]

    def fit(self, store: Store, standardize: bool) -> tuple[Preprocessing | None, Standardizer | None]:
        """Fit the preprocessing of the features, and that of targets that are numbers, from the first store."""
        assert self.statistics is not None
        assert self.target_statistics is not None
        found = self.statistics.fit(lambda: raw_blocks(store), store.dtype, standardize=standardize)
        if store.label_map is not None or store.integers or not standardize:
            return found, None
        target = self.target_statistics.fit(lambda: (), np.float64, standardize=True)
        return found, target if isinstance(target, Standardizer) else None

    def fit_rows(self, store: Store, standardize: bool) -> tuple[Preprocessing | None, Standardizer | None]:
        """Fit them from some of the rows, which are read once again."""
        self._begin(store.n_columns, store.n_targets)
        assert self.statistics is not None
        assert self.target_statistics is not None
        for block in raw_blocks(store):
            self.statistics.add(block)
        if store.label_map is None and not store.integers:
            rows = max(1, 2**20 // store.n_targets)
            for start in range(0, store.m, rows):
                self.target_statistics.add(store.y(start, min(start + rows, store.m)))
        return self.fit(store, standardize)

    def _begin(self, n: int, n_targets: int) -> None:
        if self.names is None:
            self.names = self.like.names if self.like is not None else tuple(f"x{i}" for i in range(n))
        self.statistics = Statistics(self.names, self.missing, self.fill, self.categories)
        self.target_statistics = Statistics(tuple(map(str, range(n_targets))), "refuse", 0.0, {})

    @property
    def keeps_missing(self) -> bool:
        """Whether NaN is a missing value, and not refused."""
        like = self.like is not None and fills_missing(self.like.preprocessing)
        return self.keep_missing or self.missing != "refuse" or like

    def _checked(self, X: Any, dtype: DType, n: int | None, first: int) -> NDArray[Any]:
        """Features of a chunk in the dtype of the store."""
        keeps = self.keeps_missing
        found = check_matrix(X, name="X", dtype=dtype, allow_nonfinite=keeps, first_row=first)
        if n is not None and found.shape[1] != n:
            raise ShapeError(
                f"X of the chunk at row {first} has shape {found.shape}; expected (m, {n}), as the chunks before it"
            )
        if keeps:
            refuse_infinite(found, f"X of the chunk at row {first}")
        return found

    def _check_room(self, files: StoreFiles, needed: int) -> None:
        free = files.free_bytes()
        if needed + RESERVE > free:
            raise DataError(
                f"the disk of {files.folder.parent} has {free / 2**30:.2f} GiB left, and {needed / 2**30:.2f} GiB are "
                f"needed besides {RESERVE / 2**30:.2f} GiB that stay free; name a folder on another disk "
                "(folder=, --cache)"
            )


def raw_blocks(store: Store, size: int = 2**23) -> Iterator[NDArray[Any]]:
    """Yield the rows of a store as they are stored, about 8 MiB at a time."""
    rows = max(1, size // (store.n_columns * store.dtype.itemsize))
    for start in range(0, store.m, rows):
        yield store.raw(start, min(start + rows, store.m))
