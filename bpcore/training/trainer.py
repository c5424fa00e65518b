"""The trainer: a network, a StepSpec, a plan and the state between steps.

:class:`Trainer` runs steps over an order that the caller gives; :func:`bpcore.train` is a loop over it. It watches
for numbers that are not finite without slowing the steps: parameters and state are copied before each stretch of
steps, and only if a stretch goes wrong is it run again from the copy, step by step, with every quantity looked at.
Random numbers are keyed by the step, so the second run is the first one exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.blas_limit import blas_limit
from bpcore.errors import ConfigurationError, DivergenceError
from bpcore.functions.clipping import Clipping
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import get_update_rule
from bpcore.network import MLP
from bpcore.problem import Problem, choose_loss
from bpcore.settings import check_seed, check_threads, default_seed, default_threads
from bpcore.training.plans import Plan, choose_plan
from bpcore.training.precision import check_precision
from bpcore.training.spec import Dropout, StepSpec, as_dropout
from bpcore.training.state import Snapshot, TrainingState
from bpcore.typing import Array, NDArray

__all__ = ["StepRecords", "Trainer"]

STRETCH_SECONDS, LONGEST_STRETCH_SECONDS = 0.2, 1.0
"""How long a stretch of steps should take: short enough for Ctrl-C and the progress bar. Longer where a copy of the
parameters takes long."""
COPIES_PER_STRETCH = 50
"""As many such copies as a stretch should last: what copying costs is then two percent."""


class StepRecords:
    """What is known of some steps afterwards.

    Attributes
    ----------
    loss : ndarray of float64, shape (steps,)
        Loss of each step's batch before its update, without penalties.
    hits : ndarray of float64, shape (steps,)
        Weighted number of samples that were classified rightly (zeros for regression).
    weight : ndarray of float64, shape (steps,)
        Sum of the weights of each step's samples.
    """

    def __init__(self, table: NDArray[np.float64]) -> None:
        self._table = table
        self.loss, self.hits, self.weight = table

    @classmethod
    def join(cls, parts: Sequence[StepRecords]) -> StepRecords:
        """Put the records of successive stretches together."""
        if not parts:
            return cls(np.empty((3, 0)))
        return parts[0] if len(parts) == 1 else cls(np.concatenate([part._table for part in parts], axis=1))

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def mean_loss(self) -> float:
        """Weighted mean of the losses."""
        return float((self.loss * self.weight).sum() / self.weight.sum()) if self.weight.any() else float("nan")

    @property
    def accuracy(self) -> float:
        """Weighted share of hits."""
        return float(self.hits.sum() / self.weight.sum()) if self.weight.any() else float("nan")


class Trainer:
    """Trains one network, step by step, in an order that the caller owns.

    Parameters
    ----------
    net : MLP
        The network, trained in place.
    loss : str or Loss, optional
        What is minimised; by default the loss that goes with the output activation.
    optimizer : str or UpdateRule, optional
        How parameters move. Default ``bp.SGD(0.1)``.
    batch_size : int
        Largest number of samples in a step. Default 64.
    dropout : float, sequence of float or Dropout, optional
        Dropout on the hidden layers.
    penalty : Penalty or sequence of Penalty, optional
        Price of the weights, added to the loss that is minimised.
    clip : Clipping, optional
        Clipping of the gradient.
    seed : int, optional
        Seed of dropout masks (and of the shuffles of :func:`bpcore.train`). Default ``BPCORE_SEED``, else drawn
        afresh; kept in :attr:`seed`.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.
    threads : int, optional
        Number of threads that compute a step of the compiled plan; limit on those of BLAS otherwise. By default the
        compiled plan takes as many as are expected to be fastest on this machine, BLAS those that it is set to, and
        neither more than ``BPCORE_NUM_THREADS``.
    plan : str
        ``"auto"`` or the name of a plan.
    precision : str, optional
        In which the products are computed, on a GPU: ``"tf32"``, ``"bf16"`` or ``"fp16"``. By default, and with
        ``"float32"`` or ``"float64"``, in the dtype of the network. See *Choose a precision* in the documentation.

    Attributes
    ----------
    state : TrainingState
        Counters and optimiser state; continues from call to call.
    plan_name, plan_why : str
        The plan in use and why.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    >>> net = bp.MLP([2, 8, 2], activation="tanh", seed=1)
    >>> trainer = bp.Trainer(net, optimizer=bp.Adam(0.05), batch_size=4)
    >>> records = trainer.run(X, y, np.tile(np.arange(4), (200, 1)))
    >>> bool(records.loss[-1] < 0.05 < records.loss[0]), trainer.state.step
    (True, 200)
    """

    def __init__(
        self,
        net: MLP,
        loss: str | Loss | None = None,
        optimizer: str | UpdateRule | None = None,
        *,
        batch_size: int = 64,
        dropout: float | Sequence[float] | Dropout | None = None,
        penalty: Penalty | Sequence[Penalty] | None = None,
        clip: Clipping | None = None,
        seed: int | None = None,
        backend: str | Backend | None = None,
        threads: int | None = None,
        plan: str = "auto",
        precision: str | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
        self.net = net
        self.be = net.on(backend)
        self.loss = choose_loss(net, loss)
        self.rule = get_update_rule("sgd" if optimizer is None else optimizer)
        if optimizer is None:
            self.rule = self.rule.bind(eta=0.1)
        for activation in net.activations:
            if not activation.rowwise:
                _ = activation.derivative_formula  # refuses activations that cannot be trained
        self.batch_size = int(batch_size)
        self.dropout = as_dropout(dropout)
        if self.dropout is not None:
            if net.n_layers < 3:
                raise ConfigurationError("dropout needs a hidden layer; this network has none")
            self.dropout.rates(net.n_layers - 2)
        self.penalty = _join(penalty)
        if clip is not None and not isinstance(clip, Clipping):
            raise ConfigurationError(f"clip is {clip!r}; clippings look like bp.ClipNorm(1.0)")
        self.clip = clip
        self.seed = default_seed() if seed is None else check_seed(seed)
        self._threads_asked = None if threads is None else check_threads(threads)
        self.threads = self._threads_asked or default_threads()
        self.state = TrainingState.begin(self.be, self.rule, net.layout, net.dtype)
        self.precision = check_precision(precision, net.dtype)
        self._plan_asked = plan
        self._plan: Plan | None = None
        self._key: tuple[bool, bool] | None = None
        self._snapshot = Snapshot(self.be, net.theta, self.state)
        self._stretch = 8
        self._device_sums = self.be.empty((3, 0), np.float64)
        self.plan_name, self.plan_why = "", ""

    @property
    def team(self) -> int | None:
        """Threads of the compiled plan; None for the reference, where BLAS decides."""
        return None if self._plan is None else self._plan.threads

    @property
    def team_why(self) -> str:
        """The reason for the number of threads."""
        if self._threads_asked is not None:
            return "asked for"
        if self.team is None and self.threads is not None:
            return "BPCORE_NUM_THREADS"
        return "" if self._plan is None else self._plan.why

    @property
    def loss_scaling(self) -> dict[str, float] | None:
        """The loss scale of precision fp16, and how many steps were skipped because of an overflow; else None.

        A skipped step is counted like any other, and leaves parameters and the state of the optimiser as they were.
        """
        scaling = getattr(self._plan, "loss_scaling", None)
        return None if scaling is None else dict(scaling)

    def spec(self, *, weighted: bool, classes: bool) -> StepSpec:
        """Return the description of a step for data with or without weights and classes."""
        return StepSpec(
            self.net.sizes,
            tuple(self.net.activations),
            self.loss,
            self.rule,
            self.batch_size,
            self.net.dtype,
            self.dropout,
            self.penalty,
            self.clip,
            weighted,
            classes,
            self.precision,
        )

    def prepare(self, problem: Problem) -> StepSpec:
        """Build the plan for a problem, unless the last one still fits; return its spec."""
        key = (problem.weights is not None, problem.labels is not None)
        spec = self.spec(weighted=key[0], classes=key[1])
        if self._plan is None or key != self._key:
            self._plan, self.plan_why = choose_plan(
                self._plan_asked, spec, self.net, self.be, self.seed, self._threads_asked
            )
            self.plan_name, self._key = self._plan.name, key
        return spec

    def run(
        self,
        X: Any,
        Y: Any,
        order: Any,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
    ) -> StepRecords:
        """Run one step for each row of an index matrix.

        Parameters
        ----------
        X : array_like, shape (n, n_1)
            Inputs.
        Y : array_like, shape (n,) or (n, n_L)
            Labels or target values.
        order : array_like of int, shape (steps, m)
            Numbers of the samples of each step; m is at most the batch size.
        sample_weight, class_weight : optional
            As for :func:`bpcore.train`.

        Returns
        -------
        StepRecords
            Loss, hits and weight of every step.

        Raises
        ------
        ShapeError, DataError
            If data or order do not fit.
        DivergenceError
            If a number is not finite; the parameters are those before the first bad step.
        """
        data = self.load(X, Y, sample_weight=sample_weight, class_weight=class_weight)
        return self.run_loaded(data, order)

    def load(self, X: Any, Y: Any, *, sample_weight: Any = None, class_weight: Any = None) -> Problem:
        """Check data and bring it to the backend, for several calls of :meth:`run_loaded`.

        Parameters
        ----------
        X, Y, sample_weight, class_weight
            As for :meth:`run`.

        Returns
        -------
        Problem
            The data, where the network is.

        Raises
        ------
        ShapeError, DataError
            If they do not fit.
        """
        return Problem.prepare(
            self.net, self.be, X, Y, self.loss, sample_weight=sample_weight, class_weight=class_weight
        )

    def run_loaded(self, data: Problem, order: Any) -> StepRecords:
        """Run one step for each row of an index matrix, on data that is checked and in place.

        Parameters
        ----------
        data : Problem
            What :meth:`load` has returned.
        order : array_like of int, shape (steps, m)
            Numbers of the samples of each step; m is at most the batch size.

        Returns
        -------
        StepRecords
            Loss, hits and weight of every step.

        Raises
        ------
        ShapeError
            If the order does not fit.
        DivergenceError
            If a number is not finite; the parameters are those before the first bad step.

        Examples
        --------
        >>> import numpy as np, bpcore as bp
        >>> trainer = bp.Trainer(bp.MLP([2, 4, 2], seed=0), batch_size=2)
        >>> data = trainer.load([[0.0, 1.0], [1.0, 0.0]], [0, 1])
        >>> [len(trainer.run_loaded(data, [[0, 1], [1, 0]])) for epoch in range(2)]
        [2, 2]
        """
        index = data.check_index(order)
        if index.shape[1] > self.batch_size:
            raise ConfigurationError(
                f"order has {index.shape[1]} samples a step; the trainer was made for batch_size={self.batch_size}"
            )
        self.prepare(data)
        with self.thread_limit():
            return self.run_steps(data, index)

    @contextmanager
    def thread_limit(self, *, validates: bool = False) -> Iterator[None]:
        """Hold BLAS to the chosen number of threads inside a ``with`` block.

        The setting is one of the whole process, so it is changed only where it matters. NumPy's BLAS, which other
        threads of the program may be using, computes the steps of the reference plan, and validations. A team of the
        compiled plan calls BLAS from all of its threads: then BLAS itself must not have more than one.

        Parameters
        ----------
        validates : bool, default False
            Whether there are validations inside.
        """
        numpy_computes = self.be.device == "cpu" and (self.team is None or validates)
        team = self._plan is not None and self._plan.uses_blas
        with blas_limit(self.threads if numpy_computes else None), blas_limit(1 if team else None, compiled_only=True):
            yield

    def run_steps(
        self,
        problem: Problem,
        index: NDArray[np.int64],
        between: Callable[[StepRecords], bool] | None = None,
    ) -> StepRecords:
        """Run steps in stretches of about 0.2 s.

        Parameters
        ----------
        problem : Problem
            The data, on the device.
        index : ndarray of int64, shape (steps, m)
            Checked sample numbers.
        between : callable, optional
            Called with the records of each stretch; True ends the run early.

        Returns
        -------
        StepRecords
            Of the steps that were run.

        Raises
        ------
        DivergenceError
            If a number is not finite.
        """
        parts: list[StepRecords] = []
        start = 0
        while start < len(index):
            rows = index[start : start + self._stretch]
            begun = time.perf_counter()
            self._snapshot.take(self.net.theta, self.state)
            copied = time.perf_counter()
            parts.append(self._run_stretch(problem, rows))
            elapsed = time.perf_counter() - copied
            start += len(rows)
            seconds = min(max(STRETCH_SECONDS, COPIES_PER_STRETCH * (copied - begun)), LONGEST_STRETCH_SECONDS)
            wanted = len(rows) * seconds / max(elapsed, 1e-9)
            self._stretch = int(min(max(wanted, 1), 2 * self._stretch, 4096))
            if between is not None and between(parts[-1]):
                break
        return StepRecords.join(parts)

    def _run_stretch(self, problem: Problem, rows: NDArray[np.int64]) -> StepRecords:
        assert self._plan is not None
        be, state, first = self.be, self.state, self.state.step
        schedule = self.rule.schedule
        etas = [schedule.at(step, state.epoch, state.schedule) for step in range(first, first + len(rows))]
        if self._device_sums.shape[1] < len(rows):
            self._device_sums = be.empty((3, len(rows)), np.float64)
        sums = be.fill(self._device_sums[:, : len(rows)], 0.0)
        index = be.asarray(rows)
        self._plan.run(problem, index, state, etas, sums)
        table = np.array(be.to_numpy(sums))
        if not (np.isfinite(table[0]).all() and be.all_finite(self.net.theta)):
            self._snapshot.put_back(self.net.theta, state)
            raise self._find_first_bad(problem, index, etas, sums)
        return StepRecords(table)

    def _find_first_bad(self, problem: Problem, index: Array, etas: list[float], sums: Array) -> DivergenceError:
        """Run the stretch again, one step at a time, until something is not finite; keep what was before."""
        assert self._plan is not None
        be, net = self.be, self.net
        found: list[tuple[str, int, str]] = []

        def watch(quantity: str, layer: int, array: Array) -> None:
            if not found and not be.all_finite(array):
                host = be.to_numpy(array)
                nan, infinite = int(np.isnan(host).sum()), int(np.isinf(host).sum())
                counts = [f"{n} {what}" for n, what in ((nan, "NaN"), (infinite, "infinite")) if n]
                found.append((quantity, layer, ", ".join(counts)))

        last_loss = float("nan")
        for k in range(index.shape[0]):
            self._snapshot.take(net.theta, self.state)
            step = self.state.step + 1
            self._plan.run(problem, index[k : k + 1], self.state, etas[k : k + 1], sums[:, k : k + 1], watch)
            if found:
                self._snapshot.put_back(net.theta, self.state)
                quantity, layer, counts = found[0]
                where = f"{quantity}[{layer}]" if layer else f"the {quantity}"
                known = f"Last finite loss {last_loss:.6g}, " if np.isfinite(last_loss) else ""
                return DivergenceError(
                    f"step {step}: {where} is not finite ({counts}). {known}eta {etas[k]:.6g}. The parameters before "
                    "this step are kept. A smaller eta, gradient clipping (clip=bp.ClipNorm(1.0)) or standardised "
                    "inputs usually help",
                    step=step,
                    layer=layer,
                    quantity=quantity,
                )
            last_loss = float(be.to_numpy(sums)[0, k])
        # only a matrix product whose rounding changes from call to call can bring us here
        first = self.state.step - index.shape[0] + 1
        return DivergenceError(
            f"a number was not finite between steps {first} and {self.state.step}, but not when they were repeated: "
            "the run is at the edge of overflow; use a smaller eta or float64"
        )

    def gradient_norm(self) -> float:
        """Euclidean norm of the gradient of the last step."""
        assert self._plan is not None
        out = self.be.sum_squares(self._plan.gradient, out=self.be.empty(1, np.float64))
        return float(np.sqrt(self.be.to_numpy(out)[0]))

    def penalty_value(self) -> float:
        """Value of the penalty for the parameters as they are."""
        if self.penalty is None:
            return 0.0
        total = 0.0
        for W, _ in self.net.get_weights():
            total += float(np.sum(self.penalty.value(w=W.astype(np.float64), **self.penalty.constants)))
        return total


def _join(penalty: Penalty | Sequence[Penalty] | None) -> Penalty | None:
    if penalty is None or isinstance(penalty, Penalty):
        return penalty
    joined: Penalty | None = None
    for part in penalty if isinstance(penalty, Iterable) else (penalty,):
        if not isinstance(part, Penalty):
            raise ConfigurationError(f"penalty holds {part!r}; penalties look like bp.L2(1e-4)")
        joined = part if joined is None else joined + part
    return joined
