"""HTML from Python: whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Markup", "join", "table", "tag"]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | None) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
        Of the element.
    *children : str or None
        Its content. Text is escaped unless it is :class:`Markup`; None is left out.
    **attributes : str or None
        Its attributes; ``class_`` is class, ``aria_label`` is aria-label, None is left out.

    Returns
    -------
    Markup

    Examples
    --------
    >>> print(tag("p", "a < b, ", tag("b", "c"), class_="note"))
    <p class="note">a &lt; b, <b>c</b></p>
    """
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup(f"<{name}{''.join(words)}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Markup:
    """Return all of them one after the other, what is not markup escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children if child)
    )


def table(
    caption: str, head: Sequence[Sequence[str]], rows: Iterable[Sequence[str]], class_: str | None = None
) -> Markup:
    """Return a table that scrolls by itself where it is wider than the page.

    Parameters
    ----------
    caption : str
        What it shows.
    head, rows : sequences of sequences of str
        The cells. Elements ``td`` and ``th`` are taken as they are. The first cell of a row is its heading.
    class_ : str, optional
        For the style.

    Returns
    -------
    Markup
    """
    top = [tag("tr", *(_cell(cell, "th", scope="col") for cell in row)) for row in head]
    body = [tag("tr", _cell(row[0], "th", scope="row"), *(_cell(cell, "td") for cell in row[1:])) for row in rows]
    found = tag("table", tag("thead", *top), tag("tbody", *body), class_=class_, aria_label=caption)
    # a caption inside would be as wide as the table, and scroll away; with tabindex the keyboard can scroll it too
    scrolling = tag("div", found, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return tag("div", tag("p", caption, class_="soft above"), scrolling)


def _cell(content: str, name: str, **attributes: str) -> Markup:
    if isinstance(content, Markup) and content.startswith(("<td", "<th")):
        return content
    return tag(name, content, **attributes)
