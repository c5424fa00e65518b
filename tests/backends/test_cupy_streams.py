"""Work on a stream of the caller: whose streams are taken, and in which order things happen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import ConfigurationError
from tests.backends.fake_cupy import FakeCupy


class Protocol:
    """A stream of somebody else."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


STREAMS = {
    "the protocol": Protocol(77),
    "PyTorch": SimpleNamespace(cuda_stream=77, device_index=0),
    "an address": 77,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_of_others(fake_backend: CupyBackend, fake_cupy: FakeCupy, kind: str) -> None:
    with fake_backend.on_stream(STREAMS[kind]):
        assert fake_backend.gpu.current_stream() == 77
    assert fake_backend.gpu.current_stream() == 0
    (_, first, start), (_, waits, _), (_, then, end), (_, outside, _) = fake_cupy.order
    assert (first, waits, then, outside) == (0, 77, 77, 0)
    assert fake_cupy.order == [("record", 0, start), ("wait", 77, start), ("record", 77, end), ("wait", 0, end)]


def test_a_stream_of_cupy(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    stream = fake_cupy.cuda.Stream()
    with fake_backend.on_stream(stream):
        assert fake_backend.gpu.current_stream() == stream.ptr
    fake_cupy.order.clear()
    with stream, fake_backend.on_stream(stream):
        assert fake_backend.gpu.current_stream() == stream.ptr
    assert fake_cupy.order == []  # nobody waits for himself


@pytest.mark.parametrize("wrong", ["main", 1.5, True, -3, object()])
def test_what_is_no_stream(fake_backend: CupyBackend, wrong: Any) -> None:
    net = bp.MLP([2, 2], seed=0, backend=fake_backend)
    with pytest.raises(ConfigurationError, match=r"stream= is .*; possible: a cupy.cuda.Stream, a torch.cuda.Stream"):
        net.predict([[0.0, 1.0]], stream=wrong)
    with pytest.raises(ConfigurationError, match=r"possible: a cupy\.cuda\.Stream"):
        bp.Trainer(net, stream=wrong)


def test_a_stream_of_another_device(fake_cupy: FakeCupy) -> None:
    fake_cupy.devices = 2
    net = bp.MLP([2, 2], seed=0, backend=CupyBackend(1))
    with pytest.raises(ConfigurationError, match=r"a stream of cuda:0, and the network is on cuda:1"):
        net.predict([[0.0, 1.0]], stream=SimpleNamespace(cuda_stream=5, device_index=0))


def test_other_backends_have_no_streams(cpu_backend: Any) -> None:
    net = bp.MLP([2, 2], seed=0, backend=cpu_backend)
    X, y = [[0.0, 1.0], [1.0, 0.0]], [0, 1]
    words = rf"stream= is for backend cupy, and backend {cpu_backend.name} computes on cpu"
    for call in (net.predict, lambda X, stream: net.evaluate(X, y, stream=stream)):
        with pytest.raises(ConfigurationError, match=words):
            call(X, stream=5)
    with pytest.raises(ConfigurationError, match=words):
        bp.train(net, X, y, stream=5)


@pytest.mark.parametrize("data", ["resident", "stream"])
def test_everything_is_queued_on_the_stream(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    launch = fake_backend.gpu.launch

    def watched(*arguments: Any) -> None:
        if fake_cupy.captured is None:
            seen.add(fake_cupy.stream)
        launch(*arguments)

    net = bp.MLP([4, 6, 3], seed=0, dtype="float32", backend=fake_backend)
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    y = np.arange(40) % 3
    options: dict[str, Any] = {"batch_size": 8, "epochs": 2, "plan": "graph", "data": data, "seed": 1}
    wanted = bp.train(net.copy(), X, y, **options)
    monkeypatch.setattr(fake_backend.gpu, "launch", watched)
    fake_cupy.launched_on.clear()
    bp.train(net, X, y, validation=(X, y), stream=77, **options)
    net.predict(X, stream=77)
    net.evaluate(X, y, stream=77)
    trainer = bp.Trainer(net.copy(), batch_size=8, plan="graph", data=data, stream=77)
    trainer.run(X, y, np.arange(40).reshape(5, 8))
    monkeypatch.setattr(fake_backend.gpu, "launch", launch)
    assert set(fake_cupy.launched_on) == {77}
    assert 77 in seen
    captured_on = seen - {77, 0}  # graphs are captured, and warmed up, on streams of their own
    assert 0 not in seen
    assert len(captured_on) <= 3
    assert fake_cupy.stream == 0
    np.testing.assert_array_equal(fake_backend.to_numpy(net.theta), fake_backend.to_numpy(wanted.net.theta))


@pytest.mark.gpu
def test_a_stream_of_cupy_on_a_gpu(gpu_backend: CupyBackend) -> None:
    """Without a wait on the host: what is queued on the stream afterwards sees the result."""
    cupy = gpu_backend.xp
    net = bp.MLP([64, 128, 10], seed=0, dtype="float32", backend=gpu_backend)
    X = np.random.default_rng(0).normal(size=(4096, 64)).astype(np.float32)
    y = np.arange(4096) % 10
    options: dict[str, Any] = {"batch_size": 64, "epochs": 2, "seed": 1}
    wanted = bp.train(net.copy(), X, y, **options)
    stream = cupy.cuda.Stream(non_blocking=True)
    for data in ("resident", "stream"):
        twin = net.copy()
        bp.train(twin, X, y, stream=stream, data=data, **options)  # type: ignore[arg-type]
        with stream:
            theta = twin.theta.copy()
        stream.synchronize()
        np.testing.assert_array_equal(theta.get(), wanted.net.theta.get())


def test_arrays_of_others_are_used_where_they_are(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), np.arange(40) % 3
    there = SimpleNamespace(__cuda_array_interface__={"owner": fake_backend.asarray(X)}, dtype=X.dtype)
    labels = SimpleNamespace(__cuda_array_interface__={"owner": fake_backend.asarray(y)})
    net = bp.MLP([4, 3], seed=0, dtype="float32", backend=fake_backend)
    wanted = net.predict(X)
    before = fake_cupy.count["to_device"]
    found = net.predict(there)
    assert fake_cupy.count["to_device"] == before
    np.testing.assert_array_equal(fake_backend.to_numpy(found), wanted)
    twin = net.copy()
    for network, samples, targets in ((net, there, labels), (twin, X, y)):
        bp.Trainer(network, batch_size=8, seed=0).run(samples, targets, np.arange(40).reshape(5, 8))
    np.testing.assert_array_equal(fake_backend.to_numpy(net.theta), fake_backend.to_numpy(twin.theta))


def test_the_backend_of_a_call_stays_that_of_the_call(fake_backend: CupyBackend) -> None:
    with bp.use_backend("numpy"):
        net = bp.MLP([4, 3], seed=0, dtype="float32")
        X = np.ones((2, 4), np.float32)
        wanted = net.predict(X)
        np.testing.assert_allclose(net.predict(X, backend=fake_backend, stream=77), wanted, rtol=1e-6)
        assert net.backend is fake_backend
