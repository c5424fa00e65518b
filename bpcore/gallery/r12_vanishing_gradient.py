"""R12. The gradient shrinks from layer to layer on its way back, with sigmoid far more than with ReLU.

::

    Delta[l] = (Delta[l+1] W[l]^T) * act'(Z[l])
    sigmoid: act' <= 1/4, so  |Delta[l]| <= |W[l]| |Delta[l+1]| / 4        (spectral norm of W)
    ReLU:    act' is 0 or 1; with weights N(0, 2/n) the norm stays about the same
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, RED

WIDTH, SAMPLES = 50, 64
DEPTHS = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
KINDS = {"sigmoid": ("glorot_normal", RED, "o-"), "relu": ("he_normal", BLUE, "s--")}


def run(be: Backend, report: Report) -> None:
    """Measure the gradient of every layer, for depths from 2 to 20 hidden layers."""
    rng = np.random.default_rng(7)
    X, labels = rng.normal(size=(SAMPLES, 20)), rng.integers(0, 5, SAMPLES)
    norms: dict[str, dict[int, Any]] = {kind: {} for kind in KINDS}
    worst = 0.0
    for kind, (init, _, _) in KINDS.items():
        for depth in DEPTHS:
            sizes = [20, *[WIDTH] * depth, 5]
            net = bp.MLP(sizes, kind, "softmax", init=init, dtype="float64", seed=depth, backend=be)
            grads = bp.backward(net, bp.forward(net, X), labels)
            norms[kind][depth] = np.array([np.linalg.norm(be.to_numpy(dW)) for dW in grads.dW])
            if kind == "sigmoid":
                delta = {l: float(np.linalg.norm(be.to_numpy(grads.Delta[l]))) for l in range(2, depth + 3)}
                W = {l: float(np.linalg.norm(w, 2)) for l, (w, _) in enumerate(net.get_weights(), start=1)}
                worst = max(worst, *(delta[l] / (W[l] * delta[l + 1] / 4) for l in range(2, depth + 2)))
    ratios = {kind: {depth: n[0] / n[-2] for depth, n in by_depth.items()} for kind, by_depth in norms.items()}
    report.at_most("sigmoid: largest |Delta[l]| as a share of its bound", worst, 1.0)
    report.at_most("sigmoid, depth 20: gradient of the first layer over that of the last hidden one",
                   ratios["sigmoid"][20], 1e-9)  # fmt: skip
    report.at_least("relu, depth 20: gradient of the first layer over that of the last hidden one",
                    ratios["relu"][20], 0.05)  # fmt: skip
    falls = [ratios["sigmoid"][b] / ratios["sigmoid"][a] for a, b in pairwise(DEPTHS)]
    report.at_most("sigmoid: largest ratio from one depth to the next", max(falls), 0.5)
    report.table(
        "gradient of the first layer over that of the last hidden one",
        ("hidden layers", *KINDS),
        [(depth, *(f"{ratios[kind][depth]:.2e}" for kind in KINDS)) for depth in DEPTHS],
    )

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for kind, (_, colour, style) in KINDS.items():
            deep = norms[kind][20]
            left.semilogy(np.arange(1, len(deep) + 1), deep, style, color=colour, label=kind)
            right.semilogy(DEPTHS, list(ratios[kind].values()), style, color=colour, label=kind)
        left.set(xlabel="layer l", ylabel=r"norm of $\partial E/\partial W^{[l]}$", title="20 hidden layers")
        right.set(xlabel="hidden layers", ylabel="first over last hidden", title="ratio of the norms", xticks=DEPTHS)
        left.set_xticks(range(1, 22, 4))
        left.legend(loc="lower right")

    report.picture("norms", "Norm of the gradient by layer and by depth.", draw, (7.0, 3.3))


EXAMPLE = Example(
    12, "vanishing-gradient", "the gradient by layer for 2 to 20 hidden layers, sigmoid against ReLU", run
)
