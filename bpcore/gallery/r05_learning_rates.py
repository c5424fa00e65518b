"""R5. One number decides whether descent creeps, arrives, jumps across or bounces for ever: the learning rate.

::

    J = x^2        x <- (1 - 2 eta) x        from x = -0.8
    eta = 1.0: factor -1        eta = 0.8: factor -0.6        eta = 0.4: factor 0.2        eta = 0.1: factor 0.8
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import GREY, RED, arrows

START, UPDATES = -0.8, 10
RATES = {1.0: "bounces for ever", 0.8: "jumps across, shrinking", 0.4: "arrives in 4 updates", 0.1: "too slow"}


def run(be: Backend, report: Report) -> None:
    """Descend with four learning rates from the same point."""
    paths = {
        eta: bp.descend("x**2", {"x": START}, bp.SGD(eta), max_updates=UPDATES, backend=be).points["x"] for eta in RATES
    }
    bounce, across = paths[1.0], paths[0.8]
    report.at_most("eta 1.0: largest distance of |x| from 0.8", np.abs(np.abs(bounce) - 0.8).max(), 1e-12)
    report.check("eta 1.0: updates that change the sign", (bounce[1:] * bounce[:-1] < 0).sum(), UPDATES)
    report.check("eta 0.8: updates that change the sign", (across[1:] * across[:-1] < 0).sum(), UPDATES)
    report.check("eta 0.8: updates that bring x nearer", (np.abs(across[1:]) < np.abs(across[:-1])).sum(), UPDATES)
    for k, known in enumerate((-0.16, -0.032, -0.0064, -0.0013), start=1):
        report.check(f"eta 0.4: x after {k} updates", paths[0.4][k], known, digits=4)
    report.check("eta 0.1: x after 10 updates", paths[0.1][10], -0.0859, digits=4)
    report.table(
        "x after each update",
        ("update", *(f"eta {eta:g}" for eta in RATES)),
        [(k, *(f"{paths[eta][k]:.4f}" for eta in RATES)) for k in range(UPDATES + 1)],
    )

    def draw(figure: Any) -> None:
        xs = np.linspace(-0.95, 0.95, 100)
        axes = figure.subplots(2, 2, sharex=True, sharey=True)
        for ax, (eta, words) in zip(axes.flat, RATES.items(), strict=True):
            ax.plot(xs, xs**2, color=GREY)
            arrows(ax, paths[eta], paths[eta] ** 2, RED)
            ax.set_title(rf"$\eta$ = {eta:g}: {words}")
        for ax in axes[1]:
            ax.set_xlabel("x")
        for ax in axes[:, 0]:
            ax.set_ylabel("J")

    report.picture("paths", "Ten updates on the same parabola with four learning rates.", draw, (6.4, 4.6))


EXAMPLE = Example(5, "learning-rates", "four learning rates on one parabola: bounce, jump across, arrive, creep", run)
