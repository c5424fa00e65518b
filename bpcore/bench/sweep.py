"""The sweep: every contender at every batch size of every network, a process each, one at a time.

A *visit* is a few rounds of one contender at one batch size. Each batch size is visited again after all others have
had their turn, until the time of its network is used up: what other programs and the clock of the processor do to one
visit then shows in the spread and does not decide.
"""

from __future__ import annotations

import datetime
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from bpcore._version import __version__
from bpcore.bench import machine, smi, statistics
from bpcore.bench.contender import Contender
from bpcore.bench.evidence import Evidence
from bpcore.bench.networks import BATCH_SIZES, Network
from bpcore.bench.process import OK, SKIPPED, Worker
from bpcore.bench.result import FORMAT
from bpcore.bench.workload import Workload

__all__ = ["Settings", "Sweep"]

MODULE = "bpcore.bench.worker"
LOAD_LIMIT, VISIT_LIMIT = 120.0, 600.0

ROUNDS = 3
"""Rounds of a visit."""
VISITS = 5
"""Visits that are enough."""
ROUND_SECONDS = 0.02, 0.05
"""Least and most time of a round: a call of the trainer should be long against what it does once."""
VISIT_OVERHEAD = 0.06
"""Seconds that a visit takes besides its rounds."""

LARGEST_SHARE = 0.2
"""Share of the time of a network that a first visit may be expected to take; beyond that it is left out."""
FIRST_STEP = 1e-3
"""Seconds that a step is expected to take before anything is known."""
SLOW_STEP = 0.1
"""Seconds from which a step is a round, and a round is a visit."""
SLOW_PRODUCTS = 0.2
"""Share of the peak that the products of a step are expected to reach at least."""
WITNESS_RATE = 2e10
"""Operations a second that the float64 witness is expected to do."""
MEMORY_SHARE = 0.6
"""Share of the free memory that may be used."""

PART_SECONDS = 0.02
"""Time for each part of a step."""

SLOWER = 0.85
"""Share of the first peak below which the second one says that the machine has become slower."""
BUSY = 0.5
"""Load from which a warning is given."""


@dataclass(frozen=True)
class Settings:
    """What is measured and for how long.

    Attributes
    ----------
    contenders : sequence of Contender
        NumPy is the one that speed-ups are over.
    networks : sequence of Network
        One table each.
    batch_sizes : sequence of int
        Ascending.
    kind : str
        ``"train"`` or ``"predict"``.
    threads : int or None
        For every contender on the processor; None leaves the choice to each.
    seconds : float
        Time for everything.
    parts : bool
        Whether the parts of a training step are timed too.
    """

    contenders: Sequence[Contender]
    networks: Sequence[Network]
    batch_sizes: Sequence[int] = BATCH_SIZES
    kind: str = "train"
    threads: int | None = None
    seconds: float = 110.0
    parts: bool = True


@dataclass
class _Entry:
    """One contender at one batch size."""

    status: str = OK
    why: str = ""
    visits: list[list[float]] = field(default_factory=list)
    distances: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    prepared: float = 0.0
    expected: Evidence | None = None
    wrong: bool = False

    @property
    def step_seconds(self) -> float | None:
        """The last time of a step."""
        return self.visits[-1][-1] if self.visits else None


Told = Callable[[str, float], None]


class Sweep:
    """All processes, and what they have measured.

    Parameters
    ----------
    settings : Settings
        What is measured.
    tell : callable
        Is told what happens, and which share of the time is used.
    on_network : callable
        Is given the part of the result of each network when it is finished.
    """

    def __init__(
        self,
        settings: Settings,
        tell: Told = lambda text, share: None,
        on_network: Callable[[dict[str, Any]], None] = lambda found: None,
    ) -> None:
        self.settings, self._tell, self.on_network = settings, tell, on_network
        self.workers: dict[str, Worker] = {}
        self.hello: dict[str, dict[str, Any]] = {}
        self.peaks: dict[str, float] = {}
        self.warnings: list[str] = []
        self.networks: list[dict[str, Any]] = []
        self.begun = time.monotonic()

    # ---------------------------------------------------------------- processes

    def __enter__(self) -> Sweep:
        self.machine = machine.describe()
        if (self.machine["load"] or [0.0])[0] > BUSY:
            self.warnings.append(
                f"other programs kept {self.machine['load'][0]:g} threads busy when the measurement began; "
                "with several threads above all, figures will be too low"
            )
        for name in self.machine["removed_variables"]:
            self.warnings.append(
                f"{name} is set here and was removed for the measurement; as long as it is set, NumPy and the Numba "
                f"backend may be slower than the figures say: unset {name}"
            )
        self.tell("starting")
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, self.settings.contenders))
        surroundings = machine.environment(self.settings.threads)
        self.witness = Worker(MODULE, ["witness", "float64", "auto", "auto"], surroundings)
        for name in self.names:
            self.tell(f"peak of {name}")
            self._measure_peak(name)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (*self.workers.values(), self.witness):
            worker.close()

    @property
    def names(self) -> list[str]:
        """Contenders that run, in the order in which they were named; their processes start in any."""
        return [contender.name for contender in self.settings.contenders if contender.name in self.workers]

    @property
    def dtype(self) -> str:
        """Dtype of data and parameters."""
        return self.settings.contenders[0].precision

    def tell(self, text: str) -> None:
        """Say what happens."""
        self._tell(text, min((time.monotonic() - self.begun) / self.settings.seconds, 1.0))

    def _start(self, contender: Contender) -> None:
        threads = self.settings.threads
        words = [contender.backend, contender.precision, contender.plan, "auto" if threads is None else str(threads)]
        worker = Worker(MODULE, words, machine.environment(threads))
        reply = worker.ask("load", LOAD_LIMIT)
        self.hello[contender.name] = reply
        if reply["status"] == OK:
            self.workers[contender.name] = worker
        else:
            worker.close()

    def _on_cpu(self, name: str) -> bool:
        return bool(self.hello[name].get("device") == "cpu")

    def _measure_peak(self, name: str) -> float:
        """Measure a peak; those on the processor share the largest, because they share the processor."""
        reply = self.workers[name].ask("peak", LOAD_LIMIT)
        found = max(reply.get("gflops", {}).values(), default=0.0)
        self.hello[name].setdefault("peaks", []).append(reply.get("gflops", {}))
        before = self.hello[name].get("gb_per_second", 0.0)
        self.hello[name]["gb_per_second"] = max(reply.get("gb_per_second", 0.0), before)
        for other in self.names:
            if other == name or (self._on_cpu(name) and self._on_cpu(other)):
                self.peaks[other] = max(self.peaks.get(other, 0.0), found)
        return found

    # ---------------------------------------------------------------- one network

    def run(self) -> dict[str, Any]:
        """Measure everything; return the result. Interrupted, it returns what is there."""
        networks, interrupted = list(self.settings.networks), False
        try:
            for number, network in enumerate(networks):
                left = self.settings.seconds - (time.monotonic() - self.begun)
                found = self._run_network(network, max(left, 1.0) / (len(networks) - number))
                self.networks.append(found)
                self.on_network(found)
            self._look_at_the_machine_again()
        except KeyboardInterrupt:
            interrupted = True
            self.warnings.append("interrupted: what is missing was not measured")
        return self._result(interrupted)

    def _run_network(self, network: Network, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        works = {batch: network.workload(batch, self.settings.kind, self.dtype) for batch in self.settings.batch_sizes}
        entries = {(batch, name): _Entry() for batch in works for name in self.names}
        planned = len(entries) * VISITS
        least, most = ROUND_SECONDS
        round_seconds = min(max((0.7 * seconds / planned - VISIT_OVERHEAD) / (ROUNDS + 1), least), most)
        self._first_visits(network, entries, seconds, end, round_seconds)
        parts = self._time_parts(network) if self.settings.parts and self.settings.kind == "train" else {}
        self._further_visits(network, entries, end, round_seconds)
        for worker in self.workers.values():
            worker.ask("release", LOAD_LIMIT)
        return self._part_of_result(network, entries, parts)

    def _workload(self, network: Network, batch: int, name: str) -> Workload:
        contender = next(found for found in self.settings.contenders if found.name == name)
        return network.workload(batch, self.settings.kind, contender.precision)

    def _first_visits(
        self,
        network: Network,
        entries: dict[tuple[int, str], _Entry],
        seconds: float,
        end: float,
        round_seconds: float,
    ) -> None:
        known: dict[str, list[tuple[Workload, float]]] = {name: [] for name in self.names}
        for batch in spread_out(self.settings.batch_sizes):
            self.tell(f"{network.name}, batch {batch}")
            running, steps = [], {}
            for name in self.names:
                entry, work = entries[batch, name], self._workload(network, batch, name)
                steps[name] = self._expected_step(work, name, known[name])
                entry.why = self._hindrance(work, name, steps[name], seconds, end)
                if entry.why:
                    entry.status = SKIPPED
                else:
                    running.append(name)
            if not running:
                continue
            expected = self._expected(self._workload(network, batch, running[0]), seconds, end)
            for name in running:
                entry, work = entries[batch, name], self._workload(network, batch, name)
                entry.expected = expected
                self._visit(work, name, entry, rounds_of(steps[name]), round_seconds, first=True)
                if entry.step_seconds is not None:
                    known[name].append((work, entry.step_seconds))

    def _expected_step(self, work: Workload, name: str, known: list[tuple[Workload, float]]) -> float:
        """Seconds that a step may take, judged by the nearest batch size whose time is known."""
        if not known:
            return FIRST_STEP
        other, seconds = min(known, key=lambda found: abs(math.log(found[0].batch / work.batch)))
        if other.batch >= work.batch:
            return seconds
        # either memory sets the pace, or the products do, and they are never slower than before
        by_products = work.flops() / (SLOW_PRODUCTS * max(self.peaks[name], 1.0) * 1e9)
        return min(seconds * work.flops() / other.flops(), max(seconds * work.bytes() / other.bytes(), by_products))

    def _hindrance(self, work: Workload, name: str, step: float, seconds: float, end: float) -> str:
        """Why there is no memory or no time for a first visit; empty if there is."""
        if self._on_cpu(name):
            free = machine.available_memory()
            needed = work.memory() * (len(self.names) + 2)  # all processes keep data, and the witness in float64
        else:
            free = self.hello[name].get("memory", {}).get("available")
            needed = work.memory()
        if free is not None and needed > MEMORY_SHARE * free:
            return f"needs about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} free"
        # the steps that are compared, warming up, and the rounds
        takes = step * (2 * work.parity_steps + 1 + rounds_of(step))
        if takes > LARGEST_SHARE * seconds:
            return f"a step would take about {step:.2g} s; a longer --budget measures it"
        if time.monotonic() + takes > end:
            return "no time was left; a longer --budget measures it"
        return ""

    def _expected(self, work: Workload, seconds: float, end: float) -> Evidence | None:
        """Ask the witness, unless that would take too long."""
        takes = work.parity_steps * work.flops() / WITNESS_RATE
        if takes > min(LARGEST_SHARE * seconds, end - time.monotonic()):
            return None
        reply = self.witness.ask("expected", VISIT_LIMIT, workload=work.as_json())
        if reply["status"] != OK:
            raise RuntimeError(f"the float64 witness failed: {reply['why']}")
        return Evidence.from_json(reply["evidence"])

    def _further_visits(
        self, network: Network, entries: dict[tuple[int, str], _Entry], end: float, round_seconds: float
    ) -> None:
        for number in itertools.count(1):
            if number == VISITS:
                return
            for batch in self.settings.batch_sizes:
                names = [name for name in self.names if entries[batch, name].visits]
                first = number % len(names) if names else 0  # nobody always comes after the same one
                for name in names[first:] + names[:first]:
                    entry = entries[batch, name]
                    work = self._workload(network, batch, name)
                    step = entry.step_seconds or FIRST_STEP
                    takes = VISIT_OVERHEAD + step * (work.parity_steps + 1) + rounds_of(step) * max(round_seconds, step)
                    if time.monotonic() + takes > end:
                        return
                    if entry.status == OK:
                        self.tell(f"{network.name}, batch {batch}, again")
                        self._visit(work, name, entry, rounds_of(step), round_seconds, first=False)

    def _visit(self, work: Workload, name: str, entry: _Entry, rounds: int, round_seconds: float, first: bool) -> None:
        reply = self.workers[name].ask(
            "visit", VISIT_LIMIT, workload=work.as_json(), rounds=rounds, seconds=round_seconds, first=first
        )
        if reply["status"] != OK:
            entry.status, entry.why, entry.visits = reply["status"], reply["why"], []
            if not self.workers[name].alive:
                self._restart(name)
            return
        entry.visits.append(reply["seconds_per_step"])
        entry.facts = reply["facts"]
        if first:
            entry.prepared = reply["seconds_to_prepare"]
        for when in ("before", "after"):
            if entry.expected is not None and when in reply:
                self._judge(entry, when, Evidence.from_json(reply[when]), work.precision)

    @staticmethod
    def _judge(entry: _Entry, when: str, found: Evidence, precision: str) -> None:
        assert entry.expected is not None
        values, moved = found.distance(entry.expected)
        so_far = entry.distances.get(when, (0.0, 0.0))
        entry.distances[when] = max(values, so_far[0]), max(moved, so_far[1])
        if not found.agrees(entry.expected, precision):
            entry.wrong = True

    def _restart(self, name: str) -> None:
        self.workers.pop(name).close()
        self._start(next(found for found in self.settings.contenders if found.name == name))

    # ---------------------------------------------------------------- the result

    def _part_of_result(
        self, network: Network, entries: dict[tuple[int, str], _Entry], parts: dict[str, Any]
    ) -> dict[str, Any]:
        cells = []
        for batch in self.settings.batch_sizes:
            work = network.workload(batch, self.settings.kind, self.dtype)
            rows = {name: self._row(name, entry) for (of, name), entry in entries.items() if of == batch}
            costs = {"rows": work.rows, "flops": work.flops(), "bytes": work.bytes()}
            cells.append({"batch": batch, **costs, "contenders": rows})
        found = {
            "name": network.name,
            "sizes": list(network.sizes),
            "activation": network.activation,
            "output": network.output,
            "loss": network.loss,
            "optimizer": network.optimizer,
            "n_parameters": network.workload(1, self.settings.kind, self.dtype).n_parameters,
            "cells": cells,
            "parts": parts,
        }
        statistics.judge(found, self.peaks)
        return found

    @staticmethod
    def _row(name: str, entry: _Entry) -> dict[str, Any]:
        row: dict[str, Any] = {"status": entry.status, "why": entry.why}
        if not entry.visits:
            return row
        if entry.wrong:
            row = {"status": "differs", "why": "it computes something else than the float64 witness"}
        return row | {
            "us_per_step": statistics.summary(entry.visits),
            "plan": entry.facts["plan"],
            "plan_why": entry.facts["why"],
            "threads": entry.facts["threads"],
            "seconds_to_prepare": entry.prepared,
            "checked": entry.expected is not None,
            "parity": {
                when: {"values": finite(values), "movement": finite(moved)}
                for when, (values, moved) in entry.distances.items()
            },
        }

    def _time_parts(self, network: Network) -> dict[str, Any]:
        """Time the parts of a step at the typical batch size, where it was asked for."""
        batches = [batch for batch in self.settings.batch_sizes if batch <= network.typical]
        if not batches:
            return {}
        found: dict[str, Any] = {}
        for name in self.names:
            self.tell(f"{network.name}, parts of a step on {name}")
            work = self._workload(network, batches[-1], name)
            reply = self.workers[name].ask("parts", VISIT_LIMIT, workload=work.as_json(), seconds=PART_SECONDS)
            if reply["status"] == OK:
                found[name] = {"how": reply["how"], "us": reply["us"]}
            else:
                self.warnings.append(f"{network.name}: the parts of a step on {name} were not timed: {reply['why']}")
        costs = network.workload(batches[-1], self.settings.kind, self.dtype).parts()
        return {
            "batch": batches[-1],
            "costs": {part: {"flops": flops, "bytes": moved} for part, (flops, moved) in costs.items()},
            "contenders": found,
        }

    def _look_at_the_machine_again(self) -> None:
        for name in self.names:
            self.tell(f"peak of {name} again")
            after = self._measure_peak(name)
            own = max(self.hello[name]["peaks"][0].values(), default=0.0)
            if own and after < SLOWER * own:
                self.warnings.append(
                    f"{name}: square products ran at {own:.0f} GFLOP/s in the beginning and at {after:.0f} in the end; "
                    "the machine has become slower (heat, clock, or other programs)"
                )
        for network in self.networks:
            statistics.judge(network, self.peaks)  # shares are of the largest peak that was seen

    def _result(self, interrupted: bool) -> dict[str, Any]:
        settings = self.settings
        for network in self.networks:
            for cell in network["cells"]:
                for name, row in cell["contenders"].items():
                    if row["status"] == "suspect":
                        self.warnings.append(f"{network['name']}, batch {cell['batch']}, {name}: {row['why']}")
        return {
            "format": FORMAT,
            "bpcore": __version__,
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "mode": "inference" if settings.kind == "predict" else "train",
            "settings": {
                "contenders": [contender.name for contender in settings.contenders],
                "networks": [network.name for network in settings.networks],
                "batch_sizes": list(settings.batch_sizes),
                "dtype": self.dtype,
                "threads": settings.threads,
                "seconds": settings.seconds,
                "rounds_of_a_visit": ROUNDS,
            },
            "seconds": round(time.monotonic() - self.begun, 1),
            "interrupted": interrupted,
            "machine": self.machine
            | {
                "load_afterwards": machine.load(),
                "clock_mhz_afterwards": machine.clock_mhz(),
                "gpu_state_afterwards": smi.ask(smi.MOMENT),
            },
            "contenders": {
                contender.name: self._contender(contender.name, self.hello[contender.name])
                for contender in settings.contenders
            },
            "networks": self.networks,
            "warnings": self.warnings,
        }

    def _contender(self, name: str, hello: dict[str, Any]) -> dict[str, Any]:
        kept = ("status", "why", "device", "seconds_to_start", "versions", "blas", "memory", "peaks", "gb_per_second")
        return {word: hello[word] for word in kept if word in hello} | {"peak_gflops": self.peaks.get(name)}


def spread_out(batch_sizes: Sequence[int]) -> list[int]:
    """Return batch sizes in an order in which the first few are far apart: time may end before all had their turn.

    Examples
    --------
    >>> spread_out([1, 2, 4, 8, 16, 32, 64, 128, 256])
    [1, 16, 256, 4, 64, 2, 8, 32, 128]
    """
    count, chosen = len(batch_sizes), dict[int, None]()
    # begin with the smallest, a middle one, and the largest, whose time can be told from the middle one
    step = max(1, (1 << max(count - 2, 0).bit_length()) // 2)
    while step:
        chosen |= dict.fromkeys(k for k in range(0, count, step) if k not in chosen)
        step //= 2
    return [batch_sizes[k] for k in chosen]


def rounds_of(step_seconds: float) -> int:
    """Rounds of a visit: one, where a single step takes long."""
    return ROUNDS if step_seconds < SLOW_STEP else 1


def finite(value: float) -> float | None:
    """Return the number, or None for what JSON cannot hold."""
    return value if math.isfinite(value) else None
