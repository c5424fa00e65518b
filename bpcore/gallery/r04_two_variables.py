"""R4. Gradient descent in two variables: down a valley, across the lines of equal height.

::

    J = x^2 + sin(y)^2        dJ/dx = 2 x        dJ/dy = 2 sin(y) cos(y)
    (x, y) <- (x, y) - eta grad J        eta = 0.1, from (3, 1), until J < 0.01
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.pictures import GREY, RED, arrows

J_OF = "x**2 + sin(y)**2"
ETA = 0.1
KNOWN = {
    0: (3.0, 1.0, 9.708073),
    1: (2.4, 0.909070, 6.382415),
    15: (0.105553, 0.063481, 0.015166),
    16: (0.084442, 0.050819, 0.009711),
}


def run(be: Backend, report: Report) -> None:
    """Descend, compare four points, and draw the landscape."""
    path = bp.descend(J_OF, {"x": 3.0, "y": 1.0}, bp.SGD(ETA), below=0.01, backend=be)
    x, y, J = path.points["x"], path.points["y"], path.values
    report.check("updates", path.updates, 16)
    for k, known in KNOWN.items():
        found = (x[k], y[k], J[k]) if k < len(J) else (np.nan, np.nan, np.nan)
        for name, value, expected in zip(("x", "y", "J"), found, known, strict=True):
            report.check(f"{name} after {k} updates", value, expected, digits=6)
    report.table(
        "the path",
        ("update", "x", "y", "J"),
        [(k, f"{x[k]:.6f}", f"{y[k]:.6f}", f"{J[k]:.6f}") for k in range(len(J))],
    )
    grid = np.meshgrid(np.linspace(-1, 3.3, 90), np.linspace(-1.2, 1.6, 90))
    surface = be.to_numpy(be.evaluate(J_OF, x=be.asarray(grid[0]), y=be.asarray(grid[1])))

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(wspace=0.06)
        left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
        left.grid(False)
        lines = left.contour(*grid, surface, levels=[0.1, 0.5, 1, 2, 4, 6, 8, 10], colors=GREY, linewidths=0.8)
        left.clabel(lines, fontsize="small")
        arrows(left, x, y, RED)
        left.set(xlabel="x", ylabel="y", title="lines of equal J and the path")
        right.plot_surface(*grid, surface, cmap="cividis", alpha=0.75, rstride=4, cstride=4, linewidth=0)
        right.plot(x, y, J + 0.15, "o-", color=RED, markersize=3, zorder=10)
        right.set(xlabel="x", ylabel="y", zlabel="J")
        right.view_init(elev=32, azim=-118)
        right.set_box_aspect(None, zoom=0.86)

    report.picture("path", "Sixteen updates from (3, 1) into the valley.", draw, (7.4, 3.6))


EXAMPLE = Example(4, "two-variables", "gradient descent runs down a landscape of two variables", run)
