"""Fixed transformations of data: fitted once, then values that are saved inside the model.

The contract of a transformation: a frozen dataclass of plain numbers with ``apply(X)``, its inverse
``undo(X)`` and ``to_dict()``, whose result survives JSON bit for bit; :func:`preprocessing_from_dict` is the
way back.
:class:`ClassList` does the same for labels: class names to the integers 0 ... K-1 and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bpcore.data.arrays import check_matrix, host_array
from bpcore.data.missing import Imputer
from bpcore.data.one_hot import OneHot, Pipeline
from bpcore.errors import ConfigurationError, DataError, UnknownNameError, unknown
from bpcore.typing import IntArray, NDArray

__all__ = [
    "ClassList",
    "Preprocessing",
    "Scaler",
    "Standardizer",
    "fills_missing",
    "preprocessing_from_dict",
    "steps_of",
]


@dataclass(frozen=True)
class Scaler:
    """Division of every number by one constant.

    Parameters
    ----------
    divisor : float
        Finite and not 0. Use a power of two where there is a choice: the division is then exact.

    Raises
    ------
    ConfigurationError
        If `divisor` is 0 or not finite.

    Examples
    --------
    >>> Scaler(16.0).apply([[0, 8, 16]])
    array([[0. , 0.5, 1. ]])
    """

    divisor: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.divisor) or self.divisor == 0:
            raise ConfigurationError(f"divisor must be finite and not 0, got {self.divisor}")

    def apply(self, X: object) -> NDArray[Any]:
        """Return a new matrix ``X / divisor``, shape (m, n); floats keep their dtype."""
        array = check_matrix(X)
        return np.asarray(array / array.dtype.type(self.divisor))

    def undo(self, X: object) -> NDArray[Any]:
        """Return a new matrix ``X * divisor``, shape (m, n)."""
        array = check_matrix(X)
        return np.asarray(array * array.dtype.type(self.divisor))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "scaler", "divisor": ...}``."""
        return {"kind": "scaler", "divisor": self.divisor}


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of each column to mean 0 and standard deviation 1: ``(X - mean) / scale``.

    Parameters
    ----------
    mean : tuple of float, length n
        Column means.
    scale : tuple of float, length n
        Column standard deviations, each positive.

    Raises
    ------
    ConfigurationError
        If the lengths differ, or a number is not finite, or a scale is not positive.

    Examples
    --------
    >>> fitted = Standardizer.fit([[1.0, 7.0], [3.0, 7.0]])
    >>> fitted
    Standardizer(mean=(2.0, 7.0), scale=(1.0, 1.0))
    >>> fitted.apply([[1.0, 7.0], [5.0, 9.0]])
    array([[-1.,  0.],
           [ 3.,  2.]])
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale) or not self.mean:
            raise ConfigurationError(
                f"mean and scale must have the same length, at least 1; got {len(self.mean)} and {len(self.scale)}"
            )
        if not all(map(math.isfinite, (*self.mean, *self.scale))):
            raise ConfigurationError("mean and scale must be finite")
        if min(self.scale) <= 0:
            raise ConfigurationError(f"every scale must be positive, got {min(self.scale)}")

    @classmethod
    def fit(cls, X: object) -> Standardizer:
        """Measure the columns of `X`, shape (m, n), in float64.

        A column whose values do not differ (up to the rounding of their mean) gets the scale 1, so that it
        becomes 0 and not noise blown up.
        """
        array = check_matrix(X, dtype=np.float64)
        # Squares of values near the limits of float64 would overflow: measure in units of about the maximum,
        # powers of two, so that nothing is rounded.
        unit = np.ldexp(1.0, np.frexp(np.max(np.abs(array), axis=0))[1] - 1)
        scaled = array / unit
        mean = scaled.mean(axis=0)
        scale = np.sqrt(np.mean((scaled - mean) ** 2, axis=0))
        constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        mean, scale = np.where(constant, array[0], mean * unit), np.where(constant, 1.0, scale * unit)
        return cls(tuple(mean.tolist()), tuple(scale.tolist()))

    def apply(self, X: object) -> NDArray[Any]:
        """Return a new matrix ``(X - mean) / scale``, shape (m, n); floats keep their dtype."""
        array = check_matrix(X, n_columns=len(self.mean))
        # float64 until the end: in float32 a large mean would swallow the differences.
        return np.asarray((array - np.array(self.mean)) / np.array(self.scale), dtype=array.dtype)

    def undo(self, X: object) -> NDArray[Any]:
        """Return a new matrix ``X * scale + mean``, shape (m, n); floats keep their dtype."""
        array = check_matrix(X, n_columns=len(self.mean))
        return np.asarray(array * np.array(self.scale) + np.array(self.mean), dtype=array.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "standardizer", "mean": [...], "scale": [...]}``."""
        return {"kind": "standardizer", "mean": list(self.mean), "scale": list(self.scale)}


Preprocessing: TypeAlias = Scaler | Standardizer | Imputer | OneHot | Pipeline
"""What a model may carry to prepare its input."""


def steps_of(fitted: Preprocessing | None) -> tuple[Preprocessing, ...]:
    """Return the steps of a preprocessing, those of a pipeline inside a pipeline included, in their order.

    Examples
    --------
    >>> [type(step).__name__ for step in steps_of(Pipeline((Scaler(2.0), Pipeline((Imputer((1.0,)),)))))]
    ['Scaler', 'Imputer']
    """
    if fitted is None:
        return ()
    if not isinstance(fitted, Pipeline):
        return (fitted,)
    return tuple(inner for step in fitted.steps for inner in steps_of(step))


def fills_missing(fitted: Preprocessing | None) -> bool:
    """Whether a preprocessing takes NaN for a missing value, and knows what to put there."""
    return any(isinstance(step, Imputer) for step in steps_of(fitted))


def preprocessing_from_dict(description: Mapping[str, Any]) -> Preprocessing:
    """Rebuild a transformation from its JSON form.

    Parameters
    ----------
    description : mapping
        What ``to_dict`` returned.

    Returns
    -------
    Preprocessing
        Of the class that the kind names.

    Raises
    ------
    UnknownNameError
        If the kind is not known.
    ConfigurationError
        If a field is missing or has no meaning.

    Examples
    --------
    >>> preprocessing_from_dict({"kind": "scaler", "divisor": 16.0})
    Scaler(divisor=16.0)
    """
    kind = description.get("kind")
    if kind not in _KINDS:
        raise unknown("preprocessing", kind, _KINDS)
    try:
        return _KINDS[kind](description)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError | UnknownNameError):
            raise
        raise ConfigurationError(f"the description of the {kind} is damaged: {error!r}") from error


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


_KINDS: dict[str, Callable[[Mapping[str, Any]], Preprocessing]] = {
    "scaler": lambda found: Scaler(float(found["divisor"])),
    "standardizer": lambda found: Standardizer(_numbers(found["mean"]), _numbers(found["scale"])),
    "imputer": lambda found: Imputer(_numbers(found["values"]), str(found["how"])),
    "one-hot": lambda found: OneHot(tuple(found["counts"])),
    "pipeline": lambda found: Pipeline(tuple(preprocessing_from_dict(step) for step in found["steps"])),
}


@dataclass(frozen=True)
class ClassList:
    """The classes of a task, in the order of the network's outputs.

    Parameters
    ----------
    names : tuple of str, or tuple of int
        At least one, no name twice.

    Raises
    ------
    ConfigurationError
        If there is no class, or one occurs twice.

    Examples
    --------
    >>> classes = ClassList.fit(["cat", "dog", "cat"])
    >>> classes.names
    ('cat', 'dog')
    >>> classes.encode(["dog", "cat"])
    array([1, 0])
    >>> classes.decode([0, 0, 1])
    array(['cat', 'cat', 'dog'], dtype='<U3')
    """

    names: tuple[str, ...] | tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigurationError("a list of classes needs at least one class")
        if len(set(self.names)) != len(self.names):
            raise ConfigurationError(f"a class occurs twice in {list(self.names)}")
        if not (all(type(n) is int for n in self.names) or all(type(n) is str for n in self.names)):
            raise ConfigurationError(f"classes must be all str or all int, got {list(self.names)}")

    @classmethod
    def fit(cls, labels: object) -> ClassList:
        """Collect the different `labels` (shape (m,); text, bool or whole numbers), sorted.

        Raises
        ------
        DataError
            If `labels` is no vector, is empty, holds numbers that are not whole, or only one class.
        """
        found = np.unique(_label_vector(labels))
        if len(found) == 1:
            raise DataError(
                f"all labels are {found[0].item()!r}: one class only, so there is nothing to tell apart; "
                "at least two classes are needed"
            )
        return cls(tuple(found.tolist()))

    def encode(self, labels: object) -> IntArray:
        """Return the index of every label (shape (m,)), int64.

        Raises
        ------
        DataError
            If a label is not one of the classes; the first one is named with its row.
        """
        vector = _label_vector(labels)
        if (vector.dtype.kind in "UT") != isinstance(self.names[0], str):
            kind = "text" if vector.dtype.kind in "UT" else "numbers"
            raise DataError(f"the labels are {kind}, but the classes are {list(self.names)}")
        index = {name: i for i, name in enumerate(self.names)}
        unique, inverse = np.unique(vector, return_inverse=True)
        table = np.array([index.get(name, -1) for name in unique.tolist()], dtype=np.int64)
        codes = table[inverse.reshape(-1)]
        if codes.size and codes.min() < 0:
            row = int(np.argmin(codes >= 0))
            raise DataError(
                f"label {vector[row].item()!r} in row {row} is not one of the classes {_shorten(self.names)}"
            )
        return codes

    def decode(self, indices: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        """Return the class of every index (shape (m,)): an array of str or int64."""
        return np.asarray(np.array(self.names)[np.asarray(indices)])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, ``{"kind": "classes", "names": [...]}``."""
        return {"kind": "classes", "names": list(self.names)}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> ClassList:
        """Rebuild the list from its JSON form."""
        try:
            return cls(tuple(description["names"]))
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"the description of the classes is damaged: {error!r}") from error


def _label_vector(labels: object) -> NDArray[Any]:
    """Labels as a vector of text or int64; whole floats are taken as integers."""
    vector = host_array(labels, name="labels", allow_text=True)
    if vector.ndim != 1:
        raise DataError(f"labels must be a vector of shape (m,), got shape {vector.shape}")
    if not vector.size:
        raise DataError("labels is empty; at least one label is needed")
    if vector.dtype.kind in "UT":
        return vector
    if vector.dtype.kind == "f":
        whole = np.isfinite(vector) & (vector == np.floor(vector)) & (np.abs(vector) < 2.0**53)
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"label {vector[row]} in row {row} is not a whole number")
    return vector.astype(np.int64)


def _shorten(names: Sequence[object], limit: int = 12) -> str:
    """At most `limit` names, for a message."""
    shown = ", ".join(map(repr, names[:limit]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > limit else shown
