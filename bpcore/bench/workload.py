"""What is measured: a network, how it is trained or asked, and what one step costs.

A *step* is one mini-batch of training, or one call of predict. A *chunk* is a fixed number of steps: the grain in which
orders of samples are drawn.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bpcore.backends.ops import OPS

__all__ = ["PARTS", "STATE_VECTORS", "Operation", "Workload"]

STATE_VECTORS = {"sgd": 0, "momentum": 1, "adam": 2}
"""Vectors as long as theta that an update rule keeps."""

TWO_STEPS_FLOPS, TWO_STEPS_PARAMETERS = 2_000_000_000, 2_000_000
"""Operations of a step, and parameters, up to which the witness takes two."""

PARTS = ("gather", "forward", "BP1", "BP2", "BP3", "BP4", "update")
"""The parts of a training step, in the order in which they are done."""


class Operation(NamedTuple):
    """One operation of a step.

    Attributes
    ----------
    part : str
        Of :data:`PARTS`.
    name : str
        In :data:`bpcore.backends.ops.OPS`.
    sizes : dict of str to int
        What the letters of its signature stand for.
    more : int
        Arrays like its result that it reads or writes beyond what the table says: an element-wise operation is
        declared there with one operand.
    """

    part: str
    name: str
    sizes: dict[str, int]
    more: int = 0

    @property
    def flops(self) -> int:
        """Operations, as declared."""
        return OPS[self.name].flops(self.sizes)

    @property
    def elements(self) -> int:
        """Array elements that are read or written at least once."""
        return OPS[self.name].elements(self.sizes) + self.more * self.sizes["m"] * self.sizes["n"]


@dataclass(frozen=True)
class Workload:
    """One network and how it is used.

    Attributes
    ----------
    kind : str
        ``"train"`` or ``"predict"``.
    sizes : tuple of int
        Widths of the layers.
    activation, output, loss, optimizer : str
        As bpcore calls them; ``momentum`` is SGD with momentum 0.9.
    batch, rows : int
        Samples in a step and samples in all. Equal: the whole data set at once, nothing to gather.
    chunk : int
        Steps in a chunk.
    eta : float
        Learning rate.
    precision : str
        ``"float32"``, ``"float64"``, or on a GPU a lower one such as ``"tf32"`` or ``"bf16"``: of the products. Weights
        and state are float32 then.
    """

    kind: str
    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    optimizer: str
    batch: int
    rows: int
    chunk: int
    eta: float = 0.0
    precision: str = field(default="float32", kw_only=True)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of data, weights and state."""
        return np.dtype(np.float64 if self.precision == "float64" else np.float32)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Shapes of the weight matrices."""
        return list(pairwise(self.sizes))

    @property
    def full_batch(self) -> bool:
        """Whether a step takes all rows as they lie."""
        return self.batch == self.rows

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum((a + 1) * b for a, b in self.pairs)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """Operations of a step, one for each time that an equation names an array."""
        m, L = self.batch, len(self.sizes)
        found = []
        if self.kind == "train" and not self.full_batch:
            found += [Operation("gather", "take_rows", {"m": m, "n": n}) for n in (self.sizes[0], self.sizes[-1])]
        for a, b in self.pairs:
            found.append(Operation("forward", "matmul", {"m": m, "k": a, "n": b}))
            found.append(Operation("forward", "elementwise", {"m": m, "n": b}))  # H = act(Z + b)
        if self.kind == "predict":
            return tuple(found)
        found.append(Operation("BP1", "elementwise", {"m": m, "n": self.sizes[-1]}, 1))  # of outputs and targets
        for l in range(L - 2, -1, -1):
            a, b = self.pairs[l]
            found.append(Operation("BP3", "column_sums", {"m": m, "n": b}))
            found.append(Operation("BP4", "matmul", {"m": a, "k": m, "n": b}))
            if l:
                found.append(Operation("BP2", "matmul", {"m": m, "k": b, "n": a}))
                found.append(Operation("BP2", "elementwise", {"m": m, "n": a}, 1))  # times act'(Z)
        states = STATE_VECTORS[self.optimizer]
        # theta is read and written, the gradient is read, each vector of state is read and written
        found.append(Operation("update", "elementwise", {"m": 1, "n": self.n_parameters}, 1 + 2 * states))
        return tuple(found)

    def flops(self) -> int:
        """Operations of the matrix products, two for each multiplication with its addition; nothing else is counted."""
        return sum(operation.flops for operation in self.operations if operation.name == "matmul")

    def bytes(self) -> int:
        """Bytes that a step moves if every operation reads and writes its arrays once, and nothing stays in a cache."""
        return self.dtype.itemsize * sum(operation.elements for operation in self.operations)

    @property
    def parity_steps(self) -> int:
        """Steps that are compared with the float64 witness: two, which the state of an update rule needs, if it can."""
        small = self.flops() <= TWO_STEPS_FLOPS and self.n_parameters <= TWO_STEPS_PARAMETERS
        return min(2, self.chunk) if small else 1

    def parts(self) -> dict[str, tuple[int, int]]:
        """Operations of the products, and bytes, of each part of a step."""
        found = {part: (0, 0) for part in PARTS if any(operation.part == part for operation in self.operations)}
        for operation in self.operations:
            flops, moved = found[operation.part]
            counted = operation.flops if operation.name == "matmul" else 0
            found[operation.part] = flops + counted, moved + self.dtype.itemsize * operation.elements
        return found

    def memory(self) -> int:
        """Bytes that data, parameters, state and the quantities of a step take, roughly."""
        vectors = 4 + STATE_VECTORS[self.optimizer] if self.kind == "train" else 1
        step = self.batch * (4 * sum(self.sizes) if self.kind == "train" else 2 * max(self.sizes))
        data = self.rows * (self.sizes[0] + self.sizes[-1] + 1)
        return self.dtype.itemsize * (data + step + vectors * self.n_parameters)

    def as_json(self) -> dict[str, Any]:
        """Return the fields, for a process that measures."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Workload:
        """Return the workload of these fields."""
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})
