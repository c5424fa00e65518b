"""Penalties: values and slopes by hand and by mpmath, sums, declarations that are refused."""

from __future__ import annotations

import math
import pickle
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest

from bpcore.errors import ConfigurationError, FormulaError
from bpcore.functions.expression import evaluate
from bpcore.functions.penalties import L1, L2, Penalty

TEXT: Any = "1"
W = np.array([-3.0, -0.5, 0.0, 0.25, 4.0])


def value(penalty):
    return penalty.value(w=W, **penalty.constants)


def slope(penalty):
    return penalty.derivative(w=W, **penalty.constants)


def test_l1_and_l2_by_hand():
    np.testing.assert_allclose(value(L1(0.5)), [1.5, 0.25, 0, 0.125, 2], rtol=1e-15)
    np.testing.assert_allclose(slope(L1(0.5)), [-0.5, -0.5, 0, 0.5, 0.5], rtol=1e-15)
    np.testing.assert_allclose(value(L2(0.5)), [2.25, 0.0625, 0, 0.015625, 4], rtol=1e-15)
    np.testing.assert_allclose(slope(L2(0.5)), [-1.5, -0.25, 0, 0.125, 2], rtol=1e-15)


def test_strength_zero_costs_nothing():
    for penalty in (L1(0), L2(0)):
        assert not value(penalty).any()
        assert not slope(penalty).any()


def test_gradient_program_adds_to_the_gradient():
    penalty = L2(0.5)
    assert penalty.gradient.inputs == ("g", "lam", "w")
    assert penalty.gradient.outputs == ("g",)
    ((target, expr),) = penalty.gradient.assignments
    assert target == "g"
    result = evaluate(expr, {"g": np.ones(5), "w": W, **penalty.constants})
    np.testing.assert_allclose(result, 1 + 0.5 * W, rtol=1e-15)


def test_derived_slope():
    student = Penalty("student", "lam * log(1 + w*w / s)", lam=0.3, s=2.0)
    for w in (-1.3, 0.2, 5.0):
        expected = mpmath.diff(lambda x: 0.3 * mpmath.log(1 + x * x / 2), w)
        assert student.derivative(w=w, **student.constants) == pytest.approx(float(expected), rel=1e-12)


def test_sums():
    total = L1(0.5) + L2(0.25)
    assert total.constants == {"lam": 0.5, "lam_2": 0.25}
    np.testing.assert_allclose(value(total), value(L1(0.5)) + value(L2(0.25)), rtol=1e-15)
    np.testing.assert_allclose(slope(total), slope(L1(0.5)) + slope(L2(0.25)), rtol=1e-15)
    assert total.name == "l1+l2"
    assert total.source == "Tibshirani 1996; Krogh, Hertz 1992"


def test_sums_of_sums_keep_every_constant():
    own = Penalty("own", "lam_2 * w**4", lam_2=0.125)
    total = (L1(1.0) + own) + (L2(2.0) + L2(4.0))
    assert sorted(total.constants.values()) == [0.125, 1, 2, 4]
    expected = abs(W) + 0.125 * W**4 + 0.5 * 6 * W**2
    np.testing.assert_allclose(value(total), expected, rtol=1e-15)
    np.testing.assert_allclose(slope(total), np.sign(W) + 0.5 * W**3 + 6 * W, rtol=1e-15)
    total_the_other_way = own + (L2(2.0) + L1(1.0))
    np.testing.assert_allclose(value(total_the_other_way), 0.125 * W**4 + W**2 + abs(W), rtol=1e-15)


def test_only_penalties_add_up():
    with pytest.raises(TypeError, match="unsupported operand"):
        L1(0.1) + 1  # type: ignore[operator]


def test_penalties_are_values():
    assert L1(0.1) == L1(0.1)
    assert hash(L1(0.1)) == hash(L1(0.1))
    assert L1(0.1) != L1(0.2)
    assert L1(0.1) != L2(0.1)
    total = L1(0.1) + L2(0.2)
    assert pickle.loads(pickle.dumps(total)) == total
    assert repr(L2(0.1)) == "Penalty('l2', '0.5 * lam * w * w', lam=0.1)"
    with pytest.raises(AttributeError, match="immutable; make a new one instead of setting 'name'"):
        total.name = "x"
    total.constants["lam"] = 7
    assert total.constants["lam"] == 0.1


@pytest.mark.parametrize("lam", [1.0, 1e-7])
def test_wrong_derivative_is_refused(lam):
    with pytest.raises(FormulaError, match=r"penalty 'p': the given derivative .*leave it out to have it derived"):
        Penalty("p", "lam * w * w", "lam * w", lam=lam)
    Penalty("p", "lam * w * w", "2 * lam * w", lam=lam)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Penalty("p", "lam * abs(x)", lam=1), FormulaError, "unknown name 'x'; known: w, lam, pi, e"),
        (lambda: Penalty("p", "lam * abs(w", lam=1), FormulaError, "position"),
        (lambda: Penalty("p", "abs(w)", lam=1), ConfigurationError, r"'p': lam does not occur in 'abs\(w\)'"),
        (lambda: Penalty("p", "lam", lam=1), ConfigurationError, "'p': w does not occur in 'lam'"),
        (lambda: Penalty("p", "lam*w", lam=math.inf), ConfigurationError, "'p': lam must be a finite number"),
        (lambda: Penalty("p", "g*w", g=1), ConfigurationError, "'p': 'g' cannot name a constant"),
        (lambda: L1(-1), ConfigurationError, r"L1: lam must be a finite number in \[0, inf\), got -1"),
        (lambda: L2(TEXT), ConfigurationError, r"L2: lam must be a finite number in \[0, inf\), got '1'"),
    ],
)
def test_wrong_declarations(make, error, message):
    with pytest.raises(error, match=message):
        make()
