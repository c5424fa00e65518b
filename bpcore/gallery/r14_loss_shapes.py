"""R14. Every loss as a curve, and the bowl that the loss of a linear neuron makes over its weight and bias.

a is the prediction, y the target; m = y a is the margin of targets -1 and +1::

    quadratic (a - y)^2 / 2        squared (a - y)^2        absolute |a - y|        Huber: quadratic, linear from 1 on
    binary cross-entropy -[y ln a + (1 - y) ln(1 - a)]        cross-entropy -sum y ln a
    hinge max(0, 1 - m)        exponential e^-m        0-1 loss: 1 where m < 0
    surface: E(w, b) = mean (w x + b - y)^2
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLACK, COLOURS, GREY, RED, arrows
from bpcore.typing import FloatArray

GROUPS = {
    # panel: losses, interval of a, target
    "distance a - y": (("quadratic", "mse", "absolute", "huber"), (-2.5, 2.5), 0.0),
    "prediction a, target y = 1": (("binary_cross_entropy", "cross_entropy"), (0.01, 0.99), 1.0),
    "logit z, target y = 1": (("binary_cross_entropy_logits",), (-4.0, 4.0), 1.0),
    "margin m = y a": (("hinge", "exponential"), (-2.0, 2.0), 1.0),
}
KNOWN = {
    # loss at a, y
    "quadratic": (2.0, 0.0, 2.0),
    "mse": (2.0, 0.0, 4.0),
    "absolute": (-2.0, 0.0, 2.0),
    "huber": (2.0, 0.0, 1.5),
    "binary_cross_entropy": (0.5, 1.0, np.log(2)),
    "cross_entropy": (0.25, 1.0, np.log(4)),
    "binary_cross_entropy_logits": (0.0, 1.0, np.log(2)),
    "hinge": (-1.0, 1.0, 2.0),
    "exponential": (-1.0, 1.0, np.e),
}
ZERO_ONE = "where(m < 0, 1, 0)"
STEP = 1e-5
GRID = 61


def curve(be: Backend, formula: bp.Formula, a: FloatArray, y: float) -> FloatArray:
    """A formula of a and y along predictions."""
    return be.to_numpy(be.evaluate(formula, a=be.asarray(a), y=y))


def surface(be: Backend, w: FloatArray, b: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """The loss at many (w, b) at once: each neuron of one wide linear layer has its own."""
    net = bp.MLP([1, w.size], output="identity", init="zeros", dtype="float64", backend=be)
    net.set_weights([(w.reshape(1, -1), b.ravel())])
    H = bp.forward(net, x[:, None]).H[2]
    terms = be.evaluate(bp.LOSSES["mse"].value_formula, a=H, y=be.asarray(y[:, None]))
    sums = be.column_sums(terms, out=be.empty(w.size, np.float64))
    return be.to_numpy(sums).reshape(w.shape) / len(x)


def run(be: Backend, report: Report) -> None:
    """Evaluate every loss and its derivative, and train a neuron across its surface."""
    curves: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = {}
    rows = []
    for names, (low, high), target in GROUPS.values():
        a = np.linspace(low, high, 200)  # an even number of points, none of them at a corner
        for name in names:
            loss = bp.LOSSES[name]
            value = curve(be, loss.value_formula, a, target)
            slope = curve(be, loss.derivative_formula, a, target)
            ahead, behind = (curve(be, loss.value_formula, a + step, target) for step in (STEP, -STEP))
            error = np.abs(slope - (ahead - behind) / (2 * STEP)) / np.maximum(1, np.abs(slope))
            at, goal, known = KNOWN[name]
            found = float(curve(be, loss.value_formula, np.array([at]), goal)[0])
            report.check(f"{name} at a = {at:g}, y = {goal:g}", found, known, within=1e-12)
            report.at_most(f"{name}: derivative against differences", error.max(), 1e-6)
            rows.append((name, loss.formula, loss.reduce, f"{found:.4f}", f"{error.max():.0e}"))
            curves[name] = a, value, slope
    for base, digits in ((2, 2.0), (10, np.log10(4))):
        found = float(curve(be, bp.CrossEntropy(base).value_formula, np.array([0.25]), 1.0)[0])
        report.check(f"cross-entropy to the base {base} at a = 0.25, y = 1", found, digits, within=1e-12)
    margins = curves["hinge"][0]
    mistakes = be.to_numpy(be.evaluate(ZERO_ONE, m=be.asarray(margins)))
    for name in ("hinge", "exponential"):
        excess = (mistakes - curves[name][1]).max()
        report.at_most(f"largest excess of the 0-1 loss over {name}, its upper bound", excess, 0.0)
    report.same("losses drawn", ", ".join(sorted(curves)), ", ".join(sorted(bp.LOSSES)))
    report.table("losses", ("name", "formula", "over outputs", "known value", "error of the derivative"), rows)

    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 2, 40)
    y = 1.5 * x - 0.5 + 0.2 * rng.normal(size=40)
    best = np.polyfit(x, y, 1)
    net = bp.MLP([1, 1], output="identity", dtype="float64", backend=be, seed=0)
    net.set_weights([([[-1.0]], [2.0])])
    path = [(-1.0, 2.0)]

    def look(net: bp.MLP, progress: Any) -> None:
        ((W, b),) = net.get_weights()
        path.append((float(W[0, 0]), float(b[0])))

    run = bp.train(
        net, x[:, None], y, loss="mse", optimizer=bp.SGD(0.15), batch_size="full", epochs=60, callbacks=[look],
        verbose=False,
    )  # fmt: skip
    points = np.array(path)
    grid = np.meshgrid(np.linspace(-2, 4, GRID), np.linspace(-3, 3, GRID))
    heights = surface(be, *grid, x, y)
    on_path = surface(be, points[:-1, 0], points[:-1, 1], x, y)
    report.at_most("loss of the training, against the surface", np.abs(run.history["loss"] - on_path).max(), 1e-12)
    report.check("w at the end, against least squares", points[-1, 0], best[0], within=1e-3)
    report.check("b at the end, against least squares", points[-1, 1], best[1], within=1e-3)
    report.check("updates that raise the loss", (np.diff(on_path) > 0).sum(), 0)
    lowest = np.unravel_index(heights.argmin(), heights.shape)
    report.at_most("distance of the lowest point of the grid from least squares, in w and b",
                   max(abs(grid[0][lowest] - best[0]), abs(grid[1][lowest] - best[1])), 6 / (GRID - 1))  # fmt: skip
    report.table(
        "the path on the surface",
        ("update", "w", "b", "loss"),
        [(k, *(f"{v:.4f}" for v in points[k]), f"{on_path[k]:.4f}") for k in (0, 1, 2, 5, 10, 20, 59)],
    )

    def draw_curves(figure: Any) -> None:
        axes = figure.subplots(2, 2)
        dashes = ("-", "--", "-.", (0, (1, 1)))
        for ax, (label, (names, _, _)) in zip(axes.flat, GROUPS.items(), strict=True):
            for name, colour, dash in zip(names, COLOURS, dashes, strict=False):
                ax.plot(curves[name][0], curves[name][1], color=colour, linestyle=dash, label=name.replace("_", " "))
            if "hinge" in names:
                ax.plot(margins, mistakes, color=BLACK, linestyle=":", label="0-1 (a metric only)")
            ax.set(xlabel=label, ylabel="loss", ylim=(-0.1, 4.6))
            ax.legend()

    def draw_surface(figure: Any) -> None:
        left, right = figure.add_subplot(1, 2, 1, projection="3d"), figure.add_subplot(1, 2, 2)
        left.plot_surface(*grid, heights, cmap="cividis", alpha=0.75, rstride=2, cstride=2, linewidth=0)
        left.plot(*points[:-1].T, on_path, "o-", color=RED, markersize=3, zorder=10)
        left.set(xlabel="w", ylabel="b", zlabel="E")
        left.view_init(elev=38, azim=-60)
        left.set_box_aspect(None, zoom=0.86)
        right.grid(False)
        levels = [0.2, 0.5, 1, 2, 4, 8, 14]
        right.clabel(right.contour(*grid, heights, levels=levels, colors=GREY, linewidths=0.8), fontsize="small")
        arrows(right, points[:, 0], points[:, 1], RED, label="training")
        right.plot(*best, "*", color=BLACK, markersize=10, label="least squares")
        right.set(xlabel="w", ylabel="b", title="lines of equal E")
        right.legend(loc="upper right")

    report.picture("curves", "The losses; base of the logarithm e.", draw_curves, (7.2, 5.0))
    report.picture("surface", "The bowl of a linear neuron and the path of its training.", draw_surface, (7.6, 3.6))


EXAMPLE = Example(
    14, "loss-shapes", "every loss as a curve, a loss surface with its contours and the path of training", run
)
