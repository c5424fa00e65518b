"""What pictures are made from: runs, histories, networks and arrays, brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, ShapeError, unknown
from bpcore.network import MLP
from bpcore.training.history import History
from bpcore.training.run import Run
from bpcore.typing import NDArray

__all__ = ["as_history", "as_network", "as_weights", "choose_layers"]


def as_history(source: Any, purpose: str) -> History:
    """Return the history of a run, or of rows or columns of numbers.

    Parameters
    ----------
    source : Run, History, sequence of dict, or mapping of str to sequence
        Rows are those of an epoch; columns that begin with ``val_`` are validation. Rows without ``epoch`` are counted.
    purpose : str
        Name of the function, for messages.

    Raises
    ------
    ConfigurationError
        If it is something else, or holds no epoch.
    ShapeError
        If columns differ in length.

    Examples
    --------
    >>> as_history({"loss": [0.7, 0.4]}, "curves")[-1]
    {'epoch': 2, 'loss': 0.4}
    """
    found = source.history if isinstance(source, Run) else source
    if isinstance(found, Mapping):
        columns = {str(name): np.asarray(values, np.float64) for name, values in found.items()}
        shapes = {values.shape for values in columns.values()}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            listed = ", ".join(f"{name} {values.shape}" for name, values in columns.items())
            raise ShapeError(f"{purpose}: columns must be vectors of one length; got {listed}")
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        found = [dict(zip(columns, row, strict=True)) for row in rows]
    if not isinstance(found, History):
        if not isinstance(found, Sequence) or not all(isinstance(row, Mapping) for row in found):
            raise ConfigurationError(
                f"{purpose} needs a run of bp.train, its history, rows (a list of dictionaries) or columns (a "
                f"dictionary of lists); got {type(source).__name__}"
            )
        history = History()
        for k, row in enumerate(found, start=1):
            history.append({"epoch": k, **row})
        found = history
    if not len(found):
        raise ConfigurationError(f"{purpose}: the history is empty; no epoch was finished")
    return found


def as_network(source: Any, purpose: str) -> MLP:
    """Return the network of a run, or the network.

    Raises
    ------
    ConfigurationError
        If it is something else.
    """
    found = source.net if isinstance(source, Run) else source
    if not isinstance(found, MLP):
        raise ConfigurationError(
            f"{purpose} needs a network (bp.MLP) or a run of bp.train; got {type(source).__name__}"
        )
    return found


def as_weights(source: Any, purpose: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return pairs (W, b), first layer first, of a network, a run, or as they are given.

    Raises
    ------
    ShapeError
        If arrays are not a matrix and a vector that fits it.
    """
    if isinstance(source, Run | MLP):
        return list(as_network(source, purpose).get_weights())
    try:
        pairs = [(np.asarray(W), np.asarray(b)) for W, b in source]
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{purpose} needs a network, a run, or a list of pairs (W, b) as of net.get_weights(); got "
            f"{type(source).__name__}"
        ) from None
    for layer, (W, b) in enumerate(pairs, start=1):
        if W.ndim != 2 or b.shape != W.shape[1:]:
            raise ShapeError(
                f"{purpose}: W[{layer}] has shape {W.shape} and b[{layer}] {b.shape}; expected (n, k) and (k,)"
            )
    return pairs


def choose_layers(layers: int | Iterable[int] | None, known: range, purpose: str) -> list[int]:
    """Return the layers that are asked for, all of them by default.

    Raises
    ------
    UnknownNameError
        If there is no such layer.
    """
    if layers is None:
        return list(known)
    chosen = [layers] if isinstance(layers, int) else list(layers)
    for layer in chosen:
        if layer not in known:
            raise unknown(f"layer for {purpose}", layer, map(str, known))
    return chosen
