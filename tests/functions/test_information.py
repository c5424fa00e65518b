"""Information measures against SciPy, their inequalities, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.functions.information import cross_entropy, entropy, information_content, kl_divergence

BASES = [("e", math.e), (2, 2), (10, 10)]
# sums of at most 60 products of float64 numbers of order 1 to 10
TIGHT: dict[str, Any] = {"rtol": 1e-13, "atol": 1e-13}


def random_distributions(rng, shape):
    p = rng.random(shape) ** 3
    p[..., 0] = 0
    return p / p.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("base", "number"), BASES)
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 60)])
def test_against_scipy(base, number, shape, rng):
    p, q = random_distributions(rng, shape), random_distributions(rng, shape)
    np.testing.assert_allclose(entropy(p, base), stats.entropy(p, base=number, axis=-1), **TIGHT)
    np.testing.assert_allclose(kl_divergence(p, q, base), stats.entropy(p, q, base=number, axis=-1), **TIGHT)
    both = stats.entropy(p, base=number, axis=-1) + stats.entropy(p, q, base=number, axis=-1)
    np.testing.assert_allclose(cross_entropy(p, q, base), both, **TIGHT)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(information_content(p, base), -np.log(p) / np.log(number), rtol=1e-13)


def test_axis_and_broadcasting(rng):
    p, q = random_distributions(rng, (4, 5)), random_distributions(rng, (5,))
    np.testing.assert_allclose(entropy(p.T, axis=0), entropy(p), rtol=1e-15)
    np.testing.assert_allclose(kl_divergence(p, q), [kl_divergence(row, q) for row in p], rtol=1e-15)


def test_events_that_never_happen():
    assert entropy([1, 0, 0]) == 0
    assert math.copysign(1, entropy([1, 0, 0])) == 1
    assert cross_entropy([1, 0], [1, 0]) == 0
    assert kl_divergence([1, 0], [1, 0]) == 0
    assert kl_divergence([0.5, 0.5], [1, 0]) == math.inf
    assert cross_entropy([0.5, 0.5], [1, 0]) == math.inf
    assert kl_divergence([0, 1], [0.5, 0.5], base=2) == 1
    assert information_content(0) == math.inf
    assert math.copysign(1, information_content(1)) == 1


@st.composite
def pairs_of_distributions(draw):
    n = draw(st.integers(1, 12))
    weights = st.lists(st.floats(0, 1), min_size=n, max_size=n).filter(lambda w: sum(w) > 1e-3)
    p, q = np.array(draw(weights)), np.array(draw(weights))
    return p / p.sum(), q / q.sum()


@settings(max_examples=200, deadline=None)
@given(pairs_of_distributions(), st.sampled_from(BASES))
def test_inequalities(pair, base_and_number):
    (p, q), (base, number) = pair, base_and_number
    n, slack = len(p), 1e-12  # rounding of sums of at most 12 terms
    h = entropy(p, base)
    assert -slack <= h <= math.log(n) / math.log(number) + slack
    assert cross_entropy(p, q, base) >= h - slack
    assert kl_divergence(p, q, base) >= -slack
    assert cross_entropy(p, p, base) == h
    assert kl_divergence(p, p, base) == 0
    if np.isfinite(cross_entropy(p, q, base)):
        assert abs(cross_entropy(p, q, base) - h - kl_divergence(p, q, base)) < 1e-9


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize(("base", "number"), BASES)
def test_uniform_has_the_largest_entropy(n, base, number):
    uniform = np.full(n, 1 / n)
    assert entropy(uniform, base) == pytest.approx(math.log(n) / math.log(number), rel=1e-13, abs=1e-15)
    if n > 1:
        tilted = uniform.copy()
        tilted[0] += 0.1 / n
        tilted[1] -= 0.1 / n
        assert entropy(tilted, base) < entropy(uniform, base)


def test_float32_probabilities_are_accepted(rng):
    z = rng.normal(size=(100, 50)).astype(np.float32)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert entropy(p).dtype == np.float64
    np.testing.assert_allclose(entropy(p), stats.entropy(p.astype(np.float64), axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.6], "p must sum to 1 along axis -1, found 1.1; divide by the sum"),
        ([[0.5, 0.5], [0.2, 0.2]], r"p\[1\] must sum to 1 along axis -1, found 0.4; divide by the sum"),
        ([1.5, -0.5], "p must be probabilities from 0 to 1, found 1.5"),
        ([-0.1, 1.0], "p must be probabilities from 0 to 1, found -0.1"),
        ([0.5, math.nan], "p must be probabilities, found nan"),
        (["a", "b"], "p must be real numbers, got dtype <U1"),
        ([0.5, 0.5j], "p must be real numbers, got dtype complex128"),
        ([], "p must sum to 1 along axis -1, found 0"),
    ],
)
def test_not_a_distribution(p, message):
    with pytest.raises(DataError, match=message):
        entropy(p)


def test_not_a_probability():
    with pytest.raises(DataError, match="p must be probabilities from 0 to 1, found 2"):
        information_content([0.1, 2.0])


def test_shapes_and_bases():
    with pytest.raises(ShapeError, match=r"p of shape \(\) has no axis -1"):
        entropy(1.0)
    with pytest.raises(ShapeError, match=r"p of shape \(2,\) has no axis 1"):
        entropy([0.5, 0.5], axis=1)
    with pytest.raises(ShapeError, match="p and q must be over the same events, got 2 and 3 along axis -1"):
        kl_divergence([0.5, 0.5], [0.2, 0.3, 0.5])
    with pytest.raises(ShapeError, match=r"cannot be broadcast together: shapes \(2, 2\) and \(3, 2\)"):
        cross_entropy(np.full((2, 2), 0.5), np.full((3, 2), 0.5))
    one: Any
    for one in (entropy, information_content):
        with pytest.raises(ConfigurationError, match="base must be 'e', 2 or 10, got 3"):
            one([0.5, 0.5], 3)
    two: Any
    for two in (cross_entropy, kl_divergence):
        with pytest.raises(ConfigurationError, match="base must be 'e', 2 or 10, got 'E'"):
            two([0.5, 0.5], [0.5, 0.5], "E")
