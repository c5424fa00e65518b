"""Prediction on an NVIDIA GPU: few samples by a captured graph, many in blocks of rows.

Few samples are bound by launches. All layers are one CUDA graph, one kernel a layer. Who asks again with the same
arrays gets a graph that reads and writes them where they lie. Else the graph has memory of its own, the samples are
copied in and the outputs copied out; there is one for each power of two of rows, and rows that a call does not fill are
computed and not looked at. Graphs are captured at first use.

Many samples are bound by products. A block of rows goes through the layers at once; wide products go to cuBLAS, with
bias and activation in one pass after them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_device import power_of_two
from bpcore.backends.cupy_products import CudaProducts
from bpcore.functions.activations import Activation
from bpcore.functions.program import Program
from bpcore.kernels.cuda.pieces import Layer, print_activations
from bpcore.kernels.cuda.source import inference_unit
from bpcore.kernels.cuda.tiling import Tiling
from bpcore.layout import ParameterLayout
from bpcore.typing import Array, NDArray

__all__ = ["CudaInference"]

GRAPH_BYTES = 2**20
"""Samples go through a graph if no layer of them is larger. To copy that much takes a microsecond in device memory; to
launch the kernels one by one takes the host about 5 a layer."""
MOST_GRAPHS = 16
"""Graphs that are kept while nobody uses them; the one that was not used for longest goes first."""
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


@dataclass
class _Memory:
    """What a call needs besides its arguments; no two calls have the same at a time.

    ``key`` is the number of rows, and for a graph the addresses of what is not its own: theta, perhaps X and out.
    ``odd`` is 1 if the first product was not finite; it is in the memory of the host, at ``odd_at``.
    """

    key: tuple[int, ...]
    hidden: list[Array]
    parts: Array
    arrived: Array
    odd: NDArray[np.uint32]
    odd_at: np.uint64
    X: Array = None
    out: Array = None
    graph: Any = None


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
        self._gpu: Any = be.gpu  # type: ignore[attr-defined]
        layers = [Layer(None if f.rowwise else Program({"h": f.value_formula}), None, f.rowwise) for f in activations]
        self._printed = print_activations(layers)
        self.block = max(LEAST_ROWS, BLOCK_BYTES // (2 * max(sizes[1:]) * dtype.itemsize))
        text = self._printed.text
        self._products = CudaProducts(be, dtype, lambda *shape: inference_unit(text, dtype, *shape))
        self._idle: list[_Memory] = []
        self._last: tuple[int, ...] = ()
        self._lock = threading.Lock()

    def __call__(self, theta: Array, X: Array, out: Array) -> bool:
        """See :class:`bpcore.inference.Inference`; waits for the device."""
        m = X.shape[0]
        if self._suits_a_graph(power_of_two(m)):
            memory = self._by_a_graph(theta, X, out)
        else:
            memory = self._borrow((self.block,)) or self._allocate((self.block,))
            for start in range(0, m, self.block):
                self._queue_block(theta, X[start : start + self.block], out[start : start + self.block], memory)
        self._gpu.wait()
        finite = not memory.odd[0]
        if not finite:  # neither the word nor rows that the next call does not fill may tell of this one
            memory.odd[0] = 0
            if memory.X is not None:
                self.be.fill(memory.X, 0)
                self._gpu.wait()  # the next call may be on another stream
        self._give_back(memory)
        return finite

    def _by_a_graph(self, theta: Array, X: Array, out: Array) -> _Memory:
        """Queue a graph; return what it uses."""
        be, m = self.be, X.shape[0]
        key: tuple[int, ...] = (m, theta.data.ptr, X.data.ptr, out.data.ptr)
        memory, again = self._borrow(key), key == self._last
        self._last = key
        # a layer may not read what it has written
        if memory is None and again and (len(self.sizes) > 2 or key[2] != key[3]):
            memory = self._allocate(key)
            memory.graph = self._captured(theta, X, out, memory)
        if memory is not None:
            self._gpu.here(memory.graph.launch)
            return memory
        key = power_of_two(m), theta.data.ptr
        memory = self._borrow(key) or self._capture(theta, key)
        be.copy(X, out=memory.X[:m])
        self._gpu.here(memory.graph.launch)
        be.copy(memory.out[:m], out=out)
        return memory

    # ---------------------------------------------------------------- memory

    def _borrow(self, key: tuple[int, ...]) -> _Memory | None:
        with self._lock:
            for k in reversed(range(len(self._idle))):
                if self._idle[k].key == key:
                    return self._idle.pop(k)
        return None

    def _give_back(self, memory: _Memory) -> None:
        with self._lock:
            self._idle.append(memory)
            del self._idle[:-MOST_GRAPHS]

    def _allocate(self, key: tuple[int, ...]) -> _Memory:
        be, rows, products = self.be, key[0], self._products
        # a graph knows how its sums are split; the last block of many samples may have any number of rows
        cuts = [self._cut(rows, l) for l in range(1, len(self.sizes))] if len(key) > 1 else None
        hidden = [be.empty(rows * max(self.sizes[1:]), self.dtype) for _ in range(2)]
        return _Memory(key, hidden, *products.scratch(products.scratch_size(cuts)), *self._gpu.host_word())

    def _capture(self, theta: Array, key: tuple[int, ...]) -> _Memory:
        """Capture the graph of so many rows over memory of its own."""
        memory = self._allocate(key)
        memory.X = self.be.zeros((key[0], self.sizes[0]), self.dtype)
        memory.out = self.be.empty((key[0], self.sizes[-1]), self.dtype)
        memory.graph = self._captured(theta, memory.X, memory.out, memory)
        return memory

    def _captured(self, theta: Array, X: Array, out: Array, memory: _Memory) -> Any:
        """Capture all layers. A graph reads the parameters where they lie, whatever they are then."""
        return self._gpu.capture(lambda: self._queue(theta, X, out, memory), lambda: None)

    # ---------------------------------------------------------------- kernels

    def _suits_a_graph(self, rows: int) -> bool:
        small = rows * max(self.sizes) * self.dtype.itemsize <= GRAPH_BYTES
        return small and not any(self._is_wide(rows, n_in, n) for n_in, n in pairwise(self.sizes))

    @staticmethod
    def _is_wide(m: int, n_in: int, n: int) -> bool:
        return n > NARROW and m * n_in * n >= LEAST_WIDE

    def _cut(self, m: int, l: int) -> Tiling:
        """How the product of m samples with W[l] is cut; a row-wise activation wants whole rows."""
        return self._products.cut([(m, self.sizes[l])], self.sizes[l - 1], whole_rows=self._printed.codes[l - 1] < 0)

    def _queue_block(self, theta: Array, X: Array, out: Array, memory: _Memory) -> None:
        if len(self.sizes) > 2 or out.data.ptr != X.data.ptr:
            self._queue(theta, X, out, memory)
            return
        # the only layer would read what it has written
        apart = memory.hidden[0][: out.size].reshape(out.shape)
        self._queue(theta, X, apart, memory)
        self.be.copy(apart, out=out)

    def _queue(self, theta: Array, X: Array, out: Array, memory: _Memory) -> None:
        """Queue all layers: ``H[1] = X``, ``H[l+1] = act(H[l] @ W[l] + b[l])``, ``out = H[L]``."""
        m, L = X.shape[0], len(self.sizes)
        W, b = self.layout.views(theta, "W"), self.layout.views(theta, "b")
        H = X
        for l in range(1, L):
            n = self.sizes[l]
            after = out if l == L - 1 else memory.hidden[l % 2][: m * n].reshape(m, n)
            self._queue_layer(l, H, W[l], b[l], after, memory)
            H = after

    def _queue_layer(self, l: int, A: Array, W: Array, b: Array, H: Array, memory: _Memory) -> None:
        (m, n_in), n, code = A.shape, W.shape[1], self._printed.codes[l - 1]
        how = np.int32(code), np.int32(l == 1), memory.odd_at
        tiling = self._cut(m, l)
        columns = tiling.columns
        if self._is_wide(m, n_in, n):
            self.be.matmul(A, W, out=H)
            finish, _ = self._products.load("finish_answer", tiling)
            runs = -(-n * self.dtype.itemsize // 16)
            self._gpu.launch(finish, self._gpu.plane(m, runs), (H, b, *how, np.int64(m), np.int64(n)))
            columns = 0  # rows are not finished
        else:
            sizes = np.int64(m), np.int64(n_in), np.int64(n)
            arguments = A, W, b, H, *how, *sizes, np.int32(tiling.splits), memory.parts, memory.arrived
            self._products.launch("answer", tiling, arguments)
        if code < 0 and n > columns:
            rowwise = self.be.softmax if self.activations[l - 1].rowwise == "softmax" else self.be.log_softmax
            rowwise(H, out=H)
