"""Passes around products of floats in two planes, thread by thread on the CPU: what they write, and that it adds up.

As in cuda_products.py: arrays are as large as a kernel may touch, outputs start as NaN, the reference is float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.source import wide_unit
from tests.backends.fake_cublas import split_into_tf32
from tests.helpers.compare import assert_close
from tests.kernels import cuda_products
from tests.kernels.cuda_products import Products
from tests.kernels.on_host import on_host

pytestmark = on_host

SIZES = ((1, 1), (5, 7), (33, 4), (19, 36), (40, 33), (3, 130))
"""Samples and neurons: one, primes, rows of whole runs of four and ragged ones, more than a block has threads for."""

HANDED_ON, PRODUCT = np.int32(0), np.int32(1)


class Planes(Products):
    """The kernels of one schedule, over one step of a network of one layer; inputs `offset` numbers off alignment."""

    def __init__(self, folder: Path, seed: int, offset: int) -> None:
        self.dtype, self.seed, self.offset = np.dtype(np.float32), seed, offset
        self.module = HostModule(wide_unit(cuda_products.pieces().text, "float32", "tf32x3"), folder)
        self.rng = np.random.default_rng(5)

    def launch(self, name: str, grid: Any, *arguments: Any) -> None:
        values = tuple(np.int64(a) if isinstance(a, int) else a for a in arguments)
        grid, block = grid if isinstance(grid, tuple) else ((grid,), (256,))
        self.module.launch(name, grid, block, values, seed=self.seed)

    def plane(self, n: int) -> Any:
        """Two tiles of columns at most, three splits of the rows."""
        return (min(2, n), 3), (4, 64)

    def dropped(self) -> Any:
        return self.blank(1), np.uint32(0), np.float32(1), np.int32(0), np.uint32(0), np.uint32(0), np.uint32(0)


def aligned(*shape: int) -> Any:
    """An operand, as memory of a device begins: at a multiple of 16 bytes."""
    return np.full(shape, np.nan, np.float32)


def whole(planes: Any, m: int) -> Any:
    """Add the planes up, and check that they are those of a float."""
    high, low = planes[:m], planes[m:]
    number = high + low
    for found, wanted in zip((high, low), split_into_tf32(number), strict=True):
        np.testing.assert_array_equal(found, wanted)
    return number


def check(p: Planes, m: int, n: int) -> None:
    """Launch every pass that reads or writes planes."""
    data = cuda_products._step(p, m, n, n)
    batch, step, rows, exact = data["batch"], np.int32(1), data["index"][3], np.float64
    X, Y, b = data["X"], data["Y"], data["b"]

    inputs = aligned(2 * m, n)
    p.launch("gather_inputs", p.plane(n), batch, step, inputs, m, n)
    np.testing.assert_array_equal(whole(inputs, m), X[rows])

    handed_on = aligned(2 * m, n)
    product = aligned(m, n)
    product[...] = p.normal(m, n)
    handed_on[:m] = product
    p.launch("finish_forward", p.plane(n), batch, step, handed_on, b, handed_on, np.int32(0), *p.dropped(), m, n)
    H = whole(handed_on, m)
    assert_close(H, np.tanh(product.astype(exact) + b), dtype=np.float32, scale=1.0)

    out = aligned(2 * m, n)
    p.launch("hand_on", p.plane(n), batch, step, product, out, *p.dropped(), m, n)
    np.testing.assert_array_equal(whole(out, m), product)

    for holds, source in ((HANDED_ON, handed_on), (PRODUCT, product)):
        Delta, partial, sums = aligned(2 * m, n), np.full((3, n), np.nan), p.normal(m, n)
        Delta[:m] = sums
        arguments = batch, step, source, holds, b, Delta, np.int32(0), *p.dropped(), partial, m, n
        p.launch("finish_backward", p.plane(n), *arguments)
        h = H.astype(exact) if holds == HANDED_ON else np.tanh(product.astype(exact) + b)
        found = whole(Delta, m)
        assert_close(found, sums * (1 - h * h), dtype=np.float32, scale=np.abs(sums).max())
        np.testing.assert_allclose(partial.sum(axis=0), found.astype(exact).sum(axis=0), rtol=1e-6, atol=1e-6)

    Delta, partial = aligned(2 * m, n), np.full((3, n), np.nan)
    p.launch("hand_back", p.plane(n), product, Delta, partial, m, n)
    np.testing.assert_array_equal(whole(Delta, m), product)
    np.testing.assert_allclose(partial.sum(axis=0), product.astype(exact).sum(axis=0), rtol=1e-12, atol=1e-12)

    output(p, m, n, data, product, np.tanh(product.astype(exact) + b), Y[rows].astype(exact))


def output(p: Planes, m: int, n: int, data: dict[str, Any], product: Any, h: Any, y: Any) -> None:
    """The last layer: its errors, and their sums."""
    blocks, names = 2, ["finish_output_wide"] + ["finish_output_narrow"] * (n <= 32)
    for name in names:
        Delta, partial, of_block = aligned(2 * m, n), np.full((3, n), np.nan), np.full(2 * blocks, np.nan)
        arguments = (
            *(data["batch"], np.int32(1), product, data["b"], Delta, p.blank(m), np.float32(1 / m), np.int32(0)),
            *(p.blank(1), of_block),
        )
        if name == "finish_output_wide":
            p.launch(name, blocks, *arguments, m, n)
            p.launch("add_errors", p.plane(n), Delta, partial, m, n)
        else:
            width = 1 << max(0, n - 1).bit_length()
            partial = np.full((blocks, n), np.nan)
            p.launch(name, blocks, *arguments, partial, m, n, np.int32(width))
        found = whole(Delta, m)
        assert_close(found, (h - y) * (1 - h * h) / m, dtype=np.float32, scale=np.abs(h - y).max() / m)
        np.testing.assert_allclose(partial.sum(axis=0), found.astype(np.float64).sum(axis=0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("seed", host_runner.SEEDS)
def test_planes_add_up(kernel_folder: Path, seed: int, offset: int) -> None:
    p = Planes(kernel_folder, seed, offset)
    for m, n in SIZES:
        check(p, m, n)


@pytest.mark.parametrize("size", [4, 64, 1040])
def test_the_copy_of_parameters(kernel_folder: Path, size: int) -> None:
    """A vector of parameters is a multiple of four numbers long."""
    p = Planes(kernel_folder, 2, 0)
    theta, copy = p.normal(size), aligned(2 * size)
    theta[:4] = np.finfo(np.float32).max, 0, 1e-40, -1
    p.launch("copy_parameters", ((2,), (64,)), theta, copy, size)
    np.testing.assert_array_equal(whole(copy, size), theta)
