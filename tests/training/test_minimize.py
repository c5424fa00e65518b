"""Full-batch methods: theta handed to SciPy, judged by optima that are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

import bpcore as bp
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.full_batch import METHODS
from tests.helpers.compare import assert_same_bits
from tests.helpers.reference import Reference


def blobs(rng, classes=3, m=90):
    y = np.arange(m) % classes
    return rng.normal(size=(m, 4)) + rng.normal(size=(classes, 4))[y], y


def test_logistic_regression_finds_the_coefficients_of_scikit_learn(backend, rng):
    """A convex problem: multinomial, ridge on the weights, free intercepts."""
    linear = pytest.importorskip("sklearn.linear_model")
    X, y = blobs(rng)
    net = bp.MLP([4, 3], init="zeros", dtype="float64", backend=backend)
    # scikit-learn minimises C * sum(losses) + |w|^2 / 2; we its 1 / (C m)
    run = bp.train(net, X, y, optimizer=bp.LBFGS(500, 1e-12), epochs=500, penalty=bp.L2(1 / (0.7 * 90)))
    model = linear.LogisticRegression(C=0.7, tol=1e-10, max_iter=10_000).fit(X, y)
    W, b = net.get_weights()[0]
    # both end with a gradient near 1e-9; the smallest curvature is the ridge of about 1e-2
    np.testing.assert_allclose(W, model.coef_.T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(b - b.mean(), model.intercept_ - model.intercept_.mean(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(net.predict(X), model.predict_proba(X), rtol=0, atol=1e-5)
    assert run.history[-1]["accuracy"] == pytest.approx(model.score(X, y))


def test_weighted_logistic_regression_with_one_output(cpu_backend, rng):
    linear = pytest.importorskip("sklearn.linear_model")
    X, y = blobs(rng, classes=2, m=80)
    w = rng.integers(0, 4, 80).astype(float)
    net = bp.MLP([4, 1], output="sigmoid", init="zeros", dtype="float64", backend=cpu_backend)
    bp.train(net, X, y, sample_weight=w, optimizer=bp.LBFGS(500, 1e-12), epochs=500, penalty=bp.L2(1 / (2 * w.sum())))
    model = linear.LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000).fit(X, y, sample_weight=w)
    np.testing.assert_allclose(net.get_weights()[0][0], model.coef_.T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(net.get_weights()[0][1], model.intercept_, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
# trust-constr says that two gradients were equal when it is about to stop
@pytest.mark.filterwarnings("ignore:delta_grad == 0.0:UserWarning")
def test_every_method_solves_least_squares(cpu_backend, method, rng):
    """Quadratic, so there is one minimum, and numpy.linalg knows it."""
    X = rng.normal(size=(40, 3))
    Y = X @ rng.normal(size=(3, 2)) + 0.1 * rng.normal(size=(40, 2)) + 1.0
    net = bp.MLP([3, 2], output="identity", dtype="float64", seed=1, backend=cpu_backend)
    run = bp.train(net, X, Y, loss="mse", optimizer=bp.ScipyMinimize(method, 1000, 1e-10), epochs=1000)
    solution = np.linalg.lstsq(np.column_stack([X, np.ones(40)]), Y)[0]
    W, b = net.get_weights()[0]
    np.testing.assert_allclose(np.vstack([W, b]), solution, rtol=0, atol=1e-4)
    losses = run.history["loss"]
    assert losses[-1] == pytest.approx(np.mean((X @ W + b - Y) ** 2), rel=1e-6)
    assert losses[-1] <= losses.min() + 1e-9
    assert run.record["spec"]["optimizer"]["name"] == method
    assert run.steps == len(losses) >= 1


def test_the_objective_is_that_of_scipy_on_the_reference(cpu_backend, rng):
    """Iteration by iteration, SciPy fed by the independent reference walks the same way."""
    X, y = blobs(rng)
    net = bp.MLP([4, 5, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend)
    shapes = net.get_weights()
    reference = Reference(shapes, ["tanh", "softmax"], "cross_entropy")
    onehot = np.eye(3)[y]
    on_weights = np.concatenate([np.repeat([1.0, 0.0], [W.size, b.size]) for W, b in shapes])

    def flat(pairs):
        return np.concatenate([a.ravel() for pair in pairs for a in pair])

    def objective(theta):
        start, pairs = 0, []
        for W, b in shapes:
            w = theta[start : start + W.size].reshape(W.shape)
            pairs.append((w, theta[start + W.size : start + W.size + b.size]))
            start += W.size + b.size
        reference.weights = pairs
        penalty = 0.005 * (on_weights * theta**2).sum()
        gradient = flat(reference.gradients(X, onehot)[0]) + 0.01 * on_weights * theta
        return reference.value(X, onehot) + penalty, gradient

    losses = []
    result = optimize.minimize(
        objective,
        flat(shapes),
        jac=True,
        method="L-BFGS-B",
        tol=1e-5,
        options={"maxiter": 15, "maxcor": 10},
        callback=lambda theta: losses.append(objective(theta)[0]),
    )
    run = bp.train(net, X, y, optimizer=bp.LBFGS(15), epochs=100, penalty=bp.L2(0.01), record_steps=True)
    np.testing.assert_allclose(run.history["loss"] + run.history["penalty"], losses, rtol=1e-7)
    np.testing.assert_allclose(flat(net.get_weights()), result.x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run.history.steps, run.history["loss"])
    assert run.steps == 15
    assert "iterations" in run.stopped_because


def test_float32_networks_too(cpu_backend, rng):
    X, y = blobs(rng)
    net = bp.MLP([4, 5, 3], "tanh", seed=1, dtype="float32", backend=cpu_backend)
    run = bp.train(net, X, y, optimizer=bp.LBFGS(), epochs=40)
    assert run.history[-1]["loss"] < 0.5 * run.history[0]["loss"]
    assert net.theta.dtype == np.float32
    assert net.evaluate(X, y)["loss"] == pytest.approx(run.history[-1]["loss"], rel=1e-5)


def test_both_limits_count(cpu_backend, rng):
    X, y = blobs(rng)
    for optimizer, epochs, expected in ((bp.LBFGS(3), 10, 3), (bp.LBFGS(10), 3, 3)):
        net = bp.MLP([4, 5, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend)
        run = bp.train(net, X, y, optimizer=optimizer, epochs=epochs)
        assert len(run.history) == run.steps == expected


@pytest.mark.parametrize("method", ["L-BFGS-B", "TNC", "SLSQP"])
def test_stopping_rules_and_callbacks_work(cpu_backend, method, rng):
    """What is kept is the iterate at which the rule fired, not the last point of a line search."""
    X, y = blobs(rng)
    optimizer = bp.ScipyMinimize(method, 200)
    net = bp.MLP([4, 5, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend)
    run = bp.train(net, X, y, optimizer=optimizer, epochs=200, stop=bp.MaxSteps(4))
    assert (len(run.history), run.stopped_because) == (4, "reached 4 steps")
    assert net.evaluate(X, y)["loss"] == pytest.approx(run.history[-1]["loss"], rel=1e-12)
    net = bp.MLP([4, 5, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend)
    run = bp.train(net, X, y, optimizer=optimizer, epochs=200, callbacks=[lambda net, progress: progress.epoch == 2])
    assert (len(run.history), run.stopped_because) == (2, "a callback asked to stop")


def test_the_gradient_norm_is_that_of_the_iterate(cpu_backend, rng):
    X, y = blobs(rng)
    net = bp.MLP([4, 3], init="zeros", dtype="float64", backend=cpu_backend)
    options = {"optimizer": bp.LBFGS(500, 1e-14), "epochs": 500, "penalty": bp.L2(0.1)}
    run = bp.train(net, X, y, stop=bp.GradientNorm(1e-3), **options)
    assert len(run.history) > 1
    assert run.stopped_because.startswith("gradient norm is ")
    (W, _), grads = net.get_weights()[0], bp.backward(net, bp.forward(net, X), y)
    host = cpu_backend.to_numpy
    norm = np.sqrt(((host(grads.dW[1]) + 0.1 * W) ** 2).sum() + (host(grads.db[1]) ** 2).sum())
    assert 1e-6 < norm < 1e-3
    assert float(run.stopped_because.split()[3].rstrip(",")) == pytest.approx(norm, rel=0.01)


def test_patience_restores_the_best(cpu_backend, rng):
    X, y = blobs(rng, m=30)
    Xv, yv = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    net = bp.MLP([4, 20, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend)
    run = bp.train(net, X, y, optimizer=bp.LBFGS(), epochs=100, validation=(Xv, yv), stop=bp.Patience(3))
    assert run.stopped_because.startswith("val_loss has not improved for 3 epochs")
    assert net.evaluate(Xv, yv)["loss"] == pytest.approx(run.history["val_loss"].min(), rel=1e-12)


@pytest.mark.parametrize("option", [{"dropout": 0.5}, {"clip": bp.ClipNorm(1.0)}])
def test_dropout_and_clipping_do_not_go_with_it(cpu_backend, option, rng):
    X, y = blobs(rng)
    net = bp.MLP([4, 5, 3], "tanh", seed=1, backend=cpu_backend)
    before = np.array(net.theta)
    with pytest.raises(ConfigurationError, match="L-BFGS-B needs the exact gradient of a fixed loss; dropout and clip"):
        bp.train(net, X, y, optimizer=bp.LBFGS(), **option)
    assert_same_bits(np.array(net.theta), before)


def test_a_loss_that_is_not_finite_at_the_start(cpu_backend):
    net = bp.MLP([1, 1], output="identity", init="zeros", dtype="float64", backend=cpu_backend)
    net.set_weights([([[1e200]], [0.0])])
    before = np.array(net.theta)
    with pytest.raises(DivergenceError, match="step 1: the loss or its gradient is not finite") as caught:
        bp.train(net, [[1.0], [2.0]], [[0.0], [1.0]], loss="mse", optimizer=bp.LBFGS())
    assert (caught.value.step, caught.value.quantity) == (1, "loss")
    assert_same_bits(np.array(net.theta), before)
    run = bp.train(net, [[1.0], [2.0]], [[0.0], [1.0]], loss="mse", optimizer=bp.LBFGS(), on_divergence="stop")
    assert run.stopped_because.startswith("diverged: step 1: the loss or its gradient is not finite")
    assert_same_bits(np.array(net.theta), before)


def test_no_plan_is_built(cpu_backend, rng):
    """Steps of a plan would take memory for all samples once more, and nobody would do them."""
    X, Y = rng.normal(size=(20, 2)), rng.normal(size=(20, 1))
    net = bp.MLP([2, 3, 1], "tanh", "identity", seed=0, backend=cpu_backend)
    run = bp.train(net, X, Y, optimizer=bp.LBFGS(), epochs=3)
    assert run.record["plan"] == "reference"
    assert "L-BFGS-B" in run.record["plan_why"]
    assert run.record["plan_why"].endswith("calls the engine with all samples")
    with pytest.raises(ConfigurationError, match=r"plan='compiled' is for steps of gradient descent; .*L-BFGS-B"):
        bp.train(net, X, Y, optimizer=bp.LBFGS(), plan="compiled")
