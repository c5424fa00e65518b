"""Penalties: what is added to the loss for large weights.

A penalty is one declaration: a formula for the price of one weight ``w``. The loss grows by the sum of it
over all weights W[l] (biases are free), and the gradient of W by its derivative, which is derived when it is
not given, and checked against differences when it is. Penalties add up: ``L1(1e-5) + L2(1e-4)`` is a penalty
again.

>>> smooth = Penalty("smooth_l1", "lam * (sqrt(w*w + s*s) - s)", lam=0.1, s=0.01)
>>> print(smooth.derivative)
lam * (0.5 / sqrt(w * w + s * s) * (w + w))
>>> round(float(smooth.value(w=2.0, **smooth.constants)), 3)
0.199
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError
from bpcore.functions.declaration import check_derivative, sample_points
from bpcore.functions.formula import Formula
from bpcore.functions.program import Program
from bpcore.functions.ranges import check_number

__all__ = ["L1", "L2", "Penalty", "as_penalty"]


class Penalty:
    """The price of a weight.

    Parameters
    ----------
    name : str
        A word for records and messages.
    value : str or Formula
        Price of one weight ``w``, in the formula language; other names are the constants.
    derivative : str or Formula, optional
        Its derivative by w. Derived from `value` when not given.
    source : str, default ""
        Where it comes from.
    **constants : float
        Values of the other names in the formula, by custom ``lam``, the strength.

    Attributes
    ----------
    value, derivative : Formula
        In w and the constants.
    constants : dict of str to float
        A new dict at every access.
    gradient : Program
        ``g = g + derivative``: adds to the gradient of the weights in place; inputs g, w and the constants.

    Raises
    ------
    FormulaError
        If a formula uses an unknown name, or the derivative given is not that of the value.
    ConfigurationError
        If a constant is not a finite number, or is not used.

    Examples
    --------
    >>> ridge = Penalty("ridge", "0.5 * lam * w * w", lam=0.5)
    >>> float(ridge.derivative(w=3.0, lam=0.5))
    1.5
    """

    __slots__ = ("_constants", "derivative", "gradient", "name", "source", "value")

    name: str
    value: Formula
    derivative: Formula
    gradient: Program
    source: str
    _constants: tuple[tuple[str, float], ...]

    def __init__(
        self,
        name: str,
        value: str | Formula,
        derivative: str | Formula | None = None,
        *,
        source: str = "",
        **constants: float,
    ) -> None:
        for constant, number in constants.items():
            check_number(f"penalty {name!r}: {constant}", number)
            if constant in ("w", "g"):
                raise ConfigurationError(f"penalty {name!r}: {constant!r} cannot name a constant")
        known = ("w", *constants)
        price = _formula(value, known)
        unused = [constant for constant in constants if constant not in price.variables]
        if unused or "w" not in price.variables:
            raise ConfigurationError(f"penalty {name!r}: {', '.join(unused) or 'w'} does not occur in {price.text!r}")
        slope = price.derivative("w") if derivative is None else _formula(derivative, known)
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "value", price)
        set_(self, "derivative", slope)
        set_(self, "gradient", Program({"g": f"g + ({slope})"}, outputs=("g",), name=f"penalty_{name}"))
        set_(self, "source", source)
        set_(self, "_constants", tuple((constant, float(number)) for constant, number in constants.items()))
        if derivative is not None:
            self._check_derivative()

    @property
    def constants(self) -> dict[str, float]:
        """Values of the constants (a new dict at every access)."""
        return dict(self._constants)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"penalties are immutable; make a new one instead of setting {attribute!r}")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __add__(self, other: Penalty) -> Penalty:
        """Return the sum of two penalties; constants of the same name are renamed."""
        if not isinstance(other, Penalty):
            return NotImplemented
        taken = {*self.constants, *other.constants}
        renamed: dict[str, str] = {}
        for constant in other.constants:
            fresh, count = constant, 1
            while fresh in self.constants or (fresh != constant and fresh in taken):
                count += 1
                fresh = f"{constant}_{count}"
            renamed[constant] = fresh
        value, slope = other.value.substitute(**renamed), other.derivative.substitute(**renamed)
        values = {renamed[constant]: number for constant, number in other.constants.items()}
        return Penalty(
            f"{self.name}+{other.name}",
            f"({self.value}) + ({value})",
            f"({self.derivative}) + ({slope})",
            source="; ".join(filter(None, (self.source, other.source))),
            **self.constants,
            **values,
        )

    def _identity(self) -> tuple[Any, ...]:
        return self.name, self.value, self.derivative, self._constants

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Penalty) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        constants = "".join(f", {constant}={number!r}" for constant, number in self._constants)
        return f"Penalty({self.name!r}, {str(self.value)!r}{constants})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.name, str(self.value), str(self.derivative), self.source, self.constants)

    def _check_derivative(self) -> None:
        grid = {"w": sample_points(-math.inf, math.inf), **self.constants}
        price, slope = self.value.expr, self.derivative.expr
        # a weak penalty must not pass because all its numbers are small
        size = min(1.0, float(np.max(np.abs(self.value(**grid)), initial=0.0))) or 1.0
        points = {name: np.asarray(values) for name, values in grid.items()}
        check_derivative(f"penalty {self.name!r}", price / size, slope / size, "w", points, given=True)


def as_penalty(penalty: Penalty | Iterable[Penalty] | None) -> Penalty | None:
    """Add up penalties; one alone, or None, stays what it is."""
    if penalty is None or isinstance(penalty, Penalty):
        return penalty
    joined: Penalty | None = None
    for part in penalty if isinstance(penalty, Iterable) else (penalty,):
        if not isinstance(part, Penalty):
            raise ConfigurationError(f"penalty holds {part!r}; penalties look like bp.L2(1e-4)")
        joined = part if joined is None else joined + part
    return joined


def _formula(given: str | Formula, known: tuple[str, ...]) -> Formula:
    return Formula(given.text if isinstance(given, Formula) else given, known)


def _restore(name: str, value: str, derivative: str, source: str, constants: dict[str, float]) -> Penalty:
    return Penalty(name, value, derivative, source=source, **constants)


def L1(lam: float) -> Penalty:
    """Lasso: the absolute value of each weight, times `lam`; drives weights to exactly 0.

    Parameters
    ----------
    lam : float
        Strength, at least 0.

    Returns
    -------
    Penalty
        ``lam * |w|``; its derivative at 0 is 0.

    Raises
    ------
    ConfigurationError
        If `lam` is negative or not finite.

    Notes
    -----
    R. Tibshirani, "Regression shrinkage and selection via the lasso", 1996.

    Examples
    --------
    >>> penalty = L1(0.1)
    >>> float(penalty.value(w=-2.0, **penalty.constants))
    0.2
    """
    lam = check_number("L1: lam", lam, "[0, inf)")
    return Penalty("l1", "lam * abs(w)", "lam * sign(w)", source="Tibshirani 1996", lam=lam)


def L2(lam: float) -> Penalty:
    """Ridge, or weight decay in the loss: half the square of each weight, times `lam`.

    Parameters
    ----------
    lam : float
        Strength, at least 0.

    Returns
    -------
    Penalty
        ``0.5 * lam * w * w``; the gradient grows by ``lam * w``.

    Raises
    ------
    ConfigurationError
        If `lam` is negative or not finite.

    Notes
    -----
    A. Krogh, J. A. Hertz, "A simple weight decay can improve generalization", 1992.

    Examples
    --------
    >>> penalty = L2(0.1)
    >>> round(float(penalty.derivative(w=-2.0, **penalty.constants)), 6)
    -0.2
    """
    lam = check_number("L2: lam", lam, "[0, inf)")
    return Penalty("l2", "0.5 * lam * w * w", "lam * w", source="Krogh, Hertz 1992", lam=lam)
