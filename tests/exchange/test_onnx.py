"""ONNX files: judged by the checker, by onnx's own reference evaluator, and by ONNX Runtime where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, MissingExtraError, ModelFileError
from bpcore.exchange import onnx_export
from bpcore.exchange.onnx_export import IR_VERSION, ML_OPSET, OPSET, onnx_model
from bpcore.exchange.onnx_nodes import onnx_operators
from bpcore.functions.activations import ACTIVATIONS
from tests.exchange.cases import (
    ALL,
    FEATURES,
    NAMES,
    PREPROCESSING,
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

onnx = pytest.importorskip("onnx", reason='onnx is not installed; the extra "onnx" brings it')


def reference(model: Any, X: Any) -> dict[str, Any]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        values = ReferenceEvaluator(model).run(None, X if isinstance(X, dict) else {"X": X})
    return dict(zip([output.name for output in model.graph.output], values, strict=True))


def runtime(model: Any, X: Any) -> dict[str, Any]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, X if isinstance(X, dict) else {"X": X}), strict=True))


@pytest.fixture(params=[reference, runtime], ids=["reference", "onnxruntime"])
def run(request: pytest.FixtureRequest) -> Any:
    return request.param


def close(found: Any, wanted: Any, tolerance: float) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_array_less(np.abs(found.astype(np.float64) - wanted), tolerance * np.maximum(1, np.abs(wanted)))


@pytest.mark.parametrize("name", ALL)
def test_every_activation(name: str, dtype: Any, run: Any) -> None:
    net, X = single(ALL[name], dtype), arguments(ALL[name], dtype)
    model = onnx_model(net)
    onnx.checker.check_model(model, full_check=True)
    found = run(model, X)["output"]
    assert found.dtype == dtype
    close(found, net.predict(X), 1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("name", [name for name, act in ACTIVATIONS.items() if not act.rowwise])
def test_infinity_and_nan_mean_the_same(name: str, dtype: Any, run: Any) -> None:
    z = np.array([np.inf, -np.inf, np.nan], dtype)
    model = onnx_model(single(ACTIVATIONS[name], dtype))
    found = run(model, z[:, None])["output"][:, 0]
    np.testing.assert_array_equal(found, ACTIVATIONS[name].value_formula(z=z.astype(np.float64)).astype(dtype))


@pytest.mark.parametrize("name", ["elu", "softplus", "silu", "gelu_tanh", "mish"])
def test_small_results_keep_their_digits(name: str, run: Any) -> None:
    z = np.r_[-np.geomspace(1e-12, 30, 80), np.geomspace(1e-12, 1e-3, 10)]
    found = run(onnx_model(single(ACTIVATIONS[name], "float64")), z[:, None])["output"][:, 0]
    np.testing.assert_allclose(found, ACTIVATIONS[name].value_formula(z=z), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_with_preprocessing(task: str, preprocessing: str, dtype: Any, run: Any) -> None:
    net, X = task_network(task, dtype, preprocessing), samples(dtype, preprocessing)
    model = onnx_model(net)
    onnx.checker.check_model(model, full_check=True)
    found = run(model, X)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    H = net.predict(prepared(X, preprocessing))
    labels, values = expected(task, H)
    if labels is None:
        assert list(found) == ["output"]
        close(found["output"], values, tolerance)
        return
    assert found["label"].tolist() == labels
    close(found["output"], H, tolerance)
    assert ("probabilities" in found) == (values is not None)
    if values is not None:
        close(found["probabilities"], values, tolerance)


def table_inputs(dtype: Any) -> dict[str, Any]:
    """The rows of the table in the two inputs of a graph."""
    numbers, texts = ([[row[j] for j in columns] for row in TABLE_ROWS] for columns in ((0, 2), (1, 3)))
    return {"X": np.array(numbers, dtype), "categories": np.array([[text or "" for text in row] for row in texts])}


def test_missing_values_and_categories(dtype: Any, run: Any) -> None:
    net, inputs = table_network(dtype), table_inputs(dtype)
    model = onnx_model(net)
    onnx.checker.check_model(model, full_check=True)
    found = run(model, inputs)
    H = net.predict(TABLE_PREPARED)
    close(found["probabilities"], H, 1e-6 if dtype == np.float32 else 1e-12)
    assert found["label"].tolist() == [NAMES[i] for i in H.argmax(axis=1)]
    assert {entry.name: json.loads(entry.doc_string) for entry in model.graph.input} == {
        "X": ["size", "age"],
        "categories": ["soil", "wet"],
    }
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET, "ai.onnx.ml": ML_OPSET}


@pytest.mark.parametrize("text", ["NaN", "N/A", "None", "?", "null"])
def test_how_a_missing_text_is_spelled(text: str, run: Any) -> None:
    net, inputs = table_network(), table_inputs("float32")
    expected_output = run(onnx_model(net), inputs)["output"]
    inputs["categories"] = np.where(inputs["categories"] == "", text, inputs["categories"])
    np.testing.assert_array_equal(run(onnx_model(net), inputs)["output"], expected_output)


def test_an_unknown_category_stops_the_runtime(run: Any) -> None:
    inputs = table_inputs("float32")
    inputs["categories"][1, 0] = "chalk"
    with pytest.raises(Exception, match=r"out of (data )?bounds"):
        run(onnx_model(table_network()), inputs)
    steps = table_network().meta["preprocessing"]["steps"][1:]
    incomplete = table_network()
    incomplete.meta["preprocessing"] = {"kind": "pipeline", "steps": steps}
    with pytest.raises(Exception, match=r"out of (data )?bounds"):  # a missing one, where none is filled
        run(onnx_model(incomplete), table_inputs("float32"))


def test_codes_without_names_and_missing_numbers_stay_one_input(dtype: Any, run: Any) -> None:
    net = table_network(dtype)
    net.meta |= {"categories": {}}
    X = np.array([[1.5, 2, 2.0, 0], [np.nan, 0, 0.25, 1], [6.0, np.nan, np.nan, np.nan], [8.0, 1, 1.0, 1]], dtype)
    model = onnx_model(net)
    onnx.checker.check_model(model, full_check=True)
    close(run(model, X)["output"], net.predict(TABLE_PREPARED), 1e-6 if dtype == np.float32 else 1e-12)
    assert [entry.domain for entry in model.opset_import] == [""]
    for wrong in (0.5, 3.0, -1.0, np.inf):
        X[0, 1] = wrong
        with pytest.raises(Exception, match=r"out of (data )?bounds"):
            run(model, X)


def test_columns_of_text_alone_and_first(run: Any) -> None:
    net = bp.MLP([3, 2], output="identity", seed=0, backend="numpy")
    net.meta = {
        "feature_names": ["soil", "size"],
        "categories": {"soil": ["a", "b"]},
        "preprocessing": {"kind": "one-hot", "counts": [2, 0]},
    }
    soil = np.array([["b"], ["a"]])
    found = run(onnx_model(net), {"X": np.float32([[5.0], [7.0]]), "categories": soil})["output"]
    close(found, net.predict([[0.0, 1, 5], [1, 0, 7]]), 1e-6)
    net = bp.MLP([2, 2], output="identity", seed=0, backend="numpy")
    net.meta = {
        "feature_names": ["soil"],
        "categories": {"soil": ["a", "b"]},
        "preprocessing": {"kind": "one-hot", "counts": [2]},
    }
    close(run(onnx_model(net), {"categories": soil})["output"], net.predict([[0.0, 1], [1, 0]]), 1e-6)


def test_a_step_may_come_twice(run: Any) -> None:
    net = network(1, "identity")
    twice = [{"kind": "standardizer", "mean": [k, 0, 0], "scale": [1, 2, 2**k]} for k in (1, 3)]
    net.meta["preprocessing"] = {"kind": "pipeline", "steps": twice}
    close(run(onnx_model(net), samples())["output"], net.predict((samples() - [4, 0, 0]) / [1, 4, 16]), 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_any_number_of_rows(rows: int, run: Any) -> None:
    net = task_network("classes")
    assert len(run(onnx_model(net), samples(preprocessing="standardizer")[:rows])["label"]) == rows
    constant = network(2, ALL["constant"])
    assert run(onnx_model(constant), samples()[:rows])["output"].tolist() == [[2.0, 2.0]] * rows


def test_bare_is_the_network_alone(run: Any) -> None:
    net, X = task_network("binary"), samples()
    found = run(onnx_model(net, bare=True), X)
    assert list(found) == ["output"]
    close(found["output"], net.predict(X), 1e-5)


@pytest.mark.parametrize(("own", "other"), [("float32", "float64"), ("float64", "float32")])
def test_another_dtype(own: str, other: str, run: Any) -> None:
    net = network(2, "identity", own, hidden="gelu")
    found = run(onnx_model(net, dtype=other), samples(other))["output"]
    assert found.dtype == other
    close(found, net.predict(samples(other)), 1e-5)


def test_a_network_without_notes_has_outputs_only() -> None:
    model = onnx_model(network(3, "softmax"))
    assert [output.name for output in model.graph.output] == ["output"]


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    net = task_network("classes")
    bp.export_onnx(net, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert (model.producer_name, model.producer_version) == ("bpcore", bp.__version__)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert model.ir_version == IR_VERSION
    card = json.loads({entry.key: entry.value for entry in model.metadata_props}["card"])
    assert card == bp.model_card(net)
    assert (card["classes"], card["data"]["feature_names"]) == (NAMES, FEATURES)
    for value, width in ((model.graph.input[0], 3), (model.graph.output[0], 3)):
        batch, columns = value.type.tensor_type.shape.dim
        assert (batch.dim_param, columns.dim_value) == ("batch", width)
    assert [tuple(P.dims) for P in model.graph.initializer if P.name in ("W1", "b1")] == [(3, 5), (5,)]


def test_common_operators_stay_whole() -> None:
    for name, operator in (("relu", "Relu"), ("sigmoid", "Sigmoid"), ("tanh", "Tanh"), ("softmax", "Softmax")):
        assert onnx_operators(ACTIVATIONS[name]) == (operator,)
    assert "Erf" in onnx_operators(ACTIVATIONS["gelu"], "float32")
    assert "Erf" not in onnx_operators(ACTIVATIONS["gelu"], "float64")


def test_equal_parts_are_computed_once() -> None:
    act = bp.Activation("deep", "erf(erf(erf(erf(erf(erf(z))))))", differentiable=False)
    assert len(onnx_model(single(act, "float64")).graph.node) < 600


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = task_network("two outputs")
    net.meta["classes"] = ["a", "lone \ud800"]
    with pytest.raises(ConfigurationError, match=r"a class cannot be written .*surrogates not allowed; rename it"):
        onnx_model(net)
    net.meta["classes"] = [1, 2**70]
    with pytest.raises(ConfigurationError, match="a class cannot be written"):
        onnx_model(net)
    wide = network(1, "identity", "float64")
    wide.set_weights([(1e300 * W, b) for W, b in wide.get_weights()])
    with pytest.raises(ConfigurationError, match=r"W\[1\] holds numbers that are not finite in float32; use dtype="):
        onnx_model(wide, dtype="float32")
    with pytest.raises(ModelFileError, match="there is no folder"):
        bp.export_onnx(net, tmp_path / "no" / "m.onnx")
    monkeypatch.setattr(onnx_export, "LARGEST", 100)
    with pytest.raises(ConfigurationError, match=r"an ONNX file holds 2 GiB; use dtype='float32', or a safetensors"):
        onnx_model(wide)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'writing ONNX files needs .*pip install "bpcore\[onnx\]"'):
        bp.export_onnx(network(1, "identity"), tmp_path / "m.onnx")
