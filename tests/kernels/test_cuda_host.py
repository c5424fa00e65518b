"""The CUDA sources compute the right numbers when their threads run on the CPU, in several orders.

Nothing here is a measurement of a GPU: g++ compiles the text that a GPU would get, see bpcore.kernels.cuda.host_runner.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

from bpcore.functions.expression import evaluate
from bpcore.functions.program import Program
from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from bpcore.kernels.cuda.source import print_elementwise, translation_unit
from tests.helpers.compare import assert_close
from tests.kernels import catalogue, cuda_cases
from tests.kernels.on_host import is_noticed, leaves_its_arrays, on_host, stays_inside

ROOT = Path(__file__).resolve().parents[2]

pytestmark = on_host


@pytest.fixture
def folder(kernel_folder: Path) -> Path:
    return kernel_folder


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("seed", host_runner.SEEDS)
def test_all_kernels_under_every_schedule(folder: Path, dtype: Any, seed: int, offset: int) -> None:
    cuda_cases.run_all(cuda_cases.Bench(folder, dtype, seed=seed, offset=offset))


def test_empty_arrays(folder: Path, dtype: Any) -> None:
    bench = cuda_cases.Bench(folder, dtype)
    empty, index = bench.blank(0), bench.place([], np.int64)
    bench.launch("rowwise", "softmax_narrow", (1,), (32,), empty, empty, 0, 5, np.int32(8))
    bench.launch("rowwise", "softmax_wide", (1,), (32,), empty, empty, 0, 5)
    bench.launch("gather", "take_rows_8", (1, 1), (32, 1), bench.blank(0, dtype=np.float64), index, index, 0, 0, 3)
    bench.launch("random", "dropout_mask", (1,), (32,), empty, 0, *[np.uint32(0)], dtype.type(1), *[np.uint32(0)] * 5)
    for name in ("total", "sum_squares", "count_not_finite"):
        out = bench.blank(1, dtype=np.float64)
        bench.launch("reductions", name, (1,), (32,), empty, out, 0)
        assert out[0] == 0
    out = bench.blank(3)
    bench.launch("reductions", "column_sums", (1, 1), (4, 8), empty, out, bench.blank(1, dtype=np.float64), 0, 3)
    assert (out == 0).all()


EDGES = [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 3.0, -3.0, 1e4, -1e4, np.inf, -np.inf, np.nan]


def test_rows_with_edge_values(folder: Path, dtype: Any) -> None:
    bench = cuda_cases.Bench(folder, dtype)
    rows = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [0.0, -np.inf, 0.0], [np.nan, 1.0, 2.0], [np.inf, 1.0, 2.0]]
    Z = bench.place(rows)
    m, n = Z.shape
    with np.errstate(invalid="ignore", divide="ignore"):
        E = np.exp(Z.astype(np.float64) - Z.astype(np.float64).max(axis=1, keepdims=True))
        H = E / E.sum(axis=1, keepdims=True)
    for wide, log in ((False, False), (True, False), (False, True), (True, True)):
        out = bench.blank(m, n)
        cuda_cases._launch_rows(bench, "log_softmax" if log else "softmax", wide, m, n, Z, out)
        with np.errstate(divide="ignore"):
            expected = np.log(H) if log else H
        if log:
            expected[0] = [0, -2e4, -1e4]  # below the smallest probability that float64 holds
        assert_close(out, expected, dtype=dtype)


REFERENCES: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "abs": np.abs,
    "sign": np.sign, "tanh": np.tanh, "erf": scipy.special.erf, "erfc": scipy.special.erfc,
    "sigmoid": scipy.special.expit, "softplus": lambda x: np.logaddexp(x, 0), "sin": np.sin, "cos": np.cos,
}  # fmt: skip


def _run(
    folder: Path,
    program: Program,
    kinds: dict[str, str],
    dtype: Any,
    shape: tuple[int, ...],
    seed: int = 2,
    **args: Any,
) -> list[Any]:
    kernel = print_elementwise(program, kinds)
    module = HostModule(kernel.source(dtype), folder)
    outs = [np.full(shape, np.nan, dtype) for _ in program.outputs]
    values = dict(args)
    if kernel.host is not None:
        for target, expr in kernel.host.assignments:
            values[target] = evaluate(expr, values)
    numbers = [np.dtype(dtype).type(values[name]) for name in kernel.numbers]
    sizes = (int(np.prod(shape)),) if kernel.flat else shape
    grid, block = ((2,), (32,)) if kernel.flat else ((2, 2), (8, 4))
    arguments = (*outs, *(args[name] for name in kernel.arrays), *numbers, *map(np.int64, sizes))
    module.launch(kernel.name, grid, block, arguments, seed=seed)
    return outs


def test_scalar_functions_against_numpy_and_scipy(folder: Path, dtype: Any) -> None:
    x = np.array([*EDGES, *np.random.default_rng(0).normal(size=18) * 4, 1.0, 20.0], dtype)
    program = Program({f"{name}_x": f"{name}(x)" for name in REFERENCES})
    outs = _run(folder, program, {"x": "full"}, dtype, x.shape, x=x)
    for reference, out in zip(REFERENCES.values(), outs, strict=True):
        with np.errstate(all="ignore"):
            expected = reference(x.astype(np.float64)).astype(np.float64)
            expected = np.where(np.abs(expected) > np.finfo(dtype).max, np.copysign(np.inf, expected), expected)
        assert_close(out, expected, dtype=dtype)


def test_functions_of_two_arguments(folder: Path, dtype: Any) -> None:
    pairs = np.array([(a, b) for a in EDGES for b in EDGES] + [(2.0, 0.5), (-2.0, 3.0), (1.5, -7.0)], dtype)
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    program = Program("lo = min(a, b); hi = max(a, b); p = a**b; s = a**2; c = a**3; w = where(a < b, 1, 2)")
    outs = _run(folder, program, {"a": "full", "b": "full"}, dtype, a.shape, a=a, b=b)
    with np.errstate(all="ignore"):
        expected = [np.minimum(a, b), np.maximum(a, b), a**b, a * a, a * a * a, np.where(a < b, 1.0, 2.0)]
    for out, reference in zip(outs, expected, strict=True):
        assert_close(out, reference.astype(np.float64), dtype=dtype)


def test_subnormal_numbers(folder: Path) -> None:
    z = np.array([1e-40, 3e-44], np.float32)
    (h,) = _run(folder, Program("h = log(z)"), {"z": "full"}, "float32", z.shape, z=z)
    assert_close(h, np.log(z.astype(np.float64)), dtype="float32")


KINDS = ["full", "one", "row", "column", "scalar"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
def test_every_kind_of_argument(folder: Path, dtype: Any, kind: str, offset: int) -> None:
    program = Program("t = z + b*b; h = t*z; g = t - h", outputs=("h", "g"), name="kinds")
    rng = np.random.default_rng(3)
    for shape in ((1, 1), (1, 7), (5, 4), (40, 3), (3, 65), (13, 10)):
        m, n = shape
        size = {"full": (m, n), "one": (1,), "row": (n,), "column": (m, 1), "scalar": ()}[kind]
        b = rng.normal(size=size).astype(dtype) if size else 0.75
        raw = np.empty(m * n + offset, dtype)
        z = raw[offset:].reshape(shape)
        z[...] = rng.normal(size=shape)
        z64, b64 = z.astype(np.float64), np.asarray(b, np.float64)
        t = z64 + b64 * b64
        for seed in host_runner.SEEDS:
            h, g = _run(folder, program, {"z": "full", "b": kind}, dtype, shape, seed, z=z, b=b)
            assert_close(h, t * z64, dtype=dtype, scale=(np.abs(z64) + b64**2) * np.abs(z64))
            assert_close(g, t - t * z64, dtype=dtype, scale=(np.abs(z64) + b64**2) * (1 + np.abs(z64)))


def test_a_result_may_be_the_memory_of_an_argument(folder: Path, dtype: Any) -> None:
    program = Program("v = mu*v + g; theta = theta - eta*v", name="in place")
    kernel = print_elementwise(program, dict(v="full", g="full", theta="full", mu="scalar", eta="scalar"))
    module = HostModule(kernel.source(dtype), folder)
    for n in (1, 3, 4, 8, 17, 257):
        v, g, theta = (np.random.default_rng(n + i).normal(size=n).astype(dtype) for i in range(3))
        v64 = 0.9 * v.astype(np.float64) + g
        theta64 = theta - 0.1 * v64
        numbers = {"mu": 0.9, "eta": 0.1}
        values = tuple(np.dtype(dtype).type(numbers[name]) for name in kernel.numbers)
        arrays = {"v": v, "g": g, "theta": theta}
        module.launch(kernel.name, (2,), (32,), (v, theta, *(arrays[a] for a in kernel.arrays), *values, np.int64(n)))
        assert_close(v, v64, dtype=dtype, scale=np.abs(v64) + 1)
        assert_close(theta, theta64, dtype=dtype, scale=np.abs(theta64) + 1)


@pytest.mark.slow
def test_every_declared_formula_gives_the_value_of_its_reference(folder: Path, dtype: Any) -> None:
    programs = catalogue.programs()
    kernels = {name: print_elementwise(program, kinds) for name, (program, kinds) in programs.items()}
    distinct = {kernel.name: kernel.text for kernel in kernels.values()}
    module = HostModule(translation_unit(dtype, ("scalar", "memory"), *distinct.values()), folder)
    rng = np.random.default_rng(5)
    shape = (3, 5)
    for name, (program, kinds) in programs.items():
        kernel = kernels[name]
        sizes = {"full": shape, "row": shape[1:], "column": (shape[0], 1), "scalar": ()}
        # in (0, 1): inside the domain of every logarithm and root, and a fair probability, target and state
        args = {x: np.asarray(rng.uniform(0.05, 0.95, sizes[kind]), dtype) for x, kind in kinds.items()}
        values: dict[str, Any] = {x: np.asarray(value, np.float64) for x, value in args.items()}
        for target, expr in program.assignments:
            values[target] = evaluate(expr, values)
        numbers = {x: float(value) for x, value in args.items() if kinds[x] == "scalar"}
        if kernel.host is not None:
            for target, expr in kernel.host.assignments:
                numbers[target] = evaluate(expr, numbers)
        outs = [np.full(shape, np.nan, dtype) for _ in program.outputs]
        ends = (np.int64(outs[0].size),) if kernel.flat else tuple(map(np.int64, shape))
        passed = tuple(np.dtype(dtype).type(numbers[x]) for x in kernel.numbers)
        grid, block = ((1,), (32,)) if kernel.flat else ((1, 1), (8, 4))
        module.launch(kernel.name, grid, block, (*outs, *(args[a] for a in kernel.arrays), *passed, *ends))
        for out, result in zip(outs, program.outputs, strict=True):
            expected = np.broadcast_to(values[result], shape)
            try:
                # the arguments are of order one, and so are the terms that cancel
                assert_close(out, expected, dtype=dtype, factor=16, scale=np.abs(expected) + 1)
            except AssertionError as error:
                raise AssertionError(f"{name}, output {result}: {error}") from None


# ------------------------------------------------------------------------------------------ the net that catches


MUTATIONS = {
    "barrier before reading the warps": ("= value;\n        __syncthreads();", "= value;"),
    "barrier before the next reduction": ("        __syncthreads();  // the next reduction writes of_warp again\n", ""),
    "barrier before the column tree": ("sums[own] = sum;\n        __syncthreads();", "sums[own] = sum;"),
    "barrier within the column tree": ("blockDim.x];\n            __syncthreads();", "blockDim.x];"),
    "last column of softmax": ("j < n; j += team.size) h[j] /= sum;", "j < n - 1; j += team.size) h[j] /= sum;"),
    "last column of the maximum": ("j < n; j += team.size) top", "j < n - 1; j += team.size) top"),
    "last lane": ("mask > 0; mask /= 2", "mask > 1; mask /= 2"),
    "last row of a warp": ("row < m ? n : 0", "row < m - 1 ? n : 0"),
    "first of equal maxima": ("a.index < b.index", "a.index > b.index"),
    "ragged end of a sum": ("done = p / LANES * LANES;", "done = p;"),
    "last split of the rows": ("s < splits", "s < splits - 1"),
    "ends of the splits": ("(m + gridDim.y - 1) / gridDim.y", "m / gridDim.y"),
    "a constant of Philox": ("0x9E3779B9u", "0x9E3779B8u"),
    "high words of the counter": ("s.layer << 16 | high", "s.layer << 15 | high"),
    "ragged end of a field": ("4 * block + k < p) mask", "4 * block + k < p - 1) mask"),
    "row one past the end": ("row < p", "row < p - 1"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_is_caught(folder: Path, name: str) -> None:
    """The same cases fail when one line of the sources is wrong."""
    old, new = MUTATIONS[name]
    bench = cuda_cases.Bench(folder, "float32")
    units = [unit for unit in ("rowwise", "reductions", "gather", "random") if old in _source(bench, unit)]
    assert units, f"{old!r} is nowhere in the sources"
    cases = {
        "rowwise": cuda_cases.ROW_CASES, "reductions": (cuda_cases.column_sums, cuda_cases.sums),
        "gather": (cuda_cases.take_rows,), "random": (cuda_cases.random_fields,),
    }  # fmt: skip

    def judge(unit: str, seed: int) -> None:
        bench = cuda_cases.Bench(folder, "float32", seed=seed, change=(old, new))
        for case in cases[unit]:
            for size in ((13, 10, False), (7, 32, False), (3, 65, True)):
                case(bench, *size)

    assert any(is_noticed(partial(judge, unit)) for unit in units)


def _source(bench: cuda_cases.Bench, unit: str) -> str:
    from bpcore.kernels.cuda.source import unit_source

    return unit_source(unit, bench.dtype)


def _module(folder: Path, body: str) -> HostModule:
    text = f'extern "C" __global__ void k(int* out, int n) {{ {body} }}'
    return HostModule(translation_unit("float32", ("scalar", "memory"), text), folder, races=False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x < 5) __syncthreads();", "not reached by a thread that has returned"),
        ("if (threadIdx.x < 5) { __syncthreads(); }\nelse {\n __syncthreads(); }", "wait at different __syncthreads"),
        ("if (threadIdx.x < 5) out[0] = __shfl_xor_sync(~0u, n, 1);", "lane 5, which has returned"),
        ("if (threadIdx.x < 5) __syncthreads(); else out[0] = __shfl_xor_sync(~0u, n, 1);", "deadlock"),
    ],
)
def test_threads_that_wait_for_ever_are_reported(folder: Path, body: str, message: str) -> None:
    with pytest.raises(HostRunError, match=message):
        _module(folder, body).launch("k", (1,), (32,), (np.zeros(1, np.int32), np.int32(1)), seed=0)


def test_a_shuffle_needs_whole_warps(folder: Path) -> None:
    module = _module(folder, "out[threadIdx.x] = __shfl_xor_sync(~0u, n, 1);")
    with pytest.raises(HostRunError, match="lane 20, which the block does not have"):
        module.launch("k", (1,), (20,), (np.zeros(20, np.int32), np.int32(1)))


def test_schedules_differ_and_repeat(folder: Path) -> None:
    module = _module(folder, "SHARED_ARRAY(int, next, 1); if (next[0] < 0) next[0] = 0; out[next[0]++] = threadIdx.x;")

    def order(seed: int) -> list[int]:
        out = np.zeros(16, np.int32)
        module.launch("k", (1,), (16,), (out, np.int32(0)), seed=seed)
        return out.tolist()

    module.fibers = True
    assert order(0) == list(range(16))
    assert order(1) == list(range(16))[::-1]
    assert order(2) == order(2)
    assert order(2) != order(3)
    assert sorted(order(3)) == list(range(16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(1, np.int32),), r"k takes 2 arguments, got 1"),
        ((np.zeros(1, np.int64), np.int32(1)), r"argument 0 is an array of int64, the parameter is int\*"),
        ((np.zeros(1, np.int32), np.int64(1)), r"argument 1 is np.int64\(1\), the parameter is int"),
        ((np.int64(0), np.int32(1)), r"argument 0 is np.int64\(0\), the parameter is int\*"),
        ((np.zeros(1, np.int32), np.float32(1)), r"argument 1 is np.float32\(1.0\), the parameter is int"),
    ],
)
def test_arguments_are_compared_with_parameters(folder: Path, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(HostRunError, match=message):
        _module(folder, "out[0] = n;").launch("k", (1,), (1,), arguments)


def test_a_source_that_does_not_compile_is_reported(folder: Path) -> None:
    with pytest.raises(HostRunError, match="g\\+\\+ refuses"):
        HostModule('extern "C" __global__ void k(int n) { nothing; }', folder)


# ------------------------------------------------------------------------------------------ AddressSanitizer

RUN = "tests.kernels.sanitized_run"


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(folder: Path) -> None:
    stays_inside(RUN, folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [("i < m; i += rows", "i < m + 1; i += rows"), ("row < p)", "row <= p)"), ("j < words", "j <= words")],
    ids=["one row too many", "one source row too many", "one word too many"],
)
def test_an_access_outside_is_caught(folder: Path, old: str, new: str) -> None:
    leaves_its_arrays(RUN, folder, old, new)
