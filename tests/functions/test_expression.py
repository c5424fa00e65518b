"""The table of operations, the simplifying constructors and the symbolic derivative."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bpcore.functions import expression
from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var, call, derivative, evaluate, expand
from bpcore.functions.formula import FUNCTIONS, Formula
from tests.helpers.trees import exact, make_tree, names_in, render

X, Y = Var("x"), Var("y")


@st.composite
def trees(draw, names="xy", depth=3):
    return make_tree(lambda options: draw(st.sampled_from(list(options))), names, depth)


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_entry_is_complete(op):
    operation = OPERATIONS[op]
    assert operation.arity in (1, 2, 3)
    assert bool(operation.ufunc) + (operation.expansion is not None) + (op == "where") == 1
    if operation.truth:
        assert operation.partials == ()
    else:
        assert len(operation.partials) == operation.arity
        arguments = [
            Call("gt", (X, Y)) if k in operation.takes_truth else Var("xyz"[k]) for k in range(operation.arity)
        ]
        for partial in operation.partials:
            assert isinstance(partial(*arguments), Expr)


def test_the_language_and_the_table_name_the_same_functions():
    named = {op for op, operation in OPERATIONS.items() if not operation.infix and not operation.truth} - {"pow"}
    assert named | {"clip"} == set(FUNCTIONS)


@pytest.mark.parametrize("op", [op for op, o in OPERATIONS.items() if not o.truth and op != "where"])
@pytest.mark.parametrize("point", [0.37, 1.3, 2.6])
def test_every_partial_derivative_against_mpmath(op, point):
    # second argument away from the first: min and max have their kink where both are equal
    operation = OPERATIONS[op]
    values = [point, 1.7][: operation.arity]
    names = ["x", "y"][: operation.arity]
    node = Call(op, tuple(Var(name) for name in names))
    with mpmath.workdps(40):
        for k, name in enumerate(names):
            others = dict(zip(names, map(mpmath.mpf, values), strict=True))
            slope = mpmath.diff(lambda v, name=name, others=others: exact(node, {**others, name: v}), values[k])
            found = exact(derivative(node, name), others)
            assert abs(found - slope) < 1e-14 * (1 + abs(slope)), (op, name)


# ------------------------------------------------------------------------------------------------ derivatives


@settings(max_examples=200, derandomize=True, deadline=None)
@given(trees(), st.sampled_from("xy"), st.floats(-2, 2), st.floats(-2, 2))
def test_derivatives_of_random_formulas_against_mpmath(tree, name, x, y):
    assume(name in names_in(tree))
    formula = Formula(render(tree))
    slope_formula = formula.derivative(name).expr
    with mpmath.workdps(60):
        # 1/3 keeps clear of the kinks, which sit at round numbers
        point = {"x": mpmath.mpf(x) + mpmath.mpf(1) / 3, "y": mpmath.mpf(y) - mpmath.mpf(1) / 7}
        step = mpmath.mpf(10) ** -20

        def at(shift):
            return exact(tree, {**point, name: point[name] + shift})

        try:
            here, left, right = at(0), at(-step), at(step)
            found = exact(slope_formula, point)
        except (ZeroDivisionError, OverflowError, TypeError, ValueError):
            # a pole, or the logarithm of a negative number
            assume(False)
        assume(all(mpmath.isfinite(v) and abs(v) < 1e15 for v in (here, left, right, found)))
        # 1/x at x = 1e-30 passes every other filter
        sides = (here - left) / step, (right - here) / step
        assume(abs(sides[0] - sides[1]) < 1e-6 * (1 + abs(sides[0])))
        expected = (right - left) / (2 * step)
        # constants such as 2/sqrt(pi) are float64 in the derivative; their errors may be magnified a little
        assert abs(found - expected) <= 1e-10 * (1 + abs(expected)), f"{render(tree)}: {found} != {expected}"


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("x**3 - 2*x", -2, 2),
        ("exp(-x**2) * cos(3*x)", -2, 2),
        ("tanh(x) * sigmoid(2*x) + softplus(-x)", -5, 5),
        ("log(1 + x**2) / sqrt(2 + x)", -1, 3),
        ("erf(x) - erfc(x/2)", -2, 2),
        ("sqrt(abs(x) + 0.1) * sign(x)", 0.1, 2),
        ("where(x > 0.3, x**2, sin(x))", 0.31, 2),
        ("clip(x, -1, 1) * x + min(x, 7) - max(x, -9)", -0.9, 0.9),
        ("x ** x", 0.2, 3),
        ("2 ** x + x ** -1.5", 0.2, 3),
        ("1 / (1 + exp(-x)) ** 2", -4, 4),
        ("expm1(x) * log1p(x)", -0.5, 2),
    ],
)
def test_derivatives_against_central_differences(text, low, high):
    formula = Formula(text)
    x = np.linspace(low, high, 101)[1:-1]
    step = np.cbrt(np.finfo(float).eps) * np.maximum(1, np.abs(x))
    differences = (formula(x=x + step) - formula(x=x - step)) / (2 * step)
    found = np.broadcast_to(formula.derivative("x")(x=x), x.shape)
    # error eps**(2/3) times the third derivative, here at most about 1e3 times the slope
    assert np.all(np.abs(found - differences) <= 1e-7 * (1 + np.abs(differences)))


def test_the_derivative_by_an_absent_variable_is_zero():
    assert Formula("x*exp(y)").derivative("w").expr == Num(0.0)


@pytest.mark.parametrize(
    ("text", "at", "allowed"),
    [
        ("abs(x)", 0.0, (0.0,)),
        ("max(x, 0)", 0.0, (0.0, 1.0)),
        ("min(x, 0)", 0.0, (0.0, 1.0)),
        ("clip(x, -1, 1)", 1.0, (0.0, 1.0)),
        ("clip(x, -1, 1)", -1.0, (0.0, 1.0)),
        ("where(x > 0, 2*x, 3*x)", 0.0, (2.0, 3.0)),
        ("sign(x)", 0.0, (0.0,)),
    ],
)
def test_at_a_kink_the_derivative_is_a_one_sided_value(text, at, allowed):
    assert float(Formula(text).derivative("x")(x=at)) in allowed


def test_at_a_tie_the_shares_of_min_and_max_add_up_to_one():
    for text in ("max(x, y)", "min(x, y)"):
        shares = [float(Formula(text).derivative(name)(x=2.0, y=2.0)) for name in "xy"]
        assert sum(shares) == 1.0, text


def test_the_unused_branch_of_a_choice_cannot_spoil_the_derivative():
    # the derivative of log(x) at x <= 0 is multiplied by a 0 that was chosen, not by 0 * inf
    formula = Formula("where(x > 0, log(x), 0)").derivative("x")
    assert formula(x=np.array([-1.0, 0.0, 2.0])).tolist() == [0.0, 0.0, 0.5]


def test_derivative_of_a_power_at_zero_is_finite():
    assert float(Formula("x**2").derivative("x")(x=0.0)) == 0.0
    assert float(Formula("x**1").derivative("x")(x=0.0)) == 1.0


# ------------------------------------------------------------------------------------------------ building


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (X + 0, X),
        (0 + X, X),
        (X - 0, X),
        (0 - X, Call("neg", (X,))),
        (X * 1, X),
        (1 * X, X),
        (X * 0, Num(0.0)),
        (X / 1, X),
        (X**1, X),
        (X**0, Num(1.0)),
        (X.__neg__().__neg__(), X),
        (X + -Y, Call("sub", (X, Y))),
        (X - -Y, Call("add", (X, Y))),
        (Num(2.0) * 3, Num(6.0)),
        (call("exp", 0), Num(1.0)),
        (-1 * X, Call("neg", (X,))),
        (-(X - Y), Call("sub", (Y, X))),
        (call("where", Call("gt", (X, Num(0.0))), Y, Y), Y),
    ],
)
def test_constructors_simplify(built, expected):
    assert built == expected


def test_what_is_not_finite_is_not_folded():
    for op, args in (("log", (0,)), ("div", (1, 0)), ("exp", (1000,)), ("sqrt", (-1,))):
        node = call(op, *args)
        assert isinstance(node, Call), op
        assert not math.isfinite(float(evaluate(node, {})))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(trees())
def test_expanding_does_not_change_the_value(tree):
    expr = Formula(render(tree)).expr
    expanded = expand(expr)
    assert not any(isinstance(n, Call) and OPERATIONS[n.op].expansion for n in expression.walk(expanded))
    with mpmath.workdps(40):
        point = {"x": mpmath.mpf("0.37"), "y": mpmath.mpf("-1.21")}
        try:
            expected, found = exact(expr, point), exact(expanded, point)
        except (ZeroDivisionError, OverflowError, TypeError, ValueError):
            return
        assert mpmath.almosteq(found, expected, 1e-30, 1e-30) or not mpmath.isfinite(expected)


def test_variables_walk_and_substitute():
    expr = Formula("b*a + where(c > a, b, 2)").expr
    assert expression.variables(expr) == ("b", "a", "c")
    assert next(expression.walk(expr)) == expr
    replaced = expression.substitute(expr, {"a": Var("b"), "b": Var("a")})
    assert expression.variables(replaced) == ("a", "b", "c")
    assert expression.substitute(expr, {}) == expr


def test_nodes_are_values():
    assert X + Y == Var("x") + Var("y")
    assert hash(X + Y) == hash(Var("x") + Var("y"))
    assert X + Y != Y + X
    with pytest.raises(AttributeError):
        X.name = "y"  # type: ignore[misc]


def test_constants_that_overflow_are_left_to_the_evaluation():
    """A product of constants that is infinite is not folded: infinity cannot be printed as a number."""
    formula = Formula("1e200 * (1e200 * x)")
    assert formula(x=1.0) == np.inf
    assert "inf" not in str(formula.derivative("x"))
    assert (Num(1e200) * Num(1e200)) == Call("mul", (Num(1e200), Num(1e200)))
    assert "inf" not in str(Formula(Num(1e200) * (Num(1e200) * Var("x"))))
