"""In which precision the products of a training step are computed: names, and who can do what.

``None`` is the dtype of the network. The lower precisions keep parameters, gradients and the state of the optimiser in
float32 and add up in float32; only what the products read is rounded, or in ``tf32x3`` taken apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.errors import ConfigurationError, unknown

__all__ = ["LOWER", "check_precision", "plans_in", "possible_on", "refuse_precision"]

LOWER = ("tf32x3", "tf32", "bf16", "fp16")
"""Precisions that are no dtype of a network: tensor cores of a GPU read them."""

PRECISIONS = ("float32", *LOWER, "float64")
_LEAST_CAPABILITY = {"tf32x3": 80, "tf32": 80, "bf16": 80, "fp16": 70}
_PLANS = {"tf32x3": ("wide",), "tf32": ("wide",), "bf16": ("wide", "fused"), "fp16": ("wide",)}


def check_precision(precision: str | None, dtype: Any) -> str | None:
    """Check a precision against the dtype of a network.

    Parameters
    ----------
    precision : str or None
        What was asked for.
    dtype : dtype
        Of the network.

    Returns
    -------
    str or None
        The precision; None for that of the dtype.

    Raises
    ------
    UnknownNameError
        If there is no such precision.
    ConfigurationError
        If it does not go with the dtype.

    Examples
    --------
    >>> check_precision("bf16", np.float32), check_precision("float64", np.float64)
    ('bf16', None)
    """
    if precision is None:
        return None
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    found, needed = str(np.dtype(dtype)), "float32" if precision in LOWER else precision
    if found != needed:
        raise ConfigurationError(
            f"precision={precision!r} needs a network of {needed}; this one is of {found}. Build it with "
            f"bp.MLP(..., dtype={needed!r}), or use precision={found!r}"
        )
    return precision if precision in LOWER else None


def refuse_precision(precision: str | None, plan: str, be: Backend) -> None:
    """Refuse a lower precision where no plan can compute in it.

    Parameters
    ----------
    precision : str or None
        As checked by :func:`check_precision`.
    plan : str
        The plan that was asked for.
    be : Backend
        Where the network is.

    Raises
    ------
    ConfigurationError
        If this plan, backend or device cannot do it.
    """
    if precision is None:
        return
    asked = f"precision={precision!r}"
    if be.name != "cupy":
        raise ConfigurationError(
            f"{asked} needs an NVIDIA GPU; the network is on backend {be.name}, which computes in the dtype of the "
            "network. Use net.to('cupy'), or leave precision out"
        )
    possible = _PLANS[precision]
    if plan not in ("auto", *possible):
        plans = " or ".join([f"plan={name!r}" for name in possible])
        raise ConfigurationError(
            f"{asked} is possible with {plans} only; asked for was plan={plan!r}. Use plan='auto', or leave "
            "precision out"
        )
    known, needed = possible_on(be), _LEAST_CAPABILITY[precision]
    if precision not in known:
        raise ConfigurationError(
            f"{asked} needs compute capability {needed / 10}; this GPU has {_capability(be) / 10}. "
            f"Possible here: {', '.join([*known, 'float32', 'float64'])}"
        )


def _capability(be: Backend) -> int:
    properties = be.gpu.properties()
    return 10 * int(properties["major"]) + int(properties["minor"])


def possible_on(be: Backend) -> tuple[str, ...]:
    """Return those of `LOWER` that the tensor cores of a GPU read.

    Parameters
    ----------
    be : Backend
        CuPy's.
    """
    capability = _capability(be)
    return tuple(name for name in LOWER if _LEAST_CAPABILITY[name] <= capability)


def plans_in(precision: str) -> tuple[str, ...]:
    """Return the names of the plans that compute in one of the lower precisions.

    Parameters
    ----------
    precision : str
        Of `LOWER`.

    Examples
    --------
    >>> plans_in("bf16")
    ('wide', 'fused')
    """
    return _PLANS[precision]
