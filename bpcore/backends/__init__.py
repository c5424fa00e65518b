"""Backends: where the arithmetic happens, and how one is chosen.

A backend is an object that a network holds and passes on. It is named (``"numpy"``, ``"numba"``, ``"cupy"``) or chosen,
in this order: the ``backend`` argument, :func:`use_backend`, :func:`set_backend`, the variable ``BPCORE_BACKEND``, and
last ``auto``. A named backend that cannot run is an error, never a quiet substitute.
"""

from bpcore.backends.contract import Backend
from bpcore.backends.registry import backends, get_backend, register_backend, selection, set_backend, use_backend
from bpcore.backends.status import BackendStatus, BackendTable, Selection

__all__ = [
    "Backend",
    "BackendStatus",
    "BackendTable",
    "Selection",
    "backends",
    "get_backend",
    "register_backend",
    "selection",
    "set_backend",
    "use_backend",
]
