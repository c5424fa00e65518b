"""Saved models come back bit for bit; anything else in the file is refused with its path and the reason."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from bpcore.errors import BackendError, BpcoreError, ModelFileError
from bpcore.functions.activations import ACTIVATIONS, Activation
from bpcore.network import MLP
from bpcore.persistence.activation_json import activation_from_json, activation_to_json
from bpcore.persistence.model_file import load_model, save_model

META = {"classes": ["a", "ä"], "preprocessing": {"kind": "scaler", "divisor": 0.1}, "nothing": None}


def make_net(dtype: str = "float32", sizes: tuple[int, ...] = (4, 5, 3, 2), **options: Any) -> MLP:
    options = {"activation": ["tanh", "relu"], "output": "softmax", **options}
    net = MLP(sizes, seed=3, dtype=dtype, backend="numpy", **options)
    net.meta = json.loads(json.dumps(META))
    return net


def same(first: MLP, second: MLP) -> bool:
    pairs = list(zip(first.get_weights(), second.get_weights(), strict=True))
    return (
        first.sizes == second.sizes
        and first.dtype == second.dtype
        and list(first.activations) == list(second.activations)
        and first.meta == second.meta
        and all(a.tobytes() == b.tobytes() for one, other in pairs for a, b in zip(one, other, strict=True))
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(make_net(), path)
    return path


def rewrite(path: Path, change: Any = None, tensors: Any = None, *, rehash: bool = True) -> None:
    """Write the file again with a changed description or other tensors, and a checksum that fits."""
    arrays = load_file(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    description = json.loads(header["__metadata__"]["bpcore"])
    if change is not None:
        change(description)
    if tensors is not None:
        tensors(arrays)
    if rehash:
        # an independent spelling of the checksum that the module's documentation promises
        rest = {key: value for key, value in description.items() if key != "sha256"}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
        for layer in range(1, 1 + len(arrays) // 2):
            for name in (f"W{layer}", f"b{layer}"):
                digest.update(name.encode() + arrays[name].tobytes() if name in arrays else b"")
        description["sha256"] = digest.hexdigest()
    path.write_bytes(save(arrays, {"bpcore": json.dumps(description)}))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(4, 2), (4, 5, 2), (1, 1, 1, 1, 1)])
def test_round_trip(tmp_path: Path, dtype: str, sizes: tuple[int, ...]) -> None:
    net = make_net(dtype, sizes, activation="mish")
    net.W[1][0, 0] = -0.0
    path = tmp_path / "model.safetensors"
    save_model(net, path)
    assert same(load_model(path, backend="numpy"), net)


def test_another_backend_predicts_the_same(saved: Path, rng: np.random.Generator) -> None:
    X = rng.normal(size=(20, 4))
    on_numpy = load_model(saved, backend="numpy").predict(X)
    on_numba = load_model(saved, backend="numba").predict(X)
    # float32, four small layers: rounding of a few operations
    np.testing.assert_allclose(on_numba, on_numpy, rtol=0, atol=8 * float(np.finfo(np.float32).eps))


def test_the_file_can_be_read_without_bpcore(saved: Path) -> None:
    arrays = load_file(saved)
    assert sorted(arrays) == ["W1", "W2", "W3", "b1", "b2", "b3"]
    assert (arrays["W2"] == make_net().get_weights()[1][0]).all()


def test_the_methods_of_the_network_are_these_functions(tmp_path: Path) -> None:
    import bpcore as bp

    net = make_net()
    net.save(tmp_path / "m.safetensors")
    assert same(bp.load(tmp_path / "m.safetensors", backend="numpy"), net)


def test_the_first_reader_of_the_format_stays_readable(tmp_path: Path) -> None:
    """A file of format 1, byte for byte: later versions must go on reading it."""
    path = tmp_path / "old.safetensors"
    description = {
        "activations": ["sigmoid"],
        "bpcore": "0.1.0",
        "dtype": "float64",
        "format": 1,
        "meta": {"k": 1},
        "sizes": [2, 1],
    }
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    W, b = np.array([[0.5], [-2.0]]), np.array([0.25])
    digest = hashlib.sha256(text.encode() + b"W1" + W.tobytes() + b"b1" + b.tobytes()).hexdigest()
    path.write_bytes(save({"W1": W, "b1": b}, {"bpcore": json.dumps({**description, "sha256": digest})}))
    net = load_model(path, backend="numpy")
    assert net.predict([[1.0, 1.0]])[0, 0] == pytest.approx(1 / (1 + np.exp(1.25)), rel=1e-15)
    assert net.meta == {"k": 1}


OWN = Activation("bent", "(sqrt(z*z + 1) - 1) / 2 + z", range=(-np.inf, np.inf), source="me")


@pytest.mark.parametrize(
    "activation",
    [
        OWN,
        Activation("given", "z**3", derivative="3 * z**2", domain=(-10, 10), range=(-1000, 1000)),
        Activation("relu", "max(z, 0) + 0.2 * min(z, 0)"),
        Activation("steps", "where(z > 0, 1, 0)", differentiable=False),
    ],
    ids=lambda activation: activation.name,
)
def test_own_activations_travel_with_the_model(tmp_path: Path, activation: Activation) -> None:
    net = make_net("float64", (3, 4, 2), activation=activation, output="identity")
    path = tmp_path / "own.safetensors"
    save_model(net, path)
    loaded = load_model(path, backend="numpy")
    assert loaded.activations[2] == activation
    assert loaded.activations[2].source == activation.source
    X = np.linspace(-2, 2, 9).reshape(3, 3)
    assert loaded.predict(X).tolist() == net.predict(X).tolist()


def test_built_in_activations_are_stored_by_name() -> None:
    for name, activation in ACTIVATIONS.items():
        assert activation_to_json(activation) == activation.name
        assert activation_from_json(activation.name) is ACTIVATIONS[name]
    assert activation_to_json(OWN)["range"] == ["-inf", "inf"]  # type: ignore[index]


@pytest.mark.parametrize("meta", [{"a": (1, 2)}, {1: "a"}, {"a": float("nan")}, {"a": {1, 2}}, {"a": np.float32(1)}])
def test_meta_must_be_json(tmp_path: Path, meta: Any) -> None:
    net = make_net()
    net.meta = meta
    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelFileError, match=r"cannot write .*m\.safetensors: net\.meta is not plain JSON"):
        save_model(net, path)
    assert not path.exists()


def test_parameters_must_be_finite(tmp_path: Path) -> None:
    net = make_net()
    net.b[2][1] = np.nan
    with pytest.raises(ModelFileError, match=r"cannot write .*: b\[2\] of the network is not finite"):
        save_model(net, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_full_disk_keeps_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    other = make_net("float64")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ModelFileError, match=r"No space left on device; the file is unchanged"):
        save_model(other, saved)
    monkeypatch.undo()
    assert same(load_model(saved, backend="numpy"), make_net())
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_unusable_backend_is_that_error_not_a_damaged_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable(*args: Any) -> Any:
        raise BackendError("backend 'cupy' cannot run")

    monkeypatch.setattr("bpcore.network.get_backend", unusable)
    with pytest.raises(BackendError, match="cannot run"):
        load_model(saved)


def set_key(key: str, value: Any) -> Any:
    return lambda description: description.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_key("format", 2), r"has the model format 2, written by bpcore .*up to 1: pip install --upgrade"),
        (set_key("format", 0), "the format version is 0"),
        (set_key("format", True), "the format version is True"),
        (set_key("format", "1"), "the format version is '1'"),
        (lambda d: d.pop("meta"), "its description lacks meta"),
        (lambda d: (d.pop("meta"), d.pop("dtype")), "its description lacks dtype, meta"),
        (set_key("sizes", [4]), "sizes must list at least two positive integers"),
        (set_key("sizes", "many"), "sizes must list"),
        (set_key("sizes", [4, 5, 3, 2.0]), "sizes must list"),
        (set_key("sizes", [4, 5, -3, 2]), "sizes must list"),
        (set_key("sizes", [4, 5, 10**30, 2]), r"the tensor W2 has shape \[5, 3\]; its sizes need \[5, 10{30}\]"),
        (set_key("sizes", [4, 5, 2]), "3 layers need 2 activations"),
        (set_key("activations", ["tanh", "relu", "softmin"]), "unknown activation 'softmin'; known: identity"),
        (set_key("activations", ["tanh", "relu", 7]), "expected a name or a declaration, found int"),
        (set_key("activations", ["tanh", "relu", {"name": "x"}]), "its formula is not text"),
        (set_key("activations", [{**activation_to_json(OWN), "formula": "open(z)"}, "relu", "relu"]), "open"),  # type: ignore[dict-item]
        (set_key("activations", [{**activation_to_json(OWN), "range": 1}, "relu", "relu"]), "needs two bounds"),  # type: ignore[dict-item]
        (set_key("activations", [{**activation_to_json(OWN), "rowwise": "x"}, "relu", "relu"]), "rowwise is 'x'"),  # type: ignore[dict-item]
        (set_key("activations", [{**activation_to_json(OWN), "derivative": 1}, "relu", "relu"]), "derivative is not"),  # type: ignore[dict-item]
        (set_key("activations", {}), "4 layers need 3 activations"),
        (set_key("dtype", "float16"), "dtype must be float32 or float64, found 'float16'"),
        (set_key("dtype", ["float32"]), "dtype must be float32 or float64"),
        (set_key("dtype", "float64"), "the tensor W1 has dtype F32; expected float64"),
        (set_key("meta", []), "meta is not a JSON object"),
    ],
)  # fmt: skip
def test_descriptions_refused(saved: Path, change: Any, message: str) -> None:
    rewrite(saved, change)
    with pytest.raises(ModelFileError, match=rf"model\.safetensors .*{message}"):
        load_model(saved)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda t: t.pop("b2"), "the tensor b2 is missing"),
        (lambda t: t.update(W4=np.ones(2)), "it has 1 tensors that no layer needs: W4"),
        (lambda t: t.update(W1=t["W1"].T.copy()), r"the tensor W1 has shape \[5, 4\]; its sizes need \[4, 5\]"),
        (lambda t: t.update(b1=t["b1"].astype(np.float16)), "the tensor b1 has dtype F16; expected float32"),
        (lambda t: t.update(b1=t["b1"].astype(np.int32)), "the tensor b1 has dtype I32; expected float32"),
        (lambda t: t["W3"].__setitem__((0, 0), np.inf), "the tensor W3 holds numbers that are not finite"),
    ],
)
def test_tensors_refused(saved: Path, tensors: Any, message: str) -> None:
    rewrite(saved, tensors=tensors)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_rewriting_alone_changes_nothing(saved: Path) -> None:
    rewrite(saved)
    assert same(load_model(saved, backend="numpy"), make_net())


@pytest.mark.parametrize(
    "change",
    [
        {"change": lambda d: d["meta"].__setitem__("classes", ["a", "b"])},
        {"change": set_key("activations", ["tanh", "relu", "identity"])},
        {"tensors": lambda t: t["W1"].__setitem__((0, 0), 0.5)},
        {"tensors": lambda t: t.update(W2=t["W2"][::-1].copy())},
    ],
)
def test_any_change_breaks_the_checksum(saved: Path, change: Any) -> None:
    rewrite(saved, **change, rehash=False)
    with pytest.raises(ModelFileError, match="damaged or altered model file: its content does not match its checksum"):
        load_model(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, not a model file"),
        (b"\0" * 7, "is not a safetensors file, or is cut short or damaged"),
        (b"PK\x03\x04 a zip archive of some length", "is not a safetensors file"),
        (b"\x80\x04\x95 a pickle of some length ....", "is not a safetensors file"),
        ((2**62).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        (save({"weight": np.ones(3)}), "that bpcore did not write: it has no metadata, expected 'bpcore'"),
        (save({"w": np.ones(3)}, {"format": "pt"}), "metadata has the keys format, expected 'bpcore'"),
        (save({"w": np.ones(3)}, {"bpcore": "{"}), "its description is not JSON"),
        (save({"w": np.ones(3)}, {"bpcore": "[" * 50_000}), "its description is not JSON"),
        (save({"w": np.ones(3)}, {"bpcore": "[" * 100_000}), "its header is not one that can be read: 100,005 lists"),
        (save({"w": np.ones(3)}, {"bpcore": "[]"}), "its description is not a JSON object"),
    ],
)
def test_other_files_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"other\.safetensors .*{message}"):
        load_model(path)


def test_meta_with_numbers_that_are_not_json(saved: Path) -> None:
    rewrite(saved, lambda d: d["meta"].__setitem__("x", float("inf")), rehash=False)
    with pytest.raises(ModelFileError, match="its description holds numbers that are not finite"):
        load_model(saved)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model file .*none\.safetensors \(looked in"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="is a folder, not a model file"):
        load_model(tmp_path)


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """Flipped bits, replaced bytes, cut and lengthened files: an error of ours, or the very same model."""
    path = tmp_path / "m.safetensors"
    net = make_net("float32", (3, 4, 2), activation=OWN)
    save_model(net, path)
    data, rng = path.read_bytes(), np.random.default_rng(7)
    outcomes = {"refused": 0, "identical": 0}
    for trial in range(400):
        damaged = bytearray(data)
        place = int(rng.integers(len(data) if trial % 2 else 600))
        match trial % 5:
            case 0 | 1:
                damaged[place] ^= 1 << int(rng.integers(8))
            case 2:
                damaged[place] = int(rng.integers(256))
            case 3:
                del damaged[place:]
            case 4:
                damaged[place:place] = rng.bytes(int(rng.integers(1, 20)))
        path.write_bytes(damaged)
        try:
            loaded = load_model(path, backend="numpy")
        except ModelFileError as error:
            outcomes["refused"] += str(path) in str(error)
        except BpcoreError as error:  # pragma: no cover - the failure that this test looks for
            pytest.fail(f"{type(error).__name__} instead of ModelFileError: {error}")
        else:
            assert same(loaded, net)
            outcomes["identical"] += 1
    assert outcomes["refused"] > 300
