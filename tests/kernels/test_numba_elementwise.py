"""Printed loops: values for every kind of argument, vector instructions, constants in double precision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore.backends.numba_backend import NumbaBackend
from bpcore.functions.program import Program
from bpcore.kernels.numba.elementwise import compile_program, print_program
from bpcore.kernels.numba.operands import Operand
from tests.helpers.compare import assert_close

FLOAT32 = np.dtype(np.float32)
VECTOR = Operand("full", 1)
MATRIX = Operand("full", 2)
NUMBER = Operand("scalar")


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend()


def layouts(X: Any) -> dict[str, Any]:
    """The same matrix in C order, Fortran order, as a strided view, and read-only."""
    wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
    wide[::2, ::3] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    return {"C": X.copy(), "F": np.asfortranarray(X), "strided": wide[::2, ::3], "read-only": frozen}


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 13), (64, 17), (1, 16), (5, 1), (3, 0)])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only"])
def test_all_kinds_of_arguments_and_layouts(
    numba_backend: NumbaBackend, shape: tuple[int, int], layout: str, dtype: Any, rng: np.random.Generator
) -> None:
    m, n = shape
    Z, row, row2, column = (rng.normal(size=s).astype(dtype) for s in (shape, (n,), (1, n), (m, 1)))
    one, eta = np.array([[0.75]], dtype), 0.3
    program = Program("h = Z*row + row2*column - eta*one; k = h*h", name="kinds")
    with np.errstate(all="ignore"):
        Z64, row64, row264, column64 = (a.astype(np.float64) for a in (Z, row, row2, column))
        h = Z64 * row64 + row264 * column64 - eta * 0.75
    out_h = layouts(np.full(shape, np.nan, dtype))["C" if layout == "read-only" else layout]
    out_k = np.full(shape, np.nan, dtype)
    outs = numba_backend.elementwise(
        program, out=(out_h, out_k), Z=layouts(Z)[layout], row=row, row2=row2, column=column, one=one, eta=eta
    )
    assert outs[0] is out_h
    assert outs[1] is out_k
    # sums of products of size one: errors relative to the terms, not to a sum that cancels
    assert_close(np.ascontiguousarray(out_h), h, dtype=dtype, scale=np.abs(h) + 1)
    assert_close(out_k, h * h, dtype=dtype, scale=(np.abs(h) + 1) ** 2)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1000,)])
def test_vectors_and_numbers(numba_backend: NumbaBackend, shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = np.array(rng.normal(size=shape), dtype), np.array(rng.normal(size=shape), dtype)
    single = np.array(2.0, dtype)
    out = np.empty(shape, dtype)
    result = numba_backend.elementwise(Program("h = x*y + s*c"), out=out, x=x, y=y, s=single, c=3)
    assert result is out
    # one product and one sum of size up to ten
    assert_close(out, np.asarray(x.astype(np.float64) * y + 6.0), dtype=dtype, scale=10.0)


def test_one_dimensional_results_take_a_row_with_two_axes(numba_backend: NumbaBackend, dtype: Any) -> None:
    x, row = np.arange(4, dtype=dtype), np.arange(4, dtype=dtype).reshape(1, 4)
    out = numba_backend.elementwise(Program("h = x + row"), out=np.empty(4, dtype), x=x, row=row)
    assert_close(out, np.array([0.0, 2, 4, 6]), dtype=dtype)


def test_strided_vectors(numba_backend: NumbaBackend, dtype: Any) -> None:
    base = np.arange(20, dtype=dtype)
    target = np.zeros(20, dtype)
    numba_backend.elementwise(Program("h = 2*x"), out=target[1::2], x=base[::2])
    assert_close(target[1::2].copy(), np.arange(0, 40, 4.0), dtype=dtype)
    assert not target[::2].any()


STEP = Program("v = mu*v + g; theta = theta - eta*v", outputs=("theta", "v"))


@pytest.mark.parametrize("alias", ["same object", "other view", "none"])
def test_in_place_updates_are_exact_for_every_element(
    numba_backend: NumbaBackend, alias: str, dtype: Any, rng: np.random.Generator
) -> None:
    theta, v, g = (rng.normal(size=1037).astype(dtype) for _ in range(3))
    new_v = 0.9 * v.astype(np.float64) + g
    new_theta = theta.astype(np.float64) - 0.1 * new_v
    old = {"same object": (theta, v), "other view": (theta[:], v[:]), "none": (theta.copy(), v.copy())}[alias]
    numba_backend.elementwise(STEP, out=(theta, v), theta=old[0], v=old[1], g=g, mu=0.9, eta=0.1)
    # two products and two sums of size up to five, which may cancel
    assert_close(v, new_v, dtype=dtype, scale=5.0)
    assert_close(theta, new_theta, dtype=dtype, scale=5.0)


def test_outputs_may_be_exchanged_inputs(numba_backend: NumbaBackend, dtype: Any) -> None:
    a, b = np.arange(33, dtype=dtype), -np.arange(33, dtype=dtype)
    numba_backend.elementwise(Program("x = y + 0*x; y = x0", outputs=("x", "y")), out=(a, b), x=a, y=b, x0=7.0)
    assert_close(a, -np.arange(33.0), dtype=dtype)
    assert_close(b, np.full(33, 7.0), dtype=dtype)


def test_numbers_are_combined_in_float64(numba_backend: NumbaBackend) -> None:
    # in float32, 1 - 0.999 = 0.00099998712: wrong in the fifth digit
    out = np.empty(3, np.float32)
    program = Program("c = 1 - beta; h = x * c / (1 - beta**2)")
    numba_backend.elementwise(
        Program(dict(program.assignments), outputs=("h",)), out=out, x=np.ones(3, "f"), beta=0.999
    )
    assert_close(out, np.full(3, 0.001 / (1 - 0.999**2)), dtype=np.float32, factor=2.0)


def test_a_number_may_be_assigned_and_used_again(numba_backend: NumbaBackend, dtype: Any) -> None:
    program = Program("eta = eta / 2; h = eta * x; eta = eta * x; k = eta", outputs=("h", "k"))
    h, k = np.empty(2, dtype), np.empty(2, dtype)
    numba_backend.elementwise(program, out=(h, k), x=np.array([1.0, 2.0], dtype), eta=3.0)
    assert_close(h, np.array([1.5, 3.0]), dtype=dtype)
    assert_close(k, np.array([1.5, 3.0]), dtype=dtype)


def test_conditions_on_numbers_and_outputs_without_arrays(numba_backend: NumbaBackend, dtype: Any) -> None:
    out = np.empty(3, dtype)
    x = np.array([1.0, 2.0, 3.0], dtype)
    for t, expected in ((1, x), (20, -x)):
        numba_backend.elementwise(Program("h = x if t < 10 and t > 0 else -x"), out=out, x=x, t=t)
        assert_close(out, expected.astype(np.float64), dtype=dtype)
    numba_backend.elementwise(Program("h = 2 * c"), out=out, c=0.25)
    assert_close(out, np.full(3, 0.5), dtype=dtype)
    numba_backend.elementwise(Program("h = 1.5"), out=out)
    assert_close(out, np.full(3, 1.5), dtype=dtype)


def test_names_that_python_reserves(numba_backend: NumbaBackend) -> None:
    out = numba_backend.elementwise(
        Program("o0 = n * i + K0; T = o0"), out=(np.empty(2), np.empty(2)), n=2.0, i=3.0, K0=1.0
    )
    assert_close(out[1], np.full(2, 7.0), dtype=np.float64)


UPDATES = {
    "add": ("h = x + y", 0),
    "relu": ("h = max(x, 0)", 0),
    "sigmoid": ("h = sigmoid(x)", 0),
    "gelu": ("h = 0.5 * x * (1 + erf(x / 1.4142135623730951))", 0),
    "elu": ("h = x if x > 0 else expm1(x)", 0),
    "momentum": ("v = mu*v + g; theta = theta - eta*v", 2),
    "adam": (
        "m = b1*m + (1 - b1)*g; v = b2*v + (1 - b2)*g**2; theta = theta - eta*m / (sqrt(v) + eps)",
        3,
    ),
}


@pytest.mark.parametrize("name", list(UPDATES))
def test_loops_use_vector_instructions(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numba

    if numba.config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    # only freshly compiled code can be inspected
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    text, in_place = UPDATES[name]
    program = Program(text)
    same = {output: Operand("same", output=k) for k, output in enumerate(program.outputs) if in_place}
    numbers = ("mu", "eta", "b1", "b2", "eps")
    arguments = tuple(same.get(n, NUMBER if n in numbers else VECTOR) for n in program.inputs)
    kernel: Any = compile_program(program, (VECTOR,) * len(program.outputs), arguments, FLOAT32)
    (llvm,) = kernel.inspect_llvm().values()
    assert re.search(r"store <\d+ x float>", llvm)
    assert " double" not in "\n".join(line for line in llvm.splitlines() if "<" in line and "double>" in line)


def test_the_printed_text() -> None:
    program = Program("h = max(Z + b, 0) * (1 - rate)", name="relu 'x'\nimport os")
    text = print_program(program, (MATRIX,), (MATRIX, Operand("row", 1), NUMBER), FLOAT32)
    assert text.splitlines()[0].startswith("# ")
    assert "K0 = T(0.0)" in text
    assert "v_0 = np.float64(a_rate)" in text
    assert "for j in range(n):" in text
    assert "import os" not in text.splitlines()
    flat = print_program(program, (MATRIX,), (MATRIX, NUMBER, NUMBER), FLOAT32)
    assert "o0 = o0.reshape(n)" in flat
    assert "for j" not in flat
