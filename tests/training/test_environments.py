"""The compiled plan in the surroundings that programs have: threads, processes, workers, restricted machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import bpcore as bp
from bpcore.errors import DivergenceError
from tests.training import environments
from tests.training.environments import N_NETWORKS, ThreadCount, blas_set_to, blas_threads, network, train, train_all

pytest.importorskip("numba")

ROOT = Path(__file__).resolve().parents[2]
TEAMS = pytest.mark.parametrize("threads", [1, 2])


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=200,
        check=False,
    )


def output_of(code: str, *arguments: str, **environment: str) -> Any:
    """Run Python elsewhere; return what its last line says in JSON."""
    done = run_python(code, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def same(found: list[bytes], expected: list[bytes]) -> None:
    assert len(found) == len(expected) == N_NETWORKS
    assert [k for k, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b] == []


# -------------------------------------------------------------------------------- numbers


@TEAMS
def test_a_training_repeats_bit_for_bit(threads: int) -> None:
    same(train_all(threads), train_all(threads))


def test_the_number_of_threads_changes_rounding_only() -> None:
    for k in range(N_NETWORKS):
        one, two = train(k, 1), train(k, 2)
        np.testing.assert_allclose(two, one, rtol=0, atol=2000 * np.finfo(one.dtype).eps * np.abs(one).max())


# -------------------------------------------------------------------------------- threads and processes


@TEAMS
def test_several_threads_train_different_networks(threads: int) -> None:
    expected = train_all(threads)
    for _ in range(3):
        same(environments.train_all_at_once(threads), expected)


CHILDREN = """
import json, sys
from tests.training.environments import in_children, train_all_ways
here = train_all_ways()
print(json.dumps([there == here for there in in_children(sys.argv[1])]))
"""
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forking), "spawn"])
def test_children_of_a_process_that_has_trained(method: str) -> None:
    assert output_of(CHILDREN, method) == [True, True]


FORK_WITHIN = """
import json, sys, threading
from tests.training.environments import in_children, train, train_all_ways
here = train_all_ways()
inside, leave = threading.Event(), threading.Event()

def wait(net, progress):
    inside.set()
    return leave.is_set()

busy = threading.Thread(target=train, args=(1, int(sys.argv[1]), 10**6), kwargs={"callbacks": [wait]})
busy.start()
inside.wait()
found = in_children("fork")
alive = busy.is_alive()
leave.set()
busy.join()
print(json.dumps([alive, *(there == here for there in found)]))
"""


@TEAMS
@forking
def test_a_fork_while_another_thread_trains(threads: int) -> None:
    assert output_of(FORK_WITHIN, str(threads)) == [True, True, True]


WORKERS = """
import json, sys
from joblib import Parallel, delayed, parallel_config
from tests.training.environments import share, train
k, limit = int(sys.argv[1]), int(sys.argv[2])
with parallel_config(backend="loky", inner_max_num_threads=limit):
    found = Parallel(n_jobs=2)(delayed(share)(k) for _ in range(4))
alone = train(k, limit, epochs=60).tobytes()
print(json.dumps([[w["team"] for w in found], [w["blas"] for w in found], [w["theta"] == alone for w in found]]))
"""


@pytest.mark.parametrize("k", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_of_joblib_keep_to_their_share(k: int) -> None:
    """Joblib tells its workers by variables such as OMP_NUM_THREADS how many threads each may have."""
    pytest.importorskip("joblib")
    team, blas, equal = output_of(WORKERS, str(k), "1")
    assert team == [1] * 4
    assert blas == [1] * 4
    assert all(equal)


def test_a_team_is_counted() -> None:
    with ThreadCount() as count:
        time.sleep(0.05)
    assert count.team == 1
    stop = threading.Event()
    with ThreadCount() as count:
        others = [threading.Thread(target=stop.wait) for _ in range(2)]
        for other in others:
            other.start()
        time.sleep(0.05)
        stop.set()
    assert count.team == 3


# -------------------------------------------------------------------------------- restricted machines


BOTH = """
import json, logging
logging.basicConfig(format="%(name)s: %(message)s")
from tests.training.environments import train
print(json.dumps([train(0, threads, epochs=1).tolist() for threads in (1, 2)]))
"""


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It changes nothing but the time, and is said."""
    (tmp_path / "file").write_text("in the way")  # not even the superuser can make a folder in a file
    done = run_python(BOTH, BPCORE_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert done.returncode == 0, done.stderr
    assert "bpcore: cannot write compiled code to" in done.stderr
    assert "Set BPCORE_CACHE_DIR to a writable folder" in done.stderr
    for found, threads in zip(json.loads(done.stdout), (1, 2), strict=True):
        np.testing.assert_array_equal(found, train(0, threads, epochs=1))


def test_without_compilation() -> None:
    for found, threads in zip(output_of(BOTH, NUMBA_DISABLE_JIT="1"), (1, 2), strict=True):
        expected = train(0, threads, epochs=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


WITHOUT_NUMBA = """
import io, json, logging, sys
sys.modules["numba"] = sys.modules["llvmlite"] = None  # neither can be found or imported
log = io.StringIO()
logging.basicConfig(stream=log, format="%(name)s: %(message)s")
import numpy as np
import bpcore as bp
from bpcore.errors import BpcoreError
from tests.training.environments import network

def message(action):
    try:
        action()
    except BpcoreError as error:
        return f"{type(error).__name__}: {error}"

net, X, Y, options = network(0)
run = bp.train(net, X, Y, epochs=1, seed=0, **options)
(status,) = [status for status in bp.backends() if status.name == "numba"]
print(json.dumps({
    "backend": run.record["backend"],
    "why": run.record["backend_why"],
    "plan": run.record["plan"],
    "log": log.getvalue(),
    "usable": status.usable,
    "reason": status.reason,
    "repair": status.repair,
    "get": message(lambda: bp.get_backend("numba")),
    "net": message(lambda: bp.MLP([2, 1], backend="numba")),
    "train": message(lambda: bp.train(net, X, Y, epochs=1, backend="numba", **options)),
    "compiled": message(lambda: bp.train(net, X, Y, epochs=1, plan="compiled", **options)),
    "theta": net.theta.tolist(),
}))
"""


def test_without_numba() -> None:
    found = output_of(WITHOUT_NUMBA)
    assert (found["backend"], found["plan"], found["usable"]) == ("numpy", "reference", False)
    assert "numba cannot run (Numba is not installed)" in found["why"]
    assert "the backend numba cannot run: Numba is not installed. NumPy is used" in found["log"]
    assert (found["reason"], found["repair"]) == ("Numba is not installed", "pip install numba")
    for asked in ("get", "net", "train"):
        assert found[asked].startswith("BackendError: backend 'numba' cannot run: Numba is not installed."), asked
        assert "Usable here: numpy" in found[asked]
        assert "Repair: pip install numba" in found[asked]
    assert "plan='compiled' needs backend numba" in found["compiled"]
    net, X, Y, options = network(0)
    bp.train(net, X, Y, epochs=1, seed=0, backend="numpy", **options)
    np.testing.assert_array_equal(found["theta"], net.theta)


def test_a_variable_that_names_numba_where_it_is_missing() -> None:
    done = run_python(
        'import sys; sys.modules["numba"] = None; import bpcore as bp; bp.MLP([2, 1])', BPCORE_BACKEND="numba"
    )
    assert done.returncode != 0
    assert "backend 'numba' (from BPCORE_BACKEND) cannot run: Numba is not installed" in done.stderr


# -------------------------------------------------------------------------------- threads of other libraries

ENDINGS = ["end", "divergence", "divergence that stops", "error", "Ctrl-C", "bad data"]


def train_to(ending: str, threads: int | None, backend: str, plan: str) -> None:
    """Train until it ends in a certain way."""
    net, X, Y, options = network(1)
    options = {**options, "backend": backend, "plan": plan, "threads": threads, "seed": 0, "verbose": False}

    def fail(net: Any, progress: Any) -> None:
        raise (KeyboardInterrupt if ending == "Ctrl-C" else RuntimeError)("in a callback")

    if ending == "end":
        bp.train(net, X, Y, epochs=2, **options)
    elif ending.startswith("divergence"):
        options |= {"optimizer": bp.SGD(1e30)}
        if ending == "divergence":
            with pytest.raises(DivergenceError):
                bp.train(net, X, Y, epochs=3, **options)
        else:
            run = bp.train(net, X, Y, epochs=3, on_divergence="stop", **options)
            assert "not finite" in run.stopped_because
    elif ending == "bad data":
        with pytest.raises(bp.errors.DataError):
            bp.train(net, np.full_like(X, np.nan), Y, epochs=1, **options)
    else:
        with pytest.raises((RuntimeError, KeyboardInterrupt), match="in a callback"):
            bp.train(net, X, Y, epochs=3, callbacks=[fail], **options)


@pytest.mark.parametrize("threads", [None, 1, 2])
@pytest.mark.parametrize(("backend", "plan"), [("numba", "compiled"), ("numba", "reference"), ("numpy", "auto")])
def test_whatever_ends_a_training_leaves_the_threads_of_other_libraries(
    threads: int | None, backend: str, plan: str
) -> None:
    train(1, 1)  # loads the libraries
    for ending in ENDINGS:
        # not what any library would take by itself
        with blas_set_to(3):
            before = blas_threads()
            assert 3 in before.values()
            train_to(ending, threads, backend, plan)
            assert blas_threads() == before, ending


@TEAMS
def test_trainings_that_overlap_leave_the_threads_of_other_libraries(threads: int) -> None:
    """One begins, another begins, the first ends, the second ends."""
    train(1, 1)
    first_inside, second_inside, first_ended = (threading.Event() for _ in range(3))

    def first(net: Any, progress: Any) -> None:
        first_inside.set()
        assert second_inside.wait(60)

    def second(net: Any, progress: Any) -> None:
        second_inside.set()
        assert first_ended.wait(60)

    with blas_set_to(3):
        before = blas_threads()
        assert 3 in before.values()
        one = threading.Thread(target=train, args=(1, threads), kwargs={"callbacks": [first], "epochs": 1})
        two = threading.Thread(target=train, args=(0, threads), kwargs={"callbacks": [second], "epochs": 1})
        one.start()
        assert first_inside.wait(60)
        two.start()
        one.join()
        first_ended.set()
        two.join()
        assert blas_threads() == before


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_numpy_keeps_its_threads_while_a_network_is_trained(threads: int | None) -> None:
    """A program that multiplies in one thread and trains in another is not slowed down by the training."""
    train(1, 1)
    numpy_blas = [p["filepath"] for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]
    if not numpy_blas:
        pytest.skip("NumPy shares the library of its matrix products with SciPy, which compiled code calls")
    A = np.random.default_rng(0).normal(size=(300, 300))
    inside, leave = threading.Event(), threading.Event()
    seen: set[int] = set()
    wrong: list[bool] = []

    def wait(net: Any, progress: Any) -> bool:
        inside.set()
        return leave.is_set()

    with blas_set_to(2):
        expected = A @ A
        busy = threading.Thread(target=train, args=(1, threads, 10**6), kwargs={"callbacks": [wait]})
        busy.start()
        try:
            assert inside.wait(60)
            for _ in range(40):
                seen.update(blas_threads()[path] for path in numpy_blas)
                wrong.append(not np.array_equal(A @ A, expected))
                time.sleep(0.002)
            assert busy.is_alive()
        finally:
            leave.set()
            busy.join()
    assert seen == {2}
    assert not any(wrong)
