"""The reference plan: a training step as the plain sequence of the engine's calls.

It runs any StepSpec on any backend, allocates nothing after it is built, and moves nothing between host and device
inside a step. Faster plans are compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import backward_into, forward_into, loss_value, sample_scale, scale_column
from bpcore.functions.clipping import CLIP, RESCALE, SCALE
from bpcore.functions.program import Program
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.typing import Array
from bpcore.workspace import Gradients, Trace

__all__ = ["ReferencePlan"]

Watch = Callable[[str, int, Array], None]
"""Called with the quantity, its layer and the array, after it was computed."""

_WEIGHTED_HITS = Program("hits = hits * w", name="weighted hits")


class ReferencePlan:
    """Steps of one network under one StepSpec, call by call.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    net : MLP
        The network that is trained, in place.
    be : Backend
        Where its parameters are.
    seed : int
        Seed of the dropout masks.
    rows : int, optional
        Samples that there is room for; by default the batch size of the spec.
    """

    name = "reference"
    threads: int | None = None
    why = "as many as BLAS is set to"
    uses_blas = False

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int, rows: int | None = None) -> None:
        self.spec, self.net, self.be, self.seed = spec, net, be, seed
        m, sizes, dtype = rows or spec.batch_size, spec.sizes, spec.dtype
        per_sample = spec.masked_per == "sample"
        masks: dict[int, tuple[int, ...]] = {
            l: (m, sizes[l - 1]) if per_sample else (sizes[l - 1],) for l in spec.rates
        }
        self._trace = Trace.allocate(be, sizes, m, dtype, masks)
        self._grads = Gradients.allocate(be, sizes, net.layout, m, dtype)
        self._Y = be.empty((m, sizes[-1]), dtype)
        self._terms = be.empty((m, sizes[-1]), dtype)
        self._labels = be.empty(m, np.int64) if spec.classes else None
        self._hits = be.empty(m, dtype) if spec.classes else None
        self._w = be.empty(m, dtype) if spec.weighted else None
        self._scale = be.empty((m, 1), dtype) if spec.weighted else None
        self._weight_sum = be.empty(1, dtype) if spec.weighted else None
        self._norm = be.empty(1, np.float64)
        self._factor64 = be.empty(1, np.float64)
        self._factor = be.empty(1, dtype)
        self._s = sample_scale(spec.loss, sizes[-1])
        self._rows: dict[int, tuple[Trace, Gradients]] = {m: (self._trace, self._grads)}
        self._update = _Update(spec, net, be, self._trace)

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int, rows: int | None = None) -> dict[str, int]:
        """Bytes that the plan allocates, by what they are for.

        Parameters
        ----------
        spec, be, rows
            As for the class.
        size : int
            Length of theta.
        """
        m, sizes, item = rows or spec.batch_size, spec.sizes, spec.dtype.itemsize
        per_sample = spec.masked_per == "sample"
        dropped = sum(sizes[l - 1] for l in spec.rates)
        numbers = m * (sizes[0] + 3 * sum(sizes[1:]) + 2 * sizes[-1] + dropped) + dropped * (m if per_sample else 1)
        numbers += m * (int(spec.classes) + 2 * int(spec.weighted))
        return {"activations and Deltas": numbers * item + 8 * m * int(spec.classes), "gradient": size * item}

    @property
    def gradient(self) -> Array:
        """Gradient of the last step, in the layout of theta (after penalty and clipping)."""
        return self._grads.flat

    @property
    def carried(self) -> dict[str, Array]:
        """Nothing: parameters and state are all that a step leaves to the next."""
        return {}

    @np.errstate(all="ignore")  # overflow is reported by the trainer, with step and layer
    def run(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch | None = None,
    ) -> None:
        """Run one step for each row of an index matrix.

        Parameters
        ----------
        problem : Problem
            The data.
        index : Array of int64, shape (steps, m)
            Samples of each step, on the device; m is at most the batch size of the spec.
        state : TrainingState
            Advanced by the number of steps.
        etas : sequence of float
            Learning rate of each step.
        records : Array of float64, shape (3, steps)
            Receives for each step the loss, the weighted hits and the sum of the weights.
        watch : callable, optional
            Sees every quantity of every step.
        """
        for k in range(index.shape[0]):
            self._step(problem, index[k], state, etas[k], records[:, k : k + 1], watch)
            state.step += 1

    def _step(
        self, problem: Problem, rows: Array, state: TrainingState, eta: float, record: Array, watch: Watch | None
    ) -> None:
        trace, _ = self._memory(rows.shape[0])
        scale = self._sample_scale(problem, rows, record)
        for l, rate in self.spec.rates.items():
            self.be.dropout_mask(trace.masks[l], rate=rate, seed=self.seed, step=state.step, layer=l)
        self._propagate(problem, rows, scale, record)
        self._move(rows.shape[0], state, eta, record, watch)

    def _memory(self, m: int) -> tuple[Trace, Gradients]:
        """What m samples are computed in."""
        if m not in self._rows:
            self._rows[m] = self._trace.rows(m), self._grads.rows(m)
        return self._rows[m]

    def _propagate(self, problem: Problem, rows: Array, scale: Any, record: Array) -> None:
        """Gather samples, and compute loss, hits and gradient."""
        be, net, spec = self.be, self.net, self.spec
        m, L = rows.shape[0], net.n_layers
        trace, grads = self._memory(m)
        Y, terms = self._Y[:m], self._terms[:m]
        be.take_rows(problem.X, rows, out=trace.H[1])
        be.take_rows(problem.Y, rows, out=Y)
        forward_into(be, net, trace)
        Z, H = trace.Z[L], trace.H[L]
        loss_value(be, spec.loss, net.output, Z, H, Y, scale, terms, out=record[0])
        self._count_hits(problem, rows, H, record)
        backward_into(be, net, spec.loss, trace, Y, scale, grads)

    def _move(self, m: int, state: TrainingState, eta: float, record: Array, watch: Watch | None) -> None:
        """Penalty, clipping and update, by the gradient of m samples."""
        net = self.net
        trace, grads = self._memory(m)
        if watch is not None:
            _show(watch, trace, grads, record)
        self._penalise(grads)
        self._clip(grads)
        self._update.apply(state, grads, eta)
        if watch is not None:
            for l in net.W.layers:
                watch("W", l, net.W[l])
                watch("b", l, net.b[l])

    def _sample_scale(self, problem: Problem, rows: Array, record: Array) -> Any:
        """Weight of each sample in the mean: 1 / m, or w / sum(w)."""
        m = rows.shape[0]
        if problem.weights is None or self._w is None or self._scale is None:
            self.be.fill(record[2], m)
            return self._s / m
        w = self.be.take_rows(problem.weights, rows, out=self._w[:m])
        self.be.total(w, out=record[2])
        self.be.copy(record[2], out=self._weight_sum)
        return scale_column(self.be, w, self._weight_sum, self._s, out=self._scale[:m])

    def _count_hits(self, problem: Problem, rows: Array, H: Array, record: Array) -> None:
        if problem.labels is None or self._labels is None or self._hits is None:
            return
        m = rows.shape[0]
        labels = self.be.take_rows(problem.labels, rows, out=self._labels[:m])
        hits = self.be.row_hits(H, labels, problem.threshold, out=self._hits[:m])
        if self._w is not None:
            self.be.elementwise(_WEIGHTED_HITS, out=hits, hits=hits, w=self._w[:m])
        self.be.total(hits, out=record[1])

    def _penalise(self, grads: Gradients) -> None:
        penalty = self.spec.penalty
        if penalty is not None:
            for l in grads.dW.layers:
                dW = grads.dW[l]
                self.be.elementwise(penalty.gradient, out=dW, g=dW, w=self.net.W[l], **penalty.constants)

    def _clip(self, grads: Gradients) -> None:
        clip, be = self.spec.clip, self.be
        if clip is None:
            return
        if clip.scope == "element":
            be.elementwise(CLIP, out=grads.flat, g=grads.flat, limit=clip.limit)
            return
        layers = grads.dW.layers
        parts = [grads.flat] if clip.scope == "all" else [grads.flat[self.net.layout.layer_slice(l)] for l in layers]
        for part in parts:
            be.sum_squares(part, out=self._norm)
            be.elementwise(SCALE, out=self._factor64, sumsq=self._norm, limit=clip.limit)
            be.copy(self._factor64, out=self._factor)
            be.elementwise(RESCALE, out=part, g=part, scale=self._factor)


class _Update:
    """The update rule over theta: one pass, or block by block around the neurons that were dropped."""

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, trace: Trace) -> None:
        self.rule, self.net, self.be = spec.rule, net, be
        self.masks: dict[int, Array] = {}
        if spec.masked_per == "batch":
            self.masks = {l: trace.masks[l] for l in spec.rates}
        self.programs: dict[tuple[str, ...], Program] = {
            names: self.rule.program.only_where(" * ".join(names) + " > 0")
            for names in (("keep_in", "keep_out"), ("keep_in",), ("keep_out",))
        }

    def apply(self, state: TrainingState, grads: Gradients, eta: float) -> None:
        """Move theta by one step."""
        rule, theta = self.rule, self.net.theta
        scalars, state.running = rule.host_scalars(state.step + 1, eta, state.running)
        constants = rule.constants(eta, scalars)
        arrays = [state.arrays[name] for name in rule.state]
        if not self.masks:
            self._run(rule.program, theta, grads.flat, arrays, constants)
            return
        for block in self.net.layout.blocks:
            keep: dict[str, Array] = {}
            if block.name == "W" and block.layer in self.masks:
                keep["keep_in"] = self.masks[block.layer].reshape(-1, 1)
            if block.layer + 1 in self.masks:
                keep["keep_out"] = self.masks[block.layer + 1]
            program = self.programs[tuple(keep)] if keep else rule.program
            view = self.net.layout.view
            self._run(
                program,
                view(theta, block),
                view(grads.flat, block),
                [view(array, block) for array in arrays],
                {**constants, **keep},
            )

    def _run(self, program: Program, theta: Array, g: Array, arrays: list[Array], others: dict[str, Any]) -> None:
        values = {"theta": theta, "g": g, **dict(zip(self.rule.state, arrays, strict=True)), **others}
        out = (theta, *arrays) if arrays else theta
        self.be.elementwise(program, out=out, **{name: values[name] for name in program.inputs})


def _show(watch: Watch, trace: Trace, grads: Gradients, record: Array) -> None:
    """Show the quantities of a step in the order in which they were computed."""
    for l in trace.Z.layers:
        watch("Z", l, trace.Z[l])
        watch("H", l, trace.H[l])
    watch("loss", 0, record[0])
    for l in reversed(trace.Z.layers):
        watch("Delta", l, grads.Delta[l])
        watch("db", l - 1, grads.db[l - 1])
        watch("dW", l - 1, grads.dW[l - 1])
