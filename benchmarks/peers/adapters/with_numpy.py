"""NumPy by hand: memory is allocated once, every operation writes into it. And the matrix products alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers.adapters.runner import PredictRunner, Runner
from benchmarks.peers.workloads import products
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload


def sigmoid(z: Any, out: Any) -> None:
    np.negative(z, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def softmax(z: Any, out: Any, column: Any) -> None:
    np.max(z, axis=1, keepdims=True, out=column)
    np.subtract(z, column, out=out)
    np.exp(out, out=out)
    np.sum(out, axis=1, keepdims=True, out=column)
    out /= column


class Layers:
    """Weights and the memory of a forward pass."""

    def __init__(self, work: Workload, weights: Any) -> None:
        self.work = work
        # one vector for all parameters, so that an update is a few calls however many layers there are
        self.theta = np.empty(work.n_parameters, np.float32)
        self.W, self.b = split(work, self.theta)
        self.H = [np.empty((work.batch, n), np.float32) for n in work.sizes[1:]]
        self.column = np.empty((work.batch, 1), np.float32)
        self.place(weights)

    def place(self, weights: Any) -> None:
        for W, b, (W_new, b_new) in zip(self.W, self.b, weights, strict=True):
            W[...], b[...] = W_new, b_new

    def forward(self, x: Any) -> Any:
        """Leave the outputs of the hidden layers in H, and the weighted inputs of the last."""
        act, last = self.work.activation, len(self.W) - 1
        for l, (W, b, h) in enumerate(zip(self.W, self.b, self.H, strict=True)):
            np.dot(x, W, out=h)
            h += b
            if l < last:
                if act == "relu":
                    np.maximum(h, 0, out=h)
                elif act == "tanh":
                    np.tanh(h, out=h)
                else:
                    sigmoid(h, out=h)
            x = h
        return x


def split(work: Workload, vector: Any) -> tuple[list[Any], list[Any]]:
    """Views of all W, then of all b, into one vector."""
    W, b, at = [], [], 0
    for n_in, n_out in work.pairs:
        W.append(vector[at : at + n_in * n_out].reshape(n_in, n_out))
        at += n_in * n_out
    for _, n_out in work.pairs:
        b.append(vector[at : at + n_out])
        at += n_out
    return W, b


class NumpyRunner(Runner):
    """The four equations."""

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__()
        self.work, self.problem = work, problem
        self.layers = Layers(work, problem.weights)
        theta = self.layers.theta
        self.gradient, self.scratch = np.empty_like(theta), np.empty_like(theta)
        self.dW, self.db = split(work, self.gradient)
        self.first, self.second = np.zeros_like(theta), np.zeros_like(theta)
        self.delta = [np.empty_like(h) for h in self.layers.H]
        self.slope = [np.empty_like(h) for h in self.layers.H]
        self.positive = [np.empty(h.shape, bool) for h in self.layers.H]
        self.ones = np.ones(work.batch, np.float32)
        self.row = np.arange(work.batch)
        self.x = np.empty((work.batch, work.sizes[0]), np.float32)
        self.y = np.empty((work.batch, work.sizes[-1]), np.float32)
        self.t = 0

    def reset(self) -> None:
        self.layers.place(self.problem.weights)
        self.first[...] = self.second[...] = self.t = 0

    def bp1(self, z: Any, rows: Any, y: Any) -> float:
        """Leave the error of the output in the last delta; return the loss."""
        work, delta, slope = self.work, self.delta[-1], self.slope[-1]
        if work.output == "softmax":
            softmax(z, delta, self.layers.column)
            labels = self.problem.labels if work.full_batch else self.problem.labels[rows]
            chosen = delta[self.row, labels]
            delta[self.row, labels] -= 1
            delta *= 1 / work.batch
            return -float(np.log(chosen).mean())
        if work.loss == "mse":
            np.subtract(z, y, out=delta)
            loss = float(np.vdot(delta, delta)) / z.size
            delta *= 2 / z.size
            return loss
        if work.loss == "binary_cross_entropy":
            loss = float((np.logaddexp(0, z) - y * z).mean())
            sigmoid(z, out=delta)
            delta -= y
            delta *= 1 / z.size
            return loss
        sigmoid(z, out=z)
        np.subtract(z, y, out=delta)
        loss = 0.5 * float(np.vdot(delta, delta)) / work.batch
        np.subtract(1, z, out=slope)
        slope *= z
        delta *= slope
        delta *= 1 / work.batch
        return loss

    def times_slope(self, l: int) -> None:
        h, delta, slope = self.layers.H[l], self.delta[l], self.slope[l]
        if self.work.activation == "relu":
            np.greater(h, 0, out=self.positive[l])
            delta *= self.positive[l]
        elif self.work.activation == "tanh":
            np.multiply(h, h, out=slope)
            np.subtract(1, slope, out=slope)
            delta *= slope
        else:
            np.subtract(1, h, out=slope)
            slope *= h
            delta *= slope

    def update(self) -> None:
        theta, g, eta, scratch = self.layers.theta, self.gradient, self.work.eta, self.scratch
        if self.work.optimizer == "sgd":
            g *= eta
            theta -= g
        elif self.work.optimizer == "momentum":
            self.first *= 0.9
            self.first += g
            np.multiply(self.first, eta, out=scratch)
            theta -= scratch
        else:
            self.first *= 0.9
            np.multiply(g, 0.1, out=scratch)
            self.first += scratch
            self.second *= 0.999
            np.multiply(g, g, out=scratch)
            scratch *= 0.001
            self.second += scratch
            np.multiply(self.second, 1 / (1 - 0.999**self.t), out=scratch)
            np.sqrt(scratch, out=scratch)
            scratch += 1e-8
            np.divide(self.first, scratch, out=scratch)
            scratch *= eta / (1 - 0.9**self.t)
            theta -= scratch

    def step(self, rows: Any) -> float:
        layers, problem = self.layers, self.problem
        self.t += 1
        if self.work.full_batch:
            x, y = problem.X, problem.Y
        else:
            x, y = self.x, self.y
            np.take(problem.X, rows, axis=0, out=x, mode="clip")  # any other mode goes through a buffer
            np.take(problem.Y, rows, axis=0, out=y, mode="clip")
        loss = self.bp1(layers.forward(x), rows, y)
        for l in range(len(layers.W) - 1, -1, -1):
            np.dot((layers.H[l - 1] if l else x).T, self.delta[l], out=self.dW[l])
            np.dot(self.ones, self.delta[l], out=self.db[l])
            if l:
                np.dot(self.delta[l], layers.W[l].T, out=self.delta[l - 1])
                self.times_slope(l - 1)
        self.update()
        return loss

    def run(self, order: Any) -> Any:
        return [self.step(rows) for rows in order]


def prepare(work: Workload, problem: Problem, threads: int) -> Runner:
    """Allocate everything."""
    if work.kind == "train":
        return NumpyRunner(work, problem)
    layers = Layers(work, problem.weights)

    def call(x: Any) -> Any:
        z = layers.forward(x)
        softmax(z, z, layers.column)
        return z.copy()  # the caller keeps it; the memory is used again

    return PredictRunner(call, problem.inputs(), lambda output: output)


class ProductsRunner(Runner):
    """Only the matrix products of a step, with transposed operands where the step has them."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.calls = []
        for product in products(work):
            m, k, n = (product.sizes[letter] for letter in "mkn")
            A, B = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
            if product.part == "BP4":  # H.T @ Delta
                A = np.ascontiguousarray(A.T).T
            elif product.part == "BP2":  # Delta @ W.T
                B = np.ascontiguousarray(B.T).T
            self.calls.append((A, B, np.empty((m, n), np.float32)))

    def reset(self) -> None:
        """Nothing is learned."""

    def run(self, order: Any) -> Any:
        for _ in range(len(order)):
            for A, B, C in self.calls:
                np.dot(A, B, out=C)
        return []


def prepare_products(work: Workload, problem: Problem, threads: int) -> Runner:
    """Matrices of the shapes of the step."""
    return ProductsRunner(work)
