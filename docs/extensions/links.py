"""Links that lead on within the site: to the code, to texts of the repository, and to the API from a name in a page.

A page names a function in letters of code, as in ``bp.train``; here that becomes a link to its entry. A link to a
module's file becomes one to its highlighted source, and one to a text at the top of the repository leads to its page.
When all is written, each link and anchor of each page is followed; one that leads nowhere is a warning, and so is
anything that a reader's browser would fetch from elsewhere.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bpcore.gallery import EXAMPLES
from docs.tools.gallery_pages import file_of
from docs.tools.public_names import homes, modules

__all__ = ["api_name", "faults", "setup", "site_link"]

TEXTS = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "README.md": "index.md",
    "benchmarks/results/README.md": "project/recorded-results.md",
}
"""Texts outside of docs/ and the pages that include them."""

EQUATION = re.compile(r"\[([^\]\n]+)\]\(#(eq-[\w-]+)\)")
LINK = re.compile(r"\[([^\]\n]*)\]\(((?:\.\./)+[^)\s]+)\)")
EXAMPLE_PAGES = {example.run.__module__: file_of(example) for example in EXAMPLES.values()}
"""The source of an example is on its page."""

NAME = re.compile(r"(?:(?:bp|bpcore)\.)?[A-Za-z_][\w.]*")


def site_link(words: str, target: str, page: str) -> str | None:
    """Return a link of a page for the site, if it leads out of ``docs``.

    >>> site_link("the code", "../../bpcore/backprop.py#bp3_bias_grad", "explanation/backpropagation")
    '<a href="../_modules/bpcore/backprop.html#bp3_bias_grad">the code</a>'
    >>> site_link("what changed", "../../CHANGELOG.md", "explanation/numerics")
    '[what changed](/project/changelog.md)'
    """
    path, _, fragment = target.partition("#")
    found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
    if found in TEXTS:
        return f"[{words}](/{TEXTS[found]}{'#' + fragment if fragment else ''})"
    if re.match(r"(bpcore|kernels)/.*\.py$", found):
        module = found.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = f"bpcore.{module}" if module.startswith("kernels") else module
        if module in EXAMPLE_PAGES:
            return f"[{words}](/gallery/{EXAMPLE_PAGES[module]}#the-code)"
        up = "../" * page.count("/")
        anchor = f"#{fragment}" if fragment else ""
        return f'<a href="{up}_modules/{module.replace(".", "/")}.html{anchor}">{words}</a>'
    return None


def api_name(words: str) -> str:
    """Return the full name of what is meant by words in letters of code, or nothing.

    A name without ``bp.`` counts if it cannot be an ordinary word: it has an underscore, or a capital letter within.

    >>> api_name("bp.train"), api_name("bp3_bias_grad"), api_name("train"), api_name("bp.MLP([2, 3])")
    ('bpcore.train', 'bpcore.bp3_bias_grad', '', 'bpcore.MLP')
    """
    name = re.sub(r"\(.*\)$", "", words, flags=re.S)
    if not NAME.fullmatch(name):
        return ""
    if re.match(r"(bp|bpcore)\.", name):
        name = re.sub(r"^bp\.", "bpcore.", name)
        for n in range(name.count("."), 0, -1):
            head = ".".join(name.split(".")[: n + 1])
            if head in homes():
                return homes()[head].full + name[len(head) :]
        return name
    first = name.partition(".")[0]
    if first.islower() and "_" not in first:
        return ""
    known = (homes()[full] for full in (f"bpcore.{first}", f"bpcore.backprop.{first}") if full in homes())
    return next((home.full + name[len(first) :] for home in known), "")


BACK = re.compile(r'(<div class="viewcode-block" id="([\w.]+)">\s*)<a class="viewcode-back" href="[^"]*">')


DECLARED = re.compile(
    r'(<span class="n">_builtin</span><span class="p">\(</span>\s*)(<span class="s2">(?:"|&quot;)(\w+)(?:"|&quot;))'
)


# ------------------------------------------------------------------------------------------ when all is written

IDS = re.compile(r"""\b(?:id|name)=["']([^"']+)["']""")
HREFS = re.compile(
    r"""<(a|link|script|img|source|iframe|use|image)\b[^>]*?\b(?:xlink:href|href|src)=["']([^"']*)["']"""
)
FETCHED = re.compile(r"@import|url\(\s*['\"]?(?:https?:)?//")


def faults(site: Path) -> list[str]:
    """Return what is wrong with the links of a built site: dead ones, and those that fetch something from elsewhere."""
    pages = {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in sorted(site.rglob("*.html"))}
    ids = {name: {html.unescape(found) for found in IDS.findall(text)} for name, text in pages.items()}
    found = []
    for name, text in pages.items():
        for tag, target in dict.fromkeys(HREFS.findall(text)):
            if re.match(r"(?:\w+:)?//", target):
                if tag != "a":
                    found.append(f"{name}: fetches {target}")
                continue
            if not target or re.match(r"(mailto|data|javascript):", target):
                continue
            path, _, anchor = unquote(html.unescape(target)).partition("#")
            path = path.partition("?")[0]
            other = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if not (site / other).is_file():
                found.append(f"{name}: no file for {target}")
            elif anchor and other in ids and anchor not in ids[other]:
                found.append(f"{name}: no anchor for {target}")
    for sheet in sorted(site.rglob("*.css")):
        if FETCHED.search(sheet.read_text("utf-8")):
            found.append(f"{sheet.relative_to(site).as_posix()}: fetches a file from elsewhere")
    return found


def setup(app: Any) -> dict[str, Any]:
    from docutils import nodes
    from sphinx.util import logging
    from sphinx.util.nodes import make_refnode

    log = logging.getLogger(__name__)

    def read(app: Any, page: str, source: list[str]) -> None:
        text = LINK.sub(lambda found: site_link(found[1], found[2], page) or found[0], source[0])
        # the anchor of an equation is not its label
        source[0] = EQUATION.sub(r'<a href="#equation-\2">\1</a>', text)

    def names(app: Any, doctree: Any, page: str) -> None:
        objects = app.env.get_domain("py").objects
        for literal in list(doctree.findall(nodes.literal)):
            found = objects.get(api_name(literal.astext()))
            inside = isinstance(literal.parent, nodes.reference | nodes.title | nodes.term)
            if found is not None and not inside:
                link = make_refnode(app.builder, page, found.docname, found.node_id, literal.deepcopy())
                literal.replace_self(link)

    def back(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        # a module whose names are described in several places gets back links to one of them from viewcode
        module = page.removeprefix("_modules/").replace("/", ".")
        if page.startswith("_modules/") and module != "index":
            objects = app.env.get_domain("py").objects

            def home(found: re.Match[str]) -> str:
                head, _, tail = found[2].partition(".")
                full = homes()[f"{module}.{head}"].full + (f".{tail}" if tail else "")
                target = app.builder.get_relative_uri(page, objects[full].docname)
                return f'{found[1]}<a class="viewcode-back" href="{target}#{full}">'

            body = BACK.sub(home, context["body"])
            # what is declared in a table and not by a function is found by its name
            context["body"] = DECLARED.sub(r'\1<span id="\3"></span>\2', body)

    def follow(app: Any, error: Exception | None) -> None:
        if error is None and app.builder.name == "html":
            for fault in faults(Path(app.outdir)):
                log.warning("%s", fault)

    def follow_imported(app: Any, module: str, attribute: str) -> str | None:
        # a constant has the module of its class, or none
        thing = getattr(modules().get(module), attribute.partition(".")[0], None)
        defined = getattr(thing, "__module__", None) if hasattr(thing, "__qualname__") else None
        return defined if defined in modules() else module

    app.connect("viewcode-follow-imported", follow_imported)
    app.connect("source-read", read)
    app.connect("doctree-resolved", names)
    app.connect("html-page-context", back)
    app.connect("build-finished", follow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
