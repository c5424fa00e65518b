"""The site shows all of bpcore, and its checks find what is wrong."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import bpcore
import docs.extensions
import docs.tools
from docs.extensions import links
from docs.extensions.links import api_name, faults, site_link
from docs.extensions.site_only import with_site_blocks
from docs.tools.floors import Floor, floors, house
from docs.tools.front_picture import stages
from docs.tools.gallery_pages import PAGES as GALLERY
from docs.tools.public_names import homes, modules, names_of


def test_every_public_name_has_one_home():
    for module in modules().values():
        for name in names_of(module):
            if not inspect.ismodule(getattr(module, name)):
                home = homes()[f"{module.__name__}.{name}"]
                assert home.thing == getattr(module, name)
    for name in [*bpcore.__all__, *bpcore._LAZY]:
        if callable(getattr(bpcore, name)):
            assert homes()[f"bpcore.{name}"].full == f"bpcore.{name}"
    assert homes()["bpcore.training.loop.train"].full == "bpcore.train"
    assert homes()["bpcore.persistence.model_file.save_model"].full == "bpcore.save"


def test_every_public_name_is_on_a_page():
    pytest.importorskip("sphinx")
    from docs.extensions.api_pages import pages

    found: dict[str, int] = {}
    for text in pages().values():
        for module, name in re.findall(r"^\.\. auto(?:class|exception|function):: ([\w.]+)::(\w+)$", text, re.M):
            found[f"{module}.{name}"] = found.get(f"{module}.{name}", 0) + 1
        for module, name in re.findall(r"^\.\. py:currentmodule:: ([\w.]+)\n\n\.\. py:data:: (\w+)$", text, re.M):
            found[f"{module}.{name}"] = found.get(f"{module}.{name}", 0) + 1
    assert set(found) == {home.full for home in homes().values()}
    assert set(found.values()) == {1}


def test_a_name_that_is_nowhere_described_is_missed(monkeypatch):
    pytest.importorskip("sphinx")
    from docs.extensions import api_pages

    monkeypatch.setattr(api_pages, "section", lambda home: "")
    assert not any("autofunction" in text for text in api_pages.pages().values())


@pytest.mark.parametrize(
    "name",
    [
        info.name
        for package in (docs.tools, docs.extensions)
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ],
)
def test_the_examples_of_the_tools(name):
    if name.endswith("mathml"):
        pytest.importorskip("latex2mathml")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


# ------------------------------------------------------------------------------------------ links


def test_links_out_of_the_docs():
    assert site_link("x", "../reference/api.md", "how-to/a") is None
    assert site_link("x", "../../benchmarks/results/bench/a.json", "how-to/a") is None
    assert site_link("x", "../../kernels/numba/cache.py", "how-to/a") == (
        '<a href="../_modules/bpcore/kernels/numba/cache.html">x</a>'
    )
    assert site_link("x", "../../bpcore/gallery/r03_one_variable.py", "gallery/r03") == (
        "[x](/gallery/r03-one-variable.md#the-code)"
    )


def test_names_in_the_text():
    assert api_name("bp.Trainer.run_steps") == "bpcore.Trainer.run_steps"
    assert api_name("bp.forward(net, X)") == "bpcore.forward"
    assert api_name("forward_into") == "bpcore.backprop.forward_into"
    assert [api_name(word) for word in ("net.W[1]", "step", "eta", "x = y", "data")] == [""] * 5


def page(body: str) -> str:
    return f"<html><body>{body}</body></html>"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('<a href="b.html#here">b</a>', []),
        ('<a href="b.html#gone">b</a>', ["a.html: no anchor for b.html#gone"]),
        ('<a href="#here">b</a>', ["a.html: no anchor for #here"]),
        ('<a href="c.html">b</a>', ["a.html: no file for c.html"]),
        ('<img alt="" src="c.png">', ["a.html: no file for c.png"]),
        ('<a href="https://example.org">b</a>', []),
        ('<script src="https://example.org/x.js"></script>', ["a.html: fetches https://example.org/x.js"]),
        ('<link rel="stylesheet" href="//example.org/x.css">', ["a.html: fetches //example.org/x.css"]),
        ('<img src="http://example.org/x.png">', ["a.html: fetches http://example.org/x.png"]),
    ],
)
def test_faults(tmp_path, body, found):
    (tmp_path / "a.html").write_text(page(body), "utf-8")
    (tmp_path / "b.html").write_text(page('<h1 id="here">b</h1>'), "utf-8")
    (tmp_path / "x.css").write_text('@font-face { src: url("x.ttf"); }', "utf-8")
    assert faults(tmp_path) == found


def test_a_style_sheet_that_fetches(tmp_path):
    (tmp_path / "x.css").write_text("@font-face { src: url(https://example.org/x.ttf); }", "utf-8")
    assert faults(tmp_path) == ["x.css: fetches a file from elsewhere"]


def test_every_text_that_is_included_has_a_page():
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    for text, where in links.TEXTS.items():
        assert (root / text).is_file()
        assert (root / "docs" / where).is_file()


def test_what_is_for_the_site_alone():
    assert with_site_blocks("a\n\n<!-- site\n```{x}\n```\n-->\n\n<!-- b -->\n") == "a\n\n```{x}\n```\n\n\n<!-- b -->\n"


# ------------------------------------------------------------------------------------------ pictures and the gallery


def test_the_house_has_every_room_of_the_table():
    table = floors()
    picture = house(table, lambda room: f"#{room}")
    rooms = [room for floor in table for room in floor.rooms]
    assert len(rooms) > 25
    assert re.findall(r'<a href="#([^"]+)">', picture) == [room for floor in reversed(table) for room in floor.rooms]
    right = [float(x) + float(w) for x, w in re.findall(r'class="room" x="(\d+)" y="\d+" width="(\d+)"', picture)]
    assert max(right) < 760


def test_floors():
    table = floors("| 1 | `p.low`, `p.q` | a |\n| 0 | `p.q.inner` | b |\n| 7 | `bpcore` | c |\n")
    assert table[0] == Floor(0, ("p.q.inner",), "b")
    assert [floor.holds("p.q.inner.x", table) for floor in table] == [True, False, False]
    assert [floor.holds("p.q.x", table) for floor in table] == [False, True, False]
    assert [floor.holds("bpcore.other", table) for floor in table] == [False, False, False]


def test_every_example_has_a_page_with_its_pictures():
    assert len(GALLERY) == 17
    for name, make in GALLERY.items():
        text = make()
        if name != "index.md":
            assert text.count("![") >= 1
            assert "{gallery-tables}" in text
            assert "{gallery-source}" in text


def test_the_picture_of_the_readme_is_true():
    found = stages(8)
    assert [round(accuracy, 2) for _, accuracy, _ in found] == [0.28, 0.78, 0.99, 1.0]
    assert all(abs(P.sum(axis=2) - 1).max() < 1e-12 for _, _, P in found)
