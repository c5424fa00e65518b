"""Writing a file so that a reader finds the old content or the new, never half of either."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from bpcore.errors import BpcoreError, ModelFileError

__all__ = ["check_writable", "replacing", "write_all", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: bytes, *, temporary: str = "bpcore") -> None:
    """Write `data` to `path`, replacing an existing file in one step.

    Parameters
    ----------
    path : str or PathLike
        The file. Its folder must exist. A symbolic link is followed; an existing file keeps its permissions.
    data : bytes
        The new content.
    temporary : str
        The temporary file is called ``.NAME-....tmp``, by which one can tell what a killed process has left.

    Raises
    ------
    ModelFileError
        If it cannot be written (no such folder, no permission, disk full, ...). An existing file is unchanged
        then, and nothing is left behind.

    Notes
    -----
    The content goes to a temporary file in the same folder, is forced to the disk (fsync), and takes the
    place of the old file by a rename, which POSIX and Windows make atomic. On POSIX the folder is forced to
    the disk too.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "file")
    ...     write_atomically(path, b"new")
    ...     path.read_bytes()
    b'new'
    """
    with replacing(path, temporary=temporary) as descriptor:
        write_all(descriptor, data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, temporary: str = "bpcore") -> Iterator[int]:
    """Open a temporary file that takes the place of `path` at the end, or vanishes if something is raised.

    Parameters
    ----------
    path, temporary : str or PathLike, str
        As for :func:`write_atomically`.

    Yields
    ------
    int
        The descriptor to write to, with :func:`write_all` or ``os.fdopen(descriptor, "wb", closefd=False)``.

    Raises
    ------
    ModelFileError
        As :func:`write_atomically`.
    """
    shown, target = os.fspath(path), check_writable(path)
    beside = target.parent / f".{temporary}-{secrets.token_hex(8)}.tmp"
    # 0o666 before the umask: a model is as readable as any other file of its owner.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(beside, flags, 0o666)
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(beside, target)
    except BaseException as error:
        # BaseException: Ctrl-C in the middle must not leave the temporary file behind either.
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and not isinstance(error, BpcoreError):
            reason, state = error.strerror or str(error), "unchanged" if target.exists() else "not created"
            raise ModelFileError(f"cannot write {shown}: {reason}; the file is {state}") from error
        raise
    _sync_folder(target.parent)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Find out early whether a file could be written, without touching anything.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    Path
        Where it would be written, links followed.

    Raises
    ------
    ModelFileError
        If `path` is a folder, or its folder does not exist or may not be written to.
    """
    shown, target = os.fspath(path), Path(os.path.realpath(path))
    if target.is_dir():
        raise ModelFileError(f"cannot write {shown}: it is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise ModelFileError(f"cannot write {shown}: there is no folder {target.parent}; create it first")
    if not os.access(target.parent, os.W_OK):
        raise ModelFileError(f"cannot write {shown}: no permission to write in {target.parent}")
    return target


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data, however little of it the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    """Force the rename to the disk where that is possible; the content is safe in any case."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse to sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
