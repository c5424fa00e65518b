"""Steps whose batch goes through the network in parts, for batches of which the activations do not fit on a device.

The gradient of a mean is the sum of the gradients of its parts, each scaled by the whole: one over the number of
samples of the batch, or over the sum of their weights. So parts are computed one after the other and added up, and the
update comes once. The mask of a sample is the one that it has in the whole batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import scale_column
from bpcore.functions.program import Program
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.reference import ReferencePlan, Watch
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.typing import Array
from bpcore.workspace import Trace

__all__ = ["MicroBatchPlan"]

_ADD = Program("total = total + part", name="add a part")


class MicroBatchPlan(ReferencePlan):
    """The reference plan over parts of each batch; the same result to rounding.

    Parameters
    ----------
    spec, net, be, seed
        As for :class:`~bpcore.training.reference.ReferencePlan`.
    rows : int
        Most samples of a part.
    """

    name = "micro-batches"

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int, rows: int) -> None:
        super().__init__(spec, net, be, seed, rows)
        self.rows = rows
        self.why = f"parts of {rows} samples"
        self._sum = be.empty(net.layout.size, spec.dtype)
        self._part = be.empty((3, 1), np.float64)
        self._whole = be.empty(spec.batch_size, spec.dtype) if spec.weighted else None

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int, rows: int | None = None) -> dict[str, int]:
        """Bytes that the plan allocates; see :meth:`ReferencePlan.device_bytes`."""
        parts = super().device_bytes(spec, be, size, rows)
        item = spec.dtype.itemsize
        parts["activations and Deltas"] += spec.batch_size * item * int(spec.weighted)
        parts["gradient"] += size * item
        return parts

    def _step(
        self, problem: Problem, rows: Array, state: TrainingState, eta: float, record: Array, watch: Watch | None
    ) -> None:
        be, m, part = self.be, rows.shape[0], self._part
        self._weigh(problem, rows, record)
        be.fill(self._sum, 0)
        be.fill(part, 0)
        for start in range(0, m, self.rows):
            some = rows[start : start + self.rows]
            count = some.shape[0]
            trace, grads = self._memory(count)
            self._draw(trace, start, state.step)
            self._propagate(problem, some, self._scale_of(problem, some, m), part)
            for k in range(2):
                be.elementwise(_ADD, out=record[k], total=record[k], part=part[k])
            be.elementwise(_ADD, out=self._sum, total=self._sum, part=grads.flat)
            if watch is not None and start + count < m:
                for l in trace.Z.layers:  # those of the last part are shown with the gradient
                    watch("Z", l, trace.Z[l])
                    watch("H", l, trace.H[l])
        be.copy(self._sum, out=self._grads.flat)
        self._move(count, state, eta, record, watch)

    def _draw(self, trace: Trace, start: int, step: int) -> None:
        """Draw the masks of the samples from `start` on of a batch."""
        for l, rate in self.spec.rates.items():
            mask: Array = trace.masks[l]
            if mask.ndim == 2:
                first = start * mask.shape[1]
                self.be.dropout_part(mask, first=first, rate=rate, seed=self.seed, step=step, layer=l)
            elif start == 0:  # all parts have the same
                self.be.dropout_mask(mask, rate=rate, seed=self.seed, step=step, layer=l)

    def _weigh(self, problem: Problem, rows: Array, record: Array) -> None:
        """Sum of the weights of the whole batch; loss and hits are added to zero."""
        be = self.be
        be.fill(record[0], 0)
        be.fill(record[1], 0)
        if problem.weights is None or self._whole is None:
            be.fill(record[2], rows.shape[0])
            return
        be.total(be.take_rows(problem.weights, rows, out=self._whole[: rows.shape[0]]), out=record[2])
        be.copy(record[2], out=self._weight_sum)

    def _scale_of(self, problem: Problem, rows: Array, m: int) -> Any:
        """Weight of each sample of a part in the mean over m samples."""
        if problem.weights is None or self._w is None or self._scale is None:
            return self._s / m
        count = rows.shape[0]
        w = self.be.take_rows(problem.weights, rows, out=self._w[:count])
        return scale_column(self.be, w, self._weight_sum, self._s, out=self._scale[:count])
