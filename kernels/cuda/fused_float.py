"""The shape of a network for ``fused_float.cuh``: a step of a narrow network in one launch, in float32.

Units that multiply float32 read their numbers from shared memory again and again, so each thread should have many sums:
4 or 8 rows of a tile by 4 columns, and for dW 4 or 8 rows by 1 to 8 columns, which stay in registers from tile to tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

from bpcore.kernels.cuda.fused import FusedShape

__all__ = ["FloatShape"]

THREADS = 256
MOST_NUMBERS = 32 * THREADS
"""Numbers of a tile: a thread has 32 sums of a product in flight."""
MOST_SUMS = 144
"""Sums of the gradient in the registers of a thread, which has 255: a product takes some 90 more."""


@dataclass(frozen=True)
class FloatShape(FusedShape):
    """A network in one thread block, in float32; attributes as those of :class:`FusedShape`.

    Examples
    --------
    >>> shape = FloatShape((64, 64, 10), 128)
    >>> shape.shares, shape.sums, shape.most_sums
    (((4, 4), (4, 2)), (16, 8), 144)
    """

    heights: ClassVar[tuple[int, ...]] = (128, 64, 32)
    kernel: ClassVar[str] = "fused_float"

    @classmethod
    def possible(cls, sizes: tuple[int, ...]) -> list[FusedShape]:
        """List the shapes of a network, the largest tile first; a wide network has no high ones."""
        shapes = [cls(sizes, rows) for rows in cls.heights]
        return [shape for shape in shapes if shape.rows * max(shape.widths) <= MOST_NUMBERS]

    @cached_property
    def shares(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of dW of each layer that a thread has: of large ones all threads have some, else half."""
        by_sums = {64: (8, 8), 32: (8, 4), 16: (4, 4), 8: (4, 2), 4: (4, 1)}
        sizes = (n_in * n for n_in, n in pairwise(self.widths))
        return tuple(by_sums[size // THREADS if size >= 4096 else max(4, min(16, size // 128))] for size in sizes)

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """Sums of dW of each layer that a thread keeps."""
        return tuple(down * across for down, across in self.shares)

    @property
    def most_sums(self) -> int:
        """How many sums of all layers a thread may keep."""
        return MOST_SUMS

    @cached_property
    def places(self) -> dict[str, int]:
        """Where everything begins in shared memory, in bytes; ``MEMORY`` is the length.

        A matrix begins at a multiple of its rows, so that the packs of a row can be numbered by exclusive or.
        """
        places: dict[str, int] = {}
        end = 0

        def room(name: str, numbers: int, row: int = 4) -> None:
            nonlocal end
            places[name] = -(-end // (4 * row)) * 4 * row
            end = places[name] + 4 * numbers

        for l, (n_in, n) in enumerate(pairwise(self.widths), start=1):
            room(f"W{l}", n_in * n, n)
            room(f"B{l}", n)
            room(f"DB{l}", THREADS)
        widest = max(self.widths)
        room("TILES", self.rows * widest, widest)
        room("SECOND", self.rows * widest, widest)
        room("LOGITS", self.rows * self.logits_row)
        places["MEMORY"] = end
        return places

    def _step(self, l: int) -> int:
        n_in, n = self.widths[l - 1 : l + 1]
        return 4 * (n_in * n + n + THREADS)

    @cached_property
    def rooms(self) -> dict[int, int]:
        """Where a block keeps what hidden layers hand on, in numbers from the beginning of its room in global memory.

        The last hidden layer comes at the end and is not kept, because it is on chip when it is needed.
        """
        rooms, end = {}, 0
        for l in range(2, self.last):
            rooms[l] = end
            end += self.rows * self.widths[l - 1]
        return rooms

    @property
    def kept(self) -> int:
        """Numbers that a block keeps in global memory from the way forward to the way back."""
        return self.rooms.get(self.last - 1, 0)

    def _constants(self) -> dict[str, int]:
        tiles = {"TILES": self.places["TILES"], "TILE_BYTES": self.places["SECOND"] - self.places["TILES"]}
        return super()._constants() | tiles | {"KEPT": self.kept}

    def _of_layer(self, l: int) -> dict[str, int]:
        busy = self.rows // 32 * (self.widths[l - 1] // 32)  # warps, if each has 32 x 32 numbers of a tile
        own = {"KEPT": self.rooms.get(l, 0), "HEIGHT": 8 if self.rows >= 64 and busy >= 4 else 4}
        return own | (dict(zip(("SUMS_DOWN", "SUMS_ACROSS"), self.shares[l - 1], strict=True)) if l < self.last else {})
