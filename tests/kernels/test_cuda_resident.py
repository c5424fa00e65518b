"""The kernel of the persistent plan compiles, stays inside its memory, and the CPU's clusters behave like a GPU's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from bpcore.kernels.cuda.resident import ResidentShape
from bpcore.kernels.cuda.source import translation_unit
from tests.kernels import resident_cases
from tests.kernels.test_cuda_compile import Compiler, compiler
from tests.kernels.test_cuda_host import run_sanitized

__all__ = ["compiler"]

on_host = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")


@pytest.mark.parametrize(("blocks", "arch"), [(1, "sm_80"), (1, "sm_90"), (8, "sm_90"), (16, "sm_90")])
def test_the_kernel_compiles(compiler: Compiler, blocks: int, arch: str, dtype: Any) -> None:
    for name in resident_cases.CASES:
        text, _ = resident_cases.unit(name, dtype, blocks=blocks, threads=256, wide_inputs=True)
        assert b"resident" in compiler(text, arch)


def test_everything_has_a_place_of_its_own() -> None:
    shape = ResidentShape((20, 33, 7, 5), 9, 4, states=2, numbers=3, blocks=4, rates=((2, 0.5),), clip="all")
    places = shape.places
    assert all(place % 4 == 0 for place in places.values())  # 16 bytes
    begins = sorted(set(places.values()))
    assert begins[-1] == places["MEMORY"]
    for name, size in {
        "W1": 8 * 36,
        "STATE1": 2 * 8 * 36,
        "GRAD1": 8 * 36,
        "PARTS": 4 * 3 * 36,
        "Z2": 3 * 36,
    }.items():
        after = min(begin for begin in begins if begin > places[name])
        assert after - places[name] >= size, name


# ------------------------------------------------------------------------------------------ clusters on a CPU


def _module(folder: Path, body: str, blocks: int = 2) -> HostModule:
    head = f'extern "C" __global__ void __launch_bounds__(32) __cluster_dims__({blocks}, 1, 1) k(int* out, int n) {{'
    text = f"{head} DYNAMIC_SHARED(memory); int* place = reinterpret_cast<int*>(memory); {body} }}"
    return HostModule(translation_unit("float32", ("scalar", "memory", "cluster"), text), folder)


MEET = "cluster_arrive(); cluster_wait();"
RING = "in_block(place, (cluster_rank() + 1) % 2)[threadIdx.x] = 100 * blockIdx.x + threadIdx.x;"


@on_host
@pytest.mark.parametrize("seed", host_runner.SEEDS)
def test_blocks_write_into_each_others_memory(kernel_folder: Path, seed: int) -> None:
    out = np.zeros(128, np.int32)
    module = _module(kernel_folder, f"{RING} {MEET} out[32 * blockIdx.x + threadIdx.x] = place[threadIdx.x];")
    module.launch("k", (4,), (32,), (out, np.int32(0)), seed=seed, shared=128)
    assert out[::32].tolist() == [100, 0, 300, 200]


@on_host
def test_a_barrier_of_one_block_says_nothing_about_the_other(kernel_folder: Path) -> None:
    module = _module(kernel_folder, f"{RING} __syncthreads(); out[32 * blockIdx.x + threadIdx.x] = place[threadIdx.x];")
    found = []
    for seed in range(8):
        out = np.zeros(64, np.int32)
        module.launch("k", (2,), (32,), (out, np.int32(0)), seed=seed, shared=128)
        found.append(out[::32].tolist())
    assert any(values != [100, 0] for values in found)


@on_host
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"if (cluster_rank() == 0) {{ {MEET} }}", "a barrier of the cluster that others do not reach"),
        (f"if (threadIdx.x > 0) {{ {MEET} }}", "a barrier of the cluster that others do not reach"),
        (f"if (threadIdx.x > 0) {{ {MEET} }} else __syncthreads();", "a barrier of the cluster that others do not"),
        ("if (cluster_rank() == 0 && threadIdx.x < 5) __syncthreads();", "not reached by a thread that has returned"),
    ],
)
def test_threads_that_wait_for_ever_are_reported(kernel_folder: Path, body: str, message: str) -> None:
    with pytest.raises(HostRunError, match=message):
        _module(kernel_folder, body).launch("k", (2,), (32,), (np.zeros(1, np.int32), np.int32(0)), shared=16)


@on_host
def test_a_copy_is_there_when_it_was_awaited(kernel_folder: Path) -> None:
    for wait, expected in (("finish_copies();", 7), ("", -1)):
        out = np.full(64, 7, np.int32)
        copy = f"copy_later<4>(place + threadIdx.x, out + n + threadIdx.x); {wait} {MEET} out[threadIdx.x] = place[5];"
        _module(kernel_folder, copy).launch("k", (2,), (32,), (out, np.int32(32)), shared=128)
        assert (out[:32] == expected).all()


# ------------------------------------------------------------------------------------------ AddressSanitizer


@on_host
@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [(), ("::N + left + j)", "::N + left + j + 1)"), ("int MEMORY = ", "int MEMORY = 9 + ")]
)
def test_no_access_outside(kernel_folder: Path, change: tuple[str, ...]) -> None:
    done = run_sanitized("tests.kernels.resident_cases", kernel_folder, *change)
    if change:
        assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        assert "all cases ran" in done.stdout
