"""Printed loops: every activation, its part of BP2, and every update rule over one vector of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.kernels.costs import program
from benchmarks.kernels.measuring import FLOAT32, finished, measure, measures, unwritten
from bpcore.backends.contract import Backend
from bpcore.backprop import bp2_program
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.program import Program
from bpcore.functions.update_rules import UPDATE_RULES, get_update_rule
from tests.helpers.compare import assert_close
from tests.helpers.reference import ELEMENTWISE

SHAPE = (64, 1024)
PARAMETERS = 101_770
"""Of a network of 784, 128 and 10 neurons."""

NAMES = [name for name, activation in ACTIVATIONS.items() if not activation.rowwise]
DIFFERENTIABLE = [name for name in NAMES if ACTIVATIONS[name].differentiable]
ONE = np.ones(SHAPE)
"""Errors are seen relative to 1, the size of what neurons hand on: some formulas cancel where they are nearly 0."""


def exact_value(name: str, z: Any) -> Any:
    """Return an activation in float64."""
    return ELEMENTWISE[name][0](z) if name in ELEMENTWISE else np.where(z >= 0, 1.0, 0.0)  # step


@measures("elementwise")
@pytest.mark.parametrize("name", NAMES)
def test_activation(benchmark: Any, backend: Any, rng: np.random.Generator, name: str) -> None:
    z = rng.normal(size=SHAPE, scale=2).astype(np.float32)
    code = Program({"h": ACTIVATIONS[name].value_formula}, name=name)
    Z, H = backend.asarray(z), unwritten(backend, *SHAPE)
    expected = exact_value(name, z.astype(np.float64))

    def judge(_: Any) -> None:
        assert_close(H, expected, dtype=FLOAT32, scale=np.maximum(np.abs(expected), ONE), backend=backend)

    measure(
        benchmark, finished(backend, lambda: backend.elementwise(code, out=H, z=Z)), judge,
        group=f"activation {name}", cost=program(code, ["z"], z.size, FLOAT32.itemsize),
    )  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_bp2(benchmark: Any, backend: Any, rng: np.random.Generator, name: str) -> None:
    """A step works in place on Delta. Here it would shrink from call to call, until its numbers are subnormal."""
    z, delta = (rng.normal(size=SHAPE, scale=2).astype(np.float32) for _ in range(2))
    code = bp2_program(ACTIVATIONS[name], False)
    wide = z.astype(np.float64)
    h = exact_value(name, wide).astype(np.float32)
    expected = delta.astype(np.float64) * ELEMENTWISE[name][1](wide)
    values = {"z": backend.asarray(z), "h": backend.asarray(h), "delta": backend.asarray(delta)}
    values = {key: values[key] for key in code.inputs}
    out = unwritten(backend, *SHAPE)

    def judge(_: Any) -> None:
        # 1 - h*h keeps the rounding error of h where it is small itself, and some formulas multiply it by z
        scale = np.abs(delta) * np.maximum(np.abs(z), ONE)
        assert_close(out, expected, dtype=FLOAT32, scale=scale, backend=backend)

    measure(
        benchmark, finished(backend, lambda: backend.elementwise(code, out=out, **values)), judge,
        group=f"BP2 {name}", cost=program(code, values, z.size, FLOAT32.itemsize),
    )  # fmt: skip


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_update_rule(benchmark: Any, backend: Any, rng: np.random.Generator, name: str) -> None:
    """In place, as a step does it. The formulas are judged by the tests, here the loops that are made of them."""
    rule = get_update_rule(name)
    eta = rule.schedule.at(0, 0)
    scalars, _ = rule.host_scalars(3, eta, rule.initial_running())
    constants = rule.constants(eta, scalars)
    first = {key: rng.uniform(0.1, 1, PARAMETERS).astype(np.float32) for key in ("theta", *rule.state, "g")}
    arrays = {key: backend.asarray(value.copy()) for key, value in first.items()}
    exact = {key: value.astype(np.float64) for key, value in first.items()}
    values = arrays | constants
    values = {key: values[key] for key in rule.program.inputs}
    names = ("theta", *rule.state)
    out = tuple(arrays[key] for key in names)
    Backend().elementwise(
        rule.program, out=tuple(exact[key] for key in names), **{key: (exact | constants)[key] for key in values}
    )

    def reset() -> None:
        for key in names:
            backend.copy(backend.asarray(first[key]), out=arrays[key])

    def judge(_: Any) -> None:
        for key in names:
            # a step that nearly cancels what it changes leaves the error of both
            scale = np.abs(first[key]) + np.abs(exact[key])
            assert_close(arrays[key], exact[key], dtype=FLOAT32, scale=scale, backend=backend)
            assert not np.array_equal(backend.to_numpy(arrays[key]), first[key]), f"{key} was not updated"

    run = finished(backend, lambda: backend.elementwise(rule.program, out=out, **values))
    cost = program(rule.program, first, PARAMETERS, FLOAT32.itemsize)
    measure(benchmark, run, judge, group=f"update rule {name}", cost=cost, reset=reset)
