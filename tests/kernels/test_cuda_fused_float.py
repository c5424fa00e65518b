"""What the fused kernel in float32 rests on: where everything lies and who has what, and inputs as they come."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bpcore.kernels.cuda.fused_float import FloatShape
from bpcore.kernels.cuda.host_runner import HostModule
from tests.helpers.compare import assert_same_bits
from tests.kernels.fused_cases import FLOAT_CASES, Run, text_of
from tests.kernels.on_host import on_host

# ------------------------------------------------------------------------------------------ inputs


@on_host
@pytest.mark.parametrize("m", [1, 31, 32, 161])
def test_other_numbers_of_samples(kernel_folder: Path, m: int) -> None:
    """A block without a tile, tiles that are full, a block with more tiles than the other."""
    run = Run(replace(FLOAT_CASES["two runs"], m=m))
    run.compare(run.kernel(kernel_folder))


@on_host
@pytest.mark.parametrize("name", ["two runs", pytest.param("128 samples", marks=pytest.mark.long)])
def test_inputs_at_any_address(kernel_folder: Path, name: str) -> None:
    """Rows that could be copied sixteen bytes at a time, but for where they begin: the same bits."""
    run = Run(FLOAT_CASES[name])
    assert run.X.shape[1] % 4 == 0
    found = []
    for offset in (0, 1):
        room = np.empty(run.X.size + 8, np.float32)
        begin = -(room.ctypes.data // 4) % 4 + offset
        X = room[begin : begin + run.X.size].reshape(run.X.shape)
        X[...] = run.X
        assert X.ctypes.data % 16 == 4 * offset
        run.X = X
        found.append(run.kernel(kernel_folder)["grad"])
    assert_same_bits(*found)


# ------------------------------------------------------------------------------------------ shapes


def test_where_everything_lies() -> None:
    shape = FloatShape((13, 20, 37, 5), 64)
    places = shape.places
    assert shape.widths == (16, 32, 64, 16)
    assert sorted(places.values()) == list(places.values())
    for l, (n_in, n) in enumerate(pairwise(shape.widths), start=1):
        assert places[f"W{l}"] % (4 * n) == 0
        assert places[f"B{l}"] - places[f"W{l}"] == 4 * n_in * n
        assert places[f"DB{l}"] - places[f"B{l}"] == 4 * n
    assert places["TILES"] % (4 * 64) == 0
    assert places["SECOND"] - places["TILES"] == places["LOGITS"] - places["SECOND"] == 4 * 64 * 64
    assert shape.nbytes == places["LOGITS"] + 4 * 64 * shape.logits_row
    # layer 2 is kept; layer 3, the last hidden one, is still on chip
    assert shape.kept == 64 * 32
    assert FloatShape((4, 3)).kept == FloatShape((4, 5, 3)).kept == 0


@pytest.mark.parametrize("sizes", [(128, 16, 16, 16, 128), (16, 64, 64, 64, 128), (32, 32, 32, 32)])
def test_layers_of_a_run_lie_a_step_apart(sizes: tuple[int, ...]) -> None:
    """Also where what comes before or after them has longer rows."""
    shape = FloatShape(sizes, 32)
    for l in range(1, len(sizes) - 1):
        if shape.widths[l - 1 : l + 1] == shape.widths[l : l + 2]:
            assert shape.places[f"W{l + 1}"] - shape.places[f"W{l}"] == shape._step(l) == shape._step(l + 1)


def test_the_largest_tile_leaves_a_thread_32_sums() -> None:
    assert [shape.rows for shape in FloatShape.possible((64, 64, 10))] == [128, 64, 32]
    assert [shape.rows for shape in FloatShape.possible((64, 65, 10))] == [64, 32]


@pytest.mark.parametrize("n_in", [16, 32, 64, 128])
@pytest.mark.parametrize("n", [16, 32, 64, 128])
def test_threads_share_a_gradient(n_in: int, n: int) -> None:
    shape = FloatShape((n_in, n))
    ((down, across),) = shape.shares
    threads = n_in * n // (down * across)
    assert threads * down * across == n_in * n
    assert threads in ((256,) if n_in * n >= 4096 else (64, 128))


_PLACES = """
extern "C" __global__ void places(int* out) {
    const int t = threadIdx.x;
    for (int k = 0; k < 8; ++k) out[8 * t + k] = place_of<PADDED>(t, k) / PACK % 8;  // banks of sixteen bytes
    const Share<3> share(t);
    out[2048 + t] = share.down;
    out[2304 + t] = share.across;
}
"""


@on_host
@pytest.mark.parametrize("width", [32, 64, 128])
def test_what_half_a_warp_reads_lies_in_different_banks(kernel_folder: Path, width: int) -> None:
    """By what the kernel itself says: of packs, and of which rows and columns a lane has."""
    case = FLOAT_CASES["128 samples"]  # layer 3 has tiles of 128 x 64
    module = HostModule(text_of(case) + _PLACES.replace("PADDED", str(width)), kernel_folder)
    out = np.zeros(2560, np.int32)
    module.launch("places", (1,), (256,), (out,))
    banks, down, across = out[:2048].reshape(256, 8), out[2048:2304], out[2304:]
    assert sorted(zip(down, across, strict=True)) == [(i, j) for i in range(16) for j in range(16)]
    for half in np.arange(256).reshape(16, 16):
        rows, columns = np.unique(down[half]), np.unique(across[half])
        assert (len(rows), len(columns)) == (2, 8)
        assert len({banks[4 * row, 0] for row in rows}) == 2  # rows of a tile, at one pack
        assert len({banks[4 * column, 0] for column in columns}) == 8  # going back: rows of W, at one pack
        assert len({banks[0, column % 8] for column in columns}) == 8  # packs of one row
        for first in (0, 2):  # of any four lanes two have the same row, and two the same columns
            quarter = half[first : first + 4]
            assert len(np.unique(down[quarter])) == len(np.unique(across[quarter])) == 2
    for lanes in np.arange(256).reshape(32, 8):  # those that store a pack each at once
        stored = banks[4 * down[lanes], across[lanes] % 8]
        assert len(np.unique(stored)) == 8
