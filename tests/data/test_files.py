"""CSV tables and NumPy archives: what is read from them, and what the errors name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.data.csv_files import read_table
from bpcore.data.files import load_file
from bpcore.data.preprocessing import ClassList
from bpcore.errors import DataError, UnknownNameError


@pytest.fixture
def csv(tmp_path: Path) -> Any:
    def write(text: str, name: str = "data.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding=encoding, newline="")
        return path

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Any:
    def write(**arrays: Any) -> Path:
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path

    return write


FLOWERS = "length,width,kind\n1,2,rose\n3,4,tulip\n5,6.5,rose\n"


@pytest.mark.parametrize("target", ["kind", "2", "-1"])
@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_classes_by_name_or_number(csv: Any, target: str, sep: str, newline: str) -> None:
    data = load_file(csv(FLOWERS.replace(",", sep).replace("\n", newline)), target=target)
    assert data.X.tolist() == [[1, 2], [3, 4], [5, 6.5]]
    assert data.y is not None
    assert data.y.tolist() == [0, 1, 0]
    assert data.classes == ("rose", "tulip")
    assert data.feature_names == ("length", "width")
    assert data.target_name == "kind"
    assert data.task == "classification"


def test_target_in_the_first_column_and_bom_and_blank_lines_and_quotes(csv: Any) -> None:
    text = 'y,a b,"c,d"\n"1.5", 2 ,3\n\n,,\n2.5,4,1e1\n'
    data = load_file(csv(text, encoding="utf-8-sig"), target="y")
    assert data.X.tolist() == [[2, 3], [4, 10]]
    assert data.feature_names == ("a b", "c,d")
    assert data.task == "regression"
    assert data.y is not None
    assert data.y.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("text", "target", "has_header"),
    [
        ("1,2\n3,4\n", None, False),
        ("a,b\n3,4\n", None, True),
        ("1,2,rose\n3,4,tulip\n", None, False),
        ("a,1\n3,4\n", None, True),
        ("0,1,kind\n3,4,rose\n", None, False),
        ("0,1,kind\n3,4,rose\n", "kind", True),
        ("1,2\n", None, False),
        ("1,\n2,3\n", None, False),
    ],
)
def test_header_detection(csv: Any, text: str, target: str | None, has_header: bool) -> None:
    assert read_table(csv(text), target).has_header is has_header


def test_without_header_columns_are_numbered(csv: Any) -> None:
    data = load_file(csv("1,2,rose\n3,4,tulip\n"), target="2")
    assert data.feature_names == ("0", "1")
    assert data.classes == ("rose", "tulip")


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NULL", "?"])
def test_missing_values_name_line_and_column(csv: Any, cell: str) -> None:
    path = csv(f"a,b,y\n1,2,0\n\n3,{cell},1\n")
    message = re.escape(f"data.csv, line 4, column 'b': the value is missing ({cell!r}); fill it in")
    with pytest.raises(DataError, match=message):
        load_file(path, target="y")
    with pytest.raises(DataError, match="line 4, column 'b': the value is missing"):
        load_file(path, target="b")


@pytest.mark.parametrize("cell", ["red", "inf", "1_000", "1e999", "2024-01-01"])
def test_cells_that_are_no_numbers(csv: Any, cell: str) -> None:
    with pytest.raises(DataError, match=rf"line 3, column 'b': '{cell}' is not a finite number; features must be"):
        load_file(csv(f"a,b,y\n1,2,0\n3,{cell},1\n"), target="y")


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, "data.csv is empty; expected one sample a line"),
        ("\n\n", None, "data.csv is empty"),
        ("a,b\n", "b", "has a header but no data rows"),
        ("a,b\n1,2\n3\n", "b", r"line 3: 1 columns, but the first line has 2"),
        ("a,a\n1,2\n", "a", "has the column 'a' more than once; names must differ"),
        ('a,b\n"1,2\n', "b", "is not a CSV file"),
        ("a,b\n1,2\n", None, r"which column is the target\? Name it with --target; the columns are a, b"),
        ("y\n1\n2\n", "y", "has no column beside the target"),
        ("a,y\n1,rose\n2,rose\n", "y", "target 'y': all labels are 'rose': one class only"),
    ],
)
def test_tables_refused(csv: Any, text: str, target: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_file(csv(text), target=target)


def test_unknown_column(csv: Any) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown column in .*data\.csv 'kin'; known: length.*Did you mean 'kind'"
    ):
        load_file(csv(FLOWERS), target="kin")
    with pytest.raises(UnknownNameError, match=r"\(the file has no header: columns are counted from 0\) '5'"):
        load_file(csv("1,2\n3,4\n"), target="5")


def test_unreadable_files(csv: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nothing\.csv \(looked in"):
        load_file(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"cannot read files of type '\.xlsx'; possible: \.csv, \.parquet, \.npz"):
        load_file(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="is not text in UTF-8"):
        load_file(csv("a,b\nä,1\n", encoding="latin-1"), target="b")
    path = tmp_path / "binary.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"UTF-8|not a CSV"):
        load_file(path, target="b")


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1] * 10, "classification"),
        ([3, 5, 7] * 10, "classification"),
        (["1.0", "2.0"] * 5, "classification"),
        (list(range(10)), "regression"),
        (list(range(21)) * 3, "regression"),
        ([0.5, 1.0] * 10, "regression"),
        (["a", "b"] * 5, "classification"),
    ],
)
def test_the_task_follows_from_the_target(csv: Any, values: list[Any], task: str) -> None:
    text = "x,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))
    data = load_file(csv(text), target="y")
    assert data.task == task
    if task == "classification" and not isinstance(values[0], str):
        assert data.classes == tuple(sorted(set(values)))


def test_the_task_can_be_said(csv: Any) -> None:
    text = "x,y\n" + "".join(f"{i},{i}\n" for i in range(10))
    assert load_file(csv(text), target="y", task="classification").classes == tuple(range(10))
    text = "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(10))
    data = load_file(csv(text), target="y", task="regression")
    assert data.classes is None
    assert data.y is not None
    assert data.y.dtype == np.float64
    with pytest.raises(DataError, match="target 'y': y holds text"):
        load_file(csv("x,y\n1,a\n2,b\n"), target="y", task="regression")


def test_text_that_is_not_classes(csv: Any) -> None:
    text = "x,y\n" + "".join(f"{i},name{i}\n" for i in range(11))
    with pytest.raises(DataError, match=r"target 'y': 11 different texts in 11 rows \(such as 'name0'\) are too many"):
        load_file(csv(text), target="y")


def test_features_of_a_model_are_picked_by_name(csv: Any) -> None:
    text = "id,width,kind,length\n9,2,rose,1\n8,4,tulip,3\n"
    data = load_file(csv(text), features=["length", "width"], read_target=False)
    assert data.X.tolist() == [[1, 2], [3, 4]]
    assert data.y is None
    with pytest.raises(DataError, match=r"lacks the columns depth, on which the model was trained; it has id, width"):
        load_file(csv(text), features=["length", "depth"], read_target=False)


def test_features_without_header_go_by_number(csv: Any) -> None:
    features = ["length", "width"]
    assert load_file(csv("1,2\n3,4\n"), features=features, read_target=False).X.tolist() == [[1, 2], [3, 4]]
    data = load_file(csv("1,2,7\n3,4,8\n"), target="2", features=features, read_target=False)
    assert data.X.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match=r"has 3 columns, but the model was trained on 2: length, width"):
        load_file(csv("1,2,3\n"), features=features, read_target=False)


def test_classes_of_a_model_encode_the_labels(csv: Any) -> None:
    classes = ClassList(("lily", "rose", "tulip"))
    data = load_file(csv(FLOWERS), target="kind", classes=classes)
    assert data.classes == classes.names
    assert data.y is not None
    assert data.y.tolist() == [1, 2, 1]
    one = load_file(csv("a,kind\n1,rose\n"), target="kind", classes=classes)
    assert one.y is not None
    assert one.y.tolist() == [1]
    with pytest.raises(DataError, match=r"target 'kind': label 'tulip' in row 1 is not one of the classes"):
        load_file(csv(FLOWERS), target="kind", classes=ClassList(("rose", "lily")))


@pytest.mark.parametrize(
    ("y", "task", "classes"),
    [
        (np.array([0, 1, 0, 1]), "classification", (0, 1)),
        (np.array(["b", "a", "b", "a"]), "classification", ("a", "b")),
        (np.array([True, False, True, False]), "classification", (0, 1)),
        (np.array([0.5, 1.0, 2.0, 3.0]), "regression", None),
        (np.arange(8.0).reshape(4, 2), "regression", None),
    ],
)
def test_archives(npz: Any, y: Any, task: str, classes: Any) -> None:
    data = load_file(npz(X=np.arange(12).reshape(4, 3), y=y))
    assert data.X.dtype == np.float64
    assert data.X.shape == (4, 3)
    assert (data.task, data.classes) == (task, classes)
    assert data.feature_names == ("x0", "x1", "x2")
    assert data.y is not None
    assert len(data.y) == 4
    if task == "regression":
        assert data.y.tolist() == y.tolist()


def test_the_target_array_can_be_named_or_absent(npz: Any) -> None:
    X = np.ones((4, 1))
    assert load_file(npz(X=X, speed=np.array([1.5, 2, 3, 4])), target="speed").target_name == "speed"
    assert load_file(npz(X=X), read_target=False).y is None


@pytest.mark.parametrize(
    ("arrays", "target", "error", "message"),
    [
        ({"x": np.ones((2, 1))}, None, DataError, r"has no array 'X'; found: x\. Save the data with np\.savez"),
        ({"X": np.ones((2, 1))}, None, DataError, "has no array 'y'; found: X. Name the targets with --target"),
        ({"X": np.ones((2, 1)), "ys": [1]}, "yz", UnknownNameError, r"unknown array in .*'yz'; known: X, ys"),
        ({"X": np.ones((2, 1)), "y": [1, 2, 3]}, None, DataError, r"X has shape \(2, 1\) but y has shape \(3,\)"),
        ({"X": np.ones(2), "y": [1, 2]}, None, Exception, r"data\.npz: X has shape \(2,\); a matrix"),
        ({"X": np.full((2, 1), np.nan), "y": [1, 2]}, None, DataError, r"data\.npz: X contains 2 values"),
        ({"X": np.ones((2, 1)), "y": np.array([None, 1], dtype=object)}, None, DataError, "pickled Python objects"),
    ],
)
def test_archives_refused(npz: Any, arrays: Any, target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_file(npz(**arrays), target=target)


def test_damaged_archives(npz: Any, tmp_path: Path) -> None:
    data = npz(X=np.ones((20, 20)), y=np.arange(20)).read_bytes()
    path = tmp_path / "bad.npz"
    rng = np.random.default_rng(0)
    contents = [b"", b"PK", b"no archive", data[:100], data[:-10]]
    for _ in range(50):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        contents.append(bytes(damaged))
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            load_file(path)
        except (DataError, UnknownNameError):
            refused += 1
    assert refused > 30


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with open(path, "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match="holds a single array; save both with"):
        load_file(path)
