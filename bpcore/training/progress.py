"""Showing how far a training is: its bar, and the metrics of an epoch on one line."""

from __future__ import annotations

from bpcore.bar import Bar
from bpcore.training.history import Row

__all__ = ["ProgressBar", "summary"]


def summary(row: Row) -> str:
    """Write the metrics of an epoch on one line.

    Examples
    --------
    >>> summary({"epoch": 3, "loss": 0.12345, "val_accuracy": 0.975, "eta": 0.1})
    'loss 0.1235  val_accuracy 97.50 %'
    """
    parts = []
    for name, value in row.items():
        if name.endswith("accuracy"):
            parts.append(f"{name} {100 * value:.2f} %")
        elif name.endswith(("loss", "rmse", "r2", "penalty")):
            parts.append(f"{name} {value:.4g}")
    return "  ".join(parts)


class ProgressBar(Bar):
    """A progress bar over steps with the metrics of the last epoch beside it.

    Parameters
    ----------
    total : int
        Number of steps.
    verbose : bool or None
        As for :class:`~bpcore.bar.Bar`.
    """

    def __init__(self, total: int, verbose: bool | None = None) -> None:
        super().__init__("training", total, verbose, stays=True)

    def epoch(self, row: Row) -> None:
        """Show the metrics of an epoch."""
        self.show(text=f"epoch {int(row['epoch'])}", beside=summary(row))
