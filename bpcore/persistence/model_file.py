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

import hashlib
import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore._version import __version__
from bpcore.errors import FormulaError, ModelFileError
from bpcore.persistence.activation_json import activation_from_json, activation_to_json
from bpcore.persistence.atomic import write_atomically
from bpcore.typing import NDArray

if TYPE_CHECKING:
    from bpcore.backends.contract import Backend
    from bpcore.network import MLP

__all__ = ["FORMAT", "load_model", "model_description", "save_model"]

FORMAT = 1
DTYPES = {"F32": "float32", "F64": "float64"}
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
    >>> from bpcore.network import MLP
    >>> net = MLP([4, 3, 2], seed=0, backend="numpy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(net, Path(folder, "model.safetensors"))
    ...     twin = load_model(Path(folder, "model.safetensors"), backend="numpy")
    >>> bool((twin.theta == net.theta).all())
    True
    """
    from safetensors.numpy import save

    shown = os.fspath(path)
    tensors: dict[str, NDArray[Any]] = {}
    for layer, (W, b) in enumerate(net.get_weights(), start=1):
        tensors[f"W{layer}"], tensors[f"b{layer}"] = W, b
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(
                f"cannot write {shown}: {name[0]}[{name[1:]}] of the network is not finite; "
                "save the last good parameters instead"
            )
    description: dict[str, Any] = {
        "format": FORMAT,
        "bpcore": __version__,
        "sizes": list(net.sizes),
        "activations": [activation_to_json(net.activations[layer]) for layer in net.activations.layers],
        "dtype": str(net.dtype),
        "meta": net.meta,
    }
    try:
        text = _canonical_json(description)
        if json.loads(text) != description:
            raise TypeError("a value changes on the way through JSON (keys must be text, lists not tuples)")
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"cannot write {shown}: net.meta is not plain JSON: {error}; "
            "use dict, list, str, finite numbers, bool and None"
        ) from error
    description["sha256"] = _fingerprint(text, tensors)
    write_atomically(path, save(tensors, {"bpcore": _canonical_json(description)}))


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
    from bpcore.network import MLP

    shown = os.fspath(path)
    description, tensors = _read(shown)
    try:
        activations = [activation_from_json(item) for item in description["activations"]]
    except (FormulaError, ValueError, TypeError, KeyError) as error:
        raise _damaged(shown, f"an activation cannot be rebuilt: {error}") from error
    net = MLP(
        description["sizes"],
        activation=activations[:-1],
        output=activations[-1],
        init="zeros",
        seed=0,
        dtype=description["dtype"],
        backend=backend,
    )
    net.set_weights([(tensors[f"W{layer}"], tensors[f"b{layer}"]) for layer in range(1, net.n_layers)])
    net.meta = description["meta"]
    return net


def model_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a model file says of itself: the JSON of the table above, checked like the whole file.

    Raises
    ------
    ModelFileError
        As :func:`load_model`.
    """
    return _read(os.fspath(path))[0]


def _read(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read and check everything that can be checked without building the network."""
    from safetensors import SafetensorError, safe_open

    if not os.path.exists(path):
        raise ModelFileError(f"there is no model file {path} (looked in {Path(path).absolute().parent})")
    if os.path.isdir(path):
        raise ModelFileError(f"{path} is a folder, not a model file")
    if os.path.getsize(path) == 0:
        raise ModelFileError(f"{path} is empty, not a model file; save the model again")
    try:
        with safe_open(path, framework="np") as file:
            description = _description(path, file.metadata())
            expected = _expected_shapes(description["sizes"])
            _check_tensors(path, file, expected, description["dtype"])
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is not a safetensors file, or is cut short or damaged ({error}); "
            "bpcore reads the files that net.save(path) writes"
        ) from error
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    _check_content(path, description, tensors)
    return description, tensors


def _description(path: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Parse the JSON of the metadata and check the type of every entry."""
    if not metadata or "bpcore" not in metadata:
        found = f"its metadata has the keys {', '.join(sorted(metadata))}" if metadata else "it has no metadata"
        raise ModelFileError(
            f"{path} is a safetensors file that bpcore did not write: {found}, expected 'bpcore'. "
            "To use its tensors, read them with the safetensors package and call net.set_weights"
        )
    try:
        description = json.loads(metadata["bpcore"])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its description is not JSON ({error})") from error
    if not isinstance(description, dict):
        raise _damaged(path, "its description is not a JSON object")
    version = description.get("format")
    if type(version) is not int or version < 1:
        raise _damaged(path, f"the format version is {version!r}")
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has the model format {version}, written by bpcore {description.get('bpcore')}; "
            f"this is bpcore {__version__}, which reads formats up to {FORMAT}: pip install --upgrade bpcore"
        )
    absent = [key for key in FIELDS if key not in description]
    if absent:
        raise _damaged(path, f"its description lacks {', '.join(absent)}")
    sizes, activations = description["sizes"], description["activations"]
    if not isinstance(sizes, list) or len(sizes) < 2 or any(type(n) is not int or n < 1 for n in sizes):
        raise _damaged(path, f"sizes must list at least two positive integers, found {str(sizes)[:80]}")
    if not isinstance(activations, list) or len(activations) != len(sizes) - 1:
        raise _damaged(path, f"{len(sizes)} layers need {len(sizes) - 1} activations, found {activations!r:.80}")
    if description["dtype"] not in DTYPES.values():
        raise _damaged(path, f"dtype must be float32 or float64, found {description['dtype']!r}")
    if not isinstance(description["meta"], dict):
        raise _damaged(path, "meta is not a JSON object")
    return description


def _expected_shapes(sizes: list[int]) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        shapes[f"W{layer}"], shapes[f"b{layer}"] = [n_in, n_out], [n_out]
    return shapes


def _check_tensors(path: str, file: Any, expected: dict[str, list[int]], dtype: str) -> None:
    """Compare names, shapes and dtypes in the file's header with the description; reads no tensor."""
    found = set(file.keys())
    for name in expected:
        if name not in found:
            raise _damaged(path, f"the tensor {name} is missing")
    extra = sorted(found - set(expected))
    if extra:
        raise _damaged(path, f"it has {len(extra)} tensors that no layer needs: {', '.join(extra[:5])}")
    for name, shape in expected.items():
        part = file.get_slice(name)
        if part.get_shape() != shape:
            raise _damaged(path, f"the tensor {name} has shape {part.get_shape()}; its sizes need {shape}")
        if DTYPES.get(part.get_dtype()) != dtype:
            raise _damaged(path, f"the tensor {name} has dtype {part.get_dtype()}; expected {dtype}")


def _check_content(path: str, description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    """Compare the fingerprint, and refuse numbers that are not finite."""
    rest = {key: value for key, value in description.items() if key != "sha256"}
    try:
        found = _fingerprint(_canonical_json(rest), tensors)
    except ValueError as error:  # NaN and infinity are not JSON, though Python reads them
        raise _damaged(path, f"its description holds numbers that are not finite ({error})") from error
    if description["sha256"] != found:
        raise _damaged(path, "its content does not match its checksum")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise _damaged(path, f"the tensor {name} holds numbers that are not finite")


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _fingerprint(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the description without its hash and of the tensors in order, as little-endian bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _damaged(path: str, what: str) -> ModelFileError:
    return ModelFileError(f"{path} is a damaged or altered model file: {what}; restore it from a copy, or train again")
