"""The evaluation of programs on floats, operation by operation against mpmath, and its special values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath  # type: ignore[import-untyped]
import pytest

from bpcore.functions.expression import OPERATIONS
from bpcore.functions.program import Program
from bpcore.functions.scalars import SCALAR_FUNCTIONS, evaluate_scalars


def value(formula, **values):
    return evaluate_scalars(Program(f"y = {formula}"), values)["y"]


def test_every_operation_is_there():
    lazy = {"where", "and", "or"}
    expanded = {name for name, operation in OPERATIONS.items() if operation.expansion is not None}
    assert set(SCALAR_FUNCTIONS) == set(OPERATIONS) - lazy - expanded


FORMULAS: dict[str, Callable[..., Any]] = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a ** b": lambda a, b: mpmath.power(a, b),
    "-a": lambda a, b: -a,
    "exp(-a)": lambda a, b: mpmath.exp(-a),
    "expm1(b)": lambda a, b: mpmath.expm1(b),
    "log(a)": lambda a, b: mpmath.log(a),
    "log1p(a)": lambda a, b: mpmath.log1p(a),
    "sqrt(a)": lambda a, b: mpmath.sqrt(a),
    "abs(-b)": lambda a, b: abs(b),
    "tanh(a)": lambda a, b: mpmath.tanh(a),
    "sin(a)": lambda a, b: mpmath.sin(a),
    "cos(a)": lambda a, b: mpmath.cos(a),
    "erf(b)": lambda a, b: mpmath.erf(b),
    "erfc(b)": lambda a, b: mpmath.erfc(b),
    "sigmoid(a)": lambda a, b: 1 / (1 + mpmath.exp(-a)),
    "softplus(a)": lambda a, b: mpmath.log(1 + mpmath.exp(a)),
    "min(a, b)": min,
    "max(a, b)": max,
    "clip(b, 1, 2)": lambda a, b: min(max(b, 1), 2),
    "a if a < b else b - a": lambda a, b: a if a < b else b - a,
    "a if a >= b and b != 2 else b": lambda a, b: a if a >= b and b != 2 else b,
    "1 if not (a > b or a == 2) else 3": lambda a, b: 1 if not (a > b or a == 2) else 3,
    "1 if a <= b else 3": lambda a, b: 1 if a <= b else 3,
}


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize(("a", "b"), [(0.3, 1.7), (2.0, 0.5), (2.0, 2.0), (7.25, 3.0)])
def test_against_mpmath(formula, a, b):
    expected = float(FORMULAS[formula](mpmath.mpf(a), mpmath.mpf(b)))
    # one or two operations of libm, each within an ulp or two
    assert value(formula, a=a, b=b) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("formula", ["min(a, b)", "min(b, a)", "max(a, b)", "max(b, a)", "sign(a)"])
def test_nan_is_passed_on(formula):
    assert math.isnan(value(formula, a=math.nan, b=1.0))


def test_sign():
    assert [value("sign(a)", a=a) for a in (-2.0, 0.0, 3.0)] == [-1, 0, 1]


def test_lines_see_earlier_lines_and_only_the_last_value_is_returned():
    result = evaluate_scalars(Program("c = a + 1; c = c * 2; d = c"), {"a": 1.0, "unused": 5.0})
    assert result == {"c": 4.0, "d": 4.0}


def test_choices_are_lazy():
    assert value("1/a if a > 0 else 0", a=0.0) == 0


def test_python_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        value("1 / a", a=0.0)
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        value("sqrt(a)", a=-1.0)
