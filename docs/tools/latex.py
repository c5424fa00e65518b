r"""Formulas as LaTeX, for the reference: printed from the same tree as NumPy, Numba and CUDA code.

>>> from bpcore import Formula
>>> latex(Formula("max(z, 0) + 0.01 * min(z, 0)"))
'\\max(z, 0) + 0.01\\, \\min(z, 0)'
>>> latex(Formula("where(z > 0, z, expm1(z))"))
'\\begin{cases} z & \\text{if } z > 0 \\\\ e^{z} - 1 & \\text{else} \\end{cases}'
"""

from __future__ import annotations

import math
import re

from bpcore import Formula, Program
from bpcore.functions.expression import Call, Expr, Num, Var, rebuild

__all__ = ["latex", "program_latex"]

GREEK = ("alpha", "beta", "gamma", "delta", "eta", "theta", "lambda", "mu", "rho", "sigma")
NAMES = {"eps": r"\varepsilon", "logh": r"\log h"}

CONSTANTS = {
    math.sqrt(0.5): r"\frac{1}{\sqrt{2}}",
    math.sqrt(2 / math.pi): r"\sqrt{\frac{2}{\pi}}",
    2 * math.sqrt(2 / math.pi): r"2 \sqrt{\frac{2}{\pi}}",
    1 / math.sqrt(2 * math.pi): r"\frac{1}{\sqrt{2 \pi}}",
    1 / 6: r"\frac{1}{6}",
    0.5: r"\frac{1}{2}",
}
"""Numbers that have a better name than their digits."""

ADD, NEG, MUL, POW, ATOM = 1, 2, 3, 4, 5
SIGNS = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
WORDS = {"and": r"\text{ and }", "or": r"\text{ or }"}
FUNCTIONS = {"log": r"\ln", "tanh": r"\tanh", "sin": r"\sin", "cos": r"\cos", "min": r"\min", "max": r"\max"}


def latex(formula: Formula | Expr) -> str:
    """Return a formula as LaTeX, without the bounds that keep it finite where it does not matter."""
    expr = formula if isinstance(formula, Expr) else formula.expr
    return _print(rebuild(expr, _unbounded))[0]


def _unbounded(node: Expr) -> Expr | None:
    if isinstance(node, Call) and node.op in ("min", "max") and node.args[1] in (Num(1000.0), Num(-1000.0)):
        return node.args[0]
    return None


def program_latex(program: Program) -> str:
    """Return the assignments of a program, one below the other."""
    lines = []
    for part in str(program).split(";"):
        name, _, text = part.partition("=")
        lines.append(rf"{_name(name.strip())} &\leftarrow {latex(Formula(text.strip()))}")
    return r"\begin{aligned} " + r" \\ ".join(lines) + r" \end{aligned}"


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    word, number = re.fullmatch(r"(.*?)(\d*)", name).groups()  # type: ignore[union-attr]
    head, _, index = word.partition("_")
    if len(head) > 1 and head not in GREEK and len(index) > 1:
        return rf"\text{{{name.replace('_', ' ')}}}"
    if head in GREEK:
        base = f"\\{head}"
    else:
        base = head if len(head) == 1 else rf"\mathrm{{{head}}}"
    below = ",".join(part for part in (rf"\mathrm{{{index}}}" if len(index) > 1 else index, number) if part)
    return f"{base}_{{{below}}}" if below else base


def _number(value: float) -> str:
    for known, text in CONSTANTS.items():
        if math.isclose(abs(value), known, rel_tol=1e-14):
            return ("-" if value < 0 else "") + text
    return f"{value:.6g}"


def _print(expr: Expr) -> tuple[str, int]:
    """Return the text and how tightly its outermost sign binds."""
    if isinstance(expr, Num):
        text = _number(expr.value)
        return text, NEG if text.startswith("-") else ATOM
    if isinstance(expr, Var):
        return _name(expr.name), ATOM
    assert isinstance(expr, Call)
    op, args = expr.op, expr.args
    if op in ("add", "sub"):
        right = _in(args[1], ADD if op == "add" else NEG)
        return f"{_in(args[0], ADD)} {'+' if op == 'add' else '-'} {_guarded(right)}", ADD
    if op == "neg":
        return f"-{_in(args[0], MUL)}", NEG
    if op == "mul":
        return _product(expr)
    if op == "div":
        return rf"\frac{{{_print(args[0])[0]}}}{{{_print(args[1])[0]}}}", ATOM
    if op == "pow":
        return f"{_base(args[0])}^{{{_print(args[1])[0]}}}", POW
    if op in SIGNS:
        return f"{_in(args[0], ADD)} {SIGNS[op]} {_in(args[1], ADD)}", 0
    if op in WORDS:
        return WORDS[op].join(_in(arg, ADD) for arg in args), 0
    if op == "where":
        return _cases(expr), ATOM
    return _call(op, args)


def _call(op: str, args: tuple[Expr, ...]) -> tuple[str, int]:
    inner = ", ".join(_print(arg)[0] for arg in args)
    if op == "exp":
        return f"e^{{{inner}}}", POW
    if op == "expm1":
        return f"e^{{{inner}}} - 1", ADD
    if op == "log1p":
        return rf"\ln({_print(1 + args[0])[0]})", ATOM
    if op == "softplus":
        return rf"\ln(1 + e^{{{inner}}})", ATOM
    if op == "sqrt":
        return rf"\sqrt{{{inner}}}", ATOM
    if op == "abs":
        return rf"\lvert {inner} \rvert", ATOM
    if op == "sigmoid":
        return rf"\sigma({inner})", ATOM
    name = FUNCTIONS.get(op, rf"\operatorname{{{op}}}")
    return f"{name}({inner})", ATOM


def _factors(expr: Expr) -> list[Expr]:
    if isinstance(expr, Call) and expr.op == "mul":
        return [factor for arg in expr.args for factor in _factors(arg)]
    return [expr]


def _product(expr: Expr) -> tuple[str, int]:
    counted: dict[Expr, int] = {}
    for factor in _factors(expr):
        counted[factor] = counted.get(factor, 0) + 1
    counted.pop(Num(1.0), None)
    if list(counted.values()) == [1]:
        return _print(*counted)
    text = ""
    for factor, times in counted.items():
        # a minus may lead and nothing else
        part = (_print(factor)[0] if not text and _print(factor)[1] == NEG else _in(factor, MUL)) if times == 1 else ""
        part = part or f"{_base(factor)}^{{{times}}}"
        # a number after a number would read as one
        text += (r" \cdot " if part[:1].isdigit() else r"\, ") + part if text else part
    return text, NEG if text.startswith("-") else MUL


def _cases(expr: Expr) -> str:
    rows = []
    while isinstance(expr, Call) and expr.op == "where":
        condition, yes, expr = expr.args
        rows.append(rf"{_print(yes)[0]} & \text{{if }} {_print(condition)[0]}")
    rows.append(rf"{_print(expr)[0]} & \text{{else}}")
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


def _base(expr: Expr) -> str:
    text, level = _print(expr)
    if (isinstance(expr, Call) and expr.op in ("div", "where")) or level < ATOM:
        return rf"\left({text}\right)"
    return text


def _in(expr: Expr, least: int) -> str:
    text, level = _print(expr)
    if level >= least and not (least > ADD and level == NEG):
        return text
    return rf"\left({text}\right)"


def _guarded(text: str) -> str:
    return rf"\left({text}\right)" if text.startswith("-") else text
