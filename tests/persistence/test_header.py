"""What the header of a model file may take in memory: limits that hold for the worst JSON, and early refusals."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bpcore as bp
from bpcore.errors import ModelFileError
from bpcore.persistence import tensor_file
from bpcore.persistence.checkpoint_file import read_checkpoint
from bpcore.persistence.model_file import load_model
from tests.persistence.mutations import description_of, forge, split

LIMIT, BESIDES = 2**20, 2**17
"""A limit of the description for these tests, in bytes, and what reading a small file takes."""

GREEDY: dict[str, Callable[[int], Any]] = {
    "floats": lambda n: [0.5] * n,
    "whole numbers": lambda n: [300] * n,
    "lists": lambda n: [[1]] * n,
    "empty lists": lambda n: [[]] * n,
    "objects": lambda n: [{"a": 1}] * n,
    "empty objects": lambda n: [{}] * n,
    "keys": lambda n: {f"{i:x}": 1 for i in range(n)},
    "short texts": lambda n: ["ab"] * n,
    "different texts": lambda n: [f"{i:x}" for i in range(n)],
    "emoji": lambda n: ["\U0001f600"] * n,
    "a long text": lambda n: "a" * n,
    "a long text of wide characters": lambda n: "\U0001f600" + "a" * n,
    "infinities": lambda n: [{"float": "inf"}] * n,
}
"""JSON that takes much memory for its length."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("run")
    net = bp.MLP([2, 2], output="softmax", seed=0, backend="numpy")
    bp.train(net, [[0.0, 1.0]], [1], epochs=1, seed=0, checkpoint=bp.Checkpoint(folder, every_epochs=1), verbose=False)
    return bp.Checkpoint(folder).files()[0].read_bytes()


def forged(data: bytes, place: str, value: Any) -> bytes:
    """Put a value into the notes or into the facts of a checkpoint."""
    header, rest = split(data)
    description = description_of(header)
    part = description["meta"] if place == "meta" else description["checkpoint"]["facts"]["stop"]["state"]
    part["x"] = value
    return forge(header, rest, description)


def longest(data: bytes, greedy: Callable[[int], Any]) -> int:
    """Find, to some percent, the longest value that is accepted in the notes of a file."""
    rest = split(data)[0]["__metadata__"]["bpcore"]

    def fits(n: int) -> bool:
        return not tensor_file._too_much(rest + json.dumps(greedy(n)))

    n = 1
    while fits(2 * n):
        n *= 2
    step = n
    while step > n // 30:
        step = (step + 1) // 2
        n += step if fits(n + step) else 0
        if step == 1:
            break
    return n


def peak(read: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        read()
    finally:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


@pytest.mark.parametrize("place", ["meta", "facts"])
@pytest.mark.parametrize("name", GREEDY)
def test_no_description_takes_more_than_the_limit(
    name: str, place: str, checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "MOST_MEMORY", LIMIT)
    n = longest(checkpoint, GREEDY[name])
    path = tmp_path / "file"
    path.write_bytes(forged(checkpoint, place, GREEDY[name](1)))
    load_model(path, backend="numpy")  # and what is imported when first needed is there
    read_checkpoint(path)
    path.write_bytes(forged(checkpoint, place, GREEDY[name](n)))
    for read in (lambda: load_model(path, backend="numpy"), lambda: read_checkpoint(path)):
        assert peak(read) < LIMIT + BESIDES
    path.write_bytes(forged(checkpoint, place, GREEDY[name](2 * n)))
    with pytest.raises(ModelFileError, match=r"its [\d,]+ values would take up to \d+ MiB, 1 are possible"):
        load_model(path, backend="numpy")


def test_a_long_header_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.write((2**26).to_bytes(8, "little"))
        file.truncate(2**27)

    def read() -> None:
        with pytest.raises(
            ModelFileError, match="its header is not one that can be read: 67,108,864 bytes, 16,777,216"
        ):
            load_model(path, backend="numpy")

    assert peak(read) < 2**18


def test_many_tensors_are_not_parsed(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{i}": entry for i in range(30_000)}).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelFileError, match="90,001 lists and objects, 65,536 are possible"):
        load_model(tmp_path / "file", backend="numpy")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0]] * 66_000, r"66,\d+ lists and objects, 65,536 are possible"),
        ([0.5] * 700_000, r"its 700,\d+ values would take up to \d+ MiB, 64 are possible"),
        ("x" * 2**24, r"16,\d+,\d+ bytes, 16,777,216 are possible"),
        ('"' * (2**22 + 2000), r"16,\d+,\d+ bytes, 16,777,216 are possible"),  # four times as long within the header
    ],
)
def test_what_could_not_be_read_is_not_written(value: Any, message: str, tmp_path: Path) -> None:
    net = bp.MLP([2, 2], seed=0, backend="numpy")
    net.meta = {"x": value}
    with pytest.raises(ModelFileError, match=rf"cannot write .*net\.meta is too long to be read back: {message}"):
        net.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_fifty_thousand_features_fits(tmp_path: Path) -> None:
    n = 50_000
    net = bp.MLP([n, 1], init="zeros", seed=0, backend="numpy")
    numbers = [i / 7 for i in range(1, n + 1)]
    net.meta = {
        "feature_names": [f"column number {i}" for i in range(n)],
        "preprocessing": {
            "kind": "pipeline",
            "steps": [
                {"kind": "imputer", "values": numbers, "how": "mean"},
                {"kind": "standardizer", "mean": numbers, "scale": numbers},
            ],
        },
    }
    net.save(tmp_path / "file")
    assert bp.load(tmp_path / "file", backend="numpy").meta == net.meta
