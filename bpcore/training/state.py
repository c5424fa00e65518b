"""What a training run carries from step to step, apart from the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bpcore.backends.contract import Backend
from bpcore.functions.update_rule import UpdateRule
from bpcore.layout import ParameterLayout
from bpcore.typing import Array, DType

__all__ = ["Snapshot", "TrainingState"]

_NOTHING: Mapping[str, Array] = MappingProxyType({})


@dataclass
class TrainingState:
    """Counters and the memory of the update rule.

    Attributes
    ----------
    step, epoch : int
        Finished steps and epochs. Random numbers are keyed by them, so that a run can be taken up anywhere.
    arrays : dict of str to Array
        State of the update rule, one flat vector each, in the layout of theta.
    running : dict of str to float
        Running numbers of the update rule.
    schedule : dict
        State of the learning-rate schedule.
    """

    step: int = 0
    epoch: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, float | int | None] = field(default_factory=dict)

    @classmethod
    def begin(cls, be: Backend, rule: UpdateRule, layout: ParameterLayout, dtype: DType) -> TrainingState:
        """Return the state before the first step."""
        arrays = {}
        for name, value in rule.state_init.items():
            arrays[name] = be.zeros(layout.size, dtype)
            if value:
                for block in layout.blocks:
                    be.fill(layout.view(arrays[name], block), value)
        return cls(0, 0, arrays, rule.initial_running(), rule.schedule.initial_state())


class Snapshot:
    """A copy of parameters and state on the device, taken before a stretch of steps and put back if it goes wrong.

    What a plan carries from step to step (:attr:`bpcore.training.plans.Plan.carried`) goes with them where it is given.
    """

    def __init__(self, be: Backend, theta: Array, state: TrainingState) -> None:
        self.be = be
        self.carried: dict[str, Array] = {}
        self.theta = be.empty(theta.size, theta.dtype)
        self.arrays = {name: be.empty(array.size, array.dtype) for name, array in state.arrays.items()}
        self.step = 0
        self.running: dict[str, float] = {}
        self.take(theta, state)

    def take(self, theta: Array, state: TrainingState, carried: Mapping[str, Array] = _NOTHING) -> None:
        """Remember parameters and state as they are now."""
        self.be.copy(theta, out=self.theta)
        for name, array in state.arrays.items():
            self.be.copy(array, out=self.arrays[name])
        for name, array in carried.items():
            if name not in self.carried:
                self.carried[name] = self.be.empty(array.shape, array.dtype)
            self.be.copy(array, out=self.carried[name])
        self.step, self.running = state.step, dict(state.running)

    def put_back(self, theta: Array, state: TrainingState, carried: Mapping[str, Array] = _NOTHING) -> None:
        """Restore what was remembered."""
        self.be.copy(self.theta, out=theta)
        for name, array in state.arrays.items():
            self.be.copy(self.arrays[name], out=array)
        for name, array in carried.items():
            self.be.copy(self.carried[name], out=array)
        state.step, state.running = self.step, dict(self.running)
