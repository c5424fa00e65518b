"""Who trains. All on the GPU, but for bpcore's other backends, which use the processor of the same machine."""

from __future__ import annotations

import os
from collections.abc import Iterable

from benchmarks.peers.adapters import Contestant
from bpcore.bench.workload import Workload
from bpcore.kernels.cuda.fused import MOST_COLUMNS
from bpcore.training.precision import plans_in

__all__ = [
    "CONTESTANTS", "DRY_RUN", "GPU_BYTES", "KEEPS_KERNELS", "PLANS", "STARTS_SLOWLY", "compile_at_once", "compiles",
    "on_gpu",
]  # fmt: skip

DRY_RUN = "BENCHMARKS_DRY_RUN"
"""A variable of the environment: when it is set, who can compute on the processor does, to rehearse."""

GPU_BYTES = "BENCHMARKS_GPU_BYTES"
"""A variable of the environment: bytes of memory of the GPU, where they are known."""

PROCESS_BYTES = 2**29
"""Of the GPU's memory, for a process that uses it: its context, code and workspaces. A guess that is not too small."""
DATA_BYTES = 2**33
"""For the data of a workload, by all contestants."""

PLANS = ("auto", "reference", "graph", "wide", "fused", "persistent")

CONTESTANTS = {
    **{f"bpcore-{plan}": Contestant("with_bpcore", "prepare", ("bpcore",), {"plan": plan}) for plan in PLANS},
    "torch-eager": Contestant("with_torch", "prepare_eager", ("torch",)),
    "torch-compile": Contestant("with_torch", "prepare_compiled", ("torch",)),
    "torch-graph": Contestant("with_torch", "prepare_graph", ("torch",)),
    "torch-graph-8": Contestant("with_torch", "prepare_graph", ("torch",), {"steps": 8}),
    "jax-scan": Contestant("with_jax", "prepare", ("jax", "jaxlib")),
    "bpcore-numba": Contestant("with_bpcore", "prepare_cpu", ("bpcore", "numba", "scipy"), {"backend": "numba"}),
    "bpcore-numpy": Contestant("with_bpcore", "prepare_cpu", ("bpcore",), {"backend": "numpy"}),
}

STARTS_SLOWLY = ("torch-compile", "jax-scan")
"""They compile for seconds: they get a process for each workload, and compile all of them at once before the race.
Where the GPU has no memory for so many processes, they have one each like the others, and compile in the race."""


KEEPS_KERNELS = tuple(name for name in CONTESTANTS if name.startswith("bpcore-") and name != "bpcore-numpy")
"""What they compile stays on the disk: it is compiled before the race, by processes that are not part of it."""


def compile_at_once(names: Iterable[str], workloads: int) -> tuple[str, ...]:
    """Those of `STARTS_SLOWLY` that get a process for each workload.

    Examples
    --------
    >>> os.environ[GPU_BYTES] = str(80 * 2**30)
    >>> compile_at_once(["torch-eager", "jax-scan"], 12)
    ('jax-scan',)
    >>> os.environ[GPU_BYTES] = str(12 * 2**30)
    >>> compile_at_once(["torch-eager", "jax-scan"], 12)
    ()
    >>> del os.environ[GPU_BYTES]
    """
    names = list(names)
    slow = tuple(name for name in names if name in STARTS_SLOWLY)
    needed = DATA_BYTES + PROCESS_BYTES * (sum(map(on_gpu, names)) + len(slow) * (workloads - 1))
    return slow if needed <= int(os.environ.get(GPU_BYTES, needed)) else ()


def on_gpu(name: str) -> bool:
    """Whether a contestant computes on the GPU."""
    return name not in ("bpcore-numba", "bpcore-numpy")


def compiles(name: str, work: Workload) -> bool:
    """Whether one of `KEEPS_KERNELS` has something to compile for a workload; a process that finds out costs seconds.

    Examples
    --------
    >>> wide, narrow = (Workload("train", (64, n, 10), "relu", "softmax", "cross_entropy", "sgd", 8, 8, 1, 0.1)
    ...     for n in (300, 64))
    >>> compiles("bpcore-fused", wide), compiles("bpcore-fused", narrow), compiles("bpcore-numba", wide)
    (False, True, True)
    """
    plan = CONTESTANTS[name].options.get("plan", "auto")
    if plan == "fused" and max(work.sizes) > MOST_COLUMNS:
        return False
    return work.precision == "float32" or (on_gpu(name) and plan in ("auto", *plans_in(work.precision)))
