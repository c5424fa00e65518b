"""Prediction: the forward pass for data of any length, in memory that does not grow with it.

:class:`ReferenceInference` runs on every backend, an operation at a time. :class:`CompiledInference` does the same in
one call of compiled code, on the Numba backend: for one sample, where the calls of the operations would take most of
the time, and for many, which a team of threads shares. :class:`bpcore.inference_cuda.CudaInference` does it on CuPy.

All may be called from several threads at once. What they need besides the output is kept from call to call, one set
for each call that is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import activate
from bpcore.blas_limit import blas_limit
from bpcore.cores import usable_threads
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.layout import ALIGNMENT, ParameterLayout
from bpcore.typing import Array

__all__ = ["CompiledInference", "Inference", "ReferenceInference", "make_inference"]

ROWS = 4096
"""Samples that the reference handles at a time."""
BLOCK = 2**18
"""Bytes of Z and H of the samples that go through compiled layers at once, so that they stay in the second-level
cache ..."""
LEAST_BLOCK = 240
"""... and how many samples these are at least, for the sake of the products."""
LEAST_FLOPS = 20_000_000
"""Fewer operations are over before another thread has begun."""
START_SECONDS = 1e-4
"""What it takes to start a thread and to wait for its end."""


class Inference(Protocol):
    """What :meth:`bpcore.MLP.predict` asks.

    Attributes
    ----------
    block : int
        Samples that go through the layers at once. Who cuts the samples does so at a multiple of it.
    refuses : bool
        Whether it notices samples that are not finite. Otherwise the caller must look. Where it says that they may not
        be finite, the caller looks, too: finite ones may overflow.
    """

    block: int
    refuses: bool

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """Compute H[L] of X (m, n_1) into ``out`` (m, n_L); return False if it was noticed that X is not finite.

        All arrays are C-contiguous, of the network's dtype, on the backend's device.
        """


def make_inference(
    be: Backend, layout: ParameterLayout, sizes: Sequence[int], activations: Sequence[Activation], dtype: np.dtype[Any]
) -> Inference:
    """Return the fastest inference that a backend has.

    Parameters
    ----------
    be : Backend
        Where it computes.
    layout : ParameterLayout
        Where W and b lie in theta.
    sizes : sequence of int
        Widths n_1 ... n_L.
    activations : sequence of Activation
        Of the layers 2 ... L.
    dtype : numpy.dtype
        Of all arrays.
    """
    if be.name == "cupy":
        from bpcore.inference_cuda import CudaInference

        return CudaInference(be, layout, sizes, activations, dtype)
    kind = CompiledInference if be.name == "numba" else ReferenceInference
    return kind(be, layout, sizes, activations, dtype)


class ReferenceInference:
    """The forward pass as calls of a backend's operations; parameters as for :func:`make_inference`."""

    refuses, block = False, ROWS

    def __init__(
        self,
        be: Backend,
        layout: ParameterLayout,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        dtype: np.dtype[Any],
    ) -> None:
        self.be, self.layout, self.sizes, self.activations, self.dtype = be, layout, sizes, activations, dtype
        self._idle: list[list[tuple[Array, Array]]] = []

    @np.errstate(all="ignore")
    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`Inference`."""
        be, m, L = self.be, X.shape[0], len(self.sizes)
        W, b = self.layout.views(theta, "W"), self.layout.views(theta, "b")
        rows = min(ROWS, m)
        buffers = self._borrow(rows)
        for start in range(0, m, rows):
            H = X[start : start + rows]
            count = H.shape[0]
            for l in range(1, L):
                Z, H_next = buffers[l - 1]
                after = out[start : start + count] if l == L - 1 else H_next[:count]
                be.matmul(H, W[l], out=Z[:count])
                H = activate(be, self.activations[l - 1], Z[:count], b[l], out=after)
        self._idle.append(buffers)
        return True

    def _borrow(self, rows: int) -> list[tuple[Array, Array]]:
        """Return Z and H of each layer, from an earlier call if they are large enough."""
        try:
            buffers = self._idle.pop()
            if buffers[0][0].shape[0] >= rows:
                return buffers
        except IndexError:  # all are in use
            pass
        empty, dtype, n_out = self.be.empty, self.dtype, self.sizes[-1]
        buffers = [(empty((rows, n), dtype), empty((rows, n), dtype)) for n in self.sizes[1:-1]]
        return [*buffers, (empty((rows, n_out), dtype), None)]  # what the last layer hands on is the output


class CompiledInference:
    """The forward pass in one call of compiled code; parameters as for :func:`make_inference`."""

    refuses = True

    def __init__(
        self,
        be: Backend,
        layout: ParameterLayout,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        dtype: np.dtype[Any],
    ) -> None:
        from bpcore.kernels.numba import inference, pieces, products, vectors
        from bpcore.kernels.numba.calls import addresses

        self.be, self._sizes, self._dtype, self._widest = be, tuple(sizes), dtype, max(sizes)
        self.block = max(LEAST_BLOCK, BLOCK // (2 * self._widest * dtype.itemsize))
        self._width, self._scratch = vectors.width(dtype.itemsize), products.scratch_size(dtype.itemsize)
        self._flops = 2 * sum(n_in * n for n_in, n in pairwise(sizes))
        self._table = np.zeros((len(sizes), len(inference.COLUMNS)), np.int64)
        self._table[:, inference.COLUMNS.index("size")] = sizes
        for block in layout.blocks:
            column = inference.COLUMNS.index("weights" if block.name == "W" else "bias")
            self._table[block.layer - 1, column] = block.offset
        self._table_for_many: Array = None
        compiled: dict[Activation, Callable[..., Any]] = {}
        for activation in activations:
            if activation not in compiled:
                formula = activation.rowwise or Program({"h": activation.value_formula}, name=activation.name)
                compiled[activation] = pieces.forward(formula, dtype)
        # they must live as long as their addresses
        self._pieces = [products.kernel(dtype), *(compiled[activation] for activation in activations)]
        self._functions = addresses(self._pieces)
        self._answer = inference.compile_answer(dtype)
        self._idle: list[tuple[int, int, Array, Array]] = []

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`Inference`; a team of threads shares what is long enough."""
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
            work, scratch = self.be.zeros(2 * z, self._dtype), self.be.zeros(self._scratch, self._dtype)
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
