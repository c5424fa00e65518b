"""The witness is judged by differences of its losses, and by formulas written out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bpcore.bench import witness
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

KINDS = [
    ("softmax", "cross_entropy", 3), ("sigmoid", "binary_cross_entropy", 1), ("identity", "mse", 2),
    ("sigmoid", "quadratic", 3),
]  # fmt: skip


def work_of(output: str = "softmax", loss: str = "cross_entropy", n_out: int = 3, **changes: Any) -> Workload:
    work = Workload("train", (3, 5, 4, n_out), "tanh", output, loss, "sgd", 5, 50, 6, 0.1, precision="float64")
    return replace(work, **changes)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def plain_loss(work: Workload, Z: Any, Y: Any) -> float:
    """Compute the loss sample by sample and neuron by neuron."""
    total = 0.0
    for z, y in zip(Z.tolist(), Y.tolist(), strict=True):
        if work.loss == "cross_entropy":
            total -= sum(t * (s - math.log(sum(map(math.exp, z)))) for s, t in zip(z, y, strict=True))
        elif work.loss == "binary_cross_entropy":
            total -= sum(math.log(sigmoid(s) if t else 1 - sigmoid(s)) for s, t in zip(z, y, strict=True)) / len(z)
        elif work.loss == "mse":
            total += sum((s - t) ** 2 for s, t in zip(z, y, strict=True)) / len(z)
        else:
            total += sum((sigmoid(s) - t) ** 2 for s, t in zip(z, y, strict=True)) / 2
    return total / len(Z)


@pytest.mark.parametrize(("output", "loss", "n_out"), KINDS)
def test_losses_are_the_formulas(output: str, loss: str, n_out: int) -> None:
    work = work_of(output, loss, n_out)
    problem = Problem.make(work)
    Z = np.random.default_rng(0).normal(size=(50, n_out), scale=2)
    found, _ = witness.output_and_loss(work, Z, problem.Y)
    assert found == pytest.approx(plain_loss(work, Z, problem.Y), rel=1e-12)


@pytest.mark.parametrize("activation", witness.HIDDEN)
@pytest.mark.parametrize(("output", "loss", "n_out"), KINDS)
def test_gradients_are_differences_of_the_loss(output: str, loss: str, n_out: int, activation: str) -> None:
    work = work_of(output, loss, n_out, activation=activation)
    problem, h = Problem.make(work), 1e-6
    x, y = problem.X[:5], problem.Y[:5]
    _, gradient = witness.backward(work, problem.weights, x, y)
    for l, pair in enumerate(problem.weights):
        for k in range(2):
            numeric = np.empty(pair[k].shape)
            for place in np.ndindex(numeric.shape):
                at = []
                for step in (h, -h):
                    moved = [tuple(array.copy() for array in layer) for layer in problem.weights]
                    moved[l][k][place] += step
                    at.append(witness.backward(work, moved, x, y)[0])
                numeric[place] = (at[0] - at[1]) / (2 * h)
            np.testing.assert_allclose(gradient[l][k], numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("output", "loss", "n_out"), KINDS)
def test_a_batch_in_blocks_is_the_batch(output: str, loss: str, n_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50 rows, by 7: the last block is smaller."""
    work = work_of(output, loss, n_out)
    problem = Problem.make(work)
    whole_loss, whole = witness.backward(work, problem.weights, problem.X, problem.Y)
    monkeypatch.setattr(witness, "BLOCK_ROWS", 7)
    loss_in_blocks, in_blocks = witness.in_blocks(work, problem.weights, problem.X, problem.Y)
    assert loss_in_blocks == pytest.approx(whole_loss, rel=1e-12)
    for (dW, db), (dW_whole, db_whole) in zip(in_blocks, whole, strict=True):
        np.testing.assert_allclose(dW, dW_whole, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(db, db_whole, rtol=1e-12, atol=1e-15)


def test_update_rules_by_hand() -> None:
    """Two steps from theta = 1 with gradients 2 and -1, and eta = 0.1."""

    def after(optimizer: str) -> float:
        theta, state = np.array(1.0), dict[str, Any]()
        for t, g in enumerate((2.0, -1.0), start=1):
            theta = witness.update(work_of(optimizer=optimizer), theta, np.array(g), state, t)
        return float(theta)

    assert after("sgd") == pytest.approx(1 - 0.2 + 0.1)
    # velocities 2 and 0.9*2 - 1 = 0.8
    assert after("momentum") == pytest.approx(1 - 0.2 - 0.08)
    # the first step is eta * sign(g); then m = 0.9*0.2 - 0.1 = 0.08, s = 0.999*0.004 + 0.001 = 0.004996
    second = 0.1 * (0.08 / 0.19) / math.sqrt(0.004996 / (1 - 0.999**2))
    assert after("adam") == pytest.approx(1 - 0.1 - second, rel=1e-7)


def test_training_follows_the_order_and_tells_the_loss_before_each_step() -> None:
    work = work_of()
    problem = Problem.make(work)
    order = problem.order(0, 1)
    losses, theta = witness.train(work, problem, order)
    assert losses.shape == (6,)
    now = problem.weights
    for rows, loss in zip(order, losses, strict=True):
        found, gradient = witness.backward(work, now, problem.X[rows], problem.Y[rows])
        assert loss == pytest.approx(found, rel=1e-12)
        now = [(W - 0.1 * dW, b - 0.1 * db) for (W, b), (dW, db) in zip(now, gradient, strict=True)]
    for (W, b), (W_after, b_after) in zip(now, theta, strict=True):
        np.testing.assert_allclose(W_after, W, rtol=1e-12)
        np.testing.assert_allclose(b_after, b, rtol=1e-12)
    np.testing.assert_array_equal(witness.losses(work, problem, chunks=1), losses)
    assert witness.losses(work, problem).shape == (witness.CHUNKS * 6,)
    again = Problem.make(work)
    assert all((W == V).all() for (W, _), (V, _) in zip(problem.weights, again.weights, strict=True)), (
        "left as they were"
    )


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_outputs_neuron_by_neuron(output: str) -> None:
    work = work_of(output, activation="relu", kind="predict")
    problem = Problem.make(work)
    expected = []
    for x in problem.X[:7].tolist():
        for l, (W, b) in enumerate(problem.weights):
            z = [sum(h * w for h, w in zip(x, column, strict=True)) + c for column, c in zip(W.T, b, strict=True)]
            x = [max(s, 0) for s in z] if l < 2 else z
        if output == "softmax":
            x = [math.exp(s) / sum(map(math.exp, x)) for s in x]
        elif output == "sigmoid":
            x = [sigmoid(s) for s in x]
        expected.append(x)
    np.testing.assert_allclose(witness.outputs(work, problem, problem.X[:7]), expected, rtol=1e-12)


def test_what_is_expected_of_a_contender_of_the_race() -> None:
    training = work_of()
    problem = Problem.make(training)
    np.testing.assert_array_equal(witness.expected(training, problem), witness.losses(training, problem))
    asking = work_of(kind="predict", batch=100, rows=100)
    problem = Problem.make(asking)
    last = problem.inputs()[-1]
    found = witness.expected(asking, problem)
    assert found.shape == (witness.SHOWN_ROWS, 3)
    np.testing.assert_array_equal(found, witness.outputs(asking, problem, last[: witness.SHOWN_ROWS]))
