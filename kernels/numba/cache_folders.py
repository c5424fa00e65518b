"""The folders of compiled code, one for each version of the kernels: what they hold, and which may go.

Other sources or another Numba begin a folder of their own (:mod:`bpcore.kernels.numba.cache`), so the folders of
earlier versions stay behind. Here they are listed, removed, and, where they cannot be written, shown elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["UNUSED_SECONDS", "CacheFolder", "list_folders", "mark_used", "overlay", "prune"]

UNUSED_SECONDS = 90 * 24 * 3600
"""A folder of another version that no process has begun to use for so long is removed when a new version begins."""

_DIGEST = re.compile(r"[0-9a-f]{16}")
_COMPILED = ".nbc"


@dataclass(frozen=True)
class CacheFolder:
    """What one version of the kernels has left on disk.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    functions : tuple of str
        Names of the compiled functions, sorted, once for each signature.
    size : int
        Bytes of all files.
    used : float
        When a process last began to use it, in seconds since the epoch.
    """

    path: Path
    functions: tuple[str, ...]
    size: int
    used: float

    @classmethod
    def read(cls, path: Path) -> CacheFolder:
        """Look at a folder; files that vanish meanwhile are not counted."""
        names, size = [], 0
        for file in path.rglob("*"):
            with contextlib.suppress(OSError):
                size += file.stat().st_size if file.is_file() else 0
                if file.suffix == _COMPILED:
                    names.append(_function_name(file.name))
        used = 0.0
        with contextlib.suppress(OSError):
            used = path.stat().st_mtime
        return cls(path, tuple(sorted(names)), size, used)


def _function_name(file: str) -> str:
    """Return the name of the function in a name such as ``rowwise.total-117.py311.1.nbc``."""
    name = file.rpartition("-")[0]
    # a printed function lies in a module of its own, whose name ends in a digest
    return re.sub(r"_[0-9a-f]{12}\.(piece|kernel)$", "", name)


def list_folders(parent: Path) -> list[CacheFolder]:
    """Return what lies in ``<cache folder>/numba``, the most recently used first.

    Parameters
    ----------
    parent : pathlib.Path
        The folder that holds one folder for each version; it need not exist.

    Returns
    -------
    list of CacheFolder
        Only of what looks like ours: folders with the name of a digest, no links.
    """
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return []
    ours = [path for path in entries if _DIGEST.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    return sorted((CacheFolder.read(path) for path in ours), key=lambda found: -found.used)


def mark_used(path: Path) -> None:
    """Note that a process begins to use a folder."""
    with contextlib.suppress(OSError):
        os.utime(path)


def prune(keep: Path, unused_seconds: float = 0.0) -> list[CacheFolder]:
    """Remove the folders of other versions.

    A process that still runs another version is not harmed: the code that it has loaded is in its memory, and what
    it asks for afterwards it compiles again. A folder is renamed before its files go, so nobody ever finds half of it.

    Parameters
    ----------
    keep : pathlib.Path
        The folder of this version; the others are beside it.
    unused_seconds : float, default 0
        Only those that no process has begun to use for so long.

    Returns
    -------
    list of CacheFolder
        What was removed. What cannot be removed stays, without an error.
    """
    removed = []
    for found in list_folders(keep.parent):
        if found.path == keep or time.time() - found.used < unused_seconds:
            continue
        grave = found.path.with_name(f".{found.path.name}-{os.getpid()}")
        try:
            found.path.rename(grave)
        except OSError:
            continue
        shutil.rmtree(grave, ignore_errors=True)
        removed.append(found)
    return removed


def overlay(source: Path, target: Path) -> int:
    """Show what a folder that cannot be written holds in one that can.

    Links take the place of copies where the system lets us make them. New files replace links, nothing is ever
    written through one.

    Parameters
    ----------
    source : pathlib.Path
        A folder of compiled code, for this version of the kernels.
    target : pathlib.Path
        An empty folder.

    Returns
    -------
    int
        Number of compiled functions.
    """
    from numba.core.caching import _CacheLocator

    printed = str(_CacheLocator.get_suitable_cache_subpath(str(target / "text.py")))
    functions = 0
    for file in source.rglob("*"):
        place = file.relative_to(source)
        if file.suffix not in (".py", ".nbi", ".json", _COMPILED) or not file.is_file():
            continue
        # Numba keeps the code of printed functions in a folder named after the one of their text, and its path
        parts = [printed if part.startswith(f"{source.name}_") else part for part in place.parts]
        copy = target.joinpath(*parts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            copy.symlink_to(file)
        except (OSError, NotImplementedError):
            shutil.copy2(file, copy)
        functions += file.suffix == _COMPILED
    return functions
