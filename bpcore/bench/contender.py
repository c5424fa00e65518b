"""Who is measured: a backend, the precision of its products, and the plan that it trains by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bpcore.backends.registry import backends, get_backend
from bpcore.errors import ConfigurationError, unknown
from bpcore.settings import FLOAT_DTYPES
from bpcore.training.plans import PLANS, plans_on
from bpcore.training.precision import LOWER, plans_in, possible_on

__all__ = ["Contender", "parse_contender", "parse_contenders", "usable_contenders"]

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
        ``"float32"``, ``"float64"``, or on CuPy one of :data:`bpcore.training.precision.LOWER`.
    plan : str
        ``"auto"``, or a plan by its name.

    Examples
    --------
    >>> Contender("numba", "float32").name, Contender("cupy", "tf32").name
    ('numba', 'cupy:tf32')
    >>> Contender("numba", "float32", "reference").name, Contender("cupy", "bf16", "fused").name
    ('numba:reference', 'cupy:bf16:fused')
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

    @property
    def is_plain(self) -> bool:
        """Whether it is a backend as it is, in the dtype of the networks and by the plan of its choice."""
        return self.name == self.backend


def parse_contender(word: str, dtype: str) -> Contender:
    """Read a name: ``BACKEND``, ``BACKEND:PRECISION``, ``BACKEND:PLAN`` or ``BACKEND:PRECISION:PLAN``.

    Parameters
    ----------
    word : str
        Such as ``numba``, ``cupy:tf32``, ``cupy:graph`` or ``cupy:bf16:fused``.
    dtype : str
        ``"float32"`` or ``"float64"``, of the networks; it need not be named.

    Returns
    -------
    Contender

    Raises
    ------
    UnknownNameError
        If there is no such backend, precision or plan.
    ConfigurationError
        If they do not go together, or one is named twice.

    Examples
    --------
    >>> parse_contender("cupy:bf16:fused", "float32")
    Contender(backend='cupy', precision='bf16', plan='fused')
    """
    backend, *details = word.strip().lower().split(":")
    known = [status.name for status in backends()]
    if backend not in known:
        raise unknown("backend", backend, known)
    precisions, plans = [], []
    for detail in details:
        if detail in (*LOWER, *map(str, FLOAT_DTYPES)):
            precisions.append(detail)
        elif detail in PLANS:
            plans.append(detail)
        else:
            raise unknown("precision or plan", detail, [*LOWER, *plans_on(backend)])
    for what, found in (("precision", precisions), ("plan", plans)):
        if len(found) > 1:
            raise ConfigurationError(
                f"{word!r} names more than one {what}, {' and '.join(found)}; write each as a contender of its own"
            )
    contender = Contender(backend, *(precisions or [dtype]), *plans)
    _check(contender, word, dtype)
    return contender


def _check(contender: Contender, word: str, dtype: str) -> None:
    """Refuse what no training can do, before anything is measured."""
    backend, precision, plan = contender.backend, contender.precision, contender.plan
    if precision in LOWER and (backend != "cupy" or dtype != "float32"):
        raise ConfigurationError(
            f"{word!r}: precision {precision} is one of a GPU, for networks of float32; "
            f"use cupy:{precision} with --dtype float32"
        )
    if precision not in (*LOWER, dtype):
        raise ConfigurationError(
            f"{word!r}: all networks of a measurement have the same dtype, here {dtype}; use --dtype {precision}, "
            "or leave it out"
        )
    if plan not in plans_on(backend):
        raise ConfigurationError(
            f"{word!r}: backend {backend} has no plan {plan}; its plans: {', '.join(plans_on(backend))}"
        )
    if precision in LOWER and plan not in ("auto", *plans_in(precision)):
        possible = " or ".join(f"{backend}:{precision}:{name}" for name in plans_in(precision))
        raise ConfigurationError(
            f"{word!r}: plan {plan} does not compute in {precision}; use {possible}, or {backend}:{plan}"
        )


def parse_contenders(words: Iterable[str], dtype: str) -> list[Contender]:
    """Read names as :func:`parse_contender` does.

    Parameters
    ----------
    words : iterable of str
        The names; ``numpy`` is added in front if it is missing, because speed-ups are over it.
    dtype : str
        ``"float32"`` or ``"float64"``, of the networks.

    Returns
    -------
    list of Contender
        Each once.

    Raises
    ------
    UnknownNameError, ConfigurationError
        As :func:`parse_contender`.

    Examples
    --------
    >>> [contender.name for contender in parse_contenders(["numba"], "float32")]
    ['numpy', 'numba']
    """
    found = [Contender("numpy", dtype), *(parse_contender(word, dtype) for word in words)]
    return list(dict.fromkeys(found))


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
            possible = possible_on(get_backend("cupy"))
            found += [Contender("cupy", precision) for precision in REDUCED if precision in possible]
            absent |= {f"cupy:{name}": "this GPU is too old for it" for name in REDUCED if name not in possible}
    return found, absent
