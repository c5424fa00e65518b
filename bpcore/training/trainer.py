"""The trainer: a network, a StepSpec, a plan and the state between steps.

:class:`Trainer` runs steps over an order that the caller gives; :func:`bpcore.train` is a loop over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.blas_limit import blas_limit
from bpcore.data.store import Store
from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.clipping import Clipping
from bpcore.functions.losses import Loss
from bpcore.functions.penalties import Penalty, as_penalty
from bpcore.functions.update_rule import UpdateRule
from bpcore.functions.update_rules import get_update_rule
from bpcore.host_data import HostProblem, would_be_copied
from bpcore.network import MLP
from bpcore.problem import Problem, choose_loss
from bpcore.settings import check_count, check_seed, check_threads, default_seed, default_threads
from bpcore.store_problem import StoreProblem
from bpcore.training.announcement import announce
from bpcore.training.choice import choose_backend
from bpcore.training.memory import DataShape, refusing
from bpcore.training.placement import STREAMED, Placement, expected, from_disk, place
from bpcore.training.planner import Planner
from bpcore.training.plans import Plan
from bpcore.training.precision import check_precision
from bpcore.training.spec import Dropout, StepSpec, as_dropout
from bpcore.training.state import TrainingState
from bpcore.training.step_records import StepRecords
from bpcore.training.stretches import Stretches
from bpcore.typing import Array

__all__ = ["Trainer", "check_pair"]


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
        In which the products are computed, on a GPU: ``"tf32x3"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``. By default,
        and with ``"float32"`` or ``"float64"``, in the dtype of the network. See *Choose a precision* in the
        documentation.
    data : ``"auto"``, ``"resident"`` or ``"stream"``
        Whether the data lies where the network computes, or stays on the host and goes there a few steps at a time.
        ``"auto"`` streams what does not fit on the device, and what a :class:`numpy.memmap` holds in a form that has to
        be converted. The results are the same. See *Train data larger than the GPU* in the documentation.
    stream : cupy.cuda.Stream, torch.cuda.Stream, object with ``__cuda_stream__`` or int, optional
        CUDA stream on which the work of a GPU is queued, by default CuPy's current one. It follows what the current
        stream has queued before; what is queued on either stream afterwards follows it.

    Attributes
    ----------
    placement : Placement or None
        Where the data that was loaded last is, and why.
    backend_why : str
        Why this backend.
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
        data: str = "auto",
        stream: Any = None,
    ) -> None:
        if data not in ("auto", "resident", "stream"):
            raise unknown("value for data", data, ["auto", "resident", "stream"])
        self.batch_size = check_count("batch_size", batch_size)
        self.net = net
        self.be, self.backend_why = choose_backend(net, backend, self.batch_size)
        self.loss = choose_loss(net, loss)
        self.rule = get_update_rule("sgd" if optimizer is None else optimizer)
        if optimizer is None:
            self.rule = self.rule.bind(eta=0.1)
        for activation in net.activations:
            if not activation.rowwise:
                _ = activation.derivative_formula  # refuses activations that cannot be trained
        self.dropout = as_dropout(dropout)
        if self.dropout is not None:
            if net.n_layers < 3:
                raise ConfigurationError("dropout needs a hidden layer; this network has none")
            self.dropout.rates(net.n_layers - 2)
        self.penalty = as_penalty(penalty)
        if clip is not None and not isinstance(clip, Clipping):
            raise ConfigurationError(f"clip is {clip!r}; clippings look like bp.ClipNorm(1.0)")
        self.clip = clip
        self.seed = default_seed() if seed is None else check_seed(seed)
        self._threads_asked = None if threads is None else check_threads(threads)
        self.threads = self._threads_asked or default_threads()
        self.data, self.stream = data, stream
        with self.be.on_stream(stream):  # which refuses what is no stream before anything is allocated
            pass
        self.precision = check_precision(precision, net.dtype)
        self._planner = Planner(plan, net, self.be, self.seed, self._threads_asked)
        self._held = self.be.memory().get("held", 0)
        size = net.layout.size * net.dtype.itemsize
        parts = {"state of the optimiser": len(self.rule.state) * size, "snapshot": (1 + len(self.rule.state)) * size}
        with refusing(self.be, "what the optimiser keeps", parts):
            state = TrainingState.begin(self.be, self.rule, net.layout, net.dtype)
            self._stretches = Stretches(net, self.be, self.rule, state, self._planner)
        self.placement: Placement | None = None
        self.verbose: bool | None = False
        self.moves_by_rule = True
        """Whether the rule moves the parameters; full-batch methods move them by themselves."""

    @property
    def state(self) -> TrainingState:
        """Counters and optimiser state; continues from call to call."""
        return self._stretches.state

    @state.setter
    def state(self, state: TrainingState) -> None:
        self._stretches.state = state

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

    @property
    def carried(self) -> dict[str, Array]:
        """Arrays that the plan carries from step to step, besides parameters and state; see :class:`Plan`."""
        return self._planner.carried

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
        """Build the plan for a problem, unless the last one still fits; return its spec.

        A method that moves the parameters by itself calls the engine by itself, and needs none.
        """
        spec = self.spec(weighted=problem.weights is not None, classes=problem.labels is not None)
        if self.moves_by_rule:
            self._planner.prepare(spec, self.placement, self.verbose)
        return spec

    def bring_back(self) -> None:
        """Have the network where it is trained, if somebody has computed with it elsewhere between two steps."""
        self._planner.bring_back()

    @property
    def _plan(self) -> Plan | None:
        return self._planner.plan

    @property
    def plan_name(self) -> str:
        """The plan in use; empty before there is one."""
        return "" if self._plan is None else self._plan.name

    @property
    def plan_why(self) -> str:
        """The reason for the plan."""
        return self._planner.why

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
        X : array_like, shape (n, n_1), or Store
            Inputs; or a store on disk, of which rows are read one by one, whatever the order is.
        Y : array_like, shape (n,) or (n, n_L), or None
            Labels or target values; None with a store.
        order : array_like of int, shape (steps, m)
            Numbers of the samples of each step, on the host or on the device; m is at most the batch size.
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

    def load(
        self,
        X: Any,
        Y: Any = None,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation: Any = None,
        whole: bool = False,
    ) -> Problem:
        """Check data and bring it to the backend, for several calls of :meth:`run_loaded`.

        Parameters
        ----------
        X, Y, sample_weight, class_weight
            As for :meth:`run`; or a :class:`~bpcore.data.store.Store` as X, without Y.
        validation : (X, Y) or Store, optional
            Data that there must be room for besides; it is not loaded.
        whole : bool
            Whether every step needs all samples at once.

        Returns
        -------
        Problem
            The data, where the network is, or (``data="stream"``) where it was.

        Raises
        ------
        ShapeError, DataError
            If they do not fit.
        DeviceMemoryError
            If there is no room for it on the device.
        """
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        check_pair(X, Y)
        self.placement = self._place(X, validation, whole, any(value is not None for value in weights.values()))
        if isinstance(X, Store):
            return StoreProblem.of(self.net, X, self.loss, **weights)
        if self.placement.where == STREAMED:
            announce(f"the data stays on the host and is streamed: {self.placement.why}", self.verbose)
            return HostProblem.prepare(self.net, self.be, X, Y, self.loss, **weights)
        with self.be.on_stream(self.stream), self.refusing("the data"):
            return Problem.prepare(self.net, self.be, X, Y, self.loss, **weights)

    def refusing(self, what: str) -> AbstractContextManager[None]:
        """Turn the end of the device's memory inside a ``with`` block into an error with the table of the forecast."""
        return refusing(self.be, what, expected(self.placement))

    def _place(self, X: Any, validation: Any, whole: bool, weighted: bool) -> Placement:
        net, be = self.net, self.be
        data = DataShape.of(X, net, be, weighted=weighted)
        held_out = None
        if isinstance(validation, Store):
            held_out = DataShape.of(validation, net, be, weighted=False)
        elif isinstance(validation, tuple | list) and len(validation) == 2:
            held_out = DataShape.of(validation[0], net, be, weighted=False)
        stored = isinstance(X, Store)
        if stored and (self.data == "resident" or whole):
            what = "data='resident'" if self.data == "resident" else "an optimizer that needs all samples at once"
            raise ConfigurationError(
                f"{what} does not go with a store on disk, of which a window is in memory; leave it out, or load the "
                "data (store.X(), store.y())"
            )
        found = place(
            "stream" if stored else self.data,
            self.spec(weighted=weighted, classes=True),
            net,
            be,
            data,
            plan=self._planner.asked,
            validation=held_out,
            whole=whole,
            converted=would_be_copied(X, net.sizes[0], net.dtype),
        )
        return from_disk(found, data, self.batch_size, net.dtype.itemsize) if stored else found

    def run_loaded(self, data: Problem, order: Any) -> StepRecords:
        """Run one step for each row of an index matrix, on data that is checked and in place.

        Parameters
        ----------
        data : Problem
            What :meth:`load` has returned.
        order : array_like of int, shape (steps, m)
            Numbers of the samples of each step, on the host or on the device; m is at most the batch size.

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
        streamed = isinstance(data, HostProblem)
        if streamed and self.be.owns(order):
            order = self.be.to_numpy(order)
        index = data.check_index(order, None if streamed else self.be)
        if index.shape[1] > self.batch_size:
            raise ConfigurationError(
                f"order has {index.shape[1]} samples a step; the trainer was made for batch_size={self.batch_size}"
            )
        with self.be.on_stream(self.stream):
            self.prepare(data)
            with self.thread_limit():  # which depends on the plan
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
        index: Array,
        between: Callable[[StepRecords], bool] | None = None,
        every: int | None = None,
    ) -> StepRecords:
        """Run steps in stretches of about 0.2 s.

        Parameters
        ----------
        problem : Problem
            The data.
        index : Array of int64, shape (steps, m)
            Checked sample numbers, on the device or on the host; on the host for data that is streamed.
        between : callable, optional
            Called with the records of each stretch; True ends the run early.
        every : int, optional
            Let a stretch end after each multiple of so many steps of the training.

        Returns
        -------
        StepRecords
            Of the steps that were run.

        Raises
        ------
        ConfigurationError
            If the state of the optimiser was given up.
        DivergenceError
            If a number is not finite.
        """
        if set(self.state.arrays) != set(self.rule.state):
            raise ConfigurationError(
                "this trainer has given up the state of its optimiser, release(state=True), and can do no more steps; "
                "make another one, or call release() without state"
            )
        return self._stretches.run(problem, index, between, every)

    def release(self, *, state: bool = False) -> None:
        """Give up what was allocated for training; parameters, and data that the caller holds, stay.

        Parameters
        ----------
        state : bool, default False
            Whether to give up the state of the optimiser, too: then no step can follow.
        """
        self._stretches.release()
        if state:
            self.state.arrays.clear()
        self._planner.drop()
        if self.be.memory().get("held", 0) > self._held:
            self.be.release()

    def gradient_norm(self) -> float:
        """Euclidean norm of the gradient of the last step."""
        out = self.be.sum_squares(self._planner.current.gradient, out=self.be.empty(1, np.float64))
        return float(np.sqrt(self.be.to_numpy(out)[0]))

    @np.errstate(over="ignore")  # of weights on their way to infinity, which the next step tells
    def penalty_value(self) -> float:
        """Value of the penalty for the parameters as they are."""
        if self.penalty is None:
            return 0.0
        total = 0.0
        for W, _ in self.net.get_weights():
            total += float(np.sum(self.penalty.value(w=W.astype(np.float64), **self.penalty.constants)))
        return total


def check_pair(X: Any, Y: Any) -> None:
    """Refuse targets beside a store, which has its own, and data without targets."""
    if isinstance(X, Store) and Y is not None:
        raise ConfigurationError("a store has its targets inside; give no Y beside it")
    if Y is None and not isinstance(X, Store):
        raise ConfigurationError("Y is missing; only a store of bpcore.data has its targets inside")
