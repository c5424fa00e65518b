"""The weights of the first layer as images: what each neuron looks for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bpcore.errors import ShapeError, unknown
from bpcore.functions.ranges import check_count
from bpcore.plots.sources import as_weights
from bpcore.plots.style import draw_on

__all__ = ["first_layer"]

MOST = 64


def first_layer(
    source: Any,
    shape: tuple[int, int] | None = None,
    *,
    units: int | Iterable[int] | None = None,
    columns: int | None = None,
    same_scale: bool = True,
    ax: Any = None,
) -> Any:
    """Draw the weights that lead into neurons of the second layer as images, side by side.

    Parameters
    ----------
    source : MLP, Run, list of (W, b), or array_like of shape (n_1, n_2)
        Whose weights.
    shape : (int, int), optional
        Rows and columns of an image; their product is n_1. Default a square.
    units : int or sequence of int, optional
        How many neurons, or which, from 0. Default the first 64.
    columns : int, optional
        Images in a row. By default as many as rows, or a few more.
    same_scale : bool
        Whether colours mean the same in all images (default), or each image uses all of them.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        With one image of all tiles, a gap between them; blue is negative, red positive.

    Raises
    ------
    ShapeError
        If n_1 is no square and no shape is given, or the shape does not fit.
    UnknownNameError
        If there is no such neuron.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import bpcore as bp
    >>> ax = bp.plots.first_layer(bp.MLP([64, 10, 3], seed=0), units=6)
    >>> ax.images[0].get_array().shape
    (17, 26)
    """
    W = _matrix(source)
    n = W.shape[0]
    side = math.isqrt(n)
    if shape is None:
        if side * side != n:
            raise ShapeError(f"first_layer: {n} inputs are no square; give shape=(rows, columns) with a product of {n}")
        shape = side, side
    rows, across = shape
    if rows * across != n or rows < 1:
        raise ShapeError(f"first_layer: shape {tuple(shape)} has {rows * across} pixels; the network has {n} inputs")
    chosen = _choose(units, W.shape[1])
    columns = math.ceil(math.sqrt(len(chosen) * rows / across)) if columns is None else columns
    columns = min(check_count("first_layer: columns", columns, 1), len(chosen))
    lines = -(-len(chosen) // columns)
    mosaic = np.full((lines * (rows + 1) - 1, columns * (across + 1) - 1), np.nan)
    for k, unit in enumerate(chosen):
        tile = W[:, unit].reshape(rows, across)
        if not same_scale:
            tile = tile / max(float(np.abs(tile).max()), 1e-30)
        top, left = (k // columns) * (rows + 1), (k % columns) * (across + 1)
        mosaic[top : top + rows, left : left + across] = tile
    limit = max(float(np.nanmax(np.abs(mosaic))), 1e-30)
    height, width = mosaic.shape
    scale = 5.0 / max(height, width)
    with draw_on(ax, "bp.plots.first_layer", (width * scale + 0.9, height * scale + 0.3)) as ax:
        ax.grid(False)
        image = ax.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(xticks=[], yticks=[], title=f"W[1], {len(chosen)} of {W.shape[1]} neurons")
        for spine in ax.spines.values():
            spine.set_visible(False)
        if same_scale:
            ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    return ax


def _matrix(source: Any) -> Any:
    if isinstance(source, np.ndarray) and source.ndim == 2:
        return source.astype(np.float64)
    return as_weights(source, "first_layer")[0][0].astype(np.float64)


def _choose(units: int | Iterable[int] | None, n: int) -> list[int]:
    if units is None or isinstance(units, int):
        return list(range(min(n, MOST if units is None else check_count("first_layer: units", units, 1))))
    chosen = [int(unit) for unit in units]
    for unit in chosen:
        if not 0 <= unit < n:
            raise unknown("neuron of layer 2", unit, [f"0 to {n - 1}"])
    if not chosen:
        raise ShapeError("first_layer: units is empty; name at least one neuron")
    return chosen
