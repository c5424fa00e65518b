"""A computational graph as a picture: values above the edges' direction, slopes against it."""

from __future__ import annotations

from typing import Any

from bpcore.gallery.graph import Graph
from bpcore.gallery.pictures import BLUE, GREY, RED

__all__ = ["draw_graph"]

WIDTH, HEIGHT = 0.56, 0.44
"""Half of the size of a node, in units of the distance between columns."""


def draw_graph(ax: Any, graph: Graph) -> None:
    """Draw a graph whose values are numbers.

    Parameters
    ----------
    ax : matplotlib Axes
        Where it is drawn; its frame is taken away.
    graph : Graph
        After a forward and a backward pass.

    Notes
    -----
    Inputs are on the left. A node holds its formula and, in blue, its value; the derivative of the output by it is red and
    below; grey numbers are the local derivatives of the edges.
    """
    places = _places(graph)
    for parent, child in graph.edges:
        (x0, y0), (x1, y1) = places[parent], places[child]
        ax.annotate(
            "", (x1 - 0.48, y1 + 0.35 * (y0 - y1) * 0.3), (x0 + 0.48, y0),
            arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        ax.text(
            x0 + 0.5 * (x1 - x0), y0 + 0.42 * (y1 - y0) + (0.0 if y0 != y1 else 0.0),
            f"$\\partial {child}/\\partial {parent}$ = {graph.local[parent, child]:.4g}",
            ha="center", va="center", color=GREY, fontsize="small", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    for name, (x, y) in places.items():
        formula = graph.formulas.get(name)
        words = name if formula is None else f"{name} = {formula.text}"
        style = {"boxstyle": "round,pad=0.35", "facecolor": "#eef4fa" if formula else "white", "edgecolor": "black"}
        ax.text(x, y, words, ha="center", va="center", bbox=style, zorder=5)
        ax.text(x, y + 0.27, f"{graph.values[name]:.6g}", ha="center", va="bottom", color=BLUE, weight="bold")
        slope = f"$\\partial {graph.output}/\\partial {name}$ = {graph.slopes[name]:.4g}"
        ax.text(x, y - 0.27, slope, ha="center", va="top", color=RED)
    columns, rows = zip(*places.values(), strict=True)
    ax.set_xlim(min(columns) - 0.6, max(columns) + 0.6)
    ax.set_ylim(min(rows) - 0.75, max(rows) + 0.6)
    ax.set_axis_off()


def _places(graph: Graph) -> dict[str, tuple[float, float]]:
    """A column for each depth, the nodes of a column centred one below the other."""
    columns: dict[int, list[str]] = {}
    for name in (*graph.inputs, *graph.formulas):
        columns.setdefault(graph.depth(name), []).append(name)
    return {
        name: (1.9 * depth, 1.5 * ((len(names) - 1) / 2 - k))
        for depth, names in columns.items()
        for k, name in enumerate(names)
    }
