"""bpcore on CuPy by one of its plans, and on the processor. Checks, snapshots and the watch for NaN are included."""

from __future__ import annotations

from typing import Any

import bpcore as bp
from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import Runner
from benchmarks.peers.adapters.with_bpcore import BpcoreRunner
from benchmarks.peers.adapters.with_bpcore import prepare as prepare_on_cpu
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload
from bpcore.errors import BackendError, ConfigurationError, UnknownNameError


class CupyRunner(BpcoreRunner):
    """Data that ``Trainer.load`` has brought to the device."""

    def __init__(self, work: Workload, problem: Problem, plan: str) -> None:
        self.be = bp.get_backend("cupy")
        net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype="float32", backend=self.be)
        options = {} if work.precision == "float32" else {"precision": work.precision}
        super().__init__(work, problem, plan, net, **options)
        self.X = self.be.asarray(problem.X)

    def reset(self) -> None:
        super().reset()
        self.data = self.trainer.load(self.X, self.targets)

    def stage(self, order: Any) -> Any:
        """``bp.train`` makes the order of an epoch on the device, too."""
        return self.be.asarray(order)

    def run(self, order: Any) -> Any:
        """All contestants have their data on the device before the clock starts."""
        return self.trainer.run_loaded(self.data, order).loss

    def evidence(self, result: Any) -> Any:
        self.facts |= {"ran": self.trainer.plan_name, "why": self.trainer.plan_why}
        return super().evidence(result)


def prepare(work: Workload, problem: Problem, threads: int, plan: str) -> Runner:
    """Take one step, so that what a plan cannot do is known now."""
    try:
        bp.get_backend("cupy")
    except BackendError as error:  # later it would be a failure
        raise Skip(str(error)) from None
    try:
        runner = CupyRunner(work, problem, plan)
        runner.reset()
        runner.run(problem.order(0, 1)[:1])
    except (ConfigurationError, UnknownNameError) as error:
        raise Skip(f"not supported: {error}") from None
    except TypeError as error:
        if "precision" not in str(error):
            raise
        raise Skip("not supported: this Trainer has no argument precision") from None
    return runner


def prepare_cpu(work: Workload, problem: Problem, threads: int, backend: str) -> Runner:
    """The plan that the backend chooses."""
    if work.precision != "float32":
        raise Skip(f"{backend} computes in float32; see that workload")
    return prepare_on_cpu(work, problem, threads, plan="auto", backend=backend)
