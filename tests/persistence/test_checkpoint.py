"""Checkpoints as files: when they are written, which are kept, what they are read as, and what a full disk does."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import bpcore as bp
from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.functions.activations import Activation
from bpcore.persistence import checkpoint_writer
from bpcore.persistence.checkpoint import as_checkpoint
from bpcore.persistence.checkpoint_file import read_checkpoint, write_checkpoint
from bpcore.persistence.checkpoint_folder import newest_usable
from bpcore.persistence.model_file import save_model
from bpcore.training.stretches import Stretches
from tests.helpers.compare import assert_same_bits
from tests.persistence.mutations import description_of, forge, split

OWN = Activation("bent", "(sqrt(z*z + 1) - 1) / 2 + z", source="me")
ROWS = 50


def train(checkpoint: Any, *, resume: bool = False, **options: Any) -> bp.Run:
    """Five steps an epoch."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(ROWS, 3)), rng.integers(0, 2, ROWS)
    net = bp.MLP([3, 4, 2], OWN, "softmax", seed=1, dtype="float32", backend="numpy")
    net.meta = {"classes": [0, 1]}
    common: dict[str, Any] = {"epochs": 4, "batch_size": 10, "seed": 0, "optimizer": bp.Adam(0.01), "verbose": False}
    return bp.train(net, X, y, checkpoint=checkpoint, resume=resume, **{**common, **options})


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("checkpoint-")) for path in bp.Checkpoint(folder).files())


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"every_steps": 3}, [3, 6, 9, 12, 15, 18, 20]),
        ({"every_steps": 5}, [5, 10, 15, 20]),
        ({"every_steps": 100}, [20]),
        ({"every_epochs": 1}, [5, 10, 15, 20]),
        ({"every_epochs": 3}, [15, 20]),
        ({"every_epochs": 2, "every_steps": 7}, [7, 10, 14, 20]),
        ({"every_minutes": 60.0}, [20]),
        ({}, [20]),
    ],
)
def test_when_they_are_written(tmp_path: Path, how: dict[str, Any], expected: list[int]) -> None:
    run = train(bp.Checkpoint(tmp_path, keep=100, **how))
    assert steps(tmp_path) == expected
    record = run.record["checkpoint"]
    assert (record["failed"], record["folder"]) == (0, str(tmp_path))
    assert record["bytes"] == bp.Checkpoint(tmp_path).files()[0].stat().st_size
    assert record["written"] >= len(expected)
    assert 0 < record["seconds"] < run.seconds


def test_minutes_are_counted_from_the_end_of_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own: each step takes 20 s, writing takes 30 s; one a minute, never more."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Stretches, "_steps_at_once", lambda *args: 1)
    run_stretch = Stretches._run_stretch

    def slow_stretch(self: Stretches, *args: Any) -> Any:
        now[0] += 20
        return run_stretch(self, *args)

    def slow_write(*args: Any) -> int:
        now[0] += 30
        return write_checkpoint(*args)

    monkeypatch.setattr(Stretches, "_run_stretch", slow_stretch)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow_write)
    train(bp.Checkpoint(tmp_path, every_minutes=1, keep=100))
    assert steps(tmp_path) == [3, 6, 9, 12, 15, 18, 20]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_older_ones_go_when_the_new_one_is_there(tmp_path: Path, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, seen = Path.unlink, []

    def watched(self: Path, *args: Any) -> None:
        if self.name.startswith("checkpoint-"):
            there = steps(tmp_path)
            newest = read_checkpoint(bp.Checkpoint(tmp_path).path_of(there[-1]))  # whole, before anything goes
            seen.append((newest.step, int(self.stem.removeprefix("checkpoint-")), len(there)))
        unlink(self, *args)

    monkeypatch.setattr(Path, "unlink", watched)
    train(bp.Checkpoint(tmp_path, every_epochs=1, keep=keep))
    assert steps(tmp_path) == [5, 10, 15, 20][-keep:]
    assert seen == [(step, step - 5 * keep, keep + 1) for step in range(5 * keep + 5, 25, 5)]


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    train(bp.Checkpoint(tmp_path, every_epochs=1), epochs=1)
    (tmp_path / ".bpcore-checkpoint-0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / ".bpcore-0123456789abcdef.tmp").write_bytes(b"of a model that somebody saves here")
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, resume=True)
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("checkpoint-"))
    assert names == [".bpcore-0123456789abcdef.tmp", "notes.txt"]


def test_a_newer_file_that_was_unusable_does_not_push_out_good_ones(tmp_path: Path) -> None:
    train(bp.Checkpoint(tmp_path, every_epochs=1), epochs=2)
    bp.Checkpoint(tmp_path).path_of(10).write_bytes(b"torn")
    bp.Checkpoint(tmp_path).path_of(999).write_bytes(b"torn, too")
    train(bp.Checkpoint(tmp_path, every_steps=1, keep=1), resume=True, epochs=2)
    assert steps(tmp_path) == [10, 999]
    assert newest_usable(tmp_path).moment.step == 10


def test_a_full_disk_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = train(None)
    write, full = os.write, [False]

    def limited(descriptor: int, data: Any) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)
    callback = lambda net, progress: full.__setitem__(0, progress.epoch in (2, 3))  # noqa: E731
    run = train(bp.Checkpoint(tmp_path, every_epochs=1), callbacks=[callback])
    assert_same_bits(run.net.theta, wanted.net.theta)
    assert steps(tmp_path) == [5, 20]
    assert (run.record["checkpoint"]["written"], run.record["checkpoint"]["failed"]) == (3, 2)
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert warned[0].startswith("no checkpoint after step 10: cannot write ")
    assert "No space left on device" in warned[0]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_a_checkpoint_is_a_model(tmp_path: Path) -> None:
    run = train(bp.Checkpoint(tmp_path, every_epochs=1))
    X = np.random.default_rng(1).normal(size=(7, 3)).astype("float32")
    for path in (tmp_path, bp.Checkpoint(tmp_path).files()[0]):
        net = bp.load(path, backend="numpy")
        assert net.predict(X).tobytes() == run.net.predict(X).tobytes()
        assert net.activations[2] == OWN
        assert net.meta == run.net.meta == {"classes": [0, 1], "loss": "cross_entropy", "threshold": 0.5}
    earlier = bp.load(bp.Checkpoint(tmp_path).files()[1], backend="numpy")
    assert (earlier.theta != run.net.theta).any()


def test_a_folder_whose_newest_file_is_torn_loads_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(bp.Checkpoint(tmp_path, every_epochs=1))
    newest, before = bp.Checkpoint(tmp_path).files()[:2]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert_same_bits(bp.load(tmp_path, backend="numpy").theta, bp.load(before, backend="numpy").theta)
    assert "is passed over" in caplog.text
    with pytest.raises(ModelFileError, match="cut short or damaged"):
        bp.load(newest)


def test_the_file_without_bpcore(tmp_path: Path) -> None:
    """What the documentation of the format promises, read with the safetensors package and json alone."""
    run = train(bp.Checkpoint(tmp_path, every_epochs=1), record_steps=True, validation=([[0.0] * 3], [0]), keep="best")
    path = bp.Checkpoint(tmp_path).files()[0]
    arrays = load_file(path)
    n = run.net.n_parameters
    assert {name: array.shape for name, array in arrays.items()} == {
        "W1": (3, 4),
        "b1": (4,),
        "W2": (4, 2),
        "b2": (2,),
        "state.m": (n,),
        "state.v": (n,),
        "best": (n,),
        "epoch": (3, 0),
        "steps": (20,),
        "history": (4, len(run.history.columns)),
        "history_has": (4, len(run.history.columns)),
    }
    facts = description_of(split(path.read_bytes())[0])["checkpoint"]["facts"]
    assert (facts["step"], facts["epoch"], facts["fingerprint"]["seed"]) == (20, 4, 0)
    assert facts["ended"] == {"reason": "reached 4 epochs", "by": "epochs"}
    assert arrays["history"][:, facts["columns"].index("loss")].tolist() == run.history["loss"].tolist()
    assert facts["fingerprint"]["spec"] == json.loads(json.dumps(run.record["spec"]))
    assert facts["fingerprint"]["data"]["rows compared"] == ROWS


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """A metric that is NaN, then infinite: the history comes back as it was."""
    values = iter([float("nan"), float("inf"), 1.0, -float("inf")])
    options: dict[str, Any] = {"validation": ([[0.0] * 3], [0])}
    run = train(bp.Checkpoint(tmp_path, every_epochs=1), metrics={"odd": lambda Y, H: next(values)}, **options)
    again = train(tmp_path, resume=True, metrics={"odd": lambda Y, H: 0.0}, **options)
    np.testing.assert_array_equal(again.history["val_odd"], run.history["val_odd"])
    assert [type(value) for value in again.history[0].values()] == [type(value) for value in run.history[0].values()]


def test_a_history_whose_columns_change(tmp_path: Path) -> None:
    """Validation may differ: rows keep the columns that they were written with."""
    train(bp.Checkpoint(tmp_path, every_epochs=1), epochs=2)
    run = train(tmp_path, resume=True, validation=([[0.0] * 3], [0]))
    assert [("val_loss" in row) for row in run.history] == [False, False, True, True]
    last = train(tmp_path, resume=True, epochs=5)
    assert [("val_loss" in row) for row in last.history] == [False, False, True, True, False]


def test_a_rule_about_a_new_column(tmp_path: Path) -> None:
    """The first row that has it has none before it to be compared with."""
    train(bp.Checkpoint(tmp_path, every_epochs=1), epochs=2)
    options: dict[str, Any] = {"validation": ([[0.0] * 3], [0]), "stop": bp.LossChange(1e9, "val_loss")}
    run = train(tmp_path, resume=True, **options)
    assert len(run.history) == 4
    assert run.stopped_because.startswith("val_loss changed by")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_steps": 0}, "every_steps is 0; it must be a whole number of at least 1"),
        ({"every_steps": 1.5}, r"every_steps is 1\.5"),
        ({"every_steps": True}, "every_steps is True"),
        ({"every_epochs": -1}, "every_epochs is -1"),
        ({"keep": 0}, "keep is 0"),
        ({"keep": None}, "keep is None"),
        ({"every_minutes": 0}, "every_minutes is 0; it must be a number above 0"),
        ({"every_minutes": float("nan")}, "every_minutes is nan"),
        ({"every_minutes": "10"}, "every_minutes is '10'"),
    ],
)
def test_declarations_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Checkpoint: {message}"):
        bp.Checkpoint("folder", **options)


def test_declarations() -> None:
    assert as_checkpoint("a") == bp.Checkpoint("a") == bp.Checkpoint("a", every_minutes=10.0)
    assert bp.Checkpoint("a", every_epochs=1).every_minutes is None
    assert hash(bp.Checkpoint("a")) == hash(bp.Checkpoint("a"))


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFileError, match=r"cannot make the folder .*file for checkpoints: File exists"):
        train(tmp_path / "file")
    with pytest.raises(ModelFileError, match="is a folder, not a model file"):
        bp.load(tmp_path)


def test_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    net = bp.MLP([3, 4, 2], seed=0, backend="numpy")
    save_model(net, bp.Checkpoint(tmp_path).path_of(5))
    with pytest.raises(ModelFileError, match="is a model file, not a checkpoint"):
        train(tmp_path, resume=True)
    assert bp.load(bp.Checkpoint(tmp_path).path_of(5), backend="numpy").sizes == (3, 4, 2)


def forged(tmp_path: Path, change: Any) -> Path:
    """A checkpoint with another description, and a checksum that fits."""
    folder = tmp_path / "forged"
    train(bp.Checkpoint(folder, every_epochs=4))
    path = bp.Checkpoint(folder).files()[0]
    header, rest = split(path.read_bytes())
    description = description_of(header)
    change(description["checkpoint"])
    path.write_bytes(forge(header, rest, description))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "has the checkpoint format 2, written by bpcore .*up to 1: pip install"),
        (lambda c: c.update(version="1"), "its entry checkpoint is not that of a checkpoint"),
        (lambda c: c.pop("facts"), "lacks shapes or facts"),
        (lambda c: c["shapes"].pop("history"), "its checkpoint lacks history"),
        (lambda c: c["shapes"].update({"state.m": [2**62]}), "'state.m' has shape .*; there are 26 parameters"),
        (lambda c: c["shapes"].update({"state.m": "all"}), "the shape of 'state.m' is 'all'"),
        (lambda c: c["shapes"].update(more=[1]), "has the array 'more', which no checkpoint has"),
        (lambda c: c["shapes"].update({"plan.scale": [1]}), r"the tensor plan\.scale is missing"),
        (lambda c: c["facts"].update(step=-1), "do not fit one another"),
        (lambda c: c["facts"].update(step=True), "step is True"),
        (lambda c: c["facts"].update(epoch=3), "do not fit one another"),
        (lambda c: c["facts"].update(seconds={"float": "nan"}), "do not fit one another"),
        (lambda c: c["facts"].update(seconds={"float": "many"}), "'many' is no number"),
        (lambda c: c["facts"].pop("stop"), "stop is None"),
    ],
)
def test_forged_checkpoints_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = forged(tmp_path, change)
    with pytest.raises(ModelFileError, match=rf"{path.name} .*{message}"):
        read_checkpoint(path)


def test_forged_facts_that_only_the_training_can_judge(tmp_path: Path) -> None:
    for change, message in (
        (lambda c: c["facts"].update(step=21), "the number of steps cannot be that of its own training"),
        (lambda c: c["facts"].update(running={"x": 1.0}), "the running numbers of the optimiser cannot be"),
        (lambda c: c["facts"].update(schedule={"x": 1.0}), "the state of the schedule cannot be"),
    ):
        path = forged(tmp_path / message[:20].replace(" ", "-"), change)
        with pytest.raises(ModelFileError, match=message):
            train(path.parent, resume=True)


def test_steps_pay_nothing_else(tmp_path: Path) -> None:
    """With hourly checkpoints a training writes one file and calls the writer between stretches only."""
    looks = []
    look = checkpoint_writer.CheckpointWriter.look

    def counted(self: Any, *args: Any, **options: Any) -> None:
        looks.append(time.perf_counter())
        look(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer.CheckpointWriter, "look", counted)
        train(bp.Checkpoint(tmp_path, every_minutes=60), batch_size=1, epochs=3)
    assert len(looks) <= 3 * (50 // 8 + 1)  # stretches begin with eight steps
