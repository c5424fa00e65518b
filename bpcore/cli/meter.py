"""A bar on a terminal that shows which share of a file has been read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["metered"]

T = TypeVar("T")


def metered(blocks: Iterable[tuple[T, float]], shown: bool | None = None) -> Iterator[T]:
    """Hand blocks on and show how far they are.

    Parameters
    ----------
    blocks : iterable of (block, float)
        Blocks, with the share that is done after each of them, 0 to 1.
    shown : bool, optional
        Whether to draw the bar; by default, if standard error is a terminal.

    Yields
    ------
    block
        Each block.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        for block, _ in blocks:
            yield block
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("predicting"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True, force_terminal=shown),
        transient=True,
    )
    with bar:
        task = bar.add_task("predicting", total=1.0)
        for block, done in blocks:
            yield block
            bar.update(task, completed=done)
