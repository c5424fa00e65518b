"""``import bpcore`` is cheap: NumPy and nothing else, no thread, a fraction of a second."""

from __future__ import annotations

import subprocess
import sys

# Packages that bpcore uses somewhere, none of which may be loaded before it is needed.
LAZY = set(
    "cupy llvmlite matplotlib mpi4py numba onnx onnxruntime platformdirs pyarrow rich safetensors scipy sklearn "
    "threadpoolctl torch typer".split()
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(statement: str) -> set[str]:
    """Return the top-level packages that a statement loads, but for the standard library."""
    out = python(
        f"import sys\nbefore = set(sys.modules)\n{statement}\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(tops - set(sys.stdlib_module_names)))"
    )
    return set(out.split())


def test_only_numpy_is_loaded():
    assert {"numba", "llvmlite"} <= loaded_after("import numba"), "the measurement is broken"
    loaded = loaded_after("import bpcore")
    assert "bpcore" in loaded
    assert loaded & LAZY == set()
    # Whatever else NumPy itself loads is NumPy's affair.
    assert loaded - loaded_after("import numpy") == {"bpcore"}


def test_listing_the_public_names_loads_nothing_more():
    assert loaded_after("import bpcore; dir(bpcore); repr(bpcore)") & LAZY == set()


def test_no_thread_is_started():
    # NumPy's BLAS starts its own; what counts is what bpcore adds.
    count = (
        "import os, sys, threading, numpy\n"
        "def threads():\n"
        "    linux = sys.platform == 'linux'\n"
        "    return len(os.listdir('/proc/self/task')) if linux else threading.active_count()\n"
        "before = threads()\n"
        "import bpcore\n"
        "print(before, threads())"
    )
    before, after = map(int, python(count).split())
    assert after == before


def test_import_takes_less_than_three_tenths_of_a_second_beyond_numpy():
    """The shortest of several fresh processes, each of which loads NumPy first and then times what bpcore adds.

    Whatever else the machine does can make an import longer and never shorter.
    """
    code = "import time, numpy\nbegin = time.perf_counter()\nimport bpcore\nprint(time.perf_counter() - begin)"
    python(code)  # the first one may have to write the byte code
    assert min(float(python(code)) for _ in range(5)) < 0.3
