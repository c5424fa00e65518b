"""Runs kernels on arrays that begin between multiples of 16 bytes, built so that an access wider than that ends all.

A GPU stops at such an access; a processor carries it out, and nobody would notice. The compiler's own check of
alignment (UndefinedBehaviorSanitizer) ends the process by a signal. Arguments: the folder for builds, and optionally a
file of the kernels, a text of it and its replacement.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bpcore.kernels.cuda import host_runner
from tests.kernels.cuda_cases import Bench, run_all
from tests.kernels.cuda_products import Products
from tests.kernels.cuda_products import run_all as run_products
from tests.kernels.sanitized_tests import change

CHECKED = ("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")
ODD = (
    "tests/training/test_random_steps_on_gpu.py::test_inputs_at_odd_addresses",
    "tests/backends/test_cupy_inference.py::test_samples_and_outputs_at_odd_addresses",
    "tests/backends/test_cupy_inference.py::test_few_samples",
)
"""Steps, and predictions, whose inputs are no whole packs."""


def main() -> int:
    folder, *changed = sys.argv[1:]
    host_runner._FLAGS = (*host_runner._FLAGS, *CHECKED)  # type: ignore[assignment]
    if changed:
        change(*changed)
    run_all(Bench(Path(folder), "float32", offset=1))
    run_products(Products(Path(folder), "float32", offset=1))
    chosen = ["-k", "stand-in and float32"]
    quiet = ["-q", "-x", "-p", "no:cacheprovider", f"--kept-cache={Path(folder).parent}", *chosen]
    return int(pytest.main([*quiet, *ODD]))


if __name__ == "__main__":
    sys.exit(main())
