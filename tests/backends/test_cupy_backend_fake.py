"""What only the stand-in for CuPy can count: crossings, allocations, launches. No GPU is involved."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_device import THREADS
from bpcore.backends.ops import OPS
from bpcore.errors import BackendError, ShapeError
from bpcore.functions.program import Program
from bpcore.random import Purpose
from tests.backends.conformance import CASES
from tests.backends.fake_cupy import DeviceArray, FakeCupy
from tests.backends.test_conformance import run_cases
from tests.helpers.compare import assert_close, assert_same_bits


@pytest.mark.parametrize("op", dict.fromkeys(case.op for case in CASES))
def test_the_conformance_suite_over_the_stand_in(fake_backend: CupyBackend, dtype: Any, op: str) -> None:
    """The suite that a GPU runs as test_conformance.py, here for the backend's Python and its kernels' arithmetic."""
    run_cases(fake_backend, op, dtype)


def test_crossings_are_counted_and_pass_through_what_is_there(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    X = fake_backend.asarray([[1, 2], [3, 4]], np.float32)
    assert (fake_cupy.count["to_device"], fake_cupy.count["to_host"]) == (1, 0)
    assert fake_backend.owns(X)
    assert not fake_backend.owns(np.zeros(2))
    assert fake_backend.asarray(X) is X
    assert fake_backend.asarray(X, np.float32) is X
    back = fake_backend.to_numpy(X)
    assert_same_bits(back, np.array([[1, 2], [3, 4]], np.float32))
    assert (fake_cupy.count["to_device"], fake_cupy.count["to_host"]) == (1, 1)
    fake_backend.asarray(X, np.float64)
    assert fake_cupy.count["to_device"] == 1


def test_arrays_of_other_libraries_on_the_device_are_not_copied(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    owned = fake_backend.asarray(np.ones((2, 3), np.float32))

    class ByInterface:
        __cuda_array_interface__ = {"owner": owned}  # noqa: RUF012 - the protocol is an attribute

    class ByDLPack:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self) -> Any:
            return owned

    before = dict(fake_cupy.count)
    assert fake_backend.asarray(ByInterface()) is owned
    assert fake_backend.asarray(ByDLPack()) is owned
    assert dict(fake_cupy.count) == before


def test_an_array_on_another_device_is_refused(fake_cupy: FakeCupy) -> None:
    fake_cupy.devices = 2
    first, second = CupyBackend(0), CupyBackend(1)
    assert second.device == "cuda:1"
    X = second.asarray(np.ones(3))
    assert X.device.id == 1
    assert fake_cupy.current_device == 0
    assert not first.owns(X)
    with pytest.raises(ShapeError, match=r"the array is on cuda:1, and this backend computes on cuda:0"):
        first.asarray(X)
    out = second.total(X, second.empty(1, np.float64))  # the stand-in checks the current device at the launch
    assert second.to_numpy(out)[0] == 3
    assert fake_cupy.current_device == 0


def test_a_device_that_is_not_there(fake_cupy: FakeCupy) -> None:
    with pytest.raises(BackendError, match=r"there is no device cuda:1; devices: 0 to 0"):
        CupyBackend(1)


def test_float32_products_never_run_in_tf32(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    A = fake_backend.asarray(np.ones((2, 2), np.float32))
    fake_cupy.cuda.cublas.math_mode = 3  # other code may set the mode of the shared handle at any time
    fake_backend.matmul(A, A, fake_backend.empty((2, 2), np.float32))
    assert fake_cupy.cuda.cublas.math_mode == 0


def test_a_kernel_is_built_once(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    be, z = fake_backend, fake_backend.asarray(np.ones((4, 4), np.float32))
    loaded = []
    original = fake_cupy.cuda.Module
    fake_cupy.cuda.Module = lambda: loaded.append(1) or original()  # type: ignore[func-returns-value]
    for eta in (0.1, 0.2):
        be.elementwise(Program("h = eta*z", name="once"), out=z, z=z, eta=eta)
        be.softmax(z, z)
        be.log_softmax(z, z)
    assert len(loaded) == 2


def test_large_sums_take_two_launches(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    be = fake_backend
    A = be.asarray(np.ones((40 * THREADS, 1)))
    fake_cupy.launches.clear()
    be.total(A, be.empty(1, np.float64))
    be.column_sums(A, be.empty(1, np.float64))
    names = [name for name, _, _ in fake_cupy.launches]
    assert names == ["total", "add_partials", "column_sums", "add_column_partials"]
    assert fake_cupy.launches[0][1] == (3,)
    assert fake_cupy.launches[2][1] == (1, 5)


def test_take_rows_chooses_its_words(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    be, index = fake_backend, fake_backend.asarray(np.array([2, 0]))
    X = be.asarray(np.arange(65, dtype=np.float32))
    fake_cupy.launches.clear()
    be.take_rows(X[:64].reshape(8, 8), index, be.empty((2, 8), np.float32))
    be.take_rows(X[1:].reshape(8, 8), index, be.empty((2, 8), np.float32))  # not a multiple of 16 bytes
    be.take_rows(X[:63].reshape(9, 7), index, be.empty((2, 7), np.float32))
    assert [name for name, _, _ in fake_cupy.launches] == ["take_rows_16", "take_rows_4", "take_rows_4"]
    with pytest.raises(ShapeError, match=r"items of 4 or 8 bytes, X is int8"):
        be.take_rows(be.asarray(np.zeros((3, 3), np.int8)), index, be.empty((2, 3), np.int8))


def test_no_operation_crosses_or_waits_or_allocates_twice(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    be, rng = fake_backend, np.random.default_rng(0)
    Z, W = be.asarray(rng.normal(size=(700, 8))), be.asarray(rng.normal(size=(8, 8)))
    labels = be.asarray(rng.integers(0, 8, size=700))
    H, G, v, one, hits = (be.empty(shape, np.float64) for shape in ((700, 8), (700, 8), 8, 1, 700))
    bits = be.empty(99, np.uint32)

    def everything() -> None:
        be.matmul(Z, W, H)
        be.elementwise(Program("h = tanh(z + b)", name="all"), out=G, z=H, b=v)
        for row in (be.softmax, be.log_softmax):
            row(Z, H)
        be.backprop_softmax(G, H, G)
        be.backprop_log_softmax(G, H, G)
        be.column_sums(G, v)
        be.total(G, one)
        be.sum_squares(G, one)
        be.take_rows(Z, labels, H)
        be.row_hits(Z, labels, 0.5, hits)
        be.random_bits(bits, seed=1, purpose=Purpose.USER)
        be.dropout_mask(H, rate=0.5, seed=1, step=1, layer=1)
        be.copy(H, G)
        be.fill(G, 1.5)

    be.fill(v, 0)
    everything()
    before = dict(fake_cupy.count)
    everything()
    after = dict(fake_cupy.count)
    assert {name: after[name] - before.get(name, 0) for name in after if name not in ("launch", "gemm")} == {
        name: 0 for name in after if name not in ("launch", "gemm")
    }
    assert after["launch"] - before["launch"] > 12


def test_threads_and_streams_do_not_share_partial_sums(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    gpu = fake_backend.gpu
    buffers = [gpu.partials(10)]
    fake_cupy.stream = 7
    buffers.append(gpu.partials(10))
    fake_cupy.stream = 0
    other = threading.Thread(target=lambda: buffers.append(gpu.partials(10)))
    other.start()
    other.join()
    assert gpu.partials(10) is buffers[0]
    assert len({buffer.data.ptr for buffer in buffers}) == 3
    assert gpu.partials(5000).size == 5000


def test_describe_and_memory(fake_backend: CupyBackend, fake_cupy: FakeCupy) -> None:
    facts = fake_backend.describe()
    assert facts["name"] == "cupy"
    assert facts["device"] == "cuda:0"
    assert facts["gpu"] == "stand-in, no GPU"
    assert facts["compute_capability"] == "9.0"
    assert facts["float32_products"] == "float32 (no TF32)"
    assert facts["native"] == sorted(OPS)
    assert fake_backend.memory()["total"] == 2**30
    fake_backend.synchronize()
    assert fake_cupy.count["synchronize"] == 1


OPTIONS: dict[str, dict[str, Any]] = {
    "momentum, dropout": {"optimizer": bp.SGD(0.1, momentum=0.9), "dropout": 0.4},
    "adam, L2, clipping": {"optimizer": bp.Adam(0.01), "penalty": bp.L2(1e-3), "clip": bp.ClipNorm(0.5)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_training_equals_that_of_numpy_and_no_step_crosses(
    fake_backend: CupyBackend, fake_cupy: FakeCupy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpcore.training.stretches.STRETCH_SECONDS", 1e6)  # results are read once a run
    rng = np.random.default_rng(12)
    X, Y = rng.normal(size=(24, 5)), rng.integers(0, 3, size=24)
    orders = {steps: np.stack([rng.permutation(24)[:8] for _ in range(steps)]) for steps in (1, 8, 2, 6)}
    thetas, crossings = {}, []
    for be in (bp.get_backend("numpy"), fake_backend):
        net = bp.MLP([5, 7, 3], activation="relu", output="softmax", seed=3, dtype="float64").to(be)
        trainer = bp.Trainer(net, loss="cross_entropy", batch_size=8, seed=4, **OPTIONS[name])
        for order in orders.values():
            before = fake_cupy.count["to_device"], fake_cupy.count["to_host"], fake_cupy.count["allocation"]
            trainer.run(X, Y, order)
            after = fake_cupy.count["to_device"], fake_cupy.count["to_host"], fake_cupy.count["allocation"]
            crossings.append(tuple(b - a for a, b in zip(before, after, strict=True)))
        thetas[be.name] = be.to_numpy(net.theta)
    assert_close(thetas["cupy"], thetas["numpy"], dtype="float64", length=1000)
    # the data and the order cross once a run, however many steps it has
    assert crossings[-1][:2] == crossings[-2][:2], crossings
    # the first runs allocate what is kept; later ones at most the table of step records, for its new size
    assert crossings[-1][2] <= crossings[-2][2] + 1, crossings


def test_device_arrays_of_the_stand_in_are_strict(fake_backend: CupyBackend) -> None:
    X = fake_backend.asarray(np.ones((2, 2)))
    assert isinstance(X, DeviceArray)
    assert np.isnan(fake_backend.to_numpy(fake_backend.empty(3, np.float64))).all()
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(X)
    with pytest.raises(TypeError):
        X + X  # type: ignore[operator]
    with pytest.raises(TypeError, match="cannot be written into a device array"):
        X[0] = np.ones(2)
