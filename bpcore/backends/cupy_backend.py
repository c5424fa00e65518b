"""The CuPy backend: cuBLAS for products, own CUDA kernels for everything else, no synchronisation inside an operation.

CuPy brings memory, streams and the handle of cuBLAS. Element-wise programs become one printed kernel each
(:mod:`bpcore.kernels.cuda.source`); rows, reductions, gathers and random fields are the ``.cuh`` files beside it.
Everything is queued on CuPy's current stream. Arrays must be C-contiguous, except the operands of ``matmul``.

Launches have blocks of 256 threads and at most eight blocks a multiprocessor, which is as many threads as one can
hold (2048 on compute capability 8.0 and 9.0); all kernels are loops over the grid, so more blocks would only queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from bpcore.backends.contract import Backend, Probe
from bpcore.errors import BackendError, ShapeError
from bpcore.functions.expression import evaluate
from bpcore.functions.program import Program
from bpcore.functions.scalars import evaluate_scalars
from bpcore.random import Purpose
from bpcore.settings import FLOAT_DTYPES
from bpcore.typing import Array, NDArray

__all__ = ["CupyBackend"]

THREADS = 256
BLOCKS_PER_MULTIPROCESSOR = 8
GRID_Y_LIMIT = 65535
WIDEST_FOR_LANES = 512
"""Widest row that a warp works on; wider ones get a block. 16 columns a lane still hide the latency of a load."""

_FLOAT64 = np.dtype(np.float64)
_INT64 = np.dtype(np.int64)
_CUDA_DLPACK = (2, 13)  # device types "CUDA" and "CUDA managed" of the DLPack standard
_FILL = Program("filled = value", name="fill")


class _Workspace(threading.local):
    """Partial sums, a buffer for each stream of a thread, grown on demand: launches never share one by accident."""

    def __init__(self) -> None:
        self.buffers: dict[int, Array] = {}


class _Elementwise:
    """A loaded kernel and the scalar values it was launched with last."""

    def __init__(self, printed: Any, function: Any, dtype: np.dtype[Any]) -> None:
        self.printed = printed
        self.function = function
        self.dtype = dtype
        self._last: tuple[tuple[float, ...], tuple[Any, ...]] | None = None

    def numbers(self, args: dict[str, Any], scalars: tuple[str, ...]) -> tuple[Any, ...]:
        """Values that the kernel takes, from the scalar arguments; computed anew only when those have changed."""
        given = tuple(float(args[name]) for name in scalars)
        last = self._last
        if last is not None and last[0] == given:
            return last[1]
        values: dict[str, Any] = dict(zip(scalars, given, strict=True))
        if self.printed.host is not None:
            values.update(_host_values(self.printed.host, values))
        with np.errstate(over="ignore"):
            packed = tuple(self.dtype.type(values[name]) for name in self.printed.numbers)
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


class CupyBackend(Backend):
    """The engine's operations on one NVIDIA GPU; see the module.

    Parameters
    ----------
    device : int, optional
        Number of the device; by default CuPy's current one.

    Raises
    ------
    BackendError
        If CuPy cannot run here, with the reason and the command that repairs it.
    """

    name: ClassVar[str] = "cupy"

    def __init__(self, device: int | None = None) -> None:
        probe = self.probe()
        if not probe.usable:
            raise BackendError(f"backend 'cupy' cannot run: {probe.reason}. To repair: {probe.repair}")
        import cupy

        from bpcore.kernels.cuda.build import KernelLoader

        self.xp = cupy
        self._runtime = cupy.cuda.runtime
        self._id = int(self._runtime.getDevice()) if device is None else int(device)
        if not 0 <= self._id < self._runtime.getDeviceCount():
            raise BackendError(
                f"there is no device cuda:{self._id}; devices: 0 to {self._runtime.getDeviceCount() - 1}"
            )
        self.device = f"cuda:{self._id}"
        self._ndarray = cupy.ndarray
        self._cublas = cupy.cuda.cublas
        self._gemm = {np.dtype(np.float32): self._cublas.sgemm, np.dtype(np.float64): self._cublas.dgemm}
        # cuBLAS reads alpha and beta from these addresses
        self._one = {dtype: np.ones(1, dtype) for dtype in FLOAT_DTYPES}
        self._zero = {dtype: np.zeros(1, dtype) for dtype in FLOAT_DTYPES}
        properties = self._runtime.getDeviceProperties(self._id)
        self._blocks = BLOCKS_PER_MULTIPROCESSOR * int(properties["multiProcessorCount"])
        self._loader = KernelLoader(cupy, 10 * int(properties["major"]) + int(properties["minor"]))
        self._programs: dict[Any, _Elementwise] = {}
        self._functions: dict[tuple[str, str, str], Any] = {}
        self._workspace = _Workspace()

    @classmethod
    def probe(cls) -> Probe:
        """Whether CuPy, a driver, a device and the CUDA libraries are there; see :mod:`bpcore.backends.cupy_probe`."""
        from bpcore.backends.cupy_probe import probe_cupy

        return probe_cupy()

    # ---------------------------------------------------------------- memory

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Allocate from CuPy's pool, whose blocks are aligned to 512 bytes; see :meth:`Backend.empty`."""
        return self._here(lambda: self.xp.empty(shape, dtype))

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        """Bring data to the device; see :meth:`Backend.asarray`.

        What is on this device already (CuPy arrays, the CUDA array interface, DLPack) is used where it is, without a
        copy unless the dtype or the layout has to change.

        Raises
        ------
        ShapeError
            If the array is on another GPU.
        """
        if isinstance(host, self._ndarray) or hasattr(host, "__cuda_array_interface__"):
            found = self.xp.asarray(host)
        elif hasattr(host, "__dlpack_device__") and int(host.__dlpack_device__()[0]) in _CUDA_DLPACK:
            found = self.xp.from_dlpack(host)
        else:
            return self._here(lambda: self.xp.asarray(np.ascontiguousarray(host, dtype=dtype)))
        if int(found.device.id) != self._id:
            raise ShapeError(
                f"the array is on cuda:{found.device.id}, and this backend computes on {self.device}; "
                "copy it there, or to the host, first"
            )
        return self._here(lambda: self.xp.ascontiguousarray(found, dtype=dtype))

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Bring an array to the host, waiting for it; see :meth:`Backend.to_numpy`."""
        return np.asarray(array) if isinstance(array, np.ndarray) else np.asarray(self.xp.asnumpy(array))

    def owns(self, array: object) -> bool:
        """Whether the array is a CuPy array on this device."""
        return isinstance(array, self._ndarray) and int(array.device.id) == self._id

    def copy(self, source: Array, out: Array) -> Array:
        """Copy between two arrays of this device; see :meth:`Backend.copy`."""
        for name, array in (("source", source), ("out", out)):
            if not isinstance(array, self._ndarray):
                raise self._foreign("copy", name, array)
        if source.shape == out.shape and source.dtype == out.dtype and _contiguous(source) and _contiguous(out):
            if out.size:
                self._here(lambda: out.data.copy_from_device_async(source.data, out.nbytes))
        else:
            self._here(lambda: out.__setitem__(Ellipsis, source))
        return out

    def fill(self, out: Array, value: float) -> Array:
        """Set every element; see :meth:`Backend.fill`."""
        if not isinstance(out, self._ndarray):
            raise self._foreign("fill", "out", out)
        if value == 0 and _contiguous(out) and not np.signbit(value):
            if out.size:
                self._here(lambda: out.data.memset_async(0, out.nbytes))
        elif out.dtype in FLOAT_DTYPES and _contiguous(out):
            self.elementwise(_FILL, out=out, value=value)
        else:
            self._here(lambda: out.fill(value))
        return out

    # ---------------------------------------------------------------- matrix products

    def matmul(self, A: Array, B: Array, out: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        """Matrix product by cuBLAS, straight into ``out``; see :meth:`Backend.matmul`.

        float32 is computed in float32: the handle is set to cuBLAS's default mode, which never rounds to TF32.
        """
        for name, matrix in (("A", A), ("B", B), ("out", out)):
            if not isinstance(matrix, self._ndarray):
                raise self._foreign("matmul", name, matrix)
        dtype = out.dtype
        gemm = self._gemm.get(dtype)
        if gemm is None or A.dtype != dtype or B.dtype != dtype:
            raise ShapeError(
                f"matmul on cupy takes three matrices of float32 or of float64, got A {A.dtype}, B {B.dtype}, out {dtype}"
            )
        if not A.ndim == B.ndim == out.ndim == 2:
            raise ShapeError(f"matmul on cupy takes matrices, got A {A.shape}, B {B.shape}, out {out.shape}")
        m, k = A.shape[::-1] if transpose_a else A.shape
        k_b, n = B.shape[::-1] if transpose_b else B.shape
        if k != k_b or out.shape != (m, n):
            raise ShapeError(
                f"matmul: A{'.T' if transpose_a else ''} is ({m}, {k}) and B{'.T' if transpose_b else ''} is ({k_b}, {n}); "
                f"they need one inner size, and out of shape ({m}, {n}), which is {out.shape}"
            )
        if m == 0 or n == 0:
            return out
        if k == 0:
            return self.fill(out, 0)
        # cuBLAS counts columns first: to it, row-major matrices are their transposes, and out.T = B.T @ A.T
        arguments = (
            int(transpose_b), int(transpose_a), n, m, k,
            self._one[dtype].ctypes.data, B.data.ptr, _leading("B", B), A.data.ptr, _leading("A", A),
            self._zero[dtype].ctypes.data, out.data.ptr, _leading("out", out),
        )  # fmt: skip

        def call() -> None:
            handle = self.xp.cuda.get_cublas_handle()
            self._cublas.setMathMode(handle, self._cublas.CUBLAS_DEFAULT_MATH)
            gemm(handle, *arguments)

        self._here(call)
        return out

    # ---------------------------------------------------------------- element-wise

    def elementwise(self, program: Program, *, out: Array | tuple[Array, ...], **args: Array | float) -> Any:
        """Run a program as one kernel; see :meth:`Backend.elementwise`."""
        outs = out if isinstance(out, tuple) else (out,)
        first = outs[0]
        for index, array in enumerate(outs):
            self._check(program.name, f"out[{index}]" if isinstance(out, tuple) else "out", array)
            if array.shape != first.shape or array.dtype != first.dtype:
                raise ShapeError(
                    f"{program.name}: all outputs need one shape and dtype, got "
                    f"{first.shape} {first.dtype} and {array.shape} {array.dtype}"
                )
        if len(outs) != len(program.outputs):
            raise ShapeError(
                f"{program.name} has outputs {', '.join(program.outputs)}, got {len(outs)} arrays for them"
            )
        shape, dtype = first.shape, first.dtype
        kinds = tuple([self._kind(program, name, args, shape, dtype) for name in program.inputs])
        key = (program, kinds, dtype)
        kernel = self._programs.get(key)
        if kernel is None:
            kernel = self._programs[key] = self._print(program, kinds, dtype)
        if first.size == 0:
            return out
        scalars = tuple([name for name, kind in zip(program.inputs, kinds, strict=True) if kind == "scalar"])
        arguments = (*outs, *[args[name] for name in kernel.printed.arrays], *kernel.numbers(args, scalars))
        if kernel.printed.flat:
            grid, block = self._line(-(-first.size * dtype.itemsize // 16))
            self._launch(kernel.function, grid, block, (*arguments, np.int64(first.size)))
        else:
            m, n = shape
            grid, block = self._plane(m, n)
            self._launch(kernel.function, grid, block, (*arguments, np.int64(m), np.int64(n)))
        return out

    def _kind(self, program: Program, name: str, args: dict[str, Any], shape: tuple[int, ...], dtype: Any) -> str:
        """How the kernel addresses an argument: see the table in :mod:`bpcore.kernels.cuda.source`."""
        try:
            value = args[name]
        except KeyError:
            needed = ", ".join(program.inputs)
            raise ShapeError(f"{program.name}: no value for {name}; it needs {needed}") from None
        if not isinstance(value, self._ndarray):
            if isinstance(value, float | int | np.number) and not isinstance(value, bool | np.complexfloating):
                return "scalar"
            raise self._foreign(program.name, name, value)
        if value.dtype != dtype:
            raise ShapeError(
                f"{program.name}: {name!r} is {value.dtype} but the result is {dtype}; convert one of them"
            )
        if not _contiguous(value):
            raise _not_contiguous(program.name, name, value)
        found = value.shape
        if found == shape:
            return "full"
        if value.size == 1:
            return "one"
        m, n = shape if len(shape) == 2 else (1, int(np.prod(shape)))
        if found in ((n,), (1, n)):
            return "full" if m == 1 else "row"
        if found == (m, 1) and len(shape) == 2:
            return "column"
        raise ShapeError(
            f"{program.name}: {name!r} has shape {found}, which does not fit a result of shape {shape}; "
            f"possible: {shape}, ({n},), (1, {n}), ({m}, 1) or one element"
        )

    def _print(self, program: Program, kinds: tuple[str, ...], dtype: Any) -> _Elementwise:
        from bpcore.kernels.cuda.source import print_elementwise

        printed = print_elementwise(program, dict(zip(program.inputs, kinds, strict=True)))
        source = printed.source(dtype)
        return _Elementwise(printed, self._here(lambda: self._loader.function(source, printed.name)), np.dtype(dtype))

    # ---------------------------------------------------------------- reductions

    def column_sums(self, A: Array, out: Array) -> Array:
        """Sum the rows of A in one or two launches; see :meth:`Backend.column_sums`."""
        self._check("column_sums", "A", A, ndim=2)
        m, n = A.shape
        self._check("column_sums", "out", out, shape=(n,), dtype=A.dtype)
        if n == 0:
            return out
        x = min(32, _power_of_two(n))
        y = THREADS // x
        tiles = min(-(-n // x), self._blocks)
        # rows are split only as far as the grid has room and a thread keeps eight rows to add
        splits = max(1, min(self._blocks // tiles, -(-m // (8 * y))))
        partial = self._partials(splits * n if splits > 1 else 1)
        kernel = self._kernel("reductions", A.dtype, "column_sums")
        self._launch(kernel, (tiles, splits), (x, y), (A, out, partial, np.int64(m), np.int64(n)))
        if splits > 1:
            kernel = self._kernel("reductions", A.dtype, "add_column_partials")
            self._launch(kernel, *self._line(n), (partial, out, np.int64(n), np.int64(splits)))
        return out

    def total(self, A: Array, out: Array) -> Array:
        """Sum all elements in float64; see :meth:`Backend.total`."""
        return self._reduce("total", A, out)

    def sum_squares(self, A: Array, out: Array) -> Array:
        """Sum the squares in float64; see :meth:`Backend.sum_squares`."""
        return self._reduce("sum_squares", A, out)

    def all_finite(self, A: Array) -> bool:
        """Whether every element is finite. Waits for the device; see :meth:`Backend.all_finite`."""
        return bool(self.to_numpy(self._reduce("count_not_finite", A, self.empty(1, _FLOAT64)))[0] == 0)

    def _reduce(self, kernel: str, A: Array, out: Array) -> Array:
        self._check(kernel, "A", A)
        self._check(kernel, "out", out, shape=(1,), dtype=_FLOAT64)
        # 16 elements a thread before a second block pays for the second launch
        blocks = max(1, min(self._blocks, -(-A.size // (16 * THREADS))))
        partial = out if blocks == 1 else self._partials(blocks)
        function = self._kernel("reductions", A.dtype, kernel)
        self._launch(function, (blocks,), (THREADS,), (A, partial, np.int64(A.size)))
        if blocks > 1:
            function = self._kernel("reductions", A.dtype, "add_partials")
            self._launch(function, (1,), (THREADS,), (partial, out, np.int64(blocks)))
        return out

    def _partials(self, size: int) -> Array:
        stream = int(self.xp.cuda.get_current_stream().ptr)
        buffer = self._workspace.buffers.get(stream)
        if buffer is None or buffer.size < size:
            buffer = self._workspace.buffers[stream] = self.empty(max(size, 4096), _FLOAT64)
        return buffer

    # ---------------------------------------------------------------- rows

    def softmax(self, Z: Array, out: Array) -> Array:
        """Softmax of every row; see :meth:`Backend.softmax`."""
        return self._rowwise("softmax", {"Z": Z, "out": out})

    def log_softmax(self, Z: Array, out: Array) -> Array:
        """Log-softmax of every row; see :meth:`Backend.log_softmax`."""
        return self._rowwise("log_softmax", {"Z": Z, "out": out})

    def backprop_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of softmax times G; see :meth:`Backend.backprop_softmax`."""
        return self._rowwise("backprop_softmax", {"G": G, "H": H, "out": out})

    def backprop_log_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of log-softmax times G; see :meth:`Backend.backprop_log_softmax`."""
        return self._rowwise("backprop_log_softmax", {"G": G, "H": H, "out": out})

    def row_hits(self, H: Array, labels: Array, threshold: float, out: Array) -> Array:
        """Mark the rows classified rightly; see :meth:`Backend.row_hits`."""
        self._check("row_hits", "H", H, ndim=2)
        m, n = H.shape
        self._check("row_hits", "labels", labels, shape=(m,), dtype=_INT64)
        self._check("row_hits", "out", out, shape=(m,), dtype=H.dtype)
        if n == 0:
            raise ShapeError(f"row_hits: H has shape {H.shape}; a row without columns has no largest one")
        self._launch_rows("row_hits", H.dtype, m, n, (H, labels, H.dtype.type(threshold), out))
        return out

    def _rowwise(self, name: str, arrays: dict[str, Array]) -> Array:
        first = next(iter(arrays.values()))
        self._check(name, next(iter(arrays)), first, ndim=2)
        for role, array in arrays.items():
            self._check(name, role, array, shape=first.shape, dtype=first.dtype)
        m, n = first.shape
        if n:
            self._launch_rows(name, first.dtype, m, n, tuple(arrays.values()))
        return arrays["out"]

    def _launch_rows(self, name: str, dtype: Any, m: int, n: int, arguments: tuple[Any, ...]) -> None:
        if m == 0:
            return
        sizes = (np.int64(m), np.int64(n))
        if n <= WIDEST_FOR_LANES:
            width = min(32, _power_of_two(n))
            function = self._kernel("rowwise", dtype, f"{name}_narrow")
            self._launch(function, *self._line(m * width), (*arguments, *sizes, np.int32(width)))
        else:
            function = self._kernel("rowwise", dtype, f"{name}_wide")
            self._launch(function, (min(m, self._blocks),), (THREADS,), (*arguments, *sizes))

    def take_rows(self, X: Array, index: Array, out: Array) -> Array:
        """Gather rows, words of up to 16 bytes at a time; see :meth:`Backend.take_rows`.

        The device checks the index at no cost: a row number out of range gives a row of NaN (-1 in integers).
        """
        self._check("take_rows", "X", X, floats=False)
        m, rest = int(index.size), X.shape[1:]
        self._check("take_rows", "index", index, shape=(m,), dtype=_INT64)
        self._check("take_rows", "out", out, shape=(m, *rest), dtype=X.dtype)
        row_bytes = int(np.prod(rest, dtype=np.int64)) * X.dtype.itemsize
        if m == 0 or row_bytes == 0:
            return out
        wide = row_bytes % 16 == 0 and X.data.ptr % 16 == 0 and out.data.ptr % 16 == 0
        word = 16 if wide else X.dtype.itemsize
        if word not in (4, 8, 16):
            raise ShapeError(f"take_rows on cupy moves items of 4 or 8 bytes, X is {X.dtype}")
        words = row_bytes // word
        function = self._kernel("gather", np.dtype(np.float32), f"take_rows_{word}")
        sizes = (np.int64(X.shape[0]), np.int64(m), np.int64(words))
        self._launch(function, *self._plane(m, words), (X, index, out, *sizes))
        return out

    # ---------------------------------------------------------------- randomness

    def random_bits(self, out: Array, *, seed: int, purpose: Purpose, step: int = 0, layer: int = 0) -> Array:
        """Fill with Philox bits, computed on the device; see :meth:`Backend.random_bits`."""
        self._check("random_bits", "out", out, ndim=1, dtype=np.dtype(np.uint32), floats=False)
        if out.size:
            function = self._kernel("random", np.dtype(np.float32), "random_bits")
            arguments = (out, np.int64(out.size), *_stream_words(seed, purpose, step, layer))
            self._launch(function, *self._line(-(-out.size // 4)), arguments)
        return out

    def dropout_mask(self, out: Array, *, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw an inverted-dropout mask in one launch; see :meth:`Backend.dropout_mask`."""
        self._check("dropout_mask", "out", out)
        if out.size:
            function = self._kernel("random", out.dtype, "dropout_mask")
            words = _stream_words(seed, Purpose.DROPOUT, step, layer)
            threshold, kept = np.uint32(int(rate * 2**32)), out.dtype.type(1 / (1 - rate))
            self._launch(function, *self._line(-(-out.size // 4)), (out, np.int64(out.size), threshold, kept, *words))
        return out

    # ---------------------------------------------------------------- the device

    def synchronize(self) -> None:
        """Wait until the device has done everything that was queued."""
        self.xp.cuda.Device(self._id).synchronize()

    def memory(self) -> dict[str, int]:
        """Bytes: ``used`` by arrays, ``held`` by CuPy's pool, ``free`` and ``total`` on the device."""
        pool = self.xp.get_default_memory_pool()
        free, total = self._here(self._runtime.memGetInfo)
        return {"used": int(pool.used_bytes()), "held": int(pool.total_bytes()), "free": int(free), "total": int(total)}

    def describe(self) -> dict[str, Any]:
        """Device, versions, kernels built so far and native operations."""
        properties = self._runtime.getDeviceProperties(self._id)
        name = properties["name"]
        handle = self._here(self.xp.cuda.get_cublas_handle)
        return {
            **super().describe(),
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "gpu_memory": int(properties["totalGlobalMem"]),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "cublas": int(self._cublas.getVersion(handle)),
            "float32_products": "float32 (no TF32)",
            "kernels_compiled": self._loader.compiled,
            "kernels_from_cache": self._loader.reused,
        }

    # ---------------------------------------------------------------- launches

    def _here(self, call: Callable[[], Any]) -> Any:
        """Call with this backend's device as the current one, and leave the caller's as it was."""
        if self._runtime.getDevice() == self._id:
            return call()
        with self.xp.cuda.Device(self._id):
            return call()

    def _launch(self, function: Any, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        self._here(lambda: function(grid, block, arguments))

    def _kernel(self, unit: str, dtype: Any, name: str) -> Any:
        key = (unit, dtype.char, name)
        function = self._functions.get(key)
        if function is None:
            from bpcore.kernels.cuda.source import unit_source

            source = unit_source(unit, dtype)
            function = self._functions[key] = self._here(lambda: self._loader.function(source, name))
        return function

    def _line(self, threads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Grid and block for so many independent threads."""
        return (max(1, min(-(-threads // THREADS), self._blocks)),), (THREADS,)

    def _plane(self, m: int, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Grid and block for m rows of n columns: the block as wide as a row where rows are narrow."""
        x = min(THREADS, _power_of_two(n))
        y = THREADS // x
        tiles = min(-(-n // x), self._blocks)
        return (tiles, max(1, min(-(-m // y), self._blocks // tiles, GRID_Y_LIMIT))), (x, y)

    # ---------------------------------------------------------------- checks

    def _check(
        self,
        op: str,
        name: str,
        array: Any,
        *,
        shape: tuple[int, ...] | None = None,
        ndim: int | None = None,
        dtype: Any = None,
        floats: bool = True,
    ) -> None:
        """Refuse what a kernel would misread: other kinds of array, dtypes, shapes, layouts."""
        if not isinstance(array, self._ndarray):
            raise self._foreign(op, name, array)
        if shape is not None and array.shape != shape:
            raise ShapeError(f"{op}: {name!r} has shape {array.shape}, expected {shape}")
        if ndim is not None and array.ndim != ndim:
            raise ShapeError(f"{op}: {name!r} has shape {array.shape}, expected {ndim} axes")
        if dtype is not None and array.dtype != dtype:
            raise ShapeError(f"{op}: {name!r} is {array.dtype}, expected {dtype}")
        if dtype is None and floats and array.dtype not in FLOAT_DTYPES:
            raise ShapeError(f"{op}: {name!r} is {array.dtype}, expected float32 or float64")
        if not _contiguous(array):
            raise _not_contiguous(op, name, array)

    def _foreign(self, op: str, name: str, array: Any) -> ShapeError:
        if isinstance(array, np.ndarray):
            kind = "a numpy array"
        else:
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
        return ShapeError(f"{op} on cupy got {kind} for {name!r}; move it with backend.asarray({name})")


def _contiguous(array: Array) -> bool:
    return bool(array.flags.c_contiguous)


def _not_contiguous(op: str, name: str, array: Array) -> ShapeError:
    return ShapeError(
        f"{op} on cupy needs C-contiguous arrays, {name!r} of shape {array.shape} has strides {array.strides}; "
        f"copy it with backend.asarray({name})"
    )


def _leading(name: str, matrix: Array) -> int:
    """Distance of two rows in elements, which cuBLAS calls the leading dimension."""
    rows, columns = matrix.shape
    item = matrix.dtype.itemsize
    distance = matrix.strides[0] // item if rows > 1 else columns
    if (columns > 1 and matrix.strides[1] != item) or distance < columns:
        raise ShapeError(
            f"matmul on cupy needs rows of consecutive elements, {name!r} of shape {matrix.shape} has strides "
            f"{matrix.strides}; for a transposed matrix pass transpose_a or transpose_b"
        )
    if max(rows, columns, distance) >= 2**31:
        raise ShapeError(f"matmul on cupy takes sizes below 2**31, {name!r} has shape {matrix.shape}")
    return int(distance)


def _power_of_two(n: int) -> int:
    """Smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


def _stream_words(seed: int, purpose: int, step: int, layer: int) -> tuple[Any, ...]:
    """Key and counter words of a random field, laid out as :mod:`bpcore.random` says."""
    low = 0xFFFFFFFF
    return (
        np.uint32(seed & low),
        np.uint32(seed >> 32),
        np.uint32(layer),
        np.uint32(step & low),
        np.uint32(int(purpose) << 24 | step >> 32),
    )
