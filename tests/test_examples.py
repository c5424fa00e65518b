"""The reference examples of the specification, through the public functions, to the digits that it prints."""

from __future__ import annotations

import numpy as np
import pytest

import bpcore as bp
from tests.helpers.reference import differences


def number(be, formula, **values):
    """A formula at numbers, computed by a backend."""
    return float(be.to_numpy(be.evaluate(formula, **values))[0])


def printed(values, digits):
    """Values to as many decimals as the specification prints."""
    return pytest.approx(values, rel=0, abs=0.5 * 10**-digits + 1e-12)


# ------------------------------------------------------------------------------------------ R1: a linear graph

X_OF = bp.Formula("2*w + 3*b")
Y_OF = bp.Formula("2*b + 1")
Z_OF = bp.Formula("x*y").substitute(x=X_OF, y=Y_OF)


def test_r1_values_and_derivatives(backend):
    at = {"w": 3.0, "b": 4.0}
    assert number(backend, X_OF, **at) == 18
    assert number(backend, Y_OF, b=4.0) == 9
    assert number(backend, Z_OF, **at) == 162
    assert number(backend, Z_OF.derivative("w"), **at) == 18
    assert number(backend, Z_OF.derivative("b"), **at) == 63


def correct(be, w, b, share_w, share_b, target=150.0):
    """One correction: each variable takes its share of the error, divided by its slope."""
    error = number(be, Z_OF, w=w, b=b) - target
    dw = number(be, Z_OF.derivative("w"), w=w, b=b)
    db = number(be, Z_OF.derivative("b"), w=w, b=b)
    return w - share_w * error / dw, b - share_b * error / db


def test_r1_one_correction(backend):
    w, b = correct(backend, 3.0, 4.0, 1, 0)
    assert w == printed(2.3333, 4)
    assert 3 - w == printed(0.6667, 4)
    assert number(backend, Z_OF, w=w, b=b) == printed(150.0, 3)

    w, b = correct(backend, 3.0, 4.0, 0, 1)
    assert b == printed(3.8095, 4)
    assert 4 - b == printed(0.1905, 4)
    # 150.21769, cut off and not rounded where it is printed
    assert number(backend, Z_OF, w=w, b=b) == pytest.approx(150.217, abs=1e-3)

    w, b = correct(backend, 3.0, 4.0, 0.5, 0.5)
    assert w == printed(2.6667, 4)
    assert b == printed(3.9048, 4)
    assert 3 - w == pytest.approx(6 / 18)
    assert 4 - b == pytest.approx(6 / 63)
    assert number(backend, Z_OF, w=w, b=b) == printed(150.18, 2)


@pytest.mark.parametrize(
    ("shares", "end"), [((0, 1), (3.0, 3.805937)), ((0.5, 0.5), (2.661517, 3.903263))], ids=["b", "both"]
)
def test_r1_repeated_until_it_fits(backend, shares, end):
    w, b, updates = 3.0, 4.0, 0
    while abs(number(backend, Z_OF, w=w, b=b) - 150) >= 1e-5:
        w, b = correct(backend, w, b, *shares)
        updates += 1
    assert updates == 3
    assert (w, b) == (printed(end[0], 6), printed(end[1], 6))


# ------------------------------------------------------------------------------------------ R2: a non-linear chain


def test_r2_passing_the_error_back(backend):
    table = [
        (2.000, 4.000, 1.386, 1.177, -0.953, -2.243, -8.973, -2.243),
        (4.243, 18.005, 2.891, 1.700, -0.430, -1.462, -26.314, -3.101),
        (7.344, 53.934, 3.988, 1.997, -0.133, -0.531, -28.662, -1.951),
        (9.295, 86.404, 4.459, 2.112, -0.018, -0.078, -6.699, -0.360),
        (9.656, 93.233, 4.535, 2.130),
    ]
    parts = {"a": bp.Formula("x**2"), "b": bp.Formula("log(a)"), "c": bp.Formula("sqrt(b)")}
    x = 2.0
    rows: list[tuple[float, ...]] = []
    while True:
        a = number(backend, parts["a"], x=x)
        b = number(backend, parts["b"], a=a)
        c = number(backend, parts["c"], b=b)
        rows.append((x, a, b, c))
        if abs(c - 2.13) < 1e-3:
            break
        # the error of a value is that of the next one, divided by the slope between them
        error_c = c - 2.13
        error_b = error_c / number(backend, parts["c"].derivative("b"), b=b)
        error_a = error_b / number(backend, parts["b"].derivative("a"), a=a)
        error_x = error_a / number(backend, parts["a"].derivative("x"), x=x)
        rows[-1] += error_c, error_b, error_a, error_x
        x -= error_x
    assert len(rows) == len(table)
    for row, expected in zip(rows, table, strict=True):
        assert row == printed(expected, 3)
    chain = parts["c"].substitute(b=parts["b"]).substitute(a=parts["a"])
    assert number(backend, chain.derivative("x"), x=2.0) == pytest.approx(
        1 / (2 * np.sqrt(np.log(4))) / 4 * 2 * 2, rel=1e-14
    )


# ------------------------------------------------------------------------------------------ R3 to R5: descent


def test_r3_one_variable(backend):
    path = bp.descend("x**2", {"x": 1.2}, bp.SGD(0.3), below=1e-3, backend=backend)
    np.testing.assert_allclose(path.points["x"], [1.2, 0.48, 0.192, 0.0768, 0.03072], rtol=1e-14)
    assert path.updates == 4
    assert path.stopped_because == "the value is below 0.001"


def test_r4_two_variables(backend):
    path = bp.descend("x**2 + sin(y)**2", {"x": 3, "y": 1}, bp.SGD(0.1), below=0.01, backend=backend)
    assert path.updates == 16
    for update, x, y, value in (
        (0, 3.0, 1.0, 9.708073),
        (1, 2.4, 0.909070, 6.382415),
        (15, 0.105553, 0.063481, 0.015166),
        (16, 0.084442, 0.050819, 0.009711),
    ):
        point = path.points["x"][update], path.points["y"][update], path.values[update]
        assert point == printed((x, y, value), 6)


def test_r5_learning_rates(backend):
    def x(eta, updates):
        return bp.descend("x**2", {"x": -0.8}, bp.SGD(eta), max_updates=updates, backend=backend).points["x"]

    np.testing.assert_allclose(x(1.0, 20), 0.8 * (-1.0) ** np.arange(1, 22), rtol=1e-12)
    crossing = x(0.8, 10)
    assert (np.sign(crossing[1:]) == -np.sign(crossing[:-1])).all()
    assert (np.abs(crossing[1:]) < np.abs(crossing[:-1])).all()
    assert tuple(x(0.4, 4)[1:]) == printed((-0.16, -0.032, -0.0064, -0.0013), 4)
    assert x(0.1, 10)[-1] == printed(-0.0859, 4)


@pytest.mark.parametrize(
    ("options", "updates", "reason"),
    [
        ({"change_below": 0.5}, 2, "the value changed by less than 0.5"),
        ({"gradient_below": 1.0}, 2, "the gradient norm is below 1"),
        ({"max_updates": 7}, 7, "reached 7 updates"),
        ({"below": 2.0}, 0, "the value is below 2"),
    ],
)
def test_descent_says_why_it_stops(cpu_backend, options, updates, reason):
    """x halves: 1.2, 0.6, 0.3, ...; the value is 1.44, 0.36, 0.09, ..., the gradient 2.4, 1.2, 0.6, ..."""
    path = bp.descend("x**2", {"x": 1.2}, bp.SGD(0.25), backend=cpu_backend, **options)
    assert (path.updates, path.stopped_because) == (updates, reason)


def test_descent_refuses_what_does_not_fit(cpu_backend):
    with pytest.raises(bp.errors.ConfigurationError, match="the formula has the variables x; start gives y"):
        bp.descend("x**2", {"y": 1.0}, backend=cpu_backend)
    with pytest.raises(bp.errors.FormulaError):
        bp.descend("x**", {"x": 1.0}, backend=cpu_backend)
    with pytest.raises(bp.errors.DivergenceError, match=r"update \d+: the value is not finite; use a smaller eta"):
        bp.descend("x**4", {"x": 10.0}, bp.SGD(10.0), backend=cpu_backend)


def test_descent_with_a_rule_that_remembers(backend):
    path = bp.descend("x**2", {"x": 1.0}, bp.SGD(0.1, momentum=0.9), max_updates=3, backend=backend)
    x, v = 1.0, 0.0
    for found in path.points["x"][1:]:
        v = 0.9 * v + 2 * x
        x -= 0.1 * v
        assert found == pytest.approx(x, rel=1e-14)


# ------------------------------------------------------------------------------------------ R6: linear regression


@pytest.fixture
def line():
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, 60)
    return x[:, None], 2.5 * x - 0.7 + 0.05 * rng.normal(size=60)


def regression(be, line, **options):
    net = bp.MLP([1, 1], output="identity", init="zeros", dtype="float64", backend=be)
    x, y = line
    run = bp.train(net, x, y, loss="mse", **options)
    (W, b) = net.get_weights()[0]
    return run, float(W[0, 0]), float(b[0])


def test_r6_the_gradient(backend, line):
    x, y = line
    net = bp.MLP([1, 1], output="identity", dtype="float64", backend=backend, seed=0)
    net.set_weights([([[0.4]], [0.1])])
    grads = bp.backward(net, bp.forward(net, x), y, "mse")
    residual = 0.4 * x[:, 0] + 0.1 - y
    assert backend.to_numpy(grads.dW[1])[0, 0] == pytest.approx((2 * residual * x[:, 0]).mean(), rel=1e-13)
    assert backend.to_numpy(grads.db[1])[0] == pytest.approx((2 * residual).mean(), rel=1e-13)


@pytest.mark.parametrize(
    ("name", "batch", "eta", "tolerance"),
    [("full", "full", 0.5, 1e-4), ("mini", 10, 0.2, 0.02), ("sgd", 1, 0.02, 0.02)],
)
def test_r6_three_ways_to_the_same_line(backend, line, name, batch, eta, tolerance):
    """Full batch ends in the least-squares line; the others walk about it, in the size of their steps."""
    x, y = line
    slope, intercept = np.polyfit(x[:, 0], y, 1)
    _, a, b = regression(backend, line, optimizer=bp.SGD(eta), batch_size=batch, epochs=80, seed=1)
    assert (a, b) == pytest.approx((slope, intercept), abs=tolerance)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (bp.LossChange(1e-6), r"loss changed by .*, less than 1e-06"),
        (bp.GradientNorm(1e-3), r"gradient norm is .*, below 0.001"),
        (bp.MaxSteps(25), "reached 25 steps"),
    ],
    ids=["loss", "gradient", "iterations"],
)
def test_r6_stops_by_each_of_three_rules(cpu_backend, line, stop, reason):
    import re

    x, y = line
    run, a, b = regression(cpu_backend, line, optimizer=bp.SGD(0.5), batch_size="full", epochs=1000, stop=stop)
    assert re.fullmatch(reason, run.stopped_because)
    # the same loop by hand stops after the same number of updates
    w, c, losses, norm = 0.0, 0.0, [], np.inf
    for update in range(1, 1001):
        residual = w * x[:, 0] + c - y
        losses.append((residual**2).mean())
        dw, dc = (2 * residual * x[:, 0]).mean(), (2 * residual).mean()
        norm = np.hypot(dw, dc)
        w, c = w - 0.5 * dw, c - 0.5 * dc
        fired = {
            "LossChange": update > 1 and abs(losses[-1] - losses[-2]) < 1e-6,
            "GradientNorm": norm < 1e-3,
            "MaxSteps": update == 25,
        }
        if fired[type(stop).__name__]:
            break
    assert run.steps == update
    assert (a, b) == pytest.approx((w, c), abs=1e-12)


# ------------------------------------------------------------------------------------------ R7: a saturated neuron


@pytest.mark.parametrize(
    ("loss", "eta", "outputs"),
    [
        ("quadratic", 0.15, {50: 0.9759, 100: 0.9641, 150: 0.9334, 200: 0.7887, 250: 0.3572, 300: 0.2028}),
        (
            "binary_cross_entropy",
            0.005,
            {50: 0.9710, 100: 0.9539, 150: 0.9282, 200: 0.8912, 250: 0.8415, 300: 0.7796},
        ),
        ("binary_cross_entropy", 0.15, {50: 0.0985}),
    ],
    ids=["quadratic", "cross-entropy-slow", "cross-entropy-fast"],
)
def test_r7_one_saturated_neuron(backend, loss, eta, outputs):
    net = bp.MLP([1, 1], output="sigmoid", dtype="float64", seed=0, backend=backend)
    net.set_weights([([[2.0]], [2.0])])
    assert float(net.predict([[1.0]])[0, 0]) == printed(0.9820, 4)
    seen = {}

    def look(net, progress):
        if progress.epoch in outputs:
            seen[progress.epoch] = float(net.predict([[1.0]])[0, 0])

    bp.train(
        net,
        [[1.0]],
        [[0.0]],
        loss=loss,
        optimizer=bp.SGD(eta),
        batch_size=1,
        epochs=max(outputs),
        callbacks=[look],
    )
    assert seen == printed(outputs, 4)


# ------------------------------------------------------------------------------------------ R8 to R10


def test_r8_one_step_of_training_moves_by_the_hand_written_derivatives(backend):
    """3-2-3, sigmoid everywhere: a step of descent with eta = 1 is the gradient, read from the parameters."""
    rng = np.random.default_rng(3)
    W1, b1, W2, b2 = rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(2, 3)), rng.normal(size=3)
    x, y = np.array([0.5, -1.0, 0.25]), np.array([0.0, 1.0, 0.0])
    net = bp.MLP([3, 2, 3], "sigmoid", "sigmoid", dtype="float64", seed=0, backend=backend)
    net.set_weights([(W1, b1), (W2, b2)])

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def loss():
        return 0.5 * ((sigmoid(sigmoid(x @ W1 + b1) @ W2 + b2) - y) ** 2).sum()

    h = [sigmoid(sum(x[i] * W1[i, j] for i in range(3)) + b1[j]) for j in range(2)]
    o = [sigmoid(sum(h[j] * W2[j, k] for j in range(2)) + b2[k]) for k in range(3)]
    d = [(o[k] - y[k]) * o[k] * (1 - o[k]) for k in range(3)]
    e = [sum(d[k] * W2[j, k] for k in range(3)) * h[j] * (1 - h[j]) for j in range(2)]
    by_hand = [
        [[e[j] * x[i] for j in range(2)] for i in range(3)],
        e,
        [[d[k] * h[j] for k in range(3)] for j in range(2)],
        d,
    ]
    bp.train(net, x[None], y[None], loss="quadratic", optimizer=bp.SGD(1.0), batch_size=1, epochs=1)
    moved = [a for pair in net.get_weights() for a in pair]
    for before, after, expected in zip((W1, b1, W2, b2), moved, by_hand, strict=True):
        np.testing.assert_allclose(before - after, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(before - after, differences(loss, before), rtol=0, atol=1e-7)


def test_r9_a_mean_does_not_depend_on_the_size_of_the_batch(backend, rng):
    """Softmax with loss: training on the rows twice is training on the rows."""
    X, y = rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    thetas, losses = [], []
    for times in (1, 2, 5):
        net = bp.MLP([4, 3], dtype="float64", seed=1, backend=backend)
        rows, labels = np.tile(X, (times, 1)), np.tile(y, times)
        run = bp.train(net, rows, labels, optimizer=bp.SGD(0.5), batch_size="full", epochs=20)
        thetas.append(net.get_weights()[0][0])
        losses.append(run.history["loss"])
    for W, loss in zip(thetas[1:], losses[1:], strict=True):
        np.testing.assert_allclose(W, thetas[0], rtol=1e-12)
        np.testing.assert_allclose(loss, losses[0], rtol=1e-12)


def test_r10_the_output_error_of_the_log_likelihood(backend, rng):
    net = bp.MLP([4, 6, 5, 3], "tanh", "softmax", dtype="float64", seed=1, backend=backend)
    X, y = rng.normal(size=(7, 4)), rng.integers(0, 3, 7)
    trace = bp.forward(net, X)
    grads = bp.backward(net, trace, y, "cross_entropy")
    host = backend.to_numpy
    (_, _), (W2, _), (W3, _) = net.get_weights()
    H = [None, *(host(trace.H[l]) for l in (1, 2, 3, 4))]
    delta4 = (H[4] - np.eye(3)[y]) / 7
    delta3 = delta4 @ W3.T * (1 - H[3] ** 2)
    delta2 = delta3 @ W2.T * (1 - H[2] ** 2)
    for l, delta in ((4, delta4), (3, delta3), (2, delta2)):
        np.testing.assert_allclose(host(grads.Delta[l]), delta, rtol=0, atol=1e-14)
        np.testing.assert_allclose(host(grads.db[l - 1]), delta.sum(axis=0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(host(grads.dW[l - 1]), H[l - 1].T @ delta, rtol=0, atol=1e-14)
    assert bp.gradcheck(net, X, y, backend=backend).passed


# ------------------------------------------------------------------------------------------ R11: initialisation


@pytest.mark.parametrize(
    ("init", "exact", "about"),
    [("standard_normal", np.sqrt(1000 / 2 + 1), 22.4), ("improved", np.sqrt(501 / 1001), 0.71)],
)
def test_r11_the_spread_of_z_in_the_first_layer(backend, init, exact, about):
    """p = 1000 inputs, half of them on: std(z) is sqrt(p/2 + 1) before, sqrt((p/2 + 1) / (p + 1)) after."""
    assert exact == pytest.approx(about, rel=5e-3)
    net = bp.MLP([1000, 2000, 1], "sigmoid", "sigmoid", init=init, dtype="float64", seed=3, backend=backend)
    x = np.zeros((1, 1000))
    x[0, ::2] = 1
    z = backend.to_numpy(bp.forward(net, x).Z[2])
    # 2000 independent normal numbers: their spread is known to 1 / sqrt(2 * 2000) = 1.6 %, taken four times
    assert z.std() == pytest.approx(exact, rel=4 / np.sqrt(4000))
    assert abs(z.mean()) < 4 * exact / np.sqrt(2000)
    saturated = (np.abs(z) > 5).mean()  # sigmoid within 0.7 % of 0 or 1
    if init == "improved":
        assert saturated < 0.001
    else:
        assert saturated == pytest.approx(0.823, abs=0.04)  # P(|N(0, 22.4)| > 5)


# ------------------------------------------------------------------------------------------ R15: entropy


@pytest.mark.parametrize("base", ["e", 2, 10])
def test_r15_entropy_is_largest_when_uniform(base, rng):
    log = {"e": np.log, 2: np.log2, 10: np.log10}[base]
    for n in (2, 5, 16):
        assert float(bp.entropy(np.full(n, 1 / n), base=base)) == pytest.approx(log(n), rel=1e-14)
        P = rng.dirichlet(np.ones(n), size=200)
        assert (bp.entropy(P, base=base) < log(n)).all()


def test_r15_cross_entropy_is_at_least_the_entropy(cpu_backend, rng):
    P, Q = rng.dirichlet(np.ones(5), size=(2, 200))
    H = bp.entropy(P)
    assert (bp.cross_entropy(P, Q) > H).all()
    np.testing.assert_allclose(bp.cross_entropy(P, P), H, rtol=1e-14)
    np.testing.assert_allclose(bp.cross_entropy(P, Q) - H, bp.kl_divergence(P, Q), rtol=1e-12, atol=1e-14)
    # the loss of the same name, for soft targets P and predictions Q
    net = bp.MLP([5, 5], output="softmax", dtype="float64", init="zeros", backend=cpu_backend)
    net.set_weights([(np.eye(5), np.zeros(5))])
    assert net.evaluate(np.log(Q), P)["loss"] == pytest.approx(bp.cross_entropy(P, Q).mean(), rel=1e-12)
    assert net.evaluate(np.log(Q), P, bp.CrossEntropy(base=2))["loss"] == pytest.approx(
        bp.cross_entropy(P, Q, base=2).mean(), rel=1e-12
    )
