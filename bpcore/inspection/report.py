"""What an inspection found: numbers by layer, alarms, and the same as text, table, dictionary and picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bpcore.inspection.statistics import Statistics

if TYPE_CHECKING:
    from bpcore.inspection.alarms import Alarm

__all__ = ["InputReport", "InspectionReport", "LayerReport"]

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]


@dataclass(frozen=True)
class InputReport:
    """What the samples look like.

    Attributes
    ----------
    X, Y : Statistics
        Of all inputs and all targets.
    largest, median : float
        Root mean square of the column of X where it is largest, and its median over the columns that are not all 0.
    column : int
        That column, from 0.
    constant : tuple of int
        Columns that are the same for every sample.
    """

    X: Statistics
    Y: Statistics
    largest: float
    median: float
    column: int
    constant: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        return {**vars(self), "X": self.X.to_dict(), "Y": self.Y.to_dict(), "constant": list(self.constant)}


@dataclass(frozen=True)
class LayerReport:
    """What a layer does with the samples, and what it learns from them.

    Attributes
    ----------
    layer : int
        Its number, from 2 to L.
    width : int
        Neurons.
    activation : str
        Name of its activation.
    response : str
        ``"bounded"``, ``"rectifier"``, ``"open"`` or ``"rowwise"``; see :mod:`bpcore.inspection.response`.
    Z, H, Delta : Statistics
        Of its pre-activations, activations and errors.
    W, b, dW, db : Statistics
        Of the parameters that lead into it and their gradients, which carry the number ``layer - 1``.
    flat : tuple of float
        For each neuron the share of samples for which ``|act'|`` is almost 0; empty where that cannot be.
    dead, saturated : tuple of int
        Neurons, from 0, that are flat for every sample (rectifiers), or for 95 % of them (bounded activations).
    gradient_ratio : float
        Norm of dW over norm of W.
    update_ratio : float or None
        Norm of the change of W by the next update over norm of W; None if no update rule was given.
    stuck : float or None
        Share of outputs that are flat and far from their target, in the last layer, where the loss does not cancel the
        slope; else None.
    """

    layer: int
    width: int
    activation: str
    response: str
    Z: Statistics
    H: Statistics
    Delta: Statistics
    W: Statistics
    b: Statistics
    dW: Statistics
    db: Statistics
    flat: tuple[float, ...]
    dead: tuple[int, ...]
    saturated: tuple[int, ...]
    gradient_ratio: float
    update_ratio: float | None
    stuck: float | None = None

    @property
    def flat_share(self) -> float | None:
        """Share of all pairs of sample and neuron that are flat; None where that cannot be."""
        return sum(self.flat) / len(self.flat) if self.flat else None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        names = ("Z", "H", "Delta", "W", "b", "dW", "db")
        found: dict[str, Any] = {key: getattr(self, key) for key in ("layer", "width", "activation", "response")}
        found |= {name: getattr(self, name).to_dict() for name in names}
        found |= {"flat_share": self.flat_share, "dead": list(self.dead), "saturated": list(self.saturated)}
        return found | {key: getattr(self, key) for key in ("gradient_ratio", "update_ratio", "stuck")}


@dataclass(frozen=True)
class InspectionReport:
    """What one look at a network found; prints as a table, in a terminal with rich as a coloured one.

    Attributes
    ----------
    layers : tuple of LayerReport
        For the layers 2 ... L.
    inputs : InputReport
        What the samples look like.
    loss : float
        Mean loss of the samples, without penalties.
    accuracy : float or None
        Share of samples that are classified rightly, when targets are classes.
    alarms : tuple of Alarm
        What is wrong, the most serious first.
    samples : int
        How many were looked at.
    step, epoch : int
        Finished when it was taken; 0 outside of a training.
    backend, dtype, loss_name : str
        Where and with what.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> net = bp.MLP([3, 8, 2], activation="tanh", seed=0, backend="numpy")
    >>> report = bp.inspect(net, X, X[:, 0] > 0)
    >>> report.alarms, report[2].width, report["dW", 1].size
    ((), 8, 24)
    """

    layers: tuple[LayerReport, ...]
    inputs: InputReport
    loss: float
    accuracy: float | None
    samples: int
    step: int
    epoch: int
    backend: str
    dtype: str
    loss_name: str
    alarms: tuple[Alarm, ...] = field(default=())

    def __getitem__(self, key: int | tuple[str, int]) -> Any:
        """Return a layer by its number, or the statistics of an array by name and number, such as ``["dW", 1]``."""
        if isinstance(key, tuple):
            name, number = key
            offset = 1 if name in ("W", "b", "dW", "db") else 0
            return getattr(self[number + offset], name)
        for found in self.layers:
            if found.layer == key:
                return found
        raise KeyError(f"no layer {key}; this network has the layers 2 to {self.layers[-1].layer} (1 is the input)")

    @property
    def passed(self) -> bool:
        """Whether there is no alarm."""
        return not self.alarms

    def rows(self) -> Rows:
        """Return the header and the rows of the table; updates have a column where a rule was given."""
        steps = any(found.update_ratio is not None for found in self.layers)
        names = ("layer", "neurons", "Z std", "H mean", "H std", "zeros", "Delta", "dW/W", "step/W", "flat")
        header = tuple(name for name in names if steps or name != "step/W")
        rows = []
        for found in self.layers:
            step = () if found.update_ratio is None else (f"{found.update_ratio:.1e}",)
            numbers = (found.Z.std, found.H.mean, found.H.std)
            cells = [f"{number:.2g}" for number in numbers]
            where = f"{found.layer} {found.activation}"
            tail = (f"{found.Delta.rms:.1e}", f"{found.gradient_ratio:.1e}", *step, _flat(found))
            rows.append((where, str(found.width), *cells, f"{100 * found.H.zeros:.0f} %", *tail))
        return header, rows

    @property
    def headline(self) -> str:
        """Where and with what the look was taken, and the loss, on one line."""
        right = "" if self.accuracy is None else f", accuracy {100 * self.accuracy:.1f} %"
        when = f"after {self.step} steps, " if self.step else ""
        return f"{when}{self.samples} samples, {self.loss_name} {self.loss:.4g}{right}; {self.backend}, {self.dtype}"

    def __str__(self) -> str:
        header, rows = self.rows()
        lines = [self.headline, *_aligned([header, *rows]), ""]
        lines += [str(alarm) for alarm in self.alarms] or ["no alarms"]
        return "\n".join(lines)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        header, rows = self.rows()
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for k, name in enumerate(header):
            table.add_column(name, justify="left" if k == 0 else "right", no_wrap=True)
        troubled = {alarm.layer for alarm in self.alarms}
        for found, row in zip(self.layers, rows, strict=True):
            table.add_row(*row, style="yellow" if found.layer in troubled else None)
        words = [Text(str(alarm), style="red" if alarm.serious else "yellow") for alarm in self.alarms]
        return Group(Text(self.headline), table, Text(""), *(words or [Text("no alarms", style="green")]))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values; numbers may be NaN."""
        names = ("step", "epoch", "samples", "loss_name", "loss", "accuracy", "backend", "dtype")
        return {
            **{name: getattr(self, name) for name in names},
            "inputs": self.inputs.to_dict(),
            "layers": [found.to_dict() for found in self.layers],
            "alarms": [alarm.to_dict() for alarm in self.alarms],
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the layers side by side; see :func:`bpcore.plots.by_layer`."""
        from bpcore.plots import by_layer

        return by_layer(self, ax=ax)


def _flat(found: LayerReport) -> str:
    """How many neurons of a layer are dead or saturated, in words."""
    if found.response == "rectifier":
        return f"{len(found.dead)} dead"
    if found.response == "bounded":
        share = found.flat_share
        return f"{100 * share:.0f} % sat." if share is not None and not math.isnan(share) else ""
    return ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
