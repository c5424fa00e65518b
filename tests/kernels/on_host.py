"""How tests run kernels on the CPU: where g++ is, under every schedule, and under AddressSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.host_runner import HostRunError

__all__ = ["changed", "is_noticed", "leaves_its_arrays", "on_host", "stays_inside"]

ROOT = Path(__file__).resolve().parents[2]

on_host = pytest.mark.skipif(bool(host_runner.unavailable()), reason=host_runner.unavailable() or "g++ is here")


def changed(source: str, change: Sequence[str]) -> str:
    """Replace one text in the sources by another: a mistake, or nothing for an empty sequence.

    Raises
    ------
    LookupError
        If it is not there. That is no AssertionError, which would pass for a mistake that is noticed.
    """
    if not change:
        return source
    old, new = change
    if old not in source:
        raise LookupError(f"{old!r} is nowhere in the sources: the mistake is out of date")
    return source.replace(old, new)


def is_noticed(judge: Callable[[int], Any], seeds: Sequence[int] = host_runner.SEEDS) -> bool:
    """Whether a result is wrong, or a kernel is reported, under any schedule; ``judge`` gets its seed."""
    for seed in seeds:
        try:
            judge(seed)
        except (AssertionError, HostRunError):
            return True
    return False


def stays_inside(module: str, folder: Path, *arguments: str) -> None:
    """Assert that the kernels of a module of the tests touch nothing outside their arrays."""
    done = _run_sanitized(module, folder, *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all cases ran" in done.stdout


def leaves_its_arrays(module: str, folder: Path, *arguments: str, how: str = "heap-buffer-overflow") -> None:
    """Assert that an access outside is reported; the arguments tell the module what to change in the sources."""
    done = _run_sanitized(module, folder, *arguments)
    assert done.returncode != 0
    assert f"AddressSanitizer: {how}" in done.stdout + done.stderr


def _run_sanitized(module: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process of its own, with the library of AddressSanitizer."""
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = library.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip("g++ has no AddressSanitizer here")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(Path(path).resolve()),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "",  # workers of a pytest in there would be processes that know nothing of all this
    }
    command = [sys.executable, "-m", module, str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
