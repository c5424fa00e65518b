"""One GPU as the CuPy backend uses it: its kernels, its launches, and memory for partial sums.

Launches have blocks of 256 threads and at most eight blocks a multiprocessor, which is as many threads as one can
hold (2048 on compute capability 8.0 and 9.0); all kernels are loops over the grid, so more blocks would only queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from bpcore.backends.cupy_cluster import prepare_cluster
from bpcore.backends.cupy_early import EarlyLaunch, load_driver
from bpcore.functions.expression import evaluate
from bpcore.functions.program import Program
from bpcore.functions.scalars import evaluate_scalars
from bpcore.kernels.cuda.build import KernelLoader
from bpcore.kernels.cuda.source import ElementwiseKernel, early_source, print_elementwise, unit_source
from bpcore.typing import Array, NDArray

__all__ = ["THREADS", "CudaDevice", "Formula", "power_of_two"]

R = TypeVar("R")
Sizes = tuple[int, ...]

THREADS = 256
BLOCKS_PER_MULTIPROCESSOR = 8
GRID_Y_LIMIT = 65535
LEAST_PARTIALS = 4096
EARLY_CAPABILITY = 90
EARLY_TRIES = 3
"""Kernels of the graph that shows whether launches may begin early."""
WIDEST_FOR_LANES = 512
"""Widest row that a warp works on; wider ones get a block. A choice by reasoning (16 columns a lane), not measured."""


class Formula:
    """A loaded element-wise kernel, and the scalar values it was launched with last."""

    def __init__(self, printed: ElementwiseKernel, function: Any, dtype: Any, scalars: tuple[str, ...]) -> None:
        self.printed = printed
        self.function = function
        self._type = np.dtype(dtype).type
        self._scalars = scalars
        self._last: tuple[tuple[float, ...], tuple[Any, ...]] | None = None

    def numbers(self, args: dict[str, Any]) -> tuple[Any, ...]:
        """Values that the kernel takes, from the scalar arguments; computed anew only when those have changed."""
        given = tuple([float(args[name]) for name in self._scalars])
        last = self._last
        if last is not None and last[0] == given:
            return last[1]
        values: dict[str, Any] = dict(zip(self._scalars, given, strict=True))
        if self.printed.host is not None:
            values.update(_host_values(self.printed.host, values))
        with np.errstate(over="ignore"):
            packed = tuple([self._type(values[name]) for name in self.printed.numbers])
        self._last = (given, packed)
        return packed


def _host_values(program: Program, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(evaluate_scalars(program, values))
    except (ArithmeticError, ValueError):
        # Python raises where arrays give infinity or NaN; the array evaluation decides
        found = {name: np.float64(value) for name, value in values.items()}
        for target, expr in program.assignments:
            found[target] = evaluate(expr, found)
        return found


class _Partials(threading.local):
    """A buffer for each stream of a thread, so that two launches never share one by accident."""

    def __init__(self) -> None:
        self.buffers: dict[int, Array] = {}


class CudaDevice:
    """Kernels and launches on one device.

    Parameters
    ----------
    cupy : module
        CuPy.
    number : int
        Number of the device.

    Attributes
    ----------
    loader : KernelLoader
        What has been compiled.
    multiprocessors : int
        Of the device.
    max_blocks : int
        Largest grid that is launched.
    rooms : list
        What predictions keep between calls and nobody uses now, see :mod:`bpcore.inference.cuda_room`.
    """

    def __init__(self, cupy: Any, number: int) -> None:
        self.number = number
        self._cupy = cupy
        self._get_device = cupy.cuda.runtime.getDevice
        properties = self.properties()
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.max_blocks = BLOCKS_PER_MULTIPROCESSOR * self.multiprocessors
        self.loader = KernelLoader(cupy, 10 * int(properties["major"]) + int(properties["minor"]))
        self._formulas: dict[Any, Formula] = {}
        self._functions: dict[tuple[str, str, str], Any] = {}
        self._partials = _Partials()
        self.rooms: list[Any] = []

    def properties(self) -> dict[str, Any]:
        """CUDA's description of the device."""
        return dict(self._cupy.cuda.runtime.getDeviceProperties(self.number))

    def here(self, call: Callable[[], R]) -> R:
        """Call with this device as the current one, and leave the caller's as it was."""
        if self._get_device() == self.number:
            return call()
        with self._cupy.cuda.Device(self.number):
            return call()

    def launch(self, function: Any, shape: tuple[Sizes, Sizes], arguments: tuple[Any, ...], *, shared: int = 0) -> None:
        """Queue a kernel on the current stream; `shape` is the grid and the block, `shared` what it has of memory."""
        grid, block = shape
        self.here(lambda: function(grid, block, arguments, shared_mem=shared))

    def launch_early(
        self, function: Any, shape: tuple[Sizes, Sizes], arguments: tuple[Any, ...], *, shared: int = 0
    ) -> None:
        """As :meth:`launch`, for a kernel that waits itself for those before it, and where :attr:`early` is there."""
        early: Any = self.early
        (grid, block), stream = shape, self.current_stream()
        self.here(lambda: early(function, grid, block, arguments, shared=shared, stream=stream))

    @cached_property
    def early(self) -> EarlyLaunch | None:
        """Launches that begin early, if a graph of some works here; first asked for while nothing is captured."""
        driver = load_driver() if self.loader.capability >= EARLY_CAPABILITY else None
        return None if driver is None else self.here(lambda: self._try(EarlyLaunch(driver)))

    def _try(self, early: EarlyLaunch) -> EarlyLaunch | None:
        kernel = self.load(early_source(), "count_launches")
        out = self._cupy.empty(1, np.uint32)
        out.fill(0)

        def record() -> None:
            for _ in range(EARLY_TRIES):
                early(kernel, (1,), (1,), (out,), shared=0, stream=self.current_stream())

        try:
            self._capture(record, lambda: None).launch()
            return early if int(self._cupy.asnumpy(out)[0]) == 2**EARLY_TRIES - 1 else None
        except Exception:  # whatever CuPy makes of an older driver's answer
            return None

    def kernel(self, unit: str, dtype: Any, name: str) -> Any:
        """Return a kernel of one of the fixed units, built at first use."""
        key = (unit, dtype.char, name)
        function = self._functions.get(key)
        if function is None:
            source = unit_source(unit, dtype)
            function = self._functions[key] = self.here(lambda: self.loader.function(source, name))
        return function

    def formula(self, program: Program, kinds: tuple[str, ...], dtype: Any) -> Formula:
        """Return the kernel of a program for these kinds of its inputs, printed and built at first use."""
        key = (program, kinds, dtype)
        formula = self._formulas.get(key)
        if formula is None:
            printed = print_elementwise(program, dict(zip(program.inputs, kinds, strict=True)))
            source = printed.source(dtype)
            function = self.here(lambda: self.loader.function(source, printed.name))
            scalars = tuple(name for name, kind in zip(program.inputs, kinds, strict=True) if kind == "scalar")
            formula = self._formulas[key] = Formula(printed, function, dtype, scalars)
        return formula

    def load(self, source: str, name: str, *, shared: int = 0, cluster: int = 1) -> Any:
        """Return a kernel of a translation unit, compiled at first use.

        Parameters
        ----------
        source, name : str
            Text of the unit, and which of its kernels.
        shared : int, default 0
            Bytes of dynamic shared memory that a block will have.
        cluster : int, default 1
            Blocks of its clusters.
        """

        def load() -> Any:
            function = self.loader.function(source, name)
            if shared:
                prepare_cluster(function, shared, cluster)
            return function

        return self.here(load)

    def host_word(self) -> tuple[NDArray[np.uint32], np.uint64]:
        """A zero in the memory of the host that kernels can write too, and its address; read it after waiting."""
        memory = self.here(lambda: self._cupy.cuda.alloc_pinned_memory(4))
        word = np.ndarray(1, np.uint32, buffer=memory)
        word[0] = 0
        return word, np.uint64(word.ctypes.data)

    def wait(self) -> None:
        """Wait for what is queued on the current stream."""
        self.here(lambda: self._cupy.cuda.get_current_stream().synchronize())

    def current_stream(self) -> int:
        """Address of the stream on which things are queued."""
        return int(self._cupy.cuda.get_current_stream().ptr)

    def capture(self, record: Callable[[], None], warm_up: Callable[[], None]) -> Any:
        """Return a CUDA graph of what `record` queues; nothing of it is carried out.

        Parameters
        ----------
        record : callable
            Queues kernels and products. It may not allocate or wait. Everything that it names must live as long as
            the graph.
        warm_up : callable
            Called before, on the same stream, for what is allocated or loaded when it is done for the first time.
        """
        return self.here(lambda: self._capture(record, warm_up))

    def _capture(self, record: Callable[[], None], warm_up: Callable[[], None]) -> Any:
        stream = self._cupy.cuda.Stream(non_blocking=True)
        # what is queued elsewhere may be in use by the warm-up
        self._cupy.cuda.get_current_stream().synchronize()
        with stream:
            warm_up()
            stream.synchronize()
            stream.begin_capture()
            try:
                record()
            except BaseException:
                with suppress(Exception):
                    stream.end_capture()
                raise
            return stream.end_capture()

    def partials(self, size: int) -> Array:
        """Float64 memory that belongs to this thread and stream until its next call; grown, never shrunk."""
        stream = self.current_stream()
        buffer = self._partials.buffers.get(stream)
        if buffer is None or buffer.size < size:
            size = max(size, LEAST_PARTIALS)
            buffer = self._partials.buffers[stream] = self.here(lambda: self._cupy.empty(size, np.float64))
        return buffer

    def line(self, threads: int) -> tuple[Sizes, Sizes]:
        """Grid and block for so many independent threads."""
        return (max(1, min(-(-threads // THREADS), self.max_blocks)),), (THREADS,)

    def plane(self, m: int, n: int) -> tuple[Sizes, Sizes]:
        """Grid and block for m rows of n columns: the block as wide as a row where rows are narrow."""
        x = min(THREADS, power_of_two(n))
        y = THREADS // x
        tiles = min(-(-n // x), self.max_blocks)
        return (tiles, max(1, min(-(-m // y), self.max_blocks // tiles, GRID_Y_LIMIT))), (x, y)


def power_of_two(n: int) -> int:
    """Smallest power of two that is at least n (n >= 1).

    Examples
    --------
    >>> [power_of_two(n) for n in (1, 2, 3, 10)]
    [1, 2, 4, 16]
    """
    return 1 << (n - 1).bit_length()
