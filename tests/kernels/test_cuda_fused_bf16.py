"""What the fused kernel in bf16 rests on: products of a warp, and where everything lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bpcore.kernels.cuda.fused import FusedShape
from bpcore.kernels.cuda.host_runner import HostModule, HostRunError
from bpcore.kernels.cuda.source import translation_unit
from tests.kernels.on_host import on_host

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
def test_a_product_of_a_warp(kernel_folder: Path) -> None:
    """The emulation holds to the layout that PTX documents: a product through all of its functions is a product."""
    module = HostModule(translation_unit("float32", ("scalar", "cluster", "fragments"), _MULTIPLY), kernel_folder)
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
def test_a_warp_that_is_not_together_is_reported(kernel_folder: Path, body: str, message: str) -> None:
    text = f'extern "C" __global__ void k(int* out) {{ DYNAMIC_SHARED(memory); {body} __syncthreads(); }}'
    module = HostModule(
        translation_unit("float32", ("scalar", "memory", "team", "cluster", "fragments"), text), kernel_folder
    )
    with pytest.raises(HostRunError, match=message):
        module.launch("k", (1,), (32,), (np.zeros(1, np.int32),), shared=64)


# ------------------------------------------------------------------------------------------ shapes


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
