"""Declarations of full-batch methods: SciPy accepts what they describe, and wrong ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from bpcore.errors import ConfigurationError, UnknownNameError
from bpcore.functions.full_batch import LBFGS, METHODS, ScipyMinimize

NOTHING: Any = None


def rosenbrock(x):
    a, b = 1 - x[:-1], x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] = -2 * a - 400 * x[:-1] * b
    gradient[1:] += 200 * b
    return float((a**2 + 100 * b**2).sum()), gradient


@pytest.mark.parametrize("method", METHODS)
def test_scipy_runs_what_is_described(method):
    declared = ScipyMinimize(method, max_iterations=2000, tolerance=1e-8)
    result = minimize(rosenbrock, np.array([-1.2, 1.0, 0.8]), jac=True, **declared.keywords())
    np.testing.assert_allclose(result.x, 1, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_limit_reaches_the_method(method):
    result = minimize(rosenbrock, np.array([-1.2, 1.0]), jac=True, **ScipyMinimize(method, max_iterations=3).keywords())
    count = result.nfev if method == "TNC" else result.nit
    assert count <= 4  # trust-constr counts its start
    assert not np.allclose(result.x, 1, atol=1e-3)


def test_lbfgs_is_one_of_them():
    assert LBFGS(50, 1e-6, memory=7).keywords() == {
        "method": "L-BFGS-B",
        "tol": 1e-6,
        "options": {"maxiter": 50, "maxcor": 7},
    }


def test_declarations_are_values():
    assert ScipyMinimize("cg") == ScipyMinimize("CG")
    assert ScipyMinimize("lbfgs") == ScipyMinimize()
    assert hash(LBFGS()) == hash(LBFGS())
    assert LBFGS(memory=3) != LBFGS(memory=4)
    keywords = LBFGS().keywords()
    keywords["options"]["maxcor"] = 99
    assert LBFGS().keywords()["options"]["maxcor"] == 10
    given = {"gtol": 1e-3}
    declared = ScipyMinimize("CG", options=given)
    given["gtol"] = 5
    assert declared.keywords()["options"] == {"maxiter": 200, "gtol": 1e-3}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ScipyMinimize("SLQSP"), UnknownNameError, "unknown full-batch method 'SLQSP'.*mean 'slsqp'"),
        (lambda: ScipyMinimize(NOTHING), UnknownNameError, "unknown full-batch method None"),
        (
            lambda: ScipyMinimize("Nelder-Mead"),
            ConfigurationError,
            "'Nelder-Mead' does not use the gradient.*L-BFGS-B",
        ),
        (lambda: ScipyMinimize("trust-ncg"), ConfigurationError, "'trust-ncg' needs second derivatives"),
        (
            lambda: ScipyMinimize(max_iterations=0),
            ConfigurationError,
            "max_iterations must be an integer of at least 1",
        ),
        (
            lambda: ScipyMinimize(tolerance=0),
            ConfigurationError,
            r"tolerance must be a finite number in \(0, inf\)",
        ),
        (
            lambda: ScipyMinimize("TNC", options={"maxfun": 3}),
            ConfigurationError,
            "options must not contain 'maxfun'; it is set by max_iterations",
        ),
        (lambda: LBFGS(memory=0), ConfigurationError, "memory must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_declarations(make, error, message):
    with pytest.raises(error, match=message):
        make()
