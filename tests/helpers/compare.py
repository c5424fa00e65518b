"""Comparisons that assert by themselves and cannot be satisfied by accident.

Everything that has once let a wrong result through is refused here: a missing ``return`` (None), a scalar
that broadcasts against an array, float64 where float32 was promised, a list where an array was promised, NaN
(for which ``error > tolerance`` is false), an infinity of the wrong sign.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_FACTOR", "assert_close", "assert_same_bits", "tolerance"]

DEFAULT_FACTOR = 8.0
"""Multiples of eps granted to one element of a formula.

A declared formula is a handful of operations, each rounded once (half an eps) or, for an elementary function
of our own, off by up to two units in the last place. Eight covers those; a wrong constant or a missing term
does not fit in.
"""


def tolerance(dtype: Any, *, length: int = 1, factor: float = DEFAULT_FACTOR) -> float:
    """Return the relative error allowed: ``factor * eps(dtype) * sqrt(length)``.

    A sum of `length` terms in any order collects about that many independent roundings, which grow as the
    root of their number; the worst case, proportional to `length`, needs them all to point the same way.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1 (got {length})")
    return factor * float(np.finfo(dtype).eps) * math.sqrt(length)


def assert_close(
    actual: Any,
    expected: Any,
    *,
    dtype: Any,
    length: int = 1,
    factor: float = DEFAULT_FACTOR,
    scale: Any = None,
    backend: Any = None,
) -> None:
    """Assert that `actual` is what float64 `expected` says, to the accuracy that `dtype` allows.

    Parameters
    ----------
    actual
        The result that is judged. A ``numpy.ndarray``, exactly; with `backend`, an array that it owns.
        Where `expected` is a Python number, a Python or NumPy floating scalar.
    expected
        The reference, float64, of the same shape. NaN and infinities must be matched where they stand.
    dtype
        The dtype that `actual` must have; its eps sets the tolerance.
    length
        Number of terms added up for one element, see `tolerance`.
    factor
        Multiples of eps for one term. Say why, where it is not the default.
    scale
        The magnitude that errors are relative to. Default: ``|expected|`` element by element where `length`
        is 1; else the larger of that and the root mean square of `expected`, because a sum that happens to
        cancel keeps the rounding errors of terms as large as its neighbours'.
    backend
        Backend whose array `actual` must be.
    """
    dtype = np.dtype(dtype)
    reference = np.asarray(expected, dtype=np.float64)
    found = _as_numpy(
        actual, dtype, scalar=np.ndim(expected) == 0 and not isinstance(expected, np.ndarray), backend=backend
    )
    if found.shape != reference.shape:
        raise AssertionError(f"shape is {found.shape}, expected {reference.shape}")
    if reference.size == 0:
        return

    found = found.astype(np.float64)
    finite = np.isfinite(reference)
    if scale is None:
        magnitude = np.abs(reference)
        if length > 1 and finite.any():
            magnitude = np.maximum(magnitude, np.sqrt(np.mean(reference[finite] ** 2)))
    else:
        magnitude = np.broadcast_to(np.asarray(scale, dtype=np.float64), reference.shape)
    # Below the smallest normal number there are no relative guarantees: flushing to zero is allowed.
    allowed = tolerance(dtype, length=length, factor=factor) * magnitude + float(np.finfo(dtype).tiny)

    with np.errstate(invalid="ignore"):
        # Written so that a NaN on either side, or an infinity on one side only, is not "close".
        close = np.abs(found - reference) <= allowed
    same_infinity = np.isinf(reference) & (found == reference)
    same_nan = np.isnan(reference) & np.isnan(found)
    wrong = ~np.where(finite, close, same_infinity | same_nan)
    if wrong.any():
        raise AssertionError(_report(found, reference, allowed, wrong))


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Assert that two NumPy arrays agree in dtype, shape and every bit (-0.0 is not 0.0, NaN is NaN)."""
    for name, array in (("actual", actual), ("expected", expected)):
        if type(array) is not np.ndarray:
            raise AssertionError(f"{name} is {type(array).__name__}, not a numpy.ndarray")
    if actual.dtype != expected.dtype:
        raise AssertionError(f"dtype is {actual.dtype}, expected {expected.dtype}")
    if actual.shape != expected.shape:
        raise AssertionError(f"shape is {actual.shape}, expected {expected.shape}")
    itemsize = actual.dtype.itemsize
    raw = [np.frombuffer(a.tobytes(), np.uint8).reshape(a.size, itemsize) for a in (actual, expected)]
    differs = (raw[0] != raw[1]).any(axis=1).reshape(actual.shape)
    if differs.any():
        first = tuple(int(i) for i in np.argwhere(differs)[0])
        raise AssertionError(
            f"{int(differs.sum())} of {differs.size} elements differ in their bits; first at {first}: "
            f"{actual[first]!r}, expected {expected[first]!r}"
        )


def _as_numpy(actual: Any, dtype: np.dtype[Any], *, scalar: bool, backend: Any) -> NDArray[Any]:
    """Refuse whatever is not of the promised container type and dtype."""
    if actual is None:
        raise AssertionError("got None: the operation returned nothing")
    if scalar:
        if not isinstance(actual, float | np.floating):
            raise AssertionError(f"got {type(actual).__name__}, expected a floating scalar")
        if isinstance(actual, np.floating) and actual.dtype != dtype:
            raise AssertionError(f"dtype is {actual.dtype}, expected {dtype}")
        return np.asarray(actual)
    if backend is not None:
        if not backend.owns(actual):
            raise AssertionError(f"got {type(actual).__name__}, which is not an array of backend '{backend.name}'")
        if np.dtype(actual.dtype) != dtype:
            raise AssertionError(f"dtype is {actual.dtype}, expected {dtype}")
        actual = backend.to_numpy(actual)
    if type(actual) is not np.ndarray:
        raise AssertionError(f"got {type(actual).__name__}, expected numpy.ndarray")
    if actual.dtype != dtype:
        raise AssertionError(f"dtype is {actual.dtype}, expected {dtype}")
    return actual


def _report(
    found: NDArray[np.float64],
    reference: NDArray[np.float64],
    allowed: NDArray[np.float64],
    wrong: NDArray[np.bool_],
) -> str:
    """Name the worst element: an infinite or NaN excess first, then the largest error in tolerances."""
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.where(wrong, np.abs(found - reference) / allowed, -1.0)
    excess = np.where(wrong & ~np.isfinite(excess), np.inf, excess)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), excess.shape))
    return (
        f"{int(wrong.sum())} of {wrong.size} elements are off; worst at {worst}: {found[worst]!r}, "
        f"expected {reference[worst]!r}, error {abs(found[worst] - reference[worst]):.3g} "
        f"against a tolerance of {allowed[worst]:.3g}"
    )
