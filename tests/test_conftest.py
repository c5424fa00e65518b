"""The options and fixtures of the suite itself, tried on suites of a few lines."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_collection_modifyitems

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run_suite(tmp_path: Path):
    """Run a suite in a process of its own, under this repository's conftest and settings, seeing no GPU."""

    def run(code: str, *options: str, **variables: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(code, "utf-8")
        command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", f"--rootdir={tmp_path}"]
        command += ["-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
        environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", **variables}
        done = subprocess.run(
            [*map(str, command), str(tmp_path / "test_it.py")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


ON_EACH_BACKEND = """
def test_it(backend):
    assert backend.name in ("numpy", "numba", "cupy")
"""


def test_a_backend_that_cannot_run_is_skipped_with_its_reason(run_suite):
    code, out = run_suite(ON_EACH_BACKEND)
    assert code == 0
    assert "2 passed, 1 skipped" in out
    assert "backend cupy: backend 'cupy' cannot run: " in out


TOO_OLD = """
from bpcore.errors import ConfigurationError

def test_it():
    raise ConfigurationError("precision='bf16' needs compute capability 8.0; this GPU has {found}. Possible: float32")
"""


def test_what_a_gpu_is_too_old_for_is_skipped_with_the_reason(run_suite):
    code, out = run_suite(TOO_OLD.replace("{found}", "7.5"))
    assert code == 0
    assert "1 skipped" in out
    assert "precision='bf16' needs compute capability 8.0; this GPU has 7.5" in out
    code, out = run_suite(TOO_OLD.replace("{found}", "10.0"))
    assert code == 1, "who can and refuses is wrong"
    assert "1 failed" in out


def test_require_backend_makes_the_skip_a_failure(run_suite):
    code, out = run_suite(ON_EACH_BACKEND, "--require-backend", "numba", "--require-backend", "cupy")
    assert code == 1
    assert "2 passed, 1 error" in out
    assert "--require-backend cupy: backend 'cupy' cannot run: " in out


def test_require_backend_knows_its_names(run_suite):
    code, out = run_suite(ON_EACH_BACKEND, "--require-backend", "cupi")
    assert code == 4
    assert "invalid choice: 'cupi'" in out


def test_the_tests_of_the_gpu_carry_its_marker(run_suite):
    code, out = run_suite(ON_EACH_BACKEND, "-m", "gpu")
    assert code == 0
    assert "1 skipped, 2 deselected" in out


def test_variables_and_selections_do_not_leak(run_suite):
    code, out = run_suite(
        """
import os
import bpcore as bp

def test_first():
    assert [name for name in os.environ if name.startswith("BPCORE_")] == ["BPCORE_CACHE_DIR"]
    os.environ["BPCORE_SEED"] = "1"
    bp.set_backend("numpy")

def test_second(cache_dir):
    assert [name for name in os.environ if name.startswith("BPCORE_")] == ["BPCORE_CACHE_DIR"]
    assert bp.selection().source == "auto"
    assert os.environ["BPCORE_CACHE_DIR"] == str(cache_dir) and cache_dir.is_dir()
""",
        BPCORE_DTYPE="float64",
        BPCORE_BACKEND="numpy",
        BPCORE_CACHE_DIR="/nowhere",
    )
    assert code == 0, out


def test_a_warning_is_an_error_and_so_is_an_unknown_marker(run_suite):
    code, out = run_suite("import warnings\ndef test_it():\n    warnings.warn('look out')")
    assert code == 1
    assert "UserWarning: look out" in out
    code, out = run_suite("import pytest\n@pytest.mark.quick\ndef test_it():\n    pass")
    assert code == 2
    assert "'quick' not found in `markers`" in out


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_pytorch_its_tests_are_skipped_or_fail_on_demand(run_suite):
    suite = "import pytest\n@pytest.mark.witness\ndef test_it():\n    import torch"
    code, out = run_suite(suite)
    assert code == 0
    assert "PyTorch is not installed" in out
    code, out = run_suite(suite, "--require-witness")
    assert code == 1
    assert "--require-witness: PyTorch is not installed" in out


def test_workers_begin_with_the_files_of_slow_tests():
    def item(file: str, name: str, *markers: str) -> SimpleNamespace:
        return SimpleNamespace(path=Path(file), name=name, get_closest_marker=lambda marker: marker in markers)

    given = [
        item("a.py", "1"),
        item("b.py", "2"),
        item("b.py", "3", "slow"),
        item("c.py", "4"),
        item("d.py", "5", "slow"),
    ]
    for config, expected in ((SimpleNamespace(workerinput={}), "23514"), (SimpleNamespace(), "12345")):
        items = list(given)
        config.getoption = lambda name: True
        pytest_collection_modifyitems(config, items)
        assert "".join(item.name for item in items) == expected


SLOW_SUITE = """
import time, pytest
@pytest.mark.parametrize("k", range(200))
def test_it(k):
    time.sleep(0.1)
    assert k not in (1, 101), "one of them is wrong"
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_stopped_says_what_has_failed(run_suite, workers):
    parallel = ("-p", "xdist", "-n", str(workers), "--dist", "worksteal") if workers else ()
    if workers and importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    code, out = run_suite(SLOW_SUITE, "--stop-after=2", *parallel)
    assert code == 2, out
    assert "2 seconds are over (--stop-after)" in out
    assert "one of them is wrong" in out
    passed = re.search(r"[12] failed, (\d+) passed in", out)
    assert passed is not None, out
    assert 0 < int(passed[1]) < 198


def test_compiled_code_can_be_kept(run_suite, tmp_path):
    code = """
def test_it(cache_dir, kernel_folder):
    (cache_dir / "code").touch()
    assert kernel_folder.parent == cache_dir.parent
"""
    status, out = run_suite(code, f"--kept-cache={tmp_path / 'kept'}")
    assert status == 0, out
    assert [path.name for path in (tmp_path / "kept").rglob("code")] == ["code"]
