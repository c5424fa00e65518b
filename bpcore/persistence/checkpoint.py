"""Checkpoints: a folder with the last few, written from time to time, and found again after a crash."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.persistence.checkpoint_file import TEMPORARY, read_checkpoint
from bpcore.training.announcement import announce
from bpcore.training.moment import Moment

__all__ = ["Checkpoint", "Found", "as_checkpoint", "checkpoint_files", "newest_usable"]

DEFAULT_MINUTES = 10.0
_log = logging.getLogger("bpcore")
NAME = re.compile(r"checkpoint-(\d{12})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a training is written down, so that it can be resumed.

    Parameters
    ----------
    folder : str or PathLike
        A folder for the checkpoints of one training; created if it does not exist. A file is called
        ``checkpoint-<step>.safetensors`` and is a model, too: :func:`bpcore.load` reads its network.
    every_steps : int, optional
        Write one after each multiple of so many steps.
    every_minutes : float, optional
        Write one when so many minutes have passed since the last, and not before. Default 10, if nothing else is given.
    every_epochs : int, optional
        Write one after each multiple of so many epochs. If several of the three are given, each has its turn.
    keep : int
        How many of the last to keep. Default 3.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    See Also
    --------
    bpcore.train : ``checkpoint=`` and ``resume=``.

    Examples
    --------
    >>> import tempfile, bpcore as bp
    >>> X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    >>> net = bp.MLP([2, 4, 1], activation="tanh", output="sigmoid", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = bp.Checkpoint(folder, every_epochs=5)
    ...     run = bp.train(net, X, [0, 1, 1, 0], epochs=20, batch_size=4, seed=0, checkpoint=checkpoint)
    ...     [path.name for path in checkpoint.files()][:2]
    ['checkpoint-000000000020.safetensors', 'checkpoint-000000000015.safetensors']
    """

    folder: str | os.PathLike[str]
    every_steps: int | None = None
    every_minutes: float | None = None
    every_epochs: int | None = None
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_epochs", "keep"):
            value = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if (value is None and name != "keep") or (whole and value >= 1):
                continue
            raise ConfigurationError(f"Checkpoint: {name} is {value!r}; it must be a whole number of at least 1")
        minutes = self.every_minutes
        if minutes is None and self.every_steps is None and self.every_epochs is None:
            object.__setattr__(self, "every_minutes", DEFAULT_MINUTES)
        elif minutes is not None and (
            isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < float("inf")
        ):
            raise ConfigurationError(f"Checkpoint: every_minutes is {minutes!r}; it must be a number above 0")

    def files(self) -> list[Path]:
        """Return the files that are called like checkpoints, whole or not, the newest first."""
        return [path for _, path in checkpoint_files(self.folder)]

    def path_of(self, step: int) -> Path:
        """Return the file for the state after so many steps."""
        return Path(self.folder, f"checkpoint-{step:012d}.safetensors")

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable values."""
        names = ("every_steps", "every_minutes", "every_epochs", "keep")
        return {"folder": os.fspath(self.folder), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read: its file and what is in it."""

    path: Path
    moment: Moment


def as_checkpoint(value: Checkpoint | str | os.PathLike[str]) -> Checkpoint:
    """Turn the name of a folder into a declaration.

    Raises
    ------
    ConfigurationError
        If it is neither.
    """
    if isinstance(value, Checkpoint):
        return value
    if isinstance(value, str | os.PathLike):
        return Checkpoint(value)
    raise ConfigurationError(f"checkpoint is {value!r}; give a folder, or bp.Checkpoint(folder, every_minutes=10)")


def checkpoint_files(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """List step and path of the files of a folder that are called like checkpoints, the newest first."""
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            match = NAME.fullmatch(name)
            if match is not None:
                found.append((int(match[1]), Path(folder, name)))
    return sorted(found, reverse=True)


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
