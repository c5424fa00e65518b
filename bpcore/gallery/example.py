"""What an example of the gallery is, and what it reports: tables, checks, pictures.

An example is a function of a backend and an empty :class:`Report`. It computes, says what it found in tables, compares
that with the numbers which are known, and leaves drawing functions that run only when somebody wants the pictures.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bpcore.backends import get_backend
from bpcore.backends.contract import Backend

__all__ = ["Check", "Example", "Picture", "Report", "Table", "run_example"]

Relation = Literal["=", "<=", ">=", "is"]
Draw = Callable[[Any], None]


@dataclass(frozen=True)
class Check:
    """A number that was found beside the one that is known.

    Attributes
    ----------
    what : str
        What was computed.
    found, expected : float or str
        The value of this run, and the known one or the bound.
    relation : ``"="``, ``"<="``, ``">="`` or ``"is"``
        How the two must stand to each other; ``"is"`` compares texts.
    tolerance : float
        Largest distance for ``"="``; 0 otherwise.
    unit : str
        Unit of both; empty for plain numbers.

    Examples
    --------
    >>> Check("J", 0.97, 1.0, "=", 0.05).passed, Check("J", float("nan"), 1.0, "<=").passed
    (True, False)
    """

    what: str
    found: float | str
    expected: float | str
    relation: Relation = "="
    tolerance: float = 0.0
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the number is right; one that is not finite never is."""
        if isinstance(self.found, str) or isinstance(self.expected, str):
            return self.found == self.expected
        if not math.isfinite(self.found):
            return False
        if self.relation == "=":
            return abs(self.found - self.expected) <= self.tolerance
        return self.found <= self.expected if self.relation == "<=" else self.found >= self.expected


@dataclass(frozen=True)
class Table:
    """Rows of numbers and words under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A drawing that has not been made yet.

    Attributes
    ----------
    name : str
        Word for the name of the file.
    caption : str
        What one sees.
    draw : callable
        Draws into an empty matplotlib Figure.
    size : (float, float)
        Width and height in inches.
    """

    name: str
    caption: str
    draw: Draw
    size: tuple[float, float]


@dataclass
class Report:
    """What an example found.

    Attributes
    ----------
    backend : str
        Name of the backend that computed it.
    tables : list of Table
    checks : list of Check
    pictures : list of Picture
    """

    backend: str
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there is a check and none failed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""
        self.tables.append(Table(title, tuple(header), tuple(tuple(row) for row in rows)))

    def check(
        self,
        what: str,
        found: float,
        expected: float,
        *,
        digits: int | None = None,
        within: float = 0.0,
        unit: str = "",
    ) -> None:
        """Add a number that must be equal to a known one.

        Parameters
        ----------
        what : str
            What was computed.
        found, expected : float
            Both numbers.
        digits : int, optional
            The known number is rounded to so many decimals, so half of the last one is allowed.
        within : float
            Largest distance, when no digits are given. Default 0.
        unit : str
            Unit of both.
        """
        # a value in the middle between two decimals may be a rounding error away from it
        tolerance = within if digits is None else 0.5 * 10.0**-digits + 1e-12
        self.checks.append(Check(what, float(found), float(expected), "=", tolerance, unit))

    def at_most(self, what: str, found: float, bound: float, *, unit: str = "") -> None:
        """Add a number that must not exceed a bound."""
        self.checks.append(Check(what, float(found), float(bound), "<=", 0.0, unit))

    def at_least(self, what: str, found: float, bound: float, *, unit: str = "") -> None:
        """Add a number that must reach a bound."""
        self.checks.append(Check(what, float(found), float(bound), ">=", 0.0, unit))

    def same(self, what: str, found: str, expected: str) -> None:
        """Add words that must be equal."""
        self.checks.append(Check(what, found, expected, "is"))

    def picture(self, name: str, caption: str, draw: Draw, size: tuple[float, float] = (6.4, 3.6)) -> None:
        """Add a picture."""
        self.pictures.append(Picture(name, caption, draw, size))


@dataclass(frozen=True)
class Example:
    """One entry of the gallery.

    Attributes
    ----------
    number : int
        Its number n; ``R<n>`` is its short name.
    name : str
        Its readable name.
    shows : str
        What one sees, in a line.
    run : callable
        ``run(be, report)`` computes it. Its module begins with the equations.
    """

    number: int
    name: str
    shows: str
    run: Callable[[Backend, Report], None]

    @property
    def key(self) -> str:
        """Short name, such as ``"R7"``."""
        return f"R{self.number}"

    @property
    def equations(self) -> tuple[str, ...]:
        """The indented block of the module's docstring, line by line (empty when Python has dropped docstrings)."""
        text = sys.modules[self.run.__module__].__doc__ or ""
        _, _, block = text.partition("::\n\n")
        lines = []
        for line in block.splitlines():
            if line and not line.startswith("    "):
                break
            lines.append(line[4:].rstrip())
        return tuple("\n".join(lines).strip("\n").split("\n")) if block else ()


def run_example(example: Example, backend: str | Backend | None = None) -> Report:
    """Run one example.

    Parameters
    ----------
    example : Example
        See :func:`bpcore.gallery.get_example`.
    backend : str or Backend, optional
        Where to compute; by default the selection in force.

    Returns
    -------
    Report
        Tables, checks and drawings.

    Raises
    ------
    BackendError
        If the backend cannot run here.
    """
    be = get_backend(backend)
    report = Report(be.name)
    example.run(be, report)
    return report
