"""The compiled plan: a whole run of steps in one call, on the CPU, with Numba.

It computes what :class:`~bpcore.training.reference.ReferencePlan` computes, operation by operation, without returning
to Python between them. What it cannot do goes to the reference, and :meth:`CompiledPlan.supports` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import bp1_program, bp2_program, loss_program, sample_scale
from bpcore.errors import ConfigurationError
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.layout import ALIGNMENT
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.reference import ReferencePlan, Watch
from bpcore.training.spec import StepSpec
from bpcore.training.state import Snapshot, TrainingState
from bpcore.typing import Array

__all__ = ["CompiledPlan"]


class CompiledPlan:
    """Runs of steps of one network under one StepSpec, each in one compiled call.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    net : MLP
        The network that is trained, in place.
    be : Backend
        The Numba backend.
    seed : int
        Seed of the dropout masks.

    Raises
    ------
    ConfigurationError
        If the spec is not supported.
    """

    name = "compiled"

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        reason = self.supports(spec)
        if reason is not None:
            raise ConfigurationError(f"there is no compiled plan for this: {reason}; use plan='auto' or 'reference'")
        # compiled products call this BLAS; a limit of threads reaches only what is loaded already
        import scipy.linalg.cython_blas  # noqa: F401

        from bpcore.kernels.numba import epoch, rowwise
        from bpcore.kernels.numba.calls import addresses

        self.spec, self.net, self.be, self.seed = spec, net, be, seed
        m, sizes, dtype, rule = spec.batch_size, spec.sizes, spec.dtype, spec.rule
        self._grad = self._gradient = be.zeros(net.layout.size, dtype)
        self._table, self._kept, length = _table(spec, net)
        self._work = be.zeros(length, dtype)
        self._ones = be.fill(be.empty(max(sizes), dtype), 1.0)
        self._cells = be.empty(2, dtype)
        self._rows = be.empty((3, m), dtype)
        # one place more than there are samples: take_rows reports there
        self._labels = np.empty(m + 1, np.int64)
        self._sums = np.empty(rowwise.SUMS)
        self._hyper = np.array(list(rule.hyper.values()))
        self._running = np.empty(len(rule.initial_running()))
        self._numbers = np.empty(len(rule.scalar_names))
        # a penalty need not have constants; what follows them says that there is one
        self._prices = np.array([] if spec.penalty is None else [*spec.penalty.constants.values(), 1.0])
        self._clip = (epoch.CLIP_NOT, 0.0)
        if spec.clip is not None:
            scopes = {"element": epoch.CLIP_ELEMENT, "all": epoch.CLIP_ALL, "layer": epoch.CLIP_LAYER}
            self._clip = scopes[spec.clip.scope], spec.clip.limit
        self._none = np.empty(0, np.int64), np.empty(0, dtype)
        self._s = sample_scale(spec.loss, sizes[-1])
        self._pieces = _pieces(spec)
        self._functions = addresses(self._pieces)
        self._run = epoch.compile_run(dtype)
        self._layouts: tuple[str, ...] = ("C", "C")
        self._reference: ReferencePlan | None = None

    @staticmethod
    def supports(spec: StepSpec) -> str | None:
        """Say why a spec cannot be compiled; None if it can."""
        from bpcore.kernels.numba.pieces import MAX_STATES

        if len(spec.rule.state) > MAX_STATES:
            states = f"the rule {spec.rule.name} keeps {len(spec.rule.state)} arrays"
            return f"{states}, compiled code has room for {MAX_STATES}"
        return None

    @property
    def gradient(self) -> Array:
        """Gradient of the last step, in the layout of theta (after penalty and clipping)."""
        return self._gradient

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
        problem, index, state, etas, records
            As for :meth:`bpcore.training.reference.ReferencePlan.run`.
        watch : callable, optional
            Sees every quantity of every step as the reference computes it from the same parameters, then loss, W and b
            as they are here; the run goes on from the latter.
        """
        if watch is not None:
            self._run_watched(problem, index, state, etas, records, watch)
            return
        steps, m = index.shape
        odd = m > self.spec.batch_size or (index.size and not 0 <= index.min() <= index.max() < problem.m)
        if odd or (problem.weights is None) == self.spec.weighted or (problem.labels is None) == self.spec.classes:
            self._run_reference(problem, index, state, etas, records, None)  # which says what is wrong, if anything
            return
        rates = np.array(etas, np.float64)
        done = 0
        while done < steps:
            done += self._run_compiled(problem, index[done:], state, rates[done:], records[:, done:])
            if done < steps:
                # a number of the rule is not finite: plain Python decides whether that is an error
                now = slice(done, done + 1)
                self._run_reference(problem, index[now], state, etas[now], records[:, now], None)
                done += 1

    def _run_compiled(self, problem: Problem, index: Array, state: TrainingState, etas: Array, records: Array) -> int:
        """Run until the end or until a step that plain Python must do; return the number of steps."""
        from bpcore.kernels.numba.pieces import MAX_STATES

        names = tuple(state.running)
        self._running[:] = [state.running[name] for name in names]
        no_labels, nothing = self._none
        states = [state.arrays[name] for name in self.spec.rule.state]
        self._choose_gathers(problem)
        done = self._run(
            problem.X,
            problem.Y,
            no_labels if problem.labels is None else problem.labels,
            nothing if problem.weights is None else problem.weights,
            np.ascontiguousarray(index, np.int64),
            etas,
            records,
            self.net.theta,
            self._grad,
            *states,
            *(nothing,) * (MAX_STATES - len(states)),
            self._running,
            self._hyper,
            self._numbers,
            self._prices,
            self._table,
            self._work,
            self._kept,
            self._ones,
            self._labels,
            self._rows,
            self._sums,
            self._cells,
            state.step,
            self.seed,
            self.spec.dropout is not None and self.spec.dropout.per == "sample",
            self._s,
            problem.threshold,
            *self._clip,
            self._functions,
        )
        state.step += done
        state.running = dict(zip(names, self._running.tolist(), strict=True))
        self._gradient = self._grad
        return done

    def _choose_gathers(self, problem: Problem) -> None:
        """Take the kernel for contiguous rows or the one for any strides."""
        from bpcore.kernels.numba.calls import addresses
        from bpcore.kernels.numba.rowwise import take_rows

        layouts = tuple("C" if data.flags.c_contiguous else "A" for data in (problem.X, problem.Y))
        if layouts != self._layouts:
            self._pieces[:2] = [take_rows[self.spec.dtype, layout] for layout in layouts]
            self._functions, self._layouts = addresses(self._pieces), layouts

    def _run_reference(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch | None,
    ) -> None:
        if self._reference is None:
            self._reference = ReferencePlan(self.spec, self.net, self.be, self.seed)
        self._reference.run(problem, index, state, etas, records, watch)
        self._gradient = self._reference.gradient

    def _run_watched(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch,
    ) -> None:
        """Show each step twice: all of its quantities by the reference, and what came of it here.

        Every step of the reference starts from what the compiled steps made, so that rounding cannot lead the two
        apart, and a number that was not finite in a compiled run is found again.
        """
        net = self.net
        before = Snapshot(self.be, net.theta, state)
        for k in range(len(index)):
            now = slice(k, k + 1)
            before.take(net.theta, state)
            self._run_reference(problem, index[now], state, etas[now], records[:, now], watch)
            before.put_back(net.theta, state)
            self.run(problem, index[now], state, etas[now], records[:, now])
            watch("loss", 0, records[0, now])
            for l in net.W.layers:
                watch("W", l, net.W[l])
                watch("b", l, net.b[l])


def _table(spec: StepSpec, net: MLP) -> tuple[Array, Array, int]:
    """Lay out the memory of the layers: the table, what the masks hold, and the length of ``work``."""
    from bpcore.kernels.numba.epoch import COLUMNS

    L, m = len(spec.sizes), spec.batch_size
    per_sample = spec.dropout is not None and spec.dropout.per == "sample"
    table, kept, length = np.full((L, len(COLUMNS)), -1, np.int64), np.zeros(L), 0

    def room(size: int) -> int:
        nonlocal length
        start = length
        length += -(-size // ALIGNMENT) * ALIGNMENT
        return start

    for l, n in enumerate(spec.sizes):
        row = dict.fromkeys(COLUMNS, -1) | {"size": n, "h": room(m * n)}
        if l > 0:
            row |= {"z": room(m * n), "delta": room(m * n)}
        row["passed"] = row["h"]
        if l == L - 1:
            # the output hands nothing on: here are the terms of the loss and the targets
            row |= {"passed": room(m * n), "mask": room(m * n)}
        rate = spec.rates.get(l + 1, 0.0)
        if rate > 0:
            kept[l] = 1 / (1 - rate)
            row |= {"limit": int(rate * 2**32), "passed": room(m * n), "mask": room(m * n if per_sample else n)}
        table[l] = [row[column] for column in COLUMNS]
    for block in net.layout.blocks:
        table[block.layer - 1, COLUMNS.index("weights" if block.name == "W" else "bias")] = block.offset
    table[L - 1, COLUMNS.index("weights")] = net.layout.size
    return table, kept, length


def _pieces(spec: StepSpec) -> list[Callable[..., Any] | int]:
    """Compile, or load, the functions that the loop calls, in its order."""
    from bpcore.kernels.numba import philox, pieces, products, rowwise

    dtype, rule, out, penalty = spec.dtype, spec.rule, spec.activations[-1], spec.penalty
    jacobian = out.rowwise if spec.loss.pair_with(out) is None else ""
    value, delta = (make(spec.loss, out, spec.weighted) for make in (loss_program, bp1_program))
    masked = spec.dropout is not None and spec.dropout.per == "batch"
    take_rows = rowwise.take_rows[dtype]
    functions: list[Callable[..., Any] | int] = [
        take_rows,
        take_rows,
        *(kernel[dtype] for kernel in (rowwise.row_hits, rowwise.column_sums, rowwise.total, rowwise.sum_squares)),
        philox.dropout_mask[dtype],
        pieces.output(value, delta, jacobian, spec.weighted, dtype),
        pieces.penalty(penalty.gradient, penalty.constants, dtype) if penalty else take_rows,  # never called
        pieces.scalars(rule.scalars, rule.hyper, rule.initial_running(), rule.scalar_names, rule.name),
        pieces.update(rule.program, rule.scalar_names, rule.state, masked, dtype),
        products.gemm_address(dtype),
    ]
    compiled: dict[Activation, list[Callable[..., Any]]] = {}
    for l, activation in enumerate(spec.activations):
        if activation not in compiled:
            program = Program({"h": activation.value_formula}, name=activation.name) if not activation.rowwise else None
            compiled[activation] = [pieces.forward(program or activation.rowwise, dtype)]
        pair = compiled[activation]
        if l < len(spec.activations) - 1 and len(pair) == 1:
            pair.append(pieces.backward(activation.rowwise or bp2_program(activation, False), dtype))
        functions += (pair * 2)[:2]  # the output layer has no BP2
    return functions
