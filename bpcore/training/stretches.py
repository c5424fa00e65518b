"""Steps in stretches of about 0.2 s, each begun from a copy of parameters and state.

So numbers that are not finite are found without slowing the steps: only a stretch that goes wrong is run again from the
copy, step by step, with every quantity looked at. Random numbers are keyed by the step, so the second run is the first
one exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.feeder import Feeder
from bpcore.functions.update_rule import UpdateRule
from bpcore.host_data import HostProblem
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.divergence import first_bad
from bpcore.training.memory import LONGEST_STRETCH, refusing
from bpcore.training.placement import expected
from bpcore.training.planner import Planner
from bpcore.training.state import Snapshot, TrainingState
from bpcore.training.step_records import StepRecords
from bpcore.typing import Array

__all__ = ["Stretches"]

STRETCH_SECONDS, LONGEST_STRETCH_SECONDS = 0.2, 1.0
"""How long a stretch of steps should take: short enough for Ctrl-C and the progress bar. Longer where a copy of the
parameters takes long."""
COPIES_PER_STRETCH = 50
"""As many such copies as a stretch should last: what copying costs is then two percent."""


class Stretches:
    """Runs the steps of one trainer.

    Parameters
    ----------
    net : MLP
        The network, trained in place.
    be : Backend
        Where its parameters are.
    rule : UpdateRule
        How they move.
    state : TrainingState
        Goes on with every step.
    planner : Planner
        Has the plan that carries the steps out.
    """

    def __init__(self, net: MLP, be: Backend, rule: UpdateRule, state: TrainingState, planner: Planner) -> None:
        self._net, self._be, self._rule, self.state, self._planner = net, be, rule, state, planner
        self._snapshot: Snapshot | None = Snapshot(be, net.theta, state)
        self._feeder: Feeder | None = None
        self._fed: Array = None
        """Numbers of the rows that the feeder brings, on the device."""
        self._length = 8
        self._sums = be.empty((3, 0), np.float64)

    def run(
        self, problem: Problem, index: Array, between: Callable[[StepRecords], bool] | None, every: int | None
    ) -> StepRecords:
        """Run one step for each row of an index matrix; see :meth:`bpcore.Trainer.run_steps`."""
        parts: list[StepRecords] = []
        feeder = self._feeder_of(problem, index.shape[1])
        self._planner.bring_back()
        if self._snapshot is None:
            with self._refusing("a snapshot of the parameters"):
                self._snapshot = Snapshot(self._be, self._net.theta, self.state)
        snapshot = self._snapshot
        start, count = 0, self._steps_at_once(feeder, index, every)
        while start < len(index):
            rows = index[start : start + count]
            # what is sent ahead cannot be cut otherwise afterwards
            following = self._steps_at_once(feeder, index, every, len(rows))
            begun = time.perf_counter()
            snapshot.take(self._net.theta, self.state, self._planner.carried)
            copied = time.perf_counter()
            start += len(rows)
            try:
                parts.append(self._run_stretch(snapshot, problem, rows, feeder, index[start : start + following]))
            except BaseException:  # Ctrl-C included: parameters and state are of one step, that of the copy
                with suppress(Exception):  # of a device that is lost: what ended the stretch says more
                    self._put_back(snapshot)
                with self._refusing("a stretch of steps"):
                    raise
            elapsed = time.perf_counter() - copied
            seconds = min(max(STRETCH_SECONDS, COPIES_PER_STRETCH * (copied - begun)), LONGEST_STRETCH_SECONDS)
            wanted = len(rows) * seconds / max(elapsed, 1e-9)
            self._length = int(min(max(wanted, 1), 2 * self._length, LONGEST_STRETCH))
            count = self._steps_at_once(feeder, index, every) if feeder is None else following
            if between is not None:
                if between(parts[-1]):
                    break
                self._planner.bring_back()
        return StepRecords.join(parts)

    def release(self) -> None:
        """Give up all memory; it is taken again when steps follow."""
        self._drop_feeder()
        self._snapshot = None
        self._sums = self._be.empty((3, 0), np.float64)

    def _refusing(self, what: str) -> AbstractContextManager[None]:
        return refusing(self._be, what, expected(self._planner.placement))

    def _put_back(self, snapshot: Snapshot) -> None:
        snapshot.put_back(self._net.theta, self.state, self._planner.carried)

    def _steps_at_once(self, feeder: Feeder | None, index: Array, every: int | None, ahead: int = 0) -> int:
        """Length of the next stretch, or of the one that begins `ahead` steps later; it never changes a result."""
        steps = self._length if feeder is None else min(self._length, feeder.rows // int(index.shape[1]))
        return steps if every is None else min(steps, every - (self.state.step + ahead) % every)

    def _run_stretch(
        self, snapshot: Snapshot, problem: Problem, rows: Array, feeder: Feeder | None, following: Array
    ) -> StepRecords:
        be, state, first = self._be, self.state, self.state.step
        steps, m = rows.shape
        schedule = self._rule.schedule
        etas = [schedule.at(step, state.epoch, state.schedule) for step in range(first, first + steps)]
        if self._sums.shape[1] < steps:
            self._sums = be.empty((3, steps), np.float64)
        sums = be.fill(self._sums[:, :steps], 0.0)
        if feeder is None:
            index = be.asarray(rows)
        else:
            problem, index = feeder.take(rows), self._fed[: steps * m].reshape(steps, m)
        self._queue(snapshot, problem, index, etas, sums)
        if feeder is not None and len(following):
            feeder.send(following)  # while the device computes
        table = np.array(be.to_numpy(sums))
        if not (np.isfinite(table[0]).all() and be.all_finite(self._net.theta)):
            self._put_back(snapshot)
            raise first_bad(be, self._net, self._planner.current, state, snapshot, problem, index, etas, sums)
        return StepRecords(table)

    def _queue(self, snapshot: Snapshot, problem: Problem, index: Array, etas: list[float], sums: Array) -> None:
        """Run the plan; where the device has no memory for it, one that needs less, from the snapshot on."""
        while True:
            try:
                self._planner.current.run(problem, index, self.state, etas, sums)
                return
            except Exception as error:
                if not self._be.is_out_of_memory(error):
                    raise
                message = str(error)
            # the error is gone, and with it what its frames held
            self._put_back(snapshot)
            self._planner.shrink(message)
            self._be.fill(sums, 0.0)

    # ---------------------------------------------------------------- data on the host

    def _feeder_of(self, problem: Problem, m: int) -> Feeder | None:
        """What brings the rows of a problem on the host to the device; None for one that is there."""
        if not isinstance(problem, HostProblem):
            return None
        if self._feeder is None or self._feeder.problem is not problem or self._feeder.rows < m:
            self._drop_feeder()
            placement = self._planner.placement
            rows = max(m, 1 if placement is None else placement.stage_rows)
            with self._refusing("two buffers of data"):
                feeder = Feeder(self._be, problem, rows)
                self._fed = self._be.asarray(np.arange(rows))
            self._feeder = feeder  # when nothing is missing any more
        return self._feeder

    def _drop_feeder(self) -> None:
        feeder = self._feeder
        self._feeder = self._fed = None
        if feeder is not None:
            feeder.close()
