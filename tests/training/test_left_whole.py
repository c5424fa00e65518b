"""What is left of a training that an error ends, and of one whose network was elsewhere between two steps."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backprop import loss_value
from bpcore.errors import ConfigurationError, DeviceMemoryError, DivergenceError
from bpcore.feeder import Feeder
from bpcore.training import full_batch
from tests.backends.fake_cupy import FakeCupy, FakeStream, OutOfMemoryError
from tests.helpers.compare import assert_same_bits

RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(60, 5)), RNG.integers(0, 3, 60)
ORDER = RNG.integers(0, 60, (12, 8))
ON_GPU = [("graph", None), ("persistent", None), ("wide", "fp16"), ("reference", None)]
PLANS = pytest.mark.parametrize(("plan", "precision"), ON_GPU, ids=[name for name, _ in ON_GPU])


def begin(be: Any, plan: str = "auto", precision: str | None = None, **others: Any) -> bp.Trainer:
    net = bp.MLP([5, 7, 3], "tanh", seed=1, dtype="float32", backend=be)
    options = {"optimizer": bp.NAdam(0.01), "dropout": 0.3, **others}
    return bp.Trainer(net, batch_size=8, seed=1, plan=plan, precision=precision, **options)


def results(trainer: bp.Trainer) -> dict[str, Any]:
    """All that the steps to come depend on."""
    state, host = trainer.state, trainer.be.to_numpy
    arrays = {"theta": trainer.net.theta, **state.arrays, **trainer.carried}
    found = {name: np.array(host(array)) for name, array in arrays.items()}
    return found | {"step": np.array(state.step), **{name: np.array(x) for name, x in state.running.items()}}


def assert_equal(found: bp.Trainer, expected: bp.Trainer) -> None:
    actual, wanted = results(found), results(expected)
    for name, array in wanted.items():
        assert_same_bits(actual[name], array)


def fail_after(trainer: bp.Trainer, error: BaseException) -> None:
    """Let the next run of the plan do its steps, and end in an error before anybody knows of them."""
    plan: Any = trainer._plan

    def run(*arguments: Any) -> None:
        del plan.run
        plan.run(*arguments)
        raise error

    plan.run = run


# ------------------------------------------------------------------------------------------ errors


def stopped_in_the_middle(be: Any, error: BaseException, plan: str, precision: str | None = None) -> None:
    trainer, twin = begin(be, plan, precision), begin(be, plan, precision)
    data = trainer.load(X, Y)
    for some in (trainer, twin):
        some.run_loaded(data, ORDER[:3])
    fail_after(trainer, error)
    with pytest.raises(type(error)):
        trainer.run_loaded(data, ORDER[3:7])
    assert_equal(trainer, twin)
    for some in (trainer, twin):
        some.run_loaded(data, ORDER[3:])
    assert_equal(trainer, twin)


@PLANS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("unspecified launch failure")], ids=type)
def test_parameters_and_state_are_those_of_one_step(
    cupy_backend: CupyBackend, plan: str, precision: str | None, error: BaseException
) -> None:
    stopped_in_the_middle(cupy_backend, error, plan, precision)


def test_parameters_and_state_are_those_of_one_step_on_a_cpu(cpu_backend: Any) -> None:
    stopped_in_the_middle(cpu_backend, KeyboardInterrupt(), "auto")


def test_memory_that_ends_beside_the_plan(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, twin = begin(fake_backend), begin(fake_backend)

    def no_room(array: Any) -> bool:
        raise OutOfMemoryError("Out of memory allocating 512 bytes")

    data = trainer.load(X, Y)
    with monkeypatch.context() as patch:
        patch.setattr(fake_backend, "all_finite", no_room)
        with pytest.raises(
            DeviceMemoryError, match=r"(?s)a stretch of steps does not fit.*Possible.*CuPy says: Out of"
        ):
            trainer.run_loaded(data, ORDER)
    assert_equal(trainer, twin)
    assert len(trainer.run_loaded(data, ORDER)) == 12


@pytest.mark.parametrize(
    ("operation", "options", "words"),
    [
        ("permutation", {}, "the order of the samples"),
        (
            "take_rows",
            {"plan": "graph", "callbacks": [bp.Inspector(samples=20)]},
            "samples for the looks at the network",
        ),
        ("matmul", {"optimizer": bp.LBFGS()}, "an iteration over all samples"),
        ("column_sums", {"optimizer": bp.LBFGS()}, "an iteration over all samples"),
        ("row_hits", {"optimizer": bp.LBFGS()}, "an iteration over all samples"),
    ],
)
def test_memory_that_ends_anywhere_in_a_training(
    fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, operation: str, options: dict[str, Any], words: str
) -> None:
    def no_room(*arguments: Any, **others: Any) -> Any:
        raise OutOfMemoryError("Out of memory allocating 512 bytes")

    net = begin(fake_backend).net
    before = np.array(fake_backend.to_numpy(net.theta))
    monkeypatch.setattr(fake_backend, operation, no_room)
    with pytest.raises(DeviceMemoryError, match=rf"(?s){words} does not fit in the memory.*CuPy says: Out of memory"):
        bp.train(net, X, Y, epochs=2, **options)
    if operation != "row_hits":  # with which an iteration ends
        assert_same_bits(fake_backend.to_numpy(net.theta), before)


def test_a_full_batch_method_ends_at_an_iteration(cpu_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at the parameters that a line search has tried."""
    net = bp.MLP([5, 7, 3], "tanh", seed=1, dtype="float64", backend=cpu_backend)
    kept: list[Any] = []

    def value(*arguments: Any, **others: Any) -> Any:
        if len(kept) == 3:
            raise KeyboardInterrupt
        return loss_value(*arguments, **others)

    monkeypatch.setattr(full_batch, "loss_value", value)
    with pytest.raises(KeyboardInterrupt):
        bp.train(net, X, Y, optimizer=bp.LBFGS(), callbacks=[lambda net, progress: kept.append(net.theta.copy())])
    assert len(kept) == 3
    assert_same_bits(net.theta, kept[-1])


def test_buffers_of_streamed_data_are_there_or_not(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of their rows are allocated after them."""
    trainer, twin = begin(fake_backend, "graph", data="stream"), begin(fake_backend, "graph", data="stream")
    data = trainer.load(X, Y)
    made, asarray = Feeder.__init__, fake_backend.asarray

    def no_room(host: Any, dtype: Any = None) -> Any:
        monkeypatch.setattr(fake_backend, "asarray", asarray)
        raise KeyboardInterrupt

    def make(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        monkeypatch.setattr(fake_backend, "asarray", no_room)

    monkeypatch.setattr(Feeder, "__init__", make)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_loaded(data, ORDER)
    monkeypatch.setattr(Feeder, "__init__", made)
    for some in (trainer, twin):
        some.run_loaded(data, ORDER)
    assert_equal(trainer, twin)


def test_nothing_is_captured_any_more_after_an_error(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = FakeStream.end_capture

    def interrupted(self: FakeStream) -> Any:
        monkeypatch.setattr(FakeStream, "end_capture", end)
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeStream, "end_capture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fake_backend.gpu.capture(lambda: None, lambda: None)
    assert fake_cupy.captured is None


# ------------------------------------------------------------------------------------------ the loss scale


def test_the_loss_scale_goes_back_with_the_parameters(cupy_backend: CupyBackend) -> None:
    """Else the steps that are looked at once more are not those that went wrong."""
    trainer = begin(cupy_backend, "wide", "fp16", dropout=None)
    trainer.run(X, Y, ORDER[:2])
    before = results(trainer)
    with pytest.raises(DivergenceError, match="step 3: "):
        trainer.run(X * 1e38, Y, ORDER[2:5])
    for name, array in results(trainer).items():
        assert_same_bits(array, before[name])


def test_the_loss_scale_outlives_the_plan(cupy_backend: CupyBackend) -> None:
    """Other data needs another plan, and memory may be given back between two runs."""
    trainer = begin(cupy_backend, "wide", "fp16")
    trainer.run(X, Y, ORDER[:1])
    scale = cupy_backend.asarray(np.array([4, 0.25, 0, 1, 5, 3], np.float32))
    cupy_backend.copy(scale, out=trainer.carried["loss_scale"])
    trainer.run(X, Y, ORDER[1:2], sample_weight=np.ones(60))
    assert trainer.loss_scaling == {"scale": 4, "skipped_steps": 3}
    trainer.release()
    trainer.run(X, Y, ORDER[2:3])
    assert trainer.loss_scaling == {"scale": 4, "skipped_steps": 3}


# ------------------------------------------------------------------------------------------ elsewhere


@pytest.mark.parametrize("back", [False, True], ids=["there", "and back"])
@pytest.mark.parametrize(
    ("plan", "precision"), [*ON_GPU, ("fused", "bf16")], ids=[name for name, _ in (*ON_GPU, ("fused", ""))]
)
def test_a_network_that_was_on_another_backend_meanwhile(
    cupy_backend: CupyBackend, plan: str, precision: str | None, back: bool
) -> None:
    """Its parameters come back to another address, and where they were there may be something else."""
    others = {"dropout": None} if plan == "fused" else {}
    trainer, twin = begin(cupy_backend, plan, precision, **others), begin(cupy_backend, plan, precision, **others)
    data = trainer.load(X, Y)
    for some, goes in ((trainer, True), (twin, False)):
        some.run_loaded(data, ORDER[:3])
        if goes:
            some.net.predict(X, backend="numpy")
            gc.collect()
            if back:
                some.net.predict(X, backend=cupy_backend)
        some.run_loaded(data, ORDER[3:])
        assert some.net.backend is cupy_backend
    assert_equal(trainer, twin)


class Elsewhere(bp.Callback):
    """Predicts on the CPU at every opportunity."""

    every_steps = 5

    def on_start(self, net: bp.MLP) -> None:
        net.predict(X, backend="numpy")

    def on_steps(self, net: bp.MLP, progress: Any) -> None:
        net.predict(X, backend="numpy")

    def on_epoch(self, net: bp.MLP, progress: Any) -> None:
        net.predict(X, backend="numpy")


@pytest.mark.parametrize("optimizer", [bp.Adam(0.01), bp.LBFGS()], ids=["adam", "lbfgs"])
def test_callbacks_and_metrics_may_compute_elsewhere(cupy_backend: CupyBackend, optimizer: Any) -> None:
    found = []
    for watched in (True, False):
        net = bp.MLP([5, 7, 3], "tanh", seed=1, dtype="float64", backend=cupy_backend)

        def share(Y: Any, H: Any, net: bp.MLP = net, watched: bool = watched) -> float:
            return float(net.predict(X, backend="numpy" if watched else None).mean())

        look = bp.Inspector()  # which computes where the training does
        options: dict[str, Any] = {"metrics": {"share": share}, "validation": (X, Y), "keep": "best", "seed": 3}
        run = bp.train(
            net,
            X,
            Y,
            optimizer=optimizer,
            batch_size=8,
            epochs=3,
            callbacks=[*[Elsewhere()] * watched, look],
            **options,
        )
        assert [report.step for report in look.reports] == [0, *run.history["step"]]
        assert net.backend is cupy_backend
        found.append((np.array(cupy_backend.to_numpy(net.theta)), run.history["val_share"]))
    assert_same_bits(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-12)


def test_a_network_that_does_not_fit_stays_where_it_is(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP([5, 700, 3], "tanh", seed=1, dtype="float64", backend="numpy")
    net._pinned = False
    expected = np.array(net.predict(X, backend="numpy"))
    fake_cupy.memory = fake_cupy.used + 1000
    words = (
        r"a network of 6,303 parameters in float64 does not fit in the memory of cuda:0, of which 1000 bytes are free"
    )
    for move in (net.to, net.prefer, lambda be: net.predict(X, backend=be)):
        with pytest.raises(DeviceMemoryError, match=words + r"\. Possible: dtype='float32'.* cupy says: Out of memory"):
            move(fake_backend)
        assert (net.backend.name, net.pinned, net._preferred) == ("numpy", False, None)
        assert_same_bits(net.predict(X, backend="numpy"), expected)


def test_memory_that_ends_outside_of_training(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP([5, 7, 3], "tanh", seed=1, dtype="float32", backend=fake_backend)
    many, classes = np.zeros((3000, 5), np.float32), np.arange(3000) % 3
    fake_cupy.memory = fake_cupy.used + 1024
    words = r"3,000 samples does not fit in the memory of cuda:0, of which 1.00 KiB are free\. Possible: fewer.*Out of"
    for ask in (
        net.predict,
        lambda X: net.evaluate(X, classes),
        lambda X: net.predict(X, stream=fake_cupy.cuda.Stream()),
    ):
        with pytest.raises(DeviceMemoryError, match=words):
            ask(many)
    gc.collect()
    assert fake_cupy.memory - fake_cupy.used == 1024
    fake_cupy.memory = 2**29
    assert len(net.predict(many)) == 3000


def test_a_trainer_without_state_does_no_step(cpu_backend: Any) -> None:
    trainer = begin(cpu_backend)
    data = trainer.load(X, Y)
    trainer.release(state=True)
    with pytest.raises(ConfigurationError, match=r"given up the state of its optimiser, release\(state=True\)"):
        trainer.run_loaded(data, ORDER)
