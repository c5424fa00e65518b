"""Choices that ``bpcore train`` makes where the user left them open: output, loss, optimiser, targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.data.datasets import Dataset
from bpcore.data.preprocessing import ClassList, Standardizer
from bpcore.data.split import group_split_indices, ordered_split_indices, train_test_split_indices
from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.activations import get_activation
from bpcore.functions.full_batch import LBFGS, ScipyMinimize
from bpcore.functions.losses import Loss, default_loss, get_loss
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import UPDATE_RULES, get_update_rule
from bpcore.typing import IntArray, NDArray

__all__ = [
    "DEFAULT_OPTIMIZER",
    "TEST_FRACTION",
    "VALIDATION_FRACTION",
    "Rows",
    "Targets",
    "choose_optimizer",
    "choose_output",
    "divide",
    "encode",
]

AUTO = "auto"
TEST_FRACTION, VALIDATION_FRACTION = 0.2, 0.15
"""Shares that are held out by default: of all rows, and of those that are left for a validation part."""
DEFAULT_OPTIMIZER = "adam"
DEFAULT_ETA = {"sgd": 0.1, "momentum": 0.02, "nesterov": 0.02, "adam": 0.002, "adamw": 0.002, "amsgrad": 0.002}
"""Learning rates for standardised data, where they are better than the cautious ones of the update rules."""

OUTPUT_OF_LOSS = {
    "cross_entropy": "softmax",
    "binary_cross_entropy": "sigmoid",
    "binary_cross_entropy_logits": "identity",
    "hinge": "identity",
    "exponential": "identity",
}


def choose_output(data: Dataset, output: str, loss: str) -> tuple[str, Loss]:
    """Choose the output activation and the loss.

    Parameters
    ----------
    data : Dataset
        Gives the task and the number of classes.
    output, loss : str
        Names, or ``"auto"``: the output follows from the loss, then from the task (softmax for several classes,
        sigmoid for two, identity for numbers), the loss from the output.

    Returns
    -------
    output : str
        Name of the activation.
    loss : Loss
        The loss.
    """
    if output == AUTO:
        if loss != AUTO and get_loss(loss).name in OUTPUT_OF_LOSS:
            output = OUTPUT_OF_LOSS[get_loss(loss).name]
        elif data.classes is None:
            output = "identity"
        else:
            output = "sigmoid" if len(data.classes) == 2 else "softmax"
    activation = get_activation(output)
    chosen = default_loss(activation) if loss == AUTO else get_loss(loss)
    chosen.check_output(activation)
    if data.classes is None and chosen.target_kind != "real":
        several = data.y is not None and data.y.ndim == 2 and data.y.shape[1] > 1
        numbers = "several numbers" if several else "a number"
        hint = "" if several else " (or --task classification, if its values are classes)"
        raise ConfigurationError(
            f"loss {chosen.name!r} is for classes, but the target {data.target_name!r} is {numbers}; "
            f"possible: mse, quadratic, absolute, huber{hint}"
        )
    return output, chosen


@dataclass(frozen=True)
class Targets:
    """Targets in the form that training takes.

    Attributes
    ----------
    values : ndarray
        Class names, or standardised numbers.
    n_out : int
        Number of outputs that they need.
    preprocessing : Standardizer or None
        What was applied to numbers.
    """

    values: NDArray[Any]
    n_out: int
    preprocessing: Standardizer | None


def encode(data: Dataset, output: str, train: IntArray) -> Targets:
    """Prepare the targets: class names as they are, numbers standardised by their training part.

    Parameters
    ----------
    data : Dataset
        With targets.
    output : str
        Output activation: two classes need one output, unless it is softmax.
    train : ndarray of int64
        Rows of the training part.

    Returns
    -------
    Targets
    """
    assert data.y is not None
    if data.classes is not None:
        n_classes = len(data.classes)
        single = n_classes == 2 and output not in ("softmax", "log_softmax")
        return Targets(ClassList(data.classes).decode(data.y), 1 if single else n_classes, None)
    Y = data.y.reshape(len(data.y), -1)
    fitted = Standardizer.fit(Y[train])
    return Targets(fitted.apply(Y), Y.shape[1], fitted)


@dataclass(frozen=True)
class Rows:
    """Numbers of the rows that are for training, for validation and for testing.

    Without a validation part of their own, those for testing are also validated with.
    """

    fit: IntArray
    validation: IntArray
    test: IntArray


def divide(data: Dataset, fraction: float | None, seed: int, *, in_order: bool, validates: bool) -> Rows:
    """Set rows aside: by the data itself, by groups, in order, or at random with every class in proportion.

    Parameters
    ----------
    data : Dataset
        With targets.
    fraction : float or None
        Share for testing; None for 0.2, or for what the data says.
    seed : int
        Seed of the division.
    in_order : bool
        Whether the last rows are set aside.
    validates : bool
        Whether there is a validation part besides.

    Returns
    -------
    Rows
    """
    m = len(data.X)
    if in_order and data.groups is not None:
        raise ConfigurationError("--split-order and --group are two ways to divide rows; choose one")
    if data.held_out and (fraction is not None or in_order):
        raise ConfigurationError(
            f"{data.name} has {data.held_out} samples for testing of its own; leave out --test-fraction and "
            "--split-order"
        )
    every = np.arange(m)
    if data.held_out:
        train, test = every[: m - data.held_out], every[m - data.held_out :]
    else:
        train, test = _two_parts(data, every, TEST_FRACTION if fraction is None else fraction, seed, in_order)
    if not validates:
        return Rows(train, test, test)
    # Stopping by the test part would make its accuracy a promise that new data does not keep.
    fit, validation = _two_parts(data, train, VALIDATION_FRACTION, seed, in_order)
    return Rows(fit, validation, test)


def _two_parts(data: Dataset, rows: IntArray, fraction: float, seed: int, in_order: bool) -> tuple[IntArray, IntArray]:
    if in_order:
        first, second = ordered_split_indices(len(rows), fraction)
    elif data.groups is not None:
        first, second = group_split_indices(data.groups[rows], fraction, seed)
    else:
        labels = data.y[rows] if data.classes is not None and data.y is not None else None
        first, second = train_test_split_indices(len(rows), fraction, seed, labels)
    return rows[first], rows[second]


def choose_optimizer(name: str, eta: float | None) -> UpdateRule | ScipyMinimize:
    """Build the optimiser from its name and a learning rate.

    Parameters
    ----------
    name : str
        A name of :data:`~bpcore.functions.update_rules.UPDATE_RULES`, or ``"lbfgs"``.
    eta : float or None
        Learning rate; None for a default.

    Returns
    -------
    UpdateRule or ScipyMinimize
    """
    key = name.lower().replace("-", "")
    if key == "lbfgs":
        if eta is not None:
            raise ConfigurationError("--eta has no meaning for lbfgs, which searches for the length of each step")
        return LBFGS()
    if key not in UPDATE_RULES:
        raise unknown("optimizer", name, [*UPDATE_RULES, "lbfgs"])
    eta = DEFAULT_ETA.get(key) if eta is None else eta
    return get_update_rule(key) if eta is None else get_update_rule(key, eta=eta)
