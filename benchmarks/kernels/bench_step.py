"""Training: a stretch of steps of each workload by the compiled plan and by the reference, and whole epochs.

A stretch is one call of ``Trainer.run``, with its checks of the data and its snapshots.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from benchmarks.kernels.costs import steps
from benchmarks.kernels.measuring import measure, threads
from benchmarks.peers import reference
from benchmarks.peers.adapters.with_bpcore import prepare
from benchmarks.peers.problem import Problem
from benchmarks.peers.workloads import WORKLOADS, Workload
from bpcore.random import permutation

TOLERANCE = 1e-4
"""Largest difference of a loss, as a share of the largest of them: that of the race against other libraries."""

TRAININGS = [name for name, work in WORKLOADS.items() if work.kind == "train"]
plans = pytest.mark.parametrize("plan", ["compiled", "reference"])


def check_losses(found: Any, expected: Any) -> None:
    """Compare the losses of successive steps."""
    found = np.asarray(found, np.float64)
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / np.abs(expected).max()
    # not "not error > TOLERANCE", which would let NaN through
    assert error <= TOLERANCE, f"losses are off by {error:.3g} of the largest; {TOLERANCE:g} is allowed"


@functools.lru_cache(maxsize=1)
def prepared(name: str) -> tuple[Problem, Any]:
    """Return the problem of a workload and the losses of its first chunk, for both plans."""
    work = WORKLOADS[name]
    problem = Problem.make(work)
    return problem, reference.losses(work, problem)[: work.chunk]


@plans
@pytest.mark.parametrize("name", TRAININGS)
def test_stretch(benchmark: Any, name: str, plan: str) -> None:
    work, (problem, expected) = WORKLOADS[name], prepared(name)
    runner: Any = prepare(work, problem, threads(), plan)
    order = np.ascontiguousarray(problem.order(0, 1))

    measure(
        benchmark, lambda: runner.run(order), lambda losses: check_losses(losses, expected), group=f"step {name}",
        cost=steps(work, work.chunk), reset=runner.reset, per=("sample", work.chunk * work.batch), steps=work.chunk,
    )  # fmt: skip


@plans
@pytest.mark.parametrize("name", ["nielsen", "digits-small"])
def test_epoch(benchmark: Any, name: str, plan: str) -> None:
    """``bp.train`` for one epoch, with shuffling, history and record."""
    work = WORKLOADS[name]
    in_epoch = work.rows // work.batch
    assert in_epoch * work.batch == work.rows
    problem, expected = first_epoch(name)
    net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype="float32", backend="numba")
    targets = problem.labels if work.output == "softmax" else problem.Y
    rule = bp.SGD(work.eta, momentum=0.9 if work.optimizer == "momentum" else 0.0)

    def run() -> Any:
        return bp.train(
            net, problem.X, targets, epochs=1, loss=work.loss, optimizer=rule, batch_size=work.batch, seed=0,
            threads=threads(), plan=plan, verbose=False,
        )  # fmt: skip

    def judge(result: Any) -> None:
        assert result.record["plan"] == plan
        check_losses([result.history[-1]["loss"]], expected)

    measure(
        benchmark, run, judge, group=f"epoch {name}", cost=steps(work, in_epoch),
        reset=lambda: net.set_weights(problem.weights), per=("sample", work.rows), steps=in_epoch,
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def first_epoch(name: str) -> tuple[Problem, Any]:
    """Return the problem of a workload and the mean loss of the first epoch in the order that ``seed=0`` gives."""
    work = WORKLOADS[name]
    problem = Problem.make(work)
    order = permutation(work.rows, seed=0, epoch=0).reshape(1, -1, work.batch)
    whole: Workload = replace(work, chunk=order.shape[1])
    losses = reference.losses(whole, replace(problem, orders=np.repeat(order, 8, axis=0)))[: whole.chunk]
    return problem, np.array([losses.mean()])
