"""Markdown that the generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NOTE", "escape", "table"]

NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n"


def escape(text: str) -> str:
    """Make a text fit into a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([escape(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
