"""Prediction: ``net.predict`` beside PyTorch, with samples and outputs in device memory.

``python -m benchmarks.gpu.inference`` measures and prints it all, and which kernels run for how long.

Times are those of the host's clock. ``_us`` is a call whose outputs are there when it ends, which is what a service
waits for; ``net.predict`` always waits, because it looks whether the samples are finite. ``_queued_us`` is a call among
others that nobody waits for.

===============================  ===============================================================================
``bpcore_us``                    the same arrays again and again
``bpcore_alternating_us``        three pairs of samples and outputs in turn
``bpcore_other_arrays_us``       more pairs than graphs are kept for
``bpcore_new_outputs_us``        the same samples, outputs that the call allocates
``bpcore_graph_queued_us``       the graph of ``bpcore_us`` alone: the time of the device
``torch_eager_us``               the model; one of PyTorch's calls is like another, whatever the arrays
``torch_graph_us``               the replay of a graph over these arrays
``torch_graph_copied_us``        other samples copied in before, and outputs copied out after it
``torch_compile_us``             ``torch.compile`` without graphs; only by the command, since it takes long to compile
``numba_us``, ``numpy_us``       ``net.predict`` on the processor of the same machine, samples and outputs in its memory
===============================  ===============================================================================
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from benchmarks.gpu.profile import LEAST_US, kernels
from benchmarks.peers.adapters import Skip

__all__ = ["CASES", "compiled", "inference"]

CASES = (
    ((784, 128, 10), 1), ((784, 128, 10), 4096), ((784, 512, 512, 10), 1), ((784, 512, 512, 10), 4096),
    ((784, 2048, 2048, 10), 65536),
)  # fmt: skip
COMPILED = CASES[1::2]
"""What ``torch.compile`` is asked for: many samples."""
REPEATS = 7
MOST_CALLS, ABOUT_US = 200, 30_000
"""Calls of a repeat: so many, or as many as take about so long."""
OTHERS = 20
"""Pairs of arrays of which no graph is kept: more than ``bpcore.inference.cuda.MOST_GRAPHS``."""
MOST_BYTES = 2**30
"""Of so many pairs of samples and outputs."""
LARGEST_DIFFERENCE = 1e-4
"""Between outputs of softmax, which are at most 1."""
DEVICE = "cuda"
MOST_FLOPS = 10**10
"""Of a call on the processor; more would take seconds, some dozens of times."""


def us(call: Callable[[], Any], wait: Callable[[], Any], *, queued: bool = False) -> float:
    """Microseconds of a call, the median of `REPEATS`; ``wait`` is called after each, or once if they are queued."""

    def repeat(calls: int) -> float:
        wait()
        begun = time.perf_counter()
        for _ in range(calls):
            call()
            if not queued:
                wait()
        wait()
        return 1e6 * (time.perf_counter() - begun) / calls

    repeat(3)  # graphs are captured, pools filled
    calls = int(max(3, min(MOST_CALLS, ABOUT_US / repeat(3))))
    repeat(calls)
    return float(statistics.median([repeat(calls) for _ in range(REPEATS)]))


def inference(bench: Any) -> dict[str, Any]:
    """Measure each network with its number of samples, and compare the outputs."""
    return {name(*case): measured(*prepared(*case)) for case in CASES}


def compiled(bench: Any) -> dict[str, Any]:
    """Measure ``torch.compile`` for many samples."""
    import torch

    found: dict[str, Any] = {}
    for case in COMPILED:
        _, model, X = prepared(*case)
        with torch.no_grad():
            call = torch.compile(model)
            expected = model(X)
            check(case, float((call(X) - expected).abs().max()))
            found[name(*case)] = timed("torch_compile", lambda: call(X), torch.cuda.synchronize)  # noqa: B023
    return found


def name(sizes: tuple[int, ...], m: int) -> str:
    return f"{'-'.join(map(str, sizes))} {m}"


def cuda_torch() -> Any:
    """Return PyTorch.

    Raises
    ------
    Skip
        If it is not installed, or not for this GPU.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise Skip("PyTorch is not installed") from None
    if not torch.cuda.is_available():
        raise Skip("this PyTorch finds no CUDA device")
    return torch


def prepared(sizes: tuple[int, ...], m: int) -> tuple[Any, Any, Any]:
    """Return a network, the same as a module of PyTorch, and samples."""
    import bpcore as bp

    torch = cuda_torch()
    torch.set_float32_matmul_precision("highest")
    net = bp.MLP(sizes, "relu", "softmax", seed=0, dtype="float32", backend="cupy")
    X = torch.randn(m, sizes[0], device=DEVICE)
    torch.cuda.synchronize()  # they were drawn on another stream
    return net, torch_model(torch, net), X


def measured(net: Any, model: Any, X: Any) -> dict[str, float]:
    import torch

    facts, out = ours(net, X)
    with torch.no_grad():
        expected = model(X)
        off = float((torch.as_tensor(net.backend.to_numpy(out)) - expected.cpu()).abs().max())
        check((net.sizes, len(X)), off)
        graph, own_X, own_out = captured(torch, model, X)
        other, result = torch.empty_like(X).copy_(X), torch.empty_like(own_out)

        def copied() -> None:
            own_X.copy_(other)
            graph.replay()
            result.copy_(own_out)

        facts |= timed("torch_eager", lambda: model(X), torch.cuda.synchronize)
        facts |= timed("torch_graph", graph.replay, torch.cuda.synchronize)
        facts |= timed("torch_graph_copied", copied, torch.cuda.synchronize)
    return facts | on_the_processor(net, X) | {"difference": off}


def on_the_processor(net: Any, X: Any) -> dict[str, float]:
    """Measure the same network on the backends of the processor, where a call is not too long."""
    import bpcore as bp

    m, sizes = len(X), net.sizes
    if 2 * m * sum(n_in * n for n_in, n in pairwise(sizes)) > MOST_FLOPS:
        return {}
    samples, found = X.cpu().numpy(), {}
    for backend in ("numba", "numpy"):
        same = bp.MLP(sizes, "relu", "softmax", init="zeros", dtype="float32", backend=backend)
        same.set_weights(net.get_weights())
        out = np.empty((m, sizes[-1]), np.float32)
        found[f"{backend}_us"] = us(lambda: same.predict(samples, out=out), lambda: None)  # noqa: B023
    return found


def ours(net: Any, X: Any) -> tuple[dict[str, float], Any]:
    """Measure ``net.predict``, and return what it found for these samples."""
    be, size = net.backend, X.element_size() * (X.numel() + len(X) * net.sizes[-1])

    def pairs(count: int) -> Any:
        fresh = [(be.asarray(X.clone()), be.empty((len(X), net.sizes[-1]), net.dtype)) for _ in range(count)]
        settle()
        return cycle(fresh)

    def settle() -> None:
        import torch

        torch.cuda.synchronize()

    def alternate(given: Any) -> Callable[[], Any]:
        return lambda: net.predict(*(pair := next(given))[:1], out=pair[1])

    def nothing() -> None:
        return None

    samples, out = next(pairs(1))
    facts = {"bpcore_us": us(lambda: net.predict(samples, out=out), nothing)}
    replays = be.gpu.rooms[-1].places[net._predictors[be].infer].replays
    if replays:
        launch = list(replays.values())[-1].launch
        facts["bpcore_graph_queued_us"] = us(launch, be.synchronize, queued=True)
    facts["bpcore_alternating_us"] = us(alternate(pairs(3)), nothing)
    if OTHERS * size <= MOST_BYTES:
        facts["bpcore_other_arrays_us"] = us(alternate(pairs(OTHERS)), nothing)
    facts["bpcore_new_outputs_us"] = us(lambda: net.predict(samples), nothing)
    net.predict(samples, out=out)
    return facts, out


def timed(what: str, call: Callable[[], Any], wait: Callable[[], Any]) -> dict[str, float]:
    return {f"{what}_us": us(call, wait), f"{what}_queued_us": us(call, wait, queued=True)}


def check(case: tuple[Any, ...], off: float) -> None:
    if not off <= LARGEST_DIFFERENCE:
        raise ArithmeticError(f"{name(*case)}: outputs are {off:.1e} apart")


def torch_model(torch: Any, net: Any) -> Any:
    """Return the same network as a module."""
    layers: list[Any] = []
    for W, b in net.get_weights():
        linear = torch.nn.Linear(*W.shape, device=DEVICE)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(1))


def captured(torch: Any, model: Any, X: Any) -> tuple[Any, Any, Any]:
    """Return a graph over these samples, the samples, and where its outputs are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(X)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = model(X)
    return graph, X, out


class Calls:
    """Calls of one function as the profiler of training steps runs them."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def run(self, order: Any) -> None:
        for _ in order:
            self.call()


def main() -> int:
    """Print what is measured, and the kernels of a call; return 2 if that is not possible."""
    import bpcore as bp

    try:
        bp.get_backend("cupy")
        torch = cuda_torch()
    except (bp.errors.BackendError, Skip) as why:
        print(f"nothing was measured: {why}", file=sys.stderr)
        return 2
    for case in CASES:
        net, model, X = prepared(*case)
        for fact, value in measured(net, model, X).items():
            print(f"{name(*case)}: {fact} {value:.4g}", flush=True)
        samples, out = net.backend.asarray(X), net.backend.empty((len(X), net.sizes[-1]), net.dtype)
        with torch.no_grad():
            for whose, call in (("bpcore", lambda: net.predict(samples, out=out)), ("torch", lambda: model(X))):  # noqa: B023
                call()
                for total, calls, kernel in kernels(Calls(call), range(20)):
                    if total >= LEAST_US:
                        print(f"{whose:>8} {total:10.2f} us {calls:5.1f} x  {kernel[:90]}", flush=True)
    for case, facts in compiled(None).items():
        for fact, value in facts.items():
            print(f"{case}: {fact} {value:.4g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
