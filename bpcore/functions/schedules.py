"""The built-in schedules of the learning rate, as described in :mod:`bpcore.functions.schedule`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bpcore.errors import ConfigurationError
from bpcore.functions.schedule import Constant, Schedule, State, as_schedule

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "InverseTime",
    "OneCycle",
    "ReduceOnPlateau",
    "Schedule",
    "State",
    "Step",
    "WarmUp",
    "as_schedule",
]


@dataclass(frozen=True)
class Step(Schedule):
    """A staircase: ``eta * factor ** (t // every)``.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.
    every : int
        Length of a stair in units of the clock, at least 1.
    factor : float, default 0.1
        What each stair multiplies by, > 0.
    per : {"step", "epoch"}, default "step"
        The clock.

    Examples
    --------
    >>> [Step(0.8, every=2, factor=0.5, per="epoch").at(0, epoch) for epoch in range(5)]
    [0.8, 0.8, 0.4, 0.4, 0.2]
    """

    eta: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_count("every", 1)
        self._check_number("factor", "(0, inf)")

    def value(self, t: int) -> float:
        """Return eta at time t."""
        return float(self.eta * self.factor ** (t // self.every))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Exponential decay: ``eta * factor ** t``.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.
    factor : float
        What each unit of the clock multiplies by, > 0.
    per : {"step", "epoch"}, default "step"
        The clock.

    Examples
    --------
    >>> Exponential(1.0, 0.5).at(step=3, epoch=0)
    0.125
    """

    eta: float
    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_number("factor", "(0, inf)")

    def value(self, t: int) -> float:
        """Return eta at time t."""
        return float(self.eta * self.factor**t)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """Inverse-time decay: ``eta / (1 + rate * t)``.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.
    rate : float
        Decay per unit of the clock, at least 0.
    per : {"step", "epoch"}, default "step"
        The clock.

    Notes
    -----
    H. Robbins, S. Monro, "A stochastic approximation method", 1951: the classical rate at which steps may
    shrink and still reach a minimum (their sum diverges, the sum of their squares does not).

    Examples
    --------
    >>> InverseTime(1.0, rate=0.5).at(step=2, epoch=0)
    0.5
    """

    eta: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_number("rate", "[0, inf)")

    def value(self, t: int) -> float:
        """Return eta at time t."""
        return float(self.eta / (1 + self.rate * t))


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Half a cosine wave down from eta to eta_min, then eta_min.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.
    total : int
        Time at which eta_min is reached, at least 1.
    eta_min : float, default 0.0
        Last learning rate, from 0 to `eta`.
    per : {"step", "epoch"}, default "step"
        The clock.

    Notes
    -----
    ``eta_min + (eta - eta_min) * (1 + cos(pi t / total)) / 2``: I. Loshchilov, F. Hutter, "SGDR", 2017,
    equation 5, without restarts.

    Examples
    --------
    >>> [round(Cosine(1.0, total=4).at(t, 0), 3) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    eta: float
    total: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_count("total", 1)
        self._check_number("eta_min", f"[0, {self.eta}]")

    def value(self, t: int) -> float:
        """Return eta at time t."""
        return _half_cosine(self.eta, self.eta_min, t / self.total)


def _half_cosine(start: float, end: float, fraction: float) -> float:
    if fraction >= 1:
        return float(end)  # exactly: cos(pi) rounding would leave a trace of `start`
    return float(end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2)


@dataclass(frozen=True)
class OneCycle(Schedule):
    r"""Up from ``eta / div`` to eta, then down to ``eta / div / final_div``, along half cosine waves.

    Parameters
    ----------
    eta : float
        Largest learning rate, > 0.
    total : int
        Length of the cycle, at least 2; later times get the last value.
    warm : float, default 0.3
        Fraction of the cycle that rises, above 0 and at most 1. The summit is at time ``warm * total - 1``.
    div, final_div : float, default 25 and 1e4
        Ratios summit / start and start / end, at least 1.
    per : {"step", "epoch"}, default "step"
        The clock.

    Notes
    -----
    L. N. Smith, N. Topin, "Super-convergence", 2018, in the two-phase form with the defaults of PyTorch's
    ``OneCycleLR``.

    Examples
    --------
    >>> cycle = OneCycle(1.0, total=10)
    >>> [round(cycle.at(t, 0), 3) for t in (0, 2, 9)]
    [0.04, 1.0, 0.0]
    """

    eta: float
    total: int
    warm: float = 0.3
    div: float = 25.0
    final_div: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_count("total", 2)
        self._check_number("warm", "(0, 1]")
        self._check_number("div", "[1, inf)")
        self._check_number("final_div", "[1, inf)")

    def value(self, t: int) -> float:
        """Return eta at time t."""
        start, last = self.eta / self.div, self.total - 1
        end = start / self.final_div
        summit = self.warm * self.total - 1
        if t <= summit:
            return _half_cosine(start, self.eta, t / summit if summit > 0 else 1.0)
        return _half_cosine(self.eta, end, (t - summit) / (last - summit) if last > summit else 1.0)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear rise over the first `steps` units of the clock, then another schedule.

    Parameters
    ----------
    steps : int
        Length of the rise, at least 1: at time t < steps the rate is ``(t + 1) / steps`` of the first rate of
        `after`.
    after : Schedule or float
        What follows; a number means a constant rate. When it reads the same clock, its time starts after the
        rise.
    per : {"step", "epoch"}, default "step"
        The clock of the rise.

    Notes
    -----
    P. Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    Examples
    --------
    >>> [WarmUp(4, after=0.8).at(step, 0) for step in range(5)]
    [0.2, 0.4, 0.6000000000000001, 0.8, 0.8]
    """

    steps: int
    after: Schedule | float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("steps", 1)
        object.__setattr__(self, "after", as_schedule(self.after))

    @property
    def stateful(self) -> bool:
        """Whether the schedule that follows is."""
        return self._then.stateful

    @property
    def _then(self) -> Schedule:
        assert isinstance(self.after, Schedule)
        return self.after

    def at(self, step: int, epoch: int, state: State | None = None) -> float:
        """Return the learning rate after `step` updates and `epoch` epochs."""
        t = step if self.per == "step" else epoch
        if self._then.per == self.per == "step":
            step = max(step - self.steps, 0)
        elif self._then.per == self.per:
            epoch = max(epoch - self.steps, 0)
        return min(1.0, (t + 1) / self.steps) * self._then.at(step, epoch, state)

    def initial_state(self) -> dict[str, float | int | None]:
        """Return the state before any observation, that of the schedule which follows."""
        return self._then.initial_state()

    def observe(self, state: State, value: float) -> dict[str, float | int | None]:
        """Let the schedule that follows observe."""
        return self._then.observe(state, value)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Multiply the learning rate by `factor` whenever a metric has stopped improving.

    Parameters
    ----------
    eta : float
        First learning rate, > 0.
    factor : float, default 0.1
        What a reduction multiplies by, above 0 and below 1.
    patience : int, default 10
        Observations without improvement that are borne; the next one reduces.
    threshold : float, default 1e-4
        An improvement must exceed this fraction of the best value so far.
    cooldown : int, default 0
        Observations after a reduction in which failures are not counted.
    eta_min : float, default 0.0
        No reduction goes below it.
    mode : {"min", "max"}, default "min"
        Whether the metric should fall or rise.
    per : {"step", "epoch"}, default "step"
        Without effect: time is counted in observations.

    Notes
    -----
    The state is ``{"eta", "best", "bad", "cooldown"}``. NaN is never an improvement. The counting is that of
    PyTorch's ``ReduceLROnPlateau`` (relative threshold).

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.1, factor=0.5, patience=1)
    >>> state = schedule.initial_state()
    >>> for loss in (1.0, 1.0, 1.0):
    ...     state = schedule.observe(state, loss)
    >>> schedule.at(0, 3, state)
    0.05
    """

    eta: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    eta_min: float = 0.0
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("eta", "(0, inf)")
        self._check_number("factor", "(0, 1)")
        self._check_count("patience", 0)
        self._check_number("threshold", "[0, inf)")
        self._check_count("cooldown", 0)
        self._check_number("eta_min", f"[0, {self.eta}]")
        if self.mode not in ("min", "max"):
            raise ConfigurationError(f"ReduceOnPlateau: mode must be 'min' or 'max', got {self.mode!r}")

    @property
    def stateful(self) -> bool:
        """True."""
        return True

    def at(self, step: int, epoch: int, state: State | None = None) -> float:
        """Return the learning rate that `state` holds; without a state, the first one."""
        return float(self.eta if state is None else state["eta"] or 0.0)

    def initial_state(self) -> dict[str, float | int | None]:
        """Return the state before any observation."""
        return {"eta": float(self.eta), "best": None, "bad": 0, "cooldown": 0}

    def observe(self, state: State, value: float) -> dict[str, float | int | None]:
        """Return the state after the metric took `value`."""
        eta, best = float(state["eta"] or 0.0), state["best"]
        bad, cooldown = int(state["bad"] or 0), int(state["cooldown"] or 0)
        if math.isfinite(value) and (best is None or self._improves(float(value), float(best))):
            best, bad = float(value), 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            eta, cooldown, bad = max(eta * self.factor, self.eta_min), self.cooldown, 0
        return {"eta": eta, "best": best, "bad": bad, "cooldown": cooldown}

    def _improves(self, value: float, best: float) -> bool:
        margin = self.threshold * abs(best)
        return value < best - margin if self.mode == "min" else value > best + margin
