"""The order of the samples is made where they are, and stays there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.random import permutation
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_same_bits


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_the_permutation_is_that_of_the_host(cupy_backend: CupyBackend, n: int) -> None:
    for seed, epoch in ((0, 0), (2**63 + 5, 2**33)):
        found = cupy_backend.permutation(n, seed=seed, epoch=epoch)
        assert cupy_backend.owns(found)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(cupy_backend.to_numpy(found), permutation(n, seed, epoch))


def test_equal_keys_keep_their_order(cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def few_bits(out: Any, **where: Any) -> Any:
        words = np.random.default_rng(0).integers(0, 3, out.size).astype(np.uint32)
        words[1::2] = 0
        return cupy_backend.copy(cupy_backend.asarray(words), out=out)

    monkeypatch.setattr(cupy_backend, "random_bits", few_bits)
    keys = np.random.default_rng(0).integers(0, 3, 400)[::2]
    found = cupy_backend.to_numpy(cupy_backend.permutation(200, seed=0, epoch=0))
    np.testing.assert_array_equal(found, np.argsort(keys, kind="stable"))


@pytest.mark.parametrize("plan", ["graph", "persistent", "wide", "reference"])
def test_the_order_does_not_cross(fake_backend: CupyBackend, fake_cupy: FakeCupy, plan: str, monkeypatch: Any) -> None:
    """An epoch in many stretches: each sends the numbers of its steps and brings back its record."""
    sent: list[int] = []
    fetched: list[int] = []
    asarray, asnumpy = fake_cupy.asarray, fake_cupy.asnumpy
    X, y = np.random.default_rng(0).normal(size=(2048, 4)).astype(np.float32), np.arange(2048) % 3

    def counted(source: Any) -> Any:
        if isinstance(source, np.ndarray):
            sent.append(source.nbytes)
        return asarray(source)

    def fetched_too(source: Any) -> Any:
        fetched.append(source.nbytes)
        return asnumpy(source)

    monkeypatch.setattr("bpcore.training.stretches.STRETCH_SECONDS", 0)
    monkeypatch.setattr("bpcore.training.stretches.COPIES_PER_STRETCH", 0)
    net = bp.MLP([4, 5, 3], seed=0, dtype="float32", backend=fake_backend)
    counts = []

    def on_epoch(net: Any, progress: Any) -> None:
        counts.append((list(sent), list(fetched)))
        sent.clear()
        fetched.clear()

    monkeypatch.setattr(fake_cupy, "asarray", counted)
    monkeypatch.setattr(fake_cupy, "asnumpy", fetched_too)
    bp.train(net, X, y, batch_size=512, epochs=3, seed=1, plan=plan, callbacks=[on_epoch], optimizer=bp.SGD(0.1))
    for to_device, to_host in counts[1:]:
        assert max(to_device, default=0) < 512  # a row of the order would be 4 KiB
        assert max(to_host) < 512


@pytest.mark.parametrize("plan", ["graph", "reference"])
def test_training_in_this_order_is_training_in_that_of_the_host(cupy_backend: CupyBackend, plan: str) -> None:
    X, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 3
    net = bp.MLP([4, 5, 3], seed=0, dtype="float64", backend=cupy_backend)
    twin = net.copy()
    bp.train(net, X, y, batch_size=8, epochs=2, seed=9, plan=plan)
    trainer = bp.Trainer(twin, batch_size=8, seed=9, plan=plan)
    for epoch in range(2):
        order = permutation(50, 9, epoch)
        trainer.run(X, y, order[:48].reshape(6, 8))
        trainer.run(X, y, order[48:].reshape(1, 2))
    assert_same_bits(np.array(cupy_backend.to_numpy(net.theta)), np.array(cupy_backend.to_numpy(twin.theta)))


@pytest.mark.parametrize("long_from", [1, 2**16], ids=["long", "short"])
def test_an_order_may_be_given_on_the_device(
    cupy_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, long_from: int
) -> None:
    monkeypatch.setattr("bpcore.problem.LONG_ORDER", long_from)
    rng = np.random.default_rng(0)
    X, y, order = rng.normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3, rng.permutation(20).reshape(5, 4)

    def trained(index: Any, data: str = "resident") -> Any:
        net = bp.MLP([4, 5, 3], seed=0, dtype="float32", backend=cupy_backend)
        trainer = bp.Trainer(net, optimizer=bp.SGD(0.1), batch_size=4, data=data)
        trainer.run(X, y, index)
        return cupy_backend.to_numpy(net.theta)

    expected = trained(order)
    for given in (order.astype(np.int32), np.asfortranarray(order)):
        assert_same_bits(trained(given), expected)
        assert_same_bits(trained(cupy_backend.asarray(given)), expected)
    assert_same_bits(trained(cupy_backend.asarray(np.ascontiguousarray(order.T)).T), expected)
    assert_same_bits(trained(order.tolist()), expected)
    for streamed in (order, order.tolist(), cupy_backend.asarray(order)):
        assert_same_bits(trained(streamed, data="stream"), expected)
    for wrong, said in ((order + 1, r"from \d to 20"), (order - 1, "from -1 to"), (order[0], "matrix")):
        for given in (wrong, cupy_backend.asarray(wrong)):
            with pytest.raises(bp.errors.ShapeError, match=said):
                trained(given)
