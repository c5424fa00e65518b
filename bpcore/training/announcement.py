"""Telling a user what is not as expected: one line on standard error, where somebody looks at it, and in the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from bpcore.backends.contract import Backend
from bpcore.bar import talks

__all__ = ["announce", "announced_compiling"]

TEXT = "bpcore: compiling for this machine; what is compiled is kept, and `bpcore warmup` does it ahead of time"
TEXT_OF_GPU = "bpcore: compiling kernels for this GPU; what is compiled is kept, for the next training of this kind"
"""There is no warmup for a GPU: most of its kernels are made for a network."""

_log = logging.getLogger("bpcore")
_told = False


def announce(text: str, verbose: bool | None = None, level: int = logging.INFO) -> None:
    """Log a line, and print it.

    Parameters
    ----------
    text : str
        What there is to say.
    verbose : bool or None
        True prints, False does not, None (default) prints when standard error is a terminal.
    level : int
        Of the log. Default INFO.
    """
    _log.log(level, text)
    if talks(verbose):
        print(f"bpcore: {text}", file=sys.stderr, flush=True)


@contextmanager
def announced_compiling(be: Backend, verbose: bool | None = None) -> Iterator[None]:
    """Say so, once in a process, when something is compiled inside a ``with`` block, before it takes its time.

    Nothing is said when all code is found in the cache folder.

    Parameters
    ----------
    be : Backend
        The backend that computes inside; Numba's and CuPy's compile.
    verbose : bool or None
        As for :func:`announce`.
    """
    if _told or not talks(verbose):
        yield
        return
    with _watched(be):
        yield


def _watched(be: Backend) -> AbstractContextManager[None]:
    """Listen to whatever compiles for a backend."""

    def tell() -> None:
        global _told
        if not _told:
            _told = True
            print(TEXT_OF_GPU if be.name == "cupy" else TEXT, file=sys.stderr, flush=True)

    if be.name == "cupy":
        from bpcore.kernels.cuda.build import observed as observed_nvrtc

        return observed_nvrtc(tell)
    if be.name == "numba":
        from bpcore.kernels.numba.cache import Observer, observed

        class Announcer(Observer):
            def begins(self, name: str) -> None:
                tell()

        return observed(Announcer())
    return nullcontext()
