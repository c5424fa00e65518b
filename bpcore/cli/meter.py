"""Bars on a terminal: which share of a file has been read, and how far a measurement is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bpcore.bar import Bar

__all__ = ["measuring", "metered"]

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
    with Bar("predicting", 1.0, shown) as bar:
        for block, done in blocks:
            yield block
            bar.show(done=done)


@contextmanager
def measuring(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Show what is measured inside a ``with`` block, on standard error if that is a terminal.

    Parameters
    ----------
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        ``tell(text, share)``: what is measured now, and which share is done, 0 to 1.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    error = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn()
    with Progress(*columns, console=error, disable=quiet or not error.is_terminal, transient=True) as bar:
        # seldom redrawn: the bar takes time from whoever is being measured
        bar.live.refresh_per_second = 2
        task = bar.add_task("starting", total=1.0)
        yield lambda text, share: bar.update(task, description=f"{text:32}", completed=share)
