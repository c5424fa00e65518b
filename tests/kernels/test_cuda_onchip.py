"""Products in shared memory: every way to lay a warp over them gives the right sums."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.kernels.cuda.resident import Form, Tiling, choose_tiling
from bpcore.kernels.cuda.source import translation_unit
from tests.helpers.compare import assert_close
from tests.kernels.on_host import on_host

pytestmark = on_host

FORMS: tuple[Form, ...] = ("forward", "backward", "gradient")


def source(dtype: Any, tilings: list[Tiling]) -> str:
    """Kernels that multiply matrices of a global array as if it were shared."""
    onchip = Path(host_runner.__file__).with_name("onchip.cuh").read_text("utf-8")
    kernels = [
        f"""extern "C" __global__ void {form}_{k}(
            const T* A, int a_row, const T* B, int b_row, T* C, int* count, int m, int n, int terms) {{
            multiply_on_chip<{tiling}, {form.upper()}>(m, n, terms, A, a_row, B, b_row, [&](int i, int j, auto few) {{
                for (int k = 0; k < few.SIZE; ++k) {{
                    if (j + k < n) {{ C[i * n + j + k] = few.v[k]; ++count[i * n + j + k]; }}
                }}
            }});
        }}"""
        for k, tiling in enumerate(tilings)
        for form in FORMS
        if form != "gradient" or tiling.rows % (16 // np.dtype(dtype).itemsize) == 0
    ]
    return translation_unit(dtype, ("scalar", "memory", "team"), "constexpr int THREADS = 64;", onchip, *kernels)


def padded(A: Any, rows: int, dtype: Any) -> Any:
    """Lay out a matrix as shared memory has it: rows at odd multiples of 16 bytes, zeros around."""
    lanes = 16 // np.dtype(dtype).itemsize
    out = np.zeros((-(-rows // lanes) * lanes, (-(-A.shape[1] // lanes) | 1) * lanes), dtype)
    out[: A.shape[0], : A.shape[1]] = A
    return out


TILINGS = [
    Tiling(rows, packs, across, sharing)
    for rows, packs, across, sharing in product((1, 2, 4, 8), (1, 2), (1, 2, 4, 8, 32), (1, 2, 4, 8, 32))
    if across * sharing <= 32
]


@pytest.mark.parametrize("part", range(4))
def test_every_tiling(kernel_folder: Path, dtype: Any, part: int) -> None:
    tilings = TILINGS[part::4]
    module = HostModule(source(dtype, tilings), kernel_folder)
    module.fibers = True
    rng = np.random.default_rng(0)
    lanes = 16 // np.dtype(dtype).itemsize
    for (m, n, terms), (k, _), form in product(((1, 1, 1), (5, 7, 3), (9, 18, 21)), enumerate(tilings), FORMS):
        if f"{form}_{k}" not in module.kernels:
            continue
        left, right = rng.normal(size=(m, terms)), rng.normal(size=(terms, n))
        A = padded(left.T if form == "gradient" else left, terms if form == "gradient" else m, dtype)
        B = padded(right.T if form == "backward" else right, n if form == "backward" else terms, dtype)
        C, count = np.full((m, n), np.nan, dtype), np.zeros((m, n), np.int32)
        steps = terms if form == "gradient" else -(-terms // lanes)
        sizes = (np.int32(m), np.int32(n), np.int32(steps))
        arguments = (A, np.int32(A.shape[1]), B, np.int32(B.shape[1]), C, count, *sizes)
        module.launch(f"{form}_{k}", (1,), (64,), arguments, seed=2)
        assert (count == 1).all(), (form, tilings[k], m, n)
        expected = left.astype(dtype).astype(np.float64) @ right.astype(dtype).astype(np.float64)
        assert_close(C, expected, dtype=dtype, length=terms, scale=np.abs(left) @ np.abs(right))


def test_the_chosen_tilings_are_possible() -> None:
    for form, m, n, terms, itemsize in product(FORMS, (1, 10, 64), (1, 10, 128), (3, 100), (4, 8)):
        tiling = choose_tiling(form, m, n, terms, 256, itemsize)
        assert tiling.across * tiling.sharing <= 32
        assert form != "gradient" or tiling.rows % (16 // itemsize) == 0
