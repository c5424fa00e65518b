"""The order of an epoch over rows in blocks on a disk: random blocks, and rows shuffled within a window of them.

A disk reads a block of rows as fast as one row, so blocks are what is drawn first; what is read stays in memory as a
window of some blocks, within which every row can be the next. The wider the window, the closer the order is to that of
an ordinary shuffle; a window that holds all blocks gives that very order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bpcore.random import Purpose, permutation
from bpcore.typing import IntArray

__all__ = ["BlockOrder"]


@dataclass(frozen=True)
class BlockOrder:
    """Visits m rows in blocks.

    Parameters
    ----------
    m : int
        Rows.
    block_rows : int
        Rows of a block; the last one may have fewer.
    window : int
        Blocks that are in memory together.

    Notes
    -----
    The blocks of an epoch come in the order of ``permutation(blocks, seed, epoch, purpose=BLOCKS)``, cut into windows.
    The rows of window k, taken by their numbers, come in the order of ``permutation(rows, seed, epoch, layer=k)`` (k
    modulo 65536). With a single window this is the shuffle of data in memory.

    Examples
    --------
    >>> order = BlockOrder(10, block_rows=2, window=2)
    >>> [rows.tolist() for rows in order.rows(epoch=0, seed=0)]
    [[0, 4, 5, 1], [6, 3, 7, 2], [8, 9]]
    """

    m: int
    block_rows: int
    window: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.m // self.block_rows)

    def windows(self, epoch: int, seed: int | None) -> list[IntArray]:
        """Numbers of the blocks of each window, increasing; without a seed all in their order."""
        n = self.n_blocks
        if seed is None or n <= self.window:
            blocks = np.arange(n)
        else:
            blocks = permutation(n, seed, epoch, purpose=Purpose.BLOCKS)
        return [np.sort(blocks[i : i + self.window]) for i in range(0, n, self.window)]

    def size(self, blocks: IntArray) -> int:
        """Rows of some blocks, each named once."""
        short = self.n_blocks * self.block_rows - self.m if self.n_blocks - 1 in blocks else 0
        return len(blocks) * self.block_rows - short

    def rows_of(self, blocks: IntArray, k: int, epoch: int, seed: int | None) -> IntArray:
        """Numbers of the rows of window k, in the order in which they are visited."""
        rows = (blocks[:, None] * self.block_rows + np.arange(self.block_rows)).reshape(-1)
        rows = rows[rows < self.m]
        return rows if seed is None else rows[permutation(len(rows), seed, epoch, layer=k & 0xFFFF)]

    def rows(self, epoch: int, seed: int | None) -> Iterator[IntArray]:
        """Yield the rows of one window after the other."""
        for k, blocks in enumerate(self.windows(epoch, seed)):
            yield self.rows_of(blocks, k, epoch, seed)
