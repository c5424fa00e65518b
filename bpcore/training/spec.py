"""StepSpec: everything that decides what one training step computes, as one immutable value.

A backend may compile a StepSpec into something faster than the reference path. Two runs with equal specs, seeds and
data compute the same numbers, whichever plan carries them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.activations import Activation
from bpcore.functions.clipping import Clipping
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.typing import DType

__all__ = ["Dropout", "StepSpec", "as_dropout"]


@dataclass(frozen=True)
class Dropout:
    """Dropout on the hidden layers; inputs and outputs stay intact (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float or sequence of float
        Probability that a neuron is dropped, in [0, 1): one for all hidden layers, or one for each. Default 0.5.
    per : ``"batch"`` or ``"sample"``
        Whether all samples of a mini-batch lose the same neurons (default), or each sample its own. Per batch, the
        parameters of a dropped neuron, and their optimiser state, are not touched by that step.

    Raises
    ------
    ConfigurationError
        If a rate is out of range.

    Examples
    --------
    >>> Dropout(0.2).rates(2)
    (0.2, 0.2)
    """

    rate: float | tuple[float, ...] = 0.5
    per: Literal["batch", "sample"] = "batch"

    def __post_init__(self) -> None:
        if isinstance(self.rate, Sequence):
            object.__setattr__(self, "rate", tuple(self.rate))
        for rate in self.rate if isinstance(self.rate, tuple) else (self.rate,):
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise ConfigurationError(f"dropout rate is {rate!r}; it must be in [0, 1)")
        if self.per not in ("batch", "sample"):
            raise unknown("dropout 'per'", self.per, ["batch", "sample"])

    def rates(self, n_hidden: int) -> tuple[float, ...]:
        """Return the rate of every hidden layer."""
        if isinstance(self.rate, tuple):
            if len(self.rate) != n_hidden:
                raise ConfigurationError(
                    f"dropout lists {len(self.rate)} rates; the network has {n_hidden} hidden layers"
                )
            return self.rate
        return (float(self.rate),) * n_hidden


def as_dropout(value: float | Sequence[float] | Dropout | None) -> Dropout | None:
    """Turn a rate, a list of rates or None into a declaration; a rate of 0 everywhere is None."""
    if value is None:
        return None
    dropout = value if isinstance(value, Dropout) else Dropout(value)  # type: ignore[arg-type]
    rates = dropout.rate if isinstance(dropout.rate, tuple) else (dropout.rate,)
    return dropout if any(rates) else None


@dataclass(frozen=True)
class StepSpec:
    """What one training step computes.

    Attributes
    ----------
    sizes : tuple of int
        Widths of the layers.
    activations : tuple of Activation
        Of the layers 2 ... L.
    loss : Loss
        What is minimised.
    rule : UpdateRule
        How the parameters move.
    batch_size : int
        Largest number of samples in a step.
    dtype : dtype
        Of parameters and activations.
    dropout : Dropout or None
        On the hidden layers.
    penalty : Penalty or None
        Price of the weights.
    clip : Clipping or None
        What happens to the gradient before the update.
    weighted : bool
        Whether samples carry weights.
    classes : bool
        Whether hits are counted.
    precision : str or None
        In which the products are computed, ``"tf32x3"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``; None for the dtype.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    rule: UpdateRule
    batch_size: int
    dtype: DType
    dropout: Dropout | None = None
    penalty: Penalty | None = None
    clip: Clipping | None = None
    weighted: bool = False
    classes: bool = False
    precision: str | None = None

    @property
    def masked_per(self) -> Literal["", "batch", "sample"]:
        """What a mask of dropout is for; empty where nothing is dropped."""
        return "" if self.dropout is None else self.dropout.per

    @property
    def rates(self) -> dict[int, float]:
        """Dropout rate of each hidden layer that has one."""
        if self.dropout is None:
            return {}
        rates = self.dropout.rates(len(self.sizes) - 2)
        return {layer: rate for layer, rate in enumerate(rates, start=2) if rate > 0}

    def describe(self) -> dict[str, Any]:
        """Return the spec as JSON-serialisable values, for the record of a run."""
        return {
            "sizes": list(self.sizes),
            "activations": [activation.name for activation in self.activations],
            "loss": self.loss.name,
            "label_smoothing": self.loss.label_smoothing,
            "optimizer": {"name": self.rule.name, **self.rule.hyper, "eta": self.rule.schedule.describe()},
            "batch_size": self.batch_size,
            "dtype": str(self.dtype),
            "precision": self.precision or str(self.dtype),
            "dropout": None if self.dropout is None else {"rate": self.dropout.rate, "per": self.dropout.per},
            "penalty": None if self.penalty is None else {"name": self.penalty.name, **self.penalty.constants},
            "clip": None if self.clip is None else {"kind": type(self.clip).__name__, "limit": self.clip.limit},
            "weighted": self.weighted,
        }
