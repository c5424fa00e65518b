"""R10. Two hidden layers and three classes: the error starts as h - y and goes back through BP2.

Log-likelihood cost, samples are rows, * is element by element::

    Delta[4] = (H[4] - Y) / m
    Delta[l] = (Delta[l+1] W[l]^T) * act'(Z[l])        l = 3, 2
    dE/db[l] = column sums of Delta[l+1]               dE/dW[l] = H[l]^T Delta[l+1]
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.typing import FloatArray

SAMPLES, EPOCHS = 60, 150


def spirals() -> tuple[FloatArray, Any]:
    """Three arms of a spiral, one for each class."""
    rng = np.random.default_rng(5)
    r = np.linspace(0.1, 1, SAMPLES)
    angles = [3.2 * r + 2 * np.pi * k / 3 + 0.12 * rng.normal(size=SAMPLES) for k in range(3)]
    X = np.concatenate([np.stack([r * np.cos(t), r * np.sin(t)], axis=1) for t in angles])
    return X, np.repeat(np.arange(3), SAMPLES)


def run(be: Backend, report: Report) -> None:
    """Compare every error and gradient with the equations, then train."""
    X, labels = spirals()
    net = bp.MLP([2, 16, 12, 3], "tanh", "softmax", dtype="float64", seed=1, backend=be)
    m = len(X)
    trace = bp.forward(net, X)
    grads = bp.backward(net, trace, labels, "cross_entropy")
    H = {l: be.to_numpy(trace.H[l]) for l in (1, 2, 3, 4)}
    W = {l: weights for l, (weights, _) in enumerate(net.get_weights(), start=1)}
    delta = {4: (H[4] - np.eye(3)[labels]) / m}
    for l in (3, 2):
        delta[l] = delta[l + 1] @ W[l].T * (1 - H[l] ** 2)
    rows = []
    for l in (4, 3, 2):
        found = {
            f"Delta[{l}]": (grads.Delta[l], delta[l]),
            f"dE/db[{l - 1}]": (grads.db[l - 1], delta[l].sum(axis=0)),
            f"dE/dW[{l - 1}]": (grads.dW[l - 1], H[l - 1].T @ delta[l]),
        }
        for name, (engine, equation) in found.items():
            difference = np.abs(be.to_numpy(engine) - equation).max()
            report.at_most(f"{name}: largest difference to the equation", difference, 1e-14)
            rows.append((name, equation.shape, f"{np.linalg.norm(equation):.3e}", f"{difference:.0e}"))
    report.table("errors and gradients", ("array", "shape", "norm", "engine - equation"), rows)
    gradcheck = bp.gradcheck(net, X[::9], labels[::9], "cross_entropy", backend=be)
    report.at_most("largest relative error against differences", max(row.error for row in gradcheck.rows), 1e-6)

    run = bp.train(
        net, X, labels, loss="cross_entropy", optimizer=bp.Adam(0.02), batch_size=30, epochs=EPOCHS, seed=1,
        verbose=False,
    )  # fmt: skip
    after = net.evaluate(X, labels, "cross_entropy")
    report.at_least("accuracy after training", after["accuracy"], 0.97)
    report.at_most("loss after training", after["loss"], 0.1, unit="nat")
    history = run.history
    report.table(
        "training",
        ("epoch", "loss / nat", "accuracy"),
        [
            (r["epoch"], f"{r['loss']:.4f}", f"{r['accuracy']:.3f}")
            for r in (history[k] for k in (0, 9, 49, EPOCHS - 1))
        ],
    )

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        bp.plots.decision_boundary(net, X, labels, classes=[f"class {k}" for k in range(3)], ax=left)
        left.set_aspect("equal")
        bp.plots.curves(run, ax=right)
        right.set_ylabel("loss / nat")

    report.picture("classes", "Regions of the three classes, and the way there.", draw, (7.2, 3.4))


EXAMPLE = Example(
    10, "two-hidden-layers", "the four equations through two hidden layers, and three spirals told apart", run
)
