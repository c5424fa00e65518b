"""What this machine can do: measured once, stored with the compiled code, used to choose how a step is computed.

==============  ==============================================================================================
``rate``        products of :func:`~bpcore.kernels.numba.products.multiply` on one thread, in FLOP/s
``wide``        number of weights of a layer from which BLAS multiplies faster (0: at no size that was measured)
``meeting``     seconds that a meeting of 2, 4, ... threads takes
``scaling``     how many times faster 2, 4, ... threads compute than one
==============  ==============================================================================================

Each figure is the best of several: what disturbs a measurement makes it longer.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# Numba types the function that meets; annotations would be ignored by it.

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.registry import cpu_target

from bpcore.blas_limit import blas_limit
from bpcore.kernels.numba.cache import Kernel, folder
from bpcore.kernels.numba.products import gemm_address, multiply, scratch_size
from bpcore.kernels.numba.team import meet, meeting_place, run_team, yield_address
from bpcore.kernels.numba.vectors import width

__all__ = ["Machine", "blas_addresses", "machine", "measure"]

_WIDTHS = (128, 256, 512, 1024)
_LEAST_WIDE = _WIDTHS[0] ** 2
"""Number of weights below which BLAS is not asked."""
_GAIN = 0.9
"""A team is enlarged when that leaves less than this part of the time."""
_QUIET = 0.8
"""Share of the time that the threads of a team must have had the cores, for the figures to be kept."""
_SAMPLES = 96
_MEETINGS = 200


@dataclass(frozen=True)
class Machine:
    """Figures of this machine, for float32; see the table above.

    ``quiet`` says that nobody else used the cores while it was measured.
    ``meeting`` and ``scaling`` have one entry for each number of threads in ``threads``.
    """

    rate: float
    wide: int
    threads: tuple[int, ...] = ()
    meeting: tuple[float, ...] = ()
    scaling: tuple[float, ...] = ()
    quiet: bool = True

    def best_team(self, seconds: float, most: int, besides: Callable[[int], float]) -> tuple[int, str]:
        """Choose how many threads share some work.

        Parameters
        ----------
        seconds : float
            How long the work takes one thread.
        most : int
            Largest team that can share it.
        besides : callable
            ``besides(k)``: seconds that a team of ``threads[k]`` needs besides the work.

        Returns
        -------
        threads : int
            The number; a larger team must promise a tenth less time than a smaller one, because the model is no better
            than that.
        why : str
            The times that were expected.
        """
        best, shortest = 1, seconds
        told = [f"1 thread {seconds * 1e6:.3g} us"]
        for k, threads in enumerate(self.threads):
            if threads > most:
                break
            expected = seconds / self.scaling[k] + besides(k)
            told.append(f"{threads} threads {expected * 1e6:.3g} us")
            if expected < _GAIN * shortest:
                best, shortest = threads, expected
        return best, ", ".join(told)


@Kernel("int64 1!", "int64", "int64", "int64", "float64 1!")
def _meetings(place, members, offer, rounds, done):
    """Meet again and again."""
    for _ in range(rounds):
        if not meet(place, members, offer):
            return
    done[0] = 1.0


def measure(most: int) -> Machine:
    """Measure this machine; takes about half a second.

    Parameters
    ----------
    most : int
        Number of threads up to which teams are measured.
    """
    teams = tuple(2**k for k in range(1, most.bit_length()) if 2**k <= most)
    dtype = np.dtype(np.float32)
    single = _Products(dtype, 64, 64)
    with blas_limit(1, compiled_only=True):
        wide = _first_wide(dtype)
        rate = single.flops / _best(single.run)
        scaling, used = zip(*(_scaling(dtype, members) for members in teams), strict=True) if teams else ((), ())
    meeting = tuple(_meeting(members) for members in teams)
    return Machine(rate, wide, teams, meeting, scaling, min(used, default=1.0) > _QUIET)


class _Products:
    """The three products of a layer."""

    def __init__(self, dtype: np.dtype[Any], n_in: int, n: int) -> None:
        m, self.multiply = _SAMPLES, multiply[dtype]
        self.A, self.W, self.Delta, self.dW, self.E = (
            np.ones(size, dtype) for size in (m * n_in, n_in * n, m * n, n_in * n, m * n_in)
        )
        self.sizes = m, n_in, n
        self.rest = width(dtype.itemsize), np.empty(scratch_size(dtype.itemsize), dtype)
        self.flops = 6 * m * n_in * n

    def run(self, blas: int = 0) -> None:
        m, n_in, n = self.sizes
        A, W, Delta, dW, E = self.A, self.W, self.Delta, self.dW, self.E
        self.multiply(A, 0, n_in, 1, W, 0, n, 1, Delta, 0, n, W, -1, m, n_in, n, *self.rest, blas)
        self.multiply(A, 0, 1, n_in, Delta, 0, n, 1, dW, 0, n, W, -1, n_in, m, n, *self.rest, blas)
        self.multiply(Delta, 0, n, 1, W, 0, 1, n, E, 0, n_in, W, -1, m, n, n_in, *self.rest, blas)


def _best(run: Callable[[], object], seconds: float = 0.02) -> float:
    """Return the shortest of several runs."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def _first_wide(dtype: np.dtype[Any]) -> int:
    """Return the smallest number of weights from which on BLAS was faster, 0 if it never was."""
    blas, wide = gemm_address(dtype), 0
    for n in reversed(_WIDTHS):
        products = _Products(dtype, n, n)
        if _best(functools.partial(products.run, blas)) > 0.98 * _best(products.run):
            break
        wide = n * n
    return wide


def _scaling(dtype: np.dtype[Any], members: int) -> tuple[float, float]:
    """Return how many times as much a team computes as one thread, and what share of its time it had the cores.

    Each thread computes products of its own.
    """
    products = [_Products(dtype, 128, 128) for _ in range(members)]
    barrier = threading.Barrier(members)

    def work(t: int, alone: bool = False) -> float:
        run = products[t].run
        run()
        if not alone:
            barrier.wait()
        begun = time.perf_counter()
        for _ in range(20):
            run()
        return time.perf_counter() - begun

    alone = min(work(0, True) for _ in range(5))
    rounds = []
    for _ in range(5):
        times, used = [0.0] * members, time.process_time()

        def member(t: int, times: list[float] = times) -> int:
            times[t] = work(t)
            return 0

        run_team(member, members, meeting_place())
        rounds.append((max(times), time.process_time() - used))
    shortest, used = min(rounds)
    return members * alone / shortest, used / (members * shortest)


def _meeting(members: int) -> float:
    """Return how long a meeting takes, in seconds."""
    kernel, place, offer = _meetings[np.dtype(np.float32)], meeting_place(), yield_address()

    def member(t: int) -> int:
        kernel(place, members, offer, _MEETINGS, np.zeros(1))
        return 0

    start = _best(lambda: run_team(lambda t: 0, members, place))
    return max(_best(lambda: run_team(member, members, place)) - start, 0.0) / _MEETINGS


# -------------------------------------------------------------------------------- kept in the cache folder


@functools.cache
def machine(most: int) -> Machine:
    """Return what is known of this machine for teams of up to so many threads; measured if nothing is stored."""
    path = folder() / _file_name(most)
    try:
        return _parse(path.read_text())
    except (OSError, ValueError, TypeError, KeyError):
        found = measure(most)
        if found.quiet:
            _store(path, found)  # else the next process measures again
        return found


def _file_name(most: int) -> str:
    """Name what decides the figures: several machines may share a folder, and BLAS can be told to be another."""
    _, processor, _ = cpu_target.target_context.codegen().magic_tuple()
    words = ["machine", processor, str(most), os.environ.get("OPENBLAS_CORETYPE", "")]
    return "-".join(re.sub(r"\W+", "_", word) for word in words if word) + ".json"


def _parse(text: str) -> Machine:
    stored = json.loads(text)
    meeting, scaling = (tuple(float(value) for value in stored[name]) for name in ("meeting", "scaling"))
    threads = tuple(int(n) for n in stored["threads"])
    found = Machine(float(stored["rate"]), int(stored["wide"]), threads, meeting, scaling)
    if not (found.rate > 0 and len(threads) == len(meeting) == len(scaling)):
        raise ValueError("these are no figures of a machine")
    return found


def blas_addresses(sizes: Sequence[int], dtype: np.dtype[Any], most: int) -> list[int]:
    """Return, for each layer but the last, where BLAS multiplies by its weights; 0 where it would be slower.

    Parameters
    ----------
    sizes : sequence of int
        Widths n_1 ... n_L.
    dtype : numpy.dtype
        Of the matrices.
    most : int
        As for :func:`machine`, which is asked only if a layer is wide.
    """
    weights = [n_in * n for n_in, n in pairwise(sizes)]
    if numba.config.DISABLE_JIT or max(weights) < _LEAST_WIDE:
        return [0] * len(weights)
    wide = machine(most).wide
    return [gemm_address(dtype) if 0 < wide <= size else 0 for size in weights]


def _store(path: Path, found: Machine) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump({name: value for name, value in asdict(found).items() if name != "quiet"}, file, indent=1)
        os.replace(temporary, path)
    except OSError:
        pass  # it is measured again next time
