"""The glossary is sorted, complete in both languages, and names only what exists."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import bpcore as bp
from bpcore.functions.update_rules import UPDATE_RULES

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "glossary.md").read_text("utf-8")
HAN = re.compile(r"[\u4e00-\u9fff]")


class Entry(NamedTuple):
    """A term: its heading, the line of facts, and its two definitions."""

    term: str
    facts: str
    english: str
    chinese: str


def entries() -> list[Entry]:
    parts = re.split(r"^### (.+)\n", TEXT, flags=re.M)[1:]
    found = []
    for term, body in zip(parts[::2], parts[1::2], strict=True):
        paragraphs = [line for line in body.split("\n## ")[0].splitlines() if line]
        assert len(paragraphs) == 3, f"{term}: needs facts, a definition in English and one in Chinese"
        found.append(Entry(term, *paragraphs))
    return found


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_there_are_enough_terms_each_once_in_order():
    terms = [entry.term for entry in entries()]
    keys = [re.sub(r"[^a-z0-9]", "", term.lower()) for term in terms]
    assert len(terms) >= 80
    assert keys == sorted(set(keys))


def test_each_term_is_named_and_defined_in_both_languages():
    for entry in entries():
        assert re.match(r"\*\*[^*]+\*\*", entry.facts), entry.term
        assert entry.english.endswith("."), entry.term
        assert not HAN.search(entry.english), entry.term
        assert entry.chinese.endswith("。"), entry.term
        assert HAN.search(entry.chinese), entry.term


def test_the_chinese_index_leads_to_every_term():
    index = TEXT.partition("## 中文索引")[2].partition("\n## ")[0]
    links = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", index)
    assert sorted(links) == sorted((entry.facts.split("**")[1], slug(entry.term)) for entry in entries())


def test_every_name_of_the_package_exists():
    names = re.findall(r"`bp\.([\w.]+)", TEXT)
    assert len(names) > 50
    for name in names:
        reduce(getattr, name.split("."), bp)


def test_every_built_in_function_and_rule_has_a_term():
    quoted = set(re.findall(r'`"(\w+)"`', TEXT))
    assert {*bp.ACTIVATIONS, *bp.LOSSES, *bp.INITIALIZERS} <= quoted
    assert quoted <= {*bp.ACTIVATIONS, *bp.LOSSES, *bp.INITIALIZERS}
    assert {rule.lower() for rule in UPDATE_RULES} <= {name.lower() for name in re.findall(r"`bp\.(\w+)", TEXT)}
