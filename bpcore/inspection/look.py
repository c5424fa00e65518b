"""Taking a look: one step of the reference plan on a copy of the network, every quantity of which is measured.

So what is shown is what is trained: the same four equations, the same penalty, clipping and update rule. Dropout alone
is left out, because a look is at the network as it predicts. Network, state and random numbers stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.store import Store
from bpcore.errors import ConfigurationError
from bpcore.functions.clipping import Clipping
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty
from bpcore.functions.program import Program
from bpcore.functions.ranges import check_count
from bpcore.functions.update_rule import UpdateRule
from bpcore.host_data import HostProblem
from bpcore.inspection.alarms import find_alarms
from bpcore.inspection.report import InputReport, InspectionReport, LayerReport
from bpcore.inspection.response import Response, flat_program, response_of, stuck_program
from bpcore.inspection.statistics import Gauge
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.reference import ReferencePlan
from bpcore.training.spec import StepSpec
from bpcore.training.state import TrainingState
from bpcore.training.trainer import Trainer
from bpcore.typing import Array, NDArray

__all__ = ["SATURATED_SAMPLES", "inspect", "look", "sample_of"]

SATURATED_SAMPLES = 0.95
"""Share of samples for which a neuron must be flat to be called saturated."""

_DIFFERENCE = Program("d = new - old", name="change of weights")
_COLUMNS = Program("square = a * a; change = (a - first) * (a - first)", name="squares of columns")


def inspect(
    net: MLP,
    X: Any,
    Y: Any = None,
    loss: str | Loss | None = None,
    *,
    optimizer: str | UpdateRule | None = None,
    penalty: Penalty | list[Penalty] | None = None,
    clip: Clipping | None = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    samples: int = 1024,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> InspectionReport:
    """Look at what a network does with some samples, and at what it would learn from them.

    The samples go forward and backward through a copy of the network; the network itself is not changed. All arrays
    stay on the device, and only statistics come from there.

    Parameters
    ----------
    net : MLP
        The network.
    X : array_like, shape (n, n_1), or Store
        Inputs as for :func:`bpcore.train`.
    Y : array_like, shape (n,) or (n, n_L)
        Labels or target values.
    loss : str or Loss, optional
        The loss; by default the one that goes with the output activation.
    optimizer : str or UpdateRule, optional
        Whose first update is compared with the weights. Without it there are no ``update_ratio``.
    penalty, clip, sample_weight, class_weight : optional
        As for :func:`bpcore.train`. The gradients that are shown are those before penalty and clipping.
    samples : int
        Samples at most; of more, so many are drawn. A neuron is dead if none of *these* activates it. Default 1024.
    seed : int
        Seed of the draw. Default 0.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.

    Returns
    -------
    InspectionReport
        Prints as a table, with alarms and advice.

    Raises
    ------
    ShapeError, DataError, ConfigurationError, UnknownNameError
        If something does not fit.

    See Also
    --------
    bpcore.Inspector : the same during a training.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.random.default_rng(0).normal(size=(200, 4))
    >>> net = bp.MLP([4, 16, 1], output="identity", init="zeros", backend="numpy")
    >>> report = bp.inspect(net, X, X[:, :1])
    >>> [(alarm.kind, alarm.layer) for alarm in report.alarms]
    [('identical_neurons', 2)]
    """
    check_count("inspect: samples", samples, 1)
    if Y is None and not isinstance(X, Store):
        raise ConfigurationError("inspect: Y is missing; errors and gradients need targets")
    be = net.on(backend)
    trainer = Trainer(
        net, loss, optimizer, batch_size=samples, penalty=penalty, clip=clip, seed=seed, backend=be, plan="reference"
    )
    try:
        problem = trainer.load(X, Y, sample_weight=sample_weight, class_weight=class_weight)
        return look(trainer, sample_of(be, problem, samples, seed), updates=optimizer is not None)
    finally:
        trainer.release(state=True)


def sample_of(be: Backend, problem: Problem, samples: int, seed: int) -> Problem:
    """Draw samples of a problem, on the device; the same ones for the same seed.

    Parameters
    ----------
    be : Backend
        Where they are needed.
    problem : Problem
        The data, on the device, on the host, or on a disk.
    samples : int
        How many at most.
    seed : int
        Of the draw.

    Returns
    -------
    Problem
        The problem itself, if it is on the device and not larger.
    """
    m = problem.m
    rows: NDArray[np.int64] = np.arange(m)
    if m > samples:
        rows = np.sort(np.random.default_rng(seed).choice(m, samples, replace=False, shuffle=False))
    if isinstance(problem, HostProblem):
        host = {name: np.empty((len(rows), *shape), dtype) for name, (shape, dtype) in problem.columns.items()}
        problem.write(rows, host)
        return problem.small({name: be.asarray(array) for name, array in host.items()})
    if m <= samples:
        return problem
    index = be.asarray(rows)

    def take(array: Array | None) -> Array | None:
        if array is None:
            return None
        return be.take_rows(array, index, out=be.empty((len(rows), *array.shape[1:]), array.dtype))

    return Problem(take(problem.X), take(problem.Y), take(problem.labels), take(problem.weights), problem.threshold)


@np.errstate(all="ignore")
def look(trainer: Trainer, problem: Problem, *, updates: bool = True) -> InspectionReport:
    """Take one look at the network of a trainer, in the state that the trainer is in.

    Parameters
    ----------
    trainer : Trainer
        Gives network, backend, loss, rule, penalty, clipping and the state of the rule; it is not changed.
    problem : Problem
        Samples, on the device.
    updates : bool
        Whether the next update is of interest.

    Returns
    -------
    InspectionReport
        With its alarms.
    """
    net, be, m = trainer.net, trainer.be, problem.m
    spec = replace(
        trainer.spec(weighted=problem.weights is not None, classes=problem.labels is not None),
        batch_size=m, dropout=None, precision=None,
    )  # fmt: skip
    eye = _Eye(net, be, spec, problem, updates)
    twin, state = net.copy(), _copy(be, trainer.state)
    eta = trainer.rule.schedule.at(state.step, state.epoch, state.schedule)
    records = be.zeros((3, 1), np.float64)
    plan = ReferencePlan(spec, twin, be, trainer.seed)
    plan.run(problem, be.asarray(np.arange(m)[None, :]), state, [eta], records, watch=eye)
    loss, hits, weight = np.asarray(be.to_numpy(records))[:, 0].tolist()
    report = InspectionReport(
        layers=eye.layers(),
        inputs=eye.inputs(),
        loss=loss,
        accuracy=hits / weight if problem.labels is not None and weight else None,
        samples=m,
        step=trainer.state.step,
        epoch=trainer.state.epoch,
        backend=be.name,
        dtype=str(net.dtype),
        loss_name=spec.loss.name,
    )
    return replace(report, alarms=find_alarms(report))


def _copy(be: Backend, state: TrainingState) -> TrainingState:
    arrays = {name: be.copy(array, out=be.empty(array.size, array.dtype)) for name, array in state.arrays.items()}
    return TrainingState(state.step, state.epoch, arrays, dict(state.running), dict(state.schedule))


class _Eye:
    """Sees every quantity of a step, measures it at once, and keeps nothing but numbers."""

    def __init__(self, net: MLP, be: Backend, spec: StepSpec, problem: Problem, updates: bool) -> None:
        self.net, self.be, self.problem, self.updates = net, be, problem, updates
        self.m, self.dtype, L = problem.m, net.dtype, net.n_layers
        self.gauge = Gauge(be, net.dtype, 2 + 7 * (L - 1))
        self.responses: dict[int, Response] = {l: response_of(net.activations[l]) for l in range(2, L + 1)}
        starts = np.cumsum([0, *net.sizes[1:]])
        self.units = {l: slice(int(starts[l - 2]), int(starts[l - 1])) for l in range(2, L + 1)}
        self.flat = be.zeros(int(starts[-1]), net.dtype)
        self.changes = be.zeros(L - 1, np.float64)
        self.stuck = be.zeros(1, np.float64)
        cancels = spec.loss.pair_with(net.output) is not None
        self.judges_outputs = self.responses[L].kind == "bounded" and not cancels
        self.Z: Array = None
        for name, array in (("X", problem.X), ("Y", problem.Y)):
            self.gauge.measure(name, 1, array)
        for l in net.W.layers:
            self.gauge.measure("W", l, net.W[l])
            self.gauge.measure("b", l, net.b[l])

    def __call__(self, quantity: str, layer: int, array: Array) -> None:
        """Measure a quantity of the step; W and b are those after the update."""
        if quantity == "W":
            if self.updates:
                self._change(layer, array)
        elif quantity in ("Z", "H", "Delta", "dW", "db"):
            self.gauge.measure(quantity, layer, array)
        if quantity == "Z":
            self.Z = array
        elif quantity == "H":
            self._units(layer, self.Z, array)

    def _change(self, layer: int, new: Array) -> None:
        new, old = new.reshape(-1), self.net.W[layer].reshape(-1)
        (d,) = self.gauge.scratch(new.shape[0])
        self.be.elementwise(_DIFFERENCE, out=d, new=new, old=old)
        self.be.sum_squares(d, out=self.changes[layer - 1 : layer])

    def _units(self, layer: int, Z: Array, H: Array) -> None:
        """Count for each neuron of a layer the samples for which it is flat."""
        response, be = self.responses[layer], self.be
        if not response.limit:
            return
        values = {"z": Z, "h": H, "y": self.problem.Y, "limit": response.limit, "half": response.width / 2}

        def count(program: Program) -> Array:
            used = {name: values[name] for name in program.inputs}
            return be.elementwise(program, out=self.gauge.scratch(*Z.shape)[0], **used)

        activation = self.net.activations[layer]
        be.column_sums(count(flat_program(activation)), out=self.flat[self.units[layer]])
        if layer == self.net.n_layers and self.judges_outputs:
            be.total(count(stuck_program(activation)), out=self.stuck)

    def layers(self) -> tuple[LayerReport, ...]:
        """Put the numbers of each layer together."""
        be, net, m, found = self.be, self.net, self.m, self.gauge.read()
        flat = np.asarray(be.to_numpy(self.flat), np.float64) / m
        changes = np.sqrt(np.asarray(be.to_numpy(self.changes), np.float64))
        stuck = float(be.to_numpy(self.stuck)[0]) / (m * net.sizes[-1])
        reports = []
        for l in range(2, net.n_layers + 1):
            response, shares = self.responses[l], flat[self.units[l]]
            W, dW = found["W", l - 1], found["dW", l - 1]
            reports.append(
                LayerReport(
                    layer=l,
                    width=net.sizes[l - 1],
                    activation=net.activations[l].name,
                    response=response.kind,
                    **{name: found[name, l] for name in ("Z", "H", "Delta")},
                    **{name: found[name, l - 1] for name in ("W", "b", "dW", "db")},
                    flat=tuple(shares.tolist()) if response.limit else (),
                    dead=_where(shares >= 1, response.kind == "rectifier"),
                    saturated=_where(shares >= SATURATED_SAMPLES, response.kind == "bounded"),
                    gradient_ratio=_ratio(dW.norm, W.norm),
                    update_ratio=_ratio(float(changes[l - 2]), W.norm) if self.updates else None,
                    stuck=stuck if l == net.n_layers and self.judges_outputs else None,
                )
            )
        self._found = found
        return tuple(reports)

    def inputs(self) -> InputReport:
        """Describe the samples; after :meth:`layers`."""
        be, X, m = self.be, self.problem.X, self.m
        sums = be.zeros((2, X.shape[1]), self.dtype)
        found = be.elementwise(_COLUMNS, out=self.gauge.scratch(*X.shape, count=2), a=X, first=X[0])
        for k in range(2):
            be.column_sums(found[k], out=sums[k])
        squares, spread = np.asarray(be.to_numpy(sums), np.float64)
        rms = np.sqrt(squares / m)
        used = rms[rms > 0]
        return InputReport(
            X=self._found["X", 1],
            Y=self._found["Y", 1],
            largest=float(rms.max()),
            median=float(np.median(used)) if len(used) else 0.0,
            column=int(rms.argmax()),
            constant=_where(spread == 0, True),
        )


def _where(flags: Any, possible: bool) -> tuple[int, ...]:
    return tuple(np.flatnonzero(flags).tolist()) if possible else ()


def _ratio(part: float, whole: float) -> float:
    """A ratio of norms; infinite where something is compared with nothing."""
    if whole == 0:
        return float("inf") if part else 0.0
    return part / whole
