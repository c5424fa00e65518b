"""The container of models and checkpoints: tensors, a description of them in JSON, and a checksum over both.

It is a safetensors file whose metadata has the one key ``bpcore``; the text there is the description, a JSON object
with the entry ``sha256``. Nothing is believed on reading, and nothing is allocated before its size has been checked:

- a header that is longer than 16 MiB, or has more than 65,536 lists and objects, is refused before it is parsed;
- the safetensors library reads it, and refuses shapes that do not fill the file exactly;
- JSON becomes many times as long in Python (a list ``[1]`` of three characters takes some eighty bytes), so the
  description is parsed only if what becomes of it fits in 64 MiB: a sum over its commas, colons and brackets tells
  beforehand;
- names, dtypes and shapes are compared with what the description needs before a tensor is read.

Whatever a file holds, reading it therefore takes at most some 128 MiB beside its tensors. Writing keeps to the same
limits, so that no file is written that could not be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.data.safetensors_files import header_of, too_long
from bpcore.errors import ModelFileError
from bpcore.persistence.atomic import write_atomically
from bpcore.typing import NDArray

__all__ = ["DTYPES", "Expected", "canonical_json", "check_header", "damaged", "read_tensors", "write_tensors"]

KEY = "bpcore"
DTYPES = {"F32": "float32", "F64": "float64", "BOOL": "bool"}
"""Names of dtypes in safetensors files, and NumPy's."""

MOST_MEMORY = 2**26
"""Bytes that a description may take while it is parsed and checked."""
BYTES_OF_A_CHARACTER, BYTES_OF_A_VALUE = 6, 100
"""What they take at most, measured: a text with a sign outside of the basic plane takes four bytes for each character,
beside the JSON it comes from; of an object with short keys, a key and its number are two values."""

Expected = dict[str, tuple[str, list[int]]]
"""Dtype and shape by name, in the order in which the checksum takes them."""


def write_tensors(
    path: str | os.PathLike[str],
    description: dict[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    *,
    what: str = "the description",
    temporary: str = "bpcore",
) -> int:
    """Write tensors and what describes them, replacing an existing file in one step.

    Parameters
    ----------
    path : str or PathLike
        The file; its folder must exist.
    description : dict
        Plain JSON, without ``sha256``.
    tensors : mapping of str to ndarray
        In the order of the checksum.
    what : str
        What a message calls a description that is not plain JSON.
    temporary : str
        As for :func:`~bpcore.persistence.atomic.write_atomically`.

    Returns
    -------
    int
        Length of the file in bytes.

    Raises
    ------
    ModelFileError
        If the description is not JSON, or the file cannot be written; an existing file is unchanged then.
    """
    from safetensors.numpy import save

    text = checked_json(description, f"cannot write {os.fspath(path)}: {what}")
    whole = {**description, "sha256": _fingerprint(text, tensors)}
    data = save(dict(tensors), {KEY: canonical_json(whole)})
    reason = too_long(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if reason:
        raise ModelFileError(f"cannot write {os.fspath(path)}: {what} is too long to be read back: {reason}")
    write_atomically(path, data, temporary=temporary)
    return len(data)


def checked_json(description: dict[str, Any], what: str) -> str:
    """Return the text of a description; `what` begins the message if it cannot be read back as it is.

    Raises
    ------
    ModelFileError
        If it is not plain JSON, or longer than a reader would accept.
    """
    try:
        text = canonical_json(description)
        if json.loads(text) != description:
            raise TypeError("a value changes on the way through JSON (keys must be text, lists not tuples)")
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{what} is not plain JSON: {error}; use dict, list, str, finite numbers, bool and None"
        ) from error
    reason = too_long(text.encode("ascii")) or _too_much(text)
    if reason:
        raise ModelFileError(f"{what} is too long to be read back: {reason}")
    return text


def read_tensors(
    path: str | os.PathLike[str], expected_of: Callable[[str, dict[str, Any]], Expected]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read and check a file that :func:`write_tensors` wrote.

    Parameters
    ----------
    path : str or PathLike
        The file.
    expected_of : callable
        Checks a description, given the path for messages, and returns which tensors there must be.

    Returns
    -------
    description : dict
        As it was given, and ``sha256``.
    tensors : dict of str to ndarray
        In the order of what was expected.

    Raises
    ------
    ModelFileError
        If there is no such file, it is something else, or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shown = os.fspath(path)
    _check_path(shown)
    try:
        check_header(shown)
        with safe_open(shown, framework="np") as file:
            description = _description(shown, file.metadata())
            expected = expected_of(shown, description)
            _check_tensors(shown, file, expected)
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ModelFileError(
            f"{shown} is not a safetensors file, or is cut short or damaged ({error!s:.200}); "
            "bpcore reads the files that net.save(path) writes, and checkpoints"
        ) from error
    except OSError as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"cannot read {shown}: {error.strerror or error}") from error
    rest = {key: value for key, value in description.items() if key != "sha256"}
    try:
        found = _fingerprint(canonical_json(rest), tensors)
    except (ValueError, RecursionError) as error:  # NaN and infinity are not JSON, though Python reads them
        raise damaged(shown, f"its description holds numbers that are not finite ({error})") from error
    if description["sha256"] != found:
        raise damaged(shown, "its content does not match its checksum")
    return description, tensors


def canonical_json(value: Any) -> str:
    """Write JSON in the one form that the checksum is made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def damaged(path: str, what: str) -> ModelFileError:
    """Build the error for a file that is not as it was written."""
    return ModelFileError(f"{path} is a damaged or altered model file: {what}; restore it from a copy, or train again")


def _check_path(path: str) -> None:
    if not os.path.exists(path):
        raise ModelFileError(f"there is no model file {path} (looked in {Path(path).absolute().parent})")
    if os.path.isdir(path):
        raise ModelFileError(f"{path} is a folder, not a model file")
    if not os.path.isfile(path):
        raise ModelFileError(f"{path} is a device or a pipe, not a model file")
    if os.path.getsize(path) == 0:
        raise ModelFileError(f"{path} is empty, not a model file; save the model again")


def _description(path: str, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """Parse the JSON of the metadata."""
    if not metadata or KEY not in metadata:
        found = f"its metadata has the keys {', '.join(sorted(metadata)):.200}" if metadata else "it has no metadata"
        raise ModelFileError(
            f"{path} is a safetensors file that bpcore did not write: {found}, expected '{KEY}'. "
            "To use its tensors, read them with the safetensors package and call net.set_weights"
        )
    text = metadata[KEY]
    reason = _too_much(text)
    if reason:
        raise damaged(path, f"its description is not JSON that can be read: {reason}")
    try:
        description = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its description is not JSON ({error!s:.200})") from error
    if not isinstance(description, dict):
        raise damaged(path, "its description is not a JSON object")
    return description


def check_header(path: str) -> None:
    """Refuse a header that would take too much memory before anything of it is parsed."""
    try:
        _, reason = header_of(Path(path))
    except ValueError:
        return  # no safetensors file, or cut short, which the library says
    if reason:
        raise damaged(path, f"its header is not one that can be read: {reason}")


def _too_much(text: str) -> str:
    """Say why a description would take too much memory; empty if it would not."""
    values = sum(text.count(mark) for mark in ",:[{")
    needed = BYTES_OF_A_CHARACTER * len(text) + BYTES_OF_A_VALUE * values
    if needed <= MOST_MEMORY:
        return ""
    return f"its {values:,} values would take up to {needed / 2**20:.0f} MiB, {MOST_MEMORY // 2**20} are possible"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; which of two equal keys counts would be a matter of the reader."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found


def _check_tensors(path: str, file: Any, expected: Expected) -> None:
    """Compare names, shapes and dtypes in the file's header with what is expected; reads no tensor."""
    found = set(file.keys())
    for name in expected:
        if name not in found:
            raise damaged(path, f"the tensor {name} is missing")
    extra = sorted(found - set(expected))
    if extra:
        raise damaged(path, f"it has {len(extra)} tensors that no layer needs: {', '.join(extra[:5]):.200}")
    for name, (dtype, shape) in expected.items():
        part = file.get_slice(name)
        if part.get_shape() != shape:
            raise damaged(path, f"the tensor {name} has shape {part.get_shape()}; its sizes need {shape!s:.200}")
        if DTYPES.get(part.get_dtype()) != dtype:
            raise damaged(path, f"the tensor {name} has dtype {part.get_dtype()}; expected {dtype}")


def _fingerprint(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the description without its hash and of the tensors in order, as little-endian bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors.items():
        digest.update(name.encode())
        plain = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
