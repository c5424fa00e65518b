"""State dictionaries of PyTorch become networks; see :mod:`bpcore.exchange.torch_state`.

Whatever is in a state comes from outside: names, order, shapes and notes are checked, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.data.arrays import host_array
from bpcore.errors import ConfigurationError, ModelFileError, ShapeError
from bpcore.exchange.torch_state import KEY, tensor_name
from bpcore.functions.activations import Activation
from bpcore.persistence.activation_json import activation_from_json
from bpcore.persistence.knowledge import Knowledge
from bpcore.persistence.tensor_file import check_header
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.backends.contract import Backend
    from bpcore.network import MLP

__all__ = ["from_torch_state"]


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
        :func:`bpcore.export_torch` wrote.
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
        key, bias = tensor_name(name, "weight"), tensor_name(name, "bias")
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
    """Read a safetensors file: its tensors, and what :func:`bpcore.export_torch` noted."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise ModelFileError(f"there is no file {path}")
    try:
        check_header(path)
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
