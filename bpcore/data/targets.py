"""From labels or target values to the matrix Y that the loss compares with the network's output.

What is allowed depends on the loss, through its ``target_kind``:

================  =================================================================  ========================
kind              rows of Y                                                          integer labels become
================  =================================================================  ========================
``distribution``  numbers in [0, 1] that sum to 1 (cross-entropy)                    one-hot rows
``probability``   numbers in [0, 1], each output for itself (binary cross-entropy)   one-hot rows, or 0 and 1
``sign``          -1 or +1 (hinge, exponential)                                      +1 for the class, else -1
``real``          any finite numbers (quadratic, mse, absolute, huber)               one-hot rows
================  =================================================================  ========================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from bpcore.data.arrays import check_finite, host_array
from bpcore.data.preprocessing import ClassList
from bpcore.errors import DataError, ShapeError
from bpcore.typing import IntArray, NDArray

__all__ = ["EncodedTargets", "LossTargets", "class_threshold", "encode_targets", "smooth"]


class LossTargets(Protocol):
    """What the encoding asks of a loss."""

    @property
    def name(self) -> str:
        """Name of the loss, for errors."""

    @property
    def target_range(self) -> tuple[float, float]:
        """Smallest and largest target value."""

    @property
    def target_kind(self) -> str:
        """``"distribution"``, ``"probability"``, ``"sign"`` or ``"real"``."""


@dataclass(frozen=True)
class EncodedTargets:
    """Targets in the form that training takes.

    Attributes
    ----------
    Y : ndarray, shape (m, n_out), float32 or float64, C-contiguous, writeable
        Target values; may share memory with what was encoded.
    labels : ndarray of int64, shape (m,), or None
        Class of each row; with one output 0 or 1. None when the targets are not classes (regression, soft
        targets, several independent outputs).
    threshold : float
        With one output, a prediction above it counts as class 1.
    """

    Y: NDArray[Any]
    labels: IntArray | None
    threshold: float


def encode_targets(
    Y: object,
    *,
    n_out: int,
    loss_targets: LossTargets,
    dtype: DTypeLike,
    classes: Sequence[Any] | None = None,
    n_rows: int | None = None,
    name: str = "Y",
) -> EncodedTargets:
    """Check targets and turn them into a matrix with one row a sample.

    Parameters
    ----------
    Y : array_like, shape (m,) or (m, n_out)
        Labels (integers from 0, or bool, or entries of `classes`), or target values. Not modified.
    n_out : int
        Number of outputs of the network.
    loss_targets : Loss
        The loss: its ``name``, ``target_range``, ``target_kind`` and, where it has one, ``label_smoothing``.
    dtype : dtype
        float32 or float64, of the result.
    classes : sequence of str or of int, optional
        Names of the classes in the order of the outputs; labels in `Y` are then such names. (Integer labels
        for classes that are text are taken as their indices.)
    n_rows : int, optional
        Number of samples that `Y` must have.
    name : str, default "Y"
        What to call it in errors.

    Returns
    -------
    EncodedTargets

    Raises
    ------
    ShapeError
        If the shape of `Y` does not fit `n_out` or `n_rows`.
    DataError
        If a label is out of range, a value outside the loss's range, a distribution does not sum to 1, or a
        value is not finite.

    Notes
    -----
    Label smoothing ``epsilon`` replaces every row y by ``(1 - epsilon) y + epsilon / n_out`` (Szegedy et al.,
    "Rethinking the Inception architecture for computer vision", 2016, section 7). `labels` are those before.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> loss = SimpleNamespace(name="cross_entropy", target_range=(0.0, 1.0), target_kind="distribution")
    >>> encode_targets([2, 0], n_out=3, loss_targets=loss, dtype="float32").Y
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    values = host_array(Y, name=name, allow_text=True)
    _check_shape(values, n_out, n_rows, name)
    if classes is not None or values.dtype.kind in "UT":
        values = _class_indices(values, classes, n_out, name)
    if values.dtype == np.float16:
        raise DataError(
            f"{name}: float16 is not supported as a training dtype; possible: float32, float64; "
            f"use {name}.astype(np.float32)"
        )
    check_finite(values, name=name)
    kind, epsilon = loss_targets.target_kind, float(getattr(loss_targets, "label_smoothing", 0.0))
    labels: IntArray | None
    if values.ndim == 1 and n_out >= 2:
        labels = _checked_labels(values, n_out, name)
        matrix = np.full((len(values), n_out), -1.0 if kind == "sign" else 0.0)
        matrix[np.arange(len(values)), labels] = 1.0
    elif n_out == 1:
        matrix, labels = _one_column(values.reshape(-1, 1), loss_targets, name, is_class=classes is not None)
    else:
        matrix = values
        _check_values(matrix, loss_targets, name)
        labels = _labels_of_rows(matrix, kind)
    if kind == "distribution":
        if values.ndim == 2 or n_out == 1:
            _check_row_sums(matrix, loss_targets.name, name)
        if epsilon:
            matrix = smooth(matrix, epsilon)
    with np.errstate(over="ignore"):
        result = np.require(matrix, dtype=np.dtype(dtype), requirements=["C", "A", "W"])
    if result.dtype.itemsize < matrix.dtype.itemsize:
        check_finite(result, name=f"{name} as {result.dtype}")
    return EncodedTargets(result, labels, class_threshold(loss_targets))


def smooth(matrix: NDArray[Any], epsilon: float) -> NDArray[np.float64]:
    """Label smoothing of rows that are distributions; see the notes of :func:`encode_targets`.

    Examples
    --------
    >>> smooth(np.array([[1.0, 0.0]]), 0.5)
    array([[0.75, 0.25]])
    """
    return np.asarray((1.0 - epsilon) * matrix.astype(np.float64) + epsilon / matrix.shape[1], np.float64)


def _check_shape(values: NDArray[Any], n_out: int, n_rows: int | None, name: str) -> None:
    """Refuse what is neither a vector nor a matrix of n_out columns, and a wrong number of rows."""
    outputs = "1 output" if n_out == 1 else f"{n_out} outputs"
    expected = f"expected (m,) or (m, {n_out}) for a network with {outputs}"
    if values.ndim not in (1, 2):
        raise ShapeError(f"{name} has shape {values.shape}; {expected}")
    if values.size == 0:
        raise DataError(f"{name} is empty (shape {values.shape}); at least one target is needed")
    if values.ndim == 2 and values.shape[1] != n_out:
        hint = f"; for integer labels use {name}.ravel()" if values.shape[1] == 1 else ""
        raise ShapeError(f"{name} has shape {values.shape}; {expected}{hint}")
    if n_rows is not None and len(values) != n_rows:
        raise ShapeError(f"{name} has {len(values)} rows but X has {n_rows}; one target for each sample is needed")


def _class_indices(values: NDArray[Any], classes: Sequence[Any] | None, n_out: int, name: str) -> NDArray[Any]:
    """Replace names of classes by their indices; other targets pass unchanged."""
    if classes is None:
        raise DataError(
            f"{name} holds text (dtype {values.dtype}) but the classes are not known; give classes=[...] (to a "
            f"network: net.meta['classes'] = [...]), or encode it: ClassList.fit({name}).encode({name})"
        )
    n_classes = 2 if n_out == 1 else n_out
    if len(classes) != n_classes:
        raise DataError(
            f"{len(classes)} classes do not fit a network with {n_out} output{'s' if n_out > 1 else ''}, "
            f"which tells {n_classes} apart"
        )
    names = ClassList(tuple(classes))
    if values.ndim == 2:
        if values.dtype.kind in "UT":
            raise ShapeError(f"{name} holds text in shape {values.shape}; labels must be a vector, (m,)")
        return values
    if values.dtype.kind in "UT" or isinstance(names.names[0], int):
        return names.encode(values)
    return values


def _checked_labels(values: NDArray[Any], n_out: int, name: str) -> IntArray:
    """Vector of labels as int64, each from 0 to n_out - 1."""
    if values.dtype.kind == "f":
        raise DataError(
            f"{name} is a vector of {values.dtype} but the network has {n_out} outputs: labels must be "
            f"integers (use {name}.astype(np.int64)), other targets a matrix of shape (m, {n_out})"
        )
    good = (values >= 0) & (values < n_out)
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"label {values[row]} in row {row} of {name} (counted from 0) is out of range: "
            f"a network with {n_out} outputs has the labels 0 to {n_out - 1}"
        )
    return values.astype(np.int64)


def _one_column(
    values: NDArray[Any], loss: LossTargets, name: str, *, is_class: bool
) -> tuple[NDArray[Any], IntArray | None]:
    """Targets (m, 1) of a single output, and the classes 0 and 1 if the values are classes."""
    kind, integers = loss.target_kind, values.dtype.kind != "f"
    if kind == "real":
        _check_values(values, loss, name)
        if is_class or values.dtype.kind == "b":
            return values, _checked_labels(values.reshape(-1).astype(np.int64), 2, name)
        return values, None
    if kind == "sign":
        if integers and np.isin(values, (0, 1)).all():
            values = 2 * values.astype(np.int64) - 1
        _check_values(values, loss, name)
        return values, (values.reshape(-1) > 0).astype(np.int64)
    zero_or_one = np.isin(values.reshape(-1), (0, 1))
    if integers and not zero_or_one.all():
        row = int(np.argmin(zero_or_one))
        raise DataError(
            f"label {values[row, 0]} in row {row} of {name} (counted from 0) is out of range: a network with "
            "one output tells two classes apart, 0 and 1; use one output for each class"
        )
    _check_values(values, loss, name)
    return values, values.reshape(-1).astype(np.int64) if zero_or_one.all() else None


def _check_values(matrix: NDArray[Any], loss: LossTargets, name: str) -> None:
    """Refuse values that the loss is not defined for, naming the first one."""
    low, high = loss.target_range
    if loss.target_kind == "sign":
        good = np.isin(matrix, (low, high))
        needs = f"targets that are {low:g} or {high:g}"
    else:
        good = (matrix >= low) & (matrix <= high)
        needs = f"targets from {low:g} to {high:g}"
    if good.all():
        return
    row, column = (int(i) for i in np.unravel_index(int(np.argmin(good)), good.shape))
    hint = ""
    if loss.target_kind == "sign" and np.isin(matrix, (0, 1)).all():
        hint = f"; use 2 * {name} - 1"
    raise DataError(
        f"{name} contains {matrix[row, column]} in row {row}, column {column} (counted from 0), "
        f"but {loss.name} needs {needs}{hint}"
    )


def _labels_of_rows(matrix: NDArray[Any], kind: str) -> IntArray | None:
    """Classes of rows that hold 1 once and otherwise 0 (or -1 for sign targets); None for any other row."""
    ones = matrix == 1
    if not (ones | (matrix == (-1 if kind == "sign" else 0))).all():
        return None
    if not (np.count_nonzero(ones, axis=1) == 1).all():
        return None
    return np.asarray(np.argmax(ones, axis=1), dtype=np.int64)


def _check_row_sums(matrix: NDArray[Any], loss_name: str, name: str) -> None:
    """Refuse rows that are no probability distribution."""
    n_out = matrix.shape[1]
    # The rounding of n_out numbers normalised in their own dtype, and a floor for decimals read from files.
    eps = np.finfo(matrix.dtype).eps if matrix.dtype.kind == "f" else 0.0
    tolerance = max(1e-6, 4.0 * n_out * float(eps))
    sums = matrix.sum(axis=1, dtype=np.float64)
    good = np.abs(sums - 1.0) <= tolerance
    if good.all():
        return
    row = int(np.argmin(good))
    advice = f"divide each row by its sum: {name} / {name}.sum(axis=1, keepdims=True)"
    if n_out == 1:
        advice = "with a single output use binary_cross_entropy and a sigmoid output"
    raise DataError(
        f"{name}: row {row} (counted from 0) sums to {sums[row]:.6g}, but {loss_name} needs rows that are "
        f"probability distributions (sum 1); {advice}"
    )


def class_threshold(loss: LossTargets) -> float:
    """Middle between the two classes of a single output, in terms of the prediction.

    Parameters
    ----------
    loss : Loss
        The loss that the network was trained with.

    Returns
    -------
    float
        A prediction above it counts as class 1.
    """
    if loss.target_kind == "sign":
        return 0.0
    low, _ = getattr(loss, "prediction_range", (0.0, 1.0))
    # A loss that takes logits: probability 1/2 is the logit 0.
    return 0.0 if loss.target_kind == "probability" and low < 0 else 0.5
