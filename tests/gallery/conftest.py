"""The stand-in for CuPy, for the examples."""

from tests.backends.conftest import fake_backend, fake_cupy

__all__ = ["fake_backend", "fake_cupy"]
