"""Training: the loop over epochs around the trainer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from bpcore.backends import selection
from bpcore.backends.contract import Backend
from bpcore.errors import ConfigurationError, DivergenceError, unknown
from bpcore.evaluation import Evaluator
from bpcore.functions.clipping import Clipping
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.random import permutation
from bpcore.training.callbacks import Callback, CallbackLike, as_callback
from bpcore.training.history import History, Row
from bpcore.training.interrupt import Interrupt
from bpcore.training.progress import ProgressBar
from bpcore.training.record import make_record
from bpcore.training.run import Run
from bpcore.training.spec import Dropout
from bpcore.training.stopping import Patience, Progress, StopRule, as_rule, better
from bpcore.training.trainer import StepRecords, Trainer
from bpcore.typing import Array

__all__ = ["train"]

Keep = Literal["auto", "last", "best"]


def train(
    net: MLP,
    X: Any,
    Y: Any,
    *,
    loss: str | Loss | None = None,
    optimizer: str | UpdateRule | ScipyMinimize | None = None,
    batch_size: int | Literal["full"] = 64,
    epochs: int = 10,
    validation: tuple[Any, Any] | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    dropout: float | Sequence[float] | Dropout | None = None,
    penalty: Penalty | Sequence[Penalty] | None = None,
    clip: Clipping | None = None,
    stop: StopRule | Iterable[StopRule] | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    keep: Keep = "auto",
    on_divergence: Literal["raise", "stop"] = "raise",
    callbacks: Iterable[CallbackLike] = (),
    record_steps: bool = False,
    allow_one_class: bool = False,
    backend: str | Backend | None = None,
    threads: int | None = None,
    plan: str = "auto",
    verbose: bool | None = None,
) -> Run:
    """Train a network by gradient descent.

    Parameters
    ----------
    net : MLP
        The network, trained in place.
    X : array_like, shape (n, n_1)
        Inputs, one sample a row.
    Y : array_like, shape (n,) or (n, n_L)
        Labels (integers from 0) or target values; see :mod:`bpcore.data.targets`.
    loss : str or Loss, optional
        What is minimised; by default the loss that goes with the output activation.
    optimizer : str, UpdateRule or ScipyMinimize, optional
        How parameters move. Default ``bp.SGD(0.1)``. A :class:`ScipyMinimize` (``bp.LBFGS()``) works on all samples
        at once; ``epochs`` then limits its iterations.
    batch_size : int or ``"full"``
        Samples a step: 1 for stochastic descent, ``"full"`` for full-batch descent. The last step of an epoch takes
        what is left. Default 64.
    epochs : int
        Largest number of passes over the data. Default 10.
    validation : (X, Y), optional
        Data that is measured after every epoch.
    sample_weight : array_like, shape (n,), optional
        Weight of each sample in the mean; 2 counts like the row twice, 0 like the row absent.
    class_weight : mapping of class to float, or ``"balanced"``, optional
        Weight of each class, times the sample weight.
    dropout : float, sequence of float or Dropout, optional
        Rate on the hidden layers.
    penalty : Penalty or sequence of Penalty, optional
        Price of the weights, such as ``bp.L2(1e-4)``.
    clip : Clipping, optional
        Such as ``bp.ClipNorm(1.0)``.
    stop : StopRule or sequence of StopRule, optional
        When to stop before ``epochs`` are over; the first rule that fires counts.
    shuffle : bool
        Whether every epoch visits the samples in a fresh order. Default True.
    seed : int, optional
        Seed of shuffles and dropout masks. Default ``BPCORE_SEED``, else drawn afresh; see the record.
    keep : ``"auto"``, ``"last"`` or ``"best"``
        Which parameters the network has in the end: the last, or those of the best epoch of the monitored column
        (that of the first :class:`Patience`, else ``val_loss``, else ``loss``). ``"auto"`` keeps the best when there
        is a :class:`Patience`, or when training with validation data is interrupted; else the last.
    on_divergence : ``"raise"`` or ``"stop"``
        What to do at the first number that is not finite. The last good parameters are kept in both cases.
    callbacks : iterable of Callback or function
        Run after every epoch as ``f(net, progress)``; a function that returns True ends the training.
    record_steps : bool
        Whether ``history.steps`` holds the loss of every step. Default False.
    allow_one_class : bool
        Whether a classifier may be trained on one class only.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.
    threads : int, optional
        Limit on the threads of matrix products.
    plan : str
        ``"auto"`` or the name of a plan.
    verbose : bool, optional
        Whether to show a progress bar; by default when standard error is a terminal.

    Returns
    -------
    Run
        History, reason of the end, and the record.

    Raises
    ------
    ShapeError, DataError, ConfigurationError, UnknownNameError
        If something does not fit; the network is unchanged.
    DivergenceError
        If a number is not finite, unless ``on_divergence="stop"``; its ``run`` attribute holds the history.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> net = bp.MLP([1, 16, 1], activation="tanh", output="identity", seed=0)
    >>> run = bp.train(net, X, X**2, optimizer=bp.Adam(0.01), batch_size=16, epochs=200, seed=0)
    >>> run.stopped_because, bool(run.history[-1]["loss"] < 1e-3)
    ('reached 200 epochs', True)
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 1:
        raise ConfigurationError(f"epochs is {epochs!r}; it must be a whole number of at least 1")
    if keep not in ("auto", "last", "best"):
        raise unknown("value for keep", keep, ["auto", "last", "best"])
    if on_divergence not in ("raise", "stop"):
        raise unknown("value for on_divergence", on_divergence, ["raise", "stop"])
    chosen_by = selection() if backend is None else None
    full_batch = isinstance(optimizer, ScipyMinimize)
    full = batch_size == "full" or full_batch
    n = _length(X)
    trainer = Trainer(
        net,
        loss,
        None if isinstance(optimizer, ScipyMinimize) else optimizer,
        batch_size=n if full else min(int(batch_size), n) if _is_whole(batch_size) else batch_size,  # type: ignore[arg-type]
        dropout=dropout,
        penalty=penalty,
        clip=clip,
        seed=seed,
        backend=backend,
        threads=threads,
        plan=plan,
    )
    problem = Problem.prepare(
        net, trainer.be, X, Y, trainer.loss, sample_weight=sample_weight, class_weight=class_weight
    )
    if not allow_one_class:
        problem.check_one_class(trainer.be)
    evaluator = None
    if validation is not None:
        held_out = Problem.prepare(
            net, trainer.be, *_pair(validation), trainer.loss, names=("validation X", "validation Y")
        )
        evaluator = Evaluator(net, trainer.be, trainer.loss, held_out)
    spec = trainer.prepare(problem)
    record = make_record(
        net,
        trainer.be,
        spec,
        seed=trainer.seed,
        plan=trainer.plan_name,
        plan_why=trainer.plan_why,
        backend_why=_why(net, trainer.be, backend, chosen_by),
        threads=trainer.threads,
        n_samples=problem.m,
        n_validation=0 if evaluator is None else evaluator.problem.m,
    )
    session = _Session(
        trainer, problem, evaluator, as_rule(stop), [as_callback(c) for c in callbacks], keep, record_steps, record
    )
    session.check_columns()
    if isinstance(optimizer, ScipyMinimize):
        from bpcore.training.full_batch import minimize

        spec_record = record["spec"]
        spec_record["optimizer"] = {"name": optimizer.method, **optimizer.keywords()}
        return session.conclude(minimize(session, optimizer, epochs, verbose), on_divergence)
    order = None if full or not shuffle else trainer.seed
    return session.conclude(session.descend(epochs, order, verbose), on_divergence)


class _Session:
    """One call of train: the trainer and everything that watches it."""

    def __init__(
        self,
        trainer: Trainer,
        problem: Problem,
        evaluator: Evaluator | None,
        rule: StopRule,
        callbacks: list[Callback],
        keep: Keep,
        record_steps: bool,
        record: dict[str, Any],
    ) -> None:
        self.trainer, self.problem, self.evaluator = trainer, problem, evaluator
        self.rule, self.rule_state = rule, rule.initial_state()
        self.callbacks, self.record_steps, self.record = callbacks, record_steps, record
        self.history = History()
        self.begun = time.perf_counter()
        self.error: DivergenceError | None = None
        self.interrupted = False
        patience = [part for part in _parts(rule) if isinstance(part, Patience)]
        self.monitored = patience[0].column if patience else "val_loss" if evaluator else "loss"
        self.keep_best = keep == "best" or (keep == "auto" and bool(patience))
        self.keep_best_if_interrupted = keep == "auto" and evaluator is not None
        self.best: tuple[float, int, Array] | None = None

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.begun

    def check_columns(self) -> None:
        """Refuse rules that read columns which this run does not have."""
        known = ["loss", "eta", *(["accuracy"] if self.problem.labels is not None else [])]
        if self.evaluator is not None:
            metrics = ["accuracy"] if self.evaluator.problem.labels is not None else ["rmse", "r2"]
            known += ["val_loss", *(f"val_{metric}" for metric in metrics)]
        if self.trainer.penalty is not None:
            known.append("penalty")
        for column in self.rule.columns() if hasattr(self.rule, "columns") else ():
            if column not in known:
                hint = "" if self.evaluator else "; columns that begin with val_ need validation=(X, Y)"
                raise ConfigurationError(
                    f"a stopping rule reads column {column!r}, which this run does not have; "
                    f"it has {', '.join(known)}{hint}"
                )

    def descend(self, epochs: int, shuffle_seed: int | None, verbose: bool | None) -> str:
        """Run epochs until something ends them; return the reason."""
        trainer, m, B = self.trainer, self.problem.m, self.trainer.batch_size
        per_epoch = -(-m // B)
        limit = self.rule.step_limit()
        total = int(min(epochs * per_epoch, limit))
        with Interrupt() as interrupt, ProgressBar(total, verbose) as bar, trainer.thread_limit():
            reason: str | None = None

            def between(records: StepRecords) -> bool:
                nonlocal reason
                bar.advance(len(records))
                if interrupt.requested:
                    self.interrupted, reason = True, "interrupted by Ctrl-C"
                elif reason is None:
                    reason = self.rule.observe(self.rule_state, self._progress())
                return reason is not None

            for callback in self.callbacks:
                callback.on_start(trainer.net)
            for epoch in range(epochs):
                order = np.arange(m) if shuffle_seed is None else permutation(m, seed=shuffle_seed, epoch=epoch)
                whole = m // B * B
                pieces = [order[:whole].reshape(-1, B), order[whole:].reshape(1, -1)]
                parts = []
                try:
                    for piece in pieces:
                        room = int(min(limit - trainer.state.step, len(piece)))
                        if reason is None and piece.size and room > 0:
                            parts.append(trainer.run_steps(self.problem, piece[:room], between))
                except DivergenceError as error:
                    self.error = error
                    return f"diverged at {str(error).split(' (')[0]}"
                records = StepRecords.join(parts)
                if self.record_steps:
                    self.history.append_steps(records.loss)
                finished = sum(len(part) for part in parts) == per_epoch
                if finished:
                    self.end_epoch(records)
                    bar.epoch(self.history[-1])
                    reason = self.ask(reason)
                if reason is not None:
                    return reason
        return f"reached {epochs} epoch{'s' if epochs > 1 else ''}"

    def end_epoch(self, records: StepRecords) -> None:
        """Write the row of an epoch and remember the parameters if they are the best."""
        trainer, state = self.trainer, self.trainer.state
        schedule = trainer.rule.schedule
        row: Row = {"epoch": state.epoch + 1, "step": state.step, "loss": records.mean_loss}
        if self.problem.labels is not None:
            row["accuracy"] = records.accuracy
        if trainer.penalty is not None:
            row["penalty"] = trainer.penalty_value()
        if self.evaluator is not None:
            row.update({f"val_{name}": value for name, value in self.evaluator.measure().items()})
        row["eta"] = schedule.at(max(state.step - 1, 0), state.epoch, state.schedule)
        row["seconds"] = self.seconds
        state.schedule = schedule.observe(state.schedule, row.get("val_loss", row["loss"]))
        state.epoch += 1
        self.history.append(row)
        if (self.keep_best or self.keep_best_if_interrupted) and better(
            self.monitored, row[self.monitored], None if self.best is None else self.best[0]
        ):
            theta = trainer.be.empty(trainer.net.theta.size, trainer.net.dtype) if self.best is None else self.best[2]
            self.best = row[self.monitored], state.epoch, trainer.be.copy(trainer.net.theta, out=theta)

    def ask(self, reason: str | None) -> str | None:
        """Ask the rules and the callbacks at the end of an epoch."""
        norm = self.trainer.gradient_norm() if self.rule.needs_gradient_norm else None
        progress = self._progress(norm)
        fired = self.rule.observe(self.rule_state, progress)
        stops = [callback.on_epoch(self.trainer.net, progress) for callback in self.callbacks]
        return reason or fired or ("a callback asked to stop" if any(stop is True for stop in stops) else None)

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
        net.meta["loss"] = self.trainer.loss.name
        if self.error is not None and on_divergence == "raise":
            self.error.run = run
            raise self.error
        for callback in self.callbacks:
            callback.on_end(run)
        return run


def _parts(rule: StopRule) -> list[StopRule]:
    inner = getattr(rule, "rules", ())
    return [rule, *(part for child in inner for part in _parts(child))]


def _length(X: Any) -> int:
    try:
        return max(len(X), 1)
    except TypeError:
        return 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _pair(validation: Any) -> tuple[Any, Any]:
    try:
        X, Y = validation
    except (TypeError, ValueError):
        raise ConfigurationError("validation must be a pair (X, Y)") from None
    return X, Y


def _why(net: MLP, be: Backend, backend: Any, chosen_by: Any) -> str:
    if backend is not None:
        return "argument backend="
    if chosen_by is None or chosen_by.name != be.name:
        return "held by the network"
    return f"{chosen_by.source}: {chosen_by.why}"
