"""The house of the architecture page as a picture whose rooms are links, drawn from the table of the page."""

from __future__ import annotations

from typing import Any

from docs.tools.floors import floors, house

__all__ = ["setup"]


def setup(app: Any) -> dict[str, Any]:
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class House(SphinxDirective):
        """Draw the floors."""

        def run(self) -> list[nodes.Node]:
            """Return the picture."""
            up = "../" * self.env.docname.count("/")
            picture = house(floors(), lambda room: f"{up}reference/api/{page_of(room)}.html")
            return [nodes.raw("", f'<div class="house">{picture}</div>', format="html")]

    app.add_directive("house", House)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def page_of(room: str) -> str:
    """Return the page of a module; that of the package itself is the list by purpose."""
    return "index" if room == "bpcore" or room.endswith("__main__") else f"modules/{room}"
