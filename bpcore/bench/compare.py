"""Several results side by side: machines, commits or settings, with marks where the difference is more than noise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bpcore.bench.statistics import faster, quartiles
from bpcore.bench.words import number, rate
from bpcore.errors import DataError

__all__ = ["compare_results", "comparison_table", "regressions"]

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "same", "unknown"
MARKS = {FASTER: "+", SLOWER: "-", SAME: "", UNKNOWN: "?"}

FACTS = ("cpu", "cores", "usable_cores", "gpus", "python", "commit", "removed_variables")
"""Of the machine: what explains a difference."""

TIMED = ("ok", "noisy")

Key = tuple[str, int | str, str]


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[Key, int, Mapping[str, Any]]]:
    """Yield network (or operation), batch size (or sizes), contender; samples of a step; the row."""
    for network in result["networks"]:
        for cell in network["cells"]:
            for name, row in cell["contenders"].items():
                yield (network["name"], cell["batch"], name), cell["batch"], row
    for part in result.get("operations", ()):
        sizes = " ".join(f"{letter}={size}" for letter, size in part["sizes"].items())
        for name, row in part["contenders"].items():
            yield (part["name"], sizes, name), 1, row


def compare_results(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Compare results with the first one.

    Parameters
    ----------
    results : sequence of dict
        At least two, of the same mode.
    names : sequence of str
        What they are called.

    Returns
    -------
    dict
        ``names``; ``differences``: facts of machine and settings that are not equal, by name; ``rows``: for each
        network, batch size and contender that the first result has a time of, the speeds in samples (or calls) a
        second, and for each further result the ``ratio`` of its speed over the first, the ``least`` and ``most`` that
        the quartiles allow, and a ``verdict``: faster, slower, same or unknown; ``median_ratios`` over all rows.

    Raises
    ------
    DataError
        If there is nothing to compare.
    """
    first = results[0]
    for result, name in zip(results[1:], names[1:], strict=True):
        if result["mode"] != first["mode"]:
            raise DataError(
                f"{name} measures {result['mode']}, {names[0]} {first['mode']}; only results of the same mode compare"
            )
    tables = [{key: row for key, _, row in _rows(result)} for result in results]
    rows = []
    for key, samples, row in _rows(first):
        if row["status"] not in TIMED:
            continue
        others = [_against(row, table.get(key)) for table in tables[1:]]
        if all(other["verdict"] == UNKNOWN for other in others):
            continue
        speed = samples / (1e-6 * row["us_per_step"]["median"])
        rows.append({"network": key[0], "batch": key[1], "contender": key[2], "speed": speed, "against": others})
    if not rows:
        raise DataError(
            f"{names[0]} and the others have no network, batch size and contender in common that all have a time of"
        )
    ratios = [
        _median([found["against"][k]["ratio"] for found in rows if found["against"][k]["ratio"] is not None])
        for k in range(len(results) - 1)
    ]
    return {
        "mode": first["mode"],
        "names": list(names),
        "differences": _differences(results),
        "rows": rows,
        "median_ratios": ratios,
    }


def _against(row: Mapping[str, Any], other: Mapping[str, Any] | None) -> dict[str, Any]:
    if other is None or other["status"] not in TIMED:
        status = "not there" if other is None else other["status"]
        return {"ratio": None, "least": None, "most": None, "verdict": UNKNOWN, "why": status}
    (low, high), (other_low, other_high) = quartiles(row), quartiles(other)
    verdict = FASTER if faster(other, row) else SLOWER if faster(row, other) else SAME
    return {
        "ratio": row["us_per_step"]["median"] / other["us_per_step"]["median"],
        "least": low / other_high,
        "most": high / other_low,
        "verdict": verdict,
        "why": "",
    }


def _median(values: list[float]) -> float | None:
    values = sorted(values)
    middle = len(values) // 2
    return None if not values else values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _differences(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for fact in FACTS:
        found[fact] = [result["machine"].get(fact) for result in results]
    for setting in ("dtype", "threads"):
        found[setting] = [result["settings"].get(setting) for result in results]
    found["bpcore"] = [result["bpcore"] for result in results]
    for name in dict.fromkeys(itertools.chain.from_iterable(result["contenders"] for result in results)):
        for package in ("numpy", "numba", "cupy-cuda12x", "cupy-cuda13x"):
            found[f"{package} of {name}"] = [
                result["contenders"].get(name, {}).get("versions", {}).get(package) for result in results
            ]
        found[f"BLAS of {name}"] = [
            sorted(f"{pool['library']} {pool['version']} {pool['core_type']}" for pool in
                   result["contenders"].get(name, {}).get("blas", []))
            for result in results
        ]  # fmt: skip
    return {fact: values for fact, values in found.items() if any(value != values[0] for value in values)}


def regressions(found: Mapping[str, Any], limit: float) -> list[str]:
    """Say where a speed is below a share of the first, and surely so.

    Parameters
    ----------
    found : mapping
        Of :func:`compare_results`.
    limit : float
        The share, such as 0.9.

    Returns
    -------
    list of str
        One line each. A ratio below the limit counts only if the quartiles say that it is slower at all.
    """
    lines = []
    for row in found["rows"]:
        for name, other in zip(found["names"][1:], row["against"], strict=True):
            if other["verdict"] == SLOWER and other["ratio"] < limit:
                where = f"{row['network']}, {row['batch']}, {row['contender']}"
                lines.append(f"{name}: {where}: {other['ratio']:.2f} ({other['least']:.2f} to {other['most']:.2f})")
    return lines


def comparison_table(found: Mapping[str, Any]) -> RenderableType:
    """Return a comparison as a table."""
    names = found["names"]
    table = Table(header_style="", box=None, pad_edge=False)
    for head in ("network", "batch", "contender") if found["mode"] != "ops" else ("operation", "sizes", "contender"):
        table.add_column(head, justify="right" if head == "batch" else "left")
    table.add_column(f"{names[0]}\n{'calls/s' if found['mode'] == 'ops' else 'samples/s'}", justify="right")
    for name in names[1:]:
        table.add_column(f"{name}\nratio", justify="right")
        table.add_column("\n", justify="left")
        table.add_column("\nrange", justify="right")
    for row in found["rows"]:
        texts = [row["network"], str(row["batch"]), row["contender"], rate(row["speed"])]
        for other in row["against"]:
            if other["ratio"] is None:
                texts += [other["why"], MARKS[UNKNOWN], ""]
                continue
            style = {FASTER: "green", SLOWER: "red"}.get(other["verdict"], "")
            ratio = f"[{style}]{number(other['ratio'])}[/]" if style else number(other["ratio"])
            texts += [ratio, MARKS[other["verdict"]], f"{number(other['least'])} to {number(other['most'])}"]
        table.add_row(*[Text.from_markup(text) for text in texts])
    lines: list[RenderableType] = [table, Text()]
    for name, ratio in zip(names[1:], found["median_ratios"], strict=True):
        lines.append(Text(f"{name} over {names[0]}: median ratio of speeds {number(ratio)}"))
    lines.append(Text("+ faster, - slower: the quartiles do not overlap; the rest may be noise", style="dim"))
    if found["differences"]:
        facts = Table(header_style="", box=None, pad_edge=False)
        facts.add_column("what differs")
        for name in names:
            facts.add_column(name)
        for fact, values in found["differences"].items():
            facts.add_row(fact, *[Text(_spell(value)) for value in values])
        lines += [Text(), facts]
    return Group(*lines)


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_spell(entry) for entry in value) or "none"
    if isinstance(value, dict):
        return str(value.get("name", value))
    return "none" if value is None else str(value)[:40]
