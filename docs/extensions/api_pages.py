"""The pages of the API, written into ``docs/reference/api/`` before a build, from the modules themselves.

What users write as ``bpcore.something`` is grouped by purpose; everything else has a page for each module. A reference
to any name under which a thing is offered leads to the one place where it is described.
"""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

from docs.generate import first_sentence, group_of
from docs.tools.floors import floors
from docs.tools.public_names import Home, homes, modules, names_of

__all__ = ["pages", "setup", "slug"]

NOTE = ".. Written by docs/extensions/api_pages.py.\n\n"


def slug(words: str) -> str:
    """Turn a heading into the name of a file."""
    return "-".join("".join(c if c.isalnum() else " " for c in words.lower()).split())


def pages() -> dict[str, str]:
    """Return the pages by the path below ``docs/reference/api``, without its ending."""
    described = sorted(set(homes().values()), key=lambda home: home.full.lower())
    grouped: dict[str, list[Home]] = {}
    for home in described:
        if home.module == "bpcore":
            heading = group_of(home.thing.__module__) if callable(home.thing) else "The package"
            grouped.setdefault(heading, []).append(home)
    found = {slug(heading): group_page(heading, members) for heading, members in grouped.items()}
    for name in modules():
        if name != "bpcore":
            found[f"modules/{name}"] = module_page(name, [home for home in described if home.module == name])
    found["index"] = index_page(grouped)
    return found


def title(words: str) -> str:
    return f"{words}\n{'=' * len(words)}\n\n"


def link(home: Home) -> str:
    thing = home.thing
    role = "class" if inspect.isclass(thing) else "func" if callable(thing) else "data"
    role = "exc" if role == "class" and issubclass(thing, BaseException) else role
    return f":py:{role}:`{home.full}`"


def entry(home: Home) -> str:
    """Return the directive that describes a thing."""
    from sphinx.pycode import ModuleAnalyzer

    thing, name = home.thing, f"{home.module}::{home.name}"
    if inspect.isclass(thing):
        kind = "exception" if issubclass(thing, BaseException) else "class"
        return f".. auto{kind}:: {name}\n   :members:\n\n"
    if inspect.isroutine(thing):
        return f".. autofunction:: {name}\n\n"
    words = ModuleAnalyzer.for_module(home.module).find_attr_docs().get(("", home.name), [])
    text = "".join(f"   {line}\n" for line in words)
    return f".. py:currentmodule:: {home.module}\n\n.. py:data:: {home.name}\n\n{text}\n"


def section(home: Home) -> str:
    """Return a section of its own for a thing."""
    return f"{home.name}\n{'-' * len(home.name)}\n\n{entry(home)}"


def group_page(heading: str, members: list[Home]) -> str:
    return NOTE + title(heading) + "".join(map(section, members))


def module_page(name: str, members: list[Home]) -> str:
    # two hundred modules would drown the list beside each page; the index and the search lead to them
    text = (
        ":orphan:\n\n"
        + NOTE
        + title(name)
        + f".. automodule:: {name}\n"
        + ("   :no-index:\n\n" if name in homes() else "\n")
    )
    text += "".join(map(section, members))
    others = {homes()[f"{name}.{public}"] for public in names_of(modules()[name]) if f"{name}.{public}" in homes()}
    others -= set(members)
    if others:
        text += "Elsewhere\n---------\n\nAlso offered here: " + ", ".join(sorted(map(link, others))) + ".\n"
    return text


def index_page(grouped: dict[str, list[Home]]) -> str:
    text = NOTE + title("API")
    text += "By purpose, everything that is an attribute of ``bpcore``:\n\n"
    for heading in sorted(grouped):
        text += f":doc:`{slug(heading)}`\n   " + ", ".join(map(link, grouped[heading])) + "\n\n"
    others = sorted(
        {homes()[f"bpcore.{name}"] for name in names_of(modules()["bpcore"]) if f"bpcore.{name}" in homes()}
    )
    text += "Built in, by name\n   " + ", ".join(link(home) for home in others if home.module != "bpcore") + "\n\n"
    parts = [
        name
        for name in names_of(modules()["bpcore"])
        if f"bpcore.{name}" in modules() and f"bpcore.{name}" not in homes()
    ]
    text += "Modules\n   " + ", ".join(f":doc:`bpcore.{name} <modules/bpcore.{name}>`" for name in parts) + "\n\n"
    text += "By module, floor by floor as in :doc:`/explanation/architecture`, the top first:\n\n"
    table = floors()
    for floor in sorted({row.number for row in table}, reverse=True):
        for row in (row for row in table if row.number == floor):
            text += f"Floor {floor}: {row.what}\n"
            rooms = [name for name in modules() if name != "bpcore" and row.holds(name, table)]
            for name in rooms:
                text += f"   - :doc:`{name} <modules/{name}>`: {sentence(modules()[name])}\n"
            text += "\n"
    text += ".. toctree::\n   :hidden:\n\n" + "".join(f"   {slug(heading)}\n" for heading in sorted(grouped))
    return text


def sentence(thing: Any) -> str:
    return first_sentence(thing).replace("`", "``")


def write(folder: Path) -> None:
    """Write the pages that changed, so that a second build reads those alone; drop those of modules that are gone."""
    made = {folder / f"{name}.rst": text for name, text in pages().items()}
    for path in folder.rglob("*.rst"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8", newline="\n")


@functools.cache
def ends() -> dict[str, set[str]]:
    """Map the last word of every full name to the homes of what it may mean."""
    found: dict[str, set[str]] = {}
    for name, home in homes().items():
        found.setdefault(name.rpartition(".")[2], set()).add(home.full)
    return found


def home_of(name: str) -> str:
    """Return the name at home of what a docstring calls by any of its names; empty if that is not clear.

    >>> home_of("bpcore.training.loop.train"), home_of("load_model"), home_of("Backend.matmul")
    ('bpcore.train', 'bpcore.load', 'bpcore.Backend.matmul')
    """
    words = name.split(".")
    for n in range(len(words), 0, -1):
        head, tail = ".".join(words[:n]), words[n:]
        if head in homes():
            return ".".join((homes()[head].full, *tail))
    meant = ends().get(words[0], set())
    return ".".join((*meant, *words[1:])) if len(meant) == 1 else ""


def resolve(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Lead a reference from the name under which a thing is defined, or offered as well, to its home."""
    if node.get("refdomain") != "py":
        return None
    full = home_of(node["reftarget"])
    found = env.get_domain("py").objects.get(full)
    if found is not None:
        from sphinx.util.nodes import make_refnode

        return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, contnode, full)
    # what exists and has no entry of its own is named and not linked
    owner, _, name = node["reftarget"].rpartition(".")
    context = node.get("py:class") or ""
    there = _exists(owner, name) or (not owner and context and _exists(context, name))
    return contnode if there else None


def _exists(owner: str, name: str) -> bool:
    """Whether a class, if one is named, or else any module, has that name."""
    if not owner or owner in modules() or owner.rpartition(".")[2].islower():
        return any(hasattr(module, name) for module in modules().values())
    last = owner.rpartition(".")[2]
    classes = {home.thing for home in homes().values() if inspect.isclass(home.thing)}
    for cls in (cls for cls in classes if cls.__name__ == last):
        listed = re.search(rf"^[\w, ]*\b{name}\b[\w, ]*( :|$)", inspect.getdoc(cls) or "", re.M)
        if listed or hasattr(cls, name) or f"self.{name} =" in inspect.getsource(cls):
            return True
    return False


def without_references(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Number the references plainly: a function may cite one that its module lists, which docutils cannot follow."""
    for k, line in enumerate(lines):
        lines[k] = re.sub(r"\[(\d)\]_", r"[\1]", re.sub(r"^(\s*)\.\. \[(\d)\] ", r"\1\2. ", line))


def foreign(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a base class of another library brings."""
    module = getattr(thing, "__module__", None) or "bpcore"
    return None if module.startswith("bpcore") or not inspect.isroutine(thing) else True


def setup(app: Any) -> dict[str, Any]:
    app.connect("config-inited", lambda app, config: write(Path(app.srcdir) / "reference" / "api"))
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", without_references, priority=400)
    app.connect("autodoc-skip-member", foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
