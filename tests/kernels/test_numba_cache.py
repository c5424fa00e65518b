"""The folder of compiled code: reuse, staleness, folders that cannot be written, many writers."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from bpcore.functions.program import Program
from bpcore.kernels.numba import cache, cache_folders
from bpcore.kernels.numba.elementwise import compile_program
from bpcore.kernels.numba.operands import Operand

VECTOR = (Operand("full", 1),)

SCRIPT = """
import time
import numpy as np
from bpcore.backends.numba_backend import NumbaBackend
from bpcore.functions.program import Program
backend = NumbaBackend()
start = time.perf_counter()
out = backend.elementwise(Program("h = tanh(z)"), out=np.empty(5), z=np.linspace(-2, 2, 5))
backend.softmax(np.zeros((2, 4)), np.empty((2, 4)))
assert np.allclose(out, np.tanh(np.linspace(-2, 2, 5)), rtol=1e-14)
print(time.perf_counter() - start)
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False)


def compiled_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = run_python(SCRIPT, BPCORE_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    files = compiled_files(tmp_path)
    assert {path.suffix for path in files} == {".py", ".nbi", ".nbc"}
    second = run_python(SCRIPT, BPCORE_CACHE_DIR=str(tmp_path), NUMBA_DEBUG_CACHE="1")
    assert second.returncode == 0, second.stderr
    assert "data saved" not in second.stdout
    assert "data loaded" in second.stdout
    assert compiled_files(tmp_path) == files


def test_several_processes_at_once(tmp_path: Path) -> None:
    settings = {**os.environ, "BPCORE_CACHE_DIR": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, text=True, env=settings)
        for _ in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))


def test_several_threads_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    barrier, results = threading.Barrier(4), []

    def work() -> None:
        barrier.wait()
        kernel = compile_program(Program("h = 3*z"), VECTOR, VECTOR, np.dtype(float))
        out = np.empty(3)
        kernel(out, np.ones(3))
        results.append(out.tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[3.0, 3.0, 3.0]] * 4


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder that nobody can write, not even the superuser: its parent is a file."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "cache"


def test_a_folder_that_cannot_be_written(unwritable: Path) -> None:
    code = f"import logging; logging.basicConfig(format='%(name)s: %(message)s')\n{SCRIPT}"
    done = run_python(
        f"{code}\nfrom bpcore.kernels.numba.cache import folder; print(folder())", BPCORE_CACHE_DIR=str(unwritable)
    )
    assert done.returncode == 0, done.stderr
    assert "bpcore: cannot write compiled code to" in done.stderr
    assert "Set BPCORE_CACHE_DIR to a writable folder" in done.stderr
    assert not Path(done.stdout.splitlines()[-1]).exists(), "the temporary folder is removed at exit"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tempfile.mkstemp", "cannot store"),
        ("numba.core.caching.IndexDataCacheFile.save", "compiling kernel without the cache (OSError"),
    ],
)
def test_a_full_disk(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    target: str,
    message: str,
) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    cache.folder()

    def no_space(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(target, no_space)
    with caplog.at_level(logging.WARNING, "bpcore"):
        kernel = compile_program(Program("h = 5*z"), VECTOR, VECTOR, np.dtype(float))
    out = np.empty(2)
    kernel(out, np.ones(2))
    assert out.tolist() == [5.0, 5.0]
    assert message in caplog.text
    assert "No space left on device" in caplog.text


def test_damaged_compiled_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    program = Program("h = 11*z")
    compile_program(program, VECTOR, VECTOR, np.dtype(float))
    for path in [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]:
        path.write_bytes(path.read_bytes()[:40])
    kernel = compile_program(program, VECTOR, VECTOR, np.dtype(float))
    out = np.empty(2)
    kernel(out, np.ones(2))
    assert out.tolist() == [11.0, 11.0]


def test_a_changed_text_is_another_file_and_a_changed_file_is_not_executed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    one = cache.load_text("same_name", "value = 1\n")
    two = cache.load_text("same_name", "value = 2\n")
    assert (one.value, two.value) == (1, 2)
    assert one.__file__ is not None
    assert one.__file__ != two.__file__
    Path(one.__file__).write_text("value = 666\n")
    stored = cache._store
    monkeypatch.setattr(cache, "_store", lambda path, text: None)
    assert cache.load_text("same_name", "value = 1\n").value == 1, "the file was executed, not the text"
    monkeypatch.setattr(cache, "_store", stored)
    cache.load_text("same_name", "value = 1\n")
    assert Path(one.__file__).read_text() == "value = 1\n"


def test_the_same_text_has_the_same_time_stamp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # older versions of Numba take another time stamp for another source, and would compile again
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    file = cache.load_text("stamped", "value = 1\n").__file__
    assert file is not None
    assert Path(file).stat().st_mtime == 1_000_000_000


def test_the_folder_depends_on_the_kernel_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("scalar.py", "cache.py"):
        (tmp_path / name).write_text("# first")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    digest = cache._digest_of_sources.__wrapped__
    before = digest()
    assert digest() == before
    (tmp_path / "scalar.py").write_text("# second")
    assert digest() != before


def test_the_variable_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path / name))
        assert cache.folder().is_relative_to(tmp_path / name)
    monkeypatch.delenv("BPCORE_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "home"))
    assert cache.folder().is_relative_to(tmp_path / "home")


def test_numba_keeps_its_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numba

    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    before = numba.config.CACHE_DIR
    compile_program(Program("h = 7*z"), VECTOR, VECTOR, np.dtype(float))
    assert before == numba.config.CACHE_DIR


# -------------------------------------------------------------------------------- who is told


class Counts(cache.Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[tuple[str, bool]] = []

    def begins(self, name: str) -> None:
        self.begun.append(name)

    def ends(self, name: str, compiled: bool, seconds: float) -> None:
        assert seconds > 0
        self.ended.append((name, compiled))


def compile_once(text: str) -> Counts:
    counts = Counts()
    with cache.observed(counts):
        compile_program(Program(text), VECTOR, VECTOR, np.dtype(float))
    return counts


def test_an_observer_hears_of_compiling_and_of_loading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    # tanh_ is a function that Numba compiles on the way; it is not one of ours to count
    first, again = compile_once("h = tanh(z)"), compile_once("h = tanh(z)")
    ((name, compiled),) = first.ended
    assert (first.begun, compiled) == ([name], True)
    assert re.match(r"program_[-\w]+\.kernel\(.*float64", name)
    assert (again.begun, again.ended) == ([], [(name, False)])
    assert not cache._observers


# -------------------------------------------------------------------------------- old versions


def make_version(parent: Path, digest: str, days: float) -> Path:
    folder = parent / digest
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "rowwise.total-117.py311.1.nbc").write_bytes(b"x" * 1000)
    (folder / "kernels" / "forward_relu_float32_74125815db63.piece-8.py311.1.nbc").write_bytes(b"x" * 500)
    before = time.time() - days * 86400
    os.utime(folder, (before, before))
    return folder


def test_listing_and_pruning(tmp_path: Path) -> None:
    keep = make_version(tmp_path, "0" * 16, 300)
    recent = make_version(tmp_path, "1" * 16, 10)
    old = make_version(tmp_path, "2" * 16, 200)
    (tmp_path / "notes").mkdir()
    (tmp_path / ("3" * 16)).symlink_to(recent)
    found = cache_folders.list_folders(tmp_path)
    assert [folder.path for folder in found] == [recent, old, keep]
    assert found[0].functions == ("forward_relu_float32", "rowwise.total")
    assert found[0].size == 1500
    assert [folder.path for folder in cache_folders.prune(keep, 90 * 86400)] == [old]
    assert [folder.path for folder in cache_folders.prune(keep)] == [recent]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0" * 16, "3" * 16, "notes"]
    assert cache_folders.list_folders(tmp_path / "missing") == []


def test_a_new_version_removes_what_nobody_has_used_for_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    recent, old = (
        make_version(cache.own_folder().parent, "1" * 16, 89),
        make_version(cache.own_folder().parent, "2" * 16, 91),
    )
    here = cache.folder()
    assert recent.is_dir()
    assert not old.exists()
    # later processes find their folder; they look for nothing to remove, and say that they use it
    late = make_version(cache.own_folder().parent, "3" * 16, 91)
    os.utime(here, (0, 0))
    monkeypatch.setattr(cache, "_folders", {})
    assert cache.folder() == here
    assert late.is_dir()
    assert time.time() - here.stat().st_mtime < 60


def test_a_folder_that_is_pruned_while_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    kernel = compile_program(Program("h = 13*z"), VECTOR, VECTOR, np.dtype(float))
    here = cache.folder()
    cache_folders.prune(here.with_name("other"))
    assert not here.exists()
    other = compile_program(Program("h = 17*z"), VECTOR, VECTOR, np.dtype(float))
    out = np.empty(2)
    kernel(out, np.ones(2))
    assert out.tolist() == [13.0, 13.0]
    other(out, np.ones(2))
    assert out.tolist() == [17.0, 17.0]
    assert not caplog.records
    assert [compiled for _, compiled in compile_once("h = 17*z").ended] == [False]


# -------------------------------------------------------------------------------- folders that can only be read


def forbid_writing(monkeypatch: pytest.MonkeyPatch, *parents: Path) -> None:
    """Refuse what a read-only file system refuses; permissions do not stop the superuser."""
    real = cache._make_writable

    def refuse(path: Path) -> None:
        if any(path.is_relative_to(parent) for parent in parents):
            raise OSError(30, "Read-only file system")
        real(path)

    monkeypatch.setattr(cache, "_make_writable", refuse)
    monkeypatch.setattr(cache, "_folders", {})
    cache._temporary_folder.cache_clear()


@pytest.mark.parametrize(("links", "moved"), [(True, False), (False, False), (True, True)])
def test_code_in_a_folder_that_can_only_be_read_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, links: bool, moved: bool
) -> None:
    from bpcore.kernels.numba.rowwise import total

    def load() -> Counts:
        counts = Counts()
        with cache.observed(counts):
            compile_program(Program("h = 19*z"), VECTOR, VECTOR, np.dtype(float))
            total.__missing__(np.dtype(np.float32))
        return counts

    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path / "image"))
    assert [compiled for _, compiled in load().ended] == [True, True]
    if not links:

        def refuse(*args: Any) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(Path, "symlink_to", refuse)
    image = tmp_path / "image"
    if moved:
        image = image.rename(tmp_path / "elsewhere")
        monkeypatch.setenv("BPCORE_CACHE_DIR", str(image))
    before = compiled_files(image)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forbid_writing(monkeypatch, image)
    with caplog.at_level(logging.INFO, "bpcore"):
        assert [compiled for _, compiled in load().ended] == [False, False]
    assert not cache.folder().is_relative_to(image)
    assert "using the compiled code in" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    # what is new is stored elsewhere
    assert [compiled for _, compiled in compile_once("h = 23*z").ended] == [True]
    assert [compiled for _, compiled in compile_once("h = 23*z").ended] == [False]
    assert compiled_files(image) == before
    cache._temporary_folder.cache_clear()
