"""Graphs of predictions on CuPy: which calls get one, what it reads and writes, how many are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import DataError
from bpcore.inference import cuda
from bpcore.inference.cuda_room import Place
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_same_bits
from tests.inference.networks import check, judge, make, samples


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
    monkeypatch.setattr(cuda, "MOST_GRAPHS", 3)
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
@pytest.mark.parametrize("how", ["wide", "blocks"], indirect=True)
def test_repeated_calls_with_a_block_of_rows_are_a_graph(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, how: str, name: str
) -> None:
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


@pytest.mark.parametrize("how", ["wide", "blocks"], indirect=True)
def test_arrays_and_parameters_that_were_given_back(fake_backend: CupyBackend, how: str) -> None:
    """The stand-in notices a kernel or a product of a graph that reads memory which is not there any more."""
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
        check(twin, X)
        check(net, X)
    net.theta = cupy_backend.copy(twin.theta, out=cupy_backend.empty(twin.theta.shape, twin.dtype))
    assert_same_bits(net.predict(X), twin.predict(X))


def test_layers_are_forgotten(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, blocks: None) -> None:
    monkeypatch.setattr(cuda, "MOST_GRAPHS", 3)
    net = make(fake_backend, "narrow")
    for m in (5, 6, 20, 7, 20, 8):
        check(net, samples(net, m))
    assert [key[0] for key in place_of(net).layers] == [7, 20, 8]


def test_memory_is_bounded(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MOST_GRAPHS", 2)
    net = make(fake_backend, "narrow")
    for m in (1, 2, 4, 8, 4):
        net.predict(samples(net, m))
    assert [key[0] for key in place_of(net).replays] == [8, 4]
    assert [key[0] for key in place_of(net).layers] == [8]


def place_of(net: bp.MLP) -> Place:
    """Return what a network keeps in the room that was left last."""
    (predictor,) = net._predictors.values()
    return net.backend.gpu.rooms[-1].places[predictor.infer]
