"""R9. Softmax next to cross-entropy: the gradient at the scores is what is predicted too much, and a mean has no size.

::

    z = x W + b        h = softmax(z)        E = -1/N sum_i sum_k y_ik ln h_ik
    dE/dz = (h - y) / N
    in general:  dE/dz = h * (G - rowsum(G * h))        G = dE/dh
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, RED

N, FEATURES, CLASSES = 6, 4, 3
COPIES = (1, 2, 5)


def run(be: Backend, report: Report) -> None:
    """Compare the short gradient with the general one, and batches of different size with each other."""
    rng = np.random.default_rng(11)
    X, labels = rng.normal(size=(N, FEATURES)), rng.integers(0, CLASSES, N)
    net = bp.MLP([FEATURES, CLASSES], output="softmax", init="standard_normal", seed=1, dtype="float64", backend=be)
    trace = bp.forward(net, X)
    grads = bp.backward(net, trace, labels, "cross_entropy")
    h, delta = be.to_numpy(trace.H[2]), be.to_numpy(grads.Delta[2])
    y = np.eye(CLASSES)[labels]
    report.at_most("largest difference of dE/dz and (h - y) / N", np.abs(delta - (h - y) / N).max(), 1e-15)

    G = -y / h / N
    jacobian = be.to_numpy(be.backprop_softmax(be.asarray(G), trace.H[2], out=be.empty((N, CLASSES), np.float64)))
    report.at_most("largest difference of dE/dz and the way over the Jacobian", np.abs(delta - jacobian).max(), 1e-14)
    report.at_most("largest row sum of dE/dz", np.abs(delta.sum(axis=1)).max(), 1e-15)
    report.table(
        "predictions and errors",
        ("sample", "class", *(f"h{k}" for k in range(CLASSES)), *(f"dE/dz{k}" for k in range(CLASSES))),
        [(i, labels[i], *(f"{v:.4f}" for v in h[i]), *(f"{v:+.4f}" for v in delta[i])) for i in range(N)],
    )

    means, sums, first = [], [], be.to_numpy(grads.dW[1])
    for copies in COPIES:
        rows, repeated = np.tile(X, (copies, 1)), np.tile(labels, copies)
        losses = be.to_numpy(bp.sample_losses(net, rows, repeated, "cross_entropy"))
        means.append(net.evaluate(rows, repeated, "cross_entropy")["loss"])
        sums.append(losses.sum())
        again = be.to_numpy(bp.backward(net, bp.forward(net, rows), repeated, "cross_entropy").dW[1])
        report.check(f"loss of {copies * N} rows", means[-1], means[0], within=1e-14, unit="nat")
        report.at_most(f"largest change of dE/dW with {copies * N} rows", np.abs(again - first).max(), 1e-14)
    report.check("loss by hand", means[0], -np.log(h[np.arange(N), labels]).mean(), within=1e-14, unit="nat")
    report.table(
        "the same rows several times",
        ("rows", "mean loss / nat", "summed loss / nat"),
        [(c * N, f"{mean:.6f}", f"{total:.6f}") for c, mean, total in zip(COPIES, means, sums, strict=True)],
    )

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(wspace=0.06)
        axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
        for ax, values, title, cmap, top in (
            (axes[0], h, "prediction h", "Blues", 1.0),
            (axes[1], delta * N, r"N $\partial E/\partial z$ = h - y", "PuOr", 1.0),
        ):
            ax.grid(False)
            ax.imshow(values, cmap=cmap, vmin=0 if cmap == "Blues" else -top, vmax=top, aspect="auto")
            for i in range(N):
                for k in range(CLASSES):
                    dark = abs(values[i, k]) > 0.6
                    weight = "bold" if labels[i] == k else "normal"
                    text = f"{values[i, k]:.2f}"
                    ax.text(k, i, text, ha="center", va="center", color="white" if dark else "black", weight=weight)
            ax.set(xlabel="class (the true one is bold)", ylabel="sample", title=title, xticks=range(CLASSES))
        rows = [c * N for c in COPIES]
        axes[2].plot(rows, means, "o-", color=BLUE, label="mean")
        axes[2].plot(rows, sums, "s--", color=RED, label="sum")
        axes[2].set(
            xlabel="rows in the batch", ylabel="loss / nat", title="the same rows 1, 2 and 5 times", xticks=rows
        )
        axes[2].legend()

    report.picture("gradient", "What is predicted too much is pushed down.", draw, (8.0, 3.2))


EXAMPLE = Example(
    9, "softmax-with-loss", "the gradient at the scores is (h - y) / N, whatever the size of the batch", run
)
