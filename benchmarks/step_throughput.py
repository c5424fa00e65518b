"""Time per training step of one engine on one workload, and the losses of its first steps, as JSON.

Started once for each engine in a process of its own: python -m benchmarks.step_throughput WORKLOAD ENGINE [--steps N]
All engines begin from the same weights and take the same rows in the same order, in float32 (TF32 off).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PARITY_STEPS = 20
REPEATS = 5


@dataclass(frozen=True)
class Workload:
    """A network and how it is trained."""

    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    optimizer: str
    batch: int
    rows: int = 8192


WORKLOADS = {
    "nielsen": Workload((784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", 10),
    "digits-small": Workload((784, 128, 10), "relu", "softmax", "cross_entropy", "momentum", 64),
    "mnist-mid": Workload((784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", 128),
    "wide": Workload((1024, 4096, 4096, 1000), "relu", "softmax", "cross_entropy", "adam", 1024),
    "smoke": Workload((12, 8, 3), "relu", "softmax", "cross_entropy", "momentum", 4, 64),
}
BPCORE = ("bpcore-numpy", "bpcore-numba", "bpcore-cupy")
TORCH = ("torch-eager-cpu", "torch-eager-cuda", "torch-graph-cuda")
ENGINES = BPCORE + TORCH


@dataclass(frozen=True)
class Problem:
    """Data, weights and the order of the rows, the same for every engine."""

    X: Any
    Y: Any
    labels: Any
    weights: list[tuple[Any, Any]]
    order: Any

    @classmethod
    def make(cls, work: Workload, steps: int) -> Problem:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(work.rows, work.sizes[0])).astype(np.float32)
        labels = rng.integers(0, work.sizes[-1], size=work.rows)
        Y = np.zeros((work.rows, work.sizes[-1]), np.float32)
        Y[np.arange(work.rows), labels] = 1
        weights = [
            ((rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), np.zeros(b, np.float32))
            for a, b in zip(work.sizes, work.sizes[1:], strict=False)
        ]
        return cls(X, Y, labels, weights, rng.integers(0, work.rows, size=(steps, work.batch)))


def run_bpcore(work: Workload, problem: Problem, backend: str) -> tuple[Callable[[int, int], Any], dict[str, Any]]:
    """Return a function that runs the steps [first, end) and returns their losses, and facts."""
    import bpcore as bp
    from bpcore.problem import Problem as Prepared

    be = bp.get_backend(backend)
    net = bp.MLP(list(work.sizes), activation=work.activation, output=work.output, seed=0, dtype="float32", backend=be)
    net.set_weights(problem.weights)
    optimizer = {"sgd": bp.SGD(0.05), "momentum": bp.SGD(0.05, momentum=0.9), "adam": bp.Adam(0.001)}[work.optimizer]
    trainer = bp.Trainer(net, loss=work.loss, optimizer=optimizer, batch_size=work.batch, seed=0, backend=be)
    targets = problem.labels if work.loss == "cross_entropy" else problem.Y
    prepared = Prepared.prepare(net, be, problem.X, targets, trainer.loss)
    trainer.prepare(prepared)

    def run(first: int, end: int) -> Any:
        records = trainer.run_steps(prepared, problem.order[first:end])
        be.synchronize()
        return records.loss

    return run, {"backend": be.describe(), "plan": trainer.plan_name}


def run_torch(work: Workload, problem: Problem, engine: str) -> tuple[Callable[[int, int], Any], dict[str, Any]]:
    """The same for PyTorch: eager, or one step captured as a CUDA graph and replayed."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda" if engine.endswith("cuda") else "cpu")
    layers: list[Any] = []
    count = len(problem.weights)
    for number, (W, b) in enumerate(problem.weights):
        linear = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers.append(linear)
        name = work.activation if number < count - 1 else work.output
        if name != "softmax":  # cross_entropy of PyTorch takes the scores
            layers.append({"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[name]())
    model = torch.nn.Sequential(*layers).to(device)
    initial = [parameter.detach().clone() for parameter in model.parameters()]
    graph = engine.startswith("torch-graph")
    optimizer: Any = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.05),
        "momentum": lambda: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=0.001, capturable=graph),
    }[work.optimizer]()
    X, Y = (torch.from_numpy(array).to(device) for array in (problem.X, problem.Y))
    labels, order = (torch.from_numpy(array).to(device) for array in (problem.labels, problem.order))
    losses = torch.zeros(len(problem.order), device=device)
    rows = order[0].clone()
    position = torch.zeros(1, dtype=torch.int64, device=device)

    def step(rows: Any) -> Any:
        optimizer.zero_grad(set_to_none=not graph)
        a = model(X[rows])
        if work.loss == "cross_entropy":
            value = torch.nn.functional.cross_entropy(a, labels[rows])
        else:
            value = 0.5 * ((a - Y[rows]) ** 2).sum(dim=1).mean()
        value.backward()
        optimizer.step()
        return value.detach()

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    if not graph:

        def run(first: int, end: int) -> Any:
            for k in range(first, end):
                losses[k] = step(order[k])
            finish()
            return losses[first:end].cpu().numpy()

        return run, {"torch": torch.__version__}

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            rows.copy_(order[0])
            step(rows)
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        # the rows are gathered on the device by the position there: a replay needs nothing from the host
        rows.copy_(order.index_select(0, position).reshape(-1))
        losses.index_copy_(0, position, step(rows).reshape(1))
        position.add_(1)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), initial, strict=True):
            parameter.copy_(value)
        for state in optimizer.state.values():
            for value in state.values():
                if torch.is_tensor(value):
                    value.zero_()
    position.zero_()

    def replay(first: int, end: int) -> Any:
        position.fill_(first)
        for _ in range(first, end):
            recorded.replay()
        finish()
        return losses[first:end].cpu().numpy()

    return replay, {"torch": torch.__version__}


def measure(workload: str, engine: str, steps: int) -> dict[str, Any]:
    """Run the first steps for their losses, warm up, then time `REPEATS` stretches of `steps`."""
    work = WORKLOADS[workload]
    problem = Problem.make(work, PARITY_STEPS + (REPEATS + 1) * steps)
    begun = time.perf_counter()
    if engine in BPCORE:
        run, facts = run_bpcore(work, problem, engine.removeprefix("bpcore-"))
    else:
        run, facts = run_torch(work, problem, engine)
    losses = [float(value) for value in run(0, PARITY_STEPS)]
    run(PARITY_STEPS, PARITY_STEPS + steps)
    start_up = time.perf_counter() - begun
    times = []
    for repeat in range(1, REPEATS + 1):
        first = PARITY_STEPS + repeat * steps
        begun = time.perf_counter()
        last = run(first, first + steps)
        times.append((time.perf_counter() - begun) / steps * 1e6)
    return {
        "workload": workload,
        "engine": engine,
        "steps": steps,
        "us_per_step": statistics.median(times),
        "us_per_step_min": min(times),
        "us_per_step_max": max(times),
        "start_up_seconds": start_up,
        "losses": losses,
        "finite_at_the_end": bool(np.isfinite(np.asarray(last)).all()),
        "facts": facts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print(json.dumps(measure(options.workload, options.engine, options.steps)))


if __name__ == "__main__":
    main()
