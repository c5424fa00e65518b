"""Data that stays where it is, in memory of the host or in a file, and of which a few rows at a time are computed with.

A :class:`HostProblem` is checked like any other :class:`~bpcore.problem.Problem`, a block of rows at a time. What it
holds is the array as it was given, of whatever dtype; rows become what the network reads when they are gathered. A
matrix of one-hot targets is never made: its rows are those of a small table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.staging import Columns
from bpcore.data.arrays import check_rows, host_array, is_plain, row_blocks
from bpcore.data.targets import EncodedTargets, class_threshold, encode_targets, smooth
from bpcore.errors import ConfigurationError
from bpcore.functions.losses import Loss
from bpcore.network import MLP
from bpcore.problem import Problem, row_weights_of
from bpcore.typing import Array, DType, NDArray

__all__ = ["HostProblem", "HostRows", "would_be_copied"]

Rows = NDArray[np.int64] | slice


@dataclass(frozen=True)
class HostRows:
    """A matrix of which rows are made when they are asked for.

    Attributes
    ----------
    source : ndarray, shape (p, n)
        Numbers of any real dtype.
    labels : ndarray of int64, shape (m,), or None
        Row of ``source`` that each row of the matrix is; None if they are the same.
    smoothing : float
        Label smoothing.
    """

    source: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    smoothing: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.source if self.labels is None else self.labels), int(self.source.shape[1])

    @np.errstate(over="ignore")  # values were checked
    def write(self, rows: Rows, out: NDArray[Any]) -> None:
        """Write some rows into an array of the network's dtype."""
        if self.labels is not None:
            rows = self.labels[rows]
        if self.smoothing:
            out[...] = smooth(self.source[rows], self.smoothing)
        elif isinstance(rows, slice) or self.source.dtype != out.dtype:
            out[...] = self.source[rows]
        else:
            # numbers are in range; with mode "raise" NumPy would make a copy first
            np.take(self.source, rows, axis=0, out=out, mode="clip")


@dataclass(frozen=True)
class HostProblem(Problem):
    """Data on the host for a network that may be on a device; attributes as :class:`~bpcore.problem.Problem`.

    X and Y are :class:`HostRows`; labels and weights are NumPy arrays.
    """

    dtype: DType

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
    ) -> HostProblem:
        """Check the data of a network and leave it where it is; parameters as for :meth:`Problem.prepare`.

        Raises
        ------
        ConfigurationError
            If X or Y is on a device.
        ShapeError, DataError
            As for :meth:`Problem.prepare`.
        """
        for name, array in zip(names, (X, Y), strict=True):
            if hasattr(array, "__cuda_array_interface__"):
                raise ConfigurationError(
                    f"data='stream' is for data on the host, and {name} is in the memory of a GPU already; use "
                    "data='resident' or 'auto', or copy it to the host (CuPy: cupy.asnumpy(a))"
                )
        matrix = check_rows(X, name=names[0], n_columns=net.sizes[0], dtype=net.dtype, layer=1)
        Y_rows, targets = _targets(net, Y, loss, len(matrix), names[1])
        weights = row_weights_of(net, targets.labels, len(matrix), sample_weight, class_weight)
        threshold = 0.5 if net.output.range == (0, 1) else targets.threshold
        return cls(HostRows(matrix), Y_rows, targets.labels, weights, threshold, net.dtype)

    @property
    def columns(self) -> Columns:
        """What a row consists of on the device."""
        found: dict[str, tuple[tuple[int, ...], Any]] = {
            "X": (self.X.shape[1:], self.dtype),
            "Y": (self.Y.shape[1:], self.dtype),
        }
        if self.labels is not None:
            found["labels"] = (), np.dtype(np.int64)
        if self.weights is not None:
            found["weights"] = (), self.dtype
        return found

    def write(self, rows: Rows, out: Mapping[str, NDArray[Any]]) -> None:
        """Gather some rows into arrays of :attr:`columns`."""
        self.X.write(rows, out["X"])
        self.Y.write(rows, out["Y"])
        for name, array in (("labels", self.labels), ("weights", self.weights)):
            if array is not None:
                out[name][...] = array[rows]

    def on_host(self, rows: slice, be: Backend, dtype: DType) -> tuple[NDArray[Any], NDArray[Any]]:
        """Targets (m, n_L) and weights (m,) of some rows, as NumPy arrays of a dtype."""
        Y = np.empty((rows.stop - rows.start, self.Y.shape[1]), dtype)
        self.Y.write(rows, Y)
        return Y, np.ones(len(Y), dtype) if self.weights is None else self.weights[rows]

    def small(self, arrays: Mapping[str, Array]) -> Problem:
        """Return the problem of the rows that were gathered."""
        return Problem(arrays["X"], arrays["Y"], arrays.get("labels"), arrays.get("weights"), self.threshold)


def _targets(net: MLP, Y: Any, loss: Loss, m: int, name: str) -> tuple[HostRows, EncodedTargets]:
    """Targets as rows, and their encoding without the matrix that it would have."""
    n_out, classes = net.sizes[-1], net.meta.get("classes")
    how: dict[str, Any] = dict(n_out=n_out, loss_targets=loss, dtype=net.dtype, classes=classes, name=name)
    values = host_array(Y, name=name, allow_text=True)
    if values.ndim != 2 or n_out == 1 or len(values) != m:
        if values.ndim == 1 and n_out > 1 and len(values) == m:
            return _one_hot(values, how)
        whole = encode_targets(values, n_rows=m, **how)  # a column, or what it refuses
        return HostRows(whole.Y), whole
    labels: list[NDArray[np.int64]] = []
    for block in row_blocks(m, n_out * values.itemsize):
        part = encode_targets(values[block], **_named(how, block, m))
        if part.labels is not None:
            labels.append(part.labels)
    found = np.concatenate(labels) if labels else np.empty(0, np.int64)
    smoothing = float(loss.label_smoothing) if loss.target_kind == "distribution" else 0.0
    rows = HostRows(values, smoothing=smoothing)
    known = found if len(found) == m else None  # in a part they may look like classes, and not in the whole
    return rows, EncodedTargets(values, known, class_threshold(loss))


def _named(how: dict[str, Any], block: slice, m: int) -> dict[str, Any]:
    """Let messages name the block, unless it is the whole."""
    part = "" if block.stop - block.start == m else f"[{block.start}:{block.stop}]"
    return {**how, "name": f"{how['name']}{part}"}


def _one_hot(values: NDArray[Any], how: dict[str, Any]) -> tuple[HostRows, EncodedTargets]:
    """Labels, and the table of the rows that they stand for."""
    n_out, m = how["n_out"], len(values)
    labels = np.empty(m, np.int64)
    for block in row_blocks(m, 8 * n_out):
        part = encode_targets(values[block], **_named(how, block, m)).labels
        assert part is not None  # a vector of labels
        labels[block] = part
    table = encode_targets(np.arange(n_out), **{**how, "classes": None})
    return HostRows(table.Y, labels), EncodedTargets(table.Y, labels, table.threshold)


def would_be_copied(X: Any, n_columns: int, dtype: DType) -> bool:
    """Whether a matrix in a file (:class:`numpy.memmap`) would be read into memory as a whole to be computed with.

    Examples
    --------
    >>> would_be_copied(np.zeros((2, 3)), 3, np.dtype(np.float32))
    False
    """
    if not isinstance(X, np.memmap) or X.ndim != 2:
        return False
    return not is_plain(X, (len(X), n_columns), dtype)
