"""Information measures: information content, entropy, cross-entropy and Kullback-Leibler divergence.

All take probabilities along one axis (the last unless said otherwise), any number of distributions at once,
and a base: ``"e"`` (nats, the default), 2 (bits) or 10 (hartleys). An event of probability 0 contributes
``0 log 0 = 0``. They work on the host, in float64.

References
----------
.. [1] C. E. Shannon, "A mathematical theory of communication", 1948.
.. [2] S. Kullback, R. A. Leibler, "On information and sufficiency", 1951.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bpcore.errors import ConfigurationError, DataError, ShapeError

__all__ = ["Base", "cross_entropy", "entropy", "information_content", "kl_divergence"]

Base: TypeAlias = Literal["e", 2, 10]

_LOG = {"e": np.log, 2: np.log2, 10: np.log10}


def _log(x: NDArray[np.float64], base: Base) -> NDArray[np.float64]:
    if base not in _LOG:
        raise ConfigurationError(f"base must be 'e', 2 or 10, got {base!r}")
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant
        result: NDArray[np.float64] = _LOG[base](x)
    return result


def _probabilities(name: str, values: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return the values as float64, each checked to be in [0, 1], and how far their sum may be from 1."""
    raw = np.asarray(values)
    if raw.dtype.kind not in "biuf":
        raise DataError(f"{name} must be real numbers, got dtype {raw.dtype}")
    p = raw.astype(np.float64)
    # sums of numbers typed with six decimals, or computed in float32 or float16, are this far off
    coarse = raw.dtype in (np.float32, np.float16)
    if not np.isfinite(p).all():
        raise DataError(f"{name} must be probabilities, found {p[~np.isfinite(p)].flat[0]}")
    slack = 1e-6 if coarse else 1e-12  # softmax in float32 may end a rounding error above 1
    if ((p < 0) | (p > 1 + slack)).any():
        bad = p[(p < 0) | (p > 1 + slack)].flat[0]
        raise DataError(f"{name} must be probabilities from 0 to 1, found {bad:g}")
    return p, 1e-3 if coarse else 1e-5


def _distributions(name: str, values: ArrayLike, axis: int) -> NDArray[np.float64]:
    """Return the values as float64 with the events on the last axis, each row checked to sum to 1."""
    p, tolerance = _probabilities(name, values)
    if p.ndim == 0 or not -p.ndim <= axis < p.ndim:
        raise ShapeError(f"{name} of shape {p.shape} has no axis {axis}")
    p = np.moveaxis(p, axis, -1)
    total = p.sum(axis=-1)
    wrong = np.abs(total - 1) > tolerance
    if wrong.any():
        which = f"{name}[{', '.join(str(int(i[0])) for i in np.nonzero(wrong))}]" if p.ndim > 1 else name
        raise DataError(f"{which} must sum to 1 along axis {axis}, found {total[wrong].flat[0]:.6g}; divide by the sum")
    return p


def _pair(p: ArrayLike, q: ArrayLike, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    P, Q = _distributions("p", p, axis), _distributions("q", q, axis)
    if P.shape[-1] != Q.shape[-1]:
        raise ShapeError(f"p and q must be over the same events, got {P.shape[-1]} and {Q.shape[-1]} along axis {axis}")
    try:
        P, Q = np.broadcast_arrays(P, Q)
    except ValueError:
        raise ShapeError(f"p and q cannot be broadcast together: shapes {np.shape(p)} and {np.shape(q)}") from None
    return P, Q


def _expectation(p: NDArray[np.float64], x: NDArray[np.float64]) -> Any:
    """Sum of p * x over the last axis, in which p = 0 contributes nothing."""
    return np.multiply(p, x, out=np.zeros(p.shape), where=p > 0).sum(axis=-1)


def information_content(p: ArrayLike, base: Base = "e") -> Any:
    """Return the information gained when an event of probability p happens: ``-log p``.

    Parameters
    ----------
    p : array_like of float, any shape
        Probabilities, 0 to 1. They need not belong together.
    base : {"e", 2, 10}, default "e"
        Unit: nats, bits or hartleys.

    Returns
    -------
    float or ndarray of float64, shape of p
        inf where p is 0.

    Raises
    ------
    DataError
        If a value is not a probability.
    ConfigurationError
        If the base is another one.

    Notes
    -----
    Shannon 1948 [1]_.

    Examples
    --------
    >>> float(information_content(0.25, base=2))
    2.0
    """
    values, _ = _probabilities("p", p)
    return 0.0 - _log(values, base)  # 0 - x: the certain event has +0, not -0


def entropy(p: ArrayLike, base: Base = "e", *, axis: int = -1) -> Any:
    """Return the expected information content of a distribution: ``-sum p log p``.

    Parameters
    ----------
    p : array_like of float, shape (..., N)
        Distributions over N events, each summing to 1 along `axis`.
    base : {"e", 2, 10}, default "e"
        Unit: nats, bits or hartleys.
    axis : int, default -1
        Axis of the events.

    Returns
    -------
    float or ndarray of float64, shape (...)
        From 0 (one certain event) to log N (uniform).

    Raises
    ------
    DataError
        If p is not a distribution.
    ShapeError
        If p has no such axis.
    ConfigurationError
        If the base is another one.

    Notes
    -----
    Shannon 1948 [1]_, section 6.

    Examples
    --------
    >>> float(entropy([0.5, 0.25, 0.25], base=2))
    1.5
    """
    P = _distributions("p", p, axis)
    return 0.0 - _expectation(P, _log(P, base))


def cross_entropy(p: ArrayLike, q: ArrayLike, base: Base = "e", *, axis: int = -1) -> Any:
    """Return the expected information content under p when events are believed to follow q: ``-sum p log q``.

    Parameters
    ----------
    p, q : array_like of float, shapes (..., N) that broadcast
        True and believed distributions.
    base : {"e", 2, 10}, default "e"
        Unit: nats, bits or hartleys.
    axis : int, default -1
        Axis of the events.

    Returns
    -------
    float or ndarray of float64, shape (...)
        At least the entropy of p, equal to it where q = p; inf where an event of p is impossible under q.

    Raises
    ------
    DataError
        If p or q is not a distribution.
    ShapeError
        If the shapes do not fit.
    ConfigurationError
        If the base is another one.

    Notes
    -----
    Shannon 1948 [1]_. The loss of this name is :data:`bpcore.functions.losses`' ``cross_entropy``.

    Examples
    --------
    >>> float(cross_entropy([0.5, 0.5], [0.25, 0.75], base=2).round(4))
    1.2075
    """
    P, Q = _pair(p, q, axis)
    return 0.0 - _expectation(P, _log(Q, base))


def kl_divergence(p: ArrayLike, q: ArrayLike, base: Base = "e", *, axis: int = -1) -> Any:
    """Return the Kullback-Leibler divergence of p from q: ``sum p log(p / q)``.

    Parameters
    ----------
    p, q : array_like of float, shapes (..., N) that broadcast
        True and believed distributions.
    base : {"e", 2, 10}, default "e"
        Unit: nats, bits or hartleys.
    axis : int, default -1
        Axis of the events.

    Returns
    -------
    float or ndarray of float64, shape (...)
        Cross-entropy less entropy: at least 0 up to rounding; inf where an event of p is impossible under q.

    Raises
    ------
    DataError
        If p or q is not a distribution.
    ShapeError
        If the shapes do not fit.
    ConfigurationError
        If the base is another one.

    Notes
    -----
    Kullback and Leibler 1951 [2]_.

    Examples
    --------
    >>> float(kl_divergence([0.5, 0.5], [0.25, 0.75], base=2).round(4))
    0.2075
    """
    P, Q = _pair(p, q, axis)
    with np.errstate(invalid="ignore"):  # inf - inf arises only where p = 0, which _expectation leaves out
        return _expectation(P, _log(P, base) - _log(Q, base))
