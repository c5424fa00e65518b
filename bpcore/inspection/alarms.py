"""Alarms: what is wrong with a network that does not learn, and what a practitioner would do about it.

The limits are rules of thumb, wide enough that a network that learns well raises no alarm. They are data of this file:
change one here, and reports, plots and documentation follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bpcore.inspection.report import InspectionReport, LayerReport

__all__ = ["ADVICE", "Alarm", "find_alarms", "loss_alarms"]

VANISHING, VANISHED = 1e-2, 1e-4
"""Error of the first hidden layer as a share of the largest of all hidden layers: a warning below, serious below."""
EXPLODING, EXPLODED = 1e2, 1e4
"""Error of the first hidden layer over that of the last one: a warning above, serious above."""
LARGE_GRADIENT = 30.0
"""Norm of dW over norm of W that no healthy start has."""
LARGE_UPDATE = 0.3
"""Norm of an update over norm of W; healthy ones are about a thousandth, up to a tenth in the first steps."""
DEAD_SHARE = 0.4
"""Share of dead neurons in a layer."""
SATURATED_SHARE, ALL_SATURATED = 0.5, 0.9
"""Share of a hidden layer's outputs that are flat: a warning from, serious from."""
STUCK_SHARE = 0.2
"""Share of outputs that are flat and far from their targets."""
LARGE_INPUT, SMALL_INPUT, UNEQUAL_INPUTS = 5.0, 1e-2, 100.0
"""Root mean square of all inputs above and below which they are not scaled; largest column over the median one."""
LARGE_TARGET = 30.0
"""Root mean square of targets that are numbers."""
LEAST_FALL, RISE, LOOKS = 0.02, 1.1, 5
"""Share of its first value by which the loss must fall, or may rise, within so many looks."""
RIGHT = 0.99
"""Accuracy from which on a loss may stay where it is."""

ADVICE = {
    "not_finite": "lower the learning rate, clip the gradient (clip=bp.ClipNorm(1.0)), and scale inputs and targets; "
    "parameters that are not finite are lost, go back to a checkpoint or begin again",
    "dead_layer": "no error passes this layer: lower the learning rate, begin again with init='he_normal', and scale "
    "the inputs; leaky_relu, elu or gelu cannot die for good",
    "dead_neurons": "they learn nothing from these samples: lower the learning rate, or take leaky_relu, elu or gelu; "
    "some dead neurons are common, so look whether it becomes more",
    "saturated": "the slope is almost 0 there: begin with smaller weights (init='glorot_uniform'), scale the inputs, "
    "lower the learning rate, or take relu or another activation that is not flat at both ends",
    "stuck_outputs": "outputs are flat and wrong, so the error is multiplied by almost 0: take the loss that cancels "
    "the slope (cross_entropy with softmax, binary_cross_entropy with sigmoid), or begin with smaller weights",
    "vanishing": "the first layers hardly learn: take relu or gelu instead of sigmoid or tanh, init='he_normal' for "
    "the ReLU family, fewer layers, or an optimizer that scales each step, such as bp.Adam()",
    "exploding": "clip the gradient (clip=bp.ClipNorm(1.0)), begin with smaller weights (init='he_normal' or "
    "'glorot_uniform'), and lower the learning rate",
    "large_gradient": "scale inputs and targets to about 1, lower the learning rate, or clip the gradient "
    "(clip=bp.ClipNorm(1.0))",
    "large_update": "the learning rate is too high for these weights: divide it by 10, or warm it up (bp.WarmUp)",
    "identical_neurons": "they get the same gradient and stay the same: begin with random weights (leave init out)",
    "inputs_not_scaled": "bring each column to mean 0 and standard deviation 1 with numbers from the training part "
    "(bp.data.Standardizer), or pixels to 0 ... 1",
    "targets_not_scaled": "standardise the targets (bp.data.Standardizer), and undo it after predicting",
    "loss_rises": "the learning rate is too high: divide it by 10; clip the gradient (clip=bp.ClipNorm(1.0))",
    "loss_does_not_fall": "try learning rates ten times as high and as low, look at the other alarms, and see whether "
    "the network can learn 20 samples by heart: if not, inputs and targets do not belong together",
}
"""What to do, by kind of alarm."""

SERIOUS = {"not_finite", "dead_layer", "identical_neurons"}


@dataclass(frozen=True)
class Alarm:
    """Something that keeps a network from learning.

    Attributes
    ----------
    kind : str
        One of the keys of ``bpcore.inspection.alarms.ADVICE``.
    layer : int or None
        The layer, from 2; 1 for inputs; None where it belongs to the whole network.
    message : str
        What was found, with numbers.
    advice : str
        What to do.
    serious : bool
        Whether learning has stopped, and not only slowed down.

    Examples
    --------
    >>> print(Alarm("large_update", 2, "the next update changes W[1] by 80 % of its norm", "divide eta by 10"))
    warning: layer 2: the next update changes W[1] by 80 % of its norm; divide eta by 10
    """

    kind: str
    layer: int | None
    message: str
    advice: str
    serious: bool = False

    def __str__(self) -> str:
        where = "" if self.layer is None else "inputs: " if self.layer == 1 else f"layer {self.layer}: "
        return f"{'serious' if self.serious else 'warning'}: {where}{self.message}; {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return the parts."""
        return dict(vars(self))


def _alarm(kind: str, layer: int | None, message: str, serious: bool = False) -> Alarm:
    return Alarm(kind, layer, message, ADVICE[kind], serious or kind in SERIOUS)


def find_alarms(report: InspectionReport) -> tuple[Alarm, ...]:
    """Judge one look; the most serious alarms come first.

    Parameters
    ----------
    report : InspectionReport
        Without alarms.

    Returns
    -------
    tuple of Alarm
    """
    found = [*_not_finite(report), *_inputs(report)]
    if "not_finite" not in {alarm.kind for alarm in found}:  # what is computed from NaN says nothing
        for layer in report.layers:
            found += _layer(layer, last=layer is report.layers[-1])
        first = min((alarm.layer or 0 for alarm in found if alarm.kind == "dead_layer"), default=len(report.layers) + 2)
        # what follows a dead layer sees no sample, and is dead for that reason
        found = [a for a in found if not (a.kind in ("dead_layer", "dead_neurons") and (a.layer or 0) > first)]
        found += _steps(report)
        found += _errors(report, {alarm.kind for alarm in found})
    return tuple(sorted(found, key=lambda alarm: not alarm.serious))


def _not_finite(report: InspectionReport) -> Iterator[Alarm]:
    """The first array, in the order of a step, that holds a number that is not finite."""
    forward = [(layer, name) for layer in report.layers for name in ("W", "b", "Z", "H")]
    backward = [(layer, name) for layer in reversed(report.layers) for name in ("Delta", "db", "dW")]
    for layer, name in (*forward, *backward):
        statistics = getattr(layer, name)
        if statistics.not_finite:
            number = layer.layer - 1 if name in ("W", "b", "dW", "db") else layer.layer
            count = f"{statistics.not_finite:,} of {statistics.size:,} numbers"
            yield _alarm("not_finite", layer.layer, f"{count} in {name}[{number}] are NaN or infinite")
            return
    if not math.isfinite(report.loss):
        yield _alarm("not_finite", None, f"the loss is {report.loss:g}")


def _inputs(report: InspectionReport) -> Iterator[Alarm]:
    X, Y, inputs = report.inputs.X, report.inputs.Y, report.inputs
    if X.rms > LARGE_INPUT:
        message = f"they reach from {X.min:.3g} to {X.max:.3g} (root mean square {X.rms:.3g})"
        yield _alarm("inputs_not_scaled", 1, message)
    elif 0 < X.rms < SMALL_INPUT:
        yield _alarm("inputs_not_scaled", 1, f"they are small: root mean square {X.rms:.2g}")
    elif inputs.largest > UNEQUAL_INPUTS * inputs.median > 0:
        message = f"column {inputs.column} is {inputs.largest / inputs.median:,.0f} times as large as the median column"
        yield _alarm("inputs_not_scaled", 1, message)
    last = report.layers[-1]
    if report.accuracy is None and last.response == "open" and Y.rms > LARGE_TARGET:
        message = f"targets reach from {Y.min:.3g} to {Y.max:.3g} (root mean square {Y.rms:.3g})"
        yield _alarm("targets_not_scaled", last.layer, message)


def _layer(layer: LayerReport, last: bool) -> Iterator[Alarm]:
    number, n = layer.layer, layer.width
    if layer.W.std == 0 and layer.b.std == 0 and n > 1 and not last:
        yield _alarm("identical_neurons", number, f"all {n} neurons have the same weights")
    elif layer.dead and len(layer.dead) == n:
        yield _alarm("dead_layer", number, f"all {n} neurons are dead: no sample activates one")
    elif len(layer.dead) >= DEAD_SHARE * n and layer.dead:
        yield _alarm("dead_neurons", number, f"{len(layer.dead)} of {n} neurons are dead: no sample activates them")
    share = layer.flat_share
    if layer.response == "bounded" and not last and share is not None and share >= SATURATED_SHARE:
        message = f"{100 * share:.0f} % of its outputs are saturated ({layer.activation}, {len(layer.saturated)} of "
        message += f"{n} neurons for almost every sample)"
        yield _alarm("saturated", number, message, serious=share >= ALL_SATURATED)
    if layer.stuck is not None and layer.stuck >= STUCK_SHARE:
        message = f"{100 * layer.stuck:.0f} % of the outputs are at the wrong end of {layer.activation}"
        yield _alarm("stuck_outputs", number, message)


def _steps(report: InspectionReport) -> Iterator[Alarm]:
    """Compare gradients and updates with the weights; of several layers the worst speaks for all."""
    found = [layer for layer in report.layers if layer.W.norm > 0]
    gradients = {layer.layer: layer.gradient_ratio for layer in found if layer.gradient_ratio > LARGE_GRADIENT}
    if gradients:
        at = max(gradients, key=lambda number: gradients[number])
        message = f"the gradient of W[{at - 1}] is {gradients[at]:.3g} times as large as W[{at - 1}]"
        yield _alarm("large_gradient", at, message + _others(gradients))
    updates = {layer.layer: layer.update_ratio or 0.0 for layer in found if (layer.update_ratio or 0) > LARGE_UPDATE}
    if updates:
        at = max(updates, key=lambda number: updates[number])
        message = f"the next update changes W[{at - 1}] by {100 * updates[at]:.3g} % of its norm"
        yield _alarm("large_update", at, message + _others(updates))


def _others(layers: dict[int, float]) -> str:
    return f" ({len(layers)} layers are above the limit)" if len(layers) > 1 else ""


def _errors(report: InspectionReport, kinds: set[str]) -> Iterator[Alarm]:
    """Compare the errors of the hidden layers with each other."""
    hidden = report.layers[:-1]
    # a dead layer, or zeros as weights, stop the error altogether, which is said already
    if len(hidden) < 2 or kinds & {"dead_layer", "identical_neurons"}:
        return
    sizes = {layer.layer: layer.Delta.rms for layer in hidden}
    first, last, largest = hidden[0].Delta.rms, hidden[-1].Delta.rms, max(sizes.values())
    if largest == 0:
        return
    if first < VANISHING * largest:
        at = max(sizes, key=lambda number: sizes[number])
        share = f"{first / largest:.1e} of that of layer {at}" if first else f"0, that of layer {at} is {largest:.1e}"
        yield _alarm("vanishing", hidden[0].layer, f"its error is {share}", serious=first < VANISHED * largest)
    elif last > 0 and first > EXPLODING * last:
        message = f"its error is {first / last:,.0f} times that of layer {hidden[-1].layer}"
        yield _alarm("exploding", hidden[0].layer, message, serious=first > EXPLODED * last)


def loss_alarms(reports: Sequence[InspectionReport]) -> tuple[Alarm, ...]:
    """Judge the loss over the looks of a training, once there are enough of them.

    Parameters
    ----------
    reports : sequence of InspectionReport
        In the order in which they were taken, on the same samples.

    Returns
    -------
    tuple of Alarm
        At most one.
    """
    if len(reports) < LOOKS:
        return ()
    losses = [report.loss for report in reports]
    first, now, least = losses[0], losses[-1], min(losses[1:])
    right = reports[-1].accuracy
    spread = f"from {first:.4g} to {now:.4g} between steps {reports[0].step} and {reports[-1].step}"
    # losses may be negative: what counts is the size of a change
    if now > first + (RISE - 1) * abs(first):
        return (_alarm("loss_rises", None, f"the loss rose {spread}", serious=True),)
    if least > first - LEAST_FALL * abs(first) and not (right is not None and right >= RIGHT):
        return (_alarm("loss_does_not_fall", None, f"the loss went {spread}"),)
    return ()
