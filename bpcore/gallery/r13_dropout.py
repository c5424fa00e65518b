"""R13. Dropout keeps a large network from learning a small noisy set by heart.

For every mini-batch each hidden neuron is dropped with probability 1/2; the others count double, so that predictions
need no change. What belongs to a dropped neuron does not move in that step::

    H[l] <- H[l] * mask / (1 - rate)        mask_j = 0 with probability rate, else 1
    mask_j = 0:  dE/dW[l-1][:, j] = 0,  dE/db[l-1][j] = 0,  dE/dW[l][j, :] = 0
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, RED
from bpcore.typing import FloatArray

RATE, EPOCHS = 0.5, 60
HIDDEN = 64


def noisy(n: int, seed: int) -> tuple[FloatArray, Any]:
    """Two classes in 10 features, of which two matter; a sixth of the labels is wrong."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 10))
    labels = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
    wrong = rng.choice(n, n // 6, replace=False)
    labels[wrong] = 1 - labels[wrong]
    return X, labels


def moved(be: Backend, X: FloatArray, labels: Any) -> tuple[Any, Any]:
    """Which hidden neurons have weights that one step of training changed, on the way in and on the way out."""
    net = bp.MLP([10, HIDDEN, 2], "tanh", dtype="float64", seed=1, backend=be)
    before = net.get_weights()
    bp.train(net, X, labels, optimizer=bp.SGD(0.1), batch_size="full", epochs=1, dropout=RATE, seed=1, verbose=False)
    after = net.get_weights()
    return (after[0][0] != before[0][0]).any(axis=0), (after[1][0] != before[1][0]).any(axis=1)


def run(be: Backend, report: Report) -> None:
    """Train twice on the same samples, and look at a single step."""
    training, held_out = noisy(160, 1), noisy(600, 2)
    histories = {}
    for name, dropout in (("without", None), ("with dropout", RATE)):
        net = bp.MLP([10, HIDDEN, HIDDEN, 2], "relu", dtype="float64", seed=1, backend=be)
        histories[name] = bp.train(
            net, *training, optimizer=bp.Adam(0.003), batch_size=20, epochs=EPOCHS, dropout=dropout,
            validation=held_out, seed=1, verbose=False,
        ).history  # fmt: skip
    rows = []
    for name, history in histories.items():
        loss, held = history["loss"], history["val_loss"]
        rows.append(
            (name, f"{loss[-1]:.4f}", f"{held.min():.4f}", f"{held[-1]:.4f}", f"{history['val_accuracy'][-1]:.3f}")
        )
    report.table(
        f"after {EPOCHS} epochs",
        ("training", "training loss / nat", "best validation", "last validation", "validation accuracy"),
        rows,
    )
    last = {name: history["val_loss"][-1] for name, history in histories.items()}
    report.at_most("training loss without dropout", histories["without"]["loss"][-1], 0.02, unit="nat")
    report.at_most("last validation loss, with over without", last["with dropout"] / last["without"], 0.7)
    ways_in, ways_out = moved(be, *training)
    report.check("neurons of which only one side moved", (ways_in != ways_out).sum(), 0)
    # four standard deviations of a binomial distribution
    report.check("share of neurons that one step moved", ways_in.mean(), 1 - RATE, within=4 * (0.25 / HIDDEN) ** 0.5)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for (name, history), colour in zip(histories.items(), (RED, BLUE), strict=True):
            bp.plots.curves(history, metric=None, name=name, colour=colour, ax=left)
            right.plot(history["epoch"], history["accuracy"], "-", color=colour)
            right.plot(history["epoch"], history["val_accuracy"], "--", color=colour)
        left.set(xlabel="epoch", ylabel="loss / nat", ylim=(0, None))
        right.set(xlabel="epoch", ylabel="accuracy", ylim=(0.4, 1.02))
        left.get_legend().remove()
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    report.picture(
        "curves", "160 samples for training, 600 held out; a sixth of the labels is wrong.", draw, (7.0, 3.8)
    )


EXAMPLE = Example(13, "dropout", "training and validation curves on a small noisy set, with dropout and without", run)
