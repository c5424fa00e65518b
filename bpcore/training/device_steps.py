"""A StepSpec as the CUDA plans need it: its printed pieces, and the numbers of every step.

Learning rate, step count and the bias corrections of a rule differ from step to step. They are computed on the host in
float64, for all steps of a run at once, and lie in device memory when the first step begins: inside a run the device
needs nothing from the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpcore.backprop import bp1_program, bp2_program, loss_program
from bpcore.functions.activations import Activation
from bpcore.functions.expression import evaluate
from bpcore.functions.formula import Formula
from bpcore.functions.program import Program
from bpcore.functions.update_rule import UpdateRule
from bpcore.kernels.cuda.pieces import Layer, Output, StepPieces, print_pieces
from bpcore.kernels.cuda.source import Point
from bpcore.training.spec import StepSpec
from bpcore.typing import FloatArray

__all__ = ["derivative_of_output", "device_pieces", "is_relu", "penalty_prices", "step_numbers"]


def device_pieces(spec: StepSpec) -> StepPieces:
    """Print the formulas of a spec.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.

    Returns
    -------
    StepPieces
        Their source and how to feed them.
    """
    layers = [
        Layer(None, None, activation.rowwise)
        if activation.rowwise
        else Layer(Program({"h": activation.value_formula}, name=activation.name), bp2_program(activation, False))
        for activation in spec.activations
    ]
    last, penalty = spec.activations[-1], spec.penalty
    output = Output(
        loss_program(spec.loss, last, spec.weighted),
        bp1_program(spec.loss, last, spec.weighted),
        last.rowwise,
        spec.loss.pair_with(last) is not None,
    )
    return print_pieces(
        layers,
        output,
        spec.rule.program,
        states=spec.rule.state,
        numbers=spec.rule.scalar_names,
        penalty=None if penalty is None else penalty.gradient,
        prices=() if penalty is None else tuple(penalty.constants),
        weighted=spec.weighted,
        classes=spec.classes,
    )


_RELU = Formula("max(z, 0)").expr
_POSITIVE = Formula("where(z > 0, 1, 0)").expr


def derivative_of_output(activation: Activation, *, dropped: bool) -> bool:
    """Whether ``act'(z)`` can be computed from what a layer hands on, with that in the place of z and of h.

    Parameters
    ----------
    activation : Activation
        Of the layer, not row-wise.
    dropped : bool
        Whether the layer hands on ``h * mask`` instead of h.

    Returns
    -------
    bool
        True for formulas without z, where nothing is dropped, and for ReLU, where ``z > 0``, ``h > 0`` and, unless
        the mask is 0, ``h * mask > 0`` say the same.

    Examples
    --------
    >>> from bpcore.functions.activations import get_activation
    >>> [derivative_of_output(get_activation(name), dropped=True) for name in ("relu", "tanh", "gelu")]
    [True, False, False]
    >>> [derivative_of_output(get_activation(name), dropped=False) for name in ("relu", "tanh", "gelu")]
    [True, True, False]
    """
    if is_relu(activation):
        return True
    variables = activation.derivative_formula.variables
    return not variables or ("z" not in variables and not dropped)


def is_relu(activation: Activation) -> bool:
    """Whether an activation is declared as ``max(z, 0)`` with the derivative 0 at 0.

    Examples
    --------
    >>> from bpcore.functions.activations import get_activation
    >>> [is_relu(get_activation(name)) for name in ("relu", "leaky_relu")]
    [True, False]
    """
    return activation.value_formula.expr == _RELU and activation.derivative_formula.expr == _POSITIVE


def penalty_prices(spec: StepSpec, point: Point | None) -> FloatArray:
    """Return the numbers of the printed penalty; one 0 if there is none, since no kernel takes an empty array."""
    if spec.penalty is None or point is None or not point.numbers:
        return np.zeros(1)
    constants = {name: np.float64(value) for name, value in spec.penalty.constants.items()}
    return np.array([float(value) for value in _values(point, constants)])


def step_numbers(
    rule: UpdateRule, point: Point, first: int, etas: Sequence[float], running: Mapping[str, float]
) -> tuple[FloatArray, dict[str, float]]:
    """Compute what the printed update rule reads, for some steps.

    Parameters
    ----------
    rule : UpdateRule
        The rule.
    point : Point
        How it was printed.
    first : int
        Finished steps before these.
    etas : sequence of float
        Learning rate of each step.
    running : mapping of str to float
        Running numbers of the rule.

    Returns
    -------
    numbers : ndarray of float64, shape (steps, number of ``point.numbers``)
        The values of each step; one column of zeros if there are none.
    running : dict of str to float
        For the step after the last.

    Raises
    ------
    ConfigurationError
        If a number of the rule cannot be computed.

    Examples
    --------
    >>> from bpcore.kernels.cuda.source import print_point
    >>> rule = UpdateRule("m", "theta = theta - r*g", scalars="r = eta / (1 + t)")
    >>> step_numbers(rule, print_point(rule.program, rule.scalar_names), 0, [1.0, 1.5], {})
    (array([[0.5],
           [0.5]]), {})
    """
    rates = np.array(etas, np.float64)
    known, after = _scalars(rule, first, rates, dict(running))
    constants: dict[str, FloatArray | float] = {**rule.hyper, "eta": rates, **known}
    table = np.zeros((len(rates), max(1, len(point.numbers))))  # no kernel takes an empty array
    for k, value in enumerate(_values(point, constants)):
        table[:, k] = value
    return table, after


@np.errstate(all="ignore")
def _values(point: Point, constants: Mapping[str, FloatArray | float]) -> list[FloatArray | float]:
    """Evaluate what the host computes for a printed function, and return all that it takes."""
    found = {name: np.asarray(value, np.float64) for name, value in constants.items()}
    for target, expr in point.host.assignments if point.host is not None else ():
        found[target] = np.asarray(evaluate(expr, found))
    return [found[name] for name in point.numbers]


def _scalars(
    rule: UpdateRule, first: int, rates: FloatArray, running: dict[str, float]
) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Return the scalars of a rule for each step: all at once, unless a step needs what the one before has left."""
    if rule.scalars is None:
        return {}, running
    targets = [target for target, _ in rule.scalars.assignments]
    if not running:
        found: dict[str, Any] = {name: np.float64(value) for name, value in rule.hyper.items()}
        found |= {"t": np.arange(first + 1, first + 1 + len(rates), dtype=np.float64), "eta": rates}
        with np.errstate(all="ignore"):
            for target, expr in rule.scalars.assignments:
                found[target] = np.broadcast_to(np.asarray(evaluate(expr, found), np.float64), rates.shape)
        if all(np.isfinite(found[target]).all() for target in targets):
            return {target: found[target] for target in targets}, {}
        # plain Python decides whether what is not finite is an error
    columns: dict[str, list[float]] = {target: [] for target in targets}
    for k, eta in enumerate(rates.tolist()):
        values, running = rule.host_scalars(first + k + 1, eta, running)
        for target, column in columns.items():
            column.append(values[target])
    return {target: np.array(column) for target, column in columns.items()}, running
