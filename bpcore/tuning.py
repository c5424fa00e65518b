"""What ``bpcore tune`` has measured: from which size of a step on which backend, and plan, is the fastest here.

The size of a step is the number of floating-point operations of its matrix products. Small steps are bound by what each
operation costs besides computing, large ones by how fast products are; so one backend is the best up to some size, and
another one from there on. The sizes lie in one file of the cache folder. They count for the machine and the version of
bpcore that they were measured with; elsewhere, and without a file, the fixed rules hold that
:mod:`bpcore.backends.registry` and :mod:`bpcore.training.plans` state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from bpcore._version import __version__
from bpcore.backends.diagnosis import cpu, gpus
from bpcore.errors import DataError
from bpcore.settings import cache_dir

__all__ = ["Range", "Tuning", "fingerprint", "load_tuning", "step_flops", "tuning_file", "valid_tuning"]

FORMAT = "bpcore-tuning-1"


@dataclass(frozen=True)
class Range:
    """From which size of a step on something is the fastest, until the next range.

    Attributes
    ----------
    from_flops : float
        Operations of the products of a step.
    best : str
        A backend or a plan.
    """

    from_flops: float
    best: str


@dataclass(frozen=True)
class Tuning:
    """Measured choices, and where they hold.

    Attributes
    ----------
    backends : tuple of Range
        Ascending; the first begins at 0.
    plans : tuple of Range
        Of the GPU, for float32; empty without one.
    machine : dict
        What :func:`fingerprint` said when they were measured.
    when : str
        Date and time of the measurement.
    """

    backends: tuple[Range, ...]
    plans: tuple[Range, ...]
    machine: dict[str, Any]
    when: str

    def backend(self, flops: float) -> tuple[str, str]:
        """Return the fastest backend for steps of a size, and the reason."""
        return _choose(self.backends, flops, self.when)

    def plan(self, flops: float) -> tuple[str, str] | None:
        """Return the fastest plan of the GPU for steps of a size, and the reason; None if none was measured."""
        return _choose(self.plans, flops, self.when) if self.plans else None

    def as_json(self) -> str:
        """Return the text of the file."""
        found = {"format": FORMAT, "when": self.when, "machine": self.machine}
        ranges = {"backends": [asdict(part) for part in self.backends], "plans": [asdict(part) for part in self.plans]}
        return json.dumps(found | ranges, indent=1) + "\n"


def _choose(ranges: Sequence[Range], flops: float, when: str) -> tuple[str, str]:
    at = max(k for k, part in enumerate(ranges) if part.from_flops <= flops)
    end = f" to {spell(ranges[at + 1].from_flops)}" if at + 1 < len(ranges) else " on"
    where = f"from {spell(ranges[at].from_flops)}{end}" if len(ranges) > 1 else "for all sizes"
    why = f"tuned {when[:10]}: {ranges[at].best} is the fastest here {where}; a step has {spell(flops)}"
    return ranges[at].best, why


def spell(flops: float) -> str:
    """Write a number of operations.

    Examples
    --------
    >>> spell(2_500_000), spell(0)
    ('2.5 MFLOP', '0')
    """
    for unit, word in ((1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")):
        if flops >= unit:
            return f"{flops / unit:.3g} {word}"
    return f"{flops:.3g}"


def step_flops(sizes: Sequence[int], batch_size: int) -> int:
    """Return the floating-point operations of the matrix products of a step.

    Parameters
    ----------
    sizes : sequence of int
        Widths of the layers.
    batch_size : int
        Samples of a step.

    Examples
    --------
    >>> step_flops([3, 4, 2], 5)  # forward 200, BP4 200, BP2 through the second W only: 80
    480
    """
    pairs = list(pairwise(sizes))
    return 2 * batch_size * (2 * sum(a * b for a, b in pairs) + sum(a * b for a, b in pairs[1:]))


def fingerprint() -> dict[str, Any]:
    """Return what a tuning depends on: processor, cores, GPUs, and the version of bpcore."""
    facts = cpu()
    return {
        "cpu": facts["model"],
        "usable_cores": facts["usable_cores"],
        "gpus": [gpu["name"] for gpu in gpus()],
        "bpcore": __version__,
    }


def tuning_file() -> Path:
    """Return where the tuning of this machine lies; it need not exist."""
    return cache_dir() / "tuning.json"


def load_tuning(path: Path) -> Tuning:
    """Read a tuning.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Tuning

    Raises
    ------
    OSError
        If it cannot be read.
    DataError
        If it is damaged, or of another version.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, not {FORMAT!r}")
        backends, plans = (_ranges(found[name]) for name in ("backends", "plans"))
        if not backends:
            raise ValueError("it names no backend")
        return Tuning(backends, plans, dict(found["machine"]), str(found["when"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no tuning of this version ({error}); `bpcore tune` writes a new one") from None


def _ranges(rows: Sequence[Mapping[str, Any]]) -> tuple[Range, ...]:
    found = tuple(Range(float(row["from_flops"]), str(row["best"])) for row in rows)
    starts = [part.from_flops for part in found]
    if found and (starts[0] != 0 or starts != sorted(set(starts))):
        raise ValueError(f"its ranges begin at {starts}")
    return found


def valid_tuning() -> tuple[Tuning | None, str]:
    """Return the tuning that counts here, or None and the reason.

    Returns
    -------
    tuning : Tuning or None
        What ``bpcore tune`` has measured on this machine with this version.
    why_not : str
        Empty if there is one.
    """
    path = tuning_file()
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None, "this machine has not been tuned; `bpcore tune` does it"
    return _checked(path, changed)


@lru_cache(maxsize=4)
def _checked(path: Path, changed: int) -> tuple[Tuning | None, str]:
    """Read and check a tuning once for each state of its file."""
    try:
        found = load_tuning(path)
    except OSError as error:
        return None, f"the tuning cannot be read: {error}"
    except DataError as error:
        return None, str(error)
    here = fingerprint()
    other = [f"{name} was {found.machine.get(name)!r}, is {here[name]!r}" for name in here
             if found.machine.get(name) != here[name]]  # fmt: skip
    if other:
        why = f"the tuning of {found.when[:10]} does not count here ({'; '.join(other)}); run `bpcore tune` again"
        return None, why
    return found, ""
