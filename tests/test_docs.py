"""What README, docs and docstrings show is run; what they name exists."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.generate import PAGES as PAGES_FROM_CODE
from docs.generate import pictures as generated_pictures
from docs.tools import how_to_pictures as pictures

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCTEST_OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    tag: str
    line: int
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page that are in one of the languages."""
    found = []
    fence = r"^([ ]*)```(\w+)[ ]?(\S*)\n(.*?)^\1```$"
    for match in re.finditer(fence, page.read_text("utf-8"), re.M | re.S):
        line = match.string.count("\n", 0, match.start(4))
        found.append(Block(match[2], match[3], line, textwrap.dedent(match[4])))
    return [block for block in found if block.language in languages]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def run_block(block: Block, page: Path, namespace: dict) -> None:
    """Execute a block; one that is written as a dialogue (>>>) must also print what it shows."""
    if ">>> " not in block.text:
        code = compile("\n" * block.line + block.text, str(page), "exec")
        exec(code, namespace)
        return
    example = doctest.DocTestParser().get_doctest(block.text, namespace, page_id(page), str(page), block.line)
    report: list[str] = []
    # A copy of the names goes in; what the dialogue assigned must be there for the next block.
    runner = doctest.DocTestRunner(optionflags=DOCTEST_OPTIONS)
    runner.run(example, out=report.append, clear_globs=False)
    namespace.update(example.globs)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def cupy_runs() -> bool:
    import bpcore

    return any(status.name == "cupy" and status.usable for status in bpcore.backends())


NEEDS = {"cupy": cupy_runs, "onnx": lambda: importlib.util.find_spec("onnx") is not None}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run in their order, in one namespace, in an empty folder.

    A block with a tag is only compiled where what it needs is absent: ``cupy`` a GPU, ``onnx`` the package.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        assert block.tag in {"", *NEEDS}, f"{page_id(page)}:{block.line}: unknown tag {block.tag!r}"
        if block.tag and not NEEDS[block.tag]():
            compile(block.text, str(page), "exec")
            continue
        run_block(block, page, namespace)


def module_names() -> list[str]:
    """Return the modules that hold an example, by their installed name."""
    names = []
    for folder, package in ((ROOT / "bpcore", "bpcore"), (ROOT / "kernels", "bpcore.kernels")):
        for path in sorted(folder.rglob("*.py")):
            if ">>> " in path.read_text("utf-8"):
                parts = path.relative_to(folder).with_suffix("").parts
                names.append(".".join([package, *parts]).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("name", module_names())
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=DOCTEST_OPTIONS)
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        runner.run(example, out=report.append)
    results = runner.summarize(verbose=False)
    assert results.attempted > 0
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_of_a_page_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page_id(page)} links to {target}"


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), [ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached:
            reached.add(page)
            found = re.findall(r"\]\(([^)\s#:]+\.md)", page.read_text("utf-8"))
            waiting += [page.parent / target for target in found]
    assert {page_id(page) for page in PAGES if page.parent != ROOT} <= {page_id(page) for page in reached}


@pytest.mark.parametrize("name", sorted(PAGES_FROM_CODE))
def test_the_generated_pages_are_what_the_code_says(name):
    written = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert written == PAGES_FROM_CODE[name](), "out of date: run python docs/generate.py"


def numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.?\d*", text)]


def test_the_generated_pictures_are_what_the_code_draws():
    folder, made = ROOT / "docs" / "reference" / "curves", generated_pictures()
    assert {path.name for path in folder.iterdir()} == set(made), "out of date: run python docs/generate.py"
    for name, text in made.items():
        written = numbers((folder / name).read_text("utf-8"))
        # a coordinate may be rounded the other way on another machine
        assert written == pytest.approx(numbers(text), abs=0.11), f"{name} is out of date: run python docs/generate.py"


@pytest.mark.parametrize("page", pictures.pages(), ids=page_id)
def test_the_pictures_of_a_page_are_those_that_its_code_saves(page, tmp_path):
    """The code runs as ``docs/tools/how_to_pictures.py`` runs it; each picture has the size of the kept one."""
    image = pytest.importorskip("PIL.Image")
    assert pictures.shown_by(page) == pictures.saved_by(page)
    pictures.run(page, tmp_path)
    for name in pictures.shown_by(page):
        with image.open(tmp_path / name) as made, image.open(pictures.PICTURES / name) as kept:
            assert made.size == kept.size, f"{name} is out of date: run python docs/tools/how_to_pictures.py"
            shades = made.convert("L").histogram()
        assert 0.005 < 1 - max(shades) / sum(shades) < 0.95, "the picture is empty, or covered"


def test_every_picture_is_shown():
    shown = {name for page in pictures.pages() for name in pictures.shown_by(page)}
    assert {path.name for path in pictures.PICTURES.glob("*.png")} == shown


def shell_lines(page: Path) -> list[str]:
    """Return the lines of the shell blocks of a page, comments removed and continued lines joined."""
    text = "\n".join(block.text for block in blocks(page, "sh", "console", "bash"))
    lines = (line.partition("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def commands(page: Path) -> list[list[str]]:
    """Return every call of the command ``bpcore`` in a page, as words after that name."""
    parts = (part.strip() for line in shell_lines(page) for part in line.split("&&"))
    calls = (re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?bpcore(?: |$)(.*)", part) for part in parts)
    return [call[1].split() for call in calls if call]


@functools.cache
def help_of(*subcommand: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bpcore", *subcommand, "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, f"bpcore {subcommand}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=page_id)
def test_the_commands_of_a_page_exist_with_their_options(page):
    for words in commands(page):
        depth = 2 if words[:2] == ["bench", "compare"] else 1
        text = help_of(*(word for word in words[:depth] if not word.startswith("-")))
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", text), f"{words}: no {option} in\n{text}"


def test_readme_gives_two_commands_for_a_fresh_machine():
    lines = shell_lines(ROOT / "README.md")
    assert lines[0] == (
        'python3 -m venv .venv && .venv/bin/pip install -e ".[sklearn]" && .venv/bin/bpcore train digits'
    )
    assert lines[1] == ('python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest')


def test_what_runs_for_every_change_is_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    (command,) = re.findall(r"^test_command='(.*)'$", script, re.M)
    assert command in shell_lines(ROOT / "README.md")
    assert 'bash -c "$test_command"' in script
    assert "://" not in script


def test_the_example_of_the_readme_is_short():
    (example,) = blocks(ROOT / "README.md", "python")
    assert len(ast.parse(example.text).body) > 3
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 15
