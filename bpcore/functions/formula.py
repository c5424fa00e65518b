"""The formula language: from text to a checked expression.

The text is parsed with Python's own grammar (:mod:`ast`), but only this much of it means something here::

    numbers, names, the constants pi and e
    + - * / **  and unary -
    < <= > >= == !=  and  or  not        (comparisons may be chained: 0 < z < 1)
    a if c else b
    exp expm1 log log1p sqrt abs sign tanh sin cos erf erfc sigmoid softplus
    min(a, b, ...)  max(a, b, ...)  clip(x, low, high)  where(condition, a, b)

Anything else is refused with the position of the offence. Nothing of the text is ever executed: backends receive
code printed from the checked tree. ``min`` and ``max`` pass NaN on, as NumPy's ``minimum`` and ``maximum`` do.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from typing import Any

from bpcore.errors import FormulaError, unknown
from bpcore.functions import expression
from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var
from bpcore.functions.printing import to_text

__all__ = ["FUNCTIONS", "Formula", "parse"]

FUNCTIONS = (
    *("exp expm1 log log1p sqrt abs sign tanh sin cos erf erfc sigmoid softplus".split()),
    *("min", "max", "clip", "where"),
)
CONSTANTS = {"pi": math.pi, "e": math.e}
MAX_LENGTH = 4000
MAX_DEPTH = 150

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}
_HINTS = {
    ast.BitXor: "powers are written with **",
    ast.BitAnd: "join conditions with 'and'",
    ast.BitOr: "join conditions with 'or'",
}


class Formula:
    """A checked mathematical formula that can be evaluated, differentiated and compiled.

    Parameters
    ----------
    text : str
        The formula, in the language described in :mod:`bpcore.functions.formula`.
    variables : iterable of str, optional
        The names that may occur. By default any name may.

    Attributes
    ----------
    text : str
        The formula as given.
    expr : Expr
        Its tree.
    variables : tuple of str
        Names that occur, in order of first appearance.

    Raises
    ------
    FormulaError
        If the text is not a formula; the message shows where.

    Examples
    --------
    >>> swish = Formula("z / (1 + exp(-z))")
    >>> swish.variables
    ('z',)
    >>> round(float(swish(z=1.0)), 6)
    0.731059
    >>> print(Formula("x**2 + sin(y)**2").derivative("x"))
    2 * x
    """

    __slots__ = ("expr", "text")

    def __init__(self, text: str | Expr, variables: Iterable[str] | None = None) -> None:
        self.expr: Expr = text if isinstance(text, Expr) else parse(text, variables)
        self.text: str = to_text(text) if isinstance(text, Expr) else text

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that occur, in order of first appearance."""
        return expression.variables(self.expr)

    def __call__(self, **values: Any) -> Any:
        """Evaluate with NumPy.

        Parameters
        ----------
        **values : float or ndarray
            One value for each variable; arrays broadcast.

        Returns
        -------
        float or ndarray
            The value of the formula.
        """
        missing = [name for name in self.variables if name not in values]
        if missing:
            raise FormulaError(f"no value for {', '.join(missing)} in formula {self.text!r}")
        return expression.evaluate(self.expr, values)

    def derivative(self, name: str) -> Formula:
        """Return the partial derivative by one variable, as a formula."""
        return Formula(expression.derivative(self.expr, name))

    def substitute(self, **values: Formula | str | float) -> Formula:
        """Return the formula with variables replaced by formulas or numbers, all at once."""
        return Formula(expression.substitute(self.expr, {name: as_expr(v) for name, v in values.items()}))

    def __str__(self) -> str:
        return to_text(self.expr)

    def __repr__(self) -> str:
        return f"Formula({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and self.expr == other.expr

    def __hash__(self) -> int:
        return hash(self.expr)


def as_expr(value: Formula | Expr | str | float) -> Expr:
    """Turn a formula, its text or a number into an expression."""
    if isinstance(value, Formula):
        return value.expr
    if isinstance(value, str):
        return parse(value)
    return value if isinstance(value, Expr) else Num(float(value))


def parse(text: str, variables: Iterable[str] | None = None) -> Expr:
    """Parse and check the text of a formula.

    Parameters
    ----------
    text : str
        The formula.
    variables : iterable of str, optional
        The names that may occur; any name when not given.

    Returns
    -------
    Expr
        The expression, with constant parts computed and the forms that overflow rewritten (see :func:`stabilise`).

    Raises
    ------
    FormulaError
        If the text uses a name, function or construct that the language does not have.

    Examples
    --------
    >>> parse("tanh(z) + w", variables=["z"])
    Traceback (most recent call last):
        ...
    bpcore.errors.FormulaError: unknown name 'w'; known: z, pi, e
      tanh(z) + w
                ^ position 11
    """
    if not isinstance(text, str) or not text.strip():
        raise FormulaError(f"a formula is a text such as 'z / (1 + exp(-z))'; got {text!r}")
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"the formula has {len(text)} characters; the limit is {MAX_LENGTH}")
    source = text.strip()
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        position = (getattr(error, "offset", None) or 1) - 1
        raise _error(source, position, getattr(error, "msg", None) or str(error)) from None
    return stabilise(_Checker(source, variables).number(tree.body))


def _error(source: str, position: int, message: str) -> FormulaError:
    line = source.replace("\n", " ")
    return FormulaError(f"{message}\n  {line}\n  {' ' * position}^ position {position + 1}")


class _Checker:
    """Turns Python syntax nodes into expressions, refusing everything that is not in the language."""

    def __init__(self, source: str, variables: Iterable[str] | None) -> None:
        self.source = source
        self.variables = None if variables is None else tuple(variables)
        self.depth = 0

    def refuse(self, node: ast.AST, message: str) -> FormulaError:
        lines = self.source.split("\n")
        row = getattr(node, "lineno", 1) - 1
        column = len(lines[row].encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore"))
        return _error(self.source, sum(len(line) + 1 for line in lines[:row]) + column, message)

    def number(self, node: ast.expr) -> Expr:
        expr, truth = self.visit(node)
        if truth:
            raise self.refuse(node, "a comparison is not a number here; write where(condition, a, b)")
        return expr

    def condition(self, node: ast.expr) -> Expr:
        expr, truth = self.visit(node)
        if not truth:
            raise self.refuse(node, "a comparison such as 'z > 0' is needed here, not a number")
        return expr

    def visit(self, node: ast.expr) -> tuple[Expr, bool]:
        """Return the expression and whether it is a truth value."""
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                raise self.refuse(node, f"the formula is nested more than {MAX_DEPTH} levels deep")
            return self.convert(node)
        finally:
            self.depth -= 1

    def convert(self, node: ast.expr) -> tuple[Expr, bool]:
        match node:
            case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
                return self.constant(node, value), False
            case ast.Name(id=name):
                return self.name(node, name), False
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.build("neg", self.number(operand)), False
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand), False
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Call("not", (self.condition(operand),)), True
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                return self.build(_BINARY[type(operator)], self.number(left), self.number(right)), False
            case ast.BinOp(op=operator):
                hint = _HINTS.get(type(operator), "the operators are + - * / **")
                raise self.refuse(node, f"operator {type(operator).__name__} is not in the language: {hint}")
            case ast.Compare():
                return self.comparison(node), True
            case ast.BoolOp(op=connective, values=values):
                joined = self.condition(values[0])
                for part in values[1:]:
                    joined = Call("and" if isinstance(connective, ast.And) else "or", (joined, self.condition(part)))
                return joined, True
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Call("where", (self.condition(test), self.number(body), self.number(orelse))), False
            case ast.Call():
                return self.function(node), False
        raise self.refuse(node, f"{type(node).__name__} is not part of the formula language")

    def constant(self, node: ast.expr, value: float) -> Expr:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.refuse(node, "the number is too large for float64")
        return Num(number)

    def name(self, node: ast.expr, name: str) -> Expr:
        if name in CONSTANTS and not (self.variables and name in self.variables):
            return Num(CONSTANTS[name])
        if name in FUNCTIONS:
            raise self.refuse(node, f"{name} is a function: write {name}(...)")
        if self.variables is not None and name not in self.variables:
            raise self.refuse(node, f"unknown name {name!r}; known: {', '.join((*self.variables, *CONSTANTS))}")
        if not name.isascii():
            raise self.refuse(node, f"the name {name!r} is not ASCII; spell it out, for example 'theta'")
        return Var(name)

    def build(self, op: str, *args: Expr) -> Expr:
        """Make a node; a part without variables is computed now."""
        if all(isinstance(arg, Num) for arg in args):
            return expression.call(op, *args)
        return Call(op, args)

    def comparison(self, node: ast.Compare) -> Expr:
        operands = [self.number(part) for part in (node.left, *node.comparators)]
        parts: list[Expr] = []
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            if type(operator) not in _COMPARE:
                raise self.refuse(node, f"comparison {type(operator).__name__} is not part of the formula language")
            parts.append(Call(_COMPARE[type(operator)], (left, right)))
        joined = parts[0]
        for part in parts[1:]:
            joined = Call("and", (joined, part))
        return joined

    def function(self, node: ast.Call) -> Expr:
        if not isinstance(node.func, ast.Name):
            raise self.refuse(node, "only the named functions of the language can be called")
        name = node.func.id
        if name not in FUNCTIONS:
            raise self.refuse(node, str(unknown("function", name, FUNCTIONS)))
        if node.keywords:
            raise self.refuse(node, f"{name} takes its arguments by position")
        args = node.args
        if name in ("min", "max"):
            if len(args) < 2:
                raise self.refuse(node, f"{name} takes two or more arguments, got {len(args)}")
            joined = self.number(args[0])
            for arg in args[1:]:
                joined = self.build(name, joined, self.number(arg))
            return joined
        arity = 3 if name == "clip" else OPERATIONS[name].arity
        if len(args) != arity:
            raise self.refuse(node, f"{name} takes {arity} argument{'s'[: arity > 1]}, got {len(args)}")
        if name == "clip":
            x, low, high = (self.number(arg) for arg in args)
            return self.build("min", self.build("max", x, low), high)
        if name == "where":
            return Call("where", (self.condition(args[0]), self.number(args[1]), self.number(args[2])))
        return self.build(name, *(self.number(arg) for arg in args))


def stabilise(expr: Expr) -> Expr:
    """Rewrite forms whose value or derivative overflows into the same function computed safely.

    ``a / (1 + exp(u))`` becomes ``a * sigmoid(-u)``, ``log(1 + exp(u))`` becomes ``softplus(u)``,
    ``log(1 + u)`` becomes ``log1p(u)`` and ``exp(u) - 1`` becomes ``expm1(u)``. The textbook derivative of
    ``1 / (1 + exp(-z))`` is ``exp(-z) / (1 + exp(-z))**2``, which is inf / inf in float32 from z = -89 on.
    """
    return expression.rebuild(expr, _stable_form)


def _one_plus(node: Expr) -> Expr | None:
    """Return u when the node is ``1 + u`` or ``u + 1``."""
    if isinstance(node, Call) and node.op == "add":
        for one, other in (node.args, node.args[::-1]):
            if one == Num(1.0):
                return other
    return None


def _exponent(node: Expr | None) -> Expr | None:
    """Return u when the node is ``exp(u)``."""
    return node.args[0] if isinstance(node, Call) and node.op == "exp" else None


def _stable_form(node: Expr) -> Expr | None:
    if not isinstance(node, Call):
        return None
    if node.op == "div":
        u = _exponent(_one_plus(node.args[1]))
        return None if u is None else node.args[0] * expression.call("sigmoid", -u)
    if node.op == "log":
        inner = _one_plus(node.args[0])
        u = _exponent(inner)
        if u is not None:
            return Call("softplus", (u,))
        return None if inner is None else Call("log1p", (inner,))
    if node.op == "sub" and node.args[1] == Num(1.0):
        u = _exponent(node.args[0])
        return None if u is None else Call("expm1", (u,))
    return None
