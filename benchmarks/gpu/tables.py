"""Two tables of the result as Markdown: what kernels do with the GPU, and which plan is the fastest where."""

from __future__ import annotations

import re
from typing import Any

from bpcore.bench.words import number
from bpcore.tuning import spell

__all__ = ["counters", "crossovers"]

SHARES = {
    "fma_percent": "FMA", "tensor_percent": "tensor", "shared_percent": "shared", "l2_percent": "L2",
    "memory_percent": "memory", "issue_percent": "issue", "busy_percent": "busy",
}  # fmt: skip
LONGEST_NAME = 48


def table(head: list[str], rows: list[list[str]], words: int = 1) -> list[str]:
    """Lines of a table; all columns but the first ones are numbers."""
    lines = ["", "| " + " | ".join(head) + " |", "|---" * words + "|---:" * (len(head) - words) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def counters(part: dict[str, Any]) -> list[str]:
    """For each target its kernels, in the order in which they were launched."""
    lines = ["", "## What the kernels do with the GPU", ""]
    if not part.get("targets"):
        return [*lines, f"Not measured: {part.get('why', part['status'])}."]
    lines += [
        "By the counters of the GPU, through ncu, at the clock of the moment and with caches as the step before left",
        "them. FMA, tensor cores, shared memory and issue slots: percent of the peak of the multiprocessors that work,",
        "while they work. L2 and memory: percent of the peak of the device. Busy: percent of all multiprocessors and",
        "of the time. Stalls: what a warp waits for between two instructions, in percent of that time.",
    ]
    head = ["kernel", "stalls", "µs", *SHARES.values(), "occupancy (possible)", "registers", "grid x block"]
    for name, found in part["targets"].items():
        steps = found.get("steps", 0)
        lines += ["", f"**{name}**" + (f", {steps} steps" if steps > 1 else "")]
        if found["status"] != "ok":
            lines += ["", f"{found['status'].capitalize()}: {found['why']}."]
        if found["kernels"]:
            lines += table(head, [_launch(kernel) for kernel in found["kernels"]], words=2)
    return lines


def _launch(kernel: dict[str, Any]) -> list[str]:
    shares = [_figure(kernel[name]) for name in SHARES]
    occupancy = f"{_figure(kernel['occupancy_percent'])} ({_figure(kernel['possible_occupancy_percent'])})"
    stalls = ", ".join(f"{why} {share:.0f}" for why, share in kernel["stalls"])
    size = " x ".join(re.sub("(,1)+$", "", kernel[word]) for word in ("grid", "block"))
    name = kernel["kernel"].replace("|", "/")[:LONGEST_NAME]
    return [name, stalls, _figure(kernel["us"]), *shares, occupancy, _figure(kernel["registers"]), size]


def _figure(value: float | None) -> str:
    return "" if value is None else number(value)


def crossovers(part: dict[str, Any]) -> list[str]:
    """What is the fastest beside what is chosen, by the size of a step."""
    lines = ["", "## Which plan is the fastest where", ""]
    rows = [row for row in part.get("rows", []) if row["us"]]
    if not rows:
        return [*lines, f"Not measured: {part.get('why', part['status'])}."]
    chosen_by = part["chosen_by"]
    right = sum(row.get("fastest") == row["chosen"] for row in rows)
    worst = max((row.get("over_fastest", 1.0) for row in rows), default=1.0)
    lines += [
        f"What is chosen was the fastest for {right} of {len(rows)} points ({part['of']} in all), and takes at most "
        f"{worst:.2f} times as long as what was.",
        f"Chosen in float32: persistent up to {spell(chosen_by['persistent_up_to_flops'])} where it fits, wide from "
        f"{spell(chosen_by['wide_from_flops'])} on.",
    ]
    if part["ranges"]:
        found = ", ".join(f"{row['best']} from {spell(row['from_flops'])}" for row in part["ranges"])
        lines[-1] += f" Measured: {found}."
    plans = list(dict.fromkeys(name for row in rows for name in row["us"]))
    head = ["network", "precision", "chosen", "fastest", "batch", "step", *(f"{plan} µs" for plan in plans)]
    shown = [
        [
            "-".join(map(str, row["sizes"])), row["precision"], row["chosen"] or "",
            row["fastest"] if row["fastest"] == row["chosen"] else f"**{row['fastest']}**", str(row["batch"]),
            spell(row["flops"]), *(_figure(row["us"].get(plan)) for plan in plans),
        ]
        for row in sorted(rows, key=lambda row: (row["precision"], row["flops"]))
    ]  # fmt: skip
    lines += table(head, shown, words=4)
    failed = [
        (row, name, why) for row in part["rows"] for name, why in row["refused"].items() if why.startswith("failed")
    ]
    lines += [""] * bool(failed)
    return lines + [
        f"- {'-'.join(map(str, row['sizes']))}, batch {row['batch']}, {name}: {why}" for row, name, why in failed
    ]
