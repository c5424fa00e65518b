"""The arguments of an element-wise program: what each looks like, and whether they fit together.

This module does not import Numba.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.errors import ShapeError
from bpcore.functions.program import Program
from bpcore.settings import FLOAT_DTYPES
from bpcore.typing import Array

__all__ = ["Operand", "classify", "number", "position"]


@dataclass(frozen=True)
class Operand:
    """How one argument is laid out, relative to a result of shape S = (n,) or (m, n).

    Attributes
    ----------
    kind : str
        ``"scalar"`` (a float64), ``"full"`` (shape S), ``"row"`` (n values), ``"column"`` (shape (m, 1)), ``"one"``
        (a single element) or ``"same"`` (the very array of output number `output`).
    axes : int
        Number of axes of the array.
    contiguous : bool
        Whether the array is C-contiguous.
    output : int
        For ``"same"``.
    """

    kind: str
    axes: int = 0
    contiguous: bool = True
    output: int = 0

    @property
    def code(self) -> str:
        """A few letters for file names."""
        return (
            f"{self.kind[0] if self.kind != 'same' else 'x'}{self.axes or self.output}{'' if self.contiguous else 's'}"
        )


def position(value: Array, outs: tuple[Array, ...]) -> int | None:
    """Return k if the value is the very array of output k."""
    for k, array in enumerate(outs):
        if value is array:
            return k
    return None


def number(program: Program, name: str, value: Any) -> float:
    """Return a number as a Python float.

    Raises
    ------
    ShapeError
        If it is not a number (a list, an array of another library, ...).
    """
    if isinstance(value, int | float | np.number | np.bool_):
        return float(value)
    raise ShapeError(
        f"{program.name} on numba got {type(value).__module__}.{type(value).__name__} for {name!r}; "
        "bring it here with backend.asarray"
    )


def classify(
    program: Program, outs: tuple[Array, ...], args: Mapping[str, Any]
) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Check shapes, dtypes and access, and say how each array is laid out.

    Parameters
    ----------
    program : Program
        The program.
    outs : tuple of ndarray
        One for each output.
    args : mapping
        A number or an array for each of ``program.inputs``.

    Returns
    -------
    tuple of Operand, tuple of Operand
        Of the outputs and of the inputs. An array without axes counts as one of one axis.

    Raises
    ------
    ShapeError
        If they do not fit together.
    """
    if len(outs) != len(program.outputs):
        needed = ", ".join(program.outputs)
        raise ShapeError(f"{program.name}: {len(outs)} arrays for the outputs {needed}")
    for name, array in zip(program.outputs, outs, strict=True):
        if not isinstance(array, np.ndarray):
            raise ShapeError(f"{program.name}: output {name!r} is {type(array).__name__}, not a NumPy array")
        if array.shape != outs[0].shape or array.dtype != outs[0].dtype:
            raise ShapeError(
                f"{program.name}: all outputs need one shape and dtype, got "
                f"{outs[0].shape} {outs[0].dtype} and {array.shape} {array.dtype}"
            )
        if not array.flags.writeable:
            raise ShapeError(f"{program.name}: output {name!r} is read-only; pass a writable array")
    shape, dtype = outs[0].shape, outs[0].dtype
    if len(shape) > 2:
        raise ShapeError(f"{program.name}: the result has {len(shape)} axes; at most two are possible")
    if dtype not in FLOAT_DTYPES:
        raise ShapeError(f"{program.name}: the result is {dtype}; possible: float32, float64")
    outputs = tuple(Operand("full", max(array.ndim, 1), array.flags.c_contiguous) for array in outs)
    arguments = tuple(_operand(program, name, args[name], outs) for name in program.inputs)
    return outputs, arguments


def _operand(program: Program, name: str, value: Any, outs: tuple[Array, ...]) -> Operand:
    if not isinstance(value, np.ndarray):
        number(program, name, value)
        return Operand("scalar")
    shape, dtype = outs[0].shape, outs[0].dtype
    if value.dtype != dtype:
        raise ShapeError(f"{program.name}: {name!r} is {value.dtype} but the result is {dtype}; convert one of them")
    same = position(value, outs)
    if same is not None:
        return Operand("same", output=same)
    contiguous, n = value.flags.c_contiguous, shape[-1] if shape else 1
    if value.shape == shape:
        return Operand("full", max(value.ndim, 1), contiguous)
    if value.size == 1:
        return Operand("one", value.ndim if shape else max(value.ndim, 1), contiguous)
    if value.shape in ((n,), (1, n)):
        return Operand("row", value.ndim, contiguous)
    if len(shape) == 2 and value.shape == (shape[0], 1):
        return Operand("column", 2, contiguous)
    m = shape[0] if len(shape) == 2 else 1
    raise ShapeError(
        f"{program.name}: {name!r} has shape {value.shape}, which does not fit a result of shape {shape}; "
        f"possible: {shape}, ({n},), (1, {n}), ({m}, 1) or one element"
    )
