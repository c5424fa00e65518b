"""R2. A target is reached by passing the error back through a chain, node by node.

What a node has to change by is what the next one has to change by, divided by the slope between the two::

    a = x^2        b = ln a        c = sqrt(b)        goal: c = 2.13
    dc = c - goal
    db = dc / (1 / (2 sqrt(b))) = dc 2 sqrt(b)
    da = db / (1 / a) = db a
    dx = da / (2 x)
    x <- x - dx
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.graph import Graph
from bpcore.gallery.graph_picture import draw_graph
from bpcore.gallery.pictures import BLUE, GREY, RED

NODES = {"a": "x**2", "b": "log(a)", "c": "sqrt(b)"}
START, GOAL, CLOSE = 2.0, 2.13, 1e-3
COLUMNS = ("x", "a", "b", "c", "dc", "db", "da", "dx")
KNOWN = (
    (2.000, 4.000, 1.386, 1.177, -0.953, -2.243, -8.973, -2.243),
    (4.243, 18.005, 2.891, 1.700, -0.430, -1.462, -26.314, -3.101),
    (7.344, 53.934, 3.988, 1.997, -0.133, -0.531, -28.662, -1.951),
    (9.295, 86.404, 4.459, 2.112, -0.018, -0.078, -6.699, -0.360),
    (9.656, 93.233, 4.535, 2.130),
)


def run(be: Backend, report: Report) -> None:
    """Pass the error back until c is close to its goal."""
    graph = Graph(NODES, be)
    x, rows = START, list[tuple[float, ...]]()
    while len(rows) < 50:
        c = graph.forward(x=x)
        row: tuple[float, ...] = (x, graph.values["a"], graph.values["b"], c)
        dc = c - GOAL
        if abs(dc) < CLOSE:
            rows.append(row)
            break
        graph.backward()
        db = dc / graph.local["b", "c"]
        da = db / graph.local["a", "b"]
        dx = da / graph.local["x", "a"]
        rows.append((*row, dc, db, da, dx))
        x -= dx

    report.check("iterations", len(rows), len(KNOWN))
    for k, (row, known) in enumerate(zip(rows, KNOWN, strict=False), start=1):
        for column, found, value in zip(COLUMNS, row, known, strict=False):
            report.check(f"iteration {k}: {column}", found, value, digits=3)
    report.table(
        "the error passed back",
        ("iteration", *COLUMNS),
        [(k, *(f"{v:.3f}" for v in row), *[""] * (8 - len(row))) for k, row in enumerate(rows, start=1)],
    )
    graph.forward(x=START)
    slope = graph.backward()["x"]
    report.check("dc/dx at 2, against central differences", slope, float(graph.differences("x")), within=1e-8)

    xs = np.linspace(1.3, 11, 200)
    cs = be.to_numpy(graph.forward(x=xs))
    graph.forward(x=START)
    graph.backward()

    def draw_values(figure: Any) -> None:
        draw_graph(figure.subplots(), graph)

    def draw_iterations(figure: Any) -> None:
        ax = figure.subplots()
        ax.plot(xs, cs, color=BLUE, label="c(x)")
        ax.axhline(GOAL, color=GREY, linestyle="--", linewidth=1.0, label="goal 2.13")
        for k, (row, following) in enumerate(pairwise(rows), start=1):
            # the tangent at x meets the goal where the next x is
            ax.plot(
                [row[0], following[0]], [row[3], GOAL], color=RED, linewidth=1.0, label="tangent" if k == 1 else None
            )
            ax.plot([following[0]] * 2, [GOAL, following[3]], color=RED, linewidth=1.0, linestyle=":")
        for k, row in enumerate(rows, start=1):
            ax.plot(row[0], row[3], "o", color=RED)
            ax.annotate(str(k), (row[0], row[3]), xytext=(5, -11), textcoords="offset points", fontsize="small")
        ax.set(xlabel="x", ylabel="c", title="each step follows the tangent to the goal")
        ax.legend(loc="lower right")

    report.picture("graph", "The chain at x = 2 with its local derivatives.", draw_values, (7.4, 1.4))
    report.picture("iterations", "Five points on c(x); numbers are iterations.", draw_iterations, (5.2, 3.6))


EXAMPLE = Example(2, "nonlinear-chain", "the error passed back through x^2, ln and sqrt finds x in four updates", run)
