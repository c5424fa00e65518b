"""What stands between ``<!-- site`` and ``-->`` in a page is read by the site and hidden everywhere else.

The Markdown files are read on code hosts too, which show a directive as a block of code. A table of contents, or a
table that an example prints while the site is built, belongs on the site alone.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["setup", "with_site_blocks"]

BLOCK = re.compile(r"^<!-- site\n(.*?)^-->$", re.M | re.S)


def with_site_blocks(text: str) -> str:
    """Return a page as the site reads it.

    >>> with_site_blocks("a\\n<!-- site\\nb\\n-->\\n")
    'a\\nb\\n\\n'
    """
    return BLOCK.sub(lambda match: match[1], text)


def setup(app: Any) -> dict[str, Any]:
    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = with_site_blocks(source[0])

    app.connect("source-read", read)
    return {"parallel_read_safe": True}
