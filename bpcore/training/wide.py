"""The wide plan: steps as a CUDA graph, as :mod:`bpcore.training.graph` has them, with products by cuBLAS.

Kernels around the products do the rest, each in one pass over its arrays (``kernels/cuda/wide.cuh``). For the backward
pass a layer keeps one array: what it handed on, where the derivative can be had from that, else its product.

In ``tf32x3`` whatever a product reads is in two planes: numbers rounded to what tensor cores read, and the rest of
them. For a batch of m samples they are the first m rows of an array and the next m. A product is written where the
first plane will be; who reads numbers adds the planes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cublas import WORKSPACE, Cublas, load_cublas
from bpcore.backends.cublas_lt import CublasLt, ReluProduct
from bpcore.backends.cupy_device import THREADS, power_of_two
from bpcore.kernels.cuda.source import OPERANDS, wide_unit
from bpcore.layout import ByLayer
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.device_steps import derivative_of_output, is_relu
from bpcore.training.graph import GraphPlan
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.typing import Array

__all__ = ["WidePlan"]

FIRST_SCALE = 65536.0
GOOD_STEPS = 2000
"""Steps without overflow after which the loss scale is doubled."""
BIASES = 8  # as in wide_update.cuh
NARROW_OUTPUT = 32
BLOCKS = 4
"""Blocks to a multiprocessor in a pass: each thread has several rows on their way at once."""
ROWS = 16
"""Rows of a block, at least: its sums of columns, in float64, are then few beside what it reads."""

_HANDED_ON, _PRODUCT = range(2)
_NORMS = 2  # clippings from this number on need a norm


class WidePlan(GraphPlan):
    """Steps as a CUDA graph, with products by cuBLAS; parameters as for :class:`~bpcore.training.graph.GraphPlan`."""

    name = "wide"
    why = "products by cuBLAS, whole steps are replayed by the device"
    epilogues = True
    """Whether products of 16 bits go on with bias and ReLU where cuBLASLt can; False is for measurements."""

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        self._load_libraries(be)
        self._precision = spec.precision or str(spec.dtype)
        self._operands = self._precision if self._precision in OPERANDS else ""
        self._storage, self._planes = _operand(spec)
        super().__init__(spec, net, be, seed)

    def _load_libraries(self, be: Backend) -> None:
        workspace = be.empty(WORKSPACE, np.uint8)
        here = be.gpu.here
        self._cublas = here(lambda: Cublas(load_cublas(be.xp), workspace))
        self._lt = here(lambda: CublasLt(load_cublas(be.xp, "cublasLt"), workspace))

    # ---------------------------------------------------------------- memory

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int) -> dict[str, int]:
        """Bytes that the plan allocates, by what they are for; see :meth:`ReferencePlan.device_bytes`."""
        m, sizes, item, gpu = spec.batch_size, spec.sizes, spec.dtype.itemsize, be.gpu
        storage, planes = _operand(spec)
        stored, copied = storage.itemsize, spec.precision in OPERANDS
        # Z[L] and scales; inputs and Deltas
        numbers, kept = sizes[-1] + 1, planes * (sum(sizes[:-1]) + sum(sizes[1:]))
        for l, activation in enumerate(spec.activations[:-1], start=2):
            if activation.rowwise:
                numbers += 3 * sizes[l - 1]
            elif not derivative_of_output(activation, dropped=l in spec.rates):
                kept += sizes[l - 1]
        layers = m * (numbers * item + kept * stored) + item * sum(sizes[l - 1] for l in spec.rates)
        splits = max(1, min(BLOCKS * gpu.multiprocessors, m // ROWS, 65535))
        output = gpu.max_blocks if sizes[-1] <= NARROW_OUTPUT else splits
        sums = 8 * (splits * sum(sizes[1:-1]) + max(output, splits) * sizes[-1] + (len(sizes) + 1) * gpu.max_blocks)
        gradient = size * (item + planes * stored * copied)
        return {
            "activations and Deltas": layers,
            "gradient": gradient,
            "partial sums": sums,
            "workspace of cuBLAS": WORKSPACE,
        }

    def _allocate_layers(self) -> None:
        """Allocate what is kept of the layers."""
        spec, be, sizes = self.spec, self.be, self.spec.sizes
        L, m, T = len(sizes), spec.batch_size, spec.dtype
        codes = dict(enumerate(self._pieces.codes, start=2))
        rowwise = [l for l in range(2, L) if codes[l] < 0]
        self._handed_on = {
            l: derivative_of_output(spec.activations[l - 2], dropped=l in spec.rates)
            for l in range(2, L)
            if l not in rowwise
        }

        def arrays(layers: Sequence[int], dtype: Any, planes: int = 1) -> dict[int, Array]:
            return {l: be.empty((planes * m, sizes[l - 1]), dtype) for l in layers}

        self._inputs_of = arrays(range(1, L), self._storage, self._planes)  # by layer: what its product reads
        own = arrays([l for l, handed_on in self._handed_on.items() if not handed_on], self._storage)
        self._product = {l: own[l] if l in own else self._inputs_of[l] for l in self._handed_on}
        # row-wise layers, and the output, compute in the type of the parameters
        self._Z, self._H = arrays([*rowwise, L], T), arrays(rowwise, T)
        self._errors = arrays(rowwise, T)
        self._Delta = arrays(range(2, L + 1), self._storage, self._planes)
        # what all samples lose is told to the update; what one sample loses is drawn again where it is needed
        self._masks = {l: be.zeros(sizes[l - 1], T) for l in spec.rates}
        # by layer and batch: products that cuBLASLt takes as far as H
        self._relu_products: dict[tuple[int, int], ReluProduct] = {}

    def _prepare_products(self) -> None:
        """Allocate what the products and the update share, with its table (``U_...`` in wide_update.cuh)."""
        be, sizes, T = self.be, self.spec.sizes, self.spec.dtype
        L = len(sizes)
        self._loss_scale = be.asarray(np.array([FIRST_SCALE, 1 / FIRST_SCALE, 0, 1, 0, 0], T))
        self._factors = self._loss_scale[1:3] if self._scaled else None
        # what the products read of theta
        layout = self.net.layout
        self._copy = be.zeros(self._planes * layout.size, self._storage) if self._operands else self.net.theta
        self._W = layout.views(self._copy[: layout.size], "W")
        self._b = layout.views(self._copy[: layout.size], "b")
        if self._planes == 2:
            rests = layout.views(self._copy[layout.size :], "W")
            self._W = ByLayer(list(zip(self._W, rests, strict=True)), self._W.first)
        self._dW = self.net.layout.views(self._gradient, "W")
        self._partial = {l: be.empty((self._splits(l), sizes[l - 1]), np.float64) for l in range(2, L + 1)}
        self._layers = be.asarray(self._layer_table())
        self._squares = be.zeros((L - 1) * self._update_blocks(), np.float64)

    def _splits(self, l: int) -> int:
        """How many partial sums of BP3 the errors of layer l leave."""
        n = self.spec.sizes[l - 1]
        if l == len(self.spec.sizes) and n <= NARROW_OUTPUT:
            return self._output_blocks(self.spec.batch_size)
        return self._plane(n)[0][1]

    def _layer_table(self) -> Any:
        net, rows = self.net, []
        offsets = net.layout.offsets
        per_batch = self.spec.masked_per == "batch"
        for l in range(1, net.n_layers):
            partial = self._partial[l + 1]
            keep = [self._masks[k].data.ptr if per_batch and k in self._masks else 0 for k in (l, l + 1)]
            sizes = net.sizes[l - 1], net.sizes[l]
            rows.append((*sizes, offsets["W", l], offsets["b", l], partial.data.ptr, partial.shape[0], *keep))
        return np.array(rows, np.int64)

    def _around(self, name: str) -> Any:
        return self._gpu.load(wide_unit(self._pieces.text, self.spec.dtype, self._operands), name)

    @property
    def _scaled(self) -> bool:
        return self._precision == "fp16"

    @property
    def loss_scaling(self) -> dict[str, float] | None:
        """Loss scale and number of skipped steps, in fp16."""
        if not self._scaled:
            return None
        numbers = self.be.to_numpy(self._loss_scale)
        return {"scale": float(numbers[0]), "skipped_steps": int(numbers[-1])}

    @property
    def carried(self) -> dict[str, Array]:
        """The loss scale with its counters, in fp16."""
        return {"loss_scale": self._loss_scale} if self._scaled else {}

    # ---------------------------------------------------------------- running

    def _run_steps(
        self, problem: Problem, index: Array, state: TrainingState, etas: Sequence[float], records: Array
    ) -> None:
        if self._operands:  # theta may have been changed since the last run
            size = self.net.layout.size
            self._launch(self._around("copy_parameters"), *self._flat(size), self.net.theta, self._copy, size)
        super()._run_steps(problem, index, state, etas, records)

    # ---------------------------------------------------------------- launches

    def _plane(self, n: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Grid and block of a pass over a matrix of n columns; the same for any number of rows."""
        run = 16 // self._storage.itemsize
        runs = n // run if n % run == 0 else n
        x = min(THREADS, power_of_two(runs))
        tiles = min(-(-runs // x), self._gpu.max_blocks)
        splits = min(BLOCKS * self._gpu.multiprocessors // tiles, self.spec.batch_size // ROWS, 65535)
        return (tiles, max(1, splits)), (x, THREADS // x)

    def _pass(self, name: str, n: int, *arguments: Any) -> None:
        """Launch a pass over a matrix of n columns."""
        values = tuple([np.int64(value) if isinstance(value, int) else value for value in arguments])
        self._gpu.launch(self._around(name), self._plane(n), values)

    def _output_blocks(self, m: int) -> int:
        """Blocks of the kernel of the output; of a narrow one always as many as for a whole batch."""
        n = self.spec.sizes[-1]
        blocks = m if n > NARROW_OUTPUT else -(-self.spec.batch_size * min(32, power_of_two(n)) // THREADS)
        return max(1, min(blocks, int(self._gpu.max_blocks)))

    def _update_blocks(self) -> int:
        sizes = self.spec.sizes
        runs = -(-self.net.layout.size * int(self._gradient.itemsize) // (16 * THREADS))
        groups = sum(-(-n // BIASES) for n in sizes[1:])
        return max(1, min(int(self._gpu.max_blocks), max(runs, groups)))

    def _read(self, array: Array, m: int) -> Any:
        """What a product reads of m samples: some rows, or the two planes of them."""
        return array[:m] if self._planes == 1 else (array[:m], array[m : 2 * m])

    def _multiply(self, A: Any, B: Any, out: Array, **others: Any) -> None:
        self._cublas.use_stream(self._gpu.current_stream())
        self._cublas.multiply(A, B, out, self._precision, **others)

    def _nodes(self) -> int:
        return (5 if self._planes == 1 else 11) * len(self.spec.sizes)

    def _ends_in_relu(self, l: int) -> bool:
        """Whether layer l hands on ``max(z, 0)`` and nothing else, in rows of 16 bits that cuBLASLt can read."""
        spec = self.spec
        aligned = all(n * self._storage.itemsize % 16 == 0 for n in spec.sizes[l - 2 : l])
        may = self.epilogues and self._storage.itemsize == 2 and aligned
        return may and is_relu(spec.activations[l - 2]) and l not in spec.rates

    def _ask(self, m: int) -> None:
        """Ask cuBLASLt for the products that end in ReLU."""
        for l in self._handed_on:
            if self._ends_in_relu(l):
                A, out = self._inputs_of[l - 1][:m], self._inputs_of[l][:m]
                product = ReluProduct(self._lt, A, self._W[l - 1], self._b[l - 1], out, self._precision)
                if product.supported:
                    self._relu_products[l, m] = product

    # ---------------------------------------------------------------- one step

    def _warm_up(self, m: int) -> None:
        """Let cuBLAS choose and load its kernels; the results are overwritten before they are read."""
        self._ask(m)
        for l in range(1, len(self.spec.sizes)):
            self._forward_product(l, m)
            self._gradient_product(l, m)
            if l > 1:
                self._backward_product(l, m)

    def _record_step(self, m: int, j: int) -> None:
        spec, L, step = self.spec, len(self.spec.sizes), np.int32(j)
        if spec.weighted:
            self._launch(self._around("weigh"), 1, THREADS, self._batch, step, self._scales, self._T(self._s), m)
        self._pass("gather_inputs", spec.sizes[0], self._batch, step, self._inputs_of[1], m, spec.sizes[0])
        for l in range(1, L - 1):
            self._forward_product(l, m)
            self._finish_forward(l + 1, m, step)
        self._forward_product(L - 1, m)
        self._finish_output(m, step)
        for l in range(L - 1, 0, -1):
            self._gradient_product(l, m)
            if l > 1:
                self._backward_product(l, m)
                self._finish_backward(l, m, step)
        self._update_all(m, step)

    def _forward_product(self, l: int, m: int) -> None:
        if (l + 1, m) in self._relu_products:
            self._relu_products[l + 1, m].queue(self._gpu.current_stream())
            return
        out = self._product[l + 1] if l + 1 in self._product else self._Z[l + 1]
        self._multiply(self._read(self._inputs_of[l], m), self._W[l], out[:m])

    def _backward_product(self, l: int, m: int) -> None:
        out = self._errors[l] if l in self._errors else self._Delta[l]
        self._multiply(self._read(self._Delta[l + 1], m), self._W[l], out[:m], transpose_b=True)

    def _gradient_product(self, l: int, m: int) -> None:
        A, Delta = self._read(self._inputs_of[l], m), self._read(self._Delta[l + 1], m)
        self._multiply(A, Delta, self._dW[l], transpose_a=True, factors=self._factors)

    def _finish_forward(self, l: int, m: int, step: Any) -> None:
        """Bias, activation and dropout of a hidden layer."""
        if (l, m) in self._relu_products:
            return
        n, code, drop, out = self.spec.sizes[l - 1], self._pieces.codes[l - 2], self._drop(l), self._inputs_of[l]
        b = self.net.b[l - 1]
        if code >= 0:
            arguments = self._batch, step, self._product[l], b, out, np.int32(code), *drop, m, n
            self._pass("finish_forward", n, *arguments)
            return
        self._pass("add_bias", n, b, self._Z[l], m, n)
        self._rows(("softmax", "log_softmax")[-code - 1], m, n, self._Z[l], self._H[l])
        self._pass("hand_on", n, self._batch, step, self._H[l], out, *drop, m, n)

    def _finish_output(self, m: int, step: Any) -> None:
        """Loss, hits and BP1."""
        L, n = len(self.spec.sizes), self.spec.sizes[-1]
        code = np.int32(max(0, self._pieces.codes[-1]))
        arguments = (
            *(self._batch, step, self._Z[L], self.net.b[L - 1], self._Delta[L], self._scales, self._T(self._s / m)),
            *(code, self._loss_scale, self._of_block),
        )
        if n <= NARROW_OUTPUT:
            width = min(32, power_of_two(n))
            kernel = self._around("finish_output_narrow")
            self._launch(kernel, self._output_blocks(m), THREADS, *arguments, self._partial[L], m, n, np.int32(width))
            return
        self._launch(self._around("finish_output_wide"), self._output_blocks(m), THREADS, *arguments, m, n)
        self._pass("add_errors", n, self._Delta[L], self._partial[L], m, n)

    def _finish_backward(self, l: int, m: int, step: Any) -> None:
        """BP2 after its product, and the first stage of BP3."""
        n, code, drop, Delta = self.spec.sizes[l - 1], self._pieces.codes[l - 2], self._drop(l), self._Delta[l]
        if code >= 0:
            holds = np.int32(_HANDED_ON if self._handed_on[l] else _PRODUCT)
            b = self.net.b[l - 1]
            arguments = self._product[l], holds, b, Delta, np.int32(code), *drop, self._partial[l], m, n
            self._pass("finish_backward", n, self._batch, step, *arguments)
            return
        D = self._errors[l]
        if l in self.spec.rates:
            self._pass("drop_errors", n, self._batch, step, D, *drop, m, n)
        self._backward_rows(l, m, code)
        self._pass("hand_back", n, D, Delta, self._partial[l], m, n)

    def _backward_rows(self, l: int, m: int, code: int) -> None:
        kernel = ("backprop_softmax", "backprop_log_softmax")[-code - 1]
        D = self._errors[l]
        self._rows(kernel, m, self.spec.sizes[l - 1], D, self._H[l], D)

    def _update_all(self, m: int, step: Any) -> None:
        """The record of the step, the second stage of BP3, penalty, clipping, and the move."""
        blocks, net = self._update_blocks(), self.net
        table = self._layers, np.int32(len(self.spec.sizes) - 1), net.theta, self._gradient
        limits = self._prices, self._T(self._limit), np.int32(self._clip)
        prepared = self._clip >= _NORMS or self._scaled
        if prepared:
            kernel = self._around("prepare_update")
            self._launch(kernel, blocks, THREADS, *table, *limits, self._loss_scale, self._squares)
        self._launch(
            *(self._around("move_parameters"), blocks, THREADS, self._batch, step, *table, self._states, self._copy),
            *(net.layout.size, *limits, np.float64(self._limit), self._squares, blocks * prepared, self._loss_scale),
            *(self._of_block, self._output_blocks(m), m),
        )
        if self._scaled:
            self._launch(self._around("adjust_scale"), 1, 1, self._loss_scale, GOOD_STEPS)


def _operand(spec: StepSpec) -> tuple[np.dtype[Any], int]:
    """Type of the numbers that products read, and in how many planes they lie."""
    if spec.precision in ("bf16", "fp16"):
        return np.dtype(np.uint16), 1
    return spec.dtype, 2 if spec.precision == "tf32x3" else 1
