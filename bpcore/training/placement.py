"""Where the data of a training goes, and whether a step does its batch at once; a forecast of its memory decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bpcore.backends.contract import Backend
from bpcore.device_room import available_bytes, in_words
from bpcore.feeder import STAGE_BYTES
from bpcore.network import MLP
from bpcore.training.memory import LONGEST_STRETCH, DataShape, Forecast, Needs, too_large
from bpcore.training.spec import StepSpec

__all__ = ["STREAMED", "Placement", "expected", "from_disk", "place"]

RESIDENT, STREAMED = "resident", "streamed"
DISK_STAGE_BYTES = 2**23
"""Bytes of a buffer for data that comes from a disk, of which windows are in memory besides."""


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

    @property
    def record(self) -> dict[str, Any]:
        """The facts, for the record of a run."""
        record: dict[str, Any] = {"placement": self.where, "why": self.why}
        if self.forecast is not None:
            record |= {"bytes": dict(self.forecast.parts), "free_bytes": self.forecast.available}
        return record


def expected(placement: Placement | None) -> dict[str, int]:
    """Bytes that a training was said to need, by what they are for; none where nobody had to say."""
    return {} if placement is None or placement.forecast is None else placement.forecast.parts


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
    needs = Needs(spec, net, be, data, validation, plan, free)
    resident = needs.forecast(None)
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
            streamed = needs.forecast(rows)
            if streamed.fits():
                return Placement(STREAMED, "asked for" if asked == "stream" else because, streamed, stage_rows=rows)
    if may_split:
        rows = batch
        while rows > 1:
            rows = -(-rows // 2)
            for buffer in (None, batch):
                if (buffer is None and asked == "stream") or (buffer is not None and asked == "resident"):
                    continue
                found = needs.forecast(buffer, rows)
                if found.fits():
                    where = RESIDENT if buffer is None else STREAMED
                    return Placement(where, because, found, rows=rows, stage_rows=buffer or 0)
        raise too_large(f"one sample at a time with data={asked!r}", needs.forecast(None if whole else batch, 1))
    least = needs.forecast(batch if may_stream and asked != "resident" else None)
    raise too_large(f"a step of {batch} samples under plan={plan!r} with data={asked!r}", least)


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
