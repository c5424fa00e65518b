"""One checkpoint in one file: a model file that also holds what a training needs to go on.

The tensors ``W1``, ``b1``, ... and the description are those of a model (:mod:`bpcore.persistence.model_file`), so that
``bpcore.load`` reads the network. The further tensors are the arrays of a :class:`~bpcore.training.moment.Moment`, and
the description has the further entry ``checkpoint``:

===============  ========================================================================================
key              content
===============  ========================================================================================
version          of this layout (an integer)
shapes           shape of each further tensor
facts            those of the moment; a float that JSON does not have is ``{"float": "nan"}``
===============  ========================================================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.errors import ModelFileError
from bpcore.persistence.model_file import (
    CHECKPOINT,
    expected_tensors,
    model_description,
    model_tensors,
    parameters_of,
)
from bpcore.persistence.tensor_file import Expected, checked_json, damaged, read_tensors, write_tensors
from bpcore.training.history import COUNTS
from bpcore.training.moment import CARRIED, STATE, Moment
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["check_describable", "read_checkpoint", "write_checkpoint"]

VERSION = 1
TEMPORARY = "bpcore-checkpoint"
"""Begin of the names of temporary files; see :func:`~bpcore.persistence.atomic.write_atomically`."""

LARGEST = 2**64
"""Of whole numbers; those of Python may be larger than any float."""

_NOTHING = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "epoch": (int,),
    "running": (dict,),
    "schedule": (dict,),
    "stop": (dict,),
    "best": (dict, _NOTHING),
    "columns": (list,),
    "seconds": (float,),
    "ended": (dict, _NOTHING),
    "resumed": (list,),
    "made by": (dict,),
    "fingerprint": (dict,),
}
_OTHERS = {"epoch": "float64", "history": "float64", "history_has": "bool", "steps": "float64"}
"""Arrays that are no vector of parameters and belong to no plan, and their dtypes."""


def write_checkpoint(path: str | os.PathLike[str], net: MLP, moment: Moment, notes: dict[str, Any]) -> int:
    """Write a checkpoint, replacing an existing file in one step.

    Parameters
    ----------
    path : str or PathLike
        The file; its folder must exist.
    net : MLP
        The network that is trained, as it is at the moment.
    moment : Moment
        What :func:`~bpcore.training.moment.capture` has returned.
    notes : dict
        What ``meta`` holds besides the network's own.

    Returns
    -------
    int
        Length of the file in bytes.

    Raises
    ------
    ModelFileError
        If a parameter is not finite, something is not plain JSON, or the file cannot be written.
    """
    tensors = model_tensors(net, path)
    # in the order that a reader finds them in, because the checksum follows it
    shapes = {name: list(moment.arrays[name].shape) for name in sorted(moment.arrays)}
    description = _describe(net, moment.facts, shapes, notes)
    for name in shapes:
        tensors[name] = np.ascontiguousarray(moment.arrays[name])
    return write_tensors(path, description, tensors, what="what describes the training", temporary=TEMPORARY)


def check_describable(net: MLP, facts: dict[str, Any], notes: dict[str, Any]) -> None:
    """Find out before the training whether its checkpoints could be written: whether what describes it is JSON.

    Raises
    ------
    ModelFileError
        If not.
    """
    checked_json(_describe(net, facts, {}, notes), "a checkpoint cannot be written: net.meta, or the state of a rule,")


def read_checkpoint(path: str | os.PathLike[str]) -> Moment:
    """Read and check a checkpoint.

    Parameters
    ----------
    path : str or PathLike
        The file.

    Returns
    -------
    Moment

    Raises
    ------
    ModelFileError
        If there is no such file, or it is a model file or something else, or it is damaged.
    """
    shown = os.fspath(path)
    description, tensors = read_tensors(path, expected_tensors)
    if CHECKPOINT not in description:
        raise ModelFileError(f"{shown} is a model file, not a checkpoint: it does not say how its training goes on")
    whole = description[CHECKPOINT]
    try:
        facts = _decode(whole["facts"])
    except (ValueError, RecursionError) as error:
        raise damaged(shown, f"the facts of its checkpoint cannot be read: {error!s:.200}") from error
    _check_facts(shown, facts, whole["shapes"])
    arrays = {name: tensors[name] for name in whole["shapes"]}
    _check_history(shown, facts, arrays)
    return Moment(facts, arrays, parameters_of(shown, description["sizes"], tensors))


def expected_of_moment(path: str, description: dict[str, Any]) -> Expected:
    """Return which tensors a checkpoint has besides those of its model; sizes and dtype are checked already.

    Raises
    ------
    ModelFileError
        If the entry ``checkpoint`` is not what it should be.
    """
    whole = description[CHECKPOINT]
    version = whole.get("version") if isinstance(whole, dict) else None
    if type(version) is not int or version < 1:
        raise damaged(path, "its entry checkpoint is not that of a checkpoint")
    if version > VERSION:
        raise ModelFileError(
            f"{path} has the checkpoint format {version!r:.80}, written by bpcore {description['bpcore']!s:.80}; this "
            f"bpcore reads formats up to {VERSION}: pip install --upgrade bpcore"
        )
    shapes, dtype = whole.get("shapes"), description["dtype"]
    if not isinstance(shapes, dict) or not isinstance(whole.get("facts"), dict):
        raise damaged(path, "its checkpoint lacks shapes or facts")
    sizes = description["sizes"]
    n = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    expected: Expected = {}
    for name, shape in shapes.items():
        if not isinstance(shape, list) or any(type(k) is not int or k < 0 for k in shape):
            raise damaged(path, f"the shape of {name!r:.80} is {shape!r:.80}")
        dense = name == "best" or name.startswith(STATE)
        if dense and shape != [n]:
            raise damaged(path, f"{name!r:.80} has shape {shape!r:.80}; there are {n!r:.80} parameters")
        if not dense and not name.startswith(CARRIED) and name not in _OTHERS:
            raise damaged(path, f"it has the array {name!r:.80}, which no checkpoint has")
        kind = dtype if dense or name.startswith(CARRIED) else _OTHERS[name]
        expected[name] = kind, shape
    absent = [name for name in ("epoch", "history", "history_has") if name not in shapes]
    if absent:
        raise damaged(path, f"its checkpoint lacks {', '.join(absent)}")
    return expected


def _describe(net: MLP, facts: dict[str, Any], shapes: dict[str, list[int]], notes: dict[str, Any]) -> dict[str, Any]:
    description = model_description(net)
    description["meta"] = description["meta"] | notes
    description[CHECKPOINT] = {"version": VERSION, "shapes": shapes, "facts": _encode(facts)}
    return description


def _check_facts(path: str, facts: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    """Check the type of every fact, as far as reading depends on it."""
    for key, kind in _TYPES.items():
        if key not in facts or not isinstance(facts[key], kind) or isinstance(facts[key], bool):
            raise damaged(path, f"{key} is {facts.get(key)!r:.80}")
    numbers = [facts["step"], facts["epoch"], facts["seconds"]]
    best, ended, columns = facts["best"], facts["ended"], facts["columns"]
    rows = shapes["history"][0] if shapes["history"] else -1
    fine: list[Callable[[], bool]] = [
        lambda: all(0 <= number < 2**62 for number in numbers),
        lambda: all(isinstance(column, str) for column in columns) and len(set(columns)) == len(columns),
        lambda: shapes["history"] == shapes["history_has"] == [rows, len(columns)],
        lambda: rows == facts["epoch"] and (rows == 0 or {*COUNTS, "loss", "seconds"} <= set(columns)),
        lambda: len(shapes["epoch"]) == 2 and shapes["epoch"][0] == 3,
        lambda: len(shapes.get("steps", [0])) == 1,
        lambda: all(_is_number(value) for value in facts["running"].values()),
        lambda: isinstance(facts["stop"].get("rule"), str) and isinstance(facts["stop"].get("state"), dict),
        lambda: (best is not None) == ("best" in shapes),
        lambda: best is None or (isinstance(best.get("column"), str) and _is_number(best.get("value"))),
        lambda: best is None or type(best.get("epoch")) is int,
        lambda: ended is None or all(isinstance(ended.get(key), str) for key in ("reason", "by")),
        lambda: all(isinstance(entry, dict) for entry in facts["resumed"]),
    ]
    if not all(test() for test in fine):
        raise damaged(path, "the facts of its checkpoint do not fit one another")


def _check_history(path: str, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Check the columns that a training reads: each row has them, and epochs and steps are counted."""
    columns, values, there = facts["columns"], arrays["history"], arrays["history_has"]
    if not len(values):
        return
    needed = [columns.index(name) for name in ("loss", "seconds", *COUNTS)]
    epochs, steps = (values[:, columns.index(name)] for name in COUNTS)
    counted = (epochs == np.arange(1, len(values) + 1)).all() and (np.diff(steps, prepend=0) > 0).all()
    if not (counted and steps[-1] <= facts["step"] and there[:, needed].all()):
        raise damaged(path, "its history does not count epochs and steps")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _encode(value: Any) -> Any:
    """Write what JSON does not have in terms of what it has."""
    if isinstance(value, dict):
        return {key: _encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"float"}:
            if value["float"] not in ("nan", "inf", "-inf"):
                raise ValueError(f"{value['float']!r:.80} is no number")
            return float(value["float"])
        return {key: _decode(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_decode(entry) for entry in value]
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a whole number is larger than any that a training has")
    return value
