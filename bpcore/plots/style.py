"""How pictures look, and where they are drawn: the one place for colours, settings and empty axes.

The colours are those of Okabe and Ito, which people with any kind of colour vision tell apart; lines differ in dash or
marker as well. Nothing here touches ``pyplot``: a picture is a figure of its own, which a notebook shows when it is the
last thing of a cell, and which ``savefig`` writes. Whoever works with ``pyplot`` hands in axes.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, missing_extra

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "LOOK",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "STYLE",
    "draw_on",
    "draw_panels",
    "ink",
    "load_matplotlib",
    "make_logarithmic",
    "mark_layers",
    "shades",
]

BLACK, BLUE, RED, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE, GREY = "#E69F00", "#56B4E9", "#CC79A7", "#707070"
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Okabe and Ito 2008, in the order in which lines take them; the yellow is left out, it is lost on white paper."""

STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.8,
    "svg.fonttype": "none",
}
LOOK = {
    **STYLE,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "legend.fontsize": "small",
    "legend.frameon": True,
    "legend.framealpha": 1.0,
    "legend.edgecolor": "none",
}
"""Neither names a colour of text or paper, so that a dark style of the user stays dark."""

SIZE = (5.0, 3.4)
"""Inches of a picture with one pair of axes."""
FEW_DECADES = 100.0
"""Largest number over smallest up to which a logarithmic axis has numbers between the powers of ten."""
MOST_NAMED = 8
"""Layers that a legend lists; more of them get a colour bar."""


def load_matplotlib(purpose: str) -> Any:
    """Return matplotlib.

    Parameters
    ----------
    purpose : str
        What it is needed for, as the subject of a sentence.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError:
        raise missing_extra("matplotlib", "plot", purpose) from None
    return matplotlib


@contextmanager
def draw_on(ax: Any, purpose: str, size: tuple[float, float] = SIZE) -> Iterator[Any]:
    """Give the axes to draw on: those of the caller, or new ones in a figure of their own.

    Parameters
    ----------
    ax : matplotlib Axes or None
        What the caller handed in; then it keeps the caller's style.
    purpose : str
        Name of the function, for messages.
    size : (float, float)
        Width and height of a new figure in inches.

    Raises
    ------
    ConfigurationError
        If it is not a pair of axes.
    """
    matplotlib = load_matplotlib(purpose)
    if ax is not None:
        yield _checked(ax, purpose)
        return
    with matplotlib.rc_context(LOOK):
        figure = _new_figure(matplotlib, size)
        ax = figure.add_subplot()
        ax._repr_png_ = figure._repr_png_
        yield ax


@contextmanager
def draw_panels(ax: Any, n: int, purpose: str, size: tuple[float, float], columns: int = 4) -> Iterator[list[Any]]:
    """Give `n` pairs of axes: those of the caller, or a new figure with so many in a grid.

    Parameters
    ----------
    ax : Axes, sequence of Axes, or None
        What the caller handed in: one for each panel.
    n : int
        Number of panels.
    purpose : str
        Name of the function, for messages.
    size : (float, float)
        Width and height of one panel in inches.
    columns : int
        Most panels in a row.

    Raises
    ------
    ConfigurationError
        If there are not as many axes as panels.
    """
    matplotlib = load_matplotlib(purpose)
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != n:
            raise ConfigurationError(
                f"{purpose} draws {n} panel{'s' if n != 1 else ''} and was given {len(given)} axes; hand in one for "
                "each, or leave ax out for a new figure"
            )
        yield [_checked(one, purpose) for one in given]
        return
    # rows as even as possible: 5 panels are 3 and 2, not 4 and 1
    rows = -(-n // columns)
    across = -(-n // rows)
    with matplotlib.rc_context(LOOK):
        figure = _new_figure(matplotlib, (size[0] * across, size[1] * rows))
        yield [figure.add_subplot(rows, across, k + 1) for k in range(n)]


def _checked(ax: Any, purpose: str) -> Any:
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ConfigurationError(
            f"{purpose}: ax is {type(ax).__name__}; axes of matplotlib are needed, such as those of plt.subplots()"
        )
    return ax


def _new_figure(matplotlib: Any, size: tuple[float, float]) -> Any:
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    # a figure without pyplot has no picture in a notebook unless it says how to make one
    figure._repr_png_ = functools.partial(_as_png, figure)
    return figure


def _as_png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def make_logarithmic(ax: Any) -> None:
    """Give axes a logarithmic y axis with short numbers: powers of ten, and 2 and 5 of them where few are in view."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < FEW_DECADES * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def ink(ax: Any) -> Any:
    """Return the colour of text on some axes: black on white paper, white in a dark style."""
    return ax.xaxis.label.get_color()


def shades(n: int) -> list[Any]:
    """Return `n` colours in order, from blue over purple to red, all of them visible on white and on black paper."""
    return [_ramp()(position) for position in (np.linspace(0, 1, n) if n > 1 else [0.0])]


@functools.lru_cache(maxsize=1)
def _ramp() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("bpcore_layers", [BLUE, "#9070C0", RED])


def mark_layers(ax: Any, layers: Sequence[int], title: str = "layer") -> None:
    """Say which line belongs to which layer: a legend for a few, a colour bar for many.

    Parameters
    ----------
    ax : Axes
        With one labelled line for each layer, in the colours of :func:`shades`.
    layers : sequence of int
        Their numbers.
    title : str
        What is numbered.
    """
    if len(layers) <= MOST_NAMED:
        ax.legend(title=title, loc="best", fontsize="small", ncols=1 if len(layers) <= 4 else 2, columnspacing=1.0)
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(layers[0], layers[-1]), _ramp())
    bar = ax.figure.colorbar(scale, ax=ax, label=title, fraction=0.06, pad=0.02)
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
