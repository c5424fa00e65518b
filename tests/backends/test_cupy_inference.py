"""Prediction on CuPy against float64: over the stand-in, and on a GPU."""

from __future__ import annotations

import importlib
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore import inference_cuda, inference_layers, inference_room, network
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_products import CudaProducts
from bpcore.errors import DataError
from bpcore.functions.activations import ACTIVATIONS
from tests.backends import fake_cupy as fake_module
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_close, assert_same_bits
from tests.test_inference import exact

# sizes, hidden activations, output
NETS: dict[str, tuple[list[int], Any, str]] = {
    "narrow": ([7, 5, 3], "tanh", "softmax"),
    "one layer": ([9, 4], "relu", "log_softmax"),
    "rows inside": ([5, 33, 6, 2], ["softmax", "log_softmax"], "identity"),
    "wide rows": ([6, 70, 130], ["log_softmax"], "softmax"),
    "wider rows than a warp": ([3, 600], "relu", "softmax"),
    "tiles": ([131, 67, 70, 1], ["gelu", "relu"], "sigmoid"),
}


def make(be: Any, name: str, dtype: Any = "float64") -> bp.MLP:
    return begin(be, *NETS[name], dtype=dtype)


def begin(be: Any, sizes: list[int], hidden: Any, output: str, dtype: Any = "float64") -> bp.MLP:
    """Return a network whose biases are not 0."""
    net, rng = bp.MLP(sizes, hidden, output, seed=1, dtype=dtype, backend=be), np.random.default_rng(9)
    return net.set_weights([(W, rng.normal(size=b.shape)) for W, b in net.get_weights()])


def samples(net: bp.MLP, m: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(m, net.sizes[0])).astype(net.dtype)


def judge(net: bp.MLP, X: Any, found: Any) -> None:
    expected = exact(net, X)
    if net.dtype == np.float64:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    else:  # sums of as many terms as the layers have; a log-softmax subtracts numbers of the size of its input
        scale = np.maximum(np.abs(expected), 1.0)
        assert_close(found, expected, dtype=net.dtype, length=2 * sum(net.sizes), scale=scale)


def place_of(net: bp.MLP) -> inference_room.Place:
    """Return what a network keeps in the room that was left last."""
    (infer,) = net._inferences.values()
    return net.backend.gpu.rooms[-1].places[infer]  # type: ignore[attr-defined]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks of rows, and products by cuBLAS already where layers are small."""
    monkeypatch.setattr(inference_cuda, "GRAPH_BYTES", 0)
    monkeypatch.setattr(inference_layers, "LEAST_WIDE", 1)
    monkeypatch.setattr(inference_cuda, "BLOCK_BYTES", 0)
    monkeypatch.setattr(inference_cuda, "LEAST_ROWS", 20)
    monkeypatch.setattr(inference_layers, "FEW", 0)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks of rows, with products of our own."""
    monkeypatch.setattr(inference_layers, "FEW", 0)
    monkeypatch.setattr(inference_cuda, "GRAPH_BYTES", 0)
    monkeypatch.setattr(inference_cuda, "BLOCK_BYTES", 0)
    monkeypatch.setattr(inference_cuda, "LEAST_ROWS", 20)


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("m", [1, 2, 33])
@pytest.mark.parametrize("name", NETS)
def test_by_a_graph(cupy_backend: CupyBackend, name: str, m: int, dtype: Any) -> None:
    net = make(cupy_backend, name, dtype)
    for seed in range(3):
        X = samples(net, m, seed)
        judge(net, X, net.predict(X))


@pytest.mark.parametrize("m", [1, 33, 40])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("how", ["wide", "blocks"])
def test_by_blocks(cupy_backend: CupyBackend, request: pytest.FixtureRequest, how: str, name: str, m: int) -> None:
    request.getfixturevalue(how)
    net = make(cupy_backend, name)
    for seed in range(2):
        X = samples(net, m, seed)
        judge(net, X, net.predict(X))


def test_many_samples(cupy_backend: CupyBackend, dtype: Any) -> None:
    net = begin(cupy_backend, [6, 300, 3], "relu", "softmax", dtype)
    X = samples(net, 5000)
    judge(net, X, net.predict(X))


@pytest.mark.parametrize("sizes", [[1100, 12, 9], [2049, 7], [65, 130, 40], [3, 8, 32]])
def test_few_samples(cupy_backend: CupyBackend, sizes: list[int], dtype: Any) -> None:
    """Whole rows in a block and not, packs that fit and not, and more lines of W than are asked for at once."""
    net = begin(cupy_backend, sizes, "tanh", "log_softmax", dtype)
    for m in (1, 2, 3, 4):
        X = samples(net, m, m)
        judge(net, X, net.predict(X))
        on_device, out = cupy_backend.asarray(X), cupy_backend.fill(cupy_backend.empty((m + 1, sizes[-1]), dtype), 7)
        for _ in range(2):
            judge(net, X, cupy_backend.to_numpy(net.predict(on_device, out=out[:m])))
        assert (cupy_backend.to_numpy(out)[m] == 7).all(), "a row that is nobody's"
    # a matrix that does not begin at a multiple of 16 bytes
    flat = cupy_backend.asarray(np.append(np.zeros(1, dtype), X))
    judge(net, X, cupy_backend.to_numpy(net.predict(flat[1:].reshape(X.shape))))


@pytest.mark.parametrize("name", list(ACTIVATIONS))
@pytest.mark.parametrize("how", [None, "wide"])
def test_every_activation(cupy_backend: CupyBackend, request: pytest.FixtureRequest, how: Any, name: str) -> None:
    if how:
        request.getfixturevalue(how)
    net = begin(cupy_backend, [4, 35, 34], name, name)
    X = samples(net, 5)
    judge(net, X, net.predict(X))


@pytest.mark.parametrize("multiprocessors", [3, 40])
def test_sums_that_blocks_share(fake_cupy: FakeCupy, multiprocessors: int) -> None:
    fake_cupy.multiprocessors = multiprocessors
    net = begin(CupyBackend(), [300, 40, 10], "tanh", "softmax")
    for m in (5, 50):
        judge(net, samples(net, m), net.predict(samples(net, m)))
    grids = [grid for name, grid, _ in fake_cupy.launches if name == "answer"]
    assert grids[0] == ((2 * 2,) if multiprocessors == 3 else (2 * 4,))


def test_sums_that_blocks_share_in_memory(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clusters the parts are in a room, which has enough for every network, in each dtype."""
    monkeypatch.setattr(fake_module, "CAPABILITY", (8, 0))
    fake_cupy.multiprocessors = 40
    be = CupyBackend()
    room = inference_room.Room(be)
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
            judge(net, samples(net, m), net.predict(samples(net, m)))


# ------------------------------------------------------------------------------------------ which way


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
        judge(net, X, net.predict(X))
        assert [name for name, _, _ in fake_cupy.launches] == names, sizes
        assert fake_cupy.count["gemm"] == sum(n > 32 for n in sizes[1:]), "a narrow output is a product of our own"


def test_second_calls_allocate_nothing_and_launch_the_graph_alone(
    fake_backend: CupyBackend, fake_cupy: FakeCupy
) -> None:
    be = fake_backend
    net = make(be, "narrow", "float32")
    given = [(be.asarray(samples(net, 1, seed)), be.empty((1, 3), np.float32)) for seed in range(2)]
    for _ in range(2):  # the second time the arrays get a graph of their own
        for X, out in given:
            net.predict(X, out=out)
    for X, out in given:
        before = fake_cupy.count.copy()
        del fake_cupy.launches[:]
        assert net.predict(X, out=out) is out
        assert fake_cupy.count - before == {"graph": 1, "launch": 2}
        assert fake_cupy.launches == [], "the kernels are those of the graph"


def test_graphs_that_are_used_stay(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_cuda, "MOST_GRAPHS", 3)
    be, net = fake_backend, make(fake_backend, "narrow")
    given = [(be.asarray(samples(net, 3, seed)), be.empty((3, 3), net.dtype)) for seed in range(6)]

    def captured(*which: int) -> list[int]:
        """Ask for these in turn; return those that were captured."""
        found = []
        for k in which:
            del fake_cupy.launches[:]
            net.predict(given[k][0], out=given[k][1])
            judge(net, samples(net, 3, k), be.to_numpy(given[k][1]))
            found += [k] * bool(fake_cupy.launches)
        return found

    net.predict(given[5][0], out=given[5][1])  # the graph with memory of its own
    assert captured(0, 1, 0, 1, 0, 1) == [0, 1]
    # there is no room for a third, whoever comes again
    assert captured(*[0, 1, 2, 3, 4] * 4) == []
    # but for one that comes twice in a row; 0 was not used for longest
    assert captured(2, 2, 2, 1, 1) == [2]
    assert captured(0, 0) == [0]


def test_the_graph_of_arrays_reads_what_is_in_them(cupy_backend: CupyBackend) -> None:
    be = cupy_backend
    net = make(be, "tiles")
    X, out = be.empty((3, net.sizes[0]), net.dtype), be.empty((3, 1), net.dtype)
    elsewhere = samples(net, 3, 9)
    other = be.asarray(elsewhere)
    for seed in range(4):
        good = samples(net, 3, seed)
        be.copy(be.asarray(good), out=X)
        for _ in range(2):  # the second time by a graph of these arrays
            judge(net, good, be.to_numpy(net.predict(X, out=out)))
        # so are other samples for the same outputs, and the same samples for other outputs
        judge(net, elsewhere, be.to_numpy(net.predict(other, out=out)))
        judge(net, good, be.to_numpy(net.predict(X, out=be.empty((3, 1), net.dtype))))
        # other numbers of rows are other graphs
        judge(net, good[:2], be.to_numpy(net.predict(X[:2], out=out[:2])))
    net.set_weights([(2 * W, b) for W, b in net.get_weights()])
    judge(net, good, be.to_numpy(net.predict(X, out=out)))
    judge(net, good, be.to_numpy(net.predict(X, out=out)))
    bad = good.copy()
    bad[1, 0] = np.nan
    be.copy(be.asarray(bad), out=X)
    for _ in range(3):
        with pytest.raises(DataError, match="not finite"):
            net.predict(X, out=out)
    be.copy(be.asarray(good), out=X)
    judge(net, good, be.to_numpy(net.predict(X, out=out)))


@pytest.mark.parametrize("name", ["tiles", "rows inside", "wide rows"])
@pytest.mark.parametrize("how", ["wide", "blocks"])
def test_repeated_calls_with_a_block_of_rows_are_a_graph(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, request: pytest.FixtureRequest, how: str, name: str
) -> None:
    request.getfixturevalue(how)
    be, net = fake_backend, make(fake_backend, name)
    assert be.gpu.early is not None, "found out by a graph"
    for m, graphs in ((20, [0, 1, 1]), (17, [0, 1, 1]), (21, [0, 0, 0])):
        X, out = be.empty((m, net.sizes[0]), net.dtype), be.empty((m, net.sizes[-1]), net.dtype)
        for seed, graph in enumerate(graphs):
            good = samples(net, m, seed)
            be.copy(be.asarray(good), out=X)
            before = fake_cupy.count.copy()
            del fake_cupy.launches[:]
            net.predict(X, out=out)
            done = fake_cupy.count - before
            assert done["graph"] == graph
            if seed:
                assert done["allocation"] == 0
            assert fake_cupy.launches == [] or not graph or seed == 1, "the kernels are those of the graph"
            judge(net, good, be.to_numpy(out))


@pytest.mark.parametrize("how", ["wide", "blocks"])
def test_arrays_and_parameters_that_were_given_back(
    fake_backend: CupyBackend, request: pytest.FixtureRequest, how: str
) -> None:
    """The stand-in notices a kernel or a product of a graph that reads memory which is not there any more."""
    request.getfixturevalue(how)
    be, net = fake_backend, make(fake_backend, "tiles")
    for seed in range(4):
        good = samples(net, 19, seed)
        X = be.asarray(good)
        out: Any = None
        for _ in range(3):
            out = net.predict(X, out=out)  # the arrays of the calls before go while this one goes on
        judge(net, good, be.to_numpy(out))
        net.set_weights([(W + 0.1, b) for W, b in net.get_weights()])
        judge(net, good, be.to_numpy(net.predict(X, out=out)))
        if seed % 2:
            net.theta = be.copy(net.theta, out=be.empty(net.theta.shape, net.dtype))
            judge(net, good, be.to_numpy(net.predict(X, out=out)))


def test_networks_share_a_room(fake_backend: CupyBackend, fake_cupy: FakeCupy, wide: None) -> None:
    be = fake_backend
    begun = fake_cupy.used
    nets = [make(be, "tiles") for _ in range(3)]
    thetas = fake_cupy.used - begun
    for net in nets:
        X, out = be.asarray(samples(net, 20)), be.empty((20, 1), net.dtype)
        for _ in range(3):
            net.predict(X, out=out)
        judge(net, samples(net, 20), be.to_numpy(out))
    assert len(be.gpu.rooms) == 1
    (handle,) = {id(room.cublas) for room in be.gpu.rooms}
    held = fake_cupy.used - begun - thetas
    assert 2**25 < held < 2**25 + 2**20, "the workspace of cuBLAS, and little else"
    del X, out, net, nets[1:]
    assert id(be.gpu.rooms[0].cublas) == handle
    assert len(be.gpu.rooms[0].places) == 1
    be.release()
    assert fake_cupy.used - begun == thetas // 3
    X = samples(nets[0], 20)
    judge(nets[0], X, nets[0].predict(X))


def test_a_failed_call_leaves_nothing_to_others(
    fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, wide: None
) -> None:
    net = make(fake_backend, "tiles")
    X = samples(net, 20)
    net.predict(X)
    room = fake_backend.gpu.rooms[0]

    def fail() -> None:
        raise RuntimeError("unspecified launch failure")

    with monkeypatch.context() as patch:
        patch.setattr(fake_backend.gpu, "wait", fail)
        with pytest.raises(RuntimeError, match="launch failure"):
            net.predict(X)
    judge(net, X, net.predict(X))
    assert room not in fake_backend.gpu.rooms


def test_layers_are_forgotten(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, blocks: None) -> None:
    monkeypatch.setattr(inference_cuda, "MOST_GRAPHS", 3)
    net = make(fake_backend, "narrow")
    for m in (5, 6, 20, 7, 20, 8):
        judge(net, samples(net, m), net.predict(samples(net, m)))
    assert [key[0] for key in place_of(net).layers] == [7, 20, 8]


def test_memory_is_bounded(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_cuda, "MOST_GRAPHS", 2)
    net = make(fake_backend, "narrow")
    for m in (1, 2, 4, 8, 4):
        net.predict(samples(net, m))
    assert [key[0] for key in place_of(net).replays] == [8, 4]
    assert [key[0] for key in place_of(net).layers] == [8]


class Samples:
    """What the benchmark asks of a tensor in device memory."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {"owner": array}

    def __len__(self) -> int:
        return len(self.array)

    def clone(self) -> Samples:
        be = CupyBackend()
        return Samples(be.copy(self.array, out=be.empty(self.array.shape, self.array.dtype)))

    def numel(self) -> int:
        return int(self.array.size)

    def element_size(self) -> int:
        return int(self.array.itemsize)


@pytest.mark.parametrize(("m", "graphs"), [(20, True), (21, False)])
def test_the_benchmark_asks_as_it_says(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, wide: None, m: int, graphs: bool
) -> None:
    benchmark: Any = importlib.import_module("benchmarks.gpu.inference")
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "torch", torch)
    net, asked = make(fake_backend, "tiles"), []

    def us(call: Any, wait: Any, *, queued: bool = False) -> float:
        for _ in range(60):
            before = fake_cupy.count.copy()
            call()
            wait()
        asked.append(fake_cupy.count - before)
        return 1.0

    monkeypatch.setattr(benchmark, "us", us)
    facts, out = benchmark.ours(net, Samples(fake_backend.asarray(samples(net, m))))
    judge(net, samples(net, m), fake_backend.to_numpy(out))
    found = {name: (done["graph"], done["allocation"]) for name, done in zip(facts, asked, strict=True)}
    expected = {
        "bpcore_us": (int(graphs), 0),
        "bpcore_graph_queued_us": (1, 0),
        "bpcore_alternating_us": (int(graphs), 0),
        "bpcore_other_arrays_us": (0, 0),
        "bpcore_new_outputs_us": (found["bpcore_new_outputs_us"][0], 1),
    }
    if not graphs:
        del expected["bpcore_graph_queued_us"]
    assert found == expected


# ------------------------------------------------------------------------------------------ out


@pytest.mark.parametrize("how", [None, "wide", "blocks"])
def test_out_on_the_host_and_on_the_device(cupy_backend: CupyBackend, request: pytest.FixtureRequest, how: Any) -> None:
    if how:
        request.getfixturevalue(how)
    be = cupy_backend
    net = make(be, "tiles")
    X = samples(net, 33)
    expected, out = net.predict(X), np.full((33, 1), np.nan)
    assert type(expected) is np.ndarray
    assert net.predict(X, out=out) is out
    assert_same_bits(out, expected)
    on_device, columns = be.empty((33, 1), np.float64), be.empty((33, 2), np.float64)
    assert net.predict(be.asarray(X), out=on_device) is on_device
    assert_same_bits(be.to_numpy(on_device), expected)
    strided = columns[:, 1:]
    assert net.predict(be.asarray(X), out=strided) is strided
    assert_same_bits(np.ascontiguousarray(be.to_numpy(strided)), expected)
    assert be.owns(net.predict(be.asarray(X)))


@pytest.mark.parametrize("how", [None, "wide", "blocks"])
@pytest.mark.parametrize("sizes", [[70, 70], [70, 50, 70]])
def test_out_may_be_the_samples(
    cupy_backend: CupyBackend, request: pytest.FixtureRequest, sizes: list[int], how: Any
) -> None:
    if how:
        request.getfixturevalue(how)
    be = cupy_backend
    net = begin(be, sizes, "tanh", "tanh")
    for m in (50, 20):
        device = be.asarray(samples(net, m))
        for _ in range(3):  # a graph may write over the samples only if there is a layer between
            X = be.to_numpy(device)
            assert net.predict(device, out=device) is device
            judge(net, X, be.to_numpy(device))


@pytest.mark.parametrize("how", [None, "wide", "blocks"])
def test_kernels_that_begin_early(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, request: pytest.FixtureRequest, how: Any
) -> None:
    """Products in tiles may begin while a product of cuBLAS or another kernel ends."""
    if how:
        request.getfixturevalue(how)
    fake_cupy.early_is_early = True
    net = begin(fake_backend, [40, 34, 20, 33, 3], ["tanh", "relu", "softmax"], "softmax")
    X, out = fake_backend.empty((20, 40), net.dtype), fake_backend.empty((20, 3), net.dtype)
    for seed in range(3):
        fake_backend.copy(fake_backend.asarray(samples(net, 20, seed)), out=X)
        judge(net, samples(net, 20, seed), fake_backend.to_numpy(net.predict(X, out=out)))
    assert fake_cupy.count["early"]


# ------------------------------------------------------------------------------------------ parameters


def test_parameters_may_change_between_calls(cupy_backend: CupyBackend) -> None:
    net = make(cupy_backend, "narrow")
    X = samples(net, 2)
    before = net.predict(X)
    net.set_weights([(2 * W, b - 0.5) for W, b in net.get_weights()])
    found = net.predict(X)
    assert np.abs(found - before).max() > 1e-3
    judge(net, X, found)


def test_another_theta_is_noticed(cupy_backend: CupyBackend) -> None:
    net = make(cupy_backend, "narrow")
    X = samples(net, 2)
    net.predict(X)
    twin = net.copy()  # it shares the inference
    twin.set_weights([(2 * W, b - 0.5) for W, b in net.get_weights()])
    for _ in range(2):
        judge(twin, X, twin.predict(X))
        judge(net, X, net.predict(X))
    net.theta = cupy_backend.copy(twin.theta, out=cupy_backend.empty(twin.theta.shape, twin.dtype))
    assert_same_bits(net.predict(X), twin.predict(X))


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", [None, "wide", "blocks"])
def test_bad_samples_are_refused(
    cupy_backend: CupyBackend, request: pytest.FixtureRequest, how: Any, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how:
        request.getfixturevalue(how)
    # after a sigmoid an infinity is 0 or 1: it can be seen in the first layer only
    be, net = cupy_backend, begin(cupy_backend, [131, 67, 40, 1], "sigmoid", "identity")
    X = samples(net, 41)
    X[40, 130] = bad
    net.predict(X[:40])
    for given in (X, be.asarray(X), X.tolist()):
        with pytest.raises(DataError, match=r"X contains 1 value that is not finite; the first is .* in row 40"):
            net.predict(given)
    # nothing of them is left, in rows that are not used either
    monkeypatch.setattr(network, "check_finite", lambda *_, **__: pytest.fail("these samples are good"))
    for m in (32, 17, 32, 33):
        good = samples(net, m, m)
        judge(net, good, net.predict(good))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.full((2, 3), 1 + 1j), r"X is complex \(complex128\)"),
        (np.ones((2, 3), np.float16), r"float16 is not supported as a training dtype; .* X.astype\(np.float32\)"),
        (np.array([[1, 2, 3], [4, 5e200, 6]]), r"X: 5e\+200 in row 1, column 1 does not fit in float32"),
        (
            np.array([[1, 2, 3], [4, 5, np.nan]]),
            r"X contains 1 value that is not finite; the first is nan in row 1, column 2",
        ),
    ],
    ids=["complex", "float16", "too large", "nan"],
)
def test_samples_on_the_device_are_refused_like_those_of_the_host(
    cupy_backend: CupyBackend, given: Any, words: str
) -> None:
    net = bp.MLP([3, 2], seed=0, dtype="float32", backend=cupy_backend)
    trainer = bp.Trainer(net, batch_size=2)
    for X in (given, cupy_backend.asarray(given)):
        for ask in (net.predict, lambda X: net.evaluate(X, [0, 1]), lambda X: trainer.run(X, [0, 1], [[0, 1]])):
            with pytest.raises(DataError, match=words):
                ask(X)


@pytest.mark.parametrize(("how", "m"), [(None, 3), (None, 6), ("wide", 20), ("blocks", 20)])
@pytest.mark.parametrize("sizes", [[131, 67, 40, 1], [131, 67, 1]], ids=str)
def test_bad_samples_in_the_same_arrays(
    cupy_backend: CupyBackend, request: pytest.FixtureRequest, how: Any, m: int, sizes: list[int]
) -> None:
    if how:
        request.getfixturevalue(how)
    be, net = cupy_backend, begin(cupy_backend, sizes, "sigmoid", "identity")
    good = samples(net, m)
    bad = good.copy()
    bad[-1, 130] = np.inf
    X, out = be.empty(good.shape, net.dtype), be.empty((m, 1), net.dtype)
    for given in (good, good, bad, bad, good, bad, good):
        be.copy(be.asarray(given), out=X)
        if given is bad:
            with pytest.raises(DataError, match=f"in row {m - 1}"):
                net.predict(X, out=out)
        else:
            judge(net, good, be.to_numpy(net.predict(X, out=out)))


def test_finite_samples_that_overflow_are_not_refused(cupy_backend: CupyBackend) -> None:
    net = bp.MLP([2, 3, 2], "sigmoid", "identity", seed=1, dtype="float32", backend=cupy_backend)
    net.set_weights([(np.full((2, 3), 1e30), np.zeros(3)), (np.ones((3, 2)), np.zeros(2))])
    for _ in range(2):
        assert_same_bits(net.predict(np.full((1, 2), 1e30, np.float32)), np.full((1, 2), 3, np.float32))


# ------------------------------------------------------------------------------------------ at the same time


@pytest.mark.parametrize("how", [None, "wide", "blocks"])
def test_a_call_within_a_call(
    fake_backend: CupyBackend, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Another thread may come in at any moment: here it does when a call has queued everything."""
    if how:
        request.getfixturevalue(how)
    net = make(fake_backend, "tiles")
    outer, inner = samples(net, 3, 1), samples(net, 4, 2)
    net.predict(outer)
    wait = fake_backend.gpu.wait
    X, out = fake_backend.asarray(outer), fake_backend.empty((3, 1), np.float64)
    others, found = fake_backend.asarray(inner), fake_backend.empty((4, 1), np.float64)

    def interrupted() -> None:
        monkeypatch.setattr(fake_backend.gpu, "wait", wait)
        net.predict(others, out=found)
        wait()

    for _ in range(3):  # from the second time on both are graphs over their arrays
        monkeypatch.setattr(fake_backend.gpu, "wait", interrupted)
        fake_backend.fill(out, 0)
        fake_backend.fill(found, 0)
        net.predict(X, out=out)
        judge(net, inner, fake_backend.to_numpy(found))
        judge(net, outer, fake_backend.to_numpy(out))
    first, second = fake_backend.gpu.rooms
    assert first.odd_at != second.odd_at


@pytest.mark.parametrize("how", [None, "wide", "blocks"])
def test_a_stream_is_used(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, request: pytest.FixtureRequest, how: Any
) -> None:
    """The stand-in notices a product of cuBLAS on another stream than the current one."""
    if how:
        request.getfixturevalue(how)
    net = make(fake_backend, "tiles")
    X, out = fake_backend.asarray(samples(net, 20)), fake_backend.empty((20, 1), np.float64)
    for stream in [fake_cupy.cuda.Stream() for _ in range(4)]:
        del fake_cupy.launched_on[:]
        net.predict(X, out=out, stream=stream)
        assert set(fake_cupy.launched_on) <= {stream.ptr}
        judge(net, samples(net, 20), fake_backend.to_numpy(out))
    assert fake_cupy.launched_on == [stream.ptr], "the last by a graph"
    fake_backend.fill(out, 0)
    net.predict(X[:19], out=out[:19])
    judge(net, samples(net, 20)[:19], fake_backend.to_numpy(out[:19]))


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


@pytest.mark.gpu
def test_threads_and_streams(gpu_backend: CupyBackend) -> None:
    net = bp.MLP([20, 64, 64, 5], "tanh", seed=1, backend=gpu_backend)
    given = [samples(net, m, m) for m in (1, 3, 200, 30000, 1, 64)]
    expected = [net.predict(X) for X in given]
    cuda, barrier, wrong = gpu_backend.xp.cuda, threading.Barrier(len(given)), []

    def work(k: int) -> None:
        with cuda.Stream(non_blocking=True):
            X, out = gpu_backend.asarray(given[k]), gpu_backend.empty(expected[k].shape, np.float32)
            barrier.wait(60)
            for _ in range(100):
                # cuBLAS may add up in another order while other streams are busy
                if not np.allclose(gpu_backend.to_numpy(net.predict(X, out=out)), expected[k], rtol=1e-4):
                    wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(given))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
