"""Full-batch methods: descriptions of a minimisation of the whole loss by :func:`scipy.optimize.minimize`.

A declaration here holds no data and runs nothing: the training loop hands the flat parameter vector theta,
the loss over all samples and its gradient (BP1 to BP4) to SciPy, with the keyword arguments that
:meth:`ScipyMinimize.keywords` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.ranges import check_count, check_number

__all__ = ["LBFGS", "METHODS", "ScipyMinimize"]

METHODS: dict[str, str] = {
    "CG": "maxiter",
    "BFGS": "maxiter",
    "L-BFGS-B": "maxiter",
    "TNC": "maxfun",
    "SLSQP": "maxiter",
    "Newton-CG": "maxiter",
    "trust-constr": "maxiter",
}
"""SciPy's methods that need a gradient and nothing more, with the option that limits their length."""

_REFUSED = {
    **dict.fromkeys(("nelder-mead", "powell", "cobyla", "cobyqa"), "does not use the gradient"),
    **dict.fromkeys(("dogleg", "trust-ncg", "trust-krylov", "trust-exact"), "needs second derivatives"),
}


@dataclass(frozen=True)
class ScipyMinimize:
    """Train on all samples at once with a method of :func:`scipy.optimize.minimize`.

    Parameters
    ----------
    method : str, default "L-BFGS-B"
        One of :data:`METHODS`, or ``"lbfgs"``; upper and lower case mean the same.
    max_iterations : int, default 200
        Most iterations (for ``"TNC"``, most evaluations of the loss), at least 1.
    tolerance : float, default 1e-5
        The method's own tolerance, ``tol`` of SciPy, > 0.
    options : mapping, optional
        Further options of the method, handed on as they are.

    Raises
    ------
    UnknownNameError
        If SciPy has no such method.
    ConfigurationError
        If the method cannot train a network with gradients, or a number is out of range.

    Examples
    --------
    >>> ScipyMinimize("bfgs", max_iterations=50).keywords()
    {'method': 'BFGS', 'tol': 1e-05, 'options': {'maxiter': 50}}
    """

    method: str = "L-BFGS-B"
    max_iterations: int = 200
    tolerance: float = 1e-5
    options: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        canonical = {name.lower(): name for name in METHODS}
        aliases = {"lbfgs": "L-BFGS-B", "l-bfgs": "L-BFGS-B"}
        asked = str(self.method).lower()
        if asked in _REFUSED:
            raise ConfigurationError(
                f"method {self.method!r} {_REFUSED[asked]}; bpcore gives the loss and its gradient. "
                f"Possible: {', '.join(METHODS)}"
            )
        if asked not in canonical | aliases:
            raise unknown("full-batch method", self.method, canonical)
        object.__setattr__(self, "method", (canonical | aliases)[asked])
        check_count("max_iterations", self.max_iterations, 1)
        check_number("tolerance", self.tolerance, "(0, inf)")
        limit = METHODS[self.method]
        if self.options is not None and limit in self.options:
            raise ConfigurationError(f"options must not contain {limit!r}; it is set by max_iterations")
        object.__setattr__(self, "options", dict(self.options or {}))

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments for :func:`scipy.optimize.minimize`, without function and gradient.

        Returns
        -------
        dict
            ``method``, ``tol`` and ``options``; a new dict at every call.
        """
        options = {METHODS[self.method]: self.max_iterations, **(self.options or {})}
        return {"method": self.method, "tol": self.tolerance, "options": options}


def LBFGS(max_iterations: int = 200, tolerance: float = 1e-5, *, memory: int = 10) -> ScipyMinimize:
    """Limited-memory BFGS: :class:`ScipyMinimize` with method L-BFGS-B.

    Parameters
    ----------
    max_iterations : int, default 200
        Most iterations, at least 1.
    tolerance : float, default 1e-5
        Tolerance on loss and gradient, > 0.
    memory : int, default 10
        Pairs of steps and gradient changes that are kept, at least 1.

    Returns
    -------
    ScipyMinimize
        The declaration.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    Notes
    -----
    D. C. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.

    Examples
    --------
    >>> LBFGS(memory=5).keywords()["options"]
    {'maxiter': 200, 'maxcor': 5}
    """
    check_count("memory", memory, 1)
    return ScipyMinimize("L-BFGS-B", max_iterations, tolerance, options={"maxcor": memory})
