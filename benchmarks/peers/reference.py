"""The textbook in float64: the losses and outputs that every contestant must meet, bpcore included.

Written for reading and not for speed, and apart from all adapters, because it is what they are judged by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax

from benchmarks.peers.problem import Problem
from benchmarks.peers.workloads import Workload

CHUNKS = 2
"""Chunks whose losses are computed."""

SHOWN_ROWS = 64
"""Rows of an output that are compared."""

HIDDEN = {
    "sigmoid": (expit, lambda z: expit(z) * (1 - expit(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
}


def output_and_loss(work: Workload, z: Any, y: Any) -> tuple[float, Any]:
    """Loss of a batch, the mean over its samples, and its derivative by the last weighted inputs."""
    m = len(z)
    if work.loss == "quadratic":
        a = expit(z)
        return 0.5 * float(((a - y) ** 2).sum()) / m, (a - y) * a * (1 - a) / m
    if work.loss == "mse":
        return float(((z - y) ** 2).mean()), 2 * (z - y) / z.size
    if work.loss == "binary_cross_entropy":
        return float((np.logaddexp(0, z) - y * z).mean()), (expit(z) - y) / z.size
    return -float((y * log_softmax(z, axis=1)).sum()) / m, (softmax(z, axis=1) - y) / m


def forward(work: Workload, theta: list[tuple[Any, Any]], X: Any) -> tuple[list[Any], list[Any]]:
    """Weighted inputs and outputs of every layer; the last output is left to the loss."""
    H, Z = [X], []
    for l, (W, b) in enumerate(theta, start=1):
        Z.append(H[-1] @ W + b)
        if l < len(theta):
            H.append(HIDDEN[work.activation][0](Z[-1]))
    return Z, H


def update(work: Workload, theta: Any, gradient: Any, state: dict[str, Any], t: int) -> Any:
    """One step of the update rule on one array."""
    if work.optimizer == "sgd":
        return theta - work.eta * gradient
    if work.optimizer == "momentum":
        state["v"] = 0.9 * state.get("v", 0) + gradient
        return theta - work.eta * state["v"]
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["s"] = 0.999 * state.get("s", 0) + 0.001 * gradient**2
    m_hat, s_hat = state["m"] / (1 - 0.9**t), state["s"] / (1 - 0.999**t)
    return theta - work.eta * m_hat / (np.sqrt(s_hat) + 1e-8)


def losses(work: Workload, problem: Problem, chunks: int = CHUNKS) -> Any:
    """Losses of the first chunks, one a step, each before its update."""
    theta = [(W.astype(float), b.astype(float)) for W, b in problem.weights]
    memory = [({}, {}) for _ in theta]  # type: ignore[var-annotated]
    X, Y, found = problem.X.astype(float), problem.Y.astype(float), []
    for t, rows in enumerate(problem.order(0, chunks), start=1):
        Z, H = forward(work, theta, X[rows])
        loss, delta = output_and_loss(work, Z[-1], Y[rows])
        found.append(loss)
        for l in reversed(range(len(theta))):
            W, b = theta[l]
            dW, db = H[l].T @ delta, delta.sum(axis=0)
            if l:
                delta = (delta @ W.T) * HIDDEN[work.activation][1](Z[l - 1])
            theta[l] = (update(work, W, dW, memory[l][0], t), update(work, b, db, memory[l][1], t))
    return np.array(found)


def outputs(work: Workload, problem: Problem) -> Any:
    """Outputs for the first rows of the last inputs of a chunk."""
    theta = [(W.astype(float), b.astype(float)) for W, b in problem.weights]
    Z, _ = forward(work, theta, problem.inputs()[-1][:SHOWN_ROWS].astype(float))
    return softmax(Z[-1], axis=1) if work.output == "softmax" else expit(Z[-1])


def expected(work: Workload, problem: Problem) -> Any:
    """What the evidence of a contestant is compared with."""
    return outputs(work, problem) if work.kind == "predict" else losses(work, problem)
