"""tinygrad on its CPU device: the step under TinyJit, which there calls its kernels one by one from Python."""

from __future__ import annotations

import os
import shutil
from typing import Any

import numpy as np

from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import PredictRunner, Runner
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

os.environ["DEV"] = "CPU"  # read when tinygrad is imported


FUSED_BELOW = 200_000
"""Parameters below which the update is one kernel over all of them joined."""


def scores(work: Workload, theta: Any, x: Any) -> Any:
    """Weighted inputs of the last layer."""
    for W, b in theta[:-1]:
        x = getattr(x.dot(W) + b, work.activation)()
    return x.dot(theta[-1][0]) + theta[-1][1]


def loss_of(work: Workload, z: Any, y: Any) -> Any:
    if work.loss == "quadratic":
        return (z.sigmoid() - y).square().sum() * (0.5 / work.batch)
    if work.loss == "mse":
        return (z - y).square().mean()
    if work.loss == "binary_cross_entropy":
        return z.binary_crossentropy_logits(y)
    return z.sparse_categorical_crossentropy(y)


class TinygradRunner(Runner):
    """Parameters and state keep their buffers, which the jitted step captured; reset writes into them."""

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__()
        from tinygrad import Context, Tensor, TinyJit, nn

        self.work, self.problem, self.Tensor, self.training = work, problem, Tensor, Context(TRAINING=1)
        self.X = Tensor(problem.X).realize()
        # class numbers as int32: its fastest integers
        y = problem.labels.astype(np.int32) if work.loss == "cross_entropy" else problem.Y
        self.Y = Tensor(y).realize()
        self.theta = [(Tensor(W).realize(), Tensor(b).realize()) for W, b in problem.weights]
        flat = [p for pair in self.theta for p in pair]
        for p in flat:
            p.is_param_(True)
        # every kernel is called from Python: one update over all parameters pays where kernels are small
        fused = work.n_parameters < FUSED_BELOW
        momentum = 0.9 if work.optimizer == "momentum" else 0.0
        self.rule = (
            nn.optim.Adam(flat, work.eta, fused=fused)
            if work.optimizer == "adam"
            else nn.optim.SGD(flat, work.eta, momentum=momentum, fused=fused)
        )
        self.facts = {"fused_optimizer": fused}
        self.k = Tensor.zeros(1, dtype="int32").contiguous().realize()
        self.losses = Tensor.zeros(work.chunk).contiguous().realize()
        steps = Tensor.arange(work.chunk).contiguous().realize()

        @TinyJit
        def step(order: Any) -> Any:
            rows = order[self.k].reshape(-1)
            x, y = (self.X, self.Y) if work.full_batch else (self.X[rows], self.Y[rows])
            loss = loss_of(work, scores(work, self.theta, x), y)
            self.rule.zero_grad()
            loss.backward()
            # each loss has its place on the device: reading one at each step would wait for it
            self.losses.assign((steps == self.k).where(loss, self.losses))
            changed = self.rule.schedule_step()
            self.losses.realize(*changed)
            self.k.assign(self.k + 1).realize()

        self.step = step

    def reset(self) -> None:
        for (W, b), (W_new, b_new) in zip(self.theta, self.problem.weights, strict=True):
            W.assign(self.Tensor(W_new)).realize()
            b.assign(self.Tensor(b_new)).realize()
        for name in ("b", "m", "v"):
            for vector in getattr(self.rule, name, []):
                vector.assign(vector.zeros_like()).realize()
        for name in ("b1_t", "b2_t"):
            if hasattr(self.rule, name):
                power = getattr(self.rule, name)
                power.assign(power.ones_like()).realize()

    def run(self, order: Any) -> Any:
        losses, chunk = [], self.work.chunk
        index = (order[:, :1] if self.work.full_batch else order).astype(np.int32)
        with self.training:
            for start in range(0, len(order), chunk):
                rows = self.Tensor(index[start : start + chunk]).realize()
                self.k.assign(self.k.zeros_like()).realize()
                for _ in range(chunk):
                    self.step(rows)
                losses.append(self.losses.numpy())
        return losses

    def evidence(self, result: Any) -> Any:
        return np.concatenate(result).astype(np.float64)


def prepare(work: Workload, problem: Problem, threads: int) -> Runner:
    """Check for the compiler that it calls, then build."""
    compiler = os.environ.get("CC", "clang")
    if shutil.which(compiler) is None:
        raise Skip(f"its CPU device calls {compiler!r} to compile, which is not on the PATH")
    if work.kind == "train":
        return TinygradRunner(work, problem)
    from tinygrad import Tensor, TinyJit

    theta = [(Tensor(W).realize(), Tensor(b).realize()) for W, b in problem.weights]
    function = TinyJit(lambda x: scores(work, theta, x).softmax().realize())
    inputs = [Tensor(x).realize() for x in problem.inputs()]

    def call(x: Any) -> Any:
        return function(x).numpy()  # reading is how it waits

    return PredictRunner(call, inputs, lambda output: output)
