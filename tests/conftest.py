"""Fixtures and options of the whole suite: which backends run, and a clean environment for each test."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BACKENDS = ("numpy", "numba", "cupy")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bpcore")
    group.addoption(
        "--require-backend",
        action="append",
        default=[],
        choices=BACKENDS,
        metavar="NAME",
        help="fail, instead of skip, the tests of this backend where it cannot run (repeatable)",
    )
    group.addoption(
        "--require-witness",
        action="store_true",
        help="fail, instead of skip, the comparisons with PyTorch where it is not installed",
    )
    group.addoption(
        "--kept-cache",
        type=lambda text: Path(text).resolve(),
        metavar="FOLDER",
        help="keep compiled code here from run to run, instead of compiling everything anew; written with =, because "
        "pytest takes a folder that stands alone for one of tests",
    )
    group.addoption(
        "--stop-after",
        type=float,
        metavar="SECONDS",
        help="begin no further test then, and sum up; what fails is named, as in a run that comes to its end",
    )
    group.addoption("--long", action="store_true", help="run the tests that take minutes, too")
    group.addoption(
        "--watch-races",
        action="store_true",
        help="watch every access of the CUDA kernels that run on this CPU, and fail where nothing orders two of them; "
        "takes ten times as long",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A developer's settings must not decide what the tests see. `clean_environment` sets the cache folder.
    for name in [name for name in os.environ if name.startswith("BPCORE_")]:
        del os.environ[name]
    if config.getoption("--watch-races"):
        from bpcore.kernels.cuda.host_runner import HostModule

        HostModule.watch_races = True


def pytest_sessionstart(session: pytest.Session) -> None:
    seconds: float | None = session.config.getoption("--stop-after")
    if seconds is None:
        return

    def stop() -> None:
        # each worker of a parallel run has a session of its own, and tells the first one why it stopped
        session.shouldstop = f"{seconds:g} seconds are over (--stop-after)"

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; --long runs it"))
    if hasattr(config, "workerinput"):
        # The files of tests that take long begin first: none of them is left for one worker when the others have ended.
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    """Skip a test on a GPU that is too old for what it asks, with the words of bpcore; no newer GPU is excused."""
    try:
        return (yield)
    except Exception as error:
        asked = re.search(r"needs compute capability (\d+\.\d+); this GPU has (\d+\.\d+)", str(error))
        if asked is None or float(asked[2]) >= float(asked[1]):
            raise
        message = str(error)
    pytest.skip(message)


def backend_params(*names: str) -> list[Any]:
    """Return pytest parameters for backends by name; the GPU's carries the marker ``gpu``."""
    return [pytest.param(name, marks=pytest.mark.gpu if name == "cupy" else ()) for name in names or BACKENDS]


def get_backend_or_skip(name: str, config: pytest.Config) -> Any:
    """Return a backend, or skip with its reason; ``--require-backend`` makes that a failure."""
    import bpcore

    try:
        return bpcore.get_backend(name)
    except bpcore.errors.BackendError as error:
        if name in config.getoption("--require-backend"):
            pytest.fail(f"--require-backend {name}: {error}", pytrace=False)
        pytest.skip(f"backend {name}: {error}")


@pytest.fixture(params=backend_params())
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend in turn, as an object."""
    return get_backend_or_skip(request.param, request.config)


@pytest.fixture(params=backend_params("numpy", "numba"))
def cpu_backend(request: pytest.FixtureRequest) -> Any:
    """Each backend of the CPU in turn, as an object."""
    return get_backend_or_skip(request.param, request.config)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    """The two dtypes that networks compute in."""
    return np.dtype(request.param)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator with the same numbers in every run of the suite."""
    return np.random.default_rng(20240229)


def _shared_folder(factory: pytest.TempPathFactory, config: pytest.Config, name: str) -> Path:
    """Return a folder that the workers of one parallel run share, or that stays where --kept-cache says."""
    kept: Path | None = config.getoption("--kept-cache")
    base = factory.getbasetemp()
    folder = (kept or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """One folder for compiled code: a folder for each test would compile everything anew each time.

    That workers share it also exercises the cache under several processes.
    """
    return _shared_folder(tmp_path_factory, pytestconfig, "bpcore-cache")


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """One folder for CUDA sources that g++ has built, each under a digest of what it was built from."""
    return _shared_folder(tmp_path_factory, pytestconfig, "kernels-on-the-host")


@pytest.fixture(autouse=True)
def clean_environment(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No BPCORE_* variable but the cache folder, and no backend selected by an earlier test."""
    for name in [name for name in os.environ if name.startswith("BPCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(cache_dir))
    yield
    if "bpcore.backends.registry" in sys.modules:
        sys.modules["bpcore.backends.registry"].set_backend(None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("witness") is not None and importlib.util.find_spec("torch") is None:
        reason = 'PyTorch is not installed; the extra "witness" brings it'
        if item.config.getoption("--require-witness"):
            pytest.fail(f"--require-witness: {reason}", pytrace=False)
        pytest.skip(reason)
