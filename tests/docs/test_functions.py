"""The pages of activations, losses and update rules say what is so."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

import bpcore as bp
from bpcore.functions.update_rules import UPDATE_RULES
from docs.tools import function_pages
from docs.tools.curves import Curve, picture, ticks
from docs.tools.function_pages import PAGES, PICTURES, corners
from docs.tools.latex import latex, program_latex

FAMILIES = {
    "activations.md": ("activation", bp.ACTIVATIONS),
    "losses.md": ("loss", bp.LOSSES),
    "update-rules.md": ("update", UPDATE_RULES),
}


page_of = functools.cache(lambda name: PAGES[name]())


@pytest.mark.parametrize("page", FAMILIES)
def test_every_function_has_a_section_and_a_picture(page):
    kind, table = FAMILIES[page]
    text = page_of(page)
    assert re.findall(r"^## (\S+)$", text, re.M) == list(table)
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        name = section.split("\n", 1)[0]
        assert section.count("$$\n") >= 2
        assert f'`"{name}"`' in section
        assert re.search(r"^\| code \| \[.+\]\(\.\./\.\./bpcore/functions/\w+\.py#\w+\) \|$", section, re.M)
        assert f"(curves/{kind}-{name}.svg)" in section
        assert f"{kind}-{name}.svg" in PICTURES()
        if kind != "update":
            assert "\n| derivative | " in section


def test_corners():
    assert corners(lambda z: np.where(np.abs(z) < 3, 1 / 6, 0.0), -5, 5) == [-3.0, 3.0]
    assert corners(lambda z: np.where(z > 0, 1.0, np.exp(z)), -5, 5) == [], "steep, and without a corner"
    assert corners(lambda z: 0.5 + 0.5 * np.tanh(200 * z), -5, 5) == [], "a corner only if one looks from far away"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relu", "| not differentiable | at z = 0 |"),
        ("selu", "| not differentiable | at z = 0 |"),
        ("elu", "| not differentiable | nowhere |"),
        ("hard_sigmoid", "| not differentiable | at z = -3, 3 |"),
        ("sigmoid", "| outputs | 0 to 1, bounded |"),
        ("softplus", "| outputs | 0 to ∞, bounded below |"),
        ("log_softmax", "| outputs | \N{MINUS SIGN}∞ to 0, bounded above |"),
        ("silu", "| monotone | no: lowest at z = -1.28, where h = -0.2785 |"),
        ("sigmoid", "| steepest | slope 0.25 at z = 0 |"),
    ],
)
def test_properties(name, words):
    assert words in page_of("activations.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_curves_of_whole_rows_are_those_of_the_backend():
    from bpcore.gallery.r16_activation_curves import curve

    z = np.linspace(-5, 5, 11)
    for name in ("softmax", "log_softmax"):
        drawn = function_pages._row_curve(bp.ACTIVATIONS[name], z)
        for found, expected in zip(drawn, curve(bp.get_backend("numpy"), bp.ACTIVATIONS[name], z), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("a - (b - c)", r"a - \left(b - c\right)"),
        ("a * b * b", r"a\, b^{2}"),
        ("a * -b", r"a\, \left(-b\right)"),
        ("3 * 2 ** a", r"3 \cdot 2^{a}"),
        ("(a + b) ** 2 / c", r"\frac{\left(a + b\right)^{2}}{c}"),
        ("log1p(-a)", r"\ln(1 - a)"),
        ("max(z, -1000) * sigmoid(z)", r"z\, \sigma(z)"),
        ("max(1 - y*a, 0)", r"\max(1 - y\, a, 0)"),
        ("exp(-0.5 * z * z)", r"e^{-\frac{1}{2}\, z^{2}}"),
        ("beta1 ** t * weight_decay", r"\beta_{1}^{t}\, \text{weight decay}"),
        ("sqrt(z) + abs(z)", r"\sqrt{z} + \lvert z \rvert"),
    ],
)
def test_latex(formula, expected):
    assert latex(bp.Formula(formula)) == expected


def test_programs():
    assert program_latex(bp.Momentum().program) == (
        r"\begin{aligned} v &\leftarrow \mu\, v + g \\ \theta &\leftarrow \theta - \eta\, v \end{aligned}"
    )


def test_all_formulas_can_be_shown():
    mathml = pytest.importorskip("docs.extensions.mathml")
    pytest.importorskip("latex2mathml")
    shown = 0
    for name in PAGES:
        for formula in re.findall(r"\$\$\n(.*?)\n\$\$|(?<!\$)\$([^$\n]+)\$(?!\$)", page_of(name)):
            assert mathml.mathml(formula[0] or formula[1])[1] == []
            shown += 1
    assert shown > 60


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_each_path_runs_downhill(name):
    make = UPDATE_RULES[name]
    path = bp.descend(
        function_pages.VALLEY, {"x": -4.0, "y": 1.5}, make(function_pages.ETAS[name]),
        max_updates=function_pages.UPDATES, backend="numpy",
    )  # fmt: skip
    assert path.values[-1] < path.values[0] / 8
    assert PICTURES()[f"update-{name}.svg"].count("<circle") == 41


def test_pictures():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    text = picture([Curve(x, np.array([0.0, 1.0, np.nan, 9.0]), "<f>")], "a & b", "x", (0.0, 2.0))
    assert "<title>a &amp; b</title>" in text
    assert "&lt;f&gt;" in text
    (path,) = re.findall(r'<path d="([^"]*)" fill="none"', text)
    assert path.count("M") == 1, "what is not finite, or out of sight, leaves a gap"
    assert path.count("L") == 1
    assert ticks(-5, 5) == [-4, -2, 0, 2, 4]
    assert ticks(0.002, 0.998) == [0.2, 0.4, 0.6, 0.8]
