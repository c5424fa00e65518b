"""Prediction on CuPy against float64, each way for each kind of network: over the stand-in, and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpcore.backends.cupy_backend import CupyBackend
from bpcore.functions.activations import ACTIVATIONS
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_close
from tests.inference.networks import NETS, begin, check, exact, judge, make, samples


@pytest.mark.parametrize("m", [1, 2, 33])
@pytest.mark.parametrize("name", NETS)
def test_by_a_graph(cupy_backend: CupyBackend, name: str, m: int, dtype: Any) -> None:
    net = make(cupy_backend, name, dtype)
    for seed in range(3):
        X = samples(net, m, seed)
        check(net, X)


@pytest.mark.parametrize("m", [1, 33, 40])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("how", ["wide", "blocks"], indirect=True)
def test_by_blocks(cupy_backend: CupyBackend, how: str, name: str, m: int) -> None:
    net = make(cupy_backend, name)
    for seed in range(2):
        X = samples(net, m, seed)
        check(net, X)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("how", ["wide", "blocks"], indirect=True)
def test_samples_and_outputs_at_odd_addresses(cupy_backend: CupyBackend, how: str, dtype: Any) -> None:
    """Rows of whole packs that begin between multiples of 16 bytes."""
    net = begin(cupy_backend, [8, 64, 12], "tanh", "softmax", dtype)
    X = samples(net, 33)
    flat = cupy_backend.asarray(np.append(np.zeros(1, dtype), X))
    out = cupy_backend.empty(33 * 12 + 1, dtype)[1:].reshape(33, 12)
    for _ in range(2):  # the second time by a graph
        judge(net, X, cupy_backend.to_numpy(net.predict(flat[1:].reshape(X.shape), out=out)))


def test_many_samples(cupy_backend: CupyBackend, dtype: Any) -> None:
    net = begin(cupy_backend, [6, 300, 3], "relu", "softmax", dtype)
    X = samples(net, 5000)
    check(net, X)


@pytest.mark.parametrize("sizes", [[1100, 12, 9], [2049, 7], [65, 130, 40], [3, 8, 32]])
def test_few_samples(cupy_backend: CupyBackend, sizes: list[int], dtype: Any) -> None:
    """Whole rows in a block and not, packs that fit and not, and more lines of W than are asked for at once."""
    net = begin(cupy_backend, sizes, "tanh", "log_softmax", dtype)
    for m in (1, 2, 3, 4):
        X = samples(net, m, m)
        check(net, X)
        on_device, out = cupy_backend.asarray(X), cupy_backend.fill(cupy_backend.empty((m + 1, sizes[-1]), dtype), 7)
        for _ in range(2):
            judge(net, X, cupy_backend.to_numpy(net.predict(on_device, out=out[:m])))
        assert (cupy_backend.to_numpy(out)[m] == 7).all(), "a row that is nobody's"
    # a matrix that does not begin at a multiple of 16 bytes
    flat = cupy_backend.asarray(np.append(np.zeros(1, dtype), X))
    judge(net, X, cupy_backend.to_numpy(net.predict(flat[1:].reshape(X.shape))))


@pytest.mark.parametrize("name", list(ACTIVATIONS))
@pytest.mark.parametrize("how", [None, "wide"], indirect=True)
def test_every_activation(cupy_backend: CupyBackend, how: Any, name: str) -> None:
    net = begin(cupy_backend, [4, 35, 34], name, name)
    X = samples(net, 5)
    check(net, X)


@pytest.mark.parametrize("how", [None, "wide", "blocks"], indirect=True)
def test_kernels_that_begin_early(fake_backend: CupyBackend, fake_cupy: FakeCupy, how: Any) -> None:
    """Products in tiles may begin while a product of cuBLAS or another kernel ends."""
    fake_cupy.early_is_early = True
    net = begin(fake_backend, [40, 34, 20, 33, 3], ["tanh", "relu", "softmax"], "softmax")
    X, out = fake_backend.empty((20, 40), net.dtype), fake_backend.empty((20, 3), net.dtype)
    for seed in range(3):
        fake_backend.copy(fake_backend.asarray(samples(net, 20, seed)), out=X)
        judge(net, samples(net, 20, seed), fake_backend.to_numpy(net.predict(X, out=out)))
    assert fake_cupy.count["early"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("sizes", "m"), [([784, 128, 10], 4096), ([784, 512, 512, 10], 4096), ([100, 1024, 1024, 33], 65537)]
)
def test_many_samples_on_a_gpu(gpu_backend: CupyBackend, sizes: list[int], m: int) -> None:
    net = begin(gpu_backend, sizes, "relu", "softmax", "float32")
    given = samples(net, m)
    X, out = gpu_backend.asarray(given), gpu_backend.empty((m, sizes[-1]), np.float32)
    expected = exact(net, given)
    for _ in range(3):  # queued, captured, and the graph alone
        gpu_backend.fill(out, np.nan)
        found = gpu_backend.to_numpy(net.predict(X, out=out))
        assert_close(found, expected, dtype=net.dtype, length=2 * sum(sizes), scale=np.maximum(np.abs(expected), 1.0))
    for k in range(3):  # other arrays each time
        judge(net, given[k:], gpu_backend.to_numpy(net.predict(X[k:])))
