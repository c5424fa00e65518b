"""Single steps and epochs against loops in plain NumPy: update rules, penalties, clipping, schedules, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, ShapeError, UnknownNameError
from bpcore.random import permutation
from tests.helpers.compare import assert_same_bits
from tests.helpers.reference import Reference

SIZES = [4, 6, 3]


def make(be, rng, *, m=23, output="softmax", loss="cross_entropy", sizes=SIZES):
    net = bp.MLP(sizes, "tanh", output, dtype="float64", seed=5, backend=be)
    X = rng.normal(size=(m, sizes[0]))
    Y = rng.integers(0, sizes[-1], m) if loss == "cross_entropy" else rng.normal(size=(m, sizes[-1]))
    reference = Reference(net.get_weights(), [a.name for a in net.activations], loss)
    return net, X, Y, reference


def targets(reference, Y):
    return np.eye(3)[Y] if reference.loss == "cross_entropy" else Y


def flat(pairs):
    """W[1], b[1], W[2], ... as one vector."""
    return np.concatenate([array.ravel() for pair in pairs for array in pair])


def unflat(vector, pairs):
    arrays, start = [], 0
    for W, b in pairs:
        w = vector[start : start + W.size].reshape(W.shape)
        arrays.append((w, vector[start + W.size : start + W.size + b.size]))
        start += W.size + b.size
    return arrays


def is_weight(pairs):
    return flat([(np.ones_like(W), np.zeros_like(b)) for W, b in pairs]) == 1


# ------------------------------------------------------------------------------------------ update rules by hand
# Each takes (theta, g, memory, t) with t from 1 and returns the new theta; written from the papers.


def sgd(theta, g, memory, t):
    return theta - 0.1 * g


def momentum(theta, g, memory, t):
    v = memory["v"] = 0.9 * memory.get("v", 0) + g
    return theta - 0.1 * v


def nesterov(theta, g, memory, t):
    v = memory["v"] = 0.9 * memory.get("v", 0) + g
    return theta - 0.1 * (g + 0.9 * v)


def adagrad(theta, g, memory, t):
    s = memory["s"] = memory.get("s", 0.2) + g**2
    return theta - 0.1 * g / (np.sqrt(s) + 1e-10)


def rmsprop(theta, g, memory, t):
    s = memory["s"] = 0.8 * memory.get("s", 0) + 0.2 * g**2
    return theta - 0.1 * g / (np.sqrt(s) + 1e-4)


def adadelta(theta, g, memory, t):
    s = memory["s"] = 0.7 * memory.get("s", 0) + 0.3 * g**2
    d = g * np.sqrt(memory.get("u", 0) + 1e-5) / np.sqrt(s + 1e-5)
    memory["u"] = 0.7 * memory.get("u", 0) + 0.3 * d**2
    return theta - 0.5 * d


def _moments(g, memory, t):
    m = memory["m"] = 0.8 * memory.get("m", 0) + 0.2 * g
    v = memory["v"] = 0.9 * memory.get("v", 0) + 0.1 * g**2
    return m / (1 - 0.8**t), v / (1 - 0.9**t)


def adam(theta, g, memory, t):
    m, v = _moments(g, memory, t)
    return theta - 0.1 * m / (np.sqrt(v) + 1e-4)


def amsgrad(theta, g, memory, t):
    m, _ = _moments(g, memory, t)
    largest = memory["largest"] = np.maximum(memory.get("largest", 0), memory["v"])
    return theta - 0.1 * m / (np.sqrt(largest / (1 - 0.9**t)) + 1e-4)


def adamw(theta, g, memory, t):
    m, v = _moments(g, memory, t)
    return theta - 0.1 * 0.3 * theta - 0.1 * m / (np.sqrt(v) + 1e-4)


def nadam(theta, g, memory, t):
    _moments(g, memory, t)
    here, after = (0.8 * (1 - 0.5 * 0.96 ** (k * 0.01)) for k in (t, t + 1))
    product = memory["product"] = memory.get("product", 1.0) * here
    m = after * memory["m"] / (1 - product * after) + (1 - here) * g / (1 - product)
    return theta - 0.1 * m / (np.sqrt(memory["v"] / (1 - 0.9**t)) + 1e-4)


def lion(theta, g, memory, t):
    c = np.sign(0.8 * memory.get("m", 0) + 0.2 * g)
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    return theta - 0.01 * 0.3 * theta - 0.01 * c


BETAS = {"beta1": 0.8, "beta2": 0.9}
RULES = {
    "sgd": (bp.SGD(0.1), sgd),
    "momentum": (bp.SGD(0.1, momentum=0.9), momentum),
    "nesterov": (bp.SGD(0.1, momentum=0.9, nesterov=True), nesterov),
    "adagrad": (bp.Adagrad(0.1, initial=0.2), adagrad),
    "rmsprop": (bp.RMSprop(0.1, alpha=0.8, eps=1e-4), rmsprop),
    "adadelta": (bp.Adadelta(0.5, rho=0.7, eps=1e-5), adadelta),
    "adam": (bp.Adam(0.1, eps=1e-4, **BETAS), adam),
    "amsgrad": (bp.AMSGrad(0.1, eps=1e-4, **BETAS), amsgrad),
    "adamw": (bp.AdamW(0.1, eps=1e-4, weight_decay=0.3, **BETAS), adamw),
    "nadam": (bp.NAdam(0.1, eps=1e-4, momentum_decay=0.01, **BETAS), nadam),
    "lion": (bp.Lion(0.01, weight_decay=0.3, **BETAS), lion),
}


def by_hand(reference, step, X, Y, order, change=lambda g, theta: g):
    """Train a reference in a given order; returns all parameters after every step, and the losses before."""
    theta, path, losses = flat(reference.weights), [], []
    memory: dict[str, Any] = {}
    shapes = list(reference.weights)
    Y = targets(reference, Y)
    for t, rows in enumerate(order, start=1):
        reference.weights = unflat(theta, shapes)
        losses.append(reference.value(X[rows], Y[rows]))
        g = flat(reference.gradients(X[rows], Y[rows])[0])
        theta = step(theta, change(g, theta), memory, t)
        path.append(theta)
    reference.weights = unflat(theta, shapes)
    return np.array(path), np.array(losses)


@pytest.mark.parametrize("plan", ["auto", "reference"])
@pytest.mark.parametrize("name", RULES)
def test_steps_of_every_rule_by_hand(backend, name, plan, rng):
    """The first step, and four more, each read back from the network."""
    net, X, y, reference = make(backend, rng)
    rule, step = RULES[name]
    order = rng.integers(0, 23, size=(5, 8))
    path, losses = by_hand(reference, step, X, y, order)
    trainer = bp.Trainer(net, optimizer=rule, batch_size=8, seed=0, plan=plan)
    for t in range(5):
        before = flat(net.get_weights())
        records = trainer.run(X, y, order[t : t + 1])
        # a sign that hangs on a rounding error would show as a jump, not as noise
        np.testing.assert_allclose(flat(net.get_weights()), path[t], rtol=1e-10, atol=1e-12)
        assert records.loss[0] == pytest.approx(losses[t], rel=1e-10)
        assert (flat(net.get_weights()) != before).all()
    assert trainer.state.step == 5


def test_a_rule_of_ones_own(cpu_backend, rng):
    net, X, y, reference = make(cpu_backend, rng)
    rule = bp.UpdateRule(
        "averaged", "v = (1 - c)*v + c*g; theta = theta - eta*v", state=("v",), hyper={"c": 0.3}, eta=0.2
    )

    def step(theta, g, memory, t):
        v = memory["v"] = 0.7 * memory.get("v", 0) + 0.3 * g
        return theta - 0.2 * v

    order = rng.integers(0, 23, size=(4, 8))
    path, _ = by_hand(reference, step, X, y, order)
    bp.Trainer(net, optimizer=rule, batch_size=8).run(X, y, order)
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-11, atol=1e-13)


# ------------------------------------------------------------------------------------------ whole epochs


def epochs_by_hand(m, batch, epochs, seed):
    """Index arrays of all steps: a fresh Philox permutation an epoch, the rest as a smaller last batch."""
    for epoch in range(epochs):
        order = np.arange(m) if seed is None else permutation(m, seed=seed, epoch=epoch)
        for start in range(0, m, batch):
            yield order[start : start + batch]


@pytest.mark.parametrize("plan", ["auto", "reference"])
@pytest.mark.parametrize("batch", [1, 5, 23, 64], ids=["stochastic", "partial-last", "all", "larger-than-data"])
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("identity", "mse")])
def test_epochs_against_a_plain_loop(backend, batch, output, loss, plan, rng):
    net, X, Y, reference = make(backend, rng, output=output, loss=loss)
    order = list(epochs_by_hand(23, batch, 3, seed=7))
    path, losses = by_hand(reference, sgd, X, Y, order)
    run = bp.train(
        net, X, Y, loss=loss, optimizer=bp.SGD(0.1), batch_size=batch, epochs=3, seed=7, record_steps=True, plan=plan
    )
    # 69 steps at most, each adds a rounding error or two, on parameters of size about 1
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(run.history.steps, losses, rtol=1e-12, atol=1e-12)
    per_epoch = len(order) // 3
    sizes = np.array([len(rows) for rows in order[:per_epoch]])
    for epoch in range(3):
        mean = np.average(losses[epoch * per_epoch : (epoch + 1) * per_epoch], weights=sizes)
        assert run.history[epoch]["loss"] == pytest.approx(mean, rel=1e-12)
    assert run.history["step"].tolist() == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert run.steps == 3 * per_epoch


def test_full_batch(cpu_backend, rng):
    net, X, y, reference = make(cpu_backend, rng)
    path, losses = by_hand(reference, sgd, X, y, [np.arange(23)] * 4)
    run = bp.train(net, X, y, optimizer=bp.SGD(0.1), batch_size="full", epochs=4)
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-12)
    assert run.steps == 4


def test_without_shuffling_the_order_is_that_of_the_data(cpu_backend, rng):
    net, X, y, reference = make(cpu_backend, rng)
    path, _ = by_hand(reference, sgd, X, y, list(epochs_by_hand(23, 5, 2, None)))
    bp.train(net, X, y, optimizer=bp.SGD(0.1), batch_size=5, epochs=2, shuffle=False, seed=3)
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-13)


def test_every_epoch_sees_every_sample_once_in_another_order(cpu_backend):
    """Each sample has its own input, so the batch losses of a net that does not move name the samples."""
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    X, Y = np.zeros((20, 1)), np.arange(1.0, 21.0)[:, None]
    run = bp.train(
        net, X, Y, loss="absolute", optimizer=bp.SGD(1e-12), batch_size=1, epochs=4, seed=1, record_steps=True
    )
    seen = np.round(run.history.steps).reshape(4, 20)
    assert (np.sort(seen, axis=1) == Y[:, 0]).all()
    assert len({tuple(row) for row in seen}) == 4


def test_hits_are_counted_before_each_update(cpu_backend, rng):
    net, X, y, reference = make(cpu_backend, rng)
    hits = []
    order = list(epochs_by_hand(23, 5, 1, seed=2))
    for k, rows in enumerate(order):
        by_hand_so_far = Reference(net.get_weights(), reference.activations, reference.loss)
        if k:
            by_hand(by_hand_so_far, sgd, X, y, order[:k])
        hits.append((by_hand_so_far.forward(X[rows])[1][-1].argmax(axis=1) == y[rows]).sum())
    run = bp.train(net, X, y, optimizer=bp.SGD(0.1), batch_size=5, epochs=1, seed=2)
    assert run.history[0]["accuracy"] == pytest.approx(sum(hits) / 23, rel=1e-14)


# ------------------------------------------------------------------------------------------ penalties and decay


@pytest.mark.parametrize(
    ("penalty", "slope", "price"),
    [
        (bp.L2(0.03), lambda w: 0.03 * w, lambda w: 0.015 * w**2),
        (bp.L1(0.02), lambda w: 0.02 * np.sign(w), lambda w: 0.02 * np.abs(w)),
        (
            [bp.L1(0.02), bp.L2(0.03)],
            lambda w: 0.02 * np.sign(w) + 0.03 * w,
            lambda w: 0.02 * np.abs(w) + 0.015 * w**2,
        ),
        (bp.Penalty("fourth", "c*w**4", c=0.1), lambda w: 0.4 * w**3, lambda w: 0.1 * w**4),
    ],
    ids=["l2", "l1", "elastic", "own"],
)
def test_penalties_on_weights_and_not_on_biases(backend, penalty, slope, price, rng):
    net, X, y, reference = make(backend, rng)
    weights = is_weight(reference.weights)
    path, losses = by_hand(reference, momentum, X, y, [np.arange(23)] * 3, lambda g, theta: g + weights * slope(theta))
    run = bp.train(net, X, y, optimizer=bp.SGD(0.1, momentum=0.9), batch_size="full", epochs=3, penalty=penalty)
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(run.history["loss"], losses, rtol=1e-12, err_msg="a loss is without its penalty")
    paid = [price(theta[weights]).sum() for theta in path]
    np.testing.assert_allclose(run.history["penalty"], paid, rtol=1e-12)


def test_l2_is_the_gradient_of_the_reported_sum(cpu_backend, rng):
    """One SGD step from differences of loss + penalty, as evaluate and the history report them."""
    net, X, y, reference = make(cpu_backend, rng)
    before = net.copy()
    bp.train(net, X, y, optimizer=bp.SGD(1.0), batch_size="full", epochs=1, penalty=bp.L2(0.5))
    moved = flat(before.get_weights()) - flat(net.get_weights())
    theta, weights = flat(reference.weights), is_weight(reference.weights)

    def objective(k, h):
        shifted = theta.copy()
        shifted[k] += h
        loss = Reference(unflat(shifted, reference.weights), reference.activations, reference.loss)
        return loss.value(X, np.eye(3)[y]) + 0.25 * (shifted[weights] ** 2).sum()

    slopes = [(objective(k, 1e-5) - objective(k, -1e-5)) / 2e-5 for k in range(theta.size)]
    np.testing.assert_allclose(moved, slopes, rtol=1e-6, atol=1e-9)


def test_decoupled_decay_does_not_go_through_the_moments(cpu_backend, rng):
    """AdamW with a gradient of zero only shrinks; Adam with L2 divides its penalty by its root."""
    X, Y = np.zeros((4, 2)), np.zeros((4, 1))
    net = bp.MLP([2, 1], output="identity", dtype="float64", seed=1, backend=cpu_backend)
    W = net.get_weights()[0][0]
    bp.train(net, X, Y, optimizer=bp.AdamW(0.1, weight_decay=0.5), batch_size="full", epochs=1)
    np.testing.assert_allclose(net.W[1], W * (1 - 0.1 * 0.5), rtol=1e-14)
    net.set_weights([(W, np.zeros(1))])
    bp.train(net, X, Y, optimizer=bp.Adam(0.1), batch_size="full", epochs=1, penalty=bp.L2(0.5))
    np.testing.assert_allclose(net.W[1], W - 0.1 * np.sign(W), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------ clipping


def clip_norm(g, limit):
    return g * min(1.0, limit / np.linalg.norm(g))


def clip_layers(g, limit):
    first = 4 * 6 + 6
    return np.concatenate([clip_norm(g[:first], limit), clip_norm(g[first:], limit)])


@pytest.mark.parametrize(
    ("clip", "change"),
    [
        (bp.ClipValue(0.01), lambda g: np.clip(g, -0.01, 0.01)),
        (bp.ClipNorm(0.05), lambda g: clip_norm(g, 0.05)),
        (bp.ClipLayerNorm(0.05), lambda g: clip_layers(g, 0.05)),
    ],
    ids=["value", "norm", "layer"],
)
def test_clipping_by_hand(backend, clip, change, rng):
    net, X, y, reference = make(backend, rng)
    clipped = []

    def changed(g, theta):
        clipped.append(not np.allclose(change(g), g))
        return change(g)

    path, _ = by_hand(reference, momentum, X, y, [np.arange(23)] * 3, changed)
    assert any(clipped), "a limit that is never reached tests nothing"
    bp.train(net, X, y, optimizer=bp.SGD(0.1, momentum=0.9), batch_size="full", epochs=3, clip=clip)
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-13)


def test_clipping_sees_the_gradient_with_its_penalty(cpu_backend, rng):
    net, X, y, reference = make(cpu_backend, rng)
    weights = is_weight(reference.weights)
    path, _ = by_hand(reference, sgd, X, y, [np.arange(23)] * 2, lambda g, theta: clip_norm(g + weights * theta, 0.1))
    bp.train(net, X, y, optimizer=bp.SGD(0.1), batch_size="full", epochs=2, clip=bp.ClipNorm(0.1), penalty=bp.L2(1.0))
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clip", [bp.ClipValue(1e3), bp.ClipNorm(1e3), bp.ClipLayerNorm(1e3)], ids=repr)
def test_a_limit_that_is_not_reached_changes_no_bit(backend, dtype, clip, rng):
    net = bp.MLP(SIZES, "tanh", dtype=dtype, seed=5, backend=backend)
    twin = net.copy()
    X, y = rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
    for network, limit in ((net, clip), (twin, None)):
        bp.train(network, X, y, optimizer=bp.Adam(0.01), batch_size=5, epochs=2, seed=1, clip=limit)
    assert_same_bits(np.array(backend.to_numpy(net.theta)), np.array(backend.to_numpy(twin.theta)))


def test_the_norm_over_the_limit_becomes_the_limit(cpu_backend, rng):
    net, X, y, _ = make(cpu_backend, rng)
    before = flat(net.get_weights())
    bp.train(net, X, y, optimizer=bp.SGD(1.0), batch_size="full", epochs=1, clip=bp.ClipNorm(0.01))
    assert np.linalg.norm(flat(net.get_weights()) - before) == pytest.approx(0.01, rel=1e-12)


# ------------------------------------------------------------------------------------------ schedules


def steps_of(be, eta, steps, **options):
    """What the learning rate was at every step: the slope of |a - y| is 1 as long as a is below y."""
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=be)
    path = [0.0]
    trainer = bp.Trainer(net, loss="absolute", optimizer=bp.SGD(eta), batch_size=1, **options)
    for _ in range(steps):
        trainer.run([[0.0]], [[1e6]], [[0]])
        path.append(float(be.to_numpy(net.b[1])[0]))
    return np.diff(path)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (bp.Constant(0.5), [0.5] * 6),
        (bp.Step(0.8, every=2, factor=0.5), [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]),
        (bp.Exponential(1.0, 0.5), [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (bp.InverseTime(1.0, rate=1.0), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]),
        (bp.Cosine(1.0, total=4), [1, 0.5 + np.sqrt(0.125), 0.5, 0.5 - np.sqrt(0.125), 0, 0]),
        (bp.WarmUp(4, after=0.8), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_schedules_reach_the_update(backend, schedule, expected):
    np.testing.assert_allclose(steps_of(backend, schedule, 6), expected, rtol=1e-9, atol=1e-12)


def test_a_schedule_per_step_runs_through_stretches_and_epochs(cpu_backend):
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    eta = bp.InverseTime(1.0, rate=1.0)
    bp.train(net, np.zeros((25, 1)), np.full(25, 1e6), loss="absolute", optimizer=bp.SGD(eta), batch_size=2, epochs=3)
    assert float(net.b[1][0]) == pytest.approx((1 / np.arange(1, 3 * 13 + 1)).sum(), rel=1e-9)


def test_a_schedule_per_epoch(cpu_backend):
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    eta = bp.Step(0.8, every=2, factor=0.5, per="epoch")
    run = bp.train(
        net, np.zeros((5, 1)), np.full(5, 1e6), loss="absolute", optimizer=bp.SGD(eta), batch_size=2, epochs=5
    )
    np.testing.assert_allclose(run.history["eta"], [0.8, 0.8, 0.4, 0.4, 0.2])
    assert float(net.b[1][0]) == pytest.approx(3 * 2.6, rel=1e-9)


def test_the_plateau_schedule_watches_the_validation_loss(cpu_backend):
    """The training loss falls for ever, that of the validation data rises: the rate is reduced."""
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    options = {
        "loss": "absolute",
        "optimizer": bp.SGD(bp.ReduceOnPlateau(1.0, factor=0.5, patience=1)),
        "batch_size": "full",
        "epochs": 7,
    }
    X, Y = np.zeros((2, 1)), np.full(2, 1e6)
    run = bp.train(net, X, Y, validation=(X, -Y), **options)
    # epoch 1 is the best; two worse ones are needed for each reduction
    np.testing.assert_allclose(run.history["eta"], [1, 1, 1, 0.5, 0.5, 0.25, 0.25])
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    options["optimizer"] = bp.SGD(bp.ReduceOnPlateau(1.0, factor=0.5, patience=1, threshold=0))
    run = bp.train(net, X, Y, **options)
    np.testing.assert_allclose(run.history["eta"], 1.0)


# ------------------------------------------------------------------------------------------ the caller's order


def test_the_caller_owns_the_order(cpu_backend, rng):
    """Rows may repeat and be left out, and steps may be shorter than the batch size."""
    net, X, y, reference = make(cpu_backend, rng)
    order = np.array([[0, 0, 0], [5, 1, 22], [7, 7, 8]])
    path, losses = by_hand(reference, adam, X, y, [*order, [3, 4]])
    trainer = bp.Trainer(net, optimizer=RULES["adam"][0], batch_size=8)
    records = trainer.run(X, y, order)
    more = trainer.run(X, y, [[3, 4]])
    np.testing.assert_allclose(flat(net.get_weights()), path[-1], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose([*records.loss, *more.loss], losses, rtol=1e-11)
    assert records.weight.tolist() == [3, 3, 3]
    assert records.mean_loss == pytest.approx(losses[:3].mean())
    assert len(records) == 3


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ([0, 1], ShapeError, r"order has shape \(2,\) and dtype int64; an integer matrix is needed"),
        ([[0.0, 1.0]], ShapeError, "dtype float64; an integer matrix"),
        ([[0, 23]], ShapeError, "order holds sample numbers from 0 to 23; there are samples 0 to 22"),
        ([[-1, 0]], ShapeError, "from -1 to 0"),
        (np.zeros((2, 0), int), ShapeError, r"shape \(2, 0\)"),
        (np.zeros((2, 9), int), ConfigurationError, "9 samples a step; the trainer was made for batch_size=8"),
    ],
)
def test_a_wrong_order_is_refused(cpu_backend, order, error, message, rng):
    net, X, y, _ = make(cpu_backend, rng)
    before = flat(net.get_weights())
    trainer = bp.Trainer(net, batch_size=8)
    with pytest.raises(error, match=message):
        trainer.run(X, y, order)
    assert_same_bits(flat(net.get_weights()), before)
    assert trainer.state.step == 0


def test_no_steps_are_no_steps(cpu_backend, rng):
    net, X, y, _ = make(cpu_backend, rng)
    before = flat(net.get_weights())
    records = bp.Trainer(net, batch_size=8).run(X, y, np.zeros((0, 8), int))
    assert len(records) == 0
    assert np.isnan(records.mean_loss)
    assert_same_bits(flat(net.get_weights()), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ConfigurationError, "batch_size is 0; it must be a whole number of at least 1"),
        ({"batch_size": 2.5}, ConfigurationError, "batch_size is 2.5"),
        ({"batch_size": True}, ConfigurationError, "batch_size is True"),
        ({"optimizer": "adm"}, UnknownNameError, r"unknown update rule 'adm'.*Did you mean 'adam'\?"),
        ({"plan": "swift"}, UnknownNameError, "unknown plan 'swift'; known: auto, reference"),
        ({"threads": 0}, ConfigurationError, "threads is 0; it must be a whole number of at least 1"),
        ({"seed": -1}, ConfigurationError, "seed is -1"),
        ({"dropout": 1.0}, ConfigurationError, r"dropout rate is 1.0; it must be in \[0, 1\)"),
        ({"dropout": [0.5, 0.5]}, ConfigurationError, "dropout lists 2 rates; the network has 1 hidden layers"),
        ({"penalty": [0.1]}, ConfigurationError, r"penalty holds 0.1; penalties look like bp.L2\(1e-4\)"),
        ({"clip": 1.0}, ConfigurationError, r"clip is 1.0.*bp.ClipNorm"),
        ({"penalty": 1e-4}, ConfigurationError, r"penalty.*bp.L2\(1e-4\)"),
        ({"loss": "binary_cross_entropy_"}, UnknownNameError, "Did you mean 'binary_cross_entropy'"),
    ],
)
def test_wrong_options_are_refused_by_the_trainer_and_by_train(cpu_backend, arguments, error, message, rng):
    net, X, y, _ = make(cpu_backend, rng)
    before = flat(net.get_weights())
    with pytest.raises(error, match=message):
        bp.Trainer(net, **arguments).run(X, y, [[0]])
    with pytest.raises(error, match=message):
        bp.train(net, X, y, epochs=1, **arguments)
    assert_same_bits(flat(net.get_weights()), before)


def test_dropout_needs_a_hidden_layer(cpu_backend):
    with pytest.raises(ConfigurationError, match="dropout needs a hidden layer; this network has none"):
        bp.Trainer(bp.MLP([3, 2], backend=cpu_backend, seed=0), dropout=0.5)


def test_the_step_activation_cannot_be_trained(cpu_backend):
    net = bp.MLP([3, 3, 2], "step", backend=cpu_backend, seed=0)
    with pytest.raises(ConfigurationError, match="activation 'step' has no useful derivative"):
        bp.Trainer(net)
