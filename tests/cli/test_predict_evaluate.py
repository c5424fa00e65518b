"""``bpcore predict`` and ``bpcore evaluate`` with a saved model."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run


@pytest.fixture
def model(bpcore: Run, flowers: Path, tmp_path: Path) -> Path:
    path = tmp_path / "flowers.safetensors"
    bpcore("train", flowers, "--target", "kind", "--epochs", 20, "-q", "--save", path)
    return path


def kinds(flowers: Path) -> list[str]:
    return [row.split(",")[1] for row in flowers.read_text().splitlines()[1:]]


def test_predictions_are_names_of_classes(bpcore: Run, model: Path, flowers: Path) -> None:
    assert bpcore("predict", model, flowers).stdout.split() == ["prediction", *kinds(flowers)]


def test_columns_go_by_name_and_the_target_may_be_absent_or_anything(
    bpcore: Run, model: Path, flowers: Path, tmp_path: Path
) -> None:
    rows = [row.split(",") for row in flowers.read_text().splitlines()[1:]]
    for header, order in (("length,width", (2, 0)), ("note,length,kind,width", (1, 2, 1, 0))):
        path = tmp_path / "other.csv"
        path.write_text("\n".join([header, *(",".join(row[i] for i in order) for row in rows)]))
        assert bpcore("predict", model, path).stdout.split()[1:] == kinds(flowers)
    path.write_text("length,width,kind\n4,1,\n2,3,unheard of\n")
    assert bpcore("predict", model, path).stdout.split() == ["prediction", "rose", "tulip"]


def test_without_header_the_target_column_is_named(bpcore: Run, line: Path, tmp_path: Path) -> None:
    model = tmp_path / "line.safetensors"
    bpcore("train", line, "--target", "-1", "--epochs", 2, "-q", "--save", model)
    result = bpcore("predict", model, line, code=2)
    assert re.search(r"has 3 columns, but the model was trained on 2: 0, 1; name a column of targets", result.stderr)
    assert len(bpcore("predict", model, line, "--target", 2).stdout.split()) == 51
    bare = tmp_path / "bare.csv"
    bare.write_text("1,2\n3,4\n")
    assert len(bpcore("predict", model, bare).stdout.split()) == 3


def test_probabilities(bpcore: Run, model: Path, flowers: Path) -> None:
    table = list(csv.DictReader(io.StringIO(bpcore("predict", model, flowers, "--probabilities").stdout)))
    assert list(table[0]) == ["prediction", "p(rose)", "p(tulip)"]
    for row in table:
        rose, tulip = float(row["p(rose)"]), float(row["p(tulip)"])
        assert rose + tulip == pytest.approx(1, abs=1e-6)
        assert (rose > tulip) == (row["prediction"] == "rose")


@pytest.mark.parametrize("output", ["softmax", "log_softmax"])
def test_probabilities_of_several_outputs(bpcore: Run, flowers: Path, tmp_path: Path, output: str) -> None:
    model = tmp_path / "m.safetensors"
    bpcore("train", flowers, "--target", "kind", "--output", output, "--epochs", 5, "-q", "--save", model)
    table = list(csv.DictReader(io.StringIO(bpcore("predict", model, flowers, "--probabilities").stdout)))
    for row in table:
        assert float(row["p(rose)"]) + float(row["p(tulip)"]) == pytest.approx(1, abs=1e-6)


def test_no_probabilities_where_there_are_none(bpcore: Run, flowers: Path, line: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    bpcore("train", flowers, "--target", "kind", "--loss", "hinge", "--epochs", 1, "-q", "--save", model)
    result = bpcore("predict", model, flowers, "--probabilities", code=2)
    assert "the output activation 'identity' gives no probabilities; train with --output softmax" in result.stderr
    bpcore("train", line, "--target", "2", "--epochs", 1, "-q", "--save", model)
    result = bpcore("predict", model, line, "--target", "2", "--probabilities", code=2)
    assert "--probabilities is for classes, but this model predicts numbers" in result.stderr


def test_written_to_a_file(bpcore: Run, model: Path, flowers: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    assert bpcore("predict", model, flowers, "--out", out).stdout == f"wrote 60 predictions to {out}\n"
    assert out.read_text().split() == ["prediction", *kinds(flowers)]
    before = out.read_bytes()
    bpcore("predict", model, tmp_path / "nothing.csv", "--out", out, code=2)
    assert out.read_bytes() == before
    result = bpcore("predict", model, flowers, "--out", tmp_path / "no" / "p.csv", code=2)
    assert "there is no folder" in result.stderr


def test_predictions_as_json(bpcore: Run, model: Path, flowers: Path) -> None:
    found = json.loads(bpcore("predict", model, flowers, "--json", "--probabilities").stdout)
    assert found["prediction"] == kinds(flowers)
    assert len(found["p(rose)"]) == 60


def test_several_numbers_at_once(bpcore: Run, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=X, y=X @ [[1.0, 200.0], [2.0, 0.0], [3.0, -100.0]] + [5.0, 7.0])
    command = ("train", path, "--layers", "none", "--optimizer", "lbfgs", "--epochs", 100, "-q", "--save", model)
    bpcore(*command)
    table = list(csv.DictReader(io.StringIO(bpcore("predict", model, path).stdout)))
    assert list(table[0]) == ["prediction 0", "prediction 1"]
    found = np.array([[float(value) for value in row.values()] for row in table])
    np.testing.assert_allclose(found, X @ [[1.0, 200.0], [2.0, 0.0], [3.0, -100.0]] + [5.0, 7.0], atol=0.1)
    assert json.loads(bpcore("evaluate", model, path, "--json").stdout)["r2"] > 0.9999


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["memory", "disk"])
def test_several_columns_of_targets(bpcore: Run, tmp_path: Path, how: tuple[str, ...]) -> None:
    """Errors are told by target, whose units differ; predictions have their names."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    Y = X @ [[1.0, 200.0], [2.0, 0.0], [3.0, -100.0]] + [5.0, 7.0]
    path, model = tmp_path / "d.csv", tmp_path / "m.safetensors"
    rows = [",".join(f"{v:.9g}" for v in (*x, *y)) for x, y in zip(X, Y, strict=True)]
    path.write_text("\n".join(["x1,x2,x3,force,torque", *rows]) + "\n")
    words = ("train", path, "--target", "torque,force", "--layers", "8", "--epochs", 8, "--save", model, *how)
    said = json.loads(bpcore(*words, "--json").stdout)
    assert said["data"]["target"] == "torque,force"
    assert [row["target"] for row in said["targets"]] == ["torque", "force"]
    assert "torque,force, 2 numbers (standardised for training)" in bpcore(*words).stdout
    table = list(csv.DictReader(io.StringIO(bpcore("predict", model, path).stdout)))
    assert list(table[0]) == ["prediction torque", "prediction force"]
    found = np.array([[float(value) for value in row.values()] for row in table])
    text, truth = bpcore("evaluate", model, path, *how).stdout, Y[:, ::-1]
    measured = json.loads(bpcore("evaluate", model, path, "--json", *how).stdout)
    for j, row in enumerate(measured["targets"]):
        error = found[:, j] - truth[:, j]
        assert row["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
        assert row["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
        assert row["r2"] == pytest.approx(
            1 - (error**2).sum() / ((truth[:, j] - truth[:, j].mean()) ** 2).sum(), rel=1e-3
        )
        assert re.search(rf"^{row['target']} +{row['r2']:.4f} ", text, re.MULTILINE)
    assert measured["mae"] == pytest.approx(np.abs(found - truth).mean(), rel=1e-4)
    one = tmp_path / "one.csv"
    one.write_text("torque,x3,x2,x1\n0,1,2,3\n")
    assert len(bpcore("predict", model, one).stdout.split("\n")) == 3
    assert "'force'; known: torque, x3" in bpcore("evaluate", model, one, code=2).stderr
    refused = bpcore("train", path, "--target", "torque,force", "--loss", "binary_cross_entropy", code=2).stderr
    assert "the target 'torque,force' is several numbers; possible: mse, quadratic, absolute, huber\n" in refused


def test_evaluate_prints_metrics_and_classes(bpcore: Run, model: Path, flowers: Path) -> None:
    text = bpcore("evaluate", model, flowers).stdout
    assert re.search(r"^samples +60 *$", text, re.MULTILINE)
    assert re.search(r"^accuracy +100\.00 % *$", text, re.MULTILINE)
    assert re.search(r"^rose +20 +20 100\.0 % +100\.0 % *$", text, re.MULTILINE)
    assert re.search(r"^tulip +40 +40 100\.0 % +100\.0 % *$", text, re.MULTILINE)


def test_evaluate_counts_what_is_wrong(bpcore: Run, model: Path, tmp_path: Path) -> None:
    # two roses, one of them called a tulip in the file; no tulip predicted for the second class alone
    path = tmp_path / "few.csv"
    path.write_text("width,length,kind\n1,4,rose\n1,4,tulip\n")
    found = json.loads(bpcore("evaluate", model, path, "--json").stdout)
    assert found["accuracy"] == 0.5
    rose, tulip = found["classes"]
    assert (rose["samples"], rose["right"], rose["recall"], rose["precision"]) == (1, 1, 1.0, 0.5)
    assert (tulip["samples"], tulip["right"], tulip["recall"], tulip["precision"]) == (1, 0, 0.0, None)
    assert re.search(r"^tulip +1 +0 +0\.0 % +- *$", bpcore("evaluate", model, path).stdout, re.MULTILINE)


def test_evaluate_numbers_in_their_own_units(bpcore: Run, line: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    bpcore("train", line, "--target", "2", "--epochs", 3, "-q", "--save", model)
    found = json.loads(bpcore("evaluate", model, line, "--json").stdout)
    predicted = [float(row) for row in bpcore("predict", model, line, "--target", 2).stdout.split()[1:]]
    truth = np.array([float(row.split(",")[2]) for row in line.read_text().splitlines()])
    error = np.array(predicted) - truth
    # predictions are float32 before they are scaled back
    assert found["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert found["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    assert found["r2"] == pytest.approx(1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.safetensors", "FLOWERS"), r"there is no model file none\.safetensors"),
        (("FLOWERS", "FLOWERS"), r"is not a safetensors file"),
        (("MODEL", "LINE"), r"unknown column in .*line\.csv"),
        (("MODEL", "FLOWERS", "--target", "width"), r"target 'width'"),
        (("MODEL", "wines"), r"unknown data set 'wines'.*'wine'"),
    ],
)
def test_evaluate_refuses(
    bpcore: Run, model: Path, flowers: Path, line: Path, words: tuple[str, ...], message: str
) -> None:
    files = {"FLOWERS": flowers, "MODEL": model, "LINE": line}
    result = bpcore("evaluate", *(files.get(word, word) for word in words), code=2)
    assert re.search(message, result.stderr), result.stderr


def test_labels_that_the_model_does_not_know(bpcore: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("width,length,kind\n1,4,rose\n3,2,lily\n")
    result = bpcore("evaluate", model, path, code=2)
    assert "label 'lily' in row 1 is not one of the classes 'rose', 'tulip'" in result.stderr


def test_bundled_data_goes_through_the_models_preprocessing(bpcore: Run, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from bpcore.data.datasets import load_dataset

    model, table = tmp_path / "m.safetensors", tmp_path / "digits.csv"
    bpcore("train", "digits", "--epochs", 5, "-q", "--save", model)
    digits = load_dataset("digits")
    raw = (digits.X[:40] * 16).astype(int)
    lines = [",".join(digits.feature_names), *(",".join(map(str, row)) for row in raw)]
    table.write_text("\n".join(lines))
    # the file holds 0 ... 16, the bundled set 0 ... 1: the model must see the same
    from_file = bpcore("predict", model, table, "--probabilities").stdout.splitlines()
    bundled = bpcore("predict", model, "digits", "--probabilities").stdout.splitlines()
    assert [row.split(",")[0] for row in from_file] == [row.split(",")[0] for row in bundled[:41]]
    first, second = (np.array([row.split(",")[1:] for row in rows[1:41]], float) for rows in (from_file, bundled))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_bundled_data_is_brought_to_the_form_of_a_model_of_a_file(bpcore: Run, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from bpcore.data.datasets import load_dataset

    digits, table, model = load_dataset("digits"), tmp_path / "digits.csv", tmp_path / "m.safetensors"
    assert digits.y is not None
    rows = np.column_stack([(digits.X * 16).astype(int), digits.y])[:300]
    header = ",".join([*digits.feature_names, "digit"])
    table.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    bpcore("train", table, "--target", "digit", "--epochs", 3, "-q", "--save", model)
    from_file = bpcore("predict", model, table).stdout.split()
    assert bpcore("predict", model, "digits").stdout.split()[:301] == from_file


def test_a_model_of_the_api_without_notes(bpcore: Run, tmp_path: Path) -> None:
    import bpcore as bp

    model, data = tmp_path / "m.safetensors", tmp_path / "d.csv"
    bp.MLP([2, 3], output="softmax", seed=0, backend="numpy").save(model)
    data.write_text("1,2\n3,4\n")
    rows = bpcore("predict", model, data, "--probabilities").stdout.splitlines()
    assert rows[0] == "prediction,p(0),p(1),p(2)"
    assert len(rows) == 3


@pytest.mark.parametrize("task", ["classes", "numbers"])
def test_evaluation_from_the_disk_says_the_same(bpcore: Run, tmp_path: Path, task: str) -> None:
    rng = np.random.default_rng(5)
    lines = ["size,colour,y"]
    for i in range(150):
        size, colour = rng.normal(i % 3, 0.6), "rgb"[i % 3]
        y = "abc"[i % 3] if task == "classes" else f"{10 * size + i % 3 + rng.normal():.4f}"
        lines.append(f"{'' if i % 8 == 0 else f'{size:.4f}'},{colour if i % 5 else ''},{y}")
    path, model, cache = tmp_path / "t.csv", tmp_path / "m.safetensors", tmp_path / "cache"
    cache.mkdir()
    path.write_text("\n".join(lines) + "\n")
    words = ["--target", "y", "--missing", "mean", "--text", "one-hot", "--epochs", "3", "--save", model]
    bpcore("train", path, *words)
    whole, parts = (
        json.loads(bpcore("evaluate", model, path, "--json", *how).stdout) for how in ((), ("--cache", cache))
    )
    assert list(cache.iterdir()) == []
    assert whole.keys() == parts.keys()
    assert whole["classes"] == parts["classes"]
    for name in set(whole) - {"classes", "model", "data"}:
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)  # features are kept in float32
    path.write_text("size,colour,y\n1,r,z\n1,r,z\n")
    refused = bpcore("evaluate", model, path, "--stream", code=2).stderr
    assert ("'z'" if task == "classes" else "text") in refused
    assert "--stream and --cache are for files" in bpcore("evaluate", model, "iris", "--stream", code=2).stderr
