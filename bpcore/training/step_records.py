"""What is known of some steps afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bpcore.typing import NDArray

__all__ = ["StepRecords"]


class StepRecords:
    """What is known of some steps afterwards.

    Attributes
    ----------
    loss : ndarray of float64, shape (steps,)
        Loss of each step's batch before its update, without penalties.
    hits : ndarray of float64, shape (steps,)
        Weighted number of samples that were classified rightly (zeros for regression).
    weight : ndarray of float64, shape (steps,)
        Sum of the weights of each step's samples.
    """

    def __init__(self, table: NDArray[np.float64]) -> None:
        self._table = table
        self.loss, self.hits, self.weight = table

    @classmethod
    def join(cls, parts: Sequence[StepRecords]) -> StepRecords:
        """Put the records of successive stretches together."""
        if not parts:
            return cls(np.empty((3, 0)))
        return parts[0] if len(parts) == 1 else cls(np.concatenate([part._table for part in parts], axis=1))

    @property
    def table(self) -> NDArray[np.float64]:
        """Loss, hits and weight, shape (3, steps)."""
        return self._table

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def mean_loss(self) -> float:
        """Weighted mean of the losses."""
        return float((self.loss * self.weight).sum() / self.weight.sum()) if self.weight.any() else float("nan")

    @property
    def accuracy(self) -> float:
        """Weighted share of hits."""
        return float(self.hits.sum() / self.weight.sum()) if self.weight.any() else float("nan")
