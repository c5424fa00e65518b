"""Teams of threads: starting one, and a meeting of its members.

A team needs a core for each member; where fewer may be used there is nothing to measure.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Numba types the functions that meet; annotations would be ignored by it.

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.kernels.measuring import FLOAT32, measure
from bpcore.cores import usable_cores
from bpcore.kernels.numba.cache import Kernel
from bpcore.kernels.numba.team import meet, meeting_place, run_team, yield_address

MEETINGS = 2000
LINE = 8
"""Numbers of 8 bytes in a line of the cache."""

TEAMS = [2**k for k in range(1, usable_cores().bit_length())] or [2]
members = pytest.mark.parametrize("members", TEAMS)


@Kernel("int64 1!", "int64", "int64", "int64", "int64", "int64 1!")
def meetings(place, members, offer, rounds, t, met):
    """Meet again and again, and count."""
    for _ in range(rounds):
        if not meet(place, members, offer):
            return
        met[t * LINE] += 1


@Kernel("int64 1!", "int64", "int64", "int64", "int64", "int64 1!", "int64 1!")
def watched_meetings(place, members, offer, rounds, t, turns, early):
    """Meet again and again; after each count the members that had not come when this one went on."""
    for r in range(rounds):
        turns[t * LINE] = r + 1
        if not meet(place, members, offer):
            return
        for other in range(members):
            if turns[other * LINE] < r + 1:
                early[t * LINE] += 1


def need_cores(number: int) -> None:
    if usable_cores() < number:
        pytest.skip(f"{number} cores are needed; this process may use {usable_cores()}")


@members
def test_meeting(benchmark: Any, members: int) -> None:
    need_cores(members)
    kernel, watched = meetings[FLOAT32], watched_meetings[FLOAT32]
    place, offer, met = meeting_place(), yield_address(), np.zeros(members * LINE, np.int64)

    def member(t: int) -> int:
        kernel(place, members, offer, MEETINGS, t, met)
        return 0

    def judge(_: Any) -> None:
        assert met[0] > 0
        assert (met[::LINE] == met[0]).all()
        turns, early = np.zeros(members * LINE, np.int64), np.zeros(members * LINE, np.int64)

        def watching(t: int) -> int:
            watched(place, members, offer, MEETINGS, t, turns, early)
            return 0

        run_team(watching, members, place)
        assert (turns[::LINE] == MEETINGS).all()
        assert not early.any()

    run = lambda: run_team(member, members, place)  # noqa: E731
    measure(
        benchmark, run, judge, group=f"{MEETINGS} meetings of {members}", per=("meeting", MEETINGS), members=members
    )


@members
def test_start(benchmark: Any, members: int) -> None:
    """Start the others, wait for their ends."""
    need_cores(members)
    place, came = meeting_place(), [0] * members

    def member(t: int) -> int:
        came[t] += 1
        return t + 7

    def judge(result: Any) -> None:
        assert result == 7
        assert came[0] > 0
        assert came == [came[0]] * members

    run = lambda: run_team(member, members, place)  # noqa: E731
    measure(benchmark, run, judge, group=f"start of a team of {members}", members=members)
