"""What the CuPy backend asks of its arrays, and the words with which it refuses others.

A kernel gets an address and sizes: it cannot notice a wrong dtype or a strided layout. So everything is checked here,
without waiting for the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.errors import ShapeError
from bpcore.functions.program import Program
from bpcore.settings import FLOAT_DTYPES
from bpcore.typing import Array

__all__ = ["ArrayChecks", "is_contiguous", "leading_dimension"]


def is_contiguous(array: Array) -> bool:
    """Whether the elements follow one another in C order."""
    return bool(array.flags.c_contiguous)


class ArrayChecks:
    """Checks against one class of arrays.

    Parameters
    ----------
    ndarray : type
        ``cupy.ndarray``.
    """

    def __init__(self, ndarray: type) -> None:
        self.ndarray = ndarray

    def device_array(self, op: str, name: str, array: Any) -> None:
        """Refuse what is not on the device.

        Raises
        ------
        ShapeError
            Naming the operation, the operand and the call that moves it.
        """
        if isinstance(array, self.ndarray):
            return
        found = f"{type(array).__module__}.{type(array).__qualname__}"
        found = "a numpy array" if isinstance(array, np.ndarray) else found
        raise ShapeError(f"{op} on cupy got {found} for {name!r}; move it with backend.asarray({name})")

    def operand(
        self,
        op: str,
        name: str,
        array: Any,
        *,
        shape: tuple[int, ...] | None = None,
        ndim: int | None = None,
        dtype: Any = None,
        floats: bool = True,
    ) -> None:
        """Refuse what a kernel would misread: other kinds of array, dtypes, shapes, layouts.

        Parameters
        ----------
        op, name : str
            Operation and operand, for the message.
        array : Any
            The operand.
        shape : tuple of int, optional
            The shape it must have.
        ndim : int, optional
            The number of axes it must have.
        dtype : dtype, optional
            The dtype it must have.
        floats : bool, default True
            Without `dtype`: whether it must be float32 or float64.

        Raises
        ------
        ShapeError
            If it is anything else, or not C-contiguous.
        """
        self.device_array(op, name, array)
        if shape is not None and array.shape != shape:
            raise ShapeError(f"{op}: {name!r} has shape {array.shape}, expected {shape}")
        if ndim is not None and array.ndim != ndim:
            raise ShapeError(f"{op}: {name!r} has shape {array.shape}, expected {ndim} axes")
        if dtype is not None and array.dtype != dtype:
            raise ShapeError(f"{op}: {name!r} is {array.dtype}, expected {dtype}")
        if dtype is None and floats and array.dtype not in FLOAT_DTYPES:
            raise ShapeError(f"{op}: {name!r} is {array.dtype}, expected float32 or float64")
        self._contiguous(op, name, array)

    def kind(self, program: Program, name: str, args: dict[str, Any], shape: tuple[int, ...], dtype: Any) -> str:
        """How a kernel addresses an argument of a program: see the table in :mod:`bpcore.kernels.cuda.source`.

        Parameters
        ----------
        program : Program
            The program.
        name : str
            One of its inputs.
        args : dict
            The values given.
        shape : tuple of int
            Shape of the result.
        dtype : dtype
            Dtype of the result.

        Returns
        -------
        str
            One of :data:`bpcore.kernels.cuda.source.KINDS`.

        Raises
        ------
        ShapeError
            If the value is missing or does not fit.
        """
        if name not in args:
            raise ShapeError(f"{program.name}: no value for {name}; it needs {', '.join(program.inputs)}")
        value = args[name]
        if not isinstance(value, self.ndarray):
            if isinstance(value, float | int | np.number) and not isinstance(value, bool | np.complexfloating):
                return "scalar"
            self.device_array(program.name, name, value)
        if value.dtype != dtype:
            raise ShapeError(
                f"{program.name}: {name!r} is {value.dtype} but the result is {dtype}; convert one of them"
            )
        self._contiguous(program.name, name, value)
        found = value.shape
        if found == shape:
            return "full"
        if value.size == 1:
            return "one"
        m, n = shape if len(shape) == 2 else (1, int(np.prod(shape)))
        if found in ((n,), (1, n)):
            return "full" if m == 1 else "row"
        if found == (m, 1) and len(shape) == 2:
            return "column"
        raise ShapeError(
            f"{program.name}: {name!r} has shape {found}, which does not fit a result of shape {shape}; "
            f"possible: {shape}, ({n},), (1, {n}), ({m}, 1) or one element"
        )

    def _contiguous(self, op: str, name: str, array: Array) -> None:
        if not is_contiguous(array):
            raise ShapeError(
                f"{op} on cupy needs C-contiguous arrays, {name!r} of shape {array.shape} has strides {array.strides}; "
                f"copy it with backend.asarray({name})"
            )


def leading_dimension(name: str, matrix: Array) -> int:
    """Distance of two rows in elements, which cuBLAS calls the leading dimension.

    Raises
    ------
    ShapeError
        If the elements of a row do not follow one another, or a size is beyond what cuBLAS counts.
    """
    rows, columns = matrix.shape
    item = matrix.dtype.itemsize
    distance = matrix.strides[0] // item if rows > 1 else columns
    if (columns > 1 and matrix.strides[1] != item) or distance < columns:
        raise ShapeError(
            f"matmul on cupy needs rows of consecutive elements, {name!r} of shape {matrix.shape} has strides "
            f"{matrix.strides}; for a transposed matrix pass transpose_a or transpose_b"
        )
    if max(rows, columns, distance) >= 2**31:
        raise ShapeError(f"matmul on cupy takes sizes below 2**31, {name!r} has shape {matrix.shape}")
    return int(distance)
