"""Divergence: found at the first bad step, named, and undone to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import DivergenceError, UnknownNameError
from tests.helpers.compare import assert_same_bits


def explosive(be, dtype="float32"):
    """Least squares with a step that is far too long: the weights grow by a factor at every step."""
    rng = np.random.default_rng(5)
    net = bp.MLP([4, 8, 2], "identity", "identity", dtype=dtype, seed=1, backend=be)
    return net, rng.normal(size=(40, 4)), rng.normal(size=(40, 2))


OPTIONS = {"loss": "quadratic", "batch_size": 8, "epochs": 50, "seed": 4}


@pytest.mark.parametrize(
    "optimizer", [bp.SGD(0.9), bp.SGD(0.5, momentum=0.9), bp.RMSprop(1e30)], ids=["sgd", "momentum", "rmsprop"]
)
def test_the_parameters_are_exactly_those_before_the_first_bad_step(backend, optimizer):
    net, X, Y = explosive(backend)
    with pytest.raises(DivergenceError, match=r"step \d+: .* is not finite") as caught:
        bp.train(net, X, Y, optimizer=optimizer, **OPTIONS)
    error = caught.value
    assert error.step >= 1
    assert str(error).startswith(f"step {error.step}: ")
    theta = np.array(backend.to_numpy(net.theta))
    assert np.isfinite(theta).all()
    twin, X, Y = explosive(backend)
    if error.step > 1:
        run = bp.train(twin, X, Y, optimizer=optimizer, stop=bp.MaxSteps(error.step - 1), **OPTIONS)
        assert run.steps == error.step - 1
    assert_same_bits(theta, np.array(backend.to_numpy(twin.theta)))
    # and one step more is too many
    with pytest.raises(DivergenceError) as again:
        bp.train(explosive(backend)[0], X, Y, optimizer=optimizer, stop=bp.MaxSteps(error.step), **OPTIONS)
    assert (again.value.step, again.value.quantity, again.value.layer) == (error.step, error.quantity, error.layer)


def test_the_error_carries_the_run_and_advice(cpu_backend):
    net, X, Y = explosive(cpu_backend)
    with pytest.raises(DivergenceError) as caught:
        bp.train(net, X, Y, optimizer=bp.SGD(0.9), record_steps=True, **OPTIONS)
    error, run = caught.value, caught.value.run
    assert run.net is net
    assert run.stopped_because.startswith(f"diverged: step {error.step}: ")
    assert "is not finite" in run.stopped_because
    assert len(run.history) == (error.step - 1) // 5
    assert run.steps == error.step - 1
    assert np.isfinite(run.history["loss"]).all()
    assert "Last finite loss" in str(error)
    assert "eta 0.9" in str(error)
    assert "The parameters before this step are kept" in str(error)
    assert "clip=bp.ClipNorm(1.0)" in str(error)


def test_stopping_instead_of_raising(cpu_backend):
    net, X, Y = explosive(cpu_backend)
    twin = net.copy()
    ended = []

    class End(bp.Callback):
        def on_end(self, run):
            ended.append(run.stopped_because)

    run = bp.train(net, X, Y, optimizer=bp.SGD(0.9), on_divergence="stop", callbacks=[End()], **OPTIONS)
    assert run.stopped_because.startswith("diverged: step ")
    assert ended == [run.stopped_because]
    with pytest.raises(DivergenceError):
        bp.train(twin, X, Y, optimizer=bp.SGD(0.9), callbacks=[End()], **OPTIONS)
    assert len(ended) == 1, "on_end is not for errors"
    assert_same_bits(np.array(net.theta), np.array(twin.theta))
    with pytest.raises(UnknownNameError, match="unknown value for on_divergence 'ignore'; known: raise, stop"):
        bp.train(net, X, Y, on_divergence="ignore")


def test_optimiser_state_and_counters_go_back_too(cpu_backend):
    """A trainer that diverged can go on, as if the bad step had not been asked for."""
    net, X, Y = explosive(cpu_backend, "float64")
    poisoned = X.copy()
    poisoned[0] = 1e160
    trainer = bp.Trainer(net, loss="quadratic", optimizer=bp.Adam(0.01), batch_size=8, dropout=0.5, seed=2)
    trainer.run(X, Y, np.arange(16).reshape(2, 8))
    before = [np.array(a) for a in (net.theta, *trainer.state.arrays.values())]
    with pytest.raises(DivergenceError, match="step 3"):
        trainer.run(poisoned, Y, [[0, 1, 2]])
    assert trainer.state.step == 2
    for array, expected in zip((net.theta, *trainer.state.arrays.values()), before, strict=True):
        assert_same_bits(np.array(array), expected)
    trainer.run(X, Y, [[3, 4, 5]])

    twin = bp.Trainer(
        explosive(cpu_backend, "float64")[0],
        loss="quadratic",
        optimizer=bp.Adam(0.01),
        batch_size=8,
        dropout=0.5,
        seed=2,
    )
    twin.run(X, Y, np.arange(16).reshape(2, 8))
    twin.run(X, Y, [[3, 4, 5]])
    assert_same_bits(np.array(net.theta), np.array(twin.net.theta))


def one_step(be, weights, x, y, loss, *, activation="identity", optimizer=None, **options):
    """Train a net of identities for a step and return the divergence."""
    sizes = [len(weights[0][0]), *(len(b) for _, b in weights)]
    net = bp.MLP(sizes, activation, "identity", dtype="float32", init="zeros", backend=be)
    net.set_weights(weights)
    before = np.array(be.to_numpy(net.theta))
    with pytest.raises(DivergenceError) as caught:
        bp.Trainer(net, loss=loss, optimizer=optimizer or bp.SGD(0.1), **options).run([x], [y], [[0]])
    assert_same_bits(np.array(be.to_numpy(net.theta)), before)
    assert caught.value.step == 1
    return caught.value


def test_the_first_quantity_is_named(backend):
    """One case for every place where an overflow can begin, in the order of a step."""
    big = 3e38
    # Z[3] = 1e20 * 1e20
    error = one_step(backend, [([[1e20]], [0.0]), ([[1e20]], [0.0])], [1.0], [0.0], "absolute")
    assert (error.quantity, error.layer) == ("Z", 3)
    assert str(error).startswith("step 1: Z[3] is not finite (1 infinite). eta 0.1.")
    # H[2] = exp(100), Z[2] is fine
    exponential = bp.Activation("exponential", "exp(z)", range=(0, np.inf), domain=(-20, 20))
    error = one_step(backend, [([[100.0]], [0.0]), ([[1.0]], [0.0])], [1.0], [0.0], "absolute", activation=exponential)
    assert (error.quantity, error.layer) == ("H", 2)
    # the square of 1e20
    error = one_step(backend, [([[1e20]], [0.0])], [1.0], [0.0], "quadratic")
    assert (error.quantity, error.layer) == ("loss", 0)
    assert "the loss is not finite (1 infinite)" in str(error)
    # loss e^3, Delta[3] = e^3, dW[2] = H[2] * Delta[3] with H[2] = 3e38
    error = one_step(backend, [([[big]], [0.0]), ([[-1e-38]], [0.0])], [1.0], [1.0], "exponential")
    assert (error.quantity, error.layer) == ("dW", 2)
    # Delta[2] = Delta[3] * W[2] = e^3 * 3e38, while H[2] is small
    error = one_step(backend, [([[1e-38]], [0.0]), ([[-big]], [0.0])], [1.0], [1.0], "exponential")
    assert (error.quantity, error.layer) == ("Delta", 2)
    # a finite gradient times a huge step
    error = one_step(backend, [([[0.0]], [0.0])], [1e10], [1.0], "absolute", optimizer=bp.SGD(1e30))
    assert (error.quantity, error.layer) == ("W", 1)
    # the prediction -3e38 is above the target, so the bias goes further down
    error = one_step(backend, [([[0.0]], [-3e38])], [0.0], [-3.3e38], "absolute", optimizer=bp.SGD(1e38))
    assert (error.quantity, error.layer) == ("b", 1)


def test_the_first_bad_step_of_a_long_stretch(cpu_backend):
    """Samples are visited in order; the one that overflows is number 100, in the middle of a stretch."""
    net = bp.MLP([1, 1], output="identity", init="zeros", backend=cpu_backend)
    X = np.ones((200, 1), np.float32)
    X[100] = 3e38
    X[150] = 3e38
    options = {"loss": "quadratic", "optimizer": bp.SGD(0.1), "batch_size": 1, "shuffle": False, "seed": 0}
    with pytest.raises(DivergenceError) as caught:
        bp.train(net, X, np.ones((200, 1)), **options)
    assert (caught.value.step, caught.value.quantity) == (101, "loss")
    twin = bp.MLP([1, 1], output="identity", init="zeros", backend=cpu_backend)
    bp.train(twin, X, np.ones((200, 1)), stop=bp.MaxSteps(100), **options)
    assert_same_bits(np.array(net.theta), np.array(twin.theta))


def test_keep_best_also_after_a_divergence(cpu_backend):
    net, X, Y = explosive(cpu_backend)
    thetas = []
    run = bp.train(
        net,
        X,
        Y,
        optimizer=bp.SGD(0.9),
        on_divergence="stop",
        keep="best",
        callbacks=[lambda net, progress: thetas.append(np.array(net.theta))],
        **OPTIONS,
    )
    assert run.kept == "best"
    assert_same_bits(np.array(net.theta), thetas[run.history["loss"].argmin()])
