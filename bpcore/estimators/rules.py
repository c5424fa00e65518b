"""From the parameters solver, learning_rate, momentum, beta_1, ... to an update rule.

``sgd`` and ``adam`` are those of scikit-learn, whose numbers they reproduce; they differ from bpcore's in two places.
Momentum has the learning rate inside its velocity, ``v <- mu v - eta g``, which matters when eta changes; and Adam adds
epsilon to the root of the second moment before its correction. Any other rule of bpcore is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bpcore.errors import unknown
from bpcore.functions.full_batch import ScipyMinimize
from bpcore.functions.schedule import Schedule
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import UPDATE_RULES, get_update_rule

__all__ = ["Steered", "is_stochastic", "solver_of", "takes_batches"]

_FTOL = 2.220446049250313e-09
"""SciPy's own tolerance on the loss, which scikit-learn leaves alone; its tol is that on the gradient."""


@dataclass(frozen=True)
class Steered(Schedule):
    """A learning rate that the loop over the epochs sets, in the state of the schedule.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.

    Examples
    --------
    >>> Steered(0.1).at(5, 1, {"eta": 0.02})
    0.02
    """

    eta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")

    @property
    def stateful(self) -> bool:
        """True."""
        return True

    def at(self, step: int, epoch: int, state: Mapping[str, float | int | None] | None = None) -> float:
        """Return the learning rate that `state` holds; without a state, the first one."""
        return float(self.eta if not state else state["eta"] or 0.0)

    def initial_state(self) -> dict[str, float | int | None]:
        """Return the state before the first epoch."""
        return {"eta": float(self.eta)}


def is_stochastic(solver: Any) -> bool:
    """Whether a solver takes steps on batches, so that there is a partial_fit; ``"lbfgs"`` does not.

    Examples
    --------
    >>> is_stochastic("adam"), is_stochastic("lbfgs")
    (True, False)
    """
    return not (isinstance(solver, ScipyMinimize) or (isinstance(solver, str) and solver.lower() == "lbfgs"))


def takes_batches(estimator: Any) -> bool:
    """Say whether there is a partial_fit, with the error of an attribute that is missing, for ``available_if``."""
    if is_stochastic(estimator.solver):
        return True
    raise AttributeError(
        f"partial_fit is only available for stochastic optimizers. {estimator.solver} is not stochastic."
    )


def solver_of(estimator: Any) -> UpdateRule | ScipyMinimize:
    """Return the update rule, or the full-batch method, that the parameters of an estimator describe.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Its ``solver`` is a name of scikit-learn (``"lbfgs"``, ``"sgd"``, ``"adam"``), a name of bpcore
        (:data:`~bpcore.functions.update_rules.UPDATE_RULES`), an :class:`~bpcore.UpdateRule`, whose learning rate
        counts unless ``learning_rate`` is a schedule, or a :class:`~bpcore.ScipyMinimize`.

    Returns
    -------
    UpdateRule or ScipyMinimize

    Raises
    ------
    UnknownNameError
        If there is no such solver.
    """
    solver, rate = estimator.solver, estimator.learning_rate
    if isinstance(solver, ScipyMinimize):
        return solver
    if isinstance(solver, UpdateRule):
        return solver.bind(eta=rate) if isinstance(rate, Schedule) else solver
    if not isinstance(solver, str):
        raise unknown("solver", solver, ["lbfgs", *UPDATE_RULES])
    name, first = solver.lower(), float(estimator.learning_rate_init)
    if name == "lbfgs":
        options = {"ftol": _FTOL, "gtol": float(estimator.tol), "maxfun": int(estimator.max_fun)}
        return ScipyMinimize("L-BFGS-B", int(estimator.max_iter), options=options)
    if name not in UPDATE_RULES:
        raise unknown("solver", solver, ["lbfgs", *UPDATE_RULES])
    eta = rate if isinstance(rate, Schedule) else first
    if name == "sgd":
        steered = isinstance(rate, str) and rate != "constant"
        return _sgd(Steered(first) if steered else eta, float(estimator.momentum), bool(estimator.nesterovs_momentum))
    if name == "adam":
        return _adam(eta, float(estimator.beta_1), float(estimator.beta_2), float(estimator.epsilon))
    return get_update_rule(name, eta=eta)


@lru_cache(maxsize=32)  # parsing and checking a rule takes longer than a short partial_fit
def _sgd(eta: float | Schedule, momentum: float, nesterov: bool) -> UpdateRule:
    if momentum == 0:
        return get_update_rule("sgd", eta=eta)
    move = "theta = theta + mu*v - eta*g" if nesterov else "theta = theta + v"
    return UpdateRule(
        "nesterov_velocity" if nesterov else "momentum_velocity",
        f"v = mu*v - eta*g; {move}",
        state=("v",),
        hyper={"mu": momentum},
        ranges={"mu": "[0, 1]"},
        eta=eta,
        source="scikit-learn",
    )


@lru_cache(maxsize=32)
def _adam(eta: float | Schedule, beta1: float, beta2: float, eps: float) -> UpdateRule:
    return UpdateRule(
        "adam_uncorrected_epsilon",
        "m = beta1*m + d1*g; v = beta2*v + d2*g*g; theta = theta - step*m / (sqrt(v) + eps)",
        state=("m", "v"),
        hyper={"beta1": beta1, "beta2": beta2, "eps": eps},
        ranges={"beta1": "[0, 1)", "beta2": "[0, 1)", "eps": "(0, inf)"},
        scalars="d1 = 1 - beta1; d2 = 1 - beta2; step = eta*sqrt(1 - beta2**t) / (1 - beta1**t)",
        eta=eta,
        source="Kingma, Ba 2015, the efficient form of section 2; scikit-learn",
    )
