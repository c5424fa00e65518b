"""What a drawn picture of a tutorial says is what the page computes."""

from __future__ import annotations

import re
from pathlib import Path

MINUS = "\N{MINUS SIGN}"
TUTORIALS = Path(__file__).resolve().parent.parent / "docs" / "tutorials"


def test_the_numbers_of_the_network_are_those_of_the_page():
    """The page is run by test_docs; here the picture is held to it."""
    picture = (TUTORIALS / "network-2-2-1.svg").read_text("utf-8").replace(MINUS, "-")
    page = (TUTORIALS / "four-equations-by-hand.md").read_text("utf-8").replace(MINUS, "-")
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    numbers = [number for text in shown for number in re.findall(r"-?\d+\.\d+", text)]
    assert len(numbers) >= 9
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", page), number


def test_every_picture_is_shown_by_a_page():
    pages = "".join(page.read_text("utf-8") for page in TUTORIALS.glob("*.md"))
    for picture in [*TUTORIALS.glob("*.png"), *TUTORIALS.glob("*.svg")]:
        assert f"({picture.name})" in pages, picture.name
