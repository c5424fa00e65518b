"""Every way in which CuPy can be unusable has its own reason and its own repair; the probe never raises."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from bpcore.backends import cupy_probe
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.errors import BackendError
from tests.backends.fake_cupy import FakeCupy


def _no_driver_and_no_device(fake: FakeCupy, monkeypatch: pytest.MonkeyPatch, driver: int) -> None:
    monkeypatch.setattr(cupy_probe, "driver_cuda_version", lambda: driver)
    fake.devices = 0


def test_a_usable_device(fake_cupy: FakeCupy) -> None:
    probe = CupyBackend.probe()
    assert probe.usable
    assert probe.reason == "stand-in, no GPU, CuPy 14.0.0, CUDA 13.0"
    assert probe.repair == ""
    assert probe.facts["compute_capability"] == "9.0"
    assert probe.facts["driver"] == "13.0"
    assert probe.facts["nvrtc"] == "13.0"


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_probe, "installed_wheels", list)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for driver, reason, extra in (
        (12040, "CuPy is not installed", "cuda12x"),
        (13000, "CuPy is not installed", "cuda13x"),
        (0, "CuPy is not installed, and no NVIDIA driver was found", "cuda13x"),
    ):
        monkeypatch.setattr(cupy_probe, "driver_cuda_version", lambda driver=driver: driver)
        probe = cupy_probe.probe_cupy()
        assert (probe.usable, probe.reason, probe.repair) == (False, reason, f'pip install "bpcore[{extra}]"')


def test_several_packages_overwrite_one_another(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_probe, "installed_wheels", lambda: ["cupy-cuda12x", "cupy-cuda13x"])
    probe = cupy_probe.probe_cupy()
    assert not probe.usable
    assert "several CuPy packages are installed and overwrite one another: cupy-cuda12x, cupy-cuda13x" in probe.reason
    assert probe.repair == 'pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "bpcore[cuda13x]"'


def test_wheels_are_recognised_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        def __init__(self, name: str | None) -> None:
            self.metadata = {"Name": name}

    names = ["numpy", "cupy-cuda13x", "CuPy", "cupy-rocm-7-0", "cupy-xarray", None, "amd-cupy", "cupyx"]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: map(Distribution, names))
    assert cupy_probe.installed_wheels() == ["amd-cupy", "cupy", "cupy-cuda13x", "cupy-rocm-7-0"]


def test_an_import_that_fails(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libcudart.so.13:\n  cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    probe = cupy_probe.probe_cupy()
    assert probe.reason == ("CuPy is installed but cannot be imported: libcudart.so.13: cannot open shared object file")
    assert probe.repair == 'pip install "bpcore[cuda13x]"'


def test_no_driver(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_driver_and_no_device(fake_cupy, monkeypatch, 0)
    probe = cupy_probe.probe_cupy()
    assert (probe.usable, probe.reason) == (False, "no NVIDIA driver was found")
    assert "a machine with an NVIDIA GPU" in probe.repair


def test_a_driver_older_than_cupy(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_driver_and_no_device(fake_cupy, monkeypatch, 12080)
    probe = cupy_probe.probe_cupy()
    assert probe.reason == "the NVIDIA driver serves CUDA 12.8, and this CuPy was built for CUDA 13.0"
    assert probe.repair == 'update the driver, or: pip uninstall -y cupy-cuda13x && pip install "bpcore[cuda12x]"'


def test_no_device(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_driver_and_no_device(fake_cupy, monkeypatch, 13000)
    probe = cupy_probe.probe_cupy()
    assert probe.reason == "the CUDA driver reports no device"
    assert "CUDA_VISIBLE_DEVICES" in probe.repair
    with pytest.raises(
        BackendError, match=r"backend 'cupy' cannot run: the CUDA driver reports no device\. To repair: "
    ):
        CupyBackend()


def test_missing_libraries(fake_cupy: FakeCupy) -> None:
    def missing() -> tuple[int, int]:
        raise RuntimeError("libnvrtc.so.13 was not found")

    sys.modules["cupy_backends.cuda.libs.nvrtc"].getVersion = missing  # type: ignore[attr-defined]
    del sys.modules["cupy_backends.cuda.libs"].cublas
    probe = cupy_probe.probe_cupy()
    assert not probe.usable
    assert probe.reason.startswith("CuPy lacks CUDA libraries: NVRTC (libnvrtc.so.13 was not found), cuBLAS (module")
    assert probe.repair == 'pip install --upgrade "bpcore[cuda13x]"'


def test_a_probe_never_raises(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise OSError("metadata on a disk that went away")

    monkeypatch.setattr(cupy_probe, "installed_wheels", broken)
    probe = cupy_probe.probe_cupy()
    assert not probe.usable
    assert probe.reason == "probing CuPy failed: OSError: metadata on a disk that went away"
    assert probe.facts == {"driver": "13.0"}


def test_this_machine() -> None:
    """Whatever is installed here, the answer is complete."""
    probe = CupyBackend.probe()
    assert probe.reason
    assert probe.usable or probe.repair
    assert cupy_probe.driver_cuda_version() >= 0


def test_without_a_driver_library_the_version_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert cupy_probe.driver_cuda_version() == 0
