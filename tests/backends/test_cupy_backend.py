"""Every operation of the CuPy backend, over the stand-in for CuPy and, where there is one, on a GPU.

The runs called "stand-in" judge the Python of the backend and the arithmetic of its kernels. They are no measurement of
a GPU: tests/backends/fake_cupy.py says what they can and cannot find.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore import random as reference
from bpcore.backends.contract import native_operations
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_device import WIDEST_FOR_LANES
from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.backends.ops import OPS
from bpcore.errors import ShapeError
from bpcore.functions.program import Program
from bpcore.random import Purpose
from tests.helpers.compare import assert_close, assert_same_bits

DTYPES = ("float32", "float64")


def _softmax(Z: Any) -> Any:
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------ memory


def test_strided_and_foreign_host_arrays_arrive_contiguous(cupy_backend: CupyBackend) -> None:
    host = np.arange(12.0).reshape(3, 4)
    for source in (host[:, ::2], host.T, np.asfortranarray(host), [[1.0, 2.0]]):
        found = cupy_backend.asarray(source)
        assert found.flags.c_contiguous
        assert_same_bits(cupy_backend.to_numpy(found), np.ascontiguousarray(source))


def test_copy_and_fill(cupy_backend: CupyBackend) -> None:
    be = cupy_backend
    A = be.asarray(np.arange(6.0).reshape(2, 3))
    B = be.empty((2, 3), np.float64)
    assert be.copy(A, B) is B
    assert_same_bits(be.to_numpy(B), np.arange(6.0).reshape(2, 3))
    columns = be.asarray(np.zeros((2, 4)))
    be.copy(A[:, :2], columns[:, ::2])
    assert be.to_numpy(columns).tolist() == [[0, 0, 1, 0], [3, 0, 4, 0]]
    assert be.to_numpy(be.fill(B, 2.5)).tolist() == [[2.5] * 3] * 2
    assert be.to_numpy(be.fill(B, 0)).tolist() == [[0.0] * 3] * 2
    assert np.signbit(be.to_numpy(be.fill(B, -0.0))).all()
    assert np.isnan(be.to_numpy(be.fill(B, np.nan))).all()
    assert be.to_numpy(be.fill(be.empty(3, np.int64), 7)).tolist() == [7, 7, 7]
    assert be.to_numpy(be.fill(columns[:, 1:2], 9.0)).ravel().tolist() == [9, 9]
    assert be.to_numpy(be.zeros((0, 3), np.float32)).shape == (0, 3)
    with pytest.raises(ShapeError, match=r"copy on cupy got a numpy array for 'source'; move it with backend\.asarray"):
        be.copy(np.zeros(3), B)
    with pytest.raises(ShapeError, match=r"fill on cupy got builtins\.list for 'out'"):
        be.fill([1.0], 0)


# ------------------------------------------------------------------------------------------ products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul(cupy_backend: CupyBackend, dtype: str, transpose_a: bool, transpose_b: bool) -> None:
    be, rng = cupy_backend, np.random.default_rng(1)
    for m, k, n in ((1, 1, 1), (1, 5, 3), (4, 1, 2), (3, 7, 1), (5, 4, 6), (0, 3, 2), (2, 3, 0), (3, 0, 2)):
        a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
        expected = (a.T if transpose_a else a).astype(np.float64) @ (b.T if transpose_b else b).astype(np.float64)
        A, B, out = be.asarray(a), be.asarray(b), be.empty((m, n), dtype)
        assert be.matmul(A, B, out, transpose_a=transpose_a, transpose_b=transpose_b) is out
        assert_close(be.to_numpy(out), expected, dtype=dtype, length=max(k, 1), scale=1.0)


def test_matmul_of_views_with_rows_that_lie_apart(cupy_backend: CupyBackend) -> None:
    be, host = cupy_backend, np.arange(60.0).reshape(6, 10)
    whole = be.asarray(host)
    out = be.asarray(np.zeros((3, 7)))
    A, B = whole[:3, 2:6], whole[2:6, 5:8]
    assert be.matmul(A, B, out[:, 1:4]) is not None
    expected = np.zeros((3, 7))
    expected[:, 1:4] = host[:3, 2:6] @ host[2:6, 5:8]
    assert_close(be.to_numpy(out), expected, dtype="float64", length=4)
    with pytest.raises(ShapeError, match=r"rows of consecutive elements, 'A' of shape \(10, 6\).*transpose_a"):
        be.matmul(whole.T, whole, be.empty((10, 10), np.float64))
    with pytest.raises(
        ShapeError, match=r"rows of consecutive elements, 'A' of shape \(6, 10\) has strides \(-80, 8\)"
    ):
        be.matmul(whole[::-1], whole, be.empty((6, 6), np.float64), transpose_b=True)
    with pytest.raises(ShapeError, match=r"rows of consecutive elements, 'B'"):
        be.matmul(whole[:, :2], whole[:2, ::2], be.empty((6, 5), np.float64))


def test_matmul_says_what_is_wrong(cupy_backend: CupyBackend) -> None:
    be = cupy_backend
    A, B, out = (be.asarray(np.ones(shape, np.float32)) for shape in ((2, 3), (3, 4), (2, 4)))
    with pytest.raises(
        ShapeError, match=r"matmul on cupy got a numpy array for 'A'; move it with backend\.asarray\(A\)"
    ):
        be.matmul(np.ones((2, 3), np.float32), B, out)
    with pytest.raises(ShapeError, match=r"float32 or of float64, got A float64, B float32"):
        be.matmul(be.asarray(np.ones((2, 3))), B, out)
    with pytest.raises(
        ShapeError, match=r"A is \(2, 3\) and B\.T is \(4, 3\); they need .* \(2, 3\), which is \(2, 4\)"
    ):
        be.matmul(A, be.asarray(np.ones((3, 4), np.float32)), out, transpose_b=True)
    with pytest.raises(ShapeError, match=r"takes matrices, got A \(2,\)"):
        be.matmul(be.asarray(np.ones(2, np.float32)), B, out)


# ------------------------------------------------------------------------------------------ element-wise


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 1), (1, 6), (6, 1), (5, 4), (37, 10), (3, 300), (0, 4), (4, 0)])
def test_elementwise_takes_every_documented_shape(
    cupy_backend: CupyBackend, dtype: str, shape: tuple[int, ...]
) -> None:
    be, rng = cupy_backend, np.random.default_rng(2)
    program = Program("s = z*b + c; h = s - k", outputs=("h", "s"), name="shapes")
    m, n = shape if len(shape) == 2 else (1, int(np.prod(shape)))
    z = rng.normal(size=shape).astype(dtype)
    for size in {shape, (n,), (1, n), (1,), (1, 1)} | ({(m, 1)} if len(shape) == 2 else set()):
        b = rng.normal(size=size).astype(dtype)
        h, s = be.empty(shape, dtype), be.empty(shape, dtype)
        args = {"z": be.asarray(z).reshape(shape), "b": be.asarray(b), "c": 0.25, "k": np.float64(3)}
        returned = be.elementwise(program, out=(h, s), **args)
        assert returned[0] is h
        assert returned[1] is s
        expected = np.asarray(z.astype(np.float64) * (b.reshape(()) if b.size == 1 else b) + 0.25).reshape(shape)
        assert_close(be.to_numpy(s), expected, dtype=dtype, scale=np.abs(expected) + 1)
        assert_close(be.to_numpy(h), np.asarray(expected - 3), dtype=dtype, scale=np.abs(expected) + 3)


def test_elementwise_in_place(cupy_backend: CupyBackend) -> None:
    be = cupy_backend
    v, g, theta = (np.linspace(-1, 1, 1003) * i for i in (1, 2, 3))
    V, G, THETA = be.asarray(v), be.asarray(g), be.asarray(theta)
    rule = Program("v = mu*v + g; theta = theta - eta*v", name="momentum")
    be.elementwise(rule, out=(V, THETA), v=V, g=G, theta=THETA, mu=0.9, eta=0.1)
    assert_close(be.to_numpy(V), 0.9 * v + g, dtype="float64", scale=1.0)
    assert_close(be.to_numpy(THETA), theta - 0.1 * (0.9 * v + g), dtype="float64", scale=3.0)


def test_scalars_are_combined_in_float64(cupy_backend: CupyBackend) -> None:
    """1 - 0.999 in float32 is off by 1e-5 of itself."""
    be = cupy_backend
    g = be.asarray(np.ones(5, np.float32))
    out = be.elementwise(Program("h = (1 - beta)*g", name="scalars"), out=be.empty(5, np.float32), g=g, beta=0.999)
    assert_close(be.to_numpy(out), np.full(5, 1 - 0.999), dtype="float32", factor=1)


def test_changed_scalars_are_seen_and_odd_ones_follow_ieee(cupy_backend: CupyBackend) -> None:
    be, program = cupy_backend, Program("h = z + 1/k", name="reciprocal")
    z, out = be.asarray(np.zeros(3)), be.empty(3, np.float64)
    for k, expected in ((2.0, 0.5), (4, 0.25), (0.0, np.inf), (np.inf, 0.0), (-0.0, -np.inf), (2.0, 0.5)):
        assert be.to_numpy(be.elementwise(program, out=out, z=z, k=k)).tolist() == [expected] * 3


def test_elementwise_says_what_is_wrong(cupy_backend: CupyBackend) -> None:
    be, program = cupy_backend, Program("h = z + b", name="add bias")
    z, out = be.asarray(np.ones((4, 3), np.float32)), be.empty((4, 3), np.float32)
    with pytest.raises(ShapeError, match=r"add bias on cupy got a numpy array for 'b'; move it with backend\.asarray"):
        be.elementwise(program, out=out, z=z, b=np.ones(3, np.float32))
    with pytest.raises(ShapeError, match=r"add bias on cupy got a numpy array for 'h'"):
        be.elementwise(program, out=np.empty((4, 3), np.float32), z=z, b=1.0)
    with pytest.raises(ShapeError, match=r"no value for b; it needs z, b"):
        be.elementwise(program, out=out, z=z)
    with pytest.raises(ShapeError, match=r"'b' is float64 but the result is float32"):
        be.elementwise(program, out=out, z=z, b=be.asarray(np.ones(3)))
    with pytest.raises(ShapeError, match=r"'b' has shape \(4,\), which does not fit a result of shape \(4, 3\)"):
        be.elementwise(program, out=out, z=z, b=be.asarray(np.ones(4, np.float32)))
    with pytest.raises(ShapeError, match=r"needs C-contiguous arrays, 'z' of shape \(4, 3\) has strides"):
        be.elementwise(program, out=out, z=be.asarray(np.ones((3, 4), np.float32)).T, b=1.0)
    with pytest.raises(ShapeError, match=r"outputs h, got 2 arrays"):
        be.elementwise(program, out=(out, out), z=z, b=1.0)
    two = Program("h = z; g = -z", name="two")
    with pytest.raises(ShapeError, match=r"one shape and dtype, got \(4, 3\) float32 and \(3,\) float32"):
        be.elementwise(two, out=(out, be.empty(3, np.float32)), z=z)
    with pytest.raises(ShapeError, match=r"at most two axes, got shape \(1, 4, 3\)"):
        be.elementwise(two, out=(out.reshape(1, 4, 3),) * 2, z=1.0)
    with pytest.raises(ShapeError, match=r"'h' is int64, expected float32 or float64"):
        be.elementwise(program, out=be.empty(3, np.int64), z=1.0, b=1.0)


def test_evaluate(cupy_backend: CupyBackend) -> None:
    z = np.linspace(-2, 2, 7)
    found = cupy_backend.evaluate("tanh(z) * k", z=cupy_backend.asarray(z), k=2.0)
    assert_close(cupy_backend.to_numpy(found), np.tanh(z) * 2, dtype="float64")


# ------------------------------------------------------------------------------------------ reductions and rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (0, 3), (1, 40), (7, 10), (65, 3), (1500, 2), (3000, 1), (300, 70), (2, 2000)]
)
def test_reductions(cupy_backend: CupyBackend, dtype: str, shape: tuple[int, int]) -> None:
    be, a = cupy_backend, np.random.default_rng(4).normal(size=shape).astype(dtype)
    A, a64 = be.asarray(a), a.astype(np.float64)
    out = be.empty(shape[1], dtype)
    assert be.column_sums(A, out) is out
    assert_close(be.to_numpy(out), a64.sum(axis=0), dtype=dtype, scale=np.abs(a64).sum(axis=0) + 1)
    total, squares = be.empty(1, np.float64), be.empty(1, np.float64)
    assert be.total(A, total) is total
    assert be.sum_squares(A, squares) is squares
    assert_close(be.to_numpy(total), [a64.sum()], dtype="float64", length=max(a.size, 1), scale=1.0)
    assert_close(be.to_numpy(squares), [(a64 * a64).sum()], dtype="float64", length=max(a.size, 1))
    assert be.all_finite(A) is True
    for bad in (np.nan, np.inf, -np.inf) if a.size else ():
        broken = a.copy()
        broken[-1, -1] = bad
        assert be.all_finite(be.asarray(broken)) is False


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (0, 3), (5, 2), (9, 10), (4, 33), (70, 3), (3, WIDEST_FOR_LANES + 1), (12, 600)]
)
def test_rows(cupy_backend: CupyBackend, dtype: str, shape: tuple[int, int]) -> None:
    be, rng = cupy_backend, np.random.default_rng(6)
    z, g = (rng.normal(size=shape).astype(dtype) * 2 for _ in range(2))
    Z, G, n = be.asarray(z), be.asarray(g), shape[1]
    z64, g64 = z.astype(np.float64), g.astype(np.float64)
    out = be.empty(shape, dtype)
    if not z.size:
        assert be.softmax(Z, out) is out
        return
    h = _softmax(z64)
    assert be.softmax(Z, out) is out
    assert_close(be.to_numpy(out), h, dtype=dtype, length=n)
    found = be.backprop_softmax(G, out, be.empty(shape, dtype))
    h = be.to_numpy(out).astype(np.float64)
    expected = h * (g64 - (g64 * h).sum(axis=1, keepdims=True))
    assert_close(be.to_numpy(found), expected, dtype=dtype, length=n, scale=h * np.abs(g64).max())
    assert be.log_softmax(Z, Z) is Z
    assert_close(be.to_numpy(Z), np.log(_softmax(z64)), dtype=dtype, length=n, scale=np.abs(z64).max() + np.log(n) + 1)
    logh = be.to_numpy(Z).astype(np.float64)
    assert be.backprop_log_softmax(G, Z, G) is G
    expected = g64 - np.exp(logh) * g64.sum(axis=1, keepdims=True)
    assert_close(be.to_numpy(G), expected, dtype=dtype, length=n, scale=np.abs(g64).max() * 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 10, WIDEST_FOR_LANES + 3])
def test_row_hits(cupy_backend: CupyBackend, dtype: str, n: int) -> None:
    be, rng = cupy_backend, np.random.default_rng(8)
    H = rng.integers(0, 4, size=(33, n)).astype(dtype) / 4
    H[3, n // 2] = np.nan
    labels = rng.integers(0, max(n, 2), size=33)
    labels[:20] = (H[:20, 0] > 0.5) if n == 1 else H[:20].argmax(axis=1)
    out = be.empty(33, dtype)
    assert be.row_hits(be.asarray(H), be.asarray(labels), 0.5, out) is out
    expected = OPS["row_hits"].reference(H, labels, 0.5)
    assert expected.sum() > 5
    assert_close(be.to_numpy(out), expected, dtype=dtype)


def test_row_hits_needs_columns(cupy_backend: CupyBackend) -> None:
    be = cupy_backend
    with pytest.raises(ShapeError, match=r"a row without columns has no largest one"):
        be.row_hits(be.empty((2, 0), np.float32), be.asarray([0, 0]), 0.5, be.empty(2, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint32"])
@pytest.mark.parametrize("rest", [(), (1,), (3,), (4,), (9,), (64,), (0,)])
def test_take_rows(cupy_backend: CupyBackend, dtype: str, rest: tuple[int, ...]) -> None:
    be, rng = cupy_backend, np.random.default_rng(9)
    X = rng.integers(0, 1000, size=(23, *rest)).astype(dtype)
    for m in (0, 1, 17):
        index = rng.integers(0, 23, size=m)
        out = be.empty((m, *rest), dtype)
        assert be.take_rows(be.asarray(X), be.asarray(index), out) is out
        assert_same_bits(be.to_numpy(out), X[index])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda be, A, v: be.softmax(np.ones((2, 3)), A), r"softmax on cupy got a numpy array for 'Z'"),
        (lambda be, A, v: be.softmax(A, v), r"softmax: 'out' has shape \(3,\), expected \(2, 3\)"),
        (lambda be, A, v: be.softmax(v, v), r"softmax: 'Z' has shape \(3,\), expected 2 axes"),
        (lambda be, A, v: be.backprop_softmax(A, be.empty((2, 3), np.float32), A), r"'H' is float32, expected float64"),
        (lambda be, A, v: be.column_sums(A, be.empty(2, np.float64)), r"'out' has shape \(2,\), expected \(3,\)"),
        (lambda be, A, v: be.total(A, be.empty(1, np.float32)), r"total: 'out' is float32, expected float64"),
        (lambda be, A, v: be.sum_squares(A.T, be.empty(1, np.float64)), r"sum_squares on cupy needs C-contiguous"),
        (lambda be, A, v: be.take_rows(A, be.asarray(np.zeros(2, np.int32)), A), r"'index' is int32, expected int64"),
        (lambda be, A, v: be.row_hits(A, be.asarray([0]), 0.5, v), r"'labels' has shape \(1,\), expected \(2,\)"),
        (lambda be, A, v: be.random_bits(v, seed=0, purpose=Purpose.USER), r"'out' is float64, expected uint32"),
        (lambda be, A, v: be.dropout_mask(be.empty(3, np.int64), rate=0.5, seed=0, step=0, layer=0), r"'out' is int64"),
    ],
)  # fmt: skip
def test_operands_that_do_not_fit_are_refused(cupy_backend: CupyBackend, call: Any, message: str) -> None:
    A, v = cupy_backend.asarray(np.ones((2, 3))), cupy_backend.asarray(np.ones(3))
    with pytest.raises(ShapeError, match=message):
        call(cupy_backend, A, v)


# ------------------------------------------------------------------------------------------ randomness


@pytest.mark.parametrize("n", [0, 1, 4, 7, 1025])
def test_random_bits(cupy_backend: CupyBackend, n: int) -> None:
    seed, step = 2**64 - 5, 2**55 + 9
    out = cupy_backend.random_bits(
        cupy_backend.empty(n, np.uint32), seed=seed, purpose=Purpose.USER, step=step, layer=65535
    )
    assert_same_bits(
        cupy_backend.to_numpy(out), reference.random_bits(n, seed=seed, purpose=Purpose.USER, step=step, layer=65535)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.999])
def test_dropout_mask_is_that_of_numpy(cupy_backend: CupyBackend, dtype: str, rate: float) -> None:
    arguments: dict[str, Any] = {"rate": rate, "seed": 3, "step": 17, "layer": 2}
    expected = NumpyBackend().dropout_mask(np.empty((13, 7), dtype), **arguments)
    out = cupy_backend.empty((13, 7), dtype)
    assert cupy_backend.dropout_mask(out, **arguments) is out
    assert_same_bits(cupy_backend.to_numpy(out), expected)


# ------------------------------------------------------------------------------------------ the whole


def test_everything_in_the_table_is_native(cupy_backend: CupyBackend) -> None:
    assert native_operations(type(cupy_backend)) == set(OPS)


@pytest.mark.parametrize(
    ("activation", "output", "loss"),
    [
        ("tanh", "softmax", "cross_entropy"),
        ("relu", "identity", "quadratic"),
        ("gelu", "sigmoid", "binary_cross_entropy"),
    ],
)
def test_forward_and_backward_equal_those_of_numpy(
    cupy_backend: CupyBackend, activation: str, output: str, loss: str
) -> None:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(9, 5))
    Y = np.eye(4)[rng.integers(0, 4, size=9)]
    net = bp.MLP([5, 8, 6, 4], activation=activation, output=output, seed=3, dtype="float64", backend="numpy")
    results = {}
    for be in (bp.get_backend("numpy"), cupy_backend):
        moved = net.copy().to(be)
        trace = bp.forward(moved, X)
        gradients = bp.backward(moved, trace, Y, loss=loss)
        results[be.name] = {
            **{f"H[{l}]": be.to_numpy(trace.H[l]) for l in (2, 3, 4)},
            **{f"dW[{l}]": be.to_numpy(gradients.dW[l]) for l in (1, 2, 3)},
            **{f"db[{l}]": be.to_numpy(gradients.db[l]) for l in (1, 2, 3)},
        }
    for name, expected in results["numpy"].items():
        assert_close(results["cupy"][name], expected, dtype="float64", length=64)
