"""The textbook in float64: the losses, parameters and outputs that every contender must meet, bpcore included.

Written for reading and not for speed, and apart from the rest of bpcore, because it is what bpcore is judged by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax

from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

__all__ = ["HIDDEN", "SHOWN_ROWS", "expected", "losses", "outputs", "train"]

CHUNKS = 2
"""Chunks whose losses are computed."""

SHOWN_ROWS = 64
"""Rows of an output that are compared."""

BLOCK_ROWS = 8192
"""Rows of a batch that are in memory at a time."""

HIDDEN: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sigmoid": (expit, lambda z: expit(z) * (1 - expit(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
}
"""Activations of hidden layers, and their derivatives."""


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


def backward(work: Workload, theta: list[tuple[Any, Any]], X: Any, y: Any) -> tuple[float, list[tuple[Any, Any]]]:
    """Loss of a batch, and its derivatives by W and b of each layer."""
    Z, H = forward(work, theta, X)
    loss, delta = output_and_loss(work, Z[-1], y)
    found: list[tuple[Any, Any]] = []
    for l in reversed(range(len(theta))):
        found.append((H[l].T @ delta, delta.sum(axis=0)))
        if l:
            delta = (delta @ theta[l][0].T) * HIDDEN[work.activation][1](Z[l - 1])
    return loss, found[::-1]


def in_blocks(work: Workload, theta: list[tuple[Any, Any]], X: Any, y: Any) -> tuple[float, list[tuple[Any, Any]]]:
    """Return the same, some rows at a time: the mean over a batch is a mean of the means of its blocks."""
    loss, total = 0.0, [(np.zeros(W.shape), np.zeros(b.shape)) for W, b in theta]
    for first in range(0, len(X), BLOCK_ROWS):
        now = slice(first, first + BLOCK_ROWS)
        part, gradient = backward(work, theta, X[now].astype(float), y[now].astype(float))
        share = len(X[now]) / len(X)
        loss += share * part
        for (dW, db), (dW_part, db_part) in zip(total, gradient, strict=True):
            dW += share * dW_part
            db += share * db_part
    return loss, total


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


def train(work: Workload, problem: Problem, order: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    """Take the steps of an order; return the loss of each, before its update, and the parameters after the last."""
    theta = [(W.astype(float), b.astype(float)) for W, b in problem.weights]
    memory: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {}) for _ in theta]
    found = []
    for t, rows in enumerate(order, start=1):
        loss, gradient = in_blocks(work, theta, problem.X[rows], problem.Y[rows])
        found.append(loss)
        for l, ((W, b), (dW, db)) in enumerate(zip(theta, gradient, strict=True)):
            theta[l] = (update(work, W, dW, memory[l][0], t), update(work, b, db, memory[l][1], t))
    return np.array(found), theta


def losses(work: Workload, problem: Problem, chunks: int = CHUNKS) -> Any:
    """Losses of the first chunks, one a step, each before its update."""
    return train(work, problem, problem.order(0, chunks))[0]


def outputs(work: Workload, problem: Problem, X: Any) -> Any:
    """Outputs for some rows."""
    theta = [(W.astype(float), b.astype(float)) for W, b in problem.weights]
    Z, _ = forward(work, theta, X.astype(float))
    if work.output == "identity":
        return Z[-1]
    return softmax(Z[-1], axis=1) if work.output == "softmax" else expit(Z[-1])


def expected(work: Workload, problem: Problem) -> Any:
    """What the evidence of a contender of the race is compared with: all losses, or outputs for the last inputs."""
    if work.kind == "predict":
        return outputs(work, problem, problem.inputs()[-1][:SHOWN_ROWS])
    return losses(work, problem)
