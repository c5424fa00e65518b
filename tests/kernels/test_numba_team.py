"""Teams of threads: meetings, failures, and what is known of the machine."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from bpcore.kernels.numba import machine as machine_module
from bpcore.kernels.numba.cache import folder
from bpcore.kernels.numba.machine import Machine, blas_addresses, machine
from bpcore.kernels.numba.team import meet, meeting_place, run_team, yield_address

if numba.config.DISABLE_JIT:
    pytest.skip("barriers are compiled code", allow_module_level=True)


@numba.njit(nogil=True)
def add_in_turns(place: Any, members: int, offer: int, t: int, rounds: int, log: Any) -> int:
    """Each member adds its number to its own cell, then reads the cells of all; the sum tells who was not there."""
    for k in range(rounds):
        log[t] += t + 1
        if not meet(place, members, offer):
            return k
        total = 0
        for other in range(members):
            total += log[other]
        if total != (k + 1) * members * (members + 1) // 2:
            return -1
        if not meet(place, members, offer):
            return k
    return rounds


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_nobody_passes_a_meeting_before_all_are_there(members: int) -> None:
    log, place, found = np.zeros(members, np.int64), meeting_place(), [0] * members

    def member(t: int) -> int:
        found[t] = add_in_turns(place, members, yield_address(), t, 300, log)
        return found[t]

    assert run_team(member, members, place) == 300
    assert found == [300] * members


def test_a_member_that_fails_sets_the_others_free() -> None:
    place, log = meeting_place(), np.zeros(3, np.int64)
    returned: list[int] = []

    def member(t: int) -> int:
        if t == 1:
            raise ZeroDivisionError("in a member")
        returned.append(add_in_turns(place, 3, yield_address(), t, 10, log))
        return 0

    for _ in range(3):  # the place can be used again
        with pytest.raises(ZeroDivisionError, match="in a member"):
            run_team(member, 3, place)
    assert returned == [0] * 6


def test_a_thread_that_cannot_start_sets_the_others_free(monkeypatch: pytest.MonkeyPatch) -> None:
    place, log, before = meeting_place(), np.zeros(3, np.int64), threading.active_count()
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def only_once(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_once)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_team(lambda t: add_in_turns(place, 3, yield_address(), t, 10, log), 3, place)
    assert threading.active_count() == before


# ------------------------------------------------------------------------------------------ the machine


KNOWN = Machine(1e11, 512**2, (2, 4), (1e-6, 2e-6), (1.9, 3.0))


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cache folder of its own; measuring is counted and takes no time."""
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    measured: list[int] = []

    def measure(most: int) -> Machine:
        measured.append(most)
        return KNOWN

    monkeypatch.setattr(machine_module, "measure", measure)
    machine.cache_clear()
    yield measured
    machine.cache_clear()


def test_a_machine_is_measured_once(stored: list[int]) -> None:
    assert machine(4) == KNOWN
    assert machine(4) == KNOWN
    machine.cache_clear()  # another process
    assert machine(4) == KNOWN
    assert stored == [4]


FIGURES = '"rate": 1, "wide": 0, "threads": [2], "meeting": [1]'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"rate": 1}', f'{{{FIGURES}, "scaling": []}}', f'{{{FIGURES}, "scaling": ["fast"]}}', "\0"],
)
def test_a_damaged_file_is_measured_anew(stored: list[int], text: str) -> None:
    machine(2)
    (path,) = folder().glob("machine-*.json")
    path.write_text(text)
    machine.cache_clear()
    assert machine(2) == KNOWN
    assert stored == [2, 2]
    figures = {name: value for name, value in asdict(KNOWN).items() if name != "quiet"}
    assert json.loads(path.read_text()) == json.loads(json.dumps(figures))


def test_a_disturbed_measurement_is_not_kept(stored: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = replace(KNOWN, quiet=False)

    def measure(most: int) -> Machine:
        stored.append(most)
        return noisy

    monkeypatch.setattr(machine_module, "measure", measure)
    for _ in range(2):
        assert machine(2) == noisy
        machine.cache_clear()
    assert stored == [2, 2]
    assert list(folder().glob("machine-*.json")) == []


def test_a_blas_of_another_kind_is_another_machine(stored: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(2)
    for kind in ("Haswell", "SkylakeX"):
        monkeypatch.setenv("OPENBLAS_CORETYPE", kind)
        machine.cache_clear()
        machine(2)
    assert len(stored) == (2 if len(list(folder().glob("machine-*.json"))) == 2 else 3)


def test_what_is_measured_makes_sense() -> None:
    found = machine_module.measure(2)
    assert 1e8 < found.rate < 1e13
    assert found.wide in (0, 128**2, 256**2, 512**2, 1024**2)
    assert found.threads == (2,)
    assert 0 <= found.meeting[0] < 1
    assert 0 < found.scaling[0] < 4
    assert machine_module.measure(1).threads == ()


def test_a_team_must_pay() -> None:
    free, dear = (lambda k: 0.0), (lambda k: 1.0)
    assert KNOWN.best_team(1.0, 8, free)[0] == 4
    assert KNOWN.best_team(1.0, 3, free)[0] == 2  # no more than can share the work
    assert KNOWN.best_team(1.0, 1, free)[0] == 1
    assert KNOWN.best_team(1.0, 8, dear)[0] == 1
    hardly = Machine(1e11, 0, (2,), (0.0,), (1.05,))
    assert hardly.best_team(1.0, 8, free) == (1, "1 thread 1e+06 us, 2 threads 9.52e+05 us")


def test_wide_layers_go_to_blas(stored: list[int]) -> None:
    dtype = np.dtype(np.float32)
    assert blas_addresses([10, 20, 10], dtype, 4) == [0, 0]
    assert stored == []  # narrow networks ask for no measurement
    found = blas_addresses([512, 512, 100, 512, 1024], dtype, 4)
    assert [address != 0 for address in found] == [True, False, False, True]
    assert found[0] != blas_addresses([512, 512], np.dtype(np.float64), 4)[0]
