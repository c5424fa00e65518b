"""Launches that begin early: what the driver is told, and what happens where it cannot do it."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends import cupy_device, cupy_early
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_device import CudaDevice
from bpcore.backends.cupy_early import EarlyLaunch, load_driver
from bpcore.backends.cupy_products import CudaProducts
from bpcore.errors import BackendError, DivergenceError
from bpcore.kernels.cuda import source
from bpcore.kernels.cuda.host_runner import HostRunError
from tests.backends.fake_cupy import FakeCupy
from tests.helpers.compare import assert_same_bits

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Y = X[:, :3] ** 2


def trained(be: CupyBackend) -> Any:
    """Parameters after some steps of the plan `graph`."""
    net = bp.MLP([6, 40, 3], "tanh", seed=1, dtype="float32", backend=be)
    bp.train(net, X, Y, loss="mse", batch_size=8, epochs=2, plan="graph", seed=3)
    if CudaProducts.early:
        assert be.describe()["early_launches"] is (be.gpu.early is not None)
    return be.to_numpy(net.theta)


def test_the_steps_are_the_same(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained(CupyBackend())
    count = fake_cupy.count["early"]
    assert count > cupy_device.EARLY_TRIES
    monkeypatch.setattr(CudaProducts, "early", False)
    assert_same_bits(trained(CupyBackend()), found)
    assert fake_cupy.count["early"] == count


def test_nothing_is_read_that_the_kernel_before_writes(fake_cupy: FakeCupy) -> None:
    """Steps are the same if up to follow() a kernel sees the memory of before."""
    found = trained(CupyBackend())
    fake_cupy.early_is_early = True
    assert_same_bits(trained(CupyBackend()), found)


FOLLOW, AFTER = "    follow();  // up to here", "    // add up what the groups have found"


@pytest.mark.usefixtures("watched")
def test_nothing_is_touched_that_the_kernels_before_may_need(
    fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread reads or writes what those touch that may go on still, whatever is there."""
    trained(CupyBackend())
    assert fake_cupy.count["early"]
    text = source.cuda_text
    late = text("product").replace(FOLLOW, "    // up to here").replace(AFTER, f"    follow();\n{AFTER}")
    monkeypatch.setattr(source, "cuda_text", lambda name: late if name == "product" else text(name))
    with pytest.raises(HostRunError, match="nothing orders it behind this: a kernel before, which may go on still,"):
        trained(CupyBackend())


@pytest.mark.parametrize("change", ["forgotten", "too late", "sooner"])
def test_where_a_kernel_waits(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """Sooner than it has to be is no mistake."""
    found = trained(CupyBackend())
    fake_cupy.early_is_early = True
    load = CudaDevice.load

    def changed(self: CudaDevice, source: str, name: str, **how: int) -> Any:
        new = {"forgotten": "    // up to here", "too late": "    // up to here", "sooner": FOLLOW}[change]
        source = source.replace(FOLLOW, new)
        if change == "too late":
            source = source.replace(AFTER, f"    follow();\n{AFTER}")
        if change == "sooner":
            source = source.replace("    const PartB b_part(B,", "    follow();\n    const PartB b_part(B,")
        return load(self, source, name, **how)

    monkeypatch.setattr(CudaDevice, "load", changed)
    if change == "forgotten":
        with pytest.raises(HostRunError, match=r"was launched to begin early, and does not follow\(\)"):
            trained(CupyBackend())
    elif change == "too late":
        with pytest.raises((AssertionError, DivergenceError)):
            assert_same_bits(trained(CupyBackend()), found)
    else:
        assert_same_bits(trained(CupyBackend()), found)


class Refusing:
    """A driver that refuses."""

    def cuLaunchKernelEx(self, *arguments: Any) -> int:
        return 1


class Forgetful:
    """A driver that does nothing."""

    def cuLaunchKernelEx(self, *arguments: Any) -> int:
        return 0


@pytest.mark.parametrize("driver", [None, Refusing(), Forgetful()], ids=["absent", "refuses", "does nothing"])
def test_a_driver_that_cannot_is_not_asked(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    usual = trained(CupyBackend())
    monkeypatch.setattr(cupy_device, "load_driver", lambda: driver)
    be = CupyBackend()
    assert be.gpu.early is None
    assert_same_bits(trained(be), usual)


def test_before_compute_capability_9_nothing_is_tried(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.backends.fake_cupy.CAPABILITY", (8, 9))
    be = CupyBackend()
    assert be.describe()["early_launches"] is None
    assert be.gpu.early is None
    assert be.describe()["early_launches"] is False
    assert fake_cupy.count["early"] == 0


def test_a_refusal_is_an_error(fake_cupy: FakeCupy) -> None:
    array = CupyBackend().empty(1, np.float32)
    function = type("Function", (), {"ptr": 5})
    with pytest.raises(BackendError, match="cuLaunchKernelEx of the NVIDIA driver says 1; see CUresult"):
        EarlyLaunch(Refusing())(function, (1,), (1,), (array, np.int32(1)), shared=0, stream=0)


def test_an_old_driver_has_no_such_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert load_driver() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Refusing())
    assert load_driver() is not None

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert load_driver() is None


def test_the_structures_are_those_of_the_header() -> None:
    configuration, attribute = cupy_early._Configuration, cupy_early._Attribute
    assert (ctypes.sizeof(configuration), configuration.stream.offset, configuration.count.offset) == (56, 32, 48)
    assert (ctypes.sizeof(attribute), attribute.value.offset) == (72, 8)


@pytest.mark.gpu
def test_launches_begin_early_on_a_gpu(gpu_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    found = trained(gpu_backend)
    monkeypatch.setattr(CudaProducts, "early", False)
    assert_same_bits(found, trained(gpu_backend))
    if gpu_backend.gpu.loader.capability >= cupy_device.EARLY_CAPABILITY:
        assert gpu_backend.gpu.early is not None, "not with CUDA before 12.3"
