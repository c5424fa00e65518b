"""R6. A line through points by full-batch, mini-batch and stochastic descent, with three rules that end the training.

::

    yhat = a x + b        E = mean (yhat - y)^2
    dE/da = mean 2 (yhat - y) x        dE/db = mean 2 (yhat - y)
    stop when |E - E_before| < limit, or |grad E| < limit, or after so many updates
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import BLACK, BLUE, GREEN, GREY, RED

SLOPE, INTERCEPT, SAMPLES = 2.5, -0.7, 60
WAYS: dict[str, tuple[Any, float, int, float]] = {
    # batch size, eta, epochs; the last is how far from the least-squares line the way may end
    "full batch": ("full", 0.5, 40, 1e-4),
    "mini-batch of 10": (10, 0.2, 40, 0.03),
    "stochastic": (1, 0.02, 40, 0.03),
}
RULES = {
    "change of the loss": bp.LossChange(1e-6),
    "gradient norm": bp.GradientNorm(1e-3),
    "number of updates": bp.MaxSteps(25),
}
REASONS = ("loss changed by", "gradient norm is", "reached 25 steps")


def run(be: Backend, report: Report) -> None:
    """Fit one line in three ways, and stop by each of three rules."""
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, SAMPLES)
    y = SLOPE * x + INTERCEPT + 0.3 * rng.normal(size=SAMPLES)
    best = np.polyfit(x, y, 1)

    net = bp.MLP([1, 1], output="identity", init="zeros", dtype="float64", backend=be)
    net.set_weights([([[0.4]], [0.1])])
    grads = bp.backward(net, bp.forward(net, x[:, None]), y, "mse")
    residual = 0.4 * x + 0.1 - y
    report.check("dE/da at (0.4, 0.1)", be.to_numpy(grads.dW[1])[0, 0], (2 * residual * x).mean(), within=1e-13)
    report.check("dE/db at (0.4, 0.1)", be.to_numpy(grads.db[1])[0], (2 * residual).mean(), within=1e-13)

    def fit(batch: Any, eta: float, epochs: int, stop: bp.StopRule | None = None) -> tuple[bp.Run, Any]:
        net = bp.MLP([1, 1], output="identity", init="zeros", dtype="float64", backend=be)
        path = [(0.0, 0.0)]

        def look(net: bp.MLP, progress: Any) -> None:
            ((W, b),) = net.get_weights()
            path.append((float(W[0, 0]), float(b[0])))

        run = bp.train(
            net, x[:, None], y, loss="mse", optimizer=bp.SGD(eta), batch_size=batch, epochs=epochs, stop=stop,
            seed=1, callbacks=[look], verbose=False,
        )  # fmt: skip
        return run, np.array(path)

    fits = {name: fit(batch, eta, epochs) for name, (batch, eta, epochs, _) in WAYS.items()}
    rows: list[tuple[object, ...]] = []
    for name, (run, path) in fits.items():
        within = WAYS[name][3]
        report.check(f"{name}: a, against least squares", path[-1, 0], best[0], within=within)
        report.check(f"{name}: b, against least squares", path[-1, 1], best[1], within=within)
        rows.append((name, run.steps, f"{path[-1, 0]:.5f}", f"{path[-1, 1]:.5f}", f"{run.history[-1]['loss']:.5f}"))
    least = ((np.polyval(best, x) - y) ** 2).mean()
    rows.append(("least squares", "", f"{best[0]:.5f}", f"{best[1]:.5f}", f"{least:.5f}"))
    report.table("three ways to one line", ("way", "updates", "a", "b", "loss"), rows)

    rows = []
    for (name, rule), reason in zip(RULES.items(), REASONS, strict=True):
        run, path = fit("full", 0.5, 1000, rule)
        report.same(f"stopped by {name}", run.stopped_because[: len(reason)], reason)
        rows.append((name, run.steps, f"{path[-1, 0]:.5f}", f"{path[-1, 1]:.5f}", run.stopped_because))
    report.table("full batch, stopped by each rule", ("rule", "updates", "a", "b", "reason"), rows)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.plot(x, y, ".", color=GREY, label="samples")
        ends = np.array([-1.0, 1.0])
        left.plot(ends, np.polyval(best, ends), color=BLACK, linewidth=1.2, label="least squares")
        path = fits["full batch"][1]
        for k, shade in ((1, 0.45), (3, 0.7), (12, 1.0)):
            left.plot(ends, np.polyval(path[k], ends), "--", color=BLUE, alpha=shade, label=f"full batch, update {k}")
        left.set(xlabel="x", ylabel="y")
        left.legend()
        for (name, (_, path)), (colour, mark) in zip(
            fits.items(), ((BLUE, "o"), (GREEN, "s"), (RED, "^")), strict=True
        ):
            right.plot(*path[:25].T, marker=mark, color=colour, markersize=3.5, linewidth=1.0, label=name)
        right.plot(*best, "*", color=BLACK, markersize=11, label="least squares")
        right.set(xlabel="a", ylabel="b", title="after each epoch")
        right.legend(loc="upper right")

    report.picture("line", "The line that is found, and the ways of (a, b) to it.", draw, (7.2, 3.4))


EXAMPLE = Example(6, "linear-regression", "full-batch, mini-batch and stochastic descent meet at one line", run)
