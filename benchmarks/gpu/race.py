"""The race on a GPU: ``python -m benchmarks.gpu.race --output FILE``; the file is written after each workload.

Each contestant is a process, as in :mod:`benchmarks.peers`. For a workload all prepare at the same time, because that
is work of the processor; then they run one at a time, in rounds, the first one changing from round to round. How many
steps a round has follows from the round before.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.contestants import CONTESTANTS, DRY_RUN, KEEPS_KERNELS, compile_at_once, compiles, on_gpu
from benchmarks.gpu.telling import telling
from benchmarks.gpu.workloads import PARITY, WORKLOADS, get_workload
from benchmarks.peers import machine, results
from benchmarks.peers.workloads import RacedWorkload
from bpcore.bench.problem import Problem
from bpcore.bench.process import FAILED, OK, Worker
from bpcore.bench.witness import losses

ROUNDS = 3
SECONDS = 0.1
"""What is timed of a contestant in a round, times the share of the workload."""

SLOW_CHUNK = 0.5
"""Seconds from which a chunk is run in one round and no more: bpcore on the processor, in wide layers."""

LOAD_LIMIT, PREPARE_LIMIT, ROUND_LIMIT = 90.0, 120.0, 30.0
COMPILERS = 8
"""Processes that compile at a time."""
LEAST = 10.0
"""Seconds that must be left for a workload to be begun."""

NOT_DONE = "not done"


def start_worker(name: str, threads: int) -> Worker:
    """Start a process that sees the GPU, and all cores."""
    environment = machine.surroundings(threads)
    environment["JAX_PLATFORMS"] = "cpu" if os.environ.get(DRY_RUN) else "cuda"
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # there are others
    if not on_gpu(name):
        # bpcore chooses its own number of threads, and is the only one that computes on the processor
        for variable in machine.ALL_THREAD_VARIABLES:
            environment.pop(variable, None)
    return Worker("benchmarks.gpu.worker", [name, str(threads)], environment, machine.ROOT)


class Race:
    """All workers, and what is left of the time.

    Parameters
    ----------
    rows, names : list of str
        Workloads and contestants.
    seconds : float
        Time for everything. What does not fit is said to be not done.
    tell : callable
        Is told what happens.
    """

    def __init__(self, rows: list[str], names: list[str], seconds: float, tell: Callable[[str], None] = print) -> None:
        self.rows, self.names, self.tell = rows, names, tell
        self.at_once = compile_at_once(names, len(rows))
        self.end = time.monotonic() + seconds
        self.threads = os.cpu_count() or 1
        self.workers: dict[tuple[str, str], Worker] = {}
        self.prepared: dict[tuple[str, str], dict[str, Any]] = {}
        self.compiled_in: dict[tuple[str, str], float] = {}
        self.versions: dict[str, Any] = {}
        self.expected: dict[RacedWorkload, Future[Any]] = {}
        self.witness = ThreadPoolExecutor(1)  # it computes with all cores as it is
        self.pool = ThreadPoolExecutor(len(self.keys))  # all workers at once

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Which workers there are: the slow starters have one for each workload, where there is room."""
        return [(name, row) for name in self.names for row in (self.rows if name in self.at_once else [""])]

    def key(self, name: str, row: str) -> tuple[str, str]:
        return (name, row if name in self.at_once else "")

    def left(self) -> float:
        return self.end - time.monotonic()

    def __enter__(self) -> Race:
        self.tell("starting")
        for row in self.rows:  # while others compile: beside the first chunks of a workload it would be in their way
            self.losses(get_workload(row))
        list(self.pool.map(self.start, self.keys))
        slow = [key for key in self.keys if key[1]]
        self.tell(f"{len(slow)} that compile")
        kept = [] if os.environ.get(DRY_RUN) else [name for name in self.names if name in KEEPS_KERNELS]
        with ThreadPoolExecutor(COMPILERS) as compilers:
            for row in self.rows:
                for name in kept:
                    if compiles(name, get_workload(row)):
                        compilers.submit(self.compile, name, row)
            list(self.pool.map(lambda key: self.prepare(key[0], key[1]), slow))
        wait(self.expected.values(), self.limit(PREPARE_LIMIT))  # nothing is timed beside it
        return self

    def compile(self, name: str, row: str) -> None:
        """Let a process of its own compile what a contestant needs for a workload; note how long it prepared."""
        worker = start_worker(name, self.threads)
        if worker.ask("load", self.limit(LOAD_LIMIT))["status"] == OK:
            reply = worker.ask("prepare", self.limit(PREPARE_LIMIT), workload=row)
            if reply["status"] == OK:
                self.compiled_in[name, row] = reply["seconds_to_prepare"]
        worker.close()

    def __exit__(self, *_: object) -> None:
        list(self.pool.map(lambda worker: worker.close(), self.workers.values()))
        self.witness.shutdown(cancel_futures=True)
        self.pool.shutdown()

    def start(self, key: tuple[str, str]) -> None:
        """Start a process and import the library."""
        worker = start_worker(key[0], self.threads)
        self.workers[key] = worker
        hello = worker.ask("load", self.limit(LOAD_LIMIT))
        self.versions[key[0]] = hello.get("versions", {})
        if hello["status"] != OK:
            worker.close()
            del self.workers[key]
            # of a shared worker it is said for every workload
            for row in [key[1]] if key[1] else self.rows:
                self.prepared[key[0], row] = {name: hello[name] for name in ("status", "why") if name in hello}

    def limit(self, most: float) -> float:
        return max(1.0, min(most, self.left()))

    def prepare(self, name: str, row: str) -> None:
        """Build and compile one workload of one contestant."""
        key = self.key(name, row)
        if (name, row) in self.prepared:
            return
        if key not in self.workers:  # it has failed before, and a GPU does not forgive
            self.start(key)
            if key not in self.workers:
                return
        reply = self.workers[key].ask("prepare", self.limit(PREPARE_LIMIT), workload=row)
        if reply["status"] == FAILED:
            self.drop(key)
            reply = self.excused(reply)
        self.prepared[name, row] = reply

    def excused(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return the reply, or say that there was no time: who was ended for that has not failed."""
        return reply if self.left() > 0 else {"status": NOT_DONE, "why": "out of time"}

    def drop(self, key: tuple[str, str]) -> None:
        self.workers.pop(key).close()

    def run(self, row: str) -> dict[str, Any]:
        """Race over one workload; return its part of the result."""
        work = get_workload(row)
        self.tell(f"{row}: preparing")
        list(self.pool.map(lambda name: self.prepare(name, row), self.names))
        expected = self.losses(work).result()
        rows: dict[str, dict[str, Any]] = {}
        for name in self.names:
            reply = self.prepared[name, row]
            if reply["status"] == OK:
                off = results.difference(reply["evidence"][: work.chunk], expected)
                seconds = self.compiled_in.get((name, row), reply["seconds_to_prepare"])
                rows[name] = {"status": OK, "prepared_in_s": seconds, "off": [off]}
            else:
                rows[name] = {word: reply[word] for word in ("status", "why", "traceback") if word in reply}
        self.rounds(row, work, rows, expected)
        for name in self.names:
            worker = self.workers.get(self.key(name, row))
            if worker is not None and worker.alive:
                worker.ask("release", self.limit(LOAD_LIMIT))
                if self.key(name, row)[1]:
                    self.drop(self.key(name, row))  # it has no further workload
        return judge(work, rows)

    def losses(self, work: RacedWorkload) -> Future[Any]:
        """Losses of the first chunk in float64, computed once: the same ones for each precision."""
        key = replace(work, precision="float32", at_most_us=0.0)
        if key not in self.expected:
            self.expected[key] = self.witness.submit(lambda: losses(key, Problem.make(key), chunks=1))
        return self.expected[key]

    def rounds(self, row: str, work: RacedWorkload, rows: dict[str, dict[str, Any]], expected: Any) -> None:
        running = [name for name in self.names if rows[name]["status"] == OK]
        chunk_seconds = {name: max(self.prepared[name, row]["chunk_seconds"], 1e-6) for name in running}
        self.tell(f"{row}: {len(running)} contestants")
        for number in range(ROUNDS):
            first = number % len(running) if running else 0
            for name in running[first:] + running[:first]:
                slow = chunk_seconds[name] > SLOW_CHUNK
                if rows[name]["status"] != OK or (number and (slow or self.left() < 0)):
                    continue
                chunks, warm = plan(chunk_seconds[name], SECONDS * work.share)
                reply = self.workers[self.key(name, row)].ask(
                    "round", self.limit(ROUND_LIMIT), chunks=chunks, warm=warm
                )
                if reply["status"] != OK:
                    reply = self.excused(reply)
                    rows[name] |= {word: reply[word] for word in ("status", "why", "traceback") if word in reply}
                    self.drop(self.key(name, row))
                    continue
                chunk_seconds[name] = max(1e-6 * reply["us_per_step"] * work.chunk, 1e-6)
                rows[name].setdefault("rounds", []).append(reply["us_per_step"])
                rows[name] |= {"steps": chunks * work.chunk, "last_loss": reply["last_loss"], "facts": reply["facts"]}
                off = results.difference(reply["evidence"], expected) if reply["finite"] else math.inf
                rows[name]["off"].append(off)


def plan(chunk_seconds: float, seconds: float) -> tuple[int, int]:
    """Return how many chunks to time, and how many to run before; none, where one takes longer than is asked for.

    Examples
    --------
    >>> plan(0.01, seconds=0.12)
    (12, 4)
    >>> plan(0.1, seconds=0.12)
    (1, 1)
    >>> plan(2.0, seconds=0.12)
    (1, 0)
    """
    chunks = max(1, round(seconds / chunk_seconds))
    return chunks, 0 if chunk_seconds > seconds else max(1, chunks // 3)


def judge(work: RacedWorkload, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Decide who computes the right thing; take medians, and compare with the best form of PyTorch.

    Parameters
    ----------
    work : RacedWorkload
        Gives the tolerance.
    rows : dict
        A row for each contestant, with ``off`` (distances from float64) and ``rounds`` (microseconds a step) if it ran.

    Returns
    -------
    dict
        The part of the result for this workload. A row that ran has ``us_per_step``, and ``over_best_torch``: how many
        times as long as PyTorch it takes.
    """
    for row in rows.values():
        if row["status"] != OK:
            row.pop("off", None)
            row.pop("rounds", None)
            continue
        # a NaN is no distance: max would pass over it
        worst = max((off if off >= 0 else math.inf for off in row.pop("off")), default=math.inf)
        row["off"] = worst if math.isfinite(worst) else None
        if "rounds" not in row:
            row |= {"status": NOT_DONE, "why": "out of time"}
            continue
        row["us_per_step"] = results.summary(row.pop("rounds"))
        if not worst <= PARITY[work.precision]:
            row["status"] = results.DIFFERS
            row["why"] = f"losses are {worst:.1e} away from float64, more than {PARITY[work.precision]:.0e}"
    time_of = {name: row["us_per_step"]["median"] for name, row in rows.items() if row["status"] == OK}
    torch = [name for name in time_of if name.startswith("torch-")]
    best = min(torch, key=lambda name: time_of[name], default=None)
    for row in rows.values():
        if best and "us_per_step" in row:
            row["over_best_torch"] = row["us_per_step"]["median"] / time_of[best]
    return {
        "flops": work.flops(),
        "batch": work.batch,
        "precision": work.precision,
        "tolerance": PARITY[work.precision],
        "at_most_us": work.at_most_us,
        "best_torch": best,
        "contestants": rows,
    }


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Let everyone who can compute on the processor; the times mean nothing."""
    before = os.environ.get(DRY_RUN)
    os.environ[DRY_RUN] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[DRY_RUN]


def run(
    rows: list[str],
    names: list[str],
    seconds: float,
    write: Callable[[dict[str, Any]], None],
    tell: Any = print,
    after: Path | None = None,
) -> dict[str, Any]:
    """Race over all workloads; ``write`` is given everything found so far, after each.

    With `after` nothing is timed before that file is there; what is compiled may be compiled before.
    """
    result: dict[str, Any] = {"status": "ok", "rows": {}}
    with Race(rows, names, seconds, tell) as racing:
        while after is not None and not after.exists() and racing.left() > 0:
            time.sleep(0.1)
        for row in rows:
            if racing.left() < LEAST:
                result["rows"][row] = {"contestants": {}, "why": "out of time"}
                result["status"] = "out of time"
                continue
            result["rows"][row] = racing.run(row)
            result["versions"] = {name: value for name, value in racing.versions.items() if value}
            write(result)
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="write all figures here")
    parser.add_argument("--workloads", nargs="+", metavar="NAME", choices=[*WORKLOADS, "smoke"], help="default: all")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", choices=list(CONTESTANTS), help="default: all")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for everything (default 300)")
    parser.add_argument("--after", type=Path, metavar="FILE", help="compile now, and begin when this file is there")
    parser.add_argument("--dry-run", action="store_true", help="rehearse on the processor")
    options = parser.parse_args(arguments)
    write, tell = telling(options.output)
    with rehearsal() if options.dry_run else contextlib.nullcontext():
        rows, names = options.workloads or WORKLOADS, options.contestants or CONTESTANTS
        # each once, whatever was typed
        result = run(list(dict.fromkeys(rows)), list(dict.fromkeys(names)), options.seconds, write, tell, options.after)
    write(result)
    return 0 if result["status"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
