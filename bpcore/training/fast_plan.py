"""What the plans that are faster than the reference have in common: when they leave a step to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from bpcore.backends.contract import Backend
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.reference import ReferencePlan, Watch
from bpcore.training.spec import StepSpec
from bpcore.training.state import Snapshot, TrainingState
from bpcore.typing import Array

__all__ = ["FastPlan"]


class FastPlan(ABC):
    """Runs of steps of one network under one StepSpec, with the reference beside it.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    net : MLP
        The network that is trained, in place.
    be : Backend
        Where its parameters are.
    seed : int
        Seed of the dropout masks.
    """

    name: str
    threads: int | None = None
    why = ""
    uses_blas = False

    def __init__(self, spec: StepSpec, net: MLP, be: Backend, seed: int) -> None:
        self.spec, self.net, self.be, self.seed = spec, net, be, seed
        self._gradient = be.zeros(net.layout.size, spec.dtype)
        self._reference: ReferencePlan | None = None
        self._by_reference = False

    @property
    def gradient(self) -> Array:
        """Gradient of the last step, in the layout of theta (after penalty and clipping)."""
        if self._by_reference and self._reference is not None:
            return self._reference.gradient
        return self._gradient

    @property
    def carried(self) -> dict[str, Array]:
        """Nothing, unless a plan says otherwise; see :class:`~bpcore.training.plans.Plan`."""
        return {}

    def run(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch | None = None,
    ) -> None:
        """Run one step for each row of an index matrix.

        Parameters
        ----------
        problem, index, state, etas, records
            As for :meth:`bpcore.training.reference.ReferencePlan.run`.
        watch : callable, optional
            Sees every quantity of every step as the reference computes it from the same parameters, then loss, W and b
            as they are here; the run goes on from the latter.
        """
        if watch is not None:
            self._run_watched(problem, index, state, etas, records, watch)
        elif self._fits(problem, index):
            self._by_reference = False
            self._run_steps(problem, index, state, etas, records)
        else:
            self._run_reference(problem, index, state, etas, records)  # which says what is wrong, if anything

    @abstractmethod
    def _run_steps(
        self, problem: Problem, index: Array, state: TrainingState, etas: Sequence[float], records: Array
    ) -> None:
        """Run the steps; the problem fits."""

    def _fits(self, problem: Problem, index: Array) -> bool:
        """Whether the problem is what the spec says."""
        return (
            index.shape[1] <= self.spec.batch_size
            and (problem.weights is not None) == self.spec.weighted
            and (problem.labels is not None) == self.spec.classes
        )

    def _run_reference(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch | None = None,
    ) -> None:
        if self._reference is None:
            self._reference = ReferencePlan(self.spec, self.net, self.be, self.seed)
        self._reference.run(problem, index, state, etas, records, watch)
        self._by_reference = True

    def _run_watched(
        self,
        problem: Problem,
        index: Array,
        state: TrainingState,
        etas: Sequence[float],
        records: Array,
        watch: Watch,
    ) -> None:
        """Show each step twice: all of its quantities by the reference, and what came of it here.

        Every step of the reference starts from what the faster steps made, so that rounding cannot lead the two apart,
        and a number that was not finite in a fast run is found again.
        """
        net = self.net
        before = Snapshot(self.be, net.theta, state)
        for k in range(len(index)):
            now = slice(k, k + 1)
            before.take(net.theta, state)
            self._run_reference(problem, index[now], state, etas[now], records[:, now], watch)
            before.put_back(net.theta, state)
            self.run(problem, index[now], state, etas[now], records[:, now])
            watch("loss", 0, records[0, now])
            for l in net.W.layers:
                watch("W", l, net.W[l])
                watch("b", l, net.b[l])
