"""JAX on a GPU: a whole chunk of steps in one lax.scan, data and everything that changes on the device."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.contestants import DRY_RUN
from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import Runner
from benchmarks.peers.adapters.with_jax import JaxRunner
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

# JAX's own default for float32 on a GPU is tf32
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "default"}

UNROLLED = 8
"""Steps in one turn of the loop: at each turn the host is asked whether to go on, which takes longer than a step."""

LARGE = 1e9
"""Operations of a step from which that does not matter."""


class DeviceJaxRunner(JaxRunner):
    """Sample numbers lie on the device, an array for each chunk: a slice of one would be compiled for each start."""

    def stage(self, order: Any) -> Any:
        chunk = self.work.chunk
        parts = [order[start : start + chunk].astype(np.int32) for start in range(0, len(order), chunk)]
        return jax.block_until_ready([jax.device_put(part) for part in parts])

    def chunks(self, order: Any) -> Any:
        return order if isinstance(order, list) else super().chunks(order)


def prepare(work: Workload, problem: Problem, threads: int) -> Runner:
    """Trace nothing yet; the first call compiles."""
    wanted = "cpu" if os.environ.get(DRY_RUN) else "gpu"
    try:
        jax.devices(wanted)
    except RuntimeError as error:
        raise Skip(f"JAX finds no {wanted}: {str(error).splitlines()[0]}") from None
    if work.precision not in PRODUCTS:
        raise Skip(f"products in {work.precision} were not tried in JAX")
    jax.config.update("jax_default_matmul_precision", PRODUCTS[work.precision])
    unroll = UNROLLED if work.flops() < LARGE else 1
    runner = DeviceJaxRunner(work, problem, scan=True, unroll=unroll)
    runner.facts |= {"unrolled": unroll, "products": PRODUCTS[work.precision]}
    return runner
