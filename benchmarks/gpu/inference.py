"""Prediction: ``net.predict`` beside PyTorch, eager and replayed, with samples and outputs in device memory.

Times are those of the host's clock. ``_us`` is a call whose outputs are there when it ends, which is what a service
waits for; ``net.predict`` always waits, because it looks whether the samples are finite. ``_queued_us`` is a call of
PyTorch among others that nobody waits for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

__all__ = ["NETS", "inference"]

NETS = ((784, 128, 10), (784, 512, 512, 10))
BATCHES = (1, 4096)
CALLS = 200
REPEATS = 7
LARGEST_DIFFERENCE = 1e-4
"""Between outputs of softmax, which are at most 1."""


def us(call: Callable[[], Any], wait: Callable[[], Any], *, queued: bool = False) -> float:
    """Microseconds of a call, the median of `REPEATS`; ``wait`` is called after each, or once if they are queued."""
    found = []
    for _ in range(REPEATS + 1):  # the first warms up
        wait()
        begun = time.perf_counter()
        for _ in range(CALLS):
            call()
            if not queued:
                wait()
        wait()
        found.append(1e6 * (time.perf_counter() - begun) / CALLS)
    return float(statistics.median(found[1:]))


def inference(bench: Any) -> dict[str, Any]:
    """Measure each network with each number of samples, and compare the outputs."""
    import torch

    import bpcore as bp

    torch.set_float32_matmul_precision("highest")
    be = bp.get_backend("cupy")
    found: dict[str, Any] = {}
    for sizes in NETS:
        net = bp.MLP(sizes, "relu", "softmax", seed=0, dtype="float32", backend=be)
        model = torch_model(torch, net)
        for m in BATCHES:
            X = torch.randn(m, sizes[0], device="cuda")
            samples, out = be.asarray(X), be.empty((m, sizes[-1]), net.dtype)
            torch.cuda.synchronize()  # the samples were drawn on another stream
            facts = {"bpcore_us": us(lambda: net.predict(samples, out=out), lambda: None)}  # noqa: B023
            with torch.no_grad():
                expected = model(X)
                replay = captured(torch, model, X)
                for name, call in (("torch_eager", lambda: model(X)), ("torch_graph", replay)):  # noqa: B023
                    facts[f"{name}_us"] = us(call, torch.cuda.synchronize)
                    facts[f"{name}_queued_us"] = us(call, torch.cuda.synchronize, queued=True)
            off = float((torch.as_tensor(be.to_numpy(out)) - expected.cpu()).abs().max())
            if not off <= LARGEST_DIFFERENCE:
                raise ArithmeticError(f"{sizes}, {m} samples: bpcore and PyTorch are {off:.1e} apart")
            found[f"{'-'.join(map(str, sizes))} {m}"] = facts | {"difference": off}
    return found


def torch_model(torch: Any, net: Any) -> Any:
    """Return the same network as a module."""
    layers: list[Any] = []
    for W, b in net.get_weights():
        linear = torch.nn.Linear(*W.shape, device="cuda")
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(1))


def captured(torch: Any, model: Any, X: Any) -> Callable[[], None]:
    """Return the replay of a graph over these samples."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(X)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(X)
    replay: Callable[[], None] = graph.replay
    return replay
