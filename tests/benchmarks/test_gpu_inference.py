"""What the benchmark of predictions on a GPU measures, without one: how often it asks, and with which arrays."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import pytest

from bpcore.backends.cupy_backend import CupyBackend
from tests.backends.conftest import fake_backend, fake_cupy
from tests.backends.fake_cupy import FakeCupy
from tests.inference.conftest import blocks, wide
from tests.inference.networks import judge, make, samples

__all__ = ["blocks", "fake_backend", "fake_cupy", "wide"]

# by name, because the benchmarks are no part of what is type-checked
benchmark: Any = importlib.import_module("benchmarks.gpu.inference")


@pytest.mark.parametrize(("takes_us", "expected"), [(100, 200), (900, 33), (50_000, 3)])
def test_a_prediction_is_timed_as_often_as_it_is_short(
    monkeypatch: pytest.MonkeyPatch, takes_us: int, expected: int
) -> None:
    now = [0]
    calls: list[int] = []
    waits: list[int] = []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: 1e-6 * now[0])

    def call() -> None:
        now[0] += takes_us
        calls.append(len(waits))

    for queued in (False, True):
        del calls[:], waits[:]
        assert benchmark.us(call, lambda: waits.append(0), queued=queued) == pytest.approx(takes_us)
        assert len(calls) == 6 + 8 * expected
        assert len(waits) == 20 + (0 if queued else len(calls)), "before and after each repeat, and after each call"


class Samples:
    """What the benchmark asks of a tensor in device memory."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {"owner": array}

    def __len__(self) -> int:
        return len(self.array)

    def clone(self) -> Samples:
        be = CupyBackend()
        return Samples(be.copy(self.array, out=be.empty(self.array.shape, self.array.dtype)))

    def numel(self) -> int:
        return int(self.array.size)

    def element_size(self) -> int:
        return int(self.array.itemsize)


@pytest.mark.parametrize(("m", "graphs"), [(20, True), (21, False)])
def test_the_benchmark_asks_as_it_says(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, wide: None, m: int, graphs: bool
) -> None:
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "torch", torch)
    net, asked = make(fake_backend, "tiles"), []

    def us(call: Any, wait: Any, *, queued: bool = False) -> float:
        for _ in range(60):
            before = fake_cupy.count.copy()
            call()
            wait()
        asked.append(fake_cupy.count - before)
        return 1.0

    monkeypatch.setattr(benchmark, "us", us)
    facts, out = benchmark.ours(net, Samples(fake_backend.asarray(samples(net, m))))
    judge(net, samples(net, m), fake_backend.to_numpy(out))
    found = {name: (done["graph"], done["allocation"]) for name, done in zip(facts, asked, strict=True)}
    expected = {
        "bpcore_us": (int(graphs), 0),
        "bpcore_graph_queued_us": (1, 0),
        "bpcore_alternating_us": (int(graphs), 0),
        "bpcore_other_arrays_us": (0, 0),
        "bpcore_new_outputs_us": (found["bpcore_new_outputs_us"][0], 1),
    }
    if not graphs:
        del expected["bpcore_graph_queued_us"]
    assert found == expected
