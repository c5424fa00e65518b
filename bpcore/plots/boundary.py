"""Which class a network gives to each point of the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpcore.data.arrays import host_array
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.functions.ranges import check_count, check_number
from bpcore.network import MLP
from bpcore.plots.sources import as_network
from bpcore.plots.style import COLOURS, draw_on
from bpcore.training.run import Run
from bpcore.typing import FloatArray, NDArray

__all__ = ["decision_boundary"]

MARKERS = "os^DvPX*<>"
MOST_CLASSES = len(MARKERS)


def decision_boundary(
    source: MLP | Run | Callable[[FloatArray], Any],
    X: Any,
    Y: Any = None,
    *,
    classes: Sequence[object] | None = None,
    features: tuple[str, str] | None = None,
    points: int = 200,
    margin: float = 0.1,
    ax: Any = None,
) -> Any:
    """Colour the plane by the class that is predicted, with the samples on top.

    Parameters
    ----------
    source : MLP, Run or function
        A network with two inputs, or a function of points (n, 2) that returns their classes (n,), whole numbers: so
        data that was standardised can be drawn in its own units.
    X : array_like, shape (m, 2)
        Samples; the picture is as large as they need.
    Y : array_like of int, shape (m,) or (m, 1), or one-hot (m, k), optional
        Their classes. Without them no samples are drawn.
    classes : sequence, optional
        Names of the classes; by default those of ``net.meta["classes"]``, else numbers.
    features : (str, str), optional
        Names of the two inputs; by default ``net.meta["feature_names"]``, else x1 and x2.
    points : int
        Points of the grid in each direction. Default 200.
    margin : float
        Room around the samples, as a share of their range. Default 0.1.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        With the regions, and one line of markers for each class of Y.

    Raises
    ------
    ShapeError
        If there are not two inputs, or X and Y do not fit.
    DataError
        If there are more than ten classes, or Y holds something else than classes.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> ax = bp.plots.decision_boundary(lambda points: points[:, 0] > 0.5, X, [0, 1])
    >>> [line.get_label() for line in ax.lines]
    ['0', '1']
    """
    samples = host_array(X, name="X")
    if samples.ndim != 2 or samples.shape[1] != 2 or not len(samples):
        raise ShapeError(
            f"decision_boundary: X has shape {samples.shape}; a picture of the plane needs (m, 2). Choose two columns, "
            "train a network on them, or give a function that fills in the other inputs"
        )
    if not np.isfinite(samples).all():
        raise DataError("decision_boundary: X holds NaN or infinite values")
    predict, names, inputs = _predictor(source)
    labels = None if Y is None else class_numbers(Y, len(samples), "decision_boundary")
    check_count("decision_boundary: points", points, 2)
    low, high = samples.min(axis=0).astype(np.float64), samples.max(axis=0).astype(np.float64)
    room = check_number("decision_boundary: margin", margin, "[0, inf)") * np.where(high > low, high - low, 1.0)
    sides = [np.linspace(a, b, points) for a, b in zip(low - room, high + room, strict=True)]
    grid = np.meshgrid(*sides)
    found = np.asarray(predict(np.stack([part.ravel() for part in grid], axis=1)))
    if found.shape != (points * points,):
        raise ShapeError(
            f"decision_boundary: the function returned shape {found.shape} for {points * points} points; one class "
            "for each is needed"
        )
    regions = found.astype(np.int64).reshape(points, points)
    n = 1 + max(int(regions.max()), -1 if labels is None else int(labels.max()))
    if n > MOST_CLASSES:
        raise DataError(f"decision_boundary: {n} classes; at most {MOST_CLASSES} can be told apart in one picture")
    words = [str(name) for name in (classes if classes is not None else names or range(n))]
    if len(words) < n:
        raise ShapeError(f"decision_boundary: classes lists {len(words)} names; there are {n} classes")
    colours = class_colours(n)
    with draw_on(ax, "bp.plots.decision_boundary", (4.4, 3.8)) as ax:
        ax.grid(False)
        ax.contourf(*grid, regions, levels=np.arange(n + 1) - 0.5, colors=colours, alpha=0.25)
        if labels is not None:
            size = 3.5 if len(samples) <= 500 else 2.0
            for k in range(n):
                here = samples[labels == k]
                if len(here):
                    ax.plot(*here.T, MARKERS[k], color=colours[k], markersize=size, linestyle="", label=words[k])
            ax.legend(loc="best", handletextpad=0.1, borderpad=0.3, fontsize="small")
        first, second = features or inputs or ("$x_1$", "$x_2$")
        ax.set(xlabel=first, ylabel=second, xlim=sides[0][[0, -1]], ylim=sides[1][[0, -1]])
    return ax


def class_colours(n: int) -> list[str]:
    """Return `n` colours that differ, none of them black, which is lost on black paper."""
    more = ("#8C564B", "#BCBD22", "#7F7F7F", "#6A3D9A")
    return [*COLOURS[:-1], *more][:n]


def class_numbers(Y: Any, m: int, purpose: str) -> NDArray[np.int64]:
    """Return classes as whole numbers from 0, of labels or of one-hot rows."""
    values = host_array(Y, name="Y")
    if values.ndim == 2 and values.shape[1] > 1 and len(values) == m:
        return np.asarray(values.argmax(axis=1), np.int64)
    flat = values.reshape(-1) if values.ndim == 2 else values
    if flat.shape != (m,):
        raise ShapeError(f"{purpose}: Y has shape {values.shape}; one class for each of the {m} samples is needed")
    numbers = flat.astype(np.int64)
    if (numbers != flat).any() or (numbers < 0).any():
        raise DataError(f"{purpose}: Y must hold classes, whole numbers from 0; found {flat[numbers != flat][:3]}")
    return numbers


def _predictor(source: Any) -> tuple[Callable[[FloatArray], Any], Sequence[object] | None, Any]:
    """A function of points, names of the classes and names of the inputs."""
    if not isinstance(source, MLP | Run) and callable(source):
        return source, None, None
    net = as_network(source, "decision_boundary")
    if net.sizes[0] != 2:
        raise ShapeError(f"decision_boundary: the network has {net.sizes[0]} inputs; a picture of the plane needs 2")
    if net.sizes[-1] == 1 and net.output.range not in ((0, 1), (-1, 1)) and "classes" not in net.meta:
        raise ConfigurationError(
            f"decision_boundary: the only output of the network is {net.output.name}, a number and no class; give a "
            "function, such as lambda points: net.predict(points)[:, 0] > 0.5"
        )
    names = net.meta.get("feature_names")
    inputs = tuple(names) if isinstance(names, list | tuple) and len(names) == 2 else None
    return net.predict_classes, net.meta.get("classes"), inputs
