"""One contender at one workload: its steps, the clock around them, and the evidence of what they computed."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.bench.contender import Contender
from bpcore.bench.evidence import Evidence
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload
from bpcore.functions.update_rule import UpdateRule
from bpcore.training.precision import LOWER
from bpcore.training.state import Snapshot

__all__ = ["PredictRunner", "Runner", "TrainRunner", "make_rule", "make_runner"]

LONGEST_CALL = 4096
"""Most steps in one call."""


def make_rule(work: Workload) -> UpdateRule:
    """Return the update rule of a workload."""
    if work.optimizer == "adam":
        return bp.Adam(work.eta)
    return bp.SGD(work.eta, momentum=0.9) if work.optimizer == "momentum" else bp.SGD(work.eta)


class Runner:
    """What training and prediction have in common: a network with the first weights of the problem, and the clock.

    Parameters
    ----------
    work : Workload
        What is measured.
    problem : Problem
        Its data.
    contender : Contender
        Backend and precision.
    """

    def __init__(self, work: Workload, problem: Problem, contender: Contender) -> None:
        self.work, self.problem, self.contender = work, problem, contender
        self.net = bp.MLP(
            work.sizes, work.activation, work.output, init="zeros", dtype=work.dtype, backend=contender.backend
        ).set_weights(problem.weights)
        self.be = self.net.on(None)
        self.step_seconds = 0.0

    facts: dict[str, Any]

    def evidence(self) -> Evidence:
        """Compute from the first weights what the witness computes too."""
        raise NotImplementedError

    def run(self, steps: int) -> None:
        """Take so many steps and wait for them."""
        raise NotImplementedError

    def rounds(self, count: int, seconds: float) -> list[float]:
        """Time rounds of about so many seconds; return the seconds of a step in each."""
        steps = self._warm_up(seconds)
        found = []
        gc.collect()
        for _ in range(count):
            begun = time.perf_counter()
            self.run(steps)
            elapsed = time.perf_counter() - begun
            found.append(elapsed / steps)
            self.step_seconds = elapsed / steps
            steps = self._steps(seconds)
        return found

    def _warm_up(self, seconds: float) -> int:
        """Run until the number of steps in a round is known: what is done for the first time takes longer."""
        steps = 1
        while True:
            begun = time.perf_counter()
            self.run(steps)
            elapsed = time.perf_counter() - begun
            self.step_seconds = elapsed / steps
            if elapsed > seconds / 2 or steps == LONGEST_CALL:
                return self._steps(seconds)
            # a call costs something by itself, so a step of a short one says little about those of a long one
            steps = min(4 * steps, LONGEST_CALL)

    def _steps(self, seconds: float) -> int:
        return max(1, min(LONGEST_CALL, round(seconds / max(self.step_seconds, 1e-9))))


class TrainRunner(Runner):
    """Steps of training through ``Trainer.run_loaded``, with its checks, its snapshots and its watch for NaN."""

    def __init__(self, work: Workload, problem: Problem, contender: Contender, threads: int | None) -> None:
        super().__init__(work, problem, contender)
        precision = contender.precision if contender.precision in LOWER else None
        self.trainer = bp.Trainer(
            self.net,
            loss=work.loss,
            optimizer=make_rule(work),
            batch_size=work.batch,
            seed=0,
            threads=threads,
            plan=contender.plan,
            precision=precision,
        )
        targets = problem.labels if work.output == "softmax" else problem.Y
        self.data = self.trainer.load(self.be.asarray(problem.X), targets)
        self.order = problem.order(0, len(problem.orders))
        self.start = Snapshot(self.be, self.net.theta, self.trainer.state)

    def run(self, steps: int) -> None:
        """Take so many steps; the losses are read, so all is computed."""
        order = self.order
        while steps > 0:
            now = order[: min(steps, len(order))]
            self.trainer.run_loaded(self.data, now)
            steps -= len(now)

    def evidence(self) -> Evidence:
        """Take the first steps from the first weights."""
        self.start.put_back(self.net.theta, self.trainer.state)
        order = self.problem.order(0, 1)[: self.work.parity_steps]
        losses = self.trainer.run_loaded(self.data, order).loss
        found = Evidence.of_training(losses, self.problem.weights, self.net.get_weights())
        self.start.put_back(self.net.theta, self.trainer.state)
        return found

    @property
    def facts(self) -> dict[str, Any]:  # type: ignore[override]
        """Plan and threads, as they are recorded in a run."""
        trainer = self.trainer
        return {"plan": trainer.plan_name, "why": trainer.plan_why, "threads": trainer.team or trainer.threads}


class PredictRunner(Runner):
    """Calls of predict, on inputs that lie where the backend computes."""

    def __init__(self, work: Workload, problem: Problem, contender: Contender) -> None:
        super().__init__(work, problem, contender)
        self.X = self.be.asarray(problem.X[: work.batch])
        self.out = self.net.predict(self.X)
        self.facts = {"plan": "predict", "why": "", "threads": None}

    def run(self, steps: int) -> None:
        """Call predict so many times."""
        predict, X, out = self.net.predict, self.X, self.out
        for _ in range(steps):
            predict(X, out=out)
        self.be.synchronize()

    def evidence(self) -> Evidence:
        """Predict once more."""
        return Evidence.of_prediction(np.asarray(self.be.to_numpy(self.net.predict(self.X))))


def make_runner(work: Workload, problem: Problem, contender: Contender, threads: int | None) -> Runner:
    """Return the runner of a workload."""
    if work.kind == "predict":
        return PredictRunner(work, problem, contender)
    return TrainRunner(work, problem, contender, threads)
