"""Checks of element-wise programs: broadcasting, overlaid outputs, and every function at the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bpcore.errors import BpcoreError, ShapeError
from bpcore.functions.program import Program
from tests.backends.judging import (
    DTYPES,
    LAYOUTS,
    SIZES,
    Case,
    View,
    blank,
    case,
    double,
    judge,
    numbers,
    refuses,
)
from tests.helpers.compare import assert_close, assert_same_bits
from tests.helpers.reference import LANGUAGE

ADAM = Program(
    "m = b1*m + (1 - b1)*g; v = b2*v + (1 - b2)*g*g; theta = theta - eta * (m/c1) / (sqrt(v/c2) + eps)",
    outputs=("theta", "m", "v"),
    name="adam",
)
BIASED = Program("t = (z + b) * s + c; h = max(t, 0) + k*min(t, 0)", outputs=("h",), name="biased")


def check_elementwise(
    be: Any,
    dtype: Any,
    rng: np.random.Generator,
    shape: tuple[int, ...] = (13, 11),
    layout: str = "C",
    out_layout: str = "C",
    row: str = "row",
) -> None:
    """A full array, a row, a column, one element and a number, all at once."""
    n, m = (shape[-1] if shape else 1), (shape[0] if len(shape) == 2 else 1)
    rows = {"row": (n,), "row1": (1, n), "full": shape}
    inputs = {
        "z": numbers(rng, shape, dtype),
        "b": numbers(rng, rows[row] if shape else (), dtype),
        "s": numbers(rng, (m, 1) if len(shape) == 2 else shape, dtype),
        "c": numbers(rng, (1,) if shape else (), dtype),
    }
    z, b, s, c = double(*inputs.values())
    t = (z + b) * s + c
    expected = np.maximum(t, 0) + 0.25 * np.minimum(t, 0)
    call = lambda out, **arrays: be.elementwise(BIASED, out=out, k=0.25, **arrays)  # noqa: E731
    judge(
        be,
        call,
        inputs,
        (shape, dtype),
        expected,
        layout=layout,
        out_layout=out_layout,
        scale=(np.abs(z) + np.abs(b)) * np.abs(s) + np.abs(c) + np.zeros(shape),
    )


def check_elementwise_in_place(
    be: Any, dtype: Any, rng: np.random.Generator, shape: tuple[int, ...] = (13, 11), layout: str = "C"
) -> None:
    """Three outputs that overlay three inputs; several numbers; later lines see new values."""
    hyper = {"b1": 0.9, "b2": 0.99, "eta": 0.125, "c1": 0.5, "c2": 0.25, "eps": 1e-8}
    state = {name: numbers(rng, shape, dtype) for name in ("theta", "m", "v", "g")}
    state["v"] = np.abs(state["v"]) + np.asarray(0.5, dtype)
    theta, m, v, g = double(*state.values())
    m = 0.9 * m + (1 - 0.9) * g
    v = 0.99 * v + (1 - 0.99) * g * g
    expected = {"theta": theta - 0.125 * (m / 0.5) / (np.sqrt(v / 0.25) + 1e-8), "m": m, "v": v}
    results = []
    for _ in range(2):
        views = {name: View(be, array, layout) for name, array in state.items()}
        arrays = {name: view.array for name, view in views.items()}
        outs = (arrays["theta"], arrays["m"], arrays["v"])
        try:
            returned = be.elementwise(ADAM, out=outs, **arrays, **hyper)
        except ShapeError:
            assert be.device != "cpu"
            assert layout != "C"
            return
        assert returned is outs
        for name, array in zip(ADAM.outputs, outs, strict=True):
            scale = np.abs(theta) + np.abs(expected["m"]) + np.abs(g) + 1
            assert_close(views[name].host(), np.asarray(expected[name]), dtype=dtype, scale=scale)
            assert array is arrays[name]
            views[name].assert_guards_intact()
        assert_same_bits(views["g"].host(), state["g"])
        results.append(np.array([views[name].host() for name in ADAM.outputs]))
    assert_same_bits(*results)


def check_elementwise_swap(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Outputs that overlay each other's inputs, as views and as the same objects."""
    program = Program("t = x; x = where(y > 0, y, x); y = t - 2*x", outputs=("y", "x"), name="swap")
    x, y = numbers(rng, (9, 7), dtype), numbers(rng, (9, 7), dtype)
    new_x = np.where(y > 0, y, x).astype(np.float64)
    new_y = x.astype(np.float64) - 2 * new_x
    for as_view in (False, True):
        X, Y = be.asarray(x.copy()), be.asarray(y.copy())
        given = (X[:], Y[:]) if as_view else (X, Y)
        outs = (X, Y)  # the output y goes where x was, and x where y was
        assert be.elementwise(program, out=outs, x=given[0], y=given[1]) is outs
        assert_close(X, new_y, dtype=dtype, scale=np.abs(x) + 2 * np.abs(new_x), backend=be)
        assert_close(Y, new_x, dtype=dtype, backend=be)


EDGES = [0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 9.0, -9.0, 30.0, -30.0, 88.0, -88.0]
EDGES += [100.0, -100.0, 1e4, -1e4, np.inf, -np.inf, np.nan]


def check_functions_at_the_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Every function of the language at zeros, tiny, huge, infinite and NaN arguments, and on a grid."""
    x = np.concatenate([np.array(EDGES), np.linspace(-12, 12, 97)]).astype(dtype)
    program = Program("; ".join(f"r_{name} = {name}(x)" for name in LANGUAGE), name="functions")
    outs = tuple(be.asarray(blank(x.shape, dtype)) for _ in LANGUAGE)
    be.elementwise(program, out=outs, x=be.asarray(x))
    (x64,) = double(x)
    largest = float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):
        for (name, function), out in zip(LANGUAGE.items(), outs, strict=True):
            expected = np.asarray(function(x64), np.float64)
            expected = np.where(np.abs(expected) > largest, np.copysign(np.inf, expected), expected)
            # The tail of the Gaussian squares its argument, which costs x**2 roundings; at 1e4 a rounded argument
            # of a sine would have no correct digit, but the argument here is exact.
            scale = np.abs(expected) * (1 + x64**2 if name == "erfc" else 1)
            try:
                assert_close(out, expected, dtype=dtype, scale=np.where(np.isfinite(scale), scale, 0.0), backend=be)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


def check_operators_at_the_edges(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Every pair of edge values through division, powers, minima, maxima and each comparison."""
    a, b = (grid.ravel().astype(dtype) for grid in np.meshgrid(EDGES, [*EDGES, 3.0, -3.0]))
    operators: dict[str, tuple[str, Callable[..., Any]]] = {
        "s": ("a + b", np.add),
        "d": ("a - b", np.subtract),
        "p": ("a * b", np.multiply),
        "q": ("a / b", np.divide),
        "w": ("a ** b", np.power),
        "lo": ("min(a, b)", np.minimum),
        "hi": ("max(a, b)", np.maximum),
        "lt": ("where(a < b, 1, 0)", np.less),
        "le": ("where(a <= b, 1, 0)", np.less_equal),
        "eq": ("where(a == b, 1, 0)", np.equal),
        "ne": ("where(a != b, 1, 0)", np.not_equal),
        "no": ("where(not a > b, 1, 0)", lambda a, b: ~(a > b)),
        "ch": ("where(a >= b and b > 0 or a == 1, a, b)", lambda a, b: np.where((a >= b) & (b > 0) | (a == 1), a, b)),
    }
    program = Program({name: text for name, (text, _) in operators.items()}, name="operators")
    outs = tuple(be.asarray(blank(a.shape, dtype)) for _ in operators)
    be.elementwise(program, out=outs, a=be.asarray(a), b=be.asarray(b))
    a64, b64 = double(a, b)
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        for (name, (text, function)), out in zip(operators.items(), outs, strict=True):
            expected = np.asarray(function(a64, b64), np.float64)
            expected = np.where(np.abs(expected) > float(info.max), np.copysign(np.inf, expected), expected)
            # the last place of a power moves with the exponent times the logarithm
            grow = 1 + np.nan_to_num(np.abs(b64 * np.log(np.abs(a64))), nan=0, posinf=0) if name == "w" else 1
            scale = np.nan_to_num(np.abs(expected) * grow, nan=0, posinf=0)
            try:
                assert_close(out, expected, dtype=dtype, scale=scale, backend=be)
            except AssertionError as error:
                raise AssertionError(f"{text}: {error}") from None


def refuse_elementwise(be: Any, dtype: Any, rng: np.random.Generator) -> None:
    other = DTYPES[dtype == DTYPES[0]]
    program = Program("h = z + w", name="plus")
    z, w, out = (be.zeros((3, 4), dtype) for _ in range(3))
    be.elementwise(program, out=out, z=z, w=w)  # the right call first, so that nothing is refused for its novelty
    refuses(be, ShapeError, be.elementwise, program, out=out, z=z)
    refuses(be, ShapeError, be.elementwise, program, out=out, z=z, w=be.zeros((3, 4), other))
    refuses(be, ShapeError, be.elementwise, program, out=be.zeros((3, 4), other), z=z, w=w)
    for shape in ((4, 3), (3,), (2, 4), (5,), (12,), (1, 3), (4, 1), (2, 1), (1, 1, 4), (2, 3, 4)):
        refuses(be, ShapeError, be.elementwise, program, out=out, z=z, w=be.zeros(shape, dtype))
    for wrong in (None, [[1.0] * 4] * 3, "1", np.ma.masked_array([1.0]) if be.device != "cpu" else None):
        refuses(be, (BpcoreError, TypeError), be.elementwise, program, out=out, z=z, w=wrong)
    refuses(be, (BpcoreError, ValueError), be.elementwise, program, out=(out, w), z=z, w=w)
    two = Program("h = z + w; k = z - w", name="two")
    refuses(be, (BpcoreError, ValueError), be.elementwise, two, out=out, z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((3, 4), other)), z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((4, 3), dtype)), z=z, w=w)
    refuses(be, ShapeError, be.elementwise, two, out=(out, be.zeros((4,), dtype)), z=z, w=w)


def cases() -> Iterator[Case]:
    """Every check of this file with its sizes and layouts."""
    for shape in [*SIZES, (3, 0), (), (1,), (7,), (8193,), (20_011,), (1, 9001), (9001, 1)]:
        yield case("elementwise", check_elementwise, f"{shape}", shape=shape, row="full" if len(shape) < 2 else "row")
        yield case("elementwise", check_elementwise_in_place, f"{shape}", shape=shape)
    yield case("elementwise", check_elementwise, "row1", row="row1")
    for layout in LAYOUTS[1:]:
        yield case("elementwise", check_elementwise, f"in-{layout}", layout=layout, row="full")
        yield case("elementwise", check_elementwise, f"out-{layout}", out_layout=layout)
        yield case("elementwise", check_elementwise_in_place, layout, layout=layout)
    yield case("elementwise", check_elementwise, "large-padded", shape=(127, 131), layout="padded", out_layout="step")
    yield case("elementwise", check_elementwise_swap)
    yield case("elementwise", check_functions_at_the_edges)
    yield case("elementwise", check_operators_at_the_edges)
    yield case("elementwise", refuse_elementwise)
