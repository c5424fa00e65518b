"""State dictionaries of PyTorch, without PyTorch: names mapped to arrays, weights transposed.

``nn.Linear`` holds its weight as (outputs, inputs). In ``nn.Sequential(Linear, ReLU, Linear, Softmax)`` the linear
layers are the modules 0 and 2, hence ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.data.arrays import host_array
from bpcore.errors import ConfigurationError, ModelFileError, ShapeError
from bpcore.functions.activations import ACTIVATIONS, Activation
from bpcore.persistence.activation_json import activation_from_json, activation_to_json
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.persistence.knowledge import Knowledge
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.backends.contract import Backend
    from bpcore.network import MLP

__all__ = ["MODULES", "export_torch", "from_torch_state", "to_torch_state", "torch_modules"]

MODULES = {
    "identity": "nn.Identity()",
    "sigmoid": "nn.Sigmoid()",
    "tanh": "nn.Tanh()",
    "relu": "nn.ReLU()",
    "leaky_relu": "nn.LeakyReLU(0.01)",
    "elu": "nn.ELU()",
    "selu": "nn.SELU()",
    "gelu": "nn.GELU()",
    "gelu_tanh": 'nn.GELU("tanh")',
    "silu": "nn.SiLU()",
    "softplus": "nn.Softplus()",
    "mish": "nn.Mish()",
    "hard_sigmoid": "nn.Hardsigmoid()",
    "hard_tanh": "nn.Hardtanh()",
    "softmax": "nn.Softmax(dim=1)",
    "log_softmax": "nn.LogSoftmax(dim=1)",
}
"""The module of PyTorch for each activation that it has."""

KEY = "bpcore_state"
"""Metadata of a safetensors file that :func:`export_torch` writes."""


def torch_modules(net: MLP) -> str | None:
    """Return the source of the module that takes the state of a network; None if PyTorch lacks an activation.

    Examples
    --------
    >>> from bpcore.network import MLP
    >>> torch_modules(MLP([4, 8, 3], seed=0, backend="numpy"))
    'nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))'
    """
    parts = []
    for (n_in, n_out), activation in zip(pairwise(net.sizes), net.activations, strict=True):
        if ACTIVATIONS.get(activation.name) != activation or activation.name not in MODULES:
            return None
        parts += [f"nn.Linear({n_in}, {n_out})", MODULES[activation.name]]
    return f"nn.Sequential({', '.join(parts)})"


def to_torch_state(net: MLP, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the parameters as a PyTorch state dictionary of NumPy arrays.

    Parameters
    ----------
    net : MLP
        The network; its parameters are copied to the host.
    names : sequence of str, optional
        What the linear layers are called, first to last. By default ``"0"``, ``"2"``, ``"4"``, ... as in an
        ``nn.Sequential`` of a linear layer and an activation in turn.

    Returns
    -------
    dict of str to ndarray
        ``NAME.weight`` of shape (n_{l+1}, n_l) and ``NAME.bias`` of shape (n_{l+1},), in the network's dtype.

    Raises
    ------
    ConfigurationError
        If there are not as many names as layers, or one occurs twice.

    Examples
    --------
    >>> from bpcore.network import MLP
    >>> state = to_torch_state(MLP([4, 8, 3], seed=0, backend="numpy"))
    >>> {name: array.shape for name, array in state.items()}
    {'0.weight': (8, 4), '0.bias': (8,), '2.weight': (3, 8), '2.bias': (3,)}
    """
    layers = _layer_names(net, names)
    state = {}
    for name, (W, b) in zip(layers, net.get_weights(), strict=True):
        state[_key(name, "weight")], state[_key(name, "bias")] = np.ascontiguousarray(W.T), b
    return state


def export_torch(net: MLP, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
    """Write the parameters as a PyTorch state dictionary in a safetensors file.

    ``model.load_state_dict(safetensors.torch.load_file(path))`` reads it. The metadata holds the source of a module
    that fits (``module``), and, for :func:`from_torch_state`, the order of the layers, the activations and
    ``net.meta``. Preprocessing is there only: PyTorch gets the numbers as the network does, after it.

    Parameters
    ----------
    net : MLP
        The network.
    path : str or PathLike
        The file, usually ``*.safetensors``; replaced in one step.
    names : sequence of str, optional
        As for :func:`to_torch_state`.

    Raises
    ------
    ConfigurationError
        As :func:`to_torch_state`.
    ModelFileError
        If ``net.meta`` is not plain JSON, or the file cannot be written.
    """
    from safetensors.numpy import save

    check_writable(path)
    layers = _layer_names(net, names)
    description = {
        "layers": layers,
        "activations": [activation_to_json(activation) for activation in net.activations],
        "meta": net.meta,
    }
    try:
        metadata = {KEY: json.dumps(description, allow_nan=False)}
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"cannot write {os.fspath(path)}: net.meta is not plain JSON: {error}") from error
    module = torch_modules(net)
    if module is not None and names is None:
        metadata["module"] = module
    write_atomically(path, save(to_torch_state(net, layers), metadata))


def from_torch_state(
    state: Mapping[str, Any] | str | os.PathLike[str],
    activation: str | Activation | Sequence[str | Activation] | None = None,
    output: str | Activation | None = None,
    *,
    names: Sequence[str] | None = None,
    dtype: Any = None,
    backend: str | Backend | None = None,
) -> MLP:
    """Build a network from a PyTorch state dictionary of linear layers.

    Parameters
    ----------
    state : mapping of str to array, or str or PathLike
        What ``state_dict()`` returns (tensors or arrays; PyTorch itself is not needed), or a safetensors file of it.
    activation, output
        As for :class:`bpcore.MLP`. A state dictionary does not hold them, so they must be given, except for a file that
        :func:`export_torch` wrote.
    names : sequence of str, optional
        The linear layers, first to last. By default the order of the mapping; in a file, whose tensors have no order,
        that of the numbers in the names.
    dtype : dtype, optional
        Of the network; by default that of the arrays, float32 for 16 bits.
    backend : str or Backend, optional
        As for :class:`bpcore.MLP`.

    Returns
    -------
    MLP
        With the parameters of the state; a layer without bias gets zeros.

    Raises
    ------
    ConfigurationError
        If activations are missing, the order cannot be told, or the state holds something else than linear layers.
    ShapeError
        If the shapes do not fit each other.
    DataError
        If a number is not finite.
    ModelFileError
        If the file cannot be read, or is not a safetensors file.

    Examples
    --------
    >>> state = {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3), "2.weight": np.ones((1, 3)), "2.bias": np.ones(1)}
    >>> net = from_torch_state(state, "tanh", "sigmoid", backend="numpy")
    >>> net.sizes, net.W[1].shape, str(net.dtype)
    ((2, 3, 1), (2, 3), 'float64')
    """
    from bpcore.network import MLP

    description: dict[str, Any] = {}
    if isinstance(state, str | os.PathLike):
        state, description = _read(os.fspath(state))
        names = names or description.get("layers") or _by_number(_prefixes(state))
    if not isinstance(state, Mapping):
        raise ConfigurationError(
            f"a state dictionary maps names to arrays; got {type(state).__name__}. For a module use module.state_dict()"
        )
    layers = list(_prefixes(state) if names is None else names)
    if not layers:
        raise ConfigurationError("names is empty; list the linear layers, first to last")
    weights = _linear_layers(state, layers)
    activations = _activations(description, len(layers), activation, output)
    if dtype is None:
        wide = any(W.dtype == np.float64 for W, _ in weights)
        dtype = np.float64 if wide else np.float32
    sizes = [weights[0][0].shape[0], *(W.shape[1] for W, _ in weights)]
    net = MLP(sizes, activations[:-1], activations[-1], init="zeros", seed=0, dtype=dtype, backend=backend)
    net.set_weights(weights)
    if isinstance(description.get("meta"), dict):
        net.meta = description["meta"]
        Knowledge(net)  # notes from a file are not believed
    return net


def _layer_names(net: MLP, names: Sequence[str] | None) -> list[str]:
    steps = net.n_layers - 1
    layers = [str(2 * i) for i in range(steps)] if names is None else [str(name) for name in names]
    if len(layers) != steps or len(set(layers)) != steps or isinstance(names, str):
        raise ConfigurationError(
            f"names must list {steps} different names, one for each linear layer of a network of sizes "
            f"{list(net.sizes)}; got {names!r}"
        )
    return layers


def _key(layer: str, part: str) -> str:
    """Return the name of a tensor; the state of a linear layer alone has names without a dot."""
    return f"{layer}.{part}" if layer else part


def _prefixes(state: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers in the order in which they appear."""
    found: dict[str, None] = {}
    for key in state:
        prefix, _, last = str(key).rpartition(".")
        if last not in ("weight", "bias"):
            raise ConfigurationError(
                f"the state holds {str(key)!r:.80}; expected NAME.weight and NAME.bias of linear layers only. Give a "
                "part of it: {name: array for name, array in state.items() if ...}, or names="
            )
        found[prefix] = None
    if not found:
        raise ConfigurationError("the state is empty; expected NAME.weight and NAME.bias of linear layers")
    return list(found)


def _by_number(prefixes: list[str]) -> list[str]:
    """Sort names that differ in one number by it; a file keeps no order."""
    if len(prefixes) == 1:
        return prefixes
    parts = [re.split(r"([0-9]+)", prefix) for prefix in prefixes]
    if len({len(part) for part in parts}) == 1:
        differ = [i for i, texts in enumerate(zip(*parts, strict=True)) if len(set(texts)) > 1]
        if len(differ) == 1 and differ[0] % 2 == 1:  # re.split puts the numbers at odd places
            numbers = [int(part[differ[0]]) for part in parts]
            if len(set(numbers)) == len(numbers):
                return [prefix for _, prefix in sorted(zip(numbers, prefixes, strict=True))]
    raise ConfigurationError(
        f"the order of the layers cannot be told from their names, {', '.join(sorted(prefixes))}; "
        "list them with names=, first to last"
    )


def _linear_layers(state: Mapping[str, Any], layers: Iterable[str]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return (W, b) of each layer in the shapes of bpcore."""
    weights: list[tuple[NDArray[Any], NDArray[Any]]] = []
    before = ""
    for name in layers:
        key, bias = _key(name, "weight"), _key(name, "bias")
        if key not in state:
            raise ConfigurationError(f"the state has no {key!r}; it has {', '.join(map(str, list(state)[:12]))}")
        W = _array(state[key], key)
        if W.ndim != 2 or 0 in W.shape:
            raise ShapeError(
                f"{key} has shape {W.shape}; the weight of a linear layer has two axes, (outputs, inputs). Only linear "
                "layers can become an MLP; fold normalisations into them, and leave out embeddings and convolutions"
            )
        b = _array(state[bias], bias) if bias in state else np.zeros(W.shape[0], W.dtype)
        if b.shape != W.shape[:1]:
            raise ShapeError(f"{bias} has shape {b.shape}, but {key} has {W.shape[0]} outputs")
        if weights and weights[-1][0].shape[1] != W.shape[1]:
            raise ShapeError(
                f"{key} takes {W.shape[1]} inputs, but {before} before it has {weights[-1][0].shape[1]} outputs; "
                "give the layers in their order with names="
            )
        weights.append((W.T, b))
        before = key
    return weights


def _array(value: Any, name: str) -> NDArray[Any]:
    """Return a tensor or array as a NumPy array; the methods are those of a tensor, PyTorch is not imported."""
    for method in ("detach", "cpu"):
        value = getattr(value, method, lambda value=value: value)()
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # NumPy has no such dtype
        value = value.float()
    return host_array(value, name=name)


def _activations(
    description: dict[str, Any], steps: int, activation: Any, output: str | Activation | None
) -> list[str | Activation]:
    """Return the activations of the layers 2 ... L: as asked for, else as the file says."""
    told: list[Any] = []
    if "activations" in description:
        try:
            told = [activation_from_json(item) for item in description["activations"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ModelFileError(f"the file names an activation that cannot be rebuilt: {error}") from error
        told = told if len(told) == steps else []
    if activation is None and steps > 1 and not told:
        raise ConfigurationError(
            "a state dictionary does not hold the activations: give activation= for the hidden layers, and output="
        )
    if output is None and not told:
        raise ConfigurationError("a state dictionary does not hold the activations: give output= for the last layer")
    hidden = told[:-1] if activation is None else activation
    if not isinstance(hidden, list | tuple):
        hidden = [hidden] * (steps - 1)
    return [*hidden, told[-1] if output is None else output]


def _read(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a safetensors file: its tensors, and what :func:`export_torch` noted."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise ModelFileError(f"there is no file {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if "bpcore" in metadata:
                raise ConfigurationError(f"{path} is a model file of bpcore, not a PyTorch state: use bpcore.load")
            state = {name: _from_bytes(file, name) for name in file.keys()}
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is not a safetensors file, or is cut short or damaged ({error}). Files of torch.save are pickles, "
            "which can run code and are not read; in a place where you trust the file, write "
            "safetensors.torch.save_file(model.state_dict(), 'state.safetensors')"
        ) from error
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        description = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the metadata {KEY!r} is not JSON ({error})") from error
    names = description.get("layers") if isinstance(description, dict) else None
    if not isinstance(description, dict) or not isinstance(names, list | None):
        raise ModelFileError(f"{path}: the metadata {KEY!r} is not what bpcore writes")
    return state, description


def _from_bytes(file: Any, name: str) -> NDArray[Any]:
    """Return a tensor of a file; bfloat16, which NumPy does not have, becomes float32."""
    part = file.get_slice(name)
    if part.get_dtype() != "BF16":
        return np.asarray(file.get_tensor(name))
    raise ConfigurationError(
        f"{name} is bfloat16, which NumPy cannot read; write the state as float32: "
        "{name: tensor.float() for name, tensor in model.state_dict().items()}"
    )
