"""The figures as words: the cells of a table, for the screen and for the documentation."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.peers import results
from benchmarks.peers.adapters import CONTESTANTS
from bpcore.bench.words import number, rate

COLUMNS = (
    "contestant",
    "µs a step",
    "quartiles",
    "samples/s",
    "GFLOP/s",
    "of sgemm peak",
    "times bpcore's",
    "times the best peer's",
    "prepared in s",
    "off float64 by",
)
SHORT = ("", "µs", "quartiles", "samples/s", "GFLOP/s", "of peak", "/bpcore", "/best", "prep. s", "off by")
"""The same for the screen."""

WIDE = 130
"""Characters that the whole table needs; on a narrower screen `LESS` is shown."""

LESS = (0, 1, 3, 5, 6, 7, 8)

SLEEPS_BELOW = 0.02
"""Share of a core that a waiting worker may use before the report says so."""


def order_of(found: dict[str, Any]) -> list[str]:
    """Contestants: the ranked ones first, then those that have times, then the rest."""
    rows = found["contestants"]
    unranked = [name for name in rows if name not in found["ranking"]]
    return [*found["ranking"], *sorted(unranked, key=lambda name: "us_per_step" not in rows[name])]


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """One row of a table, of a contestant that has times."""
    times = row["us_per_step"]
    parity = row.get("parity", {})
    known = [value for value in parity.values() if value is not None]
    off = "" if not parity else f"{max(known):.0e}" if len(known) == len(parity) else "not finite"
    if row["status"] == results.DIFFERS:
        off += " (not ranked)"
    return [
        name if CONTESTANTS[name].ranked else f"{name} (floor)",
        number(times["median"]),
        f"{number(times['q1'])} to {number(times['q3'])}",
        rate(row["samples_per_second"]),
        number(row["gflops"]),
        "" if row["of_peak"] is None else f"{100 * row['of_peak']:.1f} %",
        number(row["over_bpcore"]),
        number(row["over_best_peer"]),
        number(row["seconds_to_prepare"], 2),
        off,
    ]


def against(value: float | None, goal: float) -> str:
    """A ratio and its goal."""
    if value is None:
        return "not measured"
    if not goal:
        return f"{value:.2f}"
    return f"{value:.2f} (goal {goal:g}: {'reached' if value >= goal else 'missed'})"


def call_time(found: dict[str, Any]) -> str:
    """bpcore's time and its goal, where the goal is a time."""
    row, goal = found["contestants"].get("bpcore", {}), found["goals"]["at_most_us"]
    if "us_per_step" not in row:
        return "not measured"
    time = row["us_per_step"]["median"]
    if not goal:
        return number(time)
    return f"{number(time)} (goal at most {goal:g}: {'reached' if time <= goal else 'missed'})"


def headline(found: dict[str, Any]) -> list[str]:
    """bpcore's time, the best peer, and bpcore as a multiple of its and of PyTorch's speed."""
    best = found["best_peer"]
    peer = f"{best}, {number(found['contestants'][best]['us_per_step']['median'])}" if best else "none"
    goals = found["goals"]
    return [
        call_time(found),
        peer,
        against(found["over_best"], goals["over_best"]),
        against(found["over_torch"], goals["over_torch"]),
    ]


def cost(found: dict[str, Any]) -> str:
    """What a step is."""
    flops, size = found["flops"], found["bytes"]
    what = "step" if found["kind"] == "train" else "call"
    return (
        f"{found['batch']} samples a {what}, {number(flops / 1e6)} MFLOP of products, {number(size / 1e6)} MB moved if "
        "nothing stays in cache"
    )


def restless(found: dict[str, Any]) -> list[str]:
    """Contestants whose threads did not sleep while others were measured."""
    rows = found["contestants"].items()
    return [name for name, row in rows if (row.get("idle_load") or 0) > SLEEPS_BELOW]


def show(console: Console, threads: int, workload: str, found: dict[str, Any]) -> None:
    """Print the table of one workload."""
    console.rule(f"{workload}, threads: {threads}", align="left")
    console.print(cost(found), highlight=False)
    shown = range(len(COLUMNS)) if console.width >= WIDE else LESS
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for k in shown:
        table.add_column(SHORT[k], justify="right" if k else "left", no_wrap=True)
    rows = found["contestants"]
    timed = [name for name in order_of(found) if "us_per_step" in rows[name]]
    for name in timed:
        row = cells(name, rows[name])
        table.add_row(*(row[k] for k in shown))
    console.print(table)
    for name in rows:
        if name not in timed:
            console.print(f"{name} {rows[name]['status']}: {rows[name]['why']}", markup=False, highlight=False)
    time, best, over_best, over_torch = headline(found)
    console.print(f"bpcore's µs: {time}; the best peer's: {best}", highlight=False)
    console.print(
        f"bpcore's speed over the best peer's: {over_best}; over PyTorch eager's: {over_torch}", highlight=False
    )
    for name in restless(found):
        console.print(f"{name} kept a core busy while others were measured", style="red")
