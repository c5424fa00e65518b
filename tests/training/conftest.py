"""The CuPy backend for the tests of its plans: over the stand-in and, where there is one, on a GPU."""

from tests.backends.conftest import cupy_backend, fake_backend, fake_cupy, gpu_backend, watched

__all__ = ["cupy_backend", "fake_backend", "fake_cupy", "gpu_backend", "watched"]
