"""Predictor files: the same numbers as ``net.predict``, with nothing but NumPy, and safe whatever the names are."""

from __future__ import annotations

import ast
import csv
import io
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.data import preprocessing_from_dict
from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.exchange import numpy_export
from bpcore.exchange.numpy_export import numpy_source
from bpcore.functions.activations import ACTIVATIONS
from bpcore.functions.expression import OPERATIONS, Call, walk
from tests.exchange.cases import (
    ALL,
    FEATURES,
    NAMES,
    PREPROCESSING,
    TABLE_NAMES,
    TABLE_PREPARED,
    TABLE_ROWS,
    TASKS,
    arguments,
    expected,
    network,
    prepared,
    samples,
    single,
    table_network,
    task_network,
)


def load(net: bp.MLP, path: Path, **options: Any) -> dict[str, Any]:
    bp.export_numpy(net, path, **options)
    return runpy.run_path(str(path))


def python(*words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python without site-packages of the user and without bpcore's folder on its path."""
    command = [sys.executable, "-I", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=folder)


def test_the_cases_use_every_operation() -> None:
    expressions = [act.value_formula.expr for act in ALL.values() if not act.rowwise]
    assert {node.op for expr in expressions for node in walk(expr) if isinstance(node, Call)} == set(OPERATIONS)


@pytest.mark.parametrize("name", ALL)
def test_every_activation(name: str, dtype: Any, tmp_path: Path) -> None:
    net, X = single(ALL[name], dtype), arguments(ALL[name], dtype)
    found, wanted = load(net, tmp_path / "m.py")["forward"](X), net.predict(X).astype(np.float64)
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    assert found.shape == wanted.shape
    # the logarithm of a tail and a power pass the rounding of their argument on
    error = np.abs(found.astype(np.float64) - wanted)
    np.testing.assert_array_less(error, 16 * eps * np.maximum(1e-3, np.abs(wanted)))


@pytest.mark.parametrize("name", [name for name, act in ACTIVATIONS.items() if not act.rowwise])
def test_infinity_and_nan_mean_the_same(name: str, tmp_path: Path) -> None:
    z = np.array([[np.inf], [-np.inf], [np.nan]])
    (function,) = load(single(ACTIVATIONS[name], "float64"), tmp_path / "m.py")["ACTIVATIONS"]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(function(z), ACTIVATIONS[name].value_formula(z=z))


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_with_preprocessing(task: str, preprocessing: str, dtype: Any, tmp_path: Path) -> None:
    net, X = task_network(task, dtype, preprocessing), samples("float64", preprocessing)
    model = load(net, tmp_path / "m.py")
    H = net.predict(prepared(X, preprocessing))
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(model["forward"](X), H, rtol=tolerance, atol=tolerance)
    labels, values = expected(task, H)
    if labels is None:
        np.testing.assert_allclose(model["predict"](X), values, rtol=tolerance, atol=tolerance)
        return
    assert model["predict"](X).tolist() == labels
    assert ("predict_proba" in model) == (values is not None)
    if values is not None:
        np.testing.assert_allclose(model["predict_proba"](X), values, rtol=tolerance, atol=tolerance)


def test_samples_are_prepared_in_their_own_dtype(tmp_path: Path) -> None:
    net = task_network("regression", "float64")
    X = samples("float32", "standardizer")
    fitted = preprocessing_from_dict(net.meta["preprocessing"])
    found = load(net, tmp_path / "m.py")["forward"](X)
    np.testing.assert_allclose(found, net.predict(fitted.apply(X)), rtol=1e-13)


def test_a_network_without_notes_gives_its_outputs(tmp_path: Path) -> None:
    net = network(3, "softmax")
    model = load(net, tmp_path / "m.py")
    np.testing.assert_allclose(model["predict"](samples()), net.predict(samples()), rtol=1e-5)
    assert "predict_proba" not in model


def test_the_text_is_plain_python_for_old_versions() -> None:
    for task in TASKS:
        for net, weights in ((task_network(task), None), (task_network(task), "w'\n.npy"), (table_network(), None)):
            source = numpy_source(net, weights=weights)
            assert source.isascii()
            tree = ast.parse(source, feature_version=(3, 9))
            imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
            assert imported <= {"numpy", *"argparse base64 csv hashlib itertools math os sys".split()}
            used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            assert imported - {"numpy"} <= used, "nothing is imported in vain"


@pytest.mark.parametrize(
    "evil", ["'''", '"""', "\\", "\n\nimport os\n", "\\'); x = 1 #", "\x00", "\u2028", "\ud800", "{x}", "ü'寸"]
)
def test_names_are_data(evil: str, tmp_path: Path) -> None:
    net = task_network("binary")
    net.activations = type(net.activations)(
        [bp.Activation(evil, "z", check=False), *list(net.activations)[1:]], first=2
    )
    net.meta |= {"classes": ["a" + evil + "b", "c"], "feature_names": [evil + "x", "y", "z"], "data": evil}
    model = load(net, tmp_path / "m.py")
    assert model["CLASSES"] == ("a" + evil + "b", "c")
    assert model["FEATURES"] == (evil + "x", "y", "z")
    assert set(model["predict"](samples(preprocessing="standardizer"))) <= {"a" + evil + "b", "c"}


def test_the_command_predicts_a_table(tmp_path: Path) -> None:
    net, X = task_network("binary"), samples("float64", "standardizer")
    bp.export_numpy(net, tmp_path / "m.py")
    with open(tmp_path / "d.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note", *reversed(FEATURES)])
        writer.writerows([["some text", *row[::-1].tolist()] for row in X])
    done = python("m.py", "d.csv", "--probabilities", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    labels, P = expected("binary", net.predict(prepared(X, "standardizer")))
    assert [row["prediction"] for row in table] == labels
    found = [[float(row[f"p({name})"]) for name in NAMES[:2]] for row in table]
    np.testing.assert_allclose(found, P, rtol=1e-5, atol=1e-6)
    np.savetxt(tmp_path / "bare.csv", X, delimiter=";")
    assert python("m.py", "bare.csv", folder=tmp_path).stdout == python("m.py", "d.csv", folder=tmp_path).stdout


def test_the_command_gives_numbers_in_the_units_of_the_target(tmp_path: Path) -> None:
    X = samples("float64", "standardizer")
    np.savetxt(tmp_path / "d.csv", X, delimiter=",")
    for task, header in (("regression", ["prediction 0", "prediction 1"]), ("plain regression", ["prediction"])):
        net = task_network(task)
        bp.export_numpy(net, tmp_path / "m.py")
        lines = list(csv.reader(io.StringIO(python("m.py", "d.csv", folder=tmp_path).stdout)))
        assert lines[0] == header
        _, values = expected(task, net.predict(prepared(X, "standardizer")))
        np.testing.assert_allclose(np.array(lines[1:], float), values, rtol=1e-5)


def test_missing_values_and_categories(dtype: Any, tmp_path: Path) -> None:
    net = table_network(dtype)
    model = load(net, tmp_path / "m.py")
    H = net.predict(TABLE_PREPARED)
    by_name = [{**dict(zip(TABLE_NAMES, row, strict=True)), "note": "x"} for row in TABLE_ROWS]
    codes = np.array([[1.5, 2, 2.0, 0], [np.nan, 0, 0.25, 1], [6.0, np.nan, np.nan, np.nan], [8.0, 1, 1.0, 1]])
    text = [["" if cell is None else str(cell) for cell in row] for row in TABLE_ROWS]
    for X in (TABLE_ROWS, by_name, codes, text, np.array(TABLE_ROWS, object)):
        np.testing.assert_allclose(model["predict_proba"](X), H, rtol=1e-6 if dtype == np.float32 else 1e-13)
    assert model["predict"](TABLE_ROWS).tolist() == [NAMES[i] for i in H.argmax(axis=1)]


def test_the_command_fills_and_encodes_a_table(tmp_path: Path) -> None:
    net = table_network()
    bp.export_numpy(net, tmp_path / "m.py")
    H = net.predict(TABLE_PREPARED)
    for header in (["note", *reversed(TABLE_NAMES)], None):
        with open(tmp_path / "d.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if header:
                writer.writerow(header)
            writer.writerows([["t", *row[::-1]] if header else row for row in TABLE_ROWS])
        done = python("m.py", "d.csv", "--probabilities", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        table = list(csv.reader(io.StringIO(done.stdout)))
        np.testing.assert_allclose(np.array([row[1:] for row in table[1:]], float), H, rtol=1e-5)
    for line, message in (
        ("1,chalk,2,yes", "line 1: 'chalk' is not one of the categories that the model was trained on: 'sand', "),
        ("1,clay,x,yes", "line 1: 'x' is not a finite number"),
    ):
        (tmp_path / "d.csv").write_text(f"size,soil,age,wet\n1,clay,2,no\n{line}\n")
        assert message.replace("line 1", "line 3") in python("m.py", "d.csv", folder=tmp_path).stderr


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1.0, "chalk", 2.0, "yes"]], "row 0: 'chalk' is not one of the categories"),
        ([{"size": 1, "age": 2}], "a row has no column 'soil'; needed: size, soil, age, wet"),
        (np.array([[1.0, 0.5, 2.0, 1.0]]), r"X\[0, 1\] is 0.5; it must be the code of a category, 0 to 2"),
        (np.array([[1.0, 0, np.inf, 1.0]]), "X holds infinite values"),
        ([[1.0, "clay", 2.0]], r"X has shape \(1, 3\); expected \(m, 4\)"),
        ([[1.0, "clay", object(), "yes"]], "row 0: float"),
    ],
)
def test_wrong_rows_are_refused(X: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(table_network(), tmp_path / "m.py")["predict"](X)


def test_what_is_missing_is_refused_where_none_is_filled(tmp_path: Path) -> None:
    net = table_network()
    net.meta["preprocessing"] = {"kind": "pipeline", "steps": net.meta["preprocessing"]["steps"][1:]}
    model = load(net, tmp_path / "m.py")
    with pytest.raises(ValueError, match=r"row 0: the value is missing \(''\), and this model fills in none"):
        model["predict"]([[1.0, None, 2.0, "yes"]])
    with pytest.raises(ValueError, match="row 0: None is not a finite number"):
        model["predict"]([[None, "clay", 2.0, "yes"]])
    plain = network(1, "identity")
    plain.meta = {}
    model = load(plain, tmp_path / "plain.py")
    with pytest.raises(ValueError, match="the columns have no names, so a row is a list of numbers and not a dict"):
        model["predict"]([{"a": 1.0}])


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("1,2,3\n4,x,6\n", (), r"d.csv: line 2: 'x' is not a finite number"),
        ("1,2,3\n4,nan,6\n", (), r"d.csv: line 2: 'nan' is not a finite number"),
        ("1,2,3\n4,5\n", (), r"d.csv: line 2: 2 columns, but the first line has 3"),
        ("1,2\n", (), r"d.csv: line 1: 2 columns, but 3 are needed"),
        ("1,2,3,4\n", (), r"d.csv: line 1: 4 columns, but 3 are needed"),
        ("a,b,c\n1,2,3\n", (), "d.csv: there is no column"),
        ("", (), "d.csv: line 1: 0 columns, but 3 are needed"),
        ("1,2,1e300\n", (), "d.csv: X holds values that do not fit in float32"),
        ("1,2,3\n", ("--probabilities",), "--probabilities: this model gives none"),
    ],
)
def test_the_command_says_what_is_wrong(text: str, words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    bp.export_numpy(task_network("binary by sign"), tmp_path / "m.py")
    (tmp_path / "d.csv").write_text(text)
    done = python("m.py", "d.csv", *words, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1.0, 2.0]], r"X has shape \(1, 2\); expected \(m, 3\), one sample a row"),
        ([1.0, 2.0, 3.0], r"X has shape \(3,\)"),
        ([["a", "b", "c"]], "row 0: 'a' is not a finite number"),
        ([[1.0, np.nan, 3.0]], "X holds NaN or infinite values"),
    ],
)
def test_wrong_samples_are_refused(X: Any, message: str, tmp_path: Path) -> None:
    model = load(network(2, "identity"), tmp_path / "m.py")
    with pytest.raises(ValueError, match=message):
        model["predict"](X)


def test_weights_in_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(2, "identity", hidden="gelu")
    monkeypatch.setattr(numpy_export, "EMBEDDED_BYTES", 100)
    with pytest.raises(
        ConfigurationError, match=r"name a file for them with weights= \(--weights\), such as model.npy"
    ):
        bp.export_numpy(net, tmp_path / "m.py")
    assert list(tmp_path.iterdir()) == []
    model = load(net, tmp_path / "m.py", weights=tmp_path / "w.npy")
    np.testing.assert_allclose(model["forward"](samples()), net.predict(samples()), rtol=1e-5)
    (tmp_path / "moved").mkdir()
    for name in ("m.py", "w.npy"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert "forward" in runpy.run_path(str(tmp_path / "moved" / "m.py"))
    np.save(tmp_path / "moved" / "w.npy", np.load(tmp_path / "moved" / "w.npy") + 1)
    with pytest.raises(ValueError, match=r"w.npy does not hold the weights that belong to .*m.py"):
        runpy.run_path(str(tmp_path / "moved" / "m.py"))


def test_where_weights_may_be(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for weights in (tmp_path / "other" / "w.npy", tmp_path / "w.bin"):
        with pytest.raises(ConfigurationError, match=r"expected a file \*\.npy in the folder of"):
            bp.export_numpy(network(1, "identity"), tmp_path / "m.py", weights=weights)
    with pytest.raises(ModelFileError, match="there is no folder"):
        bp.export_numpy(network(1, "identity"), tmp_path / "no" / "m.py")


def test_notes_that_contradict_the_network(tmp_path: Path) -> None:
    net = task_network("classes")
    for key, value, message in (
        ("classes", ["a", "b"], r"lists 2 classes, but a network of sizes \[3, 5, 4, 3\] tells 3 apart"),
        ("classes", "abc", "expected a list of names"),
        ("classes", [1, "b", "c"], "classes must be all str or all int"),
        ("feature_names", ["a"], "lists 1 names, but the network has 3 inputs"),
        ("feature_names", [1, 2, 3], "expected a list of names"),
        ("preprocessing", {"kind": "standardizer", "mean": [0], "scale": [1]}, "standardises 1 columns"),
        ("preprocessing", {"kind": "pickle"}, "unknown preprocessing 'pickle'"),
        ("preprocessing", "x", "expected what to_dict"),
        ("threshold", "high", "expected a finite number"),
        ("loss", 3, "expected text"),
    ):
        twin = net.copy()
        twin.meta[key] = value
        with pytest.raises(ConfigurationError, match=message):
            numpy_source(twin)
