"""The matrix products of a step in their three orientations, beside NumPy's BLAS and those of the backends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.kernels.costs import operation
from benchmarks.kernels.measuring import FLOAT32, finished, measure, measures, unwritten
from benchmarks.peers.workloads import WORKLOADS
from bpcore.kernels.numba import products
from bpcore.kernels.numba.vectors import width
from tests.helpers.compare import assert_close

NAMES = {"forward": "H @ W", "bp2": "Delta @ W.T", "bp4": "H.T @ Delta"}


class Case(NamedTuple):
    """A product: which one, its rows, inner size and columns."""

    equation: str
    m: int
    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.equation}-{self.m}x{self.k}x{self.n}"


def cases(names: Iterable[str]) -> list[Case]:
    """Return the products of some workloads, each shape once."""
    found: dict[Case, None] = {}
    for work in (WORKLOADS[name] for name in names):
        for l, (n_in, n) in enumerate(work.pairs):
            found[Case("forward", work.batch, n_in, n)] = None
            if work.kind == "train":
                found[Case("bp4", n_in, work.batch, n)] = None
                if l > 0:  # BP2 ends at the second layer
                    found[Case("bp2", work.batch, n, n_in)] = None
    return list(found)


@functools.lru_cache(maxsize=1)
def operands(case: Case) -> tuple[Any, Any, Any]:
    """Return A and B, stored transposed where the equation reads them so, and their product in float64."""
    rng, (equation, m, k, n) = np.random.default_rng(1), case
    A = rng.normal(size=(k, m)).astype(np.float32).T if equation == "bp4" else rng.normal(size=(m, k))
    B = rng.normal(size=(n, k)).astype(np.float32).T if equation == "bp2" else rng.normal(size=(k, n))
    A, B = A.astype(np.float32, copy=False), B.astype(np.float32, copy=False)
    return A, B, A.astype(np.float64) @ B.astype(np.float64)


def multiply_into(A: Any, B: Any, C: Any) -> Any:
    """Return a call of the compiled product: the one place that knows its arguments."""
    kernel, w = products.kernel(A.dtype), width(A.dtype.itemsize)
    scratch = np.empty(products.scratch_size(A.dtype.itemsize), A.dtype)
    a, b, c = A.ravel("K"), B.ravel("K"), C.reshape(-1)
    a_strides, b_strides = ([stride // M.itemsize for stride in M.strides] for M in (A, B))
    arguments = (a, 0, *a_strides, b, 0, *b_strides, c, 0, B.shape[1], c, -1, *A.shape, B.shape[1], w, scratch, 0)
    return lambda: kernel(*arguments)


@pytest.mark.parametrize("contestant", ["bpcore", "numpy"])
@pytest.mark.parametrize("case", cases(WORKLOADS), ids=str)
def test_product(benchmark: Any, case: Case, contestant: str) -> None:
    A, B, expected = operands(case)
    C = np.full((case.m, case.n), np.nan, np.float32)
    run = multiply_into(A, B, C) if contestant == "bpcore" else lambda: np.dot(A, B, out=C)
    measure_product(benchmark, case, run, lambda: C, expected)


def measure_product(benchmark: Any, case: Case, run: Callable[[], Any], result: Callable[[], Any], exact: Any) -> None:
    """Measure what leaves a product in float32 where ``result`` finds it."""
    equation, m, k, n = case
    # a sum that happens to cancel keeps the rounding errors of its terms
    scale = np.maximum(np.abs(exact), np.sqrt(k))
    measure(
        benchmark, run, lambda _: assert_close(result(), exact, dtype=FLOAT32, length=k, scale=scale),
        group=f"{NAMES[equation]} ({m}, {k}) x ({k}, {n})",
        cost=operation("matmul", FLOAT32.itemsize, m=m, k=k, n=n),
    )  # fmt: skip


@measures("matmul")
@pytest.mark.parametrize("case", cases(("digits-small", "mnist-mid")), ids=str)
def test_matmul(benchmark: Any, backend: Any, case: Case) -> None:
    """The operation of a backend, in the same tables; on numba it is BLAS."""
    A, B, exact = operands(case)
    C = unwritten(backend, case.m, case.n)
    how = {"transpose_a": case.equation == "bp4", "transpose_b": case.equation == "bp2"}
    left = backend.asarray(A.T if how["transpose_a"] else A)
    right = backend.asarray(B.T if how["transpose_b"] else B)
    run = finished(backend, lambda: backend.matmul(left, right, out=C, **how))
    measure_product(benchmark, case, run, lambda: backend.to_numpy(C), exact)
