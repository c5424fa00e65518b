"""The built-in update rules: one declaration each.

All follow the contract of :mod:`bpcore.functions.update_rule` and PyTorch's conventions, so that a run can be
compared step by step: momentum ``v <- mu v + g, theta <- theta - eta v``; bias correction, and eps outside of
the root; weight decay only where it is decoupled from the gradient (AdamW, Lion), there on all parameters.
The fixed factors ``1 - beta`` and the bias corrections are scalars of the host: formed in float32,
``1 - 0.999`` would be off by 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.adam_family import Adam, AdamW, AMSGrad, NAdam
from bpcore.functions.ranges import check_number
from bpcore.functions.schedule import Schedule
from bpcore.functions.update_rule import UpdateRule

__all__ = [
    "SGD",
    "UPDATE_RULES",
    "AMSGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "RMSprop",
    "UpdateRule",
    "get_update_rule",
]

_FRACTION, _POSITIVE, _NOT_NEGATIVE = "[0, 1)", "(0, inf)", "[0, inf)"


def SGD(eta: float | Schedule = 0.01, momentum: float = 0.0, nesterov: bool = False) -> UpdateRule:
    """Gradient descent, with momentum if wanted: ``theta <- theta - eta g``.

    Parameters
    ----------
    eta : float or Schedule, default 0.01
        Learning rate.
    momentum : float, default 0.0
        mu, in [0, 1]. Above 0 the rule is :func:`Momentum`, or :func:`Nesterov`.
    nesterov : bool, default False
        Look ahead by one step; needs momentum.

    Returns
    -------
    UpdateRule
        Without state when `momentum` is 0.

    Raises
    ------
    ConfigurationError
        If a number is out of range, or `nesterov` is asked for without momentum.

    Notes
    -----
    A. Cauchy, 1847; H. Robbins, S. Monro, "A stochastic approximation method", 1951.

    Examples
    --------
    >>> print(SGD(0.1).program)
    theta = theta - eta * g
    """
    if nesterov and momentum == 0:
        raise ConfigurationError("SGD: nesterov=True needs momentum > 0, for example momentum=0.9")
    if momentum != 0:
        return Nesterov(eta, momentum) if nesterov else Momentum(eta, momentum)
    return UpdateRule("sgd", "theta = theta - eta*g", eta=eta, source="Robbins, Monro 1951")


def Momentum(eta: float | Schedule = 0.01, mu: float = 0.9) -> UpdateRule:
    """Heavy ball: ``v <- mu v + g``, ``theta <- theta - eta v``.

    Parameters
    ----------
    eta : float or Schedule, default 0.01
        Learning rate.
    mu : float, default 0.9
        Momentum, in [0, 1].

    Returns
    -------
    UpdateRule
        With state v.

    Notes
    -----
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.

    Examples
    --------
    >>> Momentum().state
    ('v',)
    """
    return UpdateRule(
        "momentum",
        "v = mu*v + g; theta = theta - eta*v",
        state=("v",),
        hyper={"mu": mu},
        ranges={"mu": "[0, 1]"},
        eta=eta,
        source="Polyak 1964",
    )


def Nesterov(eta: float | Schedule = 0.01, mu: float = 0.9) -> UpdateRule:
    """Accelerated gradient: ``v <- mu v + g``, ``theta <- theta - eta (g + mu v)``.

    Parameters
    ----------
    eta : float or Schedule, default 0.01
        Learning rate.
    mu : float, default 0.9
        Momentum, in [0, 1].

    Returns
    -------
    UpdateRule
        With state v.

    Notes
    -----
    Y. Nesterov, 1983, in the form of I. Sutskever et al., "On the importance of initialization and momentum
    in deep learning", 2013.

    Examples
    --------
    >>> print(Nesterov().program)
    v = mu * v + g; theta = theta - eta * (g + mu * v)
    """
    return UpdateRule(
        "nesterov",
        "v = mu*v + g; theta = theta - eta*(g + mu*v)",
        state=("v",),
        hyper={"mu": mu},
        ranges={"mu": "[0, 1]"},
        eta=eta,
        source="Nesterov 1983",
    )


def Adagrad(eta: float | Schedule = 0.01, eps: float = 1e-10, initial: float = 0.0) -> UpdateRule:
    """Divide steps by the root of the sum of all squared gradients.

    Parameters
    ----------
    eta : float or Schedule, default 0.01
        Learning rate.
    eps : float, default 1e-10
        Added to the root, > 0.
    initial : float, default 0.0
        First value of the sum, at least 0.

    Returns
    -------
    UpdateRule
        With state s.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    Notes
    -----
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011.

    Examples
    --------
    >>> Adagrad(initial=0.1).state_init
    {'s': 0.1}
    """
    initial = check_number("adagrad: initial", initial, _NOT_NEGATIVE)
    return UpdateRule(
        "adagrad",
        "s = s + g*g; theta = theta - eta*g / (sqrt(s) + eps)",
        state=("s",),
        hyper={"eps": eps},
        ranges={"eps": _POSITIVE},
        state_init={"s": initial},
        eta=eta,
        source="Duchi, Hazan, Singer 2011",
    )


def RMSprop(eta: float | Schedule = 0.01, alpha: float = 0.99, eps: float = 1e-8) -> UpdateRule:
    """Divide steps by the root of a running mean of squared gradients.

    Parameters
    ----------
    eta : float or Schedule, default 0.01
        Learning rate.
    alpha : float, default 0.99
        Memory of the mean, in [0, 1).
    eps : float, default 1e-8
        Added to the root, > 0.

    Returns
    -------
    UpdateRule
        With state s.

    Notes
    -----
    T. Tieleman, G. Hinton, Coursera "Neural networks for machine learning", lecture 6.5, 2012.

    Examples
    --------
    >>> RMSprop().hyper
    {'alpha': 0.99, 'eps': 1e-08}
    """
    return UpdateRule(
        "rmsprop",
        "s = alpha*s + d*g*g; theta = theta - eta*g / (sqrt(s) + eps)",
        state=("s",),
        hyper={"alpha": alpha, "eps": eps},
        ranges={"alpha": _FRACTION, "eps": _POSITIVE},
        scalars="d = 1 - alpha",
        eta=eta,
        source="Tieleman, Hinton 2012",
    )


def Adadelta(eta: float | Schedule = 1.0, rho: float = 0.9, eps: float = 1e-6) -> UpdateRule:
    """Take steps in the units of theta: the ratio of the running sizes of past steps and of gradients.

    Parameters
    ----------
    eta : float or Schedule, default 1.0
        Factor of the step.
    rho : float, default 0.9
        Memory of both means, in [0, 1).
    eps : float, default 1e-6
        Added inside the roots, > 0; it sets the first steps.

    Returns
    -------
    UpdateRule
        With state s (squared gradients) and u (squared steps).

    Notes
    -----
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Examples
    --------
    >>> Adadelta().state
    ('s', 'u')
    """
    return UpdateRule(
        "adadelta",
        "s = rho*s + d*g*g; change = sqrt(u + eps) / sqrt(s + eps) * g; u = rho*u + d*change*change; "
        "theta = theta - eta*change",
        state=("s", "u"),
        hyper={"rho": rho, "eps": eps},
        ranges={"rho": _FRACTION, "eps": _POSITIVE},
        scalars="d = 1 - rho",
        eta=eta,
        source="Zeiler 2012",
    )


def Lion(
    eta: float | Schedule = 0.0001, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0
) -> UpdateRule:
    """Take steps of the size eta in the direction of the sign of an interpolated momentum.

    Parameters
    ----------
    eta : float or Schedule, default 0.0001
        Learning rate.
    beta1, beta2 : float, default 0.9 and 0.99
        Memories for the direction and for the momentum kept, in [0, 1).
    weight_decay : float, default 0.0
        Decoupled decay of all parameters, at least 0.

    Returns
    -------
    UpdateRule
        With state m.

    Notes
    -----
    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, program 1.

    Examples
    --------
    >>> Lion().state
    ('m',)
    """
    return UpdateRule(
        "lion",
        "c = beta1*m + d1*g; theta = theta - decay*theta - eta*sign(c); m = beta2*m + d2*g",
        state=("m",),
        hyper={"beta1": beta1, "beta2": beta2, "weight_decay": weight_decay},
        ranges={"beta1": _FRACTION, "beta2": _FRACTION, "weight_decay": _NOT_NEGATIVE},
        scalars="d1 = 1 - beta1; d2 = 1 - beta2; decay = eta*weight_decay",
        eta=eta,
        source="Chen et al. 2023",
    )


UPDATE_RULES: dict[str, Callable[..., UpdateRule]] = {
    constructor.__name__.lower(): constructor
    for constructor in (
        SGD,
        Momentum,
        Nesterov,
        Adagrad,
        RMSprop,
        Adadelta,
        Adam,
        AMSGrad,
        AdamW,
        NAdam,
        Lion,
    )
}
"""The constructors by name, for command lines and configuration files."""


def get_update_rule(rule: str | UpdateRule, **parameters: Any) -> UpdateRule:
    """Find an update rule by name; an :class:`UpdateRule` passes, with other parameters if given.

    Parameters
    ----------
    rule : str or UpdateRule
        A name of :data:`UPDATE_RULES`, upper or lower case, or a rule.
    **parameters
        For the constructor, or for :meth:`UpdateRule.bind`.

    Returns
    -------
    UpdateRule
        The rule.

    Raises
    ------
    UnknownNameError
        If there is no such rule.

    Examples
    --------
    >>> get_update_rule("adam", eta=0.01)
    UpdateRule('adam', eta=0.01, beta1=0.9, beta2=0.999, eps=1e-08)
    """
    if isinstance(rule, UpdateRule):
        return rule.bind(**parameters) if parameters else rule
    if not isinstance(rule, str) or rule.lower() not in UPDATE_RULES:
        raise unknown("update rule", rule, UPDATE_RULES)
    return UPDATE_RULES[rule.lower()](**parameters)
