"""What commands measure beside :meth:`bpcore.MLP.evaluate`: errors in the units of the target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from bpcore.data.preprocessing import Scaler, Standardizer
from bpcore.network import MLP

__all__ = ["errors_in_units"]


def errors_in_units(
    net: MLP, fitted: Scaler | Standardizer | None, blocks: Iterable[tuple[Any, Any]]
) -> dict[str, float]:
    """Return ``mse``, ``rmse`` and ``mae`` over all rows and outputs.

    Parameters
    ----------
    net : MLP
        The network.
    fitted : Scaler, Standardizer or None
        What was applied to the targets.
    blocks : iterable of (X, Y)
        Features as the network takes them, and targets of shape (m, n_L) as they were before `fitted`.

    Examples
    --------
    >>> net = MLP([1, 1], output="identity", init="zeros", seed=0, backend="numpy")
    >>> errors_in_units(net, Standardizer((5.0,), (2.0,)), [(np.zeros((2, 1)), np.array([[4.0], [8.0]]))])
    {'mse': 5.0, 'rmse': 2.23606797749979, 'mae': 2.0}
    """
    squares = absolutes = 0.0
    count = 0
    for X, truth in blocks:
        H = np.asarray(net.predict(X), dtype=np.float64)
        error = (H if fitted is None else fitted.undo(H)) - truth
        squares += float(np.sum(error**2))
        absolutes += float(np.sum(np.abs(error)))
        count += error.size
    return {"mse": squares / count, "rmse": (squares / count) ** 0.5, "mae": absolutes / count}
