"""Runs all cases on kernels built with AddressSanitizer: started by test_cuda_host.py in a process of its own.

Arguments: the folder for builds, and optionally a text of the sources and its replacement. A wrong result ends with
status 1; AddressSanitizer ends the process with its own report.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kernels.cuda_cases import Bench, run_all, take_rows


def main() -> None:
    folder, *change = sys.argv[1:]
    if change:
        old, new = change
        take_rows(Bench(Path(folder), "float32", sanitize=True, change=(old, new)), 13, 10, False)
        return
    # offset 0: 16 bytes at a time; offset 1: element by element
    for dtype, offset in (("float32", 0), ("float32", 1), ("float64", 0)):
        run_all(Bench(Path(folder), dtype, seed=2 + offset, sanitize=True, offset=offset))
    print("all cases ran")


if __name__ == "__main__":
    main()
