"""``net.predict`` as users call it: one row with and without ``out=``, few and many rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from benchmarks.kernels.costs import steps
from benchmarks.kernels.measuring import FLOAT32, finished, measure
from benchmarks.peers.workloads import WORKLOADS
from bpcore.bench.problem import Problem
from bpcore.bench.witness import SHOWN_ROWS, outputs
from tests.helpers.compare import assert_close

BATCHES = {"1": 1, "1-out": 1, "64": 64, "4096": 4096}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["small", "mid"])
def test_predict(benchmark: Any, backend: Any, name: str, batch: str) -> None:
    m = BATCHES[batch]
    work = replace(WORKLOADS[f"predict-{name}-1"], batch=m, rows=max(m, 2), chunk=1)
    problem = Problem.make(work)
    net = bp.MLP(work.sizes, work.activation, work.output, seed=0, dtype=FLOAT32, backend=backend)
    net.set_weights(problem.weights)
    expected = outputs(work, problem, problem.X[:m][:SHOWN_ROWS])
    X = backend.asarray(problem.X[:m])
    out = backend.zeros((m, work.sizes[-1]), FLOAT32) if batch == "1-out" else None

    def judge(result: Any) -> None:
        assert (result is out) == (out is not None)
        found = np.asarray(backend.to_numpy(result))[:SHOWN_ROWS]
        # a sum over the inputs enters an exponential
        assert_close(np.ascontiguousarray(found), expected, dtype=FLOAT32, length=max(work.sizes), scale=1.0)

    run = (lambda: net.predict(X)) if out is None else (lambda: net.predict(X, out=out))
    measure(
        benchmark, finished(backend, run), judge, group=f"predict {name} {batch}", cost=steps(work, 1),
        per=("sample", m),
    )  # fmt: skip
