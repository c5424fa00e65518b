"""Programs on plain Python floats: the few numbers that a training step computes on the host.

A bias correction such as ``1 - beta1**t`` is one number a step. Array evaluation would cost microseconds for
each operation, so the checked tree becomes nested Python functions, once for every program.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from bpcore.functions.expression import Call, Expr, Num, Var, expand
from bpcore.functions.program import Program

__all__ = ["evaluate_scalars"]

_Compiled = Callable[[Mapping[str, float]], Any]


def _sign(x: float) -> float:
    return x if math.isnan(x) else float((x > 0) - (x < 0))


def _min(a: float, b: float) -> float:
    return a if a <= b or math.isnan(a) else b


def _max(a: float, b: float) -> float:
    return a if a >= b or math.isnan(a) else b


SCALAR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": math.pow,
    "neg": operator.neg,
    "abs": abs,
    "sign": _sign,
    "min": _min,
    "max": _max,
    "not": operator.not_,
    **{name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    **{
        name: getattr(math, name)
        for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "erf", "erfc")
    },
}
"""Operations on floats by their name in :data:`~bpcore.functions.expression.OPERATIONS`, but for the lazy
ones (``where``, ``and``, ``or``) and those with an expansion."""


def evaluate_scalars(program: Program, values: Mapping[str, float]) -> dict[str, float]:
    """Evaluate a program on floats, in float64.

    Parameters
    ----------
    program : Program
        The assignments.
    values : mapping of str to float
        One value for each of the program's inputs; others are ignored.

    Returns
    -------
    dict of str to float
        The last value of every name that the program assigns.

    Raises
    ------
    ArithmeticError, ValueError
        Where Python's :mod:`math` raises them, for example at a division by zero.

    Examples
    --------
    >>> evaluate_scalars(Program("c = 1 - beta**t; step = eta / c"), {"beta": 0.5, "t": 2.0, "eta": 3.0})
    {'c': 0.75, 'step': 4.0}
    """
    known = dict(values)
    lines = _compiled(program)
    for target, function in lines:
        known[target] = float(function(known))
    return {target: known[target] for target, _ in lines}


@lru_cache(maxsize=256)
def _compiled(program: Program) -> tuple[tuple[str, _Compiled], ...]:
    return tuple((target, _compile(expand(expr))) for target, expr in program.assignments)


def _compile(expr: Expr) -> _Compiled:
    if isinstance(expr, Num):
        number = expr.value
        return lambda values: number
    if isinstance(expr, Var):
        return operator.itemgetter(expr.name)
    assert isinstance(expr, Call)
    args = [_compile(arg) for arg in expr.args]
    if expr.op == "where":
        condition, yes, no = args
        return lambda values: yes(values) if condition(values) else no(values)
    if expr.op in ("and", "or"):
        left, right = args
        if expr.op == "and":
            return lambda values: left(values) and right(values)
        return lambda values: left(values) or right(values)
    function = SCALAR_FUNCTIONS[expr.op]
    if len(args) == 1:
        (only,) = args
        return lambda values: function(only(values))
    first, second = args
    return lambda values: function(first(values), second(values))
