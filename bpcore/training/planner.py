"""The plan of a trainer: built when steps need it, and one that needs less where the device's memory ends."""

from __future__ import annotations

from bpcore.backends.contract import Backend
from bpcore.device_room import available_bytes
from bpcore.network import MLP
from bpcore.training.announcement import announce
from bpcore.training.memory import Forecast, too_large
from bpcore.training.micro_batches import MicroBatchPlan
from bpcore.training.placement import Placement, expected
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
    placement : Placement or None
        Of the data that steps are done with.
    """

    def __init__(self, asked: str, net: MLP, be: Backend, seed: int, threads: int | None) -> None:
        self.asked = asked
        self._net, self._be, self._seed, self._threads = net, be, seed, threads
        self._key: tuple[bool, bool, int | None] | None = None
        self._verbose: bool | None = False
        self.plan: Plan | None = None
        self.why = ""
        self.placement: Placement | None = None
        self._planned: Array = None
        """The parameters that the plan moves."""
        self._carried: dict[str, Array] = {}

    @property
    def current(self) -> Plan:
        """The plan, where there must be one."""
        assert self.plan is not None
        return self.plan

    @property
    def carried(self) -> dict[str, Array]:
        """Arrays that the plan carries from step to step, besides parameters and state; see :class:`Plan`."""
        return {} if self.plan is None else self.plan.carried

    def prepare(self, spec: StepSpec, placement: Placement | None, verbose: bool | None) -> None:
        """Build the plan for a spec, unless the last one still fits; of one trainer, specs differ by the data alone.

        It is built in parts where the forecast says so, or where memory ends while it is built.

        Parameters
        ----------
        spec : StepSpec
            What a step computes.
        placement : Placement or None
            Of the data.
        verbose : bool or None
            Whether to say that steps are done in parts; see :func:`~bpcore.training.announcement.announce`.

        Raises
        ------
        DeviceMemoryError
            If it does not fit and may not be another, or not even one sample at a time fits.
        """
        self.placement, self._verbose = placement, verbose
        self._bring_network()
        rows = None if placement is None else placement.rows
        key = spec.weighted, spec.classes, rows
        if self.plan is None or key != self._key:
            self._build(spec, rows)
            self._key = key

    def bring_back(self) -> None:
        """Have the network where it is trained, if somebody has computed with it elsewhere between two steps.

        A plan knows where the parameters lie. Where they have come back to another place, it is built anew.
        """
        self._bring_network()
        if self.plan is not None and self._planned is not self._net.theta:
            self._build(self.plan.spec, None if self.placement is None else self.placement.rows)

    def _bring_network(self) -> None:
        if self._net.backend is not self._be:
            self._net.on(self._be)

    def drop(self) -> None:
        """Give up the plan, but not what it carries from step to step: the next one goes on from there."""
        if self.plan is not None:
            self._carried = self.plan.carried
        self.plan = self._planned = None

    def _build(self, spec: StepSpec, rows: int | None) -> None:
        self.drop()
        self._planned = self._net.theta
        try:
            if rows is None or self.placement is None:
                self.plan, self.why = choose_plan(self.asked, spec, self._net, self._be, self._seed, self._threads)
            else:
                self._use_parts(spec, rows, self.placement.why)
            for name, array in self.carried.items():
                if name in self._carried:
                    self._be.copy(self._carried[name], out=array)
            return
        except Exception as error:
            if not self._be.is_out_of_memory(error):
                raise
            message = str(error)
        # the error is gone, and with it what its frames held
        self._split(spec, rows or spec.batch_size, message)

    def shrink(self, message: str) -> None:
        """Replace the plan by one in parts, or in smaller ones, after the device has refused an allocation.

        Raises
        ------
        DeviceMemoryError
            As for :meth:`prepare`.
        """
        spec = self.current.spec
        self._split(spec, int(getattr(self.plan, "rows", spec.batch_size)), message)

    def _split(self, spec: StepSpec, rows: int, message: str) -> None:
        be = self._be
        self.plan = None
        be.release()
        while self.asked == "auto" and spec.precision is None and rows > 1:
            rows = -(-rows // 2)
            try:
                self._use_parts(spec, rows, f"CuPy says: {message}")
                return
            except Exception as error:
                if not be.is_out_of_memory(error):
                    raise
            be.release()
        what = "one sample at a time" if rows == 1 else f"a step of {rows} samples under plan={self.asked!r}"
        raise too_large(what, Forecast(expected(self.placement), available_bytes(be) or 0), message)

    def _use_parts(self, spec: StepSpec, rows: int, why: str) -> None:
        self.plan = MicroBatchPlan(spec, self._net, self._be, self._seed, rows)
        self.why = f"parts of {rows} samples of a step: {why}"
        announce(f"a step of {spec.batch_size} samples goes through the network in {self.why}", self._verbose)
