"""Lowering: a program as three-address instructions over reusable slots.

NumPy evaluates one operation at a time. To do so without allocating, a program becomes a list of instructions
"apply this ufunc to these slots, write into that slot", in which equal sub-expressions are computed once and a slot
is used again as soon as its value is dead. Slots are the inputs, the outputs, the constants, and a few scratch
registers (arrays of numbers and arrays of truth values apart). What depends on scalars alone, such as ``1 - beta``,
is computed once as a scalar.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bpcore.functions.expression import OPERATIONS, Call, Expr, Num, Var, expand
from bpcore.functions.program import Program

__all__ = ["Instruction", "LoweredProgram", "lower"]

Slot = tuple[str, int | str | float]
"""``("in", name)``, ``("const", value)``, ``("out", k)``, or register k of a kind: ``("num", k)``, ``("truth", k)``,
``("scalar", k)``."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """Apply one operation of :data:`~bpcore.functions.expression.OPERATIONS` (or ``copy``) and write one slot."""

    op: str
    args: tuple[Slot, ...]
    dest: Slot


@dataclass(frozen=True, slots=True)
class LoweredProgram:
    """Instructions and the number of scratch registers of each kind that they need."""

    instructions: tuple[Instruction, ...]
    n_numbers: int
    n_truths: int
    n_scalars: int


@dataclass(slots=True)
class _Value:
    """One computed value: the operation, its operands (values or leaf slots), and where it ends up."""

    op: str
    args: tuple[_Value | Slot, ...]
    kind: str
    last_use: int = -1
    slot: Slot | None = None


@dataclass(slots=True)
class _Registers:
    """Free list of one kind of scratch register."""

    kind: str
    size: int = 0
    free: list[int] = field(default_factory=list)

    def take(self) -> Slot:
        if not self.free:
            self.free.append(self.size)
            self.size += 1
        return (self.kind, self.free.pop())


def lower(program: Program, scalars: Iterable[str] = ()) -> LoweredProgram:
    """Translate a program into instructions.

    An output is written where it is computed when nothing that follows reads an input, so that outputs may be the
    same memory as inputs; otherwise it waits in a register and is copied at the end.

    Parameters
    ----------
    program : Program
        The program to translate.
    scalars : iterable of str
        Inputs that will be given as plain numbers.

    Returns
    -------
    LoweredProgram
        The instruction stream.
    """
    values, results = _number_values(program, frozenset(scalars))
    for index, value in enumerate(values):
        for arg in value.args:
            if isinstance(arg, _Value):
                arg.last_use = index
    _place_outputs(values, results)

    pools = {kind: _Registers(kind) for kind in ("num", "truth", "scalar")}
    instructions: list[Instruction] = []
    for index, value in enumerate(values):
        # the destination is taken before the operands are released: 'where' writes it before it has read them all
        dest = value.slot = value.slot or pools[value.kind].take()
        args = tuple(_slot(arg) for arg in value.args)
        instructions.append(Instruction(value.op, args, dest))
        for arg in {id(arg): arg for arg in value.args if isinstance(arg, _Value)}.values():
            # scalars are computed ahead of all arrays, so theirs are not free before the end
            if arg.last_use == index and arg.slot is not None and arg.slot[0] in ("num", "truth"):
                pools[arg.kind].free.append(int(arg.slot[1]))
    instructions += _final_copies(results, pools["num"])
    return LoweredProgram(tuple(instructions), *(pool.size for pool in pools.values()))


def _number_values(program: Program, scalars: frozenset[str]) -> tuple[list[_Value], list[_Value | Slot]]:
    """Give every distinct sub-expression one value, in order of evaluation."""
    values: list[_Value] = []
    known: dict[object, _Value] = {}
    names: dict[str, _Value | Slot] = {}

    def visit(expr: Expr) -> _Value | Slot:
        if isinstance(expr, Num):
            return ("const", expr.value)
        if isinstance(expr, Var):
            return names.get(expr.name, ("in", expr.name))
        assert isinstance(expr, Call)
        op, args = expr.op, tuple(visit(arg) for arg in expr.args)
        if op == "pow" and args[1] == ("const", 2.0):
            op, args = "mul", (args[0], args[0])
        key = (op, tuple(id(arg) if isinstance(arg, _Value) else arg for arg in args))
        if key not in known:
            hoisted = all(_is_scalar(arg, scalars) for arg in args)
            known[key] = _Value(op, args, "scalar" if hoisted else "truth" if OPERATIONS[op].truth else "num")
            values.append(known[key])
        return known[key]

    for target, expr in program.assignments:
        names[target] = visit(expand(expr))
    return values, [names[output] for output in program.outputs]


def _place_outputs(values: list[_Value], results: list[_Value | Slot]) -> None:
    """Let values that may be written straight into their output do so; keep the others alive to the end."""
    last_input_read = max(
        (index for index, value in enumerate(values) if any(_is_input(arg) for arg in value.args)), default=-1
    )
    if any(not isinstance(result, _Value) for result in results):
        last_input_read = len(values)
    for k, result in enumerate(results):
        if not isinstance(result, _Value):
            continue
        result.last_use = len(values)
        if result.kind == "scalar":
            continue
        index = next(i for i, value in enumerate(values) if value is result)
        # 'where' fills its destination with one branch first, which must not destroy the other
        overwrites = result.op == "where" and _is_input(result.args[1])
        if index >= last_input_read and result.slot is None and not overwrites:
            result.slot = ("out", k)


def _is_scalar(arg: _Value | Slot, scalars: frozenset[str]) -> bool:
    if isinstance(arg, _Value):
        return arg.kind == "scalar"
    return arg[0] == "const" or arg[1] in scalars


def _is_input(arg: _Value | Slot) -> bool:
    return not isinstance(arg, _Value) and arg[0] == "in"


def _slot(arg: _Value | Slot) -> Slot:
    if isinstance(arg, _Value):
        assert arg.slot is not None
        return arg.slot
    return arg


def _final_copies(results: list[_Value | Slot], numbers: _Registers) -> list[Instruction]:
    """Copy what is not in its output yet; inputs go through a register because an output may overlay them."""
    first: list[Instruction] = []
    second: list[Instruction] = []
    for k, result in enumerate(results):
        source = _slot(result)
        if source == ("out", k):
            continue
        if source[0] == "in" and len(results) > 1:
            register = numbers.take()
            first.append(Instruction("copy", (source,), register))
            source = register
        second.append(Instruction("copy", (source,), ("out", k)))
    return first + second
