"""Pictures of a result, with matplotlib (extra ``plot``): throughput, roofline, parts of a step, operations.

Each drawing function takes axes and returns what has to be said below the picture. Nothing here touches ``pyplot``, so
no window and no display is needed.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bpcore.bench.plot_axes import (
    CROSS_WORDS,
    CROSSED,
    RANKED,
    batch_ticks,
    giga,
    legend,
    log_ticks,
    look,
    mark_point,
    names_of,
)
from bpcore.bench.plot_bars import operations, parts
from bpcore.bench.words import number
from bpcore.errors import ConfigurationError
from bpcore.persistence.atomic import write_atomically
from bpcore.plots.style import STYLE, load_matplotlib

__all__ = ["operations", "parts", "roofline", "save_plots", "throughput"]

SMALL = 0.88
"""Size of letters inside of a picture, as a share of those at its axes."""
CLOSE = 4.0
"""Roofs that differ by less are close."""

FORMATS = (".png", ".svg", ".pdf")

Network = Mapping[str, Any]
Row = Mapping[str, Any]


# ---------------------------------------------------------------- throughput


def throughput(network: Network, ax: Any) -> str:
    """Draw samples per second over the batch size, a line for each contender with its quartiles as a band.

    Parameters
    ----------
    network : mapping
        Part of a result for one network.
    ax : matplotlib Axes
        Where it is drawn.

    Returns
    -------
    str
        What has to be said about it.

    Notes
    -----
    Noisy points are hollow. What is not ranked is a cross outside of the line. Vertical lines are the batch sizes from
    which on one contender is faster than the one that is the best before.
    """
    cells, seen = network["cells"], set()
    for name in names_of(cells):
        colour, marker = look(name)
        rows = [cell["contenders"].get(name, {}) for cell in cells]
        valid = [row if row.get("status") in RANKED else None for row in rows]
        batches = [cell["batch"] for cell in cells]
        if any(valid):
            rates = [row["samples_per_second"] if row else math.nan for row in valid]
            ax.plot(batches, rates, color=colour, label=name)
            quartiles = [_quartile_rates(row, batch) for row, batch in zip(valid, batches, strict=True)]
            low, high = zip(*quartiles, strict=True)
            ax.fill_between(batches, low, high, color=colour, alpha=0.22, linewidth=0)
        for row, batch in zip(rows, batches, strict=True):
            if "samples_per_second" in row:
                seen.add(row["status"])
                mark_point(ax, batch, row["samples_per_second"], row["status"], colour, marker)
    ax.set(xscale="log", yscale="log", xlabel="batch size", ylabel="samples/s")
    batch_ticks(ax, [cell["batch"] for cell in cells])
    log_ticks(ax.yaxis)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    _mark_crossovers(network, ax)
    legend(ax, names_of(cells), seen)
    said = ["Lines are medians, bands go from the first to the third quartile of all rounds."]
    if "noisy" in seen:
        said.append("Hollow: noisy, the rounds scatter by more than 15\N{NO-BREAK SPACE}%.")
    crosses = {status: mark for status, mark in CROSSED.items() if status in seen}
    said += [f"{mark}: {status}, not ranked: {CROSS_WORDS[status]}." for status, mark in crosses.items()]
    return " ".join(said)


def _quartile_rates(row: Row | None, batch: int) -> tuple[float, float]:
    if row is None:
        return math.nan, math.nan
    times = row["us_per_step"]
    return 1e6 * batch / times["q3"], 1e6 * batch / times["q1"]


def _mark_crossovers(network: Network, ax: Any) -> None:
    """Mark where a contender overtakes the one that is the best before it."""
    order = [part["best"] for part in network["winners"]]
    overtaking = {(after, before) for before, after in pairwise(order)}
    labels: dict[int, list[str]] = {}
    for found in network["crossovers"]:
        where = found["from_batch"]
        if where is not None and (found["contender"], found["over"]) in overtaking:
            labels.setdefault(where, []).append(f"{found['contender']} over {found['over']}")
    ink, size = ax.xaxis.label.get_color(), SMALL * ax.xaxis.label.get_size()
    for batch, pairs in labels.items():
        ax.axvline(batch, color=ink, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.7)
        # at the bottom right of a rising curve there is room
        ax.text(
            batch, 0.02, f" {', '.join(pairs)} from {batch}", transform=ax.get_xaxis_transform(), rotation=90,
            ha="right", va="bottom", fontsize=size,
            bbox={"facecolor": ax.get_facecolor(), "edgecolor": "none", "alpha": 0.55, "pad": 0.5},
        )  # fmt: skip


# ---------------------------------------------------------------- roofline


def roofline(result: Mapping[str, Any], network: Network, ax: Any) -> str:
    """Draw GFLOP/s over operations per byte, below the roofs that memory and products set.

    Parameters
    ----------
    result : mapping
        A result; the roofs are from its contenders.
    network : mapping
        The part of it for one network.
    ax : matplotlib Axes
        Where it is drawn.

    Returns
    -------
    str
        What has to be said about it.
    """
    seen, reach = set(), []
    for name in names_of(network["cells"]):
        colour, marker = look(name)
        points = []
        for cell in network["cells"]:
            row = cell["contenders"].get(name, {})
            if row.get("status") in RANKED and cell["bytes"] and cell["flops"]:
                points.append((cell["flops"] / cell["bytes"], row["gflops"], row["status"]))
        if points:
            ax.plot([x for x, _, _ in points], [y for _, y, _ in points], color=colour, linewidth=0.9, alpha=0.8)
        for x, y, status in points:
            seen.add(status)
            reach.append(x)
            mark_point(ax, x, y, status, colour, marker)
    ax.set(xscale="log", yscale="log", xlabel="FLOP/byte", ylabel="GFLOP/s")
    _draw_roofs(ax, _roofs(result, names_of(network["cells"])), reach)
    log_ticks(ax.xaxis, number)
    log_ticks(ax.yaxis)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    legend(ax, names_of(network["cells"]), seen)
    return (
        "Each point is a batch size, growing along the line from left to right. Operations are those of the matrix "
        "products; bytes are what a step moves if nothing stays in a cache. Data that do stay there put a point above "
        "the slanted roof, which is the speed of memory; the flat roof is the best product of square matrices."
    )


def _roofs(result: Mapping[str, Any], names: Iterable[str]) -> dict[tuple[float, float], list[str]]:
    """Return who works below which roof: GFLOP/s and GB/s; memory is that of the device, whoever copied fastest."""
    contenders, memory = result["contenders"], dict[str, float]()
    for facts in contenders.values():
        device = facts.get("device", "")
        memory[device] = max(memory.get(device, 0.0), facts.get("gb_per_second") or 0.0)
    found: dict[tuple[float, float], list[str]] = {}
    for name in names:
        facts = contenders.get(name, {})
        peak, speed = facts.get("peak_gflops") or 0.0, memory.get(facts.get("device", ""), 0.0)
        if peak > 0:
            found.setdefault((peak, speed), []).append(name)
    return found


def _draw_roofs(ax: Any, roofs: Mapping[tuple[float, float], Sequence[str]], reach: Sequence[float]) -> None:
    ridges = [peak / speed for peak, speed in roofs if speed > 0]
    left, right = min([*reach, *ridges], default=0.1) / 2, max([*reach, *ridges], default=10.0) * 8
    ax.set_xlim(left, right)
    ink, said, above = ax.xaxis.label.get_color(), set(), math.inf
    size = SMALL * ax.xaxis.label.get_size()
    for (peak, speed), names in sorted(roofs.items(), reverse=True):
        # a roof of one contender has its colour, a shared one that of the text
        colour = look(names[0])[0] if len(names) == 1 and len(roofs) > 1 else ink
        start = min(max(peak / speed, left), right) if speed > 0 else left
        ax.plot([start, right], [peak, peak], color=colour, linewidth=1.2)
        if speed > 0:
            ax.plot([left, start], [left * speed, start * speed], color=colour, linewidth=1.2)
        words = giga(peak, "FLOP/s")
        if speed > 0 and speed not in said:  # once for a device, and above all points, where there is room
            words += f", memory {giga(speed, 'B/s')}"
            said.add(speed)
        # below its line where the next roof is close
        ax.text(right, peak, words, ha="right", va="bottom" if above / peak > CLOSE else "top", fontsize=size)
        above = peak
    if roofs:
        ax.set_ylim(top=4 * max(peak for peak, _ in roofs))


# ---------------------------------------------------------------- a file


def save_plots(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write one picture of everything: a row for each network with throughput, roofline and parts.

    Parameters
    ----------
    result : mapping
        Of a sweep, or of single operations.
    path : str or PathLike
        The file; PNG, SVG or PDF by its extension. Its folder must exist.

    Raises
    ------
    ConfigurationError
        If the extension is another one.
    MissingExtraError
        If matplotlib is not installed.
    ModelFileError
        If the file cannot be written; an existing one is unchanged then.
    """
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        raise ConfigurationError(f"plots can be written as {', '.join(FORMATS)}, not as {os.fspath(path)}")
    matplotlib = load_matplotlib("a file of plots")
    data = io.BytesIO()
    # PDF and SVG carry a date, which would make two files of one result differ
    metadata = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[extension]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "bpcore"}):
        _whole_figure(matplotlib, result).savefig(data, format=extension[1:], dpi=150, metadata=metadata)
    write_atomically(path, data.getvalue())


def _whole_figure(matplotlib: Any, result: Mapping[str, Any]) -> Any:
    networks = [network for network in result["networks"] if network["cells"]]
    rows = result.get("operations") or []
    heights = [4.6] * len(networks) + ([1.5 + 0.16 * len(rows) * len(names_of(rows))] if rows else [])
    columns = 3 if any(network["parts"] for network in networks) else 2
    figure = matplotlib.figure.Figure(figsize=(5.2 * columns, sum(heights) or 2.0), layout="constrained")
    if not heights:
        figure.text(0.5, 0.5, "nothing was measured", ha="center", va="center")
        return figure
    bands = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for band, network in zip(bands, networks, strict=False):
        band.suptitle(f"{network['name']}: {'-'.join(map(str, network['sizes']))}", weight="bold")
        axes = band.subplots(1, columns)
        drawings: list[Any] = [throughput, lambda found, ax: roofline(result, found, ax)]
        if network["parts"].get("contenders"):
            drawings.append(parts)
        for ax, draw in zip(axes, drawings, strict=False):
            _say_below(ax, draw(network, ax))
        for ax in axes[len(drawings) :]:
            ax.set_axis_off()
    if rows:
        ax = bands[-1].subplots()
        _say_below(ax, operations(result, ax))
    return figure


def _say_below(ax: Any, caption: str) -> None:
    ax.set_xlabel(f"{ax.get_xlabel()}\n\n{textwrap.fill(caption, 68)}")
