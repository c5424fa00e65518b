"""Pictures of a result that consist of bars: the parts of a training step, and single operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bpcore.bench.plot_axes import RANKED, above, log_ticks, look, names_of
from bpcore.bench.words import number
from bpcore.bench.workload import PARTS

__all__ = ["operations", "parts"]

PART_COLOURS = dict(
    zip(PARTS, ("#8a8a8a", "#2a93dd", "#c18a00", "#cf4520", "#d255b0", "#8e44cc", "#0f9f78"), strict=True)
)

UNEQUAL = 10.0
"""From how many times the shortest bar on, bars of parts are drawn relative to their own length."""


def parts(network: Mapping[str, Any], ax: Any) -> str:
    """Draw where the time of a training step goes: a stacked bar for each contender.

    Parameters
    ----------
    network : mapping
        Part of a result for one network, with parts.
    ax : matplotlib Axes
        Where it is drawn.

    Returns
    -------
    str
        What has to be said about it.
    """
    from matplotlib.patches import Patch

    contenders, ink = network["parts"]["contenders"], ax.xaxis.label.get_color()
    sums = {name: math.fsum(found["us"].get(part, 0.0) for part in PARTS) for name, found in contenders.items()}
    steps = {name: found["us"]["step"] for name, found in contenders.items()}
    totals = {name: max(sums[name], steps[name]) for name in contenders}
    relative = max(totals.values()) > UNEQUAL * min(totals.values())
    handles: dict[str, Any] = {}
    for y, (name, found) in enumerate(contenders.items()):
        unit, left = totals[name] / 100 if relative else 1.0, 0.0
        for part in (part for part in PARTS if part in found["us"]):
            width = found["us"][part] / unit
            ax.barh(y, width, 0.62, left, color=PART_COLOURS[part], edgecolor=ax.get_facecolor(), linewidth=0.7)
            handles.setdefault(part, Patch(facecolor=PART_COLOURS[part], label=part))
            left += width
        if steps[name] > sums[name]:
            rest = steps[name] / unit - left
            ax.barh(y, rest, 0.62, left, facecolor="none", edgecolor=ink, hatch="////", linewidth=0.7)
        else:
            ax.plot([steps[name] / unit] * 2, [y - 0.42, y + 0.42], color=ink, linewidth=2)
    labels = [f"{name}\n{number(steps[name])} µs" for name in contenders]
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("share of the bar (%)" if relative else "µs")
    ax.set_xlim(left=0)
    ax.grid(True, axis="x", alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    rest_patch = Patch(facecolor="none", edgecolor=ink, hatch="////", label="rest")
    above(ax, [*(handles[part] for part in PARTS if part in handles), rest_patch], 4, "right")
    return " ".join(_words_of_parts(network["parts"], sums, steps, relative))


def _words_of_parts(
    found: Mapping[str, Any], sums: Mapping[str, float], steps: Mapping[str, float], relative: bool
) -> Iterable[str]:
    yield f"One step at batch size {found['batch']}; the rest is what the step takes besides its parts."
    if relative:
        yield "The steps differ too much for one scale, so each bar is drawn relative to its own length."
    over = [f"{name} {number(sums[name])} of {number(steps[name])} µs" for name in sums if sums[name] > steps[name]]
    if over:
        yield (
            f"Parts that take longer than the whole step, which a thick stroke marks ({', '.join(over)}): called one "
            "by one they lose what doing them jointly saves. Called again and again, they find their data in caches."
        )


def operations(result: Mapping[str, Any], ax: Any) -> str:
    """Draw how many times as fast as NumPy each operation is: a bar for each contender, from 1 on.

    Parameters
    ----------
    result : mapping
        A result of single operations.
    ax : matplotlib Axes
        Where it is drawn.

    Returns
    -------
    str
        What has to be said about it.
    """
    from matplotlib.patches import Patch

    rows = result["operations"]
    names = [name for name in names_of(rows) if name != "numpy"]
    height, shown, noisy = 0.8 / max(len(names), 1), set(), False
    for y, operation in enumerate(rows):
        for k, name in enumerate(names):
            row = operation["contenders"].get(name, {})
            if row.get("status") not in RANKED or not row.get("over_numpy"):
                continue
            shown.add(name)
            noisy |= row["status"] == "noisy"
            colour, where = look(name)[0], y - 0.4 + (k + 0.5) * height
            face = ax.get_facecolor() if row["status"] == "noisy" else colour
            ax.barh(where, row["over_numpy"] - 1, 0.9 * height, 1, color=face, edgecolor=colour, linewidth=1)
    ink = ax.xaxis.label.get_color()
    ax.axvline(1, color=ink, linewidth=1)
    ax.set(xscale="log", xlabel="times as fast as NumPy")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.5), max(high, 2))
    log_ticks(ax.xaxis, number)
    labels = [f"{row['name']} {' '.join(f'{k}={v}' for k, v in row['sizes'].items())}" for row in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(True, axis="x", alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)
    handles = [Patch(color=look(name)[0], label=name) for name in names if name in shown]
    if noisy:
        handles.append(Patch(facecolor=ax.get_facecolor(), edgecolor=ink, label="noisy"))
    if handles:
        above(ax, handles, 5, "right")
    return "Bars to the right of 1 are faster than NumPy, bars to the left are slower."
