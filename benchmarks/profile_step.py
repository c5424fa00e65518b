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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import bpcore as bp
from benchmarks.peers.machine import REMOVED, choose_cpus, describe
from benchmarks.peers.problem import ORDERS, Problem
from benchmarks.peers.workloads import WORKLOADS, Workload
from bpcore.kernels.numba import epoch, pieces, products
from bpcore.kernels.numba.calls import caller
from bpcore.training.compiled import CompiledPlan

SECONDS = 0.05
"""For each operation."""

_SIZE, _W, _B, _Z, _H, _PASSED, _DELTA, _MASK, _BLAS = (
    epoch.COLUMNS.index(name) for name in ("size", "weights", "bias", "z", "h", "passed", "delta", "mask", "blas")
)
_multiply = caller(*products.multiply.arguments)
_forward, _backward, _output, _update = (
    caller(*pieces.ARGUMENTS[kind]) for kind in ("forward", "backward", "output", "update")
)


@numba.njit(nogil=True)
def multiply(times, functions, *arguments):  # type: ignore[no-untyped-def]
    for _ in range(times):
        _multiply(functions, epoch.MULTIPLY, *arguments)


@numba.njit(nogil=True)
def forward(times, functions, at, *arguments):  # type: ignore[no-untyped-def]
    for _ in range(times):
        _forward(functions, at, *arguments)


@numba.njit(nogil=True)
def backward(times, functions, at, *arguments):  # type: ignore[no-untyped-def]
    for _ in range(times):
        _backward(functions, at, *arguments)


@numba.njit(nogil=True)
def output(times, functions, *arguments):  # type: ignore[no-untyped-def]
    for _ in range(times):
        _output(functions, epoch.OUTPUT, *arguments)


@numba.njit(nogil=True)
def update(times, functions, *arguments):  # type: ignore[no-untyped-def]
    for _ in range(times):
        _update(functions, epoch.UPDATE, *arguments)


@numba.njit(nogil=True)
def gather(times, X, index, work, at):  # type: ignore[no-untyped-def]
    for k in range(times):
        epoch._gather(X, index, k % index.shape[0], 0, index.shape[1], work, at)


@dataclass
class Row:
    """One operation.

    Attributes
    ----------
    name, kind : str
        What it is, and to which part of a step it belongs.
    seconds : float
        Its time.
    flops : int
        Operations, for products.
    """

    name: str
    kind: str
    seconds: float
    flops: int = 0


def seconds_of(run: Callable[[int], object]) -> float:
    """Return the least time of one repetition."""
    run(1)
    begun, times = time.perf_counter(), 1
    run(times)
    while time.perf_counter() - begun < SECONDS / 10:
        times *= 2
        begun = time.perf_counter()
        run(times)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begun = time.perf_counter()
        run(times)
        best = min(best, (time.perf_counter() - begun) / times)
    return best


def peak() -> float:
    """Return the rate of our own products of square matrices of 768, in FLOP/s."""
    n, dtype = 768, np.dtype(np.float32)
    A, B, C = (np.ones(n * n, dtype) for _ in range(3))
    from bpcore.kernels.numba.vectors import width

    scratch, kernel = np.empty(products.scratch_size(4), dtype), products.kernel(dtype)
    arguments = (A, 0, n, 1, B, 0, n, 1, C, 0, n, C, -1, n, n, n, width(4), scratch, 0)
    return 2 * n**3 / seconds_of(lambda times: [kernel(*arguments) for _ in range(times)])


def make_trainer(work: Workload, problem: Problem) -> tuple[bp.Trainer, Any]:
    """Return a trainer that has run, and its targets."""
    net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype="float32", backend="numba")
    net.set_weights(problem.weights)
    rules: dict[str, Any] = {
        "sgd": bp.SGD(work.eta),
        "momentum": bp.SGD(work.eta, momentum=0.9),
        "adam": bp.Adam(work.eta),
    }
    trainer = bp.Trainer(
        net, loss=work.loss, optimizer=rules[work.optimizer], batch_size=work.batch, threads=1, plan="compiled", seed=0
    )
    targets = problem.labels if work.output == "softmax" else problem.Y
    trainer.run(problem.X, targets, problem.order(0, 1))
    return trainer, targets


def profile(work: Workload) -> tuple[float, list[Row]]:
    """Return the time of a whole step, and the operations of one."""
    problem = Problem.make(work)
    trainer, targets = make_trainer(work, problem)
    order = problem.order(0, ORDERS)
    step = seconds_of(lambda times: [trainer.run(problem.X, targets, order) for _ in range(times)]) / len(order)
    plan = trainer._plan
    assert isinstance(plan, CompiledPlan)
    functions, table, width, scratch = plan._functions, plan._table, plan._width, plan._scratch[0]
    work_memory, theta, m, S = plan._work.copy(), trainer.net.theta.copy(), work.batch, work.sizes
    grad, rows = np.zeros_like(theta), []

    def add(name: str, kind: str, run: Callable[[int], object], flops: int = 0) -> None:
        rows.append(Row(name, kind, seconds_of(run), flops))
        work_memory[:] = plan._work  # what was computed in place, again and again, may have left the finite numbers

    def product(name: str, kind: str, A: Any, B: Any, C: Any, D: Any, m: int, k: int, n: int, blas: int) -> None:
        sizes = m, k, n, width, scratch, blas
        add(name, kind, lambda times: multiply(times, functions, *A, *B, *C, n, *D, *sizes), 2 * m * k * n)

    index = np.ascontiguousarray(order, np.int64)
    add("X", "gather", lambda times: gather(times, problem.X, index, work_memory, table[0, _H]))
    for l in range(len(S) - 1):
        here, up, (n_in, n) = table[l], table[l + 1], S[l : l + 2]
        A, W = (work_memory, here[_PASSED], n_in, 1), (theta, here[_W], n, 1)
        bias = theta, here[_B]
        product(f"Z[{l + 2}]", "forward", A, W, (work_memory, up[_Z]), bias, m, n_in, n, here[_BLAS])
        at = epoch.LAYERS + 2 * l
        add(
            f"H[{l + 2}]",
            "activation",
            lambda times, at=at, up=up, n=n: forward(times, functions, at, work_memory, up[_Z], up[_H], m, n),  # type: ignore[misc]
        )
    last = table[-1]
    places = last[_Z], last[_H], last[_MASK], last[_PASSED], last[_DELTA]
    one = np.zeros(8)
    add(
        "loss, BP1",
        "BP1",
        lambda times: output(times, functions, work_memory, *places, m, S[-1], 1.0 / m, plan._scales, 0, one),
    )
    for l in range(len(S) - 2, 0, -1):
        here, up, (n_in, n) = table[l], table[l + 1], S[l : l + 2]
        Delta, W = (work_memory, up[_DELTA], n, 1), (theta, here[_W], 1, n)
        product(
            f"Delta[{l + 1}]", "BP2", Delta, W, (work_memory, here[_DELTA]), (work_memory, -1), m, n, n_in, here[_BLAS]
        )
        places = here[_DELTA], here[_Z], here[_H]
        at = epoch.LAYERS + 2 * l - 1
        add(
            f"act'(Z[{l + 1}])",
            "derivative",
            lambda times, at=at, places=places, n=n_in: backward(times, functions, at, work_memory, *places, m, n),  # type: ignore[misc]
        )
    states = [trainer.state.arrays[name].copy() for name in trainer.rule.state]
    states += [np.empty(0, theta.dtype)] * (pieces.MAX_STATES - len(states))
    numbers = np.full(plan._numbers.shape[1], 1e-9)
    for l in range(len(S) - 1):
        here, up, (n_in, n) = table[l], table[l + 1], S[l : l + 2]
        Delta = work_memory, up[_DELTA], n, 1
        ones, nothing = (work_memory, plan._ones, 1, 0), (grad, -1)
        product(f"db[{l + 1}]", "BP3", ones, Delta, (grad, here[_B]), nothing, 1, m, n, 0)
        parts = [(int(i), int(end)) for layer, i, end in plan._shares if layer == l and i != epoch.BIAS]

        def bp4(times: int, l: int = l, here: Any = here, n: int = n, parts: Any = parts, Delta: Any = Delta) -> None:
            for i, end in parts:
                A = work_memory, here[_PASSED] + i, 1, S[l]
                C = grad, here[_W] + i * n
                sizes = end - i, m, n, width, scratch, here[_BLAS]
                multiply(times, functions, *A, *Delta, *C, n, grad, -1, *sizes)

        add(f"dW[{l + 1}]", "BP4", bp4, 2 * m * n_in * n)
        add(
            f"W[{l + 1}]",
            "update",
            lambda times, here=here, n_in=n_in, n=n: update(  # type: ignore[misc]
                times,
                functions,
                theta,
                grad,
                *states,
                here[_W],
                n_in,
                n,
                work_memory,
                plan._ones,
                plan._ones,
                numbers,
            ),
        )
    return step, rows


def show(console: Console, name: str, work: Workload, step: float, rows: list[Row], rate: float) -> None:
    """Print a table."""
    table = Table(title=f"{name}: {step * 1e6:.4g} us a step", title_justify="left")
    for column in ("operation", "part", "us", "share", "GFLOP/s"):
        table.add_column(column, justify="left" if column in ("operation", "part") else "right")
    for row in rows:
        speed = f"{row.flops / row.seconds / 1e9:.0f}" if row.flops else ""
        table.add_row(row.name, row.kind, f"{row.seconds * 1e6:.4g}", f"{row.seconds / step:.1%}", speed)
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
    console, rate = Console(), peak()
    found: dict[str, Any] = {"machine": describe(), "flops_per_second": rate, "workloads": {}}
    for name in options.workloads or trainings:
        step, rows = profile(WORKLOADS[name])
        show(console, name, WORKLOADS[name], step, rows, rate)
        found["workloads"][name] = {"step_seconds": step, "operations": [vars(row) for row in rows]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
