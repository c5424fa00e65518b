"""The CuPy backend: cuBLAS for products, own CUDA kernels for everything else, no synchronisation inside an operation.

CuPy brings memory, streams and the handle of cuBLAS. Element-wise programs become one printed kernel each
(:mod:`bpcore.kernels.cuda.source`); rows, reductions, gathers and random fields are the ``.cuh`` files beside it.
Everything is queued on CuPy's current stream. Arrays must be C-contiguous, except the operands of ``matmul``, whose
rows may lie apart.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bpcore.backends.contract import Backend, Probe
from bpcore.backends.cupy_arrays import ArrayChecks, is_contiguous, leading_dimension
from bpcore.backends.cupy_device import THREADS, WIDEST_FOR_LANES, CudaDevice, power_of_two
from bpcore.errors import BackendError, ShapeError
from bpcore.functions.program import Program
from bpcore.random import Purpose, random_bits
from bpcore.settings import FLOAT_DTYPES
from bpcore.typing import Array, NDArray

if TYPE_CHECKING:
    from bpcore.backends.staging import Columns, Staging

__all__ = ["CupyBackend"]

_FLOAT32, _FLOAT64 = FLOAT_DTYPES
_INT64 = np.dtype(np.int64)
_UINT32 = np.dtype(np.uint32)
_CUDA_DLPACK = (2, 13)  # device types "CUDA" and "CUDA managed" of the DLPack standard
_FILL = Program("filled = value", name="fill")


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
    gpu: CudaDevice

    def __init__(self, device: int | None = None) -> None:
        probe = self.probe()
        if not probe.usable:
            raise BackendError(f"backend 'cupy' cannot run: {probe.reason}. To repair: {probe.repair}")
        import cupy

        self.xp = cupy
        number = int(cupy.cuda.runtime.getDevice()) if device is None else int(device)
        count = int(cupy.cuda.runtime.getDeviceCount())
        if not 0 <= number < count:
            raise BackendError(f"there is no device cuda:{number}; devices: 0 to {count - 1}")
        self.device = f"cuda:{number}"
        self.gpu = CudaDevice(cupy, number)
        self._checks = ArrayChecks(cupy.ndarray)
        self._cublas = cupy.cuda.cublas
        self._gemm = {_FLOAT32: self._cublas.sgemm, _FLOAT64: self._cublas.dgemm}
        # cuBLAS reads alpha and beta from these addresses
        self._one = {dtype: np.ones(1, dtype) for dtype in FLOAT_DTYPES}
        self._zero = {dtype: np.zeros(1, dtype) for dtype in FLOAT_DTYPES}

    @classmethod
    def probe(cls) -> Probe:
        """Whether CuPy, a driver, a device and the CUDA libraries are there; see :mod:`bpcore.backends.cupy_probe`."""
        from bpcore.backends.cupy_probe import probe_cupy

        return probe_cupy()

    # ---------------------------------------------------------------- memory

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Allocate from CuPy's pool, whose blocks are aligned to 512 bytes; see :meth:`Backend.empty`."""
        return self.gpu.here(lambda: self.xp.empty(shape, dtype))

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        """Bring data to the device; see :meth:`Backend.asarray`.

        What is on this device already (CuPy arrays, the CUDA array interface, DLPack) is used where it is, without a
        copy unless the dtype or the layout has to change.

        Raises
        ------
        ShapeError
            If the array is on another GPU.
        """
        if isinstance(host, self.xp.ndarray) or hasattr(host, "__cuda_array_interface__"):
            found = self.xp.asarray(host)
        elif hasattr(host, "__dlpack_device__") and int(host.__dlpack_device__()[0]) in _CUDA_DLPACK:
            found = self.xp.from_dlpack(host)
        else:
            return self.gpu.here(lambda: self.xp.asarray(np.asarray(host, dtype=dtype, order="C")))
        if int(found.device.id) != self.gpu.number:
            raise ShapeError(
                f"the array is on cuda:{found.device.id}, and this backend computes on {self.device}; "
                "copy it there, or to the host, first"
            )
        if is_contiguous(found) and (dtype is None or found.dtype == dtype):
            return found
        return self.gpu.here(lambda: self.xp.ascontiguousarray(found, dtype=dtype).reshape(found.shape))

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Bring an array to the host, waiting for it; see :meth:`Backend.to_numpy`."""
        return array if isinstance(array, np.ndarray) else np.asarray(self.xp.asnumpy(array))

    def owns(self, array: object) -> bool:
        """Whether the array is a CuPy array on this device."""
        return isinstance(array, self.xp.ndarray) and int(array.device.id) == self.gpu.number

    def copy(self, source: Array, out: Array) -> Array:
        """Copy between two arrays of this device; see :meth:`Backend.copy`."""
        self._checks.device_array("copy", "source", source)
        self._checks.device_array("copy", "out", out)
        whole = is_contiguous(source) and is_contiguous(out)
        if not (whole and source.shape == out.shape and source.dtype == out.dtype):
            self.gpu.here(lambda: out.__setitem__(Ellipsis, source))
        elif out.size:
            self.gpu.here(lambda: out.data.copy_from_device_async(source.data, out.nbytes))
        return out

    def fill(self, out: Array, value: float) -> Array:
        """Set every element; see :meth:`Backend.fill`."""
        self._checks.device_array("fill", "out", out)
        if value == 0 and not np.signbit(value) and is_contiguous(out):
            if out.size:
                self.gpu.here(lambda: out.data.memset_async(0, out.nbytes))
        elif out.dtype in FLOAT_DTYPES and is_contiguous(out):
            self.elementwise(_FILL, out=out, value=value)
        else:
            self.gpu.here(lambda: out.fill(value))
        return out

    # ---------------------------------------------------------------- matrix products

    def matmul(self, A: Array, B: Array, out: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        """Matrix product by cuBLAS, straight into ``out``; see :meth:`Backend.matmul`.

        float32 is computed in float32: the handle is set to cuBLAS's default mode, which never rounds to TF32.
        """
        for name, matrix in (("A", A), ("B", B), ("out", out)):
            self._checks.device_array("matmul", name, matrix)
        dtype = out.dtype
        gemm = self._gemm.get(dtype)
        if gemm is None or A.dtype != dtype or B.dtype != dtype:
            raise ShapeError(
                f"matmul on cupy takes three matrices of float32 or of float64, "
                f"got A {A.dtype}, B {B.dtype}, out {dtype}"
            )
        if not A.ndim == B.ndim == out.ndim == 2:
            raise ShapeError(f"matmul on cupy takes matrices, got A {A.shape}, B {B.shape}, out {out.shape}")
        m, k = A.shape[::-1] if transpose_a else A.shape
        k_b, n = B.shape[::-1] if transpose_b else B.shape
        if k != k_b or out.shape != (m, n):
            a, b = "A.T" if transpose_a else "A", "B.T" if transpose_b else "B"
            raise ShapeError(
                f"matmul: {a} is ({m}, {k}) and {b} is ({k_b}, {n}); they need one inner size, "
                f"and out of shape ({m}, {n}), which is {out.shape}"
            )
        if m == 0 or n == 0:
            return out
        if k == 0:
            return self.fill(out, 0)
        # cuBLAS counts columns first: to it, row-major matrices are their transposes, and out.T = B.T @ A.T
        operations = (int(transpose_b), int(transpose_a))
        left = (B.data.ptr, leading_dimension("B", B))
        right = (A.data.ptr, leading_dimension("A", A))
        result = (out.data.ptr, leading_dimension("out", out))
        alpha, beta = self._one[dtype].ctypes.data, self._zero[dtype].ctypes.data

        def call() -> None:
            handle = self.xp.cuda.get_cublas_handle()
            self._cublas.setMathMode(handle, self._cublas.CUBLAS_DEFAULT_MATH)
            gemm(handle, *operations, n, m, k, alpha, *left, *right, beta, *result)

        self.gpu.here(call)
        return out

    # ---------------------------------------------------------------- element-wise

    def elementwise(self, program: Program, *, out: Array | tuple[Array, ...], **args: Array | float) -> Any:
        """Run a program as one kernel; see :meth:`Backend.elementwise`."""
        outs = out if isinstance(out, tuple) else (out,)
        if len(outs) != len(program.outputs):
            raise ShapeError(
                f"{program.name} has outputs {', '.join(program.outputs)}, got {len(outs)} arrays for them"
            )
        first = outs[0]
        for name, array in zip(program.outputs, outs, strict=True):
            self._checks.operand(program.name, name, array)
            if array.shape != first.shape or array.dtype != first.dtype:
                raise ShapeError(
                    f"{program.name}: all outputs need one shape and dtype, got "
                    f"{first.shape} {first.dtype} and {array.shape} {array.dtype}"
                )
        shape, dtype = first.shape, first.dtype
        if len(shape) > 2:
            raise ShapeError(f"{program.name}: results have at most two axes, got shape {shape}")
        kinds = tuple([self._checks.kind(program, name, args, shape, dtype) for name in program.inputs])
        formula = self.gpu.formula(program, kinds, dtype)
        if first.size == 0:
            return out
        printed = formula.printed
        arguments = (*outs, *[args[name] for name in printed.arrays], *formula.numbers(args))
        if printed.flat:
            packs = -(-first.nbytes // 16)
            self.gpu.launch(formula.function, self.gpu.line(packs), (*arguments, np.int64(first.size)))
        else:
            m, n = shape
            self.gpu.launch(formula.function, self.gpu.plane(m, n), (*arguments, np.int64(m), np.int64(n)))
        return out

    # ---------------------------------------------------------------- reductions

    def column_sums(self, A: Array, out: Array) -> Array:
        """Sum the rows of A in one or two launches; see :meth:`Backend.column_sums`."""
        self._checks.operand("column_sums", "A", A, ndim=2)
        m, n = A.shape
        self._checks.operand("column_sums", "out", out, shape=(n,), dtype=A.dtype)
        if n == 0:
            return out
        gpu = self.gpu
        x = min(32, power_of_two(n))
        y = THREADS // x
        tiles = min(-(-n // x), gpu.max_blocks)
        # rows are split only as far as the grid has room and a thread keeps eight rows to add
        splits = max(1, min(gpu.max_blocks // tiles, -(-m // (8 * y))))
        partial = gpu.partials(splits * n if splits > 1 else 1)
        kernel = gpu.kernel("reductions", A.dtype, "column_sums")
        gpu.launch(kernel, ((tiles, splits), (x, y)), (A, out, partial, np.int64(m), np.int64(n)))
        if splits > 1:
            kernel = gpu.kernel("reductions", A.dtype, "add_column_partials")
            gpu.launch(kernel, gpu.line(n), (partial, out, np.int64(n), np.int64(splits)))
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

    def extremes(self, A: Array) -> tuple[int, int]:
        """Least and largest element. Waits for the device; see :meth:`Backend.extremes`."""
        least, largest = self.gpu.here(lambda: (self.xp.min(A), self.xp.max(A)))
        return int(self.to_numpy(least)), int(self.to_numpy(largest))

    def _reduce(self, name: str, A: Array, out: Array) -> Array:
        self._checks.operand(name, "A", A)
        self._checks.operand(name, "out", out, shape=(1,), dtype=_FLOAT64)
        gpu = self.gpu
        # 16 elements a thread before a second block pays for the second launch
        blocks = max(1, min(gpu.max_blocks, -(-A.size // (16 * THREADS))))
        partial = out if blocks == 1 else gpu.partials(blocks)
        kernel = gpu.kernel("reductions", A.dtype, name)
        gpu.launch(kernel, ((blocks,), (THREADS,)), (A, partial, np.int64(A.size)))
        if blocks > 1:
            kernel = gpu.kernel("reductions", A.dtype, "add_partials")
            gpu.launch(kernel, ((1,), (THREADS,)), (partial, out, np.int64(blocks)))
        return out

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
        self._checks.operand("row_hits", "H", H, ndim=2)
        m, n = H.shape
        self._checks.operand("row_hits", "labels", labels, shape=(m,), dtype=_INT64)
        self._checks.operand("row_hits", "out", out, shape=(m,), dtype=H.dtype)
        if n == 0:
            raise ShapeError(f"row_hits: H has shape {H.shape}; a row without columns has no largest one")
        self._launch_rows("row_hits", H.dtype, m, n, (H, labels, H.dtype.type(threshold), out))
        return out

    def _rowwise(self, name: str, arrays: dict[str, Array]) -> Array:
        role, first = next(iter(arrays.items()))
        self._checks.operand(name, role, first, ndim=2)
        for role, array in arrays.items():
            self._checks.operand(name, role, array, shape=first.shape, dtype=first.dtype)
        m, n = first.shape
        self._launch_rows(name, first.dtype, m, n, tuple(arrays.values()))
        return arrays["out"]

    def _launch_rows(self, name: str, dtype: Any, m: int, n: int, arguments: tuple[Any, ...]) -> None:
        if m == 0 or n == 0:
            return
        gpu, sizes = self.gpu, (np.int64(m), np.int64(n))
        if n <= WIDEST_FOR_LANES:
            width = min(32, power_of_two(n))
            kernel = gpu.kernel("rowwise", dtype, f"{name}_narrow")
            gpu.launch(kernel, gpu.line(m * width), (*arguments, *sizes, np.int32(width)))
        else:
            kernel = gpu.kernel("rowwise", dtype, f"{name}_wide")
            gpu.launch(kernel, ((min(m, gpu.max_blocks),), (THREADS,)), (*arguments, *sizes))

    def take_rows(self, X: Array, index: Array, out: Array) -> Array:
        """Gather rows, words of up to 16 bytes at a time; see :meth:`Backend.take_rows`.

        The kernel never reads outside X: a row number out of range gives a row of NaN (-1 in integers).
        """
        self._checks.operand("take_rows", "X", X, floats=False)
        m, rest = int(index.size), X.shape[1:]
        self._checks.operand("take_rows", "index", index, shape=(m,), dtype=_INT64)
        self._checks.operand("take_rows", "out", out, shape=(m, *rest), dtype=X.dtype)
        row_bytes = int(np.prod(rest, dtype=np.int64)) * X.dtype.itemsize
        if m == 0 or row_bytes == 0:
            return out
        wide = row_bytes % 16 == 0 and X.data.ptr % 16 == 0 and out.data.ptr % 16 == 0
        word = 16 if wide else X.dtype.itemsize
        if word not in (4, 8, 16):
            raise ShapeError(f"take_rows on cupy moves items of 4 or 8 bytes, X is {X.dtype}")
        words = row_bytes // word
        kernel = self.gpu.kernel("gather", _FLOAT32, f"take_rows_{word}")
        sizes = (np.int64(X.shape[0]), np.int64(m), np.int64(words))
        self.gpu.launch(kernel, self.gpu.plane(m, words), (X, index, out, *sizes))
        return out

    # ---------------------------------------------------------------- randomness

    def random_bits(self, out: Array, *, seed: int, purpose: Purpose, step: int = 0, layer: int = 0) -> Array:
        """Fill with Philox bits, computed on the device; see :meth:`Backend.random_bits`."""
        self._checks.operand("random_bits", "out", out, ndim=1, dtype=_UINT32)
        if out.size:
            kernel = self.gpu.kernel("random", _FLOAT32, "random_bits")
            arguments = (out, np.int64(out.size), *_stream_words(seed, purpose, step, layer))
            self.gpu.launch(kernel, self.gpu.line(-(-out.size // 4)), arguments)
        return out

    def dropout_mask(self, out: Array, *, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw an inverted-dropout mask in one launch; see :meth:`Backend.dropout_mask`."""
        self._checks.operand("dropout_mask", "out", out)
        if out.size:
            kernel = self.gpu.kernel("random", out.dtype, "dropout_mask")
            arguments = (out, np.int64(out.size), *_mask_numbers(out.dtype, rate, seed, step, layer))
            self.gpu.launch(kernel, self.gpu.line(-(-out.size // 4)), arguments)
        return out

    def dropout_part(self, out: Array, *, first: int, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw a part of a mask on the device; see :meth:`Backend.dropout_part`."""
        self._checks.operand("dropout_part", "out", out)
        if out.size:
            kernel = self.gpu.kernel("random", out.dtype, "dropout_part")
            sizes = np.int64(first), np.int64(out.size)
            arguments = (out, *sizes, *_mask_numbers(out.dtype, rate, seed, step, layer))
            self.gpu.launch(kernel, self.gpu.line(-(-out.size // 4) + 1), arguments)
        return out

    def permutation(self, n: int, *, seed: int, epoch: int) -> Array:
        """Draw and sort the keys on the device; see :meth:`Backend.permutation`.

        CuPy's argsort is stable, and a pair of words is one key as the device reads memory: low word first.
        """
        words = self.random_bits(self.empty(2 * n, _UINT32), seed=seed, purpose=Purpose.SHUFFLE, step=epoch)
        return self.gpu.here(lambda: self.xp.argsort(words.view(np.uint64)))

    # ---------------------------------------------------------------- the device

    def on_stream(self, stream: Any) -> AbstractContextManager[None]:
        """Queue work on a stream; see :meth:`Backend.on_stream` and :mod:`bpcore.backends.cupy_streams`."""
        if stream is None:
            return super().on_stream(stream)
        from bpcore.backends.cupy_streams import on_stream

        return on_stream(self.xp, self.gpu.number, stream)

    def staging(self, columns: Columns, rows: int) -> Staging:
        """Return buffers with pinned memory before them; see :class:`bpcore.backends.staging.PinnedStaging`."""
        from bpcore.backends.staging import PinnedStaging

        return PinnedStaging(self, columns, rows)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether CuPy's pool, or CUDA where it allocates by itself, has no memory left."""
        said = str(error)
        by_cuda = "cudaErrorMemoryAllocation" in said or "CUDA_ERROR_OUT_OF_MEMORY" in said
        return isinstance(error, self.xp.cuda.memory.OutOfMemoryError) or by_cuda

    def release(self) -> None:
        """Give the free blocks of CuPy's pools back to the driver, and what predictions keep between calls.

        Arrays that somebody holds stay as they are.
        """
        self.gpu.rooms.clear()
        self.gpu.here(self.xp.get_default_memory_pool().free_all_blocks)
        self.gpu.here(self.xp.get_default_pinned_memory_pool().free_all_blocks)

    def synchronize(self) -> None:
        """Wait until the device has done everything that was queued."""
        self.xp.cuda.Device(self.gpu.number).synchronize()

    def memory(self) -> dict[str, int]:
        """Bytes: ``used`` by arrays, ``held`` by CuPy's pool and its ``limit`` (0: none), ``free`` and ``total``."""
        pool = self.xp.get_default_memory_pool()
        free, total = self.gpu.here(self.xp.cuda.runtime.memGetInfo)
        used, held, limit = int(pool.used_bytes()), int(pool.total_bytes()), int(pool.get_limit())
        return {"used": used, "held": held, "limit": limit, "free": int(free), "total": int(total)}

    def describe(self) -> dict[str, Any]:
        """Device, versions, kernels built so far and native operations."""
        from bpcore.backends.cupy_probe import device_facts

        handle = self.gpu.here(self.xp.cuda.get_cublas_handle)
        return {
            **super().describe(),
            **device_facts(self.gpu.properties()),
            "cublas": int(self._cublas.getVersion(handle)),
            "float32_products": "float32 (no TF32)",
            # None: nobody has asked yet
            "early_launches": self.gpu.early is not None if "early" in vars(self.gpu) else None,
            "kernels_compiled": self.gpu.loader.compiled,
            "kernels_from_cache": self.gpu.loader.reused,
        }


def _mask_numbers(dtype: Any, rate: float, seed: int, step: int, layer: int) -> tuple[Any, ...]:
    """Which words of a mask are dropped, what the others become, and the words of its random field."""
    return (
        np.uint32(int(rate * 2**32)),
        dtype.type(1 / (1 - rate)),
        *_stream_words(seed, Purpose.DROPOUT, step, layer),
    )


def _stream_words(seed: int, purpose: int, step: int, layer: int) -> tuple[Any, ...]:
    """Key and counter words of a random field, laid out as :mod:`bpcore.random` says.

    Raises
    ------
    ConfigurationError
        If a number is not an integer or out of its range.
    """
    random_bits(0, seed=seed, purpose=purpose, step=step, layer=layer)  # draws nothing, checks everything
    low = 0xFFFFFFFF
    return (
        np.uint32(seed & low),
        np.uint32(seed >> 32),
        np.uint32(layer),
        np.uint32(step & low),
        np.uint32(int(purpose) << 24 | step >> 32),
    )
