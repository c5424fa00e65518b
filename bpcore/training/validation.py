"""Validation: what is measured on held-out data after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bpcore.data.store import Store
from bpcore.errors import ConfigurationError
from bpcore.evaluation import Evaluator
from bpcore.host_data import HostProblem, HostRows
from bpcore.problem import Problem
from bpcore.store_problem import StoreProblem
from bpcore.training.placement import STREAMED
from bpcore.training.trainer import Trainer
from bpcore.typing import FloatArray

__all__ = ["Metric", "Validation"]

Metric = Callable[[Any, FloatArray], float]
"""A measure of the user's own: targets as given and outputs as a NumPy array, in this order."""


class Validation:
    """Held-out data and what is measured on it.

    Parameters
    ----------
    trainer : Trainer
        Gives network, backend and loss.
    data : (X, Y) or Store
        The held-out data, as given by the user.
    metrics : mapping of str to Metric, optional
        Measures besides the loss and those of :func:`bpcore.evaluate`.

    Attributes
    ----------
    m : int
        Number of held-out samples.
    """

    def __init__(self, trainer: Trainer, data: Any, metrics: Mapping[str, Metric] | None = None) -> None:
        net, be = trainer.net, trainer.be
        names = ("validation X", "validation Y")
        try:
            X, Y = (data, None) if isinstance(data, Store) else data
        except (TypeError, ValueError):
            raise ConfigurationError("validation must be a pair (X, Y)") from None
        streamed = trainer.placement is not None and trainer.placement.where == STREAMED
        kind = HostProblem if streamed and not hasattr(X, "__cuda_array_interface__") else Problem
        problem: Problem
        if isinstance(X, Store):
            problem = StoreProblem.of(net, X, trainer.loss, names=names)
        else:
            problem = kind.prepare(net, be, X, Y, trainer.loss, names=names)
        self._evaluator = Evaluator(net, be, trainer.loss, problem)
        self._metrics, self._Y = dict(metrics or {}), X.y() if isinstance(X, Store) and metrics else Y
        self.m = problem.m
        for name, metric in self._metrics.items():
            if not callable(metric) or name in self._builtin:
                raise ConfigurationError(
                    f"metric {name!r} must be a function f(Y, H) and not have the name of a built-in one "
                    f"({', '.join(self._builtin)})"
                )

    @property
    def _builtin(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self._evaluator.problem.labels is not None else ("loss", "rmse", "r2")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it adds to the history."""
        return tuple(f"val_{name}" for name in (*self._builtin, *self._metrics))

    def measure(self) -> dict[str, float]:
        """Measure the network as it is."""
        values = self._evaluator.measure()
        if self._metrics:
            net, be = self._evaluator.net, self._evaluator.be
            problem = self._evaluator.problem
            if isinstance(problem, StoreProblem):
                blocks = (net.predict(X, backend=be) for X, _ in problem.store.blocks())
                H = np.concatenate([np.asarray(be.to_numpy(block)) for block in blocks])
            else:
                X = problem.X.source if isinstance(problem.X, HostRows) else problem.X
                H = np.asarray(be.to_numpy(net.predict(X, backend=be)))
            values |= {name: float(metric(self._Y, H)) for name, metric in self._metrics.items()}
        return {f"val_{name}": value for name, value in values.items()}
