"""The kernels of the fused plan: against float64 that rounds where they round, by several schedules; they compile.

Nothing here is a measurement of a GPU: g++ compiles the text that a GPU would get, and a warp's products are emulated.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bpcore.kernels.cuda import build, host_runner
from tests.helpers.compare import assert_same_bits
from tests.kernels.fused_cases import KINDS, OUTPUTS, Case, Run, text_of
from tests.kernels.fused_mistakes import MISTAKES
from tests.kernels.on_host import changed, is_noticed, leaves_its_arrays, on_host, stays_inside
from tests.kernels.test_cuda_compile import Compiler, compiler

__all__ = ["compiler"]

QUICK = {
    ("bf16", "ragged"), ("bf16", "two runs"),
    ("float32", "ragged"), ("float32", "two runs"), ("float32", "128 samples"),
}  # fmt: skip
AT_ONCE = {
    ("bf16", "H and Delta are not awaited"), ("bf16", "Delta is written too early"),
    ("float32", "no wait for those who read H"), ("float32", "H is on its way"),
    ("float32", "layers of a run are kept in one place"),
}  # fmt: skip


def each(table: dict[str, Any], quick: set[tuple[str, str]]) -> list[Any]:
    """Parameters (kind, name); those that are not quick run with ``--long``."""
    pairs = [(kind, name) for kind, named in table.items() for name in named]
    assert quick <= set(pairs)
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.long) for pair in pairs]


# ------------------------------------------------------------------------------------------ results


@on_host
@pytest.mark.parametrize(("kind", "name"), each(KINDS, QUICK))
def test_a_step_under_every_schedule(kernel_folder: Path, kind: str, name: str) -> None:
    run, first = Run(KINDS[kind][name]), None
    for seed in host_runner.SEEDS:
        found = run.kernel(kernel_folder, seed)
        run.compare(found)
        if first is not None:
            assert_same_bits(found["grad"], first["grad"])
        first = found


@on_host
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate]
)
@given(
    sizes=st.lists(st.integers(1, 128), min_size=2, max_size=6),
    m=st.integers(1, 300),
    height=st.integers(0, 5),
    ends=st.sampled_from(sorted(OUTPUTS)),
    hidden=st.lists(st.sampled_from(["relu", "tanh", "sigmoid", "identity"]), min_size=4, max_size=4),
    weighted=st.booleans(),
)
def test_random_networks(kernel_folder, kind, sizes, m, height, ends, hidden, weighted):
    output, loss = ends
    last = 1 if loss == "binary_cross_entropy" else max(2, sizes[-1])
    precision = None if kind == "float32" else kind
    case = Case(
        (*sizes[:-1], last), hidden[: len(sizes) - 2] or "relu", output, loss, m, weighted=weighted, precision=precision
    )
    possible = case.shape.possible(case.sizes)
    case = replace(case, rows=possible[height % len(possible)].rows)
    if sum(case.shape.sums) <= case.shape.most_sums:
        run = Run(case)
        run.compare(run.kernel(kernel_folder), tolerance=1e-3)


# ------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("kind", MISTAKES)
def test_the_mistakes_are_those_of_the_sources_as_they_are(kind: str) -> None:
    for right, wrong, name in MISTAKES[kind].values():
        assert changed(text_of(KINDS[kind][name]), (right, wrong)) != text_of(KINDS[kind][name])


@on_host
@pytest.mark.parametrize(("kind", "mistake"), each(MISTAKES, AT_ONCE))
def test_a_mutated_kernel_is_caught(kernel_folder: Path, kind: str, mistake: str) -> None:
    right, wrong, name = MISTAKES[kind][mistake]
    run = Run(KINDS[kind][name])
    assert is_noticed(lambda seed: run.compare(run.kernel(kernel_folder, seed, change=(right, wrong))))


@on_host
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [(), ("constexpr int LOGITS = ", "constexpr int LOGITS = 1024 + ")])
def test_no_access_outside(kernel_folder: Path, kind: str, change: tuple[str, ...]) -> None:
    (leaves_its_arrays if change else stays_inside)("tests.kernels.fused_cases", kernel_folder, kind, *change)


# ------------------------------------------------------------------------------------------ compilation

NOTHING = {"stack frame": 0, "spill stores": 0, "spill loads": 0}
DEEPEST = Case((64,) * 9 + (10,), "relu", "softmax", "cross_entropy", 1000, 128)
IN_FLOAT32 = replace(DEEPEST, precision=None)


@pytest.mark.parametrize("arch", ["sm_90", pytest.param("sm_80", marks=pytest.mark.long)])
@pytest.mark.parametrize("case", [DEEPEST, IN_FLOAT32], ids=["bf16", "float32"])
def test_the_deepest_network_compiles_and_spills_nothing(compiler: Compiler, case: Case, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        assert b"fused_step" in compiler(text_of(case), arch)
        pytest.skip("what registers hold is asked of NVRTC only")
    assert resources(text_of(case), arch) == NOTHING


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "arch"),
    [
        pytest.param(case, arch, id=f"{case.precision or 'float32'}-{'-'.join(map(str, case.sizes))}-{arch}")
        for deepest, widest, rows, archs in (
            (DEEPEST, (128, 128, 64, 10), 128, ("sm_80", "sm_90")),
            (IN_FLOAT32, (128, 128, 128, 10), 32, ("sm_75", "sm_80", "sm_90")),
        )
        for arch in archs
        for case in (
            replace(deepest, sizes=(64,) * 10, rows=max(rows, 64)),
            replace(deepest, sizes=widest, rows=rows, hidden="tanh"),
            replace(deepest, sizes=(7, 13, 9, 3), output="log_softmax", loss="mse", weighted=True),
            replace(deepest, sizes=(32,) * 18 + (1,), output="sigmoid", loss="binary_cross_entropy"),
            replace(deepest, sizes=(100, 20, 40, 30, 128), rows=max(rows, 64), hidden="sigmoid"),
        )
    ],
)
def test_other_shapes_spill_a_few_words_at_most(compiler: Compiler, case: Case, arch: str) -> None:
    if compiler is not build.compile_with_nvrtc:
        pytest.skip("what registers hold is asked of NVRTC only")
    assert sum(case.shape.sums) <= case.shape.most_sums
    # some words at the limit of the sums: outside the loops of the products they cost nothing
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
