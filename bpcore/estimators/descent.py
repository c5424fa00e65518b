"""The epochs of a fit: batches, learning rate and stopping as scikit-learn's stochastic solvers have them.

What is counted goes on in the estimator from call to call (warm_start, partial_fit): ``t_``, ``loss_curve_``,
``best_loss_``, ``validation_scores_``, and the number of epochs without improvement.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bpcore.errors import DivergenceError
from bpcore.estimators.rules import Steered
from bpcore.estimators.steps import Steps
from bpcore.training.interrupt import Interrupt
from bpcore.training.session import Session, diverged
from bpcore.training.step_records import StepRecords
from bpcore.typing import Array

__all__ = ["Descent"]

SMALLEST_RATE = 1e-6
"""Below it an adaptive learning rate is not reduced any more: the training ends."""


class Descent:
    """The epochs of one fit, or the one of a partial_fit.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Has the parameters, gets the curves.
    session : Session
        Data, validation, callbacks and history.
    steps : Steps
        Runs the batches.
    rng : RandomState
        Of the shuffles.
    outputs : int
        What the loss is divided by when it is reported: scikit-learn's squared error is a mean over the outputs,
        although its gradient is that of the sum.
    incremental : bool
        Whether this is a partial_fit: one epoch, and no warning.
    """

    def __init__(
        self,
        estimator: Any,
        session: Session,
        steps: Steps,
        rng: np.random.RandomState,
        outputs: int,
        incremental: bool,
    ) -> None:
        self.est, self.session, self.steps, self.rng = estimator, session, steps, rng
        self.outputs, self.incremental = outputs, incremental
        self.stops_by_score = bool(estimator.early_stopping) and not incremental
        self.penalty = steps.main.penalty_value()
        self.best_theta: Array | None = None

    def run(self) -> str:
        """Run epochs until something ends them; return the reason."""
        est, session, trainer = self.est, self.session, self.steps.main
        epochs = 1 if self.incremental else int(est.max_iter)
        est.n_iter_ = 0
        order = np.arange(session.problem.m)
        if self.stops_by_score:
            self._keep_best()
        session.start_callbacks()
        with Interrupt() as interrupt, trainer.thread_limit(validates=session.validation is not None):
            reason: str | None = None

            def between(records: StepRecords) -> bool:
                nonlocal reason
                if interrupt.requested:
                    session.interrupted, reason = True, "interrupted by Ctrl-C"
                    warnings.warn("Training interrupted by user.", stacklevel=2)
                elif est.time_limit is not None and session.seconds >= est.time_limit:
                    reason = f"{est.time_limit:g} s have passed"
                return reason is not None

            while reason is None:
                if est.shuffle:
                    drawn = np.arange(len(order))
                    self.rng.shuffle(drawn)
                    order = order[drawn]
                try:
                    parts, finished = self.steps.epoch(session.problem, order, between)
                except DivergenceError as error:
                    session.error, reason = error, diverged(error)
                    if self.stops_by_score:
                        est.validation_scores_.append(float("nan"))
                    break
                self._account(StepRecords.join(parts), finished)
                if finished:
                    reason = self._after_epoch(reason)
                    reason = session.ask(reason)
                if reason is None and est.n_iter_ == epochs:
                    reason = f"reached {epochs} epochs"
                    self._warn(epochs)
        if self.stops_by_score and self.best_theta is not None:
            trainer.be.copy(self.best_theta, out=trainer.net.theta)
        return reason

    def _account(self, records: StepRecords, finished: bool) -> None:
        """Count an epoch and its loss; of one that was cut short only the loss, if there is no other."""
        est, session, steps = self.est, self.session, self.steps
        n, count = session.problem.m, len(records)
        sizes = np.full(count, min(steps.batch, n))
        if finished and n % steps.batch:
            sizes[-1] = n % steps.batch
        seen = int(sizes.sum())
        loss = float((records.loss * sizes).sum() / seen) / self.outputs
        if not finished:
            if not est.loss_curve_:
                est.loss_ = loss
            return
        session.end_epoch(records)
        before, self.penalty = self.penalty, float(session.history[-1].get("penalty", 0.0))
        # alpha / 2 * sum(w**2) / m, at the weights before each step: those between are taken from a straight line
        mean = before + (self.penalty - before) * (count - 1) / (2 * count)
        est.loss_ = loss + mean * steps.batch * count / n
        est.n_iter_ += 1
        est.t_ += n
        est.loss_curve_.append(est.loss_)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        row = session.history[-1]
        if "val_loss" in row:
            est.validation_loss_curve_.append(row["val_loss"] / self.outputs)
            if est.validation_scores_ is not None:
                est.validation_scores_.append(row["val_score"])
                if est.verbose:
                    print(f"Validation score: {row['val_score']:f}")

    def _after_epoch(self, reason: str | None) -> str | None:
        """Count epochs without improvement, set the learning rate, and say whether to stop."""
        est, trainer = self.est, self.steps.main
        if self.stops_by_score:
            score = est.validation_scores_[-1]
            worse = score < est.best_validation_score_ + est.tol
            if score > est.best_validation_score_:
                est.best_validation_score_ = score
                self._keep_best()
        else:
            worse = est.loss_ > est.best_loss_ - est.tol
            est.best_loss_ = min(est.best_loss_, est.loss_)
        est._no_improvement_count = est._no_improvement_count + 1 if worse else 0
        steered = isinstance(self.steps.rule.schedule, Steered)
        if steered and est.learning_rate == "invscaling":
            trainer.state.schedule = {"eta": float(est.learning_rate_init) / (est.t_ + 1) ** float(est.power_t)}
        if est._no_improvement_count <= est.n_iter_no_change:
            return reason
        what = "Validation score" if self.stops_by_score else "Training loss"
        said = f"{what} did not improve more than tol={est.tol:f} for {est.n_iter_no_change} consecutive epochs."
        if steered and est.learning_rate == "adaptive":
            rate = float(trainer.state.schedule["eta"] or 0.0)
            if rate > SMALLEST_RATE:
                est._no_improvement_count = 0
                trainer.state.schedule = {"eta": rate / 5}
                self._say(f"{said} Setting learning rate to {rate / 5:f}")
                return reason
            said = f"{said} Learning rate too small."
        self._say(f"{said} Stopping.")
        return reason or said

    def _keep_best(self) -> None:
        trainer = self.steps.main
        if self.best_theta is None:
            self.best_theta = trainer.be.empty(trainer.net.theta.size, trainer.net.dtype)
        trainer.be.copy(trainer.net.theta, out=self.best_theta)

    def _say(self, text: str) -> None:
        if self.est.verbose:
            print(text)

    def _warn(self, epochs: int) -> None:
        if not self.incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the optimization hasn't converged "
                "yet.",
                ConvergenceWarning,
                stacklevel=2,
            )
