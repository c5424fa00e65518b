"""The suite is judged: backends with one deliberate defect each must be caught by it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.backends.ops import OPS
from tests.backends.conformance import CASES, DTYPES, run_all, run_case


def outs_of(out):
    return out if isinstance(out, tuple) else (out,)


def assign(out, values):
    out[...] = values
    return out


def sign_flipped(run, out):
    result = run()
    for array in outs_of(out):
        array[...] = ~array if array.dtype.kind == "u" else -array
    return result


def returns_none(run, out):
    run()


def returns_a_copy(run, out):
    result = run()
    return tuple(array.copy() for array in result) if isinstance(result, tuple) else result.copy()


def writes_nan(run, out):
    result = run()
    for array in outs_of(out):
        array[...] = 0xFFFFFFFF if array.dtype.kind == "u" else np.nan
    return result


def one_nan_at_the_end(run, out):
    result = run()
    for array in outs_of(out):
        if array.size:
            array[(-1,) * array.ndim] = 0 if array.dtype.kind == "u" else np.nan
    return result


def off_by_one_row(run, out):
    result = run()
    for array in outs_of(out):
        if array.ndim:
            array[...] = np.roll(array, 1, axis=0)
    return result


def half_precision(run, out):
    result = run()
    for array in outs_of(out):
        with np.errstate(over="ignore"):
            array[...] = array >> 16 << 16 if array.dtype.kind == "u" else array.astype(np.float16)
    return result


def slightly_off(run, out):
    """An error of 1e-3, relative: a wrong constant."""
    result = run()
    for array in outs_of(out):
        array[...] = array ^ 1 if array.dtype.kind == "u" else array * 1.001
    return result


def not_written(run, out):
    before = [array.copy() for array in outs_of(out)]
    result = run()
    for array, old in zip(outs_of(out), before, strict=True):
        array[...] = old
    return result


def cleared_first(run, out):
    """Right, unless an input lies in the same memory."""
    for array in outs_of(out):
        array[...] = 0
    return run()


def different_each_time(run, out, state=[0]):  # noqa: B006 - the state is the defect
    result = run()
    state[0] += 1
    if state[0] % 2:
        for array in outs_of(out):
            if array.size:
                first = array[(0,) * array.ndim]
                array[(0,) * array.ndim] = first ^ 1 if array.dtype.kind == "u" else np.nextafter(first, np.float32(9))
    return result


DEFECTS = [
    sign_flipped,
    returns_none,
    returns_a_copy,
    writes_nan,
    one_nan_at_the_end,
    off_by_one_row,
    half_precision,
    slightly_off,
    not_written,
    different_each_time,
]
HARMLESS = {
    # zeros and ones have the same value in half precision
    ("row_hits", "half_precision"),
    # one element has no next row
    ("total", "off_by_one_row"),
    ("sum_squares", "off_by_one_row"),
}
IN_PLACE = ["elementwise", "softmax", "log_softmax", "backprop_softmax", "backprop_log_softmax"]


def with_defect(op, defect):
    """A NumPy backend in which one operation does something wrong after (or before) the right thing."""
    right = getattr(NumpyBackend, op)
    signature = inspect.signature(right)

    def wrong(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        return defect(lambda: right(self, *args, **kwargs), bound.arguments["out"])

    return type(f"Wrong_{op}_{defect.__name__}", (NumpyBackend,), {op: wrong})()


def first_failure(be, op):
    """Run the cases of an operation that judge values; return the first complaint."""
    for case in CASES:
        if case.op == op and not case.name.startswith("refuse"):
            for dtype in DTYPES:
                try:
                    run_case(be, case, dtype)
                except AssertionError as error:
                    return f"{case.name}: {error}"
    return None


@pytest.fixture(autouse=True)
def _silent():
    # wrong values may overflow on their way
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("op", OPS)
def test_the_right_backend_passes_what_the_wrong_ones_must_not(op):
    assert first_failure(NumpyBackend(), op) is None


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
@pytest.mark.parametrize("op", OPS)
def test_a_wrong_operation_is_caught(op, defect):
    if (op, defect.__name__) in HARMLESS:
        assert first_failure(with_defect(op, defect), op) is None, "not harmless after all: remove it from the list"
        return
    failure = first_failure(with_defect(op, defect), op)
    assert failure is not None, f"{op} with {defect.__name__} passed the whole suite"


@pytest.mark.parametrize("op", IN_PLACE)
def test_an_operation_that_cannot_work_in_place_is_caught(op):
    assert first_failure(with_defect(op, cleared_first), op) is not None


@pytest.mark.parametrize("flag", ["transpose_a", "transpose_b"])
def test_an_ignored_transposition_is_caught(flag):
    class Wrong(NumpyBackend):
        def matmul(self, A, B, out, *, transpose_a=False, transpose_b=False):
            flags = {"transpose_a": transpose_a, "transpose_b": transpose_b, flag: False}
            # square operands have the right shape all the same; the others fail in NumPy
            try:
                return super().matmul(A, B, out, **flags)
            except ValueError:
                return super().matmul(A, B, out, transpose_a=transpose_a, transpose_b=transpose_b)

    assert first_failure(Wrong(), "matmul") is not None


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("random_bits", "dropout_mask")])
def test_an_input_that_is_changed_is_caught(op):
    right = getattr(NumpyBackend, op)

    def wrong(self, *args, **kwargs):
        result = right(self, *args, **kwargs)
        out = kwargs.get("out", args[-1] if args else None)
        for array in [*args, *kwargs.values()]:
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size:
                if not any(np.shares_memory(array, target) for target in outs_of(out)):
                    array[(-1,) * array.ndim] += 1
                    break
        return result

    assert first_failure(type("Wrong", (NumpyBackend,), {op: wrong})(), op) is not None


CONTIGUOUS = {"total", "sum_squares", "column_sums", "row_hits", "random_bits"}
"""Operations whose outputs the suite gives in one layout only: vectors and single elements."""


@pytest.mark.parametrize("op", [op for op in OPS if op not in CONTIGUOUS])
def test_writing_beside_a_view_is_caught(op):
    right = getattr(NumpyBackend, op)
    signature = inspect.signature(right)

    def wrong(self, *args, **kwargs):
        result = right(self, *args, **kwargs)
        for array in outs_of(signature.bind(self, *args, **kwargs).arguments["out"]):
            around = array.base
            if around is not None and around.ndim == array.ndim and around.size > array.size > 0:
                around[..., -1] = 0
        return result

    assert first_failure(type("Wrong", (NumpyBackend,), {op: wrong})(), op) is not None


@pytest.mark.parametrize(
    ("op", "defect"),
    [
        ("column_sums", lambda self, A, out: np.mean(A, axis=0, out=out) if len(A) else np.sum(A, axis=0, out=out)),
        ("total", lambda self, A, out: assign(out, A.sum(dtype=A.dtype))),
        ("sum_squares", lambda self, A, out: assign(out, (A * A).sum(dtype=A.dtype))),
        ("softmax", lambda self, Z, out: np.divide(np.exp(Z), np.exp(Z).sum(axis=1, keepdims=True), out=out)),
        ("log_softmax", lambda self, Z, out: np.log(NumpyBackend.softmax(self, Z, np.empty_like(Z)), out=out)),
        ("backprop_softmax", lambda self, G, H, out: np.multiply(G, H * (1 - H), out=out)),
        ("backprop_log_softmax", lambda self, G, H, out: np.subtract(G, np.exp(H), out=out)),
        ("take_rows", lambda self, X, index, out: assign(out, X[np.minimum(index, len(X) - 2)])),
        (
            "row_hits",
            lambda self, H, labels, threshold, out: assign(
                out, (H[:, 0] > threshold if H.shape[1] == 1 else H.argmax(axis=1)) == labels
            ),
        ),
        (
            "row_hits",
            lambda self, H, labels, threshold, out: assign(
                out,
                ((H[:, 0] >= threshold) if H.shape[1] == 1 else H.shape[1] - 1 - H[:, ::-1].argmax(axis=1)) == labels,
            ),
        ),
    ],
    ids=[
        "mean-for-sum",
        "total-in-float32",
        "squares-in-float32",
        "softmax-not-shifted",
        "log-of-softmax",
        "diagonal-of-the-jacobian",
        "row-sum-forgotten",
        "last-row-never-taken",
        "nan-rows-counted",
        "last-maximum-wins",
    ],
)
def test_likely_mistakes_are_caught(op, defect):
    assert first_failure(type("Wrong", (NumpyBackend,), {op: defect})(), op) is not None


def test_run_all_names_the_operation_and_the_case():
    with pytest.raises(AssertionError, match=r"softmax: rows-softmax-\(1, 1\) in float32: .* are off"):
        run_all(with_defect("softmax", sign_flipped), ops=["softmax"])
