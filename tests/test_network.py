"""The network as an object: one vector and its views, backends, prediction, evaluation, and what is refused."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, DataError, ShapeError, UnknownNameError
from bpcore.functions.update_rules import UPDATE_RULES
from bpcore.random import Purpose, uniform
from tests.helpers.compare import assert_same_bits
from tests.helpers.reference import Reference

SIZES = [5, 7, 3, 2]


def network(be=None, dtype="float64", **options):
    return bp.MLP(SIZES, "tanh", dtype=dtype, seed=4, backend=be, **options)


def host(net):
    return np.array(net.backend.to_numpy(net.theta))


def gaps(net):
    """Which elements of theta belong to no block: written from the sizes, not from the layout."""
    inside, start = np.zeros(net.theta.size, bool), 0
    for n_in, n_out in zip(net.sizes, net.sizes[1:], strict=False):
        for length in (n_in * n_out, n_out):
            inside[start : start + length] = True
            start += -(-length // 16) * 16
    assert start == net.theta.size
    return ~inside


@pytest.fixture
def net(cpu_backend):
    """A network that every test must leave as it was when something is refused."""
    return network(cpu_backend)


@pytest.fixture
def unchanged(net):
    """Check at the end that the parameters are the same to the bit."""
    before, meta = host(net), dict(net.meta)
    yield net
    assert_same_bits(host(net), before)
    assert net.meta == meta


# ------------------------------------------------------------------------------------------ one vector and its views


def test_weights_are_views_into_theta(backend):
    net = network(backend)
    assert [W.shape for W in net.W] == [(5, 7), (7, 3), (3, 2)]
    assert [b.shape for b in net.b] == [(7,), (3,), (2,)]
    assert net.n_parameters == 5 * 7 + 7 + 7 * 3 + 3 + 3 * 2 + 2
    backend.fill(net.theta, 3.0)
    for l in (1, 2, 3):
        assert (backend.to_numpy(net.W[l]) == 3).all()
        assert (backend.to_numpy(net.b[l]) == 3).all()
    backend.fill(net.W[2], -1.0)
    assert (host(net) == -1).sum() == 21


def test_every_block_begins_at_64_bytes(cpu_backend, dtype):
    net = network(cpu_backend, dtype)
    for block in (*net.W, *net.b, net.theta):
        assert block.ctypes.data % 64 == 0
        assert block.flags.c_contiguous
        assert block.dtype == dtype


def test_layers_are_numbered_like_the_equations(net):
    assert list(net.W.layers) == [1, 2, 3]
    assert list(net.activations.layers) == [2, 3, 4]
    assert [activation.name for activation in net.activations] == ["tanh", "tanh", "softmax"]
    assert net.output.name == "softmax"
    assert net.W[-1] is net.W[3]
    with pytest.raises(IndexError, match="no layer 0 here; layers are numbered as in the equations, from 1 to 3"):
        net.W[0]
    with pytest.raises(IndexError, match=r"no layer 1 here.*from 2 to 4"):
        net.activations[1]


@pytest.mark.parametrize(("name", "dropout"), [*((name, None) for name in UPDATE_RULES), ("adamw", 0.3)])
def test_the_gaps_stay_zero_through_training(cpu_backend, name, dropout, rng):
    """With everything that touches all of theta at once: state, penalties, decay, clipping; and block by block."""
    net = network(cpu_backend)
    assert gaps(net).any()
    X, y = rng.normal(size=(20, 5)), rng.integers(0, 2, 20)
    trainer = bp.Trainer(
        net,
        optimizer=name,
        batch_size=10,
        dropout=dropout,
        penalty=[bp.L1(1e-3), bp.L2(1e-3)],
        clip=bp.ClipNorm(0.5),
        seed=0,
    )
    before = host(net)
    trainer.run(X, y, np.arange(20).reshape(2, 10))
    assert (host(net)[~gaps(net)] != before[~gaps(net)]).any()
    assert (host(net)[gaps(net)] == 0).all()
    for state in trainer.state.arrays.values():
        assert (cpu_backend.to_numpy(state)[gaps(net)] == 0).all()


# ------------------------------------------------------------------------------------------ the first parameters


def test_the_same_seed_gives_the_same_parameters_on_all_backends(backend, dtype):
    init = ["standard_normal", "orthogonal", "glorot_uniform"]
    here = bp.MLP(SIZES, "tanh", init=init, seed=11, dtype=dtype, backend=backend)
    there = bp.MLP(SIZES, "tanh", init=init, seed=11, dtype=dtype, backend="numpy")
    assert_same_bits(host(here), host(there))
    other = bp.MLP(SIZES, "tanh", init=init, seed=12, dtype=dtype, backend=backend)
    assert (host(other) != host(here)).sum() > 50


def test_the_first_parameters_are_the_documented_philox_numbers(cpu_backend):
    """W[l] of Glorot uniform takes the first n_in * n_out uniforms of (seed, WEIGHTS, layer l)."""
    net = bp.MLP([4, 3, 2], "tanh", init="glorot_uniform", seed=9, dtype="float64", backend=cpu_backend)
    for l, (n_in, n_out) in ((1, (4, 3)), (2, (3, 2))):
        u = uniform(n_in * n_out, seed=9, purpose=Purpose.WEIGHTS, layer=l).reshape(n_in, n_out)
        limit = np.sqrt(6 / (n_in + n_out))
        np.testing.assert_allclose(net.W[l], limit * (2 * u - 1), rtol=1e-15)
        assert (net.b[l] == 0).all()


def test_float32_parameters_are_the_rounded_float64_ones(cpu_backend):
    assert_same_bits(host(network(cpu_backend, "float32")), host(network(cpu_backend)).astype(np.float32))


def test_auto_follows_the_activation(cpu_backend):
    net = bp.MLP([400, 400, 400, 400], ["relu", "selu"], "sigmoid", seed=0, backend=cpu_backend)
    for l, variance in ((1, 2 / 400), (2, 1 / 400), (3, 2 / 800)):
        assert float(np.var(net.W[l])) == pytest.approx(variance, rel=0.02)


def test_settings_of_the_environment(cpu_backend, monkeypatch):
    monkeypatch.setenv("BPCORE_SEED", "77")
    monkeypatch.setenv("BPCORE_DTYPE", "float64")
    net = bp.MLP([3, 2], backend=cpu_backend)
    assert net.seed == 77
    assert net.dtype == np.float64
    assert bp.MLP([3, 2], backend=cpu_backend, seed=1, dtype="float32").dtype == np.float32
    monkeypatch.setenv("BPCORE_SEED", "-3")
    with pytest.raises(ConfigurationError, match=r"BPCORE_SEED='-3': seed is -3; it must be a whole number"):
        bp.MLP([3, 2], backend=cpu_backend)
    monkeypatch.setenv("BPCORE_SEED", "1")
    monkeypatch.setenv("BPCORE_DTYPE", "float17")
    with pytest.raises(ConfigurationError, match="BPCORE_DTYPE='float17': dtype 'float17' is not known"):
        bp.MLP([3, 2], backend=cpu_backend)


def test_without_a_seed_every_network_is_another(cpu_backend):
    first, second = bp.MLP([3, 2], backend=cpu_backend), bp.MLP([3, 2], backend=cpu_backend)
    assert first.seed != second.seed
    assert_same_bits(host(first), host(bp.MLP([3, 2], backend=cpu_backend, seed=first.seed)))


# ------------------------------------------------------------------------------------------ parameters in and out


def test_set_and_get_weights(backend, dtype, rng):
    net = network(backend, dtype)
    weights = [(rng.normal(size=(i, o)), rng.normal(size=o)) for i, o in itertools.pairwise(SIZES)]
    assert net.set_weights(weights) is net
    found = net.get_weights()
    for (W, b), (W_given, b_given) in zip(found, weights, strict=True):
        assert_same_bits(W, W_given.astype(dtype))
        assert_same_bits(b, b_given.astype(dtype))
    assert (host(net)[gaps(net)] == 0).all()
    found[0][0][...] = 99
    weights[1][1][...] = 99
    assert (host(net) != 99).all(), "both directions copy"


def test_set_weights_takes_lists_and_integers(net):
    net.set_weights([(np.ones((5, 7), int), [1] * 7), (np.ones((7, 3)), np.ones(3)), ([[1, 2]] * 3, [0, 0])])
    np.testing.assert_array_equal(net.W[3], [[1, 2]] * 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w[:2], ShapeError, r"needs 3 pairs \(W, b\) for a network of sizes \[5, 7, 3, 2\]; got 2"),
        (lambda w: [*w, w[0]], ShapeError, "needs 3 pairs.*got 4"),
        (lambda w: [w[0], (w[1][0],), w[2]], ShapeError, "needs 3 pairs"),
        (
            lambda w: [w[0], (w[1][0].T, w[1][1]), w[2]],
            ShapeError,
            r"W\[2\] has shape \(3, 7\); expected \(7, 3\) in a network of sizes \[5, 7, 3, 2\]",
        ),
        (lambda w: [w[0], w[1], (w[2][0], w[2][1][:1])], ShapeError, r"b\[3\] has shape \(1,\); expected \(2,\)"),
        (lambda w: [w[0], w[1], (w[2][0] * np.nan, w[2][1])], DataError, "not finite"),
        (lambda w: [(w[0][0] + np.inf, w[0][1]), w[1], w[2]], DataError, "not finite"),
        (lambda w: [(np.full((5, 7), "a"), w[0][1]), w[1], w[2]], DataError, r"W\[1\].*text"),
        (lambda w: [(w[0][0].astype(complex), w[0][1]), w[1], w[2]], DataError, r"W\[1\].*complex"),
    ],
)
def test_wrong_weights_are_refused_whole(unchanged, change, error, message):
    weights = [(np.zeros((i, o)), np.zeros(o)) for i, o in itertools.pairwise(SIZES)]
    with pytest.raises(error, match=message):
        unchanged.set_weights(change(weights))


def test_weights_that_overflow_float32_are_refused(cpu_backend):
    net = bp.MLP([2, 1], dtype="float32", seed=0, backend=cpu_backend)
    before = host(net)
    with pytest.raises(DataError, match="not finite in the network's dtype"):
        net.set_weights([([[1e300], [0.0]], [0.0])])
    assert_same_bits(host(net), before)


def test_a_copy_is_independent(backend):
    net = network(backend)
    net.meta["classes"] = ["a", "b"]
    twin = net.copy()
    assert_same_bits(host(twin), host(net))
    assert (twin.sizes, twin.dtype, twin.seed, twin.backend) == (net.sizes, net.dtype, net.seed, net.backend)
    before = host(net)
    backend.fill(twin.theta, 0.0)
    twin.meta["classes"].append("c")
    assert_same_bits(host(net), before)
    assert net.meta == {"classes": ["a", "b"]}
    assert (backend.to_numpy(twin.W[1]) == 0).all(), "its views are its own"


@pytest.mark.parametrize("duplicate", [lambda net: pickle.loads(pickle.dumps(net)), copy.deepcopy])
def test_pickled_and_deep_copied(backend, dtype, duplicate, rng):
    net = network(backend, dtype)
    net.meta["note"] = [1]
    twin = duplicate(net)
    assert_same_bits(host(twin), host(net))
    assert twin.backend is backend
    assert twin.meta == net.meta
    assert twin.meta["note"] is not net.meta["note"]
    X = rng.normal(size=(3, 5))
    assert_same_bits(np.asarray(twin.predict(X)), np.asarray(net.predict(X)))
    backend.fill(twin.theta, 0.0)
    assert (backend.to_numpy(twin.b[3]) == 0).all()
    assert (host(net)[~gaps(net)] != 0).any()


def test_a_network_pickled_on_a_backend_that_is_gone_loads_on_another(rng):
    from bpcore.backends.numpy_backend import NumpyBackend

    class Elsewhere(NumpyBackend):
        name = "elsewhere"

    net = network(Elsewhere())
    X = rng.normal(size=(3, 5))
    expected = net.predict(X)
    with bp.use_backend("numpy"):
        twin = pickle.loads(pickle.dumps(net))
        assert twin.backend.name == "numpy"
        assert_same_bits(twin.predict(X), expected)


def test_own_activations_survive_pickling(cpu_backend, rng):
    net = bp.MLP([2, 3, 1], bp.Activation("cube", "z**3"), "identity", seed=0, backend=cpu_backend)
    twin = pickle.loads(pickle.dumps(net))
    X = rng.normal(size=(4, 2))
    assert_same_bits(twin.predict(X), net.predict(X))


# ------------------------------------------------------------------------------------------ backends


def test_to_moves_and_holds(backend, rng):
    net = network("numpy")
    before, X = host(net), rng.normal(size=(6, 5))
    expected = net.predict(X)
    assert net.to(backend) is net
    assert net.backend is backend
    assert backend.owns(net.theta)
    assert_same_bits(host(net), before)
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)
    with bp.use_backend("numpy"):
        net.predict(X)
        assert net.backend is backend, "a network that was moved stays"
    net.to("numpy")
    assert_same_bits(host(net), before)


def test_without_a_backend_a_network_follows_the_selection(cpu_backend):
    with bp.use_backend("numpy"):
        net = bp.MLP([2, 2], seed=0)
        assert net.backend.name == "numpy"
    with bp.use_backend(cpu_backend):
        net.predict([[1.0, 2.0]])
        assert net.backend is cpu_backend
        net.predict([[1.0, 2.0]], backend="numpy")
        assert net.backend.name == "numpy"
        assert net.on() is cpu_backend


def test_on_the_cpu_a_move_keeps_the_views():
    net = network("numpy")
    W = net.W[1]
    net.to("numba")
    assert net.W[1] is W


def test_data_stays_where_it_is(backend, rng):
    """NumPy in, NumPy out; device in, device out."""
    net = network(backend)
    X = rng.normal(size=(6, 5))
    assert type(net.predict(X)) is np.ndarray
    on_device = net.predict(backend.asarray(X))
    assert backend.owns(on_device)
    np.testing.assert_array_equal(backend.to_numpy(on_device), net.predict(X))
    assert type(net.predict_classes(backend.asarray(X))) is np.ndarray


# ------------------------------------------------------------------------------------------ prediction


def reference(net):
    weights = [(W.astype(np.float64), b.astype(np.float64)) for W, b in net.get_weights()]
    return Reference(weights, [activation.name for activation in net.activations], "cross_entropy")


def test_prediction_against_the_reference(backend, dtype, rng):
    net = network(backend, dtype)
    X = rng.normal(size=(50, 5)).astype(dtype)
    H = net.predict(X)
    assert H.dtype == dtype
    # three layers of products of at most seven terms of size about 1
    np.testing.assert_allclose(H, reference(net).forward(X)[1][-1], rtol=0, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("rows", [1, 2, 4095, 4096, 4097, 9000])
def test_prediction_in_blocks(backend, rows, rng):
    net = network(backend)
    X = rng.normal(size=(rows, 5))
    H = net.predict(X)
    assert H.shape == (rows, 2)
    np.testing.assert_allclose(H, reference(net).forward(X)[1][-1], rtol=1e-12)


def test_blocks_do_not_depend_on_what_comes_before(cpu_backend, rng):
    net = network(cpu_backend, "float32")
    X = rng.normal(size=(4096 + 100, 5))
    whole = net.predict(X)
    np.testing.assert_allclose(whole[4096:], net.predict(X[4096:]), rtol=1e-6)
    np.testing.assert_allclose(whole[:4096], net.predict(X[:4096]), rtol=1e-6)
    assert_same_bits(whole, net.predict(X))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda X: X, id="float64"),
        pytest.param(lambda X: X.astype(np.float32), id="float32"),
        pytest.param(lambda X: X.astype(np.int16), id="int16"),
        pytest.param(lambda X: X.astype(np.uint8), id="uint8"),
        pytest.param(lambda X: X > 1, id="bool"),
        pytest.param(lambda X: X.tolist(), id="list"),
        pytest.param(lambda X: X.astype(">f8"), id="big-endian"),
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda X: np.repeat(X, 2, axis=0)[::2], id="strided-rows"),
        pytest.param(lambda X: np.repeat(X, 3, axis=1)[:, ::3], id="strided-columns"),
        pytest.param(lambda X: X[::-1, ::-1], id="negative-strides"),
        pytest.param(lambda X: np.broadcast_to(X[:1], X.shape), id="broadcast"),
        pytest.param(lambda X: np.frombuffer(X.tobytes()).reshape(X.shape), id="read-only-buffer"),
    ],
)
def test_data_of_any_layout_is_taken_and_left_alone(cpu_backend, make, rng):
    net = network(cpu_backend)
    X = make(rng.integers(0, 4, size=(6, 5)).astype(np.float64))
    before = np.array(X)
    if isinstance(X, np.ndarray):
        X.flags.writeable = False
    H = net.predict(X)
    np.testing.assert_allclose(H, reference(net).forward(before.astype(np.float64))[1][-1], rtol=1e-12)
    y = np.array([0, 1, 1, 0, 1, 0])
    y.flags.writeable = False
    net.evaluate(X, y)
    bp.backward(net, bp.forward(net, X), y)
    bp.train(net, X, y, epochs=2, batch_size=4, seed=0)
    bp.train(net, X, y, epochs=2, batch_size="full", optimizer=bp.LBFGS())
    np.testing.assert_array_equal(np.asarray(X), before)


@pytest.mark.parametrize(
    ("output", "loss", "scores", "expected"),
    [
        ("sigmoid", "binary_cross_entropy", [-0.1, 0.0, 0.1], [0, 0, 1]),
        ("tanh", "hinge", [-0.1, 0.0, 0.1], [0, 0, 1]),
        ("identity", "binary_cross_entropy_logits", [-0.1, 0.0, 0.1], [0, 0, 1]),
        ("identity", "hinge", [-0.1, 0.0, 0.1], [0, 0, 1]),
        ("hard_sigmoid", "binary_cross_entropy", [-0.1, 0.0, 0.1], [0, 0, 1]),
    ],
)
def test_one_output_tells_two_classes_apart(cpu_backend, output, loss, scores, expected):
    net = bp.MLP([1, 1], output=output, dtype="float64", init="zeros", backend=cpu_backend)
    net.set_weights([([[1.0]], [0.0])])
    X = np.array(scores)[:, None]
    found = net.predict_classes(X)
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert net.evaluate(X, np.array(expected), loss)["accuracy"] == 1


def test_classes_trained_with_a_loss_are_told_apart_where_evaluate_does(cpu_backend):
    """Classes 0 and 1 as numbers: the middle is 1/2, for the accuracy and for the prediction alike."""
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=cpu_backend)
    X, y = np.array([[-0.2], [0.3], [0.7], [1.3]]), np.array([False, False, True, True])
    net.set_weights([([[1.0]], [0.0])])
    assert net.evaluate(X, y, "mse")["accuracy"] == 1
    bp.train(net, X, y, loss="mse", optimizer=bp.SGD(1e-9), epochs=1)
    assert net.predict_classes(X).tolist() == [0, 0, 1, 1]


def test_the_first_largest_output_wins(backend):
    net = bp.MLP([1, 3], init="zeros", output="identity", backend=backend)
    assert net.predict_classes([[1.0], [2.0]]).tolist() == [0, 0]
    net.set_weights([([[1.0, 2.0, 2.0]], [0.0, 0, 0])])
    assert net.predict_classes([[1.0], [-2.0]]).tolist() == [1, 0]


# ------------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("rows", [11, 5000])
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_metrics_against_scikit_learn(backend, rows, weighted, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    net = bp.MLP([4, 6, 3], "tanh", dtype="float64", seed=1, backend=backend)
    X, y = rng.normal(size=(rows, 4)), rng.integers(0, 3, rows)
    w = rng.uniform(size=rows) * rng.integers(0, 2, rows) if weighted else None
    found = net.evaluate(X, y, sample_weight=w)
    assert set(found) == {"loss", "accuracy"}
    H = net.predict(X)
    assert found["loss"] == pytest.approx(metrics.log_loss(y, H, sample_weight=w, labels=[0, 1, 2]), rel=1e-12)
    guess = net.predict_classes(X)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, guess, sample_weight=w), rel=1e-12)


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_regression_metrics_against_scikit_learn(backend, n_out, weighted, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    net = bp.MLP([4, 6, n_out], "tanh", "identity", dtype="float64", seed=1, backend=backend)
    X = rng.normal(size=(5000, 4))
    Y = np.sin(X[:, :1] + np.arange(n_out)) * np.arange(1, n_out + 1)
    w = rng.uniform(size=5000) if weighted else None
    found = net.evaluate(X, Y if n_out > 1 else Y.ravel(), sample_weight=w)
    assert set(found) == {"loss", "rmse", "r2"}
    H = net.predict(X)
    mse = metrics.mean_squared_error(Y, H, sample_weight=w)
    assert found["loss"] == pytest.approx(mse, rel=1e-12)
    assert found["rmse"] == pytest.approx(np.sqrt(mse), rel=1e-12)
    r2 = metrics.r2_score(Y, H, sample_weight=w, multioutput="variance_weighted")
    assert found["r2"] == pytest.approx(r2, rel=1e-10, abs=1e-12)


def test_r2_of_constant_targets_is_nan(net):
    assert np.isnan(net.evaluate(np.ones((3, 5)), np.full((3, 2), 0.5), "mse")["r2"])


def test_binary_log_loss_against_scikit_learn(backend, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    net = bp.MLP([4, 6, 1], "tanh", "sigmoid", dtype="float64", seed=1, backend=backend)
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 2, 40)
    found = net.evaluate(X, y, class_weight={0: 3.0})
    w = np.where(y == 0, 3.0, 1.0)
    assert found["loss"] == pytest.approx(metrics.log_loss(y, net.predict(X)[:, 0], sample_weight=w), rel=1e-12)
    expected = metrics.accuracy_score(y, net.predict(X)[:, 0] > 0.5, sample_weight=w)
    assert found["accuracy"] == pytest.approx(expected, rel=1e-12)


def test_evaluation_takes_labels_by_name(net, rng):
    net.meta["classes"] = ["cat", "dog"]
    X, labels = rng.normal(size=(6, 5)), np.array(["dog", "cat", "cat", "dog", "cat", "dog"])
    assert net.evaluate(X, labels) == net.evaluate(X, (labels == "dog").astype(int))


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([5], r"at least the inputs and the outputs, such as \[784, 10\]; got \[5\]"),
        ([], r"at least the inputs and the outputs"),
        (5, "at least the inputs and the outputs.*got 5"),
        ([3, 0], r"layer 2 has width 0; every width must be a whole number of at least 1 \(sizes \[3, 0\]\)"),
        ([3, 4, -2], "layer 3 has width -2"),
        ([3.0, 2], r"layer 1 has width 3\.0"),
        ([3, True], "layer 2 has width True"),
        ("35", "layer 1 has width '3'"),
        ([3, None], "layer 2 has width None"),
    ],
)
def test_wrong_sizes(sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        bp.MLP(sizes)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"activation": ["relu"]},
            ConfigurationError,
            r"activation lists 1 entries; 2 are needed, one for each of hidden layers 2 \.\.\. 3",
        ),
        ({"activation": ["relu"] * 3}, ConfigurationError, "activation lists 3 entries; 2 are needed"),
        (
            {"activation": "rleu"},
            UnknownNameError,
            r"unknown activation 'rleu'; known: identity.*Did you mean 'relu'\?",
        ),
        ({"activation": ["relu", "than"]}, UnknownNameError, r"unknown activation 'than'.*Did you mean 'tanh'\?"),
        ({"activation": 3}, UnknownNameError, "unknown activation 3"),
        ({"output": "sofmax"}, UnknownNameError, r"Did you mean 'softmax'\?"),
        ({"init": "he_norml"}, UnknownNameError, r"unknown initializer 'he_norml'.*Did you mean 'he_normal'\?"),
        ({"init": ["zeros"]}, ConfigurationError, r"init lists 1 entries; 3 are needed, one for each of layers 1"),
        ({"dtype": "float16"}, DataError, "dtype float16 is not supported for training; possible: float32, float64"),
        ({"dtype": int}, DataError, "dtype int64 is not supported"),
        ({"dtype": "flaot32"}, DataError, "dtype 'flaot32' is not known; possible: float32, float64"),
        ({"seed": -1}, ConfigurationError, r"seed is -1; it must be a whole number from 0 to 2\*\*64 - 1"),
        ({"seed": 2**64}, ConfigurationError, "seed is 18446744073709551616"),
        ({"seed": 1.0}, ConfigurationError, r"seed is 1\.0"),
        ({"seed": True}, ConfigurationError, "seed is True"),
        ({"backend": "nunpy"}, UnknownNameError, r"unknown backend 'nunpy'; known:.*Did you mean 'numpy'\?"),
    ],
)
def test_wrong_declarations(arguments, error, message):
    with pytest.raises(error, match=message):
        bp.MLP(SIZES, **arguments)


def bad_inputs():
    X = np.zeros((4, 5))
    nan, inf = X.copy(), X.copy()
    nan[2, 3] = np.nan
    inf[1, 0] = -np.inf
    one = np.zeros((4, 5), object)
    one[1, 2] = "x"
    return [
        pytest.param(np.zeros((4, 3)), ShapeError, r"layer 1: X has shape \(4, 3\); expected \(m, 5\)", id="width"),
        pytest.param(np.zeros(5), ShapeError, r"shape \(5,\); a matrix.*X.reshape\(1, -1\) makes it one", id="1-d"),
        pytest.param(np.zeros((2, 2, 5)), ShapeError, r"shape \(2, 2, 5\); a matrix", id="3-d"),
        pytest.param(np.float64(3), ShapeError, r"shape \(\); a matrix", id="0-d"),
        pytest.param(np.zeros((0, 5)), DataError, r"X is empty: shape \(0, 5\) has no rows", id="no-rows"),
        pytest.param(np.zeros((3, 0)), DataError, "has no columns", id="no-columns"),
        pytest.param([], (DataError, ShapeError), "X", id="empty-list"),
        pytest.param(
            nan, DataError, "contains 1 value that is not finite; the first is nan in row 2, column 3", id="nan"
        ),
        pytest.param(inf, DataError, "the first is -inf in row 1, column 0", id="inf"),
        pytest.param(
            X.astype(np.float16), DataError, r"float16 is not supported.*X.astype\(np.float32\)", id="float16"
        ),
        pytest.param(
            one, DataError, r"dtype object \(the first that is no number: 'x' in row 1, column 2\)", id="object"
        ),
        pytest.param(X.astype(str), DataError, "holds text", id="text"),
        pytest.param(X.astype(complex), DataError, "is complex", id="complex"),
        pytest.param(X.astype("M8[s]"), DataError, r"dtype datetime64\[s\]", id="dates"),
        pytest.param([[1, 2], [3]], DataError, "not rectangular", id="ragged"),
        pytest.param(np.ma.masked_equal(X, 0), DataError, "masked array with 20 masked values", id="masked"),
        pytest.param({"a": 1}, DataError, "X", id="dict"),
        pytest.param(None, DataError, "X", id="none"),
    ]


@pytest.mark.parametrize(("X", "error", "message"), bad_inputs())
def test_bad_inputs_are_refused_everywhere(unchanged, X, error, message):
    y = np.array([0, 1, 0, 1])
    for call in (
        lambda: unchanged.predict(X),
        lambda: unchanged.predict_classes(X),
        lambda: unchanged.evaluate(X, y),
        lambda: bp.forward(unchanged, X),
        lambda: bp.train(unchanged, X, y, epochs=1),
        lambda: bp.train(unchanged, X, y, optimizer=bp.LBFGS()),
        lambda: bp.Trainer(unchanged).run(X, y, [[0]]),
    ):
        with pytest.raises(error, match=message):
            call()


def test_sparse_matrices_are_refused(unchanged):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"X is a sparse matrix; dense arrays are supported: use X.toarray\(\)"):
        unchanged.predict(sparse.eye_array(5).tocsr())


def test_data_that_overflow_float32_are_refused(cpu_backend):
    net = bp.MLP([2, 1], output="identity", dtype="float32", seed=0, backend=cpu_backend)
    with pytest.raises(DataError, match=r"1e\+300 in row 1, column 0 does not fit in float32"):
        net.predict([[0.0, 1], [1e300, 1]])
    with pytest.raises(DataError, match=r"Y as float32 contains 1 value that is not finite.*row 0"):
        net.evaluate([[0.0, 1]], [[1e300]])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1, 0], ShapeError, "Y has 3 rows but X has 4; one target for each sample is needed"),
        ([0, 1, 2, 0], DataError, r"label 2 in row 2 of Y \(counted from 0\) is out of range.*labels 0 to 1"),
        ([0, -1, 1, 0], DataError, "label -1 in row 1"),
        ([0.0, 1, 1, 0], DataError, "vector of float64 but the network has 2 outputs: labels must be integers"),
        (np.zeros((4, 3)), ShapeError, r"Y has shape \(4, 3\); expected \(m,\) or \(m, 2\)"),
        (np.zeros((4, 1), int), ShapeError, r"for integer labels use Y.ravel\(\)"),
        (np.zeros((4, 2, 1)), ShapeError, r"Y has shape \(4, 2, 1\)"),
        (np.full((4, 2), 0.6), DataError, r"row 0 .* sums to 1.2, but cross_entropy needs rows"),
        (np.array([[1.5, -0.5]] * 4), DataError, r"contains 1.5 in row 0, column 0.*from 0 to 1"),
        (np.array([[0.5, np.nan]] * 4), DataError, "Y contains 4 values that are not finite"),
        ([], DataError, "Y is empty"),
        (["a", "b", "a", "b"], DataError, "holds text .* but the classes are not known"),
        (np.array([0, 1, 0, None], object), DataError, "Y has dtype object"),
        (np.eye(2)[[0, 1, 0, 1]].astype(np.float16), DataError, "float16 is not supported"),
        (np.zeros(4, complex), DataError, "Y is complex"),
    ],
)
def test_bad_targets_are_refused_everywhere(unchanged, y, error, message):
    X = np.ones((4, 5))
    for call in (
        lambda: unchanged.evaluate(X, y),
        lambda: bp.backward(unchanged, bp.forward(unchanged, X), y),
        lambda: bp.train(unchanged, X, y, epochs=1),
        lambda: bp.Trainer(unchanged).run(X, y, [[0]]),
        lambda: bp.gradcheck(unchanged, X, y),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"sample_weight": [1, 2]},
            ShapeError,
            r"sample_weight has shape \(2,\); expected \(4,\), one weight for each",
        ),
        ({"sample_weight": [1, 2, -1, 0]}, DataError, r"sample_weight\[2\] is -1; weights must be 0 or positive"),
        ({"sample_weight": [0, 0, 0, 0]}, DataError, "sample_weight is 0 for every row"),
        ({"sample_weight": [1, np.nan, 1, 1]}, DataError, "sample_weight contains 1 value that is not finite"),
        ({"sample_weight": ["a"] * 4}, DataError, "sample_weight holds text"),
        ({"class_weight": {2: 1.0}}, UnknownNameError, "unknown class in class_weight 2; known: 0, 1"),
        ({"class_weight": {0: -1.0}}, DataError, r"class_weight\[0\] is -1.0; weights must be finite"),
        ({"class_weight": "balance"}, UnknownNameError, r"Did you mean 'balanced'\?"),
        ({"class_weight": {0: 0.0, 1: 0.0}}, DataError, "gives every row the weight 0"),
        ({"class_weight": {1: 0.0}, "sample_weight": [0, 1, 0, 1]}, DataError, "is 0 for every row"),
        ({"loss": "crossentropy"}, UnknownNameError, r"unknown loss 'crossentropy'.*Did you mean 'cross_entropy'\?"),
        ({"loss": 7}, UnknownNameError, "unknown loss 7"),
    ],
)
def test_bad_options_are_refused_everywhere(unchanged, options, error, message):
    X, y = np.ones((4, 5)), np.array([0, 1, 0, 1])
    for call in (
        lambda: unchanged.evaluate(X, y, **options),
        lambda: bp.backward(unchanged, bp.forward(unchanged, X), y, **options),
        lambda: bp.train(unchanged, X, y, epochs=1, **options),
    ):
        with pytest.raises(error, match=message):
            call()


def test_class_weights_need_classes(unchanged):
    with pytest.raises(DataError, match="class_weight needs targets that are classes"):
        unchanged.evaluate(np.ones((2, 5)), np.full((2, 2), 0.5), class_weight="balanced")


def test_a_loss_that_does_not_fit_the_output_names_outputs_that_do(cpu_backend):
    net = bp.MLP([2, 1], output="tanh", backend=cpu_backend, seed=0)
    with pytest.raises(
        ConfigurationError, match=r"gives \[-1, 1\]; output activations that fit: sigmoid, hard_sigmoid"
    ):
        net.evaluate([[1.0, 2]], [1], "binary_cross_entropy")


def test_arrays_of_a_gpu_are_refused_by_a_backend_of_the_cpu(cpu_backend):
    """Anything that only has the CUDA array interface: said so, with what to do."""

    class OnGpu:
        @property
        def __cuda_array_interface__(self):
            return {"shape": (2, 5), "typestr": "<f8", "data": (1, False), "version": 3}

        def __array__(self, *args, **kwargs):
            raise TypeError("implicit conversion to a NumPy array is not allowed")

    with pytest.raises(DataError, match=r"OnGpu on a GPU, where this function cannot read it; copy it to the host"):
        network(cpu_backend).predict(OnGpu())


def test_a_network_says_what_it_is(cpu_backend):
    text = repr(network(cpu_backend, "float32"))
    assert text == f"MLP([5, 7, 3, 2], tanh, tanh, softmax; 74 parameters, float32 on {cpu_backend.name})"
