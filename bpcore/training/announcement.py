"""Telling a user who waits that code is being compiled: one line on standard error, once in a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bpcore.backends.contract import Backend

__all__ = ["announced_compiling"]

TEXT = "bpcore: compiling for this machine; what is compiled is kept, and `bpcore warmup` does it ahead of time"

_told = False


@contextmanager
def announced_compiling(be: Backend, verbose: bool | None = None) -> Iterator[None]:
    """Say so when something is compiled inside a ``with`` block, before it takes its time.

    Nothing is said when all code is found in the cache folder, nor a second time.

    Parameters
    ----------
    be : Backend
        The backend that computes inside; only Numba's is watched.
    verbose : bool or None
        As for :class:`~bpcore.training.progress.ProgressBar`: True speaks, False is silent, None (default) speaks when
        standard error is a terminal.
    """
    if be.name != "numba" or _told or not (sys.stderr.isatty() if verbose is None else verbose):
        yield
        return
    from bpcore.kernels.numba.cache import Observer, observed

    class Announcer(Observer):
        def begins(self, name: str) -> None:
            global _told
            if not _told:
                _told = True
                print(TEXT, file=sys.stderr, flush=True)

    with observed(Announcer()):
        yield
