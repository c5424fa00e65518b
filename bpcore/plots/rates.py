"""The learning rate over a training."""

from __future__ import annotations

from typing import Any

from bpcore.errors import ConfigurationError
from bpcore.functions.ranges import check_count
from bpcore.functions.schedule import Schedule
from bpcore.plots.sources import as_history
from bpcore.plots.style import BLUE, draw_on, make_logarithmic

__all__ = ["learning_rate"]


def learning_rate(source: Any, *, steps: int = 100, steps_per_epoch: int = 1, log: bool = False, ax: Any = None) -> Any:
    """Draw the learning rate eta of a run, or of a schedule before it is used.

    Parameters
    ----------
    source : Run, History, list of dict, dict of sequences, or Schedule
        Of a run that was trained with ``record_steps=True`` each step is drawn, of others the last step of each epoch.
    steps : int
        How many steps of a schedule are drawn. Default 100.
    steps_per_epoch : int
        Steps of an epoch, for a schedule with ``per="epoch"``. Default 1.
    log : bool
        Whether the axis of eta is logarithmic. Default False.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    matplotlib Axes
        With one line.

    Raises
    ------
    ConfigurationError
        If the source has no learning rates, or a number is out of range.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import bpcore as bp
    >>> ax = bp.plots.learning_rate(bp.WarmUp(10, bp.Cosine(0.1, 100)), steps=110)
    >>> len(ax.lines[0].get_xdata())
    110
    """
    if isinstance(source, Schedule):
        check_count("learning_rate: steps", steps, 1)
        check_count("learning_rate: steps_per_epoch", steps_per_epoch, 1)
        state = source.initial_state()
        values: Any = [source.at(step, step // steps_per_epoch, state) for step in range(steps)]
        at: Any = range(1, steps + 1)
        label = "step"
    else:
        history = as_history(source, "learning_rate")
        if "eta" not in history.columns and not len(history.etas):
            raise ConfigurationError(
                f"learning_rate: the history has no column eta; it has {', '.join(history.columns)}"
            )
        if len(history.etas):
            at, values, label = range(1, len(history.etas) + 1), history.etas, "step"
        else:
            at, values, label = history["epoch"], history["eta"], "epoch"
    with draw_on(ax, "bp.plots.learning_rate") as ax:
        # what holds for a step holds until the next
        ax.plot(at, values, color=BLUE, label="eta", marker="o" if len(at) == 1 else "", drawstyle="steps-post")
        ax.set(xlabel=label, ylabel="learning rate $\\eta$")
        if log:
            make_logarithmic(ax)
        else:
            ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return ax
