"""What the pictures of a result share: colours and markers, points, ticks and legends."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bpcore.bench.words import number, rate

__all__ = [
    "CROSSED", "CROSS_WORDS", "RANKED", "above", "batch_ticks", "giga", "legend", "log_ticks", "look", "mark_point",
    "names_of",
]  # fmt: skip

LOOKS = {
    "numpy": ("#808080", "o"),
    "numba": ("#1a8fe0", "s"),
    "cupy": ("#d1480c", "^"),
    "cupy:tf32": ("#8f45d6", "D"),
    "cupy:tf32x3": ("#2f8f4e", "X"),
    "cupy:bf16": ("#c48a00", "v"),
    "cupy:fp16": ("#e0499f", "P"),
}
"""Colour and marker of a contender. The colours have a contrast of 3 to white and to black paper; markers differ too,
so that nothing depends on telling colours apart."""

RANKED, CROSSED = ("ok", "noisy"), {"differs": "x", "suspect": "+"}
CROSS_WORDS = {"differs": "computes something else than the witness", "suspect": "above the measured peak"}


def look(name: str) -> tuple[str, str]:
    """Return the colour and the marker of a contender, always the same for the same name.

    Examples
    --------
    >>> look("numba")
    ('#1a8fe0', 's')
    """
    return LOOKS.get(name) or list(LOOKS.values())[zlib.crc32(name.encode()) % len(LOOKS)]


def giga(value: float, unit: str) -> str:
    """Write a number of thousand millions, or of a thousand times as many.

    Examples
    --------
    >>> giga(480.2, "FLOP/s"), giga(2900, "B/s")
    ('480 GFLOP/s', '2.9 TB/s')
    """
    return f"{number(value / 1e3)} T{unit}" if value >= 999.5 else f"{number(value)} G{unit}"


def names_of(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the contenders of some cells, in the order in which they come.

    Examples
    --------
    >>> names_of([{"contenders": {"numpy": {}}}, {"contenders": {"numpy": {}, "numba": {}}}])
    ['numpy', 'numba']
    """
    return list(dict.fromkeys(name for cell in cells for name in cell["contenders"]))


def mark_point(ax: Any, x: float, y: float, status: str, colour: str, marker: str) -> None:
    """Draw one point: filled, hollow if it is noisy, a cross if it is not ranked."""
    paper = ax.get_facecolor()
    ax.plot(
        [x],
        [y],
        linestyle="",
        marker=CROSSED.get(status, marker),
        color=colour,
        markerfacecolor=paper if status == "noisy" else colour,
        markeredgewidth=1.2,
        markersize=7 if status in CROSSED else None,
    )


def legend(ax: Any, names: Sequence[str], statuses: Iterable[str]) -> None:
    """Put the names above the picture, and what hollow points and crosses are, where there are any."""
    from matplotlib.lines import Line2D

    ink, drawn = ax.xaxis.label.get_color(), {line.get_color() for line in ax.lines}
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name)
        for name in names
        for colour, marker in [look(name)]
        if colour in drawn
    ]
    plain = {"color": ink, "linestyle": ""}
    if "noisy" in statuses:
        handles.append(Line2D([], [], marker="o", markerfacecolor=ax.get_facecolor(), label="noisy", **plain))
    for status, mark in CROSSED.items():
        if status in statuses:
            handles.append(Line2D([], [], marker=mark, label=status, **plain))
    if handles:
        above(ax, handles, 3)


def above(ax: Any, handles: Sequence[Any], columns: int, side: str = "left") -> None:
    """Put a legend above the picture, in so many columns."""
    ax.legend(
        handles=handles, loc=f"lower {side}", bbox_to_anchor=(side == "right", 1), ncols=columns, frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2, handlelength=1.6, handletextpad=0.5, borderpad=0.2, fontsize="medium",
    )  # fmt: skip


def batch_ticks(ax: Any, batches: Sequence[int]) -> None:
    """Label batch sizes, as many as have room."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    if not batches:
        return
    room = max(math.log(batches[-1] / batches[0]) / 6.5, 0.05)
    shown = [batches[0]]
    for batch in batches:
        if math.log(batch / shown[-1]) >= room:
            shown.append(batch)
    ax.set_xlim(batches[0] / 1.5, batches[-1] * 1.5)
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    ax.xaxis.set_minor_locator(FixedLocator([batch for batch in batches if batch not in shown]))
    ax.xaxis.set_minor_formatter(NullFormatter())


def log_ticks(axis: Any, write: Callable[[float], str] = rate) -> None:
    """Label decades as numbers with k and M; less than two decades get 2 and 5 as well."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if high / max(low, 1e-300) > 300 else (1.0, 2.0, 5.0) if high / low > 4 else tuple(range(1, 10))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(lambda value, _: write(value))
    axis.set_minor_formatter(NullFormatter())
