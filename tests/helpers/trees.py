"""Random expression trees of our own, evaluated without any code of bpcore, with a bound on the rounding error.

A tree is a tuple: ``("num", 0.5)``, ``("var", "x")`` or ``(operation, *trees)``. It can be written down in the formula
language (`render`), evaluated in float64 together with a bound on what rounding may do to it in a given dtype
(`bounded`), and evaluated in high precision (`exact`). The bound is what makes random trees judgeable: ``x - x*(1 +
1e-7)`` has no correct digit in float32, and a fixed tolerance would either refuse right results or accept wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy import special

Tree = tuple[Any, ...]
Bounded = tuple[Any, Any]
"""A float64 value and a bound on its error, arrays or numbers that broadcast."""
Choose = Callable[[Sequence[Any]], Any]

UNARY = "exp expm1 log log1p sqrt abs sign tanh sin cos erf erfc sigmoid softplus neg".split()
BINARY = ["add", "sub", "mul", "div", "min", "max"]
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "and", "or": "or", **COMPARE}
NUMBERS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, -1.0, -0.75)
EXPONENTS = (0.5, 1.0, 2.0, 3.0, -1.0, -2.0)
FUNCTION_ERROR = 8.0
"""Units in the last place allowed to one elementary function; the arithmetic operations have one half."""


def make_tree(choose: Choose, names: Sequence[str], depth: int) -> Tree:
    """Build a tree; `choose` picks from a sequence (a drawing strategy or ``random.Random.choice``)."""
    if depth == 0:
        return ("var", choose(names)) if choose((True, True, False)) else ("num", choose(NUMBERS))
    kind = choose(("unary", "binary", "binary", "leaf", "power", "where", "clip"))
    make = make_tree
    if kind == "unary":
        return (choose(UNARY), make(choose, names, depth - 1))
    if kind == "binary":
        return (choose(BINARY), make(choose, names, depth - 1), make(choose, names, depth - 1))
    if kind == "power":
        return ("pow", make(choose, names, depth - 1), ("num", choose(EXPONENTS)))
    if kind == "where":
        condition = make_condition(choose, names, depth - 1)
        return ("where", condition, make(choose, names, depth - 1), make(choose, names, depth - 1))
    if kind == "clip":
        return ("min", ("max", make(choose, names, depth - 1), ("num", -1.0)), ("num", choose((0.5, 2.0))))
    return make(choose, names, 0)


def make_condition(choose: Choose, names: Sequence[str], depth: int) -> Tree:
    kind = choose(("compare", "compare", "and", "or", "not")) if depth > 0 else "compare"
    if kind == "compare":
        depth = max(depth - 1, 0)
        return (choose(list(COMPARE)), make_tree(choose, names, depth), make_tree(choose, names, depth))
    if kind == "not":
        return ("not", make_condition(choose, names, depth - 1))
    return (kind, make_condition(choose, names, depth - 1), make_condition(choose, names, depth - 1))


def render(tree: Tree) -> str:
    """Write a tree in the formula language with every bracket that it could need."""
    op, *args = tree
    if op == "num":
        return repr(args[0]) if args[0] >= 0 else f"({args[0]!r})"
    if op == "var":
        return str(args[0])
    texts = [render(arg) for arg in args]
    if op == "neg":
        return f"(-{texts[0]})"
    if op == "not":
        return f"(not {texts[0]})"
    if op == "pow":
        return f"({texts[0]} ** {texts[1]})"
    if op in INFIX:
        return f"({texts[0]} {INFIX[op]} {texts[1]})"
    return f"{op}({', '.join(texts)})"


def names_in(tree: Tree) -> set[str]:
    if tree[0] == "var":
        return {tree[1]}
    return set().union(*(names_in(arg) for arg in tree[1:] if isinstance(arg, tuple)))


# ------------------------------------------------------------------------------------------------ float64 with a bound

_MONOTONE: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0.0, x),
}
_SLOPE_ONE = {"sin": np.sin, "cos": np.cos, "abs": np.abs}


def bounded(tree: Tree, values: dict[str, Bounded], dtype: Any) -> Bounded:
    """Return the float64 value and how far a computation in `dtype` may be off; infinite where nothing is promised.

    Nothing is promised where a comparison depends on rounding, or a value leaves the range of the dtype.
    """
    info = np.finfo(dtype)
    eps, tiny, huge = float(info.eps), float(info.tiny), float(info.max) * 1e-8
    with np.errstate(all="ignore"):
        value, error = _bounded(tree, values, eps)
        fine = np.isfinite(value) & (np.abs(value) < huge) & np.isfinite(error)
        return value, np.where(fine, error + tiny, np.inf)


def _bounded(tree: Tree, values: dict[str, Bounded], eps: float) -> Bounded:
    op, *args = tree
    if op == "num":
        return np.float64(args[0]), np.float64(eps * abs(args[0]))
    if op == "var":
        return values[args[0]]
    if op == "where":
        truth, certain = _truth(args[0], values, eps)
        (a, da), (b, db) = _sub(args[1], values, eps), _sub(args[2], values, eps)
        return np.where(truth, a, b), np.where(certain, np.where(truth, da, db), np.inf)
    (a, da), *rest = [_sub(arg, values, eps) for arg in args]
    if op in _MONOTONE:
        function = _MONOTONE[op]
        value = function(a)
        return value, _widest(function, value, a, da) + FUNCTION_ERROR * eps * np.abs(value)
    if op in _SLOPE_ONE:
        value = _SLOPE_ONE[op](a)
        return value, da + FUNCTION_ERROR * eps * np.abs(value)
    if op == "neg":
        return -a, da
    if op == "sign":
        return np.sign(a), np.where((np.abs(a) > da) | (da == 0), 0.0, np.inf)
    b, db = rest[0]
    if op in ("min", "max"):
        value = np.minimum(a, b) if op == "min" else np.maximum(a, b)
        return value, np.maximum(da, db) + 0 * value
    if op == "pow":
        value = np.power(a, b)
        crosses = (np.abs(a) <= da) & (np.float64(b) < 1)
        spread = _widest(lambda x: np.power(x, b), value, a, da)
        return value, np.where(crosses, np.inf, spread + 2 * FUNCTION_ERROR * eps * np.abs(value))
    if op in ("add", "sub"):
        value, error = (a + b if op == "add" else a - b), da + db
    elif op == "mul":
        value, error = a * b, np.abs(a) * db + np.abs(b) * da + da * db
    else:
        value = a / b
        error = (da + np.abs(value) * db) / (np.abs(b) - db)
        error = np.where(np.abs(b) > db, error, np.inf)
    return value, error + eps * np.abs(value)


def _sub(tree: Tree, values: dict[str, Bounded], eps: float) -> Bounded:
    """Evaluate a part; what overflows or underflows in the narrow dtype poisons everything made from it."""
    value, error = _bounded(tree, values, eps)
    huge, tiny = (1e30, 1e-30) if eps > 1e-10 else (1e280, 1e-280)
    safe = (np.abs(value) < huge) & ((np.abs(value) > tiny) | (value == 0))
    return value, np.where(safe & np.isfinite(error), error, np.inf)


def _widest(function: Callable[..., Any], value: Any, x: Any, error: Any) -> Any:
    spread = np.maximum(np.abs(function(x + error) - value), np.abs(function(x - error) - value))
    return np.where(error == 0, 0.0, np.where(np.isfinite(spread), spread, np.inf)) * 1.01


def _truth(tree: Tree, values: dict[str, Bounded], eps: float) -> tuple[Any, Any]:
    """Return a truth value and whether rounding cannot change it."""
    op, *args = tree
    if op == "not":
        truth, certain = _truth(args[0], values, eps)
        return ~truth, certain
    if op in ("and", "or"):
        (a, sure_a), (b, sure_b) = (_truth(arg, values, eps) for arg in args)
        return (a & b if op == "and" else a | b), sure_a & sure_b
    (a, da), (b, db) = (_sub(arg, values, eps) for arg in args)
    compare = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal}
    truth = np.not_equal(a, b) if op == "ne" else compare[op](a, b)
    return np.asarray(truth), (np.abs(a - b) > da + db) | ((da == 0) & (db == 0))


def assert_within(found: NDArray[Any], tree_value: Bounded, dtype: Any, what: str = "") -> int:
    """Assert that a result lies within the bound; return how many elements could be judged.

    Twice the bound, because the float64 reference has an error of its own when `dtype` is float64.
    """
    assert type(found) is np.ndarray, type(found)
    assert found.dtype == dtype, f"dtype is {found.dtype}, expected {np.dtype(dtype)}"
    value, error = (np.broadcast_to(part, found.shape) for part in tree_value)
    judged = np.isfinite(error)
    with np.errstate(invalid="ignore"):
        right = np.abs(found.astype(np.float64) - value) <= 2 * error
    wrong = judged & ~right
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {int(judged.sum())} wrong, first at {first}: {found[first]!r}, expected "
            f"{value[first]!r} within {error[first]:.3g}"
        )
    return int(judged.sum())


# ------------------------------------------------------------------------------------------------ high precision

_EXACT: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "abs": abs,
    "sign": mpmath.sign,
    "min": min,
    "max": max,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
    "where": lambda c, a, b: a if c else b,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    **{name: getattr(mpmath, name) for name in "exp expm1 log log1p sqrt tanh sin cos erf erfc".split()},
}


def exact(tree: Any, values: dict[str, Any]) -> Any:
    """Evaluate a tree, ours or one of bpcore's expressions, in mpmath's current precision; real numbers only."""
    if not isinstance(tree, tuple):
        kind = type(tree).__name__
        tree = {"Num": lambda: ("num", tree.value), "Var": lambda: ("var", tree.name)}.get(
            kind, lambda: (tree.op, *tree.args)
        )()
    op, *args = tree
    if op == "num":
        return mpmath.mpf(args[0])
    if op == "var":
        return values[args[0]]
    value = _EXACT[op](*(exact(arg, values) for arg in args))
    if isinstance(value, mpmath.mpc):
        raise ValueError(f"{op} is not real here")
    return value
