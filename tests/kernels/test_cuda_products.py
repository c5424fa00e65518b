"""The products of a training step, run thread by thread on the CPU: right under every schedule, inside their arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bpcore.kernels.cuda import build, host_runner
from bpcore.kernels.cuda.host_runner import HostRunError
from bpcore.kernels.cuda.source import around_unit, tile_unit
from tests.kernels import cuda_products
from tests.kernels.cuda_products import Products
from tests.kernels.test_cuda_compile import compiler
from tests.kernels.test_cuda_host import run_sanitized

__all__ = ["compiler"]

on_the_cpu = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")


@pytest.fixture
def folder(kernel_folder: Path) -> Path:
    return kernel_folder


@on_the_cpu
@pytest.mark.parametrize("seed", host_runner.SEEDS)
@pytest.mark.parametrize("size", [32, 64])
def test_products_under_every_schedule(folder: Path, size: int, seed: int) -> None:
    cuda_products.run_all(Products(folder, "float64" if seed % 2 else "float32", size, seed=seed))


@on_the_cpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_at_odd_addresses(folder: Path, dtype: str) -> None:
    cuda_products.run_all(Products(folder, dtype, offset=1))


MUTATIONS = {
    "barrier before a part is written": ("        __syncthreads();  // the part before has been used\n", ""),
    "barrier before a part is read": (
        "        b_part.write(b_tile);\n        __syncthreads();",
        "        b_part.write(b_tile);",
    ),
    "barrier before the sums": ("have neighbouring columns\n    __syncthreads();", "have neighbouring columns\n"),
    "barrier after the sums": (
        "= sums[i][j];\n        }\n    }\n    __syncthreads();",
        "= sums[i][j];\n        }\n    }",
    ),
    "barrier before the loss": ("if (!finished) return;\n    __syncthreads();", "if (!finished) return;"),
    "last column of a ragged pack": ("at != nullptr && from + c < stop ?", "at != nullptr && from + c < stop - 1 ?"),
    "ones below the inputs": ("from + c == stop) next", "from + c == stop + 1) next"),
    "last row of a tile": ("if (i < p.M && j < p.N) finish", "if (i < p.M - 1 && j < p.N) finish"),
    "end of a split": ("begin + share < p.K ? begin + share : p.K", "begin + share < p.K ? begin + share - 1 : p.K"),
    "last part of a sum": ("if (first + s < splits)", "if (first + s < splits - 1)"),
    "who is last": ("static_cast<unsigned>(count) - 1", "static_cast<unsigned>(count) - 2"),
    "counters of arrivals": ("if (last[0]) *arrived = 0;", ""),
    "second layer of the gradient": ("tile - first, split, finish", "tile, split, finish"),
    "bias of the gradient": ("layer[G_B] + j", "layer[G_B] + j + 1"),
    "number of the step": ("batch[DONE] + j", "batch[DONE]"),
    "factors of a fragment": ("rank + r * (B / 4)) * ROW + k :", "rank * 4 + r) * ROW + k :"),
}


@on_the_cpu
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_product_is_caught(folder: Path, name: str) -> None:
    """The same cases fail when one line of the sources is wrong."""
    for seed in host_runner.SEEDS:
        products = Products(folder, "float32", seed=seed, change=MUTATIONS[name])
        for case in cuda_products.ALL:
            for size in cuda_products.CASES[1:5]:
                try:
                    case(products, *size)
                except (AssertionError, HostRunError):
                    return
    pytest.fail("no case noticed the mutation")


@on_the_cpu
@pytest.mark.slow
def test_no_product_leaves_its_arrays(folder: Path) -> None:
    done = run_sanitized("tests.kernels.sanitized_products", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all cases ran" in done.stdout


@on_the_cpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("i < size ? factor", "i <= size ? factor"),
        ("p.N - j < LANES ? static_cast<int>(p.N - j) : LANES", "LANES"),
    ],
    ids=["a line too many", "a ragged pack as a whole one"],
)
def test_an_access_outside_is_caught(folder: Path, old: str, new: str) -> None:
    done = run_sanitized("tests.kernels.sanitized_products", folder, old, new)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_compile(compiler: Callable[[str, str], bytes], arch: str, dtype: str) -> None:
    text = cuda_products.pieces().text
    for size in (32, 64):
        code = compiler(tile_unit(text, dtype, size, size), arch)
        assert [name for name in (b"forward", b"forward_output", b"backward", b"gradient") if name not in code] == []
    assert b"output_narrow" in compiler(around_unit(text, dtype), arch)
    assert build.OPTIONS
