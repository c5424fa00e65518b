"""Pictures of matplotlib as SVG inside of an HTML page: they take its text colour, paper and font."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

from bpcore.bench.markup import Markup
from bpcore.plots.style import STYLE, load_matplotlib

__all__ = ["inline_svg"]

INK, PAPER = "#010203", "#fdfcfb"
"""Colours that are drawn with and then replaced; no contender has them."""
FONT = "DejaVu Sans"

PAGE_STYLE = {
    **STYLE,
    "font.size": 10.0,
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "grid.color": INK,
    "hatch.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def inline_svg(
    draw: Callable[[Any], str], size: tuple[float, float], prefix: str, label: Callable[[str], str]
) -> tuple[Markup, str]:
    """Draw a picture and return it as an element of a page.

    Parameters
    ----------
    draw : callable
        Draws on the axes that it is given; returns what has to be said below.
    size : pair of float
        Width and height in inches; on the page the picture is as wide as its place.
    prefix : str
        Stands before each id, so that several pictures on a page do not share one.
    label : callable
        Is given what ``draw`` returned; returns what is to be seen, for those who do not see it.

    Returns
    -------
    svg : Markup
        The element.
    caption : str
        What ``draw`` returned.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    matplotlib = load_matplotlib("the HTML report")
    data = io.BytesIO()
    with matplotlib.rc_context({**PAGE_STYLE, "svg.hashsalt": prefix}):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained", facecolor="none")
        caption = draw(figure.subplots())
        figure.savefig(data, format="svg", metadata={"Date": None})
    return _for_a_page(data.getvalue().decode(), prefix, label(caption)), caption


def _for_a_page(text: str, prefix: str, label: str) -> Markup:
    # a style inside of a picture holds for the whole page; the page has this one for pictures alone
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    opening = re.compile(r"<svg[^>]*>")
    found = opening.match(text)
    box = re.search(r'viewBox="[^"]*"', found[0] if found else "")
    assert box is not None
    text = opening.sub(f'<svg {box[0]} role="img" aria-label="{escape(label)}">', text, count=1)
    text = text.replace("xlink:href=", "href=").replace(INK, "currentColor").replace(PAPER, "var(--card)")
    text = text.replace(f"'{FONT}'", "var(--font)")
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))

    def rename(found: re.Match[str]) -> str:
        return f' id="{prefix}{found[1]}"' if found[1] in used else ""

    text = re.sub(r' id="([^"]*)"', rename, text)
    text = re.sub(r'href="#|url\(#', lambda found: found[0] + prefix, text)
    return Markup(re.sub(r"<!--.*?-->|\n\s*(?=\n)", "", text, flags=re.DOTALL).strip())
