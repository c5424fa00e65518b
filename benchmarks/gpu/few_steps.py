"""A few steps of a workload by a plan, for a profiler to look at: ``python -m benchmarks.gpu.few_steps nielsen graph``.

The same steps are taken before, so that everything is compiled and captured. Only then the profiler is told to look, by
``cudaProfilerStart``; to a process without one that means nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.gpu import with_bpcore
from benchmarks.gpu.workloads import WORKLOADS, get_workload
from benchmarks.peers.adapters import Skip
from bpcore.bench.problem import Problem

__all__ = ["take"]


def take(workload: str, plan: str, steps: int) -> str:
    """Take the steps; return the name of the plan that ran.

    Raises
    ------
    Skip
        If the plan cannot do the workload, or there is no GPU.
    """
    work = get_workload(workload)
    problem = Problem.make(work)
    runner: Any = with_bpcore.prepare(work, problem, 1, plan)
    runner.reset()
    order = runner.stage(problem.order(0, -(-steps // work.chunk))[:steps])
    runner.run(order)
    import cupy

    cupy.cuda.runtime.profilerStart()
    runner.run(order)
    cupy.cuda.runtime.profilerStop()
    return str(runner.trainer.plan_name)


def main(arguments: list[str] | None = None) -> int:
    """Take the steps that were asked for; return 2 if that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=[*sorted(WORKLOADS), "smoke"])
    parser.add_argument("plan", nargs="?", default="auto", help="a plan of bpcore (default auto)")
    parser.add_argument("--steps", type=int, default=1, help="how many (default 1)")
    options = parser.parse_args(arguments)
    try:
        ran = take(options.workload, options.plan, options.steps)
    except Skip as why:
        print(f"nothing was run: {why}", file=sys.stderr)
        return 2
    print(f"{options.steps} steps of {options.workload} by plan {ran}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
