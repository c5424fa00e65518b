"""The graph plan: whole training steps, captured once as a CUDA graph and replayed.

A replay needs nothing from the host: where the data lies, how many steps are done and what the update rule needs for
each step is in device memory (the table ``batch`` of ``kernels/cuda/step.cuh``).

The products are kernels of our own, which do what follows a product while its tile is on chip: bias and activation,
BP2's derivative, the update of theta. A step of L layers is 2 L - 2 kernels where nothing but the output is row-wise
or long. For wide layers, where the products take nearly all of the time, there is :mod:`bpcore.training.wide`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_device import THREADS, WIDEST_FOR_LANES, power_of_two
from bpcore.backends.cupy_products import CudaProducts
from bpcore.backprop import sample_scale
from bpcore.kernels.cuda.source import around_unit, tile_unit, unit_source
from bpcore.kernels.cuda.tiling import SMALLEST_TILE, Tiling, count_tiles
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.device_steps import device_pieces, penalty_prices, step_numbers
from bpcore.training.fast_plan import FastPlan
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.typing import Array

__all__ = ["GraphPlan"]

MOST_NODES = 256
"""Kernels in one graph: the launch of a graph costs the host some microseconds, each kernel in it a fraction."""
MOST_STEPS = 32

# as in step.cuh
_X, _Y, _LABELS, _WEIGHTS, _INDEX, _RECORDS, _NUMBERS, _STRIDE, _DONE, _FIRST, _THRESHOLD = range(11)
_NO_DROPOUT, _PER_BATCH, _PER_SAMPLE = range(3)
_SCOPES = {"element": 1, "all": 2, "layer": 3}


class GraphPlan(FastPlan):
    """Steps as a CUDA graph, with products of our own; see the module.

    Parameters
    ----------
    spec, net, be, seed
        As for :class:`~bpcore.training.reference.ReferencePlan`; the backend is CuPy's.
    """

    name = "graph"
    why = "whole steps are replayed by the device"

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        super().__init__(spec, net, be, seed)
        self._gpu: Any = be.gpu
        self._pieces = device_pieces(spec)
        m, sizes, dtype = spec.batch_size, spec.sizes, spec.dtype
        self._T = dtype.type
        per_sample = spec.masked_per == "sample"
        self._dropout = _PER_SAMPLE if per_sample else _PER_BATCH
        self._allocate_layers()
        self._scales = be.zeros(m, dtype)
        self._s = sample_scale(spec.loss, sizes[-1])
        self._batch = be.zeros(_THRESHOLD + 1, np.int64)
        self._states = be.zeros(max(1, len(spec.rule.state)), np.int64)
        self._prices = be.asarray(penalty_prices(spec, self._pieces.penalty).astype(dtype))
        self._clip = 0 if spec.clip is None else _SCOPES[spec.clip.scope]
        self._limit = 0.0 if spec.clip is None else spec.clip.limit
        self._of_block = be.zeros(2 * max(self._gpu.max_blocks, -(-m // SMALLEST_TILE)), np.float64)
        self._recorded = 1  # sums that the output layer leaves
        self._prepare_products()
        self._graphs: dict[tuple[int, int], Any] = {}
        self._alive: tuple[Any, ...] = ()

    # ---------------------------------------------------------------- memory and kernels

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int) -> dict[str, int]:
        """Bytes that the plan allocates, by what they are for; see :meth:`ReferencePlan.device_bytes`."""
        m, sizes, item, gpu = spec.batch_size, spec.sizes, spec.dtype.itemsize, be.gpu
        per_sample = spec.masked_per == "sample"
        dropped = sum(sizes[l - 1] for l in spec.rates)
        numbers = m * (3 * sum(sizes[1:]) + dropped + 1) + dropped * (m if per_sample else 1)
        tilings = cls._tilings(spec, products := CudaProducts(be, spec.dtype, lambda *_: ""))
        gradient = tilings["gradient", 1]
        sums = 16 * max(gpu.max_blocks, -(-m // SMALLEST_TILE)) + products.scratch_size([*tilings.values()]) * item
        sums += 8 * gradient.tiles * products.together(gradient)
        return {"activations and Deltas": numbers * item, "gradient": size * item, "partial sums": sums}

    def _allocate_layers(self) -> None:
        """Z, H, Delta, masks, and what is handed on."""
        spec, be, sizes = self.spec, self.be, self.spec.sizes
        m, dtype = spec.batch_size, spec.dtype

        def arrays(layers: Iterable[int]) -> dict[int, Array]:
            return {l: be.empty((m, sizes[l - 1]), dtype) for l in layers}

        all_but_inputs = range(2, len(sizes) + 1)
        self._Z, self._H, self._Delta = arrays(all_but_inputs), arrays(all_but_inputs), arrays(all_but_inputs)
        rows = m if self._dropout == _PER_SAMPLE else 1
        self._masks = {l: be.zeros(rows * sizes[l - 1], dtype) for l in spec.rates}
        self._passed = {l: self._H[l] for l in range(2, len(sizes))} | arrays(spec.rates)

    @staticmethod
    def _tilings(spec: StepSpec, products: CudaProducts) -> dict[tuple[str, int], Tiling]:
        """How the products are cut, by kernel and layer; the gradient of all layers is one launch."""
        m, sizes, L = spec.batch_size, spec.sizes, len(spec.sizes)
        tilings = {
            ("forward", l): products.cut([(m, sizes[l])], sizes[l - 1], whole_rows=l == L - 1) for l in range(1, L)
        }
        tilings |= {("backward", l): products.cut([(m, sizes[l - 1])], sizes[l]) for l in range(2, L)}
        tilings["gradient", 1] = products.cut([(n_in + 1, n) for n_in, n in pairwise(sizes)], m)
        return tilings

    def _prepare_products(self) -> None:
        """Choose tiles, and make what all products share."""
        spec, be, text = self.spec, self.be, self._pieces.text
        self._products = CudaProducts(be, spec.dtype, lambda *shape: tile_unit(text, spec.dtype, *shape))
        self._cut = self._tilings(spec, self._products)
        gradient = self._cut["gradient", 1]
        tiles = [count_tiles(n_in + 1, n, *gradient.shape) for n_in, n in pairwise(spec.sizes)]
        self._first_tile = np.concatenate([[0], np.cumsum(tiles)])
        ends = self._first_tile[1:] * self._products.together(gradient)
        self._squares = be.zeros(int(ends[-1]), np.float64)
        self._ends = be.asarray(np.ascontiguousarray(ends, np.int64))
        self._parts, self._arrived = self._products.scratch(self._products.scratch_size([*self._cut.values()]))
        self._layers = be.asarray(self._layer_table())

    def _tiling(self, kernel: str, l: int, m: int) -> Tiling:
        """How a product with m rows is cut, as with those of a whole batch."""
        n = self.spec.sizes[l if kernel == "forward" else l - 1]
        tiling = self._cut[kernel, l]
        return replace(tiling, tiles=count_tiles(m, n, *tiling.shape))

    def _layer_table(self) -> Any:
        """Rows of the table that the kernels of the parameters read (``G_...`` in step.cuh)."""
        net, rows = self.net, []
        offsets = net.layout.offsets
        for l in range(1, net.n_layers):
            keep = [0, 0]
            if self.spec.dropout is not None and self._dropout == _PER_BATCH:
                keep = [self._masks[k].data.ptr if k in self._masks else 0 for k in (l, l + 1)]
            inputs = self._inputs(l).data.ptr if l > 1 else 0
            rows.append(
                (
                    *(net.sizes[l - 1], net.sizes[l], offsets["W", l], offsets["b", l], inputs),
                    *(self._Delta[l + 1].data.ptr, int(self._first_tile[l - 1]), *keep),
                )
            )
        return np.array(rows, np.int64)

    def _inputs(self, l: int) -> Array:
        """What layer l hands on to the next."""
        return self._passed[l]

    def _update_blocks(self) -> int:
        return min(int(self._gpu.max_blocks), -(-self.net.layout.size // THREADS))

    def _around(self, name: str) -> Any:
        return self._gpu.load(around_unit(self._pieces.text, self.spec.dtype), name)

    # ---------------------------------------------------------------- running

    def _run_steps(
        self, problem: Problem, index: Array, state: TrainingState, etas: Sequence[float], records: Array
    ) -> None:
        steps, m = index.shape
        if steps == 0:
            return
        be, spec = self.be, self.spec
        table, running = step_numbers(spec.rule, self._pieces.update, state.step, etas, state.running)
        numbers = be.asarray(table.astype(spec.dtype))
        states = [state.arrays[name].data.ptr for name in spec.rule.state]
        be.copy(be.asarray(np.array(states or [0], np.int64)), out=self._states)
        batch = np.zeros(_THRESHOLD + 1, np.int64)
        batch[[_X, _Y, _INDEX, _RECORDS, _NUMBERS]] = [
            array.data.ptr for array in (problem.X, problem.Y, index, records, numbers)
        ]
        batch[_LABELS] = 0 if problem.labels is None else problem.labels.data.ptr
        batch[_WEIGHTS] = 0 if problem.weights is None else problem.weights.data.ptr
        batch[_STRIDE] = records.strides[0] // records.itemsize
        batch[_FIRST] = state.step
        batch[_THRESHOLD] = np.float64(problem.threshold).view(np.int64)
        be.copy(be.asarray(batch), out=self._batch)
        self._alive = problem, index, numbers, records  # until the next run: the device may not be done with them
        done = 0
        while done < steps:
            count = self.at_once if steps - done >= self.at_once else 1
            self._gpu.here(self._graph(m, count).launch)
            done += count
        state.step += steps
        state.running = running

    @property
    def at_once(self) -> int:
        """Steps in one graph."""
        return max(1, min(MOST_STEPS, MOST_NODES // self._nodes()))

    def _nodes(self) -> int:
        """About how many kernels a step has."""
        return 2 * len(self.spec.sizes) + 2

    def _graph(self, m: int, steps: int) -> Any:
        """Return the graph of so many steps of m samples, captured at first use."""
        if (m, steps) not in self._graphs:

            def record() -> None:
                for j in range(steps):
                    self._record_step(m, j)
                self._launch(self._around("advance_run"), 1, 1, self._batch, np.int64(steps))

            self._graphs[m, steps] = self._gpu.capture(record, lambda: self._warm_up(m))
        return self._graphs[m, steps]

    def _warm_up(self, m: int) -> None:
        """Do once what allocates when it is done for the first time: load the kernels."""
        for (kernel, _), tiling in self._cut.items():
            self._products.load(kernel, tiling)
        if self._ends_in_a_tile:
            self._products.load("forward_output", self._cut["forward", len(self.spec.sizes) - 1])

    # ---------------------------------------------------------------- one step

    def _record_step(self, m: int, j: int) -> None:
        """Queue the kernels of one step."""
        spec, L, step = self.spec, len(self.spec.sizes), np.int32(j)
        if spec.weighted:
            self._launch(self._around("weigh"), 1, THREADS, self._batch, step, self._scales, self._T(self._s), m)
        self._forward_all(m, step)
        for l in range(L - 1, 1, -1):
            self._backward(l, m)
        self._parameters(m, step)

    def _forward_all(self, m: int, step: Any) -> None:
        """From the inputs to the error of the output layer."""
        L = len(self.spec.sizes)
        for l in range(1, L):
            if l == L - 1 and self._forward_output(m, step):
                return
            self._forward(l, m, step)
        self._output(m, step)

    def _forward_output(self, m: int, step: Any) -> bool:
        """Do the last layer, the loss and BP1 in one kernel, if its rows are no longer than a tile."""
        sizes, net, l = self.spec.sizes, self.net, len(self.spec.sizes) - 1
        n_in, n, up = sizes[-2], sizes[-1], len(self.spec.sizes)
        if not self._ends_in_a_tile:
            return False
        tiling = self._tiling("forward", l, m)
        A = self._inputs(l) if l > 1 else self._Z[up]
        self._launch_product(
            "forward_output",
            tiling,
            *(self._batch, step, np.int32(l == 1), A, net.W[l], net.b[l], self._Z[up], self._H[up], self._Delta[up]),
            *(np.int32(self._pieces.codes[-1]), self._scales, self._T(self._s / m), m, n_in, n),
            *(np.int32(tiling.splits), self._parts, self._arrived, self._of_block),
        )
        self._recorded = tiling.tiles * self._products.together(tiling)
        return True

    def _forward(self, l: int, m: int, step: Any) -> None:
        """Forward: ``Z[l+1] = H[l] @ W[l] + b[l]`` and ``H[l+1] = act(Z[l+1])``."""
        sizes, net, up = self.spec.sizes, self.net, l + 1
        n_in, n, code = sizes[l - 1], sizes[l], self._pieces.codes[l - 1]
        drop = self._drop(up)
        tiling = self._tiling("forward", l, m)
        A = self._inputs(l) if l > 1 else self._Z[up]  # the first layer reads rows of X
        passed = self._passed.get(up, self._H[up])
        self._launch_product(
            "forward",
            tiling,
            self._batch,
            step,
            np.int32(l == 1),
            *(A, net.W[l], net.b[l], self._Z[up], self._H[up], passed, np.int32(code)),
            *drop,
            *(m, n_in, n, np.int32(tiling.splits), self._parts, self._arrived),
        )
        self._forward_rows(up, m, step, code, drop)

    def _forward_rows(self, l: int, m: int, step: Any, code: int, drop: tuple[Any, ...]) -> None:
        """A row-wise activation, which is no part of the product before it. At the output it belongs to the loss."""
        n = self.spec.sizes[l - 1]
        if code >= 0 or l == len(self.spec.sizes):
            return
        self._rows(("softmax", "log_softmax")[-code - 1], m, n, self._Z[l], self._H[l])
        if l in self.spec.rates:
            arguments = self._batch, step, self._H[l], self._passed[l], *drop, m, n
            self._launch(self._around("drop_rows"), *self._flat(m * n), *arguments)

    @property
    def _ends_in_a_tile(self) -> bool:
        """Whether rows of the output are no longer than a tile."""
        return self.spec.sizes[-1] <= self._cut["forward", len(self.spec.sizes) - 1].columns

    def _output(self, m: int, step: Any) -> None:
        """Loss, hits and BP1."""
        L, n = len(self.spec.sizes), self.spec.sizes[-1]
        arguments = (
            *(self._batch, step, self._Z[L], self._H[L], self._Delta[L], self._scales, self._T(self._s / m)),
            *(self._of_block, m, n),
        )
        if n <= WIDEST_FOR_LANES:
            width = min(32, power_of_two(n))
            blocks = max(1, min(-(-m * width // THREADS), self._gpu.max_blocks))
            self._recorded = blocks
            self._launch(self._around("output_narrow"), blocks, THREADS, *arguments, np.int32(width))
        else:
            self._recorded = min(m, self._gpu.max_blocks)
            self._launch(self._around("output_wide"), self._recorded, THREADS, *arguments)

    def _backward(self, l: int, m: int) -> None:
        """BP2: ``Delta[l] = (Delta[l+1] @ W[l].T) * act'(Z[l])``."""
        sizes = self.spec.sizes
        n, n_next, code = sizes[l - 1], sizes[l], self._pieces.codes[l - 2]
        tiling = self._tiling("backward", l, m)
        self._launch_product(
            "backward",
            tiling,
            *(self._Delta[l + 1], self.net.W[l], self._Z[l], self._H[l], self._Delta[l], np.int32(code)),
            *self._mask(l),
            *(m, n_next, n, np.int32(tiling.splits), self._parts, self._arrived),
        )
        self._backward_rows(l, m, code)

    def _backward_rows(self, l: int, m: int, code: int) -> None:
        if code < 0:
            kernel = ("backprop_softmax", "backprop_log_softmax")[-code - 1]
            self._rows(kernel, m, self.spec.sizes[l - 1], self._Delta[l], self._H[l], self._Delta[l])

    def _parameters(self, m: int, step: Any) -> None:
        """BP3 and BP4 of all layers, and the update with them unless a norm must be known first."""
        tiling = self._cut["gradient", 1]
        self._launch_product(
            "gradient",
            tiling,
            *(self._batch, step, self._layers, np.int32(len(self._first_tile) - 1), self.net.theta, self._gradient),
            *(self._states, self._prices, self._T(self._limit), np.int32(self._clip), m, np.int32(tiling.splits)),
            *(self._parts, self._arrived, self._squares, self._of_block, self._recorded),
        )
        if self._clip >= _SCOPES["all"]:
            self._update(step)

    def _update(self, step: Any) -> None:
        """Clip by the norm, and move."""
        self._launch(
            self._around("update_parameters"),
            self._update_blocks(),
            THREADS,
            *(self._batch, step, self._layers, np.int32(len(self._first_tile) - 1), self.net.theta, self._gradient),
            *(self._states, self._squares, self._ends, np.float64(self._limit), np.int32(self._clip)),
        )

    # ---------------------------------------------------------------- launching

    def _drop(self, l: int) -> tuple[Any, ...]:
        """What a kernel is told that draws the mask of layer l."""
        rate, seed, low = self.spec.rates.get(l, 0.0), self.seed, 0xFFFFFFFF
        mask = self._masks.get(l, self._scales)
        kind = self._dropout if rate else _NO_DROPOUT
        words = np.uint32(l), np.uint32(seed & low), np.uint32(seed >> 32)
        return mask, np.uint32(int(rate * 2**32)), self._T(1 / (1 - rate)), np.int32(kind), *words

    def _mask(self, l: int) -> tuple[Any, Any]:
        return self._masks.get(l, self._scales), np.int32(self._dropout if l in self.spec.rates else _NO_DROPOUT)

    def _rows(self, name: str, m: int, n: int, *arrays: Array) -> None:
        """Launch a kernel of rowwise.cuh."""
        source = unit_source("rowwise", self.spec.dtype)
        if n <= WIDEST_FOR_LANES:
            width = min(32, power_of_two(n))
            blocks = max(1, min(-(-m * width // THREADS), self._gpu.max_blocks))
            self._launch(self._gpu.load(source, f"{name}_narrow"), blocks, THREADS, *arrays, m, n, np.int32(width))
        else:
            blocks = min(m, self._gpu.max_blocks)
            self._launch(self._gpu.load(source, f"{name}_wide"), blocks, THREADS, *arrays, m, n)

    def _flat(self, size: int) -> tuple[int, int]:
        """Blocks and threads for so many elements."""
        return max(1, min(-(-size // THREADS), self._gpu.max_blocks)), THREADS

    def _launch(self, function: Any, blocks: int, threads: int, *arguments: Any) -> None:
        self._gpu.launch(function, ((blocks,), (threads,)), _values(arguments))

    def _launch_product(self, name: str, tiling: Tiling, *arguments: Any) -> None:
        self._products.launch(name, tiling, _values(arguments))


def _values(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a kernel: sizes are 64 bits there."""
    return tuple([np.int64(value) if isinstance(value, int) else value for value in arguments])
