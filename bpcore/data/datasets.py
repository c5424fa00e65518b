"""The data sets that come with scikit-learn, in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bpcore.data.preprocessing import Preprocessing, Scaler
from bpcore.errors import missing_extra, unknown
from bpcore.typing import NDArray

__all__ = ["DATASETS", "Dataset", "load_dataset"]

Task = Literal["classification", "regression"]

DATASETS: dict[str, str] = {
    "digits": "1797 handwritten digits of 8 x 8 pixels, 10 classes",
    "iris": "150 flowers, 4 measurements, 3 species",
    "wine": "178 wines, 13 chemical measurements, 3 growers",
    "breast-cancer": "569 tumours, 30 measurements, malignant or benign",
    "diabetes": "442 patients, 10 measurements, progress of the disease after a year",
}
"""Names of the bundled data sets and what they contain."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table of samples and what is known about it.

    Attributes
    ----------
    name : str
        Name of the set, or of the file.
    X : ndarray, shape (m, n), float64 (images: float32)
        Features, one sample a row, after `preprocessing`. NaN is a missing value, where these were kept.
    y : ndarray or None
        Classification: class indices, shape (m,), int64. Regression: shape (m,) or (m, n_out), float64. None
        when a file without targets was read.
    feature_names : tuple of str, length n
        Names of the columns of `X`.
    classes : tuple of str, or tuple of int, or None
        What the class indices stand for; None for regression.
    task : str
        ``"classification"`` or ``"regression"``.
    preprocessing : Scaler or Standardizer or None
        What has been applied to `X` already; None for raw numbers.
    source : str
        Where it came from, for the run record.
    target_name : str
        What `y` is called.
    groups : ndarray or None
        Group of each row, shape (m,), where a column of groups was named.
    categories : dict of str to tuple of str
        Columns of text, of which `X` holds codes, and what the codes stand for.
    held_out : int
        As many of the last rows are for testing, where the data says so; else 0.
    """

    name: str
    X: NDArray[Any]
    y: NDArray[Any] | None
    feature_names: tuple[str, ...]
    classes: tuple[str, ...] | tuple[int, ...] | None
    task: Task
    preprocessing: Preprocessing | None = None
    source: str = ""
    target_name: str = "target"
    groups: NDArray[Any] | None = None
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    held_out: int = 0


def load_dataset(name: str) -> Dataset:
    """Load one of the data sets bundled with scikit-learn; nothing is downloaded.

    Parameters
    ----------
    name : str
        ``"digits"`` (scaled to [0, 1]), ``"iris"``, ``"wine"``, ``"breast-cancer"`` or ``"diabetes"``.

    Returns
    -------
    Dataset

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> digits = load_dataset("digits")
    >>> digits.X.shape, digits.y.shape, digits.classes
    ((1797, 64), (1797,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    try:
        import sklearn
        from sklearn import datasets
    except ImportError as error:
        raise missing_extra("scikit-learn", "sklearn", f"the data set {name!r}") from error
    bundle = f"scikit-learn {sklearn.__version__}"
    if name == "diabetes":
        # The set is stored with every column scaled to a sum of squares of 1; the raw numbers mean something.
        bunch = datasets.load_diabetes(scaled=False)
        y = np.asarray(bunch.target, dtype=np.float64)
        names = _names(bunch.feature_names)
        return Dataset(name, _features(bunch), y, names, None, "regression", source=bundle)
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")()
    X, labels, names = _features(bunch), np.asarray(bunch.target, dtype=np.int64), _names(bunch.feature_names)
    if name == "digits":
        pixels, ten = Scaler(16.0), tuple(range(10))
        return Dataset(name, pixels.apply(X), labels, names, ten, "classification", pixels, bundle)
    classes = _names(bunch.target_names)
    return Dataset(name, X, labels, names, classes, "classification", source=bundle)


def _features(bunch: Any) -> NDArray[np.float64]:
    return np.ascontiguousarray(bunch.data, dtype=np.float64)


def _names(names: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
