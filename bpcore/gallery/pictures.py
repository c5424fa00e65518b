"""How the pictures of the gallery become files; they look as all pictures do (:mod:`bpcore.plots.style`).

Nothing here touches ``pyplot``, so no window and no display is needed.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import unknown
from bpcore.gallery.example import Example, Report
from bpcore.persistence.atomic import write_atomically
from bpcore.plots.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    LOOK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    load_matplotlib,
)
from bpcore.typing import FloatArray

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "FORMATS",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "arrows",
    "save_pictures",
]

FORMATS = ("png", "svg")


def save_pictures(example: Example, report: Report, folder: str | os.PathLike[str], format: str = "png") -> list[Path]:
    """Draw the pictures of an example into files.

    Parameters
    ----------
    example : Example
        Gives the names of the files: ``r07-saturated-neuron-outputs.png``.
    report : Report
        What it found.
    folder : str or PathLike
        Where the files go; made if it is not there.
    format : ``"png"`` or ``"svg"``
        Default PNG.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    UnknownNameError
        If the format is another one.
    MissingExtraError
        If matplotlib is not installed.
    ModelFileError
        If a file cannot be written.
    """
    if format not in FORMATS:
        raise unknown("format of pictures", format, FORMATS)
    matplotlib = load_matplotlib("a picture of the gallery")
    from cycler import cycler

    target, paths = Path(folder), []
    # an SVG carries a date, and random names, which would make two files of one picture differ
    metadata = {"png": {}, "svg": {"Date": None}}[format]
    look = {**LOOK, "svg.hashsalt": "bpcore", "axes.prop_cycle": cycler(color=COLOURS)}
    for picture in report.pictures:
        data = io.BytesIO()
        with matplotlib.rc_context(look):
            figure = matplotlib.figure.Figure(figsize=picture.size, layout="constrained")
            picture.draw(figure)
            figure.savefig(data, format=format, dpi=144, metadata=metadata)
        target.mkdir(parents=True, exist_ok=True)
        paths.append(target / f"r{example.number:02d}-{example.name}-{picture.name}.{format}")
        write_atomically(paths[-1], data.getvalue())
    return paths


def arrows(ax: Any, x: FloatArray, y: FloatArray, colour: str, **options: Any) -> None:
    """Draw a path of points with an arrow from each to the next; options are those of ``plot``."""
    ax.plot(x, y, marker="o", linestyle="", color=colour, markersize=4, zorder=3, **options)
    for k in range(len(x) - 1):
        if np.hypot(x[k + 1] - x[k], y[k + 1] - y[k]) > 0:
            ax.annotate(
                "", (x[k + 1], y[k + 1]), (x[k], y[k]), zorder=2,
                arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 2, "shrinkB": 2, "linewidth": 1.1},
            )  # fmt: skip
