"""Formulas become MathML that browsers draw, and what cannot be drawn is found."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("latex2mathml")

from docs.extensions.mathml import mathml

SPACE = "{http://www.w3.org/1998/Math/MathML}"


def parsed(latex):
    made, wrong = mathml(latex, display=True)
    assert wrong == []
    return ET.fromstring(made)


def texts(element, tag):
    return [found.text for found in element.iter(SPACE + tag)]


def test_a_matrix_has_its_rows_and_columns():
    made = parsed(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \\ 5 & 6 \end{pmatrix}")
    assert [len(row) for row in made.iter(SPACE + "mtr")] == [2, 2, 2]
    assert texts(made, "mn") == list("123456")


@pytest.mark.parametrize("environment", ["aligned", "align*", "split", "align"])
def test_aligned_lines(environment):
    made = parsed(rf"\begin{{{environment}}} a &= b + 1 \\ c &= d \end{{{environment}}}")
    assert [[cell.get("columnalign") for cell in row] for row in made.iter(SPACE + "mtr")] == [["right", "left"]] * 2


def test_lines_without_an_environment():
    assert len(list(parsed(r"a = b \\ c = d").iter(SPACE + "mtr"))) == 2


def test_words_in_any_script():
    assert texts(
        parsed(r"\text{误差} = \begin{cases} 1 & \text{如果 } z > 0 \\ 0 & \text{否则} \end{cases}"), "mtext"
    ) == [
        "误差",
        "如果\xa0",
        "否则",
    ]


@pytest.mark.parametrize(
    ("latex", "tag", "expected"),
    [
        (r"\mathrm{act}'(z)", "mi", ["act", "z"]),
        (r"\mathbf{1}", "mn", ["\U0001d7cf"]),
        (r"\bigl\langle a, b \bigr\rangle", "mo", ["⟨", ",", "⟩"]),
        (r"\bigl\lVert a \bigr\rVert", "mo", ["‖", "‖"]),
        (r"\lvert a \rvert", "mo", ["|", "|"]),
        (r"f'", "mo", ["\N{PRIME}"]),
    ],
)
def test_pieces(latex, tag, expected):
    assert texts(parsed(latex), tag) == expected


@pytest.mark.parametrize(
    ("latex", "before", "after"),
    [(r"y \log a", "0.167em", "0.167em"), (r"\max(z, 0)", "0.167em", "0"), (r"\operatorname{erfc}(z)", "0.167em", "0")],
)
def test_the_name_of_a_function_stands_apart(latex, before, after):
    name = next(mo for mo in parsed(latex).iter(SPACE + "mo") if len(mo.text) > 1)
    assert (name.get("lspace"), name.get("rspace")) == (before, after)


@pytest.mark.parametrize(
    ("latex", "forms"), [("(-1)", "prefix"), ("a = -b", "prefix"), ("a - b", None), ("(a) - b", None)]
)
def test_a_minus_that_is_a_sign(latex, forms):
    minus = next(mo for mo in parsed(latex).iter(SPACE + "mo") if mo.text == "\N{MINUS SIGN}")
    assert minus.get("form") == forms


def test_bars_open_and_close():
    assert [mo.get("form") for mo in parsed(r"\lvert a \rvert").iter(SPACE + "mo")] == ["prefix", "postfix"]


def test_a_capital_greek_letter_is_upright():
    assert [mi.get("mathvariant") for mi in parsed(r"\Delta \delta").iter(SPACE + "mi")] == ["normal", None]


@pytest.mark.parametrize(
    ("latex", "found"),
    [
        (r"\unknown{z}", r"\\unknown is not known"),
        (r"a & b", "not drawn"),
        (r"\frac{1}", ".+"),
        (r"\begin{nothing} a \end{nothing}", ".+"),
    ],
)
def test_what_cannot_be_drawn_is_found(latex, found):
    import re

    assert re.search(found, "; ".join(mathml(latex)[1]))
