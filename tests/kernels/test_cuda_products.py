"""The products of a training step, run thread by thread on the CPU: right under every schedule, inside their arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpcore.kernels.cuda import build, host_runner
from bpcore.kernels.cuda.source import around_unit, tile_unit
from tests.kernels import cuda_products
from tests.kernels.cuda_products import Products
from tests.kernels.on_host import is_noticed, leaves_its_arrays, on_host, stays_inside
from tests.kernels.test_cuda_compile import compiler

__all__ = ["compiler"]


@pytest.fixture
def folder(kernel_folder: Path) -> Path:
    return kernel_folder


@on_host
@pytest.mark.parametrize("seed", host_runner.SEEDS)
@pytest.mark.parametrize(
    "shape", [(32, 32, 1), (64, 64, 1), (64, 32, 1), (32, 32, 8), (64, 64, 2), (64, 32, 4)], ids=str
)
def test_products_under_every_schedule(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    cuda_products.run_all(Products(folder, "float64" if seed % 2 else "float32", *shape, seed=seed))


@on_host
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_at_odd_addresses(folder: Path, dtype: str) -> None:
    cuda_products.run_all(Products(folder, dtype, offset=1))


MUTATIONS = {
    "barrier before a stage is used": (
        "        __syncthreads();  // this stage is there",
        "        // this stage is there",
    ),
    "waiting for a stage": ("wait_for_copies<STAGES - 2>", "wait_for_copies<STAGES - 1>"),
    "which stage is filled": ("filled = filled < (STAGES - 1)", "filled = filled < (STAGES - 2)"),
    "rows of the stage after the next": ("a_part.find_next(begin + next + DEPTH,", "a_part.find_next(begin + next,"),
    "from a stage to the next": ("packs[round] += step;", "packs[round] += step / 2;"),
    "barrier before the sums": ("        __syncthreads();  // the last stage has been used\n", ""),
    "barrier between the halves": ("Shape::SUMS, false);\n        __syncthreads();", "Shape::SUMS, false);"),
    "barrier after the sums": ("Shape::SUMS, true);\n        __syncthreads();", "Shape::SUMS, true);"),
    "second half of the groups": (
        "for (int g = 1; g < Shape::GROUPS / 2; ++g)",
        "for (int g = 1; g < Shape::GROUPS / 2 - 1; ++g)",
    ),
    "barrier before the loss": ("return;\n    __syncthreads();\n    const LaneTeam", "return;\n    const LaneTeam"),
    "last column of a ragged pack": ("if (c < inside)", "if (c < inside - 1)"),
    "ones below the inputs": ("one && c == inside)", "one && c == inside + 1)"),
    "zeros outside a ragged pack": ("to[c] = T(", "if (one) to[c] = T("),
    "zeros outside": ("copy_later_if(inside > 0,", "if (inside > 0) copy_later_if(true,"),
    "ones that are elsewhere": ("? static_cast<int>(end - first) : B + F::ONES", "? static_cast<int>(end - first) : B"),
    "last row of a tile": ("i >= p.M || j >= p.N", "i >= p.M - 1 || j >= p.N"),
    "end of a split": ("p.K - begin < share ? p.K - begin : share", "p.K - begin < share ? p.K - begin : share - 1"),
    "last part of a sum": ("if (first + s < splits)", "if (first + s < splits - 1)"),
    "who is last": ("static_cast<unsigned>(count) - 1", "static_cast<unsigned>(count) - 2"),
    "counters of arrivals": ("if (last[0]) *arrived = 0;", ""),
    "second layer of the gradient": ("tile - first, split, finish", "tile, split, finish"),
    "bias of the gradient": ("layer[G_B] + j", "layer[G_B] + j + 1"),
    "number of the step": ("batch[DONE] + j", "batch[DONE]"),
    "factors of a fragment": ("place(rank, q / 4 * 4))", "place(rank, 0))"),
}
IN_CLUSTERS = {
    "barrier of the cluster": ("        cluster_arrive();\n        cluster_wait();\n", "        __syncthreads();\n"),
    "own sums before others read them": ("+ e % BN) = add_groups(e);", "+ e % BN + 0) = Pack{};"),
    "who leaves first": (
        "    if constexpr (TOGETHER > 1) cluster_wait();",
        "    if constexpr (TOGETHER > 1) __syncthreads();",
    ),
    "whose sums": ("in_block(memory, s)", "in_block(memory, s / 2)"),
    "rows of a block": ("TOGETHER > 1 ? split * ROWS : 0", "0"),
    "number of a block": ("TOGETHER > 1 ? blockIdx.x : blockIdx.x / splits", "blockIdx.x / splits"),
}


def notices(folder: Path, together: int, change: tuple[str, str]) -> bool:
    """Whether a case fails when one line of the sources is wrong."""

    def judge(seed: int) -> None:
        products = Products(folder, "float32", together=together, seed=seed, change=change)
        for case in cuda_products.ALL:
            for m, n_in, n, splits in (*cuda_products.CASES[1:5], *cuda_products.CASES[-2:]):
                case(products, m, n_in, n, together if together > 1 else splits)

    return is_noticed(judge)


@on_host
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_product_is_caught(folder: Path, name: str) -> None:
    assert notices(folder, 1, MUTATIONS[name])


@on_host
@pytest.mark.parametrize("name", IN_CLUSTERS)
def test_a_mutated_product_of_a_cluster_is_caught(folder: Path, name: str) -> None:
    assert notices(folder, 4, IN_CLUSTERS[name])


@on_host
@pytest.mark.slow
def test_no_product_leaves_its_arrays(folder: Path) -> None:
    stays_inside("tests.kernels.sanitized_products", folder)


@on_host
@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("? static_cast<int>(end - first) :", "? static_cast<int>(end - first) + 1 :"),
        ("p.N - j < LANES ? static_cast<int>(p.N - j) : LANES", "LANES"),
        ("if (whole && left >= DEPTH)", "if (whole)"),
        ("whole(packed && size >= B + F::ONES)", "whole(packed)"),
    ],
    ids=["a line too many", "a ragged pack as a whole one", "k's of the last stage", "rows of the last tile"],
)
def test_an_access_outside_is_caught(folder: Path, old: str, new: str) -> None:
    leaves_its_arrays("tests.kernels.sanitized_products", folder, old, new, how="")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("sm_75", (32, 32, 1)),
        ("sm_80", (64, 64, 1)),
        ("sm_90", (64, 64, 8)),
        ("sm_90", (64, 32, 2)),
        ("sm_90", (32, 32, 4)),
    ],
    ids=str,
)
def test_products_compile(
    compiler: Callable[[str, str], bytes], arch: str, shape: tuple[int, int, int], dtype: str
) -> None:
    text = cuda_products.pieces().text
    code = compiler(tile_unit(text, dtype, *shape), arch)
    assert [name for name in (b"forward", b"forward_output", b"backward", b"gradient") if name not in code] == []
    assert b"output_narrow" in compiler(around_unit(text, dtype), arch)
    assert build.OPTIONS
