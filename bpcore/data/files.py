"""Data sets from files: ``.csv`` tables and ``.npz`` archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bpcore.data.arrays import check_matrix
from bpcore.data.csv_files import Table, read_table
from bpcore.data.datasets import Dataset, Task
from bpcore.data.npz_files import read_npz
from bpcore.data.preprocessing import ClassList
from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["load_file", "table_columns"]

SUFFIXES = (".csv", ".npz")
MOST_NUMERIC_CLASSES = 20


def load_file(
    path: str | Path,
    *,
    target: str | None = None,
    read_target: bool = True,
    features: Sequence[str] | None = None,
    classes: ClassList | None = None,
    task: Task | Literal["auto"] = "auto",
) -> Dataset:
    r"""Read samples, and targets if there are any, from a file.

    Parameters
    ----------
    path : str or Path
        A ``.csv`` file (one sample a line; see :func:`~bpcore.data.csv_files.read_table`) or an ``.npz``
        archive with the arrays ``X`` and ``y``.
    target : str, optional
        Column of the targets, by name or by number from 0; for ``.npz`` the name of the array.
    read_target : bool, default True
        False to read samples only: there need be no targets, and `target` names a column to leave out.
    features : sequence of str, optional
        Columns to take, in this order, where the file has a header; other columns are ignored. By default all
        but the target.
    classes : ClassList, optional
        The classes of a trained model: labels are encoded by them. By default they are collected.
    task : ``"auto"``, ``"classification"`` or ``"regression"``
        With ``"auto"``, text and few different whole numbers (at most 20, and each twice on average) are
        classes, other numbers are regression targets.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the file cannot be read or what it holds cannot be used; line and column are named.
    UnknownNameError
        If a column or array does not exist.

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
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: cannot read files of type {suffix or 'unknown'!r}; possible: .csv, .npz")
    if not path.is_file():
        raise DataError(f"there is no file {path} (looked in {path.absolute().parent})")
    if suffix == ".csv":
        table = read_table(path, target)
        X, values, names, target_name = _from_table(table, target, read_target, features)
    else:
        X, values, target_name = read_npz(path, target, read_target=read_target)
        X = check_matrix(X, name=f"{path}: X", dtype=np.float64)
        names = tuple(features or (f"x{i}" for i in range(X.shape[1])))
        if len(names) != X.shape[1]:
            raise DataError(f"{path}: X has {X.shape[1]} columns, but the model was trained on {len(names)}")
    if values is None:
        return Dataset(path.name, X, None, names, None, "classification", None, str(path), "")
    return _with_targets(path, X, values, names, target_name, classes, task)


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


def _from_table(
    table: Table, target: str | None, read_target: bool, features: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[Any] | None, tuple[str, ...], str]:
    """Choose the columns of a table and convert them."""
    if target is None and read_target:
        raise DataError(
            f"{table.path}: which column is the target? Name it with --target; the columns are {', '.join(table.names)}"
        )
    chosen = table_columns(table, target, features)
    target_index = None if target is None else table.column_index(target)
    values = table.column(target_index) if target_index is not None and read_target else None
    names = tuple(features) if features is not None else tuple(table.names[i] for i in chosen)
    return table.numbers(chosen), values, names, "" if target_index is None else table.names[target_index]


def table_columns(table: Table, target: str | None, features: Sequence[str] | None) -> list[int]:
    """Return the numbers of the columns that are features, in the order of the model.

    Parameters
    ----------
    table : Table
        The table.
    target : str or None
        Column that is none of them.
    features : sequence of str or None
        As for :func:`load_file`.

    Raises
    ------
    DataError, UnknownNameError
        If a column is absent, or none is left, or there are not as many as the model takes.
    """
    target_index = None if target is None else table.column_index(target)
    rest = [i for i in range(len(table.names)) if i != target_index]
    if features is not None and table.has_header:
        absent = [name for name in features if name not in table.names]
        if absent:
            raise DataError(
                f"{table.path} lacks the columns {', '.join(absent)}, on which the model was trained; "
                f"it has {', '.join(table.names)}"
            )
        chosen = [table.names.index(name) for name in features]
    else:
        chosen = rest
        if features is not None and len(features) != len(rest):
            beside = "" if target is None else " beside the target"
            hint = "; name a column of targets with --target to leave it out" if target is None else ""
            raise DataError(
                f"{table.path} has {len(rest)} columns{beside}, but the model was trained on "
                f"{len(features)}: {', '.join(features)}{hint}"
            )
    if not chosen:
        raise DataError(f"{table.path} has no column beside the target; at least one feature is needed")
    return chosen


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
            raise DataError(f"the shape is {values.shape}; class labels must be a vector, (m,)")
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
