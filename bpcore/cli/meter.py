"""A bar on a terminal that shows which share of a file has been read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from bpcore.bar import Bar

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
    with Bar("predicting", 1.0, shown) as bar:
        for block, done in blocks:
            yield block
            bar.show(done=done)
