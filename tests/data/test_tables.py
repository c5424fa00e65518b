"""Missing values, categories, groups and Parquet: the same table from every kind of file."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.data.csv_files import iterate_csv, read_table
from bpcore.data.files import load_file
from bpcore.data.store_files import store_file
from bpcore.errors import ConfigurationError, DataError, MissingExtraError, UnknownNameError

TEXT = "size,colour,site,y\n1,red,a,0.5\n,blue,b,1.5\n3,,a,2.5\n5,red,c,3.25\n"


@pytest.fixture(params=["csv", "parquet"])
def table(request: Any, tmp_path: Path) -> Path:
    path = tmp_path / f"t.{request.param}"
    if request.param == "csv":
        path.write_text(TEXT)
        return path
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"size": [1.0, None, 3.0, 5.0], "colour": pa.array(["red", "blue", None, "red"]).dictionary_encode()}
    pq.write_table(pa.table({**columns, "site": list("abac"), "y": [0.5, 1.5, 2.5, 3.25]}), path)
    return path


def test_missing_values_are_refused_or_kept(table: Path) -> None:
    with pytest.raises(DataError, match=r"'size'.*the value is missing .*--missing mean.*1 in 'size', 1 in 'colour'"):
        load_file(table, target="y", group="site")
    data = load_file(table, target="y", group="site", keep_missing=True, text="one-hot")
    np.testing.assert_array_equal(data.X, [[1, 0], [np.nan, 1], [3, np.nan], [5, 0]])
    assert data.categories == {"colour": ("red", "blue")}
    assert data.groups is not None
    assert data.groups.tolist() == list("abac")
    assert data.feature_names == ("size", "colour")
    with pytest.raises(DataError, match=r"the value is missing .*1 of 4 are missing; targets and groups are never"):
        load_file(table, target="colour", drop=["size", "site"])


def test_text_needs_to_be_asked_for(table: Path) -> None:
    with pytest.raises(DataError, match=r"column 'colour': 'red' is not a finite number; .* --text one-hot"):
        load_file(table, target="y", keep_missing=True)


def test_categories_of_a_model(table: Path) -> None:
    how: dict[str, Any] = {"target": "y", "keep_missing": True, "text": "one-hot", "drop": ["site"]}
    data = load_file(table, **how, categories={"colour": ["green", "blue", "red"]})
    np.testing.assert_array_equal(data.X[:, 1], [2, 1, np.nan, 2])
    with pytest.raises(DataError, match=r"'colour'.*'red' is not one of the categories .*: 'green', 'blue'"):
        load_file(table, **how, categories={"colour": ["green", "blue"]})


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_several_targets(tmp_path: Path, kind: str) -> None:
    """By names or numbers, in the order in which they are named; of numbers, each there in every row."""
    path = tmp_path / f"t.{kind}"
    columns = {"a": [1.0, 2.0], "x": [3.0, 4.0], "b": [5.5, 6.5], "c": [0.25, 0.75]}
    if kind == "csv":
        path.write_text(
            "a,x,b,c\n" + "".join(",".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))
        )
    elif kind == "npy":
        np.save(path, np.array(list(zip(*columns.values(), strict=True)), dtype=[(name, float) for name in columns]))
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path)
    for target in ("b,a", " b , a ", "2,0", "-2,a"):
        data = load_file(path, target=target)
        assert data.y is not None
        assert (data.y.tolist(), data.task, data.target_name) == ([[5.5, 1], [6.5, 2]], "regression", "b,a")
        assert (data.feature_names, data.X.tolist()) == (("x", "c"), [[3, 0.25], [4, 0.75]])
    with store_file(path, target="b,a", test_fraction=0.5, in_order=True).train as store:
        ((_, Y),) = store.blocks()
        assert store.target_preprocessing is not None
        np.testing.assert_allclose(store.target_preprocessing.undo(Y), [[5.5, 1]])
    with pytest.raises(ConfigurationError, match=r"'a,0' names the column 'a' of .* twice"):
        load_file(path, target="a,0")
    with pytest.raises(ConfigurationError, match="--target and --group both name the column 'a'"):
        load_file(path, target="b,a", group="a")
    with pytest.raises(UnknownNameError, match=r"unknown column in .* 'd'; known: a, x, b, c"):
        load_file(path, target="a,d")
    with pytest.raises(DataError, match=r"target 'a,b': there are 2 for each sample; classes are one target"):
        load_file(path, target="a,b", task="classification")


def test_text_is_not_one_of_several_targets(table: Path) -> None:
    with pytest.raises(DataError, match=r"'site'.*'a' is not a finite number; several targets are numbers"):
        load_file(table, target="y,site", keep_missing=True, drop=["colour"])
    with pytest.raises(DataError, match=r"'size'.*the value is missing"):
        load_file(table, target="y,size", keep_missing=True, text="one-hot", drop=["site"])


def test_a_column_whose_name_has_a_comma(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x,"a,b"\n1,2.5\n3,4.5\n')
    data = load_file(path, target="a,b")
    assert data.y is not None
    assert data.y.tolist() == [2.5, 4.5]


def test_a_first_line_of_numbers_is_a_header_if_it_names_a_target(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("1,u,2\n3,a,5\n")
    assert load_file(path, read_target=False, text="one-hot", drop=["1"]).X.shape == (2, 2)
    named = load_file(path, target="1,u", read_target=False)
    assert (named.feature_names, named.X.tolist()) == (("2",), [[5]])


def test_names_that_do_not_exist(table: Path) -> None:
    for option in ({"group": "sight"}, {"drop": ["sight"]}):
        with pytest.raises(UnknownNameError, match=r"'sight'.*Did you mean 'site'"):
            load_file(table, target="y", **option)


def test_numbers_and_text_in_one_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,0\nred,1\n")
    with pytest.raises(DataError, match=r"line 3, column 'a': 'red' .*other values of the column are numbers"):
        load_file(path, target="y", text="one-hot")


def test_categories_that_spell_numbers_in_a_part(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n7,0\n8,1\n")
    data = load_file(path, target="y", text="one-hot", categories={"a": ["8", "x", "7"]})
    assert data.X[:, 0].tolist() == [2, 0]


def test_parts_of_a_csv_file_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i * i}\n\n" for i in range(23)))
    whole = read_table(path)
    parts = list(iterate_csv(path, part_rows=5))
    assert [part.m for part in parts] == [5, 5, 5, 5, 3]
    assert [row for part in parts for row in part.rows] == whole.rows
    assert [line for part in parts for line in part.lines] == whole.lines
    assert all(part.names == ("a", "b") for part in parts)


def test_parquet_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import datetime
    import decimal

    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]
    numbers = {
        "i": pa.array([1, 2], pa.int16()),
        "h": pa.array([1.5, 2.5], pa.float32()),
        "b": [True, False],
        "d": pa.array([decimal.Decimal("1.25"), decimal.Decimal("2.5")]),
        "y": ["p", "q"],
    }
    pq.write_table(pa.table({**numbers, "day": days, "l": [[1], [2]]}), path)
    with pytest.raises(DataError, match=r"column 'day' holds dates or times \(date32\[day\]\).*--drop day"):
        load_file(path, target="y", drop=["l"])
    with pytest.raises(DataError, match=r"column 'l' is of type list<"):
        load_file(path, target="y", drop=["day"])
    data = load_file(path, target="y", drop=["day", "l"])
    assert data.X.tolist() == [[1, 1.5, 1, 1.25], [2, 2.5, 0, 2.5]]
    assert data.classes == ("p", "q")
    pq.write_table(pa.table({"a": [1.0, np.inf], "y": [0, 1]}), path)
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\), column 'a': inf is not a finite number"):
        load_file(path, target="y")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot read .*t\.parquet"):
        load_file(path, target="y")


def test_without_pyarrow(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install \"bpcore\[data\]\""):
        load_file(path, target="y")
