"""Checking a declared derivative against differences, at the moment of its definition.

A wrong derivative is the most expensive mistake in a training code: nothing fails, the network only learns badly.
So a derivative that somebody writes down is compared with central differences before it is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bpcore.errors import FormulaError
from bpcore.functions.expression import Expr, evaluate
from bpcore.functions.printing import to_text
from bpcore.typing import FloatArray

__all__ = ["check_derivative", "sample_points"]

_CBRT_EPS = float(np.cbrt(np.finfo(np.float64).eps))
RELATIVE_TOLERANCE = 1e-5
"""Central differences with step cbrt(eps) are right to about eps**(2/3) = 4e-11 times the third derivative."""


def sample_points(low: float, high: float) -> FloatArray:
    """Points inside an interval at which a function is probed: fine near 0, away from the ends.

    Parameters
    ----------
    low, high : float
        Ends of the interval. One that reaches beyond -8 ... 8 is cut to its part in there, or, if there is none,
        to the 16 next to its finite end.

    Returns
    -------
    ndarray of float64
        Points in increasing order, none of them 0, 1 or another round number at which kinks tend to sit.
    """
    if low >= 8.0:
        high = min(high, low + 16.0)
    elif high <= -8.0:
        low = max(low, high - 16.0)
    else:
        low, high = max(low, -8.0), min(high, 8.0)
    fractions = (np.arange(61) + 0.5178) / 61.4
    return low + (high - low) * fractions


def check_derivative(
    what: str, formula: Expr, derivative: Expr, name: str, points: Mapping[str, FloatArray], given: bool
) -> None:
    """Compare a derivative with central differences and refuse it when it is wrong.

    Points where the differences from the left and from the right disagree (a kink or a jump) are left out.

    Parameters
    ----------
    what : str
        Who is being defined, for the message.
    formula, derivative : Expr
        The function and the claimed derivative. Besides the variables, the derivative may use ``h``, the value of
        the function.
    name : str
        The variable.
    points : mapping of str to ndarray
        Values of all variables, broadcasting against each other.
    given : bool
        Whether the user wrote the derivative (the message says how to repair it).

    Raises
    ------
    FormulaError
        If function and derivative do not fit, or the function is finite nowhere on the points.
    """
    values = dict(zip(points, (np.array(grid) for grid in np.broadcast_arrays(*points.values())), strict=True))
    x = values[name]
    step = _CBRT_EPS * np.maximum(1.0, np.abs(x))

    def at(shift: FloatArray) -> FloatArray:
        return np.broadcast_to(np.asarray(evaluate(formula, {**values, name: x + shift}), np.float64), x.shape)

    with np.errstate(all="ignore"):
        here, left, right = at(0 * step), at(-step), at(step)
        slope_left, slope_right = (here - left) / step, (right - here) / step
        expected = (right - left) / (2 * step)
        found = evaluate(derivative, {**values, "h": here})
        found = np.broadcast_to(np.asarray(found, np.float64), x.shape)
        scale = 1.0 + np.abs(expected)
        smooth = np.abs(slope_right - slope_left) <= 1e-3 * scale
        defined = np.isfinite(here) & np.isfinite(left) & np.isfinite(right)
        wrong = smooth & defined & ~(np.abs(found - expected) <= RELATIVE_TOLERANCE * scale)
    if not (smooth & defined).any():
        raise FormulaError(f"{what}: {to_text(formula)} has no finite value with a slope on its domain")
    if wrong.any():
        worst = np.argmax(np.where(wrong, np.nan_to_num(np.abs(found - expected), nan=np.inf), -1))
        where = ", ".join(f"{key} = {grid.flat[worst]:.6g}" for key, grid in values.items())
        source = "the given derivative" if given else "the derived derivative"
        repair = " Correct it, or leave it out to have it derived." if given else " Give the derivative yourself."
        raise FormulaError(
            f"{what}: {source} {to_text(derivative)} is {found.flat[worst]:.6g} at {where}, "
            f"but differences of {to_text(formula)} give {expected.flat[worst]:.6g}.{repair}"
        )
