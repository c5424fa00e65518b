"""The CuPy backend over the stand-in for CuPy, for machines without a GPU."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from bpcore.backends import cupy_device, cupy_probe, registry
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import BackendError
from bpcore.inference import cuda_room
from bpcore.kernels.cuda import host_runner
from bpcore.kernels.cuda.build import KernelLoader
from bpcore.kernels.cuda.host_runner import HostModule
from bpcore.training import wide
from tests.backends.fake_cublas import FakeLibrary
from tests.backends.fake_cupy import FakeCupy


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch, kernel_folder: Path) -> FakeCupy:
    """Put the stand-in where ``import cupy`` finds it; kernels are run from their source."""
    if host_runner.unavailable():
        pytest.skip(host_runner.unavailable())
    fake = FakeCupy(kernel_folder)
    libraries = types.ModuleType("cupy_backends.cuda.libs")
    libraries.cublas = fake.cuda.cublas  # type: ignore[attr-defined]
    nvrtc = types.ModuleType("cupy_backends.cuda.libs.nvrtc")
    nvrtc.getVersion = lambda: (13, 0)  # type: ignore[attr-defined]
    api = types.ModuleType("cupy_backends.cuda.api")
    api.driver = fake.driver  # type: ignore[attr-defined]
    for module in (fake, libraries, nvrtc, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cupy_probe, "driver_cuda_version", lambda: 13000)
    monkeypatch.setattr(cupy_probe, "installed_wheels", lambda: ["cupy-cuda13x"])
    # what the registry chose or started before knows another CuPy, or none
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.setattr(registry, "_auto", None)
    for module in (wide, cuda_room):
        monkeypatch.setattr(module, "load_cublas", FakeLibrary)
    monkeypatch.setattr(KernelLoader, "_code", lambda self, source: source.encode())
    monkeypatch.setattr(cupy_device, "load_driver", lambda: fake.libcuda)
    return fake


@pytest.fixture
def fake_backend(fake_cupy: FakeCupy) -> CupyBackend:
    """A CupyBackend whose device is host memory."""
    return CupyBackend()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accesses of kernels on the CPU that nothing orders are an error, and so are those that are not aligned."""
    monkeypatch.setattr(HostModule, "watch_races", True)


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy_backend(request: pytest.FixtureRequest) -> CupyBackend:
    """The same tests without and with a GPU; without one the latter skip, unless --require-backend cupy is given."""
    if request.param == "stand-in":
        return request.getfixturevalue("fake_backend")
    return request.getfixturevalue("gpu_backend")


@pytest.fixture
def gpu_backend(request: pytest.FixtureRequest) -> CupyBackend:
    """The backend on a real GPU."""
    try:
        return CupyBackend()
    except BackendError as error:
        if "cupy" in request.config.getoption("--require-backend"):
            pytest.fail(f"--require-backend cupy: {error}", pytrace=False)
        pytest.skip(str(error))
