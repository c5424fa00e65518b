"""scikit-learn's multilayer perceptron as a second witness: the same steps on the same batches."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp

neural_network = pytest.importorskip("sklearn.neural_network")

# one epoch of a full batch has of course not converged
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("hidden", "classes"), [("tanh", 3), ("relu", 3), ("logistic", 2)])
def test_ten_full_batches_of_the_classifier(cpu_backend, hidden, classes, nesterov, rng):
    """Loss, gradient and momentum, with their L2 term, which they divide by the number of samples."""
    X, y = rng.normal(size=(30, 4)), rng.integers(0, classes, 30)
    model = neural_network.MLPClassifier(
        hidden_layer_sizes=(6, 5),
        activation=hidden,
        solver="sgd",
        alpha=0.3,
        batch_size=30,
        learning_rate_init=0.1,
        momentum=0.9,
        nesterovs_momentum=nesterov,
        shuffle=False,
        random_state=0,
    )
    model.partial_fit(X, y, classes=np.arange(classes))
    # start both from the same point, with no velocity
    model._optimizer.velocities = [np.zeros_like(v) for v in model._optimizer.velocities]
    n_out = 1 if classes == 2 else classes
    net = bp.MLP(
        [4, 6, 5, n_out], hidden, "sigmoid" if n_out == 1 else "softmax", dtype="float64", seed=0, backend=cpu_backend
    )
    net.set_weights(zip(model.coefs_, model.intercepts_, strict=True))
    losses = []
    for _ in range(10):
        model.partial_fit(X, y)
        losses.append(model.loss_)
    run = bp.train(
        net,
        X,
        y,
        optimizer=bp.SGD(0.1, momentum=0.9, nesterov=nesterov),
        batch_size="full",
        epochs=10,
        penalty=bp.L2(0.3 / 30),
    )
    for (W, b), W_theirs, b_theirs in zip(net.get_weights(), model.coefs_, model.intercepts_, strict=True):
        np.testing.assert_allclose(W, W_theirs, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(b, b_theirs, rtol=1e-10, atol=1e-12)
    # their loss holds the penalty before the step, ours the one after it
    np.testing.assert_allclose(run.history["loss"][1:] + run.history["penalty"][:-1], losses[1:], rtol=1e-12)
    np.testing.assert_allclose(net.predict_classes(X), model.predict(X))


def test_the_regressor_for_one_output(cpu_backend, rng):
    """For one output their gradient is that of half the squared error; for more it is not (their issue 8349)."""
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    model = neural_network.MLPRegressor(
        hidden_layer_sizes=(6,),
        activation="tanh",
        solver="sgd",
        alpha=0,
        batch_size=30,
        learning_rate_init=0.1,
        momentum=0,
        shuffle=False,
        random_state=0,
    )
    model.partial_fit(X, y)
    net = bp.MLP([4, 6, 1], "tanh", "identity", dtype="float64", seed=0, backend=cpu_backend)
    net.set_weights(zip(model.coefs_, model.intercepts_, strict=True))
    for _ in range(5):
        model.partial_fit(X, y)
    bp.train(net, X, y, loss="quadratic", optimizer=bp.SGD(0.1), batch_size="full", epochs=5)
    for (W, b), W_theirs, b_theirs in zip(net.get_weights(), model.coefs_, model.intercepts_, strict=True):
        np.testing.assert_allclose(W, W_theirs, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(b, b_theirs, rtol=1e-11, atol=1e-13)
    assert net.evaluate(X, y, "mse")["r2"] == pytest.approx(model.score(X, y), rel=1e-10)
