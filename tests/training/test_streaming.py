"""Data that stays on the host: the same bits as data on the device, and nothing that overtakes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore import evaluation, feeder
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.staging import PinnedStaging
from bpcore.data import arrays
from bpcore.errors import ConfigurationError, DataError, DivergenceError, UnknownNameError
from bpcore.functions.losses import CrossEntropy
from bpcore.inference import predictor
from bpcore.training import memory, placement
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_same_bits

ROWS, BATCH = 61, 6  # ten steps an epoch and a short one
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout of samples": {"dropout": bp.Dropout(0.4, per="sample")},
    "weights": {"sample_weight": np.arange(ROWS) % 4, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
    "everything": {
        "dropout": bp.Dropout(0.4, per="sample"),
        "sample_weight": np.arange(ROWS) % 3,
        "penalty": bp.L2(1e-3),
        "optimizer": bp.Adam(0.01),
    },
}
SMOOTH = CrossEntropy(label_smoothing=0.1)
PLANS = ("reference", "graph", "wide", "persistent")


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps in a buffer, a few rows in a block."""
    monkeypatch.setattr(placement, "STAGE_BYTES", 18 * 36)
    monkeypatch.setattr(evaluation, "ROWS", 7)
    monkeypatch.setattr(memory, "ROWS", 7)
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 200)


def data(seed: int = 0, n_out: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ROWS, 4))
    return X, rng.integers(0, n_out, ROWS)


def train(be: Any, where: str, X: Any, y: Any, sizes: Any = (4, 7, 3), **options: Any) -> tuple[Any, bp.Run]:
    output = options.pop("output", "softmax")
    net = bp.MLP(list(sizes), "tanh", output, seed=3, dtype="float32", backend=be)
    common = {"batch_size": BATCH, "epochs": 3, "seed": 5, "validation": (X[:20], y[:20]), "record_steps": True}
    run = bp.train(net, X, y, data=where, verbose=False, **{**common, **options})
    return np.array(be.to_numpy(net.theta)), run


def rows_of(run: bp.Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("plan", PLANS)
def test_the_same_bits_as_resident_data(cupy_backend: CupyBackend, plan: str, name: str) -> None:
    X, y = data()
    (theta, run), (wanted, resident) = (
        train(cupy_backend, where, X, y, plan=plan, **OPTIONS[name]) for where in ("stream", "resident")
    )
    assert_same_bits(theta, wanted)
    assert rows_of(run) == rows_of(resident)
    np.testing.assert_array_equal(run.history.steps, resident.history.steps)
    assert (run.record["data"]["placement"], resident.record["data"]["placement"]) == ("streamed", "resident")


@pytest.mark.parametrize("kind", ["numbers", "one-hot rows", "distributions", "smoothed labels", "signs", "one column"])
def test_every_kind_of_target(cpu_backend: Any, kind: str) -> None:
    X, y = data()
    rng = np.random.default_rng(2)
    sizes, options, Y = (4, 7, 3), {}, y
    if kind == "numbers":
        options, Y = {"output": "identity", "loss": "mse"}, rng.normal(size=(ROWS, 3))
    elif kind == "one-hot rows":
        Y = np.eye(3)[y]
    elif kind == "distributions":
        Y = rng.random((ROWS, 3))
        Y /= Y.sum(axis=1, keepdims=True)
        options = {"loss": SMOOTH}
    elif kind == "smoothed labels":
        options = {"loss": SMOOTH}
    elif kind == "signs":
        options = {"output": "tanh", "loss": "hinge"}
    else:
        sizes, options, Y = (4, 7, 1), {"output": "sigmoid"}, y % 2
    (theta, run), (wanted, resident) = (
        train(cpu_backend, where, X, Y, sizes, **options) for where in ("stream", "resident")
    )
    assert_same_bits(theta, wanted)
    assert rows_of(run) == rows_of(resident)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_file_is_not_read_into_memory(backend: Any, tmp_path: Path, dtype: str, monkeypatch: Any) -> None:
    X, y = data()
    X = (40 * np.abs(X)).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    file = np.load(tmp_path / "X.npy", mmap_mode="r")
    longest: list[int] = []
    check = arrays.check_matrix

    def watched(X: Any, **how: Any) -> Any:
        longest.append(len(X))
        return check(X, **how)

    monkeypatch.setattr(arrays, "check_matrix", watched)
    wanted, _ = train(backend, "resident", X, y)
    longest.clear()
    theta, run = train(backend, "auto", file, y)
    assert_same_bits(theta, wanted)
    assert max(longest) < ROWS
    if backend.device == "cpu":
        assert run.record["data"] == {
            "placement": "streamed",
            "why": "X is in a file, in a form that has to be converted, and stays there",
        }


def test_the_buffers_do_not_grow_with_the_data(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    net = bp.MLP([50, 3], seed=0, dtype="float32", backend=fake_backend)
    X, y = np.zeros((3000, 50), np.float32), np.arange(3000) % 3
    before = fake_cupy.used
    fake_cupy.peak = before
    bp.train(net, X, y, batch_size=4, epochs=1, data="stream", plan="graph", validation=(X, y), stop=bp.MaxSteps(20))
    assert fake_cupy.peak - before < X.nbytes / 2


def test_a_buffer_arrives_before_it_is_used_and_is_used_before_it_is_overwritten(
    fake_backend: CupyBackend, fake_cupy: FakeCupy
) -> None:
    """The stand-in copies as late as it may: what does not wait reads NaN, or the rows of another step."""
    columns = {"X": ((2,), np.dtype(np.float32))}
    staging = PinnedStaging(fake_backend, columns, 3)

    def put(value: float) -> None:
        staging.put(lambda host: host["X"].fill(value), 3)

    for k in range(5):
        put(k)
        arrived = staging.take()["X"]
        np.testing.assert_array_equal(fake_backend.to_numpy(arrived), np.full((3, 2), k))
    own = staging._stream.ptr
    waits = [event for what, stream, event in fake_cupy.order if what == "wait" and stream == own]
    used = [event.number for event in staging._used]
    assert waits == [used[k % 2] for k in range(5)]
    copied = [event.number for event in staging._copied]
    assert [event for what, _, event in fake_cupy.order if what == "host waits"] == [copied[k % 2] for k in range(5)]
    # the event that a copy waits for was recorded on the stream that computes after the last use of the buffer
    order = [entry for entry in fake_cupy.order if entry[2] in used]
    assert order[2:] == [
        ("wait", own, used[0]),
        ("wait", own, used[1]),
        ("record", 0, used[0]),
        ("wait", own, used[0]),
        ("record", 0, used[1]),
        ("wait", own, used[1]),
        ("record", 0, used[0]),
        ("wait", own, used[0]),
        ("record", 0, used[1]),
    ]


def test_rows_that_nobody_took_are_overwritten_and_not_those_in_use(fake_backend: CupyBackend) -> None:
    staging = PinnedStaging(fake_backend, {"X": ((2,), np.dtype(np.float32))}, 3)
    staging.put(lambda host: host["X"].fill(1), 3)
    in_use = staging.take()["X"]
    for value in (2, 3):
        staging.put(lambda host, value=value: host["X"].fill(value), 3)  # type: ignore[misc]
    staging.close()
    np.testing.assert_array_equal(fake_backend.to_numpy(in_use), np.full((3, 2), 1))
    np.testing.assert_array_equal(fake_backend.to_numpy(staging.take()["X"]), np.full((3, 2), 3))


def test_the_next_rows_are_gathered_while_the_device_computes(
    fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    put, to_numpy = PinnedStaging.put, fake_backend.to_numpy

    def watched(self: PinnedStaging, fill: Any, rows: int) -> None:
        seen.append(f"put {rows}")
        put(self, fill, rows)

    def waits(array: Any) -> Any:
        if array.ndim == 2:
            seen.append("wait")
        return to_numpy(array)

    monkeypatch.setattr(PinnedStaging, "put", watched)
    monkeypatch.setattr(fake_backend, "to_numpy", waits)
    X, y = data()
    trainer = bp.Trainer(bp.MLP([4, 3], seed=0, backend=fake_backend), batch_size=6, plan="graph", data="stream")
    loaded = trainer.load(X, y)
    trainer.run_loaded(loaded, np.arange(54).reshape(9, 6))
    assert seen == ["put 18", "put 18", "wait", "put 18", "wait", "wait"]


def test_divergence_is_found_and_undone(cupy_backend: CupyBackend) -> None:
    X, y = data()
    found = []
    for where in ("stream", "resident"):
        net = bp.MLP([4, 8, 3], "relu", "identity", seed=0, dtype="float32", backend=cupy_backend)
        with pytest.raises(DivergenceError) as caught:
            bp.train(
                net, X, np.eye(3)[y], optimizer=bp.SGD(1e4), batch_size=8, epochs=20, seed=1, data=where, plan="graph"
            )
        found.append((caught.value.step, caught.value.quantity, np.array(cupy_backend.to_numpy(net.theta))))
    assert found[0][:2] == found[1][:2]
    assert_same_bits(found[0][2], found[1][2])
    assert np.isfinite(found[0][2]).all()


def test_an_end_between_stretches_leaves_nothing_behind(cupy_backend: CupyBackend) -> None:
    """What was sent ahead for steps that are not done is not taken for the rows of others."""
    X, y = data()
    order = np.random.default_rng(1).integers(0, ROWS, (12, BATCH))
    found = []
    for where in ("stream", "resident"):
        net = bp.MLP([4, 5, 3], seed=0, dtype="float32", backend=cupy_backend)
        trainer = bp.Trainer(net, batch_size=BATCH, seed=1, plan="graph", data=where)
        loaded = trainer.load(X, y)
        trainer.prepare(loaded)
        done = len(trainer.run_steps(loaded, order, between=lambda records: True))
        assert 0 < done < 12
        trainer.run_loaded(loaded, order[1 : 8 - done])
        found.append(np.array(cupy_backend.to_numpy(net.theta)) if done == 3 else None)
        trainer.release()
    # the two stop at different steps, so only the stream is compared, with itself in one go
    net = bp.MLP([4, 5, 3], seed=0, dtype="float32", backend=cupy_backend)
    trainer = bp.Trainer(net, batch_size=BATCH, seed=1, plan="graph", data="resident")
    trainer.run(X, y, np.concatenate([order[:3], order[1:5]]))
    assert found[0] is not None
    assert_same_bits(found[0], np.array(cupy_backend.to_numpy(net.theta)))


def test_steps_of_any_width(cpu_backend: Any) -> None:
    """An order may name samples more than once, so a step may be longer than the data."""
    X, y = data()
    found = []
    for where in ("stream", "resident"):
        net = bp.MLP([4, 5, 3], seed=0, dtype="float64", backend=cpu_backend)
        trainer = bp.Trainer(net, batch_size=30, seed=1, data=where)
        loaded = trainer.load(X[:7], y[:7])
        for width in (1, 7, 30, 2):
            trainer.run_loaded(loaded, np.arange(3 * width).reshape(3, width) % 7)
        found.append(np.array(net.theta))
    assert_same_bits(*found)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [False, True])
def test_evaluation_by_blocks(cupy_backend: CupyBackend, classes: bool, weighted: bool, monkeypatch: Any) -> None:
    X, y = data()
    X = X.astype(np.float32)
    net = bp.MLP([4, 6, 3], "tanh", "softmax" if classes else "identity", seed=1, dtype="float32", backend=cupy_backend)
    Y = y if classes else np.random.default_rng(3).normal(size=(ROWS, 3))
    w = np.arange(ROWS) % 5 if weighted else None
    whole = net.evaluate(X, Y, sample_weight=w)
    monkeypatch.setattr(evaluation, "STAGE_BYTES", 100)
    assert net.evaluate(X, Y, sample_weight=w) == whole


def test_prediction_by_blocks(cupy_backend: CupyBackend, monkeypatch: Any) -> None:
    X = np.random.default_rng(0).normal(size=(1500, 4)).astype(np.float32)
    net = bp.MLP([4, 6, 3], "tanh", seed=1, dtype="float32", backend=cupy_backend)
    whole = net.predict(X)
    monkeypatch.setattr(predictor, "PREDICTED_BYTES", 1)
    monkeypatch.setattr("bpcore.inference.cuda.BLOCK_BYTES", 1)
    net = bp.MLP([4, 6, 3], "tanh", seed=1, dtype="float32", backend=cupy_backend)
    out = np.empty((1500, 3), np.float32)
    assert net.predict(X, out=out) is out
    np.testing.assert_allclose(out, whole, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(X), out)
    X[1300, 2] = np.nan
    with pytest.raises(DataError, match=r"X\[1024:1500\] contains 1 value .* nan in row 1300, column 2"):
        net.predict(X)


def test_prediction_from_a_file(cpu_backend: Any, tmp_path: Path, monkeypatch: Any) -> None:
    X = np.random.default_rng(0).integers(0, 255, (9000, 4)).astype(np.uint8)
    np.save(tmp_path / "X.npy", X)
    net = bp.MLP([4, 6, 3], "tanh", seed=1, dtype="float64", backend=cpu_backend)
    whole = net.predict(X)
    monkeypatch.setattr(predictor, "PREDICTED_BYTES", 1)
    np.testing.assert_allclose(net.predict(np.load(tmp_path / "X.npy", mmap_mode="r")), whole, rtol=1e-13)


def test_what_is_wrong_is_named_with_its_place(cpu_backend: Any) -> None:
    X, y = data()
    X[50, 1] = np.inf
    net = bp.MLP([4, 3], seed=0, dtype="float32", backend=cpu_backend)
    with pytest.raises(DataError, match=r"X\[\d+:\d+\] contains 1 value .* inf in row 50, column 1"):
        bp.train(net, X, y, data="stream")
    X[50, 1] = 1e300
    with pytest.raises(DataError, match=r"1e\+300 in row 50, column 1 does not fit in float32"):
        bp.train(net, X, y, data="stream")
    X[50, 1] = 0
    y[49] = 7
    with pytest.raises(DataError, match=r"label 7 in row \d+ of Y\[\d+:\d+\]"):
        bp.train(net, X, y, data="stream")


def test_what_cannot_be_streamed_is_refused(fake_backend: CupyBackend) -> None:
    X, y = data()
    net = bp.MLP([4, 3], seed=0, dtype="float32", backend=fake_backend)
    with pytest.raises(UnknownNameError, match=r"unknown value for data 'disk'; known: auto, resident, stream"):
        bp.train(net, X, y, data="disk")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"data='stream' is for steps of gradient descent"):
        bp.train(net, X, y, data="stream", optimizer=bp.LBFGS())

    class OnGpu:
        __cuda_array_interface__ = {"owner": fake_backend.asarray(X)}  # noqa: RUF012
        shape, ndim, dtype = X.shape, 2, X.dtype

        def __len__(self) -> int:
            return len(X)

    with pytest.raises(ConfigurationError, match=r"X is in the memory of a GPU already"):
        bp.train(net, OnGpu(), y, data="stream")


def test_the_feeder_notices_other_rows_than_those_it_was_told(cpu_backend: Any) -> None:
    X, y = data()
    trainer = bp.Trainer(bp.MLP([4, 3], seed=0, dtype="float64", backend=cpu_backend), data="stream")
    rows = np.arange(6)
    way = feeder.Feeder(cpu_backend, trainer.load(X, y), 6)  # type: ignore[arg-type]
    way.send(rows)
    np.testing.assert_array_equal(way.take(rows + 1).X, X[1:7])
    np.testing.assert_array_equal(way.take(slice(0, 6)).X, X[:6])
