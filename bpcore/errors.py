"""Every exception that bpcore raises on purpose, and the two texts that recur.

All of them derive from :class:`BpcoreError`, so ``except bpcore.errors.BpcoreError`` catches what bpcore
refuses and nothing else. Each also derives from the built-in class that Python users expect (``ValueError`` for
bad values, ``ImportError`` for a missing package), so code that knows nothing of bpcore still does the right thing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BackendError",
    "BpcoreError",
    "ConfigurationError",
    "DataError",
    "DeviceMemoryError",
    "DivergenceError",
    "FormulaError",
    "MissingExtraError",
    "ModelFileError",
    "ShapeError",
    "UnknownNameError",
    "missing_extra",
    "unknown",
]


class BpcoreError(Exception):
    """Base class of all errors raised on purpose by bpcore."""


class ShapeError(BpcoreError, ValueError):
    """An array has a shape, dtype or memory layout that the operation cannot take."""


class DataError(BpcoreError, ValueError):
    """Training or prediction data cannot be used as given (NaN, labels out of range, empty, ...)."""


class ConfigurationError(BpcoreError, ValueError):
    """An option, or a combination of options, has no meaning."""


class UnknownNameError(BpcoreError, ValueError):
    """A name (of an activation, loss, backend, ...) is not known."""


class FormulaError(BpcoreError, ValueError):
    """A formula is not part of the formula language, or its derivative is wrong."""


class BackendError(BpcoreError, RuntimeError):
    """A backend was asked for by name and cannot run on this machine."""


class DeviceMemoryError(BpcoreError, MemoryError):
    """The device has no room for what was asked; the message lists what is needed and what is free."""


class DivergenceError(BpcoreError, ArithmeticError):
    """Training produced a number that is not finite.

    Attributes
    ----------
    step : int
        First step (counted from 1) in which a quantity was not finite.
    layer : int
        Layer of that quantity, in the numbering of :mod:`bpcore.network`; 0 when it belongs to no layer.
    quantity : str
        ``"Z"``, ``"H"``, ``"loss"``, ``"Delta"``, ``"dW"``, ``"db"``, ``"W"`` or ``"b"``.
    run : bpcore.training.run.Run or None
        The unfinished result, holding the history up to the last good step.
    """

    def __init__(self, message: str, *, step: int = 0, layer: int = 0, quantity: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.layer = layer
        self.quantity = quantity
        self.run: Any = None


class ModelFileError(BpcoreError, OSError):
    """A model file cannot be written, or is not a bpcore model, or is damaged."""


class MissingExtraError(BpcoreError, ImportError):
    """An optional dependency is not installed."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not known, with the nearest known name.

    Parameters
    ----------
    kind : str
        What was named, for example ``"activation"``.
    name : object
        What was asked for.
    known : iterable of str
        All names that would have worked.

    Returns
    -------
    UnknownNameError
        To be raised by the caller.

    Examples
    --------
    >>> print(unknown("backend", "cupi", ["numpy", "numba", "cupy"]))
    unknown backend 'cupi'; known: numpy, numba, cupy. Did you mean 'cupy'?
    """
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}; known: {', '.join(names)}.{hint}")


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtraError:
    """Build the error for an optional package that is not installed.

    Parameters
    ----------
    package : str
        The package that could not be imported.
    extra : str
        The extra of bpcore that brings it.
    purpose : str
        What it is needed for, as the subject of a sentence.

    Returns
    -------
    MissingExtraError
        To be raised by the caller.

    Examples
    --------
    >>> print(missing_extra("matplotlib", "plot", "run.plot()"))
    run.plot() needs the package 'matplotlib', which is not installed. Install it with: pip install "bpcore[plot]"
    """
    return MissingExtraError(
        f"{purpose} needs the package '{package}', which is not installed. "
        f'Install it with: pip install "bpcore[{extra}]"'
    )
