"""What the registry answers: the state of a backend, the list of all, and the selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BackendStatus", "BackendTable", "Selection"]


@dataclass(frozen=True)
class BackendStatus:
    """What is known about one backend.

    Attributes
    ----------
    name : str
        Its name.
    usable : bool
        Whether it can run here.
    reason : str
        Why, or why not.
    repair : str
        The command that makes it usable; empty if it is.
    facts : dict
        Versions and devices.
    """

    name: str
    usable: bool
    reason: str
    repair: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.name}: {'usable' if self.usable else 'not usable'} ({self.reason})"
        return f"{text}; repair: {self.repair}" if self.repair else text


class BackendTable(list[BackendStatus]):
    """The list that :func:`backends` returns; it prints as a table."""

    def __str__(self) -> str:
        rows = [("backend", "usable", "why", "repair")]
        rows += [(status.name, "yes" if status.usable else "no", status.reason, status.repair) for status in self]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


@dataclass(frozen=True)
class Selection:
    """Which backend is in use for code that names none.

    Attributes
    ----------
    name : str
        Name of the backend.
    source : str
        ``"argument"``, ``"use_backend"``, ``"set_backend"``, ``"BPCORE_BACKEND"`` or ``"auto"``.
    why : str
        The reason in words.
    automatic : bool
        Whether nobody named it.
    """

    name: str
    source: str
    why: str
    automatic: bool = False
