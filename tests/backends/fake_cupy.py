"""A stand-in for the module ``cupy`` on machines without a GPU: host memory behind device arrays, kernels under g++.

It lets the Python of the CuPy backend run, so that what it passes to kernels and to cuBLAS can be judged. It says
nothing about a GPU: no asynchrony, no speed, no CUDA library. It is stricter than CuPy where that finds mistakes:

* a device array is no NumPy array, has no arithmetic, and refuses every implicit conversion;
* new memory is filled with one bits, which are NaN in a float;
* crossings between host and device are counted, and so are allocations and launches;
* arguments of a kernel are compared with its parameters;
* cuBLAS checks its sizes, and that every address lies in device memory;
* memory is counted while it is held, and ends at ``memory`` bytes;
* with ``early_is_early``, a kernel that may begin before the last one has ended sees, up to its ``follow()``, the
  memory of before;
* what is queued on a stream that is not the current one happens as late as possible: when something waits for it.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import types
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.kernels.cuda.host_runner import SCALARS, HostModule

CAPABILITY = (9, 0)
POOL_ALIGNMENT = 512
SHARED_MEMORY = 227 * 1024


class DeviceArray:
    """What ``cupy.ndarray`` is: shape, dtype, strides and an address, and basic slices that share memory."""

    def __init__(self, host: np.ndarray[Any, Any], device: FakeDevice) -> None:
        self._host = host
        self.device = device
        self.data = Pointer(host, device._cupy)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    T = property(lambda self: DeviceArray(self._host.T, self.device))

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> DeviceArray:
        found = self._host[key]
        if not np.shares_memory(found, self._host) and found.size:
            raise TypeError("the stand-in has basic slices only")
        return DeviceArray(found, self.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("a NumPy array cannot be written into a device array")
        self._host[key] = value._host if isinstance(value, DeviceArray) else value

    def reshape(self, *shape: Any) -> DeviceArray:
        found = self._host.reshape(*shape)
        assert not self.size or np.shares_memory(found, self._host), "reshape would copy"
        return DeviceArray(found, self.device)

    def ravel(self) -> DeviceArray:
        return self.reshape(-1)

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self._host.view(dtype), self.device)

    def fill(self, value: float) -> None:
        self._host.fill(value)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    __bool__ = __float__ = __int__ = __iter__ = __array__


class Pointer:
    """``ndarray.data``: an address, and copies that do not wait."""

    def __init__(self, host: np.ndarray[Any, Any], cupy: FakeCupy) -> None:
        self._host = host
        self._cupy = cupy
        self.ptr = host.ctypes.data
        self.device_id = cupy.current_device

    def copy_from_host_async(self, address: int, size: int, stream: FakeStream) -> None:
        assert size <= self._host.nbytes
        assert any(first <= address and address + size <= last for first, last in self._cupy.pinned), "not pinned"
        target = self.ptr
        self._cupy.count["pinned_copy"] += 1
        self._cupy.queue(stream.ptr, lambda: ctypes.memmove(target, address, size))

    def copy_from_device_async(self, source: Pointer, size: int) -> None:
        assert size == self._host.nbytes == source._host.nbytes
        self._host[...] = source._host.reshape(self._host.shape)

    def memset_async(self, value: int, size: int) -> None:
        assert size == self._host.nbytes
        ctypes.memset(self.ptr, value, size)


class FakeDevice:
    """``cupy.cuda.Device``: a context manager that changes the current device."""

    def __init__(self, cupy: FakeCupy, number: int) -> None:
        self._cupy = cupy
        self.id = number
        self._before: list[int] = []

    def __enter__(self) -> FakeDevice:
        self._before.append(self._cupy.current_device)
        self._cupy.current_device = self.id
        return self

    def __exit__(self, *exception: object) -> None:
        self._cupy.current_device = self._before.pop()

    def synchronize(self) -> None:
        self._cupy.count["synchronize"] += 1


class FakeGraph:
    """``cupy.cuda.Graph``: what was captured, to be done again and again."""

    def __init__(self, cupy: FakeCupy, calls: list[Callable[[], None]]) -> None:
        self._cupy = cupy
        self._calls = calls
        self._device = cupy.current_device

    def launch(self, stream: Any = None) -> None:
        assert self._cupy.current_device == self._device, "a graph of another device"
        self._cupy.count["graph"] += 1
        self._cupy.launched_on.append(self._cupy.stream)
        self._cupy.before.clear()  # a graph begins when all before it has ended
        self._cupy.begins = True
        for call in self._calls:
            call()


class FakeStream:
    """``cupy.cuda.Stream``. While it captures, nothing runs and nothing may be allocated, copied or awaited."""

    numbers = itertools.count(1)

    def __init__(self, cupy: FakeCupy, number: int | None = None) -> None:
        self._cupy = cupy
        self.ptr = next(self.numbers) if number is None else number
        self.device_id = cupy.current_device

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def __enter__(self) -> FakeStream:
        self._before = self._cupy.stream
        self._cupy.stream = self.ptr
        return self

    def __exit__(self, *exception: object) -> None:
        self._cupy.stream = self._before

    @classmethod
    def from_external(cls, cupy: FakeCupy, other: Any) -> FakeStream:
        version, address = other.__cuda_stream__()
        assert version == 0
        return cls(cupy, address)

    def synchronize(self) -> None:
        self._cupy.not_while_capturing("synchronize")
        self._cupy.finish(self.ptr)

    def record(self, event: FakeEvent) -> None:
        event.record(self)

    def wait_event(self, event: FakeEvent) -> None:
        self._cupy.order.append(("wait", self.ptr, event.number))
        if self.ptr == self._cupy.stream:
            event.reach()
        else:
            self._cupy.queue(self.ptr, event.reach)

    def begin_capture(self) -> None:
        assert self.ptr, "CUDA does not capture the default stream"
        assert self._cupy.captured is None
        self._cupy.captured = []

    def end_capture(self) -> FakeGraph:
        calls, self._cupy.captured = self._cupy.captured, None
        assert calls is not None
        return FakeGraph(self._cupy, calls)


class FakeStreams:
    """``cupy.cuda.Stream``, the class: makes streams, and wraps those of others."""

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __call__(self, non_blocking: bool = False) -> FakeStream:
        return FakeStream(self._cupy)

    def from_external(self, other: Any) -> FakeStream:
        return FakeStream.from_external(self._cupy, other)


class FakeEvent:
    """``cupy.cuda.Event``: a place in the queue of a stream."""

    numbers = itertools.count(1)

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self.number = next(self.numbers)
        self._place = (0, 0)

    def record(self, stream: FakeStream | None = None) -> None:
        stream = stream or self._cupy.cuda.get_current_stream()
        self._place = stream.ptr, self._cupy.queued[stream.ptr]
        self._cupy.order.append(("record", stream.ptr, self.number))

    def synchronize(self) -> None:
        self._cupy.order.append(("host waits", 0, self.number))
        self.reach()

    def reach(self) -> None:
        """Do what was queued before it."""
        self._cupy.finish(*self._place)


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""


class FakeModule:
    """``cupy.cuda.Module``; the code that it loads is the source itself."""

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def load(self, code: bytes) -> None:
        self._kernels = HostModule(code.decode(), self._cupy.folder, sanitize=self._cupy.sanitize)

    def get_function(self, name: str) -> Any:
        def function(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            arguments: tuple[Any, ...],
            shared_mem: int = 0,
            early: bool = False,
        ) -> None:
            cupy = self._cupy
            attributes = cupy.driver.attributes[id(function)]
            assert shared_mem <= attributes.get(cupy.driver.SHARED, 48 * 1024), "more shared memory than is allowed"
            assert shared_mem <= SHARED_MEMORY, "more shared memory than there is"
            cluster = self._kernels.clusters[name]
            assert cluster <= (16 if attributes.get(cupy.driver.LARGE_CLUSTER) else 8)
            if name != "count_launches":  # by which the backend finds out what the driver can do
                cupy.launches.append((name, grid, block))
            cupy.clusters.add(cluster)
            threads = int(np.prod(block))
            assert threads <= 1024, f"{name}: {threads} threads in a block"
            assert all(0 < size < limit for size, limit in zip(grid, (2**31, 2**16, 2**16), strict=False)), (name, grid)
            for argument in arguments:
                assert not isinstance(argument, DeviceArray) or argument.device.id == cupy.current_device
            parameters = self._kernels.kernels[name]
            missing = [""] * (len(arguments) - len(parameters))  # refused when it is launched
            given = [cupy.passed_to_a_kernel(*pair) for pair in zip(arguments, (*parameters, *missing), strict=False)]

            def run() -> None:
                cupy.count["launch"] += 1
                cupy.seed += 1
                values = tuple(find() for find in given)
                how: dict[str, Any] = {"seed": cupy.seed, "shared": shared_mem}
                how["early"] = early and not cupy.begins
                cupy.begins = False
                if cupy.early_is_early:
                    how["later"] = cupy.turn_back(early)
                self._kernels.launch(name, grid, block, values, **how)

            cupy.do(run)

        function.ptr = id(function)  # type: ignore[attr-defined]
        self._cupy.functions[id(function)] = function, self._kernels.kernels[name]
        return function


class FakeLibcuda:
    """NVIDIA's driver as ctypes finds it: launches that may begin early, read as its header lays them out."""

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def cuLaunchKernelEx(self, configuration: Any, function: Any, parameters: Any, extra: None) -> int:
        raw = bytes(configuration._obj)
        *sizes, shared, _, stream, attributes, count, _ = struct.unpack("7IIQQII", raw)
        name, _, value = struct.unpack("3i", ctypes.string_at(attributes, 12))
        assert ctypes.sizeof(type(configuration._obj.attributes.contents)) == 72
        assert (name, value, count) == (6, 1, 1)
        assert stream == self._cupy.stream
        self._cupy.count["early"] += 1
        launch, types = self._cupy.functions[function.value]
        values = [self._value(kind, address) for kind, address in zip(types, parameters, strict=True)]
        grid, block = (tuple(axes[: 1 if axes[1:] == [1, 1] else 3]) for axes in (sizes[:3], sizes[3:]))
        launch(grid, block, tuple(values), shared_mem=shared, early=True)
        return 0

    @staticmethod
    def _value(kind: str, address: int) -> Any:
        """What a kernel reads at the address of an argument: a number, or a pointer to numbers."""
        dtype = np.dtype(SCALARS[kind.rstrip("*")])
        if kind.endswith("*"):
            place = ctypes.c_void_p.from_address(address).value or 0
            return np.ndarray(1, dtype, buffer=(ctypes.c_char * dtype.itemsize).from_address(place))
        return np.frombuffer(ctypes.string_at(address, dtype.itemsize), dtype)[0]


class FakeDriver:
    """``cupy_backends.cuda.api.driver``: the attributes of kernels."""

    SHARED, LARGE_CLUSTER = 8, 14

    def __init__(self) -> None:
        self.attributes: dict[int, dict[int, int]] = defaultdict(dict)

    def funcSetAttribute(self, function: int, attribute: int, value: int) -> None:
        self.attributes[function][attribute] = value


class FakeCublas:
    """Column-major products on addresses, as cuBLAS computes them."""

    CUBLAS_DEFAULT_MATH = 0

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy
        self.math_mode = 3  # TF32, left behind by somebody else

    def getVersion(self, handle: int) -> int:
        return 0

    def setMathMode(self, handle: int, mode: int) -> None:
        self.math_mode = mode

    def sgemm(self, *arguments: Any) -> None:
        self._gemm(np.dtype(np.float32), *arguments)

    def dgemm(self, *arguments: Any) -> None:
        self._gemm(np.dtype(np.float64), *arguments)

    def _gemm(self, dtype: Any, handle: int, *arguments: int) -> None:
        self._cupy.not_while_capturing("cuBLAS by CuPy")
        assert self.math_mode == self.CUBLAS_DEFAULT_MATH, "float32 might be rounded to TF32"
        self.multiply(dtype, *arguments)

    def multiply(
        self, dtype: Any, op_a: int, op_b: int, m: int, n: int, k: int,
        alpha: int, a: int, lda: int, b: int, ldb: int, beta: int, c: int, ldc: int,
    ) -> None:  # fmt: skip
        self._cupy.count["gemm"] += 1
        one, zero = (
            np.ctypeslib.as_array((ctypes.c_char * dtype.itemsize).from_address(p)).view(dtype) for p in (alpha, beta)
        )
        assert one == 1
        assert zero == 0
        A = self._matrix(dtype, a, lda, *((k, m) if op_a else (m, k)))
        B = self._matrix(dtype, b, ldb, *((n, k) if op_b else (k, n)))
        C = self._matrix(dtype, c, ldc, m, n)
        with np.errstate(all="ignore"):
            C[...] = (A.T if op_a else A).astype(np.float64) @ (B.T if op_b else B).astype(np.float64)

    def _matrix(self, dtype: Any, address: int, leading: int, rows: int, columns: int) -> Any:
        """View device memory as a column-major matrix."""
        assert rows > 0
        assert columns > 0
        assert leading >= rows, "CUBLAS_STATUS_INVALID_VALUE: leading dimension"
        size = ((columns - 1) * leading + rows) * dtype.itemsize
        assert self._cupy.is_device_memory(address, size), "cuBLAS leaves device memory"
        raw = np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
        strides = (dtype.itemsize, leading * dtype.itemsize)
        return np.lib.stride_tricks.as_strided(raw, (rows, columns), strides)


class FakeCupy(types.ModuleType):
    """The module. ``count`` holds crossings (``to_device``, ``to_host``), allocations, launches and products."""

    ndarray = DeviceArray
    __version__ = "14.0.0"
    sanitize = False
    """Whether kernels are built with AddressSanitizer; arrays then end where the memory that it knows does."""

    def __init__(self, folder: Path, devices: int = 1) -> None:
        super().__init__("cupy")
        self.folder = folder
        self.devices = devices
        self.multiprocessors = 1
        self.current_device = 0
        self.seed = 1  # of the last launch; 0 and 1 are the two orders without chance
        self.early_is_early = False
        self.before: dict[tuple[int, int], bytes] = {}
        self.begins = False  # whether the next kernel is the first of a graph
        self.stream = 0
        self.count: Counter[str] = Counter()
        self.launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self.clusters: set[int] = set()  # their sizes
        self.captured: list[Callable[[], None]] | None = None
        self.memory = 2**29
        self.limit = 0
        self.used = self.held = self.peak = 0
        self.pinned: list[tuple[int, int]] = []
        self.order: list[tuple[str, int, int]] = []
        self.launched_on: list[int] = []
        self.queued: Counter[int] = Counter()
        self._waiting: dict[int, deque[Callable[[], Any]]] = defaultdict(deque)
        self._blocks: dict[int, tuple[int, int]] = {}
        self.functions: dict[int, tuple[Any, tuple[str, ...]]] = {}
        self.driver = FakeDriver()
        self.libcuda = FakeLibcuda(self)
        self.cuda = types.SimpleNamespace(
            is_available=lambda: self.devices > 0,
            Device=lambda number: FakeDevice(self, number),
            Module=lambda: FakeModule(self),
            cublas=FakeCublas(self),
            get_cublas_handle=lambda: 1,
            Stream=FakeStreams(self),
            Event=lambda disable_timing=False: FakeEvent(self),
            get_current_stream=lambda: FakeStream(self, self.stream),
            alloc_pinned_memory=self._pin,
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=types.SimpleNamespace(
                getDevice=lambda: self.current_device,
                getDeviceCount=lambda: self.devices,
                getDeviceProperties=lambda number: {
                    "name": b"stand-in, no GPU", "major": CAPABILITY[0], "minor": CAPABILITY[1],
                    "totalGlobalMem": 2**30, "multiProcessorCount": self.multiprocessors,
                    "sharedMemPerBlockOptin": SHARED_MEMORY,
                },
                runtimeGetVersion=lambda: 13000,
                memGetInfo=lambda: (self.memory - self.held, 2**30),
            ),
        )  # fmt: skip

    def do(self, call: Callable[[], None]) -> None:
        """Do it now, or remember it for a graph."""
        if self.captured is None:
            call()
        else:
            self.captured.append(call)

    def not_while_capturing(self, what: str) -> None:
        assert self.captured is None, f"{what} while a stream is captured"

    def queue(self, stream: int, call: Callable[[], Any]) -> None:
        """Remember what a stream has to do."""
        self.queued[stream] += 1
        self._waiting[stream].append(call)

    def finish(self, stream: int, count: int | None = None) -> None:
        """Do what was queued on a stream, the first `count` things of all that ever were or everything."""
        waiting = self._waiting[stream]
        while waiting and (count is None or self.queued[stream] - len(waiting) < count):
            waiting.popleft()()

    def passed_to_a_kernel(self, argument: Any, parameter: str) -> Callable[[], Any]:
        """What the kernel is given when it runs: arrays by their addresses, at which there must be memory then."""
        if isinstance(argument, DeviceArray):
            if self.captured is None:
                return lambda: argument._host
            address, dtype, size = argument.data.ptr, argument.dtype, argument.nbytes
            return lambda: self._at(address, dtype, size)
        if isinstance(argument, np.uint64) and parameter.endswith("*"):
            address, dtype = int(argument), np.dtype(SCALARS[parameter[:-1]])
            return lambda: self._at(address, dtype, dtype.itemsize)
        if isinstance(argument, np.ndarray):  # of an early launch, which passes addresses only
            return lambda: self._at(argument.ctypes.data, argument.dtype, argument.nbytes)
        return lambda: argument

    def _at(self, address: int, dtype: Any, size: int) -> Any:
        pinned = any(first <= address and address + size <= end for first, end in self.pinned)
        assert pinned or self.is_device_memory(address, size), "a kernel is given memory that is not there any more"
        return np.ndarray(max(size, 1) // dtype.itemsize, dtype, buffer=(ctypes.c_char * size).from_address(address))

    def _pin(self, size: int) -> Any:
        memory = np.full(size, 0xFF, np.uint8)
        self.count["pinned"] += 1
        self.pinned.append((memory.ctypes.data, memory.ctypes.data + size))
        return memory

    def _allocate(self, shape: Any, dtype: Any) -> DeviceArray:
        self.not_while_capturing("an allocation")
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        taken = -(-size // POOL_ALIGNMENT) * POOL_ALIGNMENT
        if self.used + taken > self.memory:
            raise OutOfMemoryError(f"Out of memory allocating {taken:,} bytes (allocated so far: {self.used:,} bytes)")
        raw = np.full(size if self.sanitize else size + POOL_ALIGNMENT, 0xFF, np.uint8)
        address = raw.ctypes.data
        start = 0 if self.sanitize else -address % POOL_ALIGNMENT
        self._blocks[address] = address, address + raw.size
        self.used += taken
        self.held, self.peak = max(self.held, self.used), max(self.peak, self.used)
        weakref.finalize(raw, self._free, address, taken)
        self.count["allocation"] += 1
        return DeviceArray(raw[start : start + size].view(dtype).reshape(shape), FakeDevice(self, self.current_device))

    def _free(self, address: int, taken: int) -> None:
        del self._blocks[address]
        self.used -= taken

    def turn_back(self, early: bool) -> list[tuple[int, bytes]]:
        """Before a kernel: if it is to begin early, give memory the contents that it had before the last kernel.

        Returns
        -------
        list of (address, bytes)
            What has been taken back, to be done again; nothing for a kernel that begins when others have ended.
        """
        now = {block: ctypes.string_at(block[0], block[1] - block[0]) for block in self._blocks.values()}
        changed = [block for block, contents in now.items() if early and self.before.get(block, contents) != contents]
        for first, last in changed:
            ctypes.memmove(first, self.before[first, last], last - first)
        self.before = now
        return [(block[0], now[block]) for block in changed]

    def is_device_memory(self, address: int, size: int) -> bool:
        return any(first <= address and address + size <= last for first, last in self._blocks.values())

    def argsort(self, keys: DeviceArray) -> DeviceArray:
        found = self._allocate(keys.shape, np.int64)
        found._host[...] = np.argsort(keys._host, kind="stable")
        return found

    def min(self, array: DeviceArray) -> DeviceArray:
        return self._reduced(array, np.min)

    def max(self, array: DeviceArray) -> DeviceArray:
        return self._reduced(array, np.max)

    def _reduced(self, array: DeviceArray, reduce: Callable[[Any], Any]) -> DeviceArray:
        found = self._allocate((), array.dtype)
        found._host[...] = reduce(array._host)
        return found

    def arange(self, n: int, dtype: Any) -> DeviceArray:
        found = self._allocate(n, dtype)
        found._host[...] = np.arange(n)
        return found

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self._allocate(shape, dtype)

    def asarray(self, source: Any) -> DeviceArray:
        if isinstance(source, DeviceArray):
            return source
        if hasattr(source, "__cuda_array_interface__"):
            return source.__cuda_array_interface__["owner"]
        assert isinstance(source, np.ndarray)
        self.count["to_device"] += 1
        found = self._allocate(source.shape, source.dtype)
        found._host[...] = source
        return found

    def from_dlpack(self, source: Any) -> DeviceArray:
        return source.__dlpack__()

    def ascontiguousarray(self, source: DeviceArray, dtype: Any = None) -> DeviceArray:
        dtype = source.dtype if dtype is None else np.dtype(dtype)
        if source.dtype == dtype and source.flags.c_contiguous and source.ndim:
            return source
        found = self._allocate(source.shape or (1,), dtype)
        with np.errstate(over="ignore"):  # a device says nothing
            found._host[...] = source._host
        return found

    def asnumpy(self, source: DeviceArray) -> np.ndarray[Any, Any]:
        self.not_while_capturing("a copy to the host")
        self.count["to_host"] += 1
        return np.array(source._host, order="C")

    def get_default_pinned_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_all_blocks=lambda: None)

    def get_default_memory_pool(self) -> Any:
        def free_all_blocks() -> None:
            self.held = self.used

        return types.SimpleNamespace(
            used_bytes=lambda: self.used,
            total_bytes=lambda: self.held,
            get_limit=lambda: self.limit,
            free_all_blocks=free_all_blocks,
        )
