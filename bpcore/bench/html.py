"""The report of ``bpcore bench``: one HTML page that needs nothing else, neither the network nor a script."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from bpcore.bench import html_tables, html_words, words
from bpcore.bench.markup import Markup, join, tag
from bpcore.bench.plot_axes import RANKED, names_of
from bpcore.bench.plots import operations, parts, roofline, throughput
from bpcore.bench.svg import inline_svg
from bpcore.bench.words import number
from bpcore.persistence.atomic import write_atomically
from bpcore.plots.style import load_matplotlib

__all__ = ["render", "save_html"]

WIDTH = 5.0
"""Inches of a picture: with letters of 10 points they can be read on a phone too."""

HOW_TO_READ = """\
import json, pathlib, re
page = pathlib.Path("report.html").read_text("utf-8")
result = json.loads(re.search(r'id="result">(.*?)</script>', page, re.DOTALL)[1])"""

MODES = {"train": "training", "inference": "inference", "ops": "single operations"}


def save_html(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the report of a result.

    Parameters
    ----------
    result : mapping
        Of a sweep, or of single operations.
    path : str or PathLike
        The file; its folder must exist.

    Raises
    ------
    MissingExtraError
        If matplotlib, which draws the pictures, is not installed.
    ModelFileError
        If the file cannot be written; an existing one is unchanged then.
    """
    write_atomically(path, render(result).encode())


def render(result: Mapping[str, Any]) -> str:
    """Return the report of a result as an HTML page.

    Parameters
    ----------
    result : mapping
        Of a sweep, or of single operations.

    Returns
    -------
    str
        The page: light and dark, for a wide screen, a phone and a printer.

    Raises
    ------
    MissingExtraError
        If matplotlib, which draws the pictures, is not installed.
    """
    load_matplotlib("the HTML report")
    sections: dict[str, tuple[str, Markup]] = {}
    for number_of, network in enumerate(result["networks"], 1):
        sections[f"network-{number_of}"] = network["name"], _network(result, network, f"n{number_of}")
    if result["mode"] == "ops":
        sections["operations"] = "Operations", _operations(result)
    parity = html_tables.parity(result)
    if parity:
        sections["parity"] = "Parity", parity
    sections["machine"] = "Machine", join([html_words.machine(result), html_tables.contenders(result)])
    sections["method"] = "Method", tag("p", html_words.method(result))
    sections["raw"] = "Raw result", _raw()
    links = (tag("li", tag("a", title, href=f"#{anchor}")) for anchor, (title, _) in sections.items())
    cards = (
        tag("section", tag("h2", title, id=f"{anchor}-title"), content, id=anchor, aria_labelledby=f"{anchor}-title")
        for anchor, (title, content) in sections.items()
    )
    page = Template(resources.files("bpcore.bench").joinpath("report.html").read_text("utf-8"))
    return page.substitute(
        title=join([_title(result)]),
        subtitle=join([_subtitle(result)]),
        navigation=tag("nav", tag("ul", *links), aria_label="contents"),
        body=join([_answers(result), html_words.warnings(result), *cards]),
        # "<" could end the element, or begin a comment that hides its end
        json=json.dumps(result, allow_nan=False).replace("<", "\\u003c"),
    )


def _title(result: Mapping[str, Any]) -> str:
    facts = result["machine"]
    gpus = [str(gpu.get("name")) for gpu in facts["gpus"]]
    return f"bpcore bench: {', '.join([facts['cpu'], *gpus])}"


def _subtitle(result: Mapping[str, Any]) -> str:
    settings = result["settings"]
    threads = "own choice of threads" if settings["threads"] is None else f"threads: {settings['threads']}"
    when = result["when"].replace("T", " ").replace("+00:00", " UTC")
    return f"{MODES[result['mode']]}, {settings['dtype']}, {threads}; bpcore {result['bpcore']}, {when}"


def _answers(result: Mapping[str, Any]) -> Markup:
    """Return the short answer to everything."""
    items = [
        tag("li", tag("a", network["name"], href=f"#network-{k}"), f": {words.answer(network)}")
        for k, network in enumerate(result["networks"], 1)
    ]
    if result["mode"] == "ops":
        items.append(tag("li", words.answer_of_operations(result["operations"])))
    if not items:
        items.append(tag("li", "Nothing was measured."))
    return tag("section", tag("h2", "Which is the fastest here"), tag("ul", *items), aria_label="the answer")


def _network(result: Mapping[str, Any], network: Mapping[str, Any], prefix: str) -> Markup:
    sizes, cells = "-".join(map(str, network["sizes"])), network["cells"]
    training = f"; {network['loss']}, {network['optimizer']}" if result["mode"] == "train" else ""
    how = f"{network['activation']} and {network['output']}{training}"
    what = f"Layers {sizes}, {how}; {network['n_parameters']} parameters."
    content: list[str] = [
        tag("p", what, class_="soft"),
        tag("p", words.answer(network), class_="answer"),
        _curves(result, network, prefix),
        html_tables.figures(network) if cells else tag("p", "No batch size was measured."),
        html_words.not_ranked(cells, [str(cell["batch"]) for cell in cells]),
    ]
    crossovers, found = html_tables.crossovers(network), network["parts"]
    if crossovers:
        content += [tag("h3", "From which batch size on"), crossovers]
    if found.get("contenders"):
        content += [tag("h3", "Where the time of a step goes"), _where_time_goes(network, prefix)]
    plans = html_tables.plans(network)
    if plans:
        content.append(tag("details", tag("summary", "How each contender computed"), plans))
    return join(content)


def _curves(result: Mapping[str, Any], network: Mapping[str, Any], prefix: str) -> Markup:
    """Draw throughput and roofline, if there is a figure at all."""
    rows = [row for cell in network["cells"] for row in cell["contenders"].values() if "us_per_step" in row]
    if not rows:
        return Markup()
    names = ", ".join(names_of(network["cells"]))
    seen = f"Curves: samples per second over batch size on {network['name']}, for {names}. {words.answer(network)}"
    pictures = [_picture(lambda ax: throughput(network, ax), (WIDTH, 3.6), f"{prefix}t-", seen)]
    if any(row["status"] in RANKED for row in rows):
        seen = f"Roofline: GFLOP/s over operations per byte on {network['name']}, for {names}."
        pictures.append(_picture(lambda ax: roofline(result, network, ax), (WIDTH, 3.6), f"{prefix}r-", seen))
    return tag("div", *pictures, class_="pictures")


def _where_time_goes(network: Mapping[str, Any], prefix: str) -> Markup:
    found = network["parts"]["contenders"]
    steps = ", ".join(f"{name} {number(one['us']['step'])} µs" for name, one in found.items())
    seen = f"Stacked bars: the parts of a training step of {network['name']}. Whole steps: {steps}."
    height = 1.4 + 0.52 * len(found)
    picture = _picture(lambda ax: parts(network, ax), (WIDTH, height), f"{prefix}p-", seen)
    return tag("div", picture, html_tables.parts(network), class_="pictures")


def _operations(result: Mapping[str, Any]) -> Markup:
    cells = result["operations"]
    if not cells:
        return tag("p", "No operation was measured.")
    content: list[str] = [tag("p", words.answer_of_operations(cells), class_="answer")]
    rows = [row for cell in cells for name, row in cell["contenders"].items() if name != "numpy"]
    if any(row.get("over_numpy") and row["status"] in RANKED for row in rows):
        names = [name for name in names_of(cells) if name != "numpy"]
        height = 1.2 + len(cells) * (0.14 + 0.12 * len(names))
        seen = f"Bars: how many times as fast as NumPy each of {len(cells)} operations is, for {', '.join(names)}."
        content.append(_picture(lambda ax: operations(result, ax), (WIDTH, height), "ops-", seen))
    content.append(html_tables.operations(result))
    content.append(html_words.not_ranked(cells, [f"{cell['name']} {html_tables.sizes_of(cell)}" for cell in cells]))
    return join(content)


def _picture(draw: Any, size: tuple[float, float], prefix: str, seen: str) -> Markup:
    svg, caption = inline_svg(draw, size, prefix, lambda caption: f"{seen} {caption}")
    return tag("figure", svg, tag("figcaption", caption))


def _raw() -> Markup:
    text = "All figures, with every round, are in this page as JSON, in the element with the id result. "
    return join(
        [
            tag("p", text, "bpcore bench --json FILE writes the same to a file."),
            tag("details", tag("summary", "How to read it"), tag("pre", tag("code", HOW_TO_READ))),
        ]
    )
