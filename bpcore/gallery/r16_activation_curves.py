"""R16. Every activation and its derivative.

softmax and log-softmax belong to rows; their curves are the first of two outputs, for the scores (z, 0)::

    sigmoid 1 / (1 + e^-z)        tanh        ReLU max(0, z)        softplus ln(1 + e^z)        SiLU z sigmoid(z)
    sigmoid' = h (1 - h)          tanh' = 1 - h^2        ReLU' = 0 or 1        softplus' = sigmoid(z)
    softmax(z, 0) = sigmoid(z)        softmax' = h (1 - h)        log-softmax' = 1 - e^h
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLUE, RED
from bpcore.typing import FloatArray

KNOWN = {
    # h(0) and h'(0); ReLU and its relatives have a corner there, the hard ones do not
    "sigmoid": (0.5, 0.25),
    "tanh": (0.0, 1.0),
    "gelu": (0.0, 0.5),
    "gelu_tanh": (0.0, 0.5),
    "silu": (0.0, 0.5),
    "softplus": (np.log(2), 0.5),
    "mish": (0.0, 0.6),
    "hard_sigmoid": (0.5, 1 / 6),
    "hard_tanh": (0.0, 1.0),
    "identity": (0.0, 1.0),
    "softmax": (0.5, 0.25),
    "log_softmax": (-np.log(2), 0.5),
}
STEP, REACH = 1e-5, 5.0


def curve(be: Backend, activation: bp.Activation, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Output and derivative along z."""
    if activation.rowwise:
        net = bp.MLP([1, 2], output=activation, init="zeros", dtype="float64", backend=be)
        net.set_weights([([[1.0, 0.0]], [0.0, 0.0])])
        H = bp.forward(net, z[:, None]).H[2]
        first, out = be.asarray(np.tile([1.0, 0.0], (z.size, 1))), be.empty((z.size, 2), np.float64)
        pass_back = be.backprop_softmax if activation.rowwise == "softmax" else be.backprop_log_softmax
        return be.to_numpy(H)[:, 0], be.to_numpy(pass_back(first, H, out))[:, 0]
    device = be.asarray(z)
    h = be.evaluate(activation.value_formula, z=device)
    if not activation.differentiable:
        return be.to_numpy(h), np.zeros_like(z)
    slope = be.evaluate(activation.derivative_formula, z=device, h=h)
    # the derivative of the identity is a number and no array
    return be.to_numpy(h), np.broadcast_to(be.to_numpy(slope), z.shape)


def run(be: Backend, report: Report) -> None:
    """Evaluate all of them, and compare derivatives with differences."""
    z = np.linspace(-REACH, REACH, 401)
    curves, rows = {}, []
    for name, activation in bp.ACTIVATIONS.items():
        h, slope = curves[name] = curve(be, activation, z)
        low, high = activation.range
        report.at_most(f"{name}: how far it leaves its range", max(low - h.min(), h.max() - high, 0.0), 1e-12)
        error = 0.0
        if activation.differentiable:
            between = z + 0.01  # corners are at whole numbers
            ahead, behind = curve(be, activation, between + STEP)[0], curve(be, activation, between - STEP)[0]
            error = np.abs(curve(be, activation, between)[1] - (ahead - behind) / (2 * STEP)).max()
            report.at_most(f"{name}: derivative against differences", error, 1e-8)
        if name in KNOWN:
            middle = z.size // 2
            report.check(f"{name}(0)", h[middle], KNOWN[name][0], within=1e-12)
            report.check(f"{name}'(0)", slope[middle], KNOWN[name][1], within=1e-12)
        derivative = activation.derivative_formula if activation.differentiable and not activation.rowwise else ""
        rows.append((name, activation.formula or "(whole rows)", derivative, f"{error:.0e}"))
    report.check("softmax (z, 0), largest distance from sigmoid",
                 np.abs(curves["softmax"][0] - curves["sigmoid"][0]).max(), 0.0, within=1e-15)  # fmt: skip
    report.table("activations", ("name", "formula", "derivative", "error of the derivative"), rows)

    def draw(figure: Any) -> None:
        axes = figure.subplots(3, 6, sharex=True, sharey=True)
        for ax, (name, (h, slope)) in zip(axes.flat, curves.items(), strict=False):
            ax.plot(z, h, color=BLUE, label="h(z)")
            if bp.ACTIVATIONS[name].differentiable:
                ax.plot(z, slope, "--", color=RED, linewidth=1.2, label="h'(z), its\nderivative")
            ax.set_title(name.replace("_", " "), pad=3)
            ax.set(ylim=(-2.2, 3.2), xlim=(-REACH, REACH), xticks=[-4, 0, 4], yticks=[-2, 0, 2])
        for ax in axes.flat[len(curves) :]:
            ax.set_axis_off()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[-1, -1].legend(handles, labels, loc="center", fontsize="small", handlelength=1.2)
        figure.supxlabel("z", fontsize="medium")

    report.picture("curves", "Activations (solid) and derivatives (dashed).", draw, (8.6, 4.6))


EXAMPLE = Example(16, "activation-curves", "every activation with its derivative", run)
