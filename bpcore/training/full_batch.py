"""Full-batch methods: theta is handed to :func:`scipy.optimize.minimize`, with the engine's loss and gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backprop import backward_into, forward_into, loss_value, row_weights
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.training.interrupt import Interrupt
from bpcore.training.progress import ProgressBar
from bpcore.training.session import Session, diverged
from bpcore.training.step_records import StepRecords
from bpcore.typing import FloatArray
from bpcore.workspace import Gradients, Trace

__all__ = ["minimize"]


def minimize(session: Session, method: ScipyMinimize, epochs: int, verbose: bool | None) -> str:
    """Minimise the loss over all samples; every iteration is a step and an epoch of the history.

    Parameters
    ----------
    session : Session
        Trainer, data and everything that watches.
    method : ScipyMinimize
        The method and its options.
    epochs : int
        Largest number of iterations, besides the method's own limit.
    verbose : bool or None
        Whether to show progress.

    Returns
    -------
    str
        Why it ended.
    """
    from scipy import optimize

    trainer = session.trainer
    if trainer.dropout is not None or trainer.clip is not None:
        raise ConfigurationError(
            f"{method.method} needs the exact gradient of a fixed loss; dropout and clipping do not go with it"
        )
    objective = _Objective(session)
    method_limit = min(method.max_iterations, epochs)
    reason: str | None = None

    with Interrupt() as interrupt, ProgressBar(method_limit, verbose) as bar, trainer.thread_limit():

        def after_iteration(*args: object) -> None:
            nonlocal reason
            theta = np.asarray(args[0], np.float64)
            loss, gradient = objective.at(theta)
            trainer.state.step += 1
            hits = objective.hits()
            session.end_epoch(StepRecords(np.array([[loss - objective.penalty], [hits], [objective.weight]])))
            if session.record_steps:
                session.history.append_steps(np.array([session.history[-1]["loss"]]))
            bar.advance(1)
            bar.epoch(session.history[-1])
            if interrupt.requested:
                session.interrupted, reason = True, "interrupted by Ctrl-C"
            reason = session.ask(reason, float(np.linalg.norm(gradient)))
            if reason is None and trainer.state.step >= epochs:
                reason = f"reached {epochs} iterations"
            if reason is not None:
                raise StopIteration

        session.start_callbacks()
        start = trainer.net.layout.pack(trainer.be.to_numpy(trainer.net.theta)).astype(np.float64)
        options: dict[str, Any] = method.keywords()
        options["options"] = {**options["options"], _limit_name(options): method_limit}
        try:
            # SciPy's stubs list one overload for each method; the method is a value here
            minimize_any: Any = optimize.minimize
            result = minimize_any(objective, start, jac=True, callback=after_iteration, **options)
        except DivergenceError as error:
            objective.place(objective.last_good)
            session.error = error
            return diverged(error)
        except StopIteration:
            objective.place(objective.last_good)
            return reason or "stopped"
        objective.place(result.x)
    return reason or f"{method.method}: {result.message}".lower().rstrip(".")


def _limit_name(options: dict[str, object]) -> str:
    return "maxfun" if options["method"] == "TNC" else "maxiter"


class _Objective:
    """Loss and gradient of all samples as SciPy wants them: dense float64 vectors."""

    def __init__(self, session: Session) -> None:
        trainer = session.trainer
        self.trainer, self.problem = trainer, session.problem
        net, be, m = trainer.net, trainer.be, session.problem.m
        self.trace = Trace.allocate(be, net.sizes, m, net.dtype, X=session.problem.X)
        self.grads = Gradients.allocate(be, net.sizes, net.layout, m, net.dtype)
        self.terms = be.empty((m, net.sizes[-1]), net.dtype)
        self.value = be.empty(1, np.float64)
        self.scale = row_weights(be, trainer.loss, net.sizes[-1], m, session.problem.weights)
        weights = session.problem.weights
        self.weight = float(m if weights is None else be.to_numpy(weights).sum())
        self.penalty = 0.0
        self.last_good = net.layout.pack(be.to_numpy(net.theta)).astype(np.float64)
        self._cached: tuple[FloatArray, float, FloatArray] | None = None

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = self.at(theta)
        return value, gradient.copy()

    @np.errstate(all="ignore")
    def at(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Loss plus penalty, and its gradient; the last point is remembered."""
        if self._cached is not None and np.array_equal(self._cached[0], theta):
            return self._cached[1], self._cached[2]
        trainer = self.trainer
        net, be, L = trainer.net, trainer.be, trainer.net.n_layers
        self.place(theta)
        forward_into(be, net, self.trace)
        Z, H, Y = self.trace.Z[L], self.trace.H[L], self.problem.Y
        loss_value(be, trainer.loss, net.output, Z, H, Y, self.scale, self.terms, out=self.value)
        backward_into(be, net, trainer.loss, self.trace, Y, self.scale, self.grads)
        if trainer.penalty is not None:
            for l in net.W.layers:
                dW = self.grads.dW[l]
                be.elementwise(trainer.penalty.gradient, out=dW, g=dW, w=net.W[l], **trainer.penalty.constants)
        self.penalty = trainer.penalty_value()
        value = float(be.to_numpy(self.value)[0]) + self.penalty
        gradient = net.layout.pack(be.to_numpy(self.grads.flat)).astype(np.float64)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            raise DivergenceError(
                f"step {trainer.state.step + 1}: the loss or its gradient is not finite ({value}); "
                "the last good parameters are kept",
                step=trainer.state.step + 1,
                quantity="loss",
            )
        self.last_good = theta.copy()
        self._cached = theta.copy(), value, gradient
        return value, gradient

    def hits(self) -> float:
        """Weighted number of right answers at the last point."""
        problem, be = self.problem, self.trainer.be
        if problem.labels is None:
            return 0.0
        H = self.trace.H[self.trainer.net.n_layers]
        hits = be.to_numpy(be.row_hits(H, problem.labels, problem.threshold, out=be.empty(problem.m, H.dtype)))
        return float(hits.sum() if problem.weights is None else (hits * be.to_numpy(problem.weights)).sum())

    def place(self, theta: FloatArray) -> None:
        """Write a dense vector into the network."""
        net, be = self.trainer.net, self.trainer.be
        flat = np.zeros(net.layout.size, net.dtype)
        net.layout.unpack(theta, flat)
        be.copy(be.asarray(flat), out=net.theta)
