"""The way of rows from the host to the device: two buffers, one that is computed with and one that is being filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.typing import Array, NDArray

__all__ = ["Columns", "PinnedStaging", "Staging"]

Columns = Mapping[str, tuple[tuple[int, ...], Any]]
"""Name of each array, with the shape of one of its rows and its dtype."""
Fill = Callable[[Mapping[str, NDArray[Any]]], None]


class Staging:
    """Two buffers in the memory of the host, for backends that compute there.

    Parameters
    ----------
    be : Backend
        Where rows are computed with.
    columns : mapping of str to (shape, dtype)
        What a row consists of.
    rows : int
        Rows of a buffer.
    """

    def __init__(self, be: Backend, columns: Columns, rows: int) -> None:
        self.be, self.rows = be, rows
        self._device = [self._allocate(columns), self._allocate(columns)]
        self._taken: int | None = None
        self._put: tuple[int, int] | None = None

    def _allocate(self, columns: Columns) -> dict[str, Array]:
        return {name: self.be.empty((self.rows, *shape), dtype) for name, (shape, dtype) in columns.items()}

    def put(self, fill: Fill, rows: int) -> None:
        """Fill the buffer that is not in use, and send it on its way.

        Parameters
        ----------
        fill : callable
            Writes so many rows into the host arrays that it is given.
        rows : int
            How many.
        """
        k = 0 if self._taken is None else 1 - self._taken
        self._send(k, fill, rows)
        self._put = k, rows

    def _send(self, k: int, fill: Fill, rows: int) -> None:
        fill({name: array[:rows] for name, array in self._device[k].items()})

    def take(self) -> dict[str, Array]:
        """Return the rows that were put last, on the device. Those of the call before may be overwritten."""
        assert self._put is not None
        k, rows = self._put
        self._arrived(k)
        self._taken = k
        return {name: array[:rows] for name, array in self._device[k].items()}

    def _arrived(self, k: int) -> None:
        """Order what is queued from now on after the arrival of a buffer."""

    def close(self) -> None:
        """Wait for what is on its way; the buffers may be freed afterwards."""


class PinnedStaging(Staging):
    """Two buffers on a GPU, and two in pinned memory from which a stream of its own copies; for CuPy.

    While the device computes with one pair, the host fills the other, and the copy goes on beside the kernels. Events
    keep the order: rows are computed with after they have arrived, a buffer on the device is overwritten after what
    reads it has been computed, and one of the host after it was copied.
    """

    def __init__(self, be: Backend, columns: Columns, rows: int) -> None:
        super().__init__(be, columns, rows)
        cuda = self._cuda = be.xp.cuda
        self._pinned = [self._pin(columns), self._pin(columns)]
        self._stream = self._here(lambda: cuda.Stream(non_blocking=True))
        self._copied = [self._here(lambda: cuda.Event(disable_timing=True)) for _ in range(2)]
        self._used = [self._here(lambda: cuda.Event(disable_timing=True)) for _ in range(2)]
        for event in self._used:  # whoever had this memory before may still be computing with it
            self._here(event.record)

    def _here(self, call: Callable[[], Any]) -> Any:
        return self.be.gpu.here(call)

    def _pin(self, columns: Columns) -> dict[str, NDArray[Any]]:
        found = {}
        for name, (shape, dtype) in columns.items():
            size = int(np.prod((self.rows, *shape), dtype=np.int64)) * np.dtype(dtype).itemsize
            memory = self._here(partial(self._cuda.alloc_pinned_memory, size))
            found[name] = np.ndarray((self.rows, *shape), dtype, buffer=memory)
        return found

    def _send(self, k: int, fill: Fill, rows: int) -> None:
        self._copied[k].synchronize()
        host = {name: array[:rows] for name, array in self._pinned[k].items()}
        fill(host)

        def copy() -> None:
            self._stream.wait_event(self._used[k])
            for name, array in host.items():
                self._device[k][name].data.copy_from_host_async(array.ctypes.data, array.nbytes, self._stream)
            self._copied[k].record(self._stream)

        self._here(copy)

    def _arrived(self, k: int) -> None:
        def order() -> None:
            stream = self._cuda.get_current_stream()
            if self._taken is not None:  # all that reads it has been queued by now
                self._used[self._taken].record(stream)
            stream.wait_event(self._copied[k])

        self._here(order)

    def close(self) -> None:
        """Wait for what is on its way; the buffers may be freed afterwards."""
        self._here(self._stream.synchronize)
