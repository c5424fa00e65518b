"""``bpcore predict`` on files longer than a block: the same rows, in constant memory, and a file that appears whole."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.cli.meter import metered
from bpcore.data import sample_blocks
from bpcore.persistence.knowledge import Knowledge
from tests.cli.conftest import Run

NAMES = ["it's", 'a "b"\nc', "ä,ö"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = bp.MLP([4, 6, 3], activation="tanh", seed=0, backend="numpy")
    net.meta = {
        "task": "classification",
        "classes": NAMES,
        "preprocessing": {"kind": "standardizer", "mean": [1.0, 2.0, 3.0, 4.0], "scale": [1.0, 2.0, 1.0, 0.5]},
    }
    net.save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    X = np.random.default_rng(0).normal(size=(1001, 4)) + np.array([1, 2, 3, 4])
    np.save(tmp_path / "d.npy", X)
    np.savetxt(tmp_path / "d.csv", X, delimiter=",", fmt="%.17g")
    return tmp_path / "d.npy"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Make blocks of 25 rows and note the shapes that the network gets."""
    from bpcore.cli import inputs

    def blocks(*args: Any, **options: Any) -> Any:
        return sample_blocks.sample_blocks(*args, **options, numbers=100)

    shapes: list[tuple[int, ...]] = []
    real = bp.MLP.predict

    def predict(self: bp.MLP, X: Any, **options: Any) -> Any:
        shapes.append(X.shape)
        return real(self, X, **options)

    monkeypatch.setattr(inputs, "sample_blocks", blocks)
    monkeypatch.setattr(bp.MLP, "predict", predict)
    return shapes


def wanted(model: Path, data: Path) -> tuple[list[str], Any]:
    H = bp.load(model, backend="numpy").predict((np.load(data) - [1, 2, 3, 4]) / [1.0, 2.0, 1.0, 0.5])
    return [NAMES[i] for i in H.argmax(axis=1)], H


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
@pytest.mark.parametrize("out", ["p.csv", "p.parquet", None])
def test_the_parts_are_the_whole(
    bpcore: Run, model: Path, data: Path, small_blocks: Any, tmp_path: Path, suffix: str, out: str | None
) -> None:
    words = ["predict", model, data.with_suffix(suffix), "--probabilities"]
    if out is None:
        table = list(csv.reader(bpcore(*words).stdout.splitlines(keepends=True)))
    else:
        assert bpcore(*words, "--out", tmp_path / out).stdout == f"wrote 1001 predictions to {tmp_path / out}\n"
    assert set(small_blocks) == {(25, 4), (1, 4)}
    if out == "p.csv":
        with open(tmp_path / out, newline="", encoding="utf-8") as file:
            table = list(csv.reader(file))
    if out == "p.parquet":
        pq = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed; the extra "data" brings it')
        found = pq.read_table(tmp_path / out)
        assert [str(kind) for kind in found.schema.types] == ["string", "float", "float", "float"]
        assert pq.ParquetFile(tmp_path / out).num_row_groups == 1
        table = [found.column_names, *map(list, zip(*(column.to_pylist() for column in found.columns), strict=True))]
    labels, H = wanted(model, data)
    assert table[0] == ["prediction", *(f"p({name})" for name in NAMES)]
    assert [row[0] for row in table[1:]] == labels
    np.testing.assert_allclose(np.array([row[1:] for row in table[1:]], float), H, rtol=1e-5, atol=1e-7)


def test_json_holds_all_blocks(bpcore: Run, model: Path, data: Path, small_blocks: Any, tmp_path: Path) -> None:
    found = json.loads(bpcore("predict", model, data, "--json", "--out", tmp_path / "p.csv").stdout)
    assert found["prediction"] == wanted(model, data)[0]
    assert len((tmp_path / "p.csv").read_text("utf-8").splitlines()) > 1001


@pytest.mark.parametrize("out", ["p.csv", "p.parquet"])
def test_a_bad_row_leaves_the_old_file_alone(
    bpcore: Run, model: Path, data: Path, small_blocks: Any, tmp_path: Path, out: str
) -> None:
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
    lines = data.with_suffix(".csv").read_text().splitlines()
    data.with_suffix(".csv").write_text("\n".join([*lines[:900], "1,2,3,four", *lines[900:]]))
    before = {path.name for path in tmp_path.iterdir()}
    result = bpcore("predict", model, data.with_suffix(".csv"), "--out", tmp_path / out, code=2)
    assert "line 901, column '3': 'four' is not a finite number" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == before
    (tmp_path / out).write_text("old")
    bpcore("predict", model, data.with_suffix(".csv"), "--out", tmp_path / out, code=2)
    assert (tmp_path / out).read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {*before, out}
    assert len(small_blocks) == 2 * 36


def test_parquet_goes_in_and_out(bpcore: Run, model: Path, data: Path, small_blocks: Any, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(zip("abcd", np.load(data).T, strict=True))), tmp_path / "d.parquet")
    bpcore("predict", model, tmp_path / "d.parquet", "--out", tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet")["prediction"].to_pylist() == wanted(model, data)[0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_missing_values_and_categories_in_blocks(bpcore: Run, small_blocks: Any, tmp_path: Path, suffix: str) -> None:
    """What predict reads in parts is what is read as a whole, filled and coded as in training."""
    rng = np.random.default_rng(3)
    size, colour = rng.normal(size=300), rng.choice(["red", "green", "blue"], 300)
    kind = np.where((size > 0) ^ (colour == "red"), "yes", "no")
    gone = rng.random((300, 2)) < 0.2
    rows = [
        ("" if a else f"{x:.17g}", "" if b else str(c), str(k))
        for x, c, k, (a, b) in zip(size, colour, kind, gone, strict=True)
    ]
    table = tmp_path / "d.csv"
    table.write_text("size,colour,kind\n" + "\n".join(map(",".join, rows)) + "\n")
    saved = tmp_path / "kinds.safetensors"
    words = ["train", table, "--target", "kind", "--missing", "median", "--text", "one-hot", "--epochs", 3]
    bpcore(*words, "--layers", 8, "-q", "--save", saved)
    net = bp.load(saved, backend="numpy")
    assert net.sizes[0] == 4
    codes = {text: code for code, text in enumerate(net.meta["categories"]["colour"])}
    X = np.array([[float(a or "nan"), codes.get(b, np.nan)] for a, b, _ in rows])
    fitted = bp.data.preprocessing_from_dict(net.meta["preprocessing"])
    said = [net.meta["classes"][i] for i in Knowledge(net).classes_of(np.asarray(net.predict(fitted.apply(X))))]
    if suffix == ".parquet":
        pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
        import pyarrow.parquet as pq

        columns = {"colour": [b or None for _, b, _ in rows], "kind": [k for *_, k in rows]}
        pq.write_table(
            pa.table({**columns, "size": [float(a) if a else None for a, *_ in rows]}), tmp_path / "d.parquet"
        )
    if suffix == ".npy":
        records = [(float(a or "nan"), b) for a, b, _ in rows]
        np.save(tmp_path / "d.npy", np.array(records, dtype=[("size", "f8"), ("colour", "U8")]))
    small_blocks.clear()
    found = bpcore("predict", saved, tmp_path / f"d{suffix}", "--backend", "numpy").stdout.split()
    assert found == ["prediction", *said]
    assert len(small_blocks) >= 6
    if suffix == ".npy":
        return
    whole, parts = (
        json.loads(bpcore("evaluate", saved, tmp_path / f"d{suffix}", *more, "--json").stdout)
        for more in ([], ["--stream"])
    )
    assert whole["accuracy"] == parts["accuracy"] == np.mean(np.array(said) == kind)
    assert whole["classes"] == parts["classes"]
    table.write_text("size,colour\n1,violet\n")
    assert "'violet' is not one of the categories" in bpcore("predict", saved, table, code=2).stderr


def test_what_is_exported_predicts_what_the_model_does(bpcore: Run, tmp_path: Path) -> None:
    """From a table with gaps and text to ONNX Runtime and to a Python file, by commands alone."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    rng = np.random.default_rng(5)
    size, colour, age = rng.normal(size=200), rng.choice(["red", "grün", ""], 200), rng.integers(0, 9, 200)
    kind = np.where((size > 0) ^ (colour == "red"), "yes", "no")
    shown = [f"{x:.9g}" if rng.random() < 0.8 else "NA" for x in size]
    lines = [",".join(map(str, row)) for row in zip(colour, shown, kind, age, strict=True)]
    table = tmp_path / "d.csv"
    table.write_text("colour,size,kind,age\n" + "\n".join(lines) + "\n", "utf-8")
    saved, onnx, python = (tmp_path / f"m.{end}" for end in ("safetensors", "onnx", "py"))
    words = ["--target", "kind", "--missing", "mean", "--text", "one-hot", "--epochs", 3, "--layers", 8, "-q"]
    bpcore("train", table, *words, "--save", saved)
    told = bpcore("export", saved, "--onnx", onnx, "--numpy", python, "--torch", tmp_path / "state").stdout
    assert "m.onnx: ONNX, inputs X (size, age) and categories (colour)" in told
    assert "the preprocessing is no part of it" in told
    predicted = bpcore("predict", saved, table, "--probabilities").stdout.splitlines()
    done = subprocess.run(
        [sys.executable, "-I", str(python), str(table), "--probabilities"], capture_output=True, text=True, check=True
    )
    wanted, found = ([line.split(",") for line in lines] for lines in (predicted, done.stdout.splitlines()))
    assert [row[0] for row in found] == [row[0] for row in wanted]
    P = np.array([row[1:] for row in wanted[1:]], float)
    np.testing.assert_allclose(np.array([row[1:] for row in found[1:]], float), P, atol=1e-6)
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    X = np.array([["nan" if text == "NA" else text for text in shown], age], np.float32).T
    label, probabilities = session.run(
        ["label", "probabilities"], {"X": X, "categories": colour[:, None].astype(object)}
    )
    assert label.tolist() == [row[0] for row in wanted[1:]]
    np.testing.assert_allclose(probabilities, P, atol=1e-5)


def test_numbers_in_parquet(bpcore: Run, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed; the extra "data" brings it')
    net = bp.MLP([2, 2], output="identity", seed=0, backend="numpy")
    net.meta = {"task": "regression", "target_preprocessing": {"kind": "scaler", "divisor": 4.0}}
    net.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "d.npy", np.eye(2))
    bpcore("predict", tmp_path / "m.safetensors", tmp_path / "d.npy", "--out", tmp_path / "p.parquet")
    found = pq.read_table(tmp_path / "p.parquet")
    assert found.column_names == ["prediction 0", "prediction 1"]
    assert [str(kind) for kind in found.schema.types] == ["double", "double"]
    np.testing.assert_allclose(
        np.array([c.to_pylist() for c in found.columns]).T, 4.0 * net.predict(np.eye(2)), rtol=1e-6
    )


def test_parquet_without_pyarrow(
    bpcore: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = bpcore("predict", model, data, "--out", tmp_path / "p.parquet", code=2)
    assert "writing Parquet files needs the package 'pyarrow'" in result.stderr
    assert not (tmp_path / "p.parquet").exists()


MEASURE = """
import resource, sys
from bpcore.cli import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(*words: object) -> int:
    """Run a command in a process of its own and return the most memory it had, in KiB."""
    command = [sys.executable, "-c", MEASURE, *map(str, words), "--backend", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is the KiB on Linux only")
@pytest.mark.parametrize("kind", ["npy", "npz", "parquet"])
def test_memory_does_not_grow_with_the_file(model: Path, tmp_path: Path, kind: str) -> None:
    """256 MiB of samples; one block has 2 MiB."""
    m = 2**23
    path, small = tmp_path / f"large.{kind}", tmp_path / f"small.{kind}"
    if kind == "npy":
        for name, rows in ((path, m), (small, 1000)):
            np.lib.format.open_memmap(name, "w+", np.float64, (rows, 4))[:1] = 1
    elif kind == "npz":
        for name, rows in ((path, m), (small, 1000)):
            np.savez_compressed(name, X=np.broadcast_to(np.array([1.0, 2.0, 3.0, 4.0]), (rows, 4)))
    else:
        pa = pytest.importorskip("pyarrow", reason='pyarrow is not installed; the extra "data" brings it')
        import pyarrow.parquet as pq

        for name, rows in ((path, m), (small, 1000)):
            column = np.random.default_rng(0).normal(size=min(rows, 2**17))
            table = pa.table(dict.fromkeys("abcd", column))
            with pq.ParquetWriter(name, table.schema) as writer:
                for _ in range(max(1, rows // 2**17)):
                    writer.write_table(table)
    out = tmp_path / ("p.parquet" if kind == "parquet" else "p.csv")
    base = peak("predict", model, small, "--out", out)
    grown = peak("predict", model, path, "--out", out) - base
    assert grown < 100 * 1024, f"{grown} KiB more for 256 MiB of samples"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is the KiB on Linux only")
def test_memory_does_not_grow_with_a_table(model: Path, tmp_path: Path) -> None:
    """Some 1.6 million cells of text, of which a block has a quarter of a million."""
    row = "1.2345678901234567,2.3456789012345678,3.4567890123456789,4.5678901234567890\n"
    (tmp_path / "large.csv").write_text(row * 400_000)
    (tmp_path / "small.csv").write_text(row * 2**16)
    base = peak("predict", model, tmp_path / "small.csv", "--out", tmp_path / "p.csv")
    grown = peak("predict", model, tmp_path / "large.csv", "--out", tmp_path / "p.csv") - base
    assert grown < 40 * 1024, f"{grown} KiB more"
    assert (tmp_path / "p.csv").read_text().count("\n") >= 400_001


def test_the_bar_hands_everything_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [("a", 0.5), ("b", 1.0)]
    assert list(metered(blocks)) == ["a", "b"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(metered(blocks)) == ["a", "b"]
    found = capsys.readouterr().err
    assert "predicting" in found
    assert "100 %" in found
    assert list(metered(blocks, shown=False)) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_safetensors_from_training_to_prediction(bpcore: Run, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    data, saved = tmp_path / "d.safetensors", tmp_path / "m.safetensors"
    save_file({"X": X, "kind": (X[:, 0] > 0).astype(np.int64)}, data)
    for more in ([], ["--stream"]):
        bpcore("train", data, "--target", "kind", "--layers", 4, "--epochs", 2, "-q", "--save", saved, *more)
        found = json.loads(bpcore("evaluate", saved, data, "--json", *more).stdout)
        lines = bpcore("predict", saved, data).stdout.split()
        assert len(lines) == 81
        assert found["accuracy"] == pytest.approx(np.mean(np.array(lines[1:], int) == (X[:, 0] > 0)))
