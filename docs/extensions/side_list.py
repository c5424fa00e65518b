"""The list beside a page is made once for all pages that are not in it: modules and their sources, most of the site.

Sphinx copies the whole table of contents for each page. For a page that the table does not contain, the result depends
on nothing but the folder at the top and how deep the page lies in it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["setup"]

OUTSIDE = ("_modules/", "reference/api/modules/")


def setup(app: Any) -> dict[str, Any]:
    made: dict[tuple[object, ...], str] = {}

    def once(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        if page.startswith(OUTSIDE) and "toctree" in context:
            make = context["toctree"]

            def toctree(**options: Any) -> str:
                key = (page.partition("/")[0], page.count("/"), *sorted(options.items()))
                if key not in made:
                    made[key] = make(**options)
                return made[key]

            context["toctree"] = toctree

    # before the theme asks for it
    app.connect("html-page-context", once, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
