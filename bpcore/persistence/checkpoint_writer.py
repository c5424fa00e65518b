"""Writing checkpoints between the stretches of a training: when it is time to, and which older ones then may go."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.persistence.checkpoint import Checkpoint, as_checkpoint, checkpoint_files
from bpcore.persistence.checkpoint_file import check_describable, write_checkpoint
from bpcore.persistence.checkpoint_folder import Found, open_folder
from bpcore.training.announcement import announce
from bpcore.training.fingerprint import differences
from bpcore.training.moment import MADE_BY, capture, facts_of, restore

if TYPE_CHECKING:
    from bpcore.training.session import Session

__all__ = ["CheckpointWriter"]

MAY_DIFFER = "epochs, stop, callbacks, validation, keep, verbose, backend, plan and threads"


class CheckpointWriter:
    """Writes down a session from time to time; see :class:`~bpcore.training.session.Saver`.

    A checkpoint that cannot be written (a full disk, say) is told aloud and does not end the training: what was
    written before is still there, and the next one is tried as usual. How many have failed is in the record.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where and how often.
    verbose : bool or None
        As for :func:`bpcore.train`.
    found : Found, optional
        Where the training goes on.

    Attributes
    ----------
    record : dict
        The settings, how many checkpoints were written and how many could not be, and the seconds that took.
    """

    def __init__(self, checkpoint: Checkpoint, verbose: bool | None, found: Found | None = None) -> None:
        self.checkpoint, self.verbose, self._found = checkpoint, verbose, found
        self.record: dict[str, Any] = {**checkpoint.describe(), "written": 0, "failed": 0, "seconds": 0.0, "bytes": 0}
        self._last_time = time.monotonic()
        self._last_step = 0

    @classmethod
    def open(
        cls, checkpoint: Checkpoint | str | os.PathLike[str], resume: bool, verbose: bool | None
    ) -> CheckpointWriter:
        """Make the folder ready, and find out where to go on (``checkpoint_folder.open_folder``)."""
        wanted = as_checkpoint(checkpoint)
        return cls(wanted, verbose, open_folder(wanted, resume, verbose))

    @property
    def every_steps(self) -> int | None:
        """At multiples of how many steps a stretch must end."""
        return self.checkpoint.every_steps

    def seed(self, given: int | None) -> int | None:
        """Return the seed of the training that goes on, if none was given."""
        if given is None and self._found is not None:
            stored = self._found.moment.facts["fingerprint"].get("seed")
            return stored if isinstance(stored, int) else None
        return given

    def begin(self, session: Session) -> str | None:
        """Bring a session to where it goes on.

        Returns
        -------
        str or None
            Why there is nothing left to do, if a stopping rule says so.

        Raises
        ------
        ConfigurationError
            If the checkpoint is of another training.
        ModelFileError
            If what describes the training is not plain JSON, or the checkpoint is damaged.
        """
        record, found, over = session.record, self._found, None
        record["checkpoint"], record["resumed"] = self.record, []
        if found is not None:
            facts, file = found.moment.facts, os.fspath(found.path)
            differing = differences(session.fingerprint, facts["fingerprint"])
            if differing:
                raise ConfigurationError(
                    f"the training cannot go on from {file}: {'; '.join(differing)}. Only {MAY_DIFFER} may differ. Ask "
                    "for what the checkpoint has, or begin afresh in another folder"
                )
            over = restore(session, found.moment, file)
            here = {"file": file, "step": found.moment.step, "epoch": facts["epoch"], "seconds": facts["seconds"]}
            record["resumed"] = [*facts["resumed"], here]
            self._say_what_differs(session, facts["made by"])
            announce(f"the training goes on after step {found.moment.step}, from {file}", self.verbose)
        self._found = None
        self._last_time, self._last_step = time.monotonic(), session.trainer.state.step
        check_describable(session.trainer.net, facts_of(session), session.notes)
        return over

    def _say_what_differs(self, session: Session, made_by: dict[str, Any]) -> None:
        others = differences({key: session.record[key] for key in MADE_BY}, made_by)
        if others:
            announce(f"{'; '.join(others)}: results go on alike to rounding, and not bit for bit", self.verbose)

    def look(self, session: Session, *, epoch_ended: bool = False) -> None:
        """Write the session down if it is time to; called between stretches, and after the end of an epoch."""
        wanted, state = self.checkpoint, session.trainer.state
        by_steps = wanted.every_steps is not None and state.step % wanted.every_steps == 0
        by_epochs = wanted.every_epochs is not None and epoch_ended and state.epoch % wanted.every_epochs == 0
        minutes = (time.monotonic() - self._last_time) / 60
        by_time = wanted.every_minutes is not None and minutes >= wanted.every_minutes
        if state.step > self._last_step and (by_steps or by_epochs or by_time):
            self._write(session, None)

    def finish(self, session: Session, reason: str) -> None:
        """Write the session down as it has ended."""
        if session.trainer.state.step > 0:
            self._write(session, {"reason": reason, "by": session.ended_by})

    def _write(self, session: Session, ended: dict[str, str] | None) -> None:
        begun, step = time.perf_counter(), session.trainer.state.step
        path = self.checkpoint.path_of(step)
        try:
            moment = capture(session, ended)
            self.record["bytes"] = write_checkpoint(path, session.trainer.net, moment, session.notes)
            self.record["written"] += 1
            self._remove_older(step)
        except ModelFileError as error:
            self.record["failed"] += 1
            announce(f"no checkpoint after step {step}: {error}", self.verbose, logging.WARNING)
        self.record["seconds"] += time.perf_counter() - begun
        self._last_time, self._last_step = time.monotonic(), step

    def _remove_older(self, step: int) -> None:
        """Keep the last ones up to a step. What is newer was not usable, or this training would have begun there."""
        older = [path for number, path in checkpoint_files(self.checkpoint.folder) if number <= step]
        for path in older[self.checkpoint.keep :]:
            with suppress(OSError):
                path.unlink()
