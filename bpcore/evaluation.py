"""Measuring a network on data: the loss and the metrics that go with its targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import forward_into, loss_value, sample_scale
from bpcore.data.store import Store
from bpcore.device_room import no_room, samples
from bpcore.errors import ConfigurationError
from bpcore.feeder import STAGE_BYTES, Feeder
from bpcore.functions.losses import Loss
from bpcore.functions.program import Program
from bpcore.host_data import HostProblem, would_be_copied
from bpcore.problem import Problem, choose_loss
from bpcore.store_problem import StoreProblem
from bpcore.typing import Array
from bpcore.workspace import Trace

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["WEIGHTED_HITS", "Evaluator", "evaluate", "stays_on_host"]

ROWS = 4096
"""Rows that are measured at a time, so that the memory does not grow with the data."""

WEIGHTED_HITS = Program("hits = hits * w", name="weighted hits")
_RESIDUAL = Program("r = sw * (h - y)", name="residual")
_ROOT = Program("sw = sqrt(w)", name="root of weights")


class Evaluator:
    """Measures one network on one problem again and again without allocating.

    Parameters
    ----------
    net : MLP
        The network; its parameters may change between calls.
    be : Backend
        Where it computes.
    loss : Loss
        The loss to measure.
    problem : Problem
        The data, on the backend, or on the host (:class:`~bpcore.host_data.HostProblem`): then a block of rows is
        computed with while the next one is on its way.
    """

    def __init__(self, net: MLP, be: Backend, loss: Loss, problem: Problem) -> None:
        self.net, self.be, self.loss, self.problem = net, be, loss, problem
        m, n_out, dtype = min(ROWS, problem.m), net.sizes[-1], net.dtype
        self.feeder = Feeder(be, problem, m) if isinstance(problem, HostProblem) else None
        self.trace = Trace.allocate(be, net.sizes, m, dtype)
        self.terms = be.empty((m, n_out), dtype)
        self.hits = be.empty(m, dtype)
        blocks = -(-problem.m // m)
        self.sums = be.zeros((3, blocks), np.float64)
        self.weight_sum = problem.m if problem.weights is None else self._total(be.asarray(problem.weights))
        weighs_numbers = problem.weights is not None and problem.labels is None
        self.root_weights = be.empty((m, 1), dtype) if weighs_numbers else None
        self.spread = self._spread() if problem.labels is None else 0.0

    def _total(self, array: Array) -> float:
        return float(self.be.to_numpy(self.be.total(array, out=self.be.empty(1, np.float64)))[0])

    def _slices(self) -> list[slice]:
        rows, m = self.terms.shape[0], self.problem.m
        return [slice(start, min(start + rows, m)) for start in range(0, m, rows)]

    def _blocks(self) -> Iterator[tuple[Problem, slice | None]]:
        """Yield blocks of the data on the device, and which one is sent next."""
        slices = self._slices()
        for block, after in zip(slices, [*slices[1:], None], strict=True):
            if self.feeder is None:
                yield self.problem.part(block), None
            else:
                yield self.feeder.take(block), after

    def _spread(self) -> float:
        """Weighted sum of squared distances of the targets from their column means, a block of rows at a time."""
        n_out = self.net.sizes[-1]
        total, mean, spread = 0.0, np.zeros(n_out), 0.0
        for Y, w in self._targets():
            total += float(w.sum())
            mean += (w[:, None] * Y).sum(axis=0)
        mean /= total
        for Y, w in self._targets():
            spread += float((w[:, None] * (Y - mean) ** 2).sum())
        return spread

    def _targets(self) -> Iterator[tuple[Any, Any]]:
        """Yield targets and weights, on the host in float64."""
        for block in self._slices():
            Y, weights = self.problem.on_host(block, self.be, self.net.dtype)
            yield Y.astype(np.float64), weights.astype(np.float64)

    @np.errstate(all="ignore")
    def measure(self) -> dict[str, float]:
        """Return the loss and the metrics: accuracy for classes, rmse and r2 for numbers."""
        be, net, problem, n_out = self.be, self.net, self.problem, self.net.sizes[-1]
        s, rows = sample_scale(self.loss, n_out), self.terms.shape[0]
        for block, (part, after) in enumerate(self._blocks()):
            m = part.m
            trace = self.trace if m == rows else self.trace.rows(m)
            be.copy(part.X, out=trace.H[1])
            forward_into(be, net, trace)
            Z, H, Y, weights = trace.Z[net.n_layers], trace.H[net.n_layers], part.Y, part.weights
            scale: Any = 1.0 if weights is None else weights.reshape(-1, 1)
            terms, sums = self.terms[:m], self.sums
            loss_value(be, self.loss, net.output, Z, H, Y, scale, terms, out=sums[0, block : block + 1])
            if part.labels is not None:
                hits = be.row_hits(H, part.labels, problem.threshold, out=self.hits[:m])
                if weights is not None:
                    be.elementwise(WEIGHTED_HITS, out=hits, hits=hits, w=weights)
                be.total(hits, out=sums[1, block : block + 1])
            else:
                sw: Any = 1.0
                if self.root_weights is not None and weights is not None:
                    sw = be.elementwise(_ROOT, out=self.root_weights[:m], w=weights.reshape(-1, 1))
                be.elementwise(_RESIDUAL, out=terms, h=H, y=Y, sw=sw)
                be.sum_squares(terms, out=sums[2, block : block + 1])
            if self.feeder is not None and after is not None:
                self.feeder.send(after)
        loss_sum, hit_sum, square_sum = be.to_numpy(self.sums).sum(axis=1)
        result = {"loss": float(s * loss_sum / self.weight_sum)}
        if problem.labels is not None:
            result["accuracy"] = float(hit_sum / self.weight_sum)
        else:
            result["rmse"] = float(np.sqrt(square_sum / (self.weight_sum * n_out)))
            result["r2"] = float(1 - square_sum / self.spread) if self.spread > 0 else float("nan")
        return result


def stays_on_host(net: MLP, be: Backend, X: Any) -> bool:
    """Whether data that is measured once goes to the backend a block at a time instead of as a whole.

    So does a matrix on the host of more than 64 MiB, where that is not where the network computes, and one in a file
    that would have to be converted.
    """
    if would_be_copied(X, net.sizes[0], net.dtype):
        return True
    return be.device != "cpu" and isinstance(X, np.ndarray) and X.size * net.dtype.itemsize > STAGE_BYTES


def evaluate(
    net: MLP,
    X: Any,
    Y: Any = None,
    loss: str | Loss | None = None,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    backend: str | Backend | None = None,
    stream: Any = None,
) -> dict[str, float]:
    """Measure a network on data.

    What is on the host does not have to fit on the device: it goes there a block of rows at a time.

    Parameters
    ----------
    net : MLP
        The network.
    X : array_like, shape (m, n_1), or Store
        Inputs; or a store on disk, which has its targets inside and is read a block of rows at a time.
    Y : array_like, shape (m,) or (m, n_L)
        Labels or target values.
    loss : str or Loss, optional
        The loss; by default the one that goes with the output activation.
    sample_weight : array_like, shape (m,), optional
        Weights of the samples.
    class_weight : mapping or ``"balanced"``, optional
        Weights of the classes.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.
    stream : optional
        CUDA stream to queue the work on; see :class:`bpcore.Trainer`.

    Returns
    -------
    dict of str to float
        ``"loss"``, and ``"accuracy"`` when the targets are classes (1 minus the 0-1 loss), else ``"rmse"`` and
        ``"r2"`` (over all outputs together). All are weighted means. A loss without its penalties.

    Raises
    ------
    ShapeError, DataError
        If the data does not fit.
    DeviceMemoryError
        If a device has no room.

    Examples
    --------
    >>> import numpy as np
    >>> from bpcore import MLP
    >>> net = MLP([2, 2], output="softmax", init="zeros", dtype="float64")
    >>> {key: round(value, 4) for key, value in net.evaluate(np.eye(2), [0, 1]).items()}
    {'loss': 0.6931, 'accuracy': 0.5}
    """
    be = net.on(backend)
    chosen = choose_loss(net, loss)
    if isinstance(X, Store) == (Y is not None):
        raise ConfigurationError("Y is missing" if Y is None else "a store has its targets inside; give no Y beside it")
    weights = {"sample_weight": sample_weight, "class_weight": class_weight}
    try:
        with be.on_stream(stream):
            return _measure(net, be, X, Y, chosen, weights)
    except Exception as error:
        if not be.is_out_of_memory(error):
            raise
        said = str(error)
    raise no_room(be, f"measuring a network on {samples(X)}", "fewer samples at a time, or a narrower network", said)


def _measure(net: MLP, be: Backend, X: Any, Y: Any, loss: Loss, weights: dict[str, Any]) -> dict[str, float]:
    problem: Problem
    if isinstance(X, Store):
        problem = StoreProblem.of(net, X, loss, **weights)
    else:
        kind = HostProblem if stays_on_host(net, be, X) and not be.owns(Y) else Problem
        problem = kind.prepare(net, be, X, Y, loss, **weights)
    return Evaluator(net, be, loss, problem).measure()
