"""Loss functions: one declaration each.

A loss is a formula ``e(a, y)`` of one prediction and one target. Over the outputs of a sample it is summed or
averaged (``reduce``), and the loss of a batch is the weighted mean over its samples::

    E = sum_i c_i * s * sum_j e(a_ij, y_ij)        c_i = w_i / sum(w),   s = 1 or 1 / n_outputs

These factors enter the gradient in exactly one place, :func:`bpcore.backprop.bp1_output_delta`, so the gradient is
always that of the reported loss. Where an output activation cancels against the loss, the pair is declared here as
data (:class:`Pair`): the error is then ``h - y`` and the value is computed from ``z`` without losing digits. With a
row-wise output activation, ``logh`` is its logarithm, computed stably by the backend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Literal

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.activations import REALS, Activation, Interval
from bpcore.functions.declaration import check_derivative, sample_points
from bpcore.functions.formula import Formula
from bpcore.functions.pairs import check_pair

__all__ = ["LOSSES", "CrossEntropy", "Huber", "Loss", "Pair", "get_loss"]

TargetKind = Literal["real", "probability", "distribution", "sign"]


@dataclass(frozen=True)
class Pair:
    """What remains of a loss next to one particular output activation.

    Parameters
    ----------
    value : str
        The loss of one output in ``z``, ``h``, ``logh`` (row-wise outputs) and ``y``.
    delta : str
        Its derivative by ``z``, in ``z``, ``h`` and ``y``. For row-wise outputs it assumes that the targets of a row
        sum to 1.
    """

    value: str
    delta: str


@dataclass(frozen=True)
class Loss:
    """A loss function of predictions ``a`` and targets ``y``.

    Parameters
    ----------
    name : str
        Name in error messages, records and model files.
    formula : str
        The loss of one output, in ``a`` and ``y``.
    derivative : str, optional
        Derivative by ``a``; derived when not given, compared with differences when given.
    reduce : ``"sum"`` or ``"mean"``
        How the outputs of one sample are combined.
    prediction_range : (float, float)
        Interval of predictions for which the formula makes sense.
    target_kind : ``"real"``, ``"probability"``, ``"distribution"`` or ``"sign"``
        What the targets are: any numbers, numbers in [0, 1], rows in [0, 1] that sum to 1, or -1 and +1.
    pairs : mapping of str to Pair
        Output activations with which the product in BP1 cancels, by name.
    label_smoothing : float
        Fraction of every target row that is spread evenly over the classes before training; in [0, 1).
    source : str
        Where the formula comes from.
    check : bool
        As for :class:`~bpcore.functions.activations.Activation`.

    Raises
    ------
    FormulaError
        If a formula is not in the language, or a derivative given is wrong.

    Examples
    --------
    >>> log_cosh = Loss("log_cosh", "softplus(2*(a - y)) - (a - y) - log(2)", reduce="mean")
    >>> round(float(log_cosh.value_formula(a=1.0, y=0.5)), 6)
    0.120115
    """

    name: str
    formula: str
    derivative: str | None = None
    reduce: Literal["sum", "mean"] = "sum"
    prediction_range: Interval = REALS
    target_kind: TargetKind = "real"
    pairs: Mapping[str, Pair] = field(default_factory=dict, hash=False)
    label_smoothing: float = 0.0
    source: str = field(default="", compare=False)
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        object.__setattr__(self, "pairs", MappingProxyType(dict(self.pairs)))
        if self.reduce not in ("sum", "mean"):
            raise unknown("reduction over outputs", self.reduce, ["sum", "mean"])
        if not 0 <= self.label_smoothing < 1:
            raise ConfigurationError(f"label_smoothing is {self.label_smoothing!r}; it must be in [0, 1)")
        if not check:
            return
        formula = self.value_formula.expr
        points = {
            "a": sample_points(*self.prediction_range)[:, None],
            "y": sample_points(*self.target_range)[None, ::7],
        }
        check_derivative(
            f"loss {self.name!r}", formula, self.derivative_formula.expr, "a", points, given=self.derivative is not None
        )
        for output, pair in self.pairs.items():
            check_pair(self, output, pair)

    def __reduce__(self) -> tuple[object, ...]:
        # a mapping proxy cannot be pickled, the dictionary behind it can
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "check"}
        values["pairs"] = dict(self.pairs)
        return (_rebuild, (values,))

    @property
    def target_range(self) -> Interval:
        """Interval in which targets must lie."""
        return {"real": REALS, "probability": (0.0, 1.0), "distribution": (0.0, 1.0), "sign": (-1.0, 1.0)}[
            self.target_kind
        ]

    @cached_property
    def value_formula(self) -> Formula:
        """The loss of one output as a formula in ``a`` and ``y``."""
        return Formula(self.formula, ["a", "y"])

    @cached_property
    def derivative_formula(self) -> Formula:
        """The derivative by the prediction, in ``a`` and ``y``."""
        if self.derivative is not None:
            return Formula(self.derivative, ["a", "y"])
        return self.value_formula.derivative("a")

    def pair_with(self, output: Activation) -> Pair | None:
        """Return the simplified pair for an output activation, or None when BP1 must multiply in full."""
        return self.pairs.get(output.name)

    def check_output(self, output: Activation) -> None:
        """Refuse output activations whose range leaves the predictions that the loss accepts.

        Raises
        ------
        ConfigurationError
            With the output activations that would work.
        """
        low, high = self.prediction_range
        if output.name in self.pairs or (output.range[0] >= low and output.range[1] <= high):
            return
        from bpcore.functions.activations import ACTIVATIONS

        fitting = [
            name
            for name, candidate in ACTIVATIONS.items()
            if candidate.differentiable
            and (name in self.pairs or (candidate.range[0] >= low and candidate.range[1] <= high))
        ]
        raise ConfigurationError(
            f"loss {self.name!r} needs predictions in [{low:g}, {high:g}], but output activation {output.name!r} gives "
            f"[{output.range[0]:g}, {output.range[1]:g}]; output activations that fit: {', '.join(fitting)}"
        )


def _rebuild(values: dict[str, object]) -> Loss:
    return Loss(**values, check=False)  # type: ignore[arg-type]


_builtin = partial(Loss, check=False)


def Huber(delta: float = 1.0) -> Loss:
    """Huber loss with the given corner: quadratic up to ``delta``, linear beyond (Huber 1964).

    Parameters
    ----------
    delta : float
        Size of the residual at which the loss turns linear, > 0, in units of the target. Default 1.

    Returns
    -------
    Loss
        The mean over the outputs of ``min(d**2 / 2, delta * (|d| - delta / 2))``, d = a - y.

    Raises
    ------
    ConfigurationError
        If delta is not a positive finite number.
    """
    if not (delta > 0 and math.isfinite(delta)):
        raise ConfigurationError(f"Huber's delta is {delta!r}; it must be a positive finite number")
    d = repr(float(delta))
    return _builtin(
        "huber" if delta == 1 else f"huber({delta:g})",
        f"where(abs(a - y) <= {d}, 0.5 * (a - y)**2, {d} * (abs(a - y) - 0.5 * {d}))",
        f"clip(a - y, -{d}, {d})",
        reduce="mean",
        source="Huber 1964",
    )


def CrossEntropy(base: float | Literal["e"] = "e", label_smoothing: float = 0.0) -> Loss:
    """Categorical cross-entropy ``-sum_j y_j log(a_j)`` with a choice of base and label smoothing.

    Parameters
    ----------
    base : ``"e"``, 2 or 10
        Base of the logarithm: nats, bits or decimal digits. Default natural.
    label_smoothing : float
        In [0, 1): targets become ``(1 - s) * y + s / K`` for K classes (Szegedy et al. 2016). Default 0.

    Returns
    -------
    Loss
        Takes one-hot rows, integer labels or soft targets. Paired with softmax and with log-softmax.

    Raises
    ------
    ConfigurationError
        If the base is not one of the three, or the smoothing is out of range.
    """
    if base not in ("e", 2, 10):
        raise ConfigurationError(f"the base of the logarithm is {base!r}; possible: 'e', 2, 10")
    scale = "" if base == "e" else f"{1 / math.log(base)!r} * "
    name = "cross_entropy" if base == "e" else f"cross_entropy(base={base})"
    return _builtin(
        name,
        f"-{scale}where(y == 0, 0, y * log(a))",
        f"-{scale}where(y == 0, 0, y / a)",
        prediction_range=(0, 1),
        target_kind="distribution",
        pairs={
            "softmax": Pair(f"-{scale}where(y == 0, 0, y * logh)", f"{scale}(h - y)"),
            "log_softmax": Pair(f"-{scale}where(y == 0, 0, y * h)", f"{scale}(exp(h) - y)"),
        },
        label_smoothing=label_smoothing,
        source="negative log-likelihood of a categorical distribution",
    )


_BCE_LOGITS = "softplus(z) - z*y"

_DECLARATIONS = (
    _builtin(
        "quadratic",
        "0.5 * (a - y)**2",
        "a - y",
        pairs={"identity": Pair("0.5 * (z - y)**2", "z - y")},
        source="half the squared distance, least squares",
    ),
    _builtin("mse", "(a - y)**2", "2 * (a - y)", reduce="mean", source="mean squared error over outputs"),
    _builtin("absolute", "abs(a - y)", "sign(a - y)", reduce="mean", source="mean absolute error over outputs"),
    Huber(),
    _builtin(
        "binary_cross_entropy",
        "-(where(y == 0, 0, y * log(a)) + where(y == 1, 0, (1 - y) * log1p(-a)))",
        "where(y == 1, 0, (1 - y) / (1 - a)) - where(y == 0, 0, y / a)",
        reduce="mean",
        prediction_range=(0, 1),
        target_kind="probability",
        pairs={"sigmoid": Pair(_BCE_LOGITS, "h - y")},
        source="negative log-likelihood of a Bernoulli distribution",
    ),
    _builtin(
        "binary_cross_entropy_logits",
        _BCE_LOGITS.replace("z", "a"),
        "sigmoid(a) - y",
        reduce="mean",
        target_kind="probability",
        source="binary cross-entropy of sigmoid(a), computed from the logit a",
    ),
    CrossEntropy(),
    _builtin(
        "hinge",
        "max(1 - y*a, 0)",
        "where(y*a < 1, -y, 0)",
        target_kind="sign",
        source="Rosasco et al. 2004; targets -1 and +1",
    ),
    _builtin("exponential", "exp(-y*a)", "-y * exp(-y*a)", target_kind="sign", source="boosting; targets -1 and +1"),
)

LOSSES: dict[str, Loss] = {loss.name: loss for loss in _DECLARATIONS}
"""The built-in losses by name."""

ALIASES = {
    "bce": "binary_cross_entropy",
    "log_loss": "cross_entropy",
    "categorical_cross_entropy": "cross_entropy",
    "mae": "absolute",
    "squared_error": "mse",
}


def get_loss(loss: str | Loss) -> Loss:
    """Look a loss up by name; a :class:`Loss` is returned as it is.

    Raises
    ------
    UnknownNameError
        If there is no loss of that name.
    """
    if isinstance(loss, Loss):
        return loss
    name = ALIASES.get(loss, loss) if isinstance(loss, str) else loss
    if not isinstance(name, str) or name not in LOSSES:
        raise unknown("loss", loss, [*LOSSES, *ALIASES])
    return LOSSES[name]


def default_loss(output: Activation) -> Loss:
    """Return the loss that goes with an output activation when none is named.

    Softmax and log-softmax: cross-entropy; sigmoid: binary cross-entropy; anything else: mean squared error.
    """
    for name in ("cross_entropy", "binary_cross_entropy"):
        if output.name in LOSSES[name].pairs:
            return LOSSES[name]
    return LOSSES["mse"]
