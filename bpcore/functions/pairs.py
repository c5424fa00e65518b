"""Checking a declared pair of loss and output activation against the loss itself and against differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bpcore.errors import FormulaError
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.declaration import check_derivative, sample_points
from bpcore.functions.expression import evaluate, substitute
from bpcore.functions.formula import Formula
from bpcore.typing import FloatArray

if TYPE_CHECKING:
    from bpcore.functions.losses import Loss, Pair

__all__ = ["check_pair"]

TOLERANCE = 1e-6
"""Relative; values are compared in float64, differences are right to about 1e-9 here."""


def check_pair(loss: Loss, output: str, pair: Pair) -> None:
    """Refuse a pair whose value is not the loss, or whose delta is not the derivative of its value.

    A pair with an activation of the user's own is only parsed: the activation is not known here.

    Parameters
    ----------
    loss : Loss
        The loss that is being defined.
    output : str
        Name of the output activation.
    pair : Pair
        What was declared for it.

    Raises
    ------
    FormulaError
        If a formula is not in the language or does not fit.
    """
    what = f"loss {loss.name!r}: the pair with {output!r}"
    value = Formula(pair.value, ["z", "h", "logh", "y"])
    delta = Formula(pair.delta, ["z", "h", "y"])
    activation = ACTIVATIONS.get(output)
    if activation is None:
        return
    if activation.rowwise:
        _check_rows(what, loss, value, delta, activation.rowwise)
        return
    act = {"h": activation.value_formula.expr}
    points = {"z": sample_points(-8, 8)[:, None], "y": sample_points(*loss.target_range)[None, ::7]}
    shortcut = substitute(value.expr, act)
    full = substitute(substitute(loss.value_formula.expr, {"a": Formula("h").expr}), act)
    _compare(f"{what}: value {value}", "the loss", evaluate(shortcut, points), evaluate(full, points))
    check_derivative(what, shortcut, substitute(delta.expr, act), "z", points, given=True)


def _check_rows(what: str, loss: Loss, value: Formula, delta: Formula, rowwise: str) -> None:
    """Compare on a few rows: softmax couples the outputs of a row, so differences are taken of the whole sum."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(6, 4))
    Y = rng.dirichlet(np.ones(4), size=6)

    def rows(z: FloatArray) -> dict[str, FloatArray]:
        logh = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return {"z": z, "y": Y, "logh": logh, "h": np.exp(logh) if rowwise == "softmax" else logh}

    values = rows(Z)
    if rowwise == "softmax":
        full = loss.value_formula(a=values["h"], y=Y)
        _compare(f"{what}: value {value}", "the loss", evaluate(value.expr, values), full)
    step = 1e-5
    slopes = np.empty_like(Z)
    for column in range(Z.shape[1]):
        shift = np.zeros_like(Z)
        shift[:, column] = step
        right, left = (evaluate(value.expr, rows(Z + sign * shift)).sum(axis=1) for sign in (1, -1))
        slopes[:, column] = (right - left) / (2 * step)
    _compare(f"{what}: delta {delta}", "differences of its value", evaluate(delta.expr, values), slopes)


def _compare(what: str, other: str, found: FloatArray, expected: FloatArray) -> None:
    found, expected = np.broadcast_arrays(found, expected)
    fine = ~np.isfinite(expected) | (np.abs(found - expected) <= TOLERANCE * (1 + np.abs(expected)))
    if not fine.all():
        worst = int(np.argmin(fine))
        raise FormulaError(f"{what} gives {found.flat[worst]:.6g} where {other} gives {expected.flat[worst]:.6g}")
