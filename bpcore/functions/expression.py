"""Expressions: the tree behind every formula, and the one table of operations.

An expression is a number (:class:`Num`), a name (:class:`Var`) or an operation applied to expressions
(:class:`Call`). Each operation has exactly one entry in :data:`OPERATIONS`; the reference evaluation, the
printers for Numba and CUDA C++, the NumPy instruction stream and the derivative rules all read that entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

__all__ = ["OPERATIONS", "Call", "Expr", "Num", "Operation", "Var", "call", "derivative", "evaluate", "expand"]


class Expr:
    """Base of the three node types. Python's operators build simplified expressions."""

    __slots__ = ()

    def __add__(self, other: Operand) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return call("div", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return call("pow", self, other)

    def __neg__(self) -> Expr:
        return call("neg", self)


@dataclass(frozen=True, slots=True)
class Num(Expr):
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Var(Expr):
    """A name that gets its value when the formula is evaluated."""

    name: str


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """An operation of :data:`OPERATIONS` applied to arguments."""

    op: str
    args: tuple[Expr, ...]


Operand: TypeAlias = Expr | int | float
Rule = Callable[..., Expr]


@dataclass(frozen=True, slots=True)
class Operation:
    """What bpcore knows about one operation.

    Attributes
    ----------
    arity : int
        Number of arguments.
    ufunc : str
        Name in the array namespace; ``"special.erf"`` means :mod:`scipy.special` and its CuPy twin. Empty when
        ``expansion`` is given or, for ``where``, when no single ufunc does it.
    partials : tuple of callables
        For each argument, a function of all arguments that returns the partial derivative. Empty for operations
        that yield a truth value.
    infix : str
        Operator sign in Python and C, empty for functions.
    truth : bool
        The result is a truth value (a comparison), not a number.
    takes_truth : tuple of int
        Positions of the arguments that must be truth values.
    expansion : callable or None
        The same operation written with simpler ones, for targets that have no function of that name.
    """

    arity: int
    ufunc: str = ""
    partials: tuple[Rule, ...] = ()
    infix: str = ""
    truth: bool = False
    takes_truth: tuple[int, ...] = ()
    expansion: Rule | None = None


def _sigmoid(x: Expr) -> Expr:
    return 1 / (1 + call("exp", -x))


def _softplus(x: Expr) -> Expr:
    return call("max", x, 0) + call("log1p", call("exp", -call("abs", x)))


def _power_of_base(a: Expr, b: Expr) -> Expr:
    return b * a ** (b - 1)


def _power_of_exponent(a: Expr, b: Expr) -> Expr:
    return a**b * call("log", a)


_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)

OPERATIONS: dict[str, Operation] = {
    # arithmetic
    "add": Operation(2, "add", (lambda a, b: Num(1.0), lambda a, b: Num(1.0)), "+"),
    "sub": Operation(2, "subtract", (lambda a, b: Num(1.0), lambda a, b: Num(-1.0)), "-"),
    "mul": Operation(2, "multiply", (lambda a, b: b, lambda a, b: a), "*"),
    "div": Operation(2, "divide", (lambda a, b: 1 / b, lambda a, b: -a / (b * b)), "/"),
    "pow": Operation(2, "power", (_power_of_base, _power_of_exponent)),
    "neg": Operation(1, "negative", (lambda x: Num(-1.0),), "-"),
    # functions
    "exp": Operation(1, "exp", (lambda x: call("exp", x),)),
    "expm1": Operation(1, "expm1", (lambda x: call("exp", x),)),
    "log": Operation(1, "log", (lambda x: 1 / x,)),
    "log1p": Operation(1, "log1p", (lambda x: 1 / (1 + x),)),
    "sqrt": Operation(1, "sqrt", (lambda x: 0.5 / call("sqrt", x),)),
    "abs": Operation(1, "absolute", (lambda x: call("sign", x),)),
    "sign": Operation(1, "sign", (lambda x: Num(0.0),)),
    "tanh": Operation(1, "tanh", (lambda x: 1 - call("tanh", x) * call("tanh", x),)),
    "sin": Operation(1, "sin", (lambda x: call("cos", x),)),
    "cos": Operation(1, "cos", (lambda x: -call("sin", x),)),
    "erf": Operation(1, "special.erf", (lambda x: _TWO_OVER_SQRT_PI * call("exp", -(x * x)),)),
    "erfc": Operation(1, "special.erfc", (lambda x: -_TWO_OVER_SQRT_PI * call("exp", -(x * x)),)),
    "sigmoid": Operation(1, partials=(lambda x: call("sigmoid", x) * call("sigmoid", -x),), expansion=_sigmoid),
    "softplus": Operation(1, partials=(lambda x: call("sigmoid", x),), expansion=_softplus),
    "min": Operation(
        2,
        "minimum",
        (
            lambda a, b: call("where", call("lt", a, b), 1, 0),
            lambda a, b: call("where", call("lt", a, b), 0, 1),
        ),
    ),
    "max": Operation(
        2,
        "maximum",
        (
            lambda a, b: call("where", call("gt", a, b), 1, 0),
            lambda a, b: call("where", call("gt", a, b), 0, 1),
        ),
    ),
    # comparisons and choices
    "lt": Operation(2, "less", infix="<", truth=True),
    "le": Operation(2, "less_equal", infix="<=", truth=True),
    "gt": Operation(2, "greater", infix=">", truth=True),
    "ge": Operation(2, "greater_equal", infix=">=", truth=True),
    "eq": Operation(2, "equal", infix="==", truth=True),
    "ne": Operation(2, "not_equal", infix="!=", truth=True),
    "and": Operation(2, "logical_and", truth=True, takes_truth=(0, 1)),
    "or": Operation(2, "logical_or", truth=True, takes_truth=(0, 1)),
    "not": Operation(1, "logical_not", truth=True, takes_truth=(0,)),
    "where": Operation(
        3,
        partials=(
            lambda c, a, b: Num(0.0),
            lambda c, a, b: call("where", c, 1, 0),
            lambda c, a, b: call("where", c, 0, 1),
        ),
        takes_truth=(0,),
    ),
}


def _as_expr(value: Operand) -> Expr:
    return value if isinstance(value, Expr) else Num(float(value))


def call(op: str, *operands: Operand) -> Expr:
    """Apply an operation and simplify what can be simplified without changing a finite value.

    Constants are folded; ``0 + x``, ``1 * x``, ``x / 1``, ``x ** 1`` and double negation vanish; ``0 * x`` is 0.
    The last rule forgets that ``0 * inf`` is NaN, which is what a derivative wants: the partial derivative by a
    variable that does not occur is 0 everywhere.
    """
    args = tuple(_as_expr(operand) for operand in operands)
    if args and all(isinstance(arg, Num) for arg in args) and not OPERATIONS[op].truth:
        folded = _fold(op, args)
        if folded is not None:
            return folded
    return _IDENTITIES.get(op, _unchanged)(Call(op, args))


def _fold(op: str, args: tuple[Expr, ...]) -> Num | None:
    try:
        value = float(evaluate(Call(op, args), {}))
    except (ArithmeticError, ValueError):
        return None
    return Num(value) if math.isfinite(value) else None


def _unchanged(node: Call) -> Expr:
    return node


def _is(expr: Expr, value: float) -> bool:
    return isinstance(expr, Num) and expr.value == value


def _simplify_add(node: Call) -> Expr:
    a, b = node.args
    if _is(a, 0):
        return b
    if _is(b, 0):
        return a
    if isinstance(b, Call) and b.op == "neg":
        return call("sub", a, b.args[0])
    return node


def _simplify_sub(node: Call) -> Expr:
    a, b = node.args
    if _is(b, 0):
        return a
    if _is(a, 0):
        return call("neg", b)
    if isinstance(b, Call) and b.op == "neg":
        return call("add", a, b.args[0])
    return node


def _simplify_mul(node: Call) -> Expr:
    a, b = node.args
    if _is(a, 0) or _is(b, 0):
        return Num(0.0)
    for one, other in ((a, b), (b, a)):
        if _is(one, 1):
            return other
        if _is(one, -1):
            return call("neg", other)
        if isinstance(one, Call) and one.op == "neg":
            return call("neg", call("mul", *((one.args[0], other) if one is a else (other, one.args[0]))))
        if isinstance(one, Call) and one.op == "where" and all(isinstance(arg, Num) for arg in one.args[1:]):
            condition, yes, no = one.args
            return call("where", condition, call("mul", yes, other), call("mul", no, other))
        if isinstance(one, Call) and one.op == "div" and _is(one.args[0], 1):
            return call("div", other, one.args[1])
    if isinstance(b, Num) and not isinstance(a, Num):
        return call("mul", b, a)
    if isinstance(a, Num) and isinstance(b, Call) and b.op == "mul" and isinstance(b.args[0], Num):
        product = a.value * b.args[0].value
        # an infinite constant could not be printed
        return call("mul", product, b.args[1]) if math.isfinite(product) else node
    return node


def _simplify_div(node: Call) -> Expr:
    a, b = node.args
    if _is(a, 0):
        return Num(0.0)
    if _is(b, 1):
        return a
    return node


def _simplify_pow(node: Call) -> Expr:
    a, b = node.args
    if _is(b, 0):
        return Num(1.0)
    if _is(b, 1):
        return a
    return node


def _simplify_neg(node: Call) -> Expr:
    (x,) = node.args
    if isinstance(x, Call) and x.op == "neg":
        return x.args[0]
    if isinstance(x, Call) and x.op == "sub":
        return call("sub", x.args[1], x.args[0])
    return node


def _simplify_where(node: Call) -> Expr:
    _, yes, no = node.args
    return yes if yes == no else node


_IDENTITIES: dict[str, Callable[[Call], Expr]] = {
    "add": _simplify_add,
    "sub": _simplify_sub,
    "mul": _simplify_mul,
    "div": _simplify_div,
    "pow": _simplify_pow,
    "neg": _simplify_neg,
    "where": _simplify_where,
}


@lru_cache(maxsize=4096)
def derivative(expr: Expr, name: str) -> Expr:
    """Differentiate symbolically by the chain rule.

    Parameters
    ----------
    expr : Expr
        Expression to differentiate.
    name : str
        Variable to differentiate by.

    Returns
    -------
    Expr
        The derivative. At a kink of ``min``, ``max``, ``where`` or ``abs`` it is one of the one-sided values
        (0 for ``abs``).
    """
    if isinstance(expr, Var):
        return Num(1.0 if expr.name == name else 0.0)
    total: Expr = Num(0.0)
    if isinstance(expr, Call):
        for arg, partial in zip(expr.args, OPERATIONS[expr.op].partials, strict=False):
            inner = derivative(arg, name)
            if not _is(inner, 0):
                total = total + partial(*expr.args) * inner
    return total


def variables(expr: Expr) -> tuple[str, ...]:
    """Names that occur in an expression, in order of first appearance."""
    return tuple(dict.fromkeys(node.name for node in walk(expr) if isinstance(node, Var)))


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield the expression and everything in it, outermost first."""
    yield expr
    if isinstance(expr, Call):
        for arg in expr.args:
            yield from walk(arg)


def rebuild(expr: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Copy an expression from the leaves up, letting ``change`` replace any node (None keeps it)."""
    if isinstance(expr, Call):
        expr = Call(expr.op, tuple(rebuild(arg, change) for arg in expr.args))
    replacement = change(expr)
    return expr if replacement is None else replacement


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """Replace names by expressions, all at once."""
    return rebuild(expr, lambda node: values.get(node.name) if isinstance(node, Var) else None)


def expand(expr: Expr) -> Expr:
    """Write operations that have an expansion (``sigmoid``, ``softplus``) with simpler ones."""

    def simpler(node: Expr) -> Expr | None:
        expansion = OPERATIONS[node.op].expansion if isinstance(node, Call) else None
        return expand(expansion(*node.args)) if expansion and isinstance(node, Call) else None

    return rebuild(expr, simpler)


def evaluate(expr: Expr, values: Mapping[str, Any]) -> Any:
    """Evaluate with NumPy, node by node: the reference that the fast evaluators are compared with."""
    import numpy as np

    if isinstance(expr, Num):
        return expr.value
    if isinstance(expr, Var):
        return values[expr.name]
    assert isinstance(expr, Call)
    operation = OPERATIONS[expr.op]
    if operation.expansion is not None:
        return evaluate(operation.expansion(*expr.args), values)
    args = [evaluate(arg, values) for arg in expr.args]
    with np.errstate(all="ignore"):
        if expr.op == "where":
            return np.where(*args)
        return array_function(operation.ufunc, np)(*args)


def array_function(ufunc: str, namespace: Any) -> Any:
    """Find a ufunc by the name used in :data:`OPERATIONS` in NumPy's or CuPy's namespace."""
    module, _, name = ufunc.rpartition(".")
    if module == "special":
        import importlib

        special = "scipy.special" if namespace.__name__ == "numpy" else "cupyx.scipy.special"
        return getattr(importlib.import_module(special), name)
    return getattr(namespace, name)
