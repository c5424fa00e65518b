"""Each kernel under AddressSanitizer, with the arguments that the plans and predictions give it.

Other tests do so for kernels by themselves, in arrays of every size. Here whole steps run, over memory of the stand-in
for CuPy that ends where an array does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.on_host import leaves_its_arrays, on_host, stays_inside

pytestmark = [on_host, pytest.mark.slow]

RUN = "tests.kernels.sanitized_tests"


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.long)])
def test_no_kernel_of_a_step_leaves_its_arrays(kernel_folder: Path, which: str) -> None:
    stays_inside(RUN, kernel_folder, which)


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
    leaves_its_arrays(RUN, kernel_folder, *MISTAKES[name])
