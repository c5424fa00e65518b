"""The judge is judged: each kind of wrong result must be refused, and a right one accepted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.compare import assert_close, assert_same_bits, tolerance

EPS32 = float(np.finfo(np.float32).eps)


class ListBackend:
    """A backend whose arrays are lists in a box: anything else is foreign to it."""

    name = "list"

    class Box(list):
        dtype: np.dtype = np.dtype(np.float32)

    def owns(self, array):
        return isinstance(array, self.Box)

    def to_numpy(self, array):
        return np.array(array, dtype=np.float32)


@pytest.fixture
def reference():
    return np.array([[1.0, -2.0, 3.0], [4.0, 0.0, -6.0]])


def test_accepts_the_reference_rounded_to_the_dtype(reference, dtype):
    assert_close(reference.astype(dtype), reference, dtype=dtype)


def test_accepts_an_empty_array():
    assert_close(np.zeros((0, 3), np.float32), np.zeros((0, 3)), dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda r: None, "returned nothing", id="none"),
        pytest.param(lambda r: r.astype(np.float32).tolist(), "got list", id="list"),
        pytest.param(lambda r: np.ma.masked_array(r.astype(np.float32)), "got MaskedArray", id="subclass"),
        pytest.param(lambda r: np.float32(1.0), "got float32, expected numpy.ndarray", id="scalar"),
        pytest.param(lambda r: r, "dtype is float64", id="wider"),
        pytest.param(lambda r: r.astype(np.float16), "dtype is float16", id="narrower"),
        pytest.param(lambda r: r.astype(np.float32)[:, :1], r"shape is \(2, 1\)", id="broadcast-column"),
        pytest.param(lambda r: r.astype(np.float32)[:1], r"shape is \(1, 3\)", id="broadcast-row"),
        pytest.param(lambda r: r.astype(np.float32).T, r"shape is \(3, 2\)", id="transposed"),
        pytest.param(lambda r: -r.astype(np.float32), r"5 of 6 .*; worst at \(0, 0\)", id="sign"),
        pytest.param(lambda r: r.astype(np.float32) + np.float32(1e-3), "6 of 6", id="shifted"),
        pytest.param(lambda r: np.full(r.shape, np.nan, np.float32), "6 of 6", id="nan"),
        pytest.param(lambda r: np.full(r.shape, np.inf, np.float32), "6 of 6", id="infinite"),
    ],
)
def test_refuses(reference, make, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(make(reference), reference, dtype=np.float32)


def test_refuses_one_nan_among_right_values_and_says_where(reference):
    actual = reference.astype(np.float32)
    actual[1, 1] = np.nan
    with pytest.raises(AssertionError, match=r"1 of 6 .* \(1, 1\).*nan"):
        assert_close(actual, reference, dtype=np.float32)


def test_nan_and_infinity_must_stand_where_the_reference_has_them():
    reference = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert_close(reference.astype(np.float32), reference, dtype=np.float32)
    for wrong in (
        [1.0, np.inf, -np.inf, 1.0],
        [np.inf, np.inf, -np.inf, 1.0],
        [np.nan, -np.inf, -np.inf, 1.0],
        [np.nan, 3e38, -np.inf, 1.0],
        [np.nan, np.nan, -np.inf, 1.0],
    ):
        with pytest.raises(AssertionError, match="1 of 4"):
            assert_close(np.array(wrong, np.float32), reference, dtype=np.float32)


def test_the_error_is_relative_to_each_element_and_not_to_the_largest():
    reference = np.array([1e-6, 1e6])
    with pytest.raises(AssertionError, match=r"worst at \(0,\)"):
        assert_close(np.array([2e-6, 1e6], np.float32), reference, dtype=np.float32)


@pytest.mark.parametrize("length", [1, 16, 10_000])
def test_the_limit_is_where_it_is_said_to_be(length):
    reference = np.full(8, 3.0)
    limit = tolerance(np.float32, length=length)
    assert limit == pytest.approx(8 * EPS32 * length**0.5)
    assert_close((reference * (1 + 0.9 * limit)).astype(np.float32), reference, dtype=np.float32, length=length)
    with pytest.raises(AssertionError, match="8 of 8"):
        assert_close((reference * (1 + 1.2 * limit)).astype(np.float32), reference, dtype=np.float32, length=length)


def test_the_limit_does_not_grow_with_the_number_of_elements():
    reference = np.ones(100_000)
    actual = reference.astype(np.float32)
    actual[7] += 20 * EPS32
    with pytest.raises(AssertionError, match=r"1 of 100000 .* \(7,\)"):
        assert_close(actual, reference, dtype=np.float32)


def test_a_cancelled_sum_is_judged_by_its_neighbours_or_by_a_given_scale():
    reference = np.array([100.0, 0.0])
    actual = np.array([100.0, 100 * EPS32], np.float32)
    with pytest.raises(AssertionError, match=r"\(1,\)"):
        assert_close(actual, reference, dtype=np.float32)
    assert_close(actual, reference, dtype=np.float32, length=4)
    assert_close(actual, reference, dtype=np.float32, scale=100.0)


def test_an_overflowing_scale_cannot_hide_an_error():
    with pytest.raises(AssertionError, match="1 of 2"):
        assert_close(np.array([np.inf, 5.0], np.float32), np.array([np.inf, 1.0]), dtype=np.float32, length=9)


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_below_one_is_refused(length):
    with pytest.raises(ValueError, match="at least 1"):
        tolerance(np.float32, length=length)


def test_scalars_are_compared_with_scalars_only():
    assert_close(1.0, 1.0, dtype=np.float64)
    assert_close(np.float32(1.0), 1.0, dtype=np.float32)
    for wrong, message in (
        (None, "got None"),
        (1, "got int"),
        (True, "got bool"),
        (np.ones(1), "got ndarray"),
        (np.float64(1.0), "dtype is float64"),
        (float("nan"), "nan"),
        (1.001, "off"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_close(wrong, 1.0, dtype=np.float32)


def test_with_a_backend_only_its_own_arrays_pass():
    backend = ListBackend()
    reference = np.array([1.0, 2.0])
    assert_close(backend.Box([1.0, 2.0]), reference, dtype=np.float32, backend=backend)
    with pytest.raises(AssertionError, match="not an array of backend 'list'"):
        assert_close(np.array([1.0, 2.0], np.float32), reference, dtype=np.float32, backend=backend)
    with pytest.raises(AssertionError, match="dtype is float32, expected float64"):
        assert_close(backend.Box([1.0, 2.0]), reference, dtype=np.float64, backend=backend)
    lying = backend.Box([1.0, 2.0])
    lying.dtype = np.dtype(np.float64)
    with pytest.raises(AssertionError, match="dtype is float64, expected float32"):
        assert_close(lying, reference, dtype=np.float32, backend=backend)
    with pytest.raises(AssertionError, match="1 of 2"):
        assert_close(backend.Box([1.0, 3.0]), reference, dtype=np.float32, backend=backend)


def test_same_bits():
    a = np.array([[0.0, 1.0], [np.nan, np.inf]])
    assert_same_bits(a, a.copy())
    assert_same_bits(a[:, ::-1], a[:, ::-1].copy())
    assert_same_bits(np.zeros((0, 2)), np.zeros((0, 2)))
    assert_same_bits(np.array(1.0), np.array(1.0))
    negative_zero = a.copy()
    negative_zero[0, 0] = -0.0
    last_bit = a.copy()
    last_bit[0, 1] = np.nextafter(1.0, 2.0)
    for wrong, message in (
        (None, "NoneType"),
        (a.tolist(), "list"),
        (a.astype(np.float32), "dtype"),
        (a[:1], "shape"),
        (negative_zero, r"1 of 4 .* \(0, 0\)"),
        (last_bit, r"1 of 4 .* \(0, 1\)"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_same_bits(wrong, a)
