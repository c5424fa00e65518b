"""What a look shows is what is trained: every number against NumPy in float64, and nothing is changed."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

import bpcore as bp
from bpcore.inspection.look import look, sample_of
from tests.helpers.compare import assert_close

SIZES = [6, 9, 7, 3]


def data(rng, m=40):
    return rng.normal(size=(m, SIZES[0])), rng.integers(0, SIZES[-1], m)


def by_hand(net, X, labels, weights=None):
    """The four equations for tanh, sigmoid and softmax with cross-entropy."""
    (W1, b1), (W2, b2), (W3, b3) = [(W.astype(np.float64), b.astype(np.float64)) for W, b in net.get_weights()]
    w = np.ones(len(X)) if weights is None else weights
    Z2 = X @ W1 + b1
    H2 = np.tanh(Z2)
    Z3 = H2 @ W2 + b2
    H3 = 1 / (1 + np.exp(-Z3))
    Z4 = H3 @ W3 + b3
    E = np.exp(Z4 - Z4.max(axis=1, keepdims=True))
    H4 = E / E.sum(axis=1, keepdims=True)
    D4 = (H4 - np.eye(3)[labels]) * w[:, None] / w.sum()
    D3 = D4 @ W3.T * H3 * (1 - H3)
    D2 = D3 @ W2.T * (1 - H2**2)
    found = {("Z", 2): Z2, ("Z", 3): Z3, ("Z", 4): Z4, ("H", 2): H2, ("H", 3): H3, ("H", 4): H4,
             ("Delta", 2): D2, ("Delta", 3): D3, ("Delta", 4): D4, ("W", 1): W1, ("W", 2): W2, ("W", 3): W3,
             ("b", 1): b1, ("b", 2): b2, ("b", 3): b3, ("dW", 1): X.T @ D2, ("dW", 2): H2.T @ D3, ("dW", 3): H3.T @ D4,
             ("db", 1): D2.sum(axis=0), ("db", 2): D3.sum(axis=0), ("db", 3): D4.sum(axis=0)}  # fmt: skip
    loss = -(w * np.log(H4[np.arange(len(X)), labels])).sum() / w.sum()
    accuracy = (w * (H4.argmax(axis=1) == labels)).sum() / w.sum()
    return found, loss, accuracy


def network(backend, dtype="float64", seed=3):
    net = bp.MLP(SIZES, ["tanh", "sigmoid"], "softmax", dtype=dtype, seed=seed, backend=backend)
    rng = np.random.default_rng(1)
    return net.set_weights([(W, rng.normal(size=b.shape)) for W, b in net.get_weights()])


def compare(report, arrays, dtype):
    for (quantity, number), array in arrays.items():
        found = report[quantity, number]
        wanted = {"mean": array.mean(), "std": array.std(), "min": array.min(), "max": array.max(),
                  "norm": np.linalg.norm(array), "rms": np.sqrt((array**2).mean())}  # fmt: skip
        for name, value in wanted.items():
            # a few products in the dtype of the network came before
            assert_close(
                getattr(found, name), float(value), dtype="float64", scale=float(np.abs(array).max()) * array.size**0.5,
                factor=64 * np.finfo(dtype).eps / np.finfo(np.float64).eps,
            )  # fmt: skip
        assert found.size == array.size


@pytest.mark.parametrize(
    ("backend", "dtype", "weighted"),
    [
        *[("numpy", dtype, weighted) for dtype in ("float32", "float64") for weighted in (False, True)],
        ("numba", "float32", True),  # one is enough to compile
        *[pytest.param("cupy", dtype, True, marks=pytest.mark.gpu) for dtype in ("float32", "float64")],
    ],
    indirect=["backend"],
)
def test_every_statistic_is_that_of_the_equations(backend, dtype, weighted, rng):
    dtype = np.dtype(dtype)
    X, labels = data(rng)
    weights = rng.uniform(0.5, 2, len(X)) if weighted else None
    net = network(backend, dtype)
    report = bp.inspect(net, X, labels, sample_weight=weights)
    arrays, loss, accuracy = by_hand(net, X.astype(dtype).astype(np.float64), labels, weights)
    compare(report, arrays, dtype)
    assert report.loss == pytest.approx(loss, rel=1e-5 if dtype == np.float32 else 1e-12)
    assert report.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert (report.samples, report.backend, report.dtype) == (40, net.backend.name, str(dtype))
    for l, layer in enumerate(report.layers, start=2):
        ratio = np.linalg.norm(arrays["dW", l - 1]) / np.linalg.norm(arrays["W", l - 1])
        assert layer.gradient_ratio == pytest.approx(ratio, rel=1e-4 if dtype == np.float32 else 1e-12)
        assert layer.update_ratio is None


def test_the_update_is_that_of_the_rule_with_penalty_and_clipping(rng):
    X, labels = data(rng)
    net = network("numpy")
    arrays, _, _ = by_hand(net, X, labels)
    sgd = bp.inspect(net, X, labels, optimizer=bp.SGD(0.25))
    adam = bp.inspect(net, X, labels, optimizer=bp.Adam(0.01))
    clipped = bp.inspect(net, X, labels, optimizer=bp.SGD(0.25), penalty=bp.L2(0.5), clip=bp.ClipValue(0.01))
    for l in (1, 2, 3):
        W, dW = arrays["W", l], arrays["dW", l]
        assert sgd[l + 1].update_ratio == pytest.approx(0.25 * np.linalg.norm(dW) / np.linalg.norm(W), rel=1e-10)
        # the first step of Adam has the size eta, whatever the gradient is
        assert adam[l + 1].update_ratio == pytest.approx(0.01 * W.size**0.5 / np.linalg.norm(W), rel=1e-4)
        assert clipped[l + 1].update_ratio <= 0.25 * 0.01 * W.size**0.5 / np.linalg.norm(W) * (1 + 1e-12)
        assert clipped["dW", l].norm == pytest.approx(np.linalg.norm(dW), rel=1e-10)  # before both
    assert clipped[2].update_ratio != pytest.approx(sgd[2].update_ratio, rel=1e-3)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
def test_nothing_is_changed(backend, rng):
    X, labels = data(rng)
    net = network(backend)
    trainer = bp.Trainer(net, optimizer=bp.Adam(0.1), batch_size=8, seed=0, backend=backend)
    problem = trainer.load(X, labels)
    trainer.run_loaded(problem, [[0, 1, 2], [3, 4, 5]])
    before = np.array(net.backend.to_numpy(net.theta))
    state = {name: np.array(net.backend.to_numpy(array)) for name, array in trainer.state.arrays.items()}
    report = look(trainer, problem)
    assert report.step == trainer.state.step == 2
    np.testing.assert_array_equal(net.backend.to_numpy(net.theta), before)
    for name, array in trainer.state.arrays.items():
        np.testing.assert_array_equal(net.backend.to_numpy(array), state[name])


def test_the_state_of_the_rule_decides_the_next_update(rng):
    """With momentum, the update that is shown is what the next step on these samples makes."""
    X, labels = data(rng, 12)
    net = network("numpy")
    trainer = bp.Trainer(net, optimizer=bp.Momentum(0.1), batch_size=12, seed=0, backend="numpy", plan="reference")
    problem, order = trainer.load(X, labels), np.arange(12)[None, :]
    trainer.run_loaded(problem, np.repeat(order, 3, axis=0))
    report, before = look(trainer, problem), [W for W, _ in net.get_weights()]
    trainer.run_loaded(problem, order)
    for layer, W, (after, _) in zip(report.layers, before, net.get_weights(), strict=True):
        assert layer.update_ratio == pytest.approx(np.linalg.norm(after - W) / np.linalg.norm(W), rel=1e-10)


def test_more_samples_than_asked_for_are_drawn_by_the_seed(rng):
    X, labels = data(rng, 300)
    net = network("numpy")
    report = bp.inspect(net, X, labels, samples=50, seed=4)
    rows = np.sort(np.random.default_rng(4).choice(300, 50, replace=False, shuffle=False))
    compare(report, by_hand(net, X[rows], labels[rows])[0], np.float64)
    assert report.samples == 50
    assert bp.inspect(net, X, labels, samples=50, seed=5).loss != report.loss


def test_samples_of_data_that_is_streamed_are_the_same(rng):
    X, labels = data(rng, 100)
    net = network("numpy")
    weights = rng.uniform(0.1, 1, 100)
    resident, streamed = (
        bp.Trainer(net, batch_size=10, data=where, backend="numpy") for where in ("resident", "stream")
    )
    found = [
        sample_of(trainer.be, trainer.load(X, labels, sample_weight=weights), 30, 7) for trainer in (resident, streamed)
    ]
    for name in ("X", "Y", "labels", "weights"):
        np.testing.assert_array_equal(*(getattr(problem, name) for problem in found))
    assert found[0].m == 30


@pytest.mark.long
def test_on_the_stand_in_of_a_gpu_only_small_arrays_cross(fake_backend, fake_cupy, rng):
    labels = rng.integers(0, 3, 64)
    X = rng.normal(size=(64, 6)).astype(np.float32)
    net = bp.MLP([6, 9, 7, 3], ["tanh", "relu"], seed=0, backend=fake_backend)
    trainer = bp.Trainer(net, batch_size=64, backend=fake_backend, plan="reference")
    problem = trainer.load(X, labels)
    before, fetch = fake_cupy.count["to_host"], fake_cupy.asnumpy
    sizes: list = []

    def spy(source):
        sizes.append(source.size)
        return fetch(source)

    fake_cupy.asnumpy = spy
    report = look(trainer, problem)
    assert 0 < fake_cupy.count["to_host"] - before <= 6
    assert max(sizes) <= 8 * (2 + 7 * 3)  # eight numbers of each array; samples and activations would be more
    wanted = bp.inspect(bp.MLP([6, 9, 7, 3], ["tanh", "relu"], seed=0, backend="numpy"), X, labels)
    assert report.loss == pytest.approx(wanted.loss, rel=1e-5)
    for found, other in zip(report.layers, wanted.layers, strict=True):
        assert found.flat == other.flat
        assert found.Delta.norm == pytest.approx(other.Delta.norm, rel=1e-4)


def test_a_report_is_json_text_and_a_table(rng):
    from rich.console import Console

    X, labels = data(rng)
    report = bp.inspect(network("numpy"), X, labels, optimizer="adam")
    again = json.loads(json.dumps(report.to_dict()))
    assert again["layers"][1]["dW"]["norm"] == report["dW", 2].norm
    assert again["layers"][0]["layer"] == 2
    lines = str(report).splitlines()
    assert lines[0].startswith("40 samples, cross_entropy ")
    assert [line.split()[0] for line in lines[2:5]] == ["2", "3", "4"]
    assert lines[-1] == "no alarms"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report)
    text = console.export_text()
    assert "step/W" in text
    assert f"{report[2].gradient_ratio:.1e}" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text, "a column was cut at 80 characters"
    with pytest.raises(KeyError, match="no layer 1; this network has the layers 2 to 4"):
        report[1]


def test_what_cannot_be_looked_at_is_refused(rng):
    X, labels = data(rng)
    with pytest.raises(bp.errors.ConfigurationError, match="inspect: Y is missing"):
        bp.inspect(network("numpy"), X)
    with pytest.raises(bp.errors.ConfigurationError, match="samples must be an integer of at least 1, got 0"):
        bp.inspect(network("numpy"), X, labels, samples=0)
    with pytest.raises(bp.errors.ConfigurationError, match="activation 'step' has no useful derivative"):
        bp.inspect(bp.MLP([6, 4, 3], "step", backend="numpy"), X, labels)
    with pytest.raises(bp.errors.ShapeError, match="X has shape"):
        bp.inspect(network("numpy"), X[:, :2], labels)
