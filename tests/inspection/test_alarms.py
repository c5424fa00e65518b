"""Planted faults are found, with their layer and with advice; a network that learns raises no alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bpcore as bp
from bpcore.inspection.alarms import ADVICE, loss_alarms


@pytest.fixture
def points(rng):
    """Standardised samples of two classes that a small network tells apart."""
    X = rng.normal(size=(200, 5))
    return X, (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(np.int64)


def kinds(found):
    return {(alarm.kind, alarm.layer) for alarm in found.alarms}


def net_of(sizes, activation="relu", output="softmax", **how):
    return bp.MLP(sizes, activation, output, seed=0, dtype="float64", backend="numpy", **how)


def shift(net, layer, units, bias):
    """Give some neurons of a layer another bias."""
    pairs = net.get_weights()
    pairs[layer - 2][1][units] = bias
    return net.set_weights(pairs)


# ------------------------------------------------------------------------------------------ neurons


@pytest.mark.parametrize("backend", ["numpy", "numba", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
def test_planted_dead_neurons_are_found(backend, points):
    net = shift(bp.MLP([5, 10, 8, 2], seed=0, backend=backend), 3, [1, 4, 5, 6], -1e3)
    report = bp.inspect(net, *points)
    assert report[3].dead == (1, 4, 5, 6)
    assert report[2].dead == ()
    H = backend.to_numpy(bp.forward(net, points[0]).H[3])
    np.testing.assert_allclose(report[3].flat, (H <= 0).mean(axis=0), atol=1e-7)
    assert report[3].H.zeros == pytest.approx((H == 0).mean())
    assert kinds(report) == {("dead_neurons", 3)}
    assert "4 of 8 neurons are dead" in str(report)


def test_a_neuron_that_one_sample_activates_is_not_dead(points):
    X, labels = points
    net = net_of([5, 4, 2])
    Z = np.asarray(bp.forward(net, X).Z[2])[:, 2]
    largest = np.sort(Z)[-2:].mean()  # between the largest and the second largest
    assert bp.inspect(shift(net, 2, [2], -largest), X, labels)[2].flat[2] == pytest.approx(199 / 200)
    assert bp.inspect(net, X, labels)[2].dead == ()
    assert bp.inspect(shift(net, 2, [2], -Z.max() - 1e-9), X, labels)[2].dead == (2,)


@pytest.mark.parametrize("formula", ["where(z > 1, z - 1, 0)", "max(z, 0)**2", "softplus(4*z) / 4"])
def test_neurons_of_the_users_own_activation_can_be_dead(formula, points):
    net = net_of([5, 6, 2], bp.Activation("mine", formula))
    report = bp.inspect(shift(net, 2, [0, 3], -1e3), *points)
    assert report[2].response == "rectifier"
    assert report[2].dead == (0, 3)


def test_a_dead_layer_is_serious_and_speaks_for_what_follows_from_it(points):
    report = bp.inspect(shift(net_of([5, 8, 8, 8, 2]), 3, slice(None), -1e3), *points)
    (alarm,) = report.alarms
    assert (alarm.kind, alarm.layer, alarm.serious) == ("dead_layer", 3, True)
    assert not report.passed


@pytest.mark.parametrize(
    "activation", ["tanh", "sigmoid", "hard_tanh", bp.Activation("softsign", "z / (1 + abs(z))")], ids=str
)
def test_a_saturated_layer_is_found(activation, points):
    net = net_of([5, 8, 8, 2], ["tanh", activation])
    pairs = net.get_weights()
    pairs[1] = (300 * pairs[1][0], pairs[1][1])
    report = bp.inspect(net.set_weights(pairs), *points)
    assert ("saturated", 3) in kinds(report)
    assert ("saturated", 2) not in kinds(report)
    assert report[3].flat_share > 0.9
    assert len(report[3].saturated) > 2
    assert report[3].dead == ()
    # the slope by differences, relative to the largest
    Z = np.asarray(bp.forward(net, points[0]).Z[3])
    f = net.activations[3].value_formula
    slope = np.abs(f(z=Z + 1e-5) - f(z=Z - 1e-5)) / 2e-5
    peak = {"sigmoid": 0.25}.get(net.activations[3].name, 1.0)
    np.testing.assert_allclose(report[3].flat, (slope < 0.05 * peak).mean(axis=0), atol=0.011)


@pytest.mark.parametrize(
    ("activation", "edge"),
    # where the slope is a twentieth of the largest: 1 - tanh(z)**2, and sigmoid(z) * (1 - sigmoid(z)) = 0.25 / 20
    [("tanh", np.arctanh(0.95**0.5)), ("sigmoid", np.log((1 + 0.95**0.5) / (1 - 0.95**0.5)))],
)
def test_an_output_is_flat_below_a_twentieth_of_the_largest_slope(activation, edge):
    net = net_of([1, 1, 1], activation, "identity").set_weights([([[1.0]], [0.0]), ([[1.0]], [0.0])])
    X = np.array([[0.0], [edge - 1e-6], [edge + 1e-6], [-edge + 1e-6], [-edge - 1e-6]])
    assert bp.inspect(net, X, np.ones((5, 1)))[2].flat == (0.4,)


def test_an_output_that_is_sure_and_right_is_no_fault(points):
    """A saturated output is what training wants, if it is on the right side, or the loss cancels the slope."""
    X = np.array([[1.0], [-1.0]])
    sure = net_of([1, 1], output="sigmoid").set_weights([([[20.0]], [0.0])])
    assert bp.inspect(sure, X, [1, 0], "quadratic")[2].flat_share == 1
    assert bp.inspect(sure, X, [1, 0], "quadratic").alarms == ()
    wrong = bp.inspect(sure, X, [0, 1], "quadratic")
    assert kinds(wrong) == {("stuck_outputs", 2)}
    assert wrong[2].stuck == 1.0
    assert "binary_cross_entropy" in wrong.alarms[0].advice
    assert ("stuck_outputs", 2) not in kinds(bp.inspect(sure, X, [0, 1], "binary_cross_entropy"))


# ------------------------------------------------------------------------------------------ errors and steps


def test_errors_that_vanish_are_found(points):
    report = bp.inspect(net_of([5, *[20] * 8, 2], "sigmoid"), *points)
    assert kinds(report) == {("vanishing", 2)}
    first, last = report[2].Delta.rms, report[9].Delta.rms
    assert f"{first / last:.1e} of that of layer 9" in report.alarms[0].message
    assert report.alarms[0].serious == (first < 1e-4 * last)
    assert bp.inspect(net_of([5, *[20] * 8, 2], "relu"), *points).alarms == ()


def test_errors_that_explode_are_found(points):
    net = net_of([5, *[30] * 6, 2])
    net.set_weights([(6 * W, b) for W, b in net.get_weights()])
    report = bp.inspect(net, *points)
    assert ("exploding", 2) in kinds(report)
    assert report[2].Delta.rms > 100 * report[7].Delta.rms
    assert "ClipNorm" in next(alarm for alarm in report.alarms if alarm.kind == "exploding").advice


def test_a_learning_rate_that_is_too_high_is_found(points):
    net = net_of([5, 16, 2])
    healthy = bp.inspect(net, *points, optimizer=bp.SGD(0.1))
    assert healthy.alarms == ()
    factor = 0.5 / max(layer.update_ratio or 0 for layer in healthy.layers)
    found = bp.inspect(net, *points, optimizer=bp.SGD(0.1 * factor))
    assert {kind for kind, _ in kinds(found)} == {"large_update"}
    assert "50 % of its norm" in found.alarms[0].message


def test_neurons_that_begin_equal_are_found(points):
    report = bp.inspect(net_of([5, 8, 2], "tanh", init="zeros"), *points)
    assert kinds(report) == {("identical_neurons", 2)}
    assert report.alarms[0].serious


@pytest.mark.parametrize(("value", "quantity"), [(np.nan, "W[1]"), (np.inf, "W[1]")])
def test_a_number_that_is_not_finite_is_the_only_alarm(value, quantity, points):
    net = net_of([5, 8, 2])
    net.W[1][2, 3] = value
    report = bp.inspect(net, *points)
    (alarm,) = report.alarms
    assert (alarm.kind, alarm.layer, alarm.serious) == ("not_finite", 2, True)
    assert f"1 of 40 numbers in {quantity}" in alarm.message
    # where it comes from is said as well
    again = bp.inspect(net, 1000 * points[0], points[1])
    assert [alarm.kind for alarm in again.alarms] == ["not_finite", "inputs_not_scaled"]


def test_numbers_that_are_not_finite_come_before_everything_in_the_layers(points):
    net = shift(net_of([5, 8, 8, 2]), 2, slice(6), -1e3)
    assert kinds(bp.inspect(net, *points)) == {("dead_neurons", 2)}
    net.W[2][7, 0] = np.nan
    assert kinds(bp.inspect(net, *points)) == {("not_finite", 3)}


def test_an_overflow_is_named_where_it_begins(points):
    net = net_of([5, 8, 8, 2]).set_weights([(1e200 * W, b) for W, b in net_of([5, 8, 8, 2]).get_weights()])
    (alarm,) = bp.inspect(net, *points).alarms
    assert alarm.layer == 3
    assert "in Z[3] are NaN or infinite" in alarm.message


# ------------------------------------------------------------------------------------------ data


def test_inputs_that_are_not_scaled_are_found(points):
    X, labels = points
    net = net_of([5, 16, 2])
    assert "inputs_not_scaled" in {kind for kind, _ in kinds(bp.inspect(net, 100 * X, labels))}
    assert "inputs_not_scaled" in {kind for kind, _ in kinds(bp.inspect(net, X / 1000, labels))}
    unequal = np.array([1, 1, 1e-3, 1e-3, 1e-3])
    (alarm,) = [alarm for alarm in bp.inspect(net, X * unequal, labels).alarms if alarm.kind == "inputs_not_scaled"]
    assert alarm.layer == 1
    assert "column 0 is" in alarm.message or "column 1 is" in alarm.message
    assert str(alarm).startswith("warning: inputs: ")


def test_columns_are_described(points):
    X, labels = points
    X = X.copy()
    X[:, 1], X[:, 4] = 2.5, 0
    inputs = bp.inspect(net_of([5, 8, 2]), X, labels).inputs
    rms = np.sqrt((X**2).mean(axis=0))
    assert inputs.constant == (1, 4)
    assert inputs.column == 1
    assert inputs.largest == pytest.approx(2.5)
    assert inputs.median == pytest.approx(np.median(rms[rms > 0]))


def test_targets_that_are_not_scaled_are_found(points):
    X, _ = points
    net = net_of([5, 16, 1], output="identity")
    assert ("targets_not_scaled", 3) in kinds(bp.inspect(net, X, 1000 + X[:, :1]))
    assert bp.inspect(net, X, X[:, :1]).alarms == ()


# ------------------------------------------------------------------------------------------ over time


def looks(points, losses):
    one = bp.inspect(net_of([5, 8, 2]), *points)
    return [replace(one, loss=loss, step=k) for k, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        ([0.7, 0.699, 0.698, 0.697, 0.696], "loss_does_not_fall"),
        ([0.7, 0.9, 0.8, 1.2, 1.1], "loss_rises"),
        ([0.7, 0.6, 0.5, 0.4, 0.3], None),
        ([0.7, 0.2, 0.2, 0.2, 0.2, 0.2], None),  # it has fallen
        ([0.7, 0.7, 0.7, 0.7], None),  # too early to say
        ([-1.0, -1.5, -2.0, -2.5, -3.0], None),
        ([-1.0, -1.001, -1.0, -1.0, -1.0], "loss_does_not_fall"),
    ],
)
def test_what_the_loss_says(points, losses, kind):
    assert [alarm.kind for alarm in loss_alarms(looks(points, losses))] == ([kind] if kind else [])


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "elu", "leaky_relu"])
def test_a_healthy_training_raises_no_alarm(activation, points):
    alarms: list = []
    inspector = bp.Inspector(on_alarm=alarms.append)
    net = net_of([5, 24, 16, 2], activation)
    run = bp.train(
        net, *points, optimizer=bp.Adam(0.01), epochs=30, batch_size=20, seed=0, callbacks=[inspector], verbose=False
    )
    assert run.history[-1]["loss"] < 0.5
    assert alarms == []
    assert inspector.alarms == ()


def test_every_kind_has_advice_and_every_advice_a_kind():
    from pathlib import Path

    import bpcore.inspection.alarms as module

    source = Path(module.__file__).read_text("utf-8")
    for kind, advice in ADVICE.items():
        assert source.count(f'"{kind}"') >= 2, kind
        assert len(advice) > 40
