"""What a training is, in a form that can be written down and compared: network, rule, data, seed.

Two trainings with the same fingerprint compute the same numbers, on the same backend with the same plan and as many
threads. It is what a checkpoint is compared with before a training goes on from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.functions.activations import Activation
from bpcore.host_data import HostProblem
from bpcore.problem import Problem
from bpcore.store_problem import StoreProblem
from bpcore.training.spec import StepSpec
from bpcore.typing import IntArray, NDArray

__all__ = ["ROWS", "differences", "fingerprint"]

ROWS = 1024
"""Rows of the data whose values are looked at: all, if there are no more; else the first, the last and others at equal
distances between them."""


def fingerprint(spec: StepSpec, problem: Problem, be: Backend, *, seed: int, shuffle: bool) -> dict[str, Any]:
    """Describe a training as plain JSON.

    Parameters
    ----------
    spec : StepSpec
        What a step computes.
    problem : Problem
        The data, on a device or on the host.
    be : Backend
        Where the network is.
    seed : int
        Of shuffles and masks.
    shuffle : bool
        Whether every epoch has an order of its own.

    Returns
    -------
    dict
        ``spec`` (:meth:`~bpcore.training.spec.StepSpec.describe`), ``formulas`` (a hash for each kind of formula: names
        alone would not tell two declarations apart), ``data`` (sizes, and hashes of X, Y and weights over at most
        :data:`ROWS` rows, as the network reads them), ``seed`` and ``shuffle``.
    """
    whole = {
        "spec": spec.describe(),
        "formulas": _formulas(spec),
        "data": _describe_data(problem, be, spec.dtype),
        "seed": seed,
        "shuffle": shuffle,
    }
    plain: dict[str, Any] = json.loads(json.dumps(whole))  # lists instead of tuples, as a file has them
    return plain


def differences(now: Any, then: Any, name: str = "") -> list[str]:
    """List in words what differs between two fingerprints.

    Examples
    --------
    >>> differences({"seed": 1, "spec": {"batch_size": 8}}, {"seed": 1, "spec": {"batch_size": 4}})
    ['spec.batch_size is 8, that of the checkpoint 4']
    """
    if isinstance(now, dict) and isinstance(then, dict):
        found = []
        for key in dict.fromkeys([*now, *then]):
            inner = f"{name}.{key}" if name else str(key)
            found += differences(now.get(key), then.get(key), inner)
        return found
    if now == then and isinstance(now, bool) == isinstance(then, bool):
        return []
    if name.startswith(("data.X", "data.Y", "data.weights", "formulas.")):
        return [f"{name} differs"]
    return [f"{name} is {now!r:.80}, that of the checkpoint {then!r:.80}"]


def checked_rows(m: int) -> IntArray:
    """Numbers of the rows whose values are looked at, out of m.

    Examples
    --------
    >>> checked_rows(3).tolist(), len(checked_rows(10**6)), int(checked_rows(10**6)[-1])
    ([0, 1, 2], 1024, 999999)
    """
    return np.unique(np.linspace(0, m - 1, min(m, ROWS)).astype(np.int64))


def _describe_data(problem: Problem, be: Backend, dtype: Any) -> dict[str, Any]:
    rows = checked_rows(problem.m)
    arrays = _some_rows(problem, rows, be, dtype)
    return {
        "rows": problem.m,
        "inputs": int(problem.X.shape[1]),
        "outputs": int(problem.Y.shape[1]),
        "rows compared": len(rows),
        **{name: _digest(array) for name, array in arrays.items()},
        **_order_of(problem),
    }


def _order_of(problem: Problem) -> dict[str, Any]:
    """Describe what the order of an epoch depends on besides the seed: of a store, its blocks and windows."""
    if not isinstance(problem, StoreProblem):
        return {}
    order = problem.store.order
    if order.window >= order.n_blocks:
        return {"blocks": "all in one window"}
    return {"blocks": {"rows": order.block_rows, "in a window": order.window}}


def _some_rows(problem: Problem, rows: IntArray, be: Backend, dtype: Any) -> dict[str, NDArray[Any] | None]:
    """Some rows of X, Y and weights on the host, as the network reads them."""
    found: dict[str, NDArray[Any] | None] = {"X": None, "Y": None, "weights": None}
    if isinstance(problem, HostProblem):
        for name, (shape, kind) in problem.columns.items():
            found[name] = np.empty((len(rows), *shape), kind)
        problem.write(rows, {name: array for name, array in found.items() if array is not None})
        found.pop("labels", None)
        return found
    index = be.asarray(rows)
    for name, source in (("X", problem.X), ("Y", problem.Y), ("weights", problem.weights)):
        if source is not None:
            out = be.empty((len(rows), *source.shape[1:]), source.dtype)
            found[name] = be.to_numpy(be.take_rows(source, index, out=out))
    return found


def _formulas(spec: StepSpec) -> dict[str, str | None]:
    rule, loss, penalty = spec.rule, spec.loss, spec.penalty
    return {
        "activations": _hash([_of_activation(activation) for activation in spec.activations]),
        "loss": _hash([loss.formula, loss.derivative, loss.reduce, loss.target_kind, sorted(loss.pairs.items())]),
        "optimizer": _hash([str(rule.program), str(rule.scalars), rule.state, sorted(rule.state_init.items())]),
        "penalty": None if penalty is None else _hash([str(penalty.value), str(penalty.derivative)]),
    }


def _of_activation(activation: Activation) -> list[Any]:
    return [activation.formula, activation.derivative, activation.rowwise]


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _digest(array: NDArray[Any] | None) -> str | None:
    if array is None:
        return None
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(plain.reshape(-1).view(np.uint8).data).hexdigest()
