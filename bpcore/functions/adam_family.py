"""Adam and its relatives: update rules with two corrected moments, one declaration each.

The corrections for the start at 0 are folded into two numbers of the host, ``step`` and ``root``, so that
``theta - step*m / (root*sqrt(v) + eps)`` is ``theta - eta m' / (sqrt(v') + eps)`` with
``m' = m / (1 - beta1**t)`` and ``v' = v / (1 - beta2**t)``.
"""

from __future__ import annotations

from bpcore.functions.schedule import Schedule
from bpcore.functions.update_rule import UpdateRule

__all__ = ["AMSGrad", "Adam", "AdamW", "NAdam"]

_RANGES = {"beta1": "[0, 1)", "beta2": "[0, 1)", "eps": "(0, inf)"}
_MOMENTS = "m = beta1*m + d1*g; v = beta2*v + d2*g*g; "
_STEP = "step*m / (root*sqrt(v) + eps)"
_SCALARS = "d1 = 1 - beta1; d2 = 1 - beta2; step = eta / (1 - beta1**t); root = 1 / sqrt(1 - beta2**t)"


def Adam(eta: float | Schedule = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> UpdateRule:
    """Momentum over the root of the mean squared gradient, both corrected for their start at 0.

    Parameters
    ----------
    eta : float or Schedule, default 0.001
        Learning rate.
    beta1, beta2 : float, default 0.9 and 0.999
        Memories of the first and second moment, in [0, 1).
    eps : float, default 1e-8
        Added outside of the root, > 0.

    Returns
    -------
    UpdateRule
        With state m and v.

    Notes
    -----
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    Examples
    --------
    >>> Adam().state
    ('m', 'v')
    """
    return UpdateRule(
        "adam",
        _MOMENTS + f"theta = theta - {_STEP}",
        state=("m", "v"),
        hyper={"beta1": beta1, "beta2": beta2, "eps": eps},
        ranges=_RANGES,
        scalars=_SCALARS,
        eta=eta,
        source="Kingma, Ba 2015",
    )


def AMSGrad(eta: float | Schedule = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> UpdateRule:
    """:func:`Adam` with a second moment that never shrinks.

    Parameters
    ----------
    eta, beta1, beta2, eps
        As in :func:`Adam`.

    Returns
    -------
    UpdateRule
        With state m, v and vmax, the largest v so far (before its correction, as in PyTorch).

    Notes
    -----
    S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", 2018, algorithm 2.

    Examples
    --------
    >>> AMSGrad().state
    ('m', 'v', 'vmax')
    """
    return UpdateRule(
        "amsgrad",
        _MOMENTS + "vmax = max(vmax, v); theta = theta - step*m / (root*sqrt(vmax) + eps)",
        state=("m", "v", "vmax"),
        hyper={"beta1": beta1, "beta2": beta2, "eps": eps},
        ranges=_RANGES,
        scalars=_SCALARS,
        eta=eta,
        source="Reddi, Kale, Kumar 2018",
    )


def AdamW(
    eta: float | Schedule = 0.001,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> UpdateRule:
    """:func:`Adam` and, apart from the gradient, ``theta <- theta - eta weight_decay theta``.

    Parameters
    ----------
    eta, beta1, beta2, eps
        As in :func:`Adam`.
    weight_decay : float, default 0.01
        Decoupled decay of all parameters, at least 0.

    Returns
    -------
    UpdateRule
        With state m and v.

    Notes
    -----
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.

    Examples
    --------
    >>> AdamW().hyper["weight_decay"]
    0.01
    """
    return UpdateRule(
        "adamw",
        _MOMENTS + f"theta = theta - decay*theta - {_STEP}",
        state=("m", "v"),
        hyper={"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay},
        ranges={**_RANGES, "weight_decay": "[0, inf)"},
        scalars=_SCALARS + "; decay = eta*weight_decay",
        eta=eta,
        source="Loshchilov, Hutter 2019",
    )


def NAdam(
    eta: float | Schedule = 0.002,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 0.004,
) -> UpdateRule:
    """:func:`Adam` with Nesterov's look ahead and a momentum that rises towards beta1.

    Parameters
    ----------
    eta : float or Schedule, default 0.002
        Learning rate.
    beta1, beta2, eps
        As in :func:`Adam`.
    momentum_decay : float, default 0.004
        psi in ``mu_t = beta1 (1 - 0.96**(t psi) / 2)``, at least 0.

    Returns
    -------
    UpdateRule
        With state m and v, and the running product of all mu_t.

    Notes
    -----
    T. Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    Examples
    --------
    >>> NAdam().initial_running()
    {'product': 1.0}
    """
    return UpdateRule(
        "nadam",
        _MOMENTS + "theta = theta - (step_g*g + step_m*m) / (root*sqrt(v) + eps)",
        state=("m", "v"),
        hyper={"beta1": beta1, "beta2": beta2, "eps": eps, "momentum_decay": momentum_decay},
        ranges={**_RANGES, "momentum_decay": "[0, inf)"},
        scalars="""d1 = 1 - beta1; d2 = 1 - beta2; root = 1 / sqrt(1 - beta2**t)
            mu = beta1 * (1 - 0.5 * 0.96**(t * momentum_decay))
            mu_next = beta1 * (1 - 0.5 * 0.96**((t + 1) * momentum_decay))
            product = product * mu
            step_g = eta * (1 - mu) / (1 - product)
            step_m = eta * mu_next / (1 - product * mu_next)""",
        running={"product": 1.0},
        eta=eta,
        source="Dozat 2016",
    )
