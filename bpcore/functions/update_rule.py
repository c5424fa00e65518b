"""The class of all update rules: a program over parameters, gradient and state, with its numbers bound.

The contract, which every rule keeps:

- The rule is one program in the formula language, applied to all parameters at once. It reads ``theta``
  (parameters), ``g`` (gradient), its *state* (arrays like theta, 0 at the start unless ``state_init`` says
  otherwise), its *hyper* parameters, ``eta`` (learning rate) and its *scalars*; it assigns ``theta`` and
  every state name, in place. Any other name that it assigns is a temporary. Later lines see new values.
- What is the same for all parameters is computed once a step on the host, in float64: ``scalars`` are
  assignments over the hyper parameters, ``t`` (number of this step, from 1), ``eta`` and the *running*
  numbers, which they assign again and which persist from step to step.
- A rule is immutable and hashable, with all hyper parameters bound; it owns no arrays. ``rule.schedule``
  gives eta.

One step on a backend, then, is::

    eta = rule.schedule.at(t - 1, epoch, schedule_state)
    scalars, running = rule.host_scalars(t, eta, running)
    be.elementwise(rule.program, out=(theta, *state arrays), theta=theta, g=g, **state, **rule.constants(eta,
    scalars))

A rule of one's own is one declaration:

>>> heavy = UpdateRule("heavy", "v = mu*v + g; theta = theta - eta*v", state=("v",), hyper={"mu": 0.9})
>>> heavy.program.outputs
('theta', 'v')
>>> heavy.constants(0.1, {})
{'mu': 0.9, 'eta': 0.1}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from bpcore.errors import ConfigurationError, FormulaError, unknown
from bpcore.functions.program import Program
from bpcore.functions.ranges import check_number
from bpcore.functions.scalars import evaluate_scalars
from bpcore.functions.schedule import Constant, Schedule, as_schedule
from bpcore.functions.update_checks import check_clashes, checked_program

__all__ = ["UpdateRule"]

_Pairs = tuple[tuple[str, float], ...]
_ANY = "(-inf, inf)"


@dataclass(frozen=True, init=False, repr=False)
class UpdateRule:
    """An update rule with its hyper parameters.

    Parameters
    ----------
    name : str
        A word for records and messages.
    program : str
        Assignments to ``theta`` and every state name; see the module for what it may read.
    state : tuple of str, default ()
        Names of the arrays that the rule keeps for every parameter.
    hyper : mapping of str to float, optional
        Hyper parameters and their values.
    ranges : mapping of str to str, optional
        Interval of a hyper parameter, such as ``"[0, 1)"``; any finite number when not given.
    scalars : str, default ""
        Assignments evaluated once a step on the host; they may also read ``t``.
    running : mapping of str to float, optional
        Numbers that persist between steps, with their first values; `scalars` must assign each.
    state_init : mapping of str to float, optional
        First value of state arrays that do not start at 0.
    eta : float or Schedule, default 0.01
        Learning rate.
    source : str, default ""
        Where the rule comes from.

    Attributes
    ----------
    program : Program
        With outputs ``("theta", *state)``.
    schedule : Schedule
        The learning rate; a number became a :class:`~bpcore.functions.schedule.Constant`.
    scalars : Program or None
        The assignments of the host.
    name, state, source
        As given.

    Raises
    ------
    FormulaError
        If a program is not in the language, uses an unknown name, does not assign theta or a state, or reads
        a name that it assigns only later and that is not kept as state.
    ConfigurationError
        If a hyper parameter is out of its range, or names clash.

    Examples
    --------
    >>> UpdateRule("sign", "theta = theta - eta * sign(g)", eta=0.5)
    UpdateRule('sign', eta=0.5)
    """

    name: str
    program: Program
    state: tuple[str, ...]
    schedule: Schedule
    scalars: Program | None
    source: str
    _hyper: _Pairs
    _ranges: tuple[tuple[str, str], ...]
    _running: _Pairs
    _state_init: _Pairs

    def __init__(
        self,
        name: str,
        program: str,
        *,
        state: Iterable[str] = (),
        hyper: Mapping[str, float] | None = None,
        ranges: Mapping[str, str] | None = None,
        scalars: str = "",
        running: Mapping[str, float] | None = None,
        state_init: Mapping[str, float] | None = None,
        eta: float | Schedule = 0.01,
        source: str = "",
    ) -> None:
        arrays = (state,) if isinstance(state, str) else tuple(state)
        hyper, ranges, running = dict(hyper or {}), dict(ranges or {}), dict(running or {})
        check_clashes(name, arrays, hyper, running)
        for given, known, what in ((ranges, hyper, "hyper parameter"), (state_init or {}, arrays, "state")):
            for key in given:
                if key not in known:
                    raise unknown(f"{what} of update rule {name!r}", key, known)

        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "state", arrays)
        set_(self, "source", source)
        set_(self, "schedule", as_schedule(eta))
        set_(self, "_ranges", tuple(ranges.items()))
        set_(
            self,
            "_hyper",
            tuple((k, check_number(f"{name}: {k}", v, ranges.get(k, _ANY))) for k, v in hyper.items()),
        )
        for attribute, firsts in (("_running", running), ("_state_init", state_init or {})):
            set_(self, attribute, tuple((k, check_number(f"{name}: first {k}", v)) for k, v in firsts.items()))
        reserved = ("theta", "g", *arrays)
        host = (
            checked_program(f"{name} scalars", scalars, (*hyper, "t", "eta"), tuple(running), reserved)
            if scalars
            else None
        )
        if running and host is None:
            raise FormulaError(f"{name}: the running number {next(iter(running))!r} is never assigned; write scalars")
        set_(self, "scalars", host)
        readable = ("g", "eta", *hyper, *(host.outputs if host else ()))
        lines = checked_program(name, program, readable, ("theta", *arrays), ())
        set_(self, "program", Program(program, outputs=("theta", *arrays), name=lines.name))

    @property
    def hyper(self) -> dict[str, float]:
        """Hyper parameters and their values (a new dict at every access)."""
        return dict(self._hyper)

    @property
    def state_init(self) -> dict[str, float]:
        """First value of every state array (a new dict at every access)."""
        return {**dict.fromkeys(self.state, 0.0), **dict(self._state_init)}

    @cached_property
    def scalar_names(self) -> tuple[str, ...]:
        """Numbers that the program reads besides the arrays: hyper parameters, scalars, eta; in order."""
        return tuple(name for name in self.program.inputs if name not in ("theta", "g", *self.state))

    def initial_running(self) -> dict[str, float]:
        """Return the first values of the running numbers."""
        return dict(self._running)

    def host_scalars(
        self, t: int, eta: float, running: Mapping[str, float] | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Compute the numbers of one step.

        Parameters
        ----------
        t : int
            Number of the step, from 1.
        eta : float
            Learning rate of the step.
        running : mapping of str to float, optional
            What the last step returned; the first values when not given.

        Returns
        -------
        scalars : dict of str to float
            Every name that the scalars assign.
        running : dict of str to float
            For the next step.

        Raises
        ------
        ConfigurationError
            If a scalar cannot be computed (a division by zero, the root of a negative number).

        Examples
        --------
        >>> rule = UpdateRule("m", "theta = theta - r*g", scalars="s = s + eta; r = eta/s", running={"s": 0})
        >>> rule.host_scalars(2, 0.5, {"s": 1.5})
        ({'s': 2.0, 'r': 0.25}, {'s': 2.0})
        """
        before = dict(self._running) if running is None else dict(running)
        if self.scalars is None:
            return {}, before
        known = {**self._numbers, **before, "t": float(t), "eta": float(eta)}
        try:
            values = evaluate_scalars(self.scalars, known)
        except (ArithmeticError, ValueError) as error:
            raise ConfigurationError(f"{self.name}: the scalars '{self.scalars}' fail at t={t}: {error}") from None
        return values, {key: values[key] for key, _ in self._running}

    def constants(self, eta: float, scalars: Mapping[str, float]) -> dict[str, float]:
        """Return all numbers that the program reads, ready to be handed to a backend with the arrays.

        Parameters
        ----------
        eta : float
            Learning rate of the step.
        scalars : mapping of str to float
            First result of :meth:`host_scalars`.

        Returns
        -------
        dict of str to float
            One value for each of :attr:`scalar_names`, in that order.
        """
        known = {**self._numbers, "eta": eta, **scalars}
        return {name: known[name] for name in self.scalar_names}

    def bind(self, eta: float | Schedule | None = None, **hyper: float) -> UpdateRule:
        """Return the rule with another learning rate or other hyper parameters.

        Parameters
        ----------
        eta : float or Schedule, optional
            New learning rate.
        **hyper : float
            New values of hyper parameters.

        Returns
        -------
        UpdateRule
            A new rule.

        Raises
        ------
        UnknownNameError
            If the rule has no such hyper parameter.
        ConfigurationError
            If a value is out of its range.

        Examples
        --------
        >>> UpdateRule("decay", "theta = (1 - d)*theta - eta*g", hyper={"d": 0.1}).bind(eta=0.2, d=0.3)
        UpdateRule('decay', eta=0.2, d=0.3)
        """
        ranges, numbers = dict(self._ranges), self.hyper
        for key, value in hyper.items():
            if key not in numbers:
                raise unknown(f"hyper parameter of update rule {self.name!r}", key, numbers)
            numbers[key] = check_number(f"{self.name}: {key}", value, ranges.get(key, _ANY))
        bound = object.__new__(UpdateRule)
        for field in fields(self):
            object.__setattr__(bound, field.name, getattr(self, field.name))
        object.__setattr__(bound, "_hyper", tuple(numbers.items()))
        object.__setattr__(bound, "schedule", self.schedule if eta is None else as_schedule(eta))
        return bound

    @cached_property
    def _numbers(self) -> dict[str, float]:
        return dict(self._hyper)

    def __repr__(self) -> str:
        eta: object = self.schedule.eta if isinstance(self.schedule, Constant) else self.schedule
        hyper = "".join(f", {key}={value!r}" for key, value in self._hyper)
        return f"UpdateRule({self.name!r}, eta={eta!r}{hyper})"
