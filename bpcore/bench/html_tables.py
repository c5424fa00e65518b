"""The tables of the report: figures, crossovers, parts of a step, plans, parity, contenders, operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpcore.bench.evidence import LOSS_TOLERANCE, TOLERANCE
from bpcore.bench.markup import Markup, table, tag
from bpcore.bench.plot_axes import giga, look, names_of
from bpcore.bench.words import number, rate
from bpcore.bench.workload import PARTS

__all__ = ["contenders", "crossovers", "figures", "operations", "parity", "parts", "plans", "sizes_of"]

Network = Mapping[str, Any]
Row = Mapping[str, Any]
NONE = "\N{EN DASH}"
OVER_NUMPY = "\N{MULTIPLICATION SIGN} NumPy"
SHOWN = ("ok", "noisy", "suspect")
"""Statuses whose figures are shown; others would be read although they mean nothing."""


def time_of(us: float) -> str:
    """Write microseconds."""
    return rate(us) if us >= 1e4 else number(us)


def percent(share: float | None) -> str:
    """Write a share with up to three digits, and none that is more exact than a hundredth."""
    return NONE if share is None else f"{number(round(100 * share, 2))} %"


def sizes_of(operation: Mapping[str, Any]) -> str:
    """Write the sizes of an operation."""
    return " ".join(f"{letter}={size}" for letter, size in operation["sizes"].items())


def _verdict(name: str, row: Row, cell: Mapping[str, Any]) -> Markup:
    words = [] if row["status"] == "ok" else [row["status"]]
    if cell["best"] == name:
        words.insert(0, "best")
    elif name in cell["ties"]:
        words.insert(0, "tie")
    text = ", ".join(words)
    content = tag("strong", text) if cell["best"] == name else text
    return tag("td", content, class_=_classes("word", name, cell), title=row["why"] or None)


def _classes(word: str, name: str, cell: Mapping[str, Any]) -> str | None:
    return " ".join([word] * bool(word) + ["best"] * (cell["best"] == name)) or None


def _over(name: str, row: Row) -> list[str]:
    return [] if name == "numpy" else [number(row.get("over_numpy")) or NONE]


def _group_head(names: Sequence[str], columns: Sequence[str], left: Sequence[str]) -> list[list[str]]:
    """Return two lines of headings: contenders, and what is told of each; NumPy is not compared with itself."""
    top: list[str] = [tag("th", text, rowspan="2", scope="col") for text in left]
    below: list[str] = []
    for name in names:
        own = [column for column in columns if column != OVER_NUMPY or name != "numpy"]
        style = f"--mark: {look(name)[0]}"
        top.append(tag("th", name, colspan=str(len(own)), scope="colgroup", style=style))
        for k, column in enumerate(own):
            words = ["first"] * (k == 0) + ["word"] * (column == "verdict")
            below.append(tag("th", column, scope="col", class_=" ".join(words) or None))
    return [top, below]


def _grouped(cells: Iterable[str], name: str, cell: Mapping[str, Any]) -> list[Markup]:
    return [tag("td", text, class_=_classes("first" if k == 0 else "", name, cell)) for k, text in enumerate(cells)]


def figures(network: Network) -> Markup:
    """Return the table of one network: a row for each batch size."""
    names, rows = names_of(network["cells"]), []
    for cell in network["cells"]:
        line: list[str] = [str(cell["batch"])]
        for name in names:
            row = cell["contenders"].get(name, {"status": "skipped", "why": "not measured"})
            texts = [NONE] * (3 if name == "numpy" else 4)
            if row["status"] in SHOWN:
                median, speed = time_of(row["us_per_step"]["median"]), rate(row["samples_per_second"])
                texts = [median, speed, *_over(name, row), percent(row["of_peak"])]
            line += [*_grouped(texts, name, cell), _verdict(name, row, cell)]
        rows.append(line)
    head = _group_head(names, ("µs/step", "samples/s", OVER_NUMPY, "of peak", "verdict"), ["batch"])
    return table("Figures by batch size; k is thousand, M million.", head, rows, "numbers")


def operations(result: Mapping[str, Any]) -> Markup:
    """Return the table of single operations."""
    cells, rows = result["operations"], []
    names = names_of(cells)
    for cell in cells:
        line: list[str] = [cell["name"], tag("td", sizes_of(cell), class_="word")]
        for name in names:
            row = cell["contenders"].get(name, {"status": "skipped", "why": "not measured"})
            texts = [NONE] * (2 if name == "numpy" else 3)
            if row["status"] in SHOWN:
                # a product is judged by its operations, everything else by the memory that it moves
                by_memory = cell["name"] != "matmul"
                speed = giga(row["gb_per_second"], "B/s") if by_memory else giga(row["gflops"], "FLOP/s")
                texts = [time_of(row["us_per_step"]["median"]), speed, *_over(name, row)]
            line += [*_grouped(texts, name, cell), _verdict(name, row, cell)]
        rows.append(line)
    head = _group_head(names, ("µs/call", "speed", OVER_NUMPY, "verdict"), ["operation", "sizes"])
    return table("Time of a call, and its speed: operations of a product, else bytes.", head, rows, "numbers named")


def crossovers(network: Network) -> Markup:
    """Return who is faster than whom, and from which batch size on; nothing if there is nobody to compare with."""
    if not network["crossovers"]:
        return Markup()
    first = network["cells"][0]["batch"] if network["cells"] else None
    where = {(found["contender"], found["over"]): found["from_batch"] for found in network["crossovers"]}
    names = names_of(network["cells"])

    def words(name: str, other: str) -> str:
        batch = where.get((name, other))
        return NONE if batch is None else "always" if batch == first else f"from {batch} on"

    caption = "Faster by more than the noise, at that batch size and at every larger one that was measured."
    head = ["", *(f"faster than {name}" for name in names)]
    return table(caption, [head], ([name, *(words(name, other) for other in names)] for name in names))


def parts(network: Network) -> Markup:
    """Return the times of the parts of a step, with what each of them costs."""
    found, costs = network["parts"]["contenders"], network["parts"]["costs"]
    rows: list[list[str]] = []
    for part in (part for part in PARTS if part in costs):
        times = [time_of(one["us"][part]) if part in one["us"] else NONE for one in found.values()]
        rows.append([part, f"{rate(costs[part]['flops'])}", f"{rate(costs[part]['bytes'])}", *times])
    rests = []
    for one in found.values():
        rest = one["us"]["step"] - math.fsum(one["us"].get(part, 0.0) for part in PARTS)
        rests.append(time_of(rest) if rest > 0 else NONE)
    rows.append(["rest", "", "", *rests])
    rows.append(["step", "", "", *(time_of(one["us"]["step"]) for one in found.values())])
    head = ["part", "FLOP", "bytes", *(f"{name}, µs" for name in found)]
    caption = f"Parts of a step at batch size {network['parts']['batch']}"
    hows = (tag("p", f"{name}: {one['how']}.", class_="soft") for name, one in found.items())
    return tag("div", table(caption, [head], rows, "numbers named"), *hows)


def plans(network: Network) -> Markup:
    """Return how each contender computes, and with how many threads; neighbours that do it alike together."""
    found: list[list[Any]] = []
    for name in names_of(network["cells"]):
        for cell in network["cells"]:
            row = cell["contenders"].get(name, {})
            if "plan" not in row:
                continue
            how = [name, row["plan"], row["threads"], row["plan_why"]]
            if found and found[-1][:4] == how:
                found[-1][5] = cell["batch"]
            else:
                found.append([*how, cell["batch"], cell["batch"]])
    rows = [
        [name, str(a) if a == b else f"{a} to {b}", plan, NONE if threads is None else str(threads), why]
        for name, plan, threads, why, a, b in found
    ]
    if not rows:
        return Markup()
    return table("Plans", [["contender", "batch size", "plan", "threads", "why"]], rows, "wide")


def parity(result: Mapping[str, Any]) -> Markup:
    """Return how far each contender is from the float64 witness at most, for each network."""
    training, rows = result["mode"] == "train", []
    for network in result["networks"]:
        for name in names_of(network["cells"]):
            found = [row for cell in network["cells"] if "parity" in (row := cell["contenders"].get(name, {}))]
            checked = [row for row in found if row["checked"]]
            precision = name.partition(":")[2] or result["settings"]["dtype"]
            line = [network["name"], name, f"{len(checked)} of {len(found)}"]
            for word, allowed in (("values", LOSS_TOLERANCE), ("movement", TOLERANCE))[: 1 + training]:
                line += [_largest(checked, word), f"{allowed[precision]:.0e}" if precision in allowed else NONE]
            rows.append(line)
    if not rows:
        return Markup()
    head = ["network", "contender", "checked sizes", "losses" if training else "outputs", "allowed"]
    head += ["movement of W and b", "allowed"] * training
    return table("Largest distance from the float64 witness, as a share.", [head], rows)


def _largest(rows: Iterable[Row], word: str) -> str:
    found = [when[word] for row in rows for when in row["parity"].values()]
    if not found:
        return NONE
    return "not finite" if None in found else f"{max(found):.1e}"


def contenders(result: Mapping[str, Any]) -> Markup:
    """Return what each contender is made of, and what it reaches at best."""
    rows = []
    for name, facts in result["contenders"].items():
        peak, speed = facts.get("peak_gflops"), facts.get("gb_per_second")
        blas = dict.fromkeys(
            f"{pool['library']} {pool['version']} for {pool['core_type']}, {pool['threads']} threads"
            for pool in facts.get("blas", [])
        )
        versions = ", ".join(f"{package} {version}" for package, version in facts.get("versions", {}).items())
        why = f"{facts['status']}: {facts['why']}" if facts.get("status") != "ok" else "ran"
        rows.append(
            [
                name, facts.get("device") or NONE, giga(peak, "FLOP/s") if peak else NONE,
                giga(speed, "B/s") if speed else NONE, _seconds(facts), "; ".join(blas) or NONE, versions or NONE,
                why,
            ]
        )  # fmt: skip
    head = ["contender", "device", "peak", "copying", "start", "BLAS", "versions", "state"]
    return table("Contenders; those on the processor share the largest peak.", [head], rows, "wide")


def _seconds(facts: Mapping[str, Any]) -> str:
    seconds = facts.get("seconds_to_start")
    return NONE if seconds is None else f"{number(seconds)} s"
