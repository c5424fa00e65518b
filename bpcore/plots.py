"""Pictures of training, with matplotlib (extra ``plot``)."""

from __future__ import annotations

from typing import Any

from bpcore.errors import missing_extra
from bpcore.training.history import History

__all__ = ["plot_history"]


def plot_history(history: History, ax: Any = None) -> Any:
    """Draw the losses, and the accuracies when there are any, over the epochs; see :meth:`bpcore.Run.plot`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise missing_extra("matplotlib", "plot", "run.plot()") from None
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    epochs: Any = history["epoch"] if len(history) else []
    colours = {"": "C0", "val_": "C1"}
    lines = []
    for prefix, label in (("", "training"), ("val_", "validation")):
        if prefix + "loss" in history.columns:
            lines += ax.plot(epochs, history[prefix + "loss"], colours[prefix], label=f"{label} loss")
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel("loss")
    if "accuracy" in history.columns:
        right = ax.twinx()
        right.set_ylabel("accuracy (dashed)")
        right.set_ylim(top=1.0)
        for prefix, label in (("", "training"), ("val_", "validation")):
            if prefix + "accuracy" in history.columns:
                accuracies = history[prefix + "accuracy"]
                lines += right.plot(epochs, accuracies, colours[prefix], linestyle="--", label=f"{label} accuracy")
    if lines:
        ax.legend(handles=lines, loc="center right")
    return ax
