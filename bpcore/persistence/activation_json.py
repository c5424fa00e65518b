"""Activations in model files: a built-in one by its name, any other by its whole declaration.

A model with an activation of the user's own therefore loads where that activation was never declared. The
text of a formula is parsed and checked as always; it cannot run code.
"""

from __future__ import annotations

import math
from typing import Any

from bpcore.functions.activations import ACTIVATIONS, Activation

__all__ = ["activation_from_json", "activation_to_json"]

TEXT_FIELDS = ("name", "formula", "rowwise", "source")


def activation_to_json(activation: Activation) -> str | dict[str, Any]:
    """Describe an activation in JSON.

    Parameters
    ----------
    activation : Activation
        Built in, or the user's own.

    Returns
    -------
    str or dict
        The name of a built-in activation, else its fields.

    Examples
    --------
    >>> activation_to_json(ACTIVATIONS["tanh"])
    'tanh'
    """
    if ACTIVATIONS.get(activation.name) == activation:
        return activation.name
    return {
        "name": activation.name,
        "formula": activation.formula,
        "derivative": activation.derivative,
        "range": [_bound_to_json(bound) for bound in activation.range],
        "domain": [_bound_to_json(bound) for bound in activation.domain],
        "differentiable": activation.differentiable,
        "rowwise": activation.rowwise,
        "source": activation.source,
    }


def activation_from_json(description: Any) -> Activation:
    """Rebuild an activation.

    Parameters
    ----------
    description : str or dict
        What :func:`activation_to_json` returned.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        If it is no such description, or the formula is not in the language.
    """
    if isinstance(description, str):
        if description not in ACTIVATIONS:
            raise ValueError(f"unknown activation {description!r}; known: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[description]
    if not isinstance(description, dict):
        raise ValueError(f"expected a name or a declaration, found {type(description).__name__}")
    for key in TEXT_FIELDS:
        if not isinstance(description.get(key), str):
            raise ValueError(f"its {key} is not text")
    derivative = description.get("derivative")
    if not isinstance(derivative, str | None):
        raise ValueError("its derivative is not text")
    if description["rowwise"] not in ("", "softmax", "log_softmax"):
        raise ValueError(f"rowwise is {description['rowwise']!r}")
    return Activation(
        description["name"],
        description["formula"],
        derivative,
        range=_interval(description.get("range")),
        domain=_interval(description.get("domain")),
        differentiable=description.get("differentiable") is True,
        rowwise=description["rowwise"],
        source=description["source"],
    )


def _bound_to_json(bound: float) -> float | str:
    """JSON has no infinity; it is written as text."""
    return bound if math.isfinite(bound) else repr(float(bound))


def _interval(bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise ValueError(f"an interval needs two bounds, found {bounds!r}")
    low, high = (float(bound) for bound in bounds)
    return low, high
