"""Steps of gradient descent whose L2 term is scikit-learn's, and the memory of the optimiser between calls.

scikit-learn adds ``alpha / 2 * sum(w**2)`` to the *sum* of the losses of a batch and divides by the weight of the
batch: a batch of m samples has the penalty ``bp.L2(alpha / m)``, and the short batch at the end of an epoch a larger
one. That step is therefore run by a second trainer on the same network, with the same optimiser state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bpcore.functions.losses import Loss
from bpcore.functions.penalties import L2, Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.host_data import HostProblem
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.step_records import StepRecords
from bpcore.training.trainer import Trainer
from bpcore.typing import IntArray, NDArray

__all__ = ["Memory", "Steps", "ridge", "strength"]


@dataclass(frozen=True)
class Memory:
    """State of an optimiser on the host: what is pickled, and what a later partial_fit goes on from."""

    rule: str
    step: int
    epoch: int
    arrays: dict[str, NDArray[Any]]
    running: dict[str, float]
    schedule: dict[str, float | int | None]


def strength(alpha: float, m: int, mean_weight: float) -> float:
    """Return the L2 strength of a batch of m samples of a mean weight.

    Examples
    --------
    >>> strength(0.1, 200, 1.0)
    0.0005
    """
    return float(alpha / (m * mean_weight))


@lru_cache(maxsize=32)
def ridge(lam: float) -> Penalty | None:
    """Return the L2 penalty of a strength; None for 0."""
    return L2(lam) if lam else None


class Steps:
    """Runs the batches of epochs on one network.

    Parameters
    ----------
    net : MLP
        The network, trained in place.
    loss : Loss
        What is minimised, besides the penalty.
    rule : UpdateRule
        How.
    batch : int
        Samples of a step.
    alpha : float
        scikit-learn's strength of the L2 term.
    mean_weight : float
        Mean of the sample weights, 1 without them. Batches are taken to have it.
    **settings
        Of both trainers: dropout, clip, seed, threads, backend.

    Attributes
    ----------
    main : Trainer
        Of the whole batches; it loads the data and holds the state.
    """

    def __init__(
        self, net: MLP, loss: Loss, rule: UpdateRule, batch: int, alpha: float, mean_weight: float, **settings: Any
    ) -> None:
        self.described = (net, loss, rule, batch, alpha, mean_weight)
        self.net, self.loss, self.rule, self.batch = net, loss, rule, batch
        self.alpha, self.mean_weight, self.settings = alpha, mean_weight, settings
        self.main = self._trainer(batch)
        self._tail: Trainer | None = None

    def _trainer(self, m: int) -> Trainer:
        lam = strength(self.alpha, m, self.mean_weight)
        return Trainer(self.net, self.loss, self.rule, batch_size=m, penalty=ridge(lam), **self.settings)

    def epoch(
        self, problem: Problem, order: IntArray, between: Callable[[StepRecords], bool]
    ) -> tuple[list[StepRecords], bool]:
        """Run the batches of one epoch.

        Parameters
        ----------
        problem : Problem
            The data, loaded by :attr:`main`.
        order : ndarray of int64, shape (n,)
            The samples in the order of the epoch.
        between : callable
            As for :meth:`bpcore.Trainer.run_steps`; True ends the epoch.

        Returns
        -------
        records : list of StepRecords
            Of the whole batches, and of the short one.
        finished : bool
            Whether all samples were seen.
        """
        whole = len(order) // self.batch
        rest = order[whole * self.batch :].reshape(1, -1)
        parts = []
        if whole:
            parts.append(self.main.run_steps(problem, order[: whole * self.batch].reshape(whole, -1), between))
        finished = sum(map(len, parts)) == whole
        if rest.size and finished:
            trainer = self._for_rest(problem, rest.shape[1])
            parts.append(trainer.run_steps(problem, rest, between))
        return parts, finished

    def _for_rest(self, problem: Problem, m: int) -> Trainer:
        streamed = isinstance(problem, HostProblem) or (
            self.main.placement is not None and self.main.placement.rows is not None
        )
        if self.alpha == 0 or streamed:  # a second pair of buffers would not have been counted
            return self.main
        if self._tail is None or self._tail.batch_size != m:
            self._tail = self._trainer(m)
            self._tail.state = self.main.state
            self._tail.prepare(problem)
        return self._tail

    def remember(self) -> Memory:
        """Copy the state of the optimiser to the host."""
        state, be = self.main.state, self.main.be
        arrays = {name: np.array(be.to_numpy(array)) for name, array in state.arrays.items()}
        return Memory(self.rule.name, state.step, state.epoch, arrays, dict(state.running), dict(state.schedule))

    def go_on(self, memory: Memory) -> None:
        """Take up a state; that of another rule is left alone."""
        state, be = self.main.state, self.main.be
        if memory.rule != self.rule.name:
            return
        for name, array in memory.arrays.items():
            be.copy(be.asarray(array), out=state.arrays[name])
        state.step, state.epoch = memory.step, memory.epoch
        state.running = dict(memory.running)
        if set(memory.schedule) == set(state.schedule):
            state.schedule = dict(memory.schedule)

    def release(self) -> None:
        """Give up the memory of both trainers, and the state."""
        for trainer in (self._tail, self.main):
            if trainer is not None:
                trainer.release(state=True)
        self._tail = None
