"""The table of floors in docs/explanation/architecture.md, read; and the picture of the house, drawn from it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

__all__ = ["Floor", "floors", "house"]

PAGE = Path(__file__).resolve().parents[1] / "explanation" / "architecture.md"


class Floor(NamedTuple):
    """A row of the table."""

    number: int
    rooms: tuple[str, ...]
    what: str

    def holds(self, module: str, table: tuple[Floor, ...]) -> bool:
        """Whether a module lives here: the longest name that it has or lies in decides."""
        fitting = [
            (len(room), floor.number)
            for floor in table
            for room in floor.rooms
            if module == room or (module.startswith(f"{room}.") and room != "bpcore")
        ]
        return bool(fitting) and max(fitting)[1] == self.number


def floors(text: str | None = None) -> tuple[Floor, ...]:
    """Read the table, of the page or of a text, from the ground upwards."""
    page = PAGE.read_text("utf-8") if text is None else text
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|", page, re.M)
    found = (Floor(int(n), tuple(re.findall(r"`([\w.]+)`", rooms)), what.strip()) for n, rooms, what in rows)
    return tuple(sorted(found))


# ------------------------------------------------------------------------------------------ the picture

WIDTH, LEFT, ROOM_HEIGHT, GAP, LETTER = 760, 44, 26, 8, 7.3


def house(table: tuple[Floor, ...], target: Callable[[str], str]) -> str:
    """Draw the floors one on top of the other as an SVG element for a page; it takes the colour of its text.

    Parameters
    ----------
    table : tuple of Floor
        From the ground upwards.
    target : callable
        The address to which a room leads.
    """
    parts, y = [], 4.0
    for floor in reversed(table):
        words = _wrapped(floor.what, int((WIDTH - LEFT - 20) / 6.2))
        lines = _lines(floor.rooms)
        height = 16 * len(words) + 12 + len(lines) * (ROOM_HEIGHT + GAP)
        parts.append(
            f'<rect x="1" y="{y:.0f}" width="{WIDTH - 2}" height="{height:.0f}" rx="6" fill="currentColor" '
            f'fill-opacity="{0.03 + 0.012 * floor.number:.3f}" stroke="currentColor" stroke-opacity="0.35"/>'
        )
        parts.append(
            f'<text x="{LEFT / 2:.0f}" y="{y + height / 2 + 8:.0f}" text-anchor="middle" font-size="22" '
            f'fill="currentColor" fill-opacity="0.55">{floor.number}</text>'
        )
        at = y + 18
        for line in words:
            parts.append(
                f'<text x="{LEFT}" y="{at:.0f}" font-size="12" fill="currentColor" fill-opacity="0.8">'
                f"{escape(line)}</text>"
            )
            at += 16
        at -= 6
        for rooms in lines:
            x = float(LEFT)
            for room in rooms:
                wide = _width(room)
                parts.append(
                    f'<a href="{escape(target(room))}"><rect class="room" x="{x:.0f}" y="{at:.0f}" width="{wide:.0f}" '
                    f'height="{ROOM_HEIGHT}" rx="4"/><text x="{x + wide / 2:.0f}" y="{at + 17:.0f}" '
                    f'text-anchor="middle" font-size="12" class="room">{_name(room)}</text></a>'
                )
                x += wide + GAP
            at += ROOM_HEIGHT + GAP
        y += height + 4
    label = "The floors of bpcore, the ground at the bottom: " + "; ".join(f"{f.number}: {f.what}" for f in table)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(label)}" font-family="inherit">{"".join(parts)}</svg>'
    )


def _name(room: str) -> str:
    return room.removeprefix("bpcore.")


def _width(room: str) -> float:
    return 18 + LETTER * len(_name(room))


def _lines(rooms: tuple[str, ...]) -> list[list[str]]:
    """Divide rooms into lines that fit."""
    lines: list[list[str]] = [[]]
    used = 0.0
    for room in rooms:
        if used and used + _width(room) > WIDTH - LEFT - 10:
            lines.append([])
            used = 0.0
        lines[-1].append(room)
        used += _width(room) + GAP
    return lines


def _wrapped(words: str, letters: int) -> list[str]:
    return textwrap.wrap(words, letters)
