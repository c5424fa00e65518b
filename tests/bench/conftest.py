"""Sweeps inside the test process, and backends with planted mistakes."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.backends.registry import register_backend
from bpcore.bench import crew, operations, sweep
from bpcore.bench.contender import Contender
from bpcore.bench.networks import Network
from bpcore.bench.process import serve
from bpcore.bench.sweep import Settings
from bpcore.bench.worker import Holder, Witness
from tests.backends.conftest import fake_backend, fake_cupy

__all__ = ["fake_backend", "fake_cupy"]

SMALL = Network("small", (3, 6, 2), "tanh", "softmax", "cross_entropy", "momentum", 0.05, typical=4)


class InThisProcess:
    """A worker without a process, which notes who was asked for what."""

    asked: list[tuple[str, str, Any]] = []  # noqa: RUF012  (emptied by the fixture)
    alive = True

    def __init__(self, module: str, words: list[str], environment: dict[str, str]) -> None:
        backend, precision, plan, threads = words
        self.name = backend
        contender = Contender(backend, precision, plan)
        self.holder: Any = (
            Witness() if backend == "witness" else Holder(contender, None if threads == "auto" else int(threads))
        )

    def ask(self, do: str, limit: float, **arguments: Any) -> dict[str, Any]:
        self.asked.append((self.name, do, arguments.get("workload", {}).get("batch")))
        replies: list[str] = []
        serve(self.holder, [json.dumps({"do": do, **arguments})], replies.append)
        return dict(json.loads(replies[0]))

    def close(self) -> None:
        pass


class WrongGradient(NumpyBackend):
    """BP4 is a tenth too large; the losses of the first steps hardly tell."""

    name = "wrong"

    def matmul(self, A: Any, B: Any, out: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        super().matmul(A, B, out=out, transpose_a=transpose_a, transpose_b=transpose_b)
        if transpose_a:
            out *= 1.1
        return out


class WrongLater(NumpyBackend):
    """Right when looked at first, and then no more."""

    name = "tiring"
    products = 0

    def matmul(self, A: Any, B: Any, out: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        super().matmul(A, B, out=out, transpose_a=transpose_a, transpose_b=transpose_b)
        type(self).products += 1
        if type(self).products > 400 and transpose_a:
            out *= 1.1
        return out


class Broken(NumpyBackend):
    """Raises when it is to train."""

    name = "broken"

    def column_sums(self, A: Any, out: Any) -> Any:
        raise ArithmeticError("no more\nthan this")


def quickly(run: Callable[[int], object], seconds: float) -> float:
    """Time one repetition."""
    run(1)
    begun = time.perf_counter()
    run(1)
    return time.perf_counter() - begun


@pytest.fixture
def planted() -> Iterator[None]:
    """Backends with mistakes, by their names."""
    kinds = (WrongGradient, WrongLater, Broken)
    WrongLater.products = 0
    for kind in kinds:
        register_backend(kind.name, functools.partial(lambda kind: kind, kind))
    yield
    for kind in kinds:
        register_backend(kind.name, None)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, planted: None) -> Callable[..., dict[str, Any]]:
    """Run a sweep without processes, in a moment."""
    monkeypatch.setattr(crew, "Worker", InThisProcess)
    monkeypatch.setattr(sweep, "VISITS", 2)
    monkeypatch.setattr(operations, "VISITS", 2)
    for module in (sweep, operations):
        monkeypatch.setattr(module, "ROUND_SECONDS", (1e-4, 1e-3))
    monkeypatch.setattr(Holder, "peak", lambda self: {"status": "ok", "gflops": {"256": 1e4}, "gb_per_second": 10.0})
    monkeypatch.setattr("bpcore.bench.process.settle", lambda: 0.0)
    monkeypatch.setattr("bpcore.bench.parts.seconds_of", quickly)
    monkeypatch.setattr(InThisProcess, "asked", [])

    def run(*names: str, batch_sizes: tuple[int, ...] = (1, 4), ops: bool = False, **settings: Any) -> dict[str, Any]:
        how = Settings([Contender(name, "float32") for name in names], [SMALL], batch_sizes, seconds=600.0)
        with (operations.OperationSweep if ops else sweep.Sweep)(replace(how, **settings)) as found:
            return found.run()

    return run
