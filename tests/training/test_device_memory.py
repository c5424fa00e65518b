"""What training needs of a device's memory: told beforehand, met in parts where it must be, and given back."""

from __future__ import annotations

import gc
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore import device_room
from bpcore.backends import cupy_device
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import ConfigurationError, DeviceMemoryError, DivergenceError
from bpcore.functions.losses import get_loss
from bpcore.kernels.cuda.build import KernelLoader
from bpcore.training import memory, placement, wide
from bpcore.training.graph import GraphPlan
from bpcore.training.memory import DataShape, Forecast
from bpcore.training.micro_batches import MicroBatchPlan
from bpcore.training.persistent import PersistentPlan
from bpcore.training.placement import place
from bpcore.training.reference import ReferencePlan
from bpcore.training.spec import Dropout, StepSpec
from bpcore.training.wide import WidePlan
from tests.backends.fake_cupy import FakeCupy
from tests.training.test_graph_plan import Case

SIZES = (40, 300, 200, 10)


def spec_of(net: bp.MLP, batch: int = 500, **others: Any) -> StepSpec:
    activations = tuple(net.activations)
    return StepSpec(net.sizes, activations, get_loss("cross_entropy"), bp.Adam(0.01), batch, net.dtype, **others)


SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights and classes": {"weighted": True, "classes": True},
    "masks": {"dropout": Dropout((0.5, 0.2))},
    "masks of samples": {"dropout": Dropout((0.5, 0.2), per="sample")},
}
PRECISE: dict[str, dict[str, Any]] = {name: {"precision": name} for name in ("tf32x3", "tf32", "bf16")}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in (ReferencePlan, MicroBatchPlan, GraphPlan, WidePlan) for name in SPECS),
        *((WidePlan, name) for name in PRECISE),
    ],
)
@pytest.mark.parametrize("hidden", ["relu", "gelu", "softmax"])
def test_a_plan_allocates_what_it_says(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, kind: Any, name: str, hidden: str
) -> None:
    """To one percent and 64 KiB: small tables are not counted, each array begins at a multiple of 512 bytes."""
    net = bp.MLP(SIZES, hidden, seed=0, dtype="float32", backend=fake_backend)
    spec = spec_of(net, **(SPECS | PRECISE)[name])
    rows = (130,) if kind is MicroBatchPlan else ()
    gc.collect()
    before = fake_cupy.used
    plan = kind(spec, net, fake_backend, 0, *rows)
    parts = kind.device_bytes(spec, fake_backend, net.layout.size, *rows)
    told, found = sum(parts.values()), fake_cupy.used - before
    assert plan.name
    counted = told - parts.get("workspace of cuBLAS", 0)  # which would hide much
    assert abs(found - told) < 0.01 * counted + 2**16, (parts, found)


@pytest.mark.parametrize("plan", ["reference", "graph", "wide", "persistent", "wide in tf32x3"])
@pytest.mark.parametrize("where", ["resident", "stream"])
def test_the_forecast_is_what_training_takes(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, plan: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never less than what is allocated at most, and no more than a quarter and half a MiB (of records) above it."""
    monkeypatch.setattr(placement, "STAGE_BYTES", 2**14)
    sizes = [16, 12, 4] if plan == "persistent" else [30, 60, 4]
    rng, m = np.random.default_rng(0), 30_000
    X, y = rng.normal(size=(m, sizes[0])).astype(np.float32), rng.integers(0, 4, m)
    gc.collect()
    before = fake_cupy.peak = fake_cupy.used
    net = bp.MLP(sizes, seed=0, dtype="float32", backend=fake_backend)
    plan, _, precision = plan.partition(" in ")
    how: dict[str, Any] = {"plan": plan, "precision": precision or None}
    options: dict[str, Any] = {"batch_size": 100, "epochs": 1, "keep": "best", "stop": bp.MaxSteps(40)} | how
    run = bp.train(net, X, y, data=where, optimizer=bp.Adam(0.01), validation=(X[:500], y[:500]), **options)
    told, found = sum(run.record["data"]["bytes"].values()), fake_cupy.peak - before
    # a graph keeps what it was captured with, and sorting on the stand-in needs 32 of the 40 bytes that thrust may need
    assert found <= told <= 1.25 * found + 2**19, (told, found, run.record["data"]["bytes"])


def shape(m: int, **others: Any) -> DataShape:
    return DataShape(m, SIZES[0], SIZES[-1], **others)


def test_where_the_data_goes_as_the_memory_gets_less(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP(SIZES, seed=0, dtype="float32", backend=fake_backend)
    spec = spec_of(net, batch=20_000, classes=True)
    found = []
    for megabytes in (900, 500, 300, 120, 80):
        fake_cupy.memory = megabytes * 10**6
        told = place("auto", spec, net, fake_backend, shape(2_000_000), validation=shape(100))
        found.append((told.where, told.rows))
    assert found == [("resident", None), ("streamed", None), ("streamed", None), ("streamed", 5000), ("streamed", 313)]
    fake_cupy.memory = 70 * 10**6
    with pytest.raises(DeviceMemoryError, match=r"one sample at a time with data='auto' does not fit in the memory"):
        place("auto", spec, net, fake_backend, shape(2_000_000))


@pytest.mark.parametrize("plan", ["auto", "reference", "graph", "wide", "persistent", "fused"])
def test_a_forecast_asks_no_driver(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """Whoever asks what a training would take gets numbers: no probe, no handle, no kernel, nothing on the device."""
    net = bp.MLP([16, 12, 4], seed=0, dtype="float32", backend=fake_backend)
    before = fake_cupy.count.copy(), fake_cupy.used

    def refuse(what: str) -> Any:
        return lambda *args, **kwargs: pytest.fail(f"a forecast {what}")

    monkeypatch.setattr(cupy_device, "load_driver", refuse("asks for launches that begin early"))
    monkeypatch.setattr(KernelLoader, "function", refuse("loads a kernel"))
    monkeypatch.setattr(wide, "load_cublas", refuse("loads cuBLAS"))
    # of a device it may read the properties and what is free; all else would begin something there
    asked = {name: getattr(fake_cupy.cuda.runtime, name) for name in ("getDevice", "getDeviceProperties", "memGetInfo")}
    monkeypatch.setattr(fake_cupy, "cuda", SimpleNamespace(runtime=SimpleNamespace(**asked)))
    spec = spec_of(net, precision="bf16" if plan == "fused" else None)
    forecast = place("auto", spec, net, fake_backend, shape(10_000), plan=plan, validation=shape(100)).forecast
    assert forecast is not None
    assert forecast.fits()
    assert (fake_cupy.count, fake_cupy.used) == before


def test_the_limit_of_the_pool_counts(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    assert device_room.available_bytes(fake_backend) == 2**29
    fake_cupy.limit = 10**6
    assert device_room.available_bytes(fake_backend) == 10**6
    kept = fake_backend.empty(512, np.uint8)
    assert device_room.available_bytes(fake_backend) == 10**6 - kept.nbytes
    assert device_room.available_bytes(bp.get_backend("numpy")) is None


@pytest.mark.gpu
def test_a_pool_that_is_too_small(gpu_backend: CupyBackend) -> None:
    """The same result to rounding, with the data on the host and with a batch in parts."""
    pool = gpu_backend.xp.get_default_memory_pool()
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200_000, 256)).astype(np.float32), rng.integers(0, 10, 200_000)
    options: dict[str, Any] = {"batch_size": 20_000, "epochs": 1, "seed": 1, "optimizer": bp.Adam(0.001)}
    net = bp.MLP([256, 1024, 1024, 10], seed=0, dtype="float32", backend=gpu_backend)
    twins = [net.copy(), net.copy()]
    wanted = bp.train(net, X, y, **options)
    assert wanted.record["data"]["placement"] == "resident"
    for twin, megabytes in zip(twins, (600, 300), strict=True):
        pool.free_all_blocks()
        pool.set_limit(pool.used_bytes() + megabytes * 10**6)
        try:
            run = bp.train(twin, X, y, **options)
        finally:
            pool.set_limit(0)
        assert run.record["data"]["placement"] == "streamed"
        assert (run.record["plan"] == "micro-batches") == (megabytes == 300)
        assert run.history["loss"][-1] == pytest.approx(wanted.history["loss"][-1], rel=1e-3)


def test_data_on_the_device_is_not_counted_again(fake_backend: CupyBackend) -> None:
    net = bp.MLP(SIZES, seed=0, dtype="float32", backend=fake_backend)
    parts = []
    for on_device in (False, True):
        forecast = place("auto", spec_of(net), net, fake_backend, shape(1000, on_device=on_device)).forecast
        assert forecast is not None
        parts.append(forecast.parts["data"])
    assert parts[0] - parts[1] == 1000 * SIZES[0] * 4


def test_what_was_asked_for_by_name_is_no_suggestion(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP(SIZES, seed=0, dtype="float32", backend=fake_backend)
    spec = spec_of(net, batch=20_000, classes=True)
    fake_cupy.memory = 300 * 10**6
    with pytest.raises(DeviceMemoryError) as caught:
        place("resident", spec, net, fake_backend, shape(2_000_000), plan="graph")
    for part in (
        "data='resident' does not fit",
        "  data  ",
        "MiB",
        "  free  ",
        "Possible: a smaller batch_size, data='stream'",
    ):
        assert part in str(caught.value)
    fake_cupy.memory = 120 * 10**6
    with pytest.raises(DeviceMemoryError, match=r"a step of 20000 samples under plan='graph' with data='auto'"):
        place("auto", spec, net, fake_backend, shape(2_000_000), plan="graph")


def test_streaming_that_was_not_asked_for_is_said_and_recorded(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, capsys: Any, caplog: Any
) -> None:
    net = bp.MLP([100, 4], seed=0, dtype="float32", backend=fake_backend)
    X, y = np.zeros((3000, 100), np.float32), np.arange(3000) % 4
    fake_cupy.memory = memory.RESERVE + fake_cupy.used + 10**6
    with caplog.at_level(logging.INFO, "bpcore"):
        run = bp.train(net, X, y, batch_size=100, epochs=1, stop=bp.MaxSteps(2), verbose=True)
    line = "the data stays on the host and is streamed: with all of the data it is 1."
    assert capsys.readouterr().err.count(line) == 1
    assert sum(line in message for message in caplog.messages) == 1
    data = run.record["data"]
    assert data["placement"] == "streamed"
    assert data["free_bytes"] < memory.RESERVE + 2 * 10**6
    assert data["bytes"]["two buffers of data"] > 0


# ------------------------------------------------------------------------------------------ micro-batches


@pytest.mark.parametrize("rows", [1, 4, 9])
@pytest.mark.parametrize("name", ["plain", "weights", "masks", "everything", "one layer"])
@pytest.mark.parametrize("which", ["numpy", "stand-in"])
def test_parts_of_a_batch_are_the_batch(request: Any, which: str, name: str, rows: int) -> None:
    be = bp.get_backend("numpy") if which == "numpy" else request.getfixturevalue("fake_backend")
    case = Case(be, name, "float64", 9, ("reference",))
    twin = Case(be, name, "float64", 9, ("reference",), be)
    _, net, state = twin.runs["reference"]
    twin.runs["parts"] = MicroBatchPlan(twin.spec, net, be, 11, rows), net, state
    twin.problems["parts"] = twin.problems["reference"]
    rng = np.random.default_rng(0)
    for width in (9, 5, 1):
        index = rng.integers(0, 200, (3, width))
        np.testing.assert_allclose(twin.run("parts", index), case.run("reference", index), rtol=1e-11, atol=1e-13)
    actual, wanted = twin.results("parts"), case.results("reference")
    for key, array in wanted.items():
        np.testing.assert_allclose(actual[key], array, rtol=1e-10, atol=1e-12, err_msg=key)


def test_parts_of_a_mask_are_the_mask(backend: Any) -> None:
    whole = backend.dropout_mask(backend.empty((9, 7), np.float64), rate=0.4, seed=2**40, step=3, layer=2)
    part = backend.empty((4, 7), np.float64)
    backend.dropout_part(part, first=3 * 7, rate=0.4, seed=2**40, step=3, layer=2)
    np.testing.assert_array_equal(backend.to_numpy(part), backend.to_numpy(whole)[3:7])


def test_parts_of_a_mask_on_the_device(cupy_backend: CupyBackend) -> None:
    for first in (0, 1, 2, 3, 5, 4096):
        found = cupy_backend.dropout_part(
            cupy_backend.empty(333, np.float32), first=first, rate=0.4, seed=7, step=3, layer=2
        )
        whole = bp.get_backend("numpy").dropout_mask(np.empty(5000, np.float32), rate=0.4, seed=7, step=3, layer=2)
        np.testing.assert_array_equal(cupy_backend.to_numpy(found), whole[first : first + 333])


def problem() -> tuple[Any, Any, bp.MLP]:
    rng = np.random.default_rng(1)
    return (
        rng.normal(size=(128, 6)),
        rng.integers(0, 3, 128),
        bp.MLP([6, 80, 3], "tanh", seed=4, dtype="float64", backend="numpy"),
    )


@pytest.fixture
def no_persistent_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """That plan needs no memory to speak of."""
    monkeypatch.setattr(PersistentPlan, "supports", staticmethod(lambda spec, be: "not here"))


OPTIONS: dict[str, Any] = {"batch_size": 64, "epochs": 2, "seed": 1, "dropout": bp.Dropout(0.3, per="sample")}


@pytest.mark.usefixtures("no_persistent_plan")
def test_memory_that_ends_while_a_plan_is_built(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: Any, capsys: Any
) -> None:
    """The forecast is told that there is more than there is."""
    X, y, net = problem()
    wanted = bp.train(net.copy(), X, y, **OPTIONS)
    net.to(fake_backend)
    monkeypatch.setattr(placement, "available_bytes", lambda be: 2**40)
    fake_cupy.memory = fake_cupy.used + 200_000
    run = bp.train(net, X, y, verbose=True, **OPTIONS)
    assert run.record["plan"] == "micro-batches"
    assert "parts of 32 samples of a step: CuPy says: Out of memory" in run.record["plan_why"]
    assert "bpcore: a step of 64 samples goes through the network in parts of 32" in capsys.readouterr().err
    theta = fake_backend.to_numpy(net.theta)
    np.testing.assert_allclose(theta, wanted.net.theta, rtol=1e-10, atol=1e-13)
    assert run.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-10)
    np.testing.assert_array_equal(run.history["accuracy"], wanted.history["accuracy"])


@pytest.mark.usefixtures("no_persistent_plan")
def test_memory_that_ends_in_a_step(fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: Any) -> None:
    X, y, net = problem()
    wanted = bp.train(net.copy(), X, y, **OPTIONS)
    net.to(fake_backend)
    plan_run, calls = GraphPlan.run, []

    def ends(self: Any, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            plan_run(self, *arguments)  # parameters have moved
            fake_backend.empty(10**12, np.float32)
        plan_run(self, *arguments)

    monkeypatch.setattr(GraphPlan, "run", ends)
    run = bp.train(net, X, y, **OPTIONS)
    assert (run.record["plan"], run.steps) == ("micro-batches", 4)
    np.testing.assert_allclose(fake_backend.to_numpy(net.theta), wanted.net.theta, rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("no_persistent_plan")
@pytest.mark.parametrize("plan", ["auto", "graph"])
def test_a_start_that_fails_changes_nothing(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: Any, plan: str
) -> None:
    X, y, net = problem()
    net.to(fake_backend)
    before = np.array(fake_backend.to_numpy(net.theta))
    held = fake_cupy.used
    monkeypatch.setattr(placement, "available_bytes", lambda be: 2**40)
    fake_cupy.memory = held + 40_000
    what = "one sample at a time" if plan == "auto" else "a step of 64 samples under plan='graph'"
    words = rf"(?s){what} does not fit.*gradient.*free.*Possible.*CuPy says: Out of"
    with pytest.raises(DeviceMemoryError, match=words) as caught:
        bp.train(net, X, y, plan=plan, **OPTIONS)
    np.testing.assert_array_equal(fake_backend.to_numpy(net.theta), before)
    assert isinstance(caught.value, MemoryError)
    gc.collect()
    assert fake_cupy.used == held


def test_no_memory_for_the_optimiser(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    X, y, net = problem()
    net.to(fake_backend)
    fake_cupy.memory = fake_cupy.used + 4096
    with pytest.raises(DeviceMemoryError, match=r"(?s)what the optimiser keeps does not fit.*state of the optimiser"):
        bp.train(net, X, y, optimizer=bp.Adam(0.01))


def test_training_gives_its_memory_back_and_nothing_else(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    X, y, net = problem()
    net.to(fake_backend)
    mine = fake_backend.asarray(np.arange(1000.0))
    other = bp.MLP([6, 80, 3], "relu", "identity", seed=4, dtype="float64", backend=fake_backend)
    found = []
    for _ in range(2):  # the first time loads kernels, and keeps buffers for sums
        bp.train(net, X, y, plan="graph", validation=(X, y), optimizer=bp.Adam(0.01), **OPTIONS)
        with pytest.raises(DivergenceError) as caught:
            bp.train(other, X * 1e200, y, plan="graph", optimizer=bp.Adam(0.01), **OPTIONS)
        assert caught.value.step == 1
        found.append((fake_cupy.used, fake_cupy.held))  # while the error is still there
    assert found[0] == found[1]
    kept = sum(array.nbytes for array in (mine, net.theta, other.theta)) + 2**15  # and the buffer for sums
    assert found[0][0] < kept + 5 * 512
    assert found[0][0] == found[0][1]
    np.testing.assert_array_equal(fake_backend.to_numpy(mine), np.arange(1000.0))


def test_divergence_where_no_memory_is_left_to_look_at_it(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: Any
) -> None:
    X, y, _ = problem()
    net = bp.MLP([6, 80, 3], "relu", "identity", seed=4, dtype="float64", backend=fake_backend)
    watched = GraphPlan._run_watched

    def ends(self: Any, *arguments: Any) -> None:
        fake_cupy.memory = fake_cupy.used
        watched(self, *arguments)

    monkeypatch.setattr(GraphPlan, "_run_watched", ends)
    before = np.array(fake_backend.to_numpy(net.theta))
    words = r"a number was not finite between steps 1 and 2, and the device has no memory left to find out in which"
    with pytest.raises(DivergenceError, match=words):
        bp.train(net, X * 1e200, y, plan="graph", **{**OPTIONS, "epochs": 1})
    np.testing.assert_array_equal(fake_backend.to_numpy(net.theta), before)


def test_a_trainer_goes_on_after_its_memory_was_given_back(fake_backend: CupyBackend) -> None:
    X, y, net = problem()
    net.to(fake_backend)
    trainer = bp.Trainer(net, batch_size=8, plan="graph")
    trainer.run(X, y, [[0, 1], [2, 3]])
    trainer.release()
    assert len(trainer.run(X, y, [[4, 5]])) == 1
    assert trainer.state.step == 3


def test_other_errors_of_a_plan_stay_what_they_are(fake_backend: CupyBackend) -> None:
    X, y, net = problem()
    with pytest.raises(ConfigurationError, match="needs backend numba"):
        bp.train(net.to(fake_backend), X, y, plan="compiled")


def test_the_table() -> None:
    table = Forecast({"data": 5 * 2**30}, 2**30).table()
    assert table.splitlines() == [
        "  data            5.00 GiB",
        "  together        5.00 GiB",
        "  free            1.00 GiB",
    ]
