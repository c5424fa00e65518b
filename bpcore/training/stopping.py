"""Stopping rules: small declarations that combine with ``|`` and ``&``.

A rule is immutable; what it must remember lives in a state dictionary that survives JSON, as for schedules.
``rule.observe(state, progress)`` returns the reason to stop, or None. Most rules look at the end of an epoch;
:class:`MaxSteps` and :class:`WallClock` are looked at between stretches of steps as well. A list of rules stops at the
first that fires; ``a & b`` stops when both hold at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bpcore.errors import ConfigurationError
from bpcore.settings import check_count
from bpcore.training.history import Row

__all__ = [
    "AccuracyReached",
    "AllOf",
    "AnyOf",
    "GradientNorm",
    "LossBelow",
    "LossChange",
    "MaxSteps",
    "Patience",
    "Progress",
    "StopRule",
    "WallClock",
]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    step, epoch : int
        Finished steps and epochs.
    seconds : float
        Since the start.
    row : dict or None
        The row of the history when an epoch has just ended, else None.
    previous : dict or None
        The row before.
    gradient_norm : float or None
        Euclidean norm of the gradient of the last step, at the end of an epoch, when a rule needs it.
    """

    step: int
    epoch: int
    seconds: float
    row: Row | None = None
    previous: Row | None = None
    gradient_norm: float | None = None


class StopRule:
    """Base of the rules; see the module for the contract."""

    needs_gradient_norm = False

    def initial_state(self) -> dict[str, Any]:
        """Return what the rule remembers before the run."""
        return {}

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Return the reason to stop, or None; may update the state."""
        raise NotImplementedError

    def step_limit(self) -> float:
        """Number of steps after which the rule certainly fires."""
        return math.inf

    def columns(self) -> tuple[str, ...]:
        """Columns of the history that the rule reads."""
        return ()

    def __or__(self, other: StopRule) -> StopRule:
        return AnyOf((self, other))

    def __and__(self, other: StopRule) -> StopRule:
        return AllOf((self, other))


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(f"{name} is {value!r}; it must be a number above 0")


@dataclass(frozen=True)
class MaxSteps(StopRule):
    """Stop after a number of steps (iterations), also in the middle of an epoch."""

    steps: int

    def __post_init__(self) -> None:
        check_count("MaxSteps: steps", self.steps)

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare the number of steps."""
        return f"reached {self.steps} steps" if progress.step >= self.steps else None

    def step_limit(self) -> float:
        """The number of steps."""
        return self.steps


@dataclass(frozen=True)
class WallClock(StopRule):
    """Stop when a number of seconds has passed, also in the middle of an epoch."""

    seconds: float

    def __post_init__(self) -> None:
        _positive("WallClock: seconds", self.seconds)

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare the clock."""
        return f"{self.seconds:g} s have passed" if progress.seconds >= self.seconds else None


@dataclass(frozen=True)
class LossChange(StopRule):
    """Stop when the loss changes by less than ``below`` from one epoch to the next."""

    below: float
    column: str = "loss"

    def __post_init__(self) -> None:
        _positive("LossChange: below", self.below)

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare with the epoch before."""
        if progress.row is None or progress.previous is None or self.column not in progress.previous:
            return None  # a training that was resumed may have a column that it had not before
        change = abs(progress.row[self.column] - progress.previous[self.column])
        return f"{self.column} changed by {change:.3g}, less than {self.below:g}" if change < self.below else None

    def columns(self) -> tuple[str, ...]:
        """The column that is compared."""
        return (self.column,)


@dataclass(frozen=True)
class LossBelow(StopRule):
    """Stop when the loss of an epoch is below ``value``."""

    value: float
    column: str = "loss"

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare the loss."""
        if progress.row is None or not progress.row[self.column] < self.value:
            return None
        return f"{self.column} is {progress.row[self.column]:.3g}, below {self.value:g}"

    def columns(self) -> tuple[str, ...]:
        """The column that is compared."""
        return (self.column,)


@dataclass(frozen=True)
class GradientNorm(StopRule):
    """Stop when the norm of the gradient of an epoch's last step is below ``below``."""

    below: float
    needs_gradient_norm = True

    def __post_init__(self) -> None:
        _positive("GradientNorm: below", self.below)

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare the norm."""
        norm = progress.gradient_norm
        return f"gradient norm is {norm:.3g}, below {self.below:g}" if norm is not None and norm < self.below else None


@dataclass(frozen=True)
class AccuracyReached(StopRule):
    """Stop when an accuracy is reached: that of training, or ``column="val_accuracy"``."""

    value: float
    column: str = "accuracy"

    def __post_init__(self) -> None:
        _positive("AccuracyReached: value", self.value)
        if self.value > 1:
            raise ConfigurationError(f"AccuracyReached: value is {self.value!r}; accuracies lie in (0, 1]")

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Compare the accuracy."""
        if progress.row is None or not progress.row[self.column] >= self.value:
            return None
        return f"{self.column} reached {progress.row[self.column]:.4g}"

    def columns(self) -> tuple[str, ...]:
        """The column that is compared."""
        return (self.column,)


@dataclass(frozen=True)
class Patience(StopRule):
    """Stop when a column of the history has not improved for a number of epochs.

    Parameters
    ----------
    epochs : int
        Epochs without improvement that are borne.
    column : str
        Default ``"val_loss"``. Columns named ``accuracy``, ``r2`` should rise, all others fall.
    min_delta : float
        Smallest change that counts. Default 0.
    """

    epochs: int
    column: str = "val_loss"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count("Patience: epochs", self.epochs)

    def initial_state(self) -> dict[str, Any]:
        """Nothing seen yet."""
        return {"best": None, "waited": 0}

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Count epochs without improvement."""
        if progress.row is None:
            return None
        value = progress.row[self.column]
        if better(self.column, value, state["best"], self.min_delta):
            state.update(best=value, waited=0)
            return None
        state["waited"] += 1
        if state["waited"] < self.epochs:
            return None
        best = "none" if state["best"] is None else f"{state['best']:.4g}"
        return f"{self.column} has not improved for {self.epochs} epochs (best {best})"

    def columns(self) -> tuple[str, ...]:
        """The column that is watched."""
        return (self.column,)


def better(column: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether a value of a column is an improvement; NaN never is."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    rising = column.removeprefix("val_") in ("accuracy", "r2")
    return value > best + min_delta if rising else value < best - min_delta


@dataclass(frozen=True)
class _Combination(StopRule):
    rules: tuple[StopRule, ...]

    @property
    def needs_gradient_norm(self) -> bool:  # type: ignore[override]
        return any(rule.needs_gradient_norm for rule in self.rules)

    def initial_state(self) -> dict[str, Any]:
        """States of the parts."""
        return {"parts": [rule.initial_state() for rule in self.rules]}

    def reasons(self, state: dict[str, Any], progress: Progress) -> list[str | None]:
        """Ask every part, so that each sees every epoch."""
        return [rule.observe(part, progress) for rule, part in zip(self.rules, state["parts"], strict=True)]

    def columns(self) -> tuple[str, ...]:
        """Columns of all parts."""
        return tuple(column for rule in self.rules for column in rule.columns())


@dataclass(frozen=True)
class AnyOf(_Combination):
    """Stop when any part says so."""

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Return the first reason."""
        return next((reason for reason in self.reasons(state, progress) if reason), None)

    def step_limit(self) -> float:
        """The smallest limit of the parts."""
        return min((rule.step_limit() for rule in self.rules), default=math.inf)


@dataclass(frozen=True)
class AllOf(_Combination):
    """Stop when all parts say so at the same time."""

    def observe(self, state: dict[str, Any], progress: Progress) -> str | None:
        """Return all reasons, or None."""
        reasons = self.reasons(state, progress)
        return " and ".join(reason for reason in reasons if reason) if reasons and all(reasons) else None


def as_rule(stop: StopRule | Iterable[StopRule] | None) -> AnyOf:
    """Turn a rule, a list of rules or None into one rule.

    Raises
    ------
    ConfigurationError
        If something in the list is not a rule.
    """
    given: tuple[object, ...] = () if stop is None else tuple(stop) if isinstance(stop, Iterable) else (stop,)
    rules: list[StopRule] = []
    for rule in given:
        if not isinstance(rule, StopRule):
            raise ConfigurationError(f"stop holds {rule!r}, which is not a stopping rule such as bp.Patience(5)")
        rules.append(rule)
    return AnyOf(tuple(rules))
