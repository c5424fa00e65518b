"""What a look costs (``bpcore.inspection``): one, beside a step on as many samples, and an epoch with an inspector.

An epoch without an inspector runs what it ran before there were inspectors; the tests see to that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from benchmarks.kernels.measuring import FLOAT32, finished, measure
from bpcore.inspection.look import look

SIZES = {"small": [64, 64, 32, 10], "wide": [784, 512, 512, 10]}
SAMPLES, ROWS = 256, 2048


def prepared(backend: Any, sizes: list[int], rng: np.random.Generator) -> tuple[bp.Trainer, Any]:
    X = rng.normal(size=(SAMPLES, sizes[0])).astype(FLOAT32)
    net = bp.MLP(sizes, seed=0, dtype=FLOAT32, backend=backend)
    trainer = bp.Trainer(net, optimizer="adam", batch_size=SAMPLES, seed=0, backend=backend, plan="reference")
    return trainer, trainer.load(X, rng.integers(0, sizes[-1], SAMPLES))


@pytest.mark.parametrize("name", SIZES)
def test_look(benchmark: Any, backend: Any, rng: np.random.Generator, name: str) -> None:
    trainer, problem = prepared(backend, SIZES[name], rng)
    net = trainer.net
    X, labels = (np.asarray(backend.to_numpy(array)) for array in (problem.X, problem.labels))
    H = X.astype(np.float64)
    for W, b in net.get_weights()[:-1]:
        H = np.maximum(H @ W.astype(np.float64) + b, 0)
    expected = net.evaluate(X, labels)["loss"]

    def judge(report: bp.InspectionReport) -> None:
        assert report.loss == pytest.approx(expected, rel=1e-5)
        assert report["H", net.n_layers - 1].norm == pytest.approx(np.linalg.norm(H), rel=1e-4)

    measure(benchmark, finished(backend, lambda: look(trainer, problem)), judge, group=f"look {name}")


@pytest.mark.parametrize("name", SIZES)
def test_step(benchmark: Any, backend: Any, rng: np.random.Generator, name: str) -> None:
    """One step of the reference plan on the samples of a look, for comparison."""
    trainer, problem = prepared(backend, SIZES[name], rng)
    weights, order = trainer.net.get_weights(), np.arange(SAMPLES)[None, :]
    expected = trainer.net.evaluate(problem.X, problem.labels)["loss"]

    def judge(records: Any) -> None:
        assert records.loss[0] == pytest.approx(expected, rel=1e-5)

    measure(
        benchmark, finished(backend, lambda: trainer.run_loaded(problem, order)), judge, group=f"look {name}",
        reset=lambda: trainer.net.set_weights(weights),
    )  # fmt: skip


@pytest.mark.parametrize("watched", ["off", "epoch", "10 steps"])
def test_epoch(benchmark: Any, backend: Any, rng: np.random.Generator, watched: str) -> None:
    """``bp.train`` for one epoch of 64 steps: without an inspector, with looks around it, and after every 10 steps."""
    sizes = SIZES["small"]
    X, labels = rng.normal(size=(ROWS, sizes[0])).astype(FLOAT32), rng.integers(0, sizes[-1], ROWS)
    net = bp.MLP(sizes, seed=0, dtype=FLOAT32, backend=backend)
    weights = net.get_weights()
    looks = {"off": 0, "epoch": 2, "10 steps": 8}[watched]

    def run() -> tuple[bp.Run, bp.Inspector]:
        inspector = bp.Inspector(every_steps=10 if watched == "10 steps" else None)
        callbacks = [] if watched == "off" else [inspector]
        found = bp.train(
            net, X, labels, epochs=1, batch_size=32, optimizer="adam", seed=0, callbacks=callbacks, verbose=False
        )
        return found, inspector

    def judge(result: tuple[bp.Run, bp.Inspector]) -> None:
        found, inspector = result
        assert found.steps == ROWS // 32
        assert len(inspector.reports) == looks

    measure(
        benchmark, finished(backend, run), judge, group="look epoch", reset=lambda: net.set_weights(weights),
        looks=looks,
    )  # fmt: skip
