"""One training of an estimator: the session of :func:`bpcore.train` around scikit-learn's loop, or L-BFGS."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bpcore.errors import DivergenceError
from bpcore.estimators.descent import Descent
from bpcore.estimators.held_out import HeldOut
from bpcore.estimators.steps import Steps, ridge, strength
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.losses import Loss
from bpcore.functions.update_rule import UpdateRule
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.announcement import announced_compiling
from bpcore.training.callbacks import as_callback
from bpcore.training.full_batch import minimize
from bpcore.training.record import make_record
from bpcore.training.session import Session
from bpcore.training.stopping import Progress, WallClock, as_rule
from bpcore.training.trainer import Trainer
from bpcore.typing import FloatArray, NDArray

__all__ = ["Data", "NonFiniteError", "fit_full_batch", "fit_stochastic"]


class NonFiniteError(DivergenceError, ValueError):
    """A training met a number that is not finite; a :class:`ValueError`, as in scikit-learn."""


@dataclass
class Data:
    """Samples of a fit; Y and Y_val are the targets as bpcore takes them."""

    X: FloatArray
    y: Any
    weights: NDArray[Any] | None
    X_val: FloatArray | None = None
    y_val: Any = None
    weights_val: NDArray[Any] | None = None
    Y: Any = None
    Y_val: Any = None
    score: Callable[[FloatArray], float] | None = None

    @property
    def mean_weight(self) -> float:
        """Mean weight of a sample."""
        return 1.0 if self.weights is None else float(np.mean(self.weights))


def fit_stochastic(
    estimator: Any, data: Data, loss: Loss, rule: UpdateRule, rng: np.random.RandomState, incremental: bool
) -> None:
    """Train with batches, and leave the state of the optimiser for a partial_fit.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With its network; gets the results.
    data : Data
        The samples.
    loss : Loss
        What is minimised.
    rule : UpdateRule
        How.
    rng : RandomState
        Of the shuffles, and of the seed of dropout.
    incremental : bool
        Whether this is a partial_fit.

    Raises
    ------
    NonFiniteError
        If a number is not finite and there is nothing better to go back to.
    """
    net, n = estimator.net_, len(data.X)
    seed = 0 if estimator.dropout is None else int(rng.randint(2**31))
    settings = {
        "dropout": estimator.dropout,
        "clip": estimator.clip,
        "threads": estimator.threads,
        "backend": estimator.backend,
        "seed": seed,
    }
    described = (net, loss, rule, estimator._batch(n), float(estimator.alpha), data.mean_weight)
    live: Steps | None = estimator._steps
    if live is not None and live.described == described and live.settings == settings:
        steps = live
    else:
        steps = Steps(*described, **settings)
        if live is not None:
            steps.go_on(live.remember())
        elif incremental and estimator._memory is not None:
            steps.go_on(estimator._memory)
    trainer = steps.main
    try:
        with announced_compiling(trainer.be, bool(estimator.verbose)):
            session = _session(estimator, trainer, data)
            reason = Descent(estimator, session, steps, rng, _divisor(loss, net), incremental).run()
        estimator.run_ = _concluded(estimator, session, reason, keeps_best=bool(estimator.early_stopping))
        if incremental:
            estimator._steps = steps
        else:
            estimator._memory = steps.remember()
    finally:
        if estimator._steps is not steps:
            steps.release()


def fit_full_batch(estimator: Any, data: Data, loss: Loss, method: ScipyMinimize) -> None:
    """Train on all samples at once with a method of SciPy; parameters as for :func:`fit_stochastic`."""
    net, n, outputs = estimator.net_, len(data.X), _divisor(loss, estimator.net_)
    lam = strength(float(estimator.alpha), n, data.mean_weight)
    trainer = Trainer(
        net,
        loss,
        batch_size=n,
        dropout=estimator.dropout,
        clip=estimator.clip,
        penalty=ridge(lam),
        seed=0,
        threads=estimator.threads,
        backend=estimator.backend,
    )
    try:
        session = _session(estimator, trainer, data, whole=True)
        session.record["spec"]["optimizer"] = {"name": method.method, **method.keywords()}
        limit = int(estimator.max_iter)
        reason = minimize(session, method, limit, False)
        estimator.n_iter_ = trainer.state.step
        if len(session.history):
            curve = session.history["loss"] / outputs
            curve += session.history["penalty"] if lam else 0.0
            estimator.loss_curve_ += curve.tolist()
            estimator.loss_ = estimator.loss_curve_[-1]
            estimator.best_loss_ = min(estimator.loss_curve_)
            estimator.t_ += n * len(curve)
            if data.X_val is not None:
                estimator.validation_loss_curve_ += (session.history["val_loss"] / outputs).tolist()
                estimator.validation_scores_ += session.history["val_score"].tolist()
        else:  # the first weights were a minimum already
            found = net.evaluate(data.X, data.Y, loss, sample_weight=data.weights, backend=trainer.be)
            estimator.loss_ = estimator.best_loss_ = found["loss"] / outputs + trainer.penalty_value()
        estimator.run_ = _concluded(estimator, session, reason, keeps_best=False)
        asked = reason.startswith(method.method.lower()) or reason.startswith("reached")
        if asked and not re.search("converge|successful|local minimum|condition is satisfied", reason):
            warnings.warn(
                f"lbfgs failed to converge after {estimator.n_iter_} iteration(s): {reason}\n\n"
                f"You might also want to scale the data, or to increase max_iter (={limit}).",
                ConvergenceWarning,
                stacklevel=4,
            )
    finally:
        trainer.release(state=True)


def _divisor(loss: Loss, net: MLP) -> int:
    """What a loss is divided by when it is reported; see :class:`~bpcore.estimators.descent.Descent`."""
    return net.sizes[-1] if loss.name == "quadratic" else 1


def _session(estimator: Any, trainer: Trainer, data: Data, whole: bool = False) -> Session:
    """Load the data and put together what watches a training."""
    validation = None if data.X_val is None else (data.X_val, data.Y_val)
    problem: Problem = trainer.load(data.X, data.Y, sample_weight=data.weights, validation=validation, whole=whole)
    held_out = None
    if data.X_val is not None:
        with trainer.refusing("the validation data"):
            held_out = HeldOut(trainer, data.X_val, data.Y_val, data.weights_val, data.score)
    spec = trainer.prepare(problem)
    record = make_record(trainer, spec, problem.m, 0 if held_out is None else held_out.m)
    stop = None if estimator.time_limit is None else WallClock(float(estimator.time_limit))
    callbacks = [as_callback(callback) for callback in estimator.callbacks or ()]
    if whole and estimator.verbose:
        callbacks.append(as_callback(_print_iteration))
    return Session(trainer, problem, held_out, as_rule(stop), callbacks, "last", False, record)


def _print_iteration(net: MLP, progress: Progress) -> None:
    row = progress.row or {}
    print(f"Iteration {progress.step}, loss = {row.get('loss', 0.0) + row.get('penalty', 0.0):.8f}")


def _concluded(estimator: Any, session: Session, reason: str, *, keeps_best: bool) -> Any:
    """Build the run; say what a divergence means."""
    error, session.error = session.error, None
    if error is not None and not keeps_best:
        raise NonFiniteError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            f"preprocessed. {error}",
            step=error.step,
            layer=error.layer,
            quantity=error.quantity,
        ) from error
    if error is not None:
        warnings.warn(
            f"{error} The parameters with the best validation score are kept.", ConvergenceWarning, stacklevel=5
        )
    return session.conclude(reason, "stop")
