"""Dropout: the masks, what they scale, and what they leave untouched."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, UnknownNameError
from bpcore.random import Purpose, random_bits
from tests.helpers.compare import assert_same_bits

SIZES = [4, 6, 5, 3]
SEED, BATCH = 21, 7


def mask(shape, rate, step, layer, seed=SEED):
    """Element p (in C order) is dropped where its 32 bits are below floor(rate * 2**32)."""
    size = int(np.prod(shape))
    bits = random_bits(size, seed=seed, purpose=Purpose.DROPOUT, step=step, layer=layer)
    return np.where(bits < np.floor(rate * 2**32), 0.0, 1 / (1 - rate)).reshape(shape)


class Loop:
    """tanh-tanh-identity with the quadratic loss, dropout on both hidden layers, and momentum, in plain NumPy."""

    def __init__(self, weights, rates, per, *, mu=0.9, eta=0.1, l2=0.0, decay=0.0):
        self.weights, self.rates, self.per = [(W.copy(), b.copy()) for W, b in weights], rates, per
        self.mu, self.eta, self.l2, self.decay = mu, eta, l2, decay
        self.velocity = [(np.zeros_like(W), np.zeros_like(b)) for W, b in weights]
        self.dropped = []

    def step(self, X, Y, number):
        m = len(X)
        masks = [
            mask((m, n) if self.per == "sample" else (n,), rate, number, layer)
            for layer, (n, rate) in enumerate(zip((6, 5), self.rates, strict=True), start=2)
        ]
        (W1, b1), (W2, b2), (W3, b3) = self.weights
        h2 = np.tanh(X @ W1 + b1)
        h3 = np.tanh(h2 * masks[0] @ W2 + b2)
        delta4 = (h3 * masks[1] @ W3 + b3 - Y) / m
        delta3 = (delta4 @ W3.T) * masks[1] * (1 - h3**2)
        delta2 = (delta3 @ W2.T) * masks[0] * (1 - h2**2)
        grads = [
            (X.T @ delta2, delta2.sum(axis=0)),
            ((h2 * masks[0]).T @ delta3, delta3.sum(axis=0)),
            ((h3 * masks[1]).T @ delta4, delta4.sum(axis=0)),
        ]
        kept = [np.ones(4, bool), *(k > 0 for k in masks), np.ones(3, bool)]
        if self.per == "sample":
            kept = [np.ones(n, bool) for n in SIZES]
        self.dropped.append([int((~k).sum()) for k in kept])
        for l, ((W, b), (dW, db), (vW, vb)) in enumerate(zip(self.weights, grads, self.velocity, strict=True)):
            touched = kept[l][:, None] & kept[l + 1][None, :]
            vW[touched] = (self.mu * vW + dW + self.l2 * W)[touched]
            W[touched] -= (self.eta * (vW + self.decay * W))[touched]
            vb[kept[l + 1]] = (self.mu * vb + db)[kept[l + 1]]
            b[kept[l + 1]] -= (self.eta * (vb + self.decay * b))[kept[l + 1]]


def make(be, dtype="float64", **options):
    net = bp.MLP(SIZES, "tanh", "identity", dtype=dtype, seed=2, backend=be)
    options = {"loss": "quadratic", "optimizer": bp.SGD(0.1, momentum=0.9), "batch_size": BATCH, **options}
    return net, bp.Trainer(net, seed=SEED, **options)


def data(rng, m=30):
    return rng.normal(size=(m, 4)), rng.normal(size=(m, 3))


DECAY = bp.UpdateRule(
    "decayed momentum",
    "v = mu*v + g; theta = theta - eta*(v + wd*theta)",
    state=("v",),
    hyper={"mu": 0.9, "wd": 0.2},
    eta=0.1,
)


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.2, 0.6), (0.0, 0.5)], ids=str)
def test_steps_against_a_plain_loop(backend, per, rates, rng):
    """Six steps, the last one with fewer samples; momentum, L2 and decoupled decay at once."""
    X, Y = data(rng)
    net, trainer = make(backend, dropout=bp.Dropout(rates, per=per), optimizer=DECAY, penalty=bp.L2(0.3))
    loop = Loop(net.get_weights(), rates, per, l2=0.3, decay=0.2)
    steps = [*rng.integers(0, 30, size=(5, BATCH)), np.array([3, 1, 4])]
    for number, rows in enumerate(steps):
        trainer.run(X, Y, rows[None])
        loop.step(X[rows], Y[rows], number)
        for (W, b), (W_loop, b_loop) in zip(net.get_weights(), loop.weights, strict=True):
            np.testing.assert_allclose(W, W_loop, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(b, b_loop, rtol=1e-11, atol=1e-13)
    velocity = backend.to_numpy(trainer.state.arrays["v"])
    for l, (vW, vb) in enumerate(loop.velocity, start=1):
        np.testing.assert_allclose(net.layout.views(velocity, "W")[l], vW, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(net.layout.views(velocity, "b")[l], vb, rtol=1e-10, atol=1e-13)
    if per == "batch":
        assert len({tuple(counts) for counts in loop.dropped}) > 1, "a new subset for every mini-batch"


@pytest.mark.parametrize(
    "optimizer", [bp.SGD(0.1, momentum=0.9), bp.AdamW(0.1, weight_decay=0.5), bp.Lion(0.1, weight_decay=0.5)], ids=repr
)
def test_a_dropped_neuron_and_its_memory_keep_every_bit(backend, optimizer, rng):
    """Weights in, weights out, bias and optimiser state: untouched, although momentum and decay would move them."""
    X, Y = data(rng)
    net, trainer = make(backend, dropout=0.5, optimizer=optimizer, penalty=bp.L1(0.1), clip=bp.ClipNorm(0.5))
    trainer.run(X, Y, rng.integers(0, 30, size=(3, BATCH)))

    def everything():
        """theta and all states, each as [(W, b), ...]."""
        vectors = [net.theta, *trainer.state.arrays.values()]
        for vector in [np.array(backend.to_numpy(v)) for v in vectors]:
            yield list(zip(net.layout.views(vector, "W"), net.layout.views(vector, "b"), strict=True))

    before = list(everything())
    trainer.run(X, Y, rng.integers(0, 30, size=(1, BATCH)))
    out2, out3 = (mask((n,), 0.5, 3, layer) == 0 for n, layer in ((6, 2), (5, 3)))
    assert out2.any()
    assert out3.any()
    assert not out2.all()
    assert not out3.all()
    for old, new in zip(before, everything(), strict=True):
        (W1, b1), (W2, b2), (W3, b3) = (
            (W_old != W_new, b_old != b_new) for (W_old, b_old), (W_new, b_new) in zip(old, new, strict=True)
        )
        assert not W1[:, out2].any()
        assert not b1[out2].any()
        assert not W2[out2].any()
        assert not W2[:, out3].any()
        assert not b2[out3].any()
        assert not W3[out3].any()
        assert W1[:, ~out2].any()
        assert b3.all(), "the output is intact"
        assert W3[~out3].any()


def test_masks_are_the_same_on_all_backends(backend, dtype):
    for rate in (0.1, 0.5, 0.9):
        found = backend.dropout_mask(backend.empty((9, 13), dtype), rate=rate, seed=SEED, step=5, layer=3)
        assert_same_bits(np.array(backend.to_numpy(found)), mask((9, 13), rate, 5, 3).astype(dtype))


def test_the_expectation_is_that_of_the_whole_network(cpu_backend):
    """Inverted scaling: the mean of a mask is 1, so inference needs no change."""
    masks = np.stack(
        [
            cpu_backend.dropout_mask(cpu_backend.empty(50, np.float64), rate=0.3, seed=1, step=step, layer=2)
            for step in range(2000)
        ]
    )
    assert set(np.unique(masks)) == {0.0, 1 / 0.7}
    deviation = np.sqrt(0.3 / 0.7 / masks.size)  # of the mean of so many masks
    assert abs(masks.mean() - 1) < 5 * deviation
    assert np.abs(masks.mean(axis=0) - 1).max() < 5 * np.sqrt(0.3 / 0.7 / 2000)


def test_prediction_and_validation_are_without_dropout(cpu_backend, rng):
    X, Y = data(rng)
    net, _ = make(cpu_backend)
    run = bp.train(
        net,
        X,
        Y,
        loss="quadratic",
        optimizer=bp.SGD(1e-12),
        epochs=1,
        dropout=bp.Dropout(0.9, per="sample"),
        validation=(X, Y),
        seed=1,
    )
    expected = 0.5 * ((net.predict(X) - Y) ** 2).sum(axis=1).mean()
    assert run.history[0]["val_loss"] == pytest.approx(expected, rel=1e-9)
    assert abs(run.history[0]["loss"] - expected) > 1e-3, "the training loss is that of the thinned network"


def test_masks_follow_the_seed_and_the_step(cpu_backend, rng):
    X, Y = data(rng)
    order = rng.integers(0, 30, size=(4, BATCH))

    def theta(seed, pieces):
        net = bp.MLP(SIZES, "tanh", "identity", dtype="float64", seed=2, backend=cpu_backend)
        trainer = bp.Trainer(net, loss="quadratic", batch_size=BATCH, dropout=0.5, seed=seed)
        for piece in pieces:
            trainer.run(X, Y, piece)
        return np.array(net.theta)

    assert_same_bits(theta(1, [order]), theta(1, [order]))
    assert_same_bits(theta(1, [order[:1], order[1:3], order[3:]]), theta(1, [order]))
    assert (theta(1, [order]) != theta(2, [order])).any()


def test_a_rate_of_zero_is_no_dropout(cpu_backend, rng):
    X, Y = data(rng)
    thetas = []
    for dropout in (None, 0, 0.0, [0.0, 0.0], bp.Dropout(0.0)):
        net, trainer = make(cpu_backend, dropout=dropout)
        assert trainer.dropout is None
        trainer.run(X, Y, [[1, 2, 3]])
        thetas.append(np.array(net.theta))
    for theta in thetas[1:]:
        assert_same_bits(theta, thetas[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bp.Dropout(1.0), ConfigurationError, r"dropout rate is 1.0; it must be in \[0, 1\)"),
        (lambda: bp.Dropout(-0.1), ConfigurationError, "dropout rate is -0.1"),
        (lambda: bp.Dropout(float("nan")), ConfigurationError, "dropout rate is nan"),
        (lambda: bp.Dropout(True), ConfigurationError, "dropout rate is True"),
        (lambda: bp.Dropout("half"), ConfigurationError, "dropout rate is 'h|dropout rate is 'half'"),
        (lambda: bp.Dropout([0.5, 2]), ConfigurationError, "dropout rate is 2"),
        (lambda: bp.Dropout(0.5, per="row"), UnknownNameError, "unknown dropout 'per' 'row'; known: batch, sample"),
        (lambda: bp.Dropout([0.5]).rates(2), ConfigurationError, "dropout lists 1 rates; the network has 2 hidden"),
    ],
)
def test_wrong_declarations_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
