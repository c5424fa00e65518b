"""The NumPy backend: BLAS for products, ufuncs in cache-sized blocks for everything element-wise.

A program of ten ufuncs over a large array would stream ten temporaries through memory. Here the arrays are cut into
blocks that stay in the first-level cache, and all instructions of the program run on one block before the next. The
scratch registers belong to the thread and are as large as a block, so nothing is allocated after the first call.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from bpcore.backends.contract import Backend, Probe, check_operands, expect
from bpcore.functions.expression import OPERATIONS, array_function
from bpcore.functions.lowering import Slot, lower
from bpcore.functions.program import Program
from bpcore.random import Purpose
from bpcore.typing import Array

__all__ = ["NumpyBackend"]

BLOCK = 8192
"""Elements a block: 32 KiB in float32. Smaller blocks pay call overhead, larger ones leave the cache."""

MAX_VIEWS = 1024
"""Shapes for which the views of scratch registers are remembered."""

MAX_SIGNATURES = 4096
"""Combinations of shapes and dtypes that are remembered as checked."""


class _Scratch(threading.local):
    """Reusable buffers of one thread, grown on demand and never shrunk."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, int, np.dtype[Any]], Array] = {}
        self.views: dict[tuple[int, tuple[int, ...], np.dtype[Any]], list[Array]] = {}

    def get(self, kind: str, index: int, size: int, dtype: Any) -> Array:
        key = (kind, index, np.dtype(dtype))
        buffer = self.buffers.get(key)
        if buffer is None or buffer.size < size:
            buffer = self.buffers[key] = np.empty(size, dtype)
        return buffer[:size]

    def registers(self, compiled: _Compiled, like: Array) -> list[Array]:
        """Views of the registers of a program in the shape of one of its outputs."""
        key = (id(compiled), like.shape, like.dtype)
        views = self.views.get(key)
        if views is None:
            if len(self.views) >= MAX_VIEWS:
                self.views.clear()
            views = self.views[key] = [
                self.get(kind, k, like.size, _REGISTERS[kind] or like.dtype).reshape(like.shape)
                for _, kind, k in compiled.registers
            ]
        return views


class NumpyBackend(Backend):
    """The engine's operations with NumPy; see the module for how element-wise work is blocked."""

    name: ClassVar[str] = "numpy"

    def __init__(self) -> None:
        self._scratch = _Scratch()
        self._compiled: dict[tuple[Program, frozenset[str]], _Compiled] = {}
        self._checked: dict[tuple[Any, ...], _Compiled] = {}

    @classmethod
    def probe(cls) -> Probe:
        """NumPy is a requirement of bpcore and always there."""
        facts = {"numpy": np.__version__, "machine": platform.machine()}
        return Probe(True, f"NumPy {np.__version__}", facts=facts)

    def elementwise(self, program: Program, *, out: Array | tuple[Array, ...], **args: Array | float) -> Any:
        """Run a program block by block; see :meth:`Backend.elementwise`."""
        outs = out if isinstance(out, tuple) else (out,)
        first = outs[0]
        flat = all([array.flags.c_contiguous for array in outs])
        values: dict[str, Any] = {}
        signature: list[Any] = [program]
        try:
            for array in outs:
                signature += (array.shape, array.dtype)
            for name in program.inputs:
                value = args[name]
                if isinstance(value, np.ndarray):
                    signature += (value.shape, value.dtype)
                    flat = flat and value.shape == first.shape and value.flags.c_contiguous
                else:
                    signature.append(None)
                    value = float(value)
                values[name] = value
            compiled = self._checked[tuple(signature)]
        except (KeyError, TypeError, ValueError, AttributeError):
            compiled = self._compile(program, outs, args, signature)
        with np.errstate(all="ignore"):
            if flat and first.size <= BLOCK:
                compiled.run(self._scratch, outs, values)
            elif flat:
                self._run_flat(compiled, outs, values)
            else:
                self._run_rows(compiled, outs, values)
        return out

    def _compile(
        self, program: Program, outs: tuple[Array, ...], args: dict[str, Any], signature: list[Any]
    ) -> _Compiled:
        """Check a new combination of shapes and dtypes, and remember the compiled program for it."""
        check_operands(program, outs, args)
        scalars = frozenset(name for name in program.inputs if not isinstance(args[name], np.ndarray))
        compiled = self._compiled.setdefault((program, scalars), _Compiled(program, scalars))
        if len(self._checked) >= MAX_SIGNATURES:
            self._checked.clear()
        self._checked[tuple(signature)] = compiled
        return compiled

    def _run_flat(self, compiled: _Compiled, outs: tuple[Array, ...], values: dict[str, Any]) -> None:
        outs = tuple(array.reshape(-1) for array in outs)
        arrays = {name: value.reshape(-1) for name, value in values.items() if isinstance(value, np.ndarray)}
        for start in range(0, outs[0].size, BLOCK):
            block = slice(start, start + BLOCK)
            blocks = {name: array[block] for name, array in arrays.items()}
            compiled.run(self._scratch, tuple(array[block] for array in outs), {**values, **blocks})

    def _run_rows(self, compiled: _Compiled, outs: tuple[Array, ...], values: dict[str, Any]) -> None:
        shape = outs[0].shape
        if len(shape) < 2:
            # a vector is one row; what has fewer axes broadcasts over it
            shape = (1, outs[0].size)
            outs = tuple(array.reshape(shape) for array in outs)
        m, n = shape
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        rows = max(1, BLOCK // max(n, 1))
        for start in range(0, m, rows):
            block = slice(start, min(start + rows, m))
            blocks = {
                name: array[block] if array.ndim == 2 and array.shape[0] == m else array
                for name, array in arrays.items()
            }
            compiled.run(self._scratch, tuple(array[block] for array in outs), {**values, **blocks})

    # ---------------------------------------------------------------- reductions and rows, without temporaries

    @np.errstate(all="ignore")
    def total(self, A: Array, out: Array) -> Array:
        """Sum all elements in float64; see :meth:`Backend.total`."""
        expect("total", np.dtype(np.float64), ("out", out, (1,)))
        np.add.reduce(A, axis=None, dtype=np.float64, out=out.reshape(()))
        return out

    @np.errstate(all="ignore")
    def sum_squares(self, A: Array, out: Array) -> Array:
        """Sum the squares in float64; see :meth:`Backend.sum_squares`."""
        expect("sum_squares", np.dtype(np.float64), ("out", out, (1,)))
        total = 0.0
        flat = A.reshape(-1)
        wide = self._scratch.get("num", 0, min(BLOCK, max(flat.size, 1)), np.float64)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            # widened first: a ufunc that casts on the way makes buffers of its own
            part = wide[: block.size]
            np.copyto(part, block)
            total += float(np.dot(part, part))
        out[0] = total
        return out

    def all_finite(self, A: Array) -> bool:
        """Whether every element is finite, block by block; see :meth:`Backend.all_finite`."""
        flat = A.reshape(-1)
        finite = self._scratch.get("truth", 0, min(BLOCK, max(flat.size, 1)), np.bool_)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            if not np.isfinite(block, out=finite[: block.size]).all():
                return False
        return True

    def _column(self, index: int, m: int, dtype: Any) -> Array:
        return self._scratch.get("column", index, m, dtype).reshape(m, 1)

    def softmax(self, Z: Array, out: Array) -> Array:
        """Softmax of the rows in place of ``out``; see :meth:`Backend.softmax`."""
        expect("softmax", Z.dtype, ("out", out, Z.shape))
        with np.errstate(all="ignore"):
            column = np.max(Z, axis=1, keepdims=True, out=self._column(0, Z.shape[0], Z.dtype))
            np.exp(np.subtract(Z, column, out=out), out=out)
            np.divide(out, np.sum(out, axis=1, keepdims=True, out=column), out=out)
        return out

    def log_softmax(self, Z: Array, out: Array) -> Array:
        """Log-softmax of the rows; see :meth:`Backend.log_softmax`."""
        expect("log_softmax", Z.dtype, ("out", out, Z.shape))
        m, n = Z.shape
        with np.errstate(all="ignore"):
            column = np.max(Z, axis=1, keepdims=True, out=self._column(0, m, Z.dtype))
            np.subtract(Z, column, out=out)
            E = self._scratch.get("matrix", 0, m * n, Z.dtype).reshape(m, n)
            np.sum(np.exp(out, out=E), axis=1, keepdims=True, out=column)
            np.subtract(out, np.log(column, out=column), out=out)
        return out

    @np.errstate(all="ignore")
    def backprop_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of softmax times G; see :meth:`Backend.backprop_softmax`."""
        expect("backprop_softmax", G.dtype, ("H", H, G.shape), ("out", out, G.shape))
        row_sum = np.einsum("ij,ij->i", G, H, out=self._scratch.get("column", 0, G.shape[0], G.dtype))
        np.multiply(H, np.subtract(G, row_sum[:, None], out=self._matrix(G)), out=out)
        return out

    @np.errstate(all="ignore")
    def backprop_log_softmax(self, G: Array, H: Array, out: Array) -> Array:
        """Jacobian of log-softmax times G; see :meth:`Backend.backprop_log_softmax`."""
        expect("backprop_log_softmax", G.dtype, ("H", H, G.shape), ("out", out, G.shape))
        row_sum = np.sum(G, axis=1, keepdims=True, out=self._column(0, G.shape[0], G.dtype))
        product = self._matrix(G)
        np.multiply(np.exp(H, out=product), row_sum, out=product)
        np.subtract(G, product, out=out)
        return out

    def _matrix(self, like: Array) -> Array:
        return self._scratch.get("matrix", 0, like.size, like.dtype).reshape(like.shape)

    def take_rows(self, X: Array, index: Array, out: Array) -> Array:
        """Gather rows; see :meth:`Backend.take_rows`."""
        expect("take_rows", X.dtype, ("out", out, (index.size, *X.shape[1:])))
        # mode "clip" writes into out directly; the default mode would build a copy first
        np.take(X, index, axis=0, out=out, mode="clip")
        return out

    def row_hits(self, H: Array, labels: Array, threshold: float, out: Array) -> Array:
        """Mark the rows classified rightly; see :meth:`Backend.row_hits`."""
        expect("row_hits", H.dtype, ("out", out, H.shape[:1]))
        m, n = H.shape
        if n == 1:
            np.equal(np.greater(H[:, 0], threshold, out=self._scratch.get("truth", 0, m, np.bool_)), labels, out=out)
            np.multiply(out, np.equal(H[:, 0], H[:, 0], out=self._scratch.get("truth", 0, m, np.bool_)), out=out)
            return out
        guess = np.argmax(H, axis=1, out=self._scratch.get("index", 0, m, np.intp))
        np.equal(guess, labels, out=out)
        # the maximum of a row is NaN exactly when the row holds a NaN
        top = np.max(H, axis=1, out=self._scratch.get("column", 0, m, H.dtype))
        np.multiply(out, np.equal(top, top, out=self._scratch.get("truth", 0, m, np.bool_)), out=out)
        return out

    def dropout_mask(self, out: Array, *, rate: float, seed: int, step: int, layer: int) -> Array:
        """Draw an inverted-dropout mask; see :meth:`Backend.dropout_mask`."""
        bits = self._scratch.get("bits", 0, out.size, np.uint32)
        self.random_bits(bits, seed=seed, purpose=Purpose.DROPOUT, step=step, layer=layer)
        kept = np.greater_equal(bits, int(rate * 2**32), out=self._scratch.get("truth", 0, out.size, np.bool_))
        np.multiply(kept.reshape(out.shape), 1 / (1 - rate), out=out, dtype=out.dtype)
        return out

    def describe(self) -> dict[str, Any]:
        """Versions, BLAS libraries and native operations."""
        from threadpoolctl import threadpool_info

        blas = [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in threadpool_info()
            if pool.get("user_api") == "blas"
        ]
        return {**super().describe(), "blas": blas}


class _Compiled:
    """A program as a list of bound ufunc calls over numbered slots."""

    def __init__(self, program: Program, scalars: frozenset[str]) -> None:
        lowered = lower(program, scalars)
        self.slots: list[Any] = []
        numbers: dict[Slot, int] = {}

        def number(slot: Slot) -> int:
            if slot not in numbers:
                numbers[slot] = len(self.slots)
                self.slots.append(slot[1] if slot[0] == "const" else None)
            return numbers[slot]

        self.steps: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
        self.scalar_steps: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
        for instruction in lowered.instructions:
            step = _function(instruction.op), tuple(map(number, instruction.args)), number(instruction.dest)
            (self.scalar_steps if instruction.dest[0] == "scalar" else self.steps).append(step)
        self.inputs = [(index, str(slot[1])) for slot, index in numbers.items() if slot[0] == "in"]
        self.outs = [(index, int(slot[1])) for slot, index in numbers.items() if slot[0] == "out"]
        self.registers = [(index, slot[0], int(slot[1])) for slot, index in numbers.items() if slot[0] in _REGISTERS]

    def run(self, scratch: _Scratch, outs: tuple[Array, ...], values: dict[str, Any]) -> None:
        """Run on arrays of at most a block (or one long row)."""
        slots = self.slots.copy()
        for index, name in self.inputs:
            slots[index] = values[name]
        for index, k in self.outs:
            slots[index] = outs[k]
        if self.registers:
            for (index, _, _), register in zip(self.registers, scratch.registers(self, outs[0]), strict=True):
                slots[index] = register
        for function, args, dest in self.scalar_steps:
            # a Python float: a NumPy scalar would promote float32 arrays to float64
            slots[dest] = float(function(*[slots[arg] for arg in args]))
        for function, args, dest in self.steps:
            function(*[slots[arg] for arg in args], out=slots[dest])


_REGISTERS = {"num": None, "truth": np.bool_}


def _function(op: str) -> Callable[..., Any]:
    if op == "where":
        return _where
    if op == "copy":
        return _copy
    return array_function(OPERATIONS[op].ufunc, np)  # type: ignore[no-any-return]


def _copy(source: Any, out: Array | None = None) -> Any:
    if out is None:
        return source
    np.copyto(out, source)
    return out


def _where(condition: Any, yes: Any, no: Any, out: Array | None = None) -> Any:
    if out is None:
        return yes if condition else no
    np.copyto(out, no)
    np.copyto(out, yes, where=condition)
    return out
