"""The wide plan: steps as a CUDA graph, as :mod:`bpcore.training.graph` has them, with products by cuBLAS.

Kernels around the products do the rest, one pass over memory each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cublas import WORKSPACE, Cublas, load_cublas
from bpcore.backends.cupy_device import THREADS
from bpcore.network import MLP
from bpcore.training.graph import GraphPlan
from bpcore.training.spec import StepSpec
from bpcore.typing import Array

__all__ = ["WidePlan"]


class WidePlan(GraphPlan):
    """Steps as a CUDA graph, with products by cuBLAS; parameters as for :class:`~bpcore.training.graph.GraphPlan`."""

    name = "wide"
    why = "products by cuBLAS, whole steps are replayed by the device"
    own_products = False

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        self._H1 = be.empty((spec.batch_size, spec.sizes[0]), spec.dtype)
        self._cublas = Cublas(load_cublas(be.xp), be.empty(WORKSPACE, np.uint8))  # type: ignore[attr-defined]
        self._precision = str(spec.dtype)
        super().__init__(spec, net, be, seed)

    def _nodes(self) -> int:
        return 7 * len(self.spec.sizes)

    def _inputs(self, l: int) -> Array:
        return self._H1 if l == 1 else super()._inputs(l)

    def _multiply(self, A: Array, B: Array, out: Array, **transposed: bool) -> None:
        self._cublas.use_stream(self._gpu.current_stream())
        self._cublas.multiply(A, B, out, self._precision, **transposed)

    def _warm_up(self, m: int) -> None:
        """Let cuBLAS load its kernels; the results are overwritten before they are read."""
        L = len(self.spec.sizes)
        for l in range(1, L):
            A, Delta = self._inputs(l)[:m], self._Delta[l + 1][:m]
            self._multiply(A, self.net.W[l], self._Z[l + 1][:m])
            self._multiply(A, Delta, self._weights(l), transpose_a=True)
            self.be.column_sums(Delta, out=self._bias(l))
            if l > 1:
                self._multiply(Delta, self.net.W[l], self._Delta[l][:m], transpose_b=True)

    def _weights(self, l: int) -> Array:
        """DW of layer l."""
        block = next(block for block in self.net.layout.blocks if (block.name, block.layer) == ("W", l))
        return self.net.layout.view(self._gradient, block)

    def _bias(self, l: int) -> Array:
        """Db of layer l."""
        block = next(block for block in self.net.layout.blocks if (block.name, block.layer) == ("b", l))
        return self.net.layout.view(self._gradient, block)

    def _forward(self, l: int, m: int, step: Any) -> None:
        sizes, net, up = self.spec.sizes, self.net, l + 1
        n, code, drop = sizes[l], self._pieces.codes[l - 1], self._drop(up)
        if l == 1:
            kernel = self._around("gather_inputs")
            self._launch(kernel, *self._flat(m * sizes[0]), self._batch, step, self._H1, m, sizes[0])
        self._multiply(self._inputs(l)[:m], net.W[l], self._Z[up][:m])
        passed = self._passed.get(up, self._H[up])
        arguments = (self._batch, step, net.b[l], self._Z[up], self._H[up], passed, np.int32(code), *drop, m, n)
        self._launch(self._around("finish_forward"), *self._flat(m * n), *arguments)
        self._forward_rows(up, m, step, code, drop)

    def _forward_output(self, m: int, step: Any) -> bool:
        return False

    def _backward(self, l: int, m: int) -> None:
        n, code = self.spec.sizes[l - 1], self._pieces.codes[l - 2]
        self._multiply(self._Delta[l + 1][:m], self.net.W[l], self._Delta[l][:m], transpose_b=True)
        arguments = self._Z[l], self._H[l], self._Delta[l], np.int32(code), *self._mask(l), m, n
        self._launch(self._around("finish_backward"), *self._flat(m * n), *arguments)
        self._backward_rows(l, m, code)

    def _parameters(self, m: int, step: Any) -> None:
        for l in range(len(self.spec.sizes) - 1, 0, -1):
            Delta = self._Delta[l + 1][:m]
            self._multiply(self._inputs(l)[:m], Delta, self._weights(l), transpose_a=True)
            self.be.column_sums(Delta, out=self._bias(l))
        if self.spec.penalty is not None or self._clip:
            self._launch(
                self._around("prepare_gradient"),
                self._update_blocks(),
                THREADS,
                *(self._layers, np.int32(len(self._first_tile) - 1), self.net.theta, self._gradient, self._prices),
                *(self._T(self._limit), np.int32(self._clip), self._squares),
            )
        self._update(step)
