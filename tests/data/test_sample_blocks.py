"""Blocks of samples: together what the file holds, never more at a time than was asked for, errors with their place."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.data.files import load_file
from bpcore.data.sample_blocks import sample_blocks
from bpcore.errors import DataError, MissingExtraError, ShapeError, UnknownNameError

X = np.random.default_rng(0).normal(size=(1000, 3))


def write_csv(path: Path) -> None:
    lines = [",".join(map(repr, row)) for row in X.tolist()]
    path.write_text("a,b,c\n" + "\n\n".join(lines) + "\n")


def write_npy(path: Path) -> None:
    np.save(path, X)


def write_npy_by_columns(path: Path) -> None:
    np.save(path, np.asfortranarray(X))


def write_npz(path: Path) -> None:
    np.savez(path, y=np.zeros(3), X=X)


def write_compressed_npz(path: Path) -> None:
    np.savez_compressed(path, X=X)


def write_npz_by_columns(path: Path) -> None:
    np.savez(path, X=np.asfortranarray(X))


def write_parquet(path: Path, rows: int | None = None, **more: Any) -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
    import pyarrow.parquet as pq

    columns = {name: X[:, j] for j, name in enumerate("abc")} | more
    pq.write_table(pa.table(columns), path, row_group_size=rows or 300)


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "csv": (".csv", write_csv),
    "npy": (".npy", write_npy),
    "npy by columns": (".npy", write_npy_by_columns),
    "npz": (".npz", write_npz),
    "compressed npz": (".npz", write_compressed_npz),
    "npz by columns": (".npz", write_npz_by_columns),
    "parquet": (".parquet", write_parquet),
}


@pytest.mark.parametrize("numbers", [1, 6, 100, 3000, 10**6])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_blocks_are_the_file(kind: str, numbers: int, tmp_path: Path) -> None:
    suffix, write = WRITERS[kind]
    path = tmp_path / f"d{suffix}"
    write(path)
    blocks, shares = zip(*sample_blocks(path, 3, numbers=numbers), strict=True)
    np.testing.assert_array_equal(np.concatenate(blocks), X)
    assert all(block.dtype == np.float64 and block.flags.c_contiguous for block in blocks)
    assert max(block.size for block in blocks) <= max(numbers, 6)
    assert list(shares) == sorted(shares)
    assert 0 < shares[0] <= shares[-1] == 1.0
    if numbers == 100:
        assert len(blocks) >= 30


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_by_name(kind: str, tmp_path: Path) -> None:
    suffix, write = WRITERS[kind]
    path = tmp_path / f"d{suffix}"
    write(path)
    found = np.concatenate([block for block, _ in sample_blocks(path, 2, features=["c", "a"], numbers=50)])
    np.testing.assert_array_equal(found, X[:, [2, 0]])
    found = np.concatenate([block for block, _ in sample_blocks(path, 2, target="b", numbers=50)])
    np.testing.assert_array_equal(found, X[:, [0, 2]])
    with pytest.raises(DataError, match="lacks the columns d, on which the model was trained; it has a, b, c"):
        next(sample_blocks(path, 2, features=["a", "d"]))
    with pytest.raises(UnknownNameError, match=r"unknown column in .* 'q'; known: a, b, c"):
        next(sample_blocks(path, 2, target="q"))
    with pytest.raises(DataError, match="has 3 columns of features, but the model takes 4"):
        next(sample_blocks(path, 4))


def test_integers_and_truth_values_are_numbers(tmp_path: Path) -> None:
    for dtype in ("bool", "int8", "uint64", ">f4", "float16"):
        values = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
        np.save(tmp_path / "d.npy", values)
        if dtype == "float16":
            with pytest.raises(DataError, match="float16 is not supported"):
                next(sample_blocks(tmp_path / "d.npy", 3))
            continue
        (block,) = [block for block, _ in sample_blocks(tmp_path / "d.npy", 3)]
        np.testing.assert_array_equal(block, values.astype(float))
    write_parquet(tmp_path / "d.parquet", i=np.arange(1000, dtype=np.int16), t=X[:, 0] > 0)
    found = np.concatenate([block for block, _ in sample_blocks(tmp_path / "d.parquet", 2, features=["i", "t"])])
    np.testing.assert_array_equal(found, np.stack([np.arange(1000), X[:, 0] > 0], axis=1))


def test_errors_in_the_middle_name_the_row(tmp_path: Path) -> None:
    bad = X.copy()
    bad[700, 1] = np.nan
    np.save(tmp_path / "d.npy", bad)
    np.savez(tmp_path / "d.npz", X=bad)
    for name in ("d.npy", "d.npz"):
        with pytest.raises(DataError, match=rf"{name}: X contains 1 value that is not finite; .* in row 700, column 1"):
            list(sample_blocks(tmp_path / name, 3, numbers=300))
    lines = [",".join(map(repr, row)) for row in X.tolist()]
    for line, text, message in (
        (700, "1,,3", "line 700, column '1': the value is missing"),
        (700, "1,2", "line 700: 2 columns, but the first line has 3"),
        (700, "1,inf,3", "line 700, column '1': 'inf' is not a finite number"),
    ):
        (tmp_path / "d.csv").write_text("\n".join([*lines[: line - 1], text, *lines[line:]]))
        reader = sample_blocks(tmp_path / "d.csv", 3, numbers=300)
        assert next(reader)[0].shape == (100, 3)
        with pytest.raises(DataError, match=message):
            list(reader)


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
    import pyarrow.parquet as pq

    gaps: list[Any] = [*X[:, 0].tolist()]
    gaps[700] = None
    infinite = X[:, 0].copy()
    infinite[701] = np.inf
    for column, message in (
        (["x"] * 1000, r"column 'd': 'x' is not a finite number; features must be numeric"),
        (gaps, r"row 700 \(counted from 0\), column 'd': the value is missing"),
        (infinite, r"row 701 \(counted from 0\), column 'd': inf is not a finite number"),
    ):
        write_parquet(path, d=column)
        with pytest.raises(DataError, match=message):
            list(sample_blocks(path, 1, features=["d"], numbers=100))
    pq.write_table(pa.table([pa.array([1.0]), pa.array([2.0])], names=["a", "a"]), path)
    with pytest.raises(DataError, match="has the column 'a' more than once"):
        list(sample_blocks(path, 2))
    pq.write_table(pa.table({"a": pa.array([], pa.float64())}), path)
    with pytest.raises(DataError, match="has no rows"):
        list(sample_blocks(path, 1))
    path.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match=r"cannot read .* as a Parquet file"):
        list(sample_blocks(path, 1))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'reading Parquet files needs .*pip install "bpcore\[data\]"'):
        next(sample_blocks(tmp_path / "d.parquet", 1))


def npy(shape: Any, dtype: str = "<f8", data: bytes = b"", fortran: bool = False) -> bytes:
    """An array file whose header may promise what the data does not keep."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (npy((10**15, 3), data=b"\x00" * 48), DataError, "is cut short: it ends in row 2"),
        (npy((1, 10**15)), DataError, r"X has 1000000000000000 columns, but the model was trained on 3"),
        (npy((4,)), ShapeError, r"X has shape \(4,\); a matrix with one sample a row is needed"),
        (npy((0, 3)), DataError, "has no rows"),
        (npy((5, 0)), DataError, "has no columns"),
        (npy((1, 3), "<c16", b"\x00" * 48), DataError, "is complex"),
        (npy((1, 3), "<U4", b"\x00" * 48), DataError, "holds text"),
        (npy((1, 3), "<M8[s]", b"\x00" * 24), DataError, "real numbers are needed"),
        (npy((1, 3), "|O", pickle.dumps([[1, 2, 3]])), DataError, "pickled Python objects, which are refused"),
        (npy((5, 3), fortran=True), DataError, "cannot read"),
        (b"\x93NUMPY\x01\x00\x02\x00{}", DataError, "cannot read"),
        (b"", DataError, "cannot read"),
    ],
)
def test_arrays_that_lie(content: bytes, error: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.npy").write_bytes(content)
    with pytest.raises(error, match=message):
        list(sample_blocks(tmp_path / "d.npy", 3))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("X.npy", content)
    with pytest.raises(error, match=message):
        list(sample_blocks(tmp_path / "d.npz", 3))


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="cannot read"):
        list(sample_blocks(path, 3))
    np.savez(path, Z=X)
    with pytest.raises(DataError, match="has no array 'X'; found: Z"):
        list(sample_blocks(path, 3))
    with open(path, "wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="holds a single array"):
        list(sample_blocks(path, 3))
    with pytest.raises(DataError, match="there is no file"):
        list(sample_blocks(tmp_path / "no.csv", 3))
    with pytest.raises(
        DataError,
        match=r"cannot read files of type '\.xlsx'; possible: \.csv, \.parquet, \.npz, \.npy, \.safetensors, ",
    ):
        list(sample_blocks(tmp_path / "no.xlsx", 3))


def test_small_files_are_read_as_before(tmp_path: Path) -> None:
    write_csv(tmp_path / "d.csv")
    np.savez(tmp_path / "d.npz", X=X)
    for name in ("d.csv", "d.npz"):
        (block,) = [block for block, _ in sample_blocks(tmp_path / name, 3)]
        np.testing.assert_array_equal(block, load_file(tmp_path / name, read_target=False).X)
