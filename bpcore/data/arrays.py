"""Checks of arrays that come from outside: what is refused here never reaches the engine.

Two steps, usable apart: :func:`host_array` turns whatever was handed in into a NumPy array of real numbers,
:func:`check_matrix` adds what a data matrix must fulfil (two axes, the right width, finite, a training
dtype). No input is ever modified; a result may share memory with its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bpcore.errors import DataError, ShapeError
from bpcore.typing import NDArray

__all__ = ["check_finite", "check_matrix", "check_rows", "host_array", "is_plain", "row_blocks"]

BLOCK_BYTES = 2**24
"""Bytes of a matrix that are looked at together when it is not to be copied as a whole."""

TRAINING_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def host_array(values: object, *, name: str, allow_text: bool = False) -> NDArray[Any]:
    """NumPy array of the numbers in `values`, whatever library they come from.

    Parameters
    ----------
    values : array_like
        A NumPy array, nested lists, or anything with ``__array__`` (pandas, Polars, PyTorch on the CPU) or
        ``__dlpack__``. Not modified.
    name : str
        What to call it in errors, for example ``"X"``.
    allow_text : bool, default False
        Whether an array of strings is accepted (class labels).

    Returns
    -------
    ndarray
        Of a bool, integer or float dtype (or strings); shares memory with `values` where possible.

    Raises
    ------
    DataError
        If the values are no array of real numbers (object, string, complex, dates, sparse, masked), or are on
        a device that NumPy cannot read.

    Examples
    --------
    >>> host_array([[1, 2], [3, 4]], name="X").dtype.kind
    'i'
    """
    variable = name.rpartition(": ")[2]  # a message may begin with the layer, code in it may not
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        hidden = int(np.count_nonzero(np.ma.getmaskarray(values)))
        raise DataError(f"{name} is a masked array with {hidden} masked values; fill or drop them first")
    if type(values).__module__.startswith("scipy.sparse"):
        raise DataError(f"{name} is a sparse matrix; dense arrays are supported: use {variable}.toarray()")
    array = _as_numpy(values, name)
    kind = array.dtype.kind
    if kind in "biuf" or (allow_text and kind in "UT"):
        return array
    if kind == "O":
        if allow_text and array.size and all(isinstance(value, str) for value in array.flat):
            return array.astype(np.str_)
        raise DataError(
            f"{name} has dtype object{_first_non_number(array)}; real numbers are needed: "
            f"replace missing values, encode text columns, then use {variable}.astype(np.float32)"
        )
    if kind in "UST":
        raise DataError(
            f"{name} holds text (dtype {array.dtype}); real numbers are needed: encode it, "
            f"or use {variable}.astype(np.float32) if the text spells numbers"
        )
    if kind == "c":
        raise DataError(
            f"{name} is complex ({array.dtype}); real numbers are needed: "
            f"use {variable}.real, or stack {variable}.real and {variable}.imag as columns"
        )
    raise DataError(f"{name} has dtype {array.dtype}; real numbers are needed (bool, integer or float)")


def is_plain(array: NDArray[Any], shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    """Whether compiled code can take a matrix as it is: of this shape and dtype, C-contiguous, aligned, writeable.

    Examples
    --------
    >>> X = np.zeros((3, 2))
    >>> is_plain(X, (3, 2), X.dtype), is_plain(X[::2], (2, 2), X.dtype)
    (True, False)
    """
    return array.shape == shape and array.dtype == dtype and array.flags.carray


def check_finite(array: NDArray[Any], *, name: str, first_row: int = 0) -> None:
    """Refuse NaN and infinities, naming the first one.

    Parameters
    ----------
    array : ndarray, any shape
        Numbers of any real dtype; not modified.
    name : str
        What to call it in errors.
    first_row : int, default 0
        Number of its first row, if it is a part of something longer.

    Raises
    ------
    DataError
        If a value is not finite.

    Examples
    --------
    >>> check_finite(np.array([[1.0, float("nan")]]), name="X")
    Traceback (most recent call last):
    ...
    bpcore.errors.DataError: X contains 1 value that is not finite; the first is nan in row 0, column 1 ...
    """
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN and inf always reach the sum, so a finite sum settles it without a mask as large as the data.
        if np.isfinite(array.sum()):
            return
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if not count:  # only the sum overflowed
        return
    first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape))
    place = (first[0] + first_row, *first[1:]) if first else first
    noun, pronoun = ("value that is", "it") if count == 1 else ("values that are", "them")
    raise DataError(
        f"{name} contains {count} {noun} not finite; the first is {array[first]} in {_place(place)} "
        f"(counted from 0); remove or replace {pronoun}"
    )


def _place(index: tuple[int, ...]) -> str:
    """Spell an index as row and column where it has at most two axes."""
    if len(index) > 2:
        return f"index {index}"
    return ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), index, strict=False))


def check_matrix(
    X: object,
    *,
    name: str = "X",
    n_columns: int | None = None,
    dtype: DTypeLike | None = None,
    layer: int | None = None,
    allow_nonfinite: bool = False,
    first_row: int = 0,
) -> NDArray[Any]:
    """Check a data matrix, one sample a row, and return it as a C-contiguous float array.

    Parameters
    ----------
    X : array_like, shape (m, n)
        Bool, integer, float32 or float64, of any layout, read-only or not, or a frame or tensor that converts
        to such an array. Not modified.
    name : str, default "X"
        What to call it in errors.
    n_columns : int, optional
        The width that is needed.
    dtype : dtype, optional
        float32 or float64: the network's. By default these two are kept and other numbers become float64.
    layer : int, optional
        The layer that takes the matrix, named in shape errors.
    allow_nonfinite : bool, default False
        Whether NaN and infinities pass.
    first_row : int, default 0
        Number of its first row, if it is a part of something longer.

    Returns
    -------
    ndarray, shape (m, n), float32 or float64, C-contiguous, writeable
        Shares memory with `X` when nothing had to change.

    Raises
    ------
    ShapeError
        If `X` is not a matrix or has the wrong number of columns.
    DataError
        If `X` is empty, holds no real numbers, is float16, is not finite, or does not fit the dtype.

    Examples
    --------
    >>> check_matrix([[1, 2], [3, 4]], n_columns=2, dtype="float32")
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> check_matrix([1.0, 2.0])
    Traceback (most recent call last):
    ...
    bpcore.errors.ShapeError: X has shape (2,); a matrix with one sample a row is needed: X.reshape(1, -1) ...
    """
    where = f"layer {layer}: " if layer is not None else ""
    array = host_array(X, name=f"{where}{name}")
    _check_shape(array, where, name, n_columns)
    if array.dtype == np.float16:
        raise DataError(
            f"{where}{name}: float16 is not supported as a training dtype; possible: float32, float64; "
            f"use {name}.astype(np.float32)"
        )
    target = _training_dtype(array, dtype, name)
    if not allow_nonfinite:
        check_finite(array, name=f"{where}{name}", first_row=first_row)
    if array.dtype == target:
        # Compiled loops are built for aligned, writeable arrays; anything else would be compiled for anew.
        return np.require(array, requirements=["C", "A", "W"])
    with np.errstate(over="ignore"):
        converted = array.astype(target, order="C")
    if not allow_nonfinite and array.dtype.kind == "f" and array.dtype.itemsize > target.itemsize:
        _check_conversion(array, converted, f"{where}{name}", first_row)
    return converted


def check_rows(
    X: object, *, name: str = "X", n_columns: int | None = None, dtype: DTypeLike, layer: int | None = None
) -> NDArray[Any]:
    """Check a data matrix as :func:`check_matrix` does, a block of rows at a time, without making it over.

    Parameters
    ----------
    X, name, n_columns, dtype, layer
        As for :func:`check_matrix`. What is in a file (:class:`numpy.memmap`) is read once and stays there.

    Returns
    -------
    ndarray, shape (m, n)
        The numbers as they are: of any real dtype, whose rows convert to `dtype`.

    Raises
    ------
    ShapeError, DataError
        As for :func:`check_matrix`; where a value is refused, the block of rows is named that it is in.

    Examples
    --------
    >>> check_rows(np.eye(2, dtype=np.uint8), dtype="float32").dtype
    dtype('uint8')
    """
    where = f"layer {layer}: " if layer is not None else ""
    array = host_array(X, name=f"{where}{name}")
    _check_shape(array, where, name, n_columns)
    for rows in row_blocks(len(array), array.shape[1] * array.itemsize):
        part = name if rows.stop - rows.start == len(array) else f"{name}[{rows.start}:{rows.stop}]"
        check_matrix(array[rows], name=part, dtype=dtype, layer=layer, first_row=rows.start)
    return array


def row_blocks(m: int, row_bytes: int) -> list[slice]:
    """Cut m rows into blocks of about 16 MiB.

    Examples
    --------
    >>> [block.stop for block in row_blocks(5, 2**23)]
    [2, 4, 5]
    """
    rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(start, min(start + rows, m)) for start in range(0, m, rows)]


def _check_shape(array: NDArray[Any], where: str, name: str, n_columns: int | None) -> None:
    """Refuse what is not an (m, n_columns) matrix with at least one row and one column."""
    if array.ndim != 2:
        if array.ndim == 1:
            advice = (
                f"{name}.reshape(1, -1) makes it one sample of {array.size} numbers, "
                f"{name}.reshape(-1, 1) makes it {array.size} samples of one number"
            )
        elif array.ndim == 0:
            advice = f"np.reshape({name}, (1, 1)) makes it one sample of one number"
        else:
            advice = f"{name}.reshape(len({name}), -1) makes each of its {array.shape[0]} entries one row"
        raise ShapeError(f"{where}{name} has shape {array.shape}; a matrix with one sample a row is needed: {advice}")
    m, n = array.shape
    if n_columns is not None and n != n_columns and n:
        expected = f"(m, {n_columns}), one sample a row"
        raise ShapeError(f"{where}{name} has shape {array.shape}; expected {expected}")
    if m == 0 or n == 0:
        raise DataError(
            f"{where}{name} is empty: shape {array.shape} has no {'rows' if m == 0 else 'columns'}; "
            "at least one sample with at least one number is needed"
        )


def _training_dtype(array: NDArray[Any], dtype: DTypeLike | None, name: str) -> np.dtype[Any]:
    """Return the dtype asked for; otherwise the array's own where it is a training dtype, else float64."""
    if dtype is None:
        native = array.dtype.newbyteorder("=")
        return native if native in TRAINING_DTYPES else np.dtype(np.float64)
    target = np.dtype(dtype)
    if target not in TRAINING_DTYPES:
        raise DataError(
            f"{name}: {target} is not supported as a training dtype; possible: float32, float64; "
            "choose dtype=np.float32"
        )
    return target


def _check_conversion(before: NDArray[Any], after: NDArray[Any], name: str, first_row: int = 0) -> None:
    """Refuse finite numbers that became infinite in the narrower dtype."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(after.sum()):
            return
    bad = ~np.isfinite(after)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    place = (first[0] + first_row, *first[1:])
    raise DataError(
        f"{name}: {before[first]} in {_place(place)} does not fit in {after.dtype}; "
        "rescale the data or use a network with dtype float64"
    )


def _as_numpy(values: Any, name: str) -> NDArray[Any]:
    """Convert through ``__array__``, lists or DLPack, turning every failure into a DataError."""
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.asarray(np.from_dlpack(values))
        return np.asarray(values)
    except Exception as error:
        kind = f"{type(values).__module__}.{type(values).__qualname__}"
        if hasattr(values, "__cuda_array_interface__"):
            raise DataError(
                f"{name} is a {kind} on a GPU, where this function cannot read it; "
                "copy it to the host first (CuPy: cupy.asnumpy(a), PyTorch: a.cpu())"
            ) from error
        if isinstance(values, list | tuple):
            raise DataError(
                f"{name} is not rectangular: {error}; every row needs the same number of entries"
            ) from error
        raise DataError(f"{name} of type {kind} cannot be converted to a NumPy array: {error}") from error


def _first_non_number(array: NDArray[Any]) -> str:
    """Describe the first entry that is not a number, if any, in brackets."""
    for index, value in np.ndenumerate(array):
        if not isinstance(value, int | float | np.number | np.bool_):
            return f" (the first that is no number: {value!r} in {_place(index)})" if index else ""
    return ""
