"""Random bits of the Numba loops: the very bits of :mod:`bpcore.random`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore import random
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.errors import ConfigurationError, ShapeError
from bpcore.random import Purpose
from tests.helpers.compare import assert_same_bits

ADDRESSES = [
    {"seed": 0, "purpose": Purpose.USER, "step": 0, "layer": 0},
    {"seed": 2**64 - 1, "purpose": Purpose.DROPOUT, "step": 2**56 - 1, "layer": 65535},
    {"seed": 2**63, "purpose": Purpose.SHUFFLE, "step": 2**32, "layer": 1},
]


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend()


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1003])
@pytest.mark.parametrize("address", ADDRESSES)
def test_bits_are_those_of_the_reference(numba_backend: NumbaBackend, n: int, address: Any) -> None:
    out = np.zeros(n, np.uint32)
    assert numba_backend.random_bits(out, **address) is out
    assert_same_bits(out, random.random_bits(n, **address))


def test_known_answer(numba_backend: NumbaBackend) -> None:
    # the first test vector of the authors' Random123 library: counter 0, key 0
    bits = numba_backend.random_bits(np.empty(4, np.uint32), seed=0, purpose=Purpose.WEIGHTS)
    assert [hex(word) for word in bits.tolist()] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_strided_output(numba_backend: NumbaBackend) -> None:
    wide = np.zeros(22, np.uint32)
    numba_backend.random_bits(wide[::2], seed=5, purpose=Purpose.USER)
    assert_same_bits(wide[::2].copy(), random.random_bits(11, seed=5, purpose=Purpose.USER))
    assert not wide[1::2].any()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(37, 19), (5,), (0, 3)])
def test_dropout_mask(numba_backend: NumbaBackend, rate: float, shape: tuple[int, ...], dtype: Any) -> None:
    count = int(np.prod(shape))
    bits = random.random_bits(count, seed=9, purpose=Purpose.DROPOUT, step=3, layer=2).reshape(shape)
    expected = np.where(bits < int(rate * 2**32), 0.0, 1 / (1 - rate)).astype(dtype)
    out = np.full(shape, np.nan, dtype)
    assert numba_backend.dropout_mask(out, rate=rate, seed=9, step=3, layer=2) is out
    assert_same_bits(out, expected)
    turned = np.full(shape[::-1], np.nan, dtype).T
    numba_backend.dropout_mask(turned, rate=rate, seed=9, step=3, layer=2)
    assert_same_bits(np.ascontiguousarray(turned), expected)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 5])
def test_a_word_equal_to_the_limit_is_kept(numba_backend: NumbaBackend, position: int) -> None:
    bits = random.random_bits(6, seed=9, purpose=Purpose.DROPOUT, step=3, layer=2)
    for word, kept in ((int(bits[position]), True), (int(bits[position]) + 1, False)):
        mask = numba_backend.dropout_mask(np.empty(6), rate=word / 2**32, seed=9, step=3, layer=2)
        assert bool(mask[position] > 0) is kept


def test_refusals(numba_backend: NumbaBackend) -> None:
    with pytest.raises(ShapeError, match=r"out must be uint32 of shape \(n,\), got float32 \(3,\)"):
        numba_backend.random_bits(np.empty(3, np.float32), seed=0, purpose=Purpose.USER)
    with pytest.raises(ConfigurationError, match="seed"):
        numba_backend.random_bits(np.empty(3, np.uint32), seed=-1, purpose=Purpose.USER)
    with pytest.raises(ConfigurationError, match="layer"):
        numba_backend.dropout_mask(np.empty(3), rate=0.5, seed=0, step=0, layer=65536)
