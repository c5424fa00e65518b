"""Checking gradients: BP1-BP4 against central differences and against another backend.

The check runs in float64. Differences use the step ``cbrt(eps) * max(1, |x|)``, whose truncation and rounding errors
balance at about 4e-11 of the third derivative. A coordinate next to a kink (ReLU at 0) is recognised by its one-sided
slopes and left out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.backends import get_backend
from bpcore.backends.contract import Backend
from bpcore.calls import backward, forward
from bpcore.evaluation import evaluate
from bpcore.functions.losses import Loss
from bpcore.network import MLP
from bpcore.problem import choose_loss
from bpcore.typing import FloatArray

__all__ = ["GradcheckReport", "GradcheckRow", "gradcheck"]

STEP = float(np.cbrt(np.finfo(np.float64).eps))
TOLERANCE = 1e-6
"""Largest relative error accepted; a wrong equation errs by about 1."""


@dataclass(frozen=True)
class GradcheckRow:
    """What was found for one array.

    Attributes
    ----------
    quantity : str
        ``"dW"``, ``"db"`` or ``"dX"``.
    layer : int
        Its layer.
    against : str
        ``"differences"`` or the name of the other backend.
    checked, skipped : int
        Coordinates compared, and left out next to a kink.
    error : float
        Largest ``|a - b| / max(floor, |a| + |b|)``; the floor is a thousandth of the largest gradient plus what the
        rounding of the differences amounts to.
    worst : tuple of int
        Index of the coordinate with the largest error.
    analytic, other : float
        Both values there.
    passed : bool
        Whether the error is within the tolerance, and something was compared.
    """

    quantity: str
    layer: int
    against: str
    checked: int
    skipped: int
    error: float
    worst: tuple[int, ...]
    analytic: float
    other: float
    passed: bool


@dataclass(frozen=True)
class GradcheckReport:
    """All rows of a gradient check.

    Attributes
    ----------
    rows : tuple of GradcheckRow
        One for each array and comparison.
    loss, backend : str
        What was checked.
    tolerance : float
        The largest error accepted.
    """

    rows: tuple[GradcheckRow, ...]
    loss: str
    backend: str
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        lines = [f"gradcheck of {self.loss} on {self.backend}: {'passed' if self.passed else 'FAILED'}"]
        for row in self.rows:
            verdict = "ok  " if row.passed else "FAIL"
            lines.append(
                f"  {verdict} {row.quantity}[{row.layer}] against {row.against}: error {row.error:.1e} of "
                f"{row.checked} coordinates, worst at {row.worst}: {row.analytic:.9g} and {row.other:.9g}"
                + (f", {row.skipped} at a kink left out" if row.skipped else "")
            )
        return "\n".join(lines)


def gradcheck(
    net: MLP,
    X: Any,
    Y: Any,
    loss: str | Loss | None = None,
    *,
    sample_weight: Any = None,
    backend: str | Backend | None = None,
    against: str | Backend | None = None,
    max_coordinates: int = 200,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> GradcheckReport:
    """Compare the gradients of a network with central differences, layer by layer.

    Parameters
    ----------
    net : MLP
        The network; a float64 copy is checked, the network is not changed.
    X : array_like, shape (m, n_1)
        Inputs; a handful of samples is enough.
    Y : array_like, shape (m,) or (m, n_L)
        Labels or target values.
    loss : str or Loss, optional
        The loss; by default the one that goes with the output activation.
    sample_weight : array_like, shape (m,), optional
        Weights of the samples.
    backend : str or Backend, optional
        Whose gradients are checked; see :meth:`bpcore.MLP.on`.
    against : str or Backend, optional
        A second backend whose gradients are compared as well.
    max_coordinates : int
        Coordinates tried for each array; larger arrays are sampled. Default 200.
    tolerance : float
        Largest relative error accepted. Default 1e-6.
    seed : int
        Seed of the sampling.

    Returns
    -------
    GradcheckReport
        With ``passed`` and one row for each array; prints as a table.

    Examples
    --------
    >>> import bpcore as bp
    >>> net = bp.MLP([3, 4, 2], activation="tanh", seed=0)
    >>> bp.gradcheck(net, [[0.1, 0.2, 0.3], [1.0, -1.0, 0.5]], [0, 1], backend="numpy").passed
    True
    """
    be = get_backend(backend) if backend is not None else net.on()
    chosen = choose_loss(net, loss)
    X = np.array(X, np.float64)
    twin = _float64_copy(net, be)
    analytic = _gradients(twin, X, Y, chosen, sample_weight)
    rng = np.random.default_rng(seed)
    rows = []

    def loss_at(weights: list[tuple[FloatArray, FloatArray]], inputs: FloatArray) -> float:
        twin.set_weights(weights)
        return evaluate(twin, inputs, Y, chosen, sample_weight=sample_weight)["loss"]

    weights = twin.get_weights()
    # a difference of two losses is rounded to about eps |E|, and divided by the step
    noise = 4 * float(np.finfo(np.float64).eps) * max(1.0, abs(loss_at(weights, X))) / STEP
    for (quantity, layer), gradient in analytic.items():
        array = X if quantity == "dX" else weights[layer - 1][0 if quantity == "dW" else 1]
        chosen_at = np.sort(rng.permutation(array.size)[:max_coordinates])
        numeric, kink = _differences(array, chosen_at, lambda: loss_at(weights, X))
        smooth = ~kink
        rows.append(
            _compare(
                quantity, layer, "differences", gradient, chosen_at[smooth], numeric[smooth], tolerance, noise=noise
            )
        )
        if kink.any():
            rows[-1] = GradcheckRow(**{**rows[-1].__dict__, "skipped": int(kink.sum())})
    if against is not None:
        other = get_backend(against)
        found = _gradients(_float64_copy(net, other), X, Y, chosen, sample_weight)
        for (quantity, layer), gradient in analytic.items():
            everywhere = np.arange(gradient.size)
            rows.append(
                _compare(quantity, layer, other.name, gradient, everywhere, found[quantity, layer].ravel(), tolerance)
            )
    return GradcheckReport(tuple(rows), chosen.name, be.name, tolerance)


def _float64_copy(net: MLP, be: Backend) -> MLP:
    twin = MLP(
        net.sizes,
        list(net.activations)[:-1],
        net.output,
        init="zeros",
        seed=0,
        dtype=np.float64,
        backend=be,
    )
    twin.meta = net.meta
    return twin.set_weights(net.get_weights())


def _gradients(net: MLP, X: FloatArray, Y: Any, loss: Loss, sample_weight: Any) -> dict[tuple[str, int], FloatArray]:
    grads = backward(net, forward(net, X), Y, loss, sample_weight=sample_weight)
    be = net.backend
    arrays = {("dW", l): grads.dW[l] for l in grads.dW.layers} | {("db", l): grads.db[l] for l in grads.db.layers}
    return {key: be.to_numpy(array).copy() for key, array in arrays.items()} | {("dX", 1): be.to_numpy(grads.dX)}


def _differences(array: FloatArray, index: Any, loss: Any) -> tuple[FloatArray, Any]:
    """Central differences by the chosen coordinates, and which of them sit at a kink."""
    flat = array.reshape(-1)
    numeric, kink = np.empty(len(index)), np.zeros(len(index), bool)
    here = loss()
    for k, i in enumerate(index):
        before = flat[i]
        step = STEP * max(1.0, abs(before))
        flat[i] = before + step
        right = loss()
        flat[i] = before - step
        left = loss()
        flat[i] = before
        numeric[k] = (right - left) / (2 * step)
        slopes = (right - here) / step, (here - left) / step
        # one-sided slopes of a smooth function differ by step times the second derivative
        kink[k] = abs(slopes[0] - slopes[1]) > 1e-3 * max(1.0, abs(slopes[0]), abs(slopes[1]))
    return numeric, kink


def _compare(
    quantity: str,
    layer: int,
    against: str,
    gradient: FloatArray,
    index: Any,
    other: FloatArray,
    tolerance: float,
    noise: float = 0.0,
) -> GradcheckRow:
    analytic = gradient.reshape(-1)[index]
    if not len(index):
        return GradcheckRow(quantity, layer, against, 0, 0, float("nan"), (), float("nan"), float("nan"), False)
    # components far below the largest one carry the rounding error of the whole sum
    floor = 1e-3 * float(np.max(np.abs(gradient))) + 1e-6 + noise / tolerance
    errors = np.abs(analytic - other) / np.maximum(floor, np.abs(analytic) + np.abs(other))
    errors = np.where(np.isnan(errors), np.inf, errors)
    k = int(np.argmax(errors))
    return GradcheckRow(
        quantity,
        layer,
        against,
        len(index),
        0,
        float(errors[k]),
        tuple(int(i) for i in np.unravel_index(index[k], gradient.shape)),
        float(analytic[k]),
        float(other[k]),
        bool(errors[k] <= tolerance),
    )
