"""A moment of a training: everything that the steps after it depend on, on the host.

:func:`capture` takes it between two stretches of steps, :func:`restore` puts it into a session that has just begun.
What draws random numbers needs no state: they are keyed by seed, step and epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.training.history import History
from bpcore.training.step_records import StepRecords
from bpcore.training.stopping import Progress, StopRule
from bpcore.typing import FloatArray, NDArray

if TYPE_CHECKING:
    from bpcore.training.session import Session

__all__ = ["Moment", "capture", "facts_of", "restore"]

STATE, CARRIED = "state.", "plan."
"""What the names of arrays begin with: state of the update rule, and what a plan carries from step to step."""


@dataclass(frozen=True)
class Moment:
    """A training between two steps.

    Attributes
    ----------
    facts : dict
        Numbers and words, as :func:`capture` lists them; floats may be NaN or infinite.
    arrays : dict of str to ndarray
        ``state.<name>`` and ``best``, dense vectors of all parameters; ``epoch``, loss, hits and weight of the steps of
        the epoch that is not over, shape (3, steps); ``steps``, the losses of the steps before, if they are recorded;
        ``history`` and ``history_has``, shape (rows, columns); ``plan.<name>``.
    weights : list of (W, b)
        The parameters.
    """

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    weights: list[tuple[FloatArray, FloatArray]]

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.facts["step"])


def capture(session: Session, ended: dict[str, str] | None = None) -> Moment:
    """Copy what a session is at, between two stretches of steps.

    Parameters
    ----------
    session : Session
        At rest.
    ended : dict, optional
        Why it is over (``reason``) and what has ended it (``by``), if it is.

    Returns
    -------
    Moment
    """
    trainer, state = session.trainer, session.trainer.state
    be, layout = trainer.be, trainer.net.layout
    _, values, there = session.history.to_table()
    arrays: dict[str, NDArray[Any]] = {
        STATE + name: layout.pack(be.to_numpy(array)) for name, array in state.arrays.items()
    }
    arrays |= {CARRIED + name: np.array(be.to_numpy(array)) for name, array in trainer.carried.items()}
    arrays |= {"epoch": StepRecords.join(session.parts).table, "history": values, "history_has": there}
    if session.record_steps:
        arrays["steps"] = session.history.steps
    if session.best is not None:
        arrays["best"] = layout.pack(be.to_numpy(session.best[2]))
    return Moment(facts_of(session, ended), arrays, trainer.net.get_weights())


def facts_of(session: Session, ended: dict[str, str] | None = None) -> dict[str, Any]:
    """Numbers and words of a moment; parameters as for :func:`capture`.

    Returns
    -------
    dict
        ``step`` and ``epoch``, how many are finished; ``running`` and ``schedule``, of the update rule; ``stop``, the
        stopping rule in words and its state; ``best``, its column, value and epoch; ``columns`` of the history;
        ``seconds`` of training; ``ended``; ``resumed``, where the training has gone on so far; ``made by``; and the
        ``fingerprint`` (:mod:`bpcore.training.fingerprint`).
    """
    state, best = session.trainer.state, None
    if session.best is not None:
        best = {"column": session.monitored, "value": float(session.best[0]), "epoch": session.best[1]}
    return {
        "step": state.step,
        "epoch": state.epoch,
        "running": dict(state.running),
        "schedule": dict(state.schedule),
        "stop": {"rule": repr(session.rule), "state": session.rule_state},
        "best": best,
        "columns": list(session.history.columns),
        "seconds": session.seconds,
        "ended": ended,
        "resumed": session.record.get("resumed", []),
        "made by": {key: session.record[key] for key in MADE_BY},
        "fingerprint": session.fingerprint,
    }


MADE_BY = ("backend", "plan", "threads")
"""What of a record decides the last bits of a result; these may differ."""


def restore(session: Session, moment: Moment, file: str) -> str | None:
    """Put a session that has just begun where another one was.

    Parameters
    ----------
    session : Session
        With the fingerprint of the moment.
    moment : Moment
        Where to go on.
    file : str
        Where it was read from, for messages and the record.

    Returns
    -------
    str or None
        Why there is nothing left to do, if a stopping rule says so.

    Raises
    ------
    ModelFileError
        If the moment does not fit the rule that it belongs to; the network is unchanged.
    ConfigurationError
        If the best parameters are asked for, and the moment does not have them; the network is unchanged.
    """
    facts, arrays = moment.facts, moment.arrays
    trainer, state, rule = session.trainer, session.trainer.state, session.trainer.rule
    _check_fit(session, moment, file)
    _check_best(session, facts, file)
    trainer.net.set_weights(moment.weights)
    for name, array in state.arrays.items():
        _put(session, arrays[STATE + name], array)
    for name, array in trainer.carried.items():
        trainer.be.copy(trainer.be.asarray(arrays[CARRIED + name]), out=array)
    state.step, state.epoch = facts["step"], facts["epoch"]
    state.running = {name: float(facts["running"][name]) for name in rule.initial_running()}
    state.schedule = dict(facts["schedule"])
    session.history = History.from_table(facts["columns"], arrays["history"], arrays["history_has"])
    if session.record_steps:
        session.history.append_steps(arrays["steps"])
    session.parts = [StepRecords(arrays["epoch"])] if arrays["epoch"].size else []
    session.begun = time.perf_counter() - facts["seconds"]
    best = facts["best"]
    if best is not None and session.watches_best and best["column"] == session.monitored:
        theta = trainer.be.empty(trainer.net.theta.size, trainer.net.dtype)
        _put(session, arrays["best"], theta)
        session.best = best["value"], best["epoch"], theta
    return _restore_stop(session, facts)


def _put(session: Session, dense: NDArray[Any], out: Any) -> None:
    """Bring a dense vector to the device; the gaps between the blocks hold zeros."""
    layout, be = session.trainer.net.layout, session.trainer.be
    flat = np.zeros(layout.size, dense.dtype)
    layout.unpack(dense, flat)
    be.copy(be.asarray(flat), out=out)


def _restore_stop(session: Session, facts: dict[str, Any]) -> str | None:
    """Give the stopping rule its memory back; one that is not the same learns from the history what it would know."""
    rule, stored = session.rule, facts["stop"]
    same = stored["rule"] == repr(rule) and fits(session.rule_state, stored["state"])
    if same:
        session.rule_state = stored["state"]
    else:
        _replay(rule, session.rule_state, session.history)
    if same and facts["ended"] is not None and facts["ended"]["by"] == "rule":
        return str(facts["ended"]["reason"])
    # a limit of steps or seconds may be behind us
    progress = Progress(session.trainer.state.step, session.trainer.state.epoch, session.seconds)
    return rule.observe(session.rule_state, progress)


def _replay(rule: StopRule, state: dict[str, Any], history: History) -> None:
    """Let a rule see the epochs that were."""
    for k, row in enumerate(history):
        if all(column in row for column in rule.columns()):
            previous = history[k - 1] if k else None
            rule.observe(state, Progress(int(row["step"]), int(row["epoch"]), row["seconds"], row, previous))


def fits(first: Any, found: Any) -> bool:
    """Whether a state that was read is built like the first one of a rule.

    Examples
    --------
    >>> fits({"best": None, "waited": 0}, {"best": 0.25, "waited": 3}), fits({"waited": 0}, {"waited": "long"})
    (True, False)
    """
    if isinstance(first, Mapping):
        return isinstance(found, Mapping) and set(first) == set(found) and all(fits(first[k], found[k]) for k in first)
    if isinstance(first, list | tuple):
        same = isinstance(found, list) and len(first) == len(found)
        return same and all(fits(a, b) for a, b in zip(first, found, strict=True))
    if isinstance(first, int) and not isinstance(first, bool):  # counts, which have no NaN
        return isinstance(found, int | float) and math.isfinite(found)
    if first is None or isinstance(first, float):
        return found is None or isinstance(found, int | float)
    return type(first) is type(found)


def _check_fit(session: Session, moment: Moment, file: str) -> None:
    """Refuse a moment whose parts are not those of its own rule: no training can have written it."""
    trainer, facts = session.trainer, moment.facts
    per_epoch = -(-session.problem.m // trainer.batch_size)
    wanted = {STATE + name for name in trainer.state.arrays} | {CARRIED + name for name in trainer.carried}
    found = {name for name in moment.arrays if name.startswith((STATE, CARRIED))}
    shapes = {CARRIED + name: (array.shape, array.dtype) for name, array in trainer.carried.items()}
    in_epoch = moment.arrays["epoch"].shape[1]
    kinds = [((*shape,), trainer.net.dtype) for shape in pairwise(trainer.net.sizes)]
    wrong = [
        [(W.shape, W.dtype) for W, _ in moment.weights] != kinds and "the parameters",
        found != wanted and "the state of the optimiser",
        set(facts["running"]) != set(trainer.rule.initial_running()) and "the running numbers of the optimiser",
        not fits(trainer.rule.schedule.initial_state(), facts["schedule"]) and "the state of the schedule",
        found == wanted
        and any((moment.arrays[name].shape, moment.arrays[name].dtype) != kind for name, kind in shapes.items())
        and "what the plan carries",
        facts["step"] != facts["epoch"] * per_epoch + in_epoch and "the number of steps",
        in_epoch >= per_epoch and "the position in the epoch",
        session.record_steps and "steps" in moment.arrays
        and len(moment.arrays["steps"]) != facts["step"] - in_epoch and "the losses of the steps",
    ]  # fmt: skip
    names = [what for what in wrong if what]
    if names:
        raise ModelFileError(
            f"{file} is a damaged or altered checkpoint: {', '.join(map(str, names))} cannot be that of its own "
            "training; remove the file, and the one before it is used"
        )
    if session.record_steps and "steps" not in moment.arrays:
        raise ConfigurationError(
            f"record_steps=True needs the losses of all steps, and those before {file} were not recorded; resume with "
            "record_steps=False"
        )


def _check_best(session: Session, facts: dict[str, Any], file: str) -> None:
    """Refuse to look for the best epoch among those after the moment only."""
    best = facts["best"]
    known = best is not None and best["column"] == session.monitored
    if session.keep_best and not known and facts["epoch"]:
        kept = "none" if best is None else f"those by {best['column']}"
        raise ConfigurationError(
            f"the parameters of the best epoch by {session.monitored} are asked for; {file} has {kept}, and the epochs "
            "before it cannot be measured again. Resume with keep='last', or with the same keep, stop and validation"
        )
