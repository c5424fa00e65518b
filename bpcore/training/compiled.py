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
from bpcore.cores import usable_threads
from bpcore.errors import ConfigurationError
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.inference.compiled import BLOCK, LEAST_BLOCK
from bpcore.layout import ALIGNMENT
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.fast_plan import FastPlan
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.training.teamwork import best_team, keeps_weights_apart, shared_by_columns
from bpcore.tuning import step_flops
from bpcore.typing import Array

__all__ = ["CompiledPlan"]

SHARE, WIDE_SHARE = 2**16, 2**21
"""Bytes of the gradient that are computed before they are used for the update: with the parameters and the state of
the rule they stay in the second-level cache, or, for the products of BLAS, which like larger ones, in the third."""
LEAST_FLOPS = 2_000_000
"""A step with fewer operations takes about ten microseconds: a team gains little there, and loses much when its cores
share no cache or others use them too."""
LEAST_ROWS = 96
"""Rows of dW below which preparing a product takes longer than reading the gradient once more."""


class CompiledPlan(FastPlan):
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
    threads : int, optional
        Size of the team that computes a step, at most the number of samples in it. By default what
        :func:`~bpcore.training.teamwork.best_team` expects to be fastest.

    Raises
    ------
    ConfigurationError
        If the spec is not supported.
    """

    name = "compiled"

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int, threads: int | None = None) -> None:
        reason = self.supports(spec)
        if reason is not None:
            raise ConfigurationError(f"there is no compiled plan for this: {reason}; use plan='auto' or 'reference'")
        from bpcore.kernels.numba import epoch, team, vectors
        from bpcore.kernels.numba.calls import addresses
        from bpcore.kernels.numba.products import scratch_size

        super().__init__(spec, net, be, seed)
        m, sizes, dtype, rule = spec.batch_size, spec.sizes, spec.dtype, spec.rule
        T, self.why = _choose_threads(spec, threads)
        self._team = self.threads = T
        self._table, self._kept, length = _table(spec, net, T)
        self.uses_blas = bool(self._table[:, epoch.COLUMNS.index("blas")].any())
        self._width = vectors.width(dtype.itemsize)
        rows = -(-m // T)
        # members that share a product by columns go through the layers together, with all of their samples
        together = self._table[:-1, epoch.COLUMNS.index("shared")].any()
        blocks = 1 if together else max(1, round(rows / max(LEAST_BLOCK, BLOCK // (3 * sum(sizes) * dtype.itemsize))))
        self._block = -(-rows // blocks)
        self._partials = -1
        if T * self._block >= m and keeps_weights_apart(spec, T):
            self._partials, length = length, length + T * m * sizes[1]
        self._ones, length = length, length + max(sizes)
        self._work = be.zeros(length, dtype)
        self._work[self._ones :] = 1.0
        self._cells = be.empty((T, 2), dtype)
        self._labels = np.empty(m, np.int64)
        self._scales, self._hits = be.empty(m, dtype), be.empty(m, dtype)
        self._returned = np.empty((T, 8))  # of each member in a line of the cache of its own
        self._scratch = be.empty((T, scratch_size(dtype.itemsize)), dtype)
        self._partial = np.empty((T, 8))
        self._shares, self._begins = _shares(sizes, self._table, dtype.itemsize, T)
        self._squares = np.empty(len(self._shares))
        self._hyper = np.array(list(rule.hyper.values()))
        self._running = np.empty((T, len(rule.initial_running())))
        self._numbers = np.empty((T, len(rule.scalar_names)))
        # a penalty need not have constants; what follows them says that there is one
        self._prices = np.array([] if spec.penalty is None else [*spec.penalty.constants.values(), 1.0])
        self._clip = (epoch.CLIP_NOT, 0.0)
        if spec.clip is not None:
            scopes = {"element": epoch.CLIP_ELEMENT, "all": epoch.CLIP_ALL, "layer": epoch.CLIP_LAYER}
            self._clip = scopes[spec.clip.scope], spec.clip.limit
        self._dropout = {"": 0, "sample": epoch.PER_SAMPLE, "batch": epoch.PER_BATCH}[spec.masked_per]
        self._none = np.empty(0, np.int64), np.empty(0, dtype)
        self._s = sample_scale(spec.loss, sizes[-1])
        self._place = team.meeting_place()
        self._pieces = _pieces(spec)
        self._functions = addresses(self._pieces)
        self._run = epoch.compile_run(dtype)

    @staticmethod
    def supports(spec: StepSpec) -> str | None:
        """Say why a spec cannot be compiled; None if it can."""
        from bpcore.kernels.numba.pieces import MAX_STATES

        if len(spec.rule.state) > MAX_STATES:
            states = f"the rule {spec.rule.name} keeps {len(spec.rule.state)} arrays"
            return f"{states}, compiled code has room for {MAX_STATES}"
        return None

    def _fits(self, problem: Problem, index: Array) -> bool:
        """Whether the problem is what the spec says; compiled code does not look whether a sample exists."""
        return super()._fits(problem, index) and (not index.size or bool(0 <= index.min() and index.max() < problem.m))

    def _run_steps(
        self, problem: Problem, index: Array, state: TrainingState, etas: Sequence[float], records: Array
    ) -> None:
        steps, rates, done = len(index), np.array(etas, np.float64), 0
        while done < steps:
            done += self._run_compiled(problem, index[done:], state, rates[done:], records[:, done:])
            self._by_reference = False
            if done < steps:
                # a number of the rule is not finite: plain Python decides whether that is an error
                now = slice(done, done + 1)
                self._run_reference(problem, index[now], state, etas[now], records[:, now])
                done += 1

    def _run_compiled(self, problem: Problem, index: Array, state: TrainingState, etas: Array, records: Array) -> int:
        """Run until the end or until a step that plain Python must do; return the number of steps."""
        from bpcore.kernels.numba.pieces import MAX_STATES
        from bpcore.kernels.numba.team import run_team

        names = tuple(state.running)
        self._running[:] = [state.running[name] for name in names]
        no_labels, nothing = self._none
        states = [state.arrays[name] for name in self.spec.rule.state]
        arguments = (
            np.ascontiguousarray(problem.X),  # as they are, unless someone made them with strides
            np.ascontiguousarray(problem.Y),
            no_labels if problem.labels is None else problem.labels,
            nothing if problem.weights is None else problem.weights,
            np.ascontiguousarray(index, np.int64),
            etas,
            records,
            self.net.theta,
            self._gradient,
            *states,
            *(nothing,) * (MAX_STATES - len(states)),
            self._running,
            self._hyper,
            self._numbers,
            self._prices,
            self._table,
            self._work,
            self._ones,
            self._kept,
            self._labels,
            self._scales,
            self._hits,
            self._returned,
            self._cells,
            self._scratch,
            self._partial,
            self._shares,
            self._begins,
            self._squares,
            state.step,
            self.seed,
            self._dropout,
            self._s,
            problem.threshold,
            *self._clip,
            self._width,
            self._block,
            self._partials,
        )
        place, functions = self._place, self._functions
        done = run_team(lambda t: self._run(*arguments, t, place, functions), self._team, place)
        state.step += done
        state.running = dict(zip(names, self._running[0].tolist(), strict=True))
        return done


def _choose_threads(spec: StepSpec, threads: int | None) -> tuple[int, str]:
    """Choose the size of the team, and say why."""
    import numba

    if numba.config.DISABLE_JIT:
        return 1, "nothing is compiled"
    if threads is not None:
        return min(threads, spec.batch_size), "asked for"
    usable = usable_threads()
    if usable == 1:
        return 1, "no more are usable"
    if step_flops(spec.sizes, spec.batch_size) < LEAST_FLOPS:
        return 1, "a step is too short to be shared"
    from bpcore.kernels.numba.machine import machine

    return best_team(spec, machine(usable))


def _table(spec: StepSpec, net: MLP, threads: int) -> tuple[Array, Array, int]:
    """Lay out the memory of the layers: the table, what the masks hold, and the length of ``work``."""
    from bpcore.kernels.numba.epoch import COLUMNS
    from bpcore.kernels.numba.machine import blas_addresses

    L, m = len(spec.sizes), spec.batch_size
    per_sample = spec.masked_per == "sample"
    table, kept, length = np.full((L, len(COLUMNS)), -1, np.int64), np.zeros(L), 0

    def room(size: int) -> int:
        nonlocal length
        start = length
        length += -(-size // ALIGNMENT) * ALIGNMENT
        return start

    for l, n in enumerate(spec.sizes):
        row = dict.fromkeys(COLUMNS, -1) | {"size": n, "h": room(m * n), "blas": 0, "shared": 0}
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
    table[:-1, COLUMNS.index("shared")] = [shared_by_columns(spec, l, threads) for l in range(1, L)]
    table[:-1, COLUMNS.index("blas")] = blas_addresses(spec.sizes, spec.dtype, usable_threads())
    for block in net.layout.blocks:
        table[block.layer - 1, COLUMNS.index("weights" if block.name == "W" else "bias")] = block.offset
    return table, kept, length


def _shares(sizes: tuple[int, ...], table: Array, itemsize: int, threads: int) -> tuple[Array, Array]:
    """Cut the gradient into parts: of every dW as many rows for each thread, and so many at once as stay in cache.

    Returns
    -------
    shares : array of int64 (., 3)
        Layer, first and last row, those of the first thread first; a bias has no rows.
    begins : array of int64 (threads + 1,)
        Where the shares of each thread begin.
    """
    from bpcore.kernels.numba.epoch import BIAS, COLUMNS

    shares: list[tuple[int, int, int]] = []
    begins = [0]
    for t in range(threads):
        for l in range(len(sizes) - 2, -1, -1):
            if (len(sizes) - l) % threads == t:
                shares.append((l, BIAS, BIAS))
            bytes_at_once = WIDE_SHARE if table[l, COLUMNS.index("blas")] else SHARE
            rows = max(bytes_at_once // (sizes[l + 1] * itemsize), LEAST_ROWS)
            begin, end = t * sizes[l] // threads, (t + 1) * sizes[l] // threads
            shares += [(l, i, min(i + rows, end)) for i in range(begin, end, rows)]
        begins.append(len(shares))
    return np.array(shares, np.int64), np.array(begins, np.int64)


def _pieces(spec: StepSpec) -> list[Callable[..., Any] | int]:
    """Compile, or load, the functions that the loop calls, in its order."""
    from bpcore.kernels.numba import parts, philox, pieces, products, rowwise, team

    dtype, rule, out, penalty = spec.dtype, spec.rule, spec.activations[-1], spec.penalty
    paired = spec.loss.pair_with(out) is not None
    value, delta = (make(spec.loss, out, spec.weighted) for make in (loss_program, bp1_program))
    masked = spec.masked_per == "batch"
    scope = "" if spec.clip is None else spec.clip.scope
    never = 0  # the address of what is not called
    functions: list[Callable[..., Any] | int] = [
        rowwise.row_hits[dtype] if spec.classes else never,
        *(kernel[dtype] if spec.dropout else never for kernel in (philox.dropout_mask, parts.drop)),
        parts.limit[dtype] if scope == "element" else never,
        *(kernel[dtype] if scope in ("all", "layer") else never for kernel in (parts.squares, parts.shorten)),
        pieces.output(value, delta, out.rowwise, paired, spec.weighted, dtype),
        pieces.penalty(penalty.gradient, penalty.constants, dtype) if penalty else never,
        pieces.scalars(rule.scalars, rule.hyper, rule.initial_running(), rule.scalar_names, rule.name),
        pieces.update(rule.program, rule.scalar_names, rule.state, masked, dtype),
        products.kernel(dtype),
        team.yield_address(),
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
