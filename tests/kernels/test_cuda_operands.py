"""What products by cuBLAS read: roundings to 16 bits, and back; floats in two planes; and what reads them compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.source import translation_unit, wide_unit
from tests.backends.fake_cublas import cut_to_tf32, from_bfloat16, split_into_tf32, to_bfloat16, to_tf32
from tests.kernels import cuda_products
from tests.kernels.on_host import on_host
from tests.kernels.test_cuda_compile import compiler

__all__ = ["compiler"]

_CONVERT = """
extern "C" __global__ void convert(const T* x, Bfloat16* b, Float16* h, T* from_b, T* from_h, long long p) {
    for (long long i = grid_index(); i < p; i += grid_size()) {
        round_to(b[i], x[i]);
        round_to(h[i], x[i]);
        from_b[i] = wide_of(b[i]);
        from_h[i] = wide_of(h[i]);
    }
}
"""


def convert(x: Any, folder: Path) -> list[Any]:
    """Round numbers to 16 bits, and take them back."""
    module = HostModule(translation_unit("float32", ("scalar", "memory", "operand"), _CONVERT), folder)
    out = [np.empty(x.size, np.uint16), np.empty(x.size, np.uint16), np.empty_like(x), np.empty_like(x)]
    module.launch("convert", (3,), (64,), (x, *out, np.int64(x.size)))
    return out


@on_host
def test_numbers_of_16_bits(kernel_folder: Path) -> None:
    """Every number of 16 bits, what lies halfway between two, and the floats beside that."""
    bits = np.arange(2**16, dtype=np.uint32)
    floats = (bits << 16).view(np.float32), ((bits << 16) + 0x8000).view(np.float32)
    small = bits.astype(np.uint16).view(np.float16)
    small = small[np.isfinite(small)].astype(np.float32)
    halves = small + np.abs(small) * np.float32(2.0**-11), np.arange(4096, dtype=np.float32) * np.float32(2.0**-26)
    x = np.concatenate([*(values[~np.isnan(values)] for values in floats), small, *halves])
    x = np.concatenate([x, np.array([65519.0, 65520.0, 1e30, -65520.0], np.float32)])
    with np.errstate(over="ignore"):
        x = np.concatenate([x, *(np.nextafter(x, np.float32(to)) for to in (-np.inf, np.inf))])
    b, h, from_b, from_h = convert(x, kernel_folder)
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    np.testing.assert_array_equal(b, to_bfloat16(x))
    np.testing.assert_array_equal(h, wanted.view(np.uint16))
    np.testing.assert_array_equal(from_b, from_bfloat16(b))
    np.testing.assert_array_equal(from_h, wanted.astype(np.float32))
    for found in convert(np.full(8, np.nan, np.float32), kernel_folder)[2:]:
        assert np.isnan(found).all()


_SPLIT = """
extern "C" __global__ void take_apart(const T* x, Tf32* out, long long p) {
    const TwoPlanes numbers = single_operands(out, p);
    for (long long i = grid_index(); i < p; i += grid_size()) round_to(numbers[i], x[i]);
}
"""


def take_apart(x: Any, folder: Path) -> tuple[Any, Any]:
    """Split floats into two planes, thread by thread."""
    module = HostModule(translation_unit("float32", ("scalar", "memory", "operand"), _SPLIT), folder)
    out = np.full((2, x.size), np.nan, np.float32)
    module.launch("take_apart", (3,), (64,), (x, out, np.int64(x.size)))
    return out[0], out[1]


@on_host
def test_floats_in_two_planes(kernel_folder: Path) -> None:
    """Every exponent, with fractions at, beside and halfway between numbers of ten bits; and what is no such number."""
    fractions = np.array(
        [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x3001, 0x7FEFFF, 0x7FF000, 0x7FFFFF]
    )
    exponents = np.arange(256, dtype=np.uint32) << 23
    rng = np.random.default_rng(0)
    bits = np.concatenate(
        [(exponents[:, None] | fractions.astype(np.uint32)).ravel(), rng.integers(0, 2**31, 20_000, np.uint32)]
    )
    x = np.concatenate([bits, bits | np.uint32(2**31)]).view(np.float32)
    high, low = take_apart(x, kernel_folder)
    for found, wanted in zip((high, low), split_into_tf32(x), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert (high.view(np.uint32) % 2**13 == 0).all(), "the first part is what tensor cores read"
    finite = np.isfinite(x)
    np.testing.assert_array_equal((high + low)[finite], x[finite])  # exactly
    np.testing.assert_array_equal(high[~finite], 0)
    np.testing.assert_array_equal(low[~finite], x[~finite])
    # where the digits of float32 do not end, tensor cores lose the last one of them at most
    normal = finite & (np.abs(x) >= 2.0**-100) & (np.abs(x) < 2.0**127)
    for read in (to_tf32, cut_to_tf32):
        np.testing.assert_array_equal(read(high), high)
        lost = np.abs(read(low[normal]).astype(np.float64) - low[normal])
        assert (lost <= np.spacing(np.abs(x[normal]))).all()


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("dtype", "operands"),
    [("float32", ""), ("float64", ""), ("float32", "bf16"), ("float32", "fp16"), ("float32", "tf32x3")],
)
def test_kernels_around_products_compile(
    compiler: Callable[[str, str], bytes], dtype: str, operands: str, arch: str
) -> None:
    if arch == "sm_75" and operands in ("bf16", "tf32x3"):
        pytest.skip(f"precision={operands!r} needs compute capability 8.0")
    code = compiler(wide_unit(cuda_products.pieces().text, dtype, operands), arch)
    names = "gather_inputs finish_forward finish_output_narrow finish_output_wide add_errors finish_backward hand_back"
    names += " prepare_update move_parameters copy_parameters adjust_scale"
    assert [name for name in names.split() if name.encode() not in code] == []
