"""Prediction: compiled against the reference path and against float64, what ``out=`` promises, threads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bpcore as bp
from bpcore import inference
from bpcore.errors import DataError, ShapeError
from bpcore.functions.activations import ACTIVATIONS
from tests.helpers.compare import assert_close, assert_same_bits

HIDDEN = ["relu", "tanh", "sigmoid", bp.Activation("bump", "z * exp(-0.5 * z*z) + 0.1 * z")]


def exact(net: bp.MLP, X: Any) -> Any:
    """Return H[L] in float64, from the declared formulas."""
    H = np.asarray(X, np.float64)
    for l, (W, b) in enumerate(net.get_weights(), start=1):
        Z = H @ W.astype(np.float64) + b
        f = net.activations[l + 1]
        if f.rowwise:
            shifted = Z - Z.max(axis=1, keepdims=True)
            H = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            H = np.exp(H) if f.rowwise == "softmax" else H
        else:
            H = f.value_formula(z=Z)
    return H


def check(net: bp.MLP, X: Any) -> None:
    expected, found = exact(net, X), net.predict(X)
    # a log-softmax subtracts numbers of the size of its input
    scale = np.maximum(np.abs(expected), 1.0)
    assert_close(found, expected, dtype=net.dtype, length=2 * sum(net.sizes), scale=scale)


@pytest.mark.parametrize("m", [1, 2, 7, 64])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 2, 1), (5, 40, 3), (17, 16, 33, 10), (300, 20, 4)])
def test_predict(cpu_backend: Any, sizes: tuple[int, ...], m: int, dtype: Any, rng: np.random.Generator) -> None:
    output = "softmax" if sizes[-1] > 1 else "sigmoid"
    net = bp.MLP(sizes, "tanh", output, seed=1, dtype=dtype, backend=cpu_backend)
    check(net, rng.normal(size=(m, sizes[0])).astype(dtype))


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
    monkeypatch.setattr(inference, "LEAST_FLOPS", 0)
    monkeypatch.setattr(inference, "usable_threads", lambda: 3)
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
    monkeypatch.setattr(inference, "usable_threads", lambda: 1)
    bp.MLP((4, 9, 3), seed=1, backend="numba").predict(np.ones((100, 4), np.float32))
    assert team == []


# ------------------------------------------------------------------------------------------ out


def test_out_is_returned_and_filled(backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((4, 9, 3), seed=1, backend=backend)
    X = rng.normal(size=(50, 4)).astype(np.float32)
    expected = np.array(net.predict(X))
    out = np.full((50, 3), np.nan, np.float32)
    assert net.predict(X, out=out) is out
    assert_same_bits(out, expected)
    wide = np.full((50, 6), np.nan, np.float32)
    strided = wide[:, ::2]
    assert net.predict(X, out=strided) is strided
    assert_same_bits(np.ascontiguousarray(strided), expected)
    assert np.isnan(wide[:, 1::2]).all()


def test_out_may_be_the_samples_or_overlap_them(cpu_backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((4, 9, 4), seed=1, dtype="float64", backend=cpu_backend)
    X = rng.normal(size=(5000, 4))
    expected = net.predict(X)
    same = X.copy()
    assert net.predict(same, out=same) is same
    assert_same_bits(same, expected)
    both = np.concatenate([X, np.zeros((1, 4))])
    net.predict(both[:-1], out=both[1:])
    assert_same_bits(both[1:], expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((3, 3)), r"out is ndarray float64 \(3, 3\); the outputs need an array of float32 \(3, 2\), of NumPy"),
        (np.zeros((3, 2)), r"out is ndarray float64 \(3, 2\)"),
        (np.zeros((2, 2), np.float32), r"out is ndarray float32 \(2, 2\)"),
        ([[0.0, 0.0]] * 3, "out is list; the outputs need"),
    ],
)
def test_out_that_does_not_fit(cpu_backend: Any, out: Any, message: str) -> None:
    net = bp.MLP((4, 2), seed=1, dtype="float32", backend=cpu_backend)
    with pytest.raises(ShapeError, match=message):
        net.predict(np.ones((3, 4), np.float32), out=out)


def test_out_that_is_read_only(cpu_backend: Any) -> None:
    out = np.zeros((3, 2), np.float32)
    out.flags.writeable = False
    with pytest.raises(DataError, match="out is read-only"):
        bp.MLP((4, 2), seed=1, backend=cpu_backend).predict(np.ones((3, 4), np.float32), out=out)


# ------------------------------------------------------------------------------------------ what comes in


@pytest.mark.parametrize("change", [np.asfortranarray, lambda X: np.repeat(X, 2, axis=1)[:, ::2], list, "read-only"])
def test_any_samples_give_the_same(cpu_backend: Any, change: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((6, 5, 2), seed=1, dtype="float64", backend=cpu_backend)
    X = rng.normal(size=(20, 6))
    expected = net.predict(X)
    if change == "read-only":
        X.flags.writeable = False
    else:
        X = change(X)
    assert_same_bits(net.predict(X), expected)


def test_bad_samples_are_refused(cpu_backend: Any) -> None:
    net = bp.MLP((4, 2), seed=1, dtype="float64", backend=cpu_backend)
    with pytest.raises(ShapeError, match=r"layer 1: X has shape \(3, 5\)"):
        net.predict(np.ones((3, 5)))
    with pytest.raises(DataError, match=r"X is empty: shape \(0, 4\) has no rows"):
        net.predict(np.ones((0, 4)))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(DataError, match="X contains 1 value that is not finite"):
            net.predict(np.array([[1, 2, bad, 4.0]]))


def test_parameters_may_change_between_calls(cpu_backend: Any) -> None:
    net = bp.MLP((3, 2), "relu", "identity", seed=1, dtype="float64", backend=cpu_backend)
    X, before = np.ones((1, 3)), np.array(net.predict(np.ones((1, 3))))
    net.b[1][...] += 1
    np.testing.assert_allclose(net.predict(X), before + 1, rtol=1e-12)
    twin = net.copy()
    twin.b[1][...] += 1
    np.testing.assert_allclose(twin.predict(X), before + 2, rtol=1e-12)
    np.testing.assert_allclose(net.predict(X), before + 1, rtol=1e-12)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(twin)).predict(X), before + 2, rtol=1e-12)


# ------------------------------------------------------------------------------------------ threads, memory


def test_threads_that_predict_at_once(cpu_backend: Any, rng: np.random.Generator) -> None:
    net = bp.MLP((20, 64, 64, 5), "tanh", seed=1, backend=cpu_backend)
    samples = [rng.normal(size=(m, 20)).astype(np.float32) for m in (1, 3, 200, 900, 1, 64)]
    expected = [np.array(net.predict(X)) for X in samples]
    barrier, wrong = threading.Barrier(len(samples)), []

    def work(k: int) -> None:
        barrier.wait(60)
        out = np.empty_like(expected[k])
        for _ in range(200):
            if not np.array_equal(net.predict(samples[k], out=out), expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(samples))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


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
        (infer,) = net._inferences.values()
        assert isinstance(infer, inference.CompiledInference)
        blocks.append([block for block, *_ in infer._idle])
    assert blocks == [[1], [1000], [1000]]


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
