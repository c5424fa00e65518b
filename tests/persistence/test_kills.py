"""A training that is killed again and again ends with the bits of one that nothing happened to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ModelFileError
from bpcore.persistence.checkpoint_file import read_checkpoint

CHILD = Path(__file__).with_name("killed_training.py")
EPOCHS_A_KILL, LONGEST = 16, 0.1
"""Epochs of the training for each kill, and the most seconds from the first checkpoint until one: so many epochs take
longer than that, because each waits a little."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX")


def start(folder: Path, out: Path, epochs: int, backend: str, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(folder), str(out), str(epochs), backend, mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str], out: Path) -> dict[str, Any]:
    _, told = child.communicate(timeout=240)
    assert child.returncode == 0, told
    found: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return found


def kill_at(child: subprocess.Popen[str], folder: Path, seconds: float, at_once: bool) -> bool:
    """Kill a process some time after it is ready to train, or has written a checkpoint; False if it has ended."""
    before = names(folder)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n", child.stderr and child.stderr.read()
    until = time.monotonic() + 30
    while not at_once and names(folder) <= before and child.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(seconds)
    ended = child.poll() is not None
    child.kill()
    child.communicate()
    return not ended


def names(folder: Path) -> set[str]:
    return {path.name for path in bp.Checkpoint(folder).files()}


def examine(folder: Path, torn: dict[Path, bytes]) -> tuple[int, int]:
    """Read every checkpoint that a killed process has left; return how many there are, and how many half ones.

    What the test itself has torn is refused until it is written again.
    """
    files = bp.Checkpoint(folder).files()
    for path in files:
        if torn.get(path) == path.read_bytes():
            with pytest.raises(ModelFileError):
                read_checkpoint(path)
            continue
        assert read_checkpoint(path).step == int(path.stem.removeprefix("checkpoint-"))
    others = {path.name for path in folder.iterdir()} - {path.name for path in files}
    assert all(name.startswith(".bpcore-checkpoint-") and name.endswith(".tmp") for name in others), others
    return len(files), len(others)


def tear(path: Path, rng: np.random.Generator) -> bytes:
    """Leave of a file what a power cut may leave: a part, or zeros in the place of its end."""
    data = path.read_bytes()
    length = int(rng.integers(len(data)))
    left = data[:length] if rng.random() < 0.5 else data[:length].ljust(len(data), b"\0")
    path.write_bytes(left)
    return left


def kill_again_and_again(tmp_path: Path, kills: int, backend: str) -> dict[str, int]:
    """Kill at random moments, look at what is left, sometimes tear the newest file, and resume."""
    epochs, rng, folder = EPOCHS_A_KILL * kills, np.random.default_rng(kills), tmp_path / "checkpoints"
    wanted = finish(start(folder, tmp_path / "whole", epochs, backend, "whole"), tmp_path / "whole")
    assert not folder.exists()
    torn: dict[Path, bytes] = {}
    found = {"kills": 0, "left half a file": 0, "torn": 0, "most files": 0}
    while found["kills"] < kills:
        mode, at_once = "plain" if found["kills"] % 2 else "slow", found["kills"] % 5 == 4
        child = start(folder, tmp_path / "out", epochs, backend, mode)
        assert kill_at(child, folder, float(rng.uniform(0, LONGEST)), at_once), f"the training was over after {found}"
        found["kills"] += 1
        if not folder.exists():
            continue
        files, halves = examine(folder, torn)
        assert files <= 4 + len(torn)  # three are kept, a fourth until the newest is safely there
        found["left half a file"] += halves
        found["most files"] = max(files, found["most files"])
        if files >= 2 and rng.random() < 0.25:
            newest = bp.Checkpoint(folder).files()[0]
            torn[newest] = tear(newest, rng)
            found["torn"] += 1
    result = finish(start(folder, tmp_path / "out", epochs, backend, "last"), tmp_path / "out")
    resumed = result.pop("resumed")
    wanted.pop("resumed")
    assert result == wanted
    steps = [entry["step"] for entry in resumed]
    assert steps == sorted(steps)
    assert len(steps) > kills // 2
    found["resumed"] = len(steps)
    assert examine(folder, torn) == (3, 0)
    return found


def test_eight_kills(tmp_path: Path) -> None:
    found = kill_again_and_again(tmp_path, 8, "numpy")
    assert found["left half a file"] > 0, "no kill hit a checkpoint while it was written"


@pytest.mark.long
def test_eight_kills_of_a_team(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 8, "numba")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_kills(tmp_path: Path, record_property: Any) -> None:
    found = kill_again_and_again(tmp_path, 200, "numpy")
    record_property("found", found)
    print(found)
    assert found["left half a file"] > 20
    assert found["torn"] > 10
