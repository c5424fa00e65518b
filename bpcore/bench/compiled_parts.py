"""The operations of the compiled plan, each called again and again by itself, on one thread."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# The functions that Numba compiles take whatever the operation takes.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from bpcore.kernels.numba import epoch, pieces, products
from bpcore.kernels.numba.calls import caller
from bpcore.training.compiled import CompiledPlan

if TYPE_CHECKING:
    from bpcore.bench.runner import TrainRunner

__all__ = ["CompiledOperation", "compiled_operations", "own_peak"]

_SIZE, _W, _B, _Z, _H, _PASSED, _DELTA, _MASK, _BLAS = (
    epoch.COLUMNS.index(name) for name in ("size", "weights", "bias", "z", "h", "passed", "delta", "mask", "blas")
)
_multiply = caller(*products.multiply.arguments)
_forward, _backward, _output, _update = (
    caller(*pieces.ARGUMENTS[kind]) for kind in ("forward", "backward", "output", "update")
)


@numba.njit(nogil=True)
def multiply(times, functions, *arguments):
    for _ in range(times):
        _multiply(functions, epoch.MULTIPLY, *arguments)


@numba.njit(nogil=True)
def forward(times, functions, at, *arguments):
    for _ in range(times):
        _forward(functions, at, *arguments)


@numba.njit(nogil=True)
def backward(times, functions, at, *arguments):
    for _ in range(times):
        _backward(functions, at, *arguments)


@numba.njit(nogil=True)
def output(times, functions, *arguments):
    for _ in range(times):
        _output(functions, epoch.OUTPUT, *arguments)


@numba.njit(nogil=True)
def update(times, functions, *arguments):
    for _ in range(times):
        _update(functions, epoch.UPDATE, *arguments)


@numba.njit(nogil=True)
def gather(times, X, index, work, at):
    for k in range(times):
        epoch._gather(X, index, k % index.shape[0], 0, index.shape[1], work, at)


@dataclass
class CompiledOperation:
    """One operation.

    Attributes
    ----------
    name, part : str
        What it is, and to which part of a step it belongs; see :data:`bpcore.bench.workload.PARTS`.
    seconds : float
        Its time.
    flops : int
        Operations, for products.
    """

    name: str
    part: str
    seconds: float
    flops: int = 0


def compiled_operations(
    runner: TrainRunner, seconds_of: Callable[[Callable[[int], object], float], float], seconds: float
) -> list[CompiledOperation]:
    """Time the operations of a step.

    Parameters
    ----------
    runner : TrainRunner
        A workload under the compiled plan.
    seconds_of : callable
        The clock: given a function that repeats something so many times, and the time that it may take.
    seconds : float
        For each operation.

    Returns
    -------
    list of CompiledOperation
        In the order in which a step takes them. Their sum is below the time of a step, because an operation that is
        repeated finds its data in the nearest cache.
    """
    trainer, work, problem = runner.trainer, runner.work, runner.problem
    runner.run(1)  # builds the plan
    plan = trainer._plan
    assert isinstance(plan, CompiledPlan)
    functions, table, width, scratch = plan._functions, plan._table, plan._width, plan._scratch[0]
    work_memory, theta, m, S = plan._work.copy(), trainer.net.theta.copy(), work.batch, work.sizes
    grad, rows = np.zeros_like(theta), []

    def add(name: str, kind: str, run: Callable[[int], object], flops: int = 0) -> None:
        rows.append(CompiledOperation(name, kind, seconds_of(run, seconds), flops))
        work_memory[:] = plan._work  # what was computed in place, again and again, may have left the finite numbers

    def product(name: str, kind: str, A: Any, B: Any, C: Any, D: Any, m: int, k: int, n: int, blas: int) -> None:
        sizes = m, k, n, width, scratch, blas
        add(name, kind, lambda times: multiply(times, functions, *A, *B, *C, n, *D, *sizes), 2 * m * k * n)

    index = np.ascontiguousarray(runner.order, np.int64)
    add("X", "gather", lambda times: gather(times, problem.X, index, work_memory, table[0, _H]))
    for l in range(len(S) - 1):
        here, up, (n_in, n) = table[l], table[l + 1], S[l : l + 2]
        A, W = (work_memory, here[_PASSED], n_in, 1), (theta, here[_W], n, 1)
        bias = theta, here[_B]
        product(f"Z[{l + 2}]", "forward", A, W, (work_memory, up[_Z]), bias, m, n_in, n, here[_BLAS])
        at = epoch.LAYERS + 2 * l
        add(
            f"H[{l + 2}]",
            "forward",
            lambda times, at=at, up=up, n=n: forward(times, functions, at, work_memory, up[_Z], up[_H], m, n),  # type: ignore[misc]
        )
    last = table[-1]
    ends = last[_Z], last[_H], last[_MASK], last[_PASSED], last[_DELTA]
    one = np.zeros(8)
    add(
        "loss, BP1",
        "BP1",
        lambda times: output(times, functions, work_memory, *ends, m, S[-1], 1.0 / m, plan._scales, 0, one),
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
            "BP2",
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
    return rows


def own_peak(seconds_of: Callable[[Callable[[int], object], float], float], seconds: float) -> float:
    """Return the rate of our own products of square matrices of 768 in float32, in FLOP/s."""
    from bpcore.kernels.numba.vectors import width

    n, dtype = 768, np.dtype(np.float32)
    A, B, C = (np.ones(n * n, dtype) for _ in range(3))
    scratch, kernel = np.empty(products.scratch_size(4), dtype), products.kernel(dtype)
    arguments = (A, 0, n, 1, B, 0, n, 1, C, 0, n, C, -1, n, n, n, width(4), scratch, 0)
    return 2 * n**3 / seconds_of(lambda times: [kernel(*arguments) for _ in range(times)], seconds)
