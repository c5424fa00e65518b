"""Checkpoints, declared: a folder with the last few of a training, and how often one is written."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpcore.errors import ConfigurationError
from bpcore.settings import check_count

__all__ = ["Checkpoint", "as_checkpoint", "checkpoint_files"]

DEFAULT_MINUTES = 10.0
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
            if value is not None or name == "keep":
                check_count(f"Checkpoint: {name}", value)
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
