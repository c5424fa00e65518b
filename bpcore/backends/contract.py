"""The contract: what every backend promises, and a complete implementation to begin from.

A :class:`Backend` is an object that a network holds and passes on; nothing in the engine asks a global for it.
This base class implements every operation with the plain functions of an array namespace (``xp``), so a new backend
is complete on its first day and overrides what it does better; :func:`native_operations` lists what it overrides.

The rules that all operations share:

* Arrays are the library's own. Their dtype is float32 or float64 and stays what it is; mixed dtypes are refused.
* Results are written into ``out``, which is returned. ``out`` may be the same memory as an input of an element-wise
  or row-wise operation, never a part of it shifted.
* Sums (:meth:`Backend.total`, :meth:`Backend.sum_squares`) are accumulated in float64 and stay on the device.
* Data crosses between host and device in :meth:`Backend.asarray` and :meth:`Backend.to_numpy`, and in the buffers of
  :meth:`Backend.staging` where it is streamed; nowhere else.
  :meth:`Backend.all_finite` answers with one Python bool and is not used inside a step.
* Same inputs, same bits, from run to run.

The table of operations with their shapes, costs and references is :data:`bpcore.backends.ops.OPS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bpcore import random
from bpcore.errors import ConfigurationError, ShapeError
from bpcore.functions.expression import evaluate, variables
from bpcore.functions.formula import Formula
from bpcore.functions.program import Program
from bpcore.random import Purpose
from bpcore.typing import Array, NDArray

if TYPE_CHECKING:
    from bpcore.backends.staging import Columns, Staging

__all__ = ["Backend", "Probe", "check_operands", "expect", "native_operations", "product_sizes"]

ALIGNMENT = 64


@dataclass(frozen=True)
class Probe:
    """What was found out about a backend without starting it.

    Attributes
    ----------
    usable : bool
        Whether the backend can run here.
    reason : str
        Why, or why not.
    repair : str
        What to do when it is not usable; empty otherwise.
    facts : dict
        Versions and devices, JSON-serialisable.
    """

    usable: bool
    reason: str
    repair: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def expect(op: str, dtype: Any, *operands: tuple[str, Array, tuple[int, ...]]) -> None:
    """Refuse operands of another dtype or shape.

    Parameters
    ----------
    op : str
        The operation, for the message.
    dtype : dtype
        What every operand must have.
    *operands : (str, Array, tuple of int)
        Name, array and the shape that is needed.

    Raises
    ------
    ShapeError
        Naming the operand, what it is and what is needed.
    """
    for name, array, shape in operands:
        if array.shape != shape or array.dtype != dtype:
            raise ShapeError(f"{op}: {name} is {array.dtype} {array.shape}; expected {dtype} {shape}")


def check_operands(program: Program, outs: tuple[Array, ...], args: Mapping[str, Any]) -> None:
    """Refuse what :meth:`Backend.elementwise` cannot take.

    Raises
    ------
    ShapeError
        If an input is missing or of the wrong type, or shapes or dtypes do not fit.
    """
    missing = [name for name in program.inputs if name not in args]
    if missing:
        raise ShapeError(f"{program.name}: no value for {', '.join(missing)}; it needs {', '.join(program.inputs)}")
    if len(outs) != len(program.outputs):
        raise ShapeError(f"{program.name}: {len(outs)} arrays given for the outputs {', '.join(program.outputs)}")
    shape, dtype = outs[0].shape, outs[0].dtype
    if len(shape) > 2:
        raise ShapeError(f"{program.name}: the result has shape {shape}; at most two axes are possible")
    expect(program.name, dtype, *((name, array, shape) for name, array in zip(program.outputs, outs, strict=True)))
    m, n = (1, 1, *shape)[-2:]
    fitting = {shape, (n,), (1, n), (m, 1), (), (1,), (1, 1)}
    for name in program.inputs:
        value = args[name]
        if isinstance(value, int | float | np.number):
            continue
        if not hasattr(value, "dtype"):
            raise ShapeError(f"{program.name}: {name} is {value!r}; a number or an array is needed")
        if value.dtype != dtype:
            raise ShapeError(f"{program.name}: {name} is {value.dtype}, but the result is {dtype}; convert one")
        if value.shape not in fitting:
            raise ShapeError(
                f"{program.name}: {name} has shape {value.shape}, which does not fit a result of shape {shape}; "
                f"possible: {shape}, ({n},), (1, {n}), ({m}, 1) or one element"
            )


def product_sizes(A: Array, B: Array, transpose_a: bool, transpose_b: bool) -> tuple[int, int]:
    """Return the shape (m, n) of a matrix product.

    Raises
    ------
    ShapeError
        If the operands are not matrices, or do not fit each other.
    """
    if A.ndim == B.ndim == 2:
        k, m = A.shape if transpose_a else A.shape[::-1]
        n, k_b = B.shape if transpose_b else B.shape[::-1]
        if k == k_b:
            return m, n
    raise ShapeError(
        f"matmul: A {A.shape}{' transposed' if transpose_a else ''} and B {B.shape}"
        f"{' transposed' if transpose_b else ''} do not fit; expected (m, k) and (k, n)"
    )


class Backend:
    """Operations of the engine over one array library; see the module for the shared rules.

    Attributes
    ----------
    name : str
        Name in the registry.
    device : str
        ``"cpu"`` or ``"cuda:0"``.
    xp : module
        The array namespace (NumPy or CuPy).
    gpu : CudaDevice or None
        Of the CuPy backend the device, for whoever launches kernels of his own.
    """

    name: ClassVar[str] = "base"
    device: str = "cpu"
    xp: Any = np
    gpu: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """Find out whether this backend can run here; never raises."""
        return Probe(True, "always available")

    def __deepcopy__(self, memo: object) -> Backend:
        return self  # one object for each name and process; a copy would have kernels and scratch space of its own

    # ---------------------------------------------------------------- memory

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Allocate an array, aligned to 64 bytes, with unspecified content."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raw = np.empty(n_bytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + n_bytes].view(dtype).reshape(shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Allocate an array of zeros, aligned to 64 bytes."""
        return self.fill(self.empty(shape, dtype), 0)

    def asarray(self, host: Any, dtype: Any = None) -> Array:
        """Bring data to the device, C-contiguous; the one crossing in. Arrays that are there already pass through."""
        return np.asarray(host, dtype=dtype, order="C")

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Bring an array to the host; the one crossing out. On the CPU this is the array itself."""
        return np.asarray(array)

    def owns(self, array: object) -> bool:
        """Whether the array lives where this backend computes."""
        return isinstance(array, np.ndarray)

    def copy(self, source: Array, out: Array) -> Array:
        """Copy between two arrays of this backend."""
        out[...] = source
        return out

    def fill(self, out: Array, value: float) -> Array:
        """Set every element."""
        out[...] = value
        return out

    # ---------------------------------------------------------------- matrix products

    @np.errstate(all="ignore")
    def matmul(self, A: Array, B: Array, out: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
        """Matrix product ``out = op(A) @ op(B)`` with ``op`` the identity or the transpose.

        Parameters
        ----------
        A, B : Array
            After transposition of shape (m, k) and (k, n).
        out : Array, shape (m, n)
            Receives the product; must not overlap A or B.
        transpose_a, transpose_b : bool
            Whether to use the transpose of the operand.

        Raises
        ------
        ShapeError
            If shapes or dtypes do not fit.
        """
        expect("matmul", A.dtype, ("B", B, B.shape), ("out", out, product_sizes(A, B, transpose_a, transpose_b)))
        self.xp.matmul(A.T if transpose_a else A, B.T if transpose_b else B, out=out)
        return out

    # ---------------------------------------------------------------- element-wise

    def elementwise(self, program: Program, *, out: Array | tuple[Array, ...], **args: Array | float) -> Any:
        """Run a program over every element.

        Parameters
        ----------
        program : Program
            The formulas.
        out : Array or tuple of Array
            One array for each output of the program, all of one shape S with at most two axes.
        **args : Array or float
            Every input of the program: a number, or an array of out's dtype and of shape S, (n,), (1, n), (m, 1) or
            with a single element.

        Returns
        -------
        Array or tuple of Array
            ``out``.
        """
        outs = out if isinstance(out, tuple) else (out,)
        check_operands(program, outs, args)
        values: dict[str, Any] = dict(args)
        for target, expr in program.assignments:
            values[target] = evaluate(expr, values)
        for array, value in zip(outs, [values[name] for name in program.outputs], strict=True):
            array[...] = value
        return out

    def evaluate(self, formula: Formula | str, **args: Any) -> Array:
        """Evaluate a formula into a new array: a convenience for user code, built on :meth:`elementwise`.

        Parameters
        ----------
        formula : Formula or str
            The formula.
        **args : Array or float
            Its variables. Without any array the result has shape (1,) and dtype float64.

        Returns
        -------
        Array
            The values, with the broadcast shape of the arguments.
        """
        expr = (formula if isinstance(formula, Formula) else Formula(formula)).expr
        missing = [name for name in variables(expr) if name not in args]
        if missing:
            raise ShapeError(f"no value for {', '.join(missing)} in formula {formula!s}")
        used = {name: args[name] for name in variables(expr)}
        arrays = [value for value in used.values() if getattr(value, "ndim", 0) > 0]
        shape = np.broadcast_shapes(*(array.shape for array in arrays)) if arrays else (1,)
        dtype = arrays[0].dtype if arrays else np.dtype(np.float64)
        used = {name: value if getattr(value, "ndim", 0) > 0 else float(value) for name, value in used.items()}
        return self.elementwise(Program({"value": expr}), out=self.empty(shape, dtype), **used)

    # ---------------------------------------------------------------- reductions

    @np.errstate(all="ignore")
    def column_sums(self, A: Array, out: Array) -> Array:
        """Sum the rows of A (m, n) into out (n,)."""
        expect("column_sums", A.dtype, ("out", out, A.shape[1:]))
        self.xp.sum(A, axis=0, out=out)
        return out

    @np.errstate(all="ignore")
    def total(self, A: Array, out: Array) -> Array:
        """Sum all elements of A, accumulated in float64, into ``out[0]`` (shape (1,), float64)."""
        expect("total", np.dtype(np.float64), ("out", out, (1,)))
        out[...] = self.xp.sum(A, dtype=np.float64)
        return out

    @np.errstate(all="ignore")
    def sum_squares(self, A: Array, out: Array) -> Array:
        """Sum the squares of all elements, accumulated in float64, into ``out[0]`` (shape (1,), float64)."""
        expect("sum_squares", np.dtype(np.float64), ("out", out, (1,)))
        out[...] = self.xp.sum(self.xp.square(A.astype(np.float64)))
        return out

    def all_finite(self, A: Array) -> bool:
        """Whether no element is NaN or infinite."""
        return bool(self.xp.isfinite(A).all())

    def extremes(self, A: Array) -> tuple[int, int]:
        """Least and largest element of an array of integers that is not empty."""
        return int(self.xp.min(A)), int(self.xp.max(A))

    # ---------------------------------------------------------------- rows

    @np.errstate(all="ignore")
    def softmax(self, Z: Array, out: Array) -> Array:
        """Softmax of every row, shifted by the row's maximum: ``exp(z - max) / sum(exp(z - max))``."""
        expect("softmax", Z.dtype, ("out", out, Z.shape))
        E = self.xp.exp(Z - self.xp.max(Z, axis=1, keepdims=True))
        self.xp.divide(E, self.xp.sum(E, axis=1, keepdims=True), out=out)
        return out

    @np.errstate(all="ignore")
    def log_softmax(self, Z: Array, out: Array) -> Array:
        """Logarithm of the softmax of every row: ``z - max - log(sum(exp(z - max)))``."""
        expect("log_softmax", Z.dtype, ("out", out, Z.shape))
        S = Z - self.xp.max(Z, axis=1, keepdims=True)
        self.xp.subtract(S, self.xp.log(self.xp.sum(self.xp.exp(S), axis=1, keepdims=True)), out=out)
        return out

    @np.errstate(all="ignore")
    def backprop_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Multiply G by the Jacobian of softmax: ``H * (G - rowsum(G * H))``, H the output of softmax."""
        expect("backprop_softmax", G.dtype, ("H", H, G.shape), ("out", out, G.shape))
        row_sum = self.xp.sum(G * H, axis=1, keepdims=True)
        self.xp.multiply(H, G - row_sum, out=out)
        return out

    @np.errstate(all="ignore")
    def backprop_log_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Multiply G by the Jacobian of log-softmax: ``G - exp(H) * rowsum(G)``, H the output of log_softmax."""
        expect("backprop_log_softmax", G.dtype, ("H", H, G.shape), ("out", out, G.shape))
        row_sum = self.xp.sum(G, axis=1, keepdims=True)
        self.xp.subtract(G, self.xp.exp(H) * row_sum, out=out)
        return out

    def take_rows(self, X: Array, index: Array, out: Array) -> Array:
        """Gather ``out[i] = X[index[i]]`` for an int64 index whose values are in range (the caller checked)."""
        expect("take_rows", X.dtype, ("out", out, (index.size, *X.shape[1:])))
        out[...] = X[index]
        return out

    def row_hits(self, H: Array, labels: Array, threshold: float, out: Array) -> Array:
        """Mark the rows that are classified rightly.

        Parameters
        ----------
        H : Array, shape (m, n)
            Outputs.
        labels : Array, shape (m,), int64
            Classes.
        threshold : float
            With one column, class 1 is predicted above this value. With several, the class is the first largest
            column, and a row that holds NaN is never right.
        out : Array, shape (m,)
            Receives 1 where right, else 0.
        """
        expect("row_hits", H.dtype, ("out", out, H.shape[:1]))
        guess = H[:, 0] > threshold if H.shape[1] == 1 else self.xp.argmax(H, axis=1)
        out[...] = (guess == labels) & ~self.xp.isnan(H).any(axis=1)
        return out

    # ---------------------------------------------------------------- randomness

    def random_bits(self, out: Array, *, seed: int, purpose: Purpose, step: int = 0, layer: int = 0) -> Array:
        """Fill a flat uint32 array with Philox bits (:mod:`bpcore.random`)."""
        random.random_bits(out.size, seed=seed, purpose=purpose, step=step, layer=layer, out=out)
        return out

    def dropout_mask(self, out: Array, *, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw an inverted-dropout mask: 0 with probability ``rate``, else ``1 / (1 - rate)``.

        Element p (in C order) is dropped when its 32 random bits are below ``floor(rate * 2**32)``, so the mask is
        the same on every backend and in every dtype.
        """
        bits = self.random_bits(
            self.empty(out.size, np.uint32), seed=seed, purpose=Purpose.DROPOUT, step=step, layer=layer
        )
        out[...] = ((bits >= int(rate * 2**32)) / (1 - rate)).reshape(out.shape)
        return out

    def dropout_part(self, out: Array, *, first: int, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw the elements from ``first`` on of a longer mask, as :meth:`dropout_mask` would.

        A convenience for batches that are computed in parts: the bits are drawn on the host.
        """
        purpose = Purpose.DROPOUT
        bits = random.random_bits(out.size, offset=first, seed=seed, purpose=purpose, step=step, layer=layer)
        mask = np.multiply(bits >= int(rate * 2**32), 1 / (1 - rate), dtype=out.dtype)
        return self.copy(self.asarray(mask.reshape(out.shape)), out=out)

    def permutation(self, n: int, *, seed: int, epoch: int) -> Array:
        """Return the order of :func:`bpcore.random.permutation`, as int64 on the device."""
        return random.permutation(n, seed, epoch, draw=self.random_bits)

    # ---------------------------------------------------------------- the device

    def on_stream(self, stream: Any) -> AbstractContextManager[None]:
        """Queue work on a stream of the caller inside a ``with`` block.

        Parameters
        ----------
        stream : cupy.cuda.Stream, torch.cuda.Stream, object with ``__cuda_stream__``, int (address) or None
            The stream; None changes nothing. Its work follows what the current stream has queued before, and what is
            queued on either afterwards follows it.

        Raises
        ------
        ConfigurationError
            If the backend has no streams, or this is none of its device.
        """
        if stream is None:
            return nullcontext()
        raise ConfigurationError(
            f"stream= is for backend cupy, and backend {self.name} computes on {self.device}, which has no streams; "
            "leave stream out, or use net.to('cupy')"
        )

    def staging(self, columns: Columns, rows: int) -> Staging:
        """Return two buffers of so many rows, see :class:`bpcore.backends.staging.Staging`."""
        from bpcore.backends.staging import Staging

        return Staging(self, columns, rows)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that the device has no room for an allocation."""
        return False

    def release(self) -> None:
        """Give memory back that nobody uses and that the backend keeps for later."""

    def synchronize(self) -> None:
        """Wait until everything that was asked for has been computed."""

    def memory(self) -> dict[str, int]:
        """Bytes in use and available, where the backend knows them."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Name, device, versions and native operations, JSON-serialisable."""
        return {
            "name": self.name,
            "device": self.device,
            **self.probe().facts,
            "native": sorted(native_operations(type(self))),
        }

    def __repr__(self) -> str:
        return f"<backend {self.name} on {self.device}>"


def native_operations(backend: type[Backend]) -> set[str]:
    """Names of the operations that a backend implements itself instead of inheriting the plain formula."""
    from bpcore.backends.ops import OPS

    return {name for name in OPS if getattr(backend, name) is not getattr(Backend, name)}
