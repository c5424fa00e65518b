"""Runs the products on kernels built with AddressSanitizer; see sanitized_run.py for the arguments."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kernels.cuda_products import Products, run_all


def main() -> None:
    folder, *change = sys.argv[1:]
    if change:
        old, new = change
        run_all(Products(Path(folder), "float32", sanitize=True, change=(old, new)))
        return
    for dtype, shape, offset in (
        ("float32", (32, 32, 1), 0),
        ("float32", (64, 64, 1), 1),
        ("float64", (32, 32, 1), 0),
        ("float32", (64, 32, 4), 0),
    ):
        run_all(Products(Path(folder), dtype, *shape, seed=2 + offset, sanitize=True, offset=offset))
    print("all cases ran")


if __name__ == "__main__":
    main()
