"""Reading data from NumPy's ``.npz`` archives. Pickled objects are refused: they can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import DataError, UnknownNameError, unknown
from bpcore.typing import NDArray

__all__ = ["choose_arrays", "read_npz"]


def read_npz(
    path: Path, target: str | None = None, *, read_target: bool = True
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Read the features ``X`` and the targets from an archive.

    Parameters
    ----------
    path : Path
        The file.
    target : str, optional
        Name of the array of targets; by default ``"y"``.
    read_target : bool, default True
        False to read `X` alone.

    Returns
    -------
    X : ndarray
        The array ``X`` as it is stored.
    y : ndarray or None
        The targets as they are stored, as many as `X` has rows; None if they are not read.
    target : str
        The name of the targets.

    Raises
    ------
    DataError
        If the file cannot be read, has no ``X`` or no targets, holds pickled objects, or the lengths differ.
    UnknownNameError
        If it has no array named `target`.
    """
    try:
        with open(path, "rb") as file:
            return _from_archive(path, np.load(file, allow_pickle=False), target, read_target)
    except (DataError, UnknownNameError):
        raise
    except Exception as error:
        # NumPy and zipfile raise some ten different classes for damaged files; all of them mean the same here.
        if "pickle" in str(error):
            raise DataError(
                f"{path} holds pickled Python objects, which are refused because they can run code; "
                "save plain arrays of numbers (or of text, for labels)"
            ) from error
        raise DataError(f"cannot read {path} as an .npz archive: {error}") from error


def _from_archive(
    path: Path, archive: Any, target: str | None, read_target: bool
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} holds a single array; save both with np.savez(path, X=X, y=y)")
    return choose_arrays(path, archive, target, read_target, "np.savez(path, X=X, y=y)")


def choose_arrays(
    path: Path, arrays: Mapping[str, Any], target: str | None, read_target: bool, advice: str
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Choose features and targets among arrays by name, for files that hold several.

    Parameters
    ----------
    path : Path
        The file, for errors.
    arrays : mapping of str to ndarray
        What it holds; only what is chosen is asked for.
    target, read_target
        As for :func:`read_npz`.
    advice : str
        How to write such a file, for errors.

    Returns
    -------
    X, y, target
        As :func:`read_npz`.
    """
    names, wanted = list(arrays), target or "y"
    if "X" not in names:
        found = ", ".join(names) or "nothing"
        raise DataError(f"{path} has no array 'X'; found: {found}. Save the data with {advice}")
    X = arrays["X"]
    if not read_target:
        return X, None, wanted
    if wanted not in names and target is not None:
        raise unknown(f"array in {path}", target, names)
    if wanted not in names:
        raise DataError(f"{path} has no array 'y'; found: {', '.join(names)}. Name the targets with --target")
    y = arrays[wanted]
    if y.ndim == 0 or X.ndim == 0 or len(X) != len(y):
        raise DataError(f"{path}: X has shape {X.shape} but {wanted} has shape {y.shape}; the rows must match")
    return X, y, wanted
