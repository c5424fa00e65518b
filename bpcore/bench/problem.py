"""Data, first weights and the order of the samples: made from a fixed seed, so each process makes the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from bpcore.bench.workload import Workload

__all__ = ["ORDERS", "Problem"]

ORDERS = 8
"""Chunks of different order; a longer run begins again."""


@dataclass(frozen=True)
class Problem:
    """What every contender is given.

    Attributes
    ----------
    X : ndarray, shape (rows, n_1)
        Inputs, in the dtype of the workload as everything else.
    Y : ndarray, shape (rows, n_L)
        Targets; one-hot for classes.
    labels : ndarray of int64, shape (rows,)
        Classes; zeros where there are none.
    weights : list of (ndarray, ndarray)
        W and b of each layer, W of shape (n_in, n_out).
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
        """Draw the problem of a workload; the data of the last ones are kept."""
        X, Y, labels = _data(work.sizes[0], work.sizes[-1], work.loss == "mse", work.rows, work.dtype.char)
        return cls(X, Y, labels, _weights(work.sizes, work.dtype.char), _orders(work))

    def order(self, first: int, chunks: int) -> Any:
        """Return sample numbers of whole chunks, from chunk ``first`` on: shape (chunks * chunk, batch)."""
        return self.orders[np.arange(first, first + chunks) % ORDERS].reshape(-1, self.orders.shape[2])

    def inputs(self) -> list[Any]:
        """Return what predict is asked, call after call of a chunk."""
        if self.orders.shape[2] == len(self.X):
            return [np.ascontiguousarray(np.roll(self.X, k, axis=0)) for k in range(self.orders.shape[1])]
        return [self.X[rows] for rows in self.orders[0]]


@lru_cache(maxsize=2)
def _data(n_in: int, n_out: int, regression: bool, rows: int, char: str) -> tuple[Any, Any, Any]:
    rng, dtype = np.random.default_rng(1), np.dtype(char)
    X = rng.standard_normal((rows, n_in), np.float32)
    teacher = np.tanh(X @ (rng.standard_normal((n_in, n_out), np.float32) / np.float32(np.sqrt(n_in))))
    labels = np.zeros(rows, np.int64)
    if regression:
        Y = teacher
    elif n_out == 1:
        labels = (teacher[:, 0] > 0).astype(np.int64)
        Y = labels[:, None]
    else:
        labels = teacher.argmax(axis=1)
        Y = np.zeros((rows, n_out), dtype)
        Y[np.arange(rows), labels] = 1
    return X.astype(dtype, copy=False), np.ascontiguousarray(Y, dtype), labels


@lru_cache(maxsize=2)
def _weights(sizes: tuple[int, ...], char: str) -> list[tuple[Any, Any]]:
    rng, dtype = np.random.default_rng(2), np.dtype(char)
    found = []
    for n_in, n_out in pairwise(sizes):
        W = rng.standard_normal((n_in, n_out), np.float32) / np.float32(np.sqrt(n_in))
        # biases that are not 0 show who forgets them
        found.append((W.astype(dtype), (0.1 * rng.standard_normal(n_out, np.float32)).astype(dtype)))
    return found


def _orders(work: Workload) -> Any:
    shape = (ORDERS, work.chunk, work.batch)
    if work.full_batch:
        return np.broadcast_to(np.arange(work.rows), shape)
    rng, steps = np.random.default_rng(3), ORDERS * work.chunk
    in_epoch = work.rows // work.batch
    epochs = [rng.permutation(work.rows)[: in_epoch * work.batch] for _ in range(-(-steps // in_epoch))]
    return np.concatenate(epochs).reshape(-1, work.batch)[:steps].reshape(shape)
