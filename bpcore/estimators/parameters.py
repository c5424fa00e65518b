"""The constructor parameters that both estimators share, checked at the time of fit, as scikit-learn's rules ask."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.ranges import check_count, check_number
from bpcore.functions.schedule import Schedule
from bpcore.settings import check_dtype

__all__ = ["LEARNING_RATES", "check_parameters", "hidden_sizes"]

LEARNING_RATES = ("constant", "invscaling", "adaptive")

NUMBERS = {
    "alpha": "[0, inf)",
    "learning_rate_init": "(0, inf)",
    "power_t": "[0, inf)",
    "tol": "[0, inf)",
    "momentum": "[0, 1]",
    "validation_fraction": "[0, 1)",
    "beta_1": "[0, 1)",
    "beta_2": "[0, 1)",
    "epsilon": "(0, inf)",
}
COUNTS = ("max_iter", "max_fun")
SWITCHES = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping")


def check_parameters(estimator: Any) -> None:
    """Refuse constructor parameters that have no meaning; solver, loss and activations are checked where they are used.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Whose parameters are looked at.

    Raises
    ------
    ConfigurationError, UnknownNameError
        Naming the parameter. Both are a :class:`ValueError`.
    """
    name = type(estimator).__name__
    for parameter, interval in NUMBERS.items():
        check_number(f"{name}: {parameter}", getattr(estimator, parameter), interval)
    for parameter in COUNTS:
        check_count(f"{name}: {parameter}", getattr(estimator, parameter), 1)
    for parameter in SWITCHES:
        value = getattr(estimator, parameter)
        if not isinstance(value, bool | np.bool_):
            raise ConfigurationError(f"{name}: {parameter} must be True or False, got {value!r}")
    if not _is_infinite(estimator.n_iter_no_change):
        check_count(f"{name}: n_iter_no_change", estimator.n_iter_no_change, 1)
    if not _is_word(estimator.batch_size, "auto"):
        check_count(f"{name}: batch_size ('auto' or a number)", estimator.batch_size, 1)
    rate = estimator.learning_rate
    if not isinstance(rate, Schedule) and not (isinstance(rate, str) and rate in LEARNING_RATES):
        raise unknown("learning_rate", rate, [*LEARNING_RATES, "a schedule such as bp.Cosine(0.1, total=1000)"])
    if estimator.time_limit is not None:
        check_number(f"{name}: time_limit (seconds)", estimator.time_limit, "(0, inf)")
    if estimator.dtype is not None:
        check_dtype(estimator.dtype)
    hidden_sizes(estimator.hidden_layer_sizes)


def hidden_sizes(given: Any) -> list[int]:
    """Return the widths of the hidden layers as a list; a single number is one layer.

    Raises
    ------
    ConfigurationError
        If a width is not a whole number above 0.

    Examples
    --------
    >>> hidden_sizes(5), hidden_sizes((8, 4)), hidden_sizes(())
    ([5], [8, 4], [])
    """
    widths = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    try:
        return [check_count("hidden_layer_sizes", width, 1) for width in widths]
    except ConfigurationError:
        raise ConfigurationError(f"hidden_layer_sizes must be > 0 and whole, got {given!r}") from None


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and float(value) == math.inf


def _is_word(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word
