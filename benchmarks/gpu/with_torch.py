"""PyTorch on a GPU: eager, torch.compile with its own graphs, and a step captured by hand as a CUDA graph.

bf16 is autocast around the forward pass, with parameters in float32. Data lie on the device; rows are gathered there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.contestants import DRY_RUN
from benchmarks.peers.adapters import Skip
from benchmarks.peers.adapters.runner import Runner
from benchmarks.peers.adapters.with_torch import EagerRunner, make_criterion, make_net, move, place, targets
from bpcore.bench.problem import Problem
from bpcore.bench.workload import Workload

PRODUCTS = {"float32": "highest", "tf32": "high", "bf16": "highest"}
WARM_UP = 3
"""Steps before a capture, on a stream of their own, so that lazy parts are there: as PyTorch's documentation has it."""


def device(work: Workload) -> str:
    """Return the device, set to the precision of a workload."""
    if work.precision not in PRODUCTS:
        raise Skip(f"PyTorch has no products in {work.precision}")
    torch.set_float32_matmul_precision(PRODUCTS[work.precision])
    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get(DRY_RUN):
        return "cpu"
    raise Skip("PyTorch finds no CUDA device")


def autocast(work: Workload, kind: str) -> torch.autocast:
    # without the cache of rounded weights, which a captured graph must not reach into
    return torch.autocast(kind, torch.bfloat16, enabled=work.precision == "bf16", cache_enabled=False)


def wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


class CudaEagerRunner(EagerRunner):
    """Modules, autograd and the fastest of the three implementations of the optimiser."""

    def wait(self) -> None:
        wait(self.device)

    def value(self, x: Any, y: Any) -> Any:
        if self.work.precision == "bf16":
            with autocast(self.work, self.device):
                return super().value(x, y)
        return super().value(x, y)

    def stage(self, order: Any) -> Any:
        return torch.from_numpy(order).to(self.device)

    def run(self, order: Any) -> Any:
        losses = [self.step(rows) for rows in torch.as_tensor(order, device=self.device)]
        self.wait()
        return losses


class DeviceLoop(Runner):
    """Runs a step that finds its rows, and puts its loss, by its number on the device: it needs nothing from the host.

    Parameters
    ----------
    work, problem
        What is trained.
    """

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__()
        self.work, self.problem, self.device = work, problem, device(work)
        self.X, self.Y = torch.from_numpy(problem.X).to(self.device), targets(work, problem).to(self.device)
        self.net, self.criterion = make_net(work).to(self.device), make_criterion(work)
        self.order = torch.zeros((work.chunk, work.batch), dtype=torch.int64, device=self.device)
        self.losses = torch.zeros(work.chunk, device=self.device)
        self.k = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.steps_a_call, self.call = 1, self.one_step

    def value(self, theta: Any = None) -> Any:
        """Loss of the mini-batch whose turn it is; ``theta`` stands in for the parameters of the network."""
        rows = self.order.index_select(0, self.k).reshape(-1)
        x, y = (self.X, self.Y) if self.work.full_batch else (self.X[rows], self.Y[rows])
        with autocast(self.work, self.device):
            z = self.net(x) if theta is None else torch.func.functional_call(self.net, theta, (x,))
        return self.criterion(z.float(), y)

    def one_step(self) -> None:
        raise NotImplementedError

    def keep(self, loss: Any) -> None:
        self.losses.index_copy_(0, self.k, loss.reshape(1))
        self.k.add_(1)

    def state(self) -> list[Any]:
        """Tensors that begin at zero."""
        raise NotImplementedError

    def reset(self) -> None:
        place(self.net, self.problem.weights)
        with torch.no_grad():
            for value in self.state():
                value.zero_()

    def stage(self, order: Any) -> Any:
        return torch.from_numpy(order).to(self.device)

    def run(self, order: Any) -> Any:
        found, index, chunk = [], torch.as_tensor(order, device=self.device), self.work.chunk
        for start in range(0, len(order), chunk):
            self.order.copy_(index[start : start + chunk])
            self.k.zero_()
            for _ in range(chunk // self.steps_a_call):
                self.call()
            found.append(self.losses.clone())
        wait(self.device)
        return found

    def evidence(self, result: Any) -> Any:
        return torch.cat(result).double().cpu().numpy()


class GraphRunner(DeviceLoop):
    """Whole steps captured by hand: gather, forward, backward, the fused optimiser that keeps its count on the device.

    Parameters
    ----------
    steps : int
        Steps in a graph.
    """

    def __init__(self, work: Workload, problem: Problem, steps: int) -> None:
        super().__init__(work, problem)
        if work.chunk % steps:
            raise Skip(f"chunks of {work.chunk} steps are no multiple of {steps}")
        parameters, cuda = list(self.net.parameters()), self.device == "cuda"
        if work.optimizer == "adam":
            self.optimizer: Any = torch.optim.Adam(parameters, work.eta, fused=True, capturable=cuda)
        else:
            momentum = 0.9 if work.optimizer == "momentum" else 0.0
            self.optimizer = torch.optim.SGD(parameters, work.eta, momentum=momentum, fused=True)
        self.facts = {"steps_in_a_graph": steps, "optimizer": "fused"}
        self.reset()
        if cuda:
            self.steps_a_call, self.call = steps, self.capture(steps)

    def capture(self, steps: int) -> Callable[[], None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.one_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # gradients get their memory from the pool of the graph
        self.k.zero_()
        with torch.cuda.graph(graph):
            for _ in range(steps):
                self.one_step()
        replay: Callable[[], None] = graph.replay
        return replay

    def one_step(self) -> None:
        loss = self.value()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.keep(loss.detach())

    def state(self) -> list[Any]:
        return [value for kept in self.optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]


class CompiledRunner(DeviceLoop):
    """The whole step in one graph of ``torch.compile(mode="reduce-overhead")``, gradients by torch.func.

    Everything that a step changes is marked as static: only then does reduce-overhead replay it as a CUDA graph.
    """

    def __init__(self, work: Workload, problem: Problem) -> None:
        super().__init__(work, problem)
        self.theta = {name: parameter.detach() for name, parameter in self.net.named_parameters()}
        self.moments = {name: tuple(torch.zeros_like(p) for _ in range(2)) for name, p in self.theta.items()}
        self.t = torch.zeros((), device=self.device)
        changed = [*self.theta.values(), *(v for pair in self.moments.values() for v in pair)]
        for value in (*changed, self.t, self.k, self.losses, self.order, self.X, self.Y):
            torch._dynamo.mark_static_address(value)
        self.compiled = torch.compile(self.whole_step, fullgraph=True, dynamic=False, mode="reduce-overhead")

    def whole_step(self) -> None:
        gradient, loss = torch.func.grad_and_value(self.value)(self.theta)
        self.t.add_(1)
        move(self.work, self.theta, gradient, self.moments, self.t)
        self.keep(loss)

    def one_step(self) -> None:
        self.compiled()

    def run(self, order: Any) -> Any:
        with torch.no_grad():
            return super().run(order)

    def state(self) -> list[Any]:
        return [self.t, *(value for pair in self.moments.values() for value in pair)]

    def evidence(self, result: Any) -> Any:
        from torch._dynamo.utils import counters

        self.facts["cuda_graphs_refused"] = int(counters["inductor"]["cudagraph_skips"])
        return super().evidence(result)


def prepare_eager(work: Workload, problem: Problem, threads: int) -> Runner:
    return CudaEagerRunner(work, problem, device(work))


def prepare_graph(work: Workload, problem: Problem, threads: int, steps: int = 1) -> Runner:
    return GraphRunner(work, problem, steps)


def prepare_compiled(work: Workload, problem: Problem, threads: int) -> Runner:
    torch._dynamo.reset()
    return CompiledRunner(work, problem)
