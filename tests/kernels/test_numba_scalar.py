"""The scalar functions of the Numba loops against mpmath, and their limits."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore.functions.expression import OPERATIONS
from bpcore.functions.program import Program
from bpcore.kernels.numba.elementwise import compile_program
from bpcore.kernels.numba.operands import Operand

mpmath.mp.prec = 120

REFERENCES: dict[str, Any] = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sqrt": mpmath.sqrt,
    "abs": abs,
    "sign": mpmath.sign,
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}
# Units in the last place; the module promises four, five for erfc, and the rest is what IEEE arithmetic gives.
LIMITS = {"erfc": 5.0, "sqrt": 0.5, "abs": 0.0, "sign": 0.0}


def run(formula: str, *columns: Any, dtype: Any) -> Any:
    """Evaluate a formula of x, y, ... over arrays with the compiled loop."""
    program = Program(f"h = {formula}")
    arrays = {name: np.array(column, dtype) for name, column in zip("xyzw", columns, strict=False)}
    used = [arrays[name] for name in program.inputs]
    out = np.empty(len(columns[0]), dtype)
    vector = Operand("full", 1)
    compile_program(program, (vector,), (vector,) * len(used), np.dtype(dtype))(out, *used)
    return out


def points(name: str, dtype: Any, rng: np.random.Generator) -> Any:
    """Arguments of all magnitudes for which the result is a normal number."""
    end = 87.0 if dtype == np.float32 else 708.0
    near = rng.normal(0, 1, 150)
    tiny = rng.normal(0, 1, 100) * 10.0 ** rng.uniform(-30, 0, 100)
    far = rng.uniform(-end, end, 150)
    x = np.concatenate([near, tiny, far])
    if name in ("log", "sqrt"):
        x = np.abs(x)
    if name == "log1p":
        x = np.where(x <= -1, -x, x)
    if name == "erfc":
        x = np.clip(x, -6, 9 if dtype == np.float32 else 26)
    return x.astype(dtype)


def error_in_ulp(found: Any, exact: Any, dtype: Any) -> float:
    unit = float(np.spacing(max(abs(dtype(exact)), np.finfo(dtype).tiny)))
    return float(abs(mpmath.mpf(float(found)) - exact) / unit)


@pytest.mark.parametrize("name", list(REFERENCES))
def test_error_in_units_of_the_last_place(name: str, dtype: Any, rng: np.random.Generator) -> None:
    x = points(name, dtype.type, rng)
    found = run(f"{name}(x)", x, dtype=dtype)
    errors = [
        error_in_ulp(f, REFERENCES[name](mpmath.mpf(float(a))), dtype.type) for f, a in zip(found, x, strict=True)
    ]
    worst = int(np.argmax(errors))
    assert max(errors) <= LIMITS.get(name, 4.0), f"{name}({x[worst]!r}) = {found[worst]!r}: {errors[worst]} ulp"


INF, NAN = math.inf, math.nan
EDGES = [
    ("exp", [0.0, INF, -INF, NAN, 1e4, -1e4], [1, INF, 0, NAN, INF, 0]),
    ("expm1", [0.0, INF, -INF, NAN, 1e4, -1e4], [0, INF, -1, NAN, INF, -1]),
    ("log", [0.0, -0.0, INF, -INF, NAN, -1.0, 1.0], [-INF, -INF, INF, NAN, NAN, NAN, 0]),
    ("log1p", [-1.0, 0.0, INF, -INF, NAN, -2.0], [-INF, 0, INF, NAN, NAN, NAN]),
    ("sqrt", [0.0, INF, -1.0, NAN], [0, INF, NAN, NAN]),
    ("abs", [-INF, NAN, -0.0], [INF, NAN, 0]),
    ("sign", [-INF, -2.0, 0.0, 3.0, INF, NAN], [-1, -1, 0, 1, 1, NAN]),
    ("tanh", [0.0, INF, -INF, NAN, 1e4, -1e4], [0, 1, -1, NAN, 1, -1]),
    ("erf", [0.0, INF, -INF, NAN, 1e4, -1e4], [0, 1, -1, NAN, 1, -1]),
    ("erfc", [0.0, INF, -INF, NAN, 1e4, -1e4], [1, 0, 2, NAN, 0, 2]),
    ("sigmoid", [0.0, INF, -INF, NAN, 1e4, -1e4], [0.5, 1, 0, NAN, 1, 0]),
    ("softplus", [INF, -INF, NAN, 1e4, -1e4], [INF, 0, NAN, 1e4, 0]),
    ("sin", [INF, NAN], [NAN, NAN]),
    ("cos", [INF, NAN], [NAN, NAN]),
]


@pytest.mark.parametrize(("name", "x", "expected"), EDGES, ids=[name for name, *_ in EDGES])
def test_limits_and_nan(name: str, x: list[float], expected: list[float], dtype: Any) -> None:
    np.testing.assert_array_equal(run(f"{name}(x)", x, dtype=dtype), np.array(expected, dtype))


def test_logarithm_of_numbers_below_the_normal_range(dtype: Any) -> None:
    x = np.array([np.finfo(dtype).tiny / 8, np.finfo(dtype).smallest_subnormal], dtype)
    expected = [float(mpmath.log(mpmath.mpf(float(a)))) for a in x]
    np.testing.assert_allclose(run("log(x)", x, dtype=dtype), expected, rtol=4 * np.finfo(dtype).eps)


PAIRS = [(a, b) for a in (-INF, -1.5, 0.0, 2.0, INF, NAN) for b in (-INF, -1.5, 0.0, 2.0, INF, NAN)]


@pytest.mark.parametrize(
    ("formula", "reference"),
    [
        ("min(x, y)", np.minimum),
        ("max(x, y)", np.maximum),
        ("x ** y", np.power),
        ("where(x < y, x, y)", lambda a, b: np.where(a < b, a, b)),
        ("where(x <= y and not x == 0, 1, 0)", lambda a, b: ((a <= b) & (a != 0)).astype(float)),
        ("where(x > y or x != x, 1, 0)", lambda a, b: ((a > b) | (a != a)).astype(float)),
        ("x / y", np.divide),
    ],
)
def test_two_arguments_mean_what_numpy_means(formula: str, reference: Any, dtype: Any) -> None:
    x, y = np.array(PAIRS, dtype).T
    with np.errstate(all="ignore"):
        expected = reference(x, y)
    np.testing.assert_allclose(run(formula, x, y, dtype=dtype), expected.astype(dtype), rtol=2 * np.finfo(dtype).eps)


def test_powers_by_multiplication_and_by_the_library(dtype: Any, rng: np.random.Generator) -> None:
    x = rng.uniform(-3, 3, 50).astype(dtype)
    rtol = 4 * float(np.finfo(dtype).eps)
    wide = x.astype(np.float64)
    for power in (2, 3, 5):
        np.testing.assert_allclose(run(f"x ** {power}", x, dtype=dtype), wide**power, rtol=rtol)


def test_every_function_of_the_language_has_one_here() -> None:
    from bpcore.kernels.numba import scalar

    printed = {
        f"{name}_" for name, op in OPERATIONS.items() if not op.infix and not op.truth and name not in ("neg", "where")
    }
    assert printed <= set(scalar.__all__)


@pytest.mark.parametrize("name", [*REFERENCES, "square", "cube"])
def test_the_python_body_is_a_reference_of_the_compiled_one(name: str, dtype: Any) -> None:
    from bpcore.kernels.numba import scalar

    body = getattr(scalar, f"{name}_")
    formula = {"square": "x ** 2", "cube": "x ** 3"}.get(name, f"{name}(x)")
    x = np.array([0.3, 1.7], dtype)
    plain = [body(a) for a in x]
    assert all(value.dtype == dtype for value in plain)
    np.testing.assert_allclose(run(formula, x, dtype=dtype), plain, rtol=8 * float(np.finfo(dtype).eps))
