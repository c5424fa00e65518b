"""Programs: a few formulas evaluated together, element by element, in one pass over memory.

A program is a sequence of assignments such as ``v = mu*v + g; theta = theta - eta*v``. Names that are read before
they are assigned are its inputs; a stated subset of the assigned names are its outputs, the others are temporaries.
Later lines see the new values. This is the unit that backends compile: an activation with its bias, an error term
BP1 or BP2, or a whole update rule is one program, hence one loop on the CPU and one kernel on the GPU.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from bpcore.errors import FormulaError
from bpcore.functions import expression
from bpcore.functions.expression import Expr, Var
from bpcore.functions.formula import CONSTANTS, FUNCTIONS, Formula, as_expr, parse
from bpcore.functions.printing import to_text

__all__ = ["Program"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Program:
    """Assignments in the formula language with named outputs.

    Parameters
    ----------
    code : str or mapping of str to formula
        ``"a = ...; b = ..."`` (semicolons or line ends), or the same as an ordered mapping.
    outputs : iterable of str, optional
        Names whose final values are wanted, in the order in which backends return them. By default all assigned
        names.
    name : str
        A word for error messages, generated code and profiles.

    Attributes
    ----------
    assignments : tuple of (str, Expr)
        The lines, in order.
    inputs : tuple of str
        Names read before they are assigned, in order of first use.
    outputs : tuple of str
        Names of the results.
    key : str
        16 hexadecimal digits that identify the program: equal programs have equal keys, on every machine.

    Raises
    ------
    FormulaError
        If a line is not ``name = formula``, or an output is never assigned.

    Examples
    --------
    >>> step = Program("v = mu*v + g; theta = theta - eta*v")
    >>> step.inputs
    ('mu', 'v', 'g', 'theta', 'eta')
    >>> step.outputs
    ('v', 'theta')
    """

    def __init__(
        self,
        code: str | Mapping[str, Formula | Expr | str],
        outputs: Iterable[str] | None = None,
        name: str = "program",
    ) -> None:
        lines = _split(code) if isinstance(code, str) else [(key, as_expr(value)) for key, value in code.items()]
        if not isinstance(code, str):
            for target, expr in lines:
                for word in (target, *expression.variables(expr)):
                    _check_name(word, f"{target} = {to_text(expr)}")
        self.assignments: tuple[tuple[str, Expr], ...] = tuple(lines)
        assigned = dict.fromkeys(target for target, _ in lines)
        self.outputs: tuple[str, ...] = tuple(assigned) if outputs is None else tuple(outputs)
        self.name = name
        for output in self.outputs:
            if output not in assigned:
                raise FormulaError(f"output {output!r} of {name!r} is never assigned; assigned: {', '.join(assigned)}")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names that must be given, in order of first use."""
        assigned: set[str] = set()
        names: dict[str, None] = {}
        for target, expr in self.assignments:
            names.update(dict.fromkeys(name for name in expression.variables(expr) if name not in assigned))
            assigned.add(target)
        return tuple(names)

    @cached_property
    def key(self) -> str:
        """Stable identifier of the program's text and outputs."""
        return hashlib.sha256(f"{self} -> {','.join(self.outputs)}".encode()).hexdigest()[:16]

    def substitute(self, **values: Formula | str | float) -> Program:
        """Return the program with some inputs replaced by formulas or numbers.

        Raises
        ------
        FormulaError
            If a replaced name is assigned by the program, so that the meaning would depend on the line.
        """
        targets = {target for target, _ in self.assignments}
        if targets & set(values):
            raise FormulaError(
                f"{', '.join(sorted(targets & set(values)))} is assigned by {self.name!r}; not replaceable"
            )
        replaced = {name: as_expr(value) for name, value in values.items()}
        lines = [(target, expression.substitute(expr, replaced)) for target, expr in self.assignments]
        return self._with(lines, self.outputs)

    def only_where(self, condition: str) -> Program:
        """Return the program with every output kept at its old value where the condition does not hold.

        Every output must also be an input (it is updated in place).

        Examples
        --------
        >>> print(Program("w = w - g").only_where("keep > 0"))
        w_new = w - g; w = (w_new if keep > 0 else w)
        """
        chosen = parse(f"where({condition}, 1, 0)")
        assert isinstance(chosen, expression.Call)
        taken = {*self.inputs, *expression.variables(chosen), *(target for target, _ in self.assignments)}
        renamed: dict[str, Expr] = {}
        lines: list[tuple[str, Expr]] = []
        for target, expr in self.assignments:
            expr = expression.substitute(expr, renamed)
            if target in self.outputs:
                fresh = f"{target}_new"
                while fresh in taken:
                    fresh += "_"
                renamed[target] = Var(fresh)
                target = fresh
            lines.append((target, expr))
        for output in self.outputs:
            lines.append((output, expression.call("where", chosen.args[0], renamed[output], Var(output))))
        return self._with(lines, self.outputs)

    def _with(self, lines: list[tuple[str, Expr]], outputs: tuple[str, ...]) -> Program:
        program = object.__new__(Program)
        program.assignments, program.outputs, program.name = tuple(lines), outputs, self.name
        return program

    def __str__(self) -> str:
        return "; ".join(f"{target} = {to_text(expr)}" for target, expr in self.assignments)

    def __repr__(self) -> str:
        return f"Program({str(self)!r}, outputs={self.outputs!r}, name={self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _check_name(name: str, statement: str) -> None:
    """Refuse names that could not be printed into generated code."""
    if not _NAME.match(name):
        raise FormulaError(f"{name!r} is not a name made of ASCII letters, digits and _, in {statement!r}")
    if name in FUNCTIONS or name in CONSTANTS:
        raise FormulaError(f"{name!r} is a name of the formula language and cannot be assigned in {statement!r}")


def _split(code: str) -> list[tuple[str, Expr]]:
    lines: list[tuple[str, Expr]] = []
    for statement in (part.strip() for part in re.split(r"[;\n]", code)):
        if not statement:
            continue
        target, sign, formula = statement.partition("=")
        target = target.strip()
        if not sign or formula.startswith("=") or not _NAME.match(target):
            raise FormulaError(f"expected 'name = formula', found {statement!r}")
        _check_name(target, statement)
        lines.append((target, parse(formula)))
    if not lines:
        raise FormulaError("the program has no assignment; write for example 'theta = theta - eta*g'")
    return lines
