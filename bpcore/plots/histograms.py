"""How weights and activations are distributed, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from bpcore.calls import forward
from bpcore.errors import unknown
from bpcore.functions.ranges import check_count
from bpcore.plots.sources import as_network, as_weights, choose_layers
from bpcore.plots.style import BLUE, RED, draw_panels
from bpcore.typing import NDArray

__all__ = ["activation_histograms", "histogram", "weight_histograms"]

PANEL = (2.4, 1.9)
ROWS = 4096
"""Samples at most that are propagated for a picture."""


def weight_histograms(source: Any, *, layers: int | Iterable[int] | None = None, bins: int = 50, ax: Any = None) -> Any:
    """Draw a histogram of the weights of each layer, with its biases as marks below.

    Parameters
    ----------
    source : MLP, Run, or list of (W, b)
        Whose parameters.
    layers : int or sequence of int, optional
        Which of the layers 1 ... L-1, by the number of the layer that the weights leave. Default all.
    bins : int
        Bars of a histogram. Default 50.
    ax : matplotlib Axes or sequence of them, optional
        One for each layer; by default a new figure.

    Returns
    -------
    matplotlib Figure
        ``figure.axes[k]`` is the panel of the k-th of the layers.

    Raises
    ------
    ConfigurationError, ShapeError
        If the source holds no weights, or there are not as many axes as layers.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import bpcore as bp
    >>> figure = bp.plots.weight_histograms(bp.MLP([3, 20, 2], seed=0))
    >>> [axes.get_title() for axes in figure.axes]
    ['W[1] 3 x 20', 'W[2] 20 x 2']
    """
    pairs = as_weights(source, "weight_histograms")
    check_count("weight_histograms: bins", bins, 1)
    chosen = choose_layers(layers, range(1, len(pairs) + 1), "weight_histograms")
    with draw_panels(ax, len(chosen), "bp.plots.weight_histograms", PANEL) as panels:
        for panel, layer in zip(panels, chosen, strict=True):
            W, b = pairs[layer - 1]
            histogram(panel, W, bins=bins, label="weights")
            if np.any(b):
                # marks, not a second histogram: few equal numbers would make it higher than all weights
                at, here = b[np.isfinite(b)], panel.get_xaxis_transform()
                panel.plot(at, np.full(len(at), 0.03), "|", color=RED, label="biases", transform=here, markersize=7)
                if panel is panels[0]:
                    panel.legend(loc="upper right", fontsize="small")
            panel.set(title=f"W[{layer}] {W.shape[0]} x {W.shape[1]}", ylabel="density" if panel is panels[0] else "")
        return panels[0].figure


def activation_histograms(
    source: Any,
    X: Any,
    *,
    of: Literal["H", "Z"] = "H",
    layers: int | Iterable[int] | None = None,
    bins: int = 50,
    ax: Any = None,
) -> Any:
    """Draw a histogram of what the neurons of each layer are for some samples.

    Parameters
    ----------
    source : MLP or Run
        The network.
    X : array_like, shape (m, n_1)
        Samples, as the network takes them; of more than 4096, so many spread evenly.
    of : ``"H"`` or ``"Z"``
        Activations (default), or pre-activations.
    layers : int or sequence of int, optional
        Which of the layers 2 ... L. Default all.
    bins : int
        Bars of a histogram. Default 50.
    ax : matplotlib Axes or sequence of them, optional
        One for each layer; by default a new figure.

    Returns
    -------
    matplotlib Figure
        ``figure.axes[k]`` is the panel of the k-th of the layers. The share of zeros is in its title, when there are
        any.

    Raises
    ------
    ShapeError, DataError
        If X does not fit the network.
    MissingExtraError
        If matplotlib is not installed.
    """
    net = as_network(source, "activation_histograms")
    if of not in ("H", "Z"):
        raise unknown("quantity", of, ["H", "Z"])
    check_count("activation_histograms: bins", bins, 1)
    chosen = choose_layers(layers, range(2, net.n_layers + 1), "activation_histograms")
    if hasattr(X, "shape") and len(X.shape) == 2 and X.shape[0] > ROWS:
        X = X[:: -(-X.shape[0] // ROWS)]
    trace = forward(net, X)
    arrays = trace.H if of == "H" else trace.Z
    with draw_panels(ax, len(chosen), "bp.plots.activation_histograms", PANEL) as panels:
        for panel, layer in zip(panels, chosen, strict=True):
            values = net.backend.to_numpy(arrays[layer])
            zeros = float(np.mean(values == 0))
            histogram(panel, values, bins=bins)
            title = f"{of}[{layer}] {net.activations[layer].name}"
            panel.set(title=title + (f", {100 * zeros:.0f} % zeros" if zeros >= 0.005 else ""))
            panel.set_ylabel("density" if panel is panels[0] else "")
        return panels[0].figure


def histogram(
    ax: Any,
    values: NDArray[Any],
    *,
    bins: int = 50,
    reach: tuple[float, float] | None = None,
    label: str = "",
    colour: str = BLUE,
) -> None:
    """Draw the density of some numbers; those that are not finite are left out and counted in the label."""
    flat = np.asarray(values, np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    lost = len(flat) - len(finite)
    words = ", ".join([*([label] if label else []), *([f"{lost} not finite"] if lost else [])])
    if not len(finite):
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center")
        return
    low, high = reach or (float(finite.min()), float(finite.max()))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):  # all the same: bins need a width
        low, high = low - 0.5, high + 0.5
    look = {"histtype": "stepfilled", "alpha": 0.65, "color": colour}
    ax.hist(finite, bins=bins, range=(low, high), density=True, label=words or None, **look)
