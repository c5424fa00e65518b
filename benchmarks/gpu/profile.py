"""Where the time of a training step goes, kernel by kernel: python -m benchmarks.gpu.profile wide-bf16 wide

The kernels are seen by CUPTI, through PyTorch's profiler, inside CUDA graphs too. The step is timed first, without the
profiler, which slows the host down.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks.gpu import with_bpcore
from benchmarks.gpu.workloads import WORKLOADS, get_workload
from benchmarks.peers.adapters import Skip
from bpcore.bench.problem import Problem

LEAST_US = 0.3
"""Kernels that take less of a step are left out."""


def microseconds(runner: Any, order: Any, repeats: int = 3) -> float:
    """Median time of a step in microseconds, of runs over the whole order."""
    runner.run(order)
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        runner.run(order)
        found.append(1e6 * (time.perf_counter() - begun) / len(order))
    return sorted(found)[repeats // 2]


def kernels(runner: Any, order: Any) -> list[tuple[float, float, str]]:
    """Return microseconds a step, calls a step and name of what runs on the device, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        runner.run(order)
    steps = len(order)
    rows = [(event.device_time_total / steps, event.count / steps, event.key) for event in seen.key_averages()]
    return sorted(rows, reverse=True)


def main(arguments: list[str] | None = None) -> int:
    """Profile one workload under one plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("plan", nargs="?", default="auto", help="a plan of bpcore (default auto)")
    parser.add_argument(
        "--chunks", type=int, default=8, help="how long the timed run is, in chunks of steps (default 8)"
    )
    options = parser.parse_args(arguments)
    work = get_workload(options.workload)
    problem = Problem.make(work)
    try:
        runner: Any = with_bpcore.prepare(work, problem, 1, options.plan)
    except Skip as why:
        print(f"nothing was measured: {why}", file=sys.stderr)
        return 2
    runner.reset()
    order = runner.stage(problem.order(0, options.chunks))
    us = microseconds(runner, order)
    print(f"{work.sizes} batch {work.batch} {work.precision}, plan {runner.trainer.plan_name}: {us:.1f} us a step")
    for total, calls, name in kernels(runner, order):
        if total >= LEAST_US:
            print(f"{total:10.2f} us {calls:5.1f} x  {name[:90]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
