"""Validation data of an estimator: the loss, and the score that scikit-learn's early stopping goes by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bpcore.evaluation import Evaluator
from bpcore.problem import Problem
from bpcore.training.trainer import Trainer
from bpcore.training.validation import Validation
from bpcore.typing import FloatArray

__all__ = ["HeldOut"]


class HeldOut(Validation):
    """Held-out data that is measured after every epoch.

    Parameters
    ----------
    trainer : Trainer
        Gives network, backend and loss.
    X : ndarray, shape (m, n)
        Inputs.
    Y : ndarray
        Targets, as for :func:`bpcore.train`.
    weights : ndarray, shape (m,), or None
        Of the samples.
    score : callable or None
        Score of outputs, where it is not the accuracy of classes or the R^2 of one output, which are measured with the
        loss.
    """

    def __init__(
        self,
        trainer: Trainer,
        X: FloatArray,
        Y: Any,
        weights: Any,
        score: Callable[[FloatArray], float] | None,
    ) -> None:
        net, be = trainer.net, trainer.be
        names = ("validation X", "validation y")
        problem = Problem.prepare(net, be, X, Y, trainer.loss, sample_weight=weights, names=names)
        self._evaluator = Evaluator(net, be, trainer.loss, problem)
        self._score, self.m = score, problem.m

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it adds to the history."""
        return ("val_loss", "val_score")

    def measure(self) -> dict[str, float]:
        """Measure the network as it is."""
        evaluator = self._evaluator
        values = evaluator.measure()
        if self._score is not None:
            H = np.asarray(evaluator.be.to_numpy(evaluator.net.predict(evaluator.problem.X, backend=evaluator.be)))
            score = self._score(H) if np.isfinite(H).all() else float("nan")
        elif "accuracy" in values:
            score = values["accuracy"]
        else:  # what R^2 is for targets that are all alike
            score = values["r2"] if evaluator.spread > 0 else float(values["rmse"] == 0)
        return {"val_loss": values["loss"], "val_score": score}
