"""Who is measured: a backend, the precision of its products, and the plan that it trains by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bpcore.backends.registry import backends
from bpcore.errors import ConfigurationError, unknown
from bpcore.training.plans import PLANS
from bpcore.training.precision import LOWER

__all__ = ["Contender", "parse_contenders", "usable_contenders"]

REDUCED = ("tf32", "bf16")
"""Precisions that are measured on a GPU without being asked for."""


@dataclass(frozen=True)
class Contender:
    """A backend in a precision, by a plan.

    Attributes
    ----------
    backend : str
        Its name.
    precision : str
        ``"float32"``, ``"float64"``, or on CuPy ``"tf32x3"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``.
    plan : str
        ``"auto"``, or a plan by its name.

    Examples
    --------
    >>> Contender("numba", "float32").name, Contender("cupy", "tf32").name
    ('numba', 'cupy:tf32')
    >>> Contender("numba", "float32", "reference").name
    'numba:reference'
    """

    backend: str
    precision: str
    plan: str = "auto"

    @property
    def name(self) -> str:
        """The backend; with the precision where that is no dtype of a network, and the plan if one was asked for."""
        words = [self.backend]
        words += [self.precision] if self.precision in LOWER else []
        words += [self.plan] if self.plan != "auto" else []
        return ":".join(words)


def parse_contenders(words: Iterable[str], dtype: str) -> list[Contender]:
    """Read names such as ``numba``, ``cupy:tf32`` and ``cupy:graph``.

    Parameters
    ----------
    words : iterable of str
        The names; ``numpy`` is added in front if it is missing, because speed-ups are over it.
    dtype : str
        ``"float32"`` or ``"float64"``, of the networks.

    Returns
    -------
    list of Contender

    Raises
    ------
    UnknownNameError
        If there is no such backend, precision or plan.
    ConfigurationError
        If a precision does not go with the backend or the dtype.

    Examples
    --------
    >>> [contender.name for contender in parse_contenders(["numba"], "float32")]
    ['numpy', 'numba']
    """
    known = [status.name for status in backends()]
    found = [Contender("numpy", dtype)]
    for word in words:
        backend, *details = word.strip().lower().split(":")
        if backend not in known:
            raise unknown("backend", backend, known)
        precision, plan = dtype, "auto"
        for detail in details:
            if detail in LOWER:
                precision = detail
            elif detail in PLANS:
                plan = detail
            else:
                raise unknown("precision or plan", detail, [*LOWER, *PLANS])
        if precision in LOWER and (backend != "cupy" or dtype != "float32"):
            raise ConfigurationError(
                f"{word!r}: precision {precision} is one of a GPU, for networks of float32; "
                f"use cupy:{precision} with --dtype float32"
            )
        contender = Contender(backend, precision, plan)
        if contender not in found:
            found.append(contender)
    return found


def usable_contenders(dtype: str) -> tuple[list[Contender], dict[str, str]]:
    """Return who can run on this machine, and why the others cannot.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.

    Returns
    -------
    contenders : list of Contender
        NumPy first.
    absent : dict of str to str
        Reason and repair for each backend that cannot run.
    """
    found, absent = [], {}
    for status in backends():
        if not status.usable:
            absent[status.name] = f"{status.reason}; repair: {status.repair}" if status.repair else status.reason
            continue
        found.append(Contender(status.name, dtype))
        if status.name == "cupy" and dtype == "float32":
            found += [Contender("cupy", precision) for precision in REDUCED]
    return found, absent
