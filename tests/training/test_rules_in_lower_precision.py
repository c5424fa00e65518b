"""Each update rule and clipping in each lower precision: parameters follow from the gradient by the rule, in float32.

How near the gradient is to float64 is the matter of other tests; here it is taken as it is, and what is made of it is
computed once more in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.functions.expression import evaluate
from tests.functions.test_update_rules import CASES as RULES
from tests.helpers.compare import assert_close

SIZES, BATCH, STEPS = [8, 16, 16, 5], 40, 3
WAYS = {"tf32x3": "wide", "tf32": "wide", "bf16": "wide", "fp16": "wide", "bf16, fused": "fused"}
CLIPS: dict[str, Any] = {
    "none": None,
    "norm": bp.ClipNorm(0.05),
    "layers": bp.ClipLayerNorm(0.05),
    "values": bp.ClipValue(0.003),
}
OFTEN = {
    ("adamw", "fp16", "layers"),
    ("nadam", "fp16", "norm"),
    ("amsgrad", "bf16, fused", "norm"),
    ("lion", "tf32", "none"),
}
"""Run with every change; the others take a compilation each."""


def by_hand(rule: Any, theta: Any, g: Any, state: dict[str, Any], t: int, running: Any) -> Any:
    """One step of a rule in float64, line by line as it is declared; return parameters, state and running numbers."""
    eta = rule.schedule.at(t - 1, 0)
    scalars, running = rule.host_scalars(t, eta, running)
    values = {"theta": theta, "g": g, **state, **rule.constants(eta, scalars)}
    for target, expr in rule.program.assignments:
        values[target] = evaluate(expr, values)
    return values["theta"], {name: values[name] for name in rule.state}, running


@pytest.mark.parametrize(
    ("name", "way", "clip"),
    [
        pytest.param(name, way, clip, marks=() if (name, way, clip) in OFTEN else pytest.mark.long)
        for name in RULES
        for way in WAYS
        for clip in CLIPS
        if clip == "none" or name == "momentum" or (name, way, clip) in OFTEN
    ],
)
def test_parameters_follow_from_the_gradient(cupy_backend: CupyBackend, name: str, way: str, clip: str) -> None:
    be, rule = cupy_backend, RULES[name][0]
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(BATCH, SIZES[0])), rng.integers(0, SIZES[-1], BATCH)
    net = bp.MLP(SIZES, "relu", seed=2, dtype="float32", backend=be)
    options: dict[str, Any] = {"plan": WAYS[way], "precision": way.partition(",")[0], "clip": CLIPS[clip]}
    trainer = bp.Trainer(net, optimizer=rule, batch_size=BATCH, seed=3, **options)

    def now(array: Any) -> Any:
        return np.array(be.to_numpy(array), np.float64)

    running: Any = rule.initial_running()
    for t in range(1, STEPS + 1):
        before, state = now(net.theta), {key: now(array) for key, array in trainer.state.arrays.items()}
        trainer.run(X, y, [rng.permutation(BATCH)])
        plan: Any = trainer._plan
        assert plan.name == WAYS[way]
        g = now(plan.gradient)
        limited(net, g, clip)
        theta, state, running = by_hand(rule, before, g, state, t, running)
        for found, wanted in ((net.theta, theta), *((trainer.state.arrays[key], state[key]) for key in state)):
            scale = np.abs(wanted) + np.abs(wanted).max(initial=1e-3) * 0.1
            assert_close(be.to_numpy(found), wanted, dtype=np.float32, factor=32, scale=scale)
    if way == "fp16":
        assert trainer.loss_scaling == {"scale": 65536.0, "skipped_steps": 0}


def limited(net: bp.MLP, g: Any, clip: str) -> None:
    """The gradient is what clipping has left: at its limit, which lies below what it was."""
    layers = range(1, net.n_layers)
    norms = [np.sqrt(sum((net.layout.views(g, kind)[l] ** 2).sum() for kind in "Wb")) for l in layers]
    if clip == "norm":
        np.testing.assert_allclose(np.sqrt(sum(norm**2 for norm in norms)), 0.05, rtol=1e-5)
    elif clip == "layers":
        np.testing.assert_allclose(max(norms), 0.05, rtol=1e-5)
        assert max(norms) < 0.050001
    elif clip == "values":
        np.testing.assert_allclose(np.abs(g).max(), 0.003, rtol=1e-6)
        assert (np.abs(g) >= 0.00299).sum() > 20
