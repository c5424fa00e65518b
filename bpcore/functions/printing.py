"""Printers: a checked expression as text for people, as Python for Numba and for NumPy, and as CUDA C++.

Arithmetic is printed with the operators of the target. Functions are printed as calls of helpers whose names end in
an underscore (``exp_``, ``max_``, ``sigmoid_``, ...); each target brings a small file that defines them, so NaN and
infinity mean the same everywhere (:mod:`bpcore.kernels.numba.scalar`, ``kernels/cuda/scalar.cuh``). For NumPy they are
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var

__all__ = ["to_c", "to_numpy", "to_python", "to_text"]

_PRECEDENCE = {"or": 2, "and": 3, "not": 4, "add": 6, "sub": 6, "mul": 7, "div": 7, "neg": 8, "pow": 9}
_COMPARISON = 5
_CHOICE = 1
_ATOM = 10


@dataclass(frozen=True, slots=True)
class _Style:
    """How one target spells numbers, names, choices and functions."""

    number: Callable[[float], str]
    name: Callable[[str], str]
    function: Callable[[str], str]
    choice: str
    logic: dict[str, str]
    power: str = ""


def to_text(expr: Expr) -> str:
    """Print for people; the result parses back to the same expression.

    Examples
    --------
    >>> from bpcore.functions.formula import Formula
    >>> print(Formula("(1 - h) * h ** 2"))
    (1 - h) * h**2
    """
    return _print(expr, _TEXT)[0]


def to_python(expr: Expr, literal: Callable[[float], str]) -> str:
    """Print as Python for Numba.

    Parameters
    ----------
    expr : Expr
        The expression. Variables are printed with the prefix ``v_``.
    literal : callable
        Gives the text for a number. Numba would promote float32 to float64 at a bare literal, so the generated
        module names its constants with their dtype.

    Returns
    -------
    str
        A Python expression.
    """
    style = _Style(
        literal,
        "v_{}".format,
        "{}_".format,
        "({1} if {0} else {2})",
        {"and": "and", "or": "or", "not": "not "},
    )
    return _print(expr, style)[0]


def to_c(expr: Expr) -> str:
    """Print as C++ for a template over the scalar type ``T``; variables get the prefix ``v_``.

    Examples
    --------
    >>> from bpcore.functions.formula import Formula
    >>> to_c(Formula("0.5 * z if z > 0 else 0").expr)
    '(v_z > T(0.0) ? T(0.5) * v_z : T(0.0))'
    """
    return _print(expr, _C)[0]


def to_numpy(expr: Expr) -> str:
    """Print as Python over NumPy arrays.

    ``sigmoid``, ``softplus``, ``erf`` and ``erfc``, which NumPy does not have, are printed as calls of functions of
    these names.

    Examples
    --------
    >>> from bpcore.functions.formula import Formula
    >>> to_numpy(Formula("max(z, -1000) * sigmoid(z) if z < 9 and z > 0 else z**2").expr)
    'np.where(np.logical_and(z < 9, z > 0), np.maximum(z, -1000) * sigmoid(z), z**2)'
    """
    return _print(expr, _NUMPY)[0]


def _numpy_function(op: str) -> str:
    ufunc = OPERATIONS[op].ufunc
    return f"np.{ufunc}" if ufunc and "." not in ufunc else op


_TEXT = _Style(
    lambda value: f"{value:.17g}" if float(f"{value:.12g}") != value else f"{value:.12g}",
    str,
    str,
    "({1} if {0} else {2})",
    {"and": "and", "or": "or", "not": "not "},
    power="**",
)
_NUMPY = _Style(_TEXT.number, str, _numpy_function, "np.where({0}, {1}, {2})", {}, power="**")
_C = _Style(
    lambda value: f"T({value!r})",
    "v_{}".format,
    "{}_".format,
    "({0} ? {1} : {2})",
    {"and": "&&", "or": "||", "not": "!"},
)


def _print(expr: Expr, style: _Style) -> tuple[str, int]:
    """Return the text and how tightly its outermost operator binds."""
    if isinstance(expr, Num):
        text = style.number(expr.value)
        return text, (_PRECEDENCE["neg"] if text.startswith("-") else _ATOM)
    if isinstance(expr, Var):
        return style.name(expr.name), _ATOM
    assert isinstance(expr, Call)
    op, args = expr.op, expr.args
    if op == "where":
        return style.choice.format(*(_print(arg, style)[0] for arg in args)), _ATOM
    if op in style.logic:
        level = _PRECEDENCE[op]
        # the ! of C binds like an atom, the "not" of Python more loosely than a comparison
        least = _ATOM if style.logic[op] == "!" else level + 1
        texts = [_bracketed(arg, style, least) for arg in args]
        return (style.logic[op] + texts[0], level) if op == "not" else (f" {style.logic[op]} ".join(texts), level)
    if op == "neg":
        return "-" + _bracketed(args[0], style, _PRECEDENCE["neg"] + 1), _PRECEDENCE["neg"]
    if op == "pow" and style.power:
        level = _PRECEDENCE[op]
        return _bracketed(args[0], style, _ATOM) + style.power + _bracketed(args[1], style, level), level
    infix = OPERATIONS[op].infix
    if infix:
        level = _PRECEDENCE.get(op, _COMPARISON)
        left = _bracketed(args[0], style, level if op in _PRECEDENCE else level + 1)
        right = _bracketed(args[1], style, level + 1)
        return f"{left} {infix} {right}", level
    if op == "pow" and args[1] in (Num(2.0), Num(3.0)):
        # small powers by multiplication: exact, and no call to pow in the inner loop
        name = "square" if args[1] == Num(2.0) else "cube"
        return f"{style.function(name)}({_print(args[0], style)[0]})", _ATOM
    return f"{style.function(op)}({', '.join(_print(arg, style)[0] for arg in args)})", _ATOM


def _bracketed(expr: Expr, style: _Style, least: int) -> str:
    text, level = _print(expr, style)
    return text if level >= least else f"({text})"
