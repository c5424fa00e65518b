"""Checks at the public edge: what passes unchanged, what is converted, what is refused and how it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpcore.data.arrays import check_finite, check_matrix, host_array
from bpcore.errors import DataError, ShapeError


class WithArray:
    """A frame of another library, as far as NumPy can tell."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.values, dtype=dtype)


class WithDlpack:
    """A tensor of another library that speaks DLPack only."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Subclass(np.ndarray):
    """An array class with a life of its own."""


class OnGpu:
    """An array that refuses to come to the host by itself, as CuPy's does."""

    __cuda_array_interface__: dict[str, Any] = {}  # noqa: RUF012 - the protocol demands a plain attribute

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise TypeError("implicit conversion")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_keep_dtype_and_values(dtype: str, order: Any) -> None:
    X = np.array(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    result = check_matrix(X)
    assert result.dtype == dtype
    assert result.flags.c_contiguous
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_fitting_array_is_not_copied() -> None:
    X = np.ones((3, 2), dtype=np.float32)
    assert check_matrix(X, dtype="float32") is X


def test_strided_view_is_copied_and_not_modified() -> None:
    base = np.arange(24.0).reshape(4, 6)
    before = base.copy()
    result = check_matrix(base[::2, ::-2])
    assert result.tolist() == [[5, 3, 1], [17, 15, 13]]
    result[:] = -1
    assert (base == before).all()


def test_read_only_input_gives_a_writeable_copy() -> None:
    X = np.ones((2, 2))
    X.flags.writeable = False
    result = check_matrix(X)
    assert result.flags.writeable
    assert not np.shares_memory(result, X)


def test_unaligned_input_gives_an_aligned_copy() -> None:
    buffer = bytearray(b"\0" + np.arange(4.0).tobytes())
    X = np.frombuffer(buffer, dtype=np.uint8)[1:].view(np.float64).reshape(2, 2)
    assert X.flags.writeable
    assert not X.flags.aligned
    result = check_matrix(X)
    assert result.flags.aligned
    assert result.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "bool"])
def test_integers_become_the_networks_dtype(dtype: str) -> None:
    X = np.array([[1, 0], [0, 1]], dtype=dtype)
    assert check_matrix(X).dtype == np.float64
    result = check_matrix(X, dtype="float32")
    assert result.dtype == np.float32
    assert result.tolist() == [[1, 0], [0, 1]]


def test_big_endian_input_becomes_native_of_the_same_width() -> None:
    result = check_matrix(np.array([[1.5, 2.5]], dtype=">f4"))
    assert result.dtype == np.dtype("=f4")
    assert result.tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize("wrap", [WithArray, WithDlpack, lambda a: a.tolist(), lambda a: a.view(Subclass)])
def test_other_containers_are_accepted(wrap: Any) -> None:
    result = check_matrix(wrap(np.array([[1.0, 2.0], [3.0, 4.0]])))
    assert type(result) is np.ndarray
    assert result.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones(3), r"X has shape \(3,\).*X\.reshape\(1, -1\) makes it one sample of 3.*X\.reshape\(-1, 1\)"),
        (np.float64(1), r"X has shape \(\); .*np\.reshape\(X, \(1, 1\)\)"),
        (np.ones((5, 2, 2)), r"X has shape \(5, 2, 2\).*X\.reshape\(len\(X\), -1\) makes each of its 5 entries"),
    ],
)
def test_wrong_number_of_axes(X: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_matrix(X)


def test_wrong_width_names_layer_and_expectation() -> None:
    with pytest.raises(ShapeError, match=r"^layer 1: Xv has shape \(2, 3\); expected \(m, 784\)"):
        check_matrix(np.ones((2, 3)), name="Xv", n_columns=784, layer=1)


@pytest.mark.parametrize(("shape", "missing"), [((0, 3), "rows"), ((3, 0), "columns"), ((0, 0), "rows")])
def test_empty(shape: tuple[int, int], missing: str) -> None:
    with pytest.raises(DataError, match=rf"X is empty: shape \({shape[0]}, {shape[1]}\) has no {missing}"):
        check_matrix(np.ones(shape), n_columns=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_non_finite_names_first_and_count(bad: float, dtype: str) -> None:
    X = np.zeros((4, 3), dtype=dtype)
    X[2, 1] = X[3, 0] = bad
    with pytest.raises(DataError, match=rf"X contains 2 values .* is {bad} in row 2, column 1 \(counted from 0\)"):
        check_matrix(X)
    assert np.array_equal(check_matrix(X, allow_nonfinite=True), X, equal_nan=True)


def test_opposite_infinities_are_found_although_they_cancel() -> None:
    with pytest.raises(DataError, match="2 values"):
        check_finite(np.array([np.inf, 1.0, -np.inf]), name="v")


def test_finite_numbers_whose_sum_overflows_pass() -> None:
    check_finite(np.full((2, 2), np.finfo(np.float64).max), name="X")


def test_three_axes_are_named_by_index() -> None:
    with pytest.raises(DataError, match=r"first is nan in index \(1, 0, 1\)"):
        check_finite(np.array([[[0, 0]], [[0, np.nan]]]), name="T")


def test_float16_is_refused_with_the_way_out() -> None:
    message = (
        r"X: float16 is not supported as a training dtype; possible: float32, float64; "
        r"use X\.astype\(np\.float32\)"
    )
    with pytest.raises(DataError, match=message):
        check_matrix(np.ones((2, 2), dtype=np.float16))
    with pytest.raises(DataError, match="float16 is not supported"):
        check_matrix(np.ones((2, 2)), dtype="float16")


def test_numbers_too_large_for_float32() -> None:
    X = np.array([[1.0, 2.0], [3.0, -1e39]])
    assert check_matrix(X).dtype == np.float64
    with pytest.raises(DataError, match=r"X: -1e\+39 in row 1, column 1 does not fit in float32; rescale"):
        check_matrix(X, dtype="float32")


def test_float32_sum_that_overflows_after_conversion_passes() -> None:
    X = np.full((2, 2), 3e38)
    assert check_matrix(X, dtype="float32").tolist() == [[np.float32(3e38)] * 2] * 2


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            np.array([[1.0, None]], dtype=object),
            r"X has dtype object \(the first that is no number: None in row 0, column 1\); real numbers are needed",
        ),
        (np.array([["a", "b"]]), r"X holds text \(dtype <U1\); real numbers are needed: encode it"),
        (np.array([[b"a"]]), r"X holds text \(dtype \|S1\)"),
        (np.array([[1 + 2j]]), r"X is complex \(complex128\).*X\.real"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), r"X has dtype datetime64\[D\]; real numbers are needed"),
        (np.zeros((2, 2), dtype=[("a", "f4")]), r"X has dtype \[\('a', '<f4'\)\]; real numbers are needed"),
        (
            np.ma.masked_array(np.ones((2, 2)), np.array([[False, True], [False, True]])),
            r"masked array with 2 masked values",
        ),
        ([[1.0, 2.0], [3.0]], r"X is not rectangular: .*every row needs the same number"),
        (OnGpu(), r"X is a .*OnGpu on a GPU.*copy it to the host first"),
        ({"a": 1}, r"X has dtype object; real numbers are needed"),
    ],
)
def test_what_is_no_array_of_real_numbers(X: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_matrix(X)


def test_array_that_fails_to_convert() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("requires grad")

    with pytest.raises(DataError, match=r"X of type .*Broken cannot be converted to a NumPy array: requires grad"):
        check_matrix(Broken())


def test_sparse_matrices_are_refused_with_the_way_out() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"X is a sparse matrix.*X\.toarray\(\)"):
        check_matrix(sparse.csr_matrix(np.eye(3)))


def test_unmasked_masked_array_passes() -> None:
    assert check_matrix(np.ma.masked_array([[1.0]], np.array([[False]]))).tolist() == [[1.0]]


def test_text_is_accepted_where_asked() -> None:
    assert host_array(["a", "b"], name="y", allow_text=True).tolist() == ["a", "b"]
    labels = np.array(["a", "bb"], dtype=object)
    assert host_array(labels, name="y", allow_text=True).dtype == np.dtype("<U2")
    with pytest.raises(DataError, match="dtype object"):
        host_array(np.array(["a", None], dtype=object), name="y", allow_text=True)
