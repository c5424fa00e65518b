"""A training session: the trainer and everything that watches it, over one call of :func:`bpcore.train`."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.host_data import HostProblem
from bpcore.problem import Problem
from bpcore.random import permutation
from bpcore.store_problem import StoreProblem
from bpcore.training.callbacks import Callback
from bpcore.training.history import History, Row
from bpcore.training.interrupt import Interrupt
from bpcore.training.progress import ProgressBar
from bpcore.training.run import Run
from bpcore.training.step_records import StepRecords
from bpcore.training.stopping import Patience, Progress, StopRule, better
from bpcore.training.trainer import Trainer
from bpcore.training.validation import Validation
from bpcore.typing import Array

__all__ = ["Keep", "Saver", "Session", "diverged"]

Keep = Literal["auto", "last", "best"]


class Saver(Protocol):
    """What writes a session down from time to time."""

    @property
    def every_steps(self) -> int | None:
        """At multiples of how many steps it wants to be asked."""

    def look(self, session: Session, *, epoch_ended: bool = False) -> None:
        """Write the session down if it is time to."""

    def finish(self, session: Session, reason: str) -> None:
        """Write the session down as it has ended."""


class Session:
    """One call of train: the trainer and everything that watches it."""

    def __init__(
        self,
        trainer: Trainer,
        problem: Problem,
        validation: Validation | None,
        rule: StopRule,
        callbacks: list[Callback],
        keep: Keep,
        record_steps: bool,
        record: dict[str, Any],
        fingerprint: dict[str, Any] | None = None,
        saver: Saver | None = None,
    ) -> None:
        self.trainer, self.problem, self.validation = trainer, problem, validation
        self.rule, self.rule_state = rule, rule.initial_state()
        self.callbacks, self.record_steps, self.record = callbacks, record_steps, record
        self.watching = [callback for callback in callbacks if callback.every_steps is not None]
        """Callbacks that look between two steps of an epoch."""
        self.history = History()
        self.begun = time.perf_counter()
        self.error: DivergenceError | None = None
        self.interrupted = False
        patience = [part for part in _parts(rule) if isinstance(part, Patience)]
        self.monitored = patience[0].column if patience else "val_loss" if validation else "loss"
        self.keep_best = keep == "best" or (keep == "auto" and bool(patience))
        self.keep_best_if_interrupted = keep == "auto" and validation is not None
        self.best: tuple[float, int, Array] | None = None
        self.fingerprint, self.saver = fingerprint or {}, saver
        self.parts: list[StepRecords] = []
        """Records of the steps of the epoch that is not over."""
        self.ended_by: Literal["epochs", "rule", "callback", "interrupt"] = "epochs"

    @property
    def watches_best(self) -> bool:
        """Whether the parameters of the best epoch are remembered."""
        return self.keep_best or self.keep_best_if_interrupted

    @property
    def seconds(self) -> float:
        """Time since the start; of a training that was resumed, without the time between."""
        return time.perf_counter() - self.begun

    @property
    def notes(self) -> dict[str, Any]:
        """What the network's ``meta`` is told by a training."""
        return {"loss": self.trainer.loss.name, "threshold": self.problem.threshold}

    def check_columns(self) -> None:
        """Refuse rules that read columns which this run does not have."""
        known = ["loss", "eta", *(["accuracy"] if self.problem.labels is not None else [])]
        if self.validation is not None:
            known += self.validation.columns
        if self.trainer.penalty is not None:
            known.append("penalty")
        for column in self.rule.columns():
            if column not in known:
                hint = "" if self.validation else "; columns that begin with val_ need validation=(X, Y)"
                raise ConfigurationError(
                    f"a stopping rule reads column {column!r}, which this run does not have; "
                    f"it has {', '.join(known)}{hint}"
                )

    def descend(self, epochs: int, shuffle_seed: int | None, verbose: bool | None, reason: str | None = None) -> str:
        """Run epochs until something ends them; return the reason. One that is given has ended them already."""
        trainer, m, B = self.trainer, self.problem.m, self.trainer.batch_size
        per_epoch = -(-m // B)
        limit = self.rule.step_limit()
        total = int(min(epochs * per_epoch, limit))
        limited = trainer.thread_limit(validates=self.validation is not None)
        every = self._stretch_ends()
        with Interrupt() as interrupt, ProgressBar(total, verbose) as bar, limited:
            bar.advance(trainer.state.step)

            def between(records: StepRecords) -> bool:
                nonlocal reason
                self.parts.append(records)
                bar.advance(len(records))
                if interrupt.requested:
                    self.interrupted, self.ended_by, reason = True, "interrupt", "interrupted by Ctrl-C"
                elif reason is None:
                    reason = self.rule.observe(self.rule_state, self._progress())
                    if reason is not None:
                        self.ended_by = "rule"
                if self.watching:
                    reason = self._let_watch(reason)
                if self.saver is not None and reason is None and self.in_epoch < per_epoch:
                    self.saver.look(self)
                return reason is not None

            self.start_callbacks()
            if reason is not None:
                self.ended_by = "rule"
                return self._end(reason)
            for epoch in range(trainer.state.epoch, epochs):
                done = self.in_epoch
                try:
                    with closing(self.steps(epoch, shuffle_seed)) as pieces:
                        for piece in pieces:
                            if reason is not None or trainer.state.step >= limit:
                                break
                            left, done = piece[done:], max(done - len(piece), 0)
                            room = int(min(limit - trainer.state.step, len(left)))
                            if room:
                                trainer.run_steps(self.problem, left[:room], between, every)
                except DivergenceError as error:
                    self.error = error
                    self._record_etas()
                    return diverged(error)
                if self.in_epoch == per_epoch:
                    records, self.parts = StepRecords.join(self.parts), []
                    if self.record_steps:
                        self.history.append_steps(records.loss)
                    self.end_epoch(records)
                    bar.epoch(self.history[-1])
                    reason = self.ask(reason)
                    if self.saver is not None and reason is None:
                        self.saver.look(self, epoch_ended=True)
                if reason is not None:
                    return self._end(reason)
        return self._end(f"reached {epochs} epoch{'s' if epochs > 1 else ''}")

    def start_callbacks(self) -> None:
        """Tell the callbacks what is trained, and that it begins."""
        for callback in self.callbacks:
            callback.on_data(self.trainer, self.problem)
            callback.on_start(self.trainer.net)

    def _stretch_ends(self) -> int | None:
        """At multiples of how many steps somebody wants to look."""
        wanted = [callback.every_steps for callback in self.watching]
        if self.saver is not None:
            wanted.append(self.saver.every_steps)
        steps = [every for every in wanted if every is not None]
        return math.gcd(*steps) if steps else None

    def _let_watch(self, reason: str | None) -> str | None:
        """Let callbacks look between two steps, those whose turn it is."""
        step = self.trainer.state.step
        for callback in self.watching:
            if callback.every_steps is not None and step % callback.every_steps == 0:
                if callback.on_steps(self.trainer.net, self._progress()) is True and reason is None:
                    self.ended_by, reason = "callback", "a callback asked to stop"
        return reason

    @property
    def in_epoch(self) -> int:
        """Steps of the epoch that is not over."""
        return sum(len(part) for part in self.parts)

    def _end(self, reason: str) -> str:
        """Write the session down for the last time; what the history says of an unfinished epoch are its steps."""
        if self.saver is not None:
            self.saver.finish(self, reason)
        if self.record_steps and self.parts:
            self.history.append_steps(StepRecords.join(self.parts).loss)
        self._record_etas()
        return reason

    def _record_etas(self) -> None:
        """Note the learning rate of every step that is recorded: what the schedule says follows from the history."""
        if not self.record_steps:
            return
        schedule = self.trainer.rule.schedule
        etas: list[float] = []
        state: Any = schedule.initial_state()
        for row in self.history:
            etas += [schedule.at(step, int(row["epoch"]) - 1, state) for step in range(len(etas), int(row["step"]))]
            state = schedule.observe(state, row.get("val_loss", row["loss"]))
        steps = len(self.history.steps)
        etas += [schedule.at(step, len(self.history), state) for step in range(len(etas), steps)]
        self.history.etas = np.array(etas[:steps])

    def steps(self, epoch: int, seed: int | None) -> Generator[Array, None, None]:
        """Yield the sample numbers of the steps of an epoch, one step a row; without a seed all in their order.

        Data on a disk has an order of its own. Of other data the steps are those of one shuffle: the full ones, and the
        short one that is left.
        """
        trainer, m, B = self.trainer, self.problem.m, self.trainer.batch_size
        if isinstance(self.problem, StoreProblem):
            yield from self.problem.steps(B, epoch, seed)
            return
        if isinstance(self.problem, HostProblem):
            draw = trainer.be.random_bits if trainer.be.device == "cpu" else None
            order = np.arange(m) if seed is None else permutation(m, seed=seed, epoch=epoch, draw=draw)
        elif seed is None:
            order = trainer.be.asarray(np.arange(m))
        else:
            order = trainer.be.permutation(m, seed=seed, epoch=epoch)
        whole = m // B * B
        for piece in (order[:whole].reshape(m // B, B), order[whole:].reshape(1, m - whole)):
            if piece.size:
                yield piece

    def end_epoch(self, records: StepRecords) -> None:
        """Write the row of an epoch and remember the parameters if they are the best."""
        trainer, state = self.trainer, self.trainer.state
        schedule = trainer.rule.schedule
        row: Row = {"epoch": state.epoch + 1, "step": state.step, "loss": records.mean_loss}
        if self.problem.labels is not None:
            row["accuracy"] = records.accuracy
        if trainer.penalty is not None:
            row["penalty"] = trainer.penalty_value()
        if self.validation is not None:
            row.update(self.validation.measure())
        row["eta"] = schedule.at(max(state.step - 1, 0), state.epoch, state.schedule)
        row["seconds"] = self.seconds
        state.schedule = schedule.observe(state.schedule, row.get("val_loss", row["loss"]))
        state.epoch += 1
        self.history.append(row)
        if self.watches_best and better(
            self.monitored, row[self.monitored], None if self.best is None else self.best[0]
        ):
            theta = trainer.be.empty(trainer.net.theta.size, trainer.net.dtype) if self.best is None else self.best[2]
            self.best = row[self.monitored], state.epoch, trainer.be.copy(trainer.net.theta, out=theta)

    def ask(self, reason: str | None, norm: float | None = None) -> str | None:
        """Ask the rules and the callbacks at the end of an epoch; the norm is that of the plan unless it is given."""
        if norm is None and self.rule.needs_gradient_norm:
            norm = self.trainer.gradient_norm()
        progress = self._progress(norm)
        fired = self.rule.observe(self.rule_state, progress)
        stops = [callback.on_epoch(self.trainer.net, progress) for callback in self.callbacks]
        asked = "a callback asked to stop" if any(stop is True for stop in stops) else None
        if reason is None and (fired or asked):
            self.ended_by = "rule" if fired else "callback"
        return reason or fired or asked

    def _progress(self, norm: float | None = None) -> Progress:
        state = self.trainer.state
        progress = Progress(state.step, state.epoch, self.seconds)
        if norm is not None or self._epoch_just_ended():
            previous = self.history[-2] if len(self.history) > 1 else None
            progress = replace(progress, row=self.history[-1], previous=previous, gradient_norm=norm)
        return progress

    def _epoch_just_ended(self) -> bool:
        return bool(len(self.history)) and self.history[-1]["step"] == self.trainer.state.step

    def conclude(self, reason: str, on_divergence: str) -> Run:
        """Put the right parameters into the network and build the result."""
        net, seconds, kept = self.trainer.net, self.seconds, "last"
        if self.best is not None and (self.keep_best or (self.interrupted and self.keep_best_if_interrupted)):
            self.trainer.be.copy(self.best[2], out=net.theta)
            kept = "best"
        run = Run(
            net,
            self.history,
            reason,
            self.record,
            self.trainer.state.step,
            seconds,
            None if self.best is None else self.best[1],
            kept,
        )
        self.record["seconds"] = seconds
        self.record["stopped_because"] = reason
        if self.trainer.plan_name:  # a device whose memory ended may have changed it
            self.record |= {"plan": self.trainer.plan_name, "plan_why": self.trainer.plan_why}
        if self.trainer.loss_scaling is not None:
            self.record["loss_scaling"] = self.trainer.loss_scaling
        net.meta |= self.notes
        if self.error is not None and on_divergence == "raise":
            self.error.run = run
            raise self.error
        for callback in self.callbacks:
            callback.on_end(run)
        return run


def _parts(rule: StopRule) -> list[StopRule]:
    inner = getattr(rule, "rules", ())
    return [rule, *(part for child in inner for part in _parts(child))]


def diverged(error: DivergenceError) -> str:
    """Shorten a divergence to the reason of an end: its first clause."""
    return "diverged: " + str(error).split(" (")[0].split(". ")[0]
