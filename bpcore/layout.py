"""Where things lie: lists numbered like the equations, and parameters as views into one flat vector.

All parameters of a network live in one vector theta. Blocks W[1], b[1], W[2], b[2], ... follow each other, each at a
multiple of 64 bytes; the gaps hold zeros and stay zero, because their gradient is zero. Gradients and the state of an
optimiser have the same layout, so an update rule is one pass over flat vectors and a checkpoint is a few blobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from bpcore.typing import Array

__all__ = ["Block", "ByLayer", "ParameterLayout"]

T = TypeVar("T")

ALIGNMENT = 16
"""Elements to which blocks are aligned: 64 bytes in float32, 128 in float64."""


class ByLayer(Generic[T]):
    """A fixed list whose first index is a layer number instead of 0.

    Parameters
    ----------
    items : sequence
        The items, in order of layers.
    first : int
        Number of the first item: 1 for W, b and H, 2 for Z and Delta.

    Examples
    --------
    >>> Z = ByLayer(["z2", "z3"], first=2)
    >>> Z[2], Z[-1], len(Z), list(Z.layers)
    ('z2', 'z3', 2, [2, 3])
    """

    __slots__ = ("_items", "first")

    def __init__(self, items: Sequence[T], first: int) -> None:
        self._items = list(items)
        self.first = first

    @property
    def layers(self) -> range:
        """The layer numbers that exist."""
        return range(self.first, self.first + len(self._items))

    def __getitem__(self, layer: int) -> T:
        position = layer - self.first
        if 0 <= position < len(self._items):
            return self._items[position]
        if layer < 0:
            return self._items[layer]
        raise IndexError(
            f"there is no layer {layer} here; layers are numbered as in the equations, "
            f"from {self.first} to {self.first + len(self._items) - 1}"
        )

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"ByLayer({self._items!r}, first={self.first})"


@dataclass(frozen=True)
class Block:
    """One parameter array inside theta: what it is, its shape and where it begins."""

    name: str
    layer: int
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


class ParameterLayout:
    """The blocks of a network's flat parameter vector.

    Parameters
    ----------
    sizes : sequence of int
        Widths n_1 ... n_L of the layers.

    Attributes
    ----------
    blocks : tuple of Block
        W and b of every layer, in order.
    size : int
        Length of the flat vector, gaps included.
    n_parameters : int
        Number of true parameters.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        blocks: list[Block] = []
        offset = 0
        for layer, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            for name, shape in (("W", (n_in, n_out)), ("b", (n_out,))):
                block = Block(name, layer, shape, offset)
                blocks.append(block)
                offset += -(-block.size // ALIGNMENT) * ALIGNMENT
        self.blocks = tuple(blocks)
        self.size = offset
        self.n_parameters = sum(block.size for block in blocks)

    @property
    def offsets(self) -> dict[tuple[str, int], int]:
        """Where ``("W", l)`` and ``("b", l)`` begin."""
        return {(block.name, block.layer): block.offset for block in self.blocks}

    def views(self, flat: Array, name: str) -> ByLayer[Array]:
        """Views of all blocks of one name into a flat vector of this layout."""
        return ByLayer([self.view(flat, block) for block in self.blocks if block.name == name], first=1)

    @staticmethod
    def view(flat: Array, block: Block) -> Array:
        """View of one block into a flat vector."""
        return flat[block.offset : block.offset + block.size].reshape(block.shape)

    def layer_slice(self, layer: int) -> slice:
        """Where W and b of a layer lie, gaps included."""
        own = [block for block in self.blocks if block.layer == layer]
        after = [block.offset for block in self.blocks if block.layer == layer + 1]
        return slice(own[0].offset, after[0] if after else self.size)

    def pack(self, flat: Any) -> Any:
        """Copy the true parameters, without gaps, into a dense vector."""
        return np.concatenate([flat[block.offset : block.offset + block.size] for block in self.blocks])

    def unpack(self, dense: Any, flat: Any) -> None:
        """Copy a dense vector of true parameters into a flat vector of this layout."""
        start = 0
        for block in self.blocks:
            flat[block.offset : block.offset + block.size] = dense[start : start + block.size]
            start += block.size
