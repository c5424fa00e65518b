"""A problem: inputs, targets and weights, checked once and brought to the backend.

Everything that users hand in passes through :meth:`Problem.prepare`; what is behind it may trust shapes and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.targets import encode_targets
from bpcore.data.weights import check_sample_weight, class_weight_to_row_weights
from bpcore.errors import DataError, ShapeError
from bpcore.functions.losses import Loss, default_loss, get_loss
from bpcore.inputs import bring_inputs, is_on_device
from bpcore.network import MLP
from bpcore.typing import Array, DType, NDArray

__all__ = ["Problem", "choose_loss", "row_weights_of"]

LONG_ORDER = 2**16
"""Sample numbers from which looking for the least and the largest takes the host longer than waiting for a device."""


@dataclass(frozen=True)
class Problem:
    """Data on the device of a backend.

    Attributes
    ----------
    X : Array, shape (m, n_1)
        Inputs.
    Y : Array, shape (m, n_L)
        Targets as the loss compares them.
    labels : Array of int64, shape (m,), or None
        Classes, when the targets are classes.
    weights : Array, shape (m,), or None
        Weight of each sample (sample weight times class weight), when any was given.
    threshold : float
        Output above which a network with one output says class 1.
    """

    X: Array
    Y: Array
    labels: Array | None
    weights: Array | None
    threshold: float

    @property
    def m(self) -> int:
        """Number of samples."""
        return int(self.X.shape[0])

    def part(self, rows: slice) -> Problem:
        """Some rows of it, in the same memory."""
        labels = None if self.labels is None else self.labels[rows]
        weights = None if self.weights is None else self.weights[rows]
        return Problem(self.X[rows], self.Y[rows], labels, weights, self.threshold)

    def on_host(self, rows: slice, be: Backend, dtype: DType) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets (m, n_L) and weights (m,) of some rows, as NumPy arrays of a dtype."""
        Y = be.to_numpy(self.Y[rows])
        weights = np.ones(len(Y), dtype) if self.weights is None else be.to_numpy(self.weights[rows])
        return Y, weights

    @classmethod
    def prepare(
        cls,
        net: MLP,
        be: Backend,
        X: Any,
        Y: Any,
        loss: Loss,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        names: tuple[str, str] = ("X", "Y"),
    ) -> Problem:
        """Check the data of a network and bring it to its backend.

        Parameters
        ----------
        net : MLP
            Gives widths and dtype.
        be : Backend
            Where the data goes.
        X : array_like, shape (m, n_1)
            Inputs.
        Y : array_like, shape (m,) or (m, n_L)
            Labels or target values; see :mod:`bpcore.data.targets`.
        loss : Loss
            Decides what targets may be.
        sample_weight : array_like, shape (m,), optional
            Weights, 0 or positive, not all 0.
        class_weight : mapping or ``"balanced"``, optional
            Weight of each class; needs targets that are classes.
        names : (str, str)
            What the messages call X and Y.

        Returns
        -------
        Problem
            The data, on the device.

        Raises
        ------
        ShapeError, DataError
            If anything does not fit.
        """
        X_device = bring_inputs(X, be, net.sizes[0], net.dtype, name=names[0])
        m = int(X_device.shape[0])
        if is_on_device(Y, be):
            # targets are checked on the host: one crossing before training, none in a step
            Y = be.to_numpy(be.asarray(Y))
        targets = encode_targets(
            Y,
            n_out=net.sizes[-1],
            loss_targets=loss,
            dtype=net.dtype,
            classes=net.meta.get("classes"),
            n_rows=m,
            name=names[1],
        )
        weights = row_weights_of(net, targets.labels, m, sample_weight, class_weight)
        return cls(
            X_device,
            be.asarray(targets.Y),
            None if targets.labels is None else be.asarray(targets.labels),
            None if weights is None else be.asarray(weights),
            0.5 if net.output.range == (0, 1) else targets.threshold,
        )

    def check_one_class(self, be: Backend) -> None:
        """Refuse to train a classifier on a single class: nothing could be learned.

        Raises
        ------
        DataError
            If all labels are equal and there is more than one sample.
        """
        if self.labels is None or self.m < 2:
            return
        labels = be.to_numpy(self.labels)
        if (labels == labels[0]).all():
            raise DataError(
                f"all {self.m} targets are class {int(labels[0])}; training a classifier needs at least two classes "
                "(pass allow_one_class=True to train all the same)"
            )

    def check_index(self, order: Any, be: Backend | None = None) -> Array:
        """Check an index matrix, one step a row, and return it as int64.

        Parameters
        ----------
        order : array_like of int, or Array
            Sample numbers, on the host or on the device of the backend.
        be : Backend, optional
            Look at long ones on the device of this backend, and leave them there. By default the order is, and stays,
            on the host.

        Raises
        ------
        ShapeError
            If it is not an integer matrix of at least one column with values in [0, m).
        """
        index = order if be is not None and be.owns(order) else np.asarray(order)
        if index.ndim != 2 or index.shape[1] < 1 or index.dtype.kind not in "iu":
            raise ShapeError(
                f"order has shape {index.shape} and dtype {index.dtype}; an integer matrix is needed, "
                "one row of sample numbers for each step"
            )
        if be is not None and not be.owns(index):
            be, index = (None, index) if index.size < LONG_ORDER else (be, be.asarray(index))
        least, largest = 0, -1
        if index.size:
            least, largest = (int(index.min()), int(index.max())) if be is None else be.extremes(index)
        if least < 0 or largest >= self.m:
            raise ShapeError(
                f"order holds sample numbers from {least} to {largest}; there are samples 0 to {self.m - 1}"
            )
        return np.ascontiguousarray(index, np.int64) if be is None else be.xp.ascontiguousarray(index, np.int64)


def row_weights_of(net: MLP, labels: Any, m: int, sample_weight: Any, class_weight: Any) -> NDArray[Any] | None:
    """Weight of each row, sample weight times class weight, in the network's dtype; None if neither was given."""
    weights = None
    if sample_weight is not None:
        weights = check_sample_weight(sample_weight, n_rows=m)
    if class_weight is not None:
        if labels is None:
            raise DataError("class_weight needs targets that are classes, such as integer labels")
        n_classes = max(net.sizes[-1], 2)
        by_class = class_weight_to_row_weights(
            labels, class_weight, n_classes=n_classes, classes=net.meta.get("classes")
        )
        weights = by_class if weights is None else weights * by_class
    if weights is None:
        return None
    if not weights.any():
        raise DataError("sample_weight times class_weight is 0 for every row, so nothing would be learned")
    return weights.astype(net.dtype)


def choose_loss(net: MLP, loss: str | Loss | None) -> Loss:
    """Look a loss up, or choose the one that goes with the output activation, and check that the two fit."""
    chosen = default_loss(net.output) if loss is None else get_loss(loss)
    chosen.check_output(net.output)
    return chosen
