"""Evidence of what was computed, small enough for a pipe: losses, and a sketch of how the parameters moved.

Losses alone would not do. With a small learning rate a wrong gradient changes the loss of the next step by less than
what rounding does. How far each parameter has moved shows it at once; but a wide network has millions of them. So for
every W and b the movement is folded into 256 sums of random signs (Charikar, Chen and Farach-Colton 2004): the
sketch of a difference is the difference of the sketches, and its length is that of what was sketched, give or take a
few percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.bench.problem import Problem
from bpcore.bench.witness import SHOWN_ROWS, outputs, train
from bpcore.bench.workload import Workload

__all__ = ["TOLERANCE", "Evidence", "expected_evidence"]

SUMS = 256
BLOCK = 2**16

TOLERANCE = {"float64": 1e-7, "float32": 2e-3, "tf32x3": 2e-3, "tf32": 2e-2, "bf16": 1e-1, "fp16": 5e-2}
"""How far evidence may lie from the float64 witness, as a share of it. Parameters in float32 move by so little in one
step that rounding alone is a thousandth of it; tf32 and bf16 have 10 and 7 bits after the point."""

LOSS_TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "tf32x3": 1e-4, "tf32": 2e-3, "bf16": 2e-2, "fp16": 5e-3}
"""The same for losses and outputs."""


@dataclass(frozen=True)
class Evidence:
    """What a contender has computed.

    Attributes
    ----------
    values : ndarray
        Losses of the steps, or outputs of the first rows.
    sketches : list of ndarray, shape (256,)
        Of the movement of each W and b; empty for predictions.
    """

    values: Any
    sketches: list[Any]

    @classmethod
    def of_training(cls, losses: Any, before: Sequence[Any], after: Sequence[Any]) -> Evidence:
        """Sketch how the parameters moved from the lists of (W, b) before and after."""
        found = []
        for l, (first, last) in enumerate(zip(before, after, strict=True)):
            for k, (start, end) in enumerate(zip(first, last, strict=True)):
                found.append(sketch(np.asarray(end, np.float64) - start, seed=2 * l + k))
        return cls(np.asarray(losses, float), found)

    @classmethod
    def of_prediction(cls, H: Any) -> Evidence:
        """Keep the first rows of the outputs."""
        return cls(np.asarray(H[:SHOWN_ROWS], float), [])

    def as_json(self) -> dict[str, Any]:
        """Return it as lists."""
        return {"values": self.values.tolist(), "sketches": [found.tolist() for found in self.sketches]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Evidence:
        """Return the evidence of these lists."""
        return cls(np.asarray(fields["values"], float), [np.asarray(found, float) for found in fields["sketches"]])

    def distance(self, expected: Evidence) -> tuple[float, float]:
        """Return how far values and movements are from what was expected, as shares; inf if they do not fit."""
        if self.values.shape != expected.values.shape or len(self.sketches) != len(expected.sketches):
            return math.inf, math.inf
        pairs = list(zip(self.sketches, expected.sketches, strict=True))
        off = _share(self.values, expected.values)
        return off, max((_share(found, wanted) for found, wanted in pairs), default=0.0)

    def agrees(self, expected: Evidence, precision: str) -> bool:
        """Whether it is what was expected, as far as the precision goes."""
        values, moved = self.distance(expected)
        return values <= LOSS_TOLERANCE[precision] and moved <= TOLERANCE[precision]


def _share(found: Any, wanted: Any) -> float:
    if not np.isfinite(found).all():
        return math.inf
    size = float(np.linalg.norm(wanted))
    away = float(np.linalg.norm(found - wanted))
    return away / size if size else (0.0 if away == 0 else math.inf)


def sketch(array: Any, seed: int) -> Any:
    """Fold an array into 256 sums with random signs.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(300, 70))
    >>> bool(0.85 < np.linalg.norm(sketch(x, seed=0)) / np.linalg.norm(x) < 1.15)
    True
    """
    flat, rng = np.asarray(array, np.float64).reshape(-1), np.random.default_rng(seed)
    signs, total = _signs(rng, BLOCK), np.zeros(SUMS)
    for first in range(0, flat.size, BLOCK):
        # the signs of a block are those of the first, turned by some of its own: fewer are drawn, none repeat
        block = np.zeros(BLOCK)
        count = min(BLOCK, flat.size - first)
        np.multiply(flat[first : first + count], signs[:count], out=block[:count])
        total += _signs(rng, SUMS) * block.reshape(-1, SUMS).sum(axis=0)
    return total


def _signs(rng: np.random.Generator, n: int) -> Any:
    return 2.0 * rng.integers(0, 2, size=n, dtype=np.int8) - 1.0


def expected_evidence(work: Workload, problem: Problem) -> Evidence:
    """Return the evidence that the float64 witness gives."""
    if work.kind == "predict":
        return Evidence.of_prediction(outputs(work, problem, problem.X[: work.batch][:SHOWN_ROWS]))
    losses, theta = train(work, problem, problem.order(0, 1)[: work.parity_steps])
    return Evidence.of_training(losses, problem.weights, theta)
