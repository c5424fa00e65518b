"""Formulas as ONNX nodes: a printer beside those for NumPy, Numba and CUDA.

A formula becomes one node for each operation, equal parts once. ONNX has no ``expm1``, ``log1p`` or ``erfc``, and what
runtimes make of ``Softplus`` loses the digits of small results; such operations are written with simpler ones, in the
formula language itself (:data:`EXPANSIONS`), so that NaN, infinities and tails come out as on the backends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.functions.activations import ACTIVATIONS, Activation
from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var, call, rebuild
from bpcore.kernels.numba import erf_coefficients
from bpcore.typing import NDArray

__all__ = ["ELEMENT_TYPES", "OPERATORS", "Graph", "Node", "onnx_operators"]

OPERATORS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "sign": "Sign",
    "tanh": "Tanh",
    "sin": "Sin",
    "cos": "Cos",
    "erf": "Erf",
    "min": "Min",
    "max": "Max",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "eq": "Equal",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "where": "Where",
}
"""Operations of the formula language that ONNX has, by their name in
:data:`~bpcore.functions.expression.OPERATIONS`."""

ELEMENT_TYPES = {"float32": 1, "int64": 7, "str": 8, "float64": 11}
"""The numbers that the format has for types of elements."""

ROWWISE = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
_X, _Y = Var("x"), Var("y")


def _expm1() -> Expr:
    # (e - 1) / (e + 1) * (e + 1): both factors keep their digits near 0, and the limits are right
    return call("tanh", 0.5 * _X) * (call("exp", _X) + 1)


def _log1p() -> Expr:
    # Kahan: what the rounding of 1 + x does to the logarithm, it does to the quotient, too
    u = _X + 1
    kahan = call("log", u) * (_X / (u - 1))
    return call("where", call("gt", _X, 1), call("log", u), call("where", call("eq", u, 1), _X, kahan))


def _polynomial(coefficients: Sequence[float], t: Expr) -> Expr:
    value: Expr = Num(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * t + coefficient
    return value


def _erfc_far(a: Expr, width: int) -> Expr:
    # as in bpcore.kernels.numba.error_function; from the limit on the result is 0
    y = call("min", a, 12 if width == 32 else 28)
    centre = erf_coefficients.CENTRE[width]
    far = _polynomial(erf_coefficients.FAR[width], (y - centre) / (y + centre))
    return call("exp", -(y * y)) * far / (1 + 2 * y)


def _erf(width: int) -> Expr:
    a = call("abs", _X)
    near = _X * _polynomial(erf_coefficients.NEAR[width], _X * _X)
    return call("where", call("lt", a, 0.75), near, call("sign", _X) * (1 - _erfc_far(a, width)))


def _erfc(width: int) -> Expr:
    a = call("abs", _X)
    near = 1 - _X * _polynomial(erf_coefficients.NEAR[width], _X * _X)
    tail = _erfc_far(a, width)
    return call("where", call("lt", a, 0.75), near, call("where", call("lt", _X, 0), 2 - tail, tail))


EXPANSIONS: dict[str, Callable[[], Expr]] = {
    "expm1": _expm1,
    "log1p": _log1p,
    "ne": lambda: call("not", call("eq", _X, _Y)),
}
"""Operations that ONNX lacks, in ``x`` and ``y``; ``sigmoid`` and ``softplus`` have theirs in
:data:`~bpcore.functions.expression.OPERATIONS`."""

EXPANSIONS_OF: dict[int, dict[str, Callable[[], Expr]]] = {
    4: {**EXPANSIONS, "erfc": lambda: _erfc(32)},
    # ONNX Runtime has no Erf for float64
    8: {**EXPANSIONS, "erf": lambda: _erf(64), "erfc": lambda: _erfc(64)},
}
"""All of them, by the bytes of the dtype."""


def _with_erf(node: Expr) -> Expr | None:
    """Write ``erfc(x)`` as ``1 - erf(x)``."""
    return 1 - call("erf", *node.args) if isinstance(node, Call) and node.op == "erfc" else None


@dataclass
class Node:
    """An operator with its inputs, its one output and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Nodes and constants of an ONNX graph that grows from its input on; the package `onnx` is not needed yet.

    Parameters
    ----------
    dtype : dtype
        float32 or float64, of everything that is computed.

    Attributes
    ----------
    nodes : list of Node
        In the order of computation.
    arrays : dict of str to ndarray
        The constants by name.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[Node] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self._numbers: dict[bytes, str] = {}
        self._names: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """Return a name that is not taken."""
        self._names[stem] = self._names.get(stem, 0) + 1
        return f"{stem}_{self._names[stem]}"

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self.nodes.append(Node(operator, inputs, output or self.fresh(operator), attributes))
        return self.nodes[-1].output

    def array(self, name: str, values: Any) -> str:
        """Add a constant array under a name of its own and return the name."""
        self.arrays[name] = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        return name

    def constants(self) -> dict[str, NDArray[Any]]:
        """Return the constants that nodes read; a number may have become part of an operator, such as Relu."""
        read = {name for node in self.nodes for name in node.inputs}
        return {name: array for name, array in self.arrays.items() if name in read}

    def number(self, value: float) -> str:
        """Return the name of a constant, rounded to the dtype as the backends do."""
        with np.errstate(over="ignore"):
            scalar = np.array(value, self.dtype)
        key = scalar.tobytes()
        if key not in self._numbers:
            self._numbers[key] = self.array(self.fresh("number"), scalar)
        return self._numbers[key]

    def cast(self, name: str, dtype: Any, output: str = "") -> str:
        """Convert to another dtype."""
        return self.node("Cast", name, output=output, to=ELEMENT_TYPES[np.dtype(dtype).name])

    def activation(self, activation: Activation, Z: str, output: str = "") -> str:
        """Add the nodes of an activation; Z is a matrix (m, n).

        Parameters
        ----------
        activation : Activation
            Built in, or the user's own.
        Z : str
            Name of its argument.
        output : str, optional
            What to call the result.

        Returns
        -------
        str
            Name of the result.
        """
        if activation.rowwise:
            return self.node(ROWWISE[activation.rowwise], Z, output=output, axis=1)
        formula = activation.value_formula.expr
        if formula == Call("sigmoid", (Var("z"),)):
            return self.node("Sigmoid", Z, output=output)
        if activation == ACTIVATIONS["gelu"] and self.dtype == np.float32:
            # what runtimes know and fuse; the digits that are lost in the tail are multiplied by small z
            formula = rebuild(formula, _with_erf)
        known: dict[tuple[str, ...], str] = {}
        H = self._formula(formula, {"z": Z}, known)
        if not activation.value_formula.variables:
            return self.node("Expand", H, self.node("Shape", Z), output=output)
        if not self.nodes or self.nodes[-1].output != H:  # the argument as it is
            return self.node("Identity", H, output=output)
        if output:
            self.nodes[-1].output = output
        return output or H

    def _formula(self, expr: Expr, names: Mapping[str, str], known: dict[tuple[str, ...], str]) -> str:
        """Add the nodes of a formula; `known` holds what has been computed, by operation and operands."""
        if isinstance(expr, Num):
            return self.number(expr.value)
        if isinstance(expr, Var):
            return names[expr.name]
        assert isinstance(expr, Call)
        args = tuple(self._formula(arg, names, known) for arg in expr.args)
        key = (expr.op, *args)
        if key not in known:
            known[key] = self._operation(expr.op, args, known)
        return known[key]

    def _operation(self, op: str, args: tuple[str, ...], known: dict[tuple[str, ...], str]) -> str:
        expansion = EXPANSIONS_OF[self.dtype.itemsize].get(op)
        if expansion is not None:
            return self._formula(expansion(), dict(zip("xy", args, strict=False)), known)
        general = OPERATIONS[op].expansion
        if general is not None:
            return self._formula(general(_X), {"x": args[0]}, known)
        if op == "max" and args[1] == self.number(0.0):
            return self.node("Relu", args[0])
        if op == "pow" and args[1] == self.number(2.0):
            return self.node("Mul", args[0], args[0])
        return self.node(OPERATORS[op], *args)


def onnx_operators(activation: Activation, dtype: Any = "float32") -> tuple[str, ...]:
    """Name the ONNX operators that an activation becomes, each once, in order of first use.

    Needs no package `onnx`.

    Examples
    --------
    >>> from bpcore.functions.activations import ACTIVATIONS
    >>> onnx_operators(ACTIVATIONS["relu"])
    ('Relu',)
    """
    graph = Graph(dtype)
    graph.activation(activation, "Z")
    return tuple(dict.fromkeys(node.operator for node in graph.nodes))
