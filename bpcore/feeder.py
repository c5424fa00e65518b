"""Rows of data on the host, a few steps at a time: what a plan sees is a small problem on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.host_data import HostProblem, Rows
from bpcore.problem import Problem

__all__ = ["STAGE_BYTES", "Feeder"]

STAGE_BYTES = 2**26
"""Bytes of a buffer. A copy of 64 MiB takes about a millisecond on the way to a GPU, far more than what starts it."""


class Feeder:
    """Brings rows of a problem to the device through two buffers.

    Parameters
    ----------
    be : Backend
        Where they are computed with.
    problem : HostProblem
        The data.
    rows : int
        Rows of a buffer.
    """

    def __init__(self, be: Backend, problem: HostProblem, rows: int) -> None:
        self.problem, self.rows = problem, rows
        self._staging = be.staging(problem.columns, rows)
        self._expected: Any = None

    def send(self, rows: Rows) -> None:
        """Gather rows and send them on their way; the device goes on with what it does."""
        count = rows.stop - rows.start if isinstance(rows, slice) else rows.size
        flat = rows if isinstance(rows, slice) else rows.reshape(-1)
        self._staging.put(lambda buffers: self.problem.write(flat, buffers), count)
        self._expected = flat

    def take(self, rows: Rows) -> Problem:
        """Return a problem of these rows alone, in their order; those of the call before may be overwritten."""
        if not _same(self._expected, rows):
            self.send(rows)
        self._expected = None
        return self.problem.small(self._staging.take())

    def close(self) -> None:
        """Wait for what is on its way."""
        self._staging.close()


def _same(expected: Any, rows: Rows) -> bool:
    if isinstance(rows, slice) or isinstance(expected, slice) or expected is None:
        return isinstance(expected, slice) and expected == rows
    return np.array_equal(expected, rows.reshape(-1))
