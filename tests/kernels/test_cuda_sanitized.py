"""Each kernel under AddressSanitizer, with the arguments that the plans and predictions give it; and no wide access
between multiples of its width.

Other tests do the former for kernels by themselves, in arrays of every size. Here whole steps run, over memory of the
stand-in for CuPy that ends where an array does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpcore.kernels.cuda import host_runner
from tests.kernels.test_cuda_host import ROOT, run_sanitized

pytestmark = [
    pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here"),
    pytest.mark.slow,
]

RUN = "tests.kernels.sanitized_tests"
ALIGNED = "tests.kernels.aligned_run"


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.long)])
def test_no_kernel_of_a_step_leaves_its_arrays(kernel_folder: Path, which: str) -> None:
    done = run_sanitized(RUN, kernel_folder, which)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


# A part of the name of a test, a file, and a text of it with its replacement.
MISTAKES = {
    "a run too many of a pass": ("fp16-dropped", "plane", "inside = column < n;", "inside = column <= n;"),
    "a weight too many": (
        "graph-norm-float64",
        "records",
        "i < m; i += blockDim.x) {\n        scales",
        "i <= m; i += blockDim.x) {\n        scales",
    ),
    "a copy that is too long": ("fp16-dropped", "wide_update", "e < p / LANES; e", "e <= p / LANES; e"),
    "a row too many of predictions": ("wide-tiles-33", "inference", "i < m; i += rows", "i <= m; i += rows"),
    "an element too many of a mask": ("parts_of_a_mask", "random", "element < p) mask", "element <= p) mask"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if k else ()) for k, name in enumerate(MISTAKES)]
)
def test_an_access_outside_is_caught(kernel_folder: Path, name: str) -> None:
    done = run_sanitized(RUN, kernel_folder, *MISTAKES[name])
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stdout + done.stderr


# ------------------------------------------------------------------------------------------ alignment


def run_aligned(folder: Path, *changed: str) -> subprocess.CompletedProcess[str]:
    """Run kernels on odd addresses, in a process that ends at the first access that is too wide for its address."""
    command = [sys.executable, "-m", ALIGNED, str(folder), *changed]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)


def test_no_access_is_wider_than_its_address_allows(kernel_folder: Path) -> None:
    done = run_aligned(kernel_folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    "changed",
    [
        ("memory", "& 15) == 0", "& 15) < 99"),
        pytest.param(("operand", "% (V * sizeof(E)) == 0", "% sizeof(E) == 0"), marks=pytest.mark.long),
    ],
    ids=["a pack", "a run of a pass"],
)
def test_an_access_that_is_too_wide_is_caught(kernel_folder: Path, changed: tuple[str, ...]) -> None:
    assert run_aligned(kernel_folder, *changed).returncode == -signal.SIGILL
