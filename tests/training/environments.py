"""Small trainings that can run anywhere: in threads, in forked and spawned processes, in the workers of joblib.

This module is imported by those processes, hence without pytest.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import bpcore as bp
from tests.helpers.threads import at_once

N_NETWORKS = 4


def network(k: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return the k-th network (on no backend yet), its data, and the arguments of its training."""
    rng = np.random.default_rng(k)
    sizes = ([6, 9, 3], [12, 64, 64, 2], [40, 128, 5], [8, 16, 16, 1])[k]
    # few declarations and one network in float64: most of the time of a first run is compilation
    dtype = "float64" if k == 0 else "float32"
    X = rng.normal(size=(160, sizes[0]))
    if k == 2:
        net = bp.MLP(sizes, "tanh", "softmax", seed=k, dtype=dtype)
        Y: Any = rng.integers(0, sizes[-1], len(X))
        Y[: sizes[-1]] = np.arange(sizes[-1])
    else:
        net = bp.MLP(sizes, "tanh", "identity", seed=k, dtype=dtype)
        Y = np.tanh(X @ rng.normal(size=(sizes[0], sizes[-1])))
    options: list[dict[str, Any]] = [
        {"optimizer": bp.SGD(0.1), "batch_size": 16, "dropout": 0.25},
        {"optimizer": bp.Adam(0.01), "batch_size": 64},
        {"optimizer": bp.SGD(0.1), "batch_size": 100, "penalty": bp.L2(1e-3)},
        {"optimizer": bp.Adam(0.01), "batch_size": 32, "clip": bp.ClipNorm(0.5)},
    ]
    return net, X, Y, options[k]


def train(k: int, threads: int | None = 1, epochs: int = 4, **arguments: Any) -> Any:
    """Train the k-th network with the compiled plan; return its parameters."""
    net, X, Y, options = network(k)
    arguments = {"backend": "numba", "plan": "compiled", **options, **arguments}
    run = bp.train(net, X, Y, epochs=epochs, seed=k, threads=threads, verbose=False, **arguments)
    assert run.record["plan"] == arguments["plan"]
    return np.array(net.theta)


def train_all(threads: int | None = 1) -> list[bytes]:
    """Train all networks one after the other; return the bytes of their parameters."""
    return [train(k, threads).tobytes() for k in range(N_NETWORKS)]


def train_all_at_once(threads: int | None = 1) -> list[bytes]:
    """Train all networks in as many Python threads that start together."""
    return at_once(lambda k: train(k, threads, epochs=4).tobytes(), N_NETWORKS)


def train_all_ways() -> list[list[bytes]]:
    """Return the results of :func:`train_all` with one thread and with two."""
    return [train_all(threads) for threads in (1, 2)]


def answer(queue: Any) -> None:
    """Put the result of :func:`train_all_ways` into a queue."""
    queue.put(train_all_ways())


def in_children(method: str, n: int = 2) -> list[list[list[bytes]]]:
    """Run :func:`train_all_ways` in child processes at the same time.

    Raises
    ------
    queue.Empty
        If one does not answer within a minute and a half; all are ended.
    """
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=answer, args=(queue,)) for _ in range(n)]
    try:
        for child in children:
            child.start()
        return [queue.get(timeout=90) for _ in children]
    finally:
        for child in children:
            child.join(5)
            if child.is_alive():
                child.kill()


class ThreadCount:
    """Counts, inside a ``with`` block, how many threads at most compute for it.

    Attributes
    ----------
    team : int
        This thread and the Python threads that appear while it is in the block.
    """

    def __init__(self) -> None:
        self.team = 1
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._done.wait(0.0005):
            new = [thread for thread in threading.enumerate() if thread.ident not in self._before]
            # this one watches
            self.team = max(self.team, len(new))

    def __enter__(self) -> ThreadCount:
        self._before = {thread.ident for thread in threading.enumerate()}
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._watch.join()


def blas_threads() -> dict[str, int]:
    """Return the number of threads of every library of matrix products and every OpenMP runtime that is loaded."""
    from threadpoolctl import threadpool_info

    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


@contextmanager
def blas_set_to(threads: int) -> Iterator[None]:
    """Give every library of matrix products a number of threads, as a program does that then trains.

    threadpoolctl lets only one thread change OpenBLAS while that thread is alive, hence one that ends at once.
    """
    from threadpoolctl import threadpool_info, threadpool_limits

    def give(number: int) -> None:
        worker = threading.Thread(target=threadpool_limits, kwargs={"limits": number, "user_api": "blas"})
        worker.start()
        worker.join()

    before = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    give(threads)
    try:
        yield
    finally:
        give(before)


def share(k: int) -> dict[str, Any]:
    """Train as a worker does that says nothing about threads; return what it used."""
    train(k, None, epochs=1)  # what compiling starts is no part of the team
    blas: set[int] = set()

    def look(net: Any, progress: Any) -> None:
        blas.update(blas_threads().values())

    with ThreadCount() as count:
        theta = train(k, None, epochs=60, callbacks=[look])
    return {"team": count.team, "blas": max(blas), "theta": theta.tobytes()}
