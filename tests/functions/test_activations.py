"""Activations against their definitions in high precision, at the edges, and as users declare them."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import special

from bpcore.errors import ConfigurationError, FormulaError, UnknownNameError
from bpcore.functions.activations import ACTIVATIONS, ALIASES, Activation, get_activation
from bpcore.functions.program import Program
from tests.helpers.compare import DEFAULT_FACTOR, assert_close

mp = mpmath.mp.clone()
mp.dps = 100

SELU_SCALE, SELU_ALPHA = "1.0507009873554804934193349852946", "1.6732632423543772848170429916717"


def _erf_half(z):
    return mp.mpf(1) / 2 * mp.erfc(-z / mp.sqrt(2))


# The definitions, from the papers, in 100 digits: no formula here needs to be stable.
DEFINITIONS = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "tanh": lambda z: (mp.exp(z) - mp.exp(-z)) / (mp.exp(z) + mp.exp(-z)),
    "relu": lambda z: z if z > 0 else mp.mpf(0),
    "leaky_relu": lambda z: z if z > 0 else mp.mpf("0.01") * z,
    "elu": lambda z: z if z > 0 else mp.expm1(z),
    "selu": lambda z: mp.mpf(SELU_SCALE) * (z if z > 0 else mp.mpf(SELU_ALPHA) * mp.expm1(z)),
    "gelu": lambda z: z * _erf_half(z),
    "gelu_tanh": lambda z: z / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3))),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "mish": lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
    "hard_sigmoid": lambda z: min(max(z / 6 + mp.mpf(1) / 2, mp.mpf(0)), mp.mpf(1)),
    "hard_tanh": lambda z: min(max(z, mp.mpf(-1)), mp.mpf(1)),
}

# value at -inf, value at +inf, slope at -inf, slope at +inf
LIMITS = {
    "identity": (-math.inf, math.inf, 1, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "relu": (0, math.inf, 0, 1),
    "leaky_relu": (-math.inf, math.inf, 0.01, 1),
    "elu": (-1, math.inf, 0, 1),
    "selu": (-float(SELU_SCALE) * float(SELU_ALPHA), math.inf, 0, float(SELU_SCALE)),
    "gelu": (0, math.inf, 0, 1),
    "gelu_tanh": (0, math.inf, 0, 1),
    "silu": (0, math.inf, 0, 1),
    "softplus": (0, math.inf, 0, 1),
    "mish": (0, math.inf, 0, 1),
    "hard_sigmoid": (0, 1, 0, 0),
    "hard_tanh": (-1, 1, 0, 0),
}

KINKS = {"relu": [0], "leaky_relu": [0], "selu": [0], "hard_sigmoid": [-3, 3], "hard_tanh": [-1, 1]}
NAMES = list(DEFINITIONS)


def grid(dtype):
    """Dense around 0, sparse to 1e4, and what is easy to get wrong: all exact in float32."""
    size = np.concatenate([np.linspace(0, 8, 65), np.geomspace(9, 1e4, 40), [1e-30, 1e-6, 1e-3, 88, 89, 104, 709, 746]])
    size = np.unique(size.astype(np.float32))
    return np.concatenate([-size[::-1], size]).astype(dtype)


@functools.cache
def reference(name, dtype):
    """Value, slope, and the size that rounding errors of the value are relative to, in float64."""
    values, slopes = [], []
    for z in map(mp.mpf, map(float, grid(dtype))):
        # a relative step stays on one side of every kink; with the smallest z, 1e-30, some 40 digits remain
        step = abs(z) * mp.mpf(10) ** -25 if z else mp.mpf(10) ** -25
        f = DEFINITIONS[name]
        values.append(float(f(z)))
        slopes.append(float((f(z + step) - f(z - step)) / (2 * step)))
    value, slope = np.array(values), np.array(slopes)
    size = np.abs(grid(dtype))
    # an underflow inside may be multiplied by z: silu(-89) = -89 * 2e-39 has lost its second factor in float32
    underflow = size * float(np.finfo(dtype).tiny / np.finfo(dtype).eps)
    return value, slope, np.maximum(np.maximum(np.abs(value), size * np.abs(slope)), underflow)


@functools.cache
def computed(backend, dtype):
    """Values and slopes of all activations on the grid and at (-inf, inf, nan), computed by one program."""
    lines = {}
    for name in [*NAMES, "step"]:
        act = ACTIVATIONS[name]
        lines[f"h_{name}"] = act.value_formula
        if act.differentiable:
            lines[f"d_{name}"] = act.derivative_formula.substitute(h=f"h_{name}")
    program = Program(lines, name="all activations")
    z = np.concatenate([grid(dtype), np.array([-np.inf, np.inf, np.nan], dtype)])
    outs = tuple(np.full(z.shape, 77.0, dtype) for _ in program.outputs)
    backend.elementwise(program, out=outs, z=z)
    return dict(zip(program.outputs, outs, strict=True))


# ------------------------------------------------------------------------------------------------ values


def test_there_is_a_definition_for_every_activation():
    assert {*DEFINITIONS, "step", "softmax", "log_softmax"} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_values(name, cpu_backend, dtype):
    value, _, scale = reference(name, dtype)
    found = computed(cpu_backend, dtype)[f"h_{name}"][:-3]
    # The error of a rounded argument inside the formula moves the result by |z f'(z)| eps: that, or |f|, is the scale.
    # The Gaussian tail squares its argument, hence the factor.
    factor = 4 * DEFAULT_FACTOR if "gelu" in name else DEFAULT_FACTOR
    assert_close(found, value, dtype=dtype, scale=scale, factor=factor)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name, cpu_backend, dtype):
    _, slope, _ = reference(name, dtype)
    found = computed(cpu_backend, dtype)[f"d_{name}"][:-3]
    smooth = ~np.isin(grid(dtype), KINKS.get(name, []))
    # Relative to 1: derivatives written in h, such as 1 - h*h, cancel to zero where the function saturates.
    # Mish multiplies such a difference by z, which is up to 18 before the difference is exactly 0 in float64.
    factor = 4 * DEFAULT_FACTOR if name == "mish" else DEFAULT_FACTOR
    assert_close(found[smooth], slope[smooth], dtype=dtype, scale=1.0, factor=factor)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_the_derivative_is_one_of_the_two_slopes(name, cpu_backend, dtype):
    z, found = grid(dtype), computed(cpu_backend, dtype)[f"d_{name}"][:-3]
    _, slope, _ = reference(name, dtype)
    for kink in KINKS[name]:
        at = np.flatnonzero(z == kink)
        assert len(at) > 0, kink
        for k in at:
            sides = (slope[at[0] - 1], slope[at[-1] + 1])
            # selu bends a little on the left: its slope at -1e-30 is that at 0
            assert min(abs(found[k] - s) for s in sides) <= 4 * np.finfo(dtype).eps, (kink, found[k], sides)


@pytest.mark.parametrize("name", NAMES)
def test_infinities_map_to_the_limit_and_nan_stays_nan(name, cpu_backend, dtype):
    low, high, slope_low, slope_high = LIMITS[name]
    values = computed(cpu_backend, dtype)
    assert_close(values[f"h_{name}"][-3:], np.array([low, high, np.nan]), dtype=dtype)
    assert_close(values[f"d_{name}"][-3:-1], np.array([slope_low, slope_high], float), dtype=dtype, scale=1.0)


def test_step(cpu_backend, dtype):
    found = computed(cpu_backend, dtype)["h_step"]
    assert np.array_equal(found[:-3], np.where(grid(dtype) >= 0, 1, 0).astype(dtype))
    assert found[-3:-1].tolist() == [0.0, 1.0]
    assert np.isnan(found[-1])
    with pytest.raises(
        ConfigurationError, match="activation 'step' has no useful derivative: it can be used in forward"
    ):
        _ = ACTIVATIONS["step"].derivative_formula


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sigmoid", special.expit),
        ("tanh", np.tanh),
        ("gelu", lambda z: z * special.ndtr(z)),
        ("silu", lambda z: z * special.expit(z)),
        ("softplus", lambda z: np.logaddexp(0, z)),
        ("mish", lambda z: z * np.tanh(np.logaddexp(0, z))),
    ],
)
def test_values_against_scipy(name, function):
    z = np.linspace(-30, 30, 12_007)
    found = ACTIVATIONS[name].value_formula(z=z)
    expected = function(z)
    assert_close(found, expected, dtype=np.float64, scale=np.abs(expected) * (1 + z * z))


# ------------------------------------------------------------------------------------------------ declarations


@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.differentiable and not a.rowwise])
def test_the_declared_derivative_passes_the_check_that_users_get(name):
    assert dataclasses.replace(ACTIVATIONS[name], check=True) == ACTIVATIONS[name]


@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.differentiable and not a.rowwise])
def test_the_derived_derivative_is_the_declared_one(name):
    act = ACTIVATIONS[name]
    z = np.linspace(-6.03, 6.07, 101)
    derived = np.broadcast_to(act.value_formula.derivative("z")(z=z), z.shape)
    declared = np.broadcast_to(act.derivative_formula(**{"z": z, "h": act.value_formula(z=z)}), z.shape)
    np.testing.assert_allclose(derived, declared, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [*NAMES, "step"])
def test_outputs_never_leave_the_declared_range(name, cpu_backend, dtype):
    low, high = ACTIVATIONS[name].range
    found = computed(cpu_backend, dtype)[f"h_{name}"][:-1]
    # ends that the dtype cannot represent may be missed by their rounding; 0 and 1 may not
    info = np.finfo(dtype)
    slack = [0.0 if end in (0, 1, -1) or math.isinf(end) else 4 * float(info.eps) * abs(end) for end in (low, high)]
    assert found.min() >= low - slack[0]
    assert found.max() <= high + slack[1]


@pytest.mark.parametrize("name", [*NAMES, "step"])
def test_the_declared_range_is_tight(name):
    low, high = ACTIVATIONS[name].range
    z = np.concatenate([np.linspace(-40, 40, 100_001), [-1e4, 1e4]])
    h = np.asarray(ACTIVATIONS[name].value_formula(z=z), float)
    for end, reached in ((low, h.min()), (high, h.max())):
        if math.isinf(end):
            # only the linear parts of leaky ReLU's left side grow slowly
            assert abs(reached) >= 100, f"{name} is declared unbounded but only reaches {reached}"
        else:
            assert abs(reached - end) <= 0.002, f"{name} reaches {reached}, declared {end}"


def test_every_activation_has_a_source():
    assert all(act.source for act in ACTIVATIONS.values())


# ------------------------------------------------------------------------------------------------ witness


@pytest.mark.witness
@pytest.mark.parametrize("name", [*NAMES, "softmax", "log_softmax"])
def test_values_and_gradients_against_torch(name, cpu_backend):
    import torch

    functional = torch.nn.functional
    witness: Any = {
        "identity": lambda z: z * 1,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
        "hard_sigmoid": functional.hardsigmoid,
        "hard_tanh": functional.hardtanh,
        "softmax": functools.partial(torch.softmax, dim=1),
        "log_softmax": functools.partial(torch.log_softmax, dim=1),
    }.get(name) or getattr(functional, name)
    rng = np.random.default_rng(3)
    Z = rng.normal(size=(13, 7)) * 3
    G = rng.normal(size=(13, 7))
    z: Any = torch.tensor(Z, requires_grad=True)
    h = witness(z)
    h.backward(torch.tensor(G))
    gradient = z.grad.numpy()
    act = ACTIVATIONS[name]
    if act.rowwise:
        H = getattr(cpu_backend, act.rowwise)(Z, np.empty_like(Z))
        dZ = getattr(cpu_backend, f"backprop_{act.rowwise}")(G, H, np.empty_like(Z))
    else:
        H = act.value_formula(z=Z)
        dZ = G * act.derivative_formula(**{"z": Z, "h": H})
    np.testing.assert_allclose(H, h.detach().numpy(), rtol=1e-13, atol=1e-14)
    # PyTorch's hardsigmoid keeps 1/6 in float32, whatever the dtype
    np.testing.assert_allclose(dZ, gradient, rtol=5e-8 if name == "hard_sigmoid" else 1e-12, atol=1e-13)


# ------------------------------------------------------------------------------------------------ users' own


def test_a_missing_derivative_is_derived():
    act = Activation("my_swish", "z / (1 + exp(-z))")
    z = np.array([-1e4, -50, -1, 0, 2, 1e4], np.float32)
    exact = z.astype(np.float64)
    s = special.expit(exact)
    assert_close(act.value_formula(z=z), exact * s, dtype=np.float32, scale=np.abs(exact))
    assert_close(act.derivative_formula(z=z), s + exact * s * special.expit(-exact), dtype=np.float32, scale=1.0)


def test_a_derivative_may_use_the_output():
    act = Activation("twice_tanh", "2*tanh(z)", "2 - h*h/2")
    assert act.derivative_formula.variables == ("h",)


@pytest.mark.parametrize(
    ("formula", "derivative", "found"),
    [
        ("tanh(z)", "1 - h", r"is 2 at z = -7\.8"),
        ("tanh(z)", "h*h - 1", "is -"),
        ("z*z", "z", "is -"),
        ("max(z, 0)", "where(z > 0, 0, 1)", "is [01] at z = "),
        ("sigmoid(z)", "log(z)", "is nan at z = -"),
        ("exp(z)", "h + 1e-3", "is "),
        ("z", "0", "is 0 at z = "),
    ],
)
def test_a_wrong_derivative_is_refused_with_the_place(formula, derivative, found):
    message = (
        rf"activation 'mine': the given derivative .* {found}.* but differences of .* give .*\. Correct it, or leave"
    )
    with pytest.raises(FormulaError, match=message):
        Activation("mine", formula, derivative)


def test_the_message_gives_the_numbers_at_the_worst_point():
    with pytest.raises(FormulaError) as caught:
        Activation("square", "z*z", "3*z")
    # worst where the relative error is largest is a choice; the numbers must belong together
    text = str(caught.value)
    z = float(text.split("z = ")[1].split(",")[0])
    assert float(text.split(" is ")[1].split(" at ")[0]) == pytest.approx(3 * z, rel=1e-4)
    assert float(text.split(" give ")[1].split(". ")[0].rstrip(".")) == pytest.approx(2 * z, rel=1e-4)


def test_the_check_is_not_fooled_by_kinks_and_finds_errors_beside_them():
    Activation("triangle", "max(1 - abs(z), 0)", "where(abs(z) < 1, -sign(z), 0)")
    with pytest.raises(FormulaError, match="the given derivative"):
        Activation("triangle", "max(1 - abs(z), 0)", "where(abs(z) < 2, -sign(z), 0)")


def test_the_check_stays_within_the_domain():
    Activation("root", "sqrt(z)", "0.5 / h", domain=(0, math.inf))
    with pytest.raises(FormulaError, match="has no finite value with a slope on its domain"):
        Activation("root", "sqrt(z)", domain=(-9, -1))


def test_a_constant_and_a_step_have_a_slope_of_zero():
    assert Activation("constant", "3").derivative_formula(z=1.0) == 0.0
    assert float(Activation("stairs", "sign(z)").derivative_formula(z=1.0)) == 0.0


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("z + w", "unknown name 'w'; known: z, pi, e"),
        ("tahn(z)", "unknown function 'tahn'.*Did you mean 'tanh'"),
        ("z ^ 2", "powers are written with"),
        ("", "a formula is a text such as"),
        ("h", "unknown name 'h'"),
    ],
)
def test_a_formula_outside_the_language_is_refused(formula, message):
    with pytest.raises(FormulaError, match=message):
        Activation("mine", formula)


def test_a_derivative_outside_the_language_is_refused():
    with pytest.raises(FormulaError, match="unknown name 'a'; known: z, h, pi, e"):
        Activation("mine", "z*z", "2*a")


def test_check_false_skips_the_comparison_and_replace_may_run_it_later():
    wrong = Activation("wrong", "tanh(z)", "1 - h", check=False)
    with pytest.raises(FormulaError, match="the given derivative"):
        dataclasses.replace(wrong, check=True)


@pytest.mark.parametrize("act", [*ACTIVATIONS.values(), Activation("mine", "z*sigmoid(2*z)", range=(-0.14, math.inf))])
def test_pickling(act):
    again = pickle.loads(pickle.dumps(act))
    assert again == act
    assert hash(again) == hash(act)
    assert again.range == act.range
    assert again.source == act.source
    if not act.rowwise:
        assert again.value_formula == act.value_formula


def test_activations_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ACTIVATIONS["relu"].formula = "z"  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lookup_by_name_and_by_object(name):
    assert get_activation(name) is ACTIVATIONS[name]
    assert get_activation(ACTIVATIONS[name]) is ACTIVATIONS[name]
    assert ACTIVATIONS[name].name == name


def test_aliases():
    assert get_activation("swish") is ACTIVATIONS["silu"]
    assert get_activation("linear") is ACTIVATIONS["identity"]
    assert set(ALIASES.values()) <= set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("rleu", "relu"), ("sigmoyd", "sigmoid"), ("soft_max", "softmax"), ("swich", "swish")],
)
def test_unknown_names_get_a_suggestion(name, hint):
    with pytest.raises(
        UnknownNameError, match=f"unknown activation '{name}'; known: .*identity.* Did you mean '{hint}'"
    ):
        get_activation(name)


@pytest.mark.parametrize("name", ["", "zzzzzzzz", None, 3, ["relu"], np.tanh])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UnknownNameError, match="unknown activation"):
        get_activation(name)
