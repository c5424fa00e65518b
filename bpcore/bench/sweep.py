"""The sweep: every contender at every batch size of every network, a process each, one at a time.

A *visit* is a few rounds of one contender at one batch size. Each batch size is visited again after all others have
had their turn, until the time of its network is used up: what other programs and the clock of the processor do to one
visit then shows in the spread and does not decide.
"""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bpcore._version import __version__
from bpcore.bench import machine, pace, smi, statistics
from bpcore.bench.contender import Contender
from bpcore.bench.crew import Crew
from bpcore.bench.entry import Entry
from bpcore.bench.evidence import Evidence
from bpcore.bench.networks import BATCH_SIZES, Network
from bpcore.bench.process import OK, SKIPPED
from bpcore.bench.result import FORMAT
from bpcore.bench.workload import Workload

__all__ = ["Settings", "Sweep"]

VISITS = 5
"""Visits that are enough."""
ROUND_SECONDS = 0.02, 0.05
"""Least and most time of a round: a call of the trainer should be long against what it does once."""
ROUNDS_SHARE = 0.7
"""Share of the time of a network that is meant for rounds."""

LARGEST_SHARE = 0.2
"""Share of the time of a network that a first visit may be expected to take; beyond that it is left out."""
WITNESS_RATE = 2e10
"""Operations a second that the float64 witness is expected to do."""
MEMORY_SHARE = 0.6
"""Share of the free memory that may be used."""
PART_SECONDS = 0.02
"""Time for each part of a step."""
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
        self.crew = Crew(settings.contenders, settings.threads)
        self.warnings: list[str] = []
        self.networks: list[dict[str, Any]] = []
        self.begun = time.monotonic()

    def __enter__(self) -> Sweep:
        self.machine = machine.describe()
        load = (self.machine["load"] or [0.0])[0]
        if load > BUSY:
            self.warnings.append(
                f"other programs kept {load:g} threads busy when the measurement began; "
                "with several threads above all, figures will be too low"
            )
        for name in self.machine["removed_variables"]:
            self.warnings.append(
                f"{name} is set here and was removed for the measurement; as long as it is set, NumPy and the Numba "
                f"backend may be slower than the figures say: unset {name}"
            )
        try:
            self.tell("starting")
            self.crew.start()
            self._measure_peaks()
        except BaseException:
            self.crew.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.close()

    @property
    def names(self) -> list[str]:
        """Contenders that run."""
        return self.crew.names

    @property
    def dtype(self) -> str:
        """Dtype of data and parameters."""
        return self.settings.contenders[0].precision

    def tell(self, text: str) -> None:
        """Say what happens."""
        self._tell(text, min((time.monotonic() - self.begun) / self.settings.seconds, 1.0))

    def _measure_peaks(self) -> None:
        for name in self.names:
            self.tell(f"peak of {name}")
            self.warnings += filter(None, [self.crew.measure_peak(name)])

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
            self._measure_peaks()
            for part in self.networks:
                statistics.judge(part, self.crew.peaks)  # shares are of the largest peak that was seen
        except KeyboardInterrupt:
            interrupted = True
            self.warnings.append("interrupted: what is missing was not measured")
        return self._result(interrupted)

    def _run_network(self, network: Network, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        works = {batch: network.workload(batch, self.settings.kind, self.dtype) for batch in self.settings.batch_sizes}
        entries = {(batch, name): Entry() for batch in works for name in self.names}
        each = ROUNDS_SHARE * seconds / (len(entries) * VISITS) - pace.VISIT_OVERHEAD
        round_seconds = min(max(each / (pace.ROUNDS + 1), ROUND_SECONDS[0]), ROUND_SECONDS[1])
        self._first_visits(network, entries, seconds, end, round_seconds)
        parts = self._time_parts(network) if self.settings.parts and self.settings.kind == "train" else {}
        self._further_visits(network, entries, end, round_seconds)
        self.crew.release()
        return self._part_of_result(network, entries, parts)

    def _workload(self, network: Network, batch: int, name: str) -> Workload:
        return network.workload(batch, self.settings.kind, self.crew.contenders[name].precision)

    def _first_visits(
        self,
        network: Network,
        entries: dict[tuple[int, str], Entry],
        seconds: float,
        end: float,
        round_seconds: float,
    ) -> None:
        known: dict[str, list[tuple[Workload, float]]] = {name: [] for name in self.names}
        for batch in pace.spread_out(self.settings.batch_sizes):
            self.tell(f"{network.name}, batch {batch}")
            running, steps = [], {}
            for name in self.names:
                entry, work = entries[batch, name], self._workload(network, batch, name)
                steps[name] = pace.expected_step(work, known[name], self.crew.peaks[name])
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
                self._visit(work, name, entry, pace.rounds_of(steps[name]), round_seconds, first=True)
                if entry.step_seconds is not None:
                    known[name].append((work, entry.step_seconds))

    def _hindrance(self, work: Workload, name: str, step: float, seconds: float, end: float) -> str:
        """Why there is no memory or no time for a first visit; empty if there is."""
        free, needed = self.crew.free_memory(name), work.memory()
        if free is not None and needed > MEMORY_SHARE * free:
            return f"needs about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} that are free for it"
        takes = pace.first_visit(work, step)
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
        return self.crew.expected(work)

    def _further_visits(
        self, network: Network, entries: dict[tuple[int, str], Entry], end: float, round_seconds: float
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
                    step = entry.step_seconds or pace.FIRST_STEP
                    if time.monotonic() + pace.later_visit(work, step, round_seconds) > end:
                        return
                    if entry.status == OK:
                        self.tell(f"{network.name}, batch {batch}, again")
                        self._visit(work, name, entry, pace.rounds_of(step), round_seconds, first=False)

    def _visit(self, work: Workload, name: str, entry: Entry, rounds: int, round_seconds: float, first: bool) -> None:
        reply = self.crew.ask(name, "visit", workload=work.as_json(), rounds=rounds, seconds=round_seconds, first=first)
        entry.add(reply, work.precision)

    # ---------------------------------------------------------------- the result

    def _part_of_result(
        self, network: Network, entries: dict[tuple[int, str], Entry], parts: dict[str, Any]
    ) -> dict[str, Any]:
        cells = []
        for batch in self.settings.batch_sizes:
            work = network.workload(batch, self.settings.kind, self.dtype)
            rows = {name: entry.row() for (of, name), entry in entries.items() if of == batch}
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
        statistics.judge(found, self.crew.peaks)
        return found

    def _time_parts(self, network: Network) -> dict[str, Any]:
        """Time the parts of a step at the typical batch size, where it was asked for."""
        batches = [batch for batch in self.settings.batch_sizes if batch <= network.typical]
        if not batches:
            return {}
        found: dict[str, Any] = {}
        for name in self.names:
            self.tell(f"{network.name}, parts of a step on {name}")
            work = self._workload(network, batches[-1], name)
            reply = self.crew.ask(name, "parts", workload=work.as_json(), seconds=PART_SECONDS)
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
                "rounds_of_a_visit": pace.ROUNDS,
            },
            "seconds": round(time.monotonic() - self.begun, 1),
            "interrupted": interrupted,
            "machine": self.machine
            | {
                "load_afterwards": machine.load(),
                "clock_mhz_afterwards": machine.clock_mhz(),
                "gpu_state_afterwards": smi.ask(smi.MOMENT),
            },
            "contenders": self.crew.describe(),
            "networks": self.networks,
            "warnings": self.warnings,
        }
