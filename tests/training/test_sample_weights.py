"""Sample and class weights: weight 2 is the row twice, weight 0 its absence."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp
from tests.helpers.compare import assert_same_bits
from tests.helpers.reference import Reference, targets_for

PAIRS = [
    ("cross_entropy", "softmax"),
    ("mse", "softmax"),
    ("quadratic", "identity"),
    ("huber", "identity"),
    ("binary_cross_entropy", "sigmoid"),
    ("exponential", "tanh"),
]


def train(be, X, Y, loss, output, w=None, **options):
    """Three full-batch steps; returns the run and all parameters."""
    net = bp.MLP([4, 6, Y.shape[1] if Y.ndim == 2 else 3], "tanh", output, dtype="float64", seed=3, backend=be)
    settings = {"optimizer": bp.SGD(0.2, momentum=0.5), "batch_size": "full", "epochs": 3, **options}
    run = bp.train(net, X, Y, loss=loss, sample_weight=w, **settings)
    return run, np.concatenate([a.ravel() for pair in net.get_weights() for a in pair])


@pytest.mark.parametrize("optimizer", [bp.SGD(0.2, momentum=0.5), bp.LBFGS(max_iterations=3)], ids=["sgd", "lbfgs"])
@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_whole_weights_are_rows_that_are_repeated(cpu_backend, loss, output, optimizer, rng):
    """0, 1, 2 and 3 times a row: parameters and history agree, to the rounding of sums in another order."""
    X, Y = rng.normal(size=(10, 4)), targets_for(loss, rng, 10, 3)
    times = np.array([0, 1, 2, 1, 3, 0, 2, 1, 1, 0])
    weighted, theta = train(cpu_backend, X, Y, loss, output, times, optimizer=optimizer)
    repeated, expected = train(
        cpu_backend, np.repeat(X, times, axis=0), np.repeat(Y, times, axis=0), loss, output, optimizer=optimizer
    )
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(weighted.history["loss"], repeated.history["loss"], rtol=1e-12)
    _, plain = train(cpu_backend, X, Y, loss, output, optimizer=optimizer)
    assert np.abs(theta - plain).max() > 1e-4, "weights that do nothing would pass as well"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 4.0, 1e6])
def test_only_the_ratios_of_weights_count(cpu_backend, scale, rng):
    X, Y, w = rng.normal(size=(10, 4)), targets_for("mse", rng, 10, 3), rng.uniform(size=10)
    _, theta = train(cpu_backend, X, Y, "mse", "identity", w * scale)
    _, expected = train(cpu_backend, X, Y, "mse", "identity", w)
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-13)


def test_equal_weights_are_no_weights(cpu_backend, rng):
    X, Y = rng.normal(size=(10, 4)), targets_for("mse", rng, 10, 3)
    _, theta = train(cpu_backend, X, Y, "mse", "identity", np.full(10, 0.3), batch_size=4, seed=1)
    _, expected = train(cpu_backend, X, Y, "mse", "identity", None, batch_size=4, seed=1)
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-13)


def test_what_a_row_of_weight_zero_holds_does_not_matter(cpu_backend, rng):
    """Not even if its loss and its slope overflow: the row is absent."""
    X, Y = rng.normal(size=(10, 4)), targets_for("exponential", rng, 10, 3)
    w = np.ones(10)
    w[3] = 0
    _, expected = train(cpu_backend, np.delete(X, 3, axis=0), np.delete(Y, 3, axis=0), "exponential", "identity")
    for content in (X[3], np.zeros(4), np.full(4, 5.0)):
        X[3] = content
        _, theta = train(cpu_backend, X, Y, "exponential", "identity", w)
        np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-13)
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    run = bp.train(net, [[1e4], [0.5]], [-1, 1], loss="exponential", sample_weight=[0, 1], batch_size="full", epochs=5)
    assert np.isfinite(run.history["loss"]).all()
    assert net.W[1][0, 0] > 0


def test_mini_batches_are_means_by_their_own_weights(cpu_backend, rng):
    """Each step divides by the weights of its batch, as the loss of that batch does."""
    X, Y, w = rng.normal(size=(7, 4)), targets_for("mse", rng, 7, 3), np.array([1, 0.5, 3, 0, 2, 1, 4])
    net = bp.MLP([4, 6, 3], "tanh", "identity", dtype="float64", seed=3, backend=cpu_backend)
    reference = Reference(net.get_weights(), ["tanh", "identity"], "mse")
    losses, weights = [], []
    for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
        losses.append(reference.value(X[rows], Y[rows], w[rows]))
        weights.append(w[rows].sum())
        grads, _ = reference.gradients(X[rows], Y[rows], w[rows])
        reference.weights = [
            (W - 0.1 * dW, b - 0.1 * db) for (W, b), (dW, db) in zip(reference.weights, grads, strict=True)
        ]
    run = bp.train(
        net, X, Y, sample_weight=w, optimizer=bp.SGD(0.1), batch_size=3, epochs=1, shuffle=False, record_steps=True
    )
    for (W, b), (W_ref, b_ref) in zip(net.get_weights(), reference.weights, strict=True):
        np.testing.assert_allclose(W, W_ref, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(b, b_ref, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(run.history.steps, losses, rtol=1e-12)
    assert run.history[0]["loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-12)


def test_a_batch_whose_weights_are_all_zero_moves_nothing(cpu_backend, rng):
    X, y = rng.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    w = np.array([1.0, 2, 0, 0, 0, 1])
    net = bp.MLP([4, 6, 3], "tanh", dtype="float64", seed=3, backend=cpu_backend)
    trainer = bp.Trainer(net, optimizer=bp.SGD(0.1), batch_size=2)
    before = np.array(net.theta)
    records = trainer.run(X, y, [[2, 3]], sample_weight=w)
    assert_same_bits(np.array(net.theta), before)
    assert (records.loss[0], records.hits[0], records.weight[0]) == (0, 0, 0)
    assert np.isnan(records.mean_loss)

    run = bp.train(
        net, X, y, sample_weight=w, optimizer=bp.SGD(0.1), batch_size=2, epochs=2, shuffle=False, record_steps=True
    )
    losses = run.history.steps[:3]
    assert losses[1] == 0
    assert run.history[0]["loss"] == pytest.approx((3 * losses[0] + losses[2]) / 4, rel=1e-12)
    assert np.isfinite(net.theta).all()


def test_accuracy_is_weighted(cpu_backend):
    net = bp.MLP([1, 2], output="softmax", dtype="float64", init="zeros", backend=cpu_backend)
    net.set_weights([([[-1.0, 1.0]], [0.0, 0.0])])
    X, y, w = [[1.0], [1.0], [-1.0]], [1, 0, 1], [3.0, 1.0, 2.0]
    run = bp.train(net, X, y, sample_weight=w, optimizer=bp.SGD(1e-12), batch_size=2, epochs=1, shuffle=False)
    assert run.history[0]["accuracy"] == pytest.approx(3 / 6)
    assert net.evaluate(X, y, sample_weight=w)["accuracy"] == pytest.approx(3 / 6)


def test_class_weights_are_the_weights_of_their_rows(cpu_backend, rng):
    X, y = rng.normal(size=(12, 4)), np.array([0] * 6 + [1] * 4 + [2] * 2)
    of_class = {0: 0.5, 2: 3.0}
    w = np.where(y == 0, 0.5, np.where(y == 2, 3.0, 1.0))
    _, theta = train(cpu_backend, X, y, "cross_entropy", "softmax", class_weight=of_class)
    _, expected = train(cpu_backend, X, y, "cross_entropy", "softmax", w)
    np.testing.assert_allclose(theta, expected, rtol=1e-13, atol=1e-14)
    _, theta = train(cpu_backend, X, y, "cross_entropy", "softmax", w, class_weight=of_class)
    _, expected = train(cpu_backend, X, y, "cross_entropy", "softmax", w * w)
    np.testing.assert_allclose(theta, expected, rtol=1e-13, atol=1e-14)


def test_balanced_classes_count_alike(cpu_backend, rng):
    X, y = rng.normal(size=(12, 4)), np.array([0] * 6 + [1] * 4 + [2] * 2)
    _, theta = train(cpu_backend, X, y, "cross_entropy", "softmax", class_weight="balanced")
    times = np.where(y == 0, 2, np.where(y == 1, 3, 6))
    _, expected = train(cpu_backend, np.repeat(X, times, axis=0), np.repeat(y, times), "cross_entropy", "softmax")
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-13)


def test_a_gpu_weighs_like_the_cpu(backend, rng):
    X, Y, w = rng.normal(size=(10, 4)), targets_for("mse", rng, 10, 3), rng.integers(0, 3, 10)
    options = {"batch_size": 3, "seed": 5, "penalty": bp.L2(0.1)}
    run, theta = train(backend, X, Y, "mse", "tanh", w, **options)
    expected_run, expected = train(bp.get_backend("numpy"), X, Y, "mse", "tanh", w, **options)
    np.testing.assert_allclose(theta, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(run.history["loss"], expected_run.history["loss"], rtol=1e-11)
