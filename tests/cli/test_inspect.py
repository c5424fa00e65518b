"""``bpcore inspect``, and ``bpcore train --inspect``."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import bpcore as bp


@pytest.fixture
def model(bpcore, flowers, tmp_path):
    path = tmp_path / "flowers.safetensors"
    bpcore("train", flowers, "--target", "kind", "--layers", "6,5", "--epochs", 3, "--save", path, "--quiet")
    return path


def test_a_table_and_no_alarms(bpcore, model, flowers):
    text = bpcore("inspect", model, flowers).output
    assert "60 samples, binary_cross_entropy" in text
    assert [line.split()[:2] for line in text.splitlines() if line[:2] in ("2 ", "3 ", "4 ")] == [
        ["2", "relu"], ["3", "relu"], ["4", "sigmoid"],
    ]  # fmt: skip
    assert "no alarms" in text


def test_json_is_what_the_function_says(bpcore, model, flowers):
    found = json.loads(bpcore("inspect", model, flowers, "--json", "--optimizer", "sgd", "--eta", 0.05).output)
    rows = [line.split(",") for line in flowers.read_text().split()[1:]]
    net = bp.load(model, "numpy")
    X = np.array([[float(row[0]), float(row[2])] for row in rows])
    X = bp.data.preprocessing_from_dict(net.meta["preprocessing"]).apply(X)
    wanted = bp.inspect(net, X, [row[1] for row in rows], optimizer=bp.SGD(0.05))
    assert found["loss"] == pytest.approx(wanted.loss, rel=1e-5)
    for layer, report in zip(found["layers"], wanted.layers, strict=True):
        assert layer["dW"]["norm"] == pytest.approx(report.dW.norm, rel=1e-4)
        assert layer["update_ratio"] == pytest.approx(report.update_ratio, rel=1e-4)
        assert layer["dead"] == list(report.dead)
    assert found["alarms"] == []
    assert json.loads(bpcore("inspect", model, flowers, "--json", "--samples", 7).output)["samples"] == 7


def test_data_on_the_disk_is_looked_at_too(bpcore, model, flowers, tmp_path):
    whole = json.loads(bpcore("inspect", model, flowers, "--json").output)
    stored = json.loads(bpcore("inspect", model, flowers, "--json", "--cache", tmp_path).output)
    assert stored["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_alarms_have_advice_and_an_exit_code_if_asked(bpcore, model, flowers, tmp_path):
    net = bp.load(model, "numpy")
    pairs = net.get_weights()
    pairs[1][1][...] = -1e4
    net.set_weights(pairs).save(tmp_path / "dead.safetensors")
    text = bpcore("inspect", tmp_path / "dead.safetensors", flowers).output
    assert "serious: layer 3: all 5 neurons are dead" in text
    assert "leaky_relu" in text.replace("\n", " ")
    bpcore("inspect", tmp_path / "dead.safetensors", flowers, "--strict", code=1)
    bpcore("inspect", model, flowers, "--strict")


def test_a_picture_is_written(bpcore, model, flowers, tmp_path):
    pytest.importorskip("matplotlib")
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        bpcore("inspect", model, flowers, "--plot", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)


def test_what_it_refuses_before_it_computes(bpcore, model, flowers, tmp_path, monkeypatch):
    assert (
        "--plot writes .png, .svg, .pdf, not x.gif"
        in bpcore("inspect", model, flowers, "--plot", "x.gif", code=2).output
    )
    lost = tmp_path / "no" / "x.png"
    assert "no" in bpcore("inspect", model, flowers, "--plot", lost, code=2).output
    assert "name it with --optimizer" in bpcore("inspect", model, flowers, "--eta", 1, code=2).output
    assert "has no single update" in bpcore("inspect", model, flowers, "--optimizer", "lbfgs", code=2).output
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = bpcore("inspect", model, flowers, "--plot", tmp_path / "x.png", code=2).output
    assert "--plot needs the package 'matplotlib'" in text


def test_train_looks_at_its_layers(bpcore, flowers, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "looks.png"
    words = ("train", flowers, "--target", "kind", "--layers", "6", "--epochs", 4)
    text = bpcore(*words, "--inspect-plot", picture).output
    assert "after 8 steps, 48 samples" in text
    assert "no alarms" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(bpcore(*words, "--inspect", "--json").output)["inspection"]
    assert [report["step"] for report in found["reports"]] == [0, 2, 4, 6, 8]
    assert "inspection" not in json.loads(bpcore(*words, "--json").output)
    slow = bpcore(*words, "--epochs", 40, "--inspect", "--optimizer", "sgd", "--eta", 1e-9).output
    assert "warning: the loss went from" in slow
