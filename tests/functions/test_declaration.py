"""The check of a declared derivative: what it accepts, what it refuses, and where it looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpcore.errors import FormulaError
from bpcore.functions.activations import Activation
from bpcore.functions.declaration import check_derivative, sample_points
from bpcore.functions.formula import Formula, parse
from tests.helpers.trees import make_tree, render


def check(formula, derivative, *, low=-8.0, high=8.0, given=True, **others):
    points = {"x": sample_points(low, high), **others}
    check_derivative("f", parse(formula), parse(derivative), "x", points, given=given)


# ------------------------------------------------------------------------------------------------ points


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-math.inf, math.inf),
        (0, 1),
        (0, math.inf),
        (-math.inf, 0),
        (-1, 1),
        (1e-3, 2e-3),
        (10, math.inf),
        (-math.inf, -20),
        (100, 200),
        (8, 9),
    ],
)
def test_points_lie_inside_the_interval(low, high):
    points = sample_points(low, high)
    assert points.dtype == np.float64
    assert len(points) >= 50
    assert (np.diff(points) > 0).all()
    assert low < points[0]
    assert points[-1] < high


def test_points_avoid_the_places_where_kinks_sit():
    for low, high in ((-math.inf, math.inf), (0, 1), (-1, 1), (0, math.inf)):
        points = sample_points(low, high)
        tenths = points * 10
        # farther from every multiple of 0.1 than the step of a central difference at 8
        assert np.abs(tenths - np.round(tenths)).min() > 1e-4, (low, high)


def test_points_are_dense_enough_to_see_each_side_of_a_kink_at_one():
    points = sample_points(-math.inf, math.inf)
    assert ((points > 0) & (points < 1)).sum() >= 3
    assert ((points > -1) & (points < 0)).sum() >= 3


# ------------------------------------------------------------------------------------------------ right and wrong


@pytest.mark.parametrize(
    ("formula", "derivative"),
    [
        ("x**3", "3*x**2"),
        ("exp(x)", "h"),
        ("1 / (1 + exp(-x))", "h * (1 - h)"),
        ("abs(x)", "sign(x)"),
        ("max(x, 0)", "where(x > 0, 1, 0)"),
        ("clip(x, -1, 1)", "where(abs(x) < 1, 1, 0)"),
        ("sign(x)", "0"),
        ("where(x > 1, 3, 0)", "0"),
        ("sin(20*x)", "20*cos(20*x)"),
        ("1e6 * x**2", "2e6 * x"),
        ("1e-6 * x**2", "2e-6 * x"),
        ("log(x)", "1/x"),
        ("sqrt(x)", "0.5/h"),
    ],
)
def test_right_derivatives_pass(formula, derivative):
    check(formula, derivative)


@pytest.mark.parametrize(
    ("formula", "derivative"),
    [
        ("x**3", "3*x"),
        ("x**3", "-3*x**2"),
        ("exp(x)", "h - 0.001"),
        ("tanh(x)", "1 - h"),
        ("tanh(x)", "(1 - h*h) * 1.0001"),
        ("abs(x)", "1"),
        ("max(x, 0)", "where(x > 0.3, 1, 0)"),
        ("max(x, 0)", "where(x >= 0, 1, 0.01)"),
        ("x", "where(x > 7, 0, 1)"),
        ("x", "where(x < -7, 0, 1)"),
        ("x**2", "2*x + 1/(x - x)"),
        ("x**2", "log(x)"),
        ("x**2", "exp(1000*x)"),
        ("sigmoid(x)", "h"),
    ],
)
def test_wrong_derivatives_are_refused(formula, derivative):
    with pytest.raises(FormulaError, match=r"^f: the given derivative .* but differences of .* give"):
        check(formula, derivative)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_no_derived_derivative_is_ever_refused(data):
    tree = make_tree(lambda options: data.draw(st.sampled_from(list(options))), "z", 3)
    text = render(tree)
    # divisions make poles between the points, and powers of them steps too steep for a float64 difference
    if any(word in text for word in ("/", "** (-", "log", "** 0.5", "sqrt", "exp")):
        return
    # no finite value anywhere, such as sqrt(-1 - z*z), is the one reason to refuse
    with np.errstate(all="ignore"):
        values = np.broadcast_to(Formula(text)(z=sample_points(-8, 8)), (61,))
    if np.isfinite(values).all():
        Activation("random", text)


def test_the_message_shows_the_place_and_both_numbers():
    with pytest.raises(FormulaError) as caught:
        check("x*x", "3*x")
    words = str(caught.value)
    assert words.startswith("f: the given derivative 3 * x is ")
    assert words.endswith("Correct it, or leave it out to have it derived.")
    x = float(words.split("x = ")[1].split(",")[0])
    assert x in [float(f"{point:.6g}") for point in sample_points(-8, 8)]
    assert float(words.split(" is ")[1].split()[0]) == pytest.approx(3 * x, rel=1e-4)
    assert float(words.split(" give ")[1].split(".C")[0].split(". ")[0]) == pytest.approx(2 * x, rel=1e-4)


def test_a_derived_derivative_that_fails_says_so():
    with pytest.raises(FormulaError, match=r"the derived derivative .*\. Give the derivative yourself"):
        check("x*x", "3*x", given=False)


def test_all_variables_are_named_and_probed():
    points = {"y": np.array([[0.5], [2.0]])}
    check("x*y", "y", **points)
    with pytest.raises(FormulaError, match=r"at x = -?[\d.]+, y = (0.5|2), but"):
        check("x*y", "x", **points)
    with pytest.raises(FormulaError, match="y = 2, but"):
        check("x*y", "where(y > 1, 0, y)", **points)


def test_a_function_without_values_is_refused():
    with pytest.raises(FormulaError, match=r"f: log\(-x \* x\) has no finite value with a slope on its domain"):
        check("log(-x*x)", "2/x")


def test_points_outside_the_domain_of_the_function_are_left_out():
    check("sqrt(x - 2)", "0.5/h")
    with pytest.raises(FormulaError, match="the given derivative"):
        check("sqrt(x - 2)", "0.4/h")


def test_a_kink_on_a_point_is_left_out_but_its_neighbours_are_not():
    kink = float(sample_points(-8, 8)[30])
    check(f"abs(x - {kink!r})", f"where(x > {kink!r}, 1, -1)")
    with pytest.raises(FormulaError, match="the given derivative"):
        check(f"abs(x - {kink!r})", "1")


def test_the_probe_warns_of_nothing(recwarn):
    check("log(x)", "1/x")
    Activation("overflow", "where(x > 0, 0, 0)".replace("x", "z") + " + clip(exp(z*z*z), 0, 2)")
    assert not recwarn.list


def test_a_domain_far_from_zero_is_probed_where_it_is():
    act = Activation("far", "sqrt(z - 10)", domain=(10, math.inf))
    assert act.derivative_formula == Formula("sqrt(z - 10)").derivative("z")
    with pytest.raises(FormulaError, match="the given derivative"):
        Activation("far", "sqrt(z - 10)", "1 / h", domain=(10, math.inf))
