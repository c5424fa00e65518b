"""Prediction on an NVIDIA GPU: repeated calls and few samples by a CUDA graph, many in blocks of rows.

What a call waits for is the host as much as the device: a kernel takes the host 5 us, and a product by cuBLAS more. So
who asks again with the same arrays gets a CUDA graph that reads and writes them where they lie, up to one block of
rows; more take so long that the host is ahead of the device. Few samples in other arrays are copied into a graph's own
memory, and the outputs out of it; there is one for each power of two of rows, and rows that a call does not fill are
computed and not looked at. Graphs are captured when they are needed. Everything else is queued layer by layer, a block
of rows after the other.

Which kernels a layer consists of is decided in :mod:`~bpcore.inference.cuda_layers`; what a call needs besides its
arrays is a room of :mod:`~bpcore.inference.cuda_room`.
"""

from __future__ import annotations

from typing import Any

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_device import CudaDevice, power_of_two
from bpcore.inference.contract import ForwardSpec
from bpcore.inference.cuda_layers import LayerMaker
from bpcore.inference.cuda_room import Layer, Place, Replay, Room, enter, leave
from bpcore.typing import Array

__all__ = ["CudaInference"]

GRAPH_BYTES = 2**20
"""Samples go through memory of a graph's own if no layer of them is larger. To copy that much takes a microsecond in
device memory; to launch the kernels one by one takes the host about 5 a layer."""
MOST_GRAPHS = 16
"""Graphs, and numbers of rows with layers made ready, that a place keeps; the one that was not used for longest goes
first."""
BLOCK_BYTES = 2**24
"""Bytes of the two matrices H that a block of many samples is in: with the weights they stay in a second-level cache of
40 MB and more ..."""
LEAST_ROWS = 512
"""... and how many rows a block has at least. A product with W (k, n) does rows / 2 operations for each byte of W that
it reads; from about 16 on (51 TFLOP/s, 3.3 TB/s) the operations take longer than the bytes."""


class CudaInference:
    """The forward pass by kernels of its own; parameters as for :func:`~bpcore.inference.make_inference`."""

    refuses = True

    def __init__(self, be: Backend, spec: ForwardSpec) -> None:
        self._be, self._sizes, self._dtype = be, spec.sizes, spec.dtype
        self._gpu: CudaDevice = be.gpu
        self._maker = LayerMaker(be, spec)
        self.block = max(LEAST_ROWS, BLOCK_BYTES // (2 * max(spec.sizes[1:]) * spec.dtype.itemsize))

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`~bpcore.inference.Inference`; waits for the device."""
        room, place = enter(self._be, self)
        finite = self._gpu.here(lambda: self._answer(room, place, theta, X, out))
        leave(self._be, room)
        return finite

    def _answer(self, room: Room, place: Place, theta: Array, X: Array, out: Array) -> bool:
        key = X.shape[0], theta.data.ptr, X.data.ptr, out.data.ptr
        replay = place.replays.get(key)
        if replay is None and self._is_repeated(place, key):
            replay = self._record(room, place, key, X, out)
        if replay is not None:
            _keep(place.replays, key, replay)
            replay.launch()
        elif self._suits_a_graph(power_of_two(key[0])):
            replay = self._by_copies(room, place, key, X, out)
        else:
            self._by_blocks(room, place, key, X, out)
        self._gpu.wait()
        if not room.odd[0]:
            return True
        # neither the word nor rows that the next call does not fill may tell of this one
        room.odd[0] = 0
        if replay is not None and replay.X is not None:
            self._be.fill(replay.X, 0)
            self._gpu.wait()  # the next call may be on another stream
        return False

    # ---------------------------------------------------------------- three ways

    def _is_repeated(self, place: Place, key: tuple[int, ...]) -> bool:
        """Whether a call should have a graph of its own.

        It is not the first of its kind, has one block of rows, and no layer reads what it has written. Once there are
        many graphs, one gives way only to a call that comes twice in a row.
        """
        if key[0] > self.block or (len(self._sizes) == 2 and key[2] == key[3]):
            return False
        again = key == place.last or (key in place.seen and len(place.replays) < MOST_GRAPHS)
        place.last = key
        _keep(place.seen, key, None)
        return again

    def _by_copies(self, room: Room, place: Place, key: tuple[int, ...], X: Array, out: Array) -> Replay:
        """Queue a graph over memory of its own, which holds rows to spare."""
        m, theta = key[:2]
        rows = power_of_two(m)
        replay = place.replays.get((rows, theta))
        if replay is None:
            own = (
                self._be.zeros((rows, self._sizes[0]), self._dtype),
                self._be.empty((rows, self._sizes[-1]), self._dtype),
            )
            replay = self._record(room, place, (rows, theta), *own)
            replay.X, replay.out = own
        _keep(place.replays, (rows, theta), replay)
        self._be.copy(X, out=replay.X[:m])
        replay.launch()
        self._be.copy(replay.out[:m], out=out)
        return replay

    def _by_blocks(self, room: Room, place: Place, key: tuple[int, ...], X: Array, out: Array) -> None:
        """Queue one block of rows after the other."""
        m, theta = key[:2]
        apart = len(self._sizes) == 2 and key[2] == key[3]  # the only layer would read what it has written
        for start in range(0, m, self.block):
            rows = min(self.block, m - start)
            H, answer = (X, out) if rows == m else (X[start : start + rows], out[start : start + rows])
            layers = self._layers(room, place, rows, theta)
            if apart:
                self._grow(place, rows)
                elsewhere = place.hidden[0][: answer.size].reshape(answer.shape)
                self._queue(room, layers, H, elsewhere)
                self._be.copy(elsewhere, out=answer)
            else:
                self._queue(room, layers, H, answer)

    def _record(self, room: Room, place: Place, key: tuple[int, ...], X: Array, out: Array) -> Replay:
        """Capture all layers. A graph reads the parameters where they lie, whatever they are then."""
        layers = self._layers(room, place, *key[:2])
        graph = self._gpu.capture(lambda: self._queue(room, layers, X, out), lambda: None)
        return Replay(graph.launch, layers)

    @staticmethod
    def _queue(room: Room, layers: list[Layer], X: Array, out: Array) -> None:
        """Queue all layers: ``H[1] = X``, ``H[l+1] = act(H[l] @ W[l] + b[l])``, ``out = H[L]``."""
        if any(layer.multiply for layer in layers):
            room.use_current_stream()
        H = X
        for layer in layers:
            after = out if layer.H is None else layer.H
            layer.queue(H, after)
            H = after

    # ---------------------------------------------------------------- memory

    def _layers(self, room: Room, place: Place, rows: int, theta: int) -> list[Layer]:
        """Return the layers for so many rows, with parameters at an address."""
        layers = place.layers.get((rows, theta))
        if layers is None:
            if len(self._sizes) > 2:
                self._grow(place, rows)
            layers = self._maker.make(room, place.hidden, rows, theta)
        _keep(place.layers, (rows, theta), layers)
        return layers

    def _grow(self, place: Place, rows: int) -> None:
        """Have H of so many rows; what was made ready for less keeps what it has."""
        if place.rows < rows:
            place.rows = min(power_of_two(rows), self.block)
            place.hidden = [self._be.empty(place.rows * max(self._sizes[1:]), self._dtype) for _ in range(2)]
            place.layers.clear()

    def _suits_a_graph(self, rows: int) -> bool:
        return rows * max(self._sizes) * self._dtype.itemsize <= GRAPH_BYTES and not self._maker.has_wide(rows)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Put a value last, and let the first go where there are too many."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > MOST_GRAPHS:
        del kept[next(iter(kept))]
