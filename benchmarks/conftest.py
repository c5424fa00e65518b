"""What holds for all benchmarks: ``pytest benchmarks --benchmark-only``.

Plain ``pytest`` does not come here. One thread computes, unless ``BPCORE_NUM_THREADS`` says otherwise.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.kernels.measuring import threads
from bpcore.bench import smi
from bpcore.bench.machine import REMOVED, describe, load

DEFAULTS = {"benchmark_max_time": 0.1, "benchmark_min_rounds": 3}
"""In place of pytest-benchmark's own, which are made for few benchmarks: all of ours take a few minutes."""

PASSING = ("load", "clock_mhz", "available_memory", "gpu_state", "commit", "dirty", "cpu", "removed_variables")
"""Facts that may differ between two runs that are compared: those of the moment, and what is compared is often two
commits. ``cpu`` is pytest-benchmark's, with the clock of the moment; the processor is ``cpu_model``."""

PACKAGES = ("bpcore", "numpy", "scipy", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x", "pytest-benchmark")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    found = [name for name in REMOVED if name in os.environ]
    if found:
        unset = " ".join(f"-u {name}" for name in REMOVED)
        raise pytest.UsageError(
            f"{' and '.join(found)} would decide how fast BLAS is, and so what is compared with it. "
            f"BLAS reads them when it is loaded, so they must be gone before Python starts: "
            f"env {unset} python -m pytest benchmarks --benchmark-only"
        )
    if not config.pluginmanager.has_plugin("benchmark"):
        raise pytest.UsageError('benchmarks need pytest-benchmark: pip install -e ".[bench]"')
    # what failed when it was judged before the timing has failed once, not twice
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all in this test")
    given = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    for name, value in DEFAULTS.items():
        if not any(str(word).startswith(f"--{name.replace('_', '-')}") for word in given):
            setattr(config.option, name, value)


# ------------------------------------------------------------------------------------------ where it was measured


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def at_first() -> dict[str, Any]:
    """Facts of the moment when this was called first, which is before anything is measured."""
    return {"load": load(), "gpu_state": smi.ask(smi.MOMENT)}


def facts() -> dict[str, Any]:
    """Describe machine, libraries and checkout."""
    import scipy.linalg.cython_blas  # noqa: F401  (compiled loops call it: it is to be among the libraries below)

    from bpcore.backends.diagnosis import blas_libraries
    from bpcore.blas_limit import blas_limit

    described = describe()
    kept = ("library", "version", "core_type", "threads")
    with blas_limit(threads()):  # as it is while they run; they have ended by now
        libraries = blas_libraries()
    return {
        "cpu_model": described.pop("cpu"),
        **described,
        "threads": threads(),
        "blas": [{name: library[name] for name in kept} for library in libraries],
        "nvidia_smi": smi.ask(smi.WHAT),
        "versions": _versions(),
        "load": at_first()["load"],
        "gpu_state": {"before": at_first()["gpu_state"], "after": smi.ask(smi.MOMENT)},
    }


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(facts())


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> Iterator[None]:
    """Say what differs, and that only."""
    before = compared_benchmark["machine_info"]
    # the plugin finds no difference: it would warn of the load of the moment, and print everything there is
    compared_benchmark["machine_info"] = machine_info
    try:
        yield
    finally:
        compared_benchmark["machine_info"] = before
    for name in sorted({*before, *machine_info} - {*PASSING}):
        then, now = (repr(_plain(info.get(name))) for info in (before, machine_info))
        if then != now:
            benchmarksession.logger.error(f"not comparable? {name} was {then}, it is {now}")


def _plain(value: Any) -> Any:
    """Make tuples the lists that they become in a file."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="session", autouse=True)
def limited_threads() -> Iterator[None]:
    """Hold BLAS and the teams of bpcore to the number of threads; look at the machine before anything is measured."""
    import scipy.linalg.cython_blas  # noqa: F401  (a limit reaches only what is loaded)

    from bpcore.blas_limit import blas_limit

    at_first()
    with pytest.MonkeyPatch.context() as patch, blas_limit(threads()):
        patch.setenv("BPCORE_NUM_THREADS", str(threads()))
        yield


@pytest.fixture(params=["numpy", "numba", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend that runs here in turn, as an object."""
    import bpcore

    try:
        return bpcore.get_backend(request.param)
    except bpcore.errors.BackendError as error:
        pytest.skip(f"backend {request.param}: {error}")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same numbers in every run."""
    return np.random.default_rng(20240229)
