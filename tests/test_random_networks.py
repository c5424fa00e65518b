"""Random networks: whatever sizes, activations, loss, batch and weights, three references agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bpcore as bp
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.losses import LOSSES
from tests.helpers.reference import Reference, targets_for

TRAINABLE = [name for name, act in ACTIVATIONS.items() if act.differentiable]
# a few: Numba compiles a loop for every pair of loss and output, and every kind of shape
COMPILED = ("tanh", "relu", "softmax")


def examples(number):
    """So many networks, the same in every run."""
    return settings(max_examples=number, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


class Case:
    """A network with its data, made from a few drawn numbers."""

    def __init__(self, sizes, activations, loss, m, weighted, seed):
        rng = np.random.default_rng(seed)
        self.sizes, self.activations, self.loss, self.m = sizes, activations, loss, m
        self.weights = [
            # pre-activations of size about 1, whatever the widths
            (rng.normal(size=(n_in, n_out)) / np.sqrt(n_in), 0.3 * rng.normal(size=n_out))
            for n_in, n_out in itertools.pairwise(sizes)
        ]
        self.X, self.Y = rng.normal(size=(m, sizes[0])), targets_for(loss, rng, m, sizes[-1])
        self.w = None
        if weighted:
            self.w = rng.choice([0.0, 0.5, 1.0, 3.0], size=m)
            self.w[rng.integers(m)] = 2.0

    def __repr__(self):
        weights = "" if self.w is None else f", w={self.w.tolist()}"
        return f"<{self.sizes} {self.activations} {self.loss}, {self.m} rows{weights}>"

    def network(self, be, dtype="float64"):
        net = bp.MLP(self.sizes, self.activations[:-1], self.activations[-1], dtype=dtype, init="zeros", backend=be)
        return net.set_weights(self.weights)

    @property
    def reference(self):
        return Reference(self.weights, self.activations, self.loss)


@st.composite
def cases(draw, hidden=tuple(TRAINABLE), losses=tuple(LOSSES)):
    depth = draw(st.integers(1, 4))
    loss = draw(st.sampled_from(losses))
    outputs = [name for name in hidden if fits(loss, name)] or ["softmax"]
    activations = [*draw(st.lists(st.sampled_from(hidden), min_size=depth - 1, max_size=depth - 1))]
    activations.append(draw(st.sampled_from(outputs)))
    sizes = draw(st.lists(st.integers(1, 9), min_size=depth + 1, max_size=depth + 1))
    if loss == "binary_cross_entropy" and activations[-1] == "softmax":
        sizes[-1] = max(sizes[-1], 2)  # the softmax of a single output is the constant 1, where it has no slope
    return Case(sizes, activations, loss, draw(st.integers(1, 12)), draw(st.booleans()), draw(st.integers(0, 10**6)))


def fits(loss, output):
    try:
        LOSSES[loss].check_output(ACTIVATIONS[output])
    except bp.errors.ConfigurationError:
        return False
    # its flat parts have a probability of exactly 0 or 1, where the logarithm ends
    return not (output == "hard_sigmoid" and "cross_entropy" in loss and "logits" not in loss)


def flat(net):
    return net.layout.pack(np.array(net.backend.to_numpy(net.theta)))


def gradients(net, case):
    trace = bp.forward(net, case.X)
    grads = bp.backward(net, trace, case.Y, case.loss, sample_weight=case.w)
    host = net.backend.to_numpy
    arrays = [host(g) for pair in zip(grads.dW, grads.db, strict=True) for g in pair]
    return host(trace.H[net.n_layers]), [*arrays, host(grads.dX)]


def agree(found, expected, tolerance):
    """Each array relative to its own largest number; sums that cancel keep the rounding of their terms."""
    for a, e in zip(found, expected, strict=True):
        assert a.shape == e.shape
        size = max(float(np.abs(e).max()), 1e-3)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * size)


@examples(150)
@given(case=cases())
def test_forward_and_backward_against_the_reference(case):
    net = case.network("numpy")
    H, grads = gradients(net, case)
    reference = case.reference
    expected, dX = reference.gradients(case.X, case.Y, case.w)
    np.testing.assert_allclose(H, reference.forward(case.X)[1][-1], rtol=1e-11, atol=1e-13)
    agree(grads, [*(a for pair in expected for a in pair), dX], 1e-10)
    measured = net.evaluate(case.X, case.Y, case.loss, sample_weight=case.w)["loss"]
    assert measured == pytest.approx(reference.value(case.X, case.Y, case.w), rel=1e-11, abs=1e-13)


@examples(40)
@given(case=cases())
def test_gradcheck_passes(case):
    report = bp.gradcheck(
        case.network("numpy"),
        case.X,
        case.Y,
        case.loss,
        sample_weight=case.w,
        max_coordinates=12,
        tolerance=1e-5,
    )
    # a row of which every coordinate sits at a kink has compared nothing and says so; it is not wrong
    assert all(row.passed or row.checked == 0 for row in report.rows), str(report)


@examples(60)
@given(case=cases(hidden=COMPILED, losses=("cross_entropy", "mse")))
def test_numpy_and_numba_agree(case):
    """Two implementations of every elementary function, each right to a few units in the last place."""
    found, expected = gradients(case.network("numba"), case), gradients(case.network("numpy"), case)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-14)
    agree(found[1], expected[1], 1e-11)


@examples(25)
@given(
    case=cases(hidden=("tanh", "softmax"), losses=("cross_entropy", "mse")),
    batch=st.integers(1, 12),
    epochs=st.integers(1, 3),
)
def test_training_on_numpy_and_numba_agrees(case, batch, epochs):
    thetas, losses = [], []
    for name in ("numpy", "numba"):
        net = case.network(name)
        run = bp.train(
            net,
            case.X,
            case.Y,
            loss=case.loss,
            sample_weight=case.w,
            optimizer=bp.SGD(0.1, momentum=0.5),
            batch_size=batch,
            epochs=epochs,
            seed=1,
            allow_one_class=True,
        )
        thetas.append(flat(net))
        losses.append(run.history["loss"])
    np.testing.assert_allclose(thetas[1], thetas[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9, atol=1e-12)


@examples(25)
@given(case=cases(hidden=("identity", "tanh", "gelu", "softmax", "sigmoid")), data=st.data())
def test_rows_may_come_in_any_order_and_more_than_once(case, data):
    """Gradients of the mean do not know the order; a row twice is a row of weight 2."""
    order = np.array(data.draw(st.permutations(range(case.m))))
    net = case.network("numpy")
    _, expected = gradients(net, case)
    w = np.ones(case.m) if case.w is None else case.w
    case.X, case.Y, case.w = case.X[order], case.Y[order], w[order]
    _, found = gradients(net, case)
    agree(found[:-1], expected[:-1], 1e-12)
    twice = np.concatenate([np.arange(case.m), [0]])
    case.X, case.Y, case.w = case.X[twice], case.Y[twice], case.w[twice]
    case.w[[0, -1]] /= 2
    _, found = gradients(net, case)
    agree(found[:-1], expected[:-1], 1e-12)
