"""Prediction on every backend: against float64, what ``out=`` promises, what is refused, threads.

What CuPy has besides is tested in the files ``test_cuda_*``.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import DataError, ShapeError
from tests.helpers.compare import assert_same_bits
from tests.helpers.threads import at_once
from tests.inference.networks import check


@pytest.mark.parametrize("m", [1, 2, 7, 64])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2, 1), (5, 40, 3), (17, 16, 33, 10), (300, 20, 4)])
def test_predict(cpu_backend: Any, sizes: tuple[int, ...], m: int, dtype: Any, rng: np.random.Generator) -> None:
    output = "softmax" if sizes[-1] > 1 else "sigmoid"
    net = bp.MLP(sizes, "tanh", output, seed=1, dtype=dtype, backend=cpu_backend)
    check(net, rng.normal(size=(m, sizes[0])).astype(dtype))


# ------------------------------------------------------------------------------------------ out


def test_out_is_returned_and_filled(backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((4, 9, 3), seed=1, backend=backend)
    X = rng.normal(size=(50, 4)).astype(np.float32)
    expected = np.array(net.predict(X))
    out = np.full((50, 3), np.nan, np.float32)
    assert net.predict(X, out=out) is out
    assert_same_bits(out, expected)
    wide = np.full((50, 6), np.nan, np.float32)
    strided = wide[:, ::2]
    assert net.predict(X, out=strided) is strided
    assert_same_bits(np.ascontiguousarray(strided), expected)
    assert np.isnan(wide[:, 1::2]).all()


def test_out_may_be_the_samples_or_overlap_them(cpu_backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((4, 9, 4), seed=1, dtype="float64", backend=cpu_backend)
    X = rng.normal(size=(5000, 4))
    expected = net.predict(X)
    same = X.copy()
    assert net.predict(same, out=same) is same
    assert_same_bits(same, expected)
    both = np.concatenate([X, np.zeros((1, 4))])
    net.predict(both[:-1], out=both[1:])
    assert_same_bits(both[1:], expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((3, 3)), r"out is ndarray float64 \(3, 3\); the outputs need an array of float32 \(3, 2\), of NumPy"),
        (np.zeros((3, 2)), r"out is ndarray float64 \(3, 2\)"),
        (np.zeros((2, 2), np.float32), r"out is ndarray float32 \(2, 2\)"),
        ([[0.0, 0.0]] * 3, "out is list; the outputs need"),
    ],
)
def test_out_that_does_not_fit(cpu_backend: Any, out: Any, message: str) -> None:
    net = bp.MLP((4, 2), seed=1, dtype="float32", backend=cpu_backend)
    with pytest.raises(ShapeError, match=message):
        net.predict(np.ones((3, 4), np.float32), out=out)


def test_out_that_is_read_only(cpu_backend: Any) -> None:
    out = np.zeros((3, 2), np.float32)
    out.flags.writeable = False
    with pytest.raises(DataError, match="out is read-only"):
        bp.MLP((4, 2), seed=1, backend=cpu_backend).predict(np.ones((3, 4), np.float32), out=out)


# ------------------------------------------------------------------------------------------ what comes in


@pytest.mark.parametrize("change", [np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2], list, "read-only"])
def test_any_samples_give_the_same(cpu_backend: Any, change: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((6, 5, 2), seed=1, dtype="float64", backend=cpu_backend)
    X = rng.normal(size=(20, 6))
    expected = net.predict(X)
    if change == "read-only":
        X.flags.writeable = False
    else:
        X = change(X)
    assert_same_bits(net.predict(X), expected)


def test_bad_samples_are_refused(cpu_backend: Any) -> None:
    net = bp.MLP((4, 2), seed=1, dtype="float64", backend=cpu_backend)
    with pytest.raises(ShapeError, match=r"layer 1: X has shape \(3, 5\)"):
        net.predict(np.ones((3, 5)))
    with pytest.raises(DataError, match=r"X is empty: shape \(0, 4\) has no rows"):
        net.predict(np.ones((0, 4)))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(DataError, match="X contains 1 value that is not finite"):
            net.predict(np.array([[1, 2, bad, 4.0]]))


def test_parameters_may_change_between_calls(cpu_backend: Any) -> None:
    net = bp.MLP((3, 2), "relu", "identity", seed=1, dtype="float64", backend=cpu_backend)
    X, before = np.ones((1, 3)), np.array(net.predict(np.ones((1, 3))))
    net.b[1][...] += 1
    np.testing.assert_allclose(net.predict(X), before + 1, rtol=1e-12)
    twin = net.copy()
    twin.b[1][...] += 1
    np.testing.assert_allclose(twin.predict(X), before + 2, rtol=1e-12)
    np.testing.assert_allclose(net.predict(X), before + 1, rtol=1e-12)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(twin)).predict(X), before + 2, rtol=1e-12)


# ------------------------------------------------------------------------------------------ threads


def test_threads_that_predict_at_once(cpu_backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((20, 64, 64, 5), "tanh", seed=1, backend=cpu_backend)
    samples = [rng.normal(size=(m, 20)).astype(np.float32) for m in (1, 3, 200, 900, 1, 64)]
    expected = [np.array(net.predict(X)) for X in samples]

    def wrong(k: int) -> int:
        out = np.empty_like(expected[k])
        return sum(not np.array_equal(net.predict(samples[k], out=out), expected[k]) for _ in range(200))

    assert sum(at_once(wrong, len(samples))) == 0
