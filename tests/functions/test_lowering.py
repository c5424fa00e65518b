"""Lowering: random programs through the NumPy evaluator against our own evaluator, aliased and broadcast."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from bpcore.backends.numpy_backend import NumpyBackend
from bpcore.functions.expression import OPERATIONS, evaluate
from bpcore.functions.lowering import lower
from bpcore.functions.program import Program
from tests.helpers.trees import assert_within, bounded, make_tree, render

SHAPES = [(6, 5), (1, 7), (7, 1), (1, 1), (11,), (1,), (), (0, 3), (3, 0), (0,)]


# ------------------------------------------------------------------------------------------------ values


def random_program(choose):
    """Return (program, list of (target, tree)): up to four lines, temporaries, names assigned again."""
    names, lines = ["x", "y", "s"], []
    for k in range(choose((1, 1, 2, 3, 4))):
        target = choose((f"t{k}", "x", "y", f"t{k}"))
        tree = make_tree(choose, names, choose((0, 2, 3)))
        lines.append((target, tree))
        if target not in names:
            names.append(target)
    targets = list(dict.fromkeys(target for target, _ in lines))
    outputs = [target for target in targets if choose((True, True, False))] or targets[-1:]
    if choose((True, False)):
        outputs.reverse()
    program = Program("; ".join(f"{target} = {render(tree)}" for target, tree in lines), outputs=outputs)
    return program, lines


def random_array(rng, shape, dtype, choose):
    """Random values in one of three memory layouts."""
    values = np.asarray(rng.normal(size=shape) * 2, dtype)
    layout = choose(("C", "C", "F", "strided"))
    if layout == "F" and shape:
        return np.asfortranarray(values)
    if layout == "strided" and shape:
        wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    return values


def random_argument(rng, shape, dtype, choose):
    """One of the forms that the contract of elementwise allows."""
    n = shape[-1] if shape else 1
    forms = ["full", "full", "scalar", "one", "zero-dimensional"]
    if len(shape) == 2:
        forms += ["row", "row1", "column"]
    form = choose(forms)
    if form == "scalar":
        return float(np.float32(rng.normal()))
    sizes = {"full": shape, "one": (1,), "zero-dimensional": (), "row": (n,), "row1": (1, n)}
    return random_array(rng, sizes.get(form, (shape[0] if shape else 1, 1)), dtype, choose)


def expected_values(lines, values, shape, dtype):
    """Bounds for every name after the last line."""
    known: dict[str, Any] = {}
    for name, value in values.items():
        value = np.array(value, np.float64)
        value = np.broadcast_to(value.reshape(()) if value.size == 1 else value, shape)
        # a Python number is rounded to the dtype when it meets an array
        known[name] = (value, np.zeros(shape) if isinstance(values[name], np.ndarray) else 1e-7 * abs(value))
    for target, tree in lines:
        known[target] = bounded(tree, known, dtype)
    return known


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", range(10))
def test_random_programs(block, dtype):
    backend, judged, total = NumpyBackend(), 0, 0
    for seed in range(60):
        choose, rng = random.Random(1000 * block + seed).choice, np.random.default_rng(1000 * block + seed)
        program, lines = random_program(choose)
        shape = SHAPES[seed % len(SHAPES)]
        values = {name: random_argument(rng, shape, dtype, choose) for name in program.inputs}
        expected = expected_values(lines, values, shape, dtype)
        outs = tuple(random_array(rng, shape, dtype, choose) for _ in program.outputs)
        for array in outs:
            array[...] = np.nan
        before = {name: np.array(value) for name, value in values.items()}
        given = outs if len(outs) > 1 or choose((True, False)) else outs[0]
        assert backend.elementwise(program, out=given, **values) is given
        for name, array in zip(program.outputs, outs, strict=True):
            judged += assert_within(np.array(array), expected[name], dtype, f"{name} of {program}, {shape}")
            total += array.size
        for name, value in values.items():
            assert np.array_equal(value, before[name]), f"{program} changed its input {name}"
    assert judged > 0.6 * total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", range(10))
def test_random_programs_in_place(block, dtype):
    """Every output overlays some input, its own or another's, or stands alone."""
    backend, aliased = NumpyBackend(), 0
    for seed in range(60):
        choose: Any = random.Random(7000 * block + seed).choice
        rng = np.random.default_rng(7000 * block + seed)
        program, lines = random_program(choose)
        shape = ((6, 5), (11,), (1, 1))[seed % 3]
        values = {name: random_argument(rng, shape, dtype, choose) for name in program.inputs}
        expected = expected_values(lines, values, shape, dtype)
        free = [v for v in values.values() if isinstance(v, np.ndarray) and v.shape == shape]
        outs: list[np.ndarray] = []
        for _ in program.outputs:
            if free and choose((True, True, False)):
                outs.append(free.pop(choose(range(len(free)))))
                aliased += 1
            else:
                outs.append(np.full(shape, np.nan, dtype))
        # an overlaid argument must be a view of the same memory, not necessarily the same object
        given = {
            name: v.view() if isinstance(v, np.ndarray) and choose((True, False)) else v for name, v in values.items()
        }
        backend.elementwise(program, out=tuple(outs), **given)
        for name, array in zip(program.outputs, outs, strict=True):
            assert_within(np.array(array), expected[name], dtype, f"{name} of {program}, {shape}")
    assert aliased > 10


@pytest.mark.parametrize(
    ("code", "outputs"),
    [
        ("x = y; y = x + 0*y", ("x", "y")),
        ("t = x; x = y; y = t", ("x", "y")),
        ("t = x; x = y; y = t", ("y", "x")),
        ("x = where(y > 0, y, x)", ("x",)),
        ("x = where(x > 0, y, x)", ("x",)),
        ("x = where(x > y, x, y); y = where(x > y, y, x)", ("x", "y")),
        ("x = x - y; y = x + y; x = y - x", ("x", "y")),
        ("x = where(x > 0, where(y > 0, x, y), where(y > 0, y, x))", ("x",)),
        ("x = exp(x) + exp(y); y = exp(x) * exp(y)", ("x", "y")),
        ("t = max(x, y); y = min(x, y); x = t", ("x", "y")),
        ("x = 3", ("x",)),
        ("x = 3; y = x", ("x", "y")),
        ("x = 2*s; y = x + s", ("x", "y")),
    ],
)
def test_overlaid_swaps_and_choices(code, outputs, dtype):
    rng = np.random.default_rng(5)
    program = Program(code, outputs=outputs)
    start = {name: rng.normal(size=(5, 4)).astype(dtype) for name in "xy"}
    values: dict[str, Any] = {**{k: v.astype(np.float64) for k, v in start.items()}, "s": 0.75}
    for target, expr in program.assignments:
        values[target] = evaluate(expr, values)
    arrays = {name: array.copy() for name, array in start.items()}
    given = {name: arrays[name] if name in arrays else 0.75 for name in program.inputs}
    NumpyBackend().elementwise(program, out=tuple(arrays[name] for name in outputs), **given)
    for name in outputs:
        # exp and two sums
        np.testing.assert_allclose(arrays[name], np.broadcast_to(values[name], (5, 4)), rtol=32 * np.finfo(dtype).eps)


# ------------------------------------------------------------------------------------------------ structure


def operations(program, scalars=()):
    return [instruction.op for instruction in lower(program, scalars).instructions]


def test_equal_parts_are_computed_once():
    ops = operations(Program("a = exp(x) * (1 - exp(x)); b = exp(x) + tanh(y) * tanh(y)"))
    assert ops.count("exp") == 1
    assert ops.count("tanh") == 1


def test_a_name_that_was_assigned_again_is_not_the_same_part():
    program = Program("a = exp(x); x = 2*x; b = exp(x)")
    assert operations(program).count("exp") == 2


def test_what_depends_on_scalars_alone_is_computed_as_a_scalar():
    lowered = lower(Program("m = beta*m + (1 - beta)*g"), scalars=["beta"])
    scalar = [i for i in lowered.instructions if i.dest[0] == "scalar"]
    assert [i.op for i in scalar] == ["sub"]
    assert lowered.n_scalars == 1


def test_scalar_registers_outlive_array_steps(dtype):
    # the scalar parts are computed first, all of them, so none may take the place of another
    program = Program("m = b*m + (1 - b)*g; v = c*v + (1 - c)*g; h = (1 - d)*m/v")
    values = {"b": 0.5, "c": 0.75, "d": -1.0}
    arrays = {"m": np.full(3, 8.0, dtype), "v": np.full(3, 4.0, dtype), "g": np.full(3, 2.0, dtype)}
    outs = tuple(np.empty(3, dtype) for _ in range(3))
    NumpyBackend().elementwise(program, out=outs, **values, **arrays)
    # m = 4 + 1, v = 3 + 0.5, h = 2 * 5 / 3.5
    np.testing.assert_allclose(np.array(outs)[:, 0], [5.0, 3.5, 2 * 5 / 3.5], rtol=8 * np.finfo(dtype).eps)


def test_a_square_is_a_product():
    assert operations(Program("h = x**2")) == ["mul"]


def test_sigmoid_and_softplus_are_written_with_simpler_operations():
    for name in ("sigmoid", "softplus"):
        ops = operations(Program(f"h = {name}(x)"))
        assert name not in ops
        assert all(OPERATIONS[op].expansion is None for op in ops)


def test_registers_are_used_again():
    chain = Program("h = " + "tanh(" * 30 + "x" + " + y)" * 30)
    assert lower(chain).n_numbers <= 2
    assert lower(Program("h = x + 1")).n_numbers == 0, "a single operation writes straight into its output"


def test_no_instruction_reads_a_register_before_it_is_written():
    choose = random.Random(9).choice
    for _ in range(300):
        program, _ = random_program(choose)
        for scalars in ((), ("x",), tuple(program.inputs)):
            lowered = lower(program, scalars)
            written = set()
            sizes = {"num": lowered.n_numbers, "truth": lowered.n_truths, "scalar": lowered.n_scalars}
            for instruction in lowered.instructions:
                for kind, key in instruction.args:
                    if kind in ("num", "truth", "scalar", "out"):
                        assert (kind, key) in written, f"{program}: {instruction}"
                kind, key = instruction.dest
                if kind in sizes:
                    assert 0 <= int(key) < sizes[kind]
                written.add(instruction.dest)
            assert {("out", k) for k in range(len(program.outputs))} <= written


def test_scalars_only(dtype):
    out = np.full((2, 3), np.nan, dtype)
    NumpyBackend().elementwise(Program("h = 2*s + t"), out=out, s=1.5, t=1)
    assert np.array_equal(out, np.full((2, 3), 4.0, dtype))


def test_python_integers_and_numpy_scalars_are_numbers(dtype):
    out = np.empty(3, dtype)
    x = np.arange(3, dtype=dtype)
    NumpyBackend().elementwise(Program("h = a*x + b + c"), out=out, x=x, a=2, b=np.float64(0.25), c=np.int64(1))
    assert out.tolist() == [1.25, 3.25, 5.25]
