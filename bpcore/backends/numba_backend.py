"""The Numba backend: element-wise programs and row kernels as compiled loops, products by NumPy's BLAS.

A call looks up a compiled loop under the shapes, strides and dtypes of its arrays; arrays are checked when such
a combination is first seen and never again. Loops are serial: the threads of a matrix product belong to BLAS,
and a small network is fastest on one. They release the GIL, so several Python threads may compute at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from bpcore import random
from bpcore.backends.contract import Backend, Probe, expect, product_sizes
from bpcore.errors import BackendError, DataError, ShapeError
from bpcore.functions.program import Program
from bpcore.kernels.numba.operands import classify, number, position
from bpcore.random import Purpose
from bpcore.settings import FLOAT_DTYPES
from bpcore.typing import Array

if TYPE_CHECKING:
    from bpcore.kernels.numba.cache import Kernel

__all__ = ["NumbaBackend"]

MAX_PLANS = 4096
"""Combinations of shapes remembered; more than that means that shapes never repeat."""

REPAIR = "pip install --upgrade numba"


class _Scratch(threading.local):
    """Small results and accumulators of one thread, so that nothing is allocated inside a step."""

    def __init__(self) -> None:
        from bpcore.kernels.numba.rowwise import SUMS

        self.sums = np.empty(SUMS)
        self.refused = np.empty(1, np.int64)
        self.finite = np.empty(1, np.bool_)


class NumbaBackend(Backend):
    """The engine's operations with Numba; see :class:`bpcore.backends.contract.Backend` for the contract.

    Raises
    ------
    BackendError
        If Numba is installed but cannot be imported (often: it does not know this version of NumPy).

    Examples
    --------
    >>> import numpy as np
    >>> from bpcore.functions.program import Program
    >>> z = np.array([-1.0, 2.0])
    >>> NumbaBackend().elementwise(Program("h = max(z, 0)"), out=np.empty(2), z=z)
    array([0., 2.])
    """

    name: ClassVar[str] = "numba"
    import_error: ClassVar[str | None] = None
    """Why importing Numba failed when it was tried, None while it has not failed."""

    def __init__(self) -> None:
        try:
            from bpcore.kernels.numba import elementwise, philox, rowwise
        except Exception as error:
            # any exception: a broken installation fails in many ways
            type(self).import_error = f"{type(error).__name__}: {error}"
            raise BackendError(f"Numba is installed but cannot be imported ({self.import_error})") from error
        self._elementwise, self._rowwise, self._philox = elementwise, rowwise, philox
        self._plans: dict[tuple[Any, ...], Callable[..., None]] = {}
        self._kernels: dict[tuple[Any, ...], Callable[..., None]] = {}
        self._scratch = _Scratch()
        self._largest = {dtype: np.array([np.finfo(dtype).max], dtype) for dtype in FLOAT_DTYPES}

    @classmethod
    def probe(cls) -> Probe:
        """Look whether Numba is installed, without importing it."""
        try:
            if importlib.util.find_spec("numba") is None:
                return Probe(False, "Numba is not installed", "pip install numba")
            version = importlib.metadata.version("numba")
        except Exception as error:
            return Probe(False, f"Numba cannot be examined ({type(error).__name__}: {error})", REPAIR)
        facts = {"numba": version, "numpy": np.__version__}
        if cls.import_error is not None:
            return Probe(False, f"Numba {version} cannot be imported ({cls.import_error})", REPAIR, facts)
        return Probe(True, f"Numba {version}", facts=facts)

    # ---------------------------------------------------------------- matrix products

    @np.errstate(all="ignore")
    def matmul(self, A: Array, B: Array, out: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        """Multiply with BLAS; see :meth:`Backend.matmul`."""
        expect("matmul", A.dtype, ("B", B, B.shape), ("out", out, product_sizes(A, B, transpose_a, transpose_b)))
        if transpose_a:
            A = A.T
        if transpose_b:
            B = B.T
        if out.flags.c_contiguous:
            # the same BLAS call as matmul, with half the overhead
            return np.dot(A, B, out=out)
        return np.matmul(A, B, out=out)

    # ---------------------------------------------------------------- element-wise

    def elementwise(self, program: Program, *, out: Array | tuple[Array, ...], **args: Array | float) -> Any:
        """Run the compiled loop of a program; see :meth:`Backend.elementwise`."""
        outs = out if isinstance(out, tuple) else (out,)
        # the arrays' shapes, strides and dtypes in order; None for a number, k for the very array of output k
        key: list[Any] = [program.key]
        values: list[Any] = []
        try:
            for array in outs:
                key += (array.shape, array.strides, array.dtype)
            first = outs[0]
            for name in program.inputs:
                value = args[name]
                if type(value) is float:
                    key.append(None)
                elif value is first:
                    key.append(0)
                    continue
                elif isinstance(value, np.ndarray):
                    same = position(value, outs)
                    if same is not None:
                        key.append(same)
                        continue
                    key += (value.shape, value.strides, value.dtype)
                else:
                    value = number(program, name, value)
                    key.append(None)
                values.append(value)
        except (KeyError, AttributeError):
            self._refuse(program, outs, args)
        lookup = tuple(key)
        kernel = self._plans.get(lookup)
        if kernel is None:
            kernel = self._plan(program, outs, args, lookup)
        try:
            kernel(*outs, *values)
        except TypeError:
            self._refuse(program, outs, args)
        return out

    def _plan(
        self, program: Program, outs: tuple[Array, ...], args: dict[str, Any], lookup: tuple[Any, ...]
    ) -> Callable[..., None]:
        """Check a new combination of arrays, find or compile its loop, and remember it."""
        dtype = outs[0].dtype
        outputs, arguments = classify(program, outs, args)
        identity = (program, outputs, arguments, dtype)
        # no lock: two threads that come here at once compile the same thing, and either result serves
        kernel = self._kernels.get(identity)
        if kernel is None:
            kernel = self._elementwise.compile_program(program, outputs, arguments, dtype)
            self._kernels[identity] = kernel
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        plan = self._plans[lookup] = _for_numbers(kernel) if outs[0].ndim == 0 else kernel
        return plan

    def _refuse(self, program: Program, outs: tuple[Array, ...], args: dict[str, Any]) -> NoReturn:
        """Find out what is wrong with the arguments and raise the error for it."""
        missing = [name for name in program.inputs if name not in args]
        if missing:
            needed = ", ".join(program.inputs)
            raise ShapeError(f"{program.name}: no value for {', '.join(missing)}; it needs {needed}") from None
        classify(program, outs, args)
        raise  # the caller handles an exception that has another cause

    # ---------------------------------------------------------------- reductions

    def column_sums(self, A: Array, out: Array) -> Array:
        """Sum the rows in float64; see :meth:`Backend.column_sums`."""
        if A.ndim != 2 or out.shape != (A.shape[1],):
            raise ShapeError(f"column_sums: A is {A.shape} and out {out.shape}; expected (m, n) and (n,)")
        self._run("column_sums", self._rowwise.column_sums, A.dtype, A, self._scratch.sums, out)
        return out

    def total(self, A: Array, out: Array) -> Array:
        """Sum all elements in float64; see :meth:`Backend.total`."""
        self._run("total", self._rowwise.total, A.dtype, A.reshape(-1), _one("total", out))
        return out

    def sum_squares(self, A: Array, out: Array) -> Array:
        """Sum the squares in float64; see :meth:`Backend.sum_squares`."""
        self._run("sum_squares", self._rowwise.sum_squares, A.dtype, A.reshape(-1), _one("sum_squares", out))
        return out

    def all_finite(self, A: Array) -> bool:
        """Whether no element is NaN or infinite; see :meth:`Backend.all_finite`."""
        if A.dtype not in FLOAT_DTYPES:
            return super().all_finite(A)
        finite = self._scratch.finite
        self._run("all_finite", self._rowwise.all_finite, A.dtype, A.reshape(-1), self._largest[A.dtype], finite)
        return bool(finite[0])

    # ---------------------------------------------------------------- rows

    def softmax(self, Z: Array, out: Array) -> Array:
        """Softmax of every row; see :meth:`Backend.softmax`."""
        return self._rows("softmax", self._rowwise.softmax, Z, out)

    def log_softmax(self, Z: Array, out: Array) -> Array:
        """Logarithm of the softmax of every row; see :meth:`Backend.log_softmax`."""
        return self._rows("log_softmax", self._rowwise.log_softmax, Z, out)

    def backprop_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of softmax times G; see :meth:`Backend.backprop_softmax`."""
        return self._rows("backprop_softmax", self._rowwise.backprop_softmax, G, H, out)

    def backprop_log_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of log-softmax times G; see :meth:`Backend.backprop_log_softmax`."""
        return self._rows("backprop_log_softmax", self._rowwise.backprop_log_softmax, G, H, out)

    def _rows(self, name: str, kernel: Kernel, *arrays: Array) -> Array:
        first = arrays[0]
        if first.ndim != 2 or any(array.shape != first.shape for array in arrays[1:]):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ShapeError(f"{name}: all arrays need one shape (m, n), got {shapes}")
        if first.size:
            whole = [np.ascontiguousarray(array) for array in arrays]
            self._run(name, kernel, first.dtype, *whole, layouts="C")
            if whole[-1] is not arrays[-1]:
                arrays[-1][...] = whole[-1]
        return arrays[-1]

    def take_rows(self, X: Array, index: Array, out: Array) -> Array:
        """Gather rows; see :meth:`Backend.take_rows`.

        Raises
        ------
        DataError
            If an index is negative or too large: the loop would read memory that is not X's.
        """
        if X.ndim not in (1, 2) or out.shape != (*index.shape, *X.shape[1:]) or index.ndim != 1:
            raise ShapeError(
                f"take_rows: X is {X.shape}, index {index.shape}, out {out.shape}; expected (p, n), (m,), (m, n)"
            )
        source, target = (X.reshape(-1, 1), out.reshape(-1, 1)) if X.ndim == 1 else (X, out)
        refused = self._scratch.refused
        self._run("take_rows", self._rowwise.take_rows, X.dtype, source, index, target, refused)
        if refused[0] >= 0:
            found = index[refused[0]]
            raise DataError(f"take_rows: index[{refused[0]}] is {found}, but X has {X.shape[0]} rows")
        return out

    def row_hits(self, H: Array, labels: Array, threshold: float, out: Array) -> Array:
        """Mark the rows classified rightly; see :meth:`Backend.row_hits`."""
        if H.ndim != 2 or not labels.shape == out.shape == H.shape[:1]:
            raise ShapeError(
                f"row_hits: H is {H.shape}, labels {labels.shape}, out {out.shape}; expected (m, n), (m,), (m,)"
            )
        if H.size:
            self._run("row_hits", self._rowwise.row_hits, H.dtype, H, labels, float(threshold), out)
        return out

    # ---------------------------------------------------------------- randomness

    def random_bits(self, out: Array, *, seed: int, purpose: Purpose, step: int = 0, layer: int = 0) -> Array:
        """Fill with Philox bits; see :meth:`Backend.random_bits`."""
        if out.dtype != np.uint32 or out.ndim != 1:
            raise ShapeError(f"random_bits: out must be uint32 of shape (n,), got {out.dtype} {out.shape}")
        # checks the numbers and raises the error for a wrong one
        random.random_bits(0, seed=seed, purpose=purpose, step=step, layer=layer)
        self._run("random_bits", self._philox.random_bits, out.dtype, out, seed, int(purpose), step, layer)
        return out

    def dropout_mask(self, out: Array, *, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw an inverted-dropout mask; see :meth:`Backend.dropout_mask`."""
        random.random_bits(0, seed=seed, purpose=Purpose.DROPOUT, step=step, layer=layer)
        target = out.reshape(-1)
        numbers = (int(rate * 2**32), 1 / (1 - rate), 0, seed, int(Purpose.DROPOUT), step, layer)
        self._run("dropout_mask", self._philox.dropout_mask, out.dtype, target, *numbers)
        if not out.flags.c_contiguous:
            out[...] = target.reshape(out.shape)
        return out

    def _run(self, name: str, kernel: Kernel, dtype: np.dtype[Any], *args: Any, layouts: str = "CA") -> None:
        """Run the kernel for contiguous arrays (C), or, if it does not take these, the one for any strides (A)."""
        for layout in layouts:
            try:
                kernel[dtype if layout == "C" else (dtype, layout)](*args)
                return
            except (TypeError, NotImplementedError):
                continue
        found = ", ".join(
            f"{array.dtype} {array.shape}" + ("" if array.flags.writeable else " (read-only)")
            for array in args
            if isinstance(array, np.ndarray)
        )
        raise ShapeError(f"{name}: these arrays do not fit together: {found}")

    # ---------------------------------------------------------------- the device

    def describe(self) -> dict[str, Any]:
        """Versions, threading layers, cache folder and native operations."""
        import numba

        from bpcore.backends.diagnosis import blas_libraries, threading_layers
        from bpcore.kernels.numba.cache import folder

        return {
            **super().describe(),
            "threads": numba.config.NUMBA_NUM_THREADS,
            "threading_layers": threading_layers(),
            "svml": bool(numba.config.USING_SVML),
            "compiles": not numba.config.DISABLE_JIT,
            "cache": str(folder()),
            "blas": blas_libraries(),
        }


def _one(name: str, out: Array) -> Array:
    if out.shape != (1,):
        raise ShapeError(f"{name}: out is {out.shape}; expected (1,)")
    return out


def _for_numbers(kernel: Callable[..., None]) -> Callable[..., None]:
    """Let a kernel for vectors take arrays without axes."""

    def run(*arrays: Any) -> None:
        kernel(*(array.reshape(1) if isinstance(array, np.ndarray) else array for array in arrays))

    return run
