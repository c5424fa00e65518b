"""Element-wise programs as loops: a program is printed as Python, stored, and compiled by Numba.

For ``v = mu*v + g; theta = theta - eta*v`` with full arrays ``theta, v, g`` and numbers ``mu, eta`` the text is::

    def kernel(o0, o1, a_mu, a_g, a_eta):
        v_0 = np.float64(a_mu)
        v_0t = T(v_0)
        ...
        for i in range(o0.size):
            v_v = o0[i]
            v_g = a_g[i]
            ...

Three things are decided here. *Numbers*: parts of a formula that hold numbers only are computed once, in float64,
and rounded to the dtype of the loop afterwards (in float32, ``1 - 0.999`` keeps four digits). *Constants* have the
type of the loop, because one float64 constant would turn the whole loop into float64. *In-place arrays*: an input
that is the same array as an output is read through the output, because two pointers to one place keep LLVM from
vectorising.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var
from bpcore.functions.printing import to_python
from bpcore.functions.program import Program
from bpcore.kernels.numba.cache import compile_function, load_text
from bpcore.kernels.numba.operands import Operand

__all__ = ["compile_program", "print_assignments", "print_program"]


def compile_program(
    program: Program, outputs: tuple[Operand, ...], arguments: tuple[Operand, ...], dtype: np.dtype[Any]
) -> Callable[..., None]:
    """Print and compile a program.

    Parameters
    ----------
    program : Program
        The program.
    outputs : tuple of Operand
        One for each output; all have the same number of axes, 1 or 2.
    arguments : tuple of Operand
        One for each of ``program.inputs``.
    dtype : numpy.dtype
        float32 or float64, of all arrays.

    Returns
    -------
    callable
        Takes the output arrays, then the arguments except those of kind ``"same"``.
    """
    codes = "".join(operand.code for operand in outputs) + "-" + "".join(operand.code for operand in arguments)
    label = re.sub(r"\W+", "", program.name, flags=re.ASCII)[:24]
    module = load_text(
        f"{label}_{program.key}_{codes[:60]}_{dtype.name}", print_program(program, outputs, arguments, dtype)
    )
    element = types.float32 if dtype.itemsize == 4 else types.float64
    signature = [_array(element, operand, readonly=False) for operand in outputs]
    for operand in arguments:
        if operand.kind == "scalar":
            signature.append(types.float64)
        elif operand.kind != "same":
            signature.append(_array(element, operand, readonly=True))
    return compile_function(module.kernel, types.void(*signature))


def _array(element: Any, operand: Operand, *, readonly: bool) -> Any:
    return types.Array(element, operand.axes, "C" if operand.contiguous else "A", readonly=readonly)


def print_program(
    program: Program, outputs: tuple[Operand, ...], arguments: tuple[Operand, ...], dtype: np.dtype[Any]
) -> str:
    """Print the module for :func:`compile_program`.

    Returns
    -------
    str
        Python text that defines ``kernel``.
    """
    inputs = dict(zip(program.inputs, arguments, strict=True))
    axes = outputs[0].axes
    flat = axes == 1 or all(
        operand.kind in ("scalar", "one", "same") or (operand.kind == "full" and operand.contiguous)
        for operand in (*outputs, *arguments)
    )
    constants: dict[float, str] = {}
    prelude, body = print_assignments(program, inputs, lambda value: constants.setdefault(value, f"K{len(constants)}"))

    index = "i" if flat else "i, j"
    position = {"full": index, "row": "i" if flat else "j", "column": "i, 0"}
    loads: list[str] = []
    for name, operand in inputs.items():
        if operand.kind == "same":
            loads.append(f"v_{name} = o{operand.output}[{index}]")
        elif operand.kind == "one":
            prelude.append(f"w_{name} = a_{name}[{', '.join('0' * operand.axes) or '()'}]")
            loads.append(f"v_{name} = w_{name}")
        elif operand.kind != "scalar":
            place = position[operand.kind]
            if operand.kind == "row" and operand.axes == 2:
                place = f"0, {place}"
            loads.append(f"v_{name} = a_{name}[{place}]")
    stores = [f"o{k}[{index}] = v_{name}" for k, name in enumerate(program.outputs)]
    inner = [*loads, *body, *stores]

    names = [f"o{k}" for k in range(len(outputs))]
    names += [f"a_{name}" for name, operand in inputs.items() if operand.kind != "same"]
    lines = [f"def kernel({', '.join(names)}):", *_indent(prelude, 1)]
    if flat:
        lines.append("    n = o0.size")
        if axes == 2:
            flattened = [f"o{k}" for k in range(len(outputs))]
            flattened += [f"a_{name}" for name, operand in inputs.items() if operand.kind == "full"]
            lines += _indent([f"{name} = {name}.reshape(n)" for name in flattened], 1)
        lines += ["    for i in range(n):", *_indent(inner, 2)]
    else:
        lines += [
            "    m, n = o0.shape",
            "    for i in range(m):",
            "        for j in range(n):",
            *_indent(inner, 3),
        ]

    functions = sorted(set(re.findall(r"\b([a-z0-9]+_)\(", "\n".join([*prelude, *inner]))))
    head = [f"# {program.name!r}: {str(program)!r}", "import numpy as np"]
    if functions:
        head.append(f"from bpcore.kernels.numba.scalar import {', '.join(functions)}")
    head.append(f"T = np.{dtype.name}")
    head += [f"{name} = T({value!r})" for value, name in constants.items()]
    return "\n".join([*head, "", "", *lines, ""])


def _indent(lines: list[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def print_assignments(
    program: Program, inputs: dict[str, Operand], literal: Callable[[float], str]
) -> tuple[list[str], list[str]]:
    """Split the assignments into what is computed once, in float64, and what is computed for every element.

    Names made here begin with a digit, which no name of a formula does: ``v_3`` is a float64 or a truth value,
    ``v_3t`` the same number in the dtype of the loop.
    """
    prelude: list[str] = []
    numbers: dict[str, Var] = {}
    known: dict[Expr, tuple[Var, bool]] = {}

    def remember(key: Expr, text: str, truth: bool) -> Var:
        if key not in known:
            made = str(len(known))
            prelude.append(f"v_{made} = {text}")
            if not truth:
                prelude.append(f"v_{made}t = T(v_{made})")
            known[key] = Var(made), truth
        return known[key][0]

    def wide(expr: Expr) -> Expr | None:
        """Return the expression over float64 names if it holds numbers only."""
        if isinstance(expr, Num):
            return expr
        if isinstance(expr, Var):
            return numbers.get(expr.name)
        assert isinstance(expr, Call)
        args = [wide(arg) for arg in expr.args]
        return None if None in args else Call(expr.op, tuple(arg for arg in args if arg is not None))

    def hoist(expr: Expr) -> Expr:
        if isinstance(expr, Num):
            return expr
        number = wide(expr)
        if number is None:
            return Call(expr.op, tuple(hoist(arg) for arg in expr.args)) if isinstance(expr, Call) else expr
        if isinstance(number, Var):
            return Var(f"{number.name}t")
        assert isinstance(number, Call)
        truth = OPERATIONS[number.op].truth
        made = remember(number, to_python(number, lambda value: f"np.float64({value!r})"), truth)
        return made if truth else Var(f"{made.name}t")

    for name, operand in inputs.items():
        if operand.kind == "scalar":
            numbers[name] = remember(Var(name), f"np.float64(a_{name})", False)
    body: list[str] = []
    for target, expr in program.assignments:
        number = wide(expr)
        body.append(f"v_{target} = {to_python(hoist(expr), literal)}")
        numbers.pop(target, None)
        if isinstance(number, Call):
            numbers[target] = known[number][0]
        elif isinstance(number, Var):
            numbers[target] = number
        elif isinstance(number, Num):
            numbers[target] = remember(number, f"np.float64({number.value!r})", False)
    return prelude, body
