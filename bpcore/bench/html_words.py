"""Lists and paragraphs of the page: what is not ranked, warnings, machine and method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bpcore.bench.markup import Markup, join, tag
from bpcore.bench.statistics import NOISY
from bpcore.bench.words import number

__all__ = ["machine", "method", "not_ranked", "warnings"]

Cells = Sequence[Mapping[str, Any]]

GIB = 2**30


def warnings(result: Mapping[str, Any]) -> Markup:
    """Return the warnings as a note; nothing if there are none."""
    found = list(result["warnings"])
    if result["interrupted"] and not any("interrupted" in text for text in found):
        found.insert(0, "interrupted: what is missing was not measured")
    if not found:
        return Markup()
    return tag("aside", tag("h2", "Warnings"), _list(found), class_="note", aria_label="warnings")


def _list(items: Iterable[str]) -> Markup:
    return tag("ul", *(tag("li", item) for item in items))


def not_ranked(cells: Cells, where: Sequence[str]) -> Markup:
    """List what has no rank or an uncertain one, and why; neighbours with the same kind of reason together.

    Parameters
    ----------
    cells : sequence of mapping
        Batch sizes, or operations.
    where : sequence of str
        What each of them is called.

    Returns
    -------
    Markup
        A heading and a list, or nothing.
    """
    found: dict[tuple[str, str, str], tuple[str, list[str]]] = {}
    for cell, name_of_cell in zip(cells, where, strict=True):
        for name, row in cell["contenders"].items():
            if row["status"] != "ok":
                kind = re.sub(r"[\d.]+", "", row["why"])  # reasons that differ in an amount alone are one
                found.setdefault((name, row["status"], kind), (row["why"], []))[1].append(name_of_cell)
    if not found:
        return Markup()
    items = []
    for (name, status, _), (why, places) in found.items():
        place, ranked = ", ".join(places), " (ranked)" if status == "noisy" else ""
        reason = f"{'; the first reason' if len(places) > 1 else ''}: {why}" if why else ""
        items.append(join([tag("b", f"{name}, {status}"), f"{ranked} at {place}{reason}"]))
    return join([tag("h3", "Not ranked or noisy, and why"), _list(items)])


def machine(result: Mapping[str, Any]) -> Markup:
    """Describe the machine, and how it was before and after."""
    facts, settings = result["machine"], result["settings"]
    commit = facts["commit"] and facts["commit"][:12] + (", with uncommitted changes" if facts["dirty"] else "")
    clock = [facts.get(name) for name in ("clock_mhz", "clock_mhz_afterwards")]
    quota = facts.get("quota")
    cores = f"{facts['cores']}, usable {facts['usable_cores']}{f', quota {quota:g}' if quota else ''}"
    memory = facts.get("available_memory")
    rows = {
        "Processor": facts["cpu"],
        "Cores": cores,
        "SIMD": ", ".join(facts["simd"]),
        "GPUs": "; ".join(map(_gpu, facts["gpus"])) or "none",
        "Free memory": memory and f"{number(memory / GIB)} GiB",
        "System": facts["system"],
        "Python": facts["python"],
        "bpcore": f"{result['bpcore']}{f', commit {commit}' if commit else ''}",
        "Threads": "each library's own choice" if settings["threads"] is None else str(settings["threads"]),
        "Load before, after": f"{_load(facts.get('load'))}; {_load(facts.get('load_afterwards'))} "
        "(busy threads, mean over 1, 5 and 15 minutes)",
        "Clock before, after": "" if clock == [None, None] else ", ".join(map(_clock, clock)),
        "Variables": ", ".join(f"{name}={value}" for name, value in facts["environment"].items()) or "none",
        "Removed variables": ", ".join(facts["removed_variables"]) or "none",
    }
    return tag("dl", *(join([tag("dt", name), tag("dd", text)]) for name, text in rows.items() if text))


def _gpu(facts: Mapping[str, Any]) -> str:
    memory = facts.get("memory")
    return ", ".join(
        str(word) for word in (facts.get("name"), memory and f"{number(memory / GIB)} GiB", facts.get("driver")) if word
    )


def _load(load: Sequence[float] | None) -> str:
    return "unknown" if not load else ", ".join(f"{value:g}" for value in load)


def _clock(mhz: float | None) -> str:
    return "unknown" if mhz is None else f"{mhz:.0f} MHz"


def method(result: Mapping[str, Any]) -> str:
    """Say how it was measured."""
    what = {
        "train": "a step of training: one mini-batch, from drawing its samples to the update",
        "inference": "a call of predict",
        "ops": "a call of an operation of the backend",
    }[result["mode"]]
    rounds = result["settings"]["rounds_of_a_visit"]
    text = (
        f"What is timed is {what}. Each contender has a process of its own, and only one of them works at a time. "
        f"A visit is {rounds} rounds of one contender at one size; every size is visited again after all others had "
        "their turn, until the time is used up, so that a busy moment or a falling clock shows as spread instead of "
        "deciding. A figure is the median of the medians of the visits; q1 and q3 are quartiles of all rounds, and "
        f"the spread is half of the way between them. From a spread of {100 * NOISY:.0f} % on a figure is called "
        "noisy. Nobody is called faster unless the difference is more than what both scatter. The peak is the fastest "
        "product of square matrices; a figure above it is suspect and not ranked. What is computed is compared with "
        "an independent computation in float64; who differs from it is not ranked. The result was complete after "
        f"{number(result['seconds'])} s of a budget of {number(result['settings']['seconds'])} s."
    )
    return text.replace("The result was complete", "It was interrupted") if result["interrupted"] else text
