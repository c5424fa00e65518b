"""What commands read: data by name or path, lists of widths, preprocessing on the way in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bpcore.data.datasets import DATASETS, Dataset, load_dataset
from bpcore.data.files import KINDS, load_file
from bpcore.data.idx_files import is_idx_name
from bpcore.data.missing import Imputer
from bpcore.data.npy_files import load_npy
from bpcore.data.one_hot import Pipeline
from bpcore.data.preprocessing import ClassList, Preprocessing, preprocessing_from_dict
from bpcore.data.tables import MISSING_CHOICES
from bpcore.errors import ConfigurationError, UnknownNameError, unknown
from bpcore.typing import IntArray, NDArray

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = [
    "Model",
    "check_choices",
    "check_task",
    "has_own_targets",
    "load_data",
    "load_for_model",
    "parse_columns",
    "parse_names",
    "parse_widths",
    "prepare",
    "wants_disk",
]


LARGE = 2**29
"""Bytes of a file from which on it is not read into memory, unless that is asked for."""


def load_data(
    name: str,
    target: str | None = None,
    task: Literal["auto", "classification", "regression"] = "auto",
    **options: Any,
) -> Dataset:
    """Load data with targets: a bundled set by name, or a file by path.

    Parameters
    ----------
    name : str
        One of :data:`~bpcore.data.datasets.DATASETS`, or the path of a file or a folder.
    target : str, optional
        Column (or array) of the targets in a file.
    task : str
        As for :func:`~bpcore.data.files.load_file`.
    **options
        For files, as for :func:`~bpcore.data.files.load_file`.

    Returns
    -------
    Dataset
    """
    check_task(task)
    return _bundled(name, target, options) or load_file(name, target=target, task=task, **options)


def check_task(task: str) -> None:
    """Refuse a task that does not exist."""
    if task not in ("auto", "classification", "regression"):
        raise unknown("task", task, ["auto", "classification", "regression"])


def load_for_model(
    name: str, model: Model, target: str | None = None, *, read_target: bool, labels: str | None = None
) -> Dataset:
    """Load data in the form that a trained model takes: its columns, its classes, its preprocessing.

    Parameters
    ----------
    name : str
        As for :func:`load_data`.
    model : Model
        The trained model.
    target : str, optional
        Column (or array) of the targets in a file; by default the one that the model was trained on.
    read_target : bool
        False to predict: the targets may be absent, and are left out where they are present.
    labels : str, optional
        File of the targets, for ``.npy`` and IDX.

    Returns
    -------
    Dataset
        With NaN for what is missing, if the model knows what to put there, and codes for its categories.
    """
    bundled = _bundled(name, target, {"labels": labels})
    if bundled is not None:
        return bundled
    options: dict[str, Any] = {"features": model.feature_names, "keep_missing": model.imputes}
    options |= {"categories": model.categories, "text": "one-hot" if model.categories else "refuse"}
    if not read_target:
        return load_file(name, target=target, read_target=False, **options)
    if target is None and not has_own_targets(name):
        target = model.target
    return load_file(name, target=target, classes=model.classes, task=model.task, labels=labels, **options)


def wants_disk(name: str, stream: bool | None, cache: str | None) -> bool:
    """Whether data goes to a store on disk: as asked for, and otherwise if it is a large file."""
    if stream is not None or cache is not None:
        return stream is not False
    path = Path(name)
    if name in DATASETS or not path.is_file() or path.suffix.lower() == ".npz":
        return False
    return path.stat().st_size > LARGE


def has_own_targets(name: str) -> bool:
    """Whether the targets of a file are in another one, so that no column can be named."""
    path = Path(name)
    if is_idx_name(path) or path.is_dir():
        return True
    return path.suffix.lower() == ".npy" and path.is_file() and load_npy(path).dtype.names is None


def _bundled(name: str, target: str | None, options: dict[str, Any]) -> Dataset | None:
    """Load a bundled data set; None for the path of a file."""
    if name in DATASETS:
        asked = {"target": target, **options}
        for option in ("target", "labels", "group", "drop"):
            if asked.get(option):
                raise ConfigurationError(
                    f"--{option} is for files; the target of the data set {name!r} is fixed"
                    if option == "target"
                    else f"--{option} is for files, and {name!r} is none"
                )
        return load_dataset(name)
    if "." in Path(name).name or Path(name).exists() or is_idx_name(name):
        return None
    raise UnknownNameError(f"{unknown('data set', name, DATASETS)} Or give the path of a file: {KINDS}.")


class Model:
    """What a saved network knows about its data, from ``net.meta``.

    Parameters
    ----------
    net : MLP
        A loaded network.
    """

    def __init__(self, net: MLP) -> None:
        meta = net.meta
        self.net = net
        self.task: Literal["classification", "regression"] = (
            "regression" if meta.get("task") == "regression" else "classification"
        )
        names = meta.get("feature_names")
        self.feature_names: tuple[str, ...] | None = tuple(names) if names else None
        self.classes = ClassList(tuple(meta["classes"])) if meta.get("classes") else None
        self.target: str | None = meta.get("target") or None
        self.loss: str | None = meta.get("loss")
        self.preprocessing = _restore(meta.get("preprocessing"))
        self.target_preprocessing = _restore(meta.get("target_preprocessing"))
        self.categories: dict[str, list[str]] | None = meta.get("categories") or None
        steps = self.preprocessing.steps if isinstance(self.preprocessing, Pipeline) else (self.preprocessing,)
        self.imputes = any(isinstance(step, Imputer) for step in steps)

    def classes_of(self, H: NDArray[Any]) -> IntArray:
        """Return the index of the class that each row of outputs, shape (m, n_L), says; int64, shape (m,)."""
        if H.shape[1] > 1:
            return np.asarray(H.argmax(axis=1), dtype=np.int64)
        return np.asarray(H[:, 0] > self.net.threshold, dtype=np.int64)


def _restore(description: dict[str, Any] | None) -> Preprocessing | None:
    return preprocessing_from_dict(description) if description else None


def prepare(data: Dataset, preprocessing: Preprocessing | None) -> NDArray[Any]:
    """Return the features after the preprocessing of a model, whatever was applied to them before."""
    if data.preprocessing == preprocessing:
        return data.X
    raw = data.X if data.preprocessing is None else data.preprocessing.undo(data.X)
    return raw if preprocessing is None else preprocessing.apply(raw)


def parse_widths(text: str, option: str = "--layers") -> list[int]:
    """Read widths of hidden layers, such as ``"128,64"``; empty or ``"none"`` for no hidden layer."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if [word.lower() for word in words] == ["none"]:
        return []
    try:
        widths = [int(word) for word in words]
    except ValueError:
        widths = [0]
    if any(width < 1 for width in widths):
        raise ConfigurationError(f"{option} is {text!r}; expected widths of at least 1 such as 128,64, or none")
    return widths


def parse_columns(text: str | None) -> tuple[str, ...]:
    """Read names of columns, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def check_choices(missing: str, text: str) -> None:
    """Refuse values of ``--missing`` and ``--text`` that do not exist."""
    if missing not in MISSING_CHOICES:
        raise unknown("value for --missing", missing, MISSING_CHOICES)
    if text not in ("refuse", "one-hot"):
        raise unknown("value for --text", text, ["refuse", "one-hot"])


def parse_names(text: str) -> str | list[str]:
    """Read one name, or several separated by commas."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else names[0]
