"""Networks for the kernel of the persistent plan, and a run of all of them under AddressSanitizer.

Run as a module with the library of AddressSanitizer preloaded. Arguments: the folder for builds, and optionally a text
of the sources and its replacement. Buffers are exactly as large as the kernel may touch.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.functions.clipping import ClipNorm
from bpcore.functions.losses import get_loss
from bpcore.functions.penalties import L2
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.resident import ResidentShape, resident_unit
from bpcore.training.device_steps import device_pieces
from bpcore.training.spec import Dropout, StepSpec
from tests.kernels.on_host import changed

# sizes, hidden activations, output, loss, rule, samples in a step, and what else the spec has
CASES: dict[str, tuple[list[int], Any, str, str, Any, int, dict[str, Any]]] = {
    "plain": ([20, 9, 4], "sigmoid", "sigmoid", "quadratic", bp.SGD(0.5), 10, {}),
    "everything": (
        [13, 6, 17, 3],
        ["tanh", "softmax"],
        "softmax",
        "mse",
        bp.Adam(0.01),
        7,
        {"dropout": Dropout(0.3, per="sample"), "penalty": L2(0.1), "clip": ClipNorm(0.05), "weighted": True},
    ),
}


def unit(name: str, dtype: Any, **chosen: Any) -> tuple[str, tuple[StepSpec, bp.MLP, ResidentShape]]:
    """Text of the kernel for a network, and what it was made from."""
    sizes, hidden, output, loss, rule, batch, others = CASES[name]
    net = bp.MLP(sizes, hidden, output, seed=1, dtype=dtype, backend="numpy")
    spec = StepSpec(net.sizes, tuple(net.activations), get_loss(loss), rule, batch, net.dtype, classes=True, **others)
    pieces = device_pieces(spec)
    shape = ResidentShape(
        sizes=spec.sizes,
        batch=batch,
        itemsize=spec.dtype.itemsize,
        states=len(rule.state),
        numbers=len(pieces.update.numbers),
        prices=0 if pieces.penalty is None else len(pieces.penalty.numbers),
        rates=tuple(spec.rates.items()),
        per_sample=spec.dropout is not None and spec.dropout.per == "sample",
        clip="" if spec.clip is None else spec.clip.scope,
    )
    shape = replace(shape, **chosen)
    offsets = net.layout.offsets
    return resident_unit(shape, pieces, offsets, spec.dtype), (spec, net, shape)


def run(name: str, dtype: Any, folder: Path, change: list[str], *, sanitize: bool = False, **chosen: Any) -> None:
    """Run three steps in arrays that end where the kernel must end."""
    text, (spec, net, shape) = unit(name, dtype, **chosen)
    rng, rows, steps, T = np.random.default_rng(0), 5, 3, spec.dtype.type
    classes = spec.sizes[-1]
    X, Y = rng.normal(size=(rows, spec.sizes[0])).astype(T), np.full((rows, classes), 1 / classes, T)
    index = rng.integers(0, rows, (steps, shape.batch))
    index[-1] = rows - 1
    numbers = np.full((steps, max(1, shape.numbers)), 0.1)
    records = np.zeros((3, steps))
    theta = np.array(net.theta)
    arrays = (X, Y, rng.integers(0, classes, rows), np.ones(rows, T), index, numbers, records, np.int64(steps), theta)
    scalars = (T(0), np.float64(0.05), T(1), T(0.5), np.int64(0), np.uint32(1), np.uint32(0), np.int64(steps))
    states = [np.zeros_like(theta) for _ in spec.rule.state]
    arguments = (*arrays, np.zeros_like(theta), np.full(max(1, shape.prices), 0.1, T), *scalars)
    module = HostModule(changed(text, change), folder, sanitize=sanitize)
    module.launch(
        "resident", (shape.blocks,), (shape.threads,), (*arguments, np.int32(shape.batch), *states), shared=shape.nbytes
    )
    assert np.isfinite(theta).all()
    assert np.isfinite(records).all()


def main() -> None:
    """Run all cases, in the cuts that differ most."""
    folder, *change = sys.argv[1:]
    for name in CASES:
        for dtype, blocks, column_blocks, shared in (
            ("float32", 1, 1, True),
            ("float64", 2, 1, True),
            ("float32", 4, 2, True),
            ("float32", 2, 1, False),
        ):
            cut = {"blocks": blocks, "column_blocks": column_blocks, "shared": shared, "threads": 64}
            wide = CASES[name][0][0] * np.dtype(dtype).itemsize % 16 == 0
            run(name, np.dtype(dtype), Path(folder), change, sanitize=True, wide_inputs=wide, **cut)
    print("all cases ran")


if __name__ == "__main__":
    main()
