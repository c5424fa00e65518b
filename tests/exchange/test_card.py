"""Model cards: structure from the network, everything else from the notes, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.exchange.card import plain
from tests.exchange.cases import FEATURES, NAMES, OWN, network, task_network


def test_a_card_of_a_file(tmp_path: Path) -> None:
    net = task_network("classes")
    net.meta |= {"held_out": {"accuracy": 0.5}, "samples": {"train": 3}, "created": "today", "loss": "cross_entropy"}
    net.save(tmp_path / "m.safetensors")
    card = bp.model_card(tmp_path / "m.safetensors")
    assert card["model"] == {
        "sizes": [3, 5, 4, 3],
        "activations": ["tanh", "tanh", "softmax"],
        "n_parameters": 59,
        "dtype": "float32",
        "loss": "cross_entropy",
        "threshold": None,
    }
    assert (card["task"], card["classes"], card["created"]) == ("classification", NAMES, "today")
    assert (card["data"]["feature_names"], card["data"]["samples"]) == (FEATURES, {"train": 3})
    assert card["preprocessing"] == net.meta["preprocessing"]
    assert card["held_out"] == {"accuracy": 0.5}
    file = card.pop("file")
    assert (file["name"], file["format"], file["bpcore"], len(file["sha256"])) == (
        "m.safetensors",
        1,
        bp.__version__,
        64,
    )
    assert card == bp.model_card(net)
    assert json.loads(json.dumps(card)) == card


def test_a_card_with_a_run() -> None:
    net = bp.MLP([2, 3, 1], output="sigmoid", seed=0, backend="numpy")
    run = bp.train(net, np.eye(2), [0, 1], epochs=2, batch_size=1, seed=0)
    card = bp.model_card(net, run)
    assert (card["run"]["epochs"], card["run"]["steps"], card["run"]["backend"]) == (2, 4, "numpy")
    assert card["run"]["versions"]["bpcore"] == bp.__version__
    assert card["model"]["threshold"] == 0.5
    assert (card["task"], card["held_out"], bp.model_card(net)["run"]) == (None, None, None)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_own_activations_are_declared() -> None:
    (*_, last) = bp.model_card(network(1, OWN["bell"]))["model"]["activations"]
    assert last["formula"] == "exp(-z * z / 2)"


def test_notes_that_are_no_json() -> None:
    net = network(1, "identity")
    net.meta["run"] = {"x": float("inf")}
    with pytest.raises(ConfigurationError, match=r"net\.meta is not plain JSON"):
        bp.model_card(net)
    with pytest.raises(ModelFileError, match="there is no model file"):
        bp.model_card("nothing.safetensors")


def test_plain() -> None:
    value = {1: (np.float64(2.5), float("nan")), "path": Path("x"), "deep": [{"n": None, "t": True}]}
    assert plain(value) == {"1": [2.5, None], "path": "x", "deep": [{"n": None, "t": True}]}
