"""What is measured of the digits of products, over the stand-in for CuPy, and on a GPU."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import bpcore.training.wide
from bpcore.backends.cublas import WORKSPACE, Cublas
from bpcore.backends.cupy_backend import CupyBackend
from tests.backends.conftest import cupy_backend, fake_backend, fake_cupy, gpu_backend

__all__ = ["cupy_backend", "fake_backend", "fake_cupy", "gpu_backend"]


@pytest.mark.parametrize("one_sign", [False, True])
def test_three_products_of_tf32_are_near_float32(cupy_backend: CupyBackend, one_sign: bool) -> None:
    """On the stand-in, which rounds each product once, by what is left out; on a device by the sums, too."""
    digits: Any = importlib.import_module("benchmarks.gpu.digits")
    wide: Any = bpcore.training.wide  # the stand-in is put there
    cublas = Cublas(wide.load_cublas(cupy_backend.xp), cupy_backend.empty(WORKSPACE, np.uint8))
    cublas.use_stream(cupy_backend.gpu.current_stream())
    k = 300
    found = digits.errors(cupy_backend, cublas, k, one_sign)
    assert list(found) == ["float32", "tf32x3", "tf32"]
    for facts in found.values():
        assert 0 < facts["mean"] < facts["largest"]
    for precision in ("float32", "tf32x3"):
        assert found[precision]["largest"] < 2.0**-21 + (k + 3) * 2.0**-23
    assert found["tf32"]["mean"] > 2 * found["tf32x3"]["mean"]
