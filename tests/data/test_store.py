"""Stores: what is written and read, the order of their blocks, what is refused, and that nothing is left behind."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.data import Imputer, Pipeline, Standardizer, fit_preprocessing, from_chunks, store_file
from bpcore.data import store as store_module
from bpcore.data.block_order import BlockOrder
from bpcore.data.medians import medians
from bpcore.data.npz_files import map_npz
from bpcore.data.store import StoreFiles
from bpcore.errors import ConfigurationError, DataError, ShapeError
from bpcore.random import permutation

NAN = float("nan")


def cut(X: Any, y: Any, rows: int) -> Any:
    return lambda: ((X[i : i + rows], y[i : i + rows]) for i in range(0, len(X), rows))


def sample(m: int = 101, n: int = 4) -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(m, n)), rng.integers(0, 3, m)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 10, 200])
def test_what_is_read_is_what_was_written(tmp_path: Path, rows: int, dtype: str) -> None:
    X, y = sample()
    with from_chunks(cut(X, y, rows), dtype=dtype, folder=tmp_path, block_bytes=400) as store:
        assert store.shape == (101, 4)
        np.testing.assert_array_equal(store.X(), X.astype(dtype))
        np.testing.assert_array_equal(store.y(), y)
        np.testing.assert_array_equal(store.part(20, 70).X(3, 9), X[23:29].astype(dtype))
        blocks = list(store.blocks())
        assert len(blocks) == store.order.n_blocks > 1
        np.testing.assert_array_equal(np.concatenate([block for block, _ in blocks]), X.astype(dtype))
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="were removed when their store was closed"):
        store.X()


def test_files_go_with_the_last_store(tmp_path: Path) -> None:
    X, y = sample()
    store = from_chunks(cut(X, y, 50), folder=tmp_path)
    part = store.part(0, 10)
    del store
    gc.collect()
    assert len(part.X()) == 10
    del part
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["refuse", "mean", "median", "most-frequent", "constant"])
def test_fitted_in_one_pass_as_in_memory(missing: str) -> None:
    rng = np.random.default_rng(3)
    X = np.round(rng.normal(3, 2, size=(500, 3)), 1 if missing == "most-frequent" else 6)
    if missing != "refuse":
        X[rng.random(X.shape) < 0.2] = NAN
    y = rng.normal(50, 9, size=500)
    names = ("x0", "x1", "x2")
    with from_chunks(cut(X, y, 37), dtype="float64", missing=missing, fill=4.0, standardize=True) as store:
        wanted: Any = fit_preprocessing(X, names, missing, constant=4.0)
        found: Any = store.preprocessing
        if isinstance(wanted, Pipeline):
            assert isinstance(found, Pipeline)
            assert isinstance(wanted.steps[0], Imputer)
            filled: Any = found.steps[0]
            np.testing.assert_allclose(filled.values, wanted.steps[0].values, rtol=1e-14)
            found, wanted = found.steps[1], wanted.steps[1]
        assert isinstance(found, Standardizer)
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-13)
        np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-13)
        assert abs(store.X().mean()) < 1e-12
        assert store.y().std() == pytest.approx(1, rel=1e-12)


def test_validation_data_is_prepared_like_the_training_data() -> None:
    X, y = sample()
    words = np.array(["ant", "bee", "cat"])
    X[5, 1] = NAN
    with from_chunks(cut(X, words[y], 20), standardize=True, missing="mean") as store:
        assert store.classes == ("ant", "bee", "cat")
        np.testing.assert_array_equal(store.y(), y)
        other = from_chunks([([[NAN, 1, 2, 3], [4, 5, 6, 7]], ["cat", "ant"])], like=store)
        assert other.preprocessing == store.preprocessing
        assert other.y().tolist() == [2, 0]
        assert np.isfinite(other.X()).all()
        with pytest.raises(DataError, match=r"label 'dog' in row 0 is not one of the classes"):
            from_chunks([([[1, 1, 2, 3]], ["dog"])], like=store)
        with pytest.raises(ShapeError, match=r"has shape \(1, 2\); expected \(m, 4\)"):
            from_chunks([([[1, 1]], ["ant"])], like=store)


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([], DataError, "no rows came"),
        ([([[1.0]], [0]), ([[1.0, 2.0]], [0])], ShapeError, r"chunk at row 1 has shape \(1, 2\); expected \(m, 1\)"),
        ([([[1.0]], [0]), ([[NAN]], [0])], DataError, "nan in row 1, column 0"),
        ([([[1.0]], [0]), ([[1e300]], [0])], DataError, r"1e\+300 in row 1, column 0 does not fit in float32"),
        ([([[1.0]], [0]), ([[1.0]], [0.5])], DataError, "chunk at row 1 holds numbers .* before it were whole numbers"),
        ([([[1.0]], [0, 1])], ShapeError, r"y of the chunk at row 0 has shape \(2,\); expected \(1,\)"),
        ([([[1.0]], [NAN])], DataError, "y contains 1 value .* nan in row 0"),
    ],
)
def test_chunks_that_do_not_fit(chunks: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        from_chunks([(np.array(X), np.array(y)) for X, y in chunks], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_generator_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Any:
        yield [[1.0]], [0]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        from_chunks(chunks, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_room_on_the_disk_is_looked_at_before(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(StoreFiles, "free_bytes", lambda self: 2**30)
    written: list[int] = []
    monkeypatch.setattr(StoreFiles, "append", lambda self, name, array: written.append(1))
    with pytest.raises(DataError, match=r"has 1\.00 GiB left, and 11\.18 GiB are needed .*folder=, --cache"):
        from_chunks([(np.zeros((3, 1)), np.zeros(3))], rows=10**9, folder=tmp_path)
    assert not written
    monkeypatch.setattr(StoreFiles, "free_bytes", lambda self: 2**20)
    with pytest.raises(DataError, match="GiB left"):
        from_chunks([(np.zeros((3, 1)), np.zeros(3))], folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"there is no folder .*nowhere"):
        from_chunks([], folder=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    X, y = sample()
    with from_chunks(cut(X, y, 50), folder=tmp_path) as store:
        with open(store.files.folder / "rows", "r+b") as file:
            file.truncate(1000)
        with pytest.raises(DataError, match=r"rows was cut off: \d+ bytes are missing"):
            store.X()


def test_wrong_sizes() -> None:
    X, y = sample()
    with pytest.raises(ConfigurationError, match="window is 0"):
        from_chunks(cut(X, y, 50), window=0)
    with pytest.raises(ConfigurationError, match="float32 or float64, not of float16"):
        from_chunks(cut(X, y, 50), dtype="float16")
    assert store_module.WINDOW * store_module.BLOCK_BYTES == 2**26


@pytest.mark.parametrize(
    ("m", "block_rows", "window"), [(1, 1, 1), (100, 7, 3), (100, 10, 4), (99, 100, 2), (64, 8, 8)]
)
def test_every_row_once_in_every_epoch(m: int, block_rows: int, window: int) -> None:
    order = BlockOrder(m, block_rows, window)
    epochs = [np.concatenate(list(order.rows(epoch, 5))) for epoch in range(3)]
    for rows in epochs:
        assert sorted(rows) == list(range(m))
    again = np.concatenate(list(BlockOrder(m, block_rows, window).rows(1, 5)))
    np.testing.assert_array_equal(again, epochs[1])
    np.testing.assert_array_equal(np.concatenate(list(order.rows(0, None))), np.arange(m))
    if m > 1:
        assert (epochs[0] != epochs[1]).any()
    if window >= order.n_blocks:
        np.testing.assert_array_equal(epochs[2], permutation(m, 5, 2))


def test_rows_of_a_window_come_from_its_blocks_alone() -> None:
    order = BlockOrder(1000, 10, 5)
    together: Counter[int] = Counter()
    for epoch in range(40):
        for rows in order.rows(epoch, 1):
            assert len(np.unique(rows // 10)) == 5
            together.update((np.unique(rows // 10)).tolist() if 0 in rows else [])
    # every other block is beside block 0 in 4 of 99 of the 40 epochs
    del together[0]
    assert len(together) > 60


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_medians(dtype: str) -> None:
    rng = np.random.default_rng(1)
    X = np.column_stack(
        [
            rng.normal(size=301),
            rng.integers(-2, 3, 301),
            np.full(301, -0.0),
            10.0 ** rng.uniform(-30, 30, 301) * rng.choice([-1, 1], 301),
            np.arange(301) - 150,
        ]
    ).astype(dtype)
    X[rng.random(X.shape) < 0.3] = NAN
    count = np.count_nonzero(~np.isnan(X), axis=0)
    assert {n % 2 for n in count} == {0, 1}
    found = medians(lambda: (X[i : i + 50] for i in range(0, 301, 50)), count, dtype)
    np.testing.assert_allclose(found, np.nanmedian(X.astype(np.float64), axis=0), rtol=1e-15)


def test_a_csv_file_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    from bpcore.data import csv_files

    monkeypatch.setattr(csv_files, "PART_CELLS", 60)
    rng, kind = np.random.default_rng(0), ("yes", "no")
    rows = [
        f"{'' if i % 9 == 0 else rng.integers(0, 50)},{'' if i % 13 == 0 else 'rgb'[i % 3]},s{i // 4},{kind[i % 2]}"
        for i in range(200)
    ]
    path = tmp_path / "t.csv"
    path.write_text("a,c,site,y\n" + "\n".join(rows) + "\n")
    kept = tmp_path / "kept"
    kept.mkdir()
    how: dict[str, Any] = {"target": "y", "text": "one-hot", "group": "site", "folder": kept, "dtype": "float64"}
    found = store_file(path, missing="median", validation_fraction=0.2, **how)
    assert found.validation is not None
    assert len(found.train) + len(found.test) + len(found.validation) == 200
    assert found.train.categories == {"c": ("g", "b", "r")}  # in the order of their appearance
    assert found.train.classes == ("no", "yes")
    assert found.train.width == 4
    # the same table in memory, fitted to the same rows
    from bpcore.data import load_file
    from bpcore.data.split import part_of_rows

    data = load_file(path, target="y", text="one-hot", group="site", keep_missing=True)
    part = part_of_rows(0, 200, [0.2, 0.16], 0, data.groups)
    fitted = fit_preprocessing(data.X[part == 0], data.feature_names, "median", categories=data.categories)
    for k, store in enumerate((found.train, found.test, found.validation)):
        np.testing.assert_allclose(store.X(), fitted.apply(data.X[part == k]), rtol=1e-12, atol=1e-14)
        assert data.y is not None
        np.testing.assert_array_equal(store.y(), data.y[part == k])
    found.close()
    with pytest.raises(DataError, match=r"line 2, column 'a': the value is missing"):
        store_file(path, **how)
    assert list(kept.iterdir()) == []


def test_in_order_the_first_rows_alone_are_fitted_to(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i if i < 80 else 9999},{i}.5\n" for i in range(100)))
    found = store_file(path, target="y", in_order=True, validation_fraction=0.25)
    assert found.validation is not None
    assert [len(found.train), len(found.validation), len(found.test)] == [60, 20, 20]
    fitted = found.train.preprocessing
    assert isinstance(fitted, Standardizer)
    np.testing.assert_allclose((*fitted.mean, *fitted.scale), (29.5, np.arange(60.0).std()), rtol=1e-14)
    assert found.train.target_preprocessing is not None
    assert found.train.target_preprocessing.mean == (30.0,)
    found.close()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(save: Any, order: Any, tmp_path: Path) -> None:
    X, y = sample(300)
    path = tmp_path / "a.npz"
    save(path, note=np.ones(3), X=np.asarray(X, order=order), kind=y, names=np.array(["a", "b", "ü"])[y])
    mapped, labels, _ = map_npz(path, "kind")
    assert isinstance(mapped, np.memmap) == isinstance(labels, np.memmap) == (save is np.savez)
    np.testing.assert_array_equal(mapped, X)
    np.testing.assert_array_equal(labels, y)
    for target, classes in (("kind", (0, 1, 2)), ("names", ("a", "b", "ü"))):
        found = store_file(path, target=target, in_order=True)
        assert (found.train.classes, found.target_name) == (classes, target)
        rows = np.concatenate([found.train.raw(0, found.train.m), found.test.raw(0, found.test.m)])
        np.testing.assert_array_equal(rows, X.astype(np.float32))
        found.close()
    with pytest.raises(DataError, match=r"has no array 'y'; found: note, X, kind, names\. Name the targets"):
        store_file(path)


def test_archives_that_cannot_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=np.array([[None, "x"]], object), y=np.ones(1))
    with pytest.raises(DataError, match="pickled Python objects"):
        store_file(path)
    np.savez(path, X=np.eye(3), y=np.ones(3))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'shape': (3, 3)", b"'shape': (9, 9)"))
    with pytest.raises(DataError, match="cannot read"):
        store_file(path)
    path.write_bytes(data[:-30])
    with pytest.raises(DataError, match="cannot read"):
        store_file(path)


def test_parquet_and_npy_files(tmp_path: Path) -> None:
    X, y = sample(300)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    found = store_file(tmp_path / "X.npy", labels=tmp_path / "y.npy")
    assert found.train.classes == (0, 1, 2)
    total = np.concatenate([found.train.raw(0, found.train.m), found.test.raw(0, found.test.m)])
    assert sorted(total[:, 0].tolist()) == sorted(X[:, 0].astype(np.float32).tolist())
    found.close()
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], "y": y}), tmp_path / "t.parquet", row_group_size=50)
    found = store_file(tmp_path / "t.parquet", target="y")
    assert found.task == "classification"
    assert len(found.train) + len(found.test) == 300
    found.close()


def test_a_terminal_shows_how_many_rows_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = [(np.zeros((3, 2)), np.zeros(3)), (np.ones((1500, 2)), np.ones(1500))]
    from_chunks(chunks).close()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    from_chunks(chunks, rows=1503).close()
    assert "1,503 rows" in capsys.readouterr().err
    from_chunks(chunks, verbose=False).close()
    assert capsys.readouterr().err == ""
