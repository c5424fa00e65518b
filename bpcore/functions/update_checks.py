"""Checks of the names in an update rule: what it may read, what it must assign, what it may not touch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bpcore.errors import ConfigurationError, FormulaError
from bpcore.functions.formula import CONSTANTS, FUNCTIONS, Formula
from bpcore.functions.program import Program

__all__ = ["check_clashes", "checked_program"]


def check_clashes(name: str, state: Iterable[str], hyper: Iterable[str], running: Iterable[str]) -> None:
    """Refuse a name with two meanings.

    Parameters
    ----------
    name : str
        The rule, for the message.
    state, hyper, running : iterable of str
        The names that the rule declares.

    Raises
    ------
    ConfigurationError
        If a name is declared twice, or belongs to every rule or to the formula language.
    """
    owners = dict.fromkeys((*CONSTANTS, *FUNCTIONS), "the formula language")
    owners.update(dict.fromkeys(("theta", "g", "eta", "t"), "every update rule"))
    for kind, names in (("state", state), ("hyper parameter", hyper), ("running number", running)):
        for key in names:
            if key in owners:
                raise ConfigurationError(f"{name}: the {kind} {key!r} is already a name of {owners[key]}; rename it")
            owners[key] = f"a {kind}"


def checked_program(
    what: str, code: str, fixed: tuple[str, ...], kept: tuple[str, ...], reserved: tuple[str, ...] = ()
) -> Program:
    """Make a program whose names all have a meaning.

    Parameters
    ----------
    what : str
        Name of the program, also for messages.
    code : str
        Its text.
    fixed : tuple of str
        Names that it may read only.
    kept : tuple of str
        Names that it may read from the start and must assign, because they persist.
    reserved : tuple of str, default ()
        Names that it may neither read nor assign.

    Returns
    -------
    Program
        Its outputs are all names that it assigns.

    Raises
    ------
    FormulaError
        If the code breaks one of these rules; the message names the line and, in it, the position.
    """
    program = Program(code, name=what)
    texts = [part.partition("=")[2] for part in re.split(r"[;\n]", code) if part.strip()]
    targets = [target for target, _ in program.assignments]
    known = list(dict.fromkeys((*kept, *fixed)))
    for number, (target, text) in enumerate(zip(targets, texts, strict=True), start=1):
        line = f"{what}: line {number}, {target} ={text.rstrip()}"
        for name in Formula(text).variables:
            if name not in known and name not in reserved and name in targets[number - 1 :]:
                remedy = f"state=({name!r},)" if "theta" in kept else f"running={{{name!r}: 0.0}}"
                raise FormulaError(
                    f"{line}: reads {name!r} before it has a value. To keep a value from step to step, declare {remedy}"
                )
        try:
            Formula(text, known)
        except FormulaError as error:
            hint = " (t can be read in scalars)" if "t" in Formula(text).variables and "t" not in known else ""
            raise FormulaError(f"{what}: line {number}{hint}: {error}") from None
        if target in fixed or target in reserved:
            raise FormulaError(f"{line}: assigns {target!r}, which may only be read; use another name")
        known.append(target)
    for name in kept:
        if name not in targets:
            assigned = ", ".join(dict.fromkeys(targets))
            raise FormulaError(f"{what}: never assigns {name!r}; it assigns {assigned}")
    return program
