"""scikit-learn's MLPClassifier and MLPRegressor: partial_fit without shuffling, one call an epoch's worth of rows.

With ``shuffle=False`` and ``batch_size`` set, one call of partial_fit takes the rows in the order in which they lie,
one step a mini-batch, and pays for its checks once; a call for every mini-batch takes the same steps more slowly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import PredictRunner, Runner
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

ACTIVATIONS = {"sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


class SklearnRunner(Runner):
    """An estimator whose weights were replaced by ours."""

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__()
        if work.loss == "quadratic":
            raise Skip("its sigmoid outputs come with cross-entropy; quadratic loss and sigmoid cannot be expressed")
        self.work, self.problem, self.factor = work, problem, 1
        options: dict[str, Any] = {
            "hidden_layer_sizes": work.sizes[1:-1],
            "activation": ACTIVATIONS[work.activation],
            "solver": "adam" if work.optimizer == "adam" else "sgd",
            "alpha": 0.0,
            "batch_size": work.batch,
            "learning_rate_init": work.eta,
            "momentum": 0.9 if work.optimizer == "momentum" else 0.0,
            "nesterovs_momentum": False,
            "shuffle": False,
            "random_state": 0,
        }
        self.facts = {"partial_fit": f"one call for {work.chunk} steps, shuffle=False"}
        if work.loss == "mse":
            if work.optimizer != "adam":
                raise Skip("its squared loss is half of mse; only Adam does not care")
            # half the loss, half the gradient: Adam takes the same steps when eps is halved too
            self.factor, options["epsilon"] = 2, 0.5e-8
            self.net: Any = MLPRegressor(**options)
            self.Y, self.extra = problem.Y[:, 0], {}
        else:
            self.net = MLPClassifier(**options)
            self.Y, self.extra = problem.labels, {"classes": np.arange(max(work.sizes[-1], 2))}
        self.fit(problem.order(0, 1)[: work.chunk])  # makes its attributes; the weights are replaced below

    def fit(self, order: Any) -> None:
        if self.work.full_batch:
            for _ in order:
                self.net.partial_fit(self.problem.X, self.Y, **self.extra)
        else:
            rows = order.reshape(-1)
            self.net.partial_fit(self.problem.X[rows], self.Y[rows], **self.extra)

    def reset(self) -> None:
        for W, b, (W_new, b_new) in zip(self.net.coefs_, self.net.intercepts_, self.problem.weights, strict=True):
            W[...], b[...] = W_new, b_new
        self.net.__dict__.pop("_optimizer", None)
        self.net.loss_curve_.clear()

    def run(self, order: Any) -> Any:
        before, chunk = len(self.net.loss_curve_), self.work.chunk
        for start in range(0, len(order), chunk):
            self.fit(order[start : start + chunk])
        return self.net.loss_curve_[before:]

    def evidence(self, result: Any) -> Any:
        return self.factor * np.array(result, np.float64)


def prepare(work: Workload, problem: Problem, threads: int) -> Runner:
    """An estimator to train or to ask."""
    if work.kind == "train":
        return SklearnRunner(work, problem)
    net = MLPClassifier(work.sizes[1:-1], max_iter=1, alpha=0.0, solver="sgd", random_state=0)
    classes = np.arange(work.sizes[-1])
    net.partial_fit(problem.X[:1], [0], classes=classes)
    net.coefs_ = [W.copy() for W, _ in problem.weights]
    net.intercepts_ = [b.copy() for _, b in problem.weights]
    return PredictRunner(net.predict_proba, problem.inputs(), lambda output: output)
