"""The result of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpcore.network import MLP
from bpcore.training.history import History
from bpcore.training.progress import summary

__all__ = ["Run"]


@dataclass
class Run:
    """What :func:`bpcore.train` returns.

    Attributes
    ----------
    net : MLP
        The trained network (the one that was passed in).
    history : History
        One row an epoch.
    stopped_because : str
        The reason of the end.
    record : dict
        Backend, device, dtype, threads, plan, versions, seeds and settings, with the reasons of what was chosen.
    steps : int
        Number of steps.
    seconds : float
        Duration of the training itself, validation included.
    best_epoch : int or None
        Epoch of the best value of the monitored column, when one was monitored.
    kept : str
        ``"last"`` or ``"best"``: which parameters the network holds now.
    """

    net: MLP
    history: History
    stopped_because: str
    record: dict[str, Any]
    steps: int
    seconds: float
    best_epoch: int | None = None
    kept: str = "last"

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses, and the accuracies when there are any, over the epochs; see :func:`bpcore.plots.curves`.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw the losses; by default a new figure.

        Returns
        -------
        matplotlib Axes
            The axes of the losses; accuracies are on a twin axis to the right.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        from bpcore.plots import curves

        return curves(self, ax=ax)

    def __str__(self) -> str:
        last = summary(self.history[-1]) if len(self.history) else "no finished epoch"
        return (
            f"{len(self.history)} epochs, {self.steps} steps in {self.seconds:.2f} s on {self.record['backend']}: "
            f"{last}; stopped: {self.stopped_because}"
        )
