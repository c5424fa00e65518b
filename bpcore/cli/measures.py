"""What commands measure beside :meth:`bpcore.MLP.evaluate`: errors in the units of the targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from bpcore.cli.reporting import rows_table
from bpcore.data.moments import Moments
from bpcore.data.preprocessing import Scaler, Standardizer
from bpcore.network import MLP
from bpcore.typing import NDArray

__all__ = ["Errors", "errors_in_units", "print_targets"]


@dataclass(frozen=True)
class Errors:
    """Means over rows, for each target.

    Attributes
    ----------
    mse, mae : ndarray of float64, shape (n_L,)
        Of squared and of absolute errors.
    variance : ndarray of float64, shape (n_L,)
        Of the targets.
    """

    mse: NDArray[np.float64]
    mae: NDArray[np.float64]
    variance: NDArray[np.float64]

    def over_all(self) -> dict[str, float]:
        """Return ``mse``, ``rmse`` and ``mae`` over all rows and targets."""
        mse = float(self.mse.mean())
        return {"mse": mse, "rmse": mse**0.5, "mae": float(self.mae.mean())}

    def by_target(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return ``target``, ``r2``, ``rmse`` and ``mae`` of each of several targets, whose units may differ.

        A target that is the same in all rows has no ``r2``: NaN.
        """
        if len(names) == 1:
            return []
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(self.variance > 0, 1 - self.mse / self.variance, np.nan)
        numbers = zip(names, r2.tolist(), np.sqrt(self.mse).tolist(), self.mae.tolist(), strict=True)
        return [dict(zip(("target", "r2", "rmse", "mae"), row, strict=True)) for row in numbers]


def errors_in_units(net: MLP, fitted: Scaler | Standardizer | None, blocks: Iterable[tuple[Any, Any]]) -> Errors:
    """Measure the errors of all rows and outputs.

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
    >>> data = [(np.zeros((2, 1)), np.array([[4.0], [8.0]]))]
    >>> errors_in_units(net, Standardizer((5.0,), (2.0,)), data).over_all()
    {'mse': 5.0, 'rmse': 2.23606797749979, 'mae': 2.0}
    >>> net = MLP([1, 2], output="identity", init="zeros", seed=0, backend="numpy")
    >>> data = [(np.zeros((2, 1)), np.array([[3.0, 4.0], [-3.0, 0.0]]))]
    >>> [(row["target"], row["r2"], row["mae"]) for row in errors_in_units(net, None, data).by_target(["a", "b"])]
    [('a', 0.0, 3.0), ('b', -1.0, 2.0)]
    """
    n = int(net.sizes[-1])
    squares, absolutes, moments = np.zeros(n), np.zeros(n), Moments(n)
    for X, truth in blocks:
        H = np.asarray(net.predict(X), dtype=np.float64)
        error = (H if fitted is None else fitted.undo(H)) - truth
        squares += np.square(error).sum(axis=0)
        absolutes += np.abs(error).sum(axis=0)
        moments.add(truth)
    return Errors(squares / moments.rows, absolutes / moments.rows, moments.deviation**2)


def print_targets(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print what :meth:`Errors.by_target` gives as a table, unless there is but one target."""
    if not rows:
        return
    console.print()
    header = ("target", "R2", "RMSE", "MAE")
    shown = [(row["target"], f"{row['r2']:.4f}", f"{row['rmse']:.5g}", f"{row['mae']:.5g}") for row in rows]
    console.print(rows_table(header, shown, right=header[1:]))
