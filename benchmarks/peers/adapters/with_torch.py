"""PyTorch: eager as it is written, and torch.compile with the whole step in one graph."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import PredictRunner, Runner
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

MODULES = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
TRIAL_SECONDS = 0.05


def make_net(work: Workload) -> nn.Sequential:
    """Linear layers and activations. Where the loss takes the scores, the last activation is part of it."""
    layers: list[nn.Module] = []
    for a, b in work.pairs:
        layers += [nn.Linear(a, b), MODULES[work.activation]()]
    layers.pop()
    if work.loss == "quadratic":
        layers.append(nn.Sigmoid())
    elif work.kind == "predict":
        layers.append(nn.Softmax(dim=1))
    return nn.Sequential(*layers)


def place(net: nn.Sequential, weights: Any) -> None:
    """Copy our weights in; nn.Linear keeps W transposed."""
    linear = [module for module in net if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer, (W, b) in zip(linear, weights, strict=True):
            layer.weight.copy_(torch.from_numpy(W).T)
            layer.bias.copy_(torch.from_numpy(b))


def make_criterion(work: Workload) -> Callable[[Any, Any], Any]:
    if work.loss == "quadratic":
        return lambda a, y: functional.mse_loss(a, y, reduction="sum") * (0.5 / work.batch)
    return {
        "mse": functional.mse_loss,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "cross_entropy": functional.cross_entropy,
    }[work.loss]


def make_optimizer(work: Workload, parameters: list[Any], kind: str) -> torch.optim.Optimizer:
    flags: dict[str, Any] = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[kind]
    if work.optimizer == "adam":
        return torch.optim.Adam(parameters, work.eta, **flags)
    return torch.optim.SGD(parameters, work.eta, momentum=0.9 if work.optimizer == "momentum" else 0.0, **flags)


def move(work: Workload, theta: Any, gradient: Any, state: Any, t: Any) -> None:
    """Move parameters in place, written out so that a compiler sees all of it; ``state`` has two tensors for each."""
    for name, p in theta.items():
        g, (first, second) = gradient[name], state[name]
        if work.optimizer == "sgd":
            p.sub_(work.eta * g)
        elif work.optimizer == "momentum":
            first.mul_(0.9).add_(g)
            p.sub_(work.eta * first)
        else:
            first.mul_(0.9).add_(0.1 * g)
            second.mul_(0.999).add_(0.001 * g * g)
            m_hat, s_hat = first / (1 - 0.9**t), second / (1 - 0.999**t)
            p.sub_(work.eta * m_hat / (s_hat.sqrt() + 1e-8))


class EagerRunner(Runner):
    """Modules, autograd, an optimiser: the fastest of its three implementations, found by trying."""

    def __init__(self, work: Workload, problem: Problem, device: str = "cpu") -> None:
        super().__init__()
        self.work, self.problem, self.device = work, problem, device
        self.X, self.Y = torch.from_numpy(problem.X).to(device), targets(work, problem).to(device)
        self.net, self.criterion = make_net(work).to(device), make_criterion(work)
        self.parameters = list(self.net.parameters())
        trials: dict[str, float] = {}
        for kind in 2 * ("plain", "foreach", "fused"):  # twice, because a moment's disturbance would decide otherwise
            self.optimizer = make_optimizer(work, self.parameters, kind)
            self.reset()
            trials[kind] = min(self.try_out(), trials.get(kind, float("inf")))
        best = min(trials, key=lambda kind: trials[kind])
        self.optimizer = make_optimizer(work, self.parameters, best)
        self.facts = {"optimizer": best, "tried_us": {kind: round(1e6 * trials[kind], 1) for kind in trials}}

    def try_out(self) -> float:
        """Least seconds for a step, over a short while."""
        rows, best = torch.from_numpy(self.problem.order(0, 1)).to(self.device), float("inf")
        self.step(rows[0])
        self.wait()
        end = time.perf_counter() + TRIAL_SECONDS
        while True:
            begun = time.perf_counter()
            for k in range(1, 1 + min(len(rows) - 1, 8)):
                self.step(rows[k])
            self.wait()
            now = time.perf_counter()
            best = min(best, (now - begun) / min(len(rows) - 1, 8))
            if now > end:
                return best

    def reset(self) -> None:
        place(self.net, self.problem.weights)
        for state in self.optimizer.state.values():
            for value in state.values():
                if torch.is_tensor(value):
                    value.zero_()

    def wait(self) -> None:
        """Return when all is computed; on a CPU it is."""

    def value(self, x: Any, y: Any) -> Any:
        return self.criterion(self.net(x), y)

    def step(self, rows: Any) -> Any:
        if self.work.full_batch:
            x, y = self.X, self.Y
        else:
            x, y = self.X.index_select(0, rows), self.Y.index_select(0, rows)
        loss = self.value(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, order: Any) -> Any:
        return [self.step(rows) for rows in torch.from_numpy(order)]

    def evidence(self, result: Any) -> Any:
        return torch.stack(result).double().cpu().numpy()


class CompiledRunner(Runner):
    """One graph for forward, backward and update: gradients by torch.func, parameters changed in place."""

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__()
        self.work, self.problem = work, problem
        self.X, self.Y = torch.from_numpy(problem.X), targets(work, problem)
        net, criterion = make_net(work), make_criterion(work)
        self.net = net
        self.theta = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self.state = {name: tuple(torch.zeros_like(p) for _ in range(2)) for name, p in self.theta.items()}
        self.t = torch.zeros(())

        def value(theta: Any, x: Any, y: Any) -> Any:
            return criterion(torch.func.functional_call(net, theta, (x,)), y)

        def step(theta: Any, state: Any, t: Any, X: Any, Y: Any, rows: Any) -> Any:
            x, y = (X, Y) if work.full_batch else (X.index_select(0, rows), Y.index_select(0, rows))
            gradient, loss = torch.func.grad_and_value(value)(theta, x, y)
            t.add_(1)
            move(work, theta, gradient, state, t)
            return loss

        self.step = compiled(step)
        self.facts = {"compiled": "the whole step in one graph, with torch.func.grad_and_value; no guards if it can"}

    def reset(self) -> None:
        place(self.net, self.problem.weights)
        self.t.zero_()
        for pair in self.state.values():
            for value in pair:
                value.zero_()

    @torch.no_grad()
    def run(self, order: Any) -> Any:
        step, theta, state, t, X, Y = self.step, self.theta, self.state, self.t, self.X, self.Y
        return [step(theta, state, t, X, Y, rows) for rows in torch.from_numpy(order)]

    def evidence(self, result: Any) -> Any:
        return torch.stack(result).double().numpy()


def targets(work: Workload, problem: Problem) -> Any:
    return torch.from_numpy(problem.labels if work.loss == "cross_entropy" else problem.Y)


def compiled(function: Any) -> Any:
    """torch.compile for shapes that never change: one graph, and no checks before a call that it still fits."""
    skip_guards = getattr(torch.compiler, "skip_all_guards_unsafe", None)  # not in older releases
    options = {"guard_filter_fn": skip_guards} if skip_guards else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def limit(threads: int) -> None:
    torch.set_num_threads(threads)


def predictor(work: Workload, problem: Problem, compile: bool) -> Runner:
    """The network under inference mode, as tensors go in and out."""
    net = make_net(work).eval()
    place(net, problem.weights)
    function: Any = compiled(net) if compile else net

    class Predictor(PredictRunner):
        def run(self, order: Any) -> Any:
            with torch.inference_mode():
                return super().run(order)

    return Predictor(function, [torch.from_numpy(x) for x in problem.inputs()], lambda output: output.numpy())


def prepare(work: Workload, problem: Problem, threads: int) -> Runner:
    """Eager mode."""
    limit(threads)
    return EagerRunner(work, problem) if work.kind == "train" else predictor(work, problem, False)


def prepare_compiled(work: Workload, problem: Problem, threads: int) -> Runner:
    """torch.compile."""
    limit(threads)
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise Skip("torch.compile needs a C++ compiler on the PATH (or named by CXX); there is none")
    torch._dynamo.reset()
    return CompiledRunner(work, problem) if work.kind == "train" else predictor(work, problem, True)
