"""Losses and metrics over the epochs."""

from __future__ import annotations

from typing import Any

from bpcore.errors import unknown
from bpcore.plots.sources import as_history
from bpcore.plots.style import BLUE, GREY, RED, draw_on, make_logarithmic
from bpcore.training.run import Run

__all__ = ["curves"]

PARTS = (("", "training", "-", BLUE), ("val_", "validation", "--", RED))
NO_METRIC = ("epoch", "step", "loss", "eta", "seconds", "penalty")


def curves(
    source: Any,
    *,
    metric: str | None = "auto",
    log: bool = False,
    name: str = "",
    colour: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the losses over the epochs, with those of the validation data, and a metric on an axis to the right.

    Parameters
    ----------
    source : Run, History, list of dict, or dict of sequences
        Where the numbers are; see :func:`bpcore.train`. Of a run whose network holds the parameters of the best epoch,
        that epoch is marked.
    metric : str or None
        Column without ``val_`` that is drawn to the right, such as ``"accuracy"``, ``"rmse"`` or the name of one of
        your own. None for none. Default ``"auto"``: the accuracy, if there is one.
    log : bool
        Whether losses are on a logarithmic axis. Default False.
    name : str
        What the curves are called in the legend, to tell several runs on the same axes apart.
    colour : str, optional
        Colour of all curves of this run; by default training is blue and validation red.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        The axes of the losses. Those of the metric are ``ax.metric_axes``, None without a metric.

    Raises
    ------
    ConfigurationError
        If the source has no numbers.
    UnknownNameError
        If the history has no such metric.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import bpcore as bp
    >>> ax = bp.plots.curves({"loss": [0.7, 0.4, 0.3], "val_loss": [0.8, 0.6, 0.7]})
    >>> [line.get_label() for line in ax.lines]
    ['training loss', 'validation loss']
    """
    history = as_history(source, "curves")
    shown = _choose_metric(history.columns, metric)
    if "loss" not in history.columns and "val_loss" not in history.columns:
        raise unknown("column of the history", "loss", history.columns)
    epochs = history["epoch"]
    with draw_on(ax, "bp.plots.curves") as ax:
        one = {"marker": "o"} if len(epochs) == 1 else {}
        suffix = f", {name}" if name else ""
        for prefix, part, dash, own in PARTS:
            if prefix + "loss" in history.columns:
                values = history[prefix + "loss"]
                label = f"{part} loss{suffix}"
                ax.plot(epochs, values, dash, color=colour or own, label=label, **one)
        best = source.best_epoch if isinstance(source, Run) and source.kept == "best" else None
        if best is not None and len(history) > 1:
            ax.axvline(best, color=GREY, linewidth=0.8, linestyle=":")
            late = 2 * best > epochs[0] + epochs[-1]
            ax.annotate(
                "best epoch", (best, 0.3), xycoords=ax.get_xaxis_transform(), xytext=(-2 if late else 2, 0),
                textcoords="offset points", ha="right" if late else "left", va="center", rotation=90,
                fontsize="small", color=GREY,
            )  # fmt: skip
        ax.set(xlabel="epoch", ylabel="loss")
        if log:
            make_logarithmic(ax)
        ax.xaxis.get_major_locator().set_params(integer=True)
        right = getattr(ax, "metric_axes", None)
        if shown is not None:
            if right is None:
                right = ax.twinx()
                right.grid(False)
                right.spines["right"].set_visible(True)
            right.set_ylabel(f"{shown} (thin)")
            for prefix, part, dash, own in PARTS:
                if prefix + shown in history.columns:
                    values, label = history[prefix + shown], f"{part} {shown}{suffix}"
                    style = {"linewidth": 0.9, "alpha": 0.9, "color": colour or own, "label": label}
                    right.plot(epochs, values, dash, **style, **one)
            if shown.endswith("accuracy"):
                right.set_ylim(top=1.02)
        ax.metric_axes = right
        _legend(ax, right)
    return ax


def _choose_metric(columns: tuple[str, ...], metric: str | None) -> str | None:
    names = dict.fromkeys(column.removeprefix("val_") for column in columns)
    known = [name for name in names if name not in NO_METRIC]
    if metric == "auto":
        return "accuracy" if "accuracy" in known else None
    if metric is not None and metric not in known:
        raise unknown("metric of the history", metric, known)
    return metric


def _legend(ax: Any, right: Any) -> None:
    """Name the lines of both axes in one legend, which lies on top of all lines."""
    both = [ax] if right is None else [ax, right]
    handles = [line for axes in both for line in axes.lines if not line.get_label().startswith("_")]
    if right is not None and ax.get_legend() is not None:
        ax.get_legend().remove()
    both[-1].legend(handles=handles, loc="best" if right is None else "center right", fontsize="small")
