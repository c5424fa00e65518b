"""Files of any size as stores: read once, a part at a time, with rows set aside on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.data.chunks import Chunk, Converter
from bpcore.data.csv_files import iterate_csv
from bpcore.data.datasets import Task
from bpcore.data.files import PIXELS, columns_of, file_kind, open_arrays
from bpcore.data.idx_files import mnist_files
from bpcore.data.npy_files import RecordPart, load_npy
from bpcore.data.npz_files import map_npz
from bpcore.data.parquet_files import iterate_parquet, parquet_rows
from bpcore.data.preprocessing import ClassList, Preprocessing, Standardizer, fills_missing
from bpcore.data.safetensors_files import read_safetensors
from bpcore.data.split import ordered_split_indices, part_of_rows
from bpcore.data.store import LabelMap, Store
from bpcore.data.tables import Columns, TablePart, target_matrix, target_values
from bpcore.errors import ConfigurationError, DataError
from bpcore.typing import IntArray, NDArray

__all__ = ["StoredFile", "store_file", "store_for_model"]

TRAIN, TEST, VALIDATION = 0, 1, 2
ARRAY_BYTES = 2**23
"""Bytes of an array that are read together."""
MAPPED = {"npz": map_npz, "safetensors": read_safetensors}
"""Files that hold several arrays by name, and what maps them into memory."""


@dataclass(frozen=True)
class StoredFile:
    """A file as stores.

    Attributes
    ----------
    train, test : Store
        The rows to train and to test with.
    validation : Store or None
        A part for validation, if one was asked for.
    task : str
        ``"classification"`` or ``"regression"``.
    feature_names : tuple of str
        Names of the columns that are features.
    target_name : str
        What the target is called.
    """

    train: Store
    test: Store
    validation: Store | None
    task: Task
    feature_names: tuple[str, ...]
    target_name: str

    def close(self) -> None:
        """Remove what was written."""
        for store in (self.train, self.test, self.validation):
            if store is not None:
                store.close()


@dataclass(frozen=True)
class _Split:
    """How rows are set aside."""

    test: float
    validation: float
    seed: int
    in_order: bool

    @property
    def shares(self) -> list[float]:
        """Shares of the parts but the first."""
        return [self.test, *([(1 - self.test) * self.validation] if self.validation else [])]

    def parts(self, first: int, m: int, groups: NDArray[Any] | None = None) -> IntArray | None:
        """Part of each row; None where rows are set aside when all are there."""
        return None if self.in_order else part_of_rows(first, m, self.shares, self.seed, groups)


def store_file(
    path: str | Path,
    *,
    target: str | None = None,
    labels: str | Path | None = None,
    group: str | None = None,
    drop: Sequence[str] = (),
    task: Task | Literal["auto"] = "auto",
    missing: str = "refuse",
    fill: float = 0.0,
    text: str = "refuse",
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    seed: int = 0,
    in_order: bool = False,
    folder: str | Path | None = None,
    dtype: Any = "float32",
    verbose: bool | None = None,
) -> StoredFile:
    r"""Write a file to stores on disk: what to train with, what to test with, and what to validate with.

    Parameters
    ----------
    path, target, labels, group, drop, task, text
        As for :func:`bpcore.data.load_file`. IDX and ``.npz`` that are compressed are read as a whole.
    missing : str
        ``"refuse"``, or what takes the place of missing features: ``"mean"``, ``"median"``, ``"most-frequent"`` or
        ``"constant"``, found in the training part.
    fill : float
        The value for ``"constant"``.
    test_fraction, validation_fraction : float
        Share of the rows to test with, and of the others to validate with (0: none). How many rows there are is not
        known before the end, so each row, or each group, is drawn by itself, and shares hold on average. The files of
        MNIST say themselves what is to test with.
    seed : int
        Seed of the division.
    in_order : bool
        Whether the last rows are set aside instead, exactly in these shares. The training part is then read once more.
    folder, dtype, verbose
        As for :func:`bpcore.data.from_chunks`.

    Returns
    -------
    StoredFile
        Stores whose rows are prepared as they are read: missing values filled, numbers standardised (images of bytes:
        divided by 255), categories as columns of 0 and 1, all as found in the training part.

    Raises
    ------
    ShapeError, DataError, ConfigurationError, UnknownNameError
        As for :func:`bpcore.data.load_file`; or if the disk has no room.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "line.csv")
    >>> _ = path.write_text("a,b\n" + "".join(f"{i},{2 * i + 1}.5\n" for i in range(100)))
    >>> found = store_file(path, target="b")
    >>> len(found.train) + len(found.test), found.feature_names, found.task
    (100, ('a',), 'regression')
    >>> found.close()
    >>> folder.cleanup()
    """
    path = Path(path)
    kind = file_kind(path)
    if in_order and (group is not None or kind == "mnist"):
        raise ConfigurationError("rows are set aside in order, by groups, or by the files of MNIST; choose one")
    if not 0 < test_fraction < 1 or not 0 <= validation_fraction < 1:
        raise ConfigurationError(
            f"the test fraction must be between 0 and 1, got {test_fraction} (and {validation_fraction} to validate)"
        )
    split = _Split(test_fraction, validation_fraction, seed, in_order)
    n_parts = 1 if in_order else 3 if validation_fraction else 2
    converter = Converter(
        folder=folder, dtype=dtype, missing=missing, fill=fill, task=task, parts=n_parts, verbose=verbose
    )
    source = _Source(path, kind, split, converter, text == "one-hot")
    stores = converter.run(source.chunks(target, labels, group, drop))
    train = stores[TRAIN]
    try:
        train, test, validation = _divided(stores, split)
        if source.pixels:
            preprocessing, target_preprocessing = PIXELS, None
        elif in_order:
            preprocessing, target_preprocessing = converter.fit_rows(train, True)  # type: ignore[assignment]
        else:
            preprocessing, target_preprocessing = converter.fit(train, True)  # type: ignore[assignment]
        train, test = (
            replace(store, preprocessing=preprocessing, target_preprocessing=target_preprocessing)
            for store in (train, test)
        )
        if validation is not None:
            validation = replace(validation, preprocessing=preprocessing, target_preprocessing=target_preprocessing)
    except BaseException:
        for store in stores:
            store.close()
        raise
    found: Task = "regression" if train.label_map is None else "classification"
    return StoredFile(train, test, validation, found, train.names, source.target_name)


def store_for_model(
    path: str | Path,
    *,
    target: str | None,
    labels: str | Path | None,
    features: Sequence[str] | None,
    classes: ClassList | None,
    categories: Mapping[str, Sequence[str]] | None,
    preprocessing: Preprocessing | None,
    target_preprocessing: Standardizer | None,
    folder: str | Path | None = None,
    dtype: Any = "float32",
    verbose: bool | None = None,
) -> Store:
    """Write a file to a store on disk, to measure a trained model on it.

    Parameters
    ----------
    path, target, labels, folder, dtype, verbose
        As for :func:`store_file`; of a folder with the files of MNIST, those to test with.
    features, classes, categories
        As for :func:`bpcore.data.load_file`: those of the model; no classes for numbers.
    preprocessing, target_preprocessing
        What the model was trained behind.

    Returns
    -------
    Store
        All rows, which are prepared as they are read.
    """
    path = Path(path)
    kind = file_kind(path)
    known: tuple[LabelMap | None, Any] = (None, None)
    if classes is not None:
        names = classes.names
        values: list[Any] = list(range(len(names))) if isinstance(names[0], str) else list(names)
        order = np.argsort(values)
        known = LabelMap(np.array(values, np.float64)[order], order.astype(np.int64)), classes.names
    converter = Converter(
        folder=folder,
        dtype=dtype,
        task="regression" if classes is None else "classification",
        verbose=verbose,
        known=known,
        keep_missing=fills_missing(preprocessing),
    )
    source = _Source(path, kind, _Split(0, 0, 0, True), converter, bool(categories), features, categories, True)
    (store,) = converter.run(source.chunks(target, labels, None, ()))
    return replace(store, preprocessing=preprocessing, target_preprocessing=target_preprocessing)


def _divided(stores: list[Store], split: _Split) -> tuple[Store, Store, Store | None]:
    if not split.in_order:
        for store, name in zip(stores, ("train", "test", "validate"), strict=False):
            if not store.m:
                raise DataError(
                    f"no row was drawn to {name} with; use another fraction or seed, or load the file whole"
                )
        return stores[TRAIN], stores[TEST], stores[VALIDATION] if len(stores) > VALIDATION else None
    (whole,) = stores
    n_train = len(ordered_split_indices(whole.m, split.test)[0])
    train, test = whole.part(0, n_train), whole.part(n_train, whole.m)
    if not split.validation:
        return train, test, None
    n_fit = len(ordered_split_indices(n_train, split.validation)[0])
    return whole.part(0, n_fit), test, whole.part(n_fit, n_train)


class _Source:
    """Chunks of a file of any kind."""

    def __init__(
        self,
        path: Path,
        kind: str,
        split: _Split,
        converter: Converter,
        text: bool,
        features: Sequence[str] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        tests: bool = False,
    ) -> None:
        self.path, self.kind, self.split, self.converter, self.text = path, kind, split, converter, text
        self.features, self.categories, self.tests = features, categories, tests
        self.pixels, self.target_name = False, "labels"

    def chunks(
        self, target: str | None, labels: str | Path | None, group: str | None, drop: Sequence[str]
    ) -> Iterator[Chunk]:
        """Yield the chunks."""
        tables = self._tables(target)
        if tables is not None:
            if labels is not None:
                raise self._no_labels()
            yield from self._of_tables(tables, target, group, drop)
            return
        named = self.kind in MAPPED
        for name, value in (("target", None if named else target), ("group", group), ("drop", drop)):
            if value:
                raise ConfigurationError(f"--{name} is for tables; {self.path.name} is none")
        if self.kind == "mnist":
            images, its_labels, test_images, test_labels = mnist_files(self.path)
            self.target_name = "label"
            if not self.tests:
                yield from self._of_arrays(images, its_labels, "idx", self._own_parts)
            yield from self._of_arrays(test_images, test_labels, "idx", lambda first, m: np.full(m, TEST))
        elif named:
            if labels is not None:
                raise self._no_labels()
            X, y, self.target_name = MAPPED[self.kind](self.path, target)
            yield from self._rows(X, y, self.split.parts)
        else:
            yield from self._of_arrays(self.path, labels, self.kind, self.split.parts)

    def _no_labels(self) -> ConfigurationError:
        return ConfigurationError(f"--labels is for .npy and IDX files; {self.path.name} has its targets inside")

    def _own_parts(self, first: int, m: int) -> IntArray:
        if not self.split.validation:
            return np.zeros(m, np.int64)
        return np.where(part_of_rows(first, m, [self.split.validation], self.split.seed) == 0, TRAIN, VALIDATION)

    def _tables(self, target: str | None) -> Iterator[TablePart] | None:
        if self.kind == "csv":
            return self._csv(target)
        if self.kind == "parquet":
            self.converter.rows = parquet_rows(self.path)
            return iter(iterate_parquet(self.path))
        if self.kind == "npy":
            array = load_npy(self.path)
            if array.dtype.names is not None:
                self.converter.rows = len(array)
                return self._records(array)
        return None

    def _csv(self, target: str | None) -> Iterator[TablePart]:
        """Parts of a CSV file; how many rows there are is guessed from the first."""
        size = self.path.stat().st_size
        for part in iterate_csv(self.path, target):
            if self.converter.rows is None:
                read = sum(len(cell) + 1 for row in part.rows for cell in row)
                self.converter.rows = int(part.m * size / max(read, 1))
            yield part

    def _records(self, array: NDArray[Any]) -> Iterator[TablePart]:
        rows = max(1, ARRAY_BYTES // array.dtype.itemsize)
        for start in range(0, len(array), rows):
            yield RecordPart(self.path, array[start : start + rows], start)

    def _of_tables(
        self, tables: Iterator[TablePart], target: str | None, group: str | None, drop: Sequence[str]
    ) -> Iterator[Chunk]:
        reader: Columns | None = None
        first = 0
        for table in tables:
            if reader is None:
                reader, apart = columns_of(table, target, True, self.features, group, drop)
                reader.keep_missing, reader.text = self.converter.keeps_missing, self.text
                if self.categories is not None:
                    reader.categories = {name: list(texts) for name, texts in self.categories.items()}
                    reader.fixed = True
                self.target_name = apart.target_name(table)
                self.converter.names, self.converter.categories = reader.names, reader.categories
            groups = None if apart.group is None else target_values(table, apart.group)
            X = reader.matrix(table)
            yield Chunk(X, target_matrix(table, apart.targets), self.split.parts(first, table.m, groups))
            first += table.m

    def _of_arrays(self, path: Path, labels: str | Path | None, kind: str, parts: Any) -> Iterator[Chunk]:
        X, y = open_arrays(path, kind, labels, True)
        assert y is not None
        if labels is not None and self.kind != "mnist":
            self.target_name = Path(labels).name
        self.pixels = kind == "idx" and X.dtype == np.uint8
        yield from self._rows(X, y, parts)

    def _rows(self, X: Any, y: Any, parts: Any) -> Iterator[Chunk]:
        self.converter.rows = (self.converter.rows or 0) + len(X)
        rows = max(1, ARRAY_BYTES // (X.shape[-1] * 8))
        for start in range(0, len(X), rows):
            stop = min(start + rows, len(X))
            block = np.array(X[start:stop])
            yield Chunk(block, np.array(y[start:stop]), parts(start, stop - start))
