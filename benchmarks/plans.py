"""Steps per second of the plans of training, beside NumPy by hand and PyTorch, on small networks.

    python benchmarks/plans.py --threads 1 --json plans.json

All contestants start from the same weights and see the same samples in the same order, in float32, and their losses
are compared before and after the timing. Rounds are interleaved: each contestant runs one stretch of steps, then the
next, so that what else the machine does falls on all of them; medians are reported. Compilation is reported apart.
Leave OPENBLAS_CORETYPE unset.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import bpcore as bp
from bpcore.problem import Problem

ROWS = 4000
Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Workload:
    """One network and how it is trained."""

    sizes: tuple[int, ...]
    activation: str
    output: str
    loss: str
    batch: int
    optimizer: str
    eta: float

    def rule(self) -> Any:
        return {"sgd": bp.SGD(self.eta), "momentum": bp.Momentum(self.eta, 0.9), "adam": bp.Adam(self.eta)}[
            self.optimizer
        ]

    def flops(self) -> int:
        """Operations of the products of one step: forward, BP4, and BP2 but for the first layer."""
        pairs = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        return 2 * self.batch * (2 * sum(a * b for a, b in pairs) + sum(a * b for a, b in pairs[1:]))


WORKLOADS = {
    "nielsen": Workload((784, 30, 10), "sigmoid", "sigmoid", "quadratic", 10, "sgd", 0.5),
    "tabular": Workload((30, 64, 64, 1), "tanh", "sigmoid", "binary_cross_entropy", 32, "adam", 1e-3),
    "regression-tiny": Workload((4, 32, 32, 1), "tanh", "identity", "mse", 128, "adam", 1e-3),
    "digits-small": Workload((784, 128, 10), "relu", "softmax", "cross_entropy", 64, "momentum", 0.01),
    "deep-narrow": Workload((64, *(64,) * 8, 10), "relu", "softmax", "cross_entropy", 256, "sgd", 0.01),
}


def make_data(work: Workload) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Return inputs, targets and first weights."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS, work.sizes[0])).astype(np.float32)
    hidden = np.tanh(X @ rng.normal(size=(work.sizes[0], work.sizes[-1])) / np.sqrt(work.sizes[0]))
    if work.loss == "mse":
        Y = hidden
    elif work.sizes[-1] == 1:
        Y = hidden > 0
    else:
        Y = np.eye(work.sizes[-1])[hidden.argmax(axis=1)]
    pairs = zip(work.sizes[:-1], work.sizes[1:], strict=True)
    weights = [((rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), np.zeros(b, np.float32)) for a, b in pairs]
    return X, Y.astype(np.float32), weights


# ------------------------------------------------------------------------------------------ the contestants


def bpcore_plan(plan: str) -> Callable[[Workload, Any, Any, Any], Step]:
    """The trainer with one of its plans, as a user gets it: snapshots and the check for NaN included."""

    def make(work: Workload, X: Any, Y: Any, weights: Any) -> Step:
        net = bp.MLP(work.sizes, work.activation, work.output, seed=0, backend="numba")
        net.set_weights(weights)
        trainer = bp.Trainer(net, work.loss, work.rule(), batch_size=work.batch, plan=plan, seed=0)
        targets = Y.argmax(axis=1) if work.output == "softmax" else Y
        problem = Problem.prepare(net, trainer.be, X, targets, trainer.loss)
        trainer.prepare(problem)
        return lambda order: trainer.run_steps(problem, order).loss

    return make


def numpy_by_hand(work: Workload, X: Any, Y: Any, weights: Any) -> Step:
    """The four equations in NumPy, with memory allocated once."""
    W, b = ([pair[k].copy() for pair in weights] for k in (0, 1))
    theta, L, m = [*W, *b], len(W), work.batch
    grads = [np.empty_like(p) for p in theta]
    state = [[np.zeros_like(p) for p in theta] for _ in range(2)]
    Z = [np.empty((m, n), np.float32) for n in work.sizes[1:]]
    D = [np.empty((m, n), np.float32) for n in work.sizes[1:]]
    count = 0

    def activate(z: Any) -> Any:
        if work.activation == "sigmoid":
            return 1 / (1 + np.exp(-z))
        return np.tanh(z) if work.activation == "tanh" else np.maximum(z, 0)

    def slope(h: Any) -> Any:
        return h * (1 - h) if work.activation == "sigmoid" else 1 - h * h if work.activation == "tanh" else h > 0

    def output(z: Any, y: Any) -> tuple[float, Any]:
        if work.output == "softmax":
            shifted = z - z.max(axis=1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            return float(-(y * logs).sum() / m), (np.exp(logs) - y) / m
        if work.loss == "mse":
            return float(((z - y) ** 2).sum() / y.size), 2 * (z - y) / y.size
        h = 1 / (1 + np.exp(-z))
        if work.loss == "quadratic":
            return float(0.5 * ((h - y) ** 2).sum() / m), (h - y) * h * (1 - h) / m
        return float((np.logaddexp(0, z) - z * y).sum() / y.size), (h - y) / y.size

    def step(rows: Any) -> float:
        nonlocal count
        count += 1
        H = [X[rows]]
        for l in range(L):
            np.dot(H[l], W[l], out=Z[l])
            np.add(Z[l], b[l], out=Z[l])
            if l < L - 1:
                H.append(activate(Z[l]))
        loss, D[L - 1][...] = output(Z[-1], Y[rows])
        for l in range(L - 1, -1, -1):
            np.dot(H[l].T, D[l], out=grads[l])
            D[l].sum(axis=0, out=grads[L + l])
            if l:
                np.dot(D[l], W[l].T, out=D[l - 1])
                D[l - 1] *= slope(H[l])
        first, second = state
        for p, g, v, s in zip(theta, grads, first, second, strict=True):
            if work.optimizer == "sgd":
                g *= work.eta
                p -= g
            elif work.optimizer == "momentum":
                v *= 0.9
                v += g
                p -= work.eta * v
            else:
                v *= 0.9
                v += 0.1 * g
                s *= 0.999
                s += 0.001 * g * g
                factor = work.eta / (1 - 0.9**count)
                p -= factor * v / (np.sqrt(s / (1 - 0.999**count)) + 1e-8)
        return loss

    return lambda order: np.array([step(rows) for rows in order])


def torch_eager(work: Workload, X: Any, Y: Any, weights: Any) -> Step:
    """PyTorch as it is written: modules, autograd, an optimiser."""
    import torch
    from torch import nn

    layers: list[Any] = []
    for W, _ in weights:
        layer = nn.Linear(*W.shape)
        layer.weight.data[...] = torch.from_numpy(W.T.copy())
        layer.bias.data.zero_()
        layers += [layer, {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}[work.activation]()]
    net = nn.Sequential(*layers[:-1], *([nn.Sigmoid()] if work.loss == "quadratic" else []))
    inputs, targets = torch.from_numpy(X), torch.from_numpy(Y)
    if work.output == "softmax":
        targets = targets.argmax(dim=1)
    criterion: Any = {
        "quadratic": lambda a, y: 0.5 * ((a - y) ** 2).sum() / work.batch,
        "mse": nn.MSELoss(),
        "binary_cross_entropy": nn.BCEWithLogitsLoss(),
        "cross_entropy": nn.CrossEntropyLoss(),
    }[work.loss]
    parameters = list(net.parameters())
    optimizer: Any = {
        "sgd": lambda: torch.optim.SGD(parameters, work.eta),
        "momentum": lambda: torch.optim.SGD(parameters, work.eta, momentum=0.9),
        "adam": lambda: torch.optim.Adam(parameters, work.eta),
    }[work.optimizer]()

    def run(order: Any) -> Any:
        losses = []
        for rows in torch.from_numpy(order):
            loss = criterion(net(inputs[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return run


CONTESTANTS: dict[str, Callable[[Workload, Any, Any, Any], Step]] = {
    "compiled": bpcore_plan("compiled"),
    "reference": bpcore_plan("reference"),
    "numpy": numpy_by_hand,
    "torch": torch_eager,
}


# ------------------------------------------------------------------------------------------ the race


def race(work: Workload, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Time one workload."""
    X, Y, weights = make_data(work)
    rng = np.random.default_rng(2)
    steps, ready, results, skipped = {}, {}, {}, {}
    for name in names:
        begun = time.perf_counter()
        try:
            steps[name] = CONTESTANTS[name](work, X, Y, weights)
        except ImportError as error:
            skipped[name] = str(error)
            continue
        ready[name] = time.perf_counter() - begun
    first = rng.integers(0, ROWS, (20, work.batch))
    before = {name: np.asarray(step(first), np.float64) for name, step in steps.items()}
    # stretches of one length for all: the slowest decides, so that all see the same samples
    timed = {}
    for name, step in steps.items():
        begun = time.perf_counter()
        step(first)
        timed[name] = (time.perf_counter() - begun) / len(first)
    length = max(20, int(seconds / max(timed.values())))
    times: dict[str, list[float]] = {name: [] for name in steps}
    after: dict[str, float] = {}
    for _ in range(rounds):
        order = rng.integers(0, ROWS, (length, work.batch))
        for name, step in steps.items():
            begun = time.perf_counter()
            losses = step(order)
            times[name].append((time.perf_counter() - begun) / length * 1e6)
            after[name] = float(np.mean(losses))
    base = next(iter(steps))
    parity = {
        name: {
            "before": float(np.abs(before[name] - before[base]).max() / np.abs(before[base]).max()),
            "after": abs(after[name] - after[base]) / abs(after[base]),
        }
        for name in steps
    }
    for name in steps:
        median = statistics.median(times[name])
        results[name] = {
            "us_per_step": median,
            "us_per_step_least": min(times[name]),
            "samples_per_second": work.batch / median * 1e6,
            "gflops": work.flops() / median * 1e-3,
            "ratio_to_first": statistics.median(mine / its for mine, its in zip(times[name], times[base], strict=True)),
            "seconds_to_prepare": ready[name],
            "mean_loss_of_last_round": after[name],
            "loss_parity": parity[name],
        }
        if parity[name]["before"] > 1e-4 or parity[name]["after"] > 0.05:
            raise SystemExit(f"{name} does not compute what {base} computes: {parity[name]}")
    return {"steps_per_round": length, "rounds": rounds, "results": results, "skipped": skipped}


def machine() -> dict[str, Any]:
    """Describe where this was measured."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = found[0].split(":")[1].strip() if found else cpu
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {}
    for package in ("numpy", "scipy", "numba", "llvmlite", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "python": sys.version.split()[0],
        "versions": versions | {"bpcore": bp.__version__},
        "blas": threadpool_info(),
        "commit": commit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[], help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a round of the slowest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if "OPENBLAS_CORETYPE" in os.environ:
        parser.error("OPENBLAS_CORETYPE is set; unset it, it makes one BLAS look slow or fast")
    import scipy.linalg.cython_blas  # noqa: F401  (its threads are limited too)

    if "torch" in options.contestants and importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"threads": options.threads, "machine": machine(), "workloads": {}}
    with threadpool_limits(options.threads):
        for name in options.workloads or WORKLOADS:
            found = race(WORKLOADS[name], options.contestants, options.rounds, options.seconds)
            report["workloads"][name] = found
            for contestant, result in found["results"].items():
                print(
                    f"{name:16} {contestant:10} {result['us_per_step']:9.1f} us/step "
                    f"(least {result['us_per_step_least']:8.1f})  {result['ratio_to_first']:6.2f} x  "
                    f"{result['gflops']:6.1f} GFLOP/s  prepared in {result['seconds_to_prepare']:.2f} s  "
                    f"parity {result['loss_parity']['before']:.0e} {result['loss_parity']['after']:.0e}"
                )
            for contestant, reason in found["skipped"].items():
                print(f"{name:16} {contestant:10} skipped: {reason}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
