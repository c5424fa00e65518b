"""The result as Markdown: one table for each workload, and what the machine charges."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import tables
from benchmarks.gpu.contestants import on_gpu
from benchmarks.gpu.workloads import floor, get_workload
from benchmarks.peers import results
from bpcore.bench.process import OK
from bpcore.bench.words import answer, number

__all__ = ["markdown"]

COLUMNS = (
    "contestant", "µs a step", "least to most", "times the best PyTorch's", "of the floor", "prepared in s",
    "off float64 by",
)  # fmt: skip
OUTPUT_LINES = 12


def markdown(result: dict[str, Any]) -> str:
    """Return the whole result for readers."""
    about = result["machine"]
    title = "DRY RUN: no GPU was used, these are not GPU results" if result["dry_run"] else f"GPU run on {about['gpu']}"
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {about[name]}" for name in ("when", "commit", "changed_files", "python", "system", "cores")]
    lines += [f"- processor: {about['processor']}"]
    lines += ["- " + ", ".join(f"{name} {version}" for name, version in about["versions"].items())]
    lines += [f"- not installed: {name}: {lost}" for name, lost in result.get("missing", {}).items()]
    lines += ["", *verdict(result)]
    parts = result["parts"]
    if "race" in parts:
        lines += race(parts["race"], parts.get("costs", {}))
    if parts.get("bench", {}).get("result"):
        lines += bench(parts["bench"]["result"])
    if "profile" in parts:
        lines += tables.counters(parts["profile"])
    if "crossovers" in parts:
        lines += tables.crossovers(parts["crossovers"])
    if "costs" in parts:
        lines += costs(parts["costs"])
    for name, part in parts.items():
        for tool, found in part.items() if name == "sanitizers" else [(name, part)]:
            if found.get("output") and found["status"] not in ("ok", "skipped"):
                lines += ["", f"## End of the output of {tool}", "", "```"]
                lines += [*found["output"].splitlines()[-OUTPUT_LINES:], "```"]
    return "\n".join([*lines, ""])


def verdict(result: dict[str, Any]) -> list[str]:
    """A line for each part."""
    lines = []
    for name, part in result["parts"].items():
        if name == "sanitizers":
            for tool, found in part.items():
                told = found.get("summary") or found.get("why") or "no summary"
                lines.append(f"- compute-sanitizer {tool}: {found['status']} ({told})")
                lines += [
                    f"    - {row['test'] or 'before the first test'}: {row['report']} ({row['times']} times)"
                    for row in found.get("found", [])
                ]
            continue
        told = f"{part['counts']}, " if part.get("counts") else f"{part['why']}, " if part.get("why") else ""
        lines.append(f"- {name}: {part['status']}, {told}{part['seconds']} s of {part['limit_seconds']}")
    missing = [name for name in result["asked"] if name not in result["parts"]]
    return [*lines, *(f"- {name}: not done" for name in missing)]


def race(part: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in part.get("rows", {}).items():
        lines += ["", f"## {name}", ""]
        if not found["contestants"]:
            lines.append(f"Not done: {found['why']}.")
            continue
        lines += [*about_the_step(name, found, measured), ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
        least = floor(get_workload(name), measured)
        rows = found["contestants"]
        timed = sorted((n for n in rows if "us_per_step" in rows[n]), key=lambda n: rows[n]["us_per_step"]["median"])
        for contestant in timed:
            lines.append("| " + " | ".join(cells(contestant, rows[contestant], least)) + " |")
        others = [n for n in rows if n not in timed]
        if others:
            lines.append("")
        lines += [f"- {n}: {rows[n]['status']}: {rows[n]['why']}" for n in others]
    return lines


def about_the_step(name: str, found: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """What a step is, what it must take, and what is to be reached."""
    work = get_workload(name)
    widths = "-".join(map(str, work.sizes))
    step = (
        f"{widths}, {work.activation}, {work.loss}, {work.optimizer}, batch {work.batch}, {work.precision}; "
        f"{number(found['flops'] / 1e6)} MFLOP of products a step."
    )
    lines = [step]
    least = floor(work, measured)
    if least is not None:
        products = measured["parts"].get("steps", {}).get(name, {}).get("us")
        alone = f"{number(products)} µs" if products else "not measured"
        lines.append(
            f"Floor {number(least['us'])} µs: products {number(least['flop_us'])} µs at the best measured rate, memory "
            f"{number(least['byte_us'])} µs. The products alone, by cuBLAS in a graph: {alone}."
        )
    ours = [
        row["us_per_step"]["median"] for contestant, row in found["contestants"].items()
        if contestant.startswith("bpcore") and on_gpu(contestant) and row["status"] == OK
    ]  # fmt: skip
    if found["at_most_us"]:
        reached = "not measured" if not ours else "reached" if min(ours) <= found["at_most_us"] else "missed"
        lines.append(f"Goal: at most {number(found['at_most_us'])} µs: {reached}.")
    return lines


def cells(name: str, row: dict[str, Any], least: dict[str, float] | None) -> list[str]:
    """One row of a table."""
    times = row["us_per_step"]
    off = "not finite" if row["off"] is None else f"{row['off']:.0e}"
    ran = row.get("facts", {}).get("ran")
    return [
        f"{name} ({ran})" if ran and name == "bpcore-auto" else name,
        number(times["median"]),
        f"{number(times['least'])} to {number(max(times['rounds']))}",
        number(row.get("over_best_torch")),
        "" if least is None else f"{100 * least['us'] / times['median']:.1f} %",
        number(row["prepared_in_s"], 2),
        off + (" (NO PARITY)" if row["status"] == results.DIFFERS else ""),
    ]


def bench(result: dict[str, Any]) -> list[str]:
    """What ``bpcore bench`` answers, and its figures in microseconds a step."""
    lines = ["", "## bpcore bench", ""]
    for network in result["networks"]:
        names = list(network["cells"][0]["contenders"])
        lines += ["", f"**{network['name']}** ({'-'.join(map(str, network['sizes']))}). {answer(network)}", ""]
        lines += [f"| batch | {' | '.join(names)} |", "|---:" * (1 + len(names)) + "|"]
        for cell in network["cells"]:
            rows = [cell["contenders"][name] for name in names]
            shown = [
                number(row["us_per_step"]["median"]) + ("" if row["status"] == OK else f" ({row['status']})")
                if "us_per_step" in row
                else row["status"]
                for row in rows
            ]
            lines.append(f"| {cell['batch']} | {' | '.join(shown)} |")
    return lines + [f"- {text}" for text in result["warnings"]]


def costs(part: dict[str, Any]) -> list[str]:
    """Everything measured, as it is called in the file."""
    lines = ["", "## What the machine charges", "", "| measurement | value |", "|---|---:|"]
    for name, facts in part.get("parts", {}).items():
        if facts["status"] != "ok":
            lines.append(f"| {name} | {facts['status']}: {facts['why']} |")
        for key, value in flat(facts):
            if key not in ("status", "seconds"):
                shown = number(value, 4) if isinstance(value, int | float) else "none" if value is None else value
                lines.append(f"| {name}: {key.replace('_', ' ')} | {shown} |")
    return lines


def flat(facts: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested facts as pairs."""
    found = []
    for key, value in facts.items():
        found += flat(value, f"{before}{key}, ") if isinstance(value, dict) else [(before + key, value)]
    return found
