"""Loops for dropout and clipping over parts of vectors, beside NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.kernels.costs import loop
from benchmarks.kernels.measuring import FLOAT32, measure
from bpcore.kernels.numba import parts
from tests.helpers.compare import assert_close

ROWS, COLUMNS = 64, 1024
SIZE = ROWS * COLUMNS
contestants = pytest.mark.parametrize("contestant", ["bpcore", "numpy"])


@contestants
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_drop(benchmark: Any, rng: np.random.Generator, per: str, contestant: str) -> None:
    """A mask for each sample, or one for the whole batch."""
    masked = SIZE if per == "sample" else COLUMNS
    work = np.full(2 * SIZE + masked, np.nan, np.float32)
    source, target, mask = work[:SIZE], work[SIZE : 2 * SIZE], work[2 * SIZE :]
    source[:], mask[:] = rng.normal(size=SIZE), np.where(rng.random(masked) < 0.3, 0, 1 / 0.7)
    expected = (source.astype(np.float64).reshape(-1, masked) * mask.astype(np.float64)).ravel()
    kernel = parts.drop[FLOAT32]

    def run() -> None:
        if contestant == "bpcore":
            kernel(work, 0, SIZE, SIZE, 2 * SIZE, masked)
        else:
            np.multiply(source.reshape(-1, masked), mask, out=target.reshape(-1, masked))

    cost = loop(SIZE, FLOAT32.itemsize, operations=1, arrays=3 if per == "sample" else 2)
    measure(benchmark, run, lambda _: assert_close(target, expected, dtype=FLOAT32), group=f"drop per {per}", cost=cost)


@contestants
def test_limit(benchmark: Any, rng: np.random.Generator, contestant: str) -> None:
    first, most, cell = rng.normal(size=SIZE).astype(np.float32), 0.5, np.empty(2, np.float32)
    grad, expected, kernel = first.copy(), np.clip(first.astype(np.float64), -0.5, 0.5), parts.limit[FLOAT32]

    def run() -> None:
        if contestant == "bpcore":
            kernel(grad, 0, SIZE, most, cell)
        else:
            np.clip(grad, -most, most, out=grad)

    measure(
        benchmark, run, lambda _: assert_close(grad, expected, dtype=FLOAT32), group="limit",
        cost=loop(SIZE, FLOAT32.itemsize, operations=2, arrays=2), reset=lambda: np.copyto(grad, first),
    )  # fmt: skip


@contestants
def test_squares(benchmark: Any, rng: np.random.Generator, contestant: str) -> None:
    """NumPy adds up in float32 and the kernel in float64, so they differ in what they promise."""
    grad, out, kernel = rng.normal(size=SIZE).astype(np.float32), np.full(1, np.nan), parts.squares[FLOAT32]
    exact, dtype = float((grad.astype(np.longdouble) ** 2).sum()), np.float64 if contestant == "bpcore" else np.float32

    def run() -> None:
        if contestant == "bpcore":
            kernel(grad, 0, SIZE, out, 0)
        else:
            out[0] = np.dot(grad, grad)

    def judge(_: Any) -> None:
        assert_close(out.astype(dtype), np.array([exact]), dtype=dtype, length=SIZE)

    measure(benchmark, run, judge, group="squares", cost=loop(SIZE, FLOAT32.itemsize, operations=2, arrays=1))


@contestants
def test_shorten(benchmark: Any, rng: np.random.Generator, contestant: str) -> None:
    """Timed where nothing is shortened: a gradient that shrinks from call to call would end in subnormal numbers."""
    first, cell, kernel = rng.normal(size=SIZE).astype(np.float32), np.empty(2, np.float32), parts.shorten[FLOAT32]
    grad, total = first.copy(), float((first.astype(np.float64) ** 2).sum())

    def shorten(most: float) -> None:
        if contestant == "bpcore":
            kernel(grad, 0, SIZE, total, most, cell)
        else:
            np.multiply(grad, np.float32(min(most / max(np.sqrt(total), 1e-37), 1)), out=grad)

    def judge(_: Any) -> None:
        assert np.array_equal(grad, first)
        shorten(0.25 * np.sqrt(total))
        assert_close(grad, 0.25 * first.astype(np.float64), dtype=FLOAT32)
        grad[:] = first

    measure(
        benchmark, lambda: shorten(2 * np.sqrt(total)), judge, group="shorten",
        cost=loop(SIZE, FLOAT32.itemsize, operations=1, arrays=2),
    )  # fmt: skip
