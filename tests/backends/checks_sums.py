"""Checks of the matrix product and of the sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bpcore.errors import BpcoreError, ShapeError
from tests.backends.judging import (
    DTYPES,
    LAYOUTS,
    SIZES,
    Case,
    View,
    blank,
    case,
    double,
    judge,
    length_of,
    numbers,
    refuses,
)
from tests.helpers.compare import assert_close, assert_same_bits


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


def cases() -> Iterator[Case]:
    """Every check of this file with its sizes and layouts."""
    for m, k, n in [(1, 1, 1), (0, 3, 2), (3, 0, 2), (3, 2, 0), (2, 3, 5), (7, 1, 3), (17, 31, 13), (64, 64, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for m, k, n in [(65, 63, 66), (1, 1030, 3), (130, 7, 1), (2, 9001, 2), (131, 67, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for flags in ((True, False), (False, True), (True, True)):
        for triple in ((17, 31, 13), (5, 5, 5), (1, 4, 1), (65, 33, 2)):
            yield case("matmul", check_matmul, f"{triple}-{flags}", sizes=triple, transpose=flags)
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
