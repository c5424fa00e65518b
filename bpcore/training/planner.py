"""Builds the plan of a trainer, and one that needs less where the device's memory ends."""

from __future__ import annotations

from bpcore.backends.contract import Backend
from bpcore.network import MLP
from bpcore.training.announcement import announce
from bpcore.training.memory import Forecast, Placement, available_bytes, too_large
from bpcore.training.micro_batches import MicroBatchPlan
from bpcore.training.plans import Plan, choose_plan
from bpcore.training.spec import StepSpec
from bpcore.typing import Array

__all__ = ["Planner"]


class Planner:
    """The plan of one trainer.

    Parameters
    ----------
    asked : str
        ``"auto"`` or the name of a plan.
    net, be, seed, threads
        As for :func:`~bpcore.training.plans.choose_plan`.

    Attributes
    ----------
    plan : Plan or None
        In use.
    why : str
        The reason.
    """

    def __init__(self, asked: str, net: MLP, be: Backend, seed: int, threads: int | None) -> None:
        self.asked = asked
        self._net, self._be, self._seed, self._threads = net, be, seed, threads
        self.plan: Plan | None = None
        self.why = ""
        self._carried: dict[str, Array] = {}

    def build(self, spec: StepSpec, placement: Placement | None, verbose: bool | None) -> None:
        """Build the plan for a spec, in parts where the forecast says so, or where memory ends while it is built.

        Raises
        ------
        DeviceMemoryError
            If it does not fit and may not be another, or not even one sample at a time fits.
        """
        self.drop()
        rows = None if placement is None else placement.rows
        try:
            if rows is None or placement is None:
                self.plan, self.why = choose_plan(self.asked, spec, self._net, self._be, self._seed, self._threads)
            else:
                self._use_parts(spec, rows, placement.why, verbose)
            self._take_over()
            return
        except Exception as error:
            if not self._be.is_out_of_memory(error):
                raise
            message = str(error)
        # the error is gone, and with it what its frames held
        self._split(spec, rows or spec.batch_size, message, placement, verbose)

    def drop(self) -> None:
        """Give up the plan, but not what it carries from step to step: the next one goes on from there."""
        if self.plan is not None:
            self._carried = self.plan.carried
        self.plan = None

    def _take_over(self) -> None:
        assert self.plan is not None
        for name, array in self.plan.carried.items():
            if name in self._carried:
                self._be.copy(self._carried[name], out=array)

    def shrink(self, message: str, placement: Placement | None, verbose: bool | None) -> None:
        """Replace the plan by one in parts, or in smaller ones, after the device has refused an allocation.

        Raises
        ------
        DeviceMemoryError
            As for :meth:`build`.
        """
        assert self.plan is not None
        spec, rows = self.plan.spec, int(getattr(self.plan, "rows", self.plan.spec.batch_size))
        self._split(spec, rows, message, placement, verbose)

    def _split(
        self, spec: StepSpec, rows: int, message: str, placement: Placement | None, verbose: bool | None
    ) -> None:
        be = self._be
        self.plan = None
        be.release()
        while self.asked == "auto" and spec.precision is None and rows > 1:
            rows = -(-rows // 2)
            try:
                self._use_parts(spec, rows, f"CuPy says: {message}", verbose)
                return
            except Exception as error:
                if not be.is_out_of_memory(error):
                    raise
            be.release()
        parts = {} if placement is None or placement.forecast is None else placement.forecast.parts
        what = "one sample at a time" if rows == 1 else f"a step of {rows} samples under plan={self.asked!r}"
        table = too_large(what, Forecast(parts, available_bytes(be) or 0))
        raise type(table)(f"{table}. CuPy says: {message}")

    def _use_parts(self, spec: StepSpec, rows: int, why: str, verbose: bool | None) -> None:
        self.plan = MicroBatchPlan(spec, self._net, self._be, self._seed, rows)
        self.why = f"parts of {rows} samples of a step: {why}"
        announce(f"a step of {spec.batch_size} samples goes through the network in {self.why}", verbose)
