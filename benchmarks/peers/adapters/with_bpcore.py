"""bpcore as its users get it: checks of the data, snapshots and the watch for numbers that are not finite included."""

from __future__ import annotations

from typing import Any

import bpcore as bp
from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import PredictRunner, Runner
from bpcore.bench.problem import Problem
from bpcore.bench.runner import make_rule
from bpcore.bench.workload import Workload


class BpcoreRunner(Runner):
    """A trainer with the plan that was asked for; of the threads that BPCORE_NUM_THREADS allows it takes its choice."""

    def __init__(self, work: Workload, problem: Problem, plan: str, net: bp.MLP, **options: Any) -> None:
        super().__init__()
        self.work, self.problem, self.plan, self.net, self.options = work, problem, plan, net, options
        self.X: Any = problem.X
        self.targets = problem.labels if work.output == "softmax" else problem.Y
        self.facts = {"plan": plan}

    def reset(self) -> None:
        work = self.work
        self.net.set_weights(self.problem.weights)
        self.trainer = bp.Trainer(
            self.net,
            loss=work.loss,
            optimizer=make_rule(work),
            batch_size=work.batch,
            plan=self.plan,
            seed=0,
            **self.options,
        )

    def run(self, order: Any) -> Any:
        loss = self.trainer.run(self.X, self.targets, order).loss
        self.facts["threads"] = self.trainer.team
        return loss


def prepare(work: Workload, problem: Problem, threads: int, plan: str, backend: str = "numba") -> Runner:
    """A network on a backend, with a trainer or to predict."""
    net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype="float32", backend=backend)
    if work.kind == "train":
        return BpcoreRunner(work, problem, plan, net)
    if backend == "numba" and plan == "reference":
        raise Skip("predict has no plans; see bpcore")
    net.set_weights(problem.weights)
    return PredictRunner(net.predict, problem.inputs(), lambda output: output)
