"""How the products of ``product.cuh`` are cut into tiles, and their sums into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["SHAPES", "SMALLEST_TILE", "Tiling", "choose_tiling", "shared_bytes"]

SHAPES = ((64, 64), (64, 32), (32, 32))
"""Rows and columns of a tile. Of two that are as good the first is taken: a larger one reads less."""
SMALLEST_TILE = 32

# as in factors.cuh and product.cuh
DEPTH = 32
STAGES = {4: 4, 8: 2}
MOST_SPLITS = 8
"""Blocks of the largest cluster that every device with clusters can hold."""


@dataclass(frozen=True)
class Tiling:
    """How a product is cut: tiles of `rows` x `columns`, the sum over k of each split among `splits` blocks."""

    rows: int
    columns: int
    tiles: int
    splits: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        return self.rows, self.columns

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.tiles * self.splits


def shared_bytes(rows: int, columns: int, itemsize: int) -> int:
    """Return the shared memory that a block needs for a tile, as ``product.cuh`` lays it out.

    Examples
    --------
    >>> shared_bytes(32, 32, 4), shared_bytes(64, 64, 4)
    (36864, 73728)
    """

    def lines(size: int) -> int:
        return max(size * (DEPTH + 4), DEPTH * (size + 4))

    groups = 256 // (rows * columns // 32)
    stages = STAGES[itemsize] * (lines(rows) + lines(columns))
    return itemsize * max(stages, groups // 2 * rows * (columns + 8))


def count_tiles(m: int, n: int, rows: int, columns: int) -> int:
    """Return the number of tiles of a product (m, n).

    Examples
    --------
    >>> count_tiles(65, 10, 32, 32)
    3
    """
    return -(-m // rows) * -(-n // columns)


def choose_tiling(
    products: Sequence[tuple[int, int]],
    k: int,
    multiprocessors: int,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> Tiling:
    """Cut products (m, n) = (m, k) @ (k, n) of one launch so that the busiest multiprocessor has the least to do.

    Parameters
    ----------
    products : sequence of (m, n)
        Their sizes.
    k : int
        Terms of each sum.
    multiprocessors : int
        Of the device.
    shapes : sequence of (rows, columns)
        What tiles may be.

    Examples
    --------
    >>> choose_tiling([(64, 128)], 784, 132)
    Tiling(rows=32, columns=32, tiles=8, splits=8)
    >>> choose_tiling([(128, 512)], 512, 132)
    Tiling(rows=64, columns=64, tiles=16, splits=8)
    >>> choose_tiling([(65536, 64)], 64, 132)
    Tiling(rows=64, columns=64, tiles=1024, splits=1)
    """

    def cut(shape: tuple[int, int]) -> Tiling:
        tiles, splits = sum(count_tiles(m, n, *shape) for m, n in products), 1
        # two blocks to a multiprocessor, and at least two stages for each
        while splits < MOST_SPLITS and splits * tiles <= multiprocessors and 4 * splits * DEPTH <= k:
            splits *= 2
        return Tiling(*shape, tiles, splits)

    def work(tiling: Tiling) -> int:
        stages = -(-k // (tiling.splits * DEPTH))
        return -(-tiling.blocks // multiprocessors) * stages * tiling.rows * tiling.columns

    return min(map(cut, shapes), key=work)
