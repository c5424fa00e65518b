"""What a benchmark computes and moves: the one place from which operations and bytes come.

Operations of a backend are declared in :data:`bpcore.backends.ops.OPS`, whole steps in
:mod:`bpcore.bench.workload`. What is in neither is counted here, by the same rules: an addition, a comparison or a
function call is one operation, and bytes are those that must be read and written at least once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bpcore.backends.ops import OPS
from bpcore.bench.workload import Workload
from bpcore.functions.expression import Call, Expr, Var
from bpcore.functions.program import Program

__all__ = ["NOTHING", "Cost", "loop", "operation", "program", "steps"]


@dataclass(frozen=True)
class Cost:
    """Cost of one call.

    Attributes
    ----------
    flops, bytes : int
        0 where that is not the question.
    """

    flops: int
    bytes: int

    def facts(self, seconds: float | None) -> dict[str, float]:
        """Return both, and the rates if it is known how long a call takes."""
        found: dict[str, float] = {"flops": self.flops, "bytes": self.bytes}
        if seconds:
            found |= {"gflop_per_s": self.flops / seconds / 1e9, "gb_per_s": self.bytes / seconds / 1e9}
        return {name: value for name, value in found.items() if value}


NOTHING = Cost(0, 0)
"""For what is pure waiting."""


def operation(name: str, itemsize: int, **sizes: int) -> Cost:
    """Cost of an operation of the backends, as declared."""
    return Cost(OPS[name].flops(sizes), OPS[name].elements(sizes) * itemsize)


def loop(size: int, itemsize: int, *, operations: int, arrays: int) -> Cost:
    """Cost of a loop over some elements, with so many operations for each; ``arrays`` are read or written."""
    return Cost(operations * size, arrays * size * itemsize)


def program(code: Program, arrays: Iterable[str], size: int, itemsize: int) -> Cost:
    """Cost of a program over some elements.

    ``OPS["elementwise"]`` takes one operation and two arrays for any program; here those of this one are counted.

    Parameters
    ----------
    code : Program
        The program. Equal expressions count once, and those of numbers alone not at all.
    arrays : iterable of str
        Its inputs that are arrays.
    size, itemsize : int
        Elements, and bytes of each.
    """
    read = {name for name in arrays if name in code.inputs}
    varying, found = set(read), set[Expr]()

    def varies(expr: Expr) -> bool:
        if isinstance(expr, Var):
            return expr.name in varying
        if not isinstance(expr, Call) or not any([varies(argument) for argument in expr.args]):
            return False
        found.add(expr)
        return True

    for target, expr in code.assignments:
        (varying.add if varies(expr) else varying.discard)(target)
    return loop(size, itemsize, operations=len(found), arrays=len(read) + len(code.outputs))


def steps(work: Workload, count: int) -> Cost:
    """Cost of some steps of a workload: of its matrix products, and all that it moves."""
    return Cost(count * work.flops(), count * work.bytes())
