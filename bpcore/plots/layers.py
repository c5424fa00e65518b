"""What an inspection found: layers side by side, and layers over the steps of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.errors import ConfigurationError, unknown
from bpcore.plots.style import BLUE, GREEN, GREY, RED, draw_on, draw_panels, make_logarithmic, mark_layers, shades
from bpcore.typing import FloatArray, NDArray

if TYPE_CHECKING:
    from bpcore.inspection.inspector import Inspector
    from bpcore.inspection.report import InspectionReport

__all__ = ["by_layer", "over_time"]

PANEL = (3.2, 2.6)

WORDS = {
    "gradient_ratio": "gradient / weights",
    "update_ratio": "update / weights",
    "flat_share": "share that is flat",
    "dead": "dead neurons",
    "saturated": "saturated neurons",
}
LINEAR = ("mean", "min", "max", "zeros", "not_finite", "flat_share", "dead", "saturated")
"""What is drawn on a linear axis: shares, counts, and what may be negative."""


def by_layer(report: InspectionReport, *, ax: Any = None) -> Any:
    """Draw the numbers of one look over the layers: sizes, ratios to the weights, and neurons that do not respond.

    Parameters
    ----------
    report : InspectionReport
        What :func:`bpcore.inspect` returned.
    ax : sequence of three matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Figure
        ``figure.axes``: the root mean squares of Z, H and Delta; gradient and update over weights; the share of outputs
        that are flat (dead or saturated) and of zeros.

    Raises
    ------
    ConfigurationError
        If there are not three axes.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> net = bp.MLP([3, 8, 8, 2], seed=0, backend="numpy")
    >>> figure = bp.plots.by_layer(bp.inspect(net, X, X[:, 0] > 0))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['root mean square', 'share of the weights', 'share of the outputs']
    """
    layers = np.array([found.layer for found in report.layers])
    with draw_panels(ax, 3, "bp.plots.by_layer", PANEL, columns=3) as panels:
        sizes, ratios, shares = panels
        for name, style in (("Z", {"color": GREEN, "marker": "^"}), ("H", {"color": BLUE, "marker": "s"}),
                            ("Delta", {"color": RED, "marker": "o"})):  # fmt: skip
            values = [getattr(found, name).rms for found in report.layers]
            sizes.plot(layers, _positive(values), label=name, **style)
        _logarithmic(sizes)
        sizes.set(title="sizes", ylabel="root mean square")
        for field, name, style in (
            ("gradient_ratio", "gradient", {"color": RED, "marker": "o"}),
            ("update_ratio", "update", {"color": BLUE, "marker": "s"}),
        ):
            numbers = [getattr(found, field) for found in report.layers]
            if None not in numbers:
                ratios.plot(layers, _positive(numbers), label=name, **style)
        _logarithmic(ratios)
        ratios.set(title="weights that lead into the layer", ylabel="share of the weights")
        flat = [np.nan if found.flat_share is None else found.flat_share for found in report.layers]
        zeros = [found.H.zeros for found in report.layers]
        width = 0.38
        shares.bar(layers - width / 2, np.nan_to_num(flat), width, color=RED, label="flat (dead, saturated)")
        shares.bar(layers + width / 2, zeros, width, color=GREY, label="zeros in H")
        shares.set(title="outputs that do not respond", ylabel="share of the outputs", ylim=(0, 1.02))
        for panel in panels:
            panel.set_xlabel("layer")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.set_xlim(layers[0] - 0.7, layers[-1] + 0.7)
            panel.legend(loc="best", fontsize="small")
        return panels[0].figure


def over_time(inspector: Inspector, quantity: str | None = None, statistic: str = "rms", *, ax: Any = None) -> Any:
    """Draw what an inspector saw over the steps of a training, a line for each layer.

    Parameters
    ----------
    inspector : Inspector
        After, or during, a training.
    quantity : str, optional
        What is drawn, with `statistic`, as for :meth:`bpcore.Inspector.series`. By default four panels: the loss, the
        errors Delta, update (or gradient) over weights, and the share of outputs that are flat.
    statistic : str
        Of an array. Default ``"rms"``.
    ax : matplotlib Axes, or sequence of four of them, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes, or Figure
        The axes of the quantity; the figure of the four panels in ``figure.axes``.

    Raises
    ------
    ConfigurationError
        If there was no look yet, or the axes do not fit.
    UnknownNameError
        If there is no such quantity or statistic.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not inspector.reports:
        raise ConfigurationError(
            "over_time: the inspector has not taken a look yet; train with callbacks=[inspector] first"
        )
    if quantity == "loss":
        raise unknown("quantity", quantity, ["None for four panels, among them the loss", *WORDS])
    if quantity is not None:
        steps, values = inspector.series(quantity, statistic)
        with draw_on(ax, "bp.plots.over_time") as ax:
            _lines(ax, steps, values, quantity, statistic)
        return ax
    with draw_panels(ax, 4, "bp.plots.over_time", PANEL, columns=2) as panels:
        reports = inspector.reports[-len(inspector.series("W")[0]) :]
        steps = np.array([report.step for report in reports])
        panels[0].plot(steps, [report.loss for report in reports], color=BLUE, marker=_marker(steps), label="loss")
        panels[0].set(title=f"{reports[-1].loss_name} of {reports[-1].samples} samples", ylabel="loss", xlabel="step")
        with_rule = reports[-1].layers[0].update_ratio is not None
        shown = ("Delta", "update_ratio" if with_rule else "gradient_ratio", "flat_share")
        for panel, name in zip(panels[1:], shown, strict=True):
            _lines(panel, *inspector.series(name), name, "rms")
        return panels[0].figure


def _lines(ax: Any, steps: NDArray[Any], values: dict[int, FloatArray], quantity: str, statistic: str) -> None:
    kind = quantity if quantity in WORDS else statistic
    linear = kind in LINEAR
    drawn = [number for number, line in values.items() if np.isfinite(line).any()]
    for number, colour in zip(values, shades(len(values)), strict=True):
        if number in drawn:
            line = values[number] if linear else _positive(values[number])
            ax.plot(steps, line, color=colour, marker=_marker(steps), label=str(number))
    words = WORDS.get(quantity, f"{statistic} of {quantity}")
    ax.set(title=words, ylabel=words, xlabel="step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if not drawn:
        ax.text(0.5, 0.5, "no layer can be", transform=ax.transAxes, ha="center", va="center")
        return
    if linear and kind.endswith("share"):
        ax.set_ylim(-0.02, 1.02)
    elif not linear:
        _logarithmic(ax)
    mark_layers(ax, list(values), "layer")


def _marker(steps: NDArray[Any]) -> str:
    return "o" if len(steps) <= 12 else ""


def _positive(values: Any) -> FloatArray:
    """Leave out what a logarithmic axis cannot show."""
    numbers = np.asarray(values, np.float64)
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan)


def _logarithmic(ax: Any) -> None:
    if any(np.isfinite(np.asarray(line.get_ydata(), np.float64)).any() for line in ax.lines):
        make_logarithmic(ax)
