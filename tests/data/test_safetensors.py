"""Data in safetensors files: mapped and not read, as large as one likes, and refused when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

import bpcore as bp
from bpcore.data import load_file, load_safetensors, store_file
from bpcore.data.sample_blocks import sample_blocks
from bpcore.errors import ConfigurationError, DataError, UnknownNameError


@pytest.fixture
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3)).astype(np.float32)
    return {"X": X, "y": (X[:, 0] > 0).astype(np.int64), "price": X[:, 1] * 3.0, "plot": np.arange(90) // 9}


@pytest.fixture
def path(arrays: dict[str, Any], tmp_path: Path) -> Path:
    save_file(arrays, tmp_path / "d.safetensors", {"about": "tests"})
    return tmp_path / "d.safetensors"


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"])
def test_every_dtype_of_numpy_is_mapped(dtype: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 3], [1, 0, 2]]).astype(dtype)
    save_file({"odd": np.ones(3, np.int8), "x": values, "empty": np.empty((0, 2), dtype)}, tmp_path / "d")
    found = load_safetensors(tmp_path / "d")
    assert isinstance(found["x"], np.memmap)
    assert found["x"].dtype == values.dtype
    assert not found["x"].flags.writeable
    np.testing.assert_array_equal(found["x"], values)
    assert found["empty"].shape == (0, 2)


def test_a_data_set(path: Path, arrays: dict[str, Any]) -> None:
    found = load_file(path)
    assert (found.task, found.classes, found.target_name) == ("classification", (0, 1), "y")
    np.testing.assert_array_equal(found.X, arrays["X"])
    np.testing.assert_array_equal(found.y, arrays["y"])
    found = load_file(path, target="price", group="plot")
    assert found.task == "regression"
    np.testing.assert_array_equal(found.groups, arrays["plot"])
    np.testing.assert_allclose(found.y, arrays["price"])


def test_from_the_disk(path: Path, arrays: dict[str, Any]) -> None:
    found = store_file(path, target="price", in_order=True)
    try:
        rows = np.concatenate([np.asarray(store.raw(0, store.m)) for store in (found.train, found.test)])
        np.testing.assert_array_equal(rows, arrays["X"])
        assert (len(found.test), found.target_name, found.task) == (18, "price", "regression")
        bp.train(bp.MLP([3, 1], output="identity", seed=0, backend="numpy"), found.train, epochs=1, seed=0)
    finally:
        found.close()
    with pytest.raises(ConfigurationError, match="--group is for tables"):
        store_file(path, target="price", group="plot")
    with pytest.raises(ConfigurationError, match=r"--labels is for \.npy and IDX files"):
        store_file(path, labels=path)


def test_blocks_without_targets(path: Path, arrays: dict[str, Any]) -> None:
    blocks = list(sample_blocks(path, 3, numbers=60))
    assert [done for _, done in blocks] == [pytest.approx(k) for k in (2 / 9, 4 / 9, 6 / 9, 8 / 9, 1.0)]
    np.testing.assert_array_equal(np.concatenate([X for X, _ in blocks]), arrays["X"])
    with pytest.raises(DataError, match="X has 3 columns, but the model was trained on 4"):
        list(sample_blocks(path, 4))


def header(entries: dict[str, Any], rest: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a safetensors file, or is cut short"),
        (b"PK\x03\x04 something else", "is not a safetensors file, or is cut short"),
        (save({"X": np.eye(3)})[:-1], "is cut short or damaged"),
        (save({"W1": np.eye(3)}), r"has no array 'X'; found: W1\. Save the data with safetensors\.numpy\.save_file"),
        (save({"X": np.eye(3)}), r"has no array 'y'; found: X\. Name the targets with --target"),
        (save({"X": np.eye(3), "y": np.ones(2)}), r"X has shape \(3, 3\) but y has shape \(2,\)"),
        (
            header({"X": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2]}}, b"\0\0"),
            "X is of dtype BF16, which NumPy lacks; save it as F32",
        ),
        (
            header({f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}),
            "has a header that is too long to be parsed: 90,001 lists and objects",
        ),
        (header({"X": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}, b"\0" * 4), "damaged"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_file(tmp_path / "d.safetensors")


def test_an_array_that_is_not_there(path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown array in .* 'prize'; known: .* Did you mean 'price'\?"):
        load_file(path, target="prize")
