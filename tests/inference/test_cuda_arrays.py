"""What predictions on CuPy are given: arrays for the outputs, and samples that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import DataError
from bpcore.inference import predictor
from tests.helpers.compare import assert_same_bits
from tests.inference.networks import begin, check, judge, make, samples

# ------------------------------------------------------------------------------------------ out


@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
def test_out_on_the_host_and_on_the_device(cupy_backend: CupyBackend, how: Any) -> None:
    be = cupy_backend
    net = make(be, "tiles")
    X = samples(net, 33)
    expected, out = net.predict(X), np.full((33, 1), np.nan)
    assert type(expected) is np.ndarray
    assert net.predict(X, out=out) is out
    assert_same_bits(out, expected)
    on_device, columns = be.empty((33, 1), np.float64), be.empty((33, 2), np.float64)
    assert net.predict(be.asarray(X), out=on_device) is on_device
    assert_same_bits(be.to_numpy(on_device), expected)
    strided = columns[:, 1:]
    assert net.predict(be.asarray(X), out=strided) is strided
    assert_same_bits(np.ascontiguousarray(be.to_numpy(strided)), expected)
    assert be.owns(net.predict(be.asarray(X)))


@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
@pytest.mark.parametrize("sizes", [[70, 70], [70, 50, 70]])
def test_out_may_be_the_samples(cupy_backend: CupyBackend, sizes: list[int], how: Any) -> None:
    be = cupy_backend
    net = begin(be, sizes, "tanh", "tanh")
    for m in (50, 20):
        device = be.asarray(samples(net, m))
        for _ in range(3):  # a graph may write over the samples only if there is a layer between
            X = be.to_numpy(device)
            assert net.predict(device, out=device) is device
            judge(net, X, be.to_numpy(device))


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
def test_bad_samples_are_refused(
    cupy_backend: CupyBackend, how: Any, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # after a sigmoid an infinity is 0 or 1: it can be seen in the first layer only
    be, net = cupy_backend, begin(cupy_backend, [131, 67, 40, 1], "sigmoid", "identity")
    X = samples(net, 41)
    X[40, 130] = bad
    net.predict(X[:40])
    for given in (X, be.asarray(X), X.tolist()):
        with pytest.raises(DataError, match=r"X contains 1 value that is not finite; the first is .* in row 40"):
            net.predict(given)
    # nothing of them is left, in rows that are not used either
    monkeypatch.setattr(predictor, "check_finite", lambda *_, **__: pytest.fail("these samples are good"))
    for m in (32, 17, 32, 33):
        good = samples(net, m, m)
        check(net, good)


@pytest.mark.parametrize(("how", "m"), [(None, 3), (None, 6), ("wide", 20), ("blocks", 20)])
@pytest.mark.parametrize("sizes", [[131, 67, 40, 1], [131, 67, 1]], ids=str)
def test_bad_samples_in_the_same_arrays(cupy_backend: CupyBackend, how: Any, m: int, sizes: list[int]) -> None:
    be, net = cupy_backend, begin(cupy_backend, sizes, "sigmoid", "identity")
    good = samples(net, m)
    bad = good.copy()
    bad[-1, 130] = np.inf
    X, out = be.empty(good.shape, net.dtype), be.empty((m, 1), net.dtype)
    for given in (good, good, bad, bad, good, bad, good):
        be.copy(be.asarray(given), out=X)
        if given is bad:
            with pytest.raises(DataError, match=f"in row {m - 1}"):
                net.predict(X, out=out)
        else:
            judge(net, good, be.to_numpy(net.predict(X, out=out)))


def test_finite_samples_that_overflow_are_not_refused(cupy_backend: CupyBackend) -> None:
    net = bp.MLP([2, 3, 2], "sigmoid", "identity", seed=1, dtype="float32", backend=cupy_backend)
    net.set_weights([(np.full((2, 3), 1e30), np.zeros(3)), (np.ones((3, 2)), np.zeros(2))])
    for _ in range(2):
        assert_same_bits(net.predict(np.full((1, 2), 1e30, np.float32)), np.full((1, 2), 3, np.float32))
