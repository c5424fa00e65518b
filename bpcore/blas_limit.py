"""Holding BLAS to a number of threads for a while, from several threads of a program at once.

The number of threads is a setting of the whole process. Two users who each save it, change it and put it back undo one
another: what the first put back the second overwrites with the limit of the first. Here the limits in force are kept
together: the smallest holds, and what was before them comes back with the end of the last.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

__all__ = ["blas_limit"]

_lock = threading.Lock()
_limits: list[tuple[int, bool]] = []
_before: dict[str, int] = {}


@contextmanager
def blas_limit(threads: int | None, *, compiled_only: bool = False) -> Iterator[None]:
    """Hold BLAS to a number of threads inside a ``with`` block.

    Parameters
    ----------
    threads : int or None
        The limit; with None nothing is done.
    compiled_only : bool, default False
        Only the library that compiled loops call, SciPy's. NumPy's, where it is another one, keeps its threads.
    """
    if threads is None:
        yield
        return
    limit = (threads, compiled_only)
    with _lock:
        _limits.append(limit)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(limit)
            _apply()


@lru_cache(maxsize=1)
def _loaded(modules: int) -> list[Any]:
    """BLAS libraries of this process. Looking takes a millisecond, so it is done again only after an import."""
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _apply() -> None:
    if any(compiled_only for _, compiled_only in _limits):
        import scipy.linalg.cython_blas  # noqa: F401  (a limit reaches only what is loaded)
    libraries = _loaded(len(sys.modules))
    of_scipy = [library for library in libraries if "scipy.libs" in library.filepath.replace("\\", "/")]
    for library in libraries:
        # where SciPy brings no library of its own, compiled loops may call any
        compiled = library in of_scipy or not of_scipy
        limits = [threads for threads, compiled_only in _limits if compiled or not compiled_only]
        if limits:
            _before.setdefault(library.filepath, library.num_threads)
            _set(library, min(limits))
        elif library.filepath in _before:
            _set(library, _before.pop(library.filepath))


def _set(library: Any, threads: int) -> None:
    """Set the threads of a library, whoever set them last.

    threadpoolctl leaves OpenBLAS to the thread that changed it first, as long as that lives, and silently ignores all
    others. Users of this module take turns, so each may; and nobody keeps that right, or the rest of the program could
    not use threadpoolctl any more.
    """
    release = getattr(library, "clear_controlling_thread", None)  # of OpenBLAS, in newer versions
    if release is not None:
        release(force=True)
    library.set_num_threads(threads)
    if release is not None:
        release()
