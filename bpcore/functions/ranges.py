"""Checks of numbers that users pass in: one wording for every declaration."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from bpcore.errors import ConfigurationError

__all__ = ["check_count", "check_number"]


def check_number(what: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """Return a finite real number that lies in an interval.

    Parameters
    ----------
    what : str
        Subject of the message.
    value : number
        A Python or NumPy real number, not a truth value.
    interval : str, default "(-inf, inf)"
        Such as ``"[0, 1)"``; a square bracket includes the end.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ConfigurationError
        If it is not a number, not finite, or outside of the interval.

    Examples
    --------
    >>> check_number("SGD: momentum", 1.5, "[0, 1)")
    Traceback (most recent call last):
        ...
    bpcore.errors.ConfigurationError: SGD: momentum must be a finite number in [0, 1), got 1.5
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    fine = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if fine:
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        fine = above and below
    if not fine:
        raise ConfigurationError(f"{what} must be a finite number in {interval}, got {value!r}")
    return float(value)


def check_count(what: str, value: Any, least: int) -> int:
    """Return an integer of at least `least`.

    Parameters
    ----------
    what : str
        Subject of the message.
    value : int
        A Python or NumPy integer, not a truth value.
    least : int
        Smallest value allowed.

    Returns
    -------
    int
        The integer.

    Raises
    ------
    ConfigurationError
        If it is not an integer, or too small.

    Examples
    --------
    >>> check_count("n_in", 0, 1)
    Traceback (most recent call last):
        ...
    bpcore.errors.ConfigurationError: n_in must be an integer of at least 1, got 0
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ConfigurationError(f"{what} must be an integer of at least {least}, got {value!r}")
    return number
