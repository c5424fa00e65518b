"""The CUDA sources order all of their accesses, and need every barrier that they have; what judges them is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from bpcore.backends.cupy_backend import CupyBackend
from bpcore.kernels.cuda import host_runner, resident, source
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from bpcore.kernels.cuda.source import translation_unit
from tests.backends.conftest import fake_backend, fake_cupy, watched
from tests.kernels.on_host import changed, is_noticed, on_host
from tests.kernels.ordered_cases import RUNS

__all__ = ["fake_backend", "fake_cupy", "watched"]

pytestmark = [on_host, pytest.mark.usefixtures("watched")]


# ------------------------------------------------------------------------------------------ the rules

BEGIN = """
    DYNAMIC_SHARED(memory);
    int* const place = reinterpret_cast<int*>(memory);
    unsigned long long* const gate = reinterpret_cast<unsigned long long*>(memory + 256);
    SHARED_ARRAY(int, last, 1);
    const int i = threadIdx.x, next = (i + 1) % 32;"""
MEET = "cluster_arrive(); cluster_wait();"
GATE = "if (i == 0) make_gate(gate);"
SEND = "if (i == 3) copy_through(gate, place, out, 128); if (i == 7) announce(gate, 128);"
ARRIVE = """
    if (i == 0) last[0] = atomicAdd(reinterpret_cast<unsigned*>(out) + 100, 1u) == 1;
    __syncthreads();"""
ADD = "if (last[0]) out[64 + i] = out[i] + out[32 + next];"

# One block of 32 threads, with an array in shared memory.
ALONE = {
    "each its own": ("out[i] += 1;", ""),
    "one place": ("out[0] = i;", "a race in global memory: thread .* writes .*behind this: thread"),
    "the same number": ("out[0] = 7;", "a race in global memory"),
    "a flag": ("raise_flag(reinterpret_cast<unsigned*>(out));", ""),
    "a flag that is read": (
        "raise_flag(reinterpret_cast<unsigned*>(out)); if (out[0] > 7) out[1] = 1;",
        "changes|reads",
    ),
    "only reads": ("if (out[0] > 7) out[1] = 1;", ""),
    "half a word each": ("reinterpret_cast<short*>(out)[i] = 1;", ""),
    "one byte for two": ("reinterpret_cast<char*>(out)[i / 2] = 1;", "a race in global memory"),
    "nothing between": ("place[i] = i; out[i] = place[next];", "a race in shared memory"),
    "a barrier": ("place[i] = i; __syncthreads(); out[i] = place[next];", ""),
    "a barrier of a warp": ("place[i] = i; __syncwarp(); out[i] = place[next];", ""),
    "a shuffle": ("place[i] = i; shuffle_xor(i, 1); out[i] = place[next];", "a race in shared memory"),
    "written again": ("place[i] = i; __syncthreads(); out[i] = place[next]; place[i] = 0;", "a race in shared memory"),
    "aligned": ("if (i < 8) reinterpret_cast<Pack*>(out)[i].v[0] = 1.0f;", ""),
    "not aligned": (
        "const Pack p = *reinterpret_cast<Pack*>(out + 1); out[40 + i] = p.v[0];",
        "reads in line .* 16 bytes that are not aligned to their size",
    ),
    "a copy": ("copy_later<4>(place + i, out + i); finish_copies(); __syncthreads(); out[64 + i] = place[next];", ""),
    "a copy for another": (
        "copy_later<4>(place + i, out + i); finish_copies(); out[64 + i] = place[next];",
        "behind this: thread .* reads|behind this: a copy that thread .* writes",
    ),
    "a copy that nobody awaits": (
        "copy_later<4>(place + i, out + i); __syncthreads(); out[64 + i] = place[i];",
        "thread .* reads .*behind this: a copy that thread .* began writes",
    ),
    "the first group": (
        "copy_later<4>(place + i, out + i); commit_copies(); copy_later<4>(place + 32 + i, out + i); commit_copies(); "
        "wait_for_copies<1>(); out[64 + i] = place[i]; finish_copies();",
        "",
    ),
    "a copy at the end": (
        "copy_later<4>(place + i, out + i);",
        "block 0 may end before this: a copy that thread 0 of block 0 began writes",
    ),
    "both groups": (
        "copy_later<4>(place + i, out + i); commit_copies(); copy_later<4>(place + 32 + i, out + i); commit_copies(); "
        "wait_for_copies<1>(); out[64 + i] = place[i] + place[32 + i];",
        "thread .* reads .*behind this: a copy that thread .* began writes",
    ),
    "a gate": (f"{GATE} __syncthreads(); {SEND} pass_gate(gate, 0); out[64 + i] = place[next];", ""),
    "a gate that is made too late": (
        f"{GATE} {SEND}",
        "a gate is used that was not made|behind this: thread 0 .* writes",
    ),
    "a gate that not all pass": (
        f"{GATE} __syncthreads(); {SEND} if (i < 9) pass_gate(gate, 0); out[64 + i] = place[next];",
        "a race in shared memory: .*a copy through a gate writes",
    ),
    "what was written before": (
        f"{GATE} place[i] = i; __syncthreads(); {SEND} pass_gate(gate, 0); out[64 + i] = place[next];",
        "a copy through a gate writes .*behind this: thread",
    ),
    "what was handed over": (
        f"{GATE} place[i] = i; yield_to_copies(); __syncthreads(); {SEND} pass_gate(gate, 0); out[64 + i] = place[i];",
        "",
    ),
    "what was written after that": (
        f"{GATE} yield_to_copies(); place[i] = i; __syncthreads(); {SEND} pass_gate(gate, 0);",
        "a copy through a gate writes .*behind this: thread",
    ),
}
# Two blocks of a cluster.
TOGETHER = {
    "a barrier of the cluster": (f"theirs[i] = i; {MEET} out[32 * blockIdx.x + i] = place[next];", ""),
    "a barrier of a block": ("theirs[i] = i; __syncthreads(); out[32 * blockIdx.x + i] = place[i];", "shared memory"),
    "after the arrival": (
        "cluster_arrive(); theirs[i] = i; cluster_wait(); out[32 * blockIdx.x + i] = place[i];",
        "a race in shared memory",
    ),
    "before the wait": (
        "theirs[i] = i; cluster_arrive(); out[32 * blockIdx.x + i] = place[i]; cluster_wait();",
        "a race in shared memory",
    ),
    "who leaves first": (
        f"place[i] = i; {MEET} out[32 * blockIdx.x + i] = theirs[next];",
        "may end before this|in the memory of a block that has ended",
    ),
    "who leaves last": (f"place[i] = i; {MEET} out[32 * blockIdx.x + i] = theirs[next]; {MEET}", ""),
    "a block after the other": ("if (i == 0) out[0] += 1; " + MEET, "a race in global memory"),
    "the same, in turn": (f"if (blockIdx.x == 0) out[i] = 1; {MEET} if (blockIdx.x == 1) out[next] = 2;", ""),
}
# Two blocks of a grid: the second to arrive adds what the first has left.
APART = {
    "handed over": (
        f"out[blockIdx.x * 32 + i] = i; __threadfence(); __syncthreads(); {ARRIVE} __threadfence(); {ADD}",
        "",
    ),
    "by one thread": (
        f"out[blockIdx.x * 32 + i] = i; __syncthreads(); if (i == 0) __threadfence(); {ARRIVE} __threadfence(); {ADD}",
        "",
    ),
    "not fenced": (
        f"out[blockIdx.x * 32 + i] = i; __syncthreads(); {ARRIVE} __threadfence(); {ADD}",
        "a race in global",
    ),
    "not fenced behind": (
        f"out[blockIdx.x * 32 + i] = i; __threadfence(); __syncthreads(); {ARRIVE} {ADD}",
        "a race in global memory",
    ),
    "not met before": (
        f"out[blockIdx.x * 32 + i] = i; __threadfence(); {ARRIVE} __threadfence(); {ADD}",
        "a race in global",
    ),
    "fenced too early": (
        f"__threadfence(); out[blockIdx.x * 32 + i] = i; __syncthreads(); {ARRIVE} __threadfence(); {ADD}",
        "a race in global memory",
    ),
}
RULES = [(rules, name) for rules in ("ALONE", "TOGETHER", "APART") for name in globals()[rules]]


@pytest.mark.parametrize(("rules", "name"), RULES)
@pytest.mark.parametrize("seed", [0, 3])
def test_what_orders_accesses_and_what_does_not(kernel_folder: Path, rules: str, name: str, seed: int) -> None:
    body, message = globals()[rules][name]
    cluster = "__cluster_dims__(2, 1, 1) " if rules == "TOGETHER" else ""
    begin = BEGIN + ("int* const theirs = in_block(place, 1 - cluster_rank());" if cluster else "")
    text = f'extern "C" __global__ void __launch_bounds__(32) {cluster}k(int* out, int n) {{ {begin}\n{body}\n}}'
    module = HostModule(translation_unit("float32", ("scalar", "memory", "team", "cluster"), text), kernel_folder)
    arguments = np.zeros(128, np.int32), np.int32(0)
    blocks = 1 if rules == "ALONE" else 2
    with pytest.raises(HostRunError, match=message) if message else nullcontext():
        module.launch("k", (blocks,), (32,), arguments, seed=seed, shared=272)


# ------------------------------------------------------------------------------------------ the kernels

FOLDER = Path(host_runner.__file__).parent
ORDER = re.compile(
    r"\b(__syncthreads\(\)|__syncwarp\(\)|cluster_wait\(\)|__threadfence\(\)|yield_to_copies\(\)|finish_copies\(\)"
    r"|commit_copies\(\)|wait_for_copies<[^>]*>\(\)|pass_gate\([^;{]*\));"
)
"""Statements that put accesses in an order."""
RUNS_OF = {
    "few": ("few",),
    "fused": ("fused",),
    "fused_float": ("fused_float",),
    "fused_shared": ("fused", "fused_float"),
    "inference": ("answers",),
    "narrow": ("narrow",),
    "plane": ("wide",),
    "product": ("products",),
    "reductions": ("rows",),
    "resident": ("resident",),
    "team": ("rows",),
    "tiles": ("products",),
    "wide_output": ("wide",),
    "wide_update": ("wide",),
}
"""Which runs need the statements of a file."""
SITES = [
    (file.stem, k)
    for file in sorted(FOLDER.glob("*.cuh"))
    if file.stem != "cluster"  # which defines them
    for k, _ in enumerate(ORDER.finditer(file.read_text(encoding="utf-8")))
]


@pytest.mark.slow
@pytest.mark.parametrize(("about", "number"), [(about, k) for about, runs in RUNS.items() for k in range(len(runs))])
def test_all_accesses_are_ordered(kernel_folder: Path, fake_backend: CupyBackend, about: str, number: int) -> None:
    RUNS[about][number](kernel_folder, fake_backend)


def without(text: str, k: int) -> str:
    """Leave out one of the statements; with the wait at a barrier of the cluster, the arrival before it."""
    found = list(ORDER.finditer(text))[k]
    before, after = text[: found.start()], text[found.end() :]
    if found.group().startswith("cluster_wait"):
        at = before.rindex("cluster_arrive();")
        before = before[:at] + ";" + before[at + len("cluster_arrive();") :]
    return before + ";" + after


def change_file(monkeypatch: pytest.MonkeyPatch, file: str, change: Callable[[str], str]) -> None:
    """Change the text of one file of the kernels."""
    text = source.cuda_text
    for module in (source, resident):
        monkeypatch.setattr(module, "cuda_text", lambda name: change(text(name)) if name == file else text(name))


@pytest.mark.long
@pytest.mark.parametrize(("file", "k"), SITES)
def test_every_barrier_is_needed(
    kernel_folder: Path, fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, file: str, k: int
) -> None:
    """Each statement that orders accesses, left out alone, is missed in one of the runs."""
    change_file(monkeypatch, file, lambda text: without(text, k))
    runs = [run for about in RUNS_OF[file] for run in RUNS[about]]
    assert any(is_noticed(lambda _, run=run: run(kernel_folder, fake_backend), seeds=[0]) for run in runs)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("file", "right", "wrong", "about"),
    [
        ("memory", "& 15) == 0", "& 15) < 99", "products"),
        ("operand", "% (V * sizeof(E)) == 0", "% sizeof(E) == 0", "wide"),
    ],
    ids=["a pack", "a run of a pass"],
)
def test_an_access_that_is_too_wide_for_its_address_is_reported(
    kernel_folder: Path,
    fake_backend: CupyBackend,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    right: str,
    wrong: str,
    about: str,
) -> None:
    change_file(monkeypatch, file, lambda text: changed(text, (right, wrong)))
    run = {"products": RUNS["products"][2], "wide": RUNS["wide"][3]}[about]  # those of odd addresses
    with pytest.raises(HostRunError, match=r"not aligned to (their|its) size"):
        run(kernel_folder, fake_backend)
