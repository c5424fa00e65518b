"""Which kernels a prediction on CuPy consists of, and how blocks share a sum."""

from __future__ import annotations

import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_products import CudaProducts
from bpcore.inference.cuda_room import Room
from tests.backends import fake_cupy as fake_module
from tests.backends.fake_cupy import FakeCupy
from tests.inference.networks import begin, check, samples


def test_ways(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP([16, 64, 10], "relu", "softmax", seed=1, backend=fake_backend)
    few, tiles = ["answer_few"] * 2, ["answer"] * 2
    arrays = []
    for m, kernels in ((1, few), (4, few), (3, []), (5, tiles), (8, []), (1, [])):
        del fake_cupy.launches[:]
        arrays.append(fake_backend.asarray(samples(net, m)))  # none has the address of another
        arrays.append(net.predict(arrays[-1]))
        assert [name for name, _, _ in fake_cupy.launches] == kernels, m


def test_wide_products_go_to_cublas(fake_backend: CupyBackend, fake_cupy: FakeCupy, wide: None) -> None:
    kernels = {
        (16, 64, 10): ["answer_narrow"],
        (16, 65, 10): ["finish_answer", "softmax_narrow", "answer"],  # with rows below that are finished apart
        (16, 64, 40, 10): ["finish_answer", "answer_narrow"],
        (16, 64, 40): ["finish_answer", "finish_answer", "softmax_narrow"],
        (16, 2000, 10): ["finish_answer", "answer"],  # its W does not fit beside the sums
        (16, 9, 10): ["answer", "answer"],
    }
    for sizes, names in kernels.items():
        fake_cupy.count.clear()
        del fake_cupy.launches[:]
        net = begin(fake_backend, list(sizes), "softmax" if sizes[1] == 65 else "relu", "softmax")
        X = samples(net, 9)
        check(net, X)
        assert [name for name, _, _ in fake_cupy.launches] == names, sizes
        assert fake_cupy.count["gemm"] == sum(n > 32 for n in sizes[1:]), "a narrow output is a product of our own"


@pytest.mark.parametrize("multiprocessors", [3, 40])
def test_sums_that_blocks_share(fake_cupy: FakeCupy, multiprocessors: int) -> None:
    fake_cupy.multiprocessors = multiprocessors
    net = begin(CupyBackend(), [300, 40, 10], "tanh", "softmax")
    for m in (5, 50):
        check(net, samples(net, m))
    grids = [grid for name, grid, _ in fake_cupy.launches if name == "answer"]
    assert grids[0] == ((2 * 2,) if multiprocessors == 3 else (2 * 4,))


def test_what_follows_a_product_is_done_by_blocks_alone(fake_cupy: FakeCupy, wide: None) -> None:
    """Also where blocks of the same unit come in clusters, because they share sums."""
    fake_cupy.multiprocessors = 40
    net = begin(CupyBackend(), [131, 67, 70, 1], "tanh", "sigmoid")
    for m in (1, 20):
        check(net, samples(net, m))
    assert "finish_answer" in {name for name, _, _ in fake_cupy.launches}


def test_sums_that_blocks_share_in_memory(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clusters the parts are in a room, which has enough for every network, in each dtype."""
    monkeypatch.setattr(fake_module, "CAPABILITY", (8, 0))
    fake_cupy.multiprocessors = 40
    be = CupyBackend()
    room = Room(be)
    for dtype in ("float32", "float64"):
        products = CudaProducts(be, dtype, lambda *shape: "")
        for m in (5, 200, 5):
            tiling = products.cut([(m, 40)], 3000)
            assert tiling.splits > 1
            parts, arrived = room.sums(products, tiling)
            assert parts.dtype == dtype
            assert parts.size >= tiling.blocks * tiling.rows * tiling.columns
            assert arrived.size >= tiling.tiles
            assert not be.to_numpy(arrived).any()
            assert room.sums(products, tiling)[0] is parts
    for dtype in ("float32", "float64"):
        net = begin(be, [300, 40, 10], "tanh", "softmax", dtype)
        for m in (5, 50):
            check(net, samples(net, m))
