"""R1. An error at the end of a small graph tells each input how far to move.

The derivative of the output by an input is the sum over all ways that lead from one to the other; b reaches z on two::

    x = 2 w + 3 b        y = 2 b + 1        z = x y
    dz/dw = dz/dx dx/dw = 2 y
    dz/db = dz/dx dx/db + dz/dy dy/db = 3 y + 2 x
    w <- w - share (z - goal) / (dz/dw)        b <- b - share (z - goal) / (dz/db)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.gallery.example import Example, Report
from bpcore.gallery.graph import Graph
from bpcore.gallery.graph_picture import draw_graph
from bpcore.gallery.pictures import BLUE, GREY, PURPLE, RED, arrows

NODES = {"x": "2*w + 3*b", "y": "2*b + 1", "z": "x*y"}
START = {"w": 3.0, "b": 4.0}
GOAL, CLOSE = 150.0, 1e-5
SHARES = {"w alone": (1.0, 0.0), "b alone": (0.0, 1.0), "both": (0.5, 0.5)}


def correct(graph: Graph, shares: tuple[float, float], at: tuple[float, float]) -> tuple[float, float]:
    """Move each input by its share of the error, divided by its slope."""
    error = graph.forward(w=at[0], b=at[1]) - GOAL
    slopes = graph.backward()
    return at[0] - shares[0] * error / slopes["w"], at[1] - shares[1] * error / slopes["b"]


def run(be: Backend, report: Report) -> None:
    """Compute values and slopes, correct once, and correct until the goal is met."""
    graph = Graph(NODES, be)
    graph.forward(**START)
    graph.backward()
    for name, value in {"x": 18, "y": 9, "z": 162}.items():
        report.check(name, graph.values[name], value, within=1e-12)
    for name, slope in {"w": 18, "b": 63}.items():
        report.check(f"dz/d{name}", graph.slopes[name], slope, within=1e-12)
        report.check(f"dz/d{name} by central differences", float(graph.differences(name)), slope, within=1e-6)
    names = (*graph.inputs, *graph.formulas)
    report.table(
        "values and slopes",
        ("node", "formula", "value", "dz/dnode"),
        [(n, graph.formulas.get(n, "(input)"), f"{graph.values[n]:g}", f"{graph.slopes[n]:g}") for n in names],
    )

    once = {}
    for name, shares in SHARES.items():
        w, b = correct(graph, shares, (START["w"], START["b"]))
        once[name] = w, b, float(graph.forward(w=w, b=b))
    report.table(
        "one correction towards z = 150",
        ("moved", "w", "b", "z"),
        [(name, f"{w:.4f}", f"{b:.4f}", f"{z:.4f}") for name, (w, b, z) in once.items()],
    )
    report.check("w alone: w", once["w alone"][0], 2.3333, digits=4)
    report.check("w alone: z", once["w alone"][2], 150.0, within=1e-9)
    report.check("b alone: b", once["b alone"][1], 3.8095, digits=4)
    report.check("b alone: z", once["b alone"][2], 150.217, within=1e-3)  # 150.21769, cut off after three decimals
    report.check("both: w", once["both"][0], 2.6667, digits=4)
    report.check("both: b", once["both"][1], 3.9048, digits=4)
    report.check("both: z", once["both"][2], 150.18, digits=2)

    paths = {}
    for name in ("b alone", "both"):
        path = [(START["w"], START["b"])]
        while abs(graph.forward(w=path[-1][0], b=path[-1][1]) - GOAL) >= CLOSE and len(path) < 100:
            path.append(correct(graph, SHARES[name], path[-1]))
        paths[name] = np.array(path)
        report.check(f"{name}, repeated: updates", len(path) - 1, 3)
    report.check("b alone, repeated: b", paths["b alone"][-1, 1], 3.805937, digits=6)
    report.check("both, repeated: w", paths["both"][-1, 0], 2.661517, digits=6)
    report.check("both, repeated: b", paths["both"][-1, 1], 3.903263, digits=6)
    report.table(
        "corrections until |z - 150| < 1e-5",
        ("moved", "updates", "w", "b"),
        [(name, len(path) - 1, f"{path[-1, 0]:.6f}", f"{path[-1, 1]:.6f}") for name, path in paths.items()],
    )

    grid = np.meshgrid(np.linspace(2.2, 3.2, 60), np.linspace(3.7, 4.1, 60))
    surface = be.to_numpy(graph.forward(w=grid[0], b=grid[1]))
    graph.forward(**START)
    graph.backward()

    def draw_values(figure: Any) -> None:
        draw_graph(figure.subplots(), graph)

    def draw_corrections(figure: Any) -> None:
        ax = figure.subplots()
        ax.grid(False)
        lines = ax.contour(*grid, surface, levels=[141, 144, 147, 153, 156, 159, 162, 165], colors=GREY, linewidths=0.7)
        ax.clabel(lines, fontsize="small")
        ax.clabel(ax.contour(*grid, surface, levels=[GOAL], colors=BLUE, linewidths=2.0), fontsize="small")
        arrows(ax, paths["b alone"][:, 0], paths["b alone"][:, 1], RED, label="b alone")
        arrows(ax, paths["both"][:, 0], paths["both"][:, 1], PURPLE, label="both, half of the error each")
        ax.set(xlabel="w", ylabel="b", title="lines of equal z; the goal is z = 150")
        ax.legend(loc="lower left")

    report.picture("graph", "Values (blue) forwards, slopes of z (red) backwards.", draw_values, (6.6, 3.0))
    report.picture("corrections", "From (3, 4) to the line z = 150.", draw_corrections, (5.2, 3.8))


EXAMPLE = Example(1, "linear-graph", "values forwards and slopes backwards through a graph, and what corrects z", run)
