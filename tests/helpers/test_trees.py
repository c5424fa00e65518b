"""The evaluator that judges random formulas is judged: its bounds must hold, and be tight enough to refuse."""

from __future__ import annotations

import random

import mpmath
import numpy as np
import pytest

from tests.helpers.trees import assert_within, bounded, exact, make_tree, names_in, render

X = ("var", "x")
POINTS = np.random.default_rng(2).normal(size=50).astype(np.float32).astype(np.float64)


def given(x):
    return {"x": (x, np.zeros_like(x))}


def test_the_value_is_that_of_high_precision_within_the_bound():
    judged = 0
    for seed in range(150):
        tree = make_tree(random.Random(seed).choice, "x", 3)
        value, error = (np.broadcast_to(part, POINTS.shape) for part in bounded(tree, given(POINTS), np.float64))
        for k in range(0, 50, 10):
            if np.isfinite(error[k]):
                with mpmath.workdps(40):
                    true = exact(tree, {"x": mpmath.mpf(POINTS[k])})
                assert abs(float(true - mpmath.mpf(value[k]))) <= error[k], f"{render(tree)} at {POINTS[k]}"
                judged += 1
    assert judged > 500


def test_what_nothing_is_promised_about():
    for tree, x in [
        (("log", X), -1.0),
        (("div", ("num", 1.0), X), 0.0),
        (("exp", ("exp", X)), 5.0),
        (("where", ("gt", ("exp", X), ("num", float(np.exp(0.5)))), ("num", 1.0), ("num", 2.0)), 0.5),
        (("sign", ("sub", ("sin", X), ("num", float(np.sin(0.3))))), 0.3),
    ]:
        _, error = bounded(tree, given(np.array([x])), np.float32)
        assert np.isinf(error).all(), render(tree)


def test_cancellation_widens_the_bound_and_nothing_else_does():
    benign = ("add", ("exp", X), ("num", 1.0))
    cancelling = ("sub", benign, ("exp", X))
    x = np.array([10.0])
    value, error = bounded(benign, given(x), np.float32)
    assert error[0] < 20 * np.finfo(np.float32).eps * value[0]
    value, error = bounded(cancelling, given(x), np.float32)
    assert error[0] > 1000 * np.finfo(np.float32).eps * abs(value[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: v + np.float32(1e-5), "wrong, first at"),
        (lambda v: -v, "wrong, first at"),
        (lambda v: np.where(np.arange(50) == 7, np.nan, v).astype(np.float32), r"1 of 50 wrong, first at \(7,\)"),
        (lambda v: v.astype(np.float64), "dtype is float64"),
        (lambda v: v.tolist(), "list"),
    ],
)
def test_wrong_results_are_refused(make, message):
    expected = bounded(("tanh", X), given(POINTS), np.float32)
    right = np.tanh(POINTS.astype(np.float32))
    assert assert_within(right, expected, np.float32) == 50
    with pytest.raises(AssertionError, match=message):
        assert_within(make(right), expected, np.float32)


def test_names_and_text():
    tree = ("where", ("and", ("lt", X, ("num", 1.0)), ("not", ("ge", ("var", "y"), X))), ("neg", X), ("num", -0.5))
    assert names_in(tree) == {"x", "y"}
    assert render(tree) == "where(((x < 1.0) and (not (y >= x))), (-x), (-0.5))"
