"""R8. Every derivative of a 3-2-3 network, written out by the chain rule, is what BP1 to BP4 compute.

Sigmoid everywhere; w1 ... w6 lead from input to hidden neurons, row by row, w7 ... w12 from hidden to output neurons::

    h_j = sigmoid(sum_i x_i w_ij + c_j)        o_k = sigmoid(sum_j h_j w_jk + d_k)        E = sum_k (o_k - y_k)^2 / 2
    e_k = dE/dz_k = (o_k - y_k) o_k (1 - o_k)
    dE/dw_jk = e_k h_j                                          dE/dd_k = e_k
    dE/dw_ij = (sum_k e_k w_jk) h_j (1 - h_j) x_i               dE/dc_j = (sum_k e_k w_jk) h_j (1 - h_j)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLACK, BLUE, RED
from bpcore.typing import FloatArray

INPUTS, TARGETS = (0.5, -1.0, 0.25), (0.0, 1.0, 0.0)
STEP = 6e-6


def by_hand() -> dict[str, str]:
    """The derivatives as formulas of x, y, h, o, w and the output errors e, one for each parameter."""
    found = {}
    back = ["e1*w7 + e2*w8 + e3*w9", "e1*w10 + e2*w11 + e3*w12"]
    for i in range(3):
        for j in range(2):
            found[f"w{2 * i + j + 1}"] = f"({back[j]}) * h{j + 1}*(1 - h{j + 1}) * x{i + 1}"
    for j in range(2):
        found[f"c{j + 1}"] = f"({back[j]}) * h{j + 1}*(1 - h{j + 1})"
    for j in range(2):
        for k in range(3):
            found[f"w{3 * j + k + 7}"] = f"e{k + 1} * h{j + 1}"
    for k in range(3):
        found[f"d{k + 1}"] = f"e{k + 1}"
    return found


def numbered(letter: str, values: Any, first: int = 1) -> dict[str, float]:
    """Name the elements of an array, row by row."""
    return {f"{letter}{first + k}": float(value) for k, value in enumerate(np.ravel(values))}


def run(be: Backend, report: Report) -> None:
    """Compare the formulas with the engine and with central differences."""
    rng = np.random.default_rng(3)
    weights = [(rng.normal(size=(3, 2)), rng.normal(size=2)), (rng.normal(size=(2, 3)), rng.normal(size=3))]
    X, Y = np.array([INPUTS]), np.array([TARGETS])
    net = bp.MLP([3, 2, 3], "sigmoid", "sigmoid", dtype="float64", seed=0, backend=be).set_weights(weights)
    trace = bp.forward(net, X)
    grads = bp.backward(net, trace, Y, "quadratic")
    parts = [array for l in (1, 2) for array in (grads.dW[l], grads.db[l])]
    engine = np.concatenate([be.to_numpy(part).ravel() for part in parts])

    (W1, _), (W2, _) = weights
    values = numbered("x", X) | numbered("y", Y) | numbered("w", W1) | numbered("w", W2, 7)
    values |= numbered("h", be.to_numpy(trace.H[2])) | numbered("o", be.to_numpy(trace.H[3]))
    errors = {f"e{k}": f"(o{k} - y{k}) * o{k}*(1 - o{k})" for k in (1, 2, 3)}
    values |= {name: float(bp.Formula(text)(**values)) for name, text in errors.items()}
    formulas = by_hand()
    hand = {name: float(bp.Formula(text)(**values)) for name, text in formulas.items()}
    differences = central_differences(net, weights, X, Y)

    rows = [(f"{name} = dE/dz{name[1:]}", text, f"{values[name]:+.9f}", "", "") for name, text in errors.items()]
    for (name, text), found, difference in zip(formulas.items(), engine, differences, strict=True):
        report.check(f"dE/d{name}, engine against chain rule", found, hand[name], within=1e-12)
        report.check(f"dE/d{name}, engine against differences", found, difference, within=1e-7)
        rows.append(
            (f"dE/d{name}", text, f"{hand[name]:+.9f}", f"{found - hand[name]:.0e}", f"{found - difference:.0e}")
        )
    report.table(
        "every derivative",
        ("derivative", "by the chain rule", "value", "engine - rule", "engine - differences"),
        rows,
    )

    def draw(figure: Any) -> None:
        draw_network(figure.subplots(), values, hand)

    report.picture("network", "The network; colour and width of a line are its dE/dw.", draw, (6.8, 4.0))


def central_differences(net: bp.MLP, weights: Sequence[tuple[FloatArray, FloatArray]], X: Any, Y: Any) -> FloatArray:
    """Move every parameter up and down and look at the loss."""
    flat = np.concatenate([array.ravel() for pair in weights for array in pair])
    shapes = [array.shape for pair in weights for array in pair]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])

    def loss(theta: FloatArray) -> float:
        arrays = [theta[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)]
        net.set_weights([(arrays[0], arrays[1]), (arrays[2], arrays[3])])
        return float(net.backend.to_numpy(bp.sample_losses(net, X, Y, "quadratic"))[0])

    found = np.array([(loss(flat + STEP * unit) - loss(flat - STEP * unit)) / (2 * STEP) for unit in np.eye(flat.size)])
    loss(flat)
    return found


def draw_network(ax: Any, values: dict[str, float], gradient: dict[str, float]) -> None:
    """Draw neurons with their values, and weights with their derivatives."""
    places = {f"x{i}": (0.0, 2.0 - i) for i in (1, 2, 3)} | {f"h{j}": (1.5, 1.5 - j) for j in (1, 2)}
    places |= {f"o{k}": (3.0, 2.0 - k) for k in (1, 2, 3)}
    lines = [(f"x{i}", f"h{j}", f"w{2 * i + j - 2}") for i in (1, 2, 3) for j in (1, 2)]
    lines += [(f"h{j}", f"o{k}", f"w{3 * j + k + 3}") for j in (1, 2) for k in (1, 2, 3)]
    largest = max(abs(gradient[weight]) for _, _, weight in lines)
    for start, end, weight in lines:
        (x0, y0), (x1, y1) = places[start], places[end]
        size = abs(gradient[weight]) / largest
        colour, dash = (RED, "-") if gradient[weight] > 0 else (BLUE, "--")
        ax.plot([x0, x1], [y0, y1], dash, color=colour, linewidth=0.6 + 3.4 * size, zorder=1, solid_capstyle="butt")
        # labels of lines that meet in a neuron sit near the other end, where the lines are apart
        at = 0.26 if start[0] == "x" else 0.74
        ax.text(
            x0 + at * (x1 - x0), y0 + at * (y1 - y0), f"{weight}: {gradient[weight]:+.4f}", fontsize="x-small",
            ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=3,
        )  # fmt: skip
    for name, (x, y) in places.items():
        ax.plot(x, y, "o", markersize=34, markerfacecolor="white", markeredgecolor=BLACK, zorder=4)
        ax.text(x, y, f"{name}\n{values[name]:.3g}", ha="center", va="center", fontsize="small", zorder=5)
    for k in (1, 2, 3):
        ax.text(
            3.26, 2.0 - k, f"target {values[f'y{k}']:g}\ne{k} = {values[f'e{k}']:+.3f}", va="center", fontsize="small"
        )
    ax.plot([], [], color=RED, label="dE/dw > 0: a smaller w is better")
    ax.plot([], [], "--", color=BLUE, label="dE/dw < 0: a larger w is better")
    ax.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.45, -0.08))
    ax.set_xlim(-0.3, 3.9)
    ax.set_ylim(-1.55, 1.3)
    ax.set_axis_off()


EXAMPLE = Example(
    8, "three-classes-by-hand", "every dE/dw of a 3-2-3 network by hand, by the engine and by differences", run
)
