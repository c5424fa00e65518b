"""R7. A neuron that is badly wrong learns slowly with the quadratic cost, and at once with cross-entropy.

The output is near 1, where the sigmoid is flat; cross-entropy cancels the factor that makes the gradient small::

    h = sigmoid(w x + b)        x = 1, y = 0, from w = b = 2
    quadratic:      E = (h - y)^2 / 2                        dE/dz = (h - y) h (1 - h)
    cross-entropy:  E = -[y ln h + (1 - y) ln(1 - h)]        dE/dz = h - y
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, GREEN, RED
from bpcore.typing import FloatArray

UPDATES = 300
RUNS = {
    "quadratic, eta 0.15": ("quadratic", 0.15),
    "cross-entropy, eta 0.005": ("binary_cross_entropy", 0.005),
    "cross-entropy, eta 0.15": ("binary_cross_entropy", 0.15),
}
KNOWN = {
    "quadratic, eta 0.15": {50: 0.9759, 100: 0.9641, 150: 0.9334, 200: 0.7887, 250: 0.3572, 300: 0.2028},
    "cross-entropy, eta 0.005": {50: 0.9710, 100: 0.9539, 150: 0.9282, 200: 0.8912, 250: 0.8415, 300: 0.7796},
    "cross-entropy, eta 0.15": {50: 0.0985},
}


def follow(be: Backend, loss: str, eta: float) -> tuple[FloatArray, FloatArray]:
    """Output h and error dE/dz, before the first update and after each."""
    net = bp.MLP([1, 1], output="sigmoid", dtype="float64", seed=0, backend=be)
    net.set_weights([([[2.0]], [2.0])])
    seen = []

    def look(net: bp.MLP, progress: Any) -> None:
        trace = bp.forward(net, [[1.0]])
        error = bp.backward(net, trace, [[0.0]], loss).Delta[2]
        seen.append((be.to_numpy(trace.H[2])[0, 0], be.to_numpy(error)[0, 0]))

    look(net, None)
    bp.train(
        net, [[1.0]], [[0.0]], loss=loss, optimizer=bp.SGD(eta), batch_size=1, epochs=UPDATES, callbacks=[look],
        verbose=False,
    )  # fmt: skip
    h, error = np.array(seen).T
    return h, error


def run(be: Backend, report: Report) -> None:
    """Train the neuron three times."""
    found, errors = {}, {}
    for name, (loss, eta) in RUNS.items():
        found[name], errors[name] = follow(be, loss, eta)
    for name, known in KNOWN.items():
        report.check(f"{name}: first output", found[name][0], 0.9820, digits=4)
        for update, value in known.items():
            report.check(f"{name}: output after {update}", found[name][update], value, digits=4)
    h = found["quadratic, eta 0.15"]
    distance = np.abs(errors["quadratic, eta 0.15"] - h * h * (1 - h)).max()
    report.at_most("quadratic: largest distance of dE/dz from h h (1 - h)", distance, 1e-15)
    distance = np.abs(errors["cross-entropy, eta 0.15"] - found["cross-entropy, eta 0.15"]).max()
    report.at_most("cross-entropy: largest distance of dE/dz from h", distance, 1e-15)
    marks = (0, *KNOWN["quadratic, eta 0.15"])
    report.table(
        "output after so many updates",
        ("updates", *RUNS),
        [(update, *(f"{found[name][update]:.4f}" for name in RUNS)) for update in marks],
    )

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        styles = {"-": RED, "--": BLUE, ":": GREEN}
        for (name, h), (dash, colour) in zip(found.items(), styles.items(), strict=True):
            left.plot(h, dash, color=colour, linewidth=2.0 if dash == ":" else 1.6, label=name)
            right.plot(errors[name], dash, color=colour, linewidth=2.0 if dash == ":" else 1.6)
        left.set(xlabel="update", ylabel="output h", ylim=(0, 1.02), title="task: 1 to 0")
        right.set(xlabel="update", ylabel="dE/dz", title="the error of the neuron (BP1)", ylim=(0, 1.02))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    report.picture("outputs", "Three trainings of one neuron from the same start.", draw, (7.0, 3.3))


EXAMPLE = Example(
    7, "saturated-neuron", "a saturated neuron learns late with the quadratic cost, at once with cross-entropy", run
)
