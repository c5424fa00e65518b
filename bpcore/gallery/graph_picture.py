"""A computational graph as a picture: values above the nodes, slopes below, local derivatives on the edges."""

from __future__ import annotations

from typing import Any

from bpcore.gallery.graph import Graph
from bpcore.gallery.pictures import BLUE, GREY, RED

__all__ = ["draw_graph"]


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
    Inputs are on the left. A node holds its formula; its value is blue and above, the derivative of the output by it is
    red and below; grey numbers are the local derivatives of the edges.
    """
    places, boxes = _places(graph), {}
    for name, (x, y) in places.items():
        formula = graph.formulas.get(name)
        words = name if formula is None else f"{name} = {formula.text}"
        style = {"boxstyle": "round,pad=0.35", "facecolor": "#eef4fa" if formula else "white", "edgecolor": "black"}
        boxes[name] = ax.text(x, y, words, ha="center", va="center", bbox=style, zorder=5)
        ax.text(x, y + 0.2, f"{graph.values[name]:.6g}", ha="center", va="bottom", color=BLUE, weight="bold")
        slope = f"$\\partial {graph.output}/\\partial {name}$ = {graph.slopes[name]:.4g}"
        ax.text(x, y - 0.2, slope, ha="center", va="top", color=RED)
    for parent, child in graph.edges:
        # from the middle of the right side of one text to that of the left side of the other
        ax.annotate(
            "", xy=(0, 0.5), xycoords=boxes[child], xytext=(1, 0.5), textcoords=boxes[parent],
            arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.2, "shrinkA": 5, "shrinkB": 5},
        )  # fmt: skip
        (x0, y0), (x1, y1) = places[parent], places[child]
        words = f"$\\partial {child}/\\partial {parent}$ = {graph.local[parent, child]:.4g}"
        ax.text(
            (x0 + x1) / 2 - 0.1, (y0 + y1) / 2, words, ha="center", va="center", color=GREY, fontsize="small", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
    columns, rows = zip(*places.values(), strict=True)
    ax.set_xlim(min(columns) - 0.6, max(columns) + 0.6)
    ax.set_ylim(min(rows) - 0.55, max(rows) + 0.55)
    ax.set_axis_off()


def _places(graph: Graph) -> dict[str, tuple[float, float]]:
    """A column for each depth, the nodes of a column centred one below the other."""
    columns: dict[int, list[str]] = {}
    for name in (*graph.inputs, *graph.formulas):
        columns.setdefault(graph.depth(name), []).append(name)
    return {
        name: (2.0 * depth, 1.4 * ((len(names) - 1) / 2 - k))
        for depth, names in columns.items()
        for k, name in enumerate(names)
    }
