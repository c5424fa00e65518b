"""A result as words and tables, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bpcore.bench.words import answer, number, rate

__all__ = ["network_table", "operations_table", "span", "words_of_crossovers"]

MARKS = {"noisy": "~", "differs": "wrong", "suspect": "?", "skipped": "-", "failed": "failed"}
"""What stands beside or instead of a figure."""

MEANINGS = {
    "noisy": "~ noisy: the rounds scatter by more than 15 %",
    "differs": "wrong: it computes something else than the float64 witness, and is not ranked",
    "suspect": "? above the measured peak, so something is wrong with the figure; not ranked",
    "skipped": "- not measured",
    "failed": "failed: see below",
}


def span(first: int, last: int) -> str:
    """Write a range of batch sizes."""
    return f"at batch size {first}" if first == last else f"from batch size {first} to {last}"


def words_of_crossovers(network: Mapping[str, Any]) -> Iterable[str]:
    """Say from which batch size on each contender is faster than each other one, where it is."""
    cells = [cell["batch"] for cell in network["cells"]]
    for found in network["crossovers"]:
        if found["from_batch"] is None:
            continue
        everywhere = found["from_batch"] == cells[0]
        where = "at every batch size" if everywhere else f"from batch size {found['from_batch']} on"
        yield f"{found['contender']} is faster than {found['over']} {where}"


def network_table(network: Mapping[str, Any]) -> RenderableType:
    """Return the table of one network: a row for each batch size, samples a second of each contender."""
    how = f"{network['activation']}, {network['output']}; {network['loss']}, {network['optimizer']}"
    title = f"{network['name']}: {'-'.join(map(str, network['sizes']))}"
    table = Table(header_style="", box=None, pad_edge=False)
    names = list(network["cells"][0]["contenders"]) if network["cells"] else []
    table.add_column("batch", justify="right")
    for name in names:
        table.add_column(f"{name}\nsamples/s", justify="right")
        if name != "numpy":
            table.add_column("\nx numpy", justify="right")
    for head in ("best", "best\nus/step", "best\nof peak"):
        table.add_column(head, justify="left" if head == "best" else "right")
    seen: dict[str, None] = {}
    for cell in network["cells"]:
        table.add_row(*_cells(cell, names, seen))
    lines: list[RenderableType] = [Text.assemble((title, "bold"), f"  {how}"), table]
    lines.append(Text(answer(network), style="green"))
    lines += [Text(f"{words}.") for words in words_of_crossovers(network)]
    lines += [Text(MEANINGS[status], style="dim") for status in MEANINGS if status in seen]
    lines += [Text(text, style="dim") for text in _reasons(network)]
    return Group(*lines, Text())


def _cells(cell: Mapping[str, Any], names: Iterable[str], seen: dict[str, None]) -> list[str]:
    texts, rows = [str(cell["batch"])], cell["contenders"]
    for name in names:
        row = rows[name]
        status = row["status"]
        if status != "ok":
            seen[status] = None
        mark = MARKS.get(status, "")
        shown = "us_per_step" in row and status in ("ok", "noisy", "suspect")
        value = rate(row["samples_per_second"]) if shown else ""
        texts.append(f"{value} {mark}".strip())
        if name != "numpy":
            texts.append(number(row.get("over_numpy")) if shown else "")
    best = cell["best"]
    if best is None:
        return [*texts, "", "", ""]
    row = rows[best]
    tie = f" = {', '.join(cell['ties'])}" if cell["ties"] else ""
    share = "" if row["of_peak"] is None else f"{100 * row['of_peak']:.2g} %"
    return [*texts, best + tie, number(row["us_per_step"]["median"]), share]


def _reasons(network: Mapping[str, Any]) -> Iterable[str]:
    """Say why something has no figure or no rank; for neighbours with a reason of the same kind the first is given."""
    found: dict[tuple[str, str], tuple[str, list[int]]] = {}
    for cell in network["cells"]:
        for name, row in cell["contenders"].items():
            if row["status"] in ("skipped", "failed", "differs"):
                kind = row["why"].split(" about ")[0]  # what follows is an amount
                found.setdefault((name, kind), (row["why"], []))[1].append(cell["batch"])
    everything = [cell["batch"] for cell in network["cells"]]
    for (name, _), (why, batches) in found.items():
        between = [batch for batch in everything if batches[0] <= batch <= batches[-1]]
        some = "" if batches == between else f"some batch sizes {batches[0]} to {batches[-1]}"
        yield f"{name} {f'at {some}' if some else span(batches[0], batches[-1])}: {why}"


def operations_table(result: Mapping[str, Any]) -> RenderableType:
    """Return the table of all operations: microseconds of a call, and of the best its rates."""
    names = list(result["operations"][0]["contenders"]) if result["operations"] else []
    table = Table(header_style="", box=None, pad_edge=False)
    table.add_column("operation", no_wrap=True)
    table.add_column("sizes", no_wrap=True)
    for name in names:
        table.add_column(f"{name}\nus", justify="right")
        if name != "numpy":
            table.add_column("\nx numpy", justify="right")
    for head in ("best", "best\nGFLOP/s", "best\nGB/s"):
        table.add_column(head, justify="left" if head == "best" else "right")
    seen: dict[str, None] = {}
    for part in result["operations"]:
        sizes = " ".join(f"{letter}={size}" for letter, size in part["sizes"].items())
        texts, rows = [part["name"], sizes], part["contenders"]
        for name in names:
            row = rows[name]
            if row["status"] != "ok":
                seen[row["status"]] = None
            shown = row["status"] in ("ok", "noisy", "suspect")
            mark = MARKS.get(row["status"], "")
            texts.append(f"{number(row['us_per_step']['median']) if shown else ''} {mark}".strip())
            if name != "numpy":
                texts.append(number(row.get("over_numpy")) if shown else "")
        best = part["best"]
        if best is None:
            table.add_row(*texts, "", "", "")
            continue
        tie = f" = {', '.join(part['ties'])}" if part["ties"] else ""
        gflops = number(rows[best]["gflops"]) if part["flops"] else ""
        table.add_row(*texts, best + tie, gflops, number(rows[best]["gb_per_second"]))
    notes = [Text(MEANINGS[status], style="dim") for status in MEANINGS if status in seen]
    return Group(table, *notes, Text())
