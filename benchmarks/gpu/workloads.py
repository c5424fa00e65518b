"""The workloads of a GPU, and the least time that a step of one can take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.peers import workloads as cpu
from benchmarks.peers.workloads import RacedWorkload
from bpcore.bench.workload import STATE_VECTORS, Workload

__all__ = ["PARITY", "PRODUCTS", "WORKLOADS", "floor", "get_workload", "least_bytes"]

PARITY = {"float32": 1e-4, "tf32x3": 1e-4, "tf32": 5e-4, "bf16": 2e-3}
"""Largest distance of the losses of the first chunk from float64, as a share of the largest of them.

One operand of bf16 is off by up to 4e-3 and one of tf32 by 5e-4, but the mean over a mini-batch by far less: PyTorch's
bf16 is 1e-5 to 2e-4 away after the chunks below. Rates of learning are such that who does not learn is further away
than the tolerance; a test holds the workloads to that.
"""

PEAK_OF = {"float32": "float32", "tf32x3": "tf32", "tf32": "tf32", "bf16": "bfloat16"}
"""Which of the measured rates of products is the ceiling of a precision."""

PRODUCTS = {"tf32x3": 3}
"""How many products at this rate one product takes, where it is not one."""

_wide = RacedWorkload(
    "train", (1024, 4096, 4096, 1000), "relu", "softmax", "cross_entropy", "adam", 1024, 8192, 8, 3e-4, share=2.0
)
_narrow = replace(cpu.WORKLOADS["deep-narrow"], batch=65536, rows=262144, chunk=8, eta=0.3, share=2.0)

WORKLOADS = {
    "digits-small": replace(cpu.WORKLOADS["digits-small"], at_most_us=8.0),
    # rounding grows from step to step of Adam: through 128 steps beyond the tolerance, in every library
    "mnist-mid": replace(cpu.WORKLOADS["mnist-mid"], rows=16384, chunk=64, eta=1e-4, share=1.0, at_most_us=35.0),
    "wide-float32": replace(_wide, at_most_us=2800.0),
    # no more than the products were estimated to take
    "wide-tf32x3": replace(_wide, precision="tf32x3", at_most_us=2000.0),
    "wide-tf32": replace(_wide, precision="tf32", at_most_us=650.0),
    "wide-bf16": replace(_wide, precision="bf16", at_most_us=450.0),
    "deep-narrow-float32": replace(_narrow, at_most_us=220.0),
    "deep-narrow-bf16": replace(_narrow, precision="bf16", at_most_us=60.0),
    "nielsen": replace(cpu.WORKLOADS["nielsen"], at_most_us=5.0),
    "tabular": cpu.WORKLOADS["tabular"],
    "regression-tiny": cpu.WORKLOADS["regression-tiny"],
    "full-batch": cpu.WORKLOADS["full-batch"],
    "deep-narrow-tf32x3": replace(_narrow, precision="tf32x3"),
}
"""In the order of a race: first those whose goals are furthest away, last those without one."""


def get_workload(name: str) -> RacedWorkload:
    """Look a workload up; ``smoke`` is known too but not part of a full run."""
    return cpu.SMOKE if name == "smoke" else WORKLOADS[name]


def least_bytes(work: Workload, on_chip: int) -> int:
    """Bytes that a step must move through the memory of the device, whatever is kept on the chip within it.

    The inputs and targets of the mini-batch are read once. Parameters and the state of the update rule are read and
    written once if they are larger than what the chip keeps from step to step; otherwise they can stay there.

    Parameters
    ----------
    work : Workload
        A training.
    on_chip : int
        Bytes of the second-level cache.
    """
    size = work.dtype.itemsize
    inputs = work.batch * work.sizes[0] * size
    # the number of a class is enough where targets are classes
    targets = work.batch * (1 if work.loss == "cross_entropy" else work.sizes[-1]) * size
    kept = (1 + STATE_VECTORS[work.optimizer]) * work.n_parameters * size
    return inputs + targets + (2 * kept if kept > on_chip else 0)


def floor(work: Workload, costs: dict[str, Any]) -> dict[str, float] | None:
    """Least microseconds of a step: its products at the best measured rate, its bytes at the measured bandwidth.

    Parameters
    ----------
    work : Workload
        A training.
    costs : dict
        What :mod:`benchmarks.gpu.costs` found.

    Returns
    -------
    dict or None
        ``flop_us``, ``byte_us`` and the larger of the two, ``us``; None where a rate was not measured.
    """
    parts = costs.get("parts", {})
    rate = parts.get("products", {}).get("best_tflops", {}).get(PEAK_OF[work.precision])
    bandwidth = parts.get("copies", {}).get("device_gb_per_s")
    if not rate or not bandwidth:
        return None
    flop_us = PRODUCTS.get(work.precision, 1) * work.flops() / rate * 1e-6
    byte_us = least_bytes(work, int(costs.get("second_level_cache", 0))) / bandwidth * 1e-3
    return {"flop_us": flop_us, "byte_us": byte_us, "us": max(flop_us, byte_us)}
