"""Runs tests in which each kernel runs (benchmarks/gpu/sanitized.py) over kernels built with AddressSanitizer.

Run as a module with the library of AddressSanitizer preloaded. Arguments: the folder for builds, how many of the tests
(``all``, ``some``, or one by a part of its name), and optionally a file of the kernels, a text of it and its
replacement. The memory of the stand-in for CuPy then ends where an array does, so that an access behind it is seen.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bpcore.kernels.cuda import resident, source
from tests.backends.fake_cupy import FakeCupy
from tests.kernels.on_host import changed

SOME = ("fp16-dropped", "graph-norm-float64", "wide-tiles-33", "parts_of_a_mask")
"""In which kernels run that no other run under AddressSanitizer has: passes around products, ends of steps, what
follows products in predictions."""


def change(file: str, old: str, new: str) -> None:
    """Replace a text of the kernels in one of their files."""
    text = source.cuda_text

    def with_mistake(name: str) -> str:
        return changed(text(name), (old, new)) if name == file else text(name)

    for module in (source, resident):
        module.cuda_text = with_mistake  # type: ignore[attr-defined, assignment]


def main() -> int:
    folder, which, *mistake = sys.argv[1:]
    sanitized: Any = importlib.import_module("benchmarks.gpu.sanitized")
    wanted = {"all": ("",), "some": SOME}.get(which, (which,))
    tests = [name for name in sanitized.named("stand-in") if any(part in name for part in wanted)]
    assert len(tests) >= len(wanted), f"of the tests {wanted} there are only {tests}"
    if mistake:
        change(*mistake)
    FakeCupy.sanitize = True
    quiet = ["-q", "-x", "-s", "-p", "no:cacheprovider", "-p", "no:faulthandler", f"--kept-cache={Path(folder).parent}"]
    failed = int(pytest.main([*quiet, *tests]))
    if not failed:
        print("all cases ran")
    return failed


if __name__ == "__main__":
    sys.exit(main())
