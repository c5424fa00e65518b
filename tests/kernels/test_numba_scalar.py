"""The scalar functions of the Numba loops: errors and edge values as promised, loops that vectorise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore.functions.expression import OPERATIONS
from bpcore.functions.program import Program
from bpcore.kernels.numba.accuracy import ACCURACY
from bpcore.kernels.numba.elementwise import compile_program
from bpcore.kernels.numba.operands import Operand
from tests.helpers.compare import assert_same_bits
from tests.kernels.accuracy import EXACT, Errors, arguments, compiled, evaluate, judge, patterns, search
from tests.kernels.assembly import TARGETS, Code, build, examine, family_of, intermediate, native_code

OTHERS = ("sqrt", "abs", "sign", "sin", "cos")
"""Functions that are right by IEEE arithmetic or come from the C library."""


@pytest.fixture(scope="module")
def fresh_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(autouse=True)
def own_cache(clean_environment: None, fresh_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of this module: only code that this process has compiled can be inspected."""
    monkeypatch.setenv("BPCORE_CACHE_DIR", fresh_folder)


def run(formula: str, *columns: Any, dtype: Any) -> Any:
    """Evaluate a formula of x, y, ... over arrays with the compiled loop."""
    program = Program(f"h = {formula}")
    arrays = {name: np.array(column, dtype) for name, column in zip("xyzw", columns, strict=False)}
    used = [arrays[name] for name in program.inputs]
    out = np.empty(len(columns[0]), dtype)
    vector = Operand("full", 1)
    compile_program(program, (vector,), (vector,) * len(used), np.dtype(dtype))(out, *used)
    return out


# -------------------------------------------------------------------------------- errors


def promise(name: str, errors: Errors, dtype: Any) -> None:
    bound = getattr(ACCURACY[name], np.dtype(dtype).name)
    assert errors.ulp <= bound, f"{name}({errors.at!r}): {errors.ulp} ulp, promised {bound}"
    assert errors.subnormal <= ACCURACY[name].subnormal, f"{name}: {errors}"


def test_the_table_has_every_function_that_is_judged() -> None:
    assert set(ACCURACY) == set(EXACT)
    printed = {name for name, op in OPERATIONS.items() if not op.infix and not op.truth}
    assert printed - set(ACCURACY) == {*OTHERS, "min", "max", "pow", "where"}


@pytest.mark.parametrize("name", list(ACCURACY))
def test_errors_are_as_promised(name: str, dtype: Any, rng: np.random.Generator) -> None:
    promise(name, search(name, arguments(name, dtype, 100_000, rng), rng), dtype)


@pytest.mark.parametrize("name", list(ACCURACY))
def test_errors_for_bit_patterns_of_every_exponent_and_sign(name: str, rng: np.random.Generator) -> None:
    errors = Errors()
    for x in patterns(4099):
        errors.include(search(name, x, rng, judged=20))
    promise(name, errors, np.float32)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(ACCURACY))
def test_errors_in_detail(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """The promise is kept, and it is not much larger than what was found."""
    blocks: Any = patterns(61)
    if dtype == np.float64:
        blocks = (arguments(name, dtype, 1_000_000, rng) for _ in range(20))
    errors = Errors()
    for x in blocks:
        errors.include(search(name, x, rng))
    promise(name, errors, dtype)
    assert errors.ulp > 0.75 * getattr(ACCURACY[name], dtype.name), errors


def test_a_wrong_last_digit_is_seen(rng: np.random.Generator, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What judges is judged: one result in 200 000 that is three units off, an early infinity, a lost NaN."""
    x = arguments("exp", dtype, 200_000, rng)
    good = evaluate("exp", x)
    normal = np.flatnonzero(np.isfinite(good) & (good > 1) & (x > 0.1))
    for place, value in ((normal[99], good[normal[99]] * (1 + 3 * np.finfo(dtype).eps)), (normal[7], np.inf)):
        bad = good.copy()
        bad[place] = value
        monkeypatch.setattr("tests.kernels.accuracy.evaluate", lambda name, x, bad=bad: bad)
        with pytest.raises(AssertionError, match=r"promised|mpmath says"):
            promise("exp", search("exp", x, rng), dtype)
    bad = good.copy()
    bad[np.flatnonzero(np.isnan(x))[0]] = 1
    monkeypatch.setattr("tests.kernels.accuracy.evaluate", lambda name, x: bad)
    with pytest.raises(AssertionError, match="mpmath says nan"):
        search("exp", x, rng)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_functions(name: str, dtype: Any, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(0, 1, 200), rng.uniform(-80, 80, 200)]).astype(dtype)
    x = np.abs(x) if name == "sqrt" else x
    expected = getattr(np, name)(x.astype(np.longdouble if dtype == np.float64 else np.float64))
    bound = {"sqrt": 0.5, "abs": 0.0, "sign": 0.0}.get(name, 1.0)
    unit = np.spacing(np.abs(expected).astype(dtype))
    # half of a thousandth for the rounding of the reference, and of the unit next to a power of two
    assert np.max(np.abs(evaluate(name, x) - expected) / unit) <= bound + 0.0005


@pytest.mark.parametrize("name", list(ACCURACY))
def test_a_result_does_not_depend_on_its_place(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """Vectors and what is left over at the end of a loop compute the same bits, so rows may be split at will."""
    x = arguments(name, dtype, 2000, rng)[::3].copy()
    whole, kernel = evaluate(name, x), compiled(name, dtype.name)
    pieces = np.empty_like(x)
    starts = np.cumsum(rng.integers(1, 40, len(x)))
    for start, stop in zip([0, *starts], [*starts, len(x)], strict=True):
        kernel(pieces[start:stop], x[start:stop])
    # NaN is NaN; which of its bits are set depends on the instruction and means nothing
    assert_same_bits(*(np.where(np.isnan(array), np.nan, array).astype(dtype) for array in (pieces, whole)))


# -------------------------------------------------------------------------------- vector instructions


def check_vectors(code: Code) -> None:
    """Whether a loop computes with vectors, whole and without a call."""
    assert not code.calls
    assert code.packed > 0
    assert code.mixed == 0


@pytest.mark.parametrize("name", list(ACCURACY))
def test_loops_become_vector_instructions(name: str, dtype: Any) -> None:
    import llvmlite.binding as llvm
    import numba

    if numba.config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    family = family_of(llvm.get_process_triple())
    features = llvm.get_host_cpu_features()
    if family is None or (family == "x86" and not (features.get("avx2") and features.get("fma"))):
        pytest.skip(f"no judgement about this processor: {llvm.get_process_triple()}, {llvm.get_host_cpu_name()}")
    check_vectors(examine(*native_code(compiled(name, dtype.name)), family))


def test_a_call_of_the_c_library_is_seen(dtype: Any) -> None:
    import llvmlite.binding as llvm

    family = family_of(llvm.get_process_triple())
    if family is None:
        pytest.skip("no judgement about this processor")
    code = examine(*native_code(compiled("sin", dtype.name)), family)
    assert code.calls
    with pytest.raises(AssertionError):
        check_vectors(code)


@pytest.fixture(scope="module")
def intermediate_code(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return intermediate([*ACCURACY, "sin"], str(tmp_path_factory.mktemp("cache")))


@pytest.mark.slow
@pytest.mark.parametrize("target", list(TARGETS))
def test_loops_become_vector_instructions_of_other_processors(target: str, intermediate_code: Any) -> None:
    import llvmlite.binding as llvm

    triple, cpu = TARGETS[target]
    try:
        llvm.initialize_all_targets()
        llvm.Target.from_triple(triple)
    except RuntimeError as error:
        pytest.skip(f"this LLVM does not know {triple}: {error}")
    family = family_of(triple)
    assert family is not None
    for (function, _), (name, text) in intermediate_code.items():
        code = examine(build(text, triple, cpu), name, family)
        if function == "sin":
            assert code.calls
        else:
            check_vectors(code)


# -------------------------------------------------------------------------------- edges

INF, NAN = math.inf, math.nan
EDGES = [
    ("sqrt", [(0.0, 0.0), (INF, INF), (-1.0, NAN)]),
    ("abs", [(-INF, INF), (-0.0, 0.0)]),
    ("sign", [(-INF, -1.0), (-2.0, -1.0), (0.0, 0.0), (3.0, 1.0), (INF, 1.0)]),
    ("sin", [(INF, NAN)]),
    ("cos", [(INF, NAN)]),
    *((name, list(promised.limits)) for name, promised in ACCURACY.items()),
]


@pytest.mark.parametrize(("name", "pairs"), EDGES, ids=[name for name, _ in EDGES])
def test_limits_and_nan(name: str, pairs: list[tuple[float, float]], dtype: Any) -> None:
    """At the edges, NaN included, results are exact and zeros have their sign."""
    x, expected = np.array([*pairs, (NAN, NAN)], dtype).T
    # nine times, so that vectors meet them too
    found = evaluate(name, np.tile(x, 9))
    np.testing.assert_array_equal(found, np.tile(expected, 9))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[: len(x)][numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("name", list(ACCURACY))
def test_far_away_the_limit_is_reached(name: str, dtype: Any) -> None:
    far = np.array([-np.finfo(dtype).max, -1e4, 1e4, np.finfo(dtype).max], dtype)
    found = evaluate(name, far)
    if name in ("log", "log1p"):
        found, far = found[2:], far[2:]
    judge(name, far, found)
    limits = dict(ACCURACY[name].limits)
    if name not in ("log", "log1p", "softplus"):
        np.testing.assert_array_equal(found, np.array([limits[-INF]] * 2 + [limits[INF]] * 2, dtype))
    if name == "softplus":
        np.testing.assert_array_equal(found, np.maximum(far, 0))


PAIRS = [(a, b) for a in (-INF, -1.5, 0.0, 2.0, INF, NAN) for b in (-INF, -1.5, 0.0, 2.0, INF, NAN)]


@pytest.mark.parametrize(
    ("formula", "reference"),
    [
        ("min(x, y)", np.minimum),
        ("max(x, y)", np.maximum),
        ("x ** y", np.power),
        ("where(x < y, x, y)", lambda a, b: np.where(a < b, a, b)),
        ("where(x <= y and not x == 0, 1, 0)", lambda a, b: ((a <= b) & (a != 0)).astype(float)),
        ("where(x > y or x != x, 1, 0)", lambda a, b: ((a > b) | (a != a)).astype(float)),
        ("x / y", np.divide),
    ],
)
def test_two_arguments_mean_what_numpy_means(formula: str, reference: Any, dtype: Any) -> None:
    x, y = np.array(PAIRS, dtype).T
    with np.errstate(all="ignore"):
        expected = reference(x, y)
    np.testing.assert_allclose(run(formula, x, y, dtype=dtype), expected.astype(dtype), rtol=2 * np.finfo(dtype).eps)


def test_powers_by_multiplication_and_by_the_library(dtype: Any, rng: np.random.Generator) -> None:
    x = rng.uniform(-3, 3, 50).astype(dtype)
    rtol = 4 * float(np.finfo(dtype).eps)
    wide = x.astype(np.float64)
    for power in (2, 3, 5):
        np.testing.assert_allclose(run(f"x ** {power}", x, dtype=dtype), wide**power, rtol=rtol)


def test_every_function_of_the_language_has_one_here() -> None:
    from bpcore.kernels.numba import scalar

    printed = {
        f"{name}_" for name, op in OPERATIONS.items() if not op.infix and not op.truth and name not in ("neg", "where")
    }
    assert printed <= set(scalar.__all__)


@pytest.mark.parametrize("name", [*ACCURACY, *OTHERS, "square", "cube"])
def test_the_python_body_is_a_reference_of_the_compiled_one(name: str, dtype: Any) -> None:
    from bpcore.kernels.numba import scalar

    body = getattr(scalar, f"{name}_")
    formula = {"square": "x ** 2", "cube": "x ** 3"}.get(name, f"{name}(x)")
    x = np.array([0.3, 1.7], dtype)
    plain = [body(a) for a in x]
    assert all(value.dtype == dtype for value in plain)
    np.testing.assert_allclose(run(formula, x, dtype=dtype), plain, rtol=8 * float(np.finfo(dtype).eps))
