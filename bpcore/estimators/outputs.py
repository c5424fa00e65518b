"""Loss and output activation of an estimator: what scikit-learn fixes, and what else bpcore has.

The losses of scikit-learn are sums over the outputs wherever a gradient is concerned, so those that bpcore averages
(binary cross-entropy) get a twin that is a sum. For one output the two are the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bpcore.errors import ConfigurationError
from bpcore.functions.activations import Activation, get_activation
from bpcore.functions.losses import LOSSES, Loss, Pair, get_loss

__all__ = ["POISSON", "classification", "name_of_output", "regression"]

EXP = Activation("exp", "exp(z)", "h", range=(0, math.inf), source="inverse of the logarithmic link")

POISSON = Loss(
    "poisson",
    "where(y == 0, 0, y * log(y / a)) - y + a",
    "1 - y / a",
    prediction_range=(0, math.inf),
    pairs={"exp": Pair("where(y == 0, 0, y * log(y)) - y * z - y + h", "h - y")},
    source="half the deviance of a Poisson distribution",
    check=False,  # its targets are not negative, while those of this kind may be; a test compares it with differences
)

BINARY_SUM = replace(
    LOSSES["binary_cross_entropy"],
    name="binary_cross_entropy_sum",
    reduce="sum",
    source="sum over the labels",
    check=False,
)


def classification(loss: str | Loss | None, out: str | Activation | None, kind: str) -> tuple[Loss, Activation]:
    """Choose the loss and the output activation of a classifier.

    Parameters
    ----------
    loss : str, Loss or None
        None is scikit-learn's: cross-entropy, for two classes and for labels that do not exclude each other the binary
        one.
    out : str, Activation or None
        Asked for; None takes what goes with the loss.
    kind : ``"binary"``, ``"multiclass"`` or ``"multilabel"``
        The targets.

    Returns
    -------
    Loss, Activation

    Raises
    ------
    ConfigurationError
        If the loss is one of distributions and the labels are none, or the two do not fit.

    Examples
    --------
    >>> [part.name for part in classification(None, None, "multiclass")]
    ['cross_entropy', 'softmax']
    """
    if loss is None:
        chosen = {"multiclass": LOSSES["cross_entropy"], "multilabel": BINARY_SUM}.get(
            kind, LOSSES["binary_cross_entropy"]
        )
    elif kind == "binary" and get_loss(loss) == LOSSES["cross_entropy"]:
        chosen = LOSSES["binary_cross_entropy"]  # of one output: the same numbers
    else:
        chosen = get_loss(loss)
    if chosen.target_kind == "distribution" and kind != "multiclass":
        why = {"binary": "one output tells two classes apart", "multilabel": "these labels do not exclude each other"}
        raise ConfigurationError(
            f"loss {chosen.name!r} needs one output for each of several classes, but {why[kind]}; "
            "use 'binary_cross_entropy'"
        )
    if out is None:
        probabilities = "softmax" if kind == "multiclass" else "sigmoid"
        default = {"distribution": "softmax", "sign": "identity", "real": probabilities, "probability": "sigmoid"}
        out = "identity" if _takes_logits(chosen) else default[chosen.target_kind]
    return _fitting(chosen, out)


def regression(loss: str | Loss, out: str | Activation | None) -> tuple[Loss, Activation]:
    """Choose the loss and the output activation of a regressor.

    Parameters
    ----------
    loss : str or Loss
        ``"squared_error"`` is scikit-learn's, half the square (bpcore's ``"quadratic"``), ``"poisson"`` half the
        Poisson deviance.
    out : str, Activation or None
        Asked for; None takes what goes with the loss.

    Returns
    -------
    Loss, Activation

    Raises
    ------
    ConfigurationError
        If the two do not fit.

    Examples
    --------
    >>> [part.name for part in regression("poisson", None)]
    ['poisson', 'exp']
    """
    if not isinstance(loss, str | Loss):
        raise ConfigurationError(
            f"loss is {loss!r}; the first parameter of MLPRegressor is the loss, as in scikit-learn since 1.7: "
            "write hidden_layer_sizes=..."
        )
    if isinstance(loss, str) and loss in ("squared_error", "poisson"):
        chosen = LOSSES["quadratic"] if loss == "squared_error" else POISSON
    else:
        chosen = get_loss(loss)
    if out is None and chosen.name == "poisson":
        out = EXP
    elif out is None:
        default = {"distribution": "softmax", "probability": "sigmoid"}
        out = "identity" if _takes_logits(chosen) else default.get(chosen.target_kind, "identity")
    return _fitting(chosen, out)


def name_of_output(output: Activation) -> str:
    """Return scikit-learn's name of an output activation.

    Examples
    --------
    >>> name_of_output(get_activation("sigmoid"))
    'logistic'
    """
    return "logistic" if output.name == "sigmoid" else output.name


def _takes_logits(loss: Loss) -> bool:
    return loss.target_kind == "probability" and loss.prediction_range[0] < 0


def _fitting(loss: Loss, out: str | Activation) -> tuple[Loss, Activation]:
    output = EXP if out == "exp" else get_activation(out)
    loss.check_output(output)
    return loss, output
