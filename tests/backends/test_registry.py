"""Choosing a backend: the order of the rule, errors, threads, tasks, forks, and what auto says."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import bpcore.errors
from bpcore.backends import (
    Backend,
    backends,
    get_backend,
    register_backend,
    registry,
    selection,
    set_backend,
    use_backend,
)
from bpcore.backends.contract import Probe
from bpcore.errors import BackendError, UnknownNameError


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings, check=False)


class Toy(Backend):
    """A backend that counts how often it was made."""

    name: ClassVar[str] = "toy"
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        time.sleep(0.02)  # long enough for a race to show
        type(self).made += 1


def broken(reason: str, repair: str = "") -> type[Backend]:
    """A class of backends that cannot run."""

    class Broken(Backend):
        @classmethod
        def probe(cls) -> Probe:
            return Probe(False, reason, repair)

    return Broken


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry as after import; what a test changes is undone."""
    monkeypatch.setattr(registry, "_loaders", dict(registry._loaders))
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.setattr(registry, "_auto", None)
    Toy.made = 0
    yield
    set_backend(None)


@pytest.fixture
def toy() -> None:
    register_backend("toy", lambda: Toy)


def no_gpu_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    register_backend("cupy", lambda: broken("CuPy is not installed", 'pip install "bpcore[cuda13x]"'))
    monkeypatch.setattr(registry, "gpu_visible", lambda: False)


# -------------------------------------------------------------------------------- the rule


def test_the_order_of_the_rule(monkeypatch: pytest.MonkeyPatch, toy: None) -> None:
    no_gpu_backend(monkeypatch)
    register_backend("numba", lambda: broken("absent"))
    assert (selection().name, selection().source) == ("numpy", "auto")
    monkeypatch.setenv("BPCORE_BACKEND", "toy")
    assert (selection().name, selection().source) == ("toy", "BPCORE_BACKEND")
    set_backend("numpy")
    assert (selection().name, selection().source) == ("numpy", "set_backend")
    with use_backend("toy"):
        assert (selection().name, selection().source) == ("toy", "use_backend")
        assert (selection("numpy").name, selection("numpy").source) == ("numpy", "argument")
    assert get_backend().name == "numpy"
    set_backend(None)
    assert get_backend().name == "toy"


def test_the_variable_is_read_again_whenever_it_changes(monkeypatch: pytest.MonkeyPatch, toy: None) -> None:
    for name in ("toy", "numpy", " Toy ", "NUMPY"):
        monkeypatch.setenv("BPCORE_BACKEND", name)
        assert get_backend().name == name.strip().lower()


def test_the_variable_is_not_read_at_import() -> None:
    code = "import bpcore; print('imported'); bpcore.get_backend()"
    done = run_python(code, BPCORE_BACKEND="cupi")
    assert done.stdout.strip() == "imported"
    assert (
        "unknown backend 'cupi'; known: numpy, numba, cupy, auto. Did you mean 'cupy'? "
        "(from the environment variable BPCORE_BACKEND)" in done.stderr
    )


def test_an_empty_variable_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu_backend(monkeypatch)
    monkeypatch.setenv("BPCORE_BACKEND", "  ")
    assert selection().source == "auto"


def test_auto_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu_backend(monkeypatch)
    register_backend("numba", lambda: broken("absent"))
    monkeypatch.setenv("BPCORE_BACKEND", "auto")
    found = selection()
    assert (found.name, found.source) == ("numpy", "BPCORE_BACKEND")
    assert found.why.startswith("'auto' was given by the variable BPCORE_BACKEND: cupy cannot run")


def test_a_backend_object_is_returned_as_it_is() -> None:
    mine = Toy()
    assert get_backend(mine) is mine
    assert selection(mine).name == "toy"
    set_backend(mine)
    assert get_backend() is mine
    with use_backend(mine) as given:
        assert given is mine


# -------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("bad", ["cupi", "", "NumPy2", 3])
def test_unknown_names(bad: Any) -> None:
    for ask in (get_backend, set_backend, lambda name: use_backend(name).__enter__()):
        with pytest.raises(UnknownNameError, match=r"unknown backend .*; known: numpy, numba, cupy, auto\."):
            ask(bad)


@pytest.mark.parametrize(
    ("how", "source"),
    [("argument", ""), ("use_backend", " (from use_backend)"), ("set_backend", " (from set_backend)")],
)
def test_a_named_backend_that_cannot_run_is_an_error(how: str, source: str) -> None:
    register_backend("toy", lambda: broken("CUDA driver reports no device", "check nvidia-smi"))
    ask: dict[str, Callable[[str], Any]] = {
        "argument": get_backend,
        "use_backend": lambda name: use_backend(name).__enter__(),
        "set_backend": set_backend,
    }
    with pytest.raises(BackendError) as caught:
        ask[how]("toy")
    text = str(caught.value)
    assert text.startswith(f"backend 'toy'{source} cannot run: CUDA driver reports no device. Usable here: numpy")
    assert text.endswith(". Repair: check nvidia-smi")
    assert registry._process_wide is None


def test_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    register_backend("toy", lambda: broken("no device"))
    monkeypatch.setenv("BPCORE_BACKEND", "toy")
    with pytest.raises(BackendError, match=r"backend 'toy' \(from BPCORE_BACKEND\) cannot run: no device\. Usable"):
        get_backend()


def test_a_backend_that_fails_while_starting() -> None:
    class Failing(Backend):
        def __init__(self) -> None:
            raise OSError("libcuda.so.1: cannot open shared object file")

    register_backend("toy", lambda: Failing)
    with pytest.raises(BackendError, match=r"cannot run: libcuda\.so\.1: cannot open shared object file"):
        get_backend("toy")


def test_a_module_that_cannot_be_loaded() -> None:
    def loader() -> type[Backend]:
        raise SyntaxError("half a file")

    register_backend("toy", loader)
    with pytest.raises(BackendError, match=r"its module cannot be loaded \(SyntaxError: half a file\)"):
        get_backend("toy")
    assert not next(status for status in backends() if status.name == "toy").usable


# -------------------------------------------------------------------------------- auto


def test_auto_prefers_the_gpu_then_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "gpu_visible", lambda: True)
    register_backend("numba", lambda: Toy)
    register_backend("cupy", lambda: broken("no device"))
    assert type(get_backend()) is Toy
    register_backend("cupy", lambda: Backend)
    assert type(get_backend()) is Backend


def test_auto_says_what_it_chose_and_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    no_gpu_backend(monkeypatch)
    register_backend("numba", lambda: broken("Numba is not installed", "pip install numba"))
    with caplog.at_level(logging.INFO, "bpcore"):
        get_backend()
        get_backend()
    why = (
        "cupy cannot run (CuPy is not installed); numba cannot run (Numba is not installed); "
        "numpy is the best that runs here"
    )
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert messages == [
        (
            "WARNING",
            "the backend numba cannot run: Numba is not installed. NumPy is used, which is slower. "
            "Repair: pip install numba",
        ),
        ("INFO", f"backend numpy chosen automatically: {why}"),
    ]
    assert selection().why == why


def test_auto_warns_once_about_an_idle_gpu(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    no_gpu_backend(monkeypatch)
    monkeypatch.setattr(registry, "gpu_visible", lambda: True)
    register_backend("numba", lambda: Toy)
    with caplog.at_level(logging.WARNING, "bpcore"):
        get_backend()
        get_backend()
    (record,) = caplog.records
    assert record.getMessage() == (
        "a GPU seems to be present, but the backend cupy cannot run: CuPy is not installed. Computing on the CPU. "
        'Repair: pip install "bpcore[cuda13x]"'
    )


def test_auto_passes_over_what_fails_while_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu_backend(monkeypatch)

    class Failing(Backend):
        def __init__(self) -> None:
            raise ImportError("Numba needs NumPy 2.3 or less")

    register_backend("numba", lambda: Failing)
    assert get_backend().name == "numpy"


def test_gpu_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert registry.gpu_visible() is False
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/nvidia0"])
    assert registry.gpu_visible() is True


def test_without_numba_everything_falls_to_numpy() -> None:
    code = """
import logging, sys, warnings
warnings.simplefilter("error")
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "cupy"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
logging.basicConfig(format="%(levelname)s %(message)s")
import bpcore
assert bpcore.get_backend().name == "numpy"
print(bpcore.backends())
try:
    bpcore.get_backend("numba")
except bpcore.errors.BackendError as error:
    print(error)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "WARNING the backend numba cannot run" in done.stderr
    assert "backend 'numba' cannot run: Numba" in done.stdout
    assert "Usable here: numpy. Repair: pip install" in done.stdout


# -------------------------------------------------------------------------------- one object, many users


def test_one_object_for_each_name(toy: None) -> None:
    assert get_backend("toy") is get_backend("toy")
    assert Toy.made == 1


def test_threads_that_race_get_one_object(toy: None) -> None:
    barrier, found = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        found.append(get_backend("toy"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(backend) for backend in found}) == 1
    assert Toy.made == 1


def test_use_backend_does_not_disturb_other_threads(toy: None) -> None:
    set_backend("numpy")
    inside, leave, seen = threading.Event(), threading.Event(), []

    def work() -> None:
        with use_backend("toy"):
            inside.set()
            leave.wait(10)
            seen.append(get_backend().name)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    seen.append(get_backend().name)
    with use_backend("numpy"):
        leave.set()
        thread.join()
        seen.append(get_backend().name)
    assert seen == ["numpy", "toy", "numpy"]


def test_use_backend_does_not_disturb_other_tasks(toy: None) -> None:
    set_backend("numpy")

    async def task(name: str) -> list[str]:
        seen = []
        with use_backend(name):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(get_backend().name)
        return seen

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(task("toy"), task("numpy")))

    assert asyncio.run(both()) == [["toy"] * 3, ["numpy"] * 3]


def test_use_backend_nests_and_survives_exceptions(toy: None) -> None:
    set_backend("numpy")
    with use_backend("toy") as outer:
        assert get_backend() is outer
        with pytest.raises(ZeroDivisionError), use_backend("numpy"):
            _ = 1 / 0
        assert get_backend() is outer
    assert get_backend().name == "numpy"


def test_a_refused_setting_leaves_the_former_one() -> None:
    set_backend("numpy")
    register_backend("toy", lambda: broken("no device"))
    for bad in ("toy", "nonsense"):
        with pytest.raises(bpcore.errors.BpcoreError):
            set_backend(bad)
    assert selection().source == "set_backend"
    assert get_backend().name == "numpy"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_another_thread_holds_the_lock() -> None:
    code = """
import os, threading, time
from bpcore.backends import get_backend, registry
held, done = threading.Event(), threading.Event()
def hold():
    with registry._lock:
        held.set()
        done.wait(20)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(0 if get_backend("numpy").name == "numpy" else 1)
end = time.monotonic() + 10
while time.monotonic() < end:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        break
    time.sleep(0.05)
else:
    os.kill(child, 9)
    status = 99
done.set()
thread.join()
print("status", status)
"""
    done = run_python(code)
    assert done.stdout.strip() == "status 0", done.stderr


# -------------------------------------------------------------------------------- the list


def test_the_list_prints_as_a_table() -> None:
    register_backend("toy", lambda: broken("no device", "check nvidia-smi"))
    table = backends()
    assert [status.name for status in table] == ["numpy", "numba", "cupy", "toy"]
    lines = str(table).splitlines()
    assert lines[0].split() == ["backend", "usable", "why", "repair"]
    assert lines[1].startswith("numpy")
    assert " yes " in lines[1]
    assert lines[-1].split("  ")[0] == "toy"
    assert lines[-1].endswith("check nvidia-smi")
    assert repr(table) == str(table)
    assert str(table[-1]) == "toy: not usable (no device); repair: check nvidia-smi"


def test_the_list_starts_nothing(toy: None) -> None:
    backends()
    assert Toy.made == 0
    assert registry._instances == {}


def test_names_can_be_added_and_removed(toy: None) -> None:
    assert type(get_backend("toy")) is Toy
    register_backend("toy", None)
    with pytest.raises(UnknownNameError, match="unknown backend 'toy'"):
        get_backend("toy")
    with pytest.raises(UnknownNameError, match="unknown backend 'toy'"):
        register_backend("toy", None)


def test_importing_the_package_loads_no_backend() -> None:
    done = run_python(
        "import sys, bpcore.backends; loaded = {'numba', 'cupy', 'scipy', 'bpcore.backends.numba_backend', "
        "'bpcore.backends.cupy_backend'} & set(sys.modules); assert not loaded, loaded"
    )
    assert done.returncode == 0, done.stderr
