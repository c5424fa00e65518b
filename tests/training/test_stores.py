"""Training from the disk: the same numbers as from memory in the same order, windows, memory, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.data.store import Store
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.functions.losses import CrossEntropy
from bpcore.store_problem import StoreProblem
from bpcore.training.memory import DataShape
from bpcore.training.placement import STREAMED, Placement, from_disk
from tests.helpers.compare import assert_same_bits

ROWS, BATCH = 203, 6


def sample(n_out: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return X, np.argmax(X[:, :n_out] + 0.3 * rng.normal(size=(ROWS, n_out)), axis=1)


def stored(X: Any, y: Any, window: int = 1000, rows: int = 17, **options: Any) -> Store:
    options = {"dtype": "float32", "block_bytes": 16 * rows, **options}
    return bp.data.from_chunks(
        lambda: ((X[i : i + 50], y[i : i + 50]) for i in range(0, len(X), 50)), window=window, **options
    )


def network(be: Any, sizes: Any = (4, 7, 3), output: str = "softmax") -> bp.MLP:
    return bp.MLP(list(sizes), "tanh", output, seed=3, dtype="float32", backend=be)


def train(be: Any, *data: Any, sizes: Any = (4, 7, 3), output: str = "softmax", **options: Any) -> Any:
    net = network(be, sizes, output)
    common: dict[str, Any] = {"batch_size": BATCH, "epochs": 3, "seed": 5, "record_steps": True, "verbose": False}
    run = bp.train(net, *data, **{**common, **options})
    return np.array(be.to_numpy(net.theta)), run


@pytest.fixture
def numpy_net() -> bp.MLP:
    return network("numpy")


def rows_of(run: bp.Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_window_of_everything_is_training_in_memory(cpu_backend: Any, shuffle: bool) -> None:
    X, y = sample()
    options: dict[str, Any] = {"shuffle": shuffle, "dropout": bp.Dropout(0.3, per="sample"), "optimizer": bp.Adam(0.01)}
    with stored(X, y) as store:
        assert store.order.n_blocks == 12
        theta, run = train(cpu_backend, store, validation=store, **options)
        wanted, resident = train(cpu_backend, X, y, validation=(X, y), data="stream", **options)
    assert_same_bits(theta, wanted)
    assert rows_of(run) == rows_of(resident)
    assert run.record["data"] == {"placement": "streamed", "why": "the data is in a store on disk"}


@pytest.mark.parametrize("plan", ["reference", "graph", "wide", "persistent"])
def test_on_a_gpu(fake_backend: CupyBackend, plan: str) -> None:
    """The stand-in copies as late as it may: rows of a window that is gone would be seen."""
    if plan in ("graph", "wide", "persistent") and not hasattr(fake_backend, "gpu"):
        pytest.skip("no plan of a GPU")
    X, y = sample()
    for window in (1000, 3):
        with stored(X, y, window) as store:
            theta, run = train(fake_backend, store, validation=store, plan=plan)
            wanted, resident = in_the_order_of(store, fake_backend, X, y, plan)
            np.testing.assert_array_equal(run.history.steps, resident)
        assert_same_bits(theta, wanted)


def in_the_order_of(store: Store, be: Any, X: Any, y: Any, plan: str = "auto", epochs: int = 3) -> tuple[Any, Any]:
    """Train in memory in the order that the store gives."""
    net = network(be)
    trainer = bp.Trainer(net, batch_size=BATCH, seed=5, plan=plan, data="resident")
    loaded, losses = trainer.load(X, y), []
    for epoch in range(epochs):
        order, whole = np.concatenate(list(store.order.rows(epoch, 5))), ROWS // BATCH * BATCH
        for rows in (order[:whole].reshape(-1, BATCH), order[whole:].reshape(1, -1)):
            losses.append(trainer.run_loaded(loaded, rows).loss)
        trainer.state.epoch += 1
    return np.array(be.to_numpy(net.theta)), np.concatenate(losses)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_windows_are_training_in_memory_in_their_order(cpu_backend: Any, window: int) -> None:
    X, y = sample()
    with stored(X, y, window) as store:
        theta, run = train(cpu_backend, store)
        wanted, losses = in_the_order_of(store, cpu_backend, X, y)
        again, _ = train(cpu_backend, store)
    assert_same_bits(theta, wanted)
    assert_same_bits(again, wanted)
    np.testing.assert_array_equal(run.history.steps, losses)


def test_a_batch_longer_than_a_window(cpu_backend: Any) -> None:
    X, y = sample()
    with stored(X, y, window=2) as store:
        theta, _ = train(cpu_backend, store, batch_size=100)
        net = network(cpu_backend)
        trainer = bp.Trainer(net, batch_size=100, seed=5)
        for epoch in range(3):
            order = np.concatenate(list(store.order.rows(epoch, 5)))
            trainer.run(X, y, order[:200].reshape(2, 100))
            trainer.run(X, y, order[200:].reshape(1, 3))
    assert_same_bits(theta, np.array(net.theta))


def test_any_order_of_a_trainer(cpu_backend: Any) -> None:
    """Rows that are in no window are read one by one."""
    X, y = sample()
    order = np.random.default_rng(4).integers(0, ROWS, (9, BATCH))
    found = []
    with stored(X, y, window=2) as store:
        for inputs, targets in ((store, None), (X, y)):
            net = network(cpu_backend)
            bp.Trainer(net, batch_size=BATCH, seed=1).run(inputs, targets, order)
            found.append(np.array(net.theta))
    assert_same_bits(*found)


@pytest.mark.parametrize("kind", ["numbers", "one-hot rows", "smoothed labels", "signs", "one column", "text"])
def test_every_kind_of_target(cpu_backend: Any, kind: str) -> None:
    X, y = sample()
    Y, options = y, {}
    if kind == "numbers":
        Y, options = np.random.default_rng(2).normal(size=(ROWS, 3)), {"output": "identity", "loss": "mse"}
    elif kind == "one-hot rows":
        Y = np.eye(3)[y]
    elif kind == "smoothed labels":
        options = {"loss": CrossEntropy(label_smoothing=0.1)}
    elif kind == "signs":
        options = {"output": "tanh", "loss": "hinge"}
    elif kind == "one column":
        Y, options = y % 2, {"output": "sigmoid", "sizes": (4, 7, 1)}
    with stored(X, np.array(["a", "b", "c"])[y] if kind == "text" else Y) as store:
        theta, run = train(cpu_backend, store, validation=store, **options)
    wanted, resident = train(cpu_backend, X, Y, validation=(X, Y), data="stream", **options)
    assert_same_bits(theta, wanted)
    assert rows_of(run) == rows_of(resident)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 3.0}])
def test_weights(cpu_backend: Any, class_weight: Any) -> None:
    X, y = sample()
    weights = {"sample_weight": np.arange(ROWS) % 4, "class_weight": class_weight}
    with stored(X, y, window=1000) as store:
        theta, _ = train(cpu_backend, store, **weights)
        measured = network(cpu_backend).evaluate(store, **weights)
    wanted, _ = train(cpu_backend, X, y, **weights)
    assert_same_bits(theta, wanted)
    assert measured == pytest.approx(network(cpu_backend).evaluate(X, y, **weights), rel=1e-6)


def test_metrics_and_evaluation(cpu_backend: Any) -> None:
    X, y = sample()
    with stored(X, y, window=2) as store:
        _, run = train(cpu_backend, store, validation=store, metrics={"right": lambda Y, H: (H.argmax(1) == Y).mean()})
        assert run.history[-1]["val_right"] == pytest.approx(run.history[-1]["val_accuracy"])
        assert run.net.evaluate(store) == run.net.evaluate(X, y)


def test_preparation_is_applied_to_every_row(cpu_backend: Any) -> None:
    X, y = sample()
    X = 100 + 7 * X
    with stored(X, y, window=3, standardize=True) as store:
        assert store.preprocessing is not None
        Z = store.preprocessing.apply(X)
        theta, _ = train(cpu_backend, store, epochs=1)
        wanted, _ = in_the_order_of(store, cpu_backend, Z, y, epochs=1)
    assert_same_bits(theta, wanted)


def test_the_next_window_is_read_beside_training_and_threads_end(cpu_backend: Any, monkeypatch: Any) -> None:
    X, y = sample()
    threads: set[str] = set()
    load = StoreProblem._load

    def watched(self: StoreProblem, blocks: Any) -> Any:
        threads.add(threading.current_thread().name)
        in_use = self._current[0] if self._current else None
        held = None if in_use is None else in_use.blocks
        window = load(self, blocks)
        assert window is not in_use or np.array_equal(blocks, held)  # never what is being computed with
        return window

    monkeypatch.setattr(StoreProblem, "_load", watched)
    with stored(X, y, window=3) as store:
        train(cpu_backend, store)
        train(cpu_backend, store, stop=bp.MaxSteps(8))
    assert threads == {"bpcore-read_0"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bpcore-read")]


def test_an_error_while_reading_reaches_the_caller(cpu_backend: Any) -> None:
    X, y = sample()
    with stored(X, y, window=3) as store:
        net = network(cpu_backend)

        def tear(net: Any, progress: Any) -> None:
            with open(store.files.folder / "rows", "r+b") as file:
                file.truncate(1000)

        with pytest.raises(DataError, match="was cut off"):
            bp.train(net, store, epochs=3, batch_size=BATCH, callbacks=[tear])


@pytest.mark.parametrize("window", [2, 5, 1000])
def test_an_epoch_goes_on_where_it_was_left(numpy_net: bp.MLP, window: int, monkeypatch: Any) -> None:
    X, y = sample()
    with stored(X, y, window) as store:
        problem = bp.Trainer(numpy_net, batch_size=BATCH).load(store)
        assert isinstance(problem, StoreProblem)
        rows = [step.tolist() for piece in problem.steps(BATCH, 1, 5) for step in piece]
        assert len(rows) == 34
        read: list[int] = []
        load = StoreProblem._load

        def watched(self: StoreProblem, blocks: Any) -> Any:
            read.append(len(blocks))
            return load(self, blocks)

        monkeypatch.setattr(StoreProblem, "_load", watched)
        for done in (0, 1, 11, 33, 34):
            read.clear()
            assert [step.tolist() for piece in problem.steps(BATCH, 1, 5, done) for step in piece] == rows[done:]
            windows = store.order.windows(1, 5)
            ends = np.cumsum([store.order.size(blocks) for blocks in windows])
            assert ends[-1] == ROWS
            assert len(read) == np.count_nonzero(ends > done * BATCH)


def test_what_does_not_fit_is_refused(cpu_backend: Any) -> None:
    X, y = sample()
    with stored(X, y) as store:
        net = network(cpu_backend)
        with pytest.raises(ConfigurationError, match="a store has its targets inside"):
            bp.train(net, store, y)
        with pytest.raises(ConfigurationError, match="Y is missing"):
            bp.train(net, X)
        with pytest.raises(ConfigurationError, match="Y is missing"):
            net.evaluate(X)
        with pytest.raises(ConfigurationError, match=r"data='resident' does not go with a store on disk"):
            bp.train(net, store, data="resident")
        with pytest.raises(ConfigurationError, match=r"batch_size='full' does not go with a store"):
            bp.train(net, store, batch_size="full")
        with pytest.raises(ConfigurationError, match=r"needs all samples at once does not go with a store"):
            bp.train(net, store, optimizer=bp.LBFGS())
        with pytest.raises(ShapeError, match=r"layer 1: X has shape \(203, 4\); expected \(m, 5\)"):
            bp.train(bp.MLP([5, 3], backend=cpu_backend), store)
        with pytest.raises(DataError, match=r"label 2 in row \d+ of Y\[\d+:\d+\] .*out of range"):
            bp.train(bp.MLP([4, 2], backend=cpu_backend), store)
    with stored(X, np.zeros(ROWS, int)) as store, pytest.raises(DataError, match=r"all 203 targets are class 0"):
        bp.train(network(cpu_backend), store)
    with (
        stored(X, np.array(["a", "b", "c"])[y]) as store,
        pytest.raises(DataError, match=r"has 3 classes, but .* tells 2"),
    ):
        bp.train(bp.MLP([4, 2], backend=cpu_backend), store)


def test_buffers_behind_a_window_are_small() -> None:
    data = DataShape(10**6, 100, 2)
    large = Placement(STREAMED, "asked for", stage_rows=10**5)
    assert from_disk(large, data, 64, 4).stage_rows * data.row_bytes(4) <= 2**23
    assert from_disk(large, data, 50_000, 4).stage_rows == 50_000


BOUNDED = """
import resource, sys
import numpy as np
import bpcore as bp

def chunks(rows):
    rng = np.random.default_rng(0)
    for start in range(0, rows, 4000):
        X = rng.random((4000, 100), np.float32)
        yield X, (X[:, 0] > X[:, 1]).astype(int)

def train(rows, epochs):
    with bp.data.from_chunks(lambda: chunks(rows), folder=sys.argv[1], block_bytes=2**18, window=16) as store:
        size = (store.files.folder / "rows").stat().st_size
        net = bp.MLP([100, 8, 2], seed=0, dtype="float32", backend="numpy")
        run = bp.train(net, store, validation=store.part(0, 8000), batch_size=256, epochs=epochs, seed=0)
        return size, run.history[-1]["loss"]

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
train(24_000, 1)  # 10 MB: all code is loaded, all buffers have their size
before = peak()
size, loss = train(520_000, 1)
print(size, peak() - before, loss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts pages in the way of Linux")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """208 MB on disk; windows of 4 MiB. What the process has at most is not 24 MB more than with 10 MB."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    size, grown, loss = map(float, done.stdout.split())
    assert size == 208e6
    assert loss < 0.6
    assert grown < 24e6
