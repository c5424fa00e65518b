"""Clipping: the programs against the definition, exactly 1.0 within the limit, NaN passed on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bpcore.errors import ConfigurationError
from bpcore.functions.clipping import CLIP, RESCALE, SCALE, ClipLayerNorm, ClipNorm, ClipValue
from bpcore.functions.expression import Num, evaluate, walk
from bpcore.functions.scalars import evaluate_scalars

EVERY = (ClipValue, ClipNorm, ClipLayerNorm)


def run(program, **values):
    for target, expr in program.assignments:
        values[target] = evaluate(expr, values)
    return values[program.outputs[0]]


def test_value():
    g = np.array([-9.0, -0.5, 0.0, 0.5, 9.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(run(CLIP, g=g, limit=0.75), [-0.75, -0.5, 0, 0.5, 0.75, 0.75, -0.75, np.nan])


@pytest.mark.parametrize("limit", [1e-30, 1e-6, 1.0, 3.7, 1e6])
@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.5, 1 - 1e-15, 1.0, 1 + 1e-9, 2.0, 1e9])
def test_norm(limit, ratio, rng):
    g = rng.normal(size=50)
    g *= ratio * limit / np.linalg.norm(g)
    sumsq = float((g * g).sum())
    scale = run(SCALE, sumsq=sumsq, limit=limit)
    clipped = run(RESCALE, g=g, scale=scale)
    if math.sqrt(sumsq) <= limit:
        assert scale == 1.0
        assert (clipped == g).all()
    else:
        # the sum of 50 squares, a root, a division and a product: a few dozen ulp
        np.testing.assert_allclose(np.linalg.norm(clipped), limit, rtol=1e-14)
        np.testing.assert_allclose(clipped / limit, g / np.linalg.norm(g), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_of_a_zero_gradient_is_one_in_every_dtype(dtype):
    assert run(SCALE, sumsq=dtype(0), limit=dtype(1e-30)) == 1.0


def test_scale_of_a_zero_gradient_needs_no_division_by_zero():
    assert evaluate_scalars(SCALE, {"sumsq": 0.0, "limit": 1.0}) == {"scale": 1.0}
    constants = [node.value for _, expr in SCALE.assignments for node in walk(expr) if isinstance(node, Num)]
    # a constant that is 0 or denormal in float32 would not guard anything there
    assert min(constants) > np.finfo(np.float32).smallest_normal


def test_nan_and_infinity_are_not_hidden():
    assert math.isnan(run(SCALE, sumsq=math.nan, limit=1.0))
    g = np.array([1.0, np.inf, -2.0])
    clipped = run(RESCALE, g=g, scale=run(SCALE, sumsq=float((g * g).sum()), limit=1.0))
    assert np.isnan(clipped[1])


def test_inputs_are_what_the_engine_gives():
    assert set(CLIP.inputs) == {"g", "limit"}
    assert set(SCALE.inputs) == {"sumsq", "limit"}
    assert set(RESCALE.inputs) == {"g", "scale"}


def test_scopes():
    assert [declaration(1.0).scope for declaration in EVERY] == ["element", "all", "layer"]


@pytest.mark.parametrize("declaration", EVERY)
def test_declarations_are_values(declaration):
    assert declaration(2) == declaration(2.0)
    assert hash(declaration(2)) == hash(declaration(2.0))
    assert type(declaration(2).limit) is float
    assert declaration(1.0) != ClipValue(1.0) or declaration is ClipValue
    with pytest.raises(AttributeError):
        declaration(1.0).limit = 2.0


@pytest.mark.parametrize("declaration", EVERY)
@pytest.mark.parametrize("limit", [0, -1, 1e-31, math.inf, math.nan, "1", None, True])
def test_wrong_limits(declaration, limit):
    message = rf"{declaration.__name__}: limit must be a finite number in \[1e-30, inf\), got "
    with pytest.raises(ConfigurationError, match=message):
        declaration(limit)
