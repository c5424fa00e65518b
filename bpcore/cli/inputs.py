"""What commands read: data by name or path, lists of widths, preprocessing on the way in and out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from bpcore.data.datasets import DATASETS, Dataset, load_dataset
from bpcore.data.files import load_file
from bpcore.data.preprocessing import Preprocessing
from bpcore.data.sample_blocks import SUFFIXES, sample_blocks
from bpcore.errors import ConfigurationError, UnknownNameError, unknown
from bpcore.persistence.knowledge import Knowledge
from bpcore.typing import NDArray

__all__ = ["blocks_for_model", "load_data", "load_for_model", "parse_names", "parse_widths", "prepare"]


def load_data(
    name: str, target: str | None = None, task: Literal["auto", "classification", "regression"] = "auto"
) -> Dataset:
    """Load data with targets: a bundled set by name, or a file by path.

    Parameters
    ----------
    name : str
        One of :data:`~bpcore.data.datasets.DATASETS`, or a path that ends in ``.csv`` or ``.npz``.
    target : str, optional
        Column (or array) of the targets in a file.
    task : str
        As for :func:`~bpcore.data.files.load_file`.

    Returns
    -------
    Dataset
    """
    if task not in ("auto", "classification", "regression"):
        raise unknown("task", task, ["auto", "classification", "regression"])
    return _bundled(name, target) or load_file(name, target=target, task=task)


def load_for_model(name: str, model: Knowledge, target: str | None = None) -> Dataset:
    """Load data with targets in the form that a trained model takes: its columns, its classes.

    Parameters
    ----------
    name : str
        As for :func:`load_data`.
    model : Knowledge
        What the trained model knows.
    target : str, optional
        Column (or array) of the targets in a file; by default the one that the model was trained on.

    Returns
    -------
    Dataset
    """
    return _bundled(name, target) or load_file(
        name,
        target=target or model.target,
        features=model.feature_names,
        classes=model.classes,
        task=model.task,
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
    bundled = _bundled(name, target, SUFFIXES)
    if bundled is not None:
        yield prepare(bundled, model.preprocessing), 1.0
        return
    fitted = model.preprocessing
    for X, done in sample_blocks(name, model.net.sizes[0], features=model.feature_names, target=target):
        yield (X if fitted is None else fitted.apply(X)), done


def _bundled(name: str, target: str | None, suffixes: Sequence[str] = (".csv", ".npz")) -> Dataset | None:
    """Load a bundled data set; None for the path of a file."""
    if name in DATASETS:
        if target is not None:
            raise ConfigurationError(f"--target is for files; the target of the data set {name!r} is fixed")
        return load_dataset(name)
    if Path(name).suffix.lower() in suffixes or Path(name).exists():
        return None
    kinds = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
    raise UnknownNameError(f"{unknown('data set', name, DATASETS)} Or give the path of a {kinds} file.")


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


def parse_names(text: str) -> str | list[str]:
    """Read one name, or several separated by commas."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else names[0]
