"""Printed text, compiled and run: Python and C++ must compute what our own evaluator computes."""

from __future__ import annotations

import math
import random
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpcore.functions.expression import OPERATIONS, Num
from bpcore.functions.formula import Formula, parse
from bpcore.functions.printing import to_c, to_python, to_text
from tests.helpers.trees import assert_within, bounded, make_tree, render

POINTS = np.random.default_rng(11).normal(size=(40, 3)).astype(np.float32).astype(np.float64) * 2
N_TREES = 150

# our own helpers, written from the names alone
HELPERS_C = """
#include <cmath>
#include <cstdio>
template <typename T> T exp_(T x) { return std::exp(x); }
template <typename T> T expm1_(T x) { return std::expm1(x); }
template <typename T> T log_(T x) { return std::log(x); }
template <typename T> T log1p_(T x) { return std::log1p(x); }
template <typename T> T sqrt_(T x) { return std::sqrt(x); }
template <typename T> T abs_(T x) { return std::fabs(x); }
template <typename T> T sign_(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }
template <typename T> T tanh_(T x) { return std::tanh(x); }
template <typename T> T sin_(T x) { return std::sin(x); }
template <typename T> T cos_(T x) { return std::cos(x); }
template <typename T> T erf_(T x) { return std::erf(x); }
template <typename T> T erfc_(T x) { return std::erfc(x); }
template <typename T> T sigmoid_(T x) { return T(1) / (T(1) + std::exp(-x)); }
template <typename T> T softplus_(T x) { return std::fmax(x, T(0)) + std::log1p(std::exp(-std::fabs(x))); }
template <typename T> T min_(T a, T b) { return a != a ? a : b < a || b != b ? b : a; }
template <typename T> T max_(T a, T b) { return a != a ? a : b > a || b != b ? b : a; }
template <typename T> T pow_(T a, T b) { return std::pow(a, b); }
template <typename T> T square_(T x) { return x * x; }
template <typename T> T cube_(T x) { return x * x * x; }
"""

HELPERS_PYTHON = {
    "exp_": np.exp,
    "expm1_": np.expm1,
    "log_": np.log,
    "log1p_": np.log1p,
    "sqrt_": np.sqrt,
    "abs_": abs,
    "sign_": np.sign,
    "tanh_": np.tanh,
    "sin_": np.sin,
    "cos_": np.cos,
    "erf_": lambda x: np.float64(math.erf(x)),
    "erfc_": lambda x: np.float64(math.erfc(x)),
    "sigmoid_": lambda x: 1 / (1 + np.exp(-x)),
    "softplus_": lambda x: np.logaddexp(0, x),
    "min_": np.minimum,
    "max_": np.maximum,
    "pow_": np.power,
    "square_": lambda x: x * x,
    "cube_": lambda x: x * x * x,
}


def random_trees():
    choose = random.Random(20240229).choice
    return [make_tree(choose, "xyz", 4) for _ in range(N_TREES)]


def expected(tree, dtype):
    columns = {name: (POINTS[:, k], np.zeros(len(POINTS))) for k, name in enumerate("xyz")}
    return bounded(tree, columns, dtype)


# ------------------------------------------------------------------------------------------------ text


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_text_parses_back_to_the_same_expression(data):
    tree = make_tree(lambda options: data.draw(st.sampled_from(list(options))), "xyz", 4)
    expr = parse(render(tree))
    assert parse(to_text(expr)) == expr
    slope = Formula(expr).derivative("x").expr
    values = {name: np.array([0.3, -1.7]) for name in "xyz"}
    again = Formula(to_text(slope))
    used = {name: values[name] for name in again.variables}
    np.testing.assert_allclose(again(**used), Formula(slope)(**values), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("((1) - (h)) * (h ** (2))", "(1 - h) * h**2"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("a / (b * c)", "a / (b * c)"),
        ("(a / b) * c", "a / b * c"),
        ("-(a + b)", "-(a + b)"),
        ("(-a) ** 2", "(-a)**2"),
        ("-a ** 2", "-a**2"),
        ("(a ** b) ** c", "(a**b)**c"),
        ("a ** b ** c", "a**b**c"),
        ("2 ** (-a)", "2**(-a)"),
        ("a if b > 0 else c", "(a if b > 0 else c)"),
        ("where(0 < a < 1 or b == 2, a, b)", "(a if 0 < a and a < 1 or b == 2 else b)"),
        ("where(not (a < b and b < c), 1, 0)", "(1 if not (a < b and b < c) else 0)"),
        ("clip(a, -1, 2)", "min(max(a, -1), 2)"),
        ("a * -b", "a * -b"),
        ("a - -b", "a - -b"),
        ("-(-a * 2)", "-(-a * 2)"),
        ("0.1 * a + 1e-300", "0.1 * a + 1e-300"),
    ],
)
def test_people_read_as_few_brackets_as_needed(text, printed):
    found = to_text(parse(text))
    assert found == printed
    assert parse(found) == parse(text)


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 1e-300, 1.7e308, 5e-324, 2**53 + 1.0, 123456789.125, -0.7071067811865476]
)
def test_numbers_survive_printing_bit_for_bit(value):
    assert parse(to_text(Num(value))) == Num(value)
    assert eval(to_python(Num(value), repr)) == value
    assert float(to_c(Num(value)).removeprefix("T(").removesuffix(")")) == value


# ------------------------------------------------------------------------------------------------ Python


def test_python_uses_the_given_literals_and_the_prefix():
    assert to_python(parse("0.5*z + exp(h)"), lambda value: f"c({value})") == "c(0.5) * v_z + exp_(v_h)"
    assert to_python(parse("z**2 + z**3 + z**4"), repr) == "square_(v_z) + cube_(v_z) + pow_(v_z, 4.0)"


def test_python_text_runs_and_gives_our_values():
    judged = 0
    for tree in random_trees():
        code = compile(to_python(parse(render(tree)), lambda value: f"f({value!r})"), "<printed>", "eval")
        space = {"__builtins__": {}, "f": np.float64, **HELPERS_PYTHON}
        with np.errstate(all="ignore"):
            rows = [eval(code, space, {f"v_{n}": r[k] for k, n in enumerate("xyz")}) for r in POINTS]
        judged += assert_within(np.array(rows, np.float64), expected(tree, np.float64), np.float64, render(tree))
    assert judged > 0.7 * N_TREES * len(POINTS)


# ------------------------------------------------------------------------------------------------ C++


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compile all trees into one program that prints a row of hexadecimal numbers for each point."""
    compiler = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++, clang++ or c++) on the path")
    folder = tmp_path_factory.mktemp("printed")
    functions = "\n".join(
        f"template <typename T> T f{k}(T v_x, T v_y, T v_z) {{ return {to_c(parse(render(tree)))}; }}"
        for k, tree in enumerate(random_trees())
    )
    calls = "\n".join(f'std::printf("%a ", (double)f{k}<T>(x, y, z));' for k in range(N_TREES))
    source = f"""{HELPERS_C}
{functions}
template <typename T> void row(double a, double b, double c) {{
    T x = T(a), y = T(b), z = T(c);
    {calls}
    std::printf("\\n");
}}
int main(int argc, char**) {{
    double a, b, c;
    while (std::scanf("%la %la %la", &a, &b, &c) == 3) {{
        if (argc > 1) row<float>(a, b, c); else row<double>(a, b, c);
    }}
}}
"""
    (folder / "printed.cpp").write_text(source)
    command = [compiler, "-std=c++17", "-O0", "-ffp-contract=off"]
    done = subprocess.run(
        [*command, "printed.cpp", "-o", "printed"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return folder / "printed"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_c_text_compiles_and_gives_our_values(compiled, dtype):
    points = "\n".join(" ".join(float(v).hex() for v in row) for row in POINTS)
    arguments = [str(compiled)] + (["float"] if dtype is np.float32 else [])
    printed = subprocess.run(arguments, input=points, capture_output=True, text=True, check=True, timeout=60).stdout
    table = np.array([[float.fromhex(v) for v in line.split()] for line in printed.splitlines()])
    assert table.shape == (len(POINTS), N_TREES)
    judged = 0
    for k, tree in enumerate(random_trees()):
        judged += assert_within(table[:, k].astype(dtype), expected(tree, dtype), dtype, render(tree))
    assert judged > 0.7 * table.size


def test_c_literals_carry_the_scalar_type():
    assert to_c(parse("2*z - 0.1")) == "T(2.0) * v_z - T(0.1)"
    assert to_c(parse("where(not (a > 1 and b == 2), a, b)")) == "(!(v_a > T(1.0) && v_b == T(2.0)) ? v_a : v_b)"
    # ! binds tighter than > in C, not does not in Python
    assert to_c(parse("where(not a > 1, a, b)")) == "(!(v_a > T(1.0)) ? v_a : v_b)"


def test_c_has_a_helper_for_every_function_of_the_language():
    for op, operation in OPERATIONS.items():
        if operation.infix or operation.truth or op == "where":
            continue
        names = ["x", "y"][: operation.arity]
        text = to_c(parse(f"{op}({', '.join(names)})" if op != "pow" else "x**y"))
        assert text == f"{op}_({', '.join(f'v_{name}' for name in names)})"
        assert f" {op}_(" in HELPERS_C
        assert f"{op}_" in HELPERS_PYTHON


def test_the_printers_take_expressions_only_and_change_nothing():
    expr = parse("exp(x) * y")
    before = repr(expr)
    for printer in (to_c, to_text, lambda e: to_python(e, repr)):
        assert isinstance(printer(expr), str)
    assert repr(expr) == before
