"""The race: one worker for each contestant, rounds interleaved, one at a time."""

from __future__ import annotations

import contextlib
import datetime
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import machine, results
from benchmarks.peers.adapters import CONTESTANTS
from benchmarks.peers.workloads import RacedWorkload, get_workload
from bpcore.bench.machine import describe, load
from bpcore.bench.problem import Problem
from bpcore.bench.process import FAILED, OK, SKIPPED, Worker
from bpcore.bench.witness import expected as expected_of

FLOOR = "products"
LONG_CHUNK = 2.0
"""Seconds from which a chunk is its own warm-up."""

SLOW_CHUNK = 1.5
AT_LEAST = 3
"""Rounds of whoever does a chunk in less than `SLOW_CHUNK` seconds, whatever they take."""

Tell = Callable[[str], None]


def start_worker(name: str, threads: int, cpus: list[int] | None, caches: Path | None = None) -> Worker:
    """Start the process of a contestant.

    Parameters
    ----------
    name : str
        The contestant.
    threads : int
        How many threads it may use.
    cpus : list of int, optional
        Logical processors that it is held to.
    caches : Path, optional
        As for :func:`benchmarks.peers.machine.surroundings`.
    """
    words = [name, str(threads), "all" if cpus is None else ",".join(map(str, cpus))]
    return Worker("benchmarks.peers.worker", words, machine.surroundings(threads, caches), machine.ROOT)


class Race:
    """All contestants at one number of threads.

    Parameters
    ----------
    names : list of str
        Contestants.
    threads : int
        Threads of each.
    rounds : int
        Rounds for a workload.
    seconds : float
        Time for the rounds of a workload, all contestants together.
    limit : float
        Seconds that preparing may take.
    cold : bool
        Begin with empty caches of compiled code.
    tell : callable
        Is told what happens.
    """

    def __init__(
        self,
        names: list[str],
        threads: int,
        rounds: int = 7,
        seconds: float = 8.0,
        limit: float = 120.0,
        cold: bool = False,
        tell: Tell = lambda text: None,
    ) -> None:
        self.names, self.threads, self.rounds, self.seconds = names, threads, rounds, seconds
        self.limit, self.tell = limit, tell
        self.cpus = machine.choose_cpus(threads)
        self.workers: dict[str, Worker] = {}
        self.hello: dict[str, dict[str, Any]] = {}
        self.peak: dict[str, float] = {}
        self._folder = tempfile.TemporaryDirectory() if cold else None

    def __enter__(self) -> Race:
        for name in self.names:
            self.tell(f"{name}: starting")
            self._start(name)
        # the peak is needed without the floor too
        with contextlib.ExitStack() as stack:
            numpy = self.workers.get(FLOOR) or start_worker(FLOOR, self.threads, self.cpus)
            if FLOOR not in self.workers:
                stack.callback(numpy.close)
                numpy.ask("load", self.limit)
            self.tell("sgemm peak")
            self.peak = numpy.ask("peak", self.limit).get("gflops", {})
            self.blas = numpy.ask("pools", self.limit).get("pools", [])
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self, name: str) -> None:
        if self.cpus is None and name.startswith("jax"):
            why = "its number of threads can only be held by holding the process to cores, which this system cannot"
            self.hello[name] = {"status": SKIPPED, "why": why}
            return
        caches = Path(self._folder.name) if self._folder else None
        worker = start_worker(name, self.threads, self.cpus, caches)
        self.hello[name] = worker.ask("load", self.limit)
        if self.hello[name]["status"] == OK:
            self.workers[name] = worker
        else:
            worker.close()

    def run(self, workload: str) -> dict[str, Any]:
        """Race over one workload; return its part of the result."""
        work = get_workload(workload)
        rows: dict[str, dict[str, Any]] = {
            name: {"status": hello["status"], "why": hello["why"]}
            for name, hello in self.hello.items()
            if hello["status"] != OK
        }
        self.tell(f"{workload}: float64 reference")
        expected = expected_of(work, Problem.make(work))
        for name in self.names:
            if self.hello[name]["status"] == OK:
                if not self.workers[name].alive:
                    self.workers[name].close()
                    self._start(name)
                self.tell(f"{workload}: {name} prepares")
                rows[name] = self._prepare(name, workload, expected)
        running = [name for name in self.names if "chunk_seconds" in rows[name]]
        self._rounds(workload, work, running, rows, expected)
        for name in running:
            if self.workers[name].alive:
                self.workers[name].ask("release", self.limit)
        found = {"flops": work.flops(), "bytes": work.bytes(), "batch": work.batch, "kind": work.kind}
        rows = {name: rows[name] for name in self.names}
        return found | results.judge(work, rows) | {"contestants": rows}

    def _prepare(self, name: str, workload: str, expected: Any) -> dict[str, Any]:
        reply = self.workers[name].ask("prepare", self.limit, workload=workload)
        if reply["status"] != OK:
            return {key: reply[key] for key in ("status", "why", "traceback") if key in reply}
        row = {key: reply[key] for key in ("status", "seconds_to_prepare", "chunk_seconds", "facts")}
        if CONTESTANTS[name].ranked:
            row["parity"] = {"before": results.difference(reply["evidence"], expected)}
        return row

    def _rounds(
        self, workload: str, work: RacedWorkload, running: list[str], rows: dict[str, dict[str, Any]], expected: Any
    ) -> None:
        if not running:
            return
        share = self.seconds * work.share / len(running)
        plan = {name: plan_rounds(rows[name]["chunk_seconds"], share, self.rounds) for name in running}
        times: dict[str, list[float]] = {name: [] for name in running}
        loads: dict[str, list[float | None]] = {name: [] for name in running}
        for number in range(self.rounds):
            self.tell(f"{workload}: round {number + 1} of {self.rounds}")
            first = number % len(running)  # nobody always comes after the same one
            for name in running[first:] + running[:first]:
                count, chunks, warm = plan[name]
                if number >= count or rows[name]["status"] == FAILED:
                    continue
                limit = 30 + 10 * (chunks + 1) * rows[name]["chunk_seconds"]
                reply = self.workers[name].ask("round", limit, chunks=chunks, warm=warm)
                if reply["status"] != OK:
                    rows[name] = {key: reply[key] for key in ("status", "why", "traceback") if key in reply}
                    continue
                times[name].append(reply["us_per_step"])
                loads[name].append(reply["idle_load"])
                rows[name]["after"] = reply["evidence"]
        peak = max(self.peak.values(), default=None)
        for name in running:
            row = rows[name]
            if row["status"] != FAILED:
                count, chunks, warm = plan[name]
                row |= results.rates(work, times[name], peak)
                row |= {"steps_per_round": chunks * work.chunk, "idle_load": results.median_load(loads[name])}
                self._check_parity(name, row, expected, work, warm)
            row.pop("chunk_seconds", None)
            row.pop("after", None)

    def _check_parity(self, name: str, row: dict[str, Any], expected: Any, work: RacedWorkload, warm: bool) -> None:
        if not CONTESTANTS[name].ranked:
            return
        after = row["after"]
        if work.kind == "train":
            # each round began with the same weights: the first chunk that was timed is one that the reference computed
            if not all(math.isfinite(loss) for loss in after) or len(after) * work.chunk != row["steps_per_round"]:
                after = [math.nan]
            row["last_loss"] = after[-1] if math.isfinite(after[-1]) else None
            expected = expected[work.chunk : 2 * work.chunk] if warm else expected[: work.chunk]
            row["parity"]["after"] = results.difference(after[:1], expected)
        else:
            row["parity"]["after"] = results.difference(after, expected)
        worst = max(row["parity"].values())
        if not worst <= results.TOLERANCE:
            row["status"] = results.DIFFERS
            row["why"] = f"losses or outputs are {worst:.1e} away from float64, more than {results.TOLERANCE:.0e}"
        row["parity"] = {when: value if math.isfinite(value) else None for when, value in row["parity"].items()}

    def report(self, workloads: dict[str, Any]) -> dict[str, Any]:
        """Return the part of the result for this number of threads.

        The peak is measured again, because no one moment should decide it; the shares are of the larger.
        """
        if FLOOR in self.workers and self.workers[FLOOR].alive:
            again = self.workers[FLOOR].ask("peak", self.limit).get("gflops", {})
            self.peak = {n: max(rate, again.get(n, 0.0)) for n, rate in self.peak.items()}
        peak = max(self.peak.values(), default=None)
        for found in workloads.values():
            for row in found["contestants"].values():
                if peak and "gflops" in row:
                    row["of_peak"] = row["gflops"] / peak
        return {
            "threads": self.threads,
            "cpus": self.cpus,
            "sgemm_peak_gflops": self.peak,
            "blas": self.blas,
            "workers": self.hello,
            "workloads": workloads,
        }


def plan_rounds(chunk_seconds: float, share: float, rounds: int) -> tuple[int, int, bool]:
    """Return how many rounds, how many chunks in each, and whether to warm up before.

    Examples
    --------
    >>> plan_rounds(0.01, share=0.7, rounds=7)  # 0.1 s a round
    (7, 10, True)
    >>> plan_rounds(2.0, share=0.7, rounds=7)  # a slow one: once, a single chunk
    (1, 1, False)
    """
    chunks = max(1, round(share / rounds / chunk_seconds))
    least = AT_LEAST if chunk_seconds < SLOW_CHUNK else 1
    count = min(rounds, max(least, int(2 * share / (chunks * chunk_seconds))))
    return count, chunks, chunk_seconds < LONG_CHUNK


def run(
    workloads: list[str], names: list[str], threads: list[int], tell: Tell, on_workload: Callable[..., None], **how: Any
) -> dict[str, Any]:
    """Race at each number of threads; return the whole result.

    Parameters
    ----------
    workloads, names : list of str
        What and who.
    threads : list of int
        Numbers of threads.
    tell, on_workload : callable
        Told what happens; given number of threads, workload and its part of the result, when one is finished.
    how
        Passed to `Race`.
    """
    result = {
        "format": results.FORMAT,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "settings": how,
        "runs": [],
    }
    for number in threads:
        with Race(names, number, tell=tell, **how) as race:
            found = {}
            for workload in workloads:
                found[workload] = race.run(workload)
                on_workload(number, workload, found[workload])
            result["runs"].append(race.report(found))
    result["machine"]["load_afterwards"] = load()
    return result
