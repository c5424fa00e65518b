"""When a part of the acceptance runs, beside which others, and how long it may take.

Parts that measure nothing run at the same time. Those that measure follow one after the other, because a time that was
taken beside other work is none. Of them one may compile while the others before it still run.
"""

from __future__ import annotations

__all__ = ["CALLS", "ORDER", "ahead", "limit_ahead", "limit_of", "stages"]

SHARES = {
    "tests": 0.28, "sanitizers": 0.28, "race": 0.42, "costs": 0.03, "profile": 0.12, "crossovers": 0.10, "bench": 0.05,
}  # fmt: skip
"""How much of the time a part may take, in the order of the parts. What one leaves goes to those after it."""

ORDER = tuple(SHARES)
AT_ONCE = ("tests", "sanitizers")
COMPILE_AHEAD = ("race", "crossovers")
"""They spend minutes compiling, which they may do before their turn: the first of them that is asked for does."""

CALLS = {("race", "costs", "profile"): 6.5, ("tests", "sanitizers", "crossovers", "bench"): 5.0}
"""The parts in two calls, where one of all parts would be too long; with the minutes that each should be given."""


def stages(asked: list[str]) -> list[list[str]]:
    """Divide the parts into those that run at the same time.

    Examples
    --------
    >>> stages(["tests", "sanitizers", "race"]), stages(["sanitizers", "costs"])
    ([['tests', 'sanitizers'], ['race']], [['sanitizers'], ['costs']])
    """
    together = [part for part in asked if part in AT_ONCE]
    return [together] * bool(together) + [[part] for part in asked if part not in AT_ONCE]


def ahead(asked: list[str]) -> str | None:
    """Which part compiles from the beginning on.

    Examples
    --------
    >>> ahead(["tests", "race", "crossovers"]), ahead(["tests", "crossovers"]), ahead(["costs"])
    ('race', 'crossovers', None)
    """
    return next((part for part in asked if part in COMPILE_AHEAD), None)


def limit_of(name: str, asked: list[str], left: float) -> float:
    """Seconds for a part: its share of what is left, among the parts that are still to come.

    Examples
    --------
    >>> round(limit_of("tests", list(ORDER), 100.0)), limit_of("race", ["race"], 60.0)
    (28, 60.0)
    """
    rest = [parts[0] for parts in stages(asked[asked.index(name) :])]
    return left * (SHARES[name] / sum(SHARES[part] for part in rest))


def limit_ahead(name: str, asked: list[str], left: float) -> float:
    """Seconds for a part that begins with the first: all but the shares of those after it.

    Examples
    --------
    >>> limit_ahead("race", ["tests", "sanitizers", "race"], 60.0)
    60.0
    >>> round(limit_ahead("race", ["race", "costs", "profile"], 57.0))
    42
    """
    heads = [parts[0] for parts in stages(asked)]
    before = heads[: heads.index(name) + 1]
    return left * (sum(SHARES[part] for part in before) / sum(SHARES[part] for part in heads))
