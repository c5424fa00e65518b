"""Initialisers: moments against their formulas, layout of the draws, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bpcore.errors import ConfigurationError, FormulaError, UnknownNameError
from bpcore.functions.initializers import (
    ALIASES,
    INITIALIZERS,
    Fill,
    Initializer,
    Normal,
    Orthogonal,
    Uniform,
    constant,
    default_initializer,
    get_initializer,
    initialize,
    orthogonal,
)
from bpcore.random import Purpose, normal, uniform

N_IN, N_OUT = 400, 150

# name: (kind, standard deviation or limit of W, standard deviation of b); from the papers, not from the code
EXPECTED = {
    "standard_normal": ("norm", 1.0, 1.0),
    "improved": ("norm", 1 / math.sqrt(401), 1 / math.sqrt(401)),
    "glorot_normal": ("norm", math.sqrt(2 / 550), 0.0),
    "glorot_uniform": ("uniform", math.sqrt(6 / 550), 0.0),
    "he_normal": ("norm", math.sqrt(2 / 400), 0.0),
    "he_uniform": ("uniform", math.sqrt(6 / 400), 0.0),
    "lecun_normal": ("norm", math.sqrt(1 / 400), 0.0),
    "lecun_uniform": ("uniform", math.sqrt(3 / 400), 0.0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_distribution_of_weights_and_biases(name):
    kind, scale, b_std = EXPECTED[name]
    W, b = initialize(name, N_IN, N_OUT, seed=1, layer=1)
    assert W.shape == (N_IN, N_OUT)
    assert b.shape == (N_OUT,)
    assert W.dtype == b.dtype == np.float64
    assert W.flags.c_contiguous
    law = stats.norm(0, scale) if kind == "norm" else stats.uniform(-scale, 2 * scale)
    assert stats.kstest(W.ravel(), law.cdf).pvalue > 0.001
    if b_std:
        assert stats.kstest(b, stats.norm(0, b_std).cdf).pvalue > 0.001
    else:
        assert not b.any()


def test_all_built_in_names_are_tested():
    assert set(INITIALIZERS) == {*EXPECTED, "orthogonal", "zeros"}
    assert all(target in INITIALIZERS for target in ALIASES.values())


def test_normal_layout_is_the_documented_one():
    W, b = initialize("standard_normal", 3, 5, seed=7, layer=2)
    draws = normal(20, seed=7, purpose=Purpose.WEIGHTS, layer=2)
    assert (W.ravel() == draws[:15]).all()
    assert (b == draws[15:]).all()


def test_uniform_layout_is_the_documented_one():
    both = Initializer("both", W=Uniform(0.5), b=Uniform("1 / n_out"))
    W, b = initialize(both, 3, 5, seed=7, layer=2)
    draws = 2 * uniform(20, seed=7, purpose=Purpose.WEIGHTS, layer=2) - 1
    assert (W.ravel() == 0.5 * draws[:15]).all()
    np.testing.assert_allclose(b, draws[15:] / 5, rtol=1e-15)


def test_layers_and_seeds_differ_and_the_rest_does_not():
    first, _ = initialize("he_normal", 8, 4, seed=0, layer=1)
    assert (initialize("he_normal", 8, 4, seed=0, layer=1)[0] == first).all()
    assert (initialize("he_normal", 8, 4, seed=0, layer=2)[0] != first).all()
    assert (initialize("he_normal", 8, 4, seed=1, layer=1)[0] != first).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 6), (9, 4), (4, 9), (1, 5), (1, 1)])
def test_orthogonal(n_in, n_out):
    W, b = initialize(orthogonal(1.5), n_in, n_out, seed=3, layer=1)
    gram = W.T @ W if n_in >= n_out else W @ W.T
    np.testing.assert_allclose(gram, 2.25 * np.eye(min(n_in, n_out)), atol=1e-13)
    assert W.flags.c_contiguous
    assert not b.any()


def test_orthogonal_has_no_preferred_sign():
    # without the correction of signs, LAPACK's Q has a first entry that is never positive
    corners = np.array([initialize("orthogonal", 3, 3, seed=seed, layer=1)[0][0, 0] for seed in range(200)])
    assert 60 < (corners > 0).sum() < 140


def test_constant_and_zeros():
    W, b = initialize(constant(0.25, bias=-1.0), 2, 3, seed=0, layer=1)
    assert (W == 0.25).all()
    assert (b == -1).all()
    W, b = initialize("zeros", 2, 3, seed=0, layer=1)
    assert not W.any()
    assert not b.any()


def test_improved_makes_z_of_about_unit_size():
    # half of p inputs at 1, the rest at 0; std(z) = sqrt((p/2 + 1) / (p + 1)), and sqrt(p/2 + 1) for N(0, 1)
    p, n = 1000, 4000
    x = np.zeros(p)
    x[::2] = 1
    for name, expected in (("improved", math.sqrt(501 / 1001)), ("standard_normal", math.sqrt(501))):
        W, b = initialize(name, p, n, seed=0, layer=1)
        z = x @ W + b
        assert abs(z.std() / expected - 1) < 5 / math.sqrt(2 * n)  # five standard errors


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("nielsen", "improved"),
        ("normal_scaled", "improved"),
        ("xavier_normal", "glorot_normal"),
        ("xavier_uniform", "glorot_uniform"),
        ("kaiming_normal", "he_normal"),
        ("kaiming_uniform", "he_uniform"),
    ],
)
def test_aliases(alias, name):
    assert get_initializer(alias) is INITIALIZERS[name]


@pytest.mark.parametrize(
    ("activations", "name"),
    [
        ("relu leaky_relu elu gelu gelu_tanh silu swish mish softplus", "he_normal"),
        ("selu", "lecun_normal"),
        ("identity sigmoid tanh softmax log_softmax hard_tanh somebodys_own", "glorot_uniform"),
    ],
)
def test_auto_rule(activations, name):
    for activation in activations.split():
        assert default_initializer(activation).name == name


def test_ones_own_initializer():
    mine = Initializer("mine", W=Normal("0.1 * sqrt(n_out / n_in)"), b=Fill("1 / n_in"))
    W, b = initialize(mine, 100, 400, seed=0, layer=1)
    assert abs(W.std() - 0.2) < 5 * 0.2 / math.sqrt(2 * W.size)
    assert (b == 0.01).all()


def test_unknown_name():
    with pytest.raises(UnknownNameError, match=r"unknown initializer 'he_norml'.*Did you mean 'he_normal'\?"):
        get_initializer("he_norml")
    with pytest.raises(UnknownNameError, match="unknown initializer"):
        get_initializer(["zeros"])  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0, -1, 2.0, True, None])
def test_wrong_width(width):
    with pytest.raises(ConfigurationError, match="n_in must be an integer of at least 1, got "):
        initialize("zeros", width, 1, seed=0, layer=1)
    with pytest.raises(ConfigurationError, match="n_out must be an integer of at least 1, got "):
        initialize("zeros", 1, width, seed=0, layer=1)


def test_wrong_declarations():
    with pytest.raises(FormulaError, match=r"unknown name 'n'; known: n_in, n_out"):
        Normal("1 / n")
    with pytest.raises(ConfigurationError, match=r"Uniform: scale must be a finite number .* got nan"):
        Uniform(math.nan)
    with pytest.raises(ConfigurationError, match=r"W must be Normal, Uniform, Orthogonal or Fill, got 0\.1"):
        Initializer("x", W=0.1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="biases are a vector and cannot be orthogonal"):
        Initializer("x", W=Fill(0), b=Orthogonal(1))
    with pytest.raises(ConfigurationError, match=r"'1 / \(n_in - 1\)' is inf at n_in=1, n_out=2; it must be finite"):
        initialize(Initializer("x", W=Normal("1 / (n_in - 1)")), 1, 2, seed=0, layer=1)


def test_declarations_are_values():
    assert Initializer("a", W=Normal(1.0)) == Initializer("a", W=Normal(1.0))
    assert Normal(1.0) != Uniform(1.0)  # type: ignore[comparison-overlap]
    assert hash(get_initializer("he_normal")) == hash(INITIALIZERS["he_normal"])
    with pytest.raises(AttributeError):
        get_initializer("zeros").name = "other"  # type: ignore[misc]
