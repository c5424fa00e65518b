"""Which kernels carry out the layers of a prediction on an NVIDIA GPU, and with what.

By the number of samples and the size of the layer:

=================  ================================================================================================
``answer_few``     up to four samples: W is read once, by so many threads that nearly all of it is on its way
``answer``         products in tiles, whose blocks go on with bias and activation
cuBLAS             wide products; ``finish_answer`` follows, one pass of bias and activation
``answer_narrow``  a narrow last layer behind cuBLAS: it takes over what would follow that product
=================  ================================================================================================

The kernels are in ``few.cuh``, ``inference.cuh`` and ``narrow.cuh``. The choices are reckoned from times of an H200;
the kernels for few samples and narrow ends are not measured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_device import THREADS, CudaDevice, power_of_two
from bpcore.backends.cupy_products import CudaProducts
from bpcore.functions.program import Program
from bpcore.inference.contract import ForwardSpec
from bpcore.inference.cuda_room import Layer, Room
from bpcore.kernels.cuda import pieces
from bpcore.kernels.cuda.source import few_unit, inference_unit, narrow_unit
from bpcore.kernels.cuda.tiling import Tiling
from bpcore.typing import Array

__all__ = ["LayerMaker"]

LEAST_WIDE = 2**25
"""Multiplications m * k * n from which a product goes to cuBLAS. Our own do 16 of them for 8 numbers from shared
memory, which bounds them by half of the peak; reckoned with a third of cuBLAS's 51 TFLOP/s, 2**25 take 3.9 us against
1.3. The difference pays for one more kernel, 2.6 us, which reads and writes (m, n) once more."""
NARROW = 32
"""Outputs up to which a product is ours whatever its size: cuBLAS fills no larger tile with them either, and ours go on
with a row-wise activation."""
NARROW_BYTES = 40 * 2**10
"""Bytes of the last W up to which it is joined to a product by cuBLAS: it lies in shared memory, of which a block has
48 KiB without asking. A pass over (m, n) and a launch less, 4 us and more of 4096 samples by reckoning."""
FEW = 4
"""Samples up to which a layer is a kernel that reads W once and shares nothing, 2 to 2.5 us by reckoning. Tiles, whose
sums are split among blocks, took 5 to 6 ..."""
FEW_COLUMNS = 8
"""... with so many columns of W to a block, a sector of memory in float32, or :data:`NARROW` for whole rows ..."""
FEW_PACKS = 32
"""... as long as a thread has no more packs of 16 bytes to read, one after the other, or all multiprocessors have a
block."""

_UNITS = {"answer_few": few_unit, "answer_narrow": narrow_unit}
Shape = tuple[tuple[int, ...], tuple[int, ...]]


class LayerMaker:
    """Makes the layers of a network ready; parameters as for :func:`~bpcore.inference.make_inference`."""

    def __init__(self, be: Backend, spec: ForwardSpec) -> None:
        self._be, self._layout, self._sizes = be, spec.layout, spec.sizes
        self._activations, self._dtype = spec.activations, spec.dtype
        self._gpu: CudaDevice = be.gpu
        kinds = [(None if f.rowwise else Program({"h": f.value_formula}), f.rowwise) for f in spec.activations]
        self._printed = pieces.print_activations([pieces.Layer(value, None, rowwise) for value, rowwise in kinds])
        text, dtype = self._printed.text, spec.dtype
        self._products = CudaProducts(be, dtype, lambda *shape: inference_unit(text, dtype, *shape))
        self._kernels: dict[tuple[Any, ...], Any] = {}

    def make(self, room: Room, hidden: Sequence[Array], m: int, theta: int) -> list[Layer]:
        """Return the layers for m rows.

        Parameters
        ----------
        room : Room
            What else they use.
        hidden : sequence of Array
            Two vectors for H, in turn; none are needed for a single layer.
        m : int
            Rows.
        theta : int
            Address of the parameters.
        """
        joined, last = self._is_joined(m), len(self._sizes) - 1
        layers = []
        for l in range(1, last + 1):
            n_in, n = self._sizes[l - 1 : l + 1]
            H = None if l == last else hidden[l % 2][: m * n].reshape(m, n)
            if joined and l == last:
                layers.append(self._end(room, theta, m, l))
            elif self._columns_of_few(m, l):
                layers.append(self._few(room, theta, m, l, H))
            elif self._is_wide(m, n_in, n):
                layers.append(self._wide(room, theta, m, l, H, finished=not (joined and l == last - 1)))
            else:
                layers.append(self._tiled(room, theta, m, l, H))
        return layers

    def has_wide(self, m: int) -> bool:
        """Whether m rows need a product by cuBLAS."""
        return any(self._is_wide(m, n_in, n) for n_in, n in pairwise(self._sizes))

    # ---------------------------------------------------------------- kinds of layers

    def _few(self, room: Room, theta: int, m: int, l: int, H: Array) -> Layer:
        n_in, n = self._sizes[l - 1 : l + 1]
        columns = self._columns_of_few(m, l)
        kernel = self._kernel("answer_few", power_of_two(m), columns)
        launch = _launched(kernel, ((-(-n // columns),), (THREADS,)))
        others = *self._how(room, l), np.int64(m), np.int64(n_in), np.int64(n)
        return Layer(*self._addresses(theta, l), H, None, launch, others, self._rowwise(l, columns))

    def _tiled(self, room: Room, theta: int, m: int, l: int, H: Array) -> Layer:
        n_in, n = self._sizes[l - 1 : l + 1]
        tiling = self._cut(m, l)
        self._products.load("answer", tiling)  # a graph may be captured next
        launch = partial(self._products.launch, "answer", tiling)
        sizes = np.int64(m), np.int64(n_in), np.int64(n)
        others = *self._how(room, l), *sizes, np.int32(tiling.splits), *room.sums(self._products, tiling)
        return Layer(*self._addresses(theta, l), H, None, launch, others, self._rowwise(l, tiling.columns))

    def _wide(self, room: Room, theta: int, m: int, l: int, H: Array, *, finished: bool) -> Layer:
        n_in, n = self._sizes[l - 1 : l + 1]
        multiply, launch = room.cublas.prepare(m, n_in, n, str(self._dtype)), None
        if finished:
            kernel = self._products.load("finish_answer", self._cut(m, l))
            launch = _launched(kernel, self._gpu.plane(m, -(-n * self._dtype.itemsize // 16)))
        others = *self._how(room, l), np.int64(m), np.int64(n)
        return Layer(*self._addresses(theta, l), H, multiply, launch, others, self._rowwise(l, 0))

    def _end(self, room: Room, theta: int, m: int, l: int) -> Layer:
        n_in, n = self._sizes[l - 1 : l + 1]
        before, code = (np.int32(code) for code in self._printed.codes[-2:])
        _, bias_before = self._addresses(theta, l - 1)
        words = n * self._dtype.itemsize // 4
        at_once = 4 if words <= 16 else 2 if words <= 32 else 1  # samples of a warp, as in narrow.cuh
        blocks = min(-(-m * 32 // (at_once * THREADS)), self._gpu.max_blocks)
        launch = _launched(self._kernel("answer_narrow", n_in, n), ((blocks,), (THREADS,)))
        others = bias_before, before, np.int32(l == 2), room.odd_at, code, np.int64(m)
        return Layer(*self._addresses(theta, l), None, None, launch, others, None)

    # ---------------------------------------------------------------- choices

    def _is_joined(self, m: int) -> bool:
        """Whether the last layer goes on with a product by cuBLAS in the layer before."""
        if len(self._sizes) == 2 or self._printed.codes[-2] < 0:
            return False
        before, n_in, n = self._sizes[-3:]
        narrow = n <= NARROW and n * n_in * self._dtype.itemsize <= NARROW_BYTES
        return narrow and self._is_wide(m, before, n_in) and not self._columns_of_few(m, len(self._sizes) - 2)

    @staticmethod
    def _is_wide(m: int, n_in: int, n: int) -> bool:
        return n > NARROW and m * n_in * n >= LEAST_WIDE

    def _columns_of_few(self, m: int, l: int) -> int:
        """Columns of a block of the kernel for few samples, 0 where it is not for this layer."""
        n_in, n = self._sizes[l - 1 : l + 1]
        columns = NARROW if self._printed.codes[l - 1] < 0 and FEW_COLUMNS < n <= NARROW else FEW_COLUMNS
        packs = n_in * columns * self._dtype.itemsize // 16
        short = packs <= FEW_PACKS * THREADS or n >= columns * self._gpu.multiprocessors
        return columns if m <= FEW and short else 0

    def _cut(self, m: int, l: int) -> Tiling:
        """How the product of m samples with W[l] is cut; a row-wise activation wants whole rows."""
        return self._products.cut([(m, self._sizes[l])], self._sizes[l - 1], whole_rows=self._printed.codes[l - 1] < 0)

    # ---------------------------------------------------------------- arguments

    def _addresses(self, theta: int, l: int) -> tuple[np.uint64, np.uint64]:
        """Where W[l] and b[l] are: addresses, so that nothing here keeps parameters that were replaced."""
        W, b = self._layout.blocks[2 * l - 2 : 2 * l]
        item = self._dtype.itemsize
        return np.uint64(theta + W.offset * item), np.uint64(theta + b.offset * item)

    def _how(self, room: Room, l: int) -> tuple[Any, ...]:
        """Code of the activation, and whether and where a sum that is not finite is told."""
        return np.int32(self._printed.codes[l - 1]), np.int32(l == 1), room.odd_at

    def _rowwise(self, l: int, columns: int) -> Any:
        """What follows where the activation is row-wise, and rows are longer than what a block has finished."""
        if self._printed.codes[l - 1] >= 0 or self._sizes[l] <= columns:
            return None
        return self._be.softmax if self._activations[l - 1].rowwise == "softmax" else self._be.log_softmax

    def _kernel(self, name: str, *size: int) -> Any:
        key = name, *size
        if key not in self._kernels:
            self._kernels[key] = self._gpu.load(_UNITS[name](self._printed.text, self._dtype, *size), name)
        return self._kernels[key]


def _launched(kernel: Any, shape: Shape) -> Callable[[tuple[Any, ...]], None]:
    """Return what queues a kernel with the arguments that it is given."""
    return partial(kernel, *shape)
