"""Random bits, dropout masks and permutations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.kernels.costs import Cost, operation
from benchmarks.kernels.measuring import FLOAT32, finished, measure, measures, unwritten
from bpcore.random import Purpose, permutation
from tests.helpers.compare import assert_close

SHAPE = (256, 512)
WORDS = SHAPE[0] * SHAPE[1]
CHECKED = 512
"""Words at the beginning and at the end that are compared with the ones computed here."""
SAMPLES = 8192
SEED, STEP, LAYER, RATE = 2**40 + 7, 3, 2, 0.3
MASK = 2**32 - 1


def block(number: int, purpose: int, step: int, layer: int) -> list[int]:
    """Return the four words of a block: Philox4x32-10 in whole numbers, after the paper."""
    c0, c1, c2, c3 = number & MASK, layer << 16 | number >> 32, step & MASK, purpose << 24 | step >> 32
    k0, k1 = SEED & MASK, SEED >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & MASK, p0 >> 32 ^ c3 ^ k1, p0 & MASK
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return [c0, c1, c2, c3]


def words(count: int, purpose: int, step: int, layer: int, first: int = 0) -> Any:
    """Return some words from a multiple of four on."""
    return np.ravel([block(b, purpose, step, layer) for b in range(first // 4, (first + count) // 4)])


def ends(purpose: int, layer: int) -> tuple[Any, Any]:
    return words(CHECKED, purpose, STEP, layer), words(CHECKED, purpose, STEP, layer, WORDS - CHECKED)


@measures("random_bits")
def test_random_bits(benchmark: Any, backend: Any) -> None:
    out = backend.zeros(WORDS, np.uint32)
    begin, end = ends(Purpose.USER, LAYER)

    def judge(_: Any) -> None:
        found = backend.to_numpy(out)
        assert np.array_equal(found[:CHECKED], begin)
        assert np.array_equal(found[-CHECKED:], end)

    run = finished(backend, lambda: backend.random_bits(out, seed=SEED, purpose=Purpose.USER, step=STEP, layer=LAYER))
    cost = operation("random_bits", 4, p=WORDS)
    measure(benchmark, run, judge, group="random bits", cost=cost, per=("word", WORDS))


@measures("dropout_mask")
def test_dropout_mask(benchmark: Any, backend: Any) -> None:
    out = unwritten(backend, *SHAPE)
    expected = [np.where(part < int(RATE * 2**32), 0, 1 / (1 - RATE)) for part in ends(Purpose.DROPOUT, LAYER)]

    def judge(_: Any) -> None:
        found = backend.to_numpy(out).ravel()
        for part, exact in zip((found[:CHECKED], found[-CHECKED:]), expected, strict=True):
            assert 0 < np.count_nonzero(exact) < CHECKED
            assert_close(part, exact, dtype=FLOAT32)

    run = finished(backend, lambda: backend.dropout_mask(out, rate=RATE, seed=SEED, step=STEP, layer=LAYER))
    cost = operation("dropout_mask", FLOAT32.itemsize, m=SHAPE[0], n=SHAPE[1])
    measure(benchmark, run, judge, group="dropout mask", cost=cost, per=("element", WORDS))


@pytest.mark.parametrize("contestant", ["bpcore", "numpy"])
def test_permutation(benchmark: Any, contestant: str) -> None:
    """The order of the samples in an epoch, drawn on the host; NumPy's generator shuffles by exchanging."""
    rng = np.random.Generator(np.random.Philox(SEED))
    low, high = words(2 * SAMPLES, Purpose.SHUFFLE, STEP, 0).reshape(-1, 2).T
    expected = np.lexsort((low, high))

    def judge(result: Any) -> None:
        if contestant == "bpcore":
            assert np.array_equal(result, expected)
        assert np.array_equal(np.bincount(result, minlength=SAMPLES), np.ones(SAMPLES))

    run = (lambda: permutation(SAMPLES, SEED, STEP)) if contestant == "bpcore" else (lambda: rng.permutation(SAMPLES))
    drawn = operation("random_bits", 4, p=2 * SAMPLES)
    cost = Cost(drawn.flops, drawn.bytes + 8 * SAMPLES)  # the words, and the numbers of the samples
    measure(benchmark, run, judge, group="permutation", cost=cost, per=("sample", SAMPLES))
