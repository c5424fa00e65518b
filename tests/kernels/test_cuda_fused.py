"""The kernel of the fused plan in bf16: against float64 that rounds where it rounds, by several schedules; it compiles.

Nothing here is a measurement of a GPU: g++ compiles the text that a GPU would get, and a warp's products are emulated.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bpcore.kernels.cuda import build, host_runner
from bpcore.kernels.cuda.fused import FusedShape
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from bpcore.kernels.cuda.source import translation_unit
from tests.helpers.compare import assert_same_bits
from tests.kernels.fused_cases import CASES, OUTPUTS, Case, Run, text_of
from tests.kernels.test_cuda_compile import Compiler, compiler
from tests.kernels.test_cuda_host import run_sanitized

__all__ = ["compiler"]

on_host = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")
QUICK = ("ragged", "two runs")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in CASES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused-kernels")


# ------------------------------------------------------------------------------------------ fragments


_MULTIPLY = """
extern "C" __global__ void product(const unsigned short* A, const unsigned short* B, float* C, unsigned int* T) {
    DYNAMIC_SHARED(memory);
    unsigned short* const place = reinterpret_cast<unsigned short*>(memory);
    const int lane = threadIdx.x;
    for (int e = lane; e < 256; e += 32) {
        place[e] = A[e];
        place[256 + e] = B[e];
    }
    __syncwarp();
    const SharedAddress shared = shared_address(memory);
    unsigned a[4], b[4];
    load_fragments<false>(a, shared + (lane / 8 % 2 * 8 + lane % 8) * 32 + lane / 16 * 16);
    load_fragments<true>(b, shared + 512 + (lane / 8 % 2 * 8 + lane % 8) * 32 + lane / 16 * 16);
    for (int half = 0; half < 2; ++half) {
        float c[4] = {1.0f, 2.0f, 3.0f, 4.0f};
        multiply_fragments(c, a, b[2 * half], b[2 * half + 1]);
        for (int e = 0; e < 4; ++e) {
            C[(lane / 4 + e / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + e % 2] = c[e] - (e + 1);
        }
    }
    for (int e = 0; e < 4; ++e) T[lane * 4 + e] = a[e];
}
"""


@on_host
def test_a_product_of_a_warp(folder: Path) -> None:
    """The emulation holds to the layout that PTX documents: a product through all of its functions is a product."""
    module = HostModule(translation_unit("float32", ("scalar", "cluster", "fragments"), _MULTIPLY), folder)
    rng = np.random.default_rng(0)
    A, B = (rng.integers(-8, 9, (16, 16)).astype(np.float32) for _ in range(2))
    C, words = np.zeros((16, 16), np.float32), np.zeros((32, 4), np.uint32)
    bits = [(values.view(np.uint32) >> 16).astype(np.uint16) for values in (A, B)]
    module.launch("product", (1,), (32,), (*bits, C, words), shared=1024)
    np.testing.assert_array_equal(C, A @ B)
    lane, pairs = np.arange(32), bits[0].astype(np.uint32)
    for k in range(4):
        row, column = lane // 4 + k % 2 * 8, lane % 4 * 2 + k // 2 * 8
        np.testing.assert_array_equal(words[:, k], pairs[row, column] | pairs[row, column + 1] << 16)


@on_host
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x > 0) __syncwarp();", "wait at a shuffle, others elsewhere"),
        ("if (threadIdx.x > 7) __syncwarp(); else shuffle_xor(1, 1);", "at different instructions"),
        ("unsigned r[4]; load_fragments<false>(r, shared_address(memory) + 8);", "not aligned to 16 bytes"),
    ],
)
def test_a_warp_that_is_not_together_is_reported(folder: Path, body: str, message: str) -> None:
    text = f'extern "C" __global__ void k(int* out) {{ DYNAMIC_SHARED(memory); {body} __syncthreads(); }}'
    module = HostModule(translation_unit("float32", ("scalar", "memory", "team", "cluster", "fragments"), text), folder)
    with pytest.raises(HostRunError, match=message):
        module.launch("k", (1,), (32,), (np.zeros(1, np.int32),), shared=64)


# ------------------------------------------------------------------------------------------ results


@on_host
@pytest.mark.parametrize("name", NAMES)
def test_a_step_under_every_schedule(folder: Path, name: str) -> None:
    run, first = Run(CASES[name]), None
    for seed in host_runner.SEEDS:
        found = run.kernel(folder, seed)
        run.compare(found)
        if first is not None:
            assert_same_bits(found["grad"], first["grad"])
        first = found


@on_host
@pytest.mark.long
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
@given(
    sizes=st.lists(st.integers(1, 128), min_size=2, max_size=6),
    m=st.integers(1, 90),
    rows=st.sampled_from([16, 32, 48, 64]),
    ends=st.sampled_from(sorted(OUTPUTS)),
    hidden=st.lists(st.sampled_from(["relu", "tanh", "sigmoid", "identity"]), min_size=4, max_size=4),
    weighted=st.booleans(),
)
def test_random_networks(folder, sizes, m, rows, ends, hidden, weighted):
    output, loss = ends
    last = 1 if loss == "binary_cross_entropy" else max(2, sizes[-1])
    case = Case((*sizes[:-1], last), hidden[: len(sizes) - 2] or "relu", output, loss, m, rows, weighted)
    shape = FusedShape(case.sizes, rows)
    if sum(shape.sums) <= shape.most_sums:
        run = Run(case)
        run.compare(run.kernel(folder), tolerance=1e-3)


# ------------------------------------------------------------------------------------------ mistakes

# A change of the kernel, and the case that notices it; those without a mark build in a few seconds together.
MUTATIONS = {
    "H and Delta are not awaited": (
        "    __syncthreads();  // all rows of H[l] and",
        "    // all rows of H[l] and",
        "ragged",
    ),
    "Delta is written too early": ("    __syncthreads();  // H[l] and", "    // H[l] and", "two runs"),
    "weights are not awaited": (
        "    finish_copies();\n    __syncthreads();\n    for",
        "    __syncthreads();\n    for",
        "one tile",
    ),
    "weights of others are not awaited": (
        "    finish_copies();\n    __syncthreads();\n    for",
        "    finish_copies();\n    for",
        "ragged",
    ),
    "padding of H is not cleared": (
        "w.lane % 4 * 2 + e % 2 >= Own::N)",
        "w.lane % 4 * 2 + e % 2 >= 999)",
        "no value at 0",
    ),
    "samples that are not there": ("!inside && k < Out::N", "false && k < Out::N", "ragged"),
    "half of BP3": ("bias[i][0] + bias[i][2]", "bias[i][0]", "ragged"),
    "BP3 of other columns": ("mine == d ? b", "false ? b", "wide rows"),
    "a layer of a run has the bias of the first": ("Own::B + k * Own::STEP", "Own::B", "two runs"),
    "a layer of a run has the weights of the last": ("Own::W - k * Own::STEP", "Own::W", "two runs"),
    "logits are not awaited": ("        __syncwarp();\n", "", "ragged"),
    "a slice too few": ("s < count; s += WARPS", "s < count - 1; s += WARPS", "ragged"),
}


@on_host
@pytest.mark.parametrize(
    "mistake", [pytest.param(name, marks=() if k < 2 else pytest.mark.long) for k, name in enumerate(MUTATIONS)]
)
def test_a_mutated_kernel_is_caught(folder: Path, mistake: str) -> None:
    old, new, name = MUTATIONS[mistake]
    run = Run(CASES[name])
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
    done = run_sanitized("tests.kernels.fused_cases", tmp_path, "bf16", *change)
    if change:
        assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        assert "all cases ran" in done.stdout


# ------------------------------------------------------------------------------------------ shapes and compilation


def test_everything_has_a_place_of_its_own() -> None:
    shape = FusedShape((13, 20, 37, 5), 32)
    places = dict(shape.places)
    assert all(place % 128 == 0 for place in places.values())
    assert sorted(places.values()) == list(places.values())
    assert places["KEPT2"] - places["KEPT1"] == 2 * 32 * 16
    assert places["KEPT3"] - places["KEPT2"] == 2 * 32 * 32
    assert shape.nbytes == places["LOGITS"] + 4 * 32 * shape.logits_row


@pytest.mark.parametrize("n", [1, 3, 10, 17, 64])
def test_rows_of_logits_lie_in_different_banks(n: int) -> None:
    row = FusedShape((16, n)).logits_row
    assert row >= n
    assert sorted((i * row + j) % 32 for i in range(16) for j in range(2)) == list(range(32))


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_the_cut_of_a_gradient_keeps_all_warps_busy(width: int) -> None:
    shape = FusedShape((width, width))
    down, across = shape.cuts[0]
    assert down * across == min(8, (width // 16) ** 2)
    assert shape.sums[0] * 32 * down * across == width * width
    assert FusedShape((64,) * 9 + (10,)).sums == (16,) * 8 + (8,)


NOTHING = {"stack frame": 0, "spill stores": 0, "spill loads": 0}
DEEPEST = Case((64,) * 9 + (10,), "relu", "softmax", "cross_entropy", 1000, 128)


@pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=pytest.mark.long)])
def test_the_deepest_network_compiles_and_spills_nothing(compiler: Compiler, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        assert b"fused_step" in compiler(text_of(DEEPEST), arch)
        pytest.skip("what registers hold is asked of NVRTC only")
    assert resources(text_of(DEEPEST), arch) == NOTHING


@pytest.mark.long
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    "case",
    [
        replace(DEEPEST, sizes=(64,) * 10),
        replace(DEEPEST, sizes=(128, 128, 64, 10), hidden="tanh"),
        replace(DEEPEST, sizes=(7, 13, 9, 3), output="log_softmax", loss="mse", weighted=True),
        replace(DEEPEST, sizes=(32,) * 18 + (1,), output="sigmoid", loss="binary_cross_entropy"),
        replace(DEEPEST, sizes=(100, 20, 40, 30, 128), hidden="sigmoid"),
    ],
    ids=lambda case: "-".join(map(str, case.sizes)),
)
def test_other_shapes_spill_a_few_words_at_most(compiler: Compiler, case: Case, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        pytest.skip("what registers hold is asked of NVRTC only")
    shape = FusedShape(case.sizes)
    assert sum(shape.sums) <= shape.most_sums
    # two words at the limit of 64 neurons, ten at that of 128: outside the loops of the products they cost nothing
    assert resources(text_of(case), arch)["spill loads"] <= 40


def resources(source: str, arch: str) -> dict[str, int]:
    """Bytes of local memory that ptxas reports for ``fused_step``."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source, "fused.cu", (), ())
    nvrtc.compileProgram(program, (*build._NVRTC_OPTIONS, f"-arch={arch}", "--ptxas-options=-v"))
    log: Any = nvrtc.getProgramLog(program)
    nvrtc.destroyProgram(program)
    lines = log[log.index("Function properties for fused_step") :].splitlines()[1]
    words = lines.replace(",", " ").split("bytes")
    counts = [int(part.split()[-1]) for part in words[:-1]]
    return {
        name.strip(): count for name, count in zip(("stack frame", "spill stores", "spill loads"), counts, strict=True)
    }
