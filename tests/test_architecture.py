"""The floors of docs/explanation/architecture.md: every module has one, and imports only from below or beside."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
Graph = dict[str, set[str]]


def sources() -> dict[str, Path]:
    """Return the modules of the package by their installed name."""
    found = {}
    for folder, package in ((ROOT / "bpcore", "bpcore"), (ROOT / "kernels", "bpcore.kernels")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports_at_import(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when a module is imported, not those for type checkers or inside functions."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imports_at_import([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from imports_at_import([*node.body, *node.orelse, *node.finalbody])
            for handler in node.handlers:
                yield from imports_at_import(handler.body)


def import_graph() -> Graph:
    modules = sources()
    graph: Graph = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in imports_at_import(ast.parse(path.read_text("utf-8")).body):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            else:
                assert not node.level, f"{name} uses a relative import"
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {member if member in modules else str(node.module) for member in members}
        graph[name] = {found for found in graph[name] if found in modules} - {name}
    return graph


def floors() -> dict[str, int]:
    """Read the table: the floor of each module, or of all modules of a package."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text("utf-8"), re.M)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`([\w.]+)`", names)}


def floor_of(module: str, table: dict[str, int]) -> int | None:
    """Return the floor of the longest name in the table that the module has or lies in."""
    parts = module.split(".")
    for n in range(len(parts), 1, -1):
        if ".".join(parts[:n]) in table:
            return table[".".join(parts[:n])]
    return table.get(module)


def violations(graph: Graph, table: dict[str, int]) -> list[str]:
    found = []
    for module, imported in graph.items():
        own = floor_of(module, table)
        for other in imported:
            theirs = floor_of(other, table)
            if own is None or theirs is None or theirs > own:
                found.append(f"{module} (floor {own}) imports {other} (floor {theirs})")
    return sorted(found)


def test_the_check_itself():
    table = {"p": 7, "p.low": 0, "p.high": 1}
    assert floor_of("p.high.inner", table) == 1
    assert floor_of("p", table) == 7
    assert floor_of("p.other", table) is None
    assert violations({"p": {"p.low"}, "p.high.a": {"p.low", "p.high.b"}}, table) == []
    assert violations({"p.low": {"p.high"}}, table) == ["p.low (floor 0) imports p.high (floor 1)"]
    assert violations({"p.low": {"p"}}, table) == ["p.low (floor 0) imports p (floor 7)"]
    code = (
        "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nexcept E:\n    import d\ndef f():\n    import e"
    )
    assert [node.names[0].name for node in imports_at_import(ast.parse(code).body)] == ["a", "c", "d"]


def test_every_module_has_a_floor():
    table = floors()
    assert len(set(table.values())) > 5
    assert [module for module in sources() if floor_of(module, table) is None] == []


def test_every_room_of_the_table_exists():
    modules = sources()
    assert [name for name in floors() if name not in modules] == []


def test_nothing_imports_from_a_floor_above():
    graph = import_graph()
    assert sum(map(len, graph.values())) > 100, "the search for imports is broken"
    assert violations(graph, floors()) == []


def test_no_circles():
    try:
        graphlib.TopologicalSorter(import_graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
