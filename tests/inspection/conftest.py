"""The stand-in of a GPU, for looks that must not fetch arrays."""

from tests.backends.conftest import fake_backend, fake_cupy

__all__ = ["fake_backend", "fake_cupy"]
