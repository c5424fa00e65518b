"""Data sets from files: tables (CSV, Parquet, ``.npy`` with fields), arrays (``.npz``, ``.npy``, safetensors), IDX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.data.arrays import check_matrix
from bpcore.data.csv_files import read_table
from bpcore.data.datasets import Dataset, Task
from bpcore.data.idx_files import is_idx_name, load_idx, mnist_files
from bpcore.data.missing import refuse_infinite
from bpcore.data.npy_files import RecordPart, load_npy
from bpcore.data.npz_files import read_npz
from bpcore.data.parquet_files import read_parquet
from bpcore.data.preprocessing import ClassList, Scaler
from bpcore.data.safetensors_files import read_safetensors
from bpcore.data.tables import (
    Columns,
    TablePart,
    choose_columns,
    column_index,
    column_indices,
    frozen,
    target_matrix,
    target_values,
)
from bpcore.errors import ConfigurationError, DataError
from bpcore.typing import NDArray

__all__ = ["KINDS", "file_kind", "load_file"]

SUFFIXES = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npz": "npz",
    ".npy": "npy",
    ".safetensors": "safetensors",
}
NAMED = {"npz": read_npz, "safetensors": read_safetensors}
"""Files that hold several arrays by name, and their readers."""
KINDS = (
    ".csv, .parquet, .npz, .npy, .safetensors, .idx (also ...-idx3-ubyte and .gz), or a folder with the files of MNIST"
)
MOST_NUMERIC_CLASSES = 20
PIXELS = Scaler(255.0)
"""What images of bytes are prepared by."""


def file_kind(path: Path) -> str:
    """Tell by its name what a file is: one of the values of :data:`SUFFIXES`, ``idx``, or ``mnist`` for a folder.

    Raises
    ------
    DataError
        If it is none of these, or not there.

    Examples
    --------
    >>> file_kind(Path("no such file.csv"))
    Traceback (most recent call last):
    ...
    bpcore.errors.DataError: there is no file no such file.csv (looked in ...)
    """
    if path.is_dir():
        return "mnist"
    suffix = path.suffix.lower()
    kind = "idx" if is_idx_name(path) else SUFFIXES.get(suffix)
    if kind is None:
        raise DataError(f"{path}: cannot read files of type {suffix or 'unknown'!r}; possible: {KINDS}")
    if not path.is_file():
        raise DataError(f"there is no file {path} (looked in {path.absolute().parent})")
    return kind


def load_file(
    path: str | Path,
    *,
    target: str | None = None,
    read_target: bool = True,
    features: Sequence[str] | None = None,
    classes: ClassList | None = None,
    task: Task | Literal["auto"] = "auto",
    labels: str | Path | None = None,
    keep_missing: bool = False,
    text: Literal["refuse", "one-hot"] = "refuse",
    categories: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
    drop: Sequence[str] = (),
) -> Dataset:
    r"""Read samples, and targets if there are any, from a file.

    Parameters
    ----------
    path : str or Path
        A table: ``.csv`` (one sample a line; see :func:`~bpcore.data.csv_files.read_table`), ``.parquet``, or ``.npy``
        with named fields; an ``.npz`` archive or a ``.safetensors`` file with the arrays ``X`` and ``y``; a matrix in
        ``.npy`` or an array in IDX (``.idx``, ``...-idx3-ubyte``, plain or ``.gz``), with the targets in another file,
        `labels`; or a folder with the four files of MNIST.
    target : str, optional
        Column of the targets, by name or by number from 0, or several columns of numbers, separated by commas; for
        ``.npz`` and ``.safetensors`` the name of the array.
    read_target : bool, default True
        False to read samples only: there need be no targets, and `target` names columns to leave out.
    features : sequence of str, optional
        Columns to take, in this order, where the file has a header; other columns are ignored. By default all
        but the target.
    classes : ClassList, optional
        The classes of a trained model: labels are encoded by them. By default they are collected.
    task : ``"auto"``, ``"classification"`` or ``"regression"``
        With ``"auto"``, text and few different whole numbers (at most 20, and each twice on average) are
        classes, other numbers are regression targets.
    labels : str or Path, optional
        File of the targets, for ``.npy`` and IDX.
    keep_missing : bool, default False
        Whether missing features become NaN; by default they are refused. Missing targets always are.
    text : ``"refuse"`` or ``"one-hot"``
        Whether columns of text may be features: then `X` holds codes, and ``categories`` says what they stand for.
    categories : mapping of str to sequence of str, optional
        The categories of a trained model.
    group : str, optional
        Column (for ``.npz`` and ``.safetensors``: array) of the groups of the rows; it is no feature.
    drop : sequence of str
        Columns of a table to leave out.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the file cannot be read or what it holds cannot be used; line and column are named.
    UnknownNameError
        If a column or array does not exist.
    MissingExtraError
        If it is a Parquet file and pyarrow is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "flowers.csv")
    >>> _ = path.write_text("length,width,kind\n1.0,2.0,a\n3.0,4.0,b\n")
    >>> data = load_file(path, target="kind")
    >>> data.X.tolist(), data.y.tolist(), data.classes, data.feature_names
    ([[1.0, 2.0], [3.0, 4.0]], [0, 1], ('a', 'b'), ('length', 'width'))
    >>> folder.cleanup()
    """
    path = Path(path)
    kind = file_kind(path)
    table = read_part(path, kind, target)
    extra: dict[str, Any] = {}
    if labels is not None and (table is not None or kind not in ("npy", "idx")):
        raise ConfigurationError(f"--labels is for .npy and IDX files; {path.name} has its targets inside")
    if drop and table is None:
        raise ConfigurationError(f"--drop is for tables, whose columns have names; {path.name} is none")
    if table is not None:
        reader, where = columns_of(table, target, read_target, features, group, drop)
        reader.keep_missing, reader.text = keep_missing, text == "one-hot"
        if categories is not None:
            reader.categories, reader.fixed = {name: list(texts) for name, texts in categories.items()}, True
        X = reader.matrix(table)
        names, target_name = reader.names, where.target_name(table)
        values = target_matrix(table, where.targets) if where.targets and read_target else None
        extra["categories"] = frozen(reader.categories)
        if where.group is not None:
            extra["groups"] = target_values(table, where.group)
    else:
        X, values, target_name, extra = _arrays(path, kind, target, labels, group, read_target, keep_missing)
        names = tuple(features or (f"x{i}" for i in range(X.shape[1])))
        if len(names) != X.shape[1]:
            raise DataError(f"{path}: X has {X.shape[1]} columns, but the model was trained on {len(names)}")
    found = Dataset(path.name, X, None, names, None, "classification", None, str(path), "")
    found = replace(found, **extra)
    if values is None:
        return found
    encoded = _with_targets(path, X, values, names, target_name, classes, task)
    return replace(encoded, **extra)


def read_part(path: Path, kind: str, target: str | None) -> TablePart | None:
    """Read a table as a whole; None for a file that holds arrays."""
    if kind == "csv":
        return read_table(path, target)
    if kind == "parquet":
        return read_parquet(path)
    if kind == "npy":
        array = load_npy(path)
        if array.dtype.names is not None:
            return RecordPart(path, array)
    return None


class Apart:
    """Numbers of the columns of a table that are no features: the targets, and the groups or None."""

    def __init__(self, targets: list[int], group: int | None) -> None:
        self.targets, self.group = targets, group

    def target_name(self, table: TablePart) -> str:
        """Name of the target, or those of several, separated by commas."""
        return ",".join(table.names[number] for number in self.targets)


def columns_of(
    table: TablePart,
    target: str | None,
    read_target: bool,
    features: Sequence[str] | None,
    group: str | None,
    drop: Sequence[str],
) -> tuple[Columns, Apart]:
    """Choose the columns of a table: those of the features, and those that stand apart."""
    if target is None and read_target:
        raise DataError(
            f"{table.path}: which column is the target? Name it with --target; the columns are {', '.join(table.names)}"
        )
    apart = Apart(
        [] if target is None else column_indices(table, target), None if group is None else column_index(table, group)
    )
    if apart.group is not None and apart.group in apart.targets:
        raise ConfigurationError(f"--target and --group both name the column {table.names[apart.group]!r}")
    left_out = [*apart.targets, apart.group, *(column_index(table, name) for name in drop)]
    numbers = [number for number in left_out if number is not None]
    beside = "" if target is None else " beside the target" + "s" * (len(apart.targets) > 1)
    chosen, names = choose_columns(table, numbers, features, beside)
    return Columns(chosen, names), apart


def _arrays(
    path: Path,
    kind: str,
    target: str | None,
    labels: str | Path | None,
    group: str | None,
    read_target: bool,
    keep_missing: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None, str, dict[str, Any]]:
    """Read files that hold arrays: features, targets, what these are called, and what else is known."""
    groups = None
    if kind in NAMED:
        X, values, name = NAMED[kind](path, target, read_target=read_target)
        if group is not None:
            groups = NAMED[kind](path, group)[1]
    else:
        if group is not None:
            raise ConfigurationError(f"--group is for tables and arrays with names; {path.name} is neither")
        if target is not None and read_target:
            raise ConfigurationError(
                f"--target is for tables and arrays with names; the targets of {path.name} are --labels"
            )
        if kind == "mnist":
            return _mnist(path, read_target)
        name = "labels" if labels is None else Path(labels).name
        X, values = open_arrays(path, kind, labels, read_target)
    extra: dict[str, Any] = {} if groups is None else {"groups": groups}
    if kind == "idx" and X.dtype == np.uint8:
        return PIXELS.apply(X.astype(np.float32)), values, name, {**extra, "preprocessing": PIXELS}
    X = check_matrix(X, name=f"{path}: X", dtype=np.float64, allow_nonfinite=keep_missing)
    if keep_missing:
        refuse_infinite(X, f"{path}: X")
    return X, values, name, extra


def open_arrays(
    path: Path, kind: str, labels: str | Path | None, read_target: bool
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Map features, one sample a row, and targets from two files of which each holds an array."""
    X = load_idx(path) if kind == "idx" else load_npy(path)
    if X.ndim == 0:
        raise DataError(f"{path} holds a single number; a matrix with one sample a row is needed")
    X = X.reshape(len(X), -1) if X.ndim > 2 or (X.ndim == 2 and not X.size) else X
    if not read_target:
        return X, None
    if labels is None:
        raise DataError(f"{path} holds samples without targets; name the file of the targets with --labels")
    where = Path(labels)
    found = file_kind(where)
    if found not in ("idx", "npy"):
        raise DataError(f"{where}: targets in a file of their own are .npy or IDX")
    values = load_idx(where) if found == "idx" else load_npy(where)
    if values.dtype.names is not None or values.ndim not in (1, 2):
        raise DataError(f"{where} has shape {values.shape} and dtype {values.dtype}; targets are a vector or a matrix")
    if len(values) != len(X):
        raise DataError(f"{path} has {len(X)} samples, but {where} has {len(values)} targets; the rows must match")
    return X, values


def _mnist(folder: Path, read_target: bool) -> tuple[NDArray[Any], NDArray[Any] | None, str, dict[str, Any]]:
    """Read the four files of a folder: those to train with first, those to test with last."""
    images, labels, test_images, test_labels = mnist_files(folder)
    parts = [open_arrays(images, "idx", labels, True), open_arrays(test_images, "idx", test_labels, True)]
    (X, y), (X_test, y_test) = parts
    if X.shape[1:] != X_test.shape[1:] or X.dtype != np.uint8 or X_test.dtype != np.uint8:
        raise DataError(
            f"{folder}: the images to train with have shape {X.shape} ({X.dtype}), those to test with {X_test.shape} "
            f"({X_test.dtype}); both must be bytes, with the same number of pixels"
        )
    assert y is not None
    assert y_test is not None
    pixels = np.empty((len(X) + len(X_test), X.shape[1]), np.float32)
    pixels[: len(X)], pixels[len(X) :] = X, X_test
    pixels /= np.float32(PIXELS.divisor)
    values = np.concatenate([y, y_test]) if read_target else None
    return pixels, values, "label", {"preprocessing": PIXELS, "held_out": len(X_test)}


def guess_task(values: NDArray[Any]) -> Task:
    """Tell classes from regression targets, by the rule in :func:`load_file`."""
    if values.dtype.kind in "UTb":
        return "classification"
    if values.ndim != 1:
        return "regression"
    different = np.unique(values)
    whole = values.dtype.kind in "iu" or bool((different == np.floor(different)).all())
    few = len(different) <= MOST_NUMERIC_CLASSES and 2 * len(different) <= len(values)
    return "classification" if whole and few else "regression"


def _with_targets(
    path: Path,
    X: NDArray[Any],
    values: NDArray[Any],
    names: tuple[str, ...],
    target_name: str,
    classes: ClassList | None,
    task: Task | Literal["auto"],
) -> Dataset:
    """Encode the targets for the task."""
    if task == "auto":
        task = "classification" if classes is not None else guess_task(values)
    try:
        if task == "regression":
            y = values if values.ndim == 2 else values.reshape(-1, 1)
            y = check_matrix(y, name=target_name, dtype=np.float64).reshape(values.shape)
            return Dataset(path.name, X, y, names, None, task, None, str(path), target_name)
        if values.ndim == 2 and values.dtype.kind not in "UT":
            raise DataError(
                f"there are {values.shape[1]} for each sample; classes are one target, several are numbers (--task "
                "regression)"
            )
        if classes is None:
            classes = ClassList.fit(values)
            if values.dtype.kind in "UT" and len(values) > 10 and 2 * len(classes.names) > len(values):
                raise DataError(
                    f"{len(classes.names)} different texts in {len(values)} rows "
                    f"(such as {classes.names[0]!r}) are too many to be classes"
                )
        labels = classes.encode(values)
    except DataError as error:
        raise DataError(f"{path}: target {target_name!r}: {error}") from error
    return Dataset(path.name, X, labels, names, classes.names, task, None, str(path), target_name)
