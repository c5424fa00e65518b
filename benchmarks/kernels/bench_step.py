"""Training: a stretch of steps of each workload by every plan of every backend, and whole epochs.

A stretch is one call of ``Trainer.run`` with its checks of the data and its snapshots; on a GPU one of
``Trainer.run_loaded``, with the data on the device.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from benchmarks.gpu.with_bpcore import prepare as prepare_on_gpu
from benchmarks.kernels.costs import steps
from benchmarks.kernels.measuring import finished, measure, threads
from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.with_bpcore import prepare
from benchmarks.peers.workloads import WORKLOADS
from bpcore.bench.problem import Problem
from bpcore.bench.runner import make_rule
from bpcore.bench.witness import losses
from bpcore.bench.workload import Workload
from bpcore.random import permutation
from bpcore.training.plans import _BACKENDS, PLANS

TOLERANCE = 1e-4
"""Largest difference of a loss, as a share of the largest of them: that of the race against other libraries."""

TRAININGS = [name for name, work in WORKLOADS.items() if work.kind == "train"]

plans = pytest.mark.parametrize(
    ("backend", "plan"),
    [
        pytest.param(backend, plan, marks=pytest.mark.gpu if backend == "cupy" else ())
        for backend in ("numpy", "numba", "cupy")
        for plan in PLANS
        # half of the workloads have layers that are too wide for fused; benchmarks/gpu races it
        if plan not in ("auto", "fused") and _BACKENDS.get(plan, backend) == backend
    ],
    indirect=["backend"],
)


def check_losses(found: Any, expected: Any) -> None:
    """Compare the losses of successive steps."""
    found = np.asarray(found, np.float64)
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    # not "not error > TOLERANCE", which would let NaN through
    assert error <= TOLERANCE, f"losses are off by {error:.3g} of the largest; {TOLERANCE:g} is allowed"


@functools.lru_cache(maxsize=1)
def prepared(name: str) -> tuple[Problem, Any]:
    """Return the problem of a workload and the losses of its first chunk, for all plans."""
    work = WORKLOADS[name]
    problem = Problem.make(work)
    return problem, losses(work, problem, chunks=1)


def make_runner(work: Workload, problem: Problem, backend: Any, plan: str) -> Any:
    """Return a runner, or skip what a plan of the GPU says that it cannot do; on a processor all plans can do all."""
    if backend.device == "cpu":
        return prepare(work, problem, threads(), plan, backend.name)
    try:
        return prepare_on_gpu(work, problem, threads(), plan)
    except Skip as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("name", TRAININGS)
@plans
def test_stretch(benchmark: Any, backend: Any, plan: str, name: str) -> None:
    work, (problem, expected) = WORKLOADS[name], prepared(name)
    runner = make_runner(work, problem, backend, plan)
    order = np.ascontiguousarray(problem.order(0, 1))

    measure(
        benchmark, finished(backend, lambda: runner.run(order)), lambda found: check_losses(found, expected),
        group=f"step {name}", cost=steps(work, work.chunk), reset=runner.reset,
        per=("sample", work.chunk * work.batch), steps=work.chunk,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nielsen", "digits-small"])
@plans
def test_epoch(benchmark: Any, backend: Any, plan: str, name: str) -> None:
    """``bp.train`` for one epoch, with shuffling, history and record; on a GPU, with the data brought there."""
    work = WORKLOADS[name]
    in_epoch = work.rows // work.batch
    assert in_epoch * work.batch == work.rows
    problem, expected = first_epoch(name)
    make_runner(work, problem, backend, plan)  # skips what cannot be done
    net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype="float32", backend=backend)
    targets = problem.labels if work.output == "softmax" else problem.Y

    def run() -> Any:
        return bp.train(
            net, problem.X, targets, epochs=1, loss=work.loss, optimizer=make_rule(work), batch_size=work.batch, seed=0,
            threads=threads(), plan=plan, verbose=False,
        )  # fmt: skip

    def judge(result: Any) -> None:
        assert result.record["plan"] == plan
        check_losses([result.history[-1]["loss"]], expected)

    measure(
        benchmark, finished(backend, run), judge, group=f"epoch {name}", cost=steps(work, in_epoch),
        reset=lambda: net.set_weights(problem.weights), per=("sample", work.rows), steps=in_epoch,
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def first_epoch(name: str) -> tuple[Problem, Any]:
    """Return the problem of a workload and the mean loss of the first epoch in the order that ``seed=0`` gives."""
    work = WORKLOADS[name]
    problem = Problem.make(work)
    order = permutation(work.rows, seed=0, epoch=0).reshape(1, -1, work.batch)
    whole = replace(work, chunk=order.shape[1])
    return problem, np.array([losses(whole, replace(problem, orders=order), chunks=1).mean()])
