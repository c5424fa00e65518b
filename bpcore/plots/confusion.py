"""Which classes are taken for which: the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bpcore.data.arrays import host_array
from bpcore.errors import ConfigurationError, DataError, ShapeError, unknown
from bpcore.network import MLP
from bpcore.plots.boundary import class_numbers
from bpcore.plots.sources import as_network
from bpcore.plots.style import draw_on
from bpcore.training.run import Run
from bpcore.typing import NDArray

__all__ = ["confusion_matrix"]

MOST_WRITTEN = 20
"""Classes up to which the numbers are written into the cells."""


def confusion_matrix(
    source: Any,
    X: Any = None,
    Y: Any = None,
    *,
    classes: Sequence[object] | None = None,
    normalise: Literal["rows", "columns"] | None = None,
    ax: Any = None,
) -> Any:
    """Draw how many samples of each class (rows) were taken for each class (columns).

    Parameters
    ----------
    source : MLP, Run, or array_like
        A network, with samples X and their classes Y; or the true classes (m,), with the predicted ones as X; or a
        table of counts (k, k) alone.
    X, Y : array_like
        As `source` needs them.
    classes : sequence, optional
        Names of the classes; by default those of ``net.meta["classes"]``, else numbers.
    normalise : ``"rows"``, ``"columns"`` or None
        Draw shares of each true class (the diagonal is the recall) or of each predicted one (precision) instead of
        counts. Default None.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        Its image holds the numbers; up to 20 classes they are written into the cells.

    Raises
    ------
    ShapeError, DataError
        If arrays do not fit.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import bpcore as bp
    >>> ax = bp.plots.confusion_matrix([0, 0, 1], [0, 1, 1], classes=["cat", "dog"])
    >>> ax.images[0].get_array().tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    if normalise not in (None, "rows", "columns"):
        raise unknown("value for normalise", normalise, ["rows", "columns"])
    counts, names = _counts(source, X, Y)
    k = len(counts)
    words = [str(name) for name in (classes if classes is not None else names or range(k))]
    if len(words) != k:
        raise ShapeError(f"confusion_matrix: classes lists {len(words)} names; there are {k} classes")
    shown = counts.astype(np.float64)
    if normalise is not None:
        sums = shown.sum(axis=1 if normalise == "rows" else 0, keepdims=True)
        shown = np.divide(shown, sums, out=np.zeros_like(shown), where=sums > 0)
    side = min(max(2.8, 0.55 * k + 1.2), 8.0)
    with draw_on(ax, "bp.plots.confusion_matrix", (side + (0.8 if k > MOST_WRITTEN else 0.3), side)) as ax:
        ax.grid(False)
        top = 1.0 if normalise else max(float(shown.max()), 1.0)
        image = ax.imshow(shown, cmap="Blues", vmin=0, vmax=top)
        if k <= MOST_WRITTEN:
            for (i, j), value in np.ndenumerate(shown):
                text = f"{counts[i, j]:,}" if normalise is None else f"{value:.2f}"
                if counts[i, j]:
                    colour = "white" if value > 0.55 * top else "black"
                    ax.text(j, i, text, ha="center", va="center", color=colour, fontsize="small" if k > 8 else None)
        else:
            ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
        every = -(-k // 25)  # more names than that overlap
        at = np.arange(0, k, every)
        turned = max(len(words[i]) for i in at) * len(at) > 30
        ax.set_xticks(at, [words[i] for i in at], rotation=90 if turned else 0)
        ax.set_yticks(at, [words[i] for i in at])
        ax.set(xlabel="predicted", ylabel="true")
    return ax


def _counts(source: Any, X: Any, Y: Any) -> tuple[NDArray[np.int64], Sequence[object] | None]:
    """The table, and the names of the classes where a network knows them."""
    if isinstance(source, MLP | Run):
        net = as_network(source, "confusion_matrix")
        if X is None or Y is None:
            raise ConfigurationError("confusion_matrix: a network needs samples and their classes; give X and Y")
        predicted = net.predict_classes(X)
        truth, names, n = _labels(net, Y, len(predicted)), net.meta.get("classes"), max(net.sizes[-1], 2)
        return _table(truth, predicted, n), names
    if Y is not None:
        raise ConfigurationError("confusion_matrix: Y goes with a network; two lists of classes are source and X")
    first = host_array(source, name="source")
    if X is None:
        if first.ndim != 2 or first.shape[0] != first.shape[1] or not first.size:
            raise ShapeError(f"confusion_matrix: counts have shape {first.shape}; a square table (k, k) is needed")
        counts = first.astype(np.int64)
        if (counts != first).any() or (counts < 0).any():
            raise DataError("confusion_matrix: counts must be whole numbers of at least 0")
        return counts, None
    truth = class_numbers(first, len(first), "confusion_matrix")
    return _table(truth, class_numbers(X, len(first), "confusion_matrix"), 0), None


def _labels(net: MLP, Y: Any, m: int) -> NDArray[np.int64]:
    """Classes as numbers; names of classes are looked up where the network knows them."""
    values = host_array(Y, name="Y", allow_text=True)
    names = net.meta.get("classes")
    if values.dtype.kind in "UOT" and names:
        place = {str(name): k for k, name in enumerate(names)}
        missing = sorted({str(value) for value in values.ravel()} - set(place))
        if missing:
            raise unknown("class", missing[0], place)
        return np.array([place[str(value)] for value in values.ravel()], np.int64)
    return class_numbers(values, m, "confusion_matrix")


def _table(truth: NDArray[np.int64], predicted: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    if not len(truth):
        raise DataError("confusion_matrix: there are no samples")
    n = max(n, int(truth.max()) + 1, int(predicted.max()) + 1)
    counts = np.zeros((n, n), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts
