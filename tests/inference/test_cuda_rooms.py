"""Predictions on CuPy beside one another: networks that share a room, calls at the same time, streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.threads import at_once
from tests.inference.networks import check, judge, make, samples


def test_networks_share_a_room(fake_backend: CupyBackend, fake_cupy: FakeCupy, wide: None) -> None:
    be = fake_backend
    begun = fake_cupy.used
    nets = [make(be, "tiles") for _ in range(3)]
    thetas = fake_cupy.used - begun
    for net in nets:
        X, out = be.asarray(samples(net, 20)), be.empty((20, 1), net.dtype)
        for _ in range(3):
            net.predict(X, out=out)
        judge(net, samples(net, 20), be.to_numpy(out))
    assert len(be.gpu.rooms) == 1
    (handle,) = {id(room.cublas) for room in be.gpu.rooms}
    held = fake_cupy.used - begun - thetas
    assert 2**25 < held < 2**25 + 2**20, "the workspace of cuBLAS, and little else"
    del X, out, net, nets[1:]
    assert id(be.gpu.rooms[0].cublas) == handle
    assert len(be.gpu.rooms[0].places) == 1
    be.release()
    assert fake_cupy.used - begun == thetas // 3
    X = samples(nets[0], 20)
    judge(nets[0], X, nets[0].predict(X))


def test_a_failed_call_leaves_nothing_to_others(
    fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, wide: None
) -> None:
    net = make(fake_backend, "tiles")
    X = samples(net, 20)
    net.predict(X)
    room = fake_backend.gpu.rooms[0]

    def fail() -> None:
        raise RuntimeError("unspecified launch failure")

    with monkeypatch.context() as patch:
        patch.setattr(fake_backend.gpu, "wait", fail)
        with pytest.raises(RuntimeError, match="launch failure"):
            net.predict(X)
    check(net, X)
    assert room not in fake_backend.gpu.rooms


@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
def test_a_call_within_a_call(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    """Another thread may come in at any moment: here it does when a call has queued everything."""
    net = make(fake_backend, "tiles")
    outer, inner = samples(net, 3, 1), samples(net, 4, 2)
    net.predict(outer)
    wait = fake_backend.gpu.wait
    X, out = fake_backend.asarray(outer), fake_backend.empty((3, 1), np.float64)
    others, found = fake_backend.asarray(inner), fake_backend.empty((4, 1), np.float64)

    def interrupted() -> None:
        monkeypatch.setattr(fake_backend.gpu, "wait", wait)
        net.predict(others, out=found)
        wait()

    for _ in range(3):  # from the second time on both are graphs over their arrays
        monkeypatch.setattr(fake_backend.gpu, "wait", interrupted)
        fake_backend.fill(out, 0)
        fake_backend.fill(found, 0)
        net.predict(X, out=out)
        judge(net, inner, fake_backend.to_numpy(found))
        judge(net, outer, fake_backend.to_numpy(out))
    first, second = fake_backend.gpu.rooms
    assert first.odd_at != second.odd_at


@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
def test_a_stream_is_used(fake_backend: CupyBackend, fake_cupy: FakeCupy, how: Any) -> None:
    """The stand-in notices a product of cuBLAS on another stream than the current one."""
    net = make(fake_backend, "tiles")
    X, out = fake_backend.asarray(samples(net, 20)), fake_backend.empty((20, 1), np.float64)
    for stream in [fake_cupy.cuda.Stream() for _ in range(4)]:
        del fake_cupy.launched_on[:]
        net.predict(X, out=out, stream=stream)
        assert set(fake_cupy.launched_on) <= {stream.ptr}
        judge(net, samples(net, 20), fake_backend.to_numpy(out))
    assert fake_cupy.launched_on == [stream.ptr], "the last by a graph"
    fake_backend.fill(out, 0)
    net.predict(X[:19], out=out[:19])
    judge(net, samples(net, 20)[:19], fake_backend.to_numpy(out[:19]))


@pytest.mark.gpu
def test_threads_and_streams(gpu_backend: CupyBackend) -> None:
    net = bp.MLP([20, 64, 64, 5], "tanh", seed=1, backend=gpu_backend)
    given = [samples(net, m, m) for m in (1, 3, 200, 30000, 1, 64)]
    expected = [net.predict(X) for X in given]

    def wrong(k: int) -> int:
        with gpu_backend.xp.cuda.Stream(non_blocking=True):
            X, out = gpu_backend.asarray(given[k]), gpu_backend.empty(expected[k].shape, np.float32)
            found = [np.array(gpu_backend.to_numpy(net.predict(X, out=out))) for _ in range(100)]
        # cuBLAS may add up in another order while other streams are busy
        return sum(not np.allclose(H, expected[k], rtol=1e-4) for H in found)

    assert sum(at_once(wrong, len(given))) == 0
