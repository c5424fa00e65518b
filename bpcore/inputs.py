"""Inputs of a network: checked, and brought to the backend that computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.data.arrays import check_matrix, check_rows, row_blocks
from bpcore.errors import DataError, ShapeError
from bpcore.typing import Array, DType

__all__ = ["bring_inputs", "is_on_device"]


def is_on_device(X: Any, be: Backend) -> bool:
    """Whether an array is on the accelerator of a backend, which can use it there, whatever library it is from."""
    return be.device != "cpu" and (be.owns(X) or hasattr(X, "__cuda_array_interface__"))


def bring_inputs(X: Any, be: Backend, n_in: int, dtype: DType, *, name: str = "X", first_row: int = 0) -> Array:
    """Check the inputs of a network and bring them to a backend.

    Parameters
    ----------
    X : array_like, shape (m, n_1)
        Samples as rows, on the host or on the backend's device, where they stay. What is in a file
        (:class:`numpy.memmap`) goes to a device a block of rows at a time, without a copy of it on the host.
    be : Backend
        Where it is needed.
    n_in : int
        Width n_1.
    dtype : dtype
        Of the network.
    name : str, default "X"
        What to call it in errors.
    first_row : int, default 0
        Number of its first row, if it is a part of something longer.

    Returns
    -------
    Array, shape (m, n_1)
        C-contiguous, in the network's dtype, on the backend's device; shares memory with X where nothing had to change.

    Raises
    ------
    ShapeError
        If X is not a matrix of n_1 columns.
    DataError
        If it is empty, holds no real numbers, is not finite, or does not fit the dtype.
    """
    if is_on_device(X, be):
        return _check_on_device(be.asarray(X), be, n_in, dtype, name)
    if be.device != "cpu" and isinstance(X, np.memmap):
        source = check_rows(X, name=name, n_columns=n_in, dtype=dtype, layer=1)
        whole = be.empty((len(source), n_in), dtype)
        for rows in row_blocks(len(source), n_in * dtype.itemsize):
            be.copy(be.asarray(source[rows], dtype=dtype), out=whole[rows])
        return whole
    return be.asarray(check_matrix(X, name=name, n_columns=n_in, dtype=dtype, layer=1, first_row=first_row))


def _check_on_device(X: Array, be: Backend, n_in: int, dtype: DType, name: str) -> Array:
    if X.ndim != 2 or X.shape[0] == 0 or X.shape[1] != n_in:
        raise ShapeError(f"layer 1: {name} has shape {X.shape}; expected (m, {n_in}) with m at least 1")
    X = be.asarray(X, dtype=dtype)
    if not be.all_finite(X):
        raise DataError(f"{name} holds NaN or infinite values")
    return X
