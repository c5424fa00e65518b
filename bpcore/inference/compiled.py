"""Prediction by Numba: one call of compiled code takes samples through all layers.

A block of samples goes through a layer after the other while it is in the cache. Few samples are one thread's work;
what is long enough is shared by a team of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.blas_limit import blas_limit
from bpcore.cores import usable_threads
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.inference.contract import ForwardSpec
from bpcore.layout import ALIGNMENT
from bpcore.typing import Array

__all__ = ["CompiledInference"]

BLOCK = 2**18
"""Bytes of Z and H of the samples that go through compiled layers at once, so that they stay in the second-level
cache ..."""
LEAST_BLOCK = 240
"""... and how many samples these are at least, for the sake of the products."""
LEAST_FLOPS = 20_000_000
"""Fewer operations are over before another thread has begun."""
START_SECONDS = 1e-4
"""What it takes to start a thread and to wait for its end."""


class CompiledInference:
    """The forward pass in one call of compiled code; parameters as for :func:`~bpcore.inference.make_inference`."""

    refuses = True

    def __init__(self, be: Backend, spec: ForwardSpec) -> None:
        from bpcore.kernels.numba import inference, pieces, products, vectors
        from bpcore.kernels.numba.calls import addresses

        sizes, dtype = spec.sizes, spec.dtype
        self._be, self._sizes, self._dtype, self._widest = be, sizes, dtype, max(sizes)
        self.block = max(LEAST_BLOCK, BLOCK // (2 * self._widest * dtype.itemsize))
        self._width, self._scratch = vectors.width(dtype.itemsize), products.scratch_size(dtype.itemsize)
        self._flops = 2 * sum(n_in * n for n_in, n in pairwise(sizes))
        self._table = np.zeros((len(sizes), len(inference.COLUMNS)), np.int64)
        self._table[:, inference.COLUMNS.index("size")] = sizes
        for block in spec.layout.blocks:
            column = inference.COLUMNS.index("weights" if block.name == "W" else "bias")
            self._table[block.layer - 1, column] = block.offset
        self._table_for_many: Array = None
        compiled: dict[Activation, Callable[..., Any]] = {}
        for activation in spec.activations:
            if activation not in compiled:
                formula = activation.rowwise or Program({"h": activation.value_formula}, name=activation.name)
                compiled[activation] = pieces.forward(formula, dtype)
        # they must live as long as their addresses
        self._pieces = [products.kernel(dtype), *(compiled[activation] for activation in spec.activations)]
        self._functions = addresses(self._pieces)
        self._answer = inference.compile_answer(dtype)
        self._idle: list[tuple[int, int, Array, Array]] = []

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`~bpcore.inference.Inference`; a team of threads shares what is long enough."""
        m = len(X)
        if m * self._flops >= LEAST_FLOPS:
            return self._answer_many(theta, X, out)
        return self._part(theta, X, out, self._table, 0, m)

    def _part(self, theta: Array, X: Array, out: Array, table: Array, begin: int, end: int) -> bool:
        """Compute some rows of the output."""
        try:
            block, z, work, scratch = self._idle.pop()
        except IndexError:
            block = z = 0
        rows = min(end - begin, self.block)
        if block < rows:
            block, z = rows, -(-rows * self._widest // ALIGNMENT) * ALIGNMENT
            work, scratch = self._be.zeros(2 * z, self._dtype), self._be.zeros(self._scratch, self._dtype)
        # fmt: off
        finite = self._answer(
            X, out, theta, table, work, z, scratch, self._width, block, begin, end, self._functions
        )
        # fmt: on
        self._idle.append((block, z, work, scratch))
        return bool(finite)

    def _answer_many(self, theta: Array, X: Array, out: Array) -> bool:
        from bpcore.kernels.numba import machine
        from bpcore.kernels.numba.team import meeting_place, run_team

        m, usable = len(X), usable_threads()
        if self._table_for_many is None:
            table = self._table.copy()
            table[:-1, -1] = machine.blas_addresses(self._sizes, self._dtype, usable)
            self._table_for_many = table
        table, threads = self._table_for_many, 1
        if usable > 1:
            known = machine.machine(usable)
            threads, _ = known.best_team(
                m * self._flops / known.rate, m, lambda k: (known.threads[k] - 1) * START_SECONDS
            )
        if threads == 1:
            return self._part(theta, X, out, table, 0, m)
        found = [False] * threads

        def part(t: int) -> int:
            found[t] = self._part(theta, X, out, table, t * m // threads, (t + 1) * m // threads)
            return 0

        with blas_limit(1 if table[:, -1].any() else None, compiled_only=True):
            run_team(part, threads, meeting_place())
        return all(found)
