"""Showing progress: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

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


class ProgressBar:
    """A progress bar over steps with the metrics of the last epoch beside it.

    Parameters
    ----------
    total : int
        Number of steps.
    verbose : bool or None
        True shows the bar, False nothing, None (default) shows it when standard error is a terminal.
    """

    def __init__(self, total: int, verbose: bool | None = None) -> None:
        shown = sys.stderr.isatty() if verbose is None else verbose
        self._bar: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=Console(stderr=True),
                transient=False,
            )
            self._task = self._bar.add_task("training", total=total, metrics="")

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, steps: int) -> None:
        """Count finished steps."""
        if self._bar is not None:
            self._bar.advance(self._task, steps)

    def epoch(self, row: Row) -> None:
        """Show the metrics of an epoch."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"epoch {int(row['epoch'])}", metrics=summary(row))
