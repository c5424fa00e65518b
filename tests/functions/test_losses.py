"""Losses against their definitions, at the edges, next to their paired outputs, and as users declare them."""

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
from bpcore.functions.activations import ACTIVATIONS, Activation
from bpcore.functions.formula import Formula
from bpcore.functions.losses import (
    ALIASES,
    LOSSES,
    CrossEntropy,
    Huber,
    Loss,
    Pair,
    default_loss,
    get_loss,
)
from bpcore.functions.program import Program
from tests.helpers.compare import assert_close

mp = mpmath.mp.clone()
mp.dps = 100


def _xlogy(y, a):
    return mp.mpf(0) if y == 0 else y * mp.log(a)


def _huber(delta):
    def value(a, y):
        d = abs(a - y)
        return d * d / 2 if d <= delta else delta * (d - mp.mpf(delta) / 2)

    return value


# The definitions of the specification, for one output, in 100 digits.
DEFINITIONS = {
    "quadratic": lambda a, y: (a - y) ** 2 / 2,
    "mse": lambda a, y: (a - y) ** 2,
    "absolute": lambda a, y: abs(a - y),
    "huber": _huber(1),
    "binary_cross_entropy": lambda a, y: -(_xlogy(y, a) + _xlogy(1 - y, 1 - a)),
    "binary_cross_entropy_logits": lambda a, y: mp.log1p(mp.exp(a)) - y * a,
    "cross_entropy": lambda a, y: -_xlogy(y, a),
    "hinge": lambda a, y: max(mp.mpf(0), 1 - y * a),
    "exponential": lambda a, y: mp.exp(-y * a),
}
VARIANTS = {
    "huber(0.25)": (Huber(0.25), _huber(0.25)),
    "huber(3)": (Huber(3), _huber(3)),
    "cross_entropy(base=2)": (CrossEntropy(2), lambda a, y: -_xlogy(y, a) / mp.log(2)),
    "cross_entropy(base=10)": (CrossEntropy(10), lambda a, y: -_xlogy(y, a) / mp.log(10)),
}
CASES = {name: (LOSSES[name], definition) for name, definition in DEFINITIONS.items()} | VARIANTS

REAL = [-1e4, -60.0, -3.5, -1.0, -0.25, -1e-6, 0.0, 1e-6, 0.25, 0.5, 1.0, 3.0, 60.0, 1e4]
UNIT = [0.0, 1e-30, 1e-6, 0.125, 0.25, 0.5, 0.75, 1 - 2**-20, 1.0]


def points(loss, dtype):
    """Every prediction with every target that makes sense, exactly representable in float32."""
    a = UNIT if loss.prediction_range == (0, 1) else REAL
    if loss.name == "exponential":
        a = [v for v in REAL if abs(v) <= 80]  # beyond, e**|a| itself overflows float32
    y = {"real": REAL, "probability": UNIT[:1] + UNIT[2:], "distribution": UNIT[:1] + UNIT[2:], "sign": [-1.0, 1.0]}
    A, Y = np.meshgrid(np.array(a, np.float32), np.array(y[loss.target_kind], np.float32))
    return A.ravel().astype(dtype), Y.ravel().astype(dtype)


@functools.cache
def reference(name, dtype):
    """Value and slope by the prediction, from the definition; inf at a pole, NaN where the slope has no value."""
    loss, definition = CASES[name]
    value, slope = [], []
    for a, y in zip(*(map(mp.mpf, map(float, v)) for v in points(loss, dtype)), strict=True):
        step = mp.mpf(10) ** -20 * (abs(a) or 1)
        try:
            here = definition(a, y)
        except ValueError:  # the logarithm of 0
            here = mp.inf
        try:
            left, right = definition(a - step, y), definition(a + step, y)
            sides = (here - left) / step, (right - here) / step
            smooth = mp.isfinite(here) and abs(sides[0] - sides[1]) < 1e-9 * (1 + abs(sides[0]))
            inside = mp.im(left) == 0 and mp.im(right) == 0
            slope.append(float((right - left) / (2 * step)) if smooth and inside else math.nan)
        except ValueError:
            slope.append(math.nan)
        value.append(float(here))
    # central differences of a parabola leave 1e-100 where the slope is 0
    return np.array(value), np.where(np.abs(slope) < 1e-60, 0.0, slope)


def run(loss, backend, a, y):
    """Value and derivative by a backend, always as the same program, so that each loss is compiled once a dtype."""
    program = Program({"loss": loss.value_formula, "d": loss.derivative_formula}, name=loss.name)
    outs = tuple(np.full(a.shape, 77.0, a.dtype) for _ in range(2))
    return backend.elementwise(program, out=outs, a=a, y=y)


@functools.cache
def computed(name, backend, dtype):
    return run(CASES[name][0], backend, *points(CASES[name][0], dtype))


def log_softmax(Z):
    shifted = Z - Z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# ------------------------------------------------------------------------------------------------ values


def test_there_is_a_definition_for_every_loss():
    assert set(DEFINITIONS) == set(LOSSES)


@pytest.mark.parametrize("name", CASES)
def test_values(name, cpu_backend, dtype):
    a, y = (v.astype(np.float64) for v in points(CASES[name][0], dtype))
    value, _ = reference(name, dtype)
    scale = np.abs(value)
    if name == "exponential":
        scale = scale * (1 + np.abs(a))  # a relative error eps of the exponent moves the result by |a| eps
    if name == "binary_cross_entropy_logits":
        scale = np.maximum(scale, np.abs(a * y))  # softplus(a) - a y cancels
    assert_close(
        computed(name, cpu_backend, dtype)[0], value, dtype=dtype, scale=np.where(np.isfinite(scale), scale, 0)
    )


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, cpu_backend, dtype):
    a, y = (v.astype(np.float64) for v in points(CASES[name][0], dtype))
    _, slope = reference(name, dtype)
    smooth = ~np.isnan(slope)
    assert smooth.sum() >= 10
    with np.errstate(all="ignore"):
        scale = {
            "exponential": np.abs(slope) * (1 + np.abs(a)),
            "binary_cross_entropy_logits": np.ones_like(a),  # sigmoid(a) - y cancels
            # y/a - (1-y)/(1-a) cancels
            "binary_cross_entropy": np.where(y == 0, 0, y / a) + np.where(y == 1, 0, (1 - y) / (1 - a)),
        }.get(name, np.abs(slope))
    found = computed(name, cpu_backend, dtype)[1]
    assert_close(found[smooth], slope[smooth], dtype=dtype, scale=scale[smooth])


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "cross_entropy(base=2)"])
def test_zero_times_log_zero_is_zero(name, cpu_backend, dtype):
    loss = CASES[name][0]
    a, y = np.array([0, 0, 0.5, 1, 1], dtype), np.array([0, 1, 0, 1, 0], dtype)
    value, slope = run(loss, cpu_backend, a, y)
    assert value[0] == 0
    assert value[1] == math.inf
    assert value[3] == 0
    assert not np.isnan(value).any()
    if name == "binary_cross_entropy":
        assert value[4] == math.inf
        assert slope.tolist() == [1.0, -math.inf, 2.0, -1.0, math.inf]
    else:
        assert value[2] == value[4] == 0
        assert slope[[0, 2, 4]].tolist() == [0, 0, 0]


def test_nan_predictions_give_nan(cpu_backend, dtype):
    for name, (loss, _) in CASES.items():
        y = {"sign": 1.0}.get(loss.target_kind, 0.5)
        value, _ = run(loss, cpu_backend, np.array([np.nan], dtype), np.array([y], dtype))
        assert np.isnan(value[0]), name


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_never_negative_and_zero_at_its_minimum(name):
    loss = CASES[name][0]
    a, y = points(loss, np.float64)
    assert (loss.value_formula(a=a, y=y) >= 0).all()


@pytest.mark.parametrize(
    ("name", "a", "y", "allowed"),
    [
        ("absolute", 0.5, 0.5, (-1, 1)),
        ("hinge", 1.0, 1.0, (-1, 0)),
        ("hinge", -1.0, -1.0, (0, 1)),
    ],
)
def test_at_a_kink_the_derivative_is_a_subgradient(name, a, y, allowed):
    assert allowed[0] <= float(LOSSES[name].derivative_formula(a=a, y=y)) <= allowed[1]


# ------------------------------------------------------------------------------------------------ pairs

PAIRS = [(loss, output) for loss, (declared, _) in CASES.items() for output in declared.pairs]


def test_the_pairs_of_the_specification_are_declared():
    assert ("cross_entropy", "softmax") in PAIRS
    assert ("binary_cross_entropy", "sigmoid") in PAIRS
    assert ("quadratic", "identity") in PAIRS


def _targets(loss, shape, rng):
    if loss.target_kind == "distribution":
        Y = special.softmax(rng.normal(size=shape) * 3, axis=1)
        Y[0] = np.eye(shape[1])[0]
        Y[1] = np.eye(shape[1])[-1]
        return Y
    if loss.target_kind == "probability":
        Y = rng.uniform(size=shape)
        Y[:2] = [[0], [1]]
        return Y
    return rng.normal(size=shape)


def _unpaired(loss, act, Z, Y):
    """Value and delta of every output in full: dE/dH and the Jacobian of the output, in NumPy."""
    if act.rowwise:
        logH = log_softmax(Z)
        H = np.exp(logH)
        G = loss.derivative_formula(a=H, y=Y)
        return loss.value_formula(a=H, y=Y), H * (G - (G * H).sum(axis=1, keepdims=True)), H, logH
    H = act.value_formula(z=Z)
    slope = act.derivative_formula(**{"z": Z, "h": H})
    return loss.value_formula(a=H, y=Y), loss.derivative_formula(a=H, y=Y) * slope, H, None


@pytest.mark.parametrize(("name", "output"), PAIRS)
def test_a_pair_is_the_full_computation(name, output):
    loss, act = CASES[name][0], ACTIVATIONS[output]
    rng = np.random.default_rng(4)
    Z = rng.normal(size=(20, 5)) * 4
    Y = _targets(loss, Z.shape, rng)
    if output == "log_softmax":
        # with log-softmax the prediction is a logarithm: the loss is that of the probabilities behind it
        value, delta, _, logH = _unpaired(loss, ACTIVATIONS["softmax"], Z, Y)
        H = logH
    else:
        value, delta, H, logH = _unpaired(loss, act, Z, Y)
    pair = loss.pair_with(act)
    assert pair is not None
    names = {"z": Z, "h": H, "logh": logH, "y": Y}
    for text, expected in ((pair.value, value), (pair.delta, delta)):
        formula = Formula(text, ["z", "h", "logh", "y"])
        found = formula(**{k: names[k] for k in formula.variables})
        # logits up to 16: 1 - sigmoid(16) in the unpaired form has lost seven digits
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("name", "output"), PAIRS)
def test_the_delta_of_a_pair_is_the_slope_of_its_value(name, output):
    """Central differences of the summed pair value by every z, in float64."""
    loss, act = CASES[name][0], ACTIVATIONS[output]
    pair = loss.pair_with(act)
    assert pair is not None
    rng = np.random.default_rng(6)
    Z = rng.normal(size=(6, 4)) * 2
    Y = _targets(loss, Z.shape, rng)

    def names(Z):
        logH = log_softmax(Z)
        H = {"softmax": np.exp(logH), "log_softmax": logH}.get(output)
        return {"z": Z, "h": act.value_formula(z=Z) if H is None else H, "logh": logH, "y": Y}

    def run(text, Z):
        formula = Formula(text)
        return formula(**{k: v for k, v in names(Z).items() if k in formula.variables})

    delta = run(pair.delta, Z)
    for j in range(Z.shape[1]):
        step = np.zeros_like(Z)
        step[:, j] = 1e-5
        slope = (run(pair.value, Z + step).sum(axis=1) - run(pair.value, Z - step).sum(axis=1)) / 2e-5
        np.testing.assert_allclose(delta[:, j], slope, atol=1e-8)


@pytest.mark.parametrize(("name", "output"), PAIRS)
def test_pairs_stay_finite_at_huge_logits(name, output, cpu_backend, dtype):
    loss, act = CASES[name][0], ACTIVATIONS[output]
    pair = loss.pair_with(act)
    assert pair is not None
    Z = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [88.0, 104.0, -90.0], [1e4, 1e4, 1e4]], dtype)
    Y = np.array([[0, 1, 0], [0.5, 0.25, 0.25], [0, 0, 1], [1, 0, 0]], dtype)
    names = {"z": Z, "y": Y}
    if act.rowwise:
        names["logh"] = cpu_backend.log_softmax(Z, np.empty_like(Z))
        names["h"] = names["logh"] if output == "log_softmax" else cpu_backend.softmax(Z, np.empty_like(Z))
    else:
        names["h"] = cpu_backend.elementwise(Program({"h": act.value_formula}), out=np.empty_like(Z), z=Z)
    program = Program({"loss": pair.value, "d": pair.delta})
    value, delta = (np.empty_like(Z), np.empty_like(Z))
    cpu_backend.elementwise(program, out=(value, delta), **{k: names[k] for k in program.inputs})
    assert np.isfinite(value).all()
    assert np.isfinite(delta).all()
    exact = {k: v.astype(np.float64) for k, v in names.items()}
    if act.rowwise:
        logS = log_softmax(exact["z"])
        base = math.log({"cross_entropy(base=2)": 2, "cross_entropy(base=10)": 10}.get(name, math.e))
        assert_close(value, -exact["y"] * logS / base, dtype=dtype, scale=np.abs(logS) / base + 1)
        assert_close(delta, (np.exp(logS) - exact["y"]) / base, dtype=dtype, scale=1.0)
    elif output == "sigmoid":
        assert_close(
            value, np.logaddexp(0, exact["z"]) - exact["z"] * exact["y"], dtype=dtype, scale=np.abs(exact["z"]) + 1
        )
        assert_close(delta, special.expit(exact["z"]) - exact["y"], dtype=dtype, scale=1.0)


# ------------------------------------------------------------------------------------------------ witnesses


def test_against_scipy():
    rng = np.random.default_rng(8)
    a, y = rng.uniform(size=1000), rng.uniform(size=1000)
    np.testing.assert_allclose(
        LOSSES["binary_cross_entropy"].value_formula(a=a, y=y),
        -special.xlogy(y, a) - special.xlog1py(1 - y, -a),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        LOSSES["cross_entropy"].value_formula(a=a, y=y),
        special.entr(y) + special.rel_entr(y, a),
        rtol=1e-12,
        atol=1e-13,
    )
    r = rng.normal(size=1000) * 3
    for delta in (0.1, 1.0, 2.5):
        np.testing.assert_allclose(
            Huber(delta).value_formula(a=r, y=0.0), special.huber(delta, r), rtol=1e-14, atol=1e-16
        )


def test_against_sklearn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 4, 50)
    P = special.softmax(rng.normal(size=(50, 4)), axis=1)
    ours = LOSSES["cross_entropy"].value_formula(a=P, y=np.eye(4)[labels]).sum(axis=1).mean()
    assert ours == pytest.approx(metrics.log_loss(labels, P), rel=1e-12)
    y, a = rng.choice([-1, 1], 50), rng.normal(size=50) * 2
    assert LOSSES["hinge"].value_formula(a=a, y=y).mean() == pytest.approx(metrics.hinge_loss(y, a), rel=1e-12)
    assert LOSSES["mse"].value_formula(a=a, y=y).mean() == pytest.approx(metrics.mean_squared_error(y, a), rel=1e-12)
    assert LOSSES["absolute"].value_formula(a=a, y=y).mean() == pytest.approx(
        metrics.mean_absolute_error(y, a), rel=1e-12
    )


@pytest.mark.witness
@pytest.mark.parametrize(
    "name", ["mse", "absolute", "huber", "huber(0.25)", "binary_cross_entropy", "binary_cross_entropy_logits"]
)
def test_elementwise_losses_against_torch(name):
    import torch

    functional = torch.nn.functional
    witness: Any = {
        "mse": functional.mse_loss,
        "absolute": functional.l1_loss,
        "huber": functional.huber_loss,
        "huber(0.25)": functools.partial(functional.huber_loss, delta=0.25),
        "binary_cross_entropy": functional.binary_cross_entropy,
        "binary_cross_entropy_logits": functional.binary_cross_entropy_with_logits,
    }[name]
    rng = np.random.default_rng(10)
    Y = rng.uniform(size=(9, 4))
    A = rng.uniform(0.01, 0.99, size=(9, 4)) if name == "binary_cross_entropy" else rng.normal(size=(9, 4)) * 3
    a: Any = torch.tensor(A, requires_grad=True)
    value = witness(a, torch.tensor(Y), reduction="none")
    value.sum().backward()
    loss = CASES[name][0]
    np.testing.assert_allclose(loss.value_formula(a=A, y=Y), value.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(loss.derivative_formula(a=A, y=Y), a.grad.numpy(), rtol=1e-12, atol=1e-14)
    assert loss.reduce == "mean"


@pytest.mark.witness
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_softmax_against_torch(smoothing):
    import torch

    rng = np.random.default_rng(12)
    Z, labels = rng.normal(size=(9, 4)) * 3, rng.integers(0, 4, 9)
    z: Any = torch.tensor(Z, requires_grad=True)
    value = torch.nn.functional.cross_entropy(z, torch.tensor(labels), reduction="none", label_smoothing=smoothing)
    value.sum().backward()
    loss = CrossEntropy(label_smoothing=smoothing)
    Y = (1 - loss.label_smoothing) * np.eye(4)[labels] + loss.label_smoothing / 4
    pair = loss.pair_with(ACTIVATIONS["softmax"])
    assert pair is not None
    logH = log_softmax(Z)
    np.testing.assert_allclose(Formula(pair.value)(logh=logH, y=Y).sum(axis=1), value.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(Formula(pair.delta)(h=np.exp(logH), y=Y), z.grad.numpy(), rtol=1e-11, atol=1e-13)


# ------------------------------------------------------------------------------------------------ declarations


@pytest.mark.parametrize("name", CASES)
def test_the_declared_derivative_passes_the_check_that_users_get(name):
    loss = CASES[name][0]
    assert dataclasses.replace(loss, check=True, pairs=dict(loss.pairs)) == loss


@pytest.mark.parametrize("name", CASES)
def test_the_derived_derivative_is_the_declared_one(name):
    loss = CASES[name][0]
    low, high = (0.01, 0.99) if loss.prediction_range == (0, 1) else (-3.07, 3.11)
    a = np.linspace(low, high, 50)[:, None]
    y = np.array({"real": [-1.03, 0.02, 2.0], "sign": [-1.0, 1.0]}.get(loss.target_kind, [0.0, 0.3, 1.0]))
    derived = np.broadcast_to(loss.value_formula.derivative("a")(a=a, y=y), (50, len(y)))
    declared = np.broadcast_to(loss.derivative_formula(a=a, y=y), (50, len(y)))
    np.testing.assert_allclose(derived, declared, rtol=1e-12, atol=1e-13)


def test_reductions_over_outputs_are_those_of_the_specification():
    sums = {name for name, loss in LOSSES.items() if loss.reduce == "sum"}
    assert sums == {"quadratic", "cross_entropy", "hinge", "exponential"}
    assert all(loss.source for loss in LOSSES.values())


@pytest.mark.parametrize("delta", [0, -1, math.inf, math.nan])
def test_hubers_corner_must_be_positive(delta):
    with pytest.raises(ConfigurationError, match="delta"):
        Huber(delta)


@pytest.mark.parametrize("delta", [1e-3, 0.5, 1.0, 7.0])
def test_huber_is_smooth_at_its_corner(delta):
    loss = Huber(delta)
    below, above = np.nextafter(delta, 0), np.nextafter(delta, 9)
    for sign in (-1, 1):
        values = loss.value_formula(a=sign * np.array([below, delta, above]), y=0.0)
        np.testing.assert_allclose(values, delta**2 / 2, rtol=1e-14)
        np.testing.assert_allclose(
            loss.derivative_formula(a=sign * np.array([below, delta, above]), y=0.0), sign * delta
        )


def test_hubers_with_different_corners_are_different_losses():
    assert Huber(2) != Huber(3)
    assert Huber(2).name != Huber(3).name != Huber().name
    assert Huber() == LOSSES["huber"]


@pytest.mark.parametrize("base", [3, "2", "10", 1, 0, None, math.e, True, "E"])
def test_other_bases_are_refused(base):
    with pytest.raises(ConfigurationError, match=r"the base of the logarithm is .*; possible: 'e', 2, 10"):
        CrossEntropy(base)


def test_bases_are_multiples_of_each_other():
    a, y = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.5])
    nats = CrossEntropy().value_formula(a=a, y=y)
    np.testing.assert_allclose(CrossEntropy(2).value_formula(a=a, y=y), nats / math.log(2), rtol=1e-15)
    np.testing.assert_allclose(CrossEntropy(10).value_formula(a=a, y=y), nats / math.log(10), rtol=1e-15)
    assert float(CrossEntropy(2).value_formula(a=0.25, y=1.0)) == 2.0
    assert float(CrossEntropy(10).value_formula(a=0.001, y=1.0)) == pytest.approx(3.0, rel=1e-15)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2, math.nan, math.inf])
def test_label_smoothing_must_be_a_fraction(smoothing):
    with pytest.raises(ConfigurationError, match=r"label_smoothing is .*; it must be in \[0, 1\)"):
        CrossEntropy(label_smoothing=smoothing)
    with pytest.raises(ConfigurationError, match="label_smoothing"):
        dataclasses.replace(CrossEntropy(), label_smoothing=smoothing, check=False)


def test_label_smoothing_is_part_of_the_loss():
    loss = CrossEntropy(label_smoothing=0.1)
    assert loss != CrossEntropy()
    assert dataclasses.replace(CrossEntropy(), label_smoothing=0.1, check=False) == loss
    assert loss.pairs == CrossEntropy().pairs


@pytest.mark.parametrize("name", CASES)
def test_pickling(name):
    loss = CASES[name][0]
    again = pickle.loads(pickle.dumps(loss))
    assert again == loss
    assert hash(again) == hash(loss)
    assert dict(again.pairs) == dict(loss.pairs)
    assert again.value_formula == loss.value_formula


def test_losses_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOSSES["mse"].reduce = "sum"  # type: ignore[misc]
    with pytest.raises(TypeError):
        LOSSES["quadratic"].pairs["tanh"] = Pair("z", "1")  # type: ignore[index]


# ------------------------------------------------------------------------------------------------ users' own


def test_a_missing_derivative_is_derived():
    loss = Loss("log_cosh", "softplus(2*(a - y)) - (a - y) - log(2)", reduce="mean")
    d = np.array([-30.0, -2.0, -0.1, 0.3, 4.0, 50.0])
    np.testing.assert_allclose(
        loss.value_formula(a=d, y=0.0), np.logaddexp(d, -d) - math.log(2), rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(loss.derivative_formula(a=d, y=0.0), np.tanh(d), rtol=1e-12)
    assert loss.pair_with(ACTIVATIONS["identity"]) is None


@pytest.mark.parametrize(
    ("formula", "derivative"),
    [("(a - y)**2", "a - y"), ("abs(a - y)", "sign(y - a)"), ("exp(-y*a)", "-y*a*exp(-y*a)"), ("(a - y)**4", "0")],
)
def test_a_wrong_derivative_is_refused_with_the_place(formula, derivative):
    message = r"loss 'mine': the given derivative .* is .* at a = -?\d.*, y = -?\d.*, but differences of .* give"
    with pytest.raises(FormulaError, match=message):
        Loss("mine", formula, derivative)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("(a - t)**2", "unknown name 't'; known: a, y, pi, e"),
        ("a > y", "a comparison is not a number"),
        ("", "a formula is a text"),
        ("abs(a) ^ 2", "powers are written with"),
    ],
)
def test_a_formula_outside_the_language_is_refused(formula, message):
    with pytest.raises(FormulaError, match=message):
        Loss("mine", formula)


def test_unknown_reduction():
    with pytest.raises(UnknownNameError, match="unknown reduction over outputs 'average'; known: sum, mean"):
        Loss("mine", "a - y", reduce="average")  # type: ignore[arg-type]


def test_a_wrong_pair_of_a_user_is_refused():
    with pytest.raises((FormulaError, ConfigurationError), match="pair"):
        Loss("mine", "0.5 * (a - y)**2", pairs={"identity": Pair("0.5 * (z - y)**2", "y - z")})
    with pytest.raises((FormulaError, ConfigurationError), match=r"unknown name 'w'|pair"):
        Loss("mine", "0.5 * (a - y)**2", pairs={"identity": Pair("0.5 * (z - y)**2", "z - w")})


# ------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("loss", "output", "message"),
    [
        (
            "cross_entropy",
            "relu",
            r"loss 'cross_entropy' needs predictions in \[0, 1\], but output activation 'relu' gives \[0, inf\]; "
            "output activations that fit: sigmoid, hard_sigmoid, softmax, log_softmax$",
        ),
        (
            "binary_cross_entropy",
            "tanh",
            r"gives \[-1, 1\]; output activations that fit: sigmoid, hard_sigmoid, softmax$",
        ),
        ("binary_cross_entropy", "identity", r"gives \[-inf, inf\]; output activations that fit: sigmoid"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_with_those_that_do(loss, output, message):
    with pytest.raises(ConfigurationError, match=message):
        LOSSES[loss].check_output(ACTIVATIONS[output])


@pytest.mark.parametrize("loss", LOSSES)
def test_what_the_message_lists_is_accepted(loss):
    try:
        LOSSES[loss].check_output(Activation("wild", "3*z"))
    except ConfigurationError as error:
        fitting = str(error).split("that fit: ")[1].split(", ")
        refused = [n for n, act in ACTIVATIONS.items() if act.differentiable and n not in fitting]
        for name in fitting:
            LOSSES[loss].check_output(ACTIVATIONS[name])
        for name in refused:
            with pytest.raises(ConfigurationError, match="output activations that fit"):
                LOSSES[loss].check_output(ACTIVATIONS[name])
    else:
        assert LOSSES[loss].prediction_range == (-math.inf, math.inf)


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", LOSSES)
def test_lookup_by_name_and_by_object(name):
    assert get_loss(name) is LOSSES[name]
    assert get_loss(LOSSES[name]) is LOSSES[name]
    assert LOSSES[name].name == name


def test_aliases():
    for alias, name in ALIASES.items():
        assert get_loss(alias) is LOSSES[name]


@pytest.mark.parametrize(
    ("name", "hint"), [("cross_entrpy", "cross_entropy"), ("hubber", "huber"), ("quadratik", "quadratic")]
)
def test_unknown_names_get_a_suggestion(name, hint):
    with pytest.raises(UnknownNameError, match=f"unknown loss '{name}'; known: .*mse.* Did you mean '{hint}'"):
        get_loss(name)


@pytest.mark.parametrize("name", ["", None, 3, ["mse"], CrossEntropy])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UnknownNameError, match="unknown loss"):
        get_loss(name)


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("softmax", "cross_entropy"),
        ("log_softmax", "cross_entropy"),
        ("sigmoid", "binary_cross_entropy"),
        ("identity", "mse"),
        ("tanh", "mse"),
        ("relu", "mse"),
    ],
)
def test_default_loss(output, loss):
    assert default_loss(ACTIVATIONS[output]) is LOSSES[loss]
