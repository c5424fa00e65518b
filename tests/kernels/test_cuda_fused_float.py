"""The kernel of the fused plan in float32: against float64, under several schedules; and it compiles without spills.

Nothing here is a measurement of a GPU: g++ compiles the text that a GPU would get.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bpcore.kernels.cuda import build, host_runner
from bpcore.kernels.cuda.fused_float import FloatShape
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from tests.helpers.compare import assert_same_bits
from tests.kernels.fused_cases import FLOAT_CASES, OUTPUTS, Case, Run, text_of
from tests.kernels.test_cuda_compile import Compiler, compiler
from tests.kernels.test_cuda_fused import NOTHING, resources
from tests.kernels.test_cuda_host import run_sanitized

__all__ = ["compiler"]

on_host = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")
QUICK = ("ragged", "two runs", "128 samples")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in FLOAT_CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused-float-kernels")


# ------------------------------------------------------------------------------------------ results


@on_host
@pytest.mark.parametrize("name", NAMES)
def test_a_step_under_every_schedule(folder: Path, name: str) -> None:
    run, first = Run(FLOAT_CASES[name]), None
    for seed in host_runner.SEEDS:
        found = run.kernel(folder, seed)
        run.compare(found)
        if first is not None:
            assert_same_bits(found["grad"], first["grad"])
        first = found


@on_host
@pytest.mark.parametrize("m", [1, 31, 32, 161])
def test_other_numbers_of_samples(folder: Path, m: int) -> None:
    """A block without a tile, tiles that are full, a block with more tiles than the other."""
    run = Run(replace(FLOAT_CASES["two runs"], m=m))
    run.compare(run.kernel(folder))


@on_host
@pytest.mark.parametrize("name", ["two runs", pytest.param("128 samples", marks=pytest.mark.long)])
def test_inputs_at_any_address(folder: Path, name: str) -> None:
    """Rows that could be copied sixteen bytes at a time, but for where they begin: the same bits."""
    run = Run(FLOAT_CASES[name])
    assert run.X.shape[1] % 4 == 0
    found = []
    for offset in (0, 1):
        room = np.empty(run.X.size + 8, np.float32)
        begin = -(room.ctypes.data // 4) % 4 + offset
        X = room[begin : begin + run.X.size].reshape(run.X.shape)
        X[...] = run.X
        assert X.ctypes.data % 16 == 4 * offset
        run.X = X
        found.append(run.kernel(folder)["grad"])
    assert_same_bits(*found)


@on_host
@pytest.mark.long
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
@given(
    sizes=st.lists(st.integers(1, 128), min_size=2, max_size=6),
    m=st.integers(1, 300),
    rows=st.sampled_from(FloatShape.heights),
    ends=st.sampled_from(sorted(OUTPUTS)),
    hidden=st.lists(st.sampled_from(["relu", "tanh", "sigmoid", "identity"]), min_size=4, max_size=4),
    weighted=st.booleans(),
)
def test_random_networks(folder, sizes, m, rows, ends, hidden, weighted):
    output, loss = ends
    last = 1 if loss == "binary_cross_entropy" else max(2, sizes[-1])
    sizes = (*sizes[:-1], last)
    rows = min(rows, FloatShape.possible(sizes)[0].rows)
    case = Case(sizes, hidden[: len(sizes) - 2] or "relu", output, loss, m, rows, weighted, precision=None)
    if sum(case.shape.sums) <= case.shape.most_sums:
        run = Run(case)
        run.compare(run.kernel(folder))


# ------------------------------------------------------------------------------------------ mistakes

BARRIERS = {
    "weights and inputs": ("        __syncthreads();  // weights and inputs are there", "two runs"),
    "H of the layer below": ("            __syncthreads();  // all of H is there", "two runs"),
    "logits": ("        __syncthreads();  // all logits are there", "ragged"),
    "errors of the output": ("        __syncthreads();  // all errors of the output are there", "ragged"),
    "H of all threads": ("    __syncthreads();  // H[l] is there", "two runs"),
    "those who read H": ("    __syncthreads();  // nobody needs H[l] and", "ragged"),
    "Delta": ("    __syncthreads();  // all of Delta[l] is there", "two runs"),
}
# A change of the kernel, and the case that notices it.
UNAWAITED = {f"no wait for {name}": (line, line[line.index("//") :], case) for name, (line, case) in BARRIERS.items()}
MUTATIONS = UNAWAITED | {
    "copies of inputs are not awaited": ("        finish_copies();\n        __sync", "        __sync", "ragged"),
    "H is on its way": ("    finish_copies();\n    __syncthreads();  // H", "    __syncthreads();  // H", "two runs"),
    "padding of H is not cleared": ("share.is_neuron(e) ? activate", "true ? activate", "no value at 0"),
    "padding of Delta is not cleared": ("share.is_neuron(e) ? backprop", "true ? backprop", "steep at 0"),
    "samples that are not there": ("(inside ? Out::N : 0) + team", "Out::N + team", "ragged"),
    "a layer of a run has the bias of the first": ("Own::B + k * Own::STEP", "Own::B", "two runs"),
    "a layer of a run has the weights of the first": ("Own::W + k * Own::STEP", "Own::W", "two runs"),
    "a layer of a run has the weights of the last": ("Own::W - k * Own::STEP", "Own::W", "two runs"),
    "layers of a run are kept in one place": ("Next::KEPT + k * KEPT_STEP<l + 1>", "Next::KEPT", "two runs"),
    "what comes back is that of the last layer": ("::KEPT - k * KEPT_STEP<l>", "::KEPT", "two runs"),
    "a layer is not kept": ("l + 1 + k < LAST - 1;", "l + 1 + k < LAST - 2;", "two runs"),
    "inputs of another tile": ("fetch_inputs(step, w, first);", "fetch_inputs(step, w, 0);", "ragged"),
    "a row of H elsewhere": ("PACK * turn_of<Own::P>(r / 4)", "0", "two runs"),
    "half of the rows": ("q / 4 * (ROWS / 2) + q % 4) * K", "q % 4) * K", "128 samples"),
    "columns of W elsewhere": ("b_at ^ PACK * turn<P>(first)", "b_at", "128 samples"),
    "a part of BP3": ("k < THREADS; k += Next::P", "k < Next::P; k += Next::P", "ragged"),
    "BP3 of some rows": ("int r = 0; r < SHARE; r += FOURS", "int r = 0; r < FOURS; r += FOURS", "128 samples"),
}  # fmt: skip
AT_ONCE = ("no wait for those who read H", "H is on its way", "layers of a run are kept in one place")


@on_host
@pytest.mark.parametrize(
    "mistake", [pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.long) for name in MUTATIONS]
)
def test_a_mutated_kernel_is_caught(folder: Path, mistake: str) -> None:
    old, new, name = MUTATIONS[mistake]
    run = Run(FLOAT_CASES[name])
    for seed in host_runner.SEEDS:
        try:
            run.compare(run.kernel(folder, seed, change=(old, new)))
        except (AssertionError, HostRunError):
            return
    pytest.fail("no schedule noticed the mutation")


@on_host
@pytest.mark.long
@pytest.mark.parametrize("change", [(), ("constexpr int LOGITS = ", "constexpr int LOGITS = 1024 + ")])
def test_no_access_outside(tmp_path: Path, change: tuple[str, ...]) -> None:
    done = run_sanitized("tests.kernels.fused_cases", tmp_path, "float32", *change)
    if change:
        assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        assert "all cases ran" in done.stdout


# ------------------------------------------------------------------------------------------ shapes


def test_where_everything_lies() -> None:
    shape = FloatShape((13, 20, 37, 5), 64)
    places = shape.places
    assert shape.widths == (16, 32, 64, 16)
    assert sorted(places.values()) == list(places.values())
    for l, (n_in, n) in enumerate(pairwise(shape.widths), start=1):
        assert places[f"W{l}"] % (4 * n) == 0
        assert places[f"B{l}"] - places[f"W{l}"] == 4 * n_in * n
        assert places[f"DB{l}"] - places[f"B{l}"] == 4 * n
    assert places["TILES"] % (4 * 64) == 0
    assert places["SECOND"] - places["TILES"] == places["LOGITS"] - places["SECOND"] == 4 * 64 * 64
    assert shape.nbytes == places["LOGITS"] + 4 * 64 * shape.logits_row
    # layer 2 is kept; layer 3, the last hidden one, is still on chip
    assert shape.kept == 64 * 32
    assert FloatShape((4, 3)).kept == FloatShape((4, 5, 3)).kept == 0


@pytest.mark.parametrize("sizes", [(128, 16, 16, 16, 128), (16, 64, 64, 64, 128), (32, 32, 32, 32)])
def test_layers_of_a_run_lie_a_step_apart(sizes: tuple[int, ...]) -> None:
    """Also where what comes before or after them has longer rows."""
    shape = FloatShape(sizes, 32)
    for l in range(1, len(sizes) - 1):
        if shape.widths[l - 1 : l + 1] == shape.widths[l : l + 2]:
            assert shape.places[f"W{l + 1}"] - shape.places[f"W{l}"] == shape._step(l) == shape._step(l + 1)


def test_the_largest_tile_leaves_a_thread_32_sums() -> None:
    assert [shape.rows for shape in FloatShape.possible((64, 64, 10))] == [128, 64, 32]
    assert [shape.rows for shape in FloatShape.possible((64, 65, 10))] == [64, 32]


@pytest.mark.parametrize("n_in", [16, 32, 64, 128])
@pytest.mark.parametrize("n", [16, 32, 64, 128])
def test_threads_share_a_gradient(n_in: int, n: int) -> None:
    shape = FloatShape((n_in, n))
    ((down, across),) = shape.shares
    threads = n_in * n // (down * across)
    assert threads * down * across == n_in * n
    assert threads in ((256,) if n_in * n >= 4096 else (64, 128))


_PLACES = """
extern "C" __global__ void places(int* out) {
    const int t = threadIdx.x;
    for (int k = 0; k < 8; ++k) out[8 * t + k] = place_of<PADDED>(t, k) / PACK % 8;  // banks of sixteen bytes
    const Share<3> share(t);
    out[2048 + t] = share.down;
    out[2304 + t] = share.across;
}
"""


@on_host
@pytest.mark.parametrize("width", [32, 64, 128])
def test_what_half_a_warp_reads_lies_in_different_banks(folder: Path, width: int) -> None:
    """By what the kernel itself says: of packs, and of which rows and columns a lane has."""
    case = FLOAT_CASES["128 samples"]  # layer 3 has tiles of 128 x 64
    module = HostModule(text_of(case) + _PLACES.replace("PADDED", str(width)), folder)
    out = np.zeros(2560, np.int32)
    module.launch("places", (1,), (256,), (out,))
    banks, down, across = out[:2048].reshape(256, 8), out[2048:2304], out[2304:]
    assert sorted(zip(down, across, strict=True)) == [(i, j) for i in range(16) for j in range(16)]
    for half in np.arange(256).reshape(16, 16):
        rows, columns = np.unique(down[half]), np.unique(across[half])
        assert (len(rows), len(columns)) == (2, 8)
        assert len({banks[4 * row, 0] for row in rows}) == 2  # rows of a tile, at one pack
        assert len({banks[4 * column, 0] for column in columns}) == 8  # going back: rows of W, at one pack
        assert len({banks[0, column % 8] for column in columns}) == 8  # packs of one row
        for first in (0, 2):  # of any four lanes two have the same row, and two the same columns
            quarter = half[first : first + 4]
            assert len(np.unique(down[quarter])) == len(np.unique(across[quarter])) == 2
    for lanes in np.arange(256).reshape(32, 8):  # those that store a pack each at once
        stored = banks[4 * down[lanes], across[lanes] % 8]
        assert len(np.unique(stored)) == 8


# ------------------------------------------------------------------------------------------ compilation

DEEPEST = Case((64,) * 9 + (10,), "relu", "softmax", "cross_entropy", 1000, 128, precision=None)


@pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=pytest.mark.long)])
def test_the_deepest_network_compiles_and_spills_nothing(compiler: Compiler, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        assert b"fused_step" in compiler(text_of(DEEPEST), arch)
        pytest.skip("what registers hold is asked of NVRTC only")
    assert resources(text_of(DEEPEST), arch) == NOTHING


@pytest.mark.long
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(
    "case",
    [
        replace(DEEPEST, sizes=(64,) * 10, rows=64),
        replace(DEEPEST, sizes=(128, 128, 128, 10), rows=32, hidden="tanh"),
        replace(DEEPEST, sizes=(7, 13, 9, 3), output="log_softmax", loss="mse", weighted=True),
        replace(DEEPEST, sizes=(32,) * 18 + (1,), output="sigmoid", loss="binary_cross_entropy"),
        replace(DEEPEST, sizes=(100, 20, 40, 30, 128), rows=64, hidden="sigmoid"),
    ],
    ids=lambda case: "-".join(map(str, case.sizes)),
)
def test_other_shapes_spill_a_few_words_at_most(compiler: Compiler, case: Case, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        pytest.skip("what registers hold is asked of NVRTC only")
    assert sum(case.shape.sums) <= case.shape.most_sums
    # some words at the limit of 144 sums: outside the loops of the products they cost nothing
    assert resources(text_of(case), arch)["spill loads"] <= 40
