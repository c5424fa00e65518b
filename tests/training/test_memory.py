"""A step on the reference path allocates nothing after the first, and moves nothing between host and device."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.problem import Problem
from bpcore.training.reference import ReferencePlan
from bpcore.training.state import TrainingState

LARGE = [128, 144, 136, 128], 2048
SMALL = [5, 7, 6, 4], 16
SMALLEST = 2048 * 128 * 4  # bytes of the smallest matrix of a step in float32: 1 MiB
# NumPy converts on its way in float32 and not in float64. Numba's loops are the same in both; those in float64 have
# been compiled for other tests.
DTYPES = {"numpy": "float32", "numba": "float64"}

CASES = {
    "softmax and its loss": {},
    "unpaired softmax": {"loss": "mse"},
    "softmax inside": {"activation": ["softmax", "tanh"], "output": "sigmoid", "loss": "mse"},
    "log-softmax unpaired": {"output": "log_softmax", "loss": "mse"},
    "gelu": {"activation": "gelu", "output": "identity", "loss": "huber"},
    "dropout": {"dropout": 0.5},
    "dropout of samples": {"dropout": bp.Dropout(0.3, per="sample")},
    "weights": {"weighted": True},
    "penalty": {"penalty": bp.L1(1e-4) + bp.L2(1e-3)},
    "clip value": {"clip": bp.ClipValue(0.1)},
    "clip norm": {"clip": bp.ClipNorm(0.1)},
    "clip layers": {"clip": bp.ClipLayerNorm(0.1)},
    "adam": {"optimizer": bp.Adam(0.001)},
    "everything": {
        "activation": ["softplus", "softmax"],
        "loss": "binary_cross_entropy",
        "dropout": [0.5, 0.2],
        "weighted": True,
        "penalty": bp.L2(1e-3),
        "clip": bp.ClipLayerNorm(0.1),
        "optimizer": bp.NAdam(0.001),
    },
}


class Stepper:
    """The reference plan of one case, ready to be run step by step."""

    def __init__(self, be, scale, *, activation="relu", output="softmax", loss=None, weighted=False, **options):
        rng = np.random.default_rng(0)
        sizes, batch = scale
        m = 2 * batch
        net = bp.MLP(sizes, activation, output, dtype=DTYPES[be.name.removeprefix("counting-")], seed=0, backend=be)
        X, y = rng.normal(size=(m, sizes[0])), rng.integers(0, sizes[-1], m)
        trainer = bp.Trainer(net, loss, batch_size=batch, seed=0, **options)
        w = rng.integers(0, 3, m) if weighted else None
        self.problem = Problem.prepare(net, be, X, y, trainer.loss, sample_weight=w)
        spec = trainer.spec(weighted=weighted, classes=self.problem.labels is not None)
        self.plan = ReferencePlan(spec, net, be, seed=0)
        self.state = TrainingState.begin(be, trainer.rule, net.layout, net.dtype)
        order = rng.permutation(m)
        self.index = be.asarray(order.reshape(2, batch))
        self.partial = be.asarray(order[: batch // 3].reshape(1, -1))
        self.records = be.empty((3, 2), np.float64)

    def run(self):
        """Two whole steps and a partial one."""
        self.plan.run(self.problem, self.index, self.state, (0.01, 0.01), self.records)
        self.plan.run(self.problem, self.partial, self.state, (0.01,), self.records)


@pytest.mark.parametrize("case", CASES)
def test_a_step_allocates_nothing_after_the_first(cpu_backend, case):
    """NumPy reports its memory to tracemalloc; what is left are a few Python objects."""
    stepper = Stepper(cpu_backend, LARGE, **CASES[case])
    stepper.run()
    tracemalloc.start()
    try:
        stepper.run()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        stepper.run()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Views and tuples take some kilobytes at a time. NumPy converts float32 to float64 for a sum in buffers of its own,
    # 8192 elements (64 KiB) each whatever the size of the array. A quarter of the smallest matrix is 256 KiB.
    assert peak - before < SMALLEST / 4, f"{(peak - before) / 1024:.0f} KiB at the peak"
    assert after - before < SMALLEST / 16, f"{(after - before) / 1024:.1f} KiB are kept"
    assert np.isfinite(stepper.records).all()


def test_the_measure_sees_an_allocation(cpu_backend, monkeypatch):
    """The test above must fail where one operation makes a temporary array."""
    stepper = Stepper(cpu_backend, LARGE)
    right = type(cpu_backend).column_sums

    def wasteful(self, A, out):
        return right(self, A * 1.0, out)

    stepper.run()
    monkeypatch.setattr(type(cpu_backend), "column_sums", wasteful)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        stepper.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before > SMALLEST / 2


def counting(kind):
    class Counting(kind):  # type: ignore[valid-type,misc]
        name = f"counting-{kind.name}"

        def __init__(self):
            super().__init__()
            self.crossings = {"asarray": 0, "to_numpy": 0}

        def asarray(self, host, dtype=None):
            self.crossings["asarray"] += 1
            return super().asarray(host, dtype)

        def to_numpy(self, array):
            self.crossings["to_numpy"] += 1
            return super().to_numpy(array)

    return Counting()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [NumpyBackend, NumbaBackend], ids=lambda kind: kind.name)
def test_a_step_crosses_nothing(kind, case):
    be = counting(kind)
    stepper = Stepper(be, SMALL, **CASES[case])
    stepper.run()
    assert be.crossings["asarray"] > 0, "the data did cross"
    before = dict(be.crossings)
    stepper.run()
    stepper.run()
    assert be.crossings == before


@pytest.mark.parametrize("kind", [NumpyBackend, NumbaBackend], ids=lambda kind: kind.name)
def test_crossings_do_not_grow_with_the_steps(kind, rng):
    """A stretch takes its index matrix in and its sums out, however many steps it has."""
    X, y = rng.normal(size=(4000, 4)), rng.integers(0, 3, 4000)

    def crossings(steps):
        be = counting(kind)
        net = bp.MLP([4, 3], seed=0, backend=be)
        trainer = bp.Trainer(net, batch_size=2)
        trainer._stretches._length = 1000  # not the number of stretches, which hangs on the clock
        trainer.run(X, y, np.arange(2 * steps).reshape(steps, 2))
        return be.crossings

    assert crossings(10) == crossings(900)
