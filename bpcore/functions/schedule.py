"""What a schedule is: the learning rate eta as a function of time.

The contract, which every schedule keeps:

- A schedule is an immutable, hashable value (a frozen dataclass). ``schedule.at(step, epoch, state)`` is the
  learning rate for the update that comes after `step` finished updates and `epoch` finished epochs, both
  counted from 0.
- Each schedule reads one clock, chosen by ``per="step"`` or ``per="epoch"``; t below is the value of that
  clock.
- What a schedule has learned from a run lives outside of it, in a *state*: a plain dict of numbers and None
  that survives JSON, so that a run can be resumed. ``schedule.initial_state()`` makes it and
  ``schedule.observe(state, value)`` returns the next one after a metric was measured, once an epoch; the old
  one is not changed. Schedules that learn nothing (``stateful`` is False) have the empty state ``{}`` and
  ignore `value`.

A schedule of one's own is a frozen dataclass derived from :class:`Schedule` with a method ``value(t)``:

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True, kw_only=True)
... class SquareRoot(Schedule):
...     eta: float
...     def value(self, t: int) -> float:
...         return self.eta / (1 + t) ** 0.5
>>> SquareRoot(eta=0.2).at(step=3, epoch=0)
0.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, TypeAlias

from bpcore.errors import ConfigurationError
from bpcore.functions.ranges import check_count, check_number

__all__ = ["Constant", "Schedule", "State", "as_schedule"]

State: TypeAlias = Mapping[str, float | int | None]
"""What a schedule has learned; every value survives JSON."""


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules; see the module for the contract.

    Parameters
    ----------
    per : {"step", "epoch"}, default "step"
        The clock t that the schedule reads.

    Raises
    ------
    ConfigurationError
        If `per` is something else, or another parameter is out of its range.
    """

    _: KW_ONLY
    per: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if self.per not in ("step", "epoch"):
            raise ConfigurationError(f"{type(self).__name__}: per must be 'step' or 'epoch', got {self.per!r}")

    def _check_number(self, name: str, interval: str) -> None:
        check_number(f"{type(self).__name__}: {name}", getattr(self, name), interval)

    def _check_count(self, name: str, least: int) -> None:
        check_count(f"{type(self).__name__}: {name}", getattr(self, name), least)

    @property
    def stateful(self) -> bool:
        """Whether the schedule needs :meth:`observe`."""
        return False

    def value(self, t: int) -> float:
        """Return the learning rate at time t of the schedule's own clock (stateless schedules only)."""
        raise NotImplementedError(f"{type(self).__name__} must define value(t) or at(step, epoch, state)")

    def at(self, step: int, epoch: int, state: State | None = None) -> float:
        """Return the learning rate after `step` updates and `epoch` epochs.

        Parameters
        ----------
        step, epoch : int
            Finished updates and finished epochs, from 0.
        state : State, optional
            What :meth:`observe` returned last; needed by stateful schedules after their first observation.

        Returns
        -------
        float
            eta.
        """
        return self.value(step if self.per == "step" else epoch)

    def initial_state(self) -> dict[str, float | int | None]:
        """Return the state before any observation."""
        return {}

    def observe(self, state: State, value: float) -> dict[str, float | int | None]:
        """Return the state after a metric was measured; `state` itself is left alone."""
        return dict(state)

    def describe(self) -> dict[str, Any]:
        """Return name and parameters as a JSON-able dict, for the record of a run.

        Examples
        --------
        >>> Constant(0.5).describe()
        {'schedule': 'Constant', 'per': 'step', 'eta': 0.5}
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        inner = {name: v.describe() if isinstance(v, Schedule) else v for name, v in values.items()}
        return {"schedule": type(self).__name__, **inner}


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate at all times: ``eta``.

    Parameters
    ----------
    eta : float
        Learning rate, > 0.
    per : {"step", "epoch"}, default "step"
        Without effect.

    Examples
    --------
    >>> Constant(0.1).at(step=1000, epoch=3)
    0.1
    """

    eta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")

    def value(self, t: int) -> float:
        """Return eta."""
        return float(self.eta)


def as_schedule(eta: Schedule | float) -> Schedule:
    """Return a schedule as it is, and a number as a constant schedule.

    Parameters
    ----------
    eta : Schedule or float
        The learning rate; a number must be finite and > 0.

    Returns
    -------
    Schedule
        Something with the methods of the module's contract.

    Raises
    ------
    ConfigurationError
        If `eta` is neither, or not a possible learning rate.

    Examples
    --------
    >>> as_schedule(0.1)
    Constant(per='step', eta=0.1)
    """
    if isinstance(eta, Schedule):
        return eta
    return Constant(check_number("the learning rate eta", eta, "(0, inf)"))
