"""Checks of random fields, allocation, the two crossings, and the small helpers of a backend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bpcore.errors import BpcoreError, ShapeError
from bpcore.random import Purpose
from tests.backends.judging import (
    LAYOUTS,
    Case,
    blank,
    case,
    double,
    judge,
    numbers,
    refuses,
)
from tests.helpers.compare import assert_close, assert_same_bits


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 of one counter, from the paper of Salmon et al. 2011, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def philox_words(n: int, seed: int, purpose: int, step: int, layer: int) -> NDArray[np.uint32]:
    """Words 0 ... n-1 of a field, by the layout documented in :mod:`bpcore.random`."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    words: list[int] = []
    for block in range((n + 3) // 4):
        c1 = layer << 16 | block >> 32
        words += philox((block & 0xFFFFFFFF, c1, step & 0xFFFFFFFF, purpose << 24 | step >> 32), key)
    return np.array(words[:n], np.uint32)


ADDRESSES = [
    {"seed": 0, "step": 0, "layer": 0},
    {"seed": 2**64 - 1, "step": 2**56 - 1, "layer": 2**16 - 1},
    {"seed": 0x0123456789ABCDEF, "step": 5_000_000_000, "layer": 3},
    {"seed": 42, "step": 7, "layer": 1},
]


def check_random_bits(be: Any, dtype: Any, rng: np.random.Generator, n: int = 13, address: int = 0) -> None:
    where = ADDRESSES[address]
    for purpose in (Purpose.DROPOUT, Purpose.USER):
        expected = philox_words(n, purpose=int(purpose), **where)
        call = lambda out, purpose=purpose: be.random_bits(out, purpose=purpose, **where)  # noqa: E731
        judge(be, call, {}, ((n,), np.uint32), expected, exact=True)


def refuse_random_bits(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    for out in (be.zeros(8, np.float32), be.zeros((2, 4), np.uint32)):
        refuses(be, BpcoreError, be.random_bits, out, seed=0, purpose=Purpose.USER)
    out = be.zeros(8, np.uint32)
    for wrong in ({"seed": -1}, {"seed": 2**64}, {"seed": 0.5}, {"seed": 0, "step": -1}, {"seed": 0, "layer": 2**16}):
        refuses(be, BpcoreError, be.random_bits, out, purpose=Purpose.USER, **wrong)


def check_dropout_mask(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    shape: tuple[int, ...] = (13, 11),
    rate: float = 0.5,
    address: int = 0,
    out_layout: str = "C",
) -> None:
    where = ADDRESSES[address]
    bits = philox_words(math.prod(shape), purpose=int(Purpose.DROPOUT), **where).reshape(shape)
    expected = np.where(bits.astype(np.int64) < math.floor(rate * 2**32), 0.0, 1 / (1 - rate))
    call = lambda out: be.dropout_mask(out, rate=rate, **where)  # noqa: E731
    # the one value is 1/(1 - rate) rounded to the dtype: an eps for the order of rounding and dividing
    judge(be, call, {}, (shape, dtype), expected, out_layout=out_layout)


def check_dropout_rate(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """The share of zeros is the rate, and the mean is 1."""
    mask = be.to_numpy(be.dropout_mask(be.empty((300, 331), dtype), rate=0.25, seed=3, step=1, layer=2))
    share = float((mask == 0).mean())
    # standard deviation sqrt(0.25 * 0.75 / 99300) = 0.0014: four of them
    assert abs(share - 0.25) < 0.0055
    assert abs(float(mask.astype(np.float64).mean()) - 1) < 0.0075


def check_memory(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Allocation, both crossings, copy, fill and all_finite."""
    for shape in (0, 5, (0, 3), (3, 0), (7, 11), ()):
        expected = (shape,) if isinstance(shape, int) else shape
        for kind in (dtype, np.dtype(np.int64), np.dtype(np.uint32)):
            array = be.zeros(shape, kind)
            assert be.owns(array)
            assert array.shape == expected
            assert np.dtype(array.dtype) == kind
            assert_same_bits(np.array(be.to_numpy(array)), np.zeros(expected, kind))
            empty = be.empty(shape, kind)
            assert empty.shape == expected
            assert np.dtype(empty.dtype) == kind
            if be.device == "cpu" and empty.size:
                assert empty.ctypes.data % 64 == 0
                assert array.ctypes.data % 64 == 0
    assert not be.owns([1.0])
    assert not be.owns(None)
    assert not be.owns(1.0)

    host = numbers(rng, (6, 5), dtype)
    for source in (host, np.asfortranarray(host), host[::-1], host[:, ::2], host.tolist()):
        array = be.asarray(source, dtype)
        assert be.owns(array)
        assert np.dtype(array.dtype) == dtype
        back = be.to_numpy(array)
        assert type(back) is np.ndarray
        assert_same_bits(np.array(back), np.array(source, dtype))
    assert be.asarray(array) is array or be.asarray(array).shape == array.shape

    out = be.asarray(blank((6, 5), dtype))
    assert be.copy(be.asarray(host), out) is out
    assert_same_bits(np.array(be.to_numpy(out)), host)
    assert be.fill(out, 0.1) is out
    assert_same_bits(np.array(be.to_numpy(out)), np.full((6, 5), 0.1, dtype))
    assert be.fill(out, math.nan) is out
    assert np.isnan(be.to_numpy(out)).all()


def check_all_finite(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    for shape in ((0,), (1,), (13, 11), (8193,), (3, 4099)):
        A = numbers(rng, shape, dtype)
        found = be.all_finite(be.asarray(A))
        assert found is True, f"{found!r} for finite numbers of shape {shape}"
        for value in (np.nan, np.inf, -np.inf):
            for position in {0, A.size // 2, A.size - 1} if A.size else ():
                bad = A.copy()
                bad.reshape(-1)[position] = value
                assert be.all_finite(be.asarray(bad)) is False, f"{value} at {position} of {shape}"
    extreme = np.array([np.finfo(dtype).max, np.finfo(dtype).tiny, np.finfo(dtype).min, 0.0], dtype)
    assert be.all_finite(be.asarray(extreme)) is True, "the largest numbers are finite"
    assert be.all_finite(be.asarray(np.repeat(extreme, 5000))) is True


def check_evaluate(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    z, b = numbers(rng, (4, 3), dtype), numbers(rng, (3,), dtype)
    found = be.evaluate("tanh(z + b) * 2", z=be.asarray(z), b=be.asarray(b))
    assert_close(found, 2 * np.tanh(double(z)[0] + double(b)[0]), dtype=dtype, scale=2.0, backend=be)
    assert_close(be.evaluate("a * 2", a=1.5), np.array([3.0]), dtype=np.float64, backend=be)
    with pytest.raises(ShapeError, match="no value for b in formula z"):
        be.evaluate("z + b", z=be.asarray(z))


def cases() -> Iterator[Case]:
    """Every check of this file with its sizes and layouts."""
    for n in (0, 1, 3, 4, 5, 127, 8192, 8195, 20_011):
        yield case("random_bits", check_random_bits, f"{n}", n=n, address=n % 4)
    for address in range(len(ADDRESSES)):
        yield case("random_bits", check_random_bits, f"address-{address}", n=21, address=address)
    yield case("random_bits", refuse_random_bits)

    for shape in ((0, 4), (1, 1), (13, 11), (130, 67), (9001, 1), (7,)):
        yield case("dropout_mask", check_dropout_mask, f"{shape}", shape=shape, address=3, rate=0.3)
    for rate in (0.0, 0.1, 0.5, 0.75, 0.999):
        yield case("dropout_mask", check_dropout_mask, f"rate-{rate}", rate=rate, address=2)
    for layout in LAYOUTS[1:]:
        yield case("dropout_mask", check_dropout_mask, layout, out_layout=layout, address=1)
    yield case("dropout_mask", check_dropout_rate)

    yield case("memory", check_memory)
    yield case("all_finite", check_all_finite)
    yield case("evaluate", check_evaluate)
