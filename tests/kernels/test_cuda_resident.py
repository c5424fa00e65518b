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
from tests.kernels.on_host import changed, is_noticed, leaves_its_arrays, on_host, stays_inside
from tests.kernels.test_cuda_compile import Compiler, compiler

__all__ = ["compiler"]


@pytest.mark.parametrize(("blocks", "arch"), [(1, "sm_75"), (1, "sm_80"), (1, "sm_90"), (8, "sm_90"), (16, "sm_90")])
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
    return HostModule(translation_unit("float32", ("scalar", "memory", "cluster"), text), folder, races=False)


MEET = "cluster_arrive(); cluster_wait();"
RING = "in_block(place, (cluster_rank() + 1) % 2)[threadIdx.x] = 100 * blockIdx.x + threadIdx.x;"


@on_host
def test_a_grid_is_made_of_whole_clusters(kernel_folder: Path) -> None:
    """Of the kernels that say so: another one of the same unit has blocks by themselves."""
    alone = 'extern "C" __global__ void alone(int* out, int n) { out[blockIdx.x] = n; }'
    body = "out[blockIdx.x] = cluster_rank();"
    head = 'extern "C" __global__ void __cluster_dims__(2, 1, 1) k(int* out, int n) {'
    text = translation_unit("float32", ("scalar", "memory", "cluster"), alone, f"{head} {body} {MEET} }}")
    module, out = HostModule(text, kernel_folder), np.zeros(4, np.int32)
    with pytest.raises(HostRunError, match="k: 3 blocks cannot be clusters of 2"):
        module.launch("k", (3,), (1,), (out, np.int32(0)))
    module.launch("alone", (3,), (1,), (out, np.int32(7)))
    assert out.tolist() == [7, 7, 7, 0]
    module.launch("k", (4,), (1,), (out, np.int32(0)))
    assert out.tolist() == [0, 1, 0, 1]


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


THROUGH = "copy_through(gate, place, out + n, 128)"
GATE = "unsigned long long* const gate = reinterpret_cast<unsigned long long*>(memory + 128);"


@on_host
@pytest.mark.parametrize("seed", host_runner.SEEDS)
def test_a_gate_opens_when_everything_is_there(kernel_folder: Path, seed: int) -> None:
    """Again and again, whoever announces, copies and waits first."""
    body = f"""{GATE} if (threadIdx.x == 3) make_gate(gate); __syncthreads();
    for (int k = 0; k < 3; ++k) {{
        if (threadIdx.x == 3) announce(gate, 128);
        if (threadIdx.x == 20) {THROUGH};
        pass_gate(gate, k % 2);
        out[threadIdx.x] = place[threadIdx.x] + k;
        __syncthreads();
        if (threadIdx.x == 0) out[n] += 1;
        __syncthreads();
    }}"""
    out = np.arange(64, dtype=np.int32)
    _module(kernel_folder, body, blocks=1).launch("k", (1,), (32,), (out, np.int32(32)), shared=144, seed=seed)
    assert out[:33].tolist() == [36, *range(35, 66), 35]


@on_host
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("announce(gate, 128); pass_gate(gate, 0);", "some threads wait at a gate"),
        (f"{THROUGH}; pass_gate(gate, 0);", "some threads wait at a gate"),
        (f"announce(gate, 112); {THROUGH}; pass_gate(gate, 0);", "some threads wait at a gate"),
        (f"announce(gate, 128); {THROUGH}; pass_gate(gate, 0); pass_gate(gate, 1);", "some threads wait at a gate"),
        ("announce(gate, 128); announce(gate, 128);", "announced twice"),
        ("copy_through(gate, place, out + 1, 128);", "whole runs of 16 bytes"),
    ],
)
def test_gates_that_stay_closed_are_reported(kernel_folder: Path, body: str, message: str) -> None:
    module = _module(kernel_folder, f"{GATE} if (threadIdx.x == 0) {{ make_gate(gate); {body} }}", blocks=1)
    with pytest.raises(HostRunError, match=message):
        module.launch("k", (1,), (32,), (np.zeros(64, np.int32), np.int32(32)), shared=144)


# ------------------------------------------------------------------------------------------ mistakes


def _trained(folder: Path, seed: int, *change: str) -> Any:
    text, (spec, net, shape) = resident_cases.unit(
        "plain", np.float32, blocks=2, column_blocks=2, threads=64, wide_inputs=True
    )
    rng = np.random.default_rng(0)
    X, Y = (rng.normal(size=(12, n)).astype(np.float32) for n in (spec.sizes[0], spec.sizes[-1]))
    index, theta = rng.integers(0, 12, (4, shape.batch)), np.array(net.theta)
    one = np.ones(12, np.float32)
    arrays = (X, Y, np.arange(12) % 4, one, index, np.full((4, 1), 0.5), np.zeros((3, 4)), np.int64(4), theta)
    scalars = (np.float32(0), np.float64(0), np.float32(0.1), np.float32(0.5), np.int64(0), *2 * [np.uint32(0)])
    module = HostModule(changed(text, change), folder)
    arguments = (*arrays, np.zeros_like(theta), one, *scalars, np.int64(4), np.int32(shape.batch))
    module.launch("resident", (2,), (64,), arguments, seed=seed, shared=shape.nbytes)
    return np.concatenate([theta, arrays[6].astype(np.float32).ravel()])


@on_host
@pytest.mark.parametrize(
    "change",
    [
        ("        finish_fetch(b, k);", "        finish_copies();"),
        ("        if (k > 0) finish_spread(b, k - 1);", ""),
        ("            yield_to_copies();\n            __syncthreads();", ""),
        ("            spread<2>(b);", ""),
        ("        if (SHARES > 1) cluster_wait();", ""),
        ("    record(run, b, run.steps - 1);", ""),
        ("losses[i] = loss;", "losses[i] = loss + i;"),
    ],
    ids=["inputs", "spread", "moved", "nothing spread", "errors", "last record", "loss"],
)
def test_a_mistake_is_noticed(kernel_folder: Path, change: tuple[str, str]) -> None:
    right = [_trained(kernel_folder, seed) for seed in (0, 1)]
    np.testing.assert_array_equal(*right)
    assert is_noticed(lambda seed: np.testing.assert_array_equal(_trained(kernel_folder, seed, *change), right[0]))


# ------------------------------------------------------------------------------------------ AddressSanitizer


@on_host
@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [(), ("::N + left + j)", "::N + left + j + 4)"), ("int MEMORY = ", "int MEMORY = 9 + ")]
)
def test_no_access_outside(kernel_folder: Path, change: tuple[str, ...]) -> None:
    (leaves_its_arrays if change else stays_inside)("tests.kernels.resident_cases", kernel_folder, *change)
