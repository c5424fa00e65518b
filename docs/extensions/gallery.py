"""What an example of the gallery prints, and its source with a link to every line.

The example runs while the site is built, on NumPy. One whose numbers are not the known ones is a warning.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

__all__ = ["setup", "source_html"]


def source_html(code: str, prefix: str) -> str:
    """Return highlighted Python whose lines have numbers that are links to themselves."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    look = HtmlFormatter(linenos="inline", lineanchors=prefix, anchorlinenos=True, cssclass="highlight")
    return f'<div class="highlight-python notranslate">{highlight(code, PythonLexer(), look)}</div>'


def setup(app: Any) -> dict[str, Any]:
    from docutils import nodes
    from sphinx.util import logging
    from sphinx.util.docutils import SphinxDirective

    from bpcore.gallery import get_example, run_example

    log = logging.getLogger(__name__)

    class Tables(SphinxDirective):
        """Run an example and show its tables."""

        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            """Return the tables and a line on the checks."""
            report = run_example(get_example(self.arguments[0]), "numpy")
            for check in report.checks:
                if not check.passed:
                    log.warning(
                        "%s: %s is %s", self.arguments[0], check.what, check.found, location=self.get_location()
                    )
            words = f"{len(report.checks)} numbers were compared with the known ones when this page was made, on NumPy."
            shown = [
                part for table in report.tables for part in (_title(table.title), _table(table.header, table.rows))
            ]
            return [nodes.paragraph("", words), *shown]

    class Source(SphinxDirective):
        """Show the source of an example."""

        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            """Return the source as HTML."""
            example = get_example(self.arguments[0])
            code = inspect.getsource(sys.modules[example.run.__module__])
            return [nodes.raw("", source_html(code, "L"), format="html")]

    def _title(words: str) -> Any:
        return nodes.rubric("", words)

    def _table(header: tuple[str, ...], rows: tuple[tuple[object, ...], ...]) -> Any:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
        group += nodes.thead("", _row(header))
        group += nodes.tbody("", *(_row(row) for row in rows))
        return nodes.table("", group, classes=["numbers"])

    def _row(cells: tuple[object, ...]) -> Any:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", str(cell))) for cell in cells))

    app.add_directive("gallery-tables", Tables)
    app.add_directive("gallery-source", Source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
