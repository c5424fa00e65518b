"""How the products of ``product.cuh`` are cut into tiles, and their sums into parts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEPTH", "LARGEST_TILE", "SMALLEST_TILE", "Tiling", "choose_tiling"]

DEPTH = 32
"""Elements along k that are on chip at once, as in ``product.cuh``."""
SMALLEST_TILE, LARGEST_TILE = 32, 64


@dataclass(frozen=True)
class Tiling:
    """How a product is cut: tiles of `size` x `size`, the sum over k of each split among `splits` blocks."""

    size: int
    tiles: int
    splits: int


def choose_tiling(m: int, n: int, k: int, multiprocessors: int, size: int | None = None) -> Tiling:
    """Cut a product (m, n) = (m, k) @ (k, n) so that all multiprocessors have something to do.

    Parameters
    ----------
    m, n, k : int
        Sizes of the product.
    multiprocessors : int
        Of the device.
    size : int, optional
        Size of a tile; by default 64 where there are enough such tiles, else 32.

    Examples
    --------
    >>> choose_tiling(64, 128, 784, 132)
    Tiling(size=32, tiles=8, splits=12)
    >>> choose_tiling(65536, 64, 64, 132)
    Tiling(size=64, tiles=1024, splits=1)
    """

    def tiles(size: int) -> int:
        return -(-m // size) * -(-n // size)

    if size is None:
        size = LARGEST_TILE if tiles(LARGEST_TILE) >= multiprocessors else SMALLEST_TILE
    # two blocks to a multiprocessor, and at least two runs of k for each
    splits = max(1, min(2 * multiprocessors // tiles(size), k // (2 * DEPTH)))
    return Tiling(size, tiles(size), splits)
