"""Elementary functions inside a compiled loop, beside the ufuncs of NumPy and SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import special

from benchmarks.kernels.costs import operation
from benchmarks.kernels.measuring import measure
from bpcore.functions.program import Program
from bpcore.kernels.numba.elementwise import compile_program
from bpcore.kernels.numba.operands import Operand
from tests.helpers.compare import assert_close

SHAPE = (64, 1024)


class Function(NamedTuple):
    """A function as a formula of z, where it is asked, as a ufunc, and in more digits than float64.

    What has no ufunc of more digits comes from the C library.
    """

    formula: str
    low: float
    high: float
    ufunc: Callable[..., Any]
    exact: Callable[[Any], Any]


FUNCTIONS = {
    "exp": Function("exp(z)", -20, 20, np.exp, np.exp),
    "expm1": Function("expm1(z)", -5, 5, np.expm1, np.expm1),
    "log": Function("log(z)", 1e-3, 1e3, np.log, np.log),
    "log1p": Function("log1p(z)", -0.9, 10, np.log1p, np.log1p),
    "tanh": Function("tanh(z)", -5, 5, np.tanh, np.tanh),
    "sigmoid": Function("sigmoid(z)", -10, 10, special.expit, lambda x: 1 / (1 + np.exp(-x))),
    "softplus": Function(
        "softplus(z)", -10, 10, lambda x, out: np.logaddexp(0, x, out=out),
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    ),
    "erf": Function("erf(z)", -3, 3, special.erf, np.vectorize(math.erf)),
    "erfc": Function("erfc(z)", -3, 3, special.erfc, np.vectorize(math.erfc)),
    "sqrt": Function("sqrt(z)", 0, 100, np.sqrt, np.sqrt),
    "pow": Function("z**1.75", 0, 100, lambda x, out: np.power(x, 1.75, out=out), lambda x: x**1.75),
    "sin": Function("sin(z)", -10, 10, np.sin, np.sin),
    "cos": Function("cos(z)", -10, 10, np.cos, np.cos),
    "max": Function("max(z, 0)", -1, 1, lambda x, out: np.maximum(x, 0, out=out), lambda x: np.where(x > 0, x, 0)),
}  # fmt: skip


@pytest.mark.parametrize("contestant", ["bpcore", "numpy"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(benchmark: Any, rng: np.random.Generator, name: str, precision: str, contestant: str) -> None:
    function, dtype = FUNCTIONS[name], np.dtype(precision)
    x = rng.uniform(function.low, function.high, SHAPE[0] * SHAPE[1]).astype(dtype)
    out = np.full(x.size, np.nan, dtype)
    if contestant == "bpcore":
        vector = (Operand("full", 1),)
        kernel = compile_program(Program({"h": function.formula}, name=name), vector, vector, dtype)
    expected = np.asarray(function.exact(x.astype(np.longdouble)), np.float64)

    def judge(_: Any) -> None:
        assert_close(out, expected, dtype=dtype)

    run = (lambda: kernel(out, x)) if contestant == "bpcore" else (lambda: function.ufunc(x, out=out))
    cost = operation("elementwise", dtype.itemsize, m=SHAPE[0], n=SHAPE[1])
    measure(benchmark, run, judge, group=f"{name} {precision}", cost=cost, per=("element", x.size))
