"""IDX files and single arrays: every type of number, byte order, torn files, folders in the form of MNIST."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.data import load_idx, load_npy
from bpcore.data.files import load_file
from bpcore.data.idx_files import is_idx_name
from bpcore.errors import ConfigurationError, DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: Any, code: int) -> bytes:
    """Write the format by hand, one number at a time."""
    spell = {8: "B", 9: "b", 11: "h", 12: "i", 13: "f", 14: "d"}[code]
    head = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return head + b"".join(struct.pack(f">{spell}", value) for value in array.reshape(-1).tolist())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", CODES)
def test_every_type_of_number(tmp_path: Path, kind: str, packed: bool) -> None:
    wanted = (100 * np.random.default_rng(0).normal(size=(3, 4, 2))).clip(0, 127).astype(kind)
    wanted[0, 0, 0] = 0 if kind == "u1" else -3
    data = idx(wanted, CODES[kind])
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(data) if packed else data)
    found = load_idx(path)
    assert found.shape == wanted.shape
    assert found.dtype == np.dtype(kind).newbyteorder(">" if not packed else "=")
    np.testing.assert_array_equal(found, wanted)
    assert isinstance(found, np.memmap) is not packed


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], r"was cut off: its header says 3 x 5 numbers of 2 bytes, 30 bytes, and 29 follow"),
        (lambda data: data + b"x", r"is longer than it should be: .* 30 bytes, and 31 follow"),
        (lambda data: data[:7], r"was cut off in its header, which has 2 axes"),
        (lambda data: b"", r"is not an IDX file: it begins with nothing"),
        (lambda data: b"\x00\x00\x0a" + data[3:], r"it begins with 00 00 0a 02; expected 00 00, a type \(0x08, 0x09"),
        (lambda data: b"GIF8" + data[4:], r"it begins with 47 49 46 38"),
    ],
)
def test_torn_files(tmp_path: Path, change: Any, message: str, packed: bool) -> None:
    data = change(idx(np.arange(15).reshape(3, 5), 11))
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=message):
        load_idx(path)


def test_sizes_are_compared_before_memory_is_allocated(tmp_path: Path, monkeypatch: Any) -> None:
    head = bytes([0, 0, 14, 2]) + struct.pack(">II", 2**31, 2**20)
    monkeypatch.setattr(np, "empty", lambda *args: pytest.fail("allocated"))
    for name, data in (("plain.idx", head), ("packed.idx", gzip.compress(head + bytes(100)))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=r"was cut off"):
            load_idx(tmp_path / name)


def test_a_compressed_file_that_was_cut_off_or_changed(tmp_path: Path) -> None:
    data = gzip.compress(idx(np.random.default_rng(0).integers(0, 99, (50, 20)), 12))
    path = tmp_path / "a.idx.gz"
    for wrong in (data[:-9], data[:-8] + b"12345678"):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=r"is damaged or was cut off"):
            load_idx(path)
    with pytest.raises(DataError, match=r"cannot read .*b\.idx: No such file"):
        load_idx(tmp_path / "b.idx")


def test_names() -> None:
    assert is_idx_name("t10k-images.idx3-ubyte.gz")
    assert not is_idx_name("index.csv")


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Images of 3 x 3 pixels whose brightest pixel tells the class."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, m in (("train", 80), ("t10k", 20)):
        y = np.arange(m) % 4
        images = rng.integers(0, 90, (m, 3, 3))
        images[np.arange(m), y // 2, y % 2] = 255
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx(images, 8))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y, 8)))
    return folder


def test_a_folder_of_mnist(mnist: Path) -> None:
    data = load_file(mnist)
    assert data.X.shape == (100, 9)
    assert data.X.dtype == np.float32
    assert (data.X.min(), data.X.max()) == (0, 1)
    assert data.held_out == 20
    assert data.y is not None
    np.testing.assert_array_equal(data.y, np.concatenate([np.arange(80) % 4, np.arange(20) % 4]))
    raw = load_idx(mnist / "t10k-images-idx3-ubyte")
    np.testing.assert_array_equal(data.X[80:], raw.reshape(20, 9).astype(np.float32) / np.float32(255))
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"is a folder without t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"):
        load_file(mnist)


def test_images_with_a_file_of_labels(mnist: Path) -> None:
    images, labels = mnist / "train-images-idx3-ubyte", mnist / "train-labels-idx1-ubyte.gz"
    data = load_file(images, labels=labels)
    assert data.X.shape == (80, 9)
    assert data.held_out == 0
    assert data.classes == (0, 1, 2, 3)
    assert load_file(images, read_target=False).y is None
    with pytest.raises(DataError, match=r"name the file of the targets with --labels"):
        load_file(images)
    with pytest.raises(DataError, match=r"has 80 samples, but .* has 20 targets"):
        load_file(images, labels=mnist / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(ConfigurationError, match=r"--group is for tables"):
        load_file(images, labels=labels, group="a")


def test_npy_is_mapped(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    assert isinstance(load_npy(tmp_path / "X.npy"), np.memmap)
    data = load_file(tmp_path / "X.npy", labels=tmp_path / "y.npy")
    np.testing.assert_array_equal(data.X, X)
    assert data.y is not None
    np.testing.assert_array_equal(data.y, y)
    X[3, 1] = np.nan
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(DataError, match=r"nan in row 3, column 1"):
        load_file(tmp_path / "X.npy", labels=tmp_path / "y.npy")
    assert np.isnan(load_file(tmp_path / "X.npy", labels=tmp_path / "y.npy", keep_missing=True).X[3, 1])
    np.save(tmp_path / "X.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"pickled Python objects"):
        load_npy(tmp_path / "X.npy")
    (tmp_path / "X.npy").write_bytes((tmp_path / "y.npy").read_bytes()[:-3])
    with pytest.raises(DataError, match=r"may have been cut off"):
        load_npy(tmp_path / "X.npy")


def test_named_fields_are_columns(tmp_path: Path) -> None:
    kind = [("a", "f4"), ("day", "M8[D]"), ("kind", "U5"), ("b", "i2")]
    records = np.array([(1, "2020-01-01", "rose", 2), (3, "2020-01-02", "tulip", 4)], dtype=kind)
    np.save(tmp_path / "r.npy", records)
    with pytest.raises(DataError, match=r"field 'day' holds datetime64\[D\]; .* --drop day"):
        load_file(tmp_path / "r.npy", target="kind")
    data = load_file(tmp_path / "r.npy", target="kind", drop=["day"])
    assert data.X.tolist() == [[1, 2], [3, 4]]
    assert data.feature_names == ("a", "b")
    assert data.classes == ("rose", "tulip")
