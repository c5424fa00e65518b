"""Prediction on an NVIDIA GPU: repeated calls and few samples by a CUDA graph, many in blocks of rows.

What a call waits for is the host as much as the device: a kernel takes the host 5 us, and a product by cuBLAS more. So
who asks again with the same arrays gets a CUDA graph that reads and writes them where they lie, up to one block of
rows; more take so long that the host is ahead of the device. Few samples in other arrays are copied into a graph's own
memory, and the outputs out of it; there is one for each power of two of rows, and rows that a call does not fill are
computed and not looked at. Graphs are captured at first use. Everything else is queued layer by layer.

Many samples are bound by products. A block of rows goes through the layers at once; wide products go to cuBLAS, with
bias and activation in one pass after them. What a call needs besides its arrays is a room of
:mod:`bpcore.inference_room`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_device import THREADS, CudaDevice, power_of_two
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.inference_room import Layer, Place, Replay, Room, enter, leave
from bpcore.kernels.cuda import pieces
from bpcore.kernels.cuda.source import few_unit, inference_unit
from bpcore.kernels.cuda.tiling import choose_tiling
from bpcore.layout import ParameterLayout
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
LEAST_WIDE = 2**25
"""Multiplications m * k * n from which a product goes to cuBLAS. Our own do 16 of them for 8 numbers from shared
memory, which bounds them by half of the peak; reckoned with a third of cuBLAS's 51 TFLOP/s, 2**25 take 3.9 us against
1.3. The difference pays for one more kernel, 2.6 us, which reads and writes (m, n) once more."""
NARROW = 32
"""Outputs up to which a product is ours whatever its size: cuBLAS fills no larger tile with them either, and ours go on
with a row-wise activation."""
MOST_COLUMNS = 64
FEW = 4
"""Samples up to which a layer is a kernel that reads W once and shares nothing, 2 to 2.5 us by reckoning. Tiles, whose
sums are split among blocks, took 5 to 6 ..."""
FEW_COLUMNS = 8
"""... with so many columns of W to a block, a sector of memory in float32, or :data:`NARROW` for whole rows ..."""
FEW_PACKS = 32
"""... as long as a thread has no more packs of 16 bytes to read, one after the other, or all multiprocessors have a
block."""


class CudaInference:
    """The forward pass by kernels of its own; parameters as for :func:`bpcore.inference.make_inference`."""

    refuses = True

    def __init__(
        self,
        be: Backend,
        layout: ParameterLayout,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        dtype: np.dtype[Any],
    ) -> None:
        self.be, self.layout, self.sizes, self.activations, self.dtype = be, layout, sizes, activations, dtype
        self._gpu: CudaDevice = be.gpu  # type: ignore[attr-defined]
        layers = [
            pieces.Layer(None if f.rowwise else Program({"h": f.value_formula}), None, f.rowwise) for f in activations
        ]
        self._printed = pieces.print_activations(layers)
        self.block = max(LEAST_ROWS, BLOCK_BYTES // (2 * max(sizes[1:]) * dtype.itemsize))
        self._kernels: dict[tuple[str, int, int], Any] = {}

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`bpcore.inference.Inference`; waits for the device."""
        room, place = enter(self.be, self)
        finite = self._gpu.here(lambda: self._answer(room, place, theta, X, out))
        leave(self.be, room)
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
            self.be.fill(replay.X, 0)
            self._gpu.wait()  # the next call may be on another stream
        return False

    # ---------------------------------------------------------------- three ways

    def _is_repeated(self, place: Place, key: tuple[int, ...]) -> bool:
        """Whether a call should have a graph of its own.

        It is not the first of its kind, has one block of rows, and no layer reads what it has written. Once there are
        many graphs, one gives way only to a call that comes twice in a row.
        """
        if key[0] > self.block or (len(self.sizes) == 2 and key[2] == key[3]):
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
            own = self.be.zeros((rows, self.sizes[0]), self.dtype), self.be.empty((rows, self.sizes[-1]), self.dtype)
            replay = self._record(room, place, (rows, theta), *own)
            replay.X, replay.out = own
        _keep(place.replays, (rows, theta), replay)
        self.be.copy(X, out=replay.X[:m])
        replay.launch()
        self.be.copy(replay.out[:m], out=out)
        return replay

    def _by_blocks(self, room: Room, place: Place, key: tuple[int, ...], X: Array, out: Array) -> None:
        """Queue one block of rows after the other."""
        m, theta = key[:2]
        apart = len(self.sizes) == 2 and key[2] == key[3]  # the only layer would read what it has written
        for start in range(0, m, self.block):
            rows = min(self.block, m - start)
            H, answer = (X, out) if rows == m else (X[start : start + rows], out[start : start + rows])
            layers = self._layers(room, place, rows, theta)
            if apart:
                self._grow(place, rows)
                elsewhere = place.hidden[0][: answer.size].reshape(answer.shape)
                self._queue(room, layers, H, elsewhere)
                self.be.copy(elsewhere, out=answer)
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

    # ---------------------------------------------------------------- layers made ready

    def _layers(self, room: Room, place: Place, rows: int, theta: int) -> list[Layer]:
        """Return the layers for so many rows, with parameters at an address."""
        layers = place.layers.get((rows, theta))
        if layers is None:
            if len(self.sizes) > 2:
                self._grow(place, rows)
            layers = [self._layer(room, place, rows, theta, l) for l in range(1, len(self.sizes))]
        _keep(place.layers, (rows, theta), layers)
        return layers

    def _grow(self, place: Place, rows: int) -> None:
        """Have H of so many rows; what was made ready for less keeps what it has."""
        if place.rows < rows:
            place.rows = min(power_of_two(rows), self.block)
            place.hidden = [self.be.empty(place.rows * max(self.sizes[1:]), self.dtype) for _ in range(2)]
            place.layers.clear()

    def _layer(self, room: Room, place: Place, m: int, theta: int, l: int) -> Layer:
        n_in, n, code = self.sizes[l - 1], self.sizes[l], self._printed.codes[l - 1]
        W, b = (
            np.uint64(theta + block.offset * self.dtype.itemsize) for block in self.layout.blocks[2 * l - 2 : 2 * l]
        )
        H = None if l == len(self.sizes) - 1 else place.hidden[l % 2][: m * n].reshape(m, n)
        how = np.int32(code), np.int32(l == 1), room.odd_at
        rows, columns, tiles, splits = self._tiles(m, n_in, n)
        multiply = rowwise = None
        shape: tuple[tuple[int, ...], tuple[int, ...]]
        others: tuple[Any, ...]
        few = self._columns_of_few(m, n_in, n, code)
        if few:
            kernel = self._kernel("answer_few", power_of_two(m), few)
            shape, columns = ((-(-n // few),), (THREADS,)), few
            others = *how, np.int64(m), np.int64(n_in), np.int64(n)
        elif self._is_wide(m, n_in, n):
            multiply = room.cublas.prepare(m, n_in, n, str(self.dtype))
            kernel = self._kernel("finish_answer", rows, columns)
            shape = self._gpu.plane(m, -(-n * self.dtype.itemsize // 16))
            others = *how, np.int64(m), np.int64(n)
            columns = 0  # rows are not finished
        else:
            kernel = self._kernel("answer", rows, columns)
            shape = (tiles * splits,), (THREADS,)
            parts, arrived = room.sums(self.dtype, tiles * splits * rows * columns if splits > 1 else 1, tiles)
            others = *how, np.int64(m), np.int64(n_in), np.int64(n), np.int32(splits), parts, arrived
        if code < 0 and n > columns:
            rowwise = self.be.softmax if self.activations[l - 1].rowwise == "softmax" else self.be.log_softmax
        return Layer(W, b, H, multiply, kernel, shape, others, rowwise)

    def _suits_a_graph(self, rows: int) -> bool:
        small = rows * max(self.sizes) * self.dtype.itemsize <= GRAPH_BYTES
        return small and not any(self._is_wide(rows, n_in, n) for n_in, n in pairwise(self.sizes))

    @staticmethod
    def _is_wide(m: int, n_in: int, n: int) -> bool:
        return n > NARROW and m * n_in * n >= LEAST_WIDE

    def _columns_of_few(self, m: int, n_in: int, n: int, code: int) -> int:
        """Columns of a block of the kernel for few samples, 0 where it is not for this layer."""
        columns = NARROW if code < 0 and FEW_COLUMNS < n <= NARROW else FEW_COLUMNS
        packs = n_in * columns * self.dtype.itemsize // 16
        short = packs <= FEW_PACKS * THREADS or n >= columns * self._gpu.multiprocessors
        return columns if m <= FEW and short else 0

    def _tiles(self, m: int, n_in: int, n: int) -> tuple[int, int, int, int]:
        """Rows and columns of a tile, the number of tiles, and among how many blocks the sum of each is split."""
        tiling = choose_tiling(m, n, n_in, self._gpu.multiprocessors)
        return tiling.size, min(tiling.size, MOST_COLUMNS if n > NARROW else NARROW), tiling.tiles, tiling.splits

    def _kernel(self, name: str, rows: int, columns: int) -> Any:
        key = name, rows, columns
        if key not in self._kernels:
            unit = few_unit if name == "answer_few" else inference_unit
            self._kernels[key] = self._gpu.load(unit(self._printed.text, self.dtype, rows, columns), name)
        return self._kernels[key]


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Put a value last, and let the first go where there are too many."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > MOST_GRAPHS:
        del kept[next(iter(kept))]
