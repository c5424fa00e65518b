"""The workloads of the race, with its goals.

A chunk is also the unit that is handed to libraries that compile a whole epoch, and the grain in which losses are
compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpcore.bench.workload import Operation, Workload

__all__ = ["SMOKE", "WORKLOADS", "RacedWorkload", "get_workload", "products"]


@dataclass(frozen=True)
class RacedWorkload(Workload):
    """A workload, what bpcore is to reach there, and how much of the time it gets.

    Attributes
    ----------
    over_best, over_torch : float
        The goals: bpcore's samples per second as a multiple of the best peer's, and of PyTorch eager's. 0: none.
    at_most_us : float
        The goal as a time, for one call. 0: none.
    share : float
        How much of the time for a workload this one gets.
    """

    over_best: float = 0.0
    over_torch: float = 0.0
    at_most_us: float = 0.0
    share: float = 1.0


def products(work: Workload) -> list[Operation]:
    """Matrix products of a step: of the forward pass, of BP4, and of BP2 but for the first layer."""
    return [operation for operation in work.operations if operation.name == "matmul"]


def _predict(sizes: tuple[int, ...], batch: int, at_most_us: float = 0.0) -> RacedWorkload:
    over_best = 0.0 if at_most_us else 1.2
    rows, chunk = (512, 512) if batch == 1 else (batch, 4)
    return RacedWorkload(
        "predict", sizes, "relu", "softmax", "", "sgd", batch, rows, chunk, over_best=over_best,
        at_most_us=at_most_us, share=0.6,
    )  # fmt: skip


WORKLOADS = {
    "nielsen": RacedWorkload(
        "train", (784, 30, 10), "sigmoid", "sigmoid", "quadratic", "sgd", 10, 4000, 400, 0.5, 2.0, 12.0
    ),
    "tabular": RacedWorkload(
        "train", (30, 64, 64, 1), "tanh", "sigmoid", "binary_cross_entropy", "adam", 32, 16384, 512, 1e-3, 1.5, 18.0
    ),
    "regression-tiny": RacedWorkload(
        "train", (4, 32, 32, 1), "tanh", "identity", "mse", "adam", 128, 32768, 256, 1e-3, 1.5, 18.0
    ),
    "digits-small": RacedWorkload(
        "train", (784, 128, 10), "relu", "softmax", "cross_entropy", "momentum", 64, 8192, 128, 0.01, 1.3, 3.5
    ),
    "deep-narrow": RacedWorkload(
        "train", (64, *(64,) * 8, 10), "relu", "softmax", "cross_entropy", "sgd", 256, 16384, 64, 0.01, 1.8, 4.0
    ),
    "mnist-mid": RacedWorkload(
        "train", (784, 512, 512, 10), "relu", "softmax", "cross_entropy", "adam", 128, 2048, 16, 1e-3, 1.2, 2.0,
        share=1.5,
    ),
    "wide": RacedWorkload(
        "train", (1024, 4096, 4096, 1000), "relu", "softmax", "cross_entropy", "momentum", 256, 1024, 2, 0.01, 1.1, 2.2,
        share=3.0,
    ),
    "full-batch": RacedWorkload(
        "train", (64, 64, 10), "relu", "softmax", "cross_entropy", "sgd", 20000, 20000, 8, 0.1, 1.3, 2.2
    ),
    "predict-small-1": _predict((784, 128, 10), 1, 6.0),
    "predict-mid-1": _predict((784, 512, 512, 10), 1, 35.0),
    "predict-small-4096": _predict((784, 128, 10), 4096),
    "predict-mid-4096": _predict((784, 512, 512, 10), 4096),
}  # fmt: skip
"""The eight trainings and two networks to ask, one row at a time and 4096 at once."""

SMOKE = RacedWorkload("train", (12, 8, 3), "relu", "softmax", "cross_entropy", "momentum", 4, 64, 8, 0.05)
"""A tiny one for the tests of this harness."""


def get_workload(name: str) -> RacedWorkload:
    """Look a workload up; ``smoke`` is known too but not part of a full run."""
    return SMOKE if name == "smoke" else WORKLOADS[name]
