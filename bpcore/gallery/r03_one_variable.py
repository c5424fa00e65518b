"""R3. Gradient descent on a parabola: each update multiplies x by the same number.

::

    J = x^2        dJ/dx = 2 x
    x <- x - eta 2 x = (1 - 2 eta) x        eta = 0.3, from x = 1.2, until J < 0.001
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import GREY, RED, arrows

ETA, START = 0.3, 1.2
KNOWN = (1.2, 0.48, 0.192, 0.0768, 0.03072)


def run(be: Backend, report: Report) -> None:
    """Descend and compare every point."""
    path = bp.descend("x**2", {"x": START}, bp.SGD(ETA), below=1e-3, backend=be)
    x, J = path.points["x"], path.values
    report.check("updates", path.updates, 4)
    for k, (found, known) in enumerate(zip(x, KNOWN, strict=False)):
        report.check(f"x after {k} updates", found, known, within=1e-12)
    report.at_most("J at the end", J[-1], 1e-3)
    report.table("the path", ("update", "x", "J"), [(k, f"{x[k]:.5f}", f"{J[k]:.6f}") for k in range(len(x))])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        xs = np.linspace(-0.4, 1.3, 100)
        left.plot(xs, xs**2, color=GREY)
        arrows(left, x, J, RED)
        left.set(xlabel="x", ylabel="J", title=r"the path on $J = x^2$")
        right.semilogy(J, "o-", color=RED)
        right.axhline(1e-3, color=GREY, linestyle="--", linewidth=1.0)
        right.annotate("stop below 0.001", (0, 1e-3), xytext=(0, 3), textcoords="offset points", fontsize="small")
        right.set(xlabel="update", ylabel="J", title="J falls by the factor 0.16", xticks=range(len(J)))

    report.picture("path", "The path on the parabola, and J over the updates.", draw, (6.6, 3.0))


EXAMPLE = Example(3, "one-variable", "gradient descent on a parabola arrives in four updates", run)
