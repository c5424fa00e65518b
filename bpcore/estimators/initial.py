"""The first weights: drawn as scikit-learn draws them, from the same stream, so that equal seeds are equal networks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.functions.activations import Activation
from bpcore.functions.initializers import Initializer
from bpcore.network import MLP

__all__ = ["begin"]


def begin(
    sizes: list[int],
    hidden: list[Activation],
    output: Activation,
    init: str | Initializer | None,
    rng: np.random.RandomState,
    dtype: np.dtype[Any],
    backend: str | Backend | None,
) -> MLP:
    """Make the network of an estimator.

    Parameters
    ----------
    sizes : list of int
        Widths of all layers.
    hidden : list of Activation
        Of the hidden layers.
    output : Activation
        Of the last one.
    init : str, Initializer or None
        An initialiser of bpcore, with a seed that is drawn; None draws as scikit-learn does: weights and biases uniform
        in ``sqrt(6 / (fan_in + fan_out))``, or ``sqrt(2 / ...)`` for the logistic function (Glorot, Bengio 2010).
    rng : RandomState
        Drawn from.
    dtype : dtype
        Of the network.
    backend : str, Backend or None
        Of the network.

    Returns
    -------
    MLP
        The network.
    """
    if init is not None:
        seed = int(rng.randint(2**31))
        return MLP(sizes, hidden, output, init=init, seed=seed, dtype=dtype, backend=backend)
    weights = []
    for l, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        # the last layer goes by the activation before it
        logistic = bool(hidden) and hidden[min(l, len(hidden) - 1)].name == "sigmoid"
        bound = np.sqrt((2.0 if logistic else 6.0) / (fan_in + fan_out))
        weights.append((rng.uniform(-bound, bound, (fan_in, fan_out)), rng.uniform(-bound, bound, fan_out)))
    net = MLP(sizes, hidden, output, init="zeros", seed=0, dtype=dtype, backend=backend)
    return net.set_weights(weights)
