"""Products of our own on one device: how they are cut, their kernels, and memory for split sums.

Where a device has clusters of blocks, those that share a sum are one and pass their parts on chip. Elsewhere the parts
go through memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cupy_cluster import largest_cluster, largest_shared_memory
from bpcore.kernels.cuda.tiling import SHAPES, Tiling, choose_tiling, shared_bytes, threads_of
from bpcore.typing import Array

__all__ = ["CudaProducts"]


class CudaProducts:
    """Kernels made of ``product.cuh``.

    Parameters
    ----------
    be : Backend
        CuPy's.
    dtype : dtype
        float32 or float64.
    unit : callable
        ``unit(rows, columns, together)`` is the text of the kernels for such tiles and clusters.

    Attributes
    ----------
    dtype : dtype
        As given.
    """

    early = True
    """Whether kernels begin while those before them end, where that is possible; False is for measurements."""
    clusters = True
    """Whether blocks that share a sum are a cluster, where there are clusters; False is for measurements."""

    def __init__(self, be: Backend, dtype: Any, unit: Callable[[int, int, int], str]) -> None:
        self._be, self._gpu = be, be.gpu
        self.dtype, self._unit = np.dtype(dtype), unit
        properties = self._gpu.properties()
        self._clusters = self.clusters and largest_cluster(properties) > 1
        available = largest_shared_memory(properties)
        self._shapes = [shape for shape in SHAPES if shared_bytes(*shape, self.dtype.itemsize) <= available]
        self._kernels: dict[tuple[str, int, int, int], tuple[Any, Any]] = {}

    def cut(self, products: Sequence[tuple[int, int]], k: int, *, whole_rows: bool = False) -> Tiling:
        """Cut products (m, n) of one launch, each a sum over k; see :func:`~bpcore.kernels.cuda.tiling.choose_tiling`.

        Parameters
        ----------
        products : sequence of (m, n)
            Their sizes.
        k : int
            Terms of each sum.
        whole_rows : bool, default False
            Whether tiles are to be as wide as the widest product, if there are such tiles.
        """
        widest = max(n for _, n in products)
        wide = [shape for shape in self._shapes if shape[1] >= widest] if whole_rows else []
        return choose_tiling(products, k, int(self._gpu.multiprocessors), wide or self._shapes)

    def together(self, tiling: Tiling) -> int:
        """Blocks of the clusters of a launch."""
        return tiling.splits if self._clusters else 1

    def scratch_size(self, tilings: Sequence[Tiling]) -> int:
        """Elements that split sums of the largest of these launches need."""
        return max([t.blocks * t.rows * t.columns for t in tilings if t.splits > self.together(t)], default=1)

    def scratch(self, size: int) -> tuple[Array, Array]:
        """Allocate so many elements for split sums, and counters of the blocks that have arrived."""
        # where a sum is split there are at most two blocks to a multiprocessor
        return self._be.empty(size, self.dtype), self._be.zeros(2 * self._gpu.multiprocessors, np.uint32)

    def load(self, name: str, tiling: Tiling) -> Any:
        """Return a kernel for such tiles, compiled at first use, which is before a stream is captured."""
        return self._loaded(name, tiling)[0]

    def launch(self, name: str, tiling: Tiling, arguments: tuple[Any, ...]) -> None:
        """Queue a kernel on the current stream."""
        _, launch = self._loaded(name, tiling)
        launch(((tiling.blocks,), (threads_of(*tiling.shape),)), arguments)

    def _loaded(self, name: str, tiling: Tiling) -> tuple[Any, Any]:
        """Return a kernel and what launches it."""
        together = self.together(tiling)
        key = name, tiling.rows, tiling.columns, together
        if key not in self._kernels:
            shared = shared_bytes(*tiling.shape, self.dtype.itemsize)
            source = self._unit(tiling.rows, tiling.columns, together)
            kernel = self._gpu.load(source, name, shared=shared, cluster=together)
            begins_early = self.early and self._gpu.early is not None
            launch = self._gpu.launch_early if begins_early else self._gpu.launch
            self._kernels[key] = kernel, partial(launch, kernel, shared=shared)
        return self._kernels[key]
