"""Operations over the rows and columns of a matrix, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.kernels.costs import Cost, loop, operation
from benchmarks.kernels.measuring import FLOAT32, finished, measure, measures, unwritten
from bpcore.backends.ops import OPS
from tests.helpers.compare import assert_close

SHAPES = {"narrow": (64, 10), "wide": (256, 1000)}
THRESHOLD = 0.5
shapes = pytest.mark.parametrize("shape", SHAPES)


def group(name: str, shape: str) -> str:
    return f"{name} {SHAPES[shape]}"


def cost(name: str, shape: str) -> Cost:
    m, n = SHAPES[shape]
    return operation(name, FLOAT32.itemsize, m=m, n=n)


class Rows(NamedTuple):
    """An operation with one matrix as its result: its inputs, and what errors are relative to."""

    draw: Callable[[np.random.Generator, tuple[int, int]], list[Any]]
    scale: Callable[..., Any] | None = None


def logits(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return rng.normal(size=shape, scale=3).astype(np.float32)


def probabilities(rng: np.random.Generator, shape: tuple[int, int]) -> Any:
    return OPS["softmax"].reference(logits(rng, shape).astype(np.float64)).astype(np.float32)


ROWWISE = {
    "softmax": Rows(lambda rng, shape: [logits(rng, shape)]),
    # the logarithm is a difference of numbers as large as the largest of the row
    "log_softmax": Rows(lambda rng, shape: [logits(rng, shape)], lambda Z: abs(Z).max(axis=1, keepdims=True)),
    # a row sum is subtracted, with the errors of its terms
    "backprop_softmax": Rows(
        lambda rng, shape: [logits(rng, shape), probabilities(rng, shape)],
        lambda G, H: H * abs(G).max(axis=1, keepdims=True),
    ),
    "backprop_log_softmax": Rows(
        lambda rng, shape: [logits(rng, shape), np.log(probabilities(rng, shape))],
        lambda G, H: abs(G) + np.exp(H) * abs(G).sum(axis=1, keepdims=True),
    ),
}


@measures(*ROWWISE)
@shapes
@pytest.mark.parametrize("name", ROWWISE)
def test_rows(benchmark: Any, backend: Any, rng: np.random.Generator, name: str, shape: str) -> None:
    operands, scale_of = ROWWISE[name]
    host = operands(rng, SHAPES[shape])
    exact = [array.astype(np.float64) for array in host]
    expected = OPS[name].reference(*exact)
    scale = None if scale_of is None else np.broadcast_to(scale_of(*exact), expected.shape)
    arrays, out = [backend.asarray(array) for array in host], unwritten(backend, *SHAPES[shape])
    run = finished(backend, lambda: getattr(backend, name)(*arrays, out=out))

    def judge(_: Any) -> None:
        assert_close(out, expected, dtype=FLOAT32, length=expected.shape[1], scale=scale, backend=backend)

    measure(benchmark, run, judge, group=group(name, shape), cost=cost(name, shape))


@shapes
def test_log_of_softmax(benchmark: Any, rng: np.random.Generator, shape: str) -> None:
    """What the compiled plan does instead of ``log_softmax``, because it has the softmax already."""
    from bpcore.kernels.numba import rowwise

    Z = logits(rng, SHAPES[shape])
    H = OPS["softmax"].reference(Z.astype(np.float64)).astype(np.float32)
    expected = OPS["log_softmax"].reference(Z.astype(np.float64))
    out, kernel = np.full_like(Z, np.nan), rowwise.log_of_softmax[FLOAT32]
    scale = np.broadcast_to(abs(Z).max(axis=1, keepdims=True), Z.shape)

    def judge(_: Any) -> None:
        assert_close(out, expected, dtype=FLOAT32, length=Z.shape[1], scale=scale)

    m, n = SHAPES[shape]
    price = loop(m * n, FLOAT32.itemsize, operations=3, arrays=3)
    measure(benchmark, lambda: kernel(Z, H, out), judge, group=group("log_softmax", shape), cost=price)


SUMS = ("column_sums", "total", "sum_squares")


@measures(*SUMS)
@shapes
@pytest.mark.parametrize("name", SUMS)
def test_sums(benchmark: Any, backend: Any, rng: np.random.Generator, name: str, shape: str) -> None:
    A = logits(rng, SHAPES[shape])
    expected = OPS[name].reference(A.astype(np.float64))
    dtype = FLOAT32 if name == "column_sums" else np.dtype(np.float64)
    array, out = backend.asarray(A), unwritten(backend, *expected.shape, dtype=dtype)
    terms = A.shape[0] if name == "column_sums" else A.size
    run = finished(backend, lambda: getattr(backend, name)(array, out=out))

    def judge(_: Any) -> None:
        scale = np.maximum(np.abs(expected), 3 * np.sqrt(terms))  # terms of size 3, of both signs
        assert_close(out, expected, dtype=dtype, length=terms, scale=scale, backend=backend)

    measure(benchmark, run, judge, group=group(name, shape), cost=cost(name, shape))


@shapes
def test_all_finite(benchmark: Any, backend: Any, rng: np.random.Generator, shape: str) -> None:
    A = logits(rng, SHAPES[shape])
    array = backend.asarray(A)
    A = A.copy()
    A[-1, -1] = np.inf
    bad = backend.asarray(A)

    def judge(result: Any) -> None:
        assert result is True
        assert backend.all_finite(bad) is False

    price = loop(A.size, FLOAT32.itemsize, operations=1, arrays=1)
    measure(benchmark, lambda: backend.all_finite(array), judge, group=group("all_finite", shape), cost=price)


@measures("take_rows")
@shapes
def test_take_rows(benchmark: Any, backend: Any, rng: np.random.Generator, shape: str) -> None:
    m, n = SHAPES[shape]
    X, index = logits(rng, (16 * m, n)), rng.permutation(16 * m)[:m]
    source, places, out = backend.asarray(X), backend.asarray(index), unwritten(backend, m, n)
    run = finished(backend, lambda: backend.take_rows(source, places, out=out))

    def judge(_: Any) -> None:
        assert np.array_equal(backend.to_numpy(out), np.stack([X[i] for i in index.tolist()]))

    measure(benchmark, run, judge, group=group("take_rows", shape), cost=cost("take_rows", shape))


@measures("row_hits")
@shapes
def test_row_hits(benchmark: Any, backend: Any, rng: np.random.Generator, shape: str) -> None:
    m, n = SHAPES[shape]
    H, labels = probabilities(rng, (m, n)), rng.integers(0, n, m)
    labels[::2] = [max(range(n), key=row.__getitem__) for row in H[::2].tolist()]  # else hardly one is right
    expected = OPS["row_hits"].reference(H.astype(np.float64), labels, THRESHOLD)
    arrays, out = [backend.asarray(H), backend.asarray(labels)], unwritten(backend, m)
    run = finished(backend, lambda: backend.row_hits(*arrays, THRESHOLD, out=out))

    def judge(_: Any) -> None:
        assert expected[::2].all()
        assert np.array_equal(backend.to_numpy(out), expected)

    measure(benchmark, run, judge, group=group("row_hits", shape), cost=cost("row_hits", shape))
