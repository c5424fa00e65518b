"""The stand-in for CuPy, for the examples."""

from tests.backends.conftest import fake_backend, fake_cupy, kernel_folder

__all__ = ["fake_backend", "fake_cupy", "kernel_folder"]
