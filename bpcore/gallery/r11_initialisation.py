"""R11. Weights that are too large put every hidden neuron where the sigmoid is flat.

p inputs, half of them 1 and the rest 0; z of a hidden neuron is a sum of p/2 weights and a bias::

    w, b ~ N(0, 1):            std(z) = sqrt(p/2 + 1)
    w, b ~ N(0, 1/(p + 1)):    std(z) = sqrt((p/2 + 1) / (p + 1))
    saturated: |z| > 5, where sigmoid'(z) < 0.0067
"""

from __future__ import annotations

from math import erfc, sqrt
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, GREY, RED
from bpcore.plots.histograms import histogram

P, NEURONS, LIMIT = 1000, 2000, 5.0
STARTS = {"standard_normal": ("N(0, 1)", sqrt(P / 2 + 1), 22.4, RED, "-"),
          "improved": ("N(0, 1/(p+1))", sqrt((P / 2 + 1) / (P + 1)), 0.71, BLUE, "--")}  # fmt: skip
SAMPLES, EPOCHS = 300, 24


def samples() -> tuple[Any, Any]:
    """Half of p bits are on; class 1 has more of them among the first half of the inputs."""
    rng = np.random.default_rng(4)
    X, labels = np.zeros((SAMPLES, P)), np.arange(SAMPLES) % 2
    for row, label in zip(X, labels, strict=True):
        left = P // 4 + (25 if label else -25)
        row[rng.choice(P // 2, left, replace=False)] = 1
        row[P // 2 + rng.choice(P // 2, P // 2 - left, replace=False)] = 1
    return X, labels


def run(be: Backend, report: Report) -> None:
    """Look at z of 2000 neurons, and train a network from both starts."""
    x = np.zeros((1, P))
    x[0, ::2] = 1
    X, labels = samples()
    z, histories, rows = {}, {}, []
    for init, (words, exact, known, _, _) in STARTS.items():
        wide = bp.MLP([P, NEURONS, 1], "sigmoid", "sigmoid", init=init, dtype="float64", seed=3, backend=be)
        z[init] = be.to_numpy(bp.forward(wide, x).Z[2])[0]
        spread, saturated = z[init].std(), (np.abs(z[init]) > LIMIT).mean()
        # the spread of n normal numbers is known to one part in sqrt(2 n), taken four times
        report.check(f"{words}: std(z), against the formula", spread, exact, within=4 * exact / sqrt(2 * NEURONS))
        report.check(f"{words}: the formula", exact, known, within=0.005 * known)
        share = erfc(LIMIT / exact / sqrt(2))
        within = 4 * sqrt(share * (1 - share) / NEURONS) + 1e-12
        report.check(f"{words}: share of saturated neurons", saturated, share, within=within)
        net = bp.MLP([P, 30, 2], "sigmoid", "softmax", init=init, dtype="float64", seed=3, backend=be)
        run = bp.train(net, X, labels, optimizer=bp.SGD(0.2), batch_size=10, epochs=EPOCHS, seed=3, verbose=False)
        histories[init] = run.history
        last = run.history[-1]
        rows.append((words, f"{spread:.3f}", f"{exact:.3f}", f"{100 * saturated:.1f} %", f"{last['loss']:.4f}"))
    report.table(
        "the two starts", ("weights", "std(z)", "by the formula", "saturated", f"loss after {EPOCHS} epochs"), rows
    )
    half = {init: history["loss"][EPOCHS // 4] for init, history in histories.items()}
    report.at_most("loss after a quarter of the epochs, N(0, 1/(p+1)) over N(0, 1)",
                   half["improved"] / half["standard_normal"], 0.7)  # fmt: skip

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3)
        for ax, (init, (words, exact, _, colour, _)) in zip((left, middle), STARTS.items(), strict=True):
            reach = 4 * exact
            histogram(ax, z[init], bins=40, reach=(-reach, reach), colour=colour)
            at = np.linspace(-reach, reach, 200)
            ax.plot(at, np.exp(-0.5 * (at / exact) ** 2) / exact / sqrt(2 * np.pi), color="black", linewidth=1.2)
            if reach > LIMIT:
                ax.axvspan(-LIMIT, LIMIT, color=GREY, alpha=0.25, linewidth=0)
                ax.text(0, 0.02, "not\nsaturated", transform=ax.get_xaxis_transform(), ha="center", fontsize="small")
            ax.set(xlabel="z", ylabel="density", title=f"{words}: std {z[init].std():.3g}")
        for init, (words, _, _, colour, dash) in STARTS.items():
            right.plot(histories[init]["epoch"], histories[init]["loss"], dash, color=colour, label=words)
        right.set(xlabel="epoch", ylabel="loss / nat", title="training", ylim=(0, None))
        right.legend()

    report.picture("starts", "z of 2000 hidden neurons, and the training that follows.", draw, (8.4, 3.0))


EXAMPLE = Example(
    11, "weight-initialisation", "how wide z is in the first hidden layer, and what that does to learning", run
)
