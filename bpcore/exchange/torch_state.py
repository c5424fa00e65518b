"""State dictionaries of PyTorch, without PyTorch: names mapped to arrays, weights transposed.

``nn.Linear`` holds its weight as (outputs, inputs). In ``nn.Sequential(Linear, ReLU, Linear, Softmax)`` the linear
layers are the modules 0 and 2, hence ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.errors import ConfigurationError, ModelFileError
from bpcore.functions.activations import ACTIVATIONS
from bpcore.persistence.activation_json import activation_to_json
from bpcore.persistence.atomic import check_writable, write_atomically
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = ["KEY", "MODULES", "export_torch", "tensor_name", "to_torch_state", "torch_modules"]

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
        state[tensor_name(name, "weight")], state[tensor_name(name, "bias")] = np.ascontiguousarray(W.T), b
    return state


def export_torch(net: MLP, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> None:
    """Write the parameters as a PyTorch state dictionary in a safetensors file.

    ``model.load_state_dict(safetensors.torch.load_file(path))`` reads it. The metadata holds the source of a module
    that fits (``module``), and, for :func:`bpcore.from_torch_state`, the order of the layers, the activations and
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


def _layer_names(net: MLP, names: Sequence[str] | None) -> list[str]:
    steps = net.n_layers - 1
    layers = [str(2 * i) for i in range(steps)] if names is None else [str(name) for name in names]
    if len(layers) != steps or len(set(layers)) != steps or isinstance(names, str):
        raise ConfigurationError(
            f"names must list {steps} different names, one for each linear layer of a network of sizes "
            f"{list(net.sizes)}; got {names!r}"
        )
    return layers


def tensor_name(layer: str, part: str) -> str:
    """Return the name of a tensor; the state of a linear layer alone has names without a dot."""
    return f"{layer}.{part}" if layer else part
