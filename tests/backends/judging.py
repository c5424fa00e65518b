"""Placing data in a backend's memory in several layouts, and judging everything about one call of an operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpcore.backends.ops import OPS
from bpcore.errors import ShapeError
from tests.helpers.compare import assert_close, assert_same_bits

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
LAYOUTS = ("C", "padded", "step", "T")
"""Contiguous; rows of a wider array (unit inner stride); every second column; the transpose of a contiguous array."""

SIZES = [(0, 3), (1, 1), (5, 1), (1, 7), (13, 11), (64, 8), (65, 9), (31, 257), (127, 65), (3, 1030), (1100, 9)]
"""No rows, one element, one column, one row, primes, a tile, one past it, more than 8192 elements, wide, tall."""

GUARD = 12345.0


class View:
    """An array of the backend in some layout, with guard values in the memory around it."""

    def __init__(self, be: Any, host: NDArray[Any], layout: str) -> None:
        self.be = be
        if host.ndim == 0 or layout == "C":
            base, cut = host, (slice(None),) * host.ndim
        elif layout == "T":
            base, cut = host.T, (slice(None),) * host.ndim
        elif layout == "padded":
            base = np.full((*host.shape[:-1], host.shape[-1] + 5), GUARD).astype(host.dtype)
            cut = (*(slice(None),) * (host.ndim - 1), slice(2, 2 + host.shape[-1]))
            base[cut] = host
        else:
            base = np.full((*host.shape[:-1], 2 * host.shape[-1]), GUARD).astype(host.dtype)
            cut = (*(slice(None),) * (host.ndim - 1), slice(0, None, 2))
            base[cut] = host
        # a copy always: asarray hands a host array through on the CPU
        self.base = be.asarray(np.array(base, order="C"))
        self.array = (self.base.T if layout == "T" else self.base)[cut] if layout != "C" else self.base
        self.cut = cut
        self.transposed = layout == "T" and host.ndim > 0
        assert self.array.shape == host.shape

    def host(self) -> NDArray[Any]:
        return np.array(self.be.to_numpy(self.array))

    def assert_guards_intact(self) -> None:
        if self.transposed:
            return
        around = np.array(self.be.to_numpy(self.base))
        around[self.cut] = np.array(GUARD).astype(around.dtype)
        assert (around == np.array(GUARD).astype(around.dtype)).all(), "memory around out was written"


def blank(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Content of an output before the operation: nothing that could pass for a result."""
    return np.full(shape, 77 if np.dtype(dtype).kind == "u" else np.nan, dtype)


def judge(
    be: Any,
    call: Callable[..., Any],
    inputs: dict[str, NDArray[Any]],
    out: tuple[tuple[int, ...], Any],
    expected: NDArray[Any],
    *,
    layout: str = "C",
    out_layout: str = "C",
    promised: bool = False,
    exact: bool = False,
    length: int = 1,
    scale: Any = None,
) -> None:
    """Run ``call(out=..., **inputs)`` twice and judge everything about it."""
    shape, dtype = out
    expected = np.asarray(expected)  # operations on arrays without axes make scalars
    results = []
    for _ in range(2):
        views = {name: View(be, host, layout) for name, host in inputs.items()}
        target = View(be, blank(shape, dtype), out_layout)
        try:
            returned = call(**{name: view.array for name, view in views.items()}, out=target.array)
        except ShapeError:
            if promised or be.device == "cpu" or (layout == out_layout == "C"):
                raise
            return
        assert returned is target.array, f"returned {type(returned).__name__}, which is not the object given as out"
        target.assert_guards_intact()
        for name, view in views.items():
            assert_same_bits(view.host(), np.array(inputs[name]))
        if exact:
            assert_same_bits(target.host(), np.asarray(expected, dtype).reshape(shape))
        else:
            assert_close(returned, expected, dtype=dtype, length=max(length, 1), scale=scale, backend=be)
        results.append(target.host())
    assert_same_bits(*results)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, spread: float = 1.0) -> NDArray[Any]:
    """Normal numbers, representable in `dtype`."""
    return np.asarray(rng.normal(size=shape) * spread, dtype)


def double(*arrays: NDArray[Any]) -> list[NDArray[np.float64]]:
    return [np.asarray(array, np.float64) for array in arrays]


def length_of(op: str, **sizes: int) -> int:
    return OPS[op].reduction(sizes)


def refuses(
    be: Any, error: type[Exception] | tuple[type[Exception], ...], call: Callable[..., Any], *args: Any, **kwargs: Any
) -> None:
    """Assert that a call is refused with a message; `error` says how much of the refusal the contract promises."""
    given = [*args, *kwargs.values()]
    given = [part for value in given for part in (value if isinstance(value, tuple) else (value,))]
    what = f"{call.__name__} with " + ", ".join(
        f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__ for value in given
    )
    try:
        call(*args, **kwargs)
    except Exception as refusal:
        if not isinstance(refusal, error) or not str(refusal).strip():
            raise AssertionError(f"{what}: refused with {type(refusal).__name__}: {refusal}") from refusal
    else:
        raise AssertionError(f"{what}: accepted")


@dataclass(frozen=True)
class Case:
    """One check with its parameters; `op` is the operation of the contract that it judges."""

    op: str
    name: str
    run: Callable[[Any, Any, np.random.Generator], None]


def case(judged: str, check: Callable[..., None], label: str = "", **kwargs: Any) -> Case:
    """Bind the parameters of a check and name it."""
    words = [check.__name__.removeprefix("check_"), label]
    return Case(judged, "-".join(word for word in words if word), partial(check, **kwargs))
