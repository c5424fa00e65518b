"""The kernels for few samples and narrow ends, on the CPU: right, within their arrays; the cases notice mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpcore.kernels.cuda import host_runner
from tests.kernels import prediction_cases
from tests.kernels.on_host import is_noticed, leaves_its_arrays, on_host, stays_inside
from tests.kernels.prediction_cases import Where

pytestmark = on_host

CASES = [("few", sizes) for sizes in prediction_cases.FEW] + [("narrow", sizes) for sizes in prediction_cases.NARROW]

MUTATIONS = {
    "a batch twice": ("few", "a_at += LINES;", "a_at += 0;"),
    "a warp's sums left out": ("few", "w = 1; w < WARPS", "w = 2; w < WARPS"),
    "lanes of other columns": ("few", "mask >= ALONG", "mask > ALONG"),
    "columns behind the end": ("few", "rows && row < ROWS && column < n", "rows && row < ROWS"),
    "no bias": ("few", "h += b[column];", ""),
    "nobody watches": ("few", "if (watch && !finite_(h)) raise_flag(odd);", ""),
    "rows finished too early": ("few", "n > COLUMNS) return;\n    __syncthreads();", "n > COLUMNS) return;"),
    "W not there yet": ("narrow", "T(0);\n    }\n    __syncthreads();", "T(0);\n    }"),
    "no bias before": ("narrow", "h[r].v[c] + bias.v[c]", "h[r].v[c]"),
    "an odd one left out": ("narrow", "2 * i + 1 < COUNT ? v[2 * i + 1]", "2 * i + 1 < COUNT - 1 ? v[2 * i + 1]"),
    "sums of other lanes": ("narrow", "upper ? low : high, MASK", "upper ? high : low, MASK"),
    "answers not there yet": ("narrow", "        __syncwarp();\n        if (code == -1)", "        if (code == -1)"),
    "samples once": ("narrow", "first < m; first += step", "first < step; first += step"),
    "watched always": ("narrow", "if (watch && !finite_", "if (!finite_"),
    "packs behind the end": ("narrow", "c < count ? activate(code_before, h[r].v[c] + bias.v[c]) : T(0)", "1 / T(0)"),
}


@pytest.mark.parametrize(("kind", "sizes"), CASES, ids=str)
def test_predictions(kernel_folder: Path, kind: str, sizes: tuple[int, ...]) -> None:
    number = CASES.index((kind, sizes))
    where = Where(kernel_folder, ("float32", "float64")[number % 2], number % len(host_runner.SEEDS))
    getattr(prediction_cases, kind)(where, *sizes)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_is_caught(kernel_folder: Path, name: str) -> None:
    kind, old, new = MUTATIONS[name]
    sizes = {"few": ((3, 1030, 7, 8), (3, 1030, 17, 32)), "narrow": ((70, 130, 10, 1),)}[kind]

    def noticed(size: tuple[int, ...]) -> bool:
        compare = getattr(prediction_cases, kind)
        return is_noticed(lambda seed: compare(Where(kernel_folder, seed=seed, change=(old, new)), *size))

    assert any(noticed(size) for size in sizes)  # the smallest first: who writes behind an array does little harm there


@pytest.mark.slow
def test_they_do_not_leave_their_arrays(kernel_folder: Path) -> None:
    stays_inside("tests.kernels.prediction_cases", kernel_folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("few", "(r == 0 || r < m)", "true"),
        ("few", "s * LINES < K", "s * LINES <= K"),
        ("narrow", "if (first + r < m)", "if (first + r < m + 1)"),
        ("narrow", "k < BELOW ? W[e] : T(0)", "W[e]"),
        ("narrow", "BELOW - k < LANES ? BELOW - k : LANES", "LANES"),
    ],
    ids=[
        "a sample too many",
        "a line too many",
        "a row too many",
        "a row of W too many",
        "a ragged pack as a whole one",
    ],
)
def test_an_access_outside_is_caught(kernel_folder: Path, kind: str, old: str, new: str) -> None:
    leaves_its_arrays("tests.kernels.prediction_cases", kernel_folder, old, new, kind)
