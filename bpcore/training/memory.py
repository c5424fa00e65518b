"""What training needs of a device's memory, told before the first step.

The bytes of a step are told by the plan that allocates them (``device_bytes``); the rest is counted here, from shapes
alone. What is free is what the driver has and what CuPy's pool would use again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bpcore.backends.contract import Backend
from bpcore.device_room import available_bytes, in_words
from bpcore.errors import DeviceMemoryError
from bpcore.evaluation import ROWS
from bpcore.inputs import is_on_device
from bpcore.network import MLP
from bpcore.training.micro_batches import MicroBatchPlan
from bpcore.training.plans import kind_on_gpu
from bpcore.training.spec import StepSpec

__all__ = ["DataShape", "Forecast", "Needs", "refusing", "too_large"]

RESERVE = 2**26
"""Bytes left to what nobody here allocates: code of kernels, graphs, and the workspaces of CUDA's libraries."""
LONGEST_STRETCH = 4096
"""Steps of a stretch at most, however short they are: their records take memory."""
SORTING = 40
"""Bytes a sample while the order of an epoch is made: two words, a copy of the keys, and what the sort works in."""
ADVICE = "a smaller batch_size, data='stream', dtype='float32', a narrower network"


@dataclass(frozen=True)
class DataShape:
    """Sizes of a data set.

    Attributes
    ----------
    m : int
        Samples.
    n_in, n_out : int
        Numbers of a row of X and of Y.
    weighted : bool
        Whether samples carry weights.
    on_device : bool
        Whether X is on the device already.
    """

    m: int
    n_in: int
    n_out: int
    weighted: bool = False
    on_device: bool = False

    @classmethod
    def of(cls, X: Any, net: MLP, be: Backend, *, weighted: bool) -> DataShape:
        """Sizes of the data of a network before it was checked: what has no rows counts as one."""
        has_rows = hasattr(X, "__len__") and (not hasattr(X, "ndim") or X.ndim > 0)
        stays = is_on_device(X, be) and getattr(X, "dtype", None) == net.dtype
        return cls(max(len(X) if has_rows else 1, 1), net.sizes[0], net.sizes[-1], weighted, stays)

    def row_bytes(self, item: int) -> int:
        """Bytes of a row on the device, with a label."""
        return (self.n_in + self.n_out + int(self.weighted)) * item + 8

    def resident_bytes(self, item: int) -> int:
        """Bytes that come to the device if all of it does."""
        return self.m * (self.row_bytes(item) - int(self.on_device) * self.n_in * item)


@dataclass(frozen=True)
class Forecast:
    """Bytes by what they are for, beside those that are free.

    Attributes
    ----------
    parts : dict of str to int
        What is needed.
    available : int
        What there is: free memory, and what of the parts is allocated already.

    Examples
    --------
    >>> print(Forecast({"data": 3 * 2**20, "gradient": 2**10}, 2**21).table())
      data            3.00 MiB
      gradient        1.00 KiB
      together        3.00 MiB
      free            2.00 MiB
    """

    parts: dict[str, int]
    available: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def fits(self, reserve: int | None = None) -> bool:
        """Whether there is room, and a reserve besides."""
        return self.total + (RESERVE if reserve is None else reserve) <= self.available

    def table(self) -> str:
        """The parts, one a line."""
        lines = [*self.parts.items(), ("together", self.total), ("free", self.available)]
        width = 2 + max(14, *(len(name) for name, _ in lines))
        return "\n".join(f"  {name:<{width}}{in_words(size)}" for name, size in lines)


@dataclass(frozen=True)
class Needs:
    """A training and its data, and the bytes that are free: what it takes to do it one way or another."""

    spec: StepSpec
    net: MLP
    be: Backend
    data: DataShape
    validation: DataShape | None
    plan: str
    free: int

    def forecast(self, stage_rows: int | None, rows: int | None = None) -> Forecast:
        """Count with data in buffers of so many rows, or (None) resident, and with parts of so many rows."""
        spec, data, size = self.spec, self.data, self.net.layout.size
        item = spec.dtype.itemsize
        theta, states = size * item, len(spec.rule.state) * size * item
        held = 2 * theta + 2 * states  # with the snapshot: allocated when the trainer was made
        parts: dict[str, int] = {"parameters": theta, "state of the optimiser": states, "snapshot": theta + states}
        if stage_rows is None:
            parts["data"] = data.resident_bytes(item)
            parts["order of the samples"] = SORTING * data.m
        else:
            parts["two buffers of data"] = 2 * stage_rows * data.row_bytes(item)
            parts["order of the samples"] = 8 * stage_rows
        if rows is None:
            kind, _ = kind_on_gpu(self.plan, spec, self.be)
            parts |= kind.device_bytes(spec, self.be, size)
        else:
            parts |= MicroBatchPlan.device_bytes(spec, self.be, size, rows)
        numbers = len(spec.rule.scalar_names) + 8
        parts["records of steps"] = LONGEST_STRETCH * (24 + item * numbers)
        parts["best parameters"] = theta
        if self.validation is not None:
            parts["validation"] = self._validation(self.validation, item, stage_rows is not None)
        return Forecast(parts, self.free + held)

    def _validation(self, data: DataShape, item: int, streamed: bool) -> int:
        rows, widths = min(ROWS, data.m), self.spec.sizes
        work = rows * (widths[0] + 2 * sum(widths[1:]) + widths[-1] + 1) * item
        return work + (2 * rows * data.row_bytes(item) if streamed else data.resident_bytes(item))


def too_large(what: str, forecast: Forecast, message: str = "") -> DeviceMemoryError:
    """Build the error: what was asked, what is needed and free, what to do, and what CuPy said, if it was tried."""
    said = f". CuPy says: {message}" if message else ""
    return DeviceMemoryError(
        f"{what} does not fit in the memory of the device:\n{forecast.table()}\nPossible: {ADVICE}{said}"
    )


@contextmanager
def refusing(be: Backend, what: str, parts: dict[str, int]) -> Iterator[None]:
    """Turn the end of the device's memory inside a ``with`` block into a :class:`DeviceMemoryError`."""
    try:
        yield
    except DeviceMemoryError:  # which says more already
        raise
    except Exception as error:
        if not be.is_out_of_memory(error):
            raise
        message = str(error)
    else:
        return
    be.release()
    raise too_large(what, Forecast(parts, available_bytes(be) or 0), message)
