"""Looks during a training: a callback that takes one now and then, and keeps what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.errors import ConfigurationError, unknown
from bpcore.functions.ranges import check_count
from bpcore.inspection.alarms import Alarm, loss_alarms
from bpcore.inspection.look import look, sample_of
from bpcore.inspection.report import InspectionReport
from bpcore.network import MLP
from bpcore.problem import Problem
from bpcore.training.callbacks import Callback
from bpcore.training.stopping import Progress
from bpcore.training.trainer import Trainer
from bpcore.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from bpcore.training.run import Run

__all__ = ["Inspector"]

ARRAYS = ("Z", "H", "Delta", "W", "b", "dW", "db")
STATISTICS = ("mean", "std", "min", "max", "norm", "rms", "zeros", "not_finite")
NUMBERS = ("gradient_ratio", "update_ratio", "flat_share", "dead", "saturated")


class Inspector(Callback):
    """Looks at a network during :func:`bpcore.train`, always on the same samples of the training data.

    A look changes nothing: the training ends with the same bits. It is taken before the first step, after each multiple
    of so many epochs or steps, and at the end.

    Parameters
    ----------
    every_epochs : int, optional
        Look after each multiple of so many epochs. Default 1, if nothing else is given.
    every_steps : int, optional
        Look after each multiple of so many steps. In :func:`bpcore.train` only; estimators look after epochs.
    samples : int
        How many samples are looked at. Default 256.
    seed : int
        Seed of the draw of them. Default 0.
    on_alarm : callable, optional
        Called with each :class:`Alarm` when its kind is first raised for its layer; returning True stops the training,
        at the next step or epoch after which there is a look. ``print`` will do.

    Attributes
    ----------
    reports : list of InspectionReport
        One for each look; those of a later training follow those of an earlier one.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    Examples
    --------
    >>> import numpy as np, bpcore as bp
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> inspector = bp.Inspector(every_epochs=2)
    >>> net = bp.MLP([2, 8, 2], seed=0, backend="numpy")
    >>> run = bp.train(net, X, X[:, 0] > 0, epochs=4, batch_size=16, seed=0, callbacks=[inspector])
    >>> [report.step for report in inspector.reports], inspector.alarms
    ([0, 8, 16], ())
    >>> steps, errors = inspector.series("Delta", "rms")
    >>> steps.tolist(), sorted(errors)
    ([0, 8, 16], [2, 3])
    """

    def __init__(
        self,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        *,
        samples: int = 256,
        seed: int = 0,
        on_alarm: Callable[[Alarm], Any] | None = None,
    ) -> None:
        if every_epochs is None and every_steps is None:
            every_epochs = 1
        for name, value in (("every_epochs", every_epochs), ("every_steps", every_steps), ("samples", samples)):
            if value is not None:
                check_count(f"Inspector: {name}", value, 1)
        if on_alarm is not None and not callable(on_alarm):
            raise ConfigurationError(f"Inspector: on_alarm is {on_alarm!r}; it must be a function f(alarm)")
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self.samples, self.seed, self.on_alarm = samples, seed, on_alarm
        self.reports: list[InspectionReport] = []
        self._trainer: Trainer | None = None
        self._problem: Problem | None = None
        self._first = 0
        self._raised: set[tuple[str, int | None]] = set()
        self._stopping = False

    # ------------------------------------------------------------------------------------------ as a callback

    def on_data(self, trainer: Trainer, problem: Problem) -> None:
        """Draw the samples that all looks of this training share."""
        rows = self.samples
        if trainer.placement is not None and trainer.placement.rows is not None:
            rows = min(rows, trainer.placement.rows)  # as many as there is room for at a time
        with trainer.refusing("samples for the looks at the network"):
            self._trainer, self._problem = trainer, sample_of(trainer.be, problem, rows, self.seed)
        self._first, self._raised, self._stopping = len(self.reports), set(), False

    def on_start(self, net: MLP) -> None:
        """Look at the network before the first step."""
        self._look()

    def on_steps(self, net: MLP, progress: Progress) -> bool | None:
        """Look after some steps."""
        return self._look()

    def on_epoch(self, net: MLP, progress: Progress) -> bool | None:
        """Look after an epoch, if it is its turn."""
        if self.every_epochs is not None and progress.epoch % self.every_epochs == 0:
            return self._look()
        return None

    def on_end(self, run: Run) -> None:
        """Look at what the training ended with, unless that is another network than that of the last step."""
        if run.kept == "last":
            self._look()
        self._trainer = self._problem = None

    def _look(self) -> bool | None:
        """Take a look, unless there was one at this step; True if `on_alarm` asks to stop."""
        trainer, problem = self._trainer, self._problem
        if trainer is None or problem is None:
            return None
        mine = self.reports[self._first :]
        if mine and mine[-1].step == trainer.state.step:
            return None
        trainer.bring_back()  # a callback before this one may have computed elsewhere
        with trainer.refusing("a look at the network"):
            self.reports.append(look(trainer, problem, updates=trainer.moves_by_rule))
        for alarm in self.alarms:
            if (alarm.kind, alarm.layer) not in self._raised:
                self._raised.add((alarm.kind, alarm.layer))
                self._stopping |= self.on_alarm is not None and self.on_alarm(alarm) is True
        return self._stopping

    # ------------------------------------------------------------------------------------------ what it saw

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Alarms of the last look, and of the loss over all looks of the last training."""
        if not self.reports:
            return ()
        found = (*loss_alarms(self.reports[self._first :]), *self.reports[-1].alarms)
        return tuple(sorted(found, key=lambda alarm: not alarm.serious))

    def series(self, quantity: str, statistic: str = "rms") -> tuple[IntArray, dict[int, FloatArray]]:
        """Return a number over the looks of the last training, for each layer.

        Parameters
        ----------
        quantity : str
            ``"Z"``, ``"H"``, ``"Delta"``, ``"W"``, ``"b"``, ``"dW"`` or ``"db"``; or ``"gradient_ratio"``,
            ``"update_ratio"``, ``"flat_share"``, and ``"dead"`` or ``"saturated"``, how many neurons are.
        statistic : str
            Of an array: ``"mean"``, ``"std"``, ``"min"``, ``"max"``, ``"norm"``, ``"rms"`` (default), ``"zeros"`` or
            ``"not_finite"``.

        Returns
        -------
        steps : ndarray of int64, shape (looks,)
            When they were taken.
        values : dict of int to ndarray, shape (looks,)
            By the number that the array carries; by layer for the other quantities. NaN where there is no number.

        Raises
        ------
        UnknownNameError
            If there is no such quantity or statistic.
        """
        if quantity not in (*ARRAYS, *NUMBERS):
            raise unknown("quantity", quantity, [*ARRAYS, *NUMBERS])
        if quantity in ARRAYS and statistic not in STATISTICS:
            raise unknown("statistic", statistic, STATISTICS)
        reports = self.reports[self._first :]
        steps = np.array([report.step for report in reports], np.int64)
        offset = 1 if quantity in ("W", "b", "dW", "db") else 0
        values: dict[int, FloatArray] = {}
        for k, found in enumerate(reports[0].layers if reports else ()):
            layers = [report.layers[k] for report in reports]
            values[found.layer - offset] = np.array([_number(layer, quantity, statistic) for layer in layers])
        return steps, values

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable values; numbers may be NaN."""
        settings = {name: getattr(self, name) for name in ("every_epochs", "every_steps", "samples", "seed")}
        alarms, reports = [alarm.to_dict() for alarm in self.alarms], [report.to_dict() for report in self.reports]
        return {**settings, "alarms": alarms, "reports": reports}

    def plot(self, ax: Any = None) -> Any:
        """Draw the looks over the steps; see :func:`bpcore.plots.over_time`."""
        from bpcore.plots import over_time

        return over_time(self, ax=ax)

    def __str__(self) -> str:
        if not self.reports:
            return "no look was taken yet"
        own = loss_alarms(self.reports[self._first :])
        return "\n".join([f"{len(self.reports)} looks, the last one:", str(self.reports[-1]), *map(str, own)])

    def __repr__(self) -> str:
        return f"Inspector({self.every_epochs}, {self.every_steps}, samples={self.samples}; {len(self.reports)} looks)"


def _number(layer: Any, quantity: str, statistic: str) -> float:
    found = getattr(layer, quantity)
    if quantity in ARRAYS:
        return float(getattr(found, statistic))
    if isinstance(found, tuple):
        return float(len(found))
    return float("nan") if found is None else float(found)
