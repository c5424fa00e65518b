"""The persistent plan: one launch runs a whole stretch of steps, with the parameters in shared memory.

A small network needs less time for the arithmetic of a step than for starting one kernel. So one thread block, or one
cluster of blocks that see each other's shared memory, starts once, takes parameters and optimiser state on chip, and
does step after step; only inputs come from outside, one step ahead (``kernels/cuda/resident.cuh``).

How many blocks, of how many threads, and how W[1] is cut among them is chosen by a count of cycles
(:func:`step_cycles`). The count is a model, not a measurement: it orders the possibilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_cluster import PORTABLE_BLOCKS, largest_cluster, largest_shared_memory
from bpcore.backprop import sample_scale
from bpcore.errors import ConfigurationError
from bpcore.kernels.cuda.resident import ResidentShape, resident_unit
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.device_steps import device_pieces, penalty_prices, step_numbers
from bpcore.training.fast_plan import FastPlan
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.typing import Array

__all__ = ["PersistentPlan", "best_shape", "possible_shapes", "step_cycles"]

BLOCKS, THREADS = (1, 2, 4, 8, 16), (128, 256, 512)
CLUSTER_BARRIER, BARRIER = 450, 40
"""Cycles for which the blocks of a cluster wait for each other; the threads of a block."""
BYTES_FROM_BLOCKS, BYTES_FROM_MEMORY = 16, 32
"""Bytes that a block gets in a cycle from other blocks, and from global memory."""
ACTIVATION = 60
"""Cycles for an element between two products; per thread, and a warp waits for its memory."""
BESIDES_PRODUCTS = 60_000
"""Cycles that one thread would need for what is no product; all threads share them. With the next number this puts the
shapes that were measured on one H200 in their order, between 128 and 512 threads."""
FEW_REGISTERS, SPILLED = 256, 1.15
"""Threads above which a tile of 64 sums does not fit the registers of one, and how much longer it takes then."""


class PersistentPlan(FastPlan):
    """Stretches of steps in one launch; see the module.

    Parameters
    ----------
    spec, net, be, seed
        As for :class:`~bpcore.training.reference.ReferencePlan`; the backend is CuPy's.
    cluster : int, optional
        Blocks; by default, as all that follows, what :func:`best_shape` expects to be fastest.
    threads : int, optional
        Threads of a block, a multiple of 32.
    column_blocks : int, optional
        Into how many columns W[1] is cut; it divides the number of blocks.
    shared : bool, optional
        Whether the blocks share the samples of a step, or each does all of them above the first product.

    Raises
    ------
    ConfigurationError
        If the network does not fit, or the device cannot start the cluster that was asked for.
    """

    name = "persistent"

    def __init__(
        self,
        spec: StepSpec,
        net: MLP,
        be: Backend,
        seed: int,
        *,
        cluster: int | None = None,
        threads: int | None = None,
        column_blocks: int | None = None,
        shared: bool | None = None,
    ) -> None:
        super().__init__(spec, net, be, seed)
        self._gpu: Any = be.gpu
        self._pieces = device_pieces(spec)
        asked: dict[str, Any] = dict(blocks=cluster, threads=threads, column_blocks=column_blocks, shared=shared)
        properties = self._gpu.properties()
        self.shape = self._choose(properties, asked)
        self._kernels: dict[bool, Any] = {}
        self._T = spec.dtype.type
        self._prices = be.asarray(penalty_prices(spec, self._pieces.penalty).astype(spec.dtype))
        self._none = be.zeros(1, np.int64), be.zeros(1, spec.dtype)
        self._s = sample_scale(spec.loss, spec.sizes[-1])
        blocks = f"{self.shape.blocks} blocks" if self.shape.blocks > 1 else "one block"
        self.why = f"parameters stay on chip: {blocks} of {self.shape.threads} threads"
        if self.shape.blocks > PORTABLE_BLOCKS and not self._starts():
            if cluster is not None:
                raise ConfigurationError(
                    f"this device starts no cluster of {cluster} blocks of {self.shape.nbytes // 1024} KiB; "
                    f"leave cluster out, or ask for {PORTABLE_BLOCKS} blocks or fewer"
                )
            self.shape = self._choose({**properties, "largest": PORTABLE_BLOCKS}, asked)
            self._kernels.clear()
            self.why = f"parameters stay on chip: {self.shape.blocks} blocks, since this device starts no cluster of 16"

    @staticmethod
    def supports(spec: StepSpec, be: Backend) -> str | None:
        """Say why the steps of a spec cannot be run on chip; None if they can."""
        if be.name != "cupy":
            return f"the persistent plan needs backend cupy; the network is on {be.name}"
        if spec.precision is not None:
            return f"products in {spec.precision} are computed by cuBLAS, not on chip"
        properties = be.gpu.properties()
        if best_shape(spec, properties) is not None:
            return None
        least = min((shape.nbytes for shape in possible_shapes(spec, {**properties, "all": True})), default=0)
        if not least:
            return f"rows of {max(spec.sizes)} neurons are too many for one block"
        return (
            f"parameters, optimiser state and a batch of {spec.batch_size} take {least // 1024} KiB of shared memory "
            f"or more in each block; this device has {largest_shared_memory(properties) // 1024} KiB"
        )

    @classmethod
    def device_bytes(cls, spec: StepSpec, be: Backend, size: int) -> dict[str, int]:
        """Bytes that the plan allocates; the rest is on chip. See :meth:`ReferencePlan.device_bytes`."""
        return {"gradient": size * spec.dtype.itemsize}

    def _choose(self, properties: Mapping[str, Any], asked: Mapping[str, Any]) -> ResidentShape:
        shape = best_shape(self.spec, properties, **asked)
        if shape is None:
            reason = self.supports(self.spec, self.be) or f"no shape of its blocks fits {dict(asked)}"
            raise ConfigurationError(f"there is no persistent plan for this: {reason}; use plan='auto' or 'reference'")
        counts: dict[str, Any] = {"states": len(self.spec.rule.state), "numbers": len(self._pieces.update.numbers)}
        price = self._pieces.penalty
        return replace(shape, prices=0 if price is None else len(price.numbers), **counts)

    def _kernel(self, wide: bool) -> Any:
        """Return the kernel for rows of X that begin at multiples of 16 bytes, or for any."""
        if wide not in self._kernels:
            offsets = self.net.layout.offsets
            shape = replace(self.shape, wide_inputs=wide)
            source = resident_unit(shape, self._pieces, offsets, self.spec.dtype)
            self._kernels[wide] = self._gpu.load(source, "resident", shared=shape.nbytes, cluster=shape.blocks)
        return self._kernels[wide]

    def _launch(self, function: Any, arguments: tuple[Any, ...]) -> None:
        shape = self.shape
        self._gpu.launch(function, ((shape.blocks,), (shape.threads,)), arguments, shared=shape.nbytes)

    def _starts(self) -> bool:
        """Whether the device can start such a cluster: try one that does nothing."""
        numbers, values = self._none
        table = self.be.zeros(1, np.float64)
        arrays = (values, values, numbers, values, numbers, table, table, np.int64(1), values, values, values)
        states = (values,) * len(self.spec.rule.state)
        try:
            self._launch(self._kernel(False), (*arrays, *self._scalars(0, 0, 0.0, 0), *states))
        except Exception as error:  # CuPy's CUDADriverError, which only CuPy defines
            if "CLUSTER" in str(error).upper() or "RESOURCES" in str(error).upper():
                return False
            raise
        return True

    def _scalars(self, first: int, steps: int, threshold: float, m: int) -> tuple[Any, ...]:
        """Arguments of the kernel that are no arrays."""
        T, spec = self._T, self.spec
        limit = 0.0 if spec.clip is None else spec.clip.limit
        scale = self._s if spec.weighted else self._s / max(m, 1)
        keys = np.uint32(self.seed & 0xFFFFFFFF), np.uint32(self.seed >> 32)
        with np.errstate(over="ignore"):
            numbers = (T(limit), np.float64(limit), T(scale), T(threshold))
        return (*numbers, np.int64(first), *keys, np.int64(steps), np.int32(m))

    def _run_steps(
        self, problem: Problem, index: Array, state: TrainingState, etas: Sequence[float], records: Array
    ) -> None:
        steps, m = index.shape
        if steps == 0:
            return
        be, spec = self.be, self.spec
        table, running = step_numbers(spec.rule, self._pieces.update, state.step, etas, state.running)
        numbers = be.asarray(table)
        wide = spec.sizes[0] * spec.dtype.itemsize % 16 == 0 and problem.X.data.ptr % 16 == 0
        no_labels, no_weights = self._none
        arrays = (
            problem.X,
            problem.Y,
            no_labels if problem.labels is None else problem.labels,
            no_weights if problem.weights is None else problem.weights,
            be.asarray(index),
            numbers,
            records,
            np.int64(records.strides[0] // records.itemsize),
            self.net.theta,
            self._gradient,
            self._prices,
        )
        states = [state.arrays[name] for name in spec.rule.state]
        scalars = self._scalars(state.step, steps, problem.threshold, m)
        self._launch(self._kernel(wide), (*arrays, *scalars, *states))
        state.step += steps
        state.running = running


# ------------------------------------------------------------------------------------------ choosing a shape


def possible_shapes(spec: StepSpec, properties: Mapping[str, Any], **asked: Any) -> Iterator[ResidentShape]:
    """Yield the shapes that fit a device.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    properties : mapping
        CUDA's description of the device.
    **asked
        As for :func:`best_shape`.
    """
    itemsize = spec.dtype.itemsize
    rates = tuple(sorted(spec.rates.items()))
    per_sample = spec.masked_per == "sample"
    fixed: dict[str, Any] = {
        "sizes": spec.sizes,
        "batch": spec.batch_size,
        "itemsize": itemsize,
        "states": len(spec.rule.state),
        "numbers": len(spec.rule.scalar_names) + 8,
        "rates": rates,
        "per_sample": per_sample,
        "clip": "" if spec.clip is None else spec.clip.scope,
    }
    limit = float("inf") if properties.get("all") else largest_shared_memory(properties)
    largest = int(properties.get("largest") or largest_cluster(properties))
    choices = {"blocks": BLOCKS, "threads": THREADS, "column_blocks": BLOCKS, "shared": (True, False)}
    choices |= {name: (value,) for name, value in asked.items() if value is not None}
    for values in product(*choices.values()):
        chosen: dict[str, Any] = dict(zip(choices, values, strict=True))
        blocks, columns = chosen["blocks"], chosen["column_blocks"]
        if blocks > largest or blocks % columns:
            continue
        if columns > 1 and asked.get("column_blocks") is None and 4 * columns > spec.sizes[1]:
            continue
        if not chosen["shared"] and blocks == 1:
            continue
        shape = ResidentShape(**chosen, **fixed)
        if shape.nbytes <= limit:
            yield shape


@lru_cache(maxsize=256)
def _best(spec: StepSpec, properties: tuple[tuple[str, Any], ...], asked: tuple[tuple[str, Any], ...]) -> Any:
    return min(possible_shapes(spec, dict(properties), **dict(asked)), key=step_cycles, default=None)


def best_shape(spec: StepSpec, properties: Mapping[str, Any], **asked: Any) -> ResidentShape | None:
    """Choose the shape with the fewest cycles a step; None if nothing fits.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    properties : mapping
        CUDA's description of the device.
    **asked
        Attributes of :class:`~bpcore.kernels.cuda.resident.ResidentShape` that are fixed already; None for any.
    """
    read = ("major", "sharedMemPerBlockOptin", "largest", "all")
    key = tuple((name, properties[name]) for name in read if name in properties)
    found: ResidentShape | None = _best(spec, key, tuple(sorted(asked.items())))
    return found


def step_cycles(shape: ResidentShape) -> float:
    """Estimate the cycles of a step.

    Examples
    --------
    >>> one = ResidentShape((784, 30, 10), batch=10, itemsize=4)
    >>> eight = ResidentShape((784, 30, 10), batch=10, itemsize=4, blocks=8)
    >>> step_cycles(eight) < step_cycles(one)
    True
    """
    last, size = shape.last, shape.itemsize
    hidden = sum(shape.sizes[1:])
    cycles = BESIDES_PRODUCTS / shape.threads
    for l in range(1, last):
        tilings = {
            form: tiling.cycles * (SPILLED if shape.threads > FEW_REGISTERS and tiling.is_large else 1.0)
            for form, tiling in shape.tilings(l).items()
        }
        cycles += tilings["forward"] + tilings["gradient"]
        if l > 1:
            cycles += tilings["backward"] + 2 * BARRIER
    cycles += shape.mine * hidden * ACTIVATION / shape.threads + 5 * BARRIER
    inputs = shape.batch * shape.chunk(1) * size / BYTES_FROM_MEMORY
    if shape.blocks > 1:
        rows = shape.blocks // shape.column_blocks
        received = rows * shape.mine * shape.sizes[1]
        if shape.shared:
            received += shape.batch * (shape.columns + sum(shape.sizes[2:]))
            received += sum(shape.batch * shape.chunk(l) for l in range(2, last))
            received += sum((n_in + 1) * n for n_in, n in zip(shape.sizes[1:], shape.sizes[2:], strict=False))
        cycles += received * size / BYTES_FROM_BLOCKS + (2 if shape.shared else 1) * CLUSTER_BARRIER
    if shape.clip in ("all", "layer"):
        cycles += 2 * CLUSTER_BARRIER
    return max(cycles, inputs)
