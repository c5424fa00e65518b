"""A team of threads that runs one compiled loop together: where its members meet, and how they are started.

Every member runs the same loop on its own part of the work and waits for the others at barriers. The members are plain
Python threads that live as long as one call: starting one takes less than 0.1 ms, a call lasts about 0.2 s, and there
is no pool that a fork could break, that a second library would have to share, or that idles when nothing is trained.

A barrier of threads that all have a core costs a fraction of a microsecond; a member that waits longer lets other
threads and processes have its core.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bpcore.kernels.numba.cache import inner
from bpcore.typing import NDArray

__all__ = ["meet", "meeting_place", "run_team", "yield_address"]

_LINE = 8
"""Numbers of 8 bytes in a line of the cache: what different members write must not share one."""
_ARRIVED, _ROUND, _BROKEN = 0, _LINE, 2 * _LINE
_SPINS = 200
"""How often a waiting member looks before it offers its core to others: some microseconds."""

_X86, _ARM = "llvm.x86.sse2.pause", "llvm.aarch64.hint"


def meeting_place() -> NDArray[np.int64]:
    """Return the memory of a barrier."""
    return np.zeros(3 * _LINE, np.int64)


def yield_address() -> int:
    """Return the address of the system's function that offers the core to others."""
    if os.name == "nt":
        function: Any = ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined, unused-ignore]
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _at(context: Any, builder: Any, kind: Any, array: Any, k: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [k])


@intrinsic
def _add(typingctx, place, k, number):
    """Add to a number in one indivisible step; return what was there."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _at(context, builder, signature.args[0], *args[:2]), args[2], "seq_cst")

    return types.int64(place, types.int64, types.int64), codegen


@intrinsic
def _read(typingctx, place, k):
    """Read a number that other threads write."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_at(context, builder, signature.args[0], *args), "seq_cst", 8)

    return types.int64(place, types.int64), codegen


@intrinsic
def _pause(typingctx):
    """Tell the processor that this is a loop that waits."""

    def codegen(context, builder, signature, args):
        void, int32 = ir.VoidType(), ir.IntType(32)
        if platform.machine() in ("x86_64", "AMD64"):
            builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, []), _X86), [])
        elif platform.machine() in ("aarch64", "arm64"):
            kind = ir.FunctionType(void, [int32])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, _ARM), [int32(1)])
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def _offer_core(typingctx, address):
    """Call a function without arguments."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@inner
def meet(place, members, offer):
    """Wait until all members are here.

    Parameters
    ----------
    place : array of int64
        From :func:`meeting_place`.
    members : int
        Size of the team.
    offer : int
        From :func:`yield_address`.

    Returns
    -------
    bool
        False if a member will not come (:func:`run_team`).
    """
    this = _read(place, _ROUND)
    if _add(place, _ARRIVED, 1) == members - 1:
        _add(place, _ARRIVED, -members)
        _add(place, _ROUND, 1)
        return _read(place, _BROKEN) == 0
    spins = 0
    while _read(place, _ROUND) == this:
        if _read(place, _BROKEN) != 0:
            return False
        if spins < _SPINS:
            spins += 1
            _pause()
        else:
            _offer_core(offer)
    return _read(place, _BROKEN) == 0


def run_team(member: Callable[[int], int], members: int, place: NDArray[np.int64]) -> int:
    """Run the parts of a team, the first in this thread.

    Parameters
    ----------
    member : callable
        ``member(t)`` runs part t.
    members : int
        Number of parts.
    place : array of int64
        Where they meet. When a part fails, those that wait there are told.

    Returns
    -------
    int
        What the first part returned.

    Raises
    ------
    BaseException
        What a part raised.
    """
    if members == 1:
        return member(0)
    failed: list[BaseException] = []

    def part(t: int) -> int:
        try:
            return member(t)
        except BaseException as error:
            place[_BROKEN] = 1
            failed.append(error)
            return 0

    place[:] = 0
    others = [threading.Thread(target=part, args=(t,), name=f"bpcore-{t}", daemon=True) for t in range(1, members)]
    started = []
    try:
        for thread in others:
            thread.start()
            started.append(thread)
    except BaseException:
        place[_BROKEN] = 1
        for thread in started:
            thread.join()
        raise
    found = part(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]
    return found
