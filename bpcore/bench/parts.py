"""Where the time of a training step goes: gather, forward, BP1 to BP4, update, each called again and again by itself.

By itself a part finds its data in the nearest cache, so the parts together take less than a step; what a step takes
besides them is its *rest*: the loss and the hits, snapshots, calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bpcore.backprop import (
    bp1_output_delta,
    bp2_hidden_delta,
    bp3_bias_grad,
    bp4_weight_grad,
    forward_into,
    sample_scale,
)
from bpcore.bench.runner import TrainRunner
from bpcore.workspace import Gradients, Trace

__all__ = ["engine_parts", "seconds_of", "time_parts"]


def seconds_of(run: Callable[[int], object], seconds: float) -> float:
    """Return the least time of one repetition.

    Parameters
    ----------
    run : callable
        Repeats something so many times, and waits for it.
    seconds : float
        For how long.
    """
    run(1)
    begun, times = time.perf_counter(), 1
    run(times)
    while time.perf_counter() - begun < seconds / 10:
        times *= 2
        begun = time.perf_counter()
        run(times)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        run(times)
        best = min(best, (time.perf_counter() - begun) / times)
    return best


def time_parts(runner: TrainRunner, seconds: float) -> dict[str, Any]:
    """Time the parts of a step as its plan computes them, where they can be called apart.

    Parameters
    ----------
    runner : TrainRunner
        A workload that runs.
    seconds : float
        For each part, or operation of a part.

    Returns
    -------
    dict
        ``us``: microseconds by part, and of the whole ``step``; ``how`` in words.
    """
    runner.run(1)
    if runner.trainer.plan_name == "compiled":
        from bpcore.bench.compiled_parts import compiled_operations

        # a team shares an operation in ways that differ from one to the next, so one thread is looked at
        alone = TrainRunner(runner.work, runner.problem, runner.contender, threads=1)
        us = dict.fromkeys(runner.work.parts(), 0.0)
        for operation in compiled_operations(alone, seconds_of, seconds):
            us[operation.part] += 1e6 * operation.seconds
        how, step = "the operations of the compiled plan, on one thread", min(alone.rounds(3, seconds))
    else:
        us = {part: 1e6 * found for part, found in engine_parts(runner, seconds).items()}
        plan, step = runner.trainer.plan_name, min(runner.rounds(3, seconds))
        how = "the calls of the engine" if plan == "reference" else f"the calls of the engine; plan {plan} joins them"
    return {"how": how, "us": {**us, "step": 1e6 * step}}


def engine_parts(runner: TrainRunner, seconds: float) -> dict[str, float]:
    """Seconds of each part as the engine computes it, call by call, on any backend."""
    be, net, work, trainer = runner.be, runner.net, runner.work, runner.trainer
    m, L, dtype = work.batch, net.n_layers, net.dtype
    trace = Trace.allocate(be, net.sizes, m, dtype)
    grads = Gradients.allocate(be, net.sizes, net.layout, m, dtype)
    Y, rows = be.empty((m, net.sizes[-1]), dtype), be.asarray(np.ascontiguousarray(runner.order[0]))
    scale = sample_scale(trainer.loss, net.sizes[-1]) / m
    arrays = [be.zeros(net.layout.size, dtype) for _ in trainer.rule.state]
    scalars, _ = trainer.rule.host_scalars(1, work.eta, trainer.rule.initial_running())
    constants = trainer.rule.constants(work.eta, scalars)
    program, theta = trainer.rule.program, be.copy(net.theta, out=be.empty(net.theta.size, dtype))
    named = {"theta": theta, "g": grads.flat, **dict(zip(trainer.rule.state, arrays, strict=True)), **constants}
    Z, H, Delta, activations = trace.Z, trace.H, grads.Delta, net.activations

    def gather() -> None:
        be.take_rows(runner.data.X, rows, out=H[1])
        be.take_rows(runner.data.Y, rows, out=Y)

    def bp1() -> None:
        bp1_output_delta(be, trainer.loss, activations[L], Z[L], H[L], Y, scale, out=Delta[L])

    def bp2() -> None:
        for l in range(L - 1, 1, -1):
            bp2_hidden_delta(be, Delta[l + 1], net.W[l], activations[l], Z[l], H[l], out=Delta[l])

    def bp3() -> None:
        for l in range(L - 1, 0, -1):
            bp3_bias_grad(be, Delta[l + 1], out=grads.db[l])

    def bp4() -> None:
        for l in range(L - 1, 0, -1):
            bp4_weight_grad(be, trace.passed[l], Delta[l + 1], out=grads.dW[l])

    def update() -> None:
        out = (theta, *arrays) if arrays else theta
        be.elementwise(program, out=out, **{name: named[name] for name in program.inputs})

    calls = {
        "gather": gather,
        "forward": lambda: forward_into(be, net, trace),
        "BP1": bp1,
        "BP2": bp2,
        "BP3": bp3,
        "BP4": bp4,
        "update": update,
    }

    def repeated(call: Callable[[], None]) -> Callable[[int], None]:
        def run(times: int) -> None:
            for _ in range(times):
                call()
            be.synchronize()

        return run

    parts = {part: call for part, call in calls.items() if part in work.parts()}
    return {part: seconds_of(repeated(call), seconds) for part, call in parts.items()}
