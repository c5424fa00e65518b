r"""Formulas as MathML: they show without a script, without a font from elsewhere and in the colour of the text.

`latex2mathml` converts them. What it does not know, or what browsers do not draw, is a warning with the place of the
formula, so a build with ``-W`` does not let a broken formula pass.

>>> mathml(r"\begin{aligned} a &= b \end{aligned}")[1]
[]
>>> mathml(r"\unknown{z}")[1]
['\\unknown is not known']
"""

from __future__ import annotations

import html
import re
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

__all__ = ["mathml", "setup"]

SAME = {"aligned": "align*", "align": "align*", "split": "align*"}
"""Environments that the converter knows under another name only."""

ENVIRONMENTS = {"align*", "array", "cases", "matrix", "pmatrix", "bmatrix", "vmatrix", "Vmatrix"}

PARTS = {"mfrac": 2, "msup": 2, "msub": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3, "mroot": 2}
"""How many parts an element has."""

NAMED = re.compile(r"<m([io])>([A-Za-z]{2,})</m\1>(?=(<mo[^>]*>(?:\(|&#x00028;))?)")
"""A function by its name, and the bracket after it if there is one."""

SIGN = re.compile(
    r"(<mo\b[^>]*>(?:\(|\[|,|=|&#x00028;|&#x0005B;|&#x0002C;|&#x0003D;|&#x02190;)</mo>)<mo>&#x02212;</mo>"
)
"""A minus that follows a bracket or a relation has nothing to its left."""

LETTERS = re.compile(r'(?:<mi mathvariant="normal">(?:\w|-)</mi>){2,}')


def mathml(latex: str, display: bool = False) -> tuple[str, list[str]]:
    """Convert a formula; return the element and what is wrong with it."""
    from latex2mathml.converter import convert

    def renamed(match: re.Match[str]) -> str:
        return f"\\{match[1]}{{{SAME.get(match[2], match[2])}}}"

    text = re.sub(r"\\(l|r)angle\b", lambda match: {"l": "\u27e8", "r": "\u27e9"}[match[1]], latex.strip())
    # a bar that opens is drawn as one that divides, unless it is told
    text = re.sub(r"(\\[bB]igg?[lr])\\[lr](V|v)ert\b", lambda m: m[1] + {"V": "\u2016", "v": "|"}[m[2]], text)
    text = re.sub(r"(?<!\\left)\\l(V|v)ert\b", r"\\left\\l\1ert", text)
    text = re.sub(r"(?<!\\right)\\r(V|v)ert\b", r"\\right\\r\1ert", text)
    # the converter has bold letters and no bold digits
    text = re.sub(r"\\mathbf\{(\d)\}", lambda match: chr(0x1D7CE + int(match[1])), text)
    text = re.sub(r"\\(begin|end)\{(\w+\*?)\}", renamed, text)
    if re.search(r"\\\\", text) and "\\begin" not in text:
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    try:
        made = convert(text, display="block" if display else "inline")
    except Exception as error:
        return f"<code>{html.escape(latex)}</code>", [f"{type(error).__name__}: {error}"]
    # a prime is an operator; as a letter it is raised twice
    made = made.replace("<mi>&#x02032;</mi>", "<mo>&#x02032;</mo>")
    # capital Greek letters stand upright
    made = re.sub(r"<mi>(&#x003(?:9[1-9A-F]|A\w);)</mi>", r'<mi mathvariant="normal">\1</mi>', made)
    made = NAMED.sub(_spaced, made)
    # a word in upright letters is one word, not a product
    made = LETTERS.sub(lambda match: "<mi>" + re.sub("<[^>]*>", "", match[0]) + "</mi>", made)
    made = SIGN.sub(r'\1<mo form="prefix" lspace="0" rspace="0">&#x02212;</mo>', made)
    # a bare ampersand is not XML
    made = re.sub(r"&(?!#?\w+;)", "&amp;", made)
    used = set(re.findall(r"\\begin\{(\w+\*?)\}", text))
    wrong = [f"the environment {name} is not known" for name in sorted(used - ENVIRONMENTS)]
    wrong += [f"{name} is not known" for name in dict.fromkeys(re.findall(r"\\[A-Za-z]+", made))]
    wrong += [f"{name} is not drawn by browsers" for name in ("&amp;</mi>", 'linebreak="newline"') if name in made]
    return made, wrong or _incomplete(made)


def _spaced(found: re.Match[str]) -> str:
    after = "0" if found[3] else "0.167em"
    return f'<mo lspace="0.167em" rspace="{after}">{found[2]}</mo>'


def _incomplete(made: str) -> list[str]:
    """Return what lacks a part, such as a fraction without a denominator."""
    try:
        tree = ElementTree.fromstring(made)
    except ElementTree.ParseError as error:
        return [str(error)]
    elements = ((element, element.tag.rpartition("}")[2]) for element in tree.iter())
    return [
        f"{tag} has {len(element)} parts" for element, tag in elements if len(element) != PARTS.get(tag, len(element))
    ]


def setup(app: Any) -> dict[str, Any]:
    from sphinx.util import logging
    from sphinx.util.math import get_node_equation_number

    log = logging.getLogger(__name__)

    def convert(node: Any, display: bool) -> str:
        made, wrong = mathml(node.astext(), display)
        for what in wrong:
            log.warning("formula %s: %s", node.astext(), what, location=node)
        return made

    def inline(self: Any, node: Any) -> None:
        from docutils import nodes

        self.body.append(convert(node, False))
        raise nodes.SkipNode

    def block(self: Any, node: Any) -> None:
        from docutils import nodes

        self.body.append(self.starttag(node, "div", CLASS="math"))
        self.body.append(convert(node, True))
        if node["number"]:
            self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
            self.add_permalink_ref(node, "Link to this equation")
            self.body.append("</span>")
        self.body.append("</div>\n")
        raise nodes.SkipNode

    def font(app: Any, error: Exception | None) -> None:
        # what a system has for formulas differs too much; STIX Two Math (SIL Open Font License) travels with the site
        if error is None and app.builder.format == "html":
            data = files("ziamath.fonts").joinpath("STIXTwoMath-Regular.ttf").read_bytes()
            (Path(app.outdir) / "_static" / "stix-two-math.ttf").write_bytes(data)

    app.connect("build-finished", font)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
