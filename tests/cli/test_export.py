"""``bpcore export``, ``import`` and ``card``."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from tests.cli.conftest import Run


@pytest.fixture
def model(bpcore: Run, flowers: Path, tmp_path: Path) -> Path:
    path = tmp_path / "flowers.safetensors"
    bpcore("train", flowers, "--target", "kind", "--layers", "5", "--epochs", 20, "-q", "--save", path)
    return path


def test_all_forms_at_once(bpcore: Run, model: Path, flowers: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason='onnx is not installed; the extra "onnx" brings it')
    words: list[Any] = ["export", model]
    for form, name in (("onnx", "m.onnx"), ("numpy", "m.py"), ("torch", "t.safetensors"), ("card", "c.json")):
        words += [f"--{form}", tmp_path / name]
    lines = bpcore(*words).stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        "ONNX",
        "Python with NumPy",
        "PyTorch state of nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 1), nn.Sigmoid()); "
        "the preprocessing is no part of it",
        "model card",
    ]
    kinds = bpcore("predict", model, flowers).stdout.split()[1:]
    X = np.array([[float(row.split(",")[column]) for column in (0, 2)] for row in flowers.read_text().splitlines()[1:]])
    assert runpy.run_path(str(tmp_path / "m.py"))["predict"](X).tolist() == kinds
    from onnx.reference import ReferenceEvaluator

    found: Any = ReferenceEvaluator(onnx.load(tmp_path / "m.onnx")).run(["label"], {"X": X.astype(np.float32)})
    assert found[0].tolist() == kinds
    bpcore("import", tmp_path / "t.safetensors", "--save", tmp_path / "back.safetensors")
    assert bpcore("predict", tmp_path / "back.safetensors", flowers).stdout.split()[1:] == kinds
    assert json.loads((tmp_path / "c.json").read_text()) == json.loads(bpcore("card", model).stdout)


def test_the_card_says_what_training_found(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    words = ("train", flowers, "--target", "kind", "--layers", "5", "--epochs", 3, "--patience", 5, "--save", path)
    found = json.loads(bpcore(*words, "--json").stdout)
    card = json.loads(bpcore("card", path).stdout)
    assert card["held_out"] == found["test"]
    assert card["data"]["samples"] == {part: found["data"][part] for part in ("train", "validation", "test")}
    assert (card["data"]["feature_names"], card["data"]["target"]) == (["width", "length"], "kind")
    assert (card["classes"], card["task"]) == (["rose", "tulip"], "classification")
    for key in ("backend", "plan", "seed", "versions", "spec", "started"):
        assert card["run"][key] == found["record"][key]
    assert (card["run"]["epochs"], card["run"]["kept"]) == (3, found["kept"])
    assert card["created"] >= card["run"]["started"]
    assert card["file"]["bpcore"] == bp.__version__


def test_weights_names_dtype_bare(bpcore: Run, model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason='onnx is not installed; the extra "onnx" brings it')
    result = bpcore("export", model, "--numpy", tmp_path / "m.py", "--weights", tmp_path / "w.npy")
    assert f"and its weights to {tmp_path / 'w.npy'}" in result.stdout
    assert np.load(tmp_path / "w.npy").size == bp.load(model).n_parameters
    bpcore("export", model, "--torch", tmp_path / "t.safetensors", "--names", "hidden, out")
    assert bp.from_torch_state(tmp_path / "t.safetensors").sizes == (2, 5, 1)
    bpcore("export", model, "--onnx", tmp_path / "m.onnx", "--dtype", "float64", "--bare")
    (output,) = onnx.load(tmp_path / "m.onnx").graph.output
    assert (output.name, output.type.tensor_type.elem_type) == ("output", onnx.TensorProto.DOUBLE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to export: give one or several of --onnx, --numpy, --torch, --card"),
        (("--card", "c.json", "--weights", "w.npy"), "--weights is for --numpy, which was not asked for"),
        (("--card", "c.json", "--names", "a"), "--names is for --torch"),
        (("--card", "c.json", "--dtype", "float32"), "--dtype is for --onnx"),
        (("--card", "c.json", "--bare"), "--bare is for --onnx"),
        (("--card", "MODEL"), "each form needs a file of its own, which is not the model file"),
        (("--numpy", "x.py", "--card", "./x.py"), "each form needs a file of its own"),
        (("--numpy", "no/x.py"), "there is no folder"),
        (("--onnx", "x.onnx", "--dtype", "float16"), "float16"),
        (("--torch", "x.safetensors", "--names", "a,b,c"), "names must list 2 different names"),
    ],
)
def test_export_says_what_is_wrong(
    bpcore: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    if "--onnx" in words:
        pytest.importorskip("onnx", reason='onnx is not installed; the extra "onnx" brings it')
    monkeypatch.chdir(tmp_path)
    before = model.read_bytes()
    files = sorted(tmp_path.iterdir())
    assert (
        message in bpcore("export", model, *[str(model) if word == "MODEL" else word for word in words], code=2).stderr
    )
    assert model.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files


def test_import_of_a_state_of_others(bpcore: Run, flowers: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    state = {"a.weight": np.eye(2, dtype=np.float32), "b.weight": np.array([[1, -1.0], [-1, 1]], np.float32)}
    save_file(state, tmp_path / "s.safetensors")
    words = ["import", tmp_path / "s.safetensors", "--save", tmp_path / "m.safetensors", "--output", "softmax"]
    assert "give activation= for the hidden layers" in bpcore(*words, "--names", "a,b", code=2).stderr
    assert "cannot be told from their names" in bpcore(*words, code=2).stderr
    words += ["--activation", "relu", "--names", "a,b"]
    assert "lists 3 classes" in bpcore(*words, "--classes", "x,y,z", code=2).stderr
    assert "--task is 'guessing'" in bpcore(*words, "--task", "guessing", code=2).stderr
    assert not (tmp_path / "m.safetensors").exists()
    bpcore(*words, "--classes", "tulip,rose", "--features", "width,length")
    kinds = [row.split(",")[1] for row in flowers.read_text().splitlines()[1:]]
    assert bpcore("predict", tmp_path / "m.safetensors", flowers).stdout.split()[1:] == kinds


def test_pickles_are_not_read(bpcore: Run, tmp_path: Path) -> None:
    for name in ("m.pkl", "m.joblib"):
        (tmp_path / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        result = bpcore("import", tmp_path / name, "--save", tmp_path / "m.safetensors", code=2)
        assert "is a pickle, which can run code and is not read" in result.stderr
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04")
    result = bpcore("import", tmp_path / "m.pt", "--save", tmp_path / "m.safetensors", code=2)
    assert "Files of torch.save are pickles" in result.stderr
