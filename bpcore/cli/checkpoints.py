"""The options of ``bpcore train`` about checkpoints: a folder, how often, how many, and whether to go on."""

from __future__ import annotations

import math
from typing import Any

from bpcore.errors import ConfigurationError
from bpcore.persistence.checkpoint import Checkpoint

__all__ = ["choose_checkpoint", "describe_checkpoints", "parse_every"]

MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def choose_checkpoint(folder: str | None, every: str | None, keep: int | None, resume: bool) -> Checkpoint | None:
    """Build the declaration from the options; None without ``--checkpoint``.

    Raises
    ------
    ConfigurationError
        If an option has no meaning.
    """
    if folder is None:
        for option, given in (("--checkpoint-every", every), ("--keep-checkpoints", keep), ("--resume", resume)):
            if given:
                raise ConfigurationError(f"{option} needs --checkpoint, the folder for the checkpoints")
        return None
    how = {} if keep is None else {"keep": keep}
    return Checkpoint(folder, **parse_every(every or "10m"), **how)  # type: ignore[arg-type]


def parse_every(text: str) -> dict[str, int | float]:
    """Read how often a checkpoint is written, as the keywords of :class:`bpcore.Checkpoint`.

    Parameters
    ----------
    text : str
        ``1000`` steps, ``30s``, ``10m`` or ``2h`` of time, ``1e`` for epochs; several separated by commas.

    Examples
    --------
    >>> parse_every("1000"), parse_every("30s"), parse_every("2h,1e")
    ({'every_steps': 1000}, {'every_minutes': 0.5}, {'every_minutes': 120.0, 'every_epochs': 1})
    """
    found: dict[str, int | float] = {}
    for word in (part.strip().lower() for part in text.split(",")):
        number, unit = (word[:-1], word[-1:]) if word[-1:].isalpha() else (word, "")
        try:
            key, value = _one(number, unit)
        except ValueError:
            key, value = "", 0
        if key in found or not 0 < value < math.inf:
            raise ConfigurationError(
                f"--checkpoint-every is {text!r}; expected a number of steps (1000), a time (30s, 10m, 2h) or a number "
                "of epochs (1e), or several of different kinds separated by commas (10m,1e)"
            )
        found[key] = value
    return found


def _one(number: str, unit: str) -> tuple[str, int | float]:
    if unit == "":
        return "every_steps", int(number)
    if unit == "e":
        return "every_epochs", int(number)
    if unit not in MINUTES:
        raise ValueError(unit)
    return "every_minutes", float(number) * MINUTES[unit]


def describe_checkpoints(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows about checkpoints for the table of a run, from its record; none without checkpoints."""
    rows = []
    if record.get("resumed"):
        last = record["resumed"][-1]
        rows.append(("resumed", f"after step {last['step']:,} from {last['file']}"))
    if "checkpoint" in record:
        told = record["checkpoint"]
        failed = f", {told['failed']} could not be written" if told["failed"] else ""
        rows.append(
            ("checkpoints", f"{told['written']} written to {told['folder']} in {told['seconds']:.2f} s{failed}")
        )
    return rows
