"""Where the time of a compiled training step goes: each of its operations, called again and again by itself.

    python -m benchmarks.profile_step digits-small tabular [--json FILE]

One thread computes. For every operation the table has its time, for products also operations per second. Their sum is
below the time of a whole step, because an operation that is repeated finds its data in the nearest cache. The floor is
the time that the products would take at the peak that was measured for square matrices.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.machine import choose_cpus
from benchmarks.peers.workloads import WORKLOADS
from bpcore.bench.compiled_parts import CompiledOperation, compiled_operations, own_peak
from bpcore.bench.contender import Contender
from bpcore.bench.machine import REMOVED, describe
from bpcore.bench.parts import seconds_of
from bpcore.bench.problem import Problem
from bpcore.bench.runner import TrainRunner
from bpcore.bench.workload import Workload

SECONDS = 0.05
"""For each operation."""


def profile(work: Workload) -> tuple[float, list[CompiledOperation]]:
    """Return the time of a whole step, and the operations of one."""
    runner = TrainRunner(work, Problem.make(work), Contender("numba", "float32"), threads=1)
    steps = len(runner.order)
    step = seconds_of(lambda times: runner.run(times * steps), SECONDS) / steps
    return step, compiled_operations(runner, seconds_of, SECONDS)


def show(console: Console, name: str, work: Workload, step: float, rows: list[CompiledOperation], rate: float) -> None:
    """Print a table."""
    table = Table(title=f"{name}: {step * 1e6:.4g} us a step", title_justify="left")
    for column in ("operation", "part", "us", "share", "GFLOP/s"):
        table.add_column(column, justify="left" if column in ("operation", "part") else "right")
    for row in rows:
        speed = f"{row.flops / row.seconds / 1e9:.0f}" if row.flops else ""
        table.add_row(row.name, row.part, f"{row.seconds * 1e6:.4g}", f"{row.seconds / step:.1%}", speed)
    console.print(table)
    total = sum(row.seconds for row in rows)
    console.print(
        f"sum {total * 1e6:.4g} us; products at {rate / 1e9:.0f} GFLOP/s {work.flops() / rate * 1e6:.4g} us; "
        f"step at {work.flops() / step / rate:.0%} of that rate\n",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trainings = [name for name, work in WORKLOADS.items() if work.kind == "train"]
    parser.add_argument("workloads", nargs="*", choices=trainings, help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    options = parser.parse_args()
    trap = [name for name in REMOVED if name in os.environ]
    if trap:
        parser.error(f"{' and '.join(trap)} would slow BLAS down; start with env -u {' -u '.join(trap)} python ...")
    cpus = choose_cpus(1)
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    console, rate = Console(), own_peak(seconds_of, SECONDS)
    found: dict[str, Any] = {"machine": describe(), "flops_per_second": rate, "workloads": {}}
    for name in options.workloads or trainings:
        step, rows = profile(WORKLOADS[name])
        show(console, name, WORKLOADS[name], step, rows, rate)
        found["workloads"][name] = {"step_seconds": step, "operations": [vars(row) for row in rows]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
