"""Which activations can saturate or die follows from their formulas, and so does where."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp
from bpcore.functions.activations import ACTIVATIONS
from bpcore.inspection.response import response_of

KINDS = {
    "bounded": "sigmoid tanh hard_sigmoid hard_tanh",
    "rectifier": "relu elu selu gelu gelu_tanh silu softplus mish",
    "open": "identity leaky_relu",
    "rowwise": "softmax log_softmax",
}


@pytest.mark.parametrize("name", [name for name, activation in ACTIVATIONS.items() if activation.differentiable])
def test_every_built_in_activation_has_its_kind(name):
    assert name in KINDS[response_of(ACTIVATIONS[name]).kind].split()


@pytest.mark.parametrize(
    ("formula", "kind"),
    [
        ("z / (1 + abs(z))", "bounded"),  # softsign
        ("exp(-z*z)", "bounded"),
        ("3 * tanh(z / 2) - 1", "bounded"),
        ("max(z, 0)**2", "rectifier"),
        ("where(abs(z) > 1, z, 0)", "rectifier"),  # flat in the middle
        ("min(z, 0)", "rectifier"),  # flat on the right
        ("z + sin(z)", "open"),
        ("max(z, 0) + 0.1 * min(z, 0)", "open"),
    ],
)
def test_activations_of_users_are_judged_by_their_formula(formula, kind):
    assert response_of(bp.Activation("mine", formula)).kind == kind


def test_a_name_decides_nothing():
    assert response_of(bp.Activation("relu", "tanh(z)")).kind == "bounded"


def test_the_largest_slope_and_the_width_are_those_of_the_function():
    found = response_of(ACTIVATIONS["sigmoid"])
    assert found.peak == pytest.approx(0.25, rel=1e-12)
    assert found.width == pytest.approx(1.0, rel=1e-9)
    steep = response_of(bp.Activation("steep", "2 * tanh(5 * z)"))
    assert steep.peak == pytest.approx(10.0, rel=1e-12)
    assert steep.width == pytest.approx(4.0, rel=1e-9)


def test_a_domain_with_an_end_is_not_left():
    found = response_of(bp.Activation("root", "sqrt(z)", domain=(0, np.inf)))
    assert found.kind in ("open", "rectifier")
    assert np.isfinite(found.peak)
