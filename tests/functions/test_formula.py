"""The formula language: what it says yes to, what it means, and every refusal with its position."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bpcore.errors import BpcoreError, FormulaError
from bpcore.functions.formula import FUNCTIONS, MAX_DEPTH, MAX_LENGTH, Formula, parse
from bpcore.functions.printing import to_text
from tests.helpers.compare import assert_close
from tests.helpers.reference import LANGUAGE
from tests.helpers.trees import assert_within, bounded, make_tree, render

GRID = np.random.default_rng(7).normal(size=(6, 5)).astype(np.float32).astype(np.float64) * 2
VALUES = {"x": GRID, "y": GRID[::-1].copy(), "z": np.roll(GRID, 7)}


@st.composite
def trees(draw, names="xyz", depth=4):
    return make_tree(lambda options: draw(st.sampled_from(list(options))), names, depth)


# ------------------------------------------------------------------------------------------------ meaning


@settings(max_examples=150, derandomize=True, deadline=None)
@given(trees())
def test_random_formulas_mean_what_our_own_evaluator_says(tree):
    formula = Formula(render(tree))
    for dtype in (np.float32, np.float64):
        expected = bounded(tree, {name: (v, np.zeros_like(v)) for name, v in VALUES.items()}, dtype)
        found = formula(**{name: value.astype(dtype) for name, value in VALUES.items()})
        found = np.broadcast_to(np.asarray(found, dtype), GRID.shape).copy()
        assert_within(found, expected, dtype, render(tree))


def test_the_error_bounds_leave_enough_to_judge():
    # without this, a generator that only makes NaN would let everything pass
    import random

    choose, judged = random.Random(3).choice, 0
    for _ in range(200):
        tree = make_tree(choose, "xyz", 4)
        value, error = bounded(tree, {n: (v, np.zeros_like(v)) for n, v in VALUES.items()}, np.float32)
        judged += int(np.count_nonzero(np.broadcast_to(error < 1e-2 * (1 + np.abs(value)), GRID.shape)))
    assert judged > 0.8 * 200 * GRID.size


@pytest.mark.parametrize(
    "text",
    [
        "x + y * z",
        "(x + y) * z",
        "x - y - z",
        "x - (y - z)",
        "x / y / z",
        "x / (y / z)",
        "x * y / z * x",
        "-x ** 2",
        "(-x) ** 2",
        "2 ** -x",
        "2 ** 3 ** 0.5 * x",
        "(2 ** 3) ** 0.5 * x",
        "--x",
        "+x - -y",
        "-(x - y)",
        "x * -y",
        "1e-3 * x + .5",
        "pi * x + e",
        "1_000 * x",
    ],
)
def test_arithmetic_binds_as_in_python(text):
    names = {**VALUES, "pi": math.pi, "e": math.e}
    expected = np.broadcast_to(eval(text, {"__builtins__": {}}, names), GRID.shape)
    values = {name: VALUES[name] for name in Formula(text).variables}
    found = np.array(np.broadcast_to(Formula(text)(**values), GRID.shape))
    # folding constants first may round once more, and the terms may cancel
    assert_close(found, expected, dtype=np.float64, scale=np.abs(expected) + 4)
    assert Formula(to_text(parse(text))).expr == parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x < y", lambda x, y: x < y),
        ("x <= y", lambda x, y: x <= y),
        ("x > y", lambda x, y: x > y),
        ("x >= y", lambda x, y: x >= y),
        ("x == y", lambda x, y: x == y),
        ("x != y", lambda x, y: x != y),
        ("0 < x < y", lambda x, y: (0 < x) & (x < y)),
        ("-1 < x <= 1 != y", lambda x, y: (x > -1) & (x <= 1) & (y != 1)),
        ("x < 0 and y < 0 or x > 1", lambda x, y: ((x < 0) & (y < 0)) | (x > 1)),
        ("x < 0 and (y < 0 or x > 1)", lambda x, y: (x < 0) & ((y < 0) | (x > 1))),
        ("not x < 0 and y < 0", lambda x, y: (x >= 0) & (y < 0)),
        ("not (x < 0 and y < 0)", lambda x, y: ~((x < 0) & (y < 0))),
        ("x < 0 or y < 0 or x > y", lambda x, y: (x < 0) | (y < 0) | (x > y)),
    ],
)
@pytest.mark.parametrize("form", ["where({}, 2, -3)", "2 if {} else -3"])
def test_conditions(text, expected, form):
    x = np.array([-2.0, -1.0, -1.0, 0.0, 0.5, 1.0, 2.0, 1.0, np.nan])
    y = np.array([-3.0, 2.0, -1.0, 0.0, -1.0, 1.0, 5.0, 0.5, 0.0])
    formula = Formula(form.format(text))
    values = {name: {"x": x, "y": y}[name] for name in formula.variables}
    assert np.array_equal(formula(**values), np.where(expected(x, y), 2.0, -3.0))


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("min", "max", "clip", "where")])
def test_functions_on_a_grid_and_at_the_edges(name):
    x = np.concatenate([np.linspace(-30, 30, 241), [0.0, -0.0, 1e-300, -1e-300, 1e4, -1e4]])
    edges = np.array([np.inf, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        expected = np.asarray(LANGUAGE[name](np.concatenate([x, edges])), np.float64)
        found = Formula(f"{name}(x)")(x=np.concatenate([x, edges]))
    assert_close(found, expected, dtype=np.float64)


def test_min_max_and_clip_hand_nan_on():
    nan, x = np.array([np.nan]), np.array([1.0])
    for text in ("min(x, y)", "max(x, y)", "min(y, x)", "max(y, x)", "clip(x, -1, y)", "clip(x, y, 3)"):
        assert np.isnan(Formula(text)(x=nan, y=x)), text
        assert np.isnan(Formula(text)(x=x, y=nan)), text
    assert float(Formula("min(x, 3, y, -2)")(x=1.0, y=-5.0)) == -5.0
    assert float(Formula("max(x, 3, y, -2)")(x=1.0, y=9.0)) == 9.0
    assert [float(Formula("clip(x, -1, 2)")(x=v)) for v in (-9.0, 0.5, 9.0)] == [-1.0, 0.5, 2.0]


def test_a_variable_may_be_called_e_when_it_is_declared():
    assert Formula("2 * e").variables == ()
    assert float(Formula("2 * e")()) == pytest.approx(2 * math.e)
    assert float(Formula("2 * e", ["e"])(e=3.0)) == 6.0


# ------------------------------------------------------------------------------------------------ the object


def test_variables_are_in_order_of_first_appearance():
    assert Formula("b*a + c*b + where(d > 0, a, 1)").variables == ("b", "a", "c", "d")


def test_substitution_is_simultaneous():
    swapped = Formula("x - 2*y").substitute(x="y", y="x")
    assert float(swapped(x=1.0, y=5.0)) == 5.0 - 2.0
    assert float(Formula("x*y").substitute(x=Formula("y + 1"), y=3)(y=10.0)) == 33.0


def test_missing_value_is_named():
    with pytest.raises(FormulaError, match="no value for w, b in formula 'w\\*x \\+ b'"):
        Formula("w*x + b")(x=1.0)


def test_equal_formulas_are_equal_and_hashable_whatever_their_spaces():
    assert Formula("a+b * c") == Formula(" a + (b*c)")
    assert hash(Formula("a+b * c")) == hash(Formula(" a + (b*c)"))
    assert Formula("a - b") != Formula("b - a")
    assert Formula("a") != "a"


def test_a_formula_can_be_pickled_and_printed():
    formula = Formula("where(x > 0, x, exp(x) - 1)")
    again = pickle.loads(pickle.dumps(formula))
    assert again == formula
    assert again.text == formula.text
    assert repr(formula) == "Formula('where(x > 0, x, exp(x) - 1)')"


# ------------------------------------------------------------------------------------------------ stable forms


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("z / (1 + exp(-z))", lambda z: z * special.expit(z)),
        ("z / (exp(-z) + 1)", lambda z: z * special.expit(z)),
        ("1 / (1 + exp(-z))", special.expit),
        ("1 / (1 + exp(z))", lambda z: special.expit(-z)),
        ("log(1 + exp(z))", lambda z: np.logaddexp(0, z)),
        ("log(exp(z) + 1)", lambda z: np.logaddexp(0, z)),
        ("z * sigmoid(z)", lambda z: z * special.expit(z)),
        ("z * tanh(log(1 + exp(z)))", lambda z: z * np.tanh(np.logaddexp(0, z))),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forms_that_overflow_are_rewritten(text, reference, dtype):
    size = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 200)])
    z = np.concatenate([-size[::-1], size]).astype(dtype)
    # z * sigmoid(z) multiplies the rounding of exp by nothing, but exp(-z) itself has the relative error |z| eps/2
    # of its argument only in other spellings; eight eps cover all of these.
    assert_close(Formula(text)(z=z), reference(z.astype(np.float64)), dtype=dtype)


@pytest.mark.parametrize("text", ["z / (1 + exp(-z))", "log(1 + exp(z))", "1 / (1 + exp(-z))"])
def test_their_derivatives_do_not_overflow_either(text):
    derivative = Formula(text).derivative("z")
    z = np.array([-1e4, -200, -89, -88, -30, -1, 0, 1, 30, 88, 89, 200, 1e4], np.float32)
    exact = np.array(z, np.float64)
    s, c = special.expit(exact), special.expit(-exact)
    expected = {"z": s + exact * s * c, "l": s, "1": s * c}[text[0]]
    assert_close(derivative(z=z), expected, dtype=np.float32, scale=1.0)


@pytest.mark.parametrize(("text", "reference"), [("exp(x) - 1", np.expm1), ("log(1 + x)", np.log1p)])
def test_small_arguments_keep_their_digits(text, reference):
    x = np.array([1e-12, -1e-9, 1e-6, 1e-3, 0.5], np.float32)
    assert_close(Formula(text)(x=x), reference(x.astype(np.float64)), dtype=np.float32)


# ------------------------------------------------------------------------------------------------ refusals

LONG = "x" + " + x" * 1000

REFUSALS = [
    # text, message, position (1-based, of the offence; None where Python's own parser decides it)
    ("tanh(z) + w", "unknown name 'w'; known: z, x, pi, e", 11),
    ("z + tahn(z)", "unknown function 'tahn'.*Did you mean 'tanh'", 5),
    ("np.exp(z)", "only the named functions of the language can be called", 1),
    ("z.real", "Attribute is not part of the formula language", 1),
    ("2 * z[0]", "Subscript is not part", 5),
    ("(lambda: z)", "Lambda is not part", 2),
    ("exp(x=z)", "exp takes its arguments by position", 1),
    ("1 + clip(z, 0, high=1)", "clip takes its arguments by position", 5),
    ("exp(*z)", "Starred is not part|exp takes", 5),
    ("z ^ 2", r"operator BitXor .* powers are written with \*\*", 1),
    ("z & x", "operator BitAnd .* join conditions with 'and'", 1),
    ("z | x", "operator BitOr .* join conditions with 'or'", 1),
    ("z % 2", r"operator Mod is not in the language: the operators are \+ - \* / \*\*", 1),
    ("z // 2", "operator FloorDiv", 1),
    ("z @ x", "operator MatMult", 1),
    ("z << 2", "operator LShift", 1),
    ("~z", "UnaryOp is not part", 1),
    ("z + (x > 0)", "a comparison is not a number here; write where", 6),
    ("z > 0", "a comparison is not a number here", 1),
    ("not z > 0", "a comparison is not a number here", 1),
    ("exp(z > 0)", "a comparison is not a number here", 5),
    ("(z > 0) > 1", "a comparison is not a number here", 2),
    ("where(z, 1, 2)", "a comparison such as 'z > 0' is needed here, not a number", 7),
    ("1 if z else 2", "a comparison such as", 6),
    ("1 if z > 0 and x else 2", "a comparison such as", 16),
    ("where(not z, 1, 2)", "a comparison such as", 11),
    ("where(z > 0, 1)", "where takes 3 arguments, got 2", 1),
    ("where(z > 0, x > 0, 1)", "a comparison is not a number here", 14),
    ("exp()", "exp takes 1 argument, got 0", 1),
    ("z * exp(z, x)", "exp takes 1 argument, got 2", 5),
    ("clip(z)", "clip takes 3 arguments, got 1", 1),
    ("min(z)", "min takes two or more arguments, got 1", 1),
    ("max()", "max takes two or more arguments, got 0", 1),
    ("exp + z", r"exp is a function: write exp\(\.\.\.\)", 1),
    ("z in x", "comparison In is not part", 1),
    ("z is x", "comparison Is is not part", 1),
    ("where(z not in x, 1, 2)", "comparison NotIn is not part", 7),
    ("'z'", "Constant is not part", 1),
    ("z + 'a'", "Constant is not part", 5),
    ("True", "Constant is not part", 1),
    ("None + z", "Constant is not part", 1),
    ("z + 2j", "Constant is not part", 5),
    ("z + ...", "Constant is not part", 5),
    ("b'z'", "Constant is not part", 1),
    ("f'{z}'", "JoinedStr is not part", 1),
    ("f'{__import__(\"os\")}'", "JoinedStr is not part", 1),
    ("(z := 3)", "NamedExpr is not part", 2),
    ("[z for z in x]", "ListComp is not part", 1),
    ("exp(q for q in x)", "GeneratorExp is not part", 4),
    ("{z: x}", "Dict is not part", 1),
    ("{z}", "Set is not part", 1),
    ("(z, x)", "Tuple is not part", 1),
    ("[z]", "List is not part", 1),
    ("z, x", "Tuple is not part", 1),
    ("await z", "Await is not part|outside", 1),
    ("(yield z)", "Yield is not part|outside", 2),
    ("__import__('os').system('true')", "only the named functions of the language", 1),
    ("__import__('os')", "unknown function '__import__'", 1),
    ("eval('z')", "unknown function 'eval'", 1),
    ("open(z)", "unknown function 'open'", 1),
    ("z.__class__.__bases__[0]", "Subscript is not part", 1),
    ("exp(z)(x)", "only the named functions", 1),
    ("z + 1e400", "the number is too large for float64", 5),
    ("z + 1" + "0" * 400, "the number is too large for float64", 5),
    ("z +", "invalid syntax", None),
    ("(z", "was never closed", None),
    ("z = 3", "invalid syntax", None),
    ("z; x", "invalid syntax", None),
    ("import os", "invalid syntax", None),
    ("z 3", "invalid syntax", None),
    ("2z", "invalid decimal literal", None),
    ("z\n+ w", "invalid syntax|unknown name", None),
    ("z \x00", "null byte|source code", None),
]


@pytest.mark.parametrize(("text", "message", "position"), REFUSALS, ids=[row[0][:24] for row in REFUSALS])
def test_refused_with_message_and_position(text, message, position):
    with pytest.raises(FormulaError, match=message) as caught:
        Formula(text, ["z", "x"])
    assert isinstance(caught.value, BpcoreError)
    assert isinstance(caught.value, ValueError)
    lines = str(caught.value).split("\n")
    if position is not None:
        assert lines[-1].strip() == f"^ position {position}", str(caught.value)
        # the caret stands under the offending character of the text, printed with the same indent
        assert lines[-1].index("^") - 2 == position - 1
        assert lines[-2][2:] == text


def test_the_position_counts_characters_over_several_lines():
    with pytest.raises(FormulaError, match="unknown name 'w'") as caught:
        Formula("(z\n  + w)", ["z"])
    assert str(caught.value).split("\n")[-1].strip() == "^ position 8"


@pytest.mark.parametrize("text", ["", "   ", "\n", None, 3, b"z", ["z"]])
def test_what_is_not_text_is_refused(text):
    with pytest.raises(FormulaError, match="a formula is a text such as"):
        parse(text)


def test_too_long():
    with pytest.raises(FormulaError, match=f"{len(LONG)} characters; the limit is {MAX_LENGTH}"):
        Formula(LONG)


@pytest.mark.parametrize(
    "text",
    ["tanh(" * (MAX_DEPTH + 1) + "z" + ")" * (MAX_DEPTH + 1), "-" * 2000 + "z", "z" + "**z" * 1000, "(" * 3000],
    ids=["calls", "minus", "power", "open"],
)
def test_too_deep(text):
    with pytest.raises(FormulaError, match=r"nested|deep|never closed|complex|too many|recursion|memory"):
        Formula(text)


def test_a_long_sum_is_not_deep_enough_to_fail_anywhere():
    # 140 terms are a left-leaning tree of depth 140: every walk over it must get through
    formula = Formula(" + ".join(f"x{i}" for i in range(140)))
    assert len(formula.variables) == 140
    assert float(formula(**{f"x{i}": 1.0 for i in range(140)})) == 140.0
    assert str(formula.derivative("x0")) == "1"
    assert Formula(str(formula)) == formula


@pytest.mark.parametrize("name", ["\N{GREEK SMALL LETTER THETA}", "z\N{COMBINING ACUTE ACCENT}", "größe"])
def test_a_name_outside_ascii_is_refused(name):
    with pytest.raises(FormulaError, match="is not ASCII; spell it out") as caught:
        Formula(f"2 * {name}")
    assert "position 5" in str(caught.value)


def test_no_text_is_ever_executed(monkeypatch):
    import builtins

    def forbidden(*args, **kwargs):
        raise AssertionError("text was executed")

    monkeypatch.setattr(builtins, "eval", forbidden)
    monkeypatch.setattr(builtins, "exec", forbidden)
    formula = Formula("z / (1 + exp(-z))")
    assert float(formula(z=0.0)) == 0.0
    assert float(formula.derivative("z")(z=0.0)) == 0.5
    for text, _, _ in REFUSALS:
        with pytest.raises(FormulaError):
            Formula(text, ["z", "x"])


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(alphabet="xz01.+-*/()<>=!, efpiwhrtan'[]{}:_\\\n;@#&|^%~\t", max_size=40))
def test_any_text_is_either_a_formula_or_a_formula_error(text):
    try:
        formula = Formula(text)
    except FormulaError:
        return
    assert Formula(str(formula)).expr == formula.expr
