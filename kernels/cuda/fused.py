"""The shape of a network for the fused plan: how samples and sums are cut, where everything lies, and its text.

:class:`FusedShape` is that of ``fused.cuh``, in bf16; :mod:`bpcore.kernels.cuda.fused_float` has the other.

Each width is padded to a power of two from 16 to 128, because the matrix units multiply 16 x 16 by 16 x 8 numbers and
shared memory is read 16 bytes at a time. All sizes are printed as constants: sums that stay in registers from tile to
tile must have numbers that the compiler knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import ClassVar

from bpcore.kernels.cuda.source import fused_source

__all__ = ["MOST_COLUMNS", "FusedShape", "fused_unit"]

WARPS = 8
MOST_COLUMNS = 128
"""Widest layer."""
MOST_SUMS, MOST_SUMS_IF_WIDE = 150, 118
"""Sums of the gradient in the registers of a thread, which has 255: with layers of up to 64, and with wider ones, of
which a product in flight takes 32 more. With more of them, numbers would go to memory and back."""
STATIC_BYTES = 2048
"""Shared memory of the reductions, beside what :attr:`FusedShape.places` counts, and what the driver keeps."""
ALIGNMENT = 128


def padded(n: int) -> int:
    """Width of a layer as it lies in shared memory.

    Examples
    --------
    >>> [padded(n) for n in (1, 16, 17, 64, 100)]
    [16, 16, 32, 64, 128]
    """
    return max(16, 1 << (n - 1).bit_length())


@dataclass(frozen=True)
class FusedShape:
    """A network in one thread block.

    Attributes
    ----------
    sizes : tuple of int
        Widths of the layers, at most :data:`MOST_COLUMNS`.
    rows : int
        Samples of a tile, one of :attr:`heights`.
    """

    heights: ClassVar[tuple[int, ...]] = (128, 96, 64, 48, 32, 16)
    """Samples that a tile may have, the most first: a warp has 16, so fewer than 128 leave some without."""
    kernel: ClassVar[str] = "fused"
    """File of the kernel."""

    sizes: tuple[int, ...]
    rows: int = 128

    @classmethod
    def possible(cls, sizes: tuple[int, ...]) -> list[FusedShape]:
        """List the shapes of a network, the largest tile first."""
        return [cls(sizes, rows) for rows in cls.heights]

    @property
    def last(self) -> int:
        """Number of the output layer."""
        return len(self.sizes)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Padded widths."""
        return tuple(padded(n) for n in self.sizes)

    @cached_property
    def cuts(self) -> tuple[tuple[int, int], ...]:
        """How the warps share dW of each layer: so many down, so many across; the cut that reads least."""
        found = []
        for n_in, n in pairwise(self.widths):
            down, across = n_in // 16, n // 16
            busy = min(WARPS, down * across)
            possible = [
                (i, k) for i, k in product((1, 2, 4, 8), repeat=2) if i * k == busy and i <= down and k <= across
            ]
            found.append(min(possible, key=lambda cut: (n_in // cut[0] + n // cut[1], cut)))
        return tuple(found)

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """Sums of dW of each layer that a thread keeps."""
        return tuple(
            n_in * n // (32 * i * k) for (n_in, n), (i, k) in zip(pairwise(self.widths), self.cuts, strict=True)
        )

    @property
    def most_sums(self) -> int:
        """How many sums of all layers a thread may keep."""
        return MOST_SUMS if max(self.widths) <= 64 else MOST_SUMS_IF_WIDE

    @property
    def logits_row(self) -> int:
        """Elements from one row of logits to the next: twice an odd number, so that 16 rows lie in different banks."""
        return 2 * ((self.sizes[-1] + 1) // 2 | 1)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where everything begins, in bytes; ``MEMORY`` is the length."""
        places: dict[str, int] = {}
        end = 0

        def room(name: str, size: int) -> None:
            nonlocal end
            places[name] = end
            end += -(-size // ALIGNMENT) * ALIGNMENT

        for l, (n_in, n) in enumerate(pairwise(self.widths), start=1):
            room(f"W{l}", 2 * n_in * n)
            room(f"B{l}", 4 * n)
            room(f"DB{l}", 4 * n)
        for l, n in enumerate(self.widths, start=1):
            room(f"KEPT{l}", 2 * self.rows * n)  # H, then Delta
        room("LOGITS", 4 * self.rows * self.logits_row)
        places["MEMORY"] = end
        return places

    @property
    def kept(self) -> int:
        """Numbers that a block keeps in global memory from the way forward to the way back."""
        return 0

    @property
    def nbytes(self) -> int:
        """Dynamic shared memory of a block."""
        return self.places["MEMORY"]

    @property
    def needed(self) -> int:
        """Shared memory of a block, all of it."""
        return self.nbytes + STATIC_BYTES

    def constants(self) -> str:
        """Print the constants that the kernel reads."""
        return "\n".join(f"constexpr int {name} = {value};" for name, value in self._constants().items()) + "\n"

    def _constants(self) -> dict[str, int]:
        return {
            "LAST": self.last,
            "ROWS": self.rows,
            "SUMS": sum(self.sums),
            "LOGITS": self.places["LOGITS"],
            "LOGITS_ROW": self.logits_row,
        }

    def _of_layer(self, l: int) -> dict[str, int]:
        """Constants of layer l that are this kernel's alone."""
        own = {"KEPT": self.places[f"KEPT{l}"]}
        return own | (dict(zip(("WARPS_DOWN", "WARPS_ACROSS"), self.cuts[l - 1], strict=True)) if l < self.last else {})

    def _step(self, l: int) -> int:
        """Bytes from the weights of layer l to those of the next, if it has the same shape."""
        return self.places[f"W{l + 1}" if l + 1 < self.last else "KEPT1"] - self.places[f"W{l}"]

    def runs(self, codes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """For each layer below the output, of how many layers a run upwards, and downwards, begins with it.

        Parameters
        ----------
        codes : sequence of int
            Codes of the activations of the layers 2 ... L.

        Examples
        --------
        >>> FusedShape((64, 64, 64, 64, 10)).runs((0, 0, 0, 1))
        ((3, 2, 1, 1), (1, 2, 3, 1))
        """
        up, down = [1] * self.last, [1] * self.last
        layers = [(n, self.widths[l], codes[l - 1] if l else None) for l, n in enumerate(self.sizes)]
        for l in range(self.last - 4, -1, -1):
            if self.widths[l] == layers[l + 1][1] and layers[l + 1] == layers[l + 2]:
                up[l] = up[l + 1] + 1
        for l in range(1, self.last - 1):
            same = layers[l] == layers[l - 1] if l > 1 else self.widths[1] == self.widths[0]
            if same and self.widths[l] == self.widths[l + 1]:
                down[l] = down[l - 1] + 1
        return tuple(up[:-1]), tuple(down[:-1])

    def layers(self, codes: Sequence[int], offsets: Mapping[tuple[str, int], int]) -> str:
        """Print a struct for each layer.

        Parameters
        ----------
        codes : sequence of int
            Codes of the activations of the layers 2 ... L.
        offsets : mapping
            Where ``("W", l)`` and ``("b", l)`` begin in theta.
        """
        structs, first = ["template <int l> struct Layer;"], 0
        up, down = self.runs(codes)
        for l, (n, width) in enumerate(zip(self.sizes, self.widths, strict=True), start=1):
            integers = {"N": n, "P": width, "CODE": codes[l - 2] if l > 1 else 0, **self._of_layer(l)}
            members = []
            if l < self.last:
                integers |= {name: self.places[f"{name}{l}"] for name in ("W", "B", "DB")}
                integers |= {"FIRST_SUM": first, "RUN_UP": up[l - 1], "RUN_DOWN": down[l - 1], "STEP": self._step(l)}
                first += self.sums[l - 1]
                members = [f"static constexpr long long THETA_{x.upper()} = {offsets[x, l]};" for x in ("W", "b")]
            members += [f"static constexpr int {name} = {value};" for name, value in integers.items()]
            structs.append(f"template <> struct Layer<{l}> {{\n    " + "\n    ".join(members) + "\n};")
        return "\n".join(structs) + "\n"


def fused_unit(shape: FusedShape, pieces: str, codes: Sequence[int], offsets: Mapping[tuple[str, int], int]) -> str:
    """Text of the kernels ``fused_step`` and ``add_slices`` for a network of float32.

    Parameters
    ----------
    shape : FusedShape
        Its shape: of the class that says in what the products are computed.
    pieces : str
        The printed declarations, see :mod:`bpcore.kernels.cuda.pieces`.
    codes : sequence of int
        Codes of the activations of the layers 2 ... L.
    offsets : mapping
        Where ``("W", l)`` and ``("b", l)`` begin in theta.

    Returns
    -------
    str
        CUDA C++.
    """
    return fused_source(pieces, shape.constants() + shape.layers(codes, offsets), shape.kernel)
