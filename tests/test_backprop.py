"""Forward, BP1 to BP4 and gradcheck: against differences, hand-written chain rules and einsum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.losses import LOSSES
from tests.helpers.reference import Reference, differences, targets_for

ELEMENTWISE = [name for name, act in ACTIVATIONS.items() if act.differentiable and not act.rowwise]
ROWWISE = [name for name, act in ACTIVATIONS.items() if act.rowwise]
HIDDEN = [*ELEMENTWISE, *ROWWISE]


def accepted(loss):
    """Output activations with which a loss accepts to be combined."""
    for name in HIDDEN:
        try:
            LOSSES[loss].check_output(ACTIVATIONS[name])
        except ConfigurationError:
            continue
        yield name


GRID = [(loss, output) for loss in LOSSES for output in accepted(loss)]
# Numba compiles a loop for every pair and kind of shape, half a second each. Where loss and activation meet in a
# declared pair or in a Jacobian, and once for every activation, it does so always; in the rest when slow tests run.
SHAPES = [(1, False), (1, True), (3, False), (3, True)]


def grid():
    for loss, output in GRID:
        core = output == "softmax" or output in LOSSES[loss].pairs or loss == "mse"
        for backend in ("numpy", "numba", "cupy"):
            for n_out, weighted in SHAPES:
                # the softmax of a single output is the constant 1, where binary cross-entropy has no slope
                if (loss, output, n_out) == ("binary_cross_entropy", "softmax", 1):
                    continue
                marks = [pytest.mark.gpu] if backend == "cupy" else []
                if backend == "numba" and not (core and weighted == (n_out == 3)):
                    marks.append(pytest.mark.slow)
                name = f"{loss}-{output}-{n_out}-{'weights' if weighted else 'plain'}-{backend}"
                yield pytest.param(loss, output, n_out, weighted, backend, marks=marks, id=name)


def make(be, sizes, activations, loss, rng, *, m=5, scale=0.4):
    """A network of the engine, the same as a reference, and data."""
    weights = [
        (scale * rng.normal(size=(n_in, n_out)), scale * rng.normal(size=n_out))
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    net = bp.MLP(sizes, list(activations[:-1]), activations[-1], dtype="float64", seed=0, backend=be)
    net.set_weights(weights)
    X, Y = rng.normal(size=(m, sizes[0])), targets_for(loss, rng, m, sizes[-1])
    return net, Reference(weights, activations, loss), X, Y


def gradients(net, X, Y, loss, **options):
    """What backward returns, on the host: [(dW, db), ...] and dX."""
    grads = bp.backward(net, bp.forward(net, X), Y, loss, **options)
    host = net.backend.to_numpy
    return [(host(grads.dW[l]), host(grads.db[l])) for l in grads.dW.layers], host(grads.dX)


def check_gradients(net, reference, X, Y, loss, w=None):
    """Every coordinate against differences of the reference, and against its chain rule."""
    found, dX = gradients(net, X, Y, loss, sample_weight=w)
    chain, chain_dX = reference.gradients(X, Y, w)

    def value():
        return reference.value(X, Y, w)

    pairs = [(dX, chain_dX, X)]
    for (dW, db), (chain_W, chain_b), (W, b) in zip(found, chain, reference.weights, strict=True):
        pairs += [(dW, chain_W, W), (db, chain_b, b)]
    for gradient, by_chain, array in pairs:
        assert gradient.shape == array.shape
        # differences: truncation 4e-11 * |third derivative|, rounding 2e-16 / 6e-6 * |loss|; both well below 1e-8
        np.testing.assert_allclose(gradient, differences(value, array), rtol=1e-6, atol=1e-8)
        # the same formulas in another order: some roundings of terms of size 1
        np.testing.assert_allclose(gradient, by_chain, rtol=1e-11, atol=1e-13)


# ------------------------------------------------------------------------------------------ the gradient grid


@pytest.mark.parametrize(("loss", "output", "n_out", "weighted", "backend"), list(grid()), indirect=["backend"])
def test_gradients_of_every_loss_with_every_output(loss, output, n_out, weighted, backend):
    """One output and three, with and without sample weights: never a factor too many."""
    rng = np.random.default_rng([n_out, weighted, *loss.encode(), *output.encode()])
    net, reference, X, Y = make(backend, [3, 4, n_out], ["tanh", output], loss, rng)
    w = np.array([0.5, 0.0, 2.0, 1.0, 3.0]) if weighted else None
    check_gradients(net, reference, X, Y, loss, w)
    measured = net.evaluate(X, Y, loss, sample_weight=w)["loss"]
    assert measured == pytest.approx(reference.value(X, Y, w), rel=1e-12)


def test_the_grid_has_every_loss_and_every_activation():
    assert {loss for loss, _ in GRID} == set(LOSSES)
    assert {output for _, output in GRID} == set(HIDDEN)
    assert ("binary_cross_entropy", "tanh") not in GRID
    assert len(GRID) >= 115


@pytest.mark.parametrize("hidden", HIDDEN)
def test_gradients_through_hidden_layers(backend, hidden, rng):
    net, reference, X, Y = make(backend, [3, 5, 4, 2], [hidden, hidden, "identity"], "mse", rng, scale=0.7)
    check_gradients(net, reference, X, Y, "mse")


def test_gradients_with_another_activation_in_every_layer(backend, rng):
    activations = ["tanh", "softmax", "gelu", "leaky_relu", "log_softmax", "sigmoid", "softmax"]
    net, reference, X, Y = make(backend, [4, 5, 3, 4, 4, 3, 5, 3], activations, "cross_entropy", rng, m=6, scale=0.8)
    check_gradients(net, reference, X, Y, "cross_entropy", np.array([1.0, 2, 0, 1, 0.5, 1]))


def test_gradients_without_a_hidden_layer(cpu_backend, rng):
    net, reference, X, Y = make(cpu_backend, [4, 3], ["softmax"], "quadratic", rng)
    check_gradients(net, reference, X, Y, "quadratic")


@pytest.mark.parametrize(
    ("loss", "factor", "smoothing"),
    [
        (bp.CrossEntropy(base=2), 1 / math.log(2), 0.0),
        (bp.CrossEntropy(base=10), 1 / math.log(10), 0.0),
        (bp.CrossEntropy(label_smoothing=0.3), 1.0, 0.3),
        (bp.CrossEntropy(base=2, label_smoothing=0.1), 1 / math.log(2), 0.1),
    ],
    ids=["base2", "base10", "smooth", "both"],
)
@pytest.mark.parametrize("output", ["softmax", "log_softmax", "sigmoid"])
def test_cross_entropy_with_base_and_label_smoothing(cpu_backend, loss, factor, smoothing, output, rng):
    net, reference, X, _ = make(cpu_backend, [3, 4, 3], ["tanh", output], "cross_entropy", rng)
    labels = np.array([0, 2, 1, 1, 0])
    Y = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    found, dX = gradients(net, X, labels, loss)
    expected, expected_dX = reference.gradients(X, Y)
    for (dW, db), (W, b) in zip(found, expected, strict=True):
        np.testing.assert_allclose(dW, factor * W, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(db, factor * b, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(dX, factor * expected_dX, rtol=1e-11, atol=1e-14)
    assert net.evaluate(X, labels, loss)["loss"] == pytest.approx(factor * reference.value(X, Y), rel=1e-12)


@pytest.mark.parametrize("delta", [0.25, 2.0])
def test_huber_with_another_corner(cpu_backend, delta, rng):
    """Scaling predictions and targets by 1/delta turns it into the Huber loss with the corner at 1."""
    net, reference, X, Y = make(cpu_backend, [3, 2], ["identity"], "huber", rng)
    for W, b in reference.weights:
        W /= delta
        b /= delta
    [(dW, db)], _ = gradients(net, X, Y, bp.Huber(delta))
    [(W, b)], _ = reference.gradients(X, Y / delta)
    np.testing.assert_allclose(dW, delta * W, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(db, delta * b, rtol=1e-11, atol=1e-14)


def test_own_activation_and_own_loss_have_derived_gradients(cpu_backend, rng):
    bump = bp.Activation("bump", "exp(-z*z) + 0.1*z")
    log_cosh = bp.Loss("log_cosh", "log(exp(a - y) + exp(y - a)) - log(2)", reduce="mean")
    net = bp.MLP([3, 4, 2], bump, bump, dtype="float64", seed=3, backend=cpu_backend)
    X, Y = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    weights = net.get_weights()

    def value():
        H = X
        for W, b in weights:
            Z = H @ W + b
            H = np.exp(-(Z**2)) + 0.1 * Z
        return np.mean(np.log(np.cosh(H - Y)))

    found, dX = gradients(net, X, Y, log_cosh)
    for (dW, db), (W, b) in zip(found, weights, strict=True):
        np.testing.assert_allclose(dW, differences(value, W), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(db, differences(value, b), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(dX, differences(value, X), rtol=1e-6, atol=1e-9)
    assert net.evaluate(X, Y, log_cosh)["loss"] == pytest.approx(value(), rel=1e-12)


def test_a_declared_pair_is_the_full_product(cpu_backend, rng):
    """The shortcut H - Y must equal what the loss gives without it."""
    for loss, outputs in ((name, loss.pairs) for name, loss in LOSSES.items() if loss.pairs):
        for output in outputs:
            if output == "log_softmax":
                continue  # the formula takes probabilities; only the pair makes it take their logarithms
            net, _, X, Y = make(cpu_backend, [3, 4, 3], ["tanh", output], loss, rng)
            declared = LOSSES[loss]
            full = bp.Loss(
                f"full_{loss}",
                declared.formula,
                declared.derivative,
                reduce=declared.reduce,
                prediction_range=declared.prediction_range,
                target_kind=declared.target_kind,
            )
            short, long = gradients(net, X, Y, declared), gradients(net, X, Y, full)
            for pair, other in zip(short[0], long[0], strict=True):
                np.testing.assert_allclose(pair[0], other[0], rtol=1e-11, atol=1e-14)
                np.testing.assert_allclose(pair[1], other[1], rtol=1e-11, atol=1e-14)
            np.testing.assert_allclose(short[1], long[1], rtol=1e-11, atol=1e-14)


def test_class_weights_are_the_weights_of_the_rows(cpu_backend, rng):
    net, reference, X, _ = make(cpu_backend, [3, 4, 3], ["tanh", "softmax"], "cross_entropy", rng)
    labels, of_class, of_row = np.array([0, 2, 1, 1, 0]), {0: 2.0, 2: 0.25}, np.array([1.0, 2, 3, 1, 0])
    w = np.array([2.0, 0.25, 1, 1, 2]) * of_row
    found, _ = gradients(net, X, labels, None, class_weight=of_class, sample_weight=of_row)
    expected, _ = reference.gradients(X, np.eye(3)[labels], w)
    for pair, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(pair[0], other[0], rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(pair[1], other[1], rtol=1e-11, atol=1e-14)


# ------------------------------------------------------------------------------------------ worked by hand


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_r8_three_inputs_two_hidden_three_classes_by_hand(backend):
    """SPEC R8: every partial derivative of 3-2-3 with sigmoids, written out weight by weight."""
    w1, w2, w3, w4, w5, w6 = 0.1, -0.2, 0.4, 0.3, -0.5, 0.25
    w7, w8, w9, w10, w11, w12 = 0.7, -0.3, 0.2, -0.6, 0.15, 0.45
    b1, b2, b3, b4, b5 = 0.05, -0.1, 0.2, -0.25, 0.3
    x1, x2, x3 = 0.6, -0.4, 0.9
    y1, y2, y3 = 0.0, 1.0, 0.0

    def hidden(w1, w2, w3, w4, w5, w6, b1, b2):
        return sigmoid(w1 * x1 + w3 * x2 + w5 * x3 + b1), sigmoid(w2 * x1 + w4 * x2 + w6 * x3 + b2)

    def error(p):
        w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, b1, b2, b3, b4, b5 = p
        h1, h2 = hidden(w1, w2, w3, w4, w5, w6, b1, b2)
        o1 = sigmoid(w7 * h1 + w10 * h2 + b3)
        o2 = sigmoid(w8 * h1 + w11 * h2 + b4)
        o3 = sigmoid(w9 * h1 + w12 * h2 + b5)
        return 0.5 * ((o1 - y1) ** 2 + (o2 - y2) ** 2 + (o3 - y3) ** 2)

    h1, h2 = hidden(w1, w2, w3, w4, w5, w6, b1, b2)
    o1 = sigmoid(w7 * h1 + w10 * h2 + b3)
    o2 = sigmoid(w8 * h1 + w11 * h2 + b4)
    o3 = sigmoid(w9 * h1 + w12 * h2 + b5)
    d1, d2, d3 = (o1 - y1) * o1 * (1 - o1), (o2 - y2) * o2 * (1 - o2), (o3 - y3) * o3 * (1 - o3)
    e1 = (d1 * w7 + d2 * w8 + d3 * w9) * h1 * (1 - h1)
    e2 = (d1 * w10 + d2 * w11 + d3 * w12) * h2 * (1 - h2)
    into_hidden = [e1 * x1, e2 * x1, e1 * x2, e2 * x2, e1 * x3, e2 * x3]
    into_output = [d1 * h1, d2 * h1, d3 * h1, d1 * h2, d2 * h2, d3 * h2]
    by_hand = np.array([*into_hidden, *into_output, e1, e2, d1, d2, d3])

    net = bp.MLP([3, 2, 3], "sigmoid", "sigmoid", dtype="float64", backend=backend)
    net.set_weights(
        [
            (np.array([[w1, w2], [w3, w4], [w5, w6]]), np.array([b1, b2])),
            (np.array([[w7, w8, w9], [w10, w11, w12]]), np.array([b3, b4, b5])),
        ]
    )
    X, Y = np.array([[x1, x2, x3]]), np.array([[y1, y2, y3]])
    [(dW1, db1), (dW2, db2)], dX = gradients(net, X, Y, "quadratic")
    engine = np.concatenate([dW1.ravel(), dW2.ravel(), db1, db2])
    parameters = np.array([w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11, w12, b1, b2, b3, b4, b5])

    np.testing.assert_allclose(engine, by_hand, rtol=0, atol=1e-12)
    np.testing.assert_allclose(engine, differences(lambda: error(parameters), parameters), rtol=0, atol=1e-7)
    np.testing.assert_allclose(dX, [[e1 * w1 + e2 * w2, e1 * w3 + e2 * w4, e1 * w5 + e2 * w6]], atol=1e-12)
    assert net.evaluate(X, Y, "quadratic")["loss"] == pytest.approx(error(parameters), abs=1e-12)
    assert np.abs(by_hand).min() > 1e-4, "a gradient of zero would not tell anything"


def test_r9_softmax_with_loss_over_a_batch(backend, rng):
    """SPEC R9: the error at the scores is (h - y) / N, and the batch twice has the same loss and gradients."""
    net = bp.MLP([4, 3], output="softmax", dtype="float64", seed=1, backend=backend)
    X, labels = rng.normal(size=(5, 4)), np.array([0, 2, 1, 1, 2])
    grads = bp.backward(net, bp.forward(net, X), labels)
    W, b = net.get_weights()[0]
    E = np.exp(X @ W + b)
    H = E / E.sum(axis=1, keepdims=True)
    delta = (H - np.eye(3)[labels]) / 5
    np.testing.assert_allclose(backend.to_numpy(grads.Delta[2]), delta, rtol=0, atol=1e-14)
    np.testing.assert_allclose(backend.to_numpy(grads.dW[1]), X.T @ delta, rtol=0, atol=1e-14)
    np.testing.assert_allclose(backend.to_numpy(grads.dX), delta @ W.T, rtol=0, atol=1e-14)

    twice, labels_twice = np.concatenate([X, X]), np.concatenate([labels, labels])
    [(dW, db)], _ = gradients(net, twice, labels_twice, None)
    np.testing.assert_allclose(dW, backend.to_numpy(grads.dW[1]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(db, backend.to_numpy(grads.db[1]), rtol=0, atol=1e-14)
    assert net.evaluate(twice, labels_twice)["loss"] == pytest.approx(
        -np.log(H[np.arange(5), labels]).mean(), abs=1e-14
    )


def test_r10_two_hidden_layers_and_the_log_likelihood(backend, rng):
    """SPEC R10: delta of the output is h - y, then BP2, BP3 and BP4 written as they stand, one sample at a time."""
    net = bp.MLP([4, 5, 3, 3], "sigmoid", "softmax", dtype="float64", seed=2, backend=backend)
    X, labels = rng.normal(size=(6, 4)), np.array([0, 2, 1, 1, 2, 0])
    grads = bp.backward(net, bp.forward(net, X), labels, "cross_entropy")
    (W1, b1), (W2, b2), (W3, b3) = net.get_weights()
    sums = [np.zeros_like(a) for a in (W1, b1, W2, b2, W3, b3)]
    for k, (x, label) in enumerate(zip(X, labels, strict=True)):
        h2 = 1 / (1 + np.exp(-(W1.T @ x + b1)))
        h3 = 1 / (1 + np.exp(-(W2.T @ h2 + b2)))
        e = np.exp(W3.T @ h3 + b3)
        delta4 = e / e.sum() - np.eye(3)[label]
        delta3 = (W3 @ delta4) * h3 * (1 - h3)
        delta2 = (W2 @ delta3) * h2 * (1 - h2)
        for l, delta in ((4, delta4), (3, delta3), (2, delta2)):
            np.testing.assert_allclose(backend.to_numpy(grads.Delta[l])[k], delta / 6, rtol=0, atol=1e-14)
        parts = np.outer(x, delta2), delta2, np.outer(h2, delta3), delta3, np.outer(h3, delta4), delta4
        for total, part in zip(sums, parts, strict=True):
            total += part / 6
    for l in (1, 2, 3):
        np.testing.assert_allclose(backend.to_numpy(grads.dW[l]), sums[2 * l - 2], rtol=0, atol=1e-14)
        np.testing.assert_allclose(backend.to_numpy(grads.db[l]), sums[2 * l - 1], rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------------ the four functions alone


@pytest.fixture
def layer(backend, dtype, rng):
    """Matrices of one layer: n_l = 4 inputs, n_{l+1} = 3 outputs, m = 7 samples; on the device and on the host."""
    host = {
        "Delta": rng.normal(size=(7, 3)),
        "W": rng.normal(size=(4, 3)),
        "H": rng.uniform(0.1, 0.9, size=(7, 4)),
        "Y": rng.uniform(0.1, 0.9, size=(7, 4)),
        "mask": np.array([2.0, 0, 2, 0]),
        "masks": rng.choice([0.0, 2.0], size=(7, 4)),
    }
    host = {name: array.astype(dtype).astype(np.float64) for name, array in host.items()}
    host["Z"] = np.log(host["H"] / (1 - host["H"]))
    return {name: backend.asarray(array.astype(dtype)) for name, array in host.items()}, host


def close(backend, found, expected, dtype, out):
    assert found is out
    # three to seven terms of size about 1, each rounded a few times
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=0, atol=64 * np.finfo(dtype).eps)


def test_bp1_alone(backend, dtype, layer):
    device, host = layer
    out = backend.empty((7, 4), dtype)
    args = device["Z"], device["H"], device["Y"]
    found = bp.bp1_output_delta(backend, LOSSES["quadratic"], ACTIVATIONS["sigmoid"], *args, 0.25, out)
    close(backend, found, 0.25 * (host["H"] - host["Y"]) * host["H"] * (1 - host["H"]), dtype, out)

    found = bp.bp1_output_delta(backend, LOSSES["binary_cross_entropy"], ACTIVATIONS["sigmoid"], *args, 0.25, out)
    close(backend, found, 0.25 * (host["H"] - host["Y"]), dtype, out)

    scale = np.arange(1.0, 8.0)[:, None] / 8
    found = bp.bp1_output_delta(
        backend, LOSSES["mse"], ACTIVATIONS["softmax"], *args, backend.asarray(scale.astype(dtype)), out
    )
    G = scale * 2 * (host["H"] - host["Y"])
    H = host["H"]
    jacobian = np.einsum("mi,ij->mij", H, np.eye(4)) - np.einsum("mi,mj->mij", H, H)
    close(backend, found, np.einsum("mi,mij->mj", G, jacobian), dtype, out)


def test_bp2_alone(backend, dtype, layer):
    device, host = layer
    out = backend.empty((7, 4), dtype)
    back = np.einsum("mj,ij->mi", host["Delta"], host["W"])
    slope = host["H"] * (1 - host["H"])
    args = device["Delta"], device["W"], ACTIVATIONS["sigmoid"], device["Z"], device["H"], out
    close(backend, bp.bp2_hidden_delta(backend, *args), back * slope, dtype, out)
    found = bp.bp2_hidden_delta(backend, *args, mask=device["mask"])
    close(backend, found, back * slope * host["mask"], dtype, out)
    found = bp.bp2_hidden_delta(backend, *args, mask=device["masks"])
    close(backend, found, back * slope * host["masks"], dtype, out)

    args = device["Delta"], device["W"], ACTIVATIONS["softmax"], device["Z"], device["H"], out
    H = host["H"]
    jacobian = np.einsum("mi,ij->mij", H, np.eye(4)) - np.einsum("mi,mj->mij", H, H)
    found = bp.bp2_hidden_delta(backend, *args, mask=device["mask"])
    close(backend, found, np.einsum("mi,mij->mj", back * host["mask"], jacobian), dtype, out)


def test_bp3_alone(backend, dtype, layer):
    device, host = layer
    out = backend.empty(3, dtype)
    close(backend, bp.bp3_bias_grad(backend, device["Delta"], out), np.einsum("mj->j", host["Delta"]), dtype, out)


def test_bp4_alone(backend, dtype, layer):
    device, host = layer
    out = backend.empty((4, 3), dtype)
    found = bp.bp4_weight_grad(backend, device["H"], device["Delta"], out)
    close(backend, found, np.einsum("mi,mj->ij", host["H"], host["Delta"]), dtype, out)


# ------------------------------------------------------------------------------------------ forward


def test_forward_keeps_every_layer(backend, rng):
    net, reference, X, _ = make(backend, [3, 5, 4, 2], ["selu", "softmax", "hard_tanh"], "mse", rng)
    trace = bp.forward(net, X)
    Z, H = reference.forward(X)
    assert list(trace.Z.layers) == [2, 3, 4]
    assert list(trace.H.layers) == [1, 2, 3, 4]
    for l in trace.Z.layers:
        np.testing.assert_allclose(backend.to_numpy(trace.Z[l]), Z[l - 2], rtol=1e-12, atol=1e-14)
    for l in trace.H.layers:
        np.testing.assert_allclose(backend.to_numpy(trace.H[l]), H[l - 1], rtol=1e-12, atol=1e-14)
    # a GPU predicts by products of its own, which add up in another order than those of cuBLAS
    atol = 1e-14 if backend.name == "cupy" else 0.0
    np.testing.assert_allclose(backend.to_numpy(net.predict(X)), backend.to_numpy(trace.H[4]), rtol=0, atol=atol)


def test_the_step_activation_goes_forward_only(cpu_backend):
    net = bp.MLP([2, 3, 1], "step", "identity", seed=0, backend=cpu_backend)
    trace = bp.forward(net, [[1.0, -1.0]])
    assert set(np.unique(trace.H[2])) <= {0.0, 1.0}
    with pytest.raises(ConfigurationError, match="'step' has no useful derivative"):
        bp.backward(net, trace, [[1.0]], "mse")


@pytest.mark.parametrize("output", ["softmax", "log_softmax", "sigmoid"])
def test_paired_outputs_survive_huge_scores(backend, output):
    """Scores of 1e4 in float32: the loss is 1e4, the gradient a difference of probabilities."""
    net = bp.MLP([2, 2], output=output, init="zeros", dtype="float32", backend=backend)
    net.set_weights([(np.eye(2) * 1e4, np.zeros(2))])
    X, Y = np.array([[1.0, -1], [-1, 1]]), np.array([[1.0, 0], [1, 0]])
    [(dW, db)], _ = gradients(net, X, Y, None)
    # the second sample is wrong in both outputs by 1 (BP1 divides by m = 2, sigmoid's mean by another 2)
    delta = np.array([-1.0, 1.0]) / (4 if output == "sigmoid" else 2)
    np.testing.assert_allclose(db, delta, rtol=1e-6)
    np.testing.assert_allclose(dW, np.outer([-1.0, 1.0], delta), rtol=1e-6)
    loss = net.evaluate(X, Y)["loss"]
    assert loss == pytest.approx(5e3 if output == "sigmoid" else 1e4, rel=1e-6)


def test_losses_of_single_samples(backend, rng):
    for loss, output in (("quadratic", "identity"), ("cross_entropy", "softmax"), ("absolute", "tanh")):
        net, reference, X, Y = make(backend, [3, 4, 3], ["tanh", output], loss, rng)
        found = backend.to_numpy(bp.sample_losses(net, X, Y, loss))
        np.testing.assert_allclose(found, reference.losses(X, Y), rtol=1e-12)
        assert found.mean() == pytest.approx(net.evaluate(X, Y, loss)["loss"], rel=1e-12)


def test_a_trace_of_other_data_is_refused(cpu_backend, rng):
    net, _, X, Y = make(cpu_backend, [3, 2], ["identity"], "mse", rng)
    trace = bp.forward(net, X)
    with pytest.raises(ShapeError, match=r"Y has 4 rows but X has 5"):
        bp.backward(net, trace, Y[:4], "mse")
    with pytest.raises(ConfigurationError, match=r"'cross_entropy' needs predictions in \[0, 1\].*that fit: sigmoid"):
        bp.backward(net, trace, Y, "cross_entropy")


# ------------------------------------------------------------------------------------------ gradcheck


@pytest.fixture
def small(cpu_backend, rng):
    net = bp.MLP([3, 4, 5, 2], "tanh", "sigmoid", seed=0, backend=cpu_backend)
    return net, rng.normal(size=(6, 3)), rng.uniform(0.1, 0.9, size=(6, 2))


def failures(report):
    return [(row.quantity, row.layer) for row in report.rows if not row.passed]


def test_gradcheck_passes_and_looks_at_everything(small):
    net, X, Y = small
    before, theta = X.copy(), net.theta.copy()
    report = bp.gradcheck(net, X, Y, "mse", sample_weight=[1, 2, 0, 1, 1, 3])
    assert report.passed
    assert [(row.quantity, row.layer, row.checked) for row in report.rows] == [
        ("dW", 1, 12),
        ("dW", 2, 20),
        ("dW", 3, 10),
        ("db", 1, 4),
        ("db", 2, 5),
        ("db", 3, 2),
        ("dX", 1, 18),
    ]
    assert all(0 <= row.error < 1e-6 for row in report.rows)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(net.theta, theta)
    assert net.dtype == np.float32, "the float32 network itself stays what it is"


def test_gradcheck_prints_the_worst_coordinate(small):
    net, X, Y = small
    report = bp.gradcheck(net, X, Y, "mse")
    lines = str(report).splitlines()
    assert lines[0] == f"gradcheck of mse on {net.backend.name}: passed"
    row = report.rows[1]
    W = net.get_weights()[1][0]
    assert 0 <= row.worst[0] < W.shape[0]
    assert 0 <= row.worst[1] < W.shape[1]
    assert row.analytic == pytest.approx(row.other, rel=1e-5)
    assert f"dW[2] against differences: error {row.error:.1e} of 20 coordinates" in lines[2]
    assert f"worst at {row.worst}: {row.analytic:.9g} and {row.other:.9g}" in lines[2]


def test_gradcheck_samples_large_arrays(small):
    net, X, Y = small
    report = bp.gradcheck(net, X, Y, "mse", max_coordinates=7)
    assert [row.checked for row in report.rows] == [7, 7, 7, 4, 5, 2, 7]


@pytest.mark.parametrize(
    ("function", "wrong", "expected"),
    [
        # the transposed product without act': every layer below the output is wrong
        (
            "bp2_hidden_delta",
            lambda be, Delta, W, act, Z, H, out, mask=None: be.matmul(Delta, W, out=out, transpose_b=True),
            {("dW", 1), ("db", 1), ("dW", 2), ("db", 2), ("dX", 1)},
        ),
        (
            "bp3_bias_grad",
            lambda be, Delta, out: be.elementwise(bp.Program("g = -g"), out=be.column_sums(Delta, out=out), g=out),
            {("db", 1), ("db", 2), ("db", 3)},
        ),
        # a forgotten mean over the samples in one place
        (
            "bp4_weight_grad",
            lambda be, H, Delta, out: be.elementwise(
                bp.Program("g = 6 * g"), out=be.matmul(H, Delta, out=out, transpose_a=True), g=out
            ),
            {("dW", 1), ("dW", 2), ("dW", 3)},
        ),
        # a wrong error of the output spoils everything
        (
            "bp1_output_delta",
            lambda be, loss, act, Z, H, Y, scale, out: be.elementwise(
                bp.Program("d = s * (h - y)"), out=out, h=H, y=Y, s=scale
            ),
            {("dW", 1), ("dW", 2), ("dW", 3), ("db", 1), ("db", 2), ("db", 3), ("dX", 1)},
        ),
    ],
    ids=["bp2", "bp3", "bp4", "bp1"],
)
def test_gradcheck_finds_a_planted_error_and_names_the_layers(small, monkeypatch, function, wrong, expected):
    net, X, Y = small
    monkeypatch.setattr(f"bpcore.backprop.{function}", wrong)
    report = bp.gradcheck(net, X, Y, "mse")
    assert not report.passed
    assert set(failures(report)) == expected
    quantity, layer = sorted(expected)[0]
    assert f"FAIL {quantity}[{layer}] against differences" in str(report)
    assert "FAILED" in str(report).splitlines()[0]


def test_gradcheck_finds_an_error_in_one_layer_only(small, monkeypatch):
    net, X, Y = small
    right = bp.bp4_weight_grad

    def wrong(be, H, Delta, out):
        right(be, H, Delta, out)
        if out.shape == (4, 5):
            out[2, 3] *= 1.0001
        return out

    monkeypatch.setattr("bpcore.backprop.bp4_weight_grad", wrong)
    report = bp.gradcheck(net, X, Y, "mse")
    assert failures(report) == [("dW", 2)]
    assert next(row for row in report.rows if not row.passed).worst == (2, 3)


def test_gradcheck_leaves_out_and_counts_what_sits_at_a_kink(cpu_backend):
    """relu at exactly 0, and a loss of |0|: no derivative there, so no verdict."""
    net = bp.MLP([2, 2, 1], "relu", "identity", init="zeros", backend=cpu_backend)
    net.set_weights([(np.array([[1.0, 0.5], [0.0, 0.25]]), np.array([0.0, 0.1])), ([[1.0], [-1.0]], [0.3])])
    report = bp.gradcheck(net, [[0.0, 1.0]], [[2.0]], "mse")
    assert report.passed
    skipped = {(row.quantity, row.layer): row.skipped for row in report.rows}
    assert skipped["db", 1] == 1
    assert skipped["dW", 2] == 0
    assert "1 at a kink left out" in str(report)


def test_gradcheck_that_compares_nothing_does_not_pass(cpu_backend):
    """All coordinates at a kink: a verdict of "passed" would be empty."""
    net = bp.MLP([1, 1], output="identity", init="zeros", backend=cpu_backend)
    report = bp.gradcheck(net, [[1.0]], [[0.0]], "absolute")
    assert not report.passed
    assert all(row.checked == 0 for row in report.rows if row.quantity != "dX")


class SignFlipped(NumpyBackend):
    name = "sign-flipped"

    def column_sums(self, A, out):
        return np.negative(super().column_sums(A, out), out=out)


class ReturnsNone(NumpyBackend):
    """A forgotten return: the caller's out is filled, but what it gets back is nothing."""

    name = "returns-none"

    def log_softmax(self, Z, out):
        return None


class NotANumber(NumpyBackend):
    name = "not-a-number"

    def matmul(self, A, B, out, *, transpose_a=False, transpose_b=False):
        super().matmul(A, B, out, transpose_a=transpose_a, transpose_b=transpose_b)
        if transpose_a:
            out[0, 0] = np.nan
        return out


class ForgetsToWrite(NumpyBackend):
    name = "forgets-to-write"

    def backprop_softmax(self, G, H, out):
        return out


@pytest.mark.parametrize(
    ("wrong", "loss", "expected"),
    [
        (SignFlipped, "cross_entropy", {("db", 1), ("db", 2)}),
        (NotANumber, "cross_entropy", {("dW", 1), ("dW", 2)}),
        (ForgetsToWrite, "mse", {("dW", 1), ("dW", 2), ("db", 1), ("db", 2), ("dX", 1)}),
    ],
)
def test_a_wrong_backend_is_caught_against_another_one(cpu_backend, wrong, loss, expected, rng):
    """From both sides, and by its own differences."""
    net = bp.MLP([3, 4, 3], "tanh", "softmax", seed=0, backend=cpu_backend)
    X, labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    Y = labels if loss == "cross_entropy" else np.eye(3)[labels]
    by_others = bp.gradcheck(net, X, Y, loss, against=wrong())
    rows = [row for row in by_others.rows if row.against == wrong.name]
    assert {(row.quantity, row.layer) for row in rows if not row.passed} == expected
    assert all(row.passed for row in by_others.rows if row.against == "differences")
    itself = bp.gradcheck(net, X, Y, loss, backend=wrong(), against=cpu_backend)
    assert not itself.passed
    assert {row.against for row in itself.rows if not row.passed} == {"differences", cpu_backend.name}


def test_a_backend_whose_operation_does_nothing_and_returns_none_is_caught(cpu_backend, rng):
    net = bp.MLP([3, 4, 3], "tanh", "log_softmax", seed=0, backend=cpu_backend)
    X, labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    report = bp.gradcheck(net, X, labels, against=ReturnsNone())
    assert not report.passed
    assert {row.against for row in report.rows if not row.passed} == {"returns-none"}


def test_gradcheck_against_the_other_cpu_backend(cpu_backend, rng):
    net = bp.MLP([3, 4, 3], "gelu", "softmax", seed=0, backend=cpu_backend)
    other = bp.get_backend({"numpy": "numba", "numba": "numpy"}[cpu_backend.name])
    assert isinstance(other, Backend)
    assert other is not cpu_backend
    report = bp.gradcheck(net, rng.normal(size=(5, 3)), [0, 1, 2, 1, 0], against=other)
    assert report.passed
    assert {row.against for row in report.rows} == {"differences", other.name}
    # the same numbers up to the rounding of two implementations
    assert all(row.error < 1e-10 for row in report.rows if row.against == other.name)


def test_gradcheck_refuses_bad_data_before_it_computes(small):
    net, X, Y = small
    X[1, 2] = np.nan
    with pytest.raises(DataError, match="row 1, column 2"):
        bp.gradcheck(net, X, Y, "mse")
