"""Saving and loading networks: one safetensors file that needs no code of its own to be read.

The tensors are ``W1``, ``b1``, ``W2``, ``b2``, ... in the network's dtype. The metadata has one key,
``bpcore``, whose text is JSON:

===============  ========================================================================================
key              content
===============  ========================================================================================
format           version of this layout (an integer)
bpcore           version of bpcore that wrote the file
sizes            widths of the layers, from the input to the output
activations      for the layers 2 ... L: the name of a built-in activation, or the declaration of another
                 (see :mod:`bpcore.persistence.activation_json`)
dtype            ``float32`` or ``float64``
meta             the free notes ``net.meta``: classes, feature names, preprocessing, ...
sha256           hash of all of the above and of the tensors
===============  ========================================================================================

A file is data, never code: no pickle, and formulas go through the parser of the formula language.
Nothing is believed on loading, and nothing is allocated before its size has been checked against the file's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore._version import __version__
from bpcore.errors import FormulaError, ModelFileError
from bpcore.persistence.activation_json import activation_from_json, activation_to_json
from bpcore.persistence.tensor_file import Expected, damaged, read_tensors, write_tensors
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.backends.contract import Backend
    from bpcore.network import MLP

__all__ = ["FORMAT", "load_model", "model_description", "read_description", "save_model"]

FORMAT = 1
CHECKPOINT = "checkpoint"
"""Entry of the description that a model file does not have."""
FIELDS = ("format", "bpcore", "sizes", "activations", "dtype", "meta", "sha256")


def save_model(net: MLP, path: str | os.PathLike[str]) -> None:
    """Write a network to a file, replacing an existing one in one step.

    Parameters
    ----------
    net : MLP
        The network; its parameters are copied to the host. Not modified.
    path : str or PathLike
        The file, usually ``*.safetensors``; its folder must exist.

    Raises
    ------
    ModelFileError
        If ``net.meta`` is not JSON, a parameter is not finite, or the file cannot be written; an existing
        file is unchanged then.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bpcore.network import MLP
    >>> net = MLP([4, 3, 2], seed=0, backend="numpy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(net, Path(folder, "model.safetensors"))
    ...     twin = load_model(Path(folder, "model.safetensors"), backend="numpy")
    >>> bool((twin.theta == net.theta).all())
    True
    """
    tensors = model_tensors(net, path)
    write_tensors(path, model_description(net), tensors, what="net.meta")


def model_tensors(net: MLP, path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Copy the parameters of a network to the host, by their names in a file; the path is for messages.

    Raises
    ------
    ModelFileError
        If a parameter is not finite.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for layer, (W, b) in enumerate(net.get_weights(), start=1):
        tensors[f"W{layer}"], tensors[f"b{layer}"] = W, b
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(
                f"cannot write {os.fspath(path)}: {name[0]}[{name[1:]}] of the network is not finite; "
                "save the last good parameters instead"
            )
    return tensors


def model_description(net: MLP) -> dict[str, Any]:
    """Describe a network for a file; see the module."""
    return {
        "format": FORMAT,
        "bpcore": __version__,
        "sizes": list(net.sizes),
        "activations": [activation_to_json(net.activations[layer]) for layer in net.activations.layers],
        "dtype": str(net.dtype),
        "meta": net.meta,
    }


def load_model(path: str | os.PathLike[str], backend: str | Backend | None = None) -> MLP:
    """Read a network that :func:`save_model` wrote; any backend can load what any other has trained.

    Parameters
    ----------
    path : str or PathLike
        The file.
    backend : str or Backend, optional
        Backend of the network, as for :class:`~bpcore.network.MLP`.

    Returns
    -------
    MLP
        With the parameters bit for bit as they were saved, and ``meta``.

    Raises
    ------
    ModelFileError
        If there is no such file, or it is not a model of bpcore, has a newer format, or is damaged.
    BackendError
        If the named backend cannot run here.
    """
    path = newest_of_folder(path)
    description, tensors = read_tensors(path, expected_tensors)
    return make_network(os.fspath(path), description, tensors, backend)


def newest_of_folder(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the newest whole checkpoint of a folder that holds checkpoints, and every other path as it is."""
    if not os.path.isdir(path):
        return path
    from bpcore.persistence.checkpoint import checkpoint_files
    from bpcore.persistence.checkpoint_folder import newest_usable

    return newest_usable(path).path if checkpoint_files(path) else path


def make_network(
    path: str, description: dict[str, Any], tensors: Mapping[str, NDArray[Any]], backend: str | Backend | None
) -> MLP:
    """Build the network of a file that was read.

    Raises
    ------
    ModelFileError
        If a parameter is not finite, or an activation cannot be rebuilt.
    BackendError
        If the named backend cannot run here.
    """
    from bpcore.network import MLP

    weights = parameters_of(path, description["sizes"], tensors)
    try:
        activations = [activation_from_json(item) for item in description["activations"]]
    except (FormulaError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise damaged(path, f"an activation cannot be rebuilt: {error!s:.300}") from error
    net = MLP(
        description["sizes"],
        activation=activations[:-1],
        output=activations[-1],
        init="zeros",
        seed=0,
        dtype=description["dtype"],
        backend=backend,
    )
    net.set_weights(weights)
    net.meta = description["meta"]
    return net


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a model file says of itself: the JSON of the table above, checked like the whole file.

    Raises
    ------
    ModelFileError
        As :func:`load_model`.
    """
    return read_tensors(newest_of_folder(path), expected_tensors)[0]


def parameters_of(
    path: str, sizes: Sequence[int], tensors: Mapping[str, NDArray[Any]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs (W, b) of the layers 1 ... L-1 of a file that was read.

    Raises
    ------
    ModelFileError
        If a number is not finite.
    """
    names = [(f"W{layer}", f"b{layer}") for layer in range(1, len(sizes))]
    for name in (name for pair in names for name in pair):
        if not np.isfinite(tensors[name]).all():
            raise damaged(path, f"the tensor {name} holds numbers that are not finite")
    return [(tensors[W], tensors[b]) for W, b in names]


def expected_tensors(path: str, description: dict[str, Any]) -> Expected:
    """Check the type of every entry of a description, and return which tensors there must be.

    Raises
    ------
    ModelFileError
        If an entry is missing or something else than it should be.
    """
    version = description.get("format")
    if type(version) is not int or version < 1:
        raise damaged(path, f"the format version is {version!r:.80}")
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has the model format {version!r:.80}, written by bpcore {description.get('bpcore')!s:.80}; "
            f"this is bpcore {__version__}, which reads formats up to {FORMAT}: pip install --upgrade bpcore"
        )
    absent = [key for key in FIELDS if key not in description]
    if absent:
        raise damaged(path, f"its description lacks {', '.join(absent)}")
    sizes, activations = description["sizes"], description["activations"]
    if not isinstance(sizes, list) or len(sizes) < 2 or any(type(n) is not int or n < 1 for n in sizes):
        raise damaged(path, f"sizes must list at least two positive integers, found {sizes!s:.80}")
    if not isinstance(activations, list) or len(activations) != len(sizes) - 1:
        raise damaged(path, f"{len(sizes)} layers need {len(sizes) - 1} activations, found {activations!r:.80}")
    dtype = description["dtype"]
    if dtype not in ("float32", "float64"):
        raise damaged(path, f"dtype must be float32 or float64, found {dtype!r:.80}")
    if not isinstance(description["meta"], dict):
        raise damaged(path, "meta is not a JSON object")
    expected: Expected = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        expected[f"W{layer}"], expected[f"b{layer}"] = (dtype, [n_in, n_out]), (dtype, [n_out])
    if CHECKPOINT in description:
        from bpcore.persistence.checkpoint_file import expected_of_moment

        expected |= expected_of_moment(path, description)
    return expected
