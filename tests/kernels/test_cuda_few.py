"""The kernel for predictions of few samples, on the CPU: right, within its arrays, and its cases notice mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostRunError
from tests.kernels import few_cases
from tests.kernels.test_cuda_host import run_sanitized

pytestmark = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "it runs")

MUTATIONS = {
    "a batch twice": ("a_at += LINES;", "a_at += 0;"),
    "a warp's sums left out": ("w = 1; w < WARPS", "w = 2; w < WARPS"),
    "lanes of other columns": ("mask >= ALONG", "mask > ALONG"),
    "columns behind the end": ("rows && row < ROWS && column < n", "rows && row < ROWS"),
    "no bias": ("h += b[column];", ""),
    "nobody watches": ("if (watch && !finite_(h)) *odd = 1;", ""),
    "rows finished too early": ("n > COLUMNS) return;\n    __syncthreads();", "n > COLUMNS) return;"),
}


@pytest.mark.parametrize("seed", host_runner.SEEDS)
def test_few_samples(kernel_folder: Path, seed: int) -> None:
    for m, n_in, n in few_cases.CASES[seed % 2 :: 2]:
        few_cases.check(kernel_folder, "float32", m, n_in, n, 8 if seed < 2 else 32, seed)


def test_every_case(kernel_folder: Path) -> None:
    few_cases.run_all(kernel_folder)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_is_caught(kernel_folder: Path, name: str) -> None:
    for columns, n in ((8, 7), (32, 17)):
        for seed in host_runner.SEEDS:
            try:
                few_cases.check(kernel_folder, "float32", 3, 1030, n, columns, seed, change=MUTATIONS[name])
            except (AssertionError, HostRunError):
                return
    pytest.fail("the case did not notice the mutation")


@pytest.mark.slow
def test_it_does_not_leave_its_arrays(kernel_folder: Path) -> None:
    done = run_sanitized("tests.kernels.few_cases", kernel_folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "they ran" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [("(r == 0 || r < m)", "true"), ("inside && c < count", "inside"), ("s * LINES < K", "s * LINES <= K")],
    ids=["a sample too many", "a ragged pack as a whole one", "a line too many"],
)
def test_an_access_outside_is_caught(kernel_folder: Path, old: str, new: str) -> None:
    done = run_sanitized("tests.kernels.few_cases", kernel_folder, old, new)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
