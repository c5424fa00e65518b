"""What training needs of a device's memory, told before the first step, and where the data goes because of it.

The bytes of a step are told by the plan that allocates them (``device_bytes``); the rest is counted here, from shapes
alone. What is free is what the driver has and what CuPy's pool would use again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bpcore.backends.contract import Backend
from bpcore.device_room import in_words
from bpcore.errors import DeviceMemoryError
from bpcore.evaluation import ROWS
from bpcore.feeder import STAGE_BYTES
from bpcore.network import MLP
from bpcore.training.micro_batches import MicroBatchPlan
from bpcore.training.plans import kind_on_gpu
from bpcore.training.spec import StepSpec

__all__ = [
    "DataShape",
    "Forecast",
    "Placement",
    "available_bytes",
    "from_disk",
    "place",
    "refusing",
    "too_large",
]

RESERVE = 2**26
"""Bytes left to what nobody here allocates: code of kernels, graphs, and the workspaces of CUDA's libraries."""
DISK_STAGE_BYTES = 2**23
"""Bytes of a buffer for data that comes from a disk, of which windows are in memory besides."""
LONGEST_STRETCH = 4096
SORTING = 40
"""Bytes a sample while the order of an epoch is made: two words, a copy of the keys, and what the sort works in."""
RESIDENT, STREAMED = "resident", "streamed"
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
class Placement:
    """Where the data of a training goes.

    Attributes
    ----------
    where : str
        ``"resident"`` or ``"streamed"``.
    why : str
        The reason.
    forecast : Forecast or None
        What it rests on; None where no device was asked.
    rows : int or None
        Samples that go through the network at once, if not a whole batch.
    stage_rows : int
        Rows of a buffer of what is streamed.
    """

    where: str
    why: str
    forecast: Forecast | None = None
    rows: int | None = None
    stage_rows: int = 0
    record: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        record: dict[str, Any] = {"placement": self.where, "why": self.why}
        if self.forecast is not None:
            record |= {"bytes": dict(self.forecast.parts), "free_bytes": self.forecast.available}
        object.__setattr__(self, "record", record)


def available_bytes(be: Backend) -> int | None:
    """Bytes of the device that can be allocated; None where the backend does not say."""
    memory = be.memory()
    if be.device == "cpu" or "free" not in memory:
        return None
    free = memory["free"] + memory["held"] - memory["used"]
    return min(free, memory["limit"] - memory["used"]) if memory.get("limit") else free


def place(
    asked: str,
    spec: StepSpec,
    net: MLP,
    be: Backend,
    data: DataShape,
    *,
    plan: str = "auto",
    validation: DataShape | None = None,
    whole: bool = False,
    converted: bool = False,
) -> Placement:
    """Decide where data goes, and whether a step does its batch at once.

    Parameters
    ----------
    asked : str
        ``"auto"``, ``"resident"`` or ``"stream"``.
    spec, net, be
        What is trained, and where.
    data : DataShape
        The training data.
    plan : str
        The plan that was asked for.
    validation : DataShape, optional
        The held-out data.
    whole : bool
        Whether every step needs all samples in one place.
    converted : bool
        Whether the data is in a file and would have to be converted.

    Returns
    -------
    Placement
        The decision.

    Raises
    ------
    DeviceMemoryError
        If there is no room, with the table of what is needed.
    """
    item = spec.dtype.itemsize
    batch = min(spec.batch_size, data.m)
    stage = min(data.m, max(batch, min(STAGE_BYTES // data.row_bytes(item), LONGEST_STRETCH * batch)))
    free = available_bytes(be)
    if free is None:
        if asked == "stream":
            return Placement(STREAMED, "asked for", stage_rows=stage)
        if asked == "auto" and converted and not whole:
            why = "X is in a file, in a form that has to be converted, and stays there"
            return Placement(STREAMED, why, stage_rows=stage)
        return Placement(RESIDENT, "asked for" if asked == "resident" else "the network is where the data is")
    count = _Count(spec, net, be, data, validation, plan, free)
    resident = count.forecast(None)
    may_stream, may_split = not whole, plan == "auto" and spec.precision is None and not whole
    if asked == "resident" and (resident.fits(0) or not may_split):
        if not resident.fits(0):
            raise too_large("data='resident'", resident)
        return Placement(RESIDENT, "asked for", resident)
    if asked == "auto" and resident.fits():
        return Placement(RESIDENT, f"all that training needs takes {in_words(resident.total)}", resident)
    because = f"with all of the data it is {in_words(resident.total)}, and {in_words(resident.available)} are free"
    if asked != "resident" and may_stream:
        # a buffer holds one batch at least; longer ones save waiting
        for rows in (stage, max(batch, stage // 8), batch):
            streamed = count.forecast(rows)
            if streamed.fits():
                return Placement(STREAMED, "asked for" if asked == "stream" else because, streamed, stage_rows=rows)
    if may_split:
        rows = batch
        while rows > 1:
            rows = -(-rows // 2)
            for buffer in (None, batch):
                if (buffer is None and asked == "stream") or (buffer is not None and asked == "resident"):
                    continue
                found = count.forecast(buffer, rows)
                if found.fits():
                    where = RESIDENT if buffer is None else STREAMED
                    return Placement(where, because, found, rows=rows, stage_rows=buffer or 0)
        raise too_large(f"one sample at a time with data={asked!r}", count.forecast(None if whole else batch, 1))
    least = count.forecast(batch if may_stream and asked != "resident" else None)
    raise too_large(f"a step of {batch} samples under plan={plan!r} with data={asked!r}", least)


class _Count:
    """Adds up what a training needs, for one way or another to do it."""

    def __init__(
        self,
        spec: StepSpec,
        net: MLP,
        be: Backend,
        data: DataShape,
        validation: DataShape | None,
        plan: str,
        free: int,
    ) -> None:
        self.spec, self.net, self.be = spec, net, be
        self.data, self.validation, self.plan, self.free = data, validation, plan, free

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


def from_disk(placement: Placement, data: DataShape, batch: int, item: int) -> Placement:
    """Say that the data is on a disk, and keep the buffers between window and network small.

    Parameters
    ----------
    placement : Placement
        As for data on the host that is streamed.
    data : DataShape
        Sizes of the data.
    batch, item : int
        Samples of a step, bytes of a number.

    Returns
    -------
    Placement
        With buffers of at most 8 MiB, or of one step where that is more.
    """
    rows = max(min(batch, data.m), min(placement.stage_rows, DISK_STAGE_BYTES // data.row_bytes(item)))
    return replace(placement, why="the data is in a store on disk", stage_rows=rows)


def too_large(what: str, forecast: Forecast) -> DeviceMemoryError:
    """Build the error: what was asked, what is needed and free, and what to do."""
    return DeviceMemoryError(
        f"{what} does not fit in the memory of the device:\n{forecast.table()}\nPossible: {ADVICE}"
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
    raise DeviceMemoryError(f"{too_large(what, Forecast(parts, available_bytes(be) or 0))}. CuPy says: {message}")
