"""``bpcore train --checkpoint``: options, going on, and checkpoints as models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bpcore as bp
from bpcore.cli.checkpoints import parse_every
from bpcore.errors import ConfigurationError
from tests.cli.conftest import Run

FAST = ("--layers", "4", "--json")


def history(result: Any) -> list[dict[str, float]]:
    rows = json.loads(result.stdout)["history"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_train_stop_and_go_on(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    whole = bpcore("train", flowers, "--target", "kind", *FAST, "--epochs", "6")
    words = ("train", flowers, "--target", "kind", *FAST, "--checkpoint", tmp_path / "runs", "--checkpoint-every", "1e")
    bpcore(*words, "--epochs", "2", "--keep-checkpoints", "2")
    assert len(bp.Checkpoint(tmp_path / "runs").files()) == 2
    result = bpcore(*words, "--epochs", "6", "--resume")
    assert history(result) == history(whole)
    record = json.loads(result.stdout)["record"]
    assert record["resumed"][0]["epoch"] == 2
    assert record["checkpoint"]["every_epochs"] == 1
    shown = bpcore(*words[:4], "--layers", "4", *words[-4:], "--epochs", "6", "--resume").stdout
    assert "resumed" in shown
    assert "after step 12 from" in shown


def test_checkpoints_are_models(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    folder, model = tmp_path / "runs", tmp_path / "model.safetensors"
    words = ("--target", "kind", "--layers", "4", "--epochs", "2", "--quiet")
    bpcore("train", flowers, *words, "--checkpoint", folder, "--save", model)
    there = bpcore("evaluate", model, flowers, "--json")
    for path in (folder, bp.Checkpoint(folder).files()[0]):
        here = bpcore("evaluate", path, flowers, "--json")
        assert json.loads(here.stdout)["accuracy"] == json.loads(there.stdout)["accuracy"]
        assert bpcore("predict", path, flowers).stdout == bpcore("predict", model, flowers).stdout


def test_another_training_is_refused_in_one_line(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    words = ("train", flowers, "--target", "kind", "--epochs", "1", "--quiet", "--checkpoint", tmp_path / "runs")
    bpcore(*words, "--layers", "4")
    result = bpcore(*words, "--layers", "5", "--resume", code=2)
    assert "bpcore: the training cannot go on from" in result.stderr
    assert "spec.sizes is [2, 5, 1], that of the checkpoint [2, 4, 1]" in result.stderr
    result = bpcore(*words, "--layers", "4", code=2)
    assert "resume=True (on the command line --resume) goes on from it" in result.stderr


@pytest.mark.parametrize("words", [("--resume",), ("--checkpoint-every", "10m"), ("--keep-checkpoints", "2")])
def test_options_that_need_a_folder(bpcore: Run, flowers: Path, words: tuple[str, ...]) -> None:
    result = bpcore("train", flowers, "--target", "kind", *words, code=2)
    assert f"{words[0]} needs --checkpoint, the folder for the checkpoints" in result.stderr


@pytest.mark.parametrize(
    "text", ["", "m", "10x", "0", "-5", "1.5", "0e", "1.5e", "nanm", "infm", "10m,5m", "1,,2", "1e5"]
)
def test_how_often_refused(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"--checkpoint-every is .*; expected a number of steps \(1000\), a time"
    ):
        parse_every(text)


def test_how_often() -> None:
    assert parse_every("90s") == {"every_minutes": 1.5}
    assert parse_every("0.5h, 2E ,500") == {"every_minutes": 30.0, "every_epochs": 2, "every_steps": 500}
