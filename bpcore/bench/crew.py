"""The processes of a sweep: one for each contender and one for the float64 witness, with what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bpcore.bench import machine
from bpcore.bench.contender import Contender
from bpcore.bench.evidence import Evidence
from bpcore.bench.process import OK, Worker
from bpcore.bench.workload import Workload

__all__ = ["VISIT_LIMIT", "Crew"]

MODULE = "bpcore.bench.worker"
LOAD_LIMIT, VISIT_LIMIT = 120.0, 600.0
"""Seconds after which a process is given up."""

SLOWER = 0.85
"""Share of the first peak below which the second one says that the machine has become slower."""


class Crew:
    """Processes that measure, one at a time.

    Parameters
    ----------
    contenders : sequence of Contender
        Whom they hold.
    threads : int or None
        For those on the processor.

    Attributes
    ----------
    hello : dict of str to dict
        What each contender said when it was started; its peaks are added.
    peaks : dict of str to float
        Largest rate of square products that was seen, in GFLOP/s; contenders on the processor share theirs.
    """

    def __init__(self, contenders: Sequence[Contender], threads: int | None) -> None:
        self.contenders, self.threads = {contender.name: contender for contender in contenders}, threads
        self.hello: dict[str, dict[str, Any]] = {}
        self.peaks: dict[str, float] = {}
        self._workers: dict[str, Worker] = {}
        self._witness: Worker | None = None

    def start(self) -> None:
        """Start all processes at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, self.contenders))
        self._witness = Worker(MODULE, ["witness", "float64", "auto", "auto"], machine.environment(self.threads))

    def close(self) -> None:
        """End them."""
        for worker in (*self._workers.values(), *filter(None, [self._witness])):
            worker.close()

    def _start(self, name: str) -> None:
        contender = self.contenders[name]
        threads = "auto" if self.threads is None else str(self.threads)
        words = [contender.backend, contender.precision, contender.plan, threads]
        worker = Worker(MODULE, words, machine.environment(self.threads))
        self.hello[name] = worker.ask("load", LOAD_LIMIT)
        if self.hello[name]["status"] == OK:
            self._workers[name] = worker
        else:
            worker.close()

    @property
    def names(self) -> list[str]:
        """Contenders that run, in the order in which they were named; their processes start in any."""
        return [name for name in self.contenders if name in self._workers]

    def ask(self, name: str, do: str, limit: float = VISIT_LIMIT, **arguments: Any) -> dict[str, Any]:
        """Let a contender carry out a command; one that has died is started again for the next."""
        reply = self._workers[name].ask(do, limit, **arguments)
        if not self._workers[name].alive:
            self._workers.pop(name).close()
            self._start(name)
        return reply

    def expected(self, work: Workload) -> Evidence:
        """Ask the witness what a workload should give."""
        assert self._witness is not None
        reply = self._witness.ask("expected", VISIT_LIMIT, workload=work.as_json())
        if reply["status"] != OK:
            raise RuntimeError(f"the float64 witness failed: {reply['why']}")
        return Evidence.from_json(reply["evidence"])

    def release(self) -> None:
        """Let all forget their workloads."""
        for name in self.names:
            self.ask(name, "release", LOAD_LIMIT)

    def on_cpu(self, name: str) -> bool:
        """Whether a contender computes on the processor."""
        return bool(self.hello[name].get("device") == "cpu")

    def free_memory(self, name: str) -> int | None:
        """Bytes that are left for a contender, where that is known; others that have its device share them."""
        if self.on_cpu(name):
            free = machine.available_memory()
            others = 2 + sum(self.on_cpu(other) for other in self.names)  # the witness has everything in float64
        else:
            free = self.hello[name].get("memory", {}).get("available")
            others = sum(not self.on_cpu(other) for other in self.names)
        return None if free is None else free // others

    def measure_peak(self, name: str) -> str:
        """Measure a peak; return a warning if it is far below the first one."""
        reply, hello = self.ask(name, "peak", LOAD_LIMIT), self.hello[name]
        found = max(reply.get("gflops", {}).values(), default=0.0)
        hello.setdefault("peaks", []).append(reply.get("gflops", {}))
        hello["gb_per_second"] = max(reply.get("gb_per_second", 0.0), hello.get("gb_per_second", 0.0))
        for other in self.names:
            if other == name or (self.on_cpu(name) and self.on_cpu(other)):
                self.peaks[other] = max(self.peaks.get(other, 0.0), found)
        first = max(hello["peaks"][0].values(), default=0.0)
        if found >= SLOWER * first:
            return ""
        return (
            f"{name}: square products ran at {first:.0f} GFLOP/s in the beginning and at {found:.0f} in the end; "
            "the machine has become slower (heat, clock, or other programs)"
        )

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the part of a result about the contenders."""
        kept = ("status", "why", "device", "seconds_to_start", "versions", "blas", "memory", "peaks", "gb_per_second")
        return {
            name: {word: self.hello[name][word] for word in kept if word in self.hello[name]}
            | {"peak_gflops": self.peaks.get(name)}
            for name in self.contenders
        }
