"""A bar on a terminal that shows how far something is, and how long it may take; silence elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

__all__ = ["Bar", "talks"]


def talks(verbose: bool | None) -> bool:
    """Whether something that is optional is told on standard error: as asked for, else if that is a terminal."""
    return sys.stderr.isatty() if verbose is None else verbose


class Bar:
    """A progress bar on standard error.

    Parameters
    ----------
    text : str
        What stands before the bar.
    total : float
        The end of what is counted.
    verbose : bool, optional
        True shows the bar, False nothing, None (default) shows it when standard error is a terminal.
    percentage : bool
        Whether the share that is done stands behind the bar. Default True.
    stays : bool
        Whether the bar stays when it has ended. Default False.

    Examples
    --------
    >>> with Bar("reading", 3, verbose=False) as bar:
    ...     for row in range(3):
    ...         bar.show(done=row + 1, beside=f"row {row}")
    """

    def __init__(
        self, text: str, total: float, verbose: bool | None = None, *, percentage: bool = True, stays: bool = False
    ) -> None:
        self._bar: Any = None
        if talks(verbose):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                *([TextColumn("{task.percentage:3.0f} %")] if percentage else []),
                TimeRemainingColumn(),
                TextColumn("{task.fields[beside]}"),
                console=Console(stderr=True),
                transient=not stays,
            )
            self._task = self._bar.add_task(text, total=total, beside="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, *, done: float | None = None, text: str | None = None, beside: str | None = None) -> None:
        """Show how far it is, and other texts; what is None stays as it is."""
        if self._bar is not None:
            fields = {"completed": done, "description": text, "beside": beside}
            self._bar.update(self._task, **{name: value for name, value in fields.items() if value is not None})

    def advance(self, steps: float) -> None:
        """Count what has been done."""
        if self._bar is not None:
            self._bar.advance(self._task, steps)
