"""Philox4x32-10: known answers, an independent implementation, and the statistics of what is built on it."""

from __future__ import annotations

import math
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bpcore import random
from bpcore.errors import ConfigurationError, ShapeError
from bpcore.random import Purpose, normal, permutation, philox4x32, random_bits, uniform


def scalar_philox(counter, key):
    """Salmon et al. 2011, figure 2, with Python integers and one block at a time."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def scalar_word(p, seed, purpose, step, layer):
    """One word at position p, from the layout that the module promises."""
    q = p // 4
    counter = (q % 2**32, layer * 2**16 + q // 2**32, step % 2**32, purpose * 2**24 + step // 2**32)
    return scalar_philox(counter, (seed % 2**32, seed // 2**32))[p % 4]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # the three vectors for philox4x32-10 in kat_vectors of the Random123 library
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter, key, expected):
    words = [np.array([int(word, 16) for word in text.split()], np.uint32) for text in (counter, key, expected)]
    assert philox4x32(words[0], words[1]).tolist() == words[2].tolist()
    assert scalar_philox(words[0].tolist(), words[1].tolist()) == words[2].tolist()


def test_reference_is_vectorised_and_keeps_its_input():
    counter = np.random.default_rng(0).integers(0, 2**32, (3, 1000, 4), dtype=np.uint32)
    before, key = counter.copy(), np.array([7, 9], np.uint32)
    result = philox4x32(counter, key)
    assert result.shape == (3, 1000, 4)
    assert result.dtype == np.uint32
    assert (counter == before).all()
    for index in ((0, 0), (1, 500), (2, 999)):
        assert result[index].tolist() == scalar_philox(counter[index].tolist(), (7, 9))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    purpose=st.integers(0, 255),
    step=st.integers(0, 2**56 - 1),
    layer=st.integers(0, 2**16 - 1),
    offset=st.integers(0, 2**50 - 10),
    n=st.integers(1, 9),
)
def test_layout_of_every_word(seed, purpose, step, layer, offset, n):
    bits = random_bits(n, seed=seed, purpose=purpose, step=step, layer=layer, offset=offset)
    expected = [scalar_word(p, seed, purpose, step, layer) for p in range(offset, offset + n)]
    assert bits.tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 4 * random.BLOCK - 1, 4 * random.BLOCK, 4 * random.BLOCK + 1, 20_011])
@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 8190])
def test_a_range_is_a_slice_of_the_whole(n, offset):
    whole = random_bits(offset + n, seed=5, purpose=Purpose.DROPOUT, step=2, layer=3)
    part = random_bits(n, seed=5, purpose=Purpose.DROPOUT, step=2, layer=3, offset=offset)
    assert part.shape == (n,)
    assert (part == whole[offset:]).all()


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize(("n", "offset"), [(0, 0), (1, 0), (1, 1), (7, 3), (10_001, 5), (4096, 4096)])
def test_draws_of_a_range_are_a_slice_of_the_whole(draw, n, offset):
    whole = draw(offset + n, seed=5, purpose=Purpose.USER)
    part = draw(n, seed=5, purpose=Purpose.USER, offset=offset)
    assert (part == whole[offset:]).all()


def test_out_is_filled_and_returned():
    out = np.empty(1001, np.uint32)
    assert random_bits(1001, seed=1, purpose=2, out=out) is out
    assert (out == random_bits(1001, seed=1, purpose=2)).all()
    wide = np.zeros(2002, np.uint32)
    random_bits(1001, seed=1, purpose=2, out=wide[::2])
    assert (wide[::2] == out).all()
    assert not wide[1::2].any()


def test_out_needs_no_memory_after_the_first_call():
    out = np.empty(2_000_000, np.uint32)
    random_bits(len(out), seed=1, purpose=2, out=out)
    tracemalloc.start()
    try:
        random_bits(len(out), seed=2, purpose=2, out=out, step=3, offset=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # numbers and array headers only: the smallest scratch array alone would be 16 KiB
    assert peak < 8192


def test_threads_do_not_disturb_each_other():
    results = {}

    def work(seed):
        results[seed] = [random_bits(9000, seed=seed, purpose=0, step=step) for step in range(20)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        for step in range(20):
            assert (results[seed][step] == random_bits(9000, seed=seed, purpose=0, step=step)).all()


def test_uniform_from_its_words():
    u = uniform(5, seed=11, purpose=Purpose.USER, step=1, layer=2)
    bits = [scalar_word(p, 11, Purpose.USER, 1, 2) for p in range(10)]
    expected = [((high * 2**32 + low) // 2**11 | 1) / 2**53 for low, high in zip(bits[::2], bits[1::2], strict=True)]
    assert u.tolist() == expected


def test_uniform_never_reaches_its_ends(monkeypatch):
    for word, expected in ((0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)):
        monkeypatch.setattr(random, "_wide_words", lambda *_, word=word: np.array([word], np.uint64))
        u = uniform(1, seed=0, purpose=0)
        assert u[0] == expected
        assert 0 < u[0] < 1


def test_normal_from_its_uniforms():
    x = normal(6, seed=3, purpose=Purpose.WEIGHTS)
    u = uniform(6, seed=3, purpose=Purpose.WEIGHTS)
    for i in range(3):
        radius, angle = math.sqrt(-2 * math.log(u[2 * i])), 2 * math.pi * u[2 * i + 1]
        # two libraries' log, cos and sin: each within an ulp or two
        np.testing.assert_allclose(
            x[2 * i : 2 * i + 2], [radius * math.cos(angle), radius * math.sin(angle)], rtol=1e-14, atol=1e-15
        )


N = 200_000


def test_uniform_statistics():
    u = uniform(N, seed=0, purpose=Purpose.USER)
    assert u.min() > 0
    assert u.max() < 1
    # five standard errors of the mean and the variance
    assert abs(u.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / N)
    assert abs(u.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / N)
    assert stats.kstest(u, "uniform").pvalue > 0.001


def test_normal_statistics():
    x = normal(N, seed=0, purpose=Purpose.USER)
    assert abs(x.mean()) < 5 / math.sqrt(N)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / N)
    assert stats.kstest(x, "norm").pvalue > 0.001
    # the two of a pair are independent
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 5 / math.sqrt(N / 2)


def test_every_bit_is_fair():
    bits = random_bits(N, seed=1, purpose=Purpose.DROPOUT)
    share = np.array([((bits >> np.uint32(k)) & np.uint32(1)).mean() for k in range(32)])
    assert (np.abs(share - 0.5) < 5 * 0.5 / math.sqrt(N)).all()


BASE = {"seed": 1, "purpose": Purpose.USER, "step": 2, "layer": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"purpose": Purpose.WEIGHTS},
        {"purpose": Purpose.DROPOUT},
        {"step": 3},
        {"step": 2 + 2**32},
        {"layer": 4},
        {"layer": 3 + 256},
    ],
    ids=str,
)
def test_other_addresses_give_independent_numbers(change):
    a, b = uniform(50_000, **BASE), uniform(50_000, **{**BASE, **change})
    assert not (a == b).any()
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(50_000)


def test_permutation_sorts_the_promised_keys():
    n = 57
    keys = [
        scalar_word(2 * i + 1, 9, Purpose.SHUFFLE, 4, 0) * 2**32 + scalar_word(2 * i, 9, Purpose.SHUFFLE, 4, 0)
        for i in range(n)
    ]
    order = permutation(n, seed=9, epoch=4)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(n), key=keys.__getitem__)


def test_permutation_keeps_the_order_of_equal_keys(monkeypatch):
    monkeypatch.setattr(random, "_wide_words", lambda n, *_: (np.arange(n) % 2).astype(np.uint64))
    order = permutation(101, seed=0)
    assert order.tolist() == [*range(0, 101, 2), *range(1, 101, 2)]


@pytest.mark.parametrize("n", [0, 1, 2, 1797])
def test_permutation_is_one(n):
    assert sorted(permutation(n, 0, 1).tolist()) == list(range(n))


def test_permutation_by_the_bits_of_a_backend(cpu_backend):
    for n in (0, 1, 5, 1000):
        order = permutation(n, seed=3, epoch=2, draw=cpu_backend.random_bits)
        assert order.dtype == np.int64
        assert order.tolist() == permutation(n, seed=3, epoch=2).tolist()


def test_permutations_are_uniform_and_differ_by_epoch_and_purpose():
    firsts = np.array([permutation(10, 0, epoch)[0] for epoch in range(2000)])
    assert stats.chisquare(np.bincount(firsts, minlength=10)).pvalue > 0.001
    assert permutation(100, 0, 0).tolist() != permutation(100, 0, 1).tolist()
    assert permutation(100, 0).tolist() != permutation(100, 0, purpose=Purpose.SPLIT).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, r"n must be from 0 to 2\*\*50 - 1, got -1"),
        ({"n": 1.5}, r"n must be an integer, got 1\.5 \(float\)"),
        ({"seed": -1}, r"seed must be from 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, r"seed must be from 0 to 2\*\*64 - 1, got 18446744073709551616"),
        ({"seed": None}, r"seed must be an integer, got None \(NoneType\)"),
        ({"purpose": 256}, r"purpose must be from 0 to 2\*\*8 - 1, got 256"),
        ({"step": 2**56}, r"step must be from 0 to 2\*\*56 - 1"),
        ({"layer": 2**16}, r"layer must be from 0 to 2\*\*16 - 1, got 65536"),
        ({"offset": 2**50 - 3}, r"offset \+ n - 1 must be from 0 to 2\*\*50 - 1"),
    ],
)
def test_numbers_out_of_range(change, message):
    arguments = {"n": 8, "seed": 0, "purpose": 0, **change}
    with pytest.raises(ConfigurationError, match=message):
        random_bits(arguments.pop("n"), **arguments)


def test_numpy_integers_are_integers():
    n: Any = np.int64(5)
    seed: Any = np.uint64(3)
    assert (random_bits(n, seed=seed, purpose=1) == random_bits(5, seed=3, purpose=1)).all()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty(3, np.uint32), r"out must be a uint32 ndarray of shape \(4,\), got uint32 \(3,\)"),
        (np.empty(4, np.int32), r"out must be a uint32 ndarray of shape \(4,\), got int32 \(4,\)"),
        ([0, 0, 0, 0], r"out must be a uint32 ndarray of shape \(4,\), got list"),
        (np.broadcast_to(np.zeros(1, np.uint32), (4,)), "out is read-only; pass a writeable array"),
    ],
)
def test_wrong_out(out, message):
    with pytest.raises(ShapeError, match=message):
        random_bits(4, seed=0, purpose=0, out=out)


@pytest.mark.parametrize(
    ("counter", "key", "message"),
    [
        (
            np.zeros(3, np.uint32),
            np.zeros(2, np.uint32),
            r"counter must be uint32 of shape \(\.\.\., 4\), got uint32 \(3,\)",
        ),
        (
            np.zeros(4, np.int64),
            np.zeros(2, np.uint32),
            r"counter must be uint32 of shape \(\.\.\., 4\), got int64",
        ),
        (
            np.zeros(4, np.uint32),
            np.zeros(3, np.uint32),
            r"key must be uint32 of shape \(2,\), got uint32 \(3,\)",
        ),
    ],
)
def test_wrong_counter_or_key(counter, key, message):
    with pytest.raises(ShapeError, match=message):
        philox4x32(counter, key)


def test_purposes_have_their_fixed_numbers():
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "WEIGHTS": 0,
        "SHUFFLE": 1,
        "DROPOUT": 2,
        "SPLIT": 3,
        "USER": 4,
        "BLOCKS": 5,
    }
