"""What only a real GPU can show about the CuPy backend. Skipped without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.functions.program import Program
from tests.helpers.compare import assert_same_bits

pytestmark = pytest.mark.gpu


def test_float32_products_have_all_their_bits(gpu_backend: CupyBackend) -> None:
    """TF32 keeps ten bits of the mantissa: it would round 1 + 2**-20 to 1."""
    be = gpu_backend
    A = be.asarray(np.full((256, 256), 1 + 2**-20, np.float32))
    B = be.asarray(np.eye(256, dtype=np.float32))
    assert_same_bits(be.to_numpy(be.matmul(A, B, be.empty((256, 256), np.float32))), be.to_numpy(A))


def test_the_same_bits_from_run_to_run(gpu_backend: CupyBackend) -> None:
    be, rng = gpu_backend, np.random.default_rng(0)
    A = be.asarray(rng.normal(size=(4099, 257)).astype(np.float32))
    found = []
    for _ in range(5):
        sums, total, rows = be.empty(257, np.float32), be.empty(1, np.float64), be.empty((4099, 257), np.float32)
        be.column_sums(A, sums)
        be.total(A, total)
        be.softmax(A, rows)
        found.append([be.to_numpy(array) for array in (sums, total, rows)])
    for other in found[1:]:
        for first, again in zip(found[0], other, strict=True):
            assert_same_bits(again, first)


def test_subnormal_numbers_are_kept(gpu_backend: CupyBackend) -> None:
    be = gpu_backend
    z = be.asarray(np.array([1e-40], np.float32))
    h = be.elementwise(Program("h = log(z)", name="subnormal"), out=be.empty(1, np.float32), z=z)
    assert abs(float(be.to_numpy(h)[0]) - np.log(np.float64(np.float32(1e-40)))) < 1e-4


def test_a_step_leaves_the_memory_pool_as_it_was(gpu_backend: CupyBackend) -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(512, 20)), rng.integers(0, 5, size=512)
    net = bp.MLP([20, 32, 5], seed=0).to(gpu_backend)
    trainer = bp.Trainer(net, batch_size=64, seed=0)
    order = np.stack([rng.permutation(512)[:64] for _ in range(50)])
    for _ in range(2):  # what a run leaves until the next one is held twice
        trainer.run(X, Y, order)
    held = gpu_backend.memory()["held"]
    for _ in range(3):
        trainer.run(X, Y, order)
    assert gpu_backend.memory()["held"] == held


def test_arrays_of_pytorch_are_used_where_they_are(gpu_backend: CupyBackend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    tensor = torch.arange(6, dtype=torch.float32, device="cuda").reshape(2, 3)
    found = gpu_backend.asarray(tensor)
    assert found.data.ptr == tensor.data_ptr()
    assert gpu_backend.to_numpy(found).tolist() == [[0, 1, 2], [3, 4, 5]]


class OnlyDlpack:
    """An array of a library that has DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_a_tensor_goes_in_and_comes_out_without_a_copy(gpu_backend: CupyBackend) -> None:
    """By the CUDA array interface and by DLPack in, by DLPack out; training reads the tensor where it lies."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    tensor = torch.rand(40, 6, device="cuda")
    torch.cuda.synchronize()  # it was drawn on a stream of PyTorch
    net = bp.MLP([6, 5, 3], seed=0, dtype="float32", backend=gpu_backend)
    H = net.predict(tensor)
    assert torch.from_dlpack(H).data_ptr() == H.data.ptr
    assert gpu_backend.asarray(OnlyDlpack(tensor)).data.ptr == tensor.data_ptr()
    trainer = bp.Trainer(net, batch_size=10, seed=0)
    data = trainer.load(tensor, np.arange(40) % 3)
    assert data.X.data.ptr == tensor.data_ptr()
    theta = torch.from_dlpack(net.theta)
    before = theta.clone()
    trainer.run_loaded(data, np.arange(40).reshape(4, 10))
    assert theta.data_ptr() == net.theta.data.ptr
    assert not torch.equal(theta, before), "the tensor is the parameters"
