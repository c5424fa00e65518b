"""Launches of every kernel in which threads wait for one another, each small, and together in need of every barrier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from tests.helpers.compare import assert_close
from tests.kernels import cuda_cases, cuda_products, fused_cases, prediction_cases, resident_cases
from tests.kernels import test_cuda_planes as plane_cases
from tests.training import test_random_steps_on_gpu as steps
from tests.training import test_wide_mistakes as wide_cases

__all__ = ["RUNS", "Run"]

Run = Callable[[Path, CupyBackend], None]
"""Takes the folder for what g++ builds, and the backend over the stand-in for a GPU."""


def _rows(wide: bool, m: int, n: int, folder: Path, be: CupyBackend, offset: int = 0) -> None:
    bench = cuda_cases.Bench(folder, "float32", seed=0, offset=offset)
    for case in cuda_cases.ROW_CASES if wide else (*cuda_cases.ROW_CASES, *cuda_cases.OTHER_CASES):
        case(bench, m, n, wide)


def _products(together: int, size: tuple[int, int, int, int], folder: Path, be: CupyBackend, offset: int = 0) -> None:
    products = cuda_products.Products(folder, "float32", together=together, seed=0, offset=offset)
    for case in cuda_products.ALL:
        case(products, *size)


def _wide(case: tuple[str, str | None, dict[str, Any]], folder: Path, be: CupyBackend) -> None:
    wide_cases.check(be, *case)


def _odd_inputs(folder: Path, be: CupyBackend) -> None:
    steps.compare(steps.Drawn([8, 12, 5], ["tanh"], "mse", "identity", "sgd", 20, odd=True), be, "wide", "float32")


def _planes(m: int, n: int, folder: Path, be: CupyBackend) -> None:
    plane_cases.check(plane_cases.Planes(folder, 0, 0), m, n)


def _many_neurons(folder: Path, be: CupyBackend) -> None:
    """More groups of biases than blocks."""
    rng = np.random.default_rng(2)
    X, Y, order = rng.normal(size=(30, 5)), rng.normal(size=(30, 3)), np.arange(30).reshape(1, 30)
    found = []
    for backend, plan in (("numpy", "reference"), (be, "wide")):
        net = bp.MLP([5, 600, 3], "tanh", "identity", seed=1, dtype="float64", backend=backend)
        bp.Trainer(net, "mse", bp.SGD(0.1), batch_size=30, plan=plan).run(X, Y, order)
        found.append(net.backend.to_numpy(net.theta))
    assert_close(found[1], found[0], dtype=np.float64, length=30, scale=1.0)


def _resident(name: str, cut: tuple[int, int], shared: bool, folder: Path, be: CupyBackend) -> None:
    chosen: dict[str, Any] = {"blocks": cut[0], "column_blocks": cut[1], "shared": shared, "threads": 64}
    wide = name == "plain"  # its rows are whole runs of 16 bytes
    resident_cases.run(name, np.dtype("float32"), folder, [], wide_inputs=wide, **chosen)


def _fused(case: fused_cases.Case, folder: Path, be: CupyBackend) -> None:
    fused_cases.Run(case).kernel(folder)


def _prediction(kind: str, sizes: tuple[int, ...], folder: Path, be: CupyBackend) -> None:
    getattr(prediction_cases, kind)(prediction_cases.Where(folder, seed=0), *sizes)


def _answers(folder: Path, be: CupyBackend) -> None:
    net, same = (bp.MLP([20, 33, 10], "tanh", "softmax", seed=1, backend=backend) for backend in (be, "numpy"))
    X = np.random.default_rng(3).normal(size=(16, 20)).astype(np.float32)
    assert_close(be.to_numpy(net.predict(be.asarray(X))), same.predict(X), dtype=np.float32, length=33, scale=1.0)


RUNS: dict[str, tuple[Run, ...]] = {
    "rows": (partial(_rows, False, 40, 3), partial(_rows, True, 3, 1025), partial(_rows, False, 9, 8, offset=1)),
    "products": (
        partial(_products, 1, (66, 70, 31, 3)),
        partial(_products, 4, (66, 300, 40, 4)),
        partial(_products, 1, (33, 36, 40, 1), offset=1),
    ),
    "wide": (
        partial(_wide, wide_cases.CLIPPED),
        partial(_wide, wide_cases.PLANES_SAMPLES),
        partial(_planes, 33, 130),
        _odd_inputs,
        _many_neurons,
    ),
    "resident": (
        partial(_resident, "plain", (1, 1), True),
        partial(_resident, "everything", (1, 1), True),
        partial(_resident, "plain", (4, 2), True),
        partial(_resident, "everything", (4, 2), True),
        partial(_resident, "plain", (2, 1), False),
    ),
    "fused": tuple(partial(_fused, fused_cases.CASES[name]) for name in ("one tile", "ragged", "deep")),
    "fused_float": tuple(
        partial(_fused, fused_cases.FLOAT_CASES[name]) for name in ("one tile", "ragged", "128 samples")
    ),
    "answers": (_answers,),
    "few": (partial(_prediction, "few", (3, 1030, 7, 8)),),
    "narrow": (partial(_prediction, "narrow", (70, 130, 10, 1)),),
}
"""What runs, by what it is about."""
