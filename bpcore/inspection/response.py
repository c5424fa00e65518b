"""Where an activation does not respond: what its formula says, whatever its name is.

BP2 multiplies the error by ``act'(z)``. Where that is almost 0, nothing reaches the weights before. A *bounded*
activation (sigmoid, tanh, and any other that is flat at both ends) saturates there; a *rectifier* (ReLU, ELU, GELU, and
any other that is flat on some interval) is dead there. Others respond everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from bpcore.functions.activations import Activation
from bpcore.functions.expression import evaluate
from bpcore.functions.program import Program
from bpcore.typing import FloatArray, NDArray

__all__ = ["Response", "flat_program", "response_of", "stuck_program"]

FAR, FARTHER = 20.0, 60.0
"""Where the ends of an activation are looked at."""
FLAT_END = 5e-3
"""Slope of an end that counts as flat, as a share of the largest slope; that of a leaky ReLU is above."""
FLAT_RUN = 30
"""Hundredths of z that count as an interval; where a slope only touches 0, it is small for fewer."""
SATURATED, DEAD = 0.05, 1e-3
"""Slopes below which a neuron saturates or is dead, as a share of the largest: 0.05 is ``|h| > 0.975`` of tanh."""

Kind = Literal["bounded", "rectifier", "open", "rowwise"]


@dataclass(frozen=True)
class Response:
    """Where an activation responds.

    Attributes
    ----------
    kind : ``"bounded"``, ``"rectifier"``, ``"open"`` or ``"rowwise"``
        Flat at both ends; flat somewhere else; flat nowhere; a function of whole rows, which is not looked at.
    peak : float
        Its largest slope.
    limit : float
        Slope below which it counts as flat; 0 where it never is.
    width : float
        Distance of its two ends; infinite unless it is bounded.

    Examples
    --------
    >>> from bpcore import ACTIVATIONS, Activation
    >>> [response_of(ACTIVATIONS[name]).kind for name in ("tanh", "relu", "gelu", "leaky_relu")]
    ['bounded', 'rectifier', 'rectifier', 'open']
    >>> response_of(Activation("bell", "exp(-z*z)")).kind
    'bounded'
    """

    kind: Kind
    peak: float
    limit: float
    width: float


@lru_cache(maxsize=256)
def response_of(activation: Activation) -> Response:
    """Find out from the formula of an activation, and its derivative, where it responds."""
    if activation.rowwise:
        return Response("rowwise", math.nan, 0.0, math.inf)
    middle = _inside(np.linspace(-FAR, FAR, 4001), activation)
    slopes = _slopes(activation, middle)
    if not np.isfinite(slopes).any():
        return Response("open", math.nan, 0.0, math.inf)
    peak = float(np.nanmax(slopes))
    ends = []
    for sign in (-1.0, 1.0):
        far = _inside(sign * np.linspace(FAR, FARTHER, 101), activation)
        if not len(far):  # the domain ends before: what is next to its end
            far = middle[:5] if sign < 0 else middle[-5:]
        ends.append(bool((_slopes(activation, far) < FLAT_END * peak).all()))
    if all(ends):
        return Response("bounded", peak, SATURATED * peak, _width(activation))
    if any(ends) or _longest_run(slopes < DEAD * peak) >= FLAT_RUN:
        return Response("rectifier", peak, DEAD * peak, math.inf)
    return Response("open", peak, 0.0, math.inf)


def _inside(z: FloatArray, activation: Activation) -> FloatArray:
    low, high = activation.domain
    return z[(z > low) & (z < high)]


@np.errstate(all="ignore")
def _slopes(activation: Activation, z: FloatArray) -> FloatArray:
    h = np.broadcast_to(np.asarray(evaluate(activation.value_formula.expr, {"z": z}), np.float64), z.shape)
    slope = evaluate(activation.derivative_formula.expr, {"z": z, "h": h})
    return np.abs(np.broadcast_to(np.asarray(slope, np.float64), z.shape))


@np.errstate(all="ignore")
def _width(activation: Activation) -> float:
    z = _inside(np.linspace(-FARTHER, FARTHER, 2001), activation)
    h = np.asarray(evaluate(activation.value_formula.expr, {"z": z}), np.float64)
    return float(np.nanmax(h) - np.nanmin(h))


def _longest_run(flags: NDArray[np.bool_]) -> int:
    longest = run = 0
    for flag in flags.tolist():
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


@lru_cache(maxsize=256)
def flat_program(activation: Activation) -> Program:
    """1 where ``|act'(z)| < limit``, else 0, as a program of z, h and limit."""
    slope = activation.derivative_formula
    return Program({"flat": f"where(abs({slope}) < limit, 1, 0)"}, name=f"flat {activation.name}")


@lru_cache(maxsize=256)
def stuck_program(activation: Activation) -> Program:
    """1 where an output is flat and more than `half` from its target, as a program of z, h, y, limit and half."""
    slope = activation.derivative_formula
    formula = f"where(abs({slope}) < limit, where(abs(h - y) > half, 1, 0), 0)"
    return Program({"stuck": formula}, name=f"stuck {activation.name}")
