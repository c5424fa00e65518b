"""The folder of the checkpoints of a training: made ready before it, and searched for the newest whole file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.persistence.checkpoint import Checkpoint, checkpoint_files
from bpcore.persistence.checkpoint_file import TEMPORARY, read_checkpoint
from bpcore.training.announcement import announce
from bpcore.training.moment import Moment

__all__ = ["Found", "newest_usable", "open_folder"]

_log = logging.getLogger("bpcore")


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read: its file and what is in it."""

    path: Path
    moment: Moment


def newest_usable(folder: str | os.PathLike[str], warn: Callable[[str], None] = _log.warning) -> Found:
    """Read the newest checkpoint that is whole, and say which ones are not.

    Parameters
    ----------
    folder : str or PathLike
        With at least one file that is called like a checkpoint.
    warn : callable
        Receives a line for each file that is passed over. Default: the log.

    Returns
    -------
    Found

    Raises
    ------
    ModelFileError
        If none can be read.
    """
    reasons = []
    for _, path in checkpoint_files(folder):
        try:
            return Found(path, read_checkpoint(path))
        except ModelFileError as error:
            reasons.append(str(error))
            warn(f"a checkpoint cannot be used and is passed over: {error}")
    raise ModelFileError(
        f"none of the {len(reasons)} checkpoints in {os.fspath(folder)} can be used: {'; '.join(reasons)}. Remove "
        "them to begin afresh"
    )


def open_folder(checkpoint: Checkpoint, resume: bool, verbose: bool | None) -> Found | None:
    """Make a folder ready for the checkpoints of a training.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where.
    resume : bool
        Whether to go on from the newest checkpoint there is.
    verbose : bool or None
        As for :func:`bpcore.train`.

    Returns
    -------
    Found or None
        Where to go on; None to begin afresh.

    Raises
    ------
    ModelFileError
        If the folder cannot be made or written to, or holds checkpoints of which none can be used.
    ConfigurationError
        If it holds checkpoints and the training is to begin afresh.
    """
    folder = Path(checkpoint.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"cannot make the folder {folder} for checkpoints: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK):
        raise ModelFileError(f"cannot write checkpoints: no permission to write in {folder}")
    files = checkpoint_files(folder)
    if files and not resume:
        raise ConfigurationError(
            f"{folder} holds {len(files)} checkpoints of a training, the newest after step {files[0][0]}; resume=True "
            "(on the command line --resume) goes on from it, another folder leaves it alone"
        )
    for leftover in _leftovers(folder):
        with suppress(OSError):
            leftover.unlink()
    if not files:
        if resume:
            announce(f"there is no checkpoint in {folder}; the training begins afresh", verbose)
        return None
    return newest_usable(folder, lambda text: announce(text, verbose, logging.WARNING))


def _leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files of a process that was killed while it wrote."""
    return folder.glob(f".{TEMPORARY}-*.tmp")
