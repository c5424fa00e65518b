"""What every backend must do, as plain functions: ``check_<op>(be, dtype, rng, ...)``, the list `CASES` and `run_all`.

Each check makes its data on the host, brings it to the backend in the memory layout asked for, runs the operation
twice into fresh outputs, and compares with float64 NumPy:

* the object returned is ``out``; values, dtype and shape are those of the reference; both runs agree bit for bit,
* inputs are unchanged, and so is the memory around an output that is a view,
* a layout that the contract does not promise is computed rightly or refused with a ShapeError, never wrong
  (on the CPU it must be computed).

The tolerance follows from the length of the sums stated in the operation's table entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from bpcore.backends.ops import OPS
from bpcore.errors import BpcoreError, ShapeError
from bpcore.functions.program import Program
from bpcore.random import Purpose
from tests.helpers.compare import assert_close, assert_same_bits

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
LAYOUTS = ("C", "padded", "step", "T")
"""Contiguous; rows of a wider array (unit inner stride); every second column; the transpose of a contiguous array."""

SIZES = [(0, 3), (1, 1), (5, 1), (1, 7), (13, 11), (64, 8), (65, 9), (31, 257), (127, 65), (3, 1030), (1100, 9)]
"""No rows, one element, one column, one row, primes, a tile, one past it, more than 8192 elements, wide, tall."""

GUARD = 12345.0


# ------------------------------------------------------------------------------------------------ placing and judging


class View:
    """An array of the backend in some layout, with guard values in the memory around it."""

    def __init__(self, be: Any, host: NDArray[Any], layout: str) -> None:
        self.be = be
        if host.ndim == 0 or layout == "C":
            base, cut = host, (slice(None),) * host.ndim
        elif layout == "T":
            base, cut = host.T, (slice(None),) * host.ndim
        elif layout == "padded":
            base = np.full((*host.shape[:-1], host.shape[-1] + 5), GUARD).astype(host.dtype)
            cut = (*(slice(None),) * (host.ndim - 1), slice(2, 2 + host.shape[-1]))
            base[cut] = host
        else:
            base = np.full((*host.shape[:-1], 2 * host.shape[-1]), GUARD).astype(host.dtype)
            cut = (*(slice(None),) * (host.ndim - 1), slice(0, None, 2))
            base[cut] = host
        # a copy always: asarray hands a host array through on the CPU
        self.base = be.asarray(np.array(base, order="C"))
        self.array = (self.base.T if layout == "T" else self.base)[cut] if layout != "C" else self.base
        self.cut = cut
        self.transposed = layout == "T" and host.ndim > 0
        assert self.array.shape == host.shape

    def host(self) -> NDArray[Any]:
        return np.array(self.be.to_numpy(self.array))

    def assert_guards_intact(self) -> None:
        if self.transposed:
            return
        around = np.array(self.be.to_numpy(self.base))
        around[self.cut] = np.array(GUARD).astype(around.dtype)
        assert (around == np.array(GUARD).astype(around.dtype)).all(), "memory around out was written"


def blank(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Content of an output before the operation: nothing that could pass for a result."""
    return np.full(shape, 77 if np.dtype(dtype).kind == "u" else np.nan, dtype)


def judge(
    be: Any,
    call: Callable[..., Any],
    inputs: dict[str, NDArray[Any]],
    out: tuple[tuple[int, ...], Any],
    expected: NDArray[Any],
    *,
    layout: str = "C",
    out_layout: str = "C",
    promised: bool = False,
    exact: bool = False,
    length: int = 1,
    scale: Any = None,
) -> None:
    """Run ``call(out=..., **inputs)`` twice and judge everything about it."""
    shape, dtype = out
    results = []
    for _ in range(2):
        views = {name: View(be, host, layout) for name, host in inputs.items()}
        target = View(be, blank(shape, dtype), out_layout)
        try:
            returned = call(**{name: view.array for name, view in views.items()}, out=target.array)
        except ShapeError:
            if promised or be.device == "cpu" or (layout == out_layout == "C"):
                raise
            return
        assert returned is target.array, f"returned {type(returned).__name__}, which is not the object given as out"
        target.assert_guards_intact()
        for name, view in views.items():
            assert_same_bits(view.host(), np.array(inputs[name]))
        if exact:
            assert_same_bits(target.host(), np.asarray(expected, dtype).reshape(shape))
        else:
            assert_close(returned, expected, dtype=dtype, length=max(length, 1), scale=scale, backend=be)
        results.append(target.host())
    assert_same_bits(*results)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, spread: float = 1.0) -> NDArray[Any]:
    """Normal numbers, representable in `dtype`."""
    return np.asarray(rng.normal(size=shape) * spread, dtype)


def double(*arrays: NDArray[Any]) -> list[NDArray[np.float64]]:
    return [np.asarray(array, np.float64) for array in arrays]


def length_of(op: str, **sizes: int) -> int:
    return OPS[op].reduction(sizes)


def refuses(
    be: Any, error: type[Exception] | tuple[type[Exception], ...], call: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """Assert that a call is refused with a message; `error` says how much of the refusal the contract promises."""
    given = [*args, *kwargs.values()]
    given = [part for value in given for part in (value if isinstance(value, tuple) else (value,))]
    what = f"{call.__name__} with " + ", ".join(
        f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__ for value in given
    )
    try:
        call(*args, **kwargs)
    except error as refusal:
        assert str(refusal).strip(), f"{what}: the error has no message"
    except Exception as other:
        raise AssertionError(f"{what}: refused with {type(other).__name__}: {other}") from other
    else:
        raise AssertionError(f"{what}: accepted")


# ------------------------------------------------------------------------------------------------ products


def check_matmul(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    sizes: tuple[int, int, int] = (17, 31, 13),
    transpose: tuple[bool, bool] = (False, False),
    layouts: tuple[str, str, str] = ("C", "C", "C"),
) -> None:
    m, k, n = sizes
    A, B = numbers(rng, (m, k), dtype), numbers(rng, (k, n), dtype)
    expected = double(A)[0] @ double(B)[0]
    given = {"A": A.T if transpose[0] else A, "B": B.T if transpose[1] else B}
    results = []
    for _ in range(2):
        left, right = View(be, given["A"], layouts[0]), View(be, given["B"], layouts[1])
        out = View(be, blank((m, n), dtype), layouts[2])
        try:
            returned = be.matmul(left.array, right.array, out.array, transpose_a=transpose[0], transpose_b=transpose[1])
        except ShapeError:
            # promised: operands with a unit inner stride, contiguous out
            assert be.device != "cpu"
            assert set(layouts[:2]) - {"C", "padded"} or layouts[2] != "C"
            return
        assert returned is out.array, "matmul did not return the object given as out"
        out.assert_guards_intact()
        assert_close(returned, expected, dtype=dtype, length=max(length_of("matmul", m=m, k=k, n=n), 1), backend=be)
        assert_same_bits(left.host(), np.array(given["A"]))
        assert_same_bits(right.host(), np.array(given["B"]))
        results.append(out.host())
    assert_same_bits(*results)


def check_matmul_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """NaN and infinity go where the sums take them and nowhere else."""
    A, B = np.abs(numbers(rng, (9, 5), dtype)) + 1, np.abs(numbers(rng, (5, 6), dtype)) + 1
    A[2, 3], A[4, 0], B[1, 5] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        expected = double(A)[0] @ double(B)[0]
    out = be.asarray(blank((9, 6), dtype))
    assert_close(be.matmul(be.asarray(A), be.asarray(B), out), expected, dtype=dtype, length=5, backend=be)


def refuse_matmul(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    other = DTYPES[dtype == DTYPES[0]]
    A, B, out = (be.zeros(shape, dtype) for shape in ((3, 4), (4, 5), (3, 5)))
    wrong = {"A": be.zeros((3, 4), other), "B": be.zeros((4, 5), other), "out": be.zeros((3, 5), other)}
    for name, array in wrong.items():
        refuses(be, ShapeError, be.matmul, **{"A": A, "B": B, "out": out, name: array})
    for A2, B2, out2, flags in (
        (A, B, be.zeros((5, 3), dtype), {}),
        (A, B, be.zeros((1, 5), dtype), {}),
        (A, be.zeros((3, 5), dtype), out, {}),
        (A, B, out, {"transpose_a": True}),
        (A, B, out, {"transpose_b": True}),
    ):
        refuses(be, (BpcoreError, ValueError), be.matmul, A2, B2, out2, **flags)


# ------------------------------------------------------------------------------------------------ reductions


def check_column_sums(
    be: Any, dtype: Any, rng: np.random.Generator, sizes: tuple[int, int] = (13, 11), layout: str = "C"
) -> None:
    m, n = sizes
    A = numbers(rng, sizes, dtype) + np.asarray(0.5, dtype)
    expected = np.array([math.fsum(column) for column in double(A)[0].T]).reshape(n)
    judge(
        be, be.column_sums, {"A": A}, ((n,), dtype), expected, layout=layout, length=length_of("column_sums", m=m, n=n)
    )


def check_column_sums_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    A = numbers(rng, (40, 6), dtype)
    A[7, 1], A[3, 2], A[3, 3], A[9, 3] = np.nan, np.inf, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        expected = double(A)[0].sum(axis=0)
    judge(be, be.column_sums, {"A": A}, ((6,), dtype), expected, length=40)


def refuse_column_sums(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    other = DTYPES[dtype == DTYPES[0]]
    A = be.zeros((3, 4), dtype)
    refuses(be, ShapeError, be.column_sums, A, be.zeros(4, other))
    for shape in ((3,), (1, 4), (5,), (1,)):
        refuses(be, (BpcoreError, ValueError), be.column_sums, A, be.zeros(shape, dtype))


def check_total(
    be: Any, dtype: Any, rng: np.random.Generator, shape: tuple[int, ...] = (13, 11), layout: str = "C"
) -> None:
    A = numbers(rng, shape, dtype) + np.asarray(0.5, dtype)
    expected = np.array([math.fsum(double(A)[0].ravel())])
    # accumulated in float64 in some order: the rounding is that of float64 over all elements
    judge(be, be.total, {"A": A}, ((1,), np.float64), expected, layout=layout, length=A.size)


def check_sum_squares(
    be: Any, dtype: Any, rng: np.random.Generator, shape: tuple[int, ...] = (13, 11), layout: str = "C"
) -> None:
    A = numbers(rng, shape, dtype)
    expected = np.array([math.fsum(double(A)[0].ravel() ** 2)])
    judge(be, be.sum_squares, {"A": A}, ((1,), np.float64), expected, layout=layout, length=A.size)


def check_sums_in_float64(be: Any, dtype: Any, rng: np.random.Generator, op: str = "total") -> None:
    """Terms that float32 would swallow or overflow are kept; NaN and infinity arrive."""
    large = float(np.finfo(np.float32).max)
    A = np.full((40, 300), 0.25, dtype)
    A[0, 0] = 2.0**24
    add = {"total": double(A)[0].sum(), "sum_squares": (double(A)[0] ** 2).sum()}[op]
    judge(be, getattr(be, op), {"A": A}, ((1,), np.float64), np.array([add]), exact=True)
    A = np.array([large, large, -1.0, 0.5], dtype)
    exact = double(A)[0]
    add = {"total": math.fsum(exact), "sum_squares": math.fsum(exact**2)}[op]
    judge(be, getattr(be, op), {"A": A}, ((1,), np.float64), np.array([add]))
    for special_value in (np.nan, np.inf):
        A = numbers(rng, (50, 7), dtype)
        A[30, 2] = special_value
        judge(be, getattr(be, op), {"A": A}, ((1,), np.float64), np.array([special_value]))


def refuse_total(be: Any, dtype: Any, rng: np.random.Generator, op: str = "total") -> None:
    A = be.zeros((3, 4), dtype)
    refuses(be, ShapeError, getattr(be, op), A, be.zeros(1, np.float32))
    for shape in ((2,), (3,), (0,)):
        refuses(be, (BpcoreError, ValueError, IndexError), getattr(be, op), A, be.zeros(shape, np.float64))


# ------------------------------------------------------------------------------------------------ rows


def _row_reference(op: str, Z: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Value and error scale of softmax and log_softmax."""
    (Z,) = double(Z)
    with np.errstate(all="ignore"):
        shifted = Z - Z.max(axis=1, keepdims=True) if Z.size else Z
        log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        # the rounding of z - max is relative to that difference; exp turns it into a relative error
        size = np.where(np.isfinite(shifted), np.abs(shifted), 0) + 1
        return (np.exp(log), np.exp(log) * size) if op == "softmax" else (log, size + np.log(max(Z.shape[1], 1)))


def check_rows(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    op: str = "softmax",
    sizes: tuple[int, int] = (13, 11),
    layout: str = "C",
    out_layout: str = "C",
) -> None:
    Z = numbers(rng, sizes, dtype, 3.0)
    expected, scale = _row_reference(op, Z)
    judge(
        be,
        getattr(be, op),
        {"Z": Z},
        (sizes, dtype),
        expected,
        layout=layout,
        out_layout=out_layout,
        length=length_of(op, m=sizes[0], n=sizes[1]),
        scale=scale,
    )
    target = View(be, Z, out_layout)
    try:
        assert getattr(be, op)(target.array, target.array) is target.array
    except ShapeError:
        assert be.device != "cpu"
        assert out_layout != "C"
        return
    assert_close(target.host(), expected, dtype=dtype, length=max(sizes[1], 1), scale=scale)


def check_rows_edges(be: Any, dtype: Any, rng: np.random.Generator, op: str = "softmax") -> None:
    """Huge, equal, infinite and NaN scores; a bad row leaves its neighbours alone."""
    inf, nan = np.inf, np.nan
    Z = np.array(
        [
            [1e4, -1e4, 0, 1e4],
            [-1e4, -1e4, -1e4, -1e4],
            [1e4, 1e4, 1e4, 1e4],
            [0, 0, 0, 0],
            [88.7, 104, -104, 0.5],
            [-inf, 1, 2, -inf],
            [1, 2, nan, 4],
            [-inf, -inf, 3, -inf],
            [1, 2, 3, 4],
            [1e-30, -1e-30, 0.0, -0.0],
        ],
        dtype,
    )
    expected, scale = _row_reference(op, Z)
    judge(be, getattr(be, op), {"Z": Z}, (Z.shape, dtype), expected, length=4, scale=scale)
    sums = be.to_numpy(getattr(be, op)(be.asarray(Z), be.empty(Z.shape, dtype))).astype(np.float64)
    if op == "log_softmax":
        assert np.nanmax(sums) <= 0
        sums = np.exp(sums)
    assert np.nanmax(sums) <= 1
    rows = sums.sum(axis=1)
    assert np.isnan(rows[6])
    np.testing.assert_allclose(np.delete(rows, 6), 1.0, atol=4e3 * np.finfo(dtype).eps)


def check_backprop_rows(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    op: str = "backprop_softmax",
    sizes: tuple[int, int] = (13, 11),
    layout: str = "C",
    out_layout: str = "C",
) -> None:
    forward = op.removeprefix("backprop_")
    H = np.asarray(_row_reference(forward, numbers(rng, sizes, dtype, 2.0))[0], dtype)
    G = numbers(rng, sizes, dtype)
    G64, H64 = double(G, H)
    if op == "backprop_softmax":
        expected = H64 * (G64 - (G64 * H64).sum(axis=1, keepdims=True))
        scale = H64 * (np.abs(G64) + np.abs(G64 * H64).sum(axis=1, keepdims=True))
    else:
        expected = G64 - np.exp(H64) * G64.sum(axis=1, keepdims=True)
        scale = np.abs(G64) + np.exp(H64) * np.abs(G64).sum(axis=1, keepdims=True) * (1 + np.abs(H64))
    length = length_of(op, m=sizes[0], n=sizes[1])
    judge(
        be,
        getattr(be, op),
        {"G": G, "H": H},
        (sizes, dtype),
        expected,
        layout=layout,
        out_layout=out_layout,
        length=length,
        scale=scale,
    )
    for overlaid in ("G", "H"):
        arrays = {"G": be.asarray(G.copy()), "H": be.asarray(H.copy())}
        result = getattr(be, op)(**arrays, out=arrays[overlaid])
        assert result is arrays[overlaid]
        assert_close(result, expected, dtype=dtype, length=max(length, 1), scale=scale, backend=be)


def refuse_rows(be: Any, dtype: Any, rng: np.random.Generator, op: str = "softmax") -> None:
    other = DTYPES[dtype == DTYPES[0]]
    names = ("G", "H", "out") if op.startswith("backprop") else ("Z", "out")
    for name in names:
        arrays = {key: be.zeros((3, 4), other if key == name else dtype) for key in names}
        refuses(be, ShapeError, getattr(be, op), **arrays)
        for shape in ((4, 3), (1, 4), (3, 1), (3, 5), (12,)):
            arrays = {key: be.zeros(shape if key == name else (3, 4), dtype) for key in names}
            refuses(be, (BpcoreError, ValueError), getattr(be, op), **arrays)


def check_take_rows(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    shape: tuple[int, ...] = (13, 11),
    m: int = 7,
    layout: str = "C",
    out_layout: str = "C",
) -> None:
    X = numbers(rng, shape, dtype)
    X.reshape(-1)[: min(3, X.size)] = [np.nan, np.inf, -0.0][: min(3, X.size)]
    index = rng.integers(0, shape[0], m)
    if m > 2:
        index[:3] = [shape[0] - 1, 0, 0]
    call = lambda X, out: be.take_rows(X, be.asarray(index), out)  # noqa: E731
    out = ((m, *shape[1:]), dtype)
    judge(be, call, {"X": X}, out, X[index], layout=layout, out_layout=out_layout, exact=True)


def refuse_take_rows(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    other = DTYPES[dtype == DTYPES[0]]
    X, index = be.zeros((5, 3), dtype), be.asarray(np.array([4, 0]))
    refuses(be, ShapeError, be.take_rows, X, index, be.zeros((2, 3), other))
    for shape in ((3, 3), (2, 4), (3, 2), (1, 3), (6,)):
        refuses(be, (BpcoreError, ValueError), be.take_rows, X, index, be.zeros(shape, dtype))


def check_row_hits(
    be: Any, dtype: Any, rng: np.random.Generator, sizes: tuple[int, int] = (13, 11), layout: str = "C"
) -> None:
    m, n = sizes
    # small integers: ties in nearly every row, of which the first maximum wins
    H = np.asarray(rng.integers(-2, 3, sizes), dtype)
    expected = np.zeros(m)
    labels = rng.integers(0, max(n, 2), m)
    for i in range(m):
        row = [float(v) for v in H[i]]
        guess = int(row[0] > 0.5) if n == 1 else row.index(max(row))
        if i % 2 == 0:
            labels[i] = guess
        expected[i] = float(guess == labels[i])
    call = lambda H, out: be.row_hits(H, be.asarray(labels), 0.5, out)  # noqa: E731
    judge(be, call, {"H": H}, ((m,), dtype), expected, layout=layout, exact=True)


def check_row_hits_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    inf, nan = np.inf, np.nan
    H = np.array(
        [
            [0, 1, 1],
            [1, 1, 0],
            [nan, 1, 2],
            [0, nan, 2],
            [3, 2, nan],
            [-inf, -inf, -inf],
            [inf, 0, inf],
            [-inf, inf, nan],
        ],
        dtype,
    )
    labels = np.array([1, 0, 2, 2, 0, 0, 0, 1])
    expected = np.array([1, 1, 0, 0, 0, 1, 1, 0.0])
    call = lambda H, out: be.row_hits(H, be.asarray(labels), 0.5, out)  # noqa: E731
    judge(be, call, {"H": H}, ((8,), dtype), expected, exact=True)
    column = np.array([[0.5], [0.75], [0.25], [nan], [nan], [inf], [-inf], [0.75]], dtype)
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 0])
    expected = np.array([1, 1, 1, 0, 0, 1, 1, 0.0])
    judge(be, call, {"H": column}, ((8,), dtype), expected, exact=True)
    # the threshold is used, and strictly
    labels = np.array([0, 1, 1, 0, 0, 1, 0, 1])
    expected = np.array([0, 1, 0, 0, 0, 1, 1, 1.0])
    call = lambda H, out: be.row_hits(H, be.asarray(labels), 0.25, out)  # noqa: E731
    judge(be, call, {"H": column}, ((8,), dtype), expected, exact=True)


# ------------------------------------------------------------------------------------------------ element-wise

ADAM = Program(
    "m = b1*m + (1 - b1)*g; v = b2*v + (1 - b2)*g*g; theta = theta - eta * (m/c1) / (sqrt(v/c2) + eps)",
    outputs=("theta", "m", "v"),
    name="adam",
)
BIASED = Program("t = (z + b) * s + c; h = max(t, 0) + k*min(t, 0)", outputs=("h",), name="biased")


def check_elementwise(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    shape: tuple[int, ...] = (13, 11),
    layout: str = "C",
    out_layout: str = "C",
    row: str = "row",
) -> None:
    """A full array, a row, a column, one element and a number, all at once."""
    n, m = (shape[-1] if shape else 1), (shape[0] if len(shape) == 2 else 1)
    rows = {"row": (n,), "row1": (1, n), "full": shape}
    inputs = {
        "z": numbers(rng, shape, dtype),
        "b": numbers(rng, rows[row] if shape else (), dtype),
        "s": numbers(rng, (m, 1) if len(shape) == 2 else shape, dtype),
        "c": numbers(rng, (1,) if shape else (), dtype),
    }
    z, b, s, c = double(*inputs.values())
    t = (z + b) * s + c
    expected = np.maximum(t, 0) + 0.25 * np.minimum(t, 0)
    call = lambda out, **arrays: be.elementwise(BIASED, out=out, k=0.25, **arrays)  # noqa: E731
    judge(
        be,
        call,
        inputs,
        (shape, dtype),
        expected,
        layout=layout,
        out_layout=out_layout,
        scale=(np.abs(z) + np.abs(b)) * np.abs(s) + np.abs(c) + np.zeros(shape),
    )


def check_elementwise_in_place(
    be: Any, dtype: Any, rng: np.random.Generator, shape: tuple[int, ...] = (13, 11), layout: str = "C"
) -> None:
    """Three outputs that overlay three inputs; several numbers; later lines see new values."""
    hyper = {"b1": 0.9, "b2": 0.99, "eta": 0.125, "c1": 0.5, "c2": 0.25, "eps": 1e-8}
    state = {name: numbers(rng, shape, dtype) for name in ("theta", "m", "v", "g")}
    state["v"] = np.abs(state["v"]) + np.asarray(0.5, dtype)
    theta, m, v, g = double(*state.values())
    m = 0.9 * m + (1 - 0.9) * g
    v = 0.99 * v + (1 - 0.99) * g * g
    expected = {"theta": theta - 0.125 * (m / 0.5) / (np.sqrt(v / 0.25) + 1e-8), "m": m, "v": v}
    results = []
    for _ in range(2):
        views = {name: View(be, array, layout) for name, array in state.items()}
        arrays = {name: view.array for name, view in views.items()}
        outs = (arrays["theta"], arrays["m"], arrays["v"])
        try:
            returned = be.elementwise(ADAM, out=outs, **arrays, **hyper)
        except ShapeError:
            assert be.device != "cpu"
            assert layout != "C"
            return
        assert returned is outs
        for name, array in zip(ADAM.outputs, outs, strict=True):
            scale = np.abs(theta) + np.abs(expected["m"]) + np.abs(g) + 1
            assert_close(views[name].host(), expected[name], dtype=dtype, scale=scale)
            assert array is arrays[name]
            views[name].assert_guards_intact()
        assert_same_bits(views["g"].host(), state["g"])
        results.append(np.array([views[name].host() for name in ADAM.outputs]))
    assert_same_bits(*results)


def check_elementwise_swap(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Outputs that overlay each other's inputs, as views and as the same objects."""
    program = Program("t = x; x = where(y > 0, y, x); y = t - 2*x", outputs=("y", "x"), name="swap")
    x, y = numbers(rng, (9, 7), dtype), numbers(rng, (9, 7), dtype)
    new_x = np.where(y > 0, y, x).astype(np.float64)
    new_y = x.astype(np.float64) - 2 * new_x
    for as_view in (False, True):
        X, Y = be.asarray(x.copy()), be.asarray(y.copy())
        given = (X[:], Y[:]) if as_view else (X, Y)
        outs = (X, Y)  # the output y goes where x was, and x where y was
        assert be.elementwise(program, out=outs, x=given[0], y=given[1]) is outs
        assert_close(X, new_y, dtype=dtype, scale=np.abs(x) + 2 * np.abs(new_x), backend=be)
        assert_close(Y, new_x, dtype=dtype, backend=be)


EDGES = [0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 9.0, -9.0, 30.0, -30.0, 88.0, -88.0]
EDGES += [100.0, -100.0, 1e4, -1e4, np.inf, -np.inf, np.nan]
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": special.erf,
    "erfc": special.erfc,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0, x),
}


def check_functions_at_the_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Every function of the language at zeros, tiny, huge, infinite and NaN arguments, and on a grid."""
    x = np.concatenate([np.array(EDGES), np.linspace(-12, 12, 97)]).astype(dtype)
    program = Program("; ".join(f"r_{name} = {name}(x)" for name in FUNCTIONS), name="functions")
    outs = tuple(be.asarray(blank(x.shape, dtype)) for _ in FUNCTIONS)
    be.elementwise(program, out=outs, x=be.asarray(x))
    (x64,) = double(x)
    largest = float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):
        for (name, function), out in zip(FUNCTIONS.items(), outs, strict=True):
            expected = np.asarray(function(x64), np.float64)
            expected = np.where(np.abs(expected) > largest, np.copysign(np.inf, expected), expected)
            # The tail of the Gaussian squares its argument, which costs x**2 roundings; at 1e4 a rounded argument
            # of a sine would have no correct digit, but the argument here is exact.
            scale = np.abs(expected) * (1 + x64**2 if name == "erfc" else 1)
            try:
                assert_close(out, expected, dtype=dtype, scale=np.where(np.isfinite(scale), scale, 0.0), backend=be)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


def check_operators_at_the_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Every pair of edge values through division, powers, minima, maxima and each comparison."""
    a, b = (grid.ravel().astype(dtype) for grid in np.meshgrid(EDGES, [*EDGES, 3.0, -3.0]))
    operators: dict[str, tuple[str, Callable[..., Any]]] = {
        "s": ("a + b", np.add),
        "d": ("a - b", np.subtract),
        "p": ("a * b", np.multiply),
        "q": ("a / b", np.divide),
        "w": ("a ** b", np.power),
        "lo": ("min(a, b)", np.minimum),
        "hi": ("max(a, b)", np.maximum),
        "lt": ("where(a < b, 1, 0)", np.less),
        "le": ("where(a <= b, 1, 0)", np.less_equal),
        "eq": ("where(a == b, 1, 0)", np.equal),
        "ne": ("where(a != b, 1, 0)", np.not_equal),
        "no": ("where(not a > b, 1, 0)", lambda a, b: ~(a > b)),
        "ch": ("where(a >= b and b > 0 or a == 1, a, b)", lambda a, b: np.where((a >= b) & (b > 0) | (a == 1), a, b)),
    }
    program = Program({name: text for name, (text, _) in operators.items()}, name="operators")
    outs = tuple(be.asarray(blank(a.shape, dtype)) for _ in operators)
    be.elementwise(program, out=outs, a=be.asarray(a), b=be.asarray(b))
    a64, b64 = double(a, b)
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        for (name, (text, function)), out in zip(operators.items(), outs, strict=True):
            expected = np.asarray(function(a64, b64), np.float64)
            expected = np.where(np.abs(expected) > float(info.max), np.copysign(np.inf, expected), expected)
            # the last place of a power moves with the exponent times the logarithm
            grow = 1 + np.nan_to_num(np.abs(b64 * np.log(np.abs(a64))), nan=0, posinf=0) if name == "w" else 1
            scale = np.nan_to_num(np.abs(expected) * grow, nan=0, posinf=0)
            try:
                assert_close(out, expected, dtype=dtype, scale=scale, backend=be)
            except AssertionError as error:
                raise AssertionError(f"{text}: {error}") from None


def refuse_elementwise(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    other = DTYPES[dtype == DTYPES[0]]
    program = Program("h = z + w", name="plus")
    z, w, out = (be.zeros((3, 4), dtype) for _ in range(3))
    be.elementwise(program, out=out, z=z, w=w)  # the right call first, so that nothing is refused for its novelty
    refuses(be, ShapeError, be.elementwise, program, out=out, z=z)
    refuses(be, ShapeError, be.elementwise, program, out=out, z=z, w=be.zeros((3, 4), other))
    refuses(be, ShapeError, be.elementwise, program, out=be.zeros((3, 4), other), z=z, w=w)
    for shape in ((4, 3), (3,), (2, 4), (5,), (12,), (1, 3), (4, 1), (2, 1), (1, 1, 4), (2, 3, 4)):
        refuses(be, ShapeError, be.elementwise, program, out=out, z=z, w=be.zeros(shape, dtype))
    for wrong in (None, [[1.0] * 4] * 3, "1", np.ma.masked_array([1.0]) if be.device != "cpu" else None):
        refuses(be, (BpcoreError, TypeError), be.elementwise, program, out=out, z=z, w=wrong)
    refuses(be, (BpcoreError, ValueError), be.elementwise, program, out=(out, w), z=z, w=w)
    two = Program("h = z + w; k = z - w", name="two")
    refuses(be, (BpcoreError, ValueError), be.elementwise, two, out=out, z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((3, 4), other)), z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((4, 3), dtype)), z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((4,), dtype)), z=z, w=w)


# ------------------------------------------------------------------------------------------------ random fields


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 of one counter, from the paper of Salmon et al. 2011, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def philox_words(n: int, seed: int, purpose: int, step: int, layer: int) -> NDArray[np.uint32]:
    """Words 0 ... n-1 of a field, by the layout documented in :mod:`bpcore.random`."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words: list[int] = []
    for block in range((n + 3) // 4):
        c1 = layer << 16 | block >> 32
        words += philox((block & 0xFFFFFFFF, c1, step & 0xFFFFFFFF, purpose << 24 | step >> 32), key)
    return np.array(words[:n], np.uint32)


ADDRESSES = [
    {"seed": 0, "step": 0, "layer": 0},
    {"seed": 2**64 - 1, "step": 2**56 - 1, "layer": 2**16 - 1},
    {"seed": 0x0123456789ABCDEF, "step": 5_000_000_000, "layer": 3},
    {"seed": 42, "step": 7, "layer": 1},
]


def check_random_bits(be: Any, dtype: Any, rng: np.random.Generator, n: int = 13, address: int = 0) -> None:
    where = ADDRESSES[address]
    for purpose in (Purpose.DROPOUT, Purpose.USER):
        expected = philox_words(n, purpose=int(purpose), **where)
        call = lambda out, purpose=purpose: be.random_bits(out, purpose=purpose, **where)  # noqa: E731
        judge(be, call, {}, ((n,), np.uint32), expected, exact=True)


def refuse_random_bits(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    for out in (be.zeros(8, np.float32), be.zeros((2, 4), np.uint32)):
        refuses(be, BpcoreError, be.random_bits, out, seed=0, purpose=Purpose.USER)
    out = be.zeros(8, np.uint32)
    for wrong in ({"seed": -1}, {"seed": 2**64}, {"seed": 0.5}, {"seed": 0, "step": -1}, {"seed": 0, "layer": 2**16}):
        refuses(be, BpcoreError, be.random_bits, out, purpose=Purpose.USER, **wrong)


def check_dropout_mask(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    shape: tuple[int, ...] = (13, 11),
    rate: float = 0.5,
    address: int = 0,
    out_layout: str = "C",
) -> None:
    where = ADDRESSES[address]
    bits = philox_words(math.prod(shape), purpose=int(Purpose.DROPOUT), **where).reshape(shape)
    expected = np.where(bits.astype(np.int64) < math.floor(rate * 2**32), 0.0, 1 / (1 - rate))
    call = lambda out: be.dropout_mask(out, rate=rate, **where)  # noqa: E731
    # the one value is 1/(1 - rate) rounded to the dtype: an eps for the order of rounding and dividing
    judge(be, call, {}, (shape, dtype), expected, out_layout=out_layout)


def check_dropout_rate(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """The share of zeros is the rate, and the mean is 1."""
    mask = be.to_numpy(be.dropout_mask(be.empty((300, 331), dtype), rate=0.25, seed=3, step=1, layer=2))
    share = float((mask == 0).mean())
    # standard deviation sqrt(0.25 * 0.75 / 99300) = 0.0014: four of them
    assert abs(share - 0.25) < 0.0055
    assert abs(float(mask.astype(np.float64).mean()) - 1) < 0.0075


# ------------------------------------------------------------------------------------------------ memory


def check_memory(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Allocation, both crossings, copy, fill and all_finite."""
    for shape in (0, 5, (0, 3), (3, 0), (7, 11), ()):
        expected = (shape,) if isinstance(shape, int) else shape
        for kind in (dtype, np.dtype(np.int64), np.dtype(np.uint32)):
            array = be.zeros(shape, kind)
            assert be.owns(array)
            assert array.shape == expected
            assert np.dtype(array.dtype) == kind
            assert_same_bits(np.array(be.to_numpy(array)), np.zeros(expected, kind))
            empty = be.empty(shape, kind)
            assert empty.shape == expected
            assert np.dtype(empty.dtype) == kind
            if be.device == "cpu" and empty.size:
                assert empty.ctypes.data % 64 == 0
                assert array.ctypes.data % 64 == 0
    assert not be.owns([1.0])
    assert not be.owns(None)
    assert not be.owns(1.0)

    host = numbers(rng, (6, 5), dtype)
    for source in (host, np.asfortranarray(host), host[::-1], host[:, ::2], host.tolist()):
        array = be.asarray(source, dtype)
        assert be.owns(array)
        assert np.dtype(array.dtype) == dtype
        back = be.to_numpy(array)
        assert type(back) is np.ndarray
        assert_same_bits(np.array(back), np.array(source, dtype))
    assert be.asarray(array) is array or be.asarray(array).shape == array.shape

    out = be.asarray(blank((6, 5), dtype))
    assert be.copy(be.asarray(host), out) is out
    assert_same_bits(np.array(be.to_numpy(out)), host)
    assert be.fill(out, 0.1) is out
    assert_same_bits(np.array(be.to_numpy(out)), np.full((6, 5), 0.1, dtype))
    assert be.fill(out, math.nan) is out
    assert np.isnan(be.to_numpy(out)).all()


def check_all_finite(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    for shape in ((0,), (1,), (13, 11), (8193,), (3, 4099)):
        A = numbers(rng, shape, dtype)
        found = be.all_finite(be.asarray(A))
        assert found is True, f"{found!r} for finite numbers of shape {shape}"
        for value in (np.nan, np.inf, -np.inf):
            for position in {0, A.size // 2, A.size - 1} if A.size else ():
                bad = A.copy()
                bad.reshape(-1)[position] = value
                assert be.all_finite(be.asarray(bad)) is False, f"{value} at {position} of {shape}"
    extreme = np.array([np.finfo(dtype).max, np.finfo(dtype).tiny, np.finfo(dtype).min, 0.0], dtype)
    assert be.all_finite(be.asarray(extreme)) is True, "the largest numbers are finite"
    assert be.all_finite(be.asarray(np.repeat(extreme, 5000))) is True


def check_evaluate(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    z, b = numbers(rng, (4, 3), dtype), numbers(rng, (3,), dtype)
    found = be.evaluate("tanh(z + b) * 2", z=be.asarray(z), b=be.asarray(b))
    assert_close(found, 2 * np.tanh(double(z)[0] + double(b)[0]), dtype=dtype, scale=2.0, backend=be)
    assert_close(be.evaluate("a * 2", a=1.5), np.array([3.0]), dtype=np.float64, backend=be)
    with pytest.raises(ShapeError, match="no value for b in formula z"):
        be.evaluate("z + b", z=be.asarray(z))


# ------------------------------------------------------------------------------------------------ the list


@dataclass(frozen=True)
class Case:
    """One check with its parameters; `op` is the operation of the contract that it judges."""

    op: str
    name: str
    run: Callable[[Any, Any, np.random.Generator], None]


def _cases() -> Iterable[Case]:
    def case(judged: str, check: Callable[..., None], label: str = "", **kwargs: Any) -> Case:
        words = [check.__name__.removeprefix("check_"), label]
        return Case(judged, "-".join(word for word in words if word), partial(check, **kwargs))

    for m, k, n in [(1, 1, 1), (0, 3, 2), (3, 0, 2), (3, 2, 0), (2, 3, 5), (7, 1, 3), (17, 31, 13), (64, 64, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for m, k, n in [(65, 63, 66), (1, 1030, 3), (130, 7, 1), (2, 9001, 2), (131, 67, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for flags in ((True, False), (False, True), (True, True)):
        for sizes in ((17, 31, 13), (5, 5, 5), (1, 4, 1), (65, 33, 2)):
            yield case("matmul", check_matmul, f"{sizes}-{flags}", sizes=sizes, transpose=flags)
        for layouts in (("padded", "padded", "C"), ("T", "T", "C"), ("step", "C", "C"), ("C", "padded", "padded")):
            yield case("matmul", check_matmul, f"{layouts}-{flags}", transpose=flags, layouts=layouts)
    for layouts in (
        ("padded", "C", "C"),
        ("C", "padded", "C"),
        ("T", "step", "C"),
        ("C", "C", "padded"),
        ("C", "C", "T"),
    ):
        yield case("matmul", check_matmul, f"{layouts}", layouts=layouts)
    yield case("matmul", check_matmul_edges)
    yield case("matmul", refuse_matmul)

    for sizes in [*SIZES, (9001, 2)]:
        yield case("column_sums", check_column_sums, f"{sizes}", sizes=sizes)
    for layout in LAYOUTS[1:]:
        yield case("column_sums", check_column_sums, layout, sizes=(67, 13), layout=layout)
    yield case("column_sums", check_column_sums_edges)
    yield case("column_sums", refuse_column_sums)

    for op, check in (("total", check_total), ("sum_squares", check_sum_squares)):
        for shape in [*SIZES, (0,), (1,), (8191,), (8192,), (8193,), (20_011,)]:
            yield case(op, check, f"{shape}", shape=shape)
        for layout in LAYOUTS[1:]:
            yield case(op, check, layout, shape=(67, 13), layout=layout)
        yield case(op, check_sums_in_float64, op, op=op)
        yield case(op, refuse_total, op, op=op)

    for op, check in (
        ("softmax", check_rows),
        ("log_softmax", check_rows),
        ("backprop_softmax", check_backprop_rows),
        ("backprop_log_softmax", check_backprop_rows),
    ):
        for sizes in SIZES:
            yield case(op, check, f"{op}-{sizes}", op=op, sizes=sizes)
        for layout in LAYOUTS[1:]:
            yield case(op, check, f"{op}-in-{layout}", op=op, layout=layout)
            yield case(op, check, f"{op}-out-{layout}", op=op, out_layout=layout)
        yield case(op, refuse_rows, op, op=op)
    yield case("softmax", check_rows_edges, "softmax", op="softmax")
    yield case("log_softmax", check_rows_edges, "log_softmax", op="log_softmax")

    for shape, m in [
        ((1, 1), 1),
        ((5, 1), 9),
        ((1, 7), 3),
        ((13, 11), 0),
        ((13, 11), 29),
        ((1100, 9), 997),
        ((3, 1030), 64),
    ]:
        yield case("take_rows", check_take_rows, f"{shape}-{m}", shape=shape, m=m)
    yield case("take_rows", check_take_rows, "vector", shape=(13,), m=29)
    yield case("take_rows", check_take_rows, "no-columns", shape=(4, 0), m=3)
    for layout in LAYOUTS[1:]:
        yield case("take_rows", check_take_rows, f"in-{layout}", layout=layout)
        yield case("take_rows", check_take_rows, f"out-{layout}", out_layout=layout)
    yield case("take_rows", refuse_take_rows)

    for sizes in [*SIZES, (9001, 1)]:
        yield case("row_hits", check_row_hits, f"{sizes}", sizes=sizes)
    for layout in LAYOUTS[1:]:
        yield case("row_hits", check_row_hits, layout, layout=layout)
    yield case("row_hits", check_row_hits_edges)

    for shape in [*SIZES, (3, 0), (), (1,), (7,), (8193,), (20_011,), (1, 9001), (9001, 1)]:
        yield case("elementwise", check_elementwise, f"{shape}", shape=shape, row="full" if len(shape) < 2 else "row")
        yield case("elementwise", check_elementwise_in_place, f"{shape}", shape=shape)
    yield case("elementwise", check_elementwise, "row1", row="row1")
    for layout in LAYOUTS[1:]:
        yield case("elementwise", check_elementwise, f"in-{layout}", layout=layout, row="full")
        yield case("elementwise", check_elementwise, f"out-{layout}", out_layout=layout)
        yield case("elementwise", check_elementwise_in_place, layout, layout=layout)
    yield case("elementwise", check_elementwise, "large-padded", shape=(127, 131), layout="padded", out_layout="step")
    yield case("elementwise", check_elementwise_swap)
    yield case("elementwise", check_functions_at_the_edges)
    yield case("elementwise", check_operators_at_the_edges)
    yield case("elementwise", refuse_elementwise)

    for n in (0, 1, 3, 4, 5, 127, 8192, 8195, 20_011):
        yield case("random_bits", check_random_bits, f"{n}", n=n, address=n % 4)
    for address in range(len(ADDRESSES)):
        yield case("random_bits", check_random_bits, f"address-{address}", n=21, address=address)
    yield case("random_bits", refuse_random_bits)

    for shape in ((0, 4), (1, 1), (13, 11), (130, 67), (9001, 1), (7,)):
        yield case("dropout_mask", check_dropout_mask, f"{shape}", shape=shape, address=3, rate=0.3)
    for rate in (0.0, 0.1, 0.5, 0.75, 0.999):
        yield case("dropout_mask", check_dropout_mask, f"rate-{rate}", rate=rate, address=2)
    for layout in LAYOUTS[1:]:
        yield case("dropout_mask", check_dropout_mask, layout, out_layout=layout, address=1)
    yield case("dropout_mask", check_dropout_rate)

    yield case("memory", check_memory)
    yield case("all_finite", check_all_finite)
    yield case("evaluate", check_evaluate)


CASES: list[Case] = list(_cases())


def run_case(be: Any, case: Case, dtype: Any) -> None:
    """Run one case with the numbers that it always gets."""
    case.run(be, np.dtype(dtype), np.random.default_rng(20240229))


def run_all(be: Any, ops: Iterable[str] | None = None) -> int:
    """Run the whole suite, or that of some operations; raise at the first defect, return the number of checks."""
    chosen = [case for case in CASES if ops is None or case.op in set(ops)]
    for case in chosen:
        for dtype in DTYPES:
            try:
                run_case(be, case, dtype)
            except AssertionError as error:
                raise AssertionError(f"{case.op}: {case.name} in {dtype}: {error}") from error
    return 2 * len(chosen)
