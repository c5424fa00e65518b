"""What is known of one contender at one batch size, visit after visit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bpcore.bench.evidence import Evidence
from bpcore.bench.process import OK
from bpcore.bench.statistics import summary

__all__ = ["Entry"]


@dataclass
class Entry:
    """One contender at one batch size.

    Attributes
    ----------
    status, why : str
        How the last visit ended, or why there was none.
    visits : list of list of float
        Seconds of a step in each round.
    distances : dict of str to (float, float)
        Largest distances of losses or outputs, and of what parameters moved, from the witness, before and after.
    facts : dict
        Plan and threads.
    prepared : float
        Seconds of building and compiling.
    expected : Evidence or None
        What the witness computes, where it was asked.
    wrong : bool
        Whether a distance was too large.
    """

    status: str = OK
    why: str = ""
    visits: list[list[float]] = field(default_factory=list)
    distances: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    prepared: float = 0.0
    expected: Evidence | None = None
    wrong: bool = False

    @property
    def step_seconds(self) -> float | None:
        """The last time of a step."""
        return self.visits[-1][-1] if self.visits else None

    def add(self, reply: Mapping[str, Any], precision: str) -> None:
        """Add a visit, as the process that measured has told it."""
        if reply["status"] != OK:
            self.status, self.why, self.visits = reply["status"], reply["why"], []
            return
        self.visits.append(reply["seconds_per_step"])
        self.facts = reply["facts"]
        self.prepared = reply.get("seconds_to_prepare", self.prepared)
        for when in ("before", "after"):
            if self.expected is not None and when in reply:
                found = Evidence.from_json(reply[when])
                values, moved = found.distance(self.expected)
                so_far = self.distances.get(when, (0.0, 0.0))
                self.distances[when] = max(values, so_far[0]), max(moved, so_far[1])
                self.wrong |= not found.agrees(self.expected, precision)

    def row(self) -> dict[str, Any]:
        """Return the row of a result, without what follows from comparing it with others."""
        if not self.visits:
            return {"status": self.status, "why": self.why}
        why = "it computes something else than the float64 witness" if self.wrong else self.why
        return {
            "status": "differs" if self.wrong else self.status,
            "why": why,
            "us_per_step": summary(self.visits),
            "plan": self.facts["plan"],
            "plan_why": self.facts["why"],
            "threads": self.facts["threads"],
            "seconds_to_prepare": self.prepared,
            "checked": self.expected is not None,
            "parity": {
                when: {"values": _finite(values), "movement": _finite(moved)}
                for when, (values, moved) in self.distances.items()
            },
        }


def _finite(value: float) -> float | None:
    """Return the number, or None for what JSON cannot hold."""
    return value if math.isfinite(value) else None
