"""The CuPy backend, and the ways that a prediction takes there: what is small takes those of what is large."""

from __future__ import annotations

from typing import Any

import pytest

from bpcore.inference import cuda, cuda_layers
from tests.backends.conftest import cupy_backend, fake_backend, fake_cupy, gpu_backend, watched

__all__ = ["cupy_backend", "fake_backend", "fake_cupy", "gpu_backend", "watched"]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks of rows, with products of our own."""
    monkeypatch.setattr(cuda_layers, "FEW", 0)
    monkeypatch.setattr(cuda, "GRAPH_BYTES", 0)
    monkeypatch.setattr(cuda, "BLOCK_BYTES", 0)
    monkeypatch.setattr(cuda, "LEAST_ROWS", 20)


@pytest.fixture
def wide(blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks of rows, and products by cuBLAS already where layers are small."""
    monkeypatch.setattr(cuda_layers, "LEAST_WIDE", 1)


@pytest.fixture
def how(request: pytest.FixtureRequest) -> Any:
    """The way of this name; None is the one that small networks take."""
    if request.param is not None:
        request.getfixturevalue(request.param)
    return request.param
