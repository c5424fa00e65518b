"""Data, first weights and the order of the samples: made from a fixed seed, so each worker makes the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.workloads import Workload

ORDERS = 8
"""Chunks of different order; a longer run begins again."""


@dataclass(frozen=True)
class Problem:
    """What every contestant is given.

    Attributes
    ----------
    X : ndarray of float32, shape (rows, n_1)
    Y : ndarray of float32, shape (rows, n_L)
        Targets; one-hot for classes.
    labels : ndarray of int64, shape (rows,)
        Classes; zeros where there are none.
    weights : list of (ndarray, ndarray)
        W and b of each layer, float32, W of shape (n_in, n_out).
    orders : ndarray of int64, shape (ORDERS, chunk, batch)
        Sample numbers, epoch after epoch of shuffled rows.
    """

    X: Any
    Y: Any
    labels: Any
    weights: list[tuple[Any, Any]]
    orders: Any

    @classmethod
    def make(cls, work: Workload) -> Problem:
        """Draw the problem of a workload."""
        rng = np.random.default_rng(1)
        n_in, n_out = work.sizes[0], work.sizes[-1]
        X = rng.normal(size=(work.rows, n_in)).astype(np.float32)
        teacher = np.tanh(X @ (rng.normal(size=(n_in, n_out)) / np.sqrt(n_in)).astype(np.float32))
        labels = np.zeros(work.rows, np.int64)
        if work.loss == "mse":
            Y = teacher
        elif n_out == 1:
            labels = (teacher[:, 0] > 0).astype(np.int64)
            Y = labels[:, None]
        else:
            labels = teacher.argmax(axis=1)
            Y = np.eye(n_out, dtype=np.float32)[labels]
        weights = [
            ((rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), (0.1 * rng.normal(size=b)).astype(np.float32))
            for a, b in work.pairs
        ]
        return cls(X, np.ascontiguousarray(Y, np.float32), labels, weights, _orders(work, rng))

    def order(self, first: int, chunks: int) -> Any:
        """Return sample numbers of whole chunks, from chunk ``first`` on: shape (chunks * chunk, batch)."""
        return self.orders[np.arange(first, first + chunks) % ORDERS].reshape(-1, self.orders.shape[2])

    def inputs(self) -> list[Any]:
        """Return what predict is asked, call after call of a chunk."""
        if self.orders.shape[2] == len(self.X):
            return [np.ascontiguousarray(np.roll(self.X, k, axis=0)) for k in range(self.orders.shape[1])]
        return [self.X[rows] for rows in self.orders[0]]


def _orders(work: Workload, rng: np.random.Generator) -> Any:
    if work.full_batch:
        shape = (ORDERS, work.chunk, work.batch)
        return np.broadcast_to(np.arange(work.rows), shape)
    steps = ORDERS * work.chunk
    in_epoch = work.rows // work.batch
    epochs = [rng.permutation(work.rows)[: in_epoch * work.batch] for _ in range(-(-steps // in_epoch))]
    return np.concatenate(epochs).reshape(-1, work.batch)[:steps].reshape(ORDERS, work.chunk, work.batch)
