"""What commands read: data by name or path, lists of widths, preprocessing on the way in and out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bpcore.data.datasets import DATASETS, Dataset, load_dataset
from bpcore.data.files import KINDS, load_file
from bpcore.data.idx_files import is_idx_name
from bpcore.data.npy_files import load_npy
from bpcore.data.preprocessing import Preprocessing
from bpcore.data.sample_blocks import sample_blocks
from bpcore.data.tables import MISSING_CHOICES
from bpcore.errors import ConfigurationError, UnknownNameError, unknown
from bpcore.persistence.knowledge import Knowledge
from bpcore.typing import NDArray

__all__ = [
    "blocks_for_model",
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


def load_for_model(name: str, model: Knowledge, target: str | None = None, *, labels: str | None = None) -> Dataset:
    """Load data with targets in the form that a trained model takes: its columns, its classes.

    Parameters
    ----------
    name : str
        As for :func:`load_data`.
    model : Knowledge
        What the trained model knows.
    target : str, optional
        Column (or array) of the targets in a file; by default the one that the model was trained on.
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
    return load_file(
        name,
        target=model.target if target is None and not has_own_targets(name) else target,
        features=model.feature_names,
        classes=model.classes,
        task=model.task,
        labels=labels,
        keep_missing=model.imputes,
        text="one-hot" if model.categories else "refuse",
        categories=model.categories,
    )


def blocks_for_model(name: str, model: Knowledge, target: str | None = None) -> Iterator[tuple[NDArray[Any], float]]:
    """Read data without targets for a trained model, after its preprocessing, a block of rows at a time.

    Parameters
    ----------
    name : str
        A bundled data set, or a file as for :func:`~bpcore.data.sample_blocks.sample_blocks`.
    model : Knowledge
        What the trained model knows.
    target : str, optional
        Column of the targets in a file, to be left out.

    Yields
    ------
    X : ndarray, shape (rows, n_1)
        The next samples.
    done : float
        The share of the data that has been read.
    """
    bundled = _bundled(name, target, {})
    if bundled is not None:
        yield prepare(bundled, model.preprocessing), 1.0
        return
    fitted = model.preprocessing
    blocks = sample_blocks(
        name,
        model.n_columns,
        features=model.feature_names,
        target=target,
        keep_missing=model.imputes,
        categories=model.categories,
    )
    for X, done in blocks:
        yield (X if fitted is None else fitted.apply(X)), done


def wants_disk(name: str, stream: bool | None, cache: str | None) -> bool:
    """Whether data goes to a store on disk: as asked for, and otherwise if it is a large file."""
    if stream is not None or cache is not None:
        return stream is not False
    path = Path(name)
    if name in DATASETS or not path.is_file():
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
