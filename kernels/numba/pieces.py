"""What the compiled plan needs of one declaration, printed as one function each: its pieces.

The steps of training are the same for every network (:mod:`bpcore.kernels.numba.epoch`); activations, losses, penalties
and update rules differ. Each of these becomes a function with a signature that depends on the dtype alone, is compiled
once, kept in the cache folder, and handed to the loop over the steps as an argument. So a network of other widths,
depth or batch size compiles nothing, and a new optimiser compiles nothing but itself.

==============  =====================================================================================
piece           what it does
==============  =====================================================================================
``forward``     ``H = act(Z)``
``backward``    BP2 after its product: ``E *= act'(Z)``, or the Jacobian of a row-wise activation
``output``      the loss and BP1: both read the same arrays
``penalty``     adds the derivative of the price of the weights to their gradient
``scalars``     the numbers of the update rule that are the same for all parameters, in float64
``update``      the update rule over a vector, or over a block of which some rows and columns stay as they are
==============  =====================================================================================

Matrices lie in one vector, ``work``, and come as the places at which they begin. Loops run over all elements in one
sweep, because rows are often much shorter than what SIMD instructions like.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bpcore.functions.expression import OPERATIONS, Call, expand
from bpcore.functions.printing import to_python
from bpcore.functions.program import Program
from bpcore.kernels.numba.cache import Kernel, load_text
from bpcore.kernels.numba.elementwise import print_assignments
from bpcore.kernels.numba.operands import Operand

__all__ = ["ARGUMENTS", "MAX_STATES", "backward", "forward", "output", "penalty", "scalars", "update"]

MAX_STATES = 4
"""State arrays of an update rule that the pieces have room for."""

Piece = Callable[..., Any]

_LIBM = {"exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "erf", "erfc", "pow"}


ARGUMENTS = {
    "forward": ("T1!", *("int64",) * 4),
    "backward": ("T1!", *("int64",) * 5),
    "output": ("T1!", *("int64",) * 7, "float64", "T1", "int64", "float64 1!"),
    "penalty": ("T1!", "T1", "int64", "int64", "float64 1"),
    "scalars": ("float64", "float64", "float64 1", "float64 1!", "float64 1!", "float64 1!"),
    "update": ("T1!", "T1", *("T1!",) * MAX_STATES, *("int64",) * 3, "T1!", "int64", "int64", "float64 1"),
}
"""What the kinds of pieces take, as for :class:`~bpcore.kernels.numba.cache.Kernel`."""


def _compile(kind: str, label: str, printer: _Printer, dtype: np.dtype[Any]) -> Piece:
    label = re.sub(r"\W+", "", label, flags=re.ASCII)[:24]
    return _load(kind, f"{kind}_{label}_{dtype.name}", printer.module(dtype), dtype)


@functools.lru_cache(maxsize=1024)
def _load(kind: str, name: str, text: str, dtype: np.dtype[Any]) -> Piece:
    """Compile a text, or find its code in memory or in the cache folder."""
    return Kernel(*ARGUMENTS[kind])(load_text(name, text).piece)[dtype]


class _Printer:
    """Collects the lines of one function."""

    def __init__(self, arguments: str) -> None:
        self.lines = [f"def piece({arguments}):"]
        self.constants: dict[float, str] = {}
        self.rowwise: list[str] = []

    def add(self, text: str | Iterable[str], depth: int = 1) -> None:
        """Append lines."""
        self.lines += ["    " * depth + line for line in (text.splitlines() if isinstance(text, str) else text)]

    def program(self, program: Program, numbers: Iterable[str] = ()) -> tuple[list[str], list[str]]:
        """Print a program: what is computed once (from names ``a_x``), and for each element (from names ``v_x``)."""
        inputs = {name: Operand("scalar") for name in program.inputs if name in tuple(numbers)}
        return print_assignments(
            program, inputs, lambda value: self.constants.setdefault(value, f"K{len(self.constants)}")
        )

    def parts(self, arrays: dict[str, str], size: str) -> None:
        """Cut parts out of vectors: ``arrays`` gives for each name the vector and where in it the part begins.

        Loops run over parts: for an index with an unknown beginning LLVM would have to ask whether it is negative.
        """
        for name, array in arrays.items():
            vector, begin = array.split()
            self.add(f"p_{name} = {vector}[{begin} : {begin} + {size}]")

    def sweep(self, program: Program, arrays: dict[str, str], size: str, numbers: Iterable[str] = ()) -> None:
        """Run a program over all elements of :meth:`parts`."""
        once, each = self.program(program, numbers)
        used = {name: array for name, array in arrays.items() if name in program.inputs or name in program.outputs}
        self.parts(used, size)
        self.add(once)
        self.add(f"for i in range({size}):")
        self.add([f"v_{name} = p_{name}[i]" for name in used if name in program.inputs], 2)
        self.add(each, 2)
        self.add([f"p_{name}[i] = v_{name}" for name in program.outputs], 2)

    def matrices(self, *names: str) -> list[str]:
        """Make matrices of m rows and n columns of places in ``work``; return their names."""
        self.add([f"M_{name} = work[{name} : {name} + m * n].reshape(m, n)" for name in dict.fromkeys(names)])
        return [f"M_{name}" for name in names]

    def call(self, name: str, *arguments: str) -> None:
        """Call a kernel of :mod:`bpcore.kernels.numba.rowwise`."""
        self.rowwise.append(name)
        self.add(f"{name}({', '.join(arguments)})")

    def module(self, dtype: np.dtype[Any]) -> str:
        """Return the module."""
        body = "\n".join(self.lines)
        head = ["import math", "import numpy as np"]
        functions = sorted(set(re.findall(r"(?<![\w.])([a-z0-9]+_)\(", body)))
        if functions:
            head.append(f"from bpcore.kernels.numba.scalar import {', '.join(functions)}")
        if self.rowwise:
            head += ["from bpcore.kernels.numba import rowwise", "from bpcore.kernels.numba.cache import inner"]
        head.append(f"T = np.{dtype.name}")
        # compiled as a part of this piece, and not as a kernel of its own as well
        called = sorted(set(self.rowwise))
        head += [f"{name} = inner(rowwise.{name}.function, reassociate=True)" for name in called]
        head += [f"{name} = T({value!r})" for value, name in self.constants.items()]
        return "\n".join([*head, "", "", body, ""])


# -------------------------------------------------------------------------------- layers


def forward(value: Program | str, dtype: np.dtype[Any]) -> Piece:
    """Compile the activation of a layer.

    Parameters
    ----------
    value : Program or str
        Computes ``h`` from ``z``, or the name of the row operation.
    dtype : numpy.dtype
        Of all arrays.

    Returns
    -------
    callable
        ``piece(work, z, h, m, n)``: Z and H are (m, n) matrices at these places.
    """
    printer = _Printer("work, z, h, m, n")
    if isinstance(value, str):
        printer.call(value, *printer.matrices("z", "h"))
        return _compile("forward", value, printer, dtype)
    printer.sweep(value, {"z": "work z", "h": "work h"}, "m * n")
    return _compile("forward", value.name, printer, dtype)


def backward(delta: Program | str, dtype: np.dtype[Any]) -> Piece:
    """Compile the derivative of the activation in BP2.

    Parameters
    ----------
    delta : Program or str
        Updates ``delta`` from ``z`` and ``h``, or the name of the row operation.
    dtype : numpy.dtype
        Of all arrays.

    Returns
    -------
    callable
        ``piece(work, e, z, h, m, n)``, which works in place on E.
    """
    printer = _Printer("work, e, z, h, m, n")
    if isinstance(delta, str):
        printer.call(f"backprop_{delta}", *printer.matrices("e", "h", "e"))
        return _compile("backward", delta, printer, dtype)
    printer.sweep(delta, {"delta": "work e", "z": "work z", "h": "work h"}, "m * n")
    return _compile("backward", delta.name, printer, dtype)


def output(value: Program, delta: Program, rowwise: str, paired: bool, weighted: bool, dtype: np.dtype[Any]) -> Piece:
    """Compile loss and BP1.

    Parameters
    ----------
    value : Program
        Computes ``terms`` from ``z, h, y, logh, scale``.
    delta : Program
        Computes ``delta`` from ``z, h, y, scale``.
    rowwise : str
        The output activation if it is a row operation, or ``""``.
    paired : bool
        Whether ``delta`` is all of BP1; else it is multiplied by the Jacobian of the row operation.
    weighted : bool
        Whether the scale differs from sample to sample.
    dtype : numpy.dtype
        Of all arrays.

    Returns
    -------
    callable
        ``piece(work, z, h, y, terms, delta, m, n, scale, scales, first, one)``; ``scale`` is a number, ``scales`` has
        one for each sample from place ``first`` on, ``one`` receives the loss.
    """
    printer = _Printer("work, z, h, y, terms, delta, m, n, scale, scales, first, one")
    if "logh" in value.inputs:
        if rowwise == "softmax":
            printer.call("log_of_softmax", *printer.matrices("z", "h", "terms"))
        else:
            printer.call("log_softmax", *printer.matrices("z", "terms"))
    both = Program({**dict(value.assignments), **dict(delta.assignments)}, name=f"{value.name} {delta.name}")
    once, each = printer.program(both, () if weighted else ("scale",))
    places = {"z": "z", "h": "h", "y": "y", "logh": "terms", "terms": "terms", "delta": "delta"}
    used = {name: f"work {place}" for name, place in places.items() if name in (*both.inputs, "terms", "delta")}
    printer.parts(used, "m * n")
    if weighted:
        printer.add("for k in range(m):\n    v_scale = scales[first + k]\n    for i in range(k * n, (k + 1) * n):")
    else:
        printer.add(["a_scale = scale", *once, "for i in range(m * n):"])
    depth = 3 if weighted else 2
    printer.add([f"v_{name} = p_{name}[i]" for name in used if name in both.inputs], depth)
    printer.add([*each, "p_terms[i] = v_terms", "p_delta[i] = v_delta"], depth)
    # four sums: an addition takes longer than the next can wait
    printer.add("t0 = t1 = t2 = t3 = 0.0\nsize = m * n\nfor i in range(0, size - 3, 4):")
    printer.add([f"t{k} += p_terms[i + {k}]" for k in range(4)], 2)
    printer.add("for i in range(size - size % 4, size):\n    t0 += p_terms[i]\none[0] = (t0 + t1) + (t2 + t3)")
    if rowwise and not paired:
        printer.call(f"backprop_{rowwise}", *printer.matrices("delta", "h", "delta"))
    return _compile("output", value.name, printer, dtype)


# -------------------------------------------------------------------------------- parameters


def penalty(program: Program, constants: Iterable[str], dtype: np.dtype[Any]) -> Piece:
    """Compile a penalty.

    Parameters
    ----------
    program : Program
        Updates ``g`` from ``w`` and the constants.
    constants : iterable of str
        Their names, in the order in which the numbers are given.
    dtype : numpy.dtype
        Of gradient and weights.

    Returns
    -------
    callable
        ``piece(grad, theta, at, size, numbers)``: from place ``at`` on, ``size`` weights.
    """
    names = tuple(constants)
    printer = _Printer("grad, theta, at, size, numbers")
    printer.add([f"a_{name} = numbers[{k}]" for k, name in enumerate(names)])
    printer.sweep(program, {"g": "grad at", "w": "theta at"}, "size", names)
    return _compile("penalty", program.name, printer, dtype)


def scalars(
    program: Program | None, hyper: Iterable[str], running: Iterable[str], wanted: Iterable[str], label: str
) -> Piece:
    """Compile the numbers of one step of an update rule.

    Parameters
    ----------
    program : Program or None
        The assignments, over the hyper parameters, the running numbers, ``t`` and ``eta``.
    hyper, running : iterable of str
        Names of the numbers that are given, in order.
    wanted : iterable of str
        Names of the numbers that are wanted, in order.
    label : str
        Name of the rule.

    Returns
    -------
    callable
        ``piece(t, eta, hyper, running, numbers, one)`` writes the wanted and the running numbers and 1 to ``one``;
        or it writes 0 to ``one`` and nothing else, if a number is not finite. Plain Python, which calls wrong what is
        infinite here, must then say what happens.
    """
    running = tuple(running)
    printer = _Printer("t, eta, hyper, running, numbers, one")
    printer.add(["v_t = t", "v_eta = eta", "fine = True"])
    printer.add([f"v_{name} = hyper[{k}]" for k, name in enumerate(hyper)])
    printer.add([f"v_{name} = running[{k}]" for k, name in enumerate(running)])
    for target, expr in program.assignments if program is not None else ():
        expr = expand(expr)
        text = to_python(expr, lambda value: f"np.float64({value!r})")
        text = re.sub(r"\b([a-z0-9]+)_\(", lambda m: f"math.{m[1]}(" if m[1] in _LIBM else m[0], text)
        if isinstance(expr, Call) and OPERATIONS[expr.op].truth:
            text = f"(np.float64(1.0) if {text} else np.float64(0.0))"
        printer.add(f"v_{target} = np.float64({text})\nfine = fine and math.isfinite(v_{target})")
    printer.add("one[0] = 1.0 if fine else 0.0\nif not fine:\n    return")
    printer.add([f"running[{k}] = v_{name}" for k, name in enumerate(running)])
    printer.add([f"numbers[{k}] = v_{name}" for k, name in enumerate(wanted)])
    return _compile("scalars", label, printer, np.dtype(np.float64))


def update(program: Program, numbers: Iterable[str], state: Iterable[str], masked: bool, dtype: np.dtype[Any]) -> Piece:
    """Compile an update rule.

    Parameters
    ----------
    program : Program
        Updates ``theta`` and the state from ``g``, the state and the numbers.
    numbers : iterable of str
        Names of the numbers, in order.
    state : iterable of str
        Names of the state arrays, at most :data:`MAX_STATES`.
    masked : bool
        Whether only some parameters move.
    dtype : numpy.dtype
        Of all vectors.

    Returns
    -------
    callable
        ``piece(theta, g, s0, s1, s2, s3, at, m, n, work, keep_in, keep_out, numbers)``: from place ``at`` on, a block
        of m rows and n columns. If masked, those rows and columns stay untouched whose mask, at these places in
        ``work``, is 0.
    """
    names = tuple(numbers)
    slots = [f"s{k}" for k in range(MAX_STATES)]
    states = {name: f"{slot} at" for name, slot in zip(state, slots, strict=False)}
    arrays = {"theta": "theta at", "g": "g at", **states}
    printer = _Printer(f"theta, g, {', '.join(slots)}, at, m, n, work, keep_in, keep_out, numbers")
    printer.add([f"a_{name} = numbers[{k}]" for k, name in enumerate(names)])
    if not masked:
        printer.sweep(program, arrays, "m * n", names)
        return _compile("update", program.name, printer, dtype)
    keep = "keep"
    while keep in {*program.inputs, *(target for target, _ in program.assignments)}:
        keep += "_"
    once, each = printer.program(program.only_where(f"{keep} > 0"), names)
    printer.add(once)
    printer.parts(arrays | {"in": "work keep_in"}, "m * n")
    printer.add("p_out = work[keep_out : keep_out + n]\nfor i in range(m):")
    printer.add("if p_in[i] > 0:\n    for j in range(n):\n        p = i * n + j", 2)
    printer.add(f"v_{keep} = p_out[j]", 4)
    printer.add([f"v_{name} = p_{name}[p]" for name in arrays], 4)
    printer.add(each, 4)
    printer.add([f"p_{name}[p] = v_{name}" for name in program.outputs], 4)
    return _compile("update", f"{program.name}_masked", printer, dtype)
