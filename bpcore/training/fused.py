"""The fused plan: one kernel takes tiles of samples through all layers and back, for narrow networks.

Where layers are narrow and batches large, a step by :mod:`bpcore.training.wide` consists of activations that go through
memory several times. Here each block holds all weights and a tile of samples, and its sums of the gradient stay in
registers until its last tile is done. In bf16 activations never leave the chip (``kernels/cuda/fused.cuh``); in float32
those of one tile wait in the second-level cache (``kernels/cuda/fused_float.cuh``). A second kernel adds up what the
blocks have found; the update, and its copy of the parameters in bf16, are those of the wide plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_cluster import largest_shared_memory
from bpcore.backends.cupy_device import THREADS
from bpcore.errors import ConfigurationError
from bpcore.kernels.cuda.fused import MOST_COLUMNS, FusedShape, fused_unit
from bpcore.kernels.cuda.fused_float import FloatShape
from bpcore.network import MLP
from bpcore.training.device_steps import derivative_of_output
from bpcore.training.spec import StepSpec
from bpcore.training.wide import WidePlan
from bpcore.typing import Array

__all__ = ["FusedPlan", "choose_shape"]

SLICE_RUN = 128
"""Numbers of a slice that a block of ``add_slices`` adds up: four to a lane."""


class FusedPlan(WidePlan):
    """Steps as a CUDA graph of two or three kernels; see the module.

    Parameters
    ----------
    spec, net, be, seed
        As for :class:`~bpcore.training.reference.ReferencePlan`; the backend is CuPy's.

    Raises
    ------
    ConfigurationError
        If the steps of the spec cannot be run so.
    """

    name = "fused"
    why = "tiles of samples go through all layers on chip; for which batches wide is faster was not measured"

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        reason = self.supports(spec, be)
        if reason is not None:
            raise ConfigurationError(
                f"there is no fused plan for this: {reason}; use plan='wide', plan='auto' or plan='reference'"
            )
        shape = choose_shape(spec, be)
        assert shape is not None, "a network that is supported fits"
        self.shape = shape
        super().__init__(spec, net, be, seed)

    @staticmethod
    def supports(spec: StepSpec, be: Backend) -> str | None:
        """Say why the steps of a spec cannot be run so; None if they can."""
        if be.name != "cupy":
            return f"the fused plan needs backend cupy; the network is on {be.name}"
        if spec.dtype != np.float32:
            return f"it needs a network of float32; this one is of {spec.dtype}"
        if spec.precision not in (None, "bf16"):
            return f"its products are computed in float32 or bf16, not in {spec.precision}"
        if spec.rates:
            return "it has no dropout"
        widest = max(spec.sizes)
        if widest > MOST_COLUMNS:
            return f"a layer has {widest} neurons, and {MOST_COLUMNS} is the most"
        for l, activation in enumerate(spec.activations[:-1], start=2):
            if activation.rowwise or not derivative_of_output(activation, dropped=False):
                return (
                    f"layer {l} is {activation.name}, whose derivative cannot be computed from what one neuron hands on"
                )
        least = _possible(spec)[-1]
        if sum(least.sums) > least.most_sums:
            return (
                f"the gradient takes {sum(least.sums)} registers of a thread, and {least.most_sums} are the most: "
                "8 layers of 64 neurons take 128"
            )
        if choose_shape(spec, be) is None:
            available = largest_shared_memory(be.gpu.properties())
            needed = f"weights and {least.rows} samples take {-(-least.needed // 1024)} KiB of shared memory"
            return f"{needed}; this device has {available // 1024} KiB"
        return None

    # ---------------------------------------------------------------- memory

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int) -> dict[str, int]:
        """Bytes that the plan allocates; the rest is on chip. See :meth:`ReferencePlan.device_bytes`.

        What layers hand on is counted for the tiles that are on their way at once, not for the batch.
        """
        item, gpu, shape = spec.dtype.itemsize, be.gpu, choose_shape(spec, be)
        blocks = 0 if shape is None else _blocks(spec, shape, gpu.multiprocessors)
        sums = 8 * (blocks * sum(spec.sizes[1:]) + (len(spec.sizes) + 1) * gpu.max_blocks)
        return {
            "activations and Deltas": 0 if shape is None else blocks * shape.kept * item,
            "gradient": size * (item if spec.precision is None else item + 2),
            "sums of the blocks": blocks * size * item,
            "partial sums": sums + spec.batch_size * item,
        }

    def _load_libraries(self, be: Backend) -> None:
        """None is needed."""

    def _allocate_layers(self) -> None:
        """Allocate what the layers keep of a tile outside the chip: in bf16 nothing."""
        self._masks: dict[int, Array] = {}
        self._kept = self.be.empty(self._output_blocks(self.spec.batch_size) * self.shape.kept, self.spec.dtype)

    def _prepare_products(self) -> None:
        super()._prepare_products()
        # zeros, because the gaps of the layout and the biases are added up with the rest
        self._slices = self.be.zeros((self._output_blocks(self.spec.batch_size), self.net.layout.size), self.spec.dtype)

    def _splits(self, l: int) -> int:
        return self._output_blocks(self.spec.batch_size)

    # ---------------------------------------------------------------- launches

    def _output_blocks(self, m: int) -> int:
        """Blocks, the same for any number of samples: one that has no tile leaves zeros."""
        return _blocks(self.spec, self.shape, int(self._gpu.multiprocessors))

    @cached_property
    def _source(self) -> str:
        offsets = self.net.layout.offsets
        return fused_unit(self.shape, self._pieces.text, self._pieces.codes, offsets)

    def _around(self, name: str) -> Any:
        return self._gpu.load(self._source, name)

    @cached_property
    def _step(self) -> Any:
        return self._gpu.load(self._source, "fused_step", shared=self.shape.nbytes)

    def _nodes(self) -> int:
        return 6

    def _warm_up(self, m: int) -> None:
        """Load the kernel and let it have its memory; that is not possible while a stream is captured."""
        assert self._step is not None

    def _record_step(self, m: int, j: int) -> None:
        step, size, blocks = np.int32(j), np.int64(self.net.layout.size), self._output_blocks(m)
        if self.spec.weighted:
            self._launch(self._around("weigh"), 1, THREADS, self._batch, step, self._scales, self._T(self._s), m)
        beside = self._kept if self.spec.precision is None else self._copy
        arguments = (
            *(self._batch, step, beside, self.net.theta, self._scales, self._T(self._s / m)),
            *(self._layers, self._slices, self._of_block, size, np.int64(m)),
        )
        self._gpu.launch(self._step, ((blocks,), (THREADS,)), arguments, shared=self.shape.nbytes)
        self._launch(
            self._around("add_slices"), -(-int(size) // SLICE_RUN), THREADS, self._slices, self._gradient, blocks, size
        )
        self._update_all(m, step)


def choose_shape(spec: StepSpec, be: Backend) -> FusedShape | None:
    """Choose the largest tile that fits the shared memory of a device; None if none does."""
    available = largest_shared_memory(be.gpu.properties())
    return next((shape for shape in _possible(spec) if shape.needed <= available), None)


def _possible(spec: StepSpec) -> list[FusedShape]:
    """Shapes of the kernel for the precision of a spec, the largest tile first."""
    kind = FloatShape if spec.precision is None else FusedShape
    return kind.possible(spec.sizes)


def _blocks(spec: StepSpec, shape: FusedShape, multiprocessors: int) -> int:
    """One block to a multiprocessor, or to a tile where there are fewer."""
    return max(1, min(multiprocessors, -(-spec.batch_size // shape.rows)))
