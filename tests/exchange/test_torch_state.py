"""State dictionaries: the forward pass by hand from what was written, and by PyTorch where it is installed."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import bpcore as bp
from bpcore.errors import ConfigurationError, DataError, ModelFileError, ShapeError
from bpcore.exchange.torch_state import MODULES, torch_modules
from bpcore.functions.activations import ACTIVATIONS
from tests.exchange.cases import OWN, TASKS, arguments, network, samples, single, task_network


def by_hand(state: dict[str, Any], names: list[str], X: Any, functions: list[Any]) -> Any:
    H = X.astype(np.float64)
    for name, function in zip(names, functions, strict=True):
        H = function(H @ state[f"{name}.weight"].T.astype(np.float64) + state[f"{name}.bias"])
    return H


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def same(first: bp.MLP, second: bp.MLP) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return first.sizes == second.sizes and all(
        (a == b).all() for one, two in pairs for a, b in zip(one, two, strict=True)
    )


def wide_net(n_layers: int = 12) -> bp.MLP:
    """So many layers that their numbers have one or two digits, all of the same width."""
    net = bp.MLP([3] * n_layers, "tanh", "identity", seed=1, backend="numpy")
    rng = np.random.default_rng(0)
    return net.set_weights([(rng.normal(size=(3, 3)), rng.normal(size=3)) for _ in range(n_layers - 1)])


def test_the_forward_pass_by_hand(dtype: Any) -> None:
    net = network(3, "softmax", dtype)
    state = bp.to_torch_state(net)
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    assert {array.dtype for array in state.values()} == {dtype}
    assert all(array.flags.c_contiguous for array in state.values())
    H = by_hand(state, ["0", "2", "4"], samples(dtype), [np.tanh, np.tanh, softmax])
    np.testing.assert_allclose(net.predict(samples(dtype)), H, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_there_and_back(dtype: Any) -> None:
    net = network(2, "identity", dtype)
    twin = bp.from_torch_state(bp.to_torch_state(net, ["a", "b.c", "out"]), "tanh", "identity", backend="numpy")
    assert same(net, twin)
    assert twin.dtype == dtype
    assert [act.name for act in twin.activations] == ["tanh", "tanh", "identity"]


@pytest.mark.parametrize("names", [None, [f"block{'abcdefghijk'[i]}" for i in (10, 3, 2, 1, 0, 4, 5, 9, 8, 7, 6)]])
def test_files_keep_order_activations_and_notes(names: Any, tmp_path: Path) -> None:
    net = wide_net()
    net.meta = {"classes": ["x", "y", "z"]}
    bp.export_torch(net, tmp_path / "s.safetensors", names)
    twin = bp.from_torch_state(tmp_path / "s.safetensors", backend="numpy")
    assert same(net, twin)
    assert list(twin.activations) == list(net.activations)
    assert twin.meta == net.meta
    other = bp.from_torch_state(tmp_path / "s.safetensors", "relu", "softmax", backend="numpy")
    assert [act.name for act in other.activations] == ["relu"] * 10 + ["softmax"]


def test_own_activations_travel_in_files(tmp_path: Path) -> None:
    net = network(1, OWN["error"], hidden=OWN["awkward '\"\n name"])
    bp.export_torch(net, tmp_path / "s.safetensors")
    twin = bp.from_torch_state(tmp_path / "s.safetensors", backend="numpy")
    np.testing.assert_array_equal(twin.predict(samples()), net.predict(samples()))
    assert torch_modules(net) is None
    with safe_open(tmp_path / "s.safetensors", "np") as file:
        assert "module" not in file.metadata()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_travels_in_files(task: str, tmp_path: Path) -> None:
    net = task_network(task)
    bp.export_torch(net, tmp_path / "s.safetensors")
    twin = bp.from_torch_state(tmp_path / "s.safetensors", backend="numpy")
    assert twin.meta == net.meta
    np.testing.assert_array_equal(twin.predict(samples()), net.predict(samples()))


def test_files_of_others_are_ordered_by_number(tmp_path: Path) -> None:
    net = wide_net()
    for form in ("{}", "layers.{}.fc", "fc{}"):
        save_file(bp.to_torch_state(net, [form.format(3 * i) for i in range(11)]), tmp_path / "s.safetensors")
        twin = bp.from_torch_state(tmp_path / "s.safetensors", "tanh", "identity", backend="numpy")
        assert same(net, twin)
    for names in (["in", "out"], ["a1", "b2"], ["1.1", "2.2"], ["fc1", "out"]):
        small = bp.MLP([2, 2, 2], seed=0, backend="numpy")
        save_file(bp.to_torch_state(small, names), tmp_path / "s.safetensors")
        with pytest.raises(ConfigurationError, match=r"order of the layers cannot be told from their names, .*names="):
            bp.from_torch_state(tmp_path / "s.safetensors", "tanh", "identity")
        assert same(small, bp.from_torch_state(tmp_path / "s.safetensors", "tanh", "identity", names=names))


def test_a_layer_without_bias_and_half_precision() -> None:
    net = bp.from_torch_state({"weight": np.ones((2, 3), np.float16)}, output="identity", names=None, backend="numpy")
    assert (net.sizes, str(net.dtype), net.b[1].tolist()) == ((3, 2), "float32", [0.0, 0.0])


def test_names_choose_a_part_of_a_larger_state() -> None:
    state = {
        **bp.to_torch_state(network(1, "identity")),
        "norm.running_mean": np.zeros(3),
        "conv.weight": np.zeros((1, 1)),
    }
    assert bp.from_torch_state(state, "tanh", "identity", names=["0", "2", "4"]).sizes == (3, 5, 4, 1)


@pytest.mark.parametrize(
    ("state", "options", "error", "message"),
    [
        ({}, {}, ConfigurationError, "the state is empty"),
        (np.zeros(3), {}, ConfigurationError, r"maps names to arrays; got ndarray. For a module use module.state_dict"),
        ({"0.weight": np.ones((2, 2)), "1.running_mean": np.ones(2)}, {}, ConfigurationError, "holds '1.running_mean'"),
        ({"0.bias": np.ones(2)}, {}, ConfigurationError, "the state has no '0.weight'; it has 0.bias"),
        (
            {"0.weight": np.ones((4, 3, 2, 2))},
            {},
            ShapeError,
            r"0.weight has shape \(4, 3, 2, 2\); .* fold normalisations",
        ),
        ({"0.weight": np.ones((0, 3))}, {}, ShapeError, "two axes"),
        (
            {"0.weight": np.ones((2, 3)), "0.bias": np.ones(3)},
            {},
            ShapeError,
            r"0.bias has shape \(3,\), but 0.weight has 2",
        ),
        (
            {"0.weight": np.ones((2, 3)), "1.weight": np.ones((2, 3))},
            {},
            ShapeError,
            "1.weight takes 3 inputs, but 0.weight before it has 2 outputs; give the layers in their order",
        ),
        ({"0.weight": np.full((2, 3), np.nan)}, {}, DataError, "not finite"),
        ({"0.weight": [["a"]]}, {}, DataError, "0.weight holds text"),
        ({"0.weight": np.ones((2, 3))}, {"output": None}, ConfigurationError, "give output= for the last layer"),
        (
            {"0.weight": np.ones((3, 3)), "1.weight": np.ones((2, 3))},
            {"activation": None},
            ConfigurationError,
            "give activation= for the hidden layers",
        ),
        ({"0.weight": np.ones((3, 3))}, {"names": ["1"]}, ConfigurationError, "the state has no '1.weight'"),
        ({"0.weight": np.ones((3, 3))}, {"names": []}, ConfigurationError, "names is empty"),
    ],
)
def test_what_is_no_state_of_linear_layers(state: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        bp.from_torch_state(state, **{"activation": "relu", "output": "identity", **options})


def test_wrong_names() -> None:
    for names in (["a"], ["a", "a", "b"], "abc"):
        with pytest.raises(ConfigurationError, match="names must list 3 different names"):
            bp.to_torch_state(network(1, "identity"), names)


def test_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    with pytest.raises(ModelFileError, match="there is no file"):
        bp.from_torch_state(path)
    path.write_bytes(pickle.dumps({"0.weight": [[1.0]]}))
    with pytest.raises(ModelFileError, match=r"not a safetensors file.*pickles, which can run code and are not read"):
        bp.from_torch_state(path)
    network(1, "identity").save(path)
    with pytest.raises(ConfigurationError, match=r"is a model file of bpcore, not a PyTorch state: use bpcore.load"):
        bp.from_torch_state(path)
    state = bp.to_torch_state(network(1, "identity"))
    for note, message in (
        ("{", "is not JSON"),
        ("[]", "is not what bpcore writes"),
        ('{"layers": "0"}', "is not what bpcore writes"),
        ('{"layers": ["0", "2", "4"], "activations": ["a", "b", "c"]}', "an activation that cannot be rebuilt"),
        ('{"activations": ["tanh"]}', "give activation="),
        ('{"activations": ["tanh", "tanh", "identity"], "meta": {"threshold": "x"}}', "expected a finite number"),
    ):
        save_file(state, path, {"bpcore_state": note})
        with pytest.raises((ModelFileError, ConfigurationError), match=message):
            bp.from_torch_state(path)
    net = network(1, "identity")
    net.meta["x"] = float("nan")
    with pytest.raises(ModelFileError, match=r"net\.meta is not plain JSON"):
        bp.export_torch(net, path)


def test_brain_floats_in_a_file(tmp_path: Path) -> None:
    header = json.dumps({"0.weight": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "s.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f")
    with pytest.raises(ConfigurationError, match=r"0\.weight is bfloat16, which NumPy cannot read"):
        bp.from_torch_state(tmp_path / "s.safetensors", output="identity")


def test_modules_are_those_of_the_declarations() -> None:
    assert set(ACTIVATIONS) - set(MODULES) == {"step"}
    twisted = bp.Activation("tanh", "tanh(2*z)")
    assert torch_modules(bp.MLP([2, 1], output=twisted, backend="numpy")) is None


@pytest.mark.witness
@pytest.mark.parametrize("name", MODULES)
def test_pytorch_computes_the_same(name: str, dtype: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net, X = single(ACTIVATIONS[name], dtype), arguments(ACTIVATIONS[name], dtype)
    bp.export_torch(net, tmp_path / "s.safetensors")
    with safe_open(tmp_path / "s.safetensors", "np") as file:
        module = eval(file.metadata()["module"], {"nn": torch.nn})
    module = module.to(getattr(torch, str(dtype)))
    module.load_state_dict(
        {key: torch.from_numpy(array) for key, array in load_file(tmp_path / "s.safetensors").items()}
    )
    with torch.no_grad():
        found = module(torch.from_numpy(X)).numpy()
    # PyTorch's softplus is the identity from 20 on, and its hard_sigmoid has the slope 1/6 in float32
    tolerance = 1e-5 if dtype == np.float32 else (1e-7 if name == "hard_sigmoid" else 1e-8)
    np.testing.assert_allclose(found, net.predict(X), rtol=tolerance, atol=tolerance)


@pytest.mark.witness
@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "float16"])
def test_a_module_of_pytorch_becomes_a_network(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = (3, 8, 8, 2)
    parts = [part for n, k in pairwise(sizes) for part in (torch.nn.Linear(n, k), torch.nn.Tanh())][:-1]
    module = torch.nn.Sequential(*parts).to(getattr(torch, kind))
    net = bp.from_torch_state(module.state_dict(), "tanh", "identity", backend="numpy")
    assert net.dtype == ("float64" if kind == "float64" else "float32")
    wide = module.to(getattr(torch, str(net.dtype)))
    with torch.no_grad():
        wanted = wide(torch.from_numpy(samples(net.dtype))).numpy()
    np.testing.assert_allclose(net.predict(samples(net.dtype)), wanted, rtol=1e-5, atol=1e-6)
    live = dict(wide.named_parameters())  # tensors that carry gradients
    assert same(net, bp.from_torch_state(live, "tanh", "identity", backend="numpy"))
