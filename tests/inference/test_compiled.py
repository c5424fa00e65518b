"""Compiled prediction: every activation, random networks, teams of threads, memory, and without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bpcore as bp
from bpcore.errors import DataError
from bpcore.functions.activations import ACTIVATIONS
from bpcore.inference import compiled
from tests.helpers.declared import BUMP
from tests.inference.networks import check

HIDDEN = ["relu", "tanh", "sigmoid", BUMP]


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_is_compiled(name: str, rng: np.random.Generator) -> None:
    pytest.importorskip("numba")
    net = bp.MLP((4, 9, 3), name, name, seed=1, dtype="float64", backend="numba")
    check(net, rng.normal(size=(5, 4)))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=2, max_size=5),
    hidden=st.sampled_from(HIDDEN),
    m=st.integers(1, 700),
    seed=st.integers(0, 99),
)
def test_random_networks(sizes: list[int], hidden: Any, m: int, seed: int) -> None:
    """More samples than a block has are among them."""
    pytest.importorskip("numba")
    net = bp.MLP(sizes, hidden, "identity", seed=seed, dtype="float64", backend="numba")
    check(net, np.random.default_rng(seed).normal(size=(m, sizes[0])))


# ------------------------------------------------------------------------------------------ teams


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let three threads share every prediction, BLAS included; returns the number of teams that were started."""
    pytest.importorskip("numba")
    import numba

    if numba.config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    from bpcore.kernels.numba import machine, team

    known = machine.Machine(1e6, 30 * 40, (2, 3), (0.0, 0.0), (2.0, 3.0))
    monkeypatch.setattr(machine, "machine", lambda most: known)
    monkeypatch.setattr(machine, "_LEAST_WIDE", 1)
    monkeypatch.setattr(compiled, "LEAST_FLOPS", 0)
    monkeypatch.setattr(compiled, "usable_threads", lambda: 3)
    started: list[int] = []
    run = team.run_team

    def counted(member: Any, members: int, place: Any) -> int:
        started.append(members)
        return run(member, members, place)

    monkeypatch.setattr(team, "run_team", counted)
    return started


def test_a_team_and_blas_share_a_prediction(team: list[int], dtype: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((30, 40, 3), "tanh", "softmax", seed=1, dtype=dtype, backend="numba")
    check(net, rng.normal(size=(1000, 30)).astype(dtype))
    assert team == [3]
    check(net, rng.normal(size=(2, 30)).astype(dtype))  # no more members than samples
    assert team == [3, 2]


def test_a_team_notices_what_is_not_finite(team: list[int], rng: np.random.Generator) -> None:
    net = bp.MLP((4, 9, 3), seed=1, dtype="float64", backend="numba")
    for row in (0, 50, 99):
        X = rng.normal(size=(100, 4))
        X[row, 2] = np.nan
        with pytest.raises(DataError, match=f"X contains 1 value that is not finite; the first is nan in row {row}"):
            net.predict(X)
    assert team == [3, 3, 3]


def test_no_team_where_one_thread_may_run(monkeypatch: pytest.MonkeyPatch, team: list[int]) -> None:
    monkeypatch.setattr(compiled, "usable_threads", lambda: 1)
    bp.MLP((4, 9, 3), seed=1, backend="numba").predict(np.ones((100, 4), np.float32))
    assert team == []


# ------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("m", [1, 300])
def test_nothing_is_allocated_with_out(m: int, rng: np.random.Generator) -> None:
    pytest.importorskip("numba")
    import tracemalloc

    from numba.core.runtime import _nrt_python as nrt

    net = bp.MLP((50, 64, 5), "tanh", seed=1, backend="numba")
    X, out = rng.normal(size=(m, 50)).astype(np.float32), np.empty((m, 5), np.float32)
    # the smallest array that a call could need
    least = 4 * 64 * m
    for _ in range(3):
        net.predict(X, out=out)
    nrt.memsys_enable_stats()
    tracemalloc.start()
    try:
        # compiled code is handed each array argument in a record of its own, as it always is
        before = nrt.memsys_get_stats_alloc()
        net.predict(X, out=out)
        first = nrt.memsys_get_stats_alloc() - before
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            net.predict(X, out=out)
        assert tracemalloc.get_traced_memory()[1] - held < max(least, 2000)
        assert nrt.memsys_get_stats_alloc() - before == 21 * first
        assert first <= 10
    finally:
        tracemalloc.stop()
        nrt.memsys_disable_stats()


def test_a_small_block_is_not_used_for_many_samples() -> None:
    """Memory that was made for one sample would take many through the layers one by one."""
    pytest.importorskip("numba")
    net = bp.MLP((4, 9, 3), seed=1, backend="numba")
    blocks = []
    for m in (1, 1000, 1):
        net.predict(np.ones((m, 4), np.float32))
        (predictor,) = net._predictors.values()
        assert isinstance(predictor.infer, compiled.CompiledInference)
        blocks.append([block for block, *_ in predictor.infer._idle])
    assert blocks == [[1], [1000], [1000]]


# ------------------------------------------------------------------------------------------ without compilation


SCRIPT = """
import sys
import numpy as np, bpcore as bp
net = bp.MLP((7, 9, 3), "gelu", seed=1, dtype="float64", backend="numba")
print(net.predict(np.linspace(-1, 1, 35).reshape(5, 7)).tolist())
"""


def test_without_compilation() -> None:
    pytest.importorskip("numba")
    found = []
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(np.array(eval(done.stdout)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
