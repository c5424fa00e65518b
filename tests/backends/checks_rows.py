"""Checks of the operations on rows: softmax and its kin, gathering, counting hits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpcore.errors import BpcoreError, ShapeError
from tests.backends.judging import (
    DTYPES,
    LAYOUTS,
    SIZES,
    Case,
    View,
    case,
    double,
    judge,
    length_of,
    numbers,
    refuses,
)
from tests.helpers.compare import assert_close


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
    # rows long enough for another way of looking at them
    wide = np.concatenate([H, np.full((8, 90), -inf, dtype)], axis=1)
    judge(be, call, {"H": wide}, ((8,), dtype), expected, exact=True)
    # labels that are no column
    labels = np.array([-1, 3, 99, -3, 1000, -1, 93, 3])
    for either in (H, wide):
        judge(be, call, {"H": either}, ((8,), dtype), np.zeros(8), exact=True)
    column = np.array([[0.5], [0.75], [0.25], [nan], [nan], [inf], [-inf], [0.75]], dtype)
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 0])
    expected = np.array([1, 1, 1, 0, 0, 1, 1, 0.0])
    judge(be, call, {"H": column}, ((8,), dtype), expected, exact=True)
    # the threshold is used, and strictly
    labels = np.array([0, 1, 1, 0, 0, 1, 0, 1])
    expected = np.array([0, 1, 0, 0, 0, 1, 1, 1.0])
    call = lambda H, out: be.row_hits(H, be.asarray(labels), 0.25, out)  # noqa: E731
    judge(be, call, {"H": column}, ((8,), dtype), expected, exact=True)


def cases() -> Iterator[Case]:
    """Every check of this file with its sizes and layouts."""
    checks: dict[str, Callable[..., None]] = {
        "softmax": check_rows,
        "log_softmax": check_rows,
        "backprop_softmax": check_backprop_rows,
        "backprop_log_softmax": check_backprop_rows,
    }
    for op, check in checks.items():
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
