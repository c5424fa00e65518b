"""Row and column kernels against float64 NumPy and SciPy: sizes, layouts, edge values, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special

pytest.importorskip("numba")

from bpcore.backends.numba_backend import NumbaBackend
from bpcore.errors import DataError, ShapeError
from tests.helpers.compare import assert_close, assert_same_bits

SHAPES = [(1, 1), (1, 10), (7, 13), (64, 10), (33, 257), (3, 600)]


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend()


def stretched(X: Any) -> Any:
    """Return a view with gaps that holds X."""
    wide = np.zeros((X.shape[0], 2 * X.shape[1]), X.dtype)
    wide[:, ::2] = X
    return wide[:, ::2]


def softmax(Z: Any) -> Any:
    return scipy.special.softmax(Z.astype(np.float64), axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("view", [np.ascontiguousarray, np.asfortranarray, stretched])
def test_softmax_family(
    numba_backend: NumbaBackend, shape: tuple[int, int], view: Any, dtype: Any, rng: np.random.Generator
) -> None:
    n = shape[1]
    Z, G = (rng.normal(0, 4, size=shape).astype(dtype) for _ in range(2))
    H = softmax(Z)
    out = np.empty(shape, dtype)
    assert numba_backend.softmax(view(Z), out) is out
    # z - max is rounded once, and exp multiplies that error by z: |z - max| is below 40 here
    assert_close(out, H, dtype=dtype, length=n, factor=40.0, scale=H)
    assert numba_backend.log_softmax(view(Z), out) is out
    assert_close(out, scipy.special.log_softmax(Z.astype(np.float64), axis=1), dtype=dtype, length=n, scale=40.0)
    h = H.astype(dtype)
    exact = h.astype(np.float64)
    assert numba_backend.backprop_softmax(view(G), view(h), out) is out
    expected = exact * (G - (G * exact).sum(axis=1, keepdims=True))
    assert_close(out, expected, dtype=dtype, length=n, scale=20 * exact + 1e-30)
    logs = np.log(H).astype(dtype)
    expected = G - np.exp(logs.astype(np.float64)) * G.astype(np.float64).sum(axis=1, keepdims=True)
    assert numba_backend.backprop_log_softmax(view(G), view(logs), out) is out
    # exp multiplies the rounding of the logarithms, up to 40, which is exact here, and the row sum that of n terms
    assert_close(out, expected, dtype=dtype, length=n, scale=20.0)


def test_softmax_in_place_and_for_large_arguments(numba_backend: NumbaBackend, dtype: Any) -> None:
    Z = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4]], dtype)
    expected = softmax(Z)
    assert numba_backend.softmax(Z, Z) is Z
    assert_close(Z, expected, dtype=dtype)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_nan_and_infinity_spoil_their_own_row_only(numba_backend: NumbaBackend, bad: float, dtype: Any) -> None:
    Z = np.zeros((3, 40), dtype)
    Z[1, 17] = bad
    for operation in (numba_backend.softmax, numba_backend.log_softmax):
        out = operation(Z, np.empty_like(Z))
        assert np.isnan(out[1]).any()
        assert np.isfinite(out[[0, 2]]).all()
    assert np.isnan(numba_backend.softmax(Z, np.empty_like(Z))[1]).all()


def test_softmax_of_minus_infinity_is_zero(numba_backend: NumbaBackend, dtype: Any) -> None:
    out = numba_backend.softmax(np.array([[0.0, -np.inf, 0.0]], dtype), np.empty((1, 3), dtype))
    assert_close(out, np.array([[0.5, 0.0, 0.5]]), dtype=dtype)


@pytest.mark.parametrize("shape", [*SHAPES, (0, 5), (5, 0)])
@pytest.mark.parametrize("view", [np.ascontiguousarray, stretched])
def test_sums(
    numba_backend: NumbaBackend, shape: tuple[int, int], view: Any, dtype: Any, rng: np.random.Generator
) -> None:
    A = rng.normal(1, 2, size=shape).astype(dtype)
    wide = A.astype(np.float64)
    m, n = shape
    columns = numba_backend.column_sums(view(A), np.full(n, np.nan, dtype))
    exact = np.array([math.fsum(column) for column in wide.T])
    # accumulated in float64: in float32 only the result is rounded
    length = max(m, 1) if dtype == np.float64 else 1
    sizes = np.abs(wide).sum(axis=0) + 1e-30
    assert_close(columns, exact, dtype=dtype, length=length, factor=1.0, scale=sizes)
    one = np.full(1, np.nan)
    terms = max(m * n, 1)
    assert numba_backend.total(view(A), one) is one
    assert_close(one, np.array([wide.sum()]), dtype=np.float64, length=terms, scale=np.abs(wide).sum() + 1e-30)
    assert numba_backend.sum_squares(view(A), one) is one
    assert_close(one, np.array([np.square(wide).sum()]), dtype=np.float64, length=terms)


def test_column_sums_of_many_rows_keep_float32_accuracy(numba_backend: NumbaBackend) -> None:
    # summed in float32, row by row, this is wrong in the fifth digit
    A = np.full((200_001, 3), 0.1, np.float32)
    out = numba_backend.column_sums(A, np.empty(3, np.float32))
    assert_close(out, np.full(3, 200_001 * float(np.float32(0.1))), dtype=np.float32, factor=1.0)


def test_all_finite(numba_backend: NumbaBackend, dtype: Any) -> None:
    largest = np.finfo(dtype).max
    A = np.full((31, 7), largest, dtype)
    assert numba_backend.all_finite(A) is True
    assert numba_backend.all_finite(-A) is True
    assert numba_backend.all_finite(A[:0]) is True
    for bad in (np.nan, np.inf, -np.inf):
        for place in ((0, 0), (30, 6), (13, 3)):
            B = np.zeros((31, 7), dtype)
            B[place] = bad
            assert numba_backend.all_finite(B) is False
            assert numba_backend.all_finite(np.asfortranarray(B)) is False


@pytest.mark.parametrize("dtype_of_rows", ["float32", "float64", "int64", "int32"])
def test_take_rows(numba_backend: NumbaBackend, dtype_of_rows: str, rng: np.random.Generator) -> None:
    X = rng.integers(-99, 99, size=(20, 7)).astype(dtype_of_rows)
    index = np.array([3, 3, 0, 19, 8])
    assert_same_bits(numba_backend.take_rows(X, index, np.empty((5, 7), X.dtype)), X[index])
    assert_same_bits(numba_backend.take_rows(X[:, ::2], index, np.empty((5, 4), X.dtype)), X[index][:, ::2])
    assert_same_bits(numba_backend.take_rows(X[:, 1], index, np.empty(5, X.dtype)), X[index, 1])
    assert numba_backend.take_rows(X, index[:0], np.empty((0, 7), X.dtype)).shape == (0, 7)


@pytest.mark.parametrize("wrong", [20, -1, 2**40])
def test_take_rows_never_reads_beyond_the_array(numba_backend: NumbaBackend, wrong: int) -> None:
    with pytest.raises(DataError, match=rf"index\[1\] is {wrong}, but X has 20 rows"):
        numba_backend.take_rows(np.zeros((20, 2)), np.array([0, wrong]), np.empty((2, 2)))


def test_row_hits(numba_backend: NumbaBackend, dtype: Any) -> None:
    H = np.array([[1, 3, 2], [5, 5, 0], [0, 5, 5], [np.nan, 1, 2], [1, np.nan, 0], [-1, -3, -2]], dtype)
    labels = np.array([1, 0, 2, 2, 0, 0])
    out = numba_backend.row_hits(H, labels, 0.5, np.empty(6, dtype))
    assert_close(out, np.array([1.0, 1, 0, 0, 0, 1]), dtype=dtype)
    single = np.array([[0.2], [0.5], [0.7], [np.nan]], dtype)
    out = numba_backend.row_hits(single, np.array([0, 0, 1, 0]), 0.5, np.empty(4, dtype))
    assert_close(out, np.array([1.0, 1, 1, 0]), dtype=dtype)


def test_arrays_that_do_not_fit_are_refused_before_memory_is_touched(numba_backend: NumbaBackend) -> None:
    Z, small = np.zeros((4, 3)), np.zeros((2, 3))
    with pytest.raises(ShapeError, match=r"softmax: all arrays need one shape \(m, n\), got \(4, 3\), \(2, 3\)"):
        numba_backend.softmax(Z, small)
    with pytest.raises(ShapeError, match=r"softmax: these arrays do not fit together: float64 .* float32"):
        numba_backend.softmax(Z, np.zeros((4, 3), np.float32))
    frozen = np.zeros((4, 3))
    frozen.flags.writeable = False
    with pytest.raises(ShapeError, match="read-only"):
        numba_backend.softmax(Z, frozen)
    with pytest.raises(ShapeError, match="column_sums: A is"):
        numba_backend.column_sums(Z, np.zeros(4))
    with pytest.raises(ShapeError, match=r"total: out is \(2,\)"):
        numba_backend.total(Z, np.zeros(2))
    with pytest.raises(ShapeError, match="take_rows: X is"):
        numba_backend.take_rows(Z, np.zeros(2, np.int64), np.zeros((3, 3)))
    with pytest.raises(ShapeError, match="row_hits: H is"):
        numba_backend.row_hits(Z, np.zeros(3, np.int64), 0.5, np.zeros(4))


def test_two_runs_give_the_same_bits(numba_backend: NumbaBackend, dtype: Any, rng: np.random.Generator) -> None:
    Z = rng.normal(size=(50, 77)).astype(dtype)
    first = numba_backend.softmax(Z, np.empty_like(Z)), numba_backend.sum_squares(Z, np.empty(1))
    moved = np.empty((51, 77), dtype)[1:]  # another alignment
    moved[...] = Z
    again = numba_backend.softmax(moved, np.empty_like(Z)), numba_backend.sum_squares(moved, np.empty(1))
    assert_same_bits(first[0], again[0])
    assert_same_bits(first[1], again[1])
