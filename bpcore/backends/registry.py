"""The registry: which backends there are, which can run here, and which one is in use.

Nothing is imported to find out what exists, and nothing is started before it is asked for. The rule of choice:

1. the argument ``backend=`` (or ``get_backend(name)``),
2. :func:`use_backend`, for a block of code and this thread or task only,
3. :func:`set_backend`, for the process,
4. the environment variable ``BPCORE_BACKEND``, read when it is needed,
5. ``auto``: cupy if it can run, else numba, else numpy. For training, where ``bpcore tune`` has measured the machine,
   the backend that is the fastest for steps of the size (:mod:`bpcore.training.choice`).

Only ``auto`` chooses, and it says what it chose and why, through the logger ``bpcore`` and :func:`selection`. A backend
that was named, in whatever way, and cannot run is a :class:`~bpcore.errors.BackendError`.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from bpcore.backends.contract import Backend, Probe
from bpcore.backends.status import BackendStatus, BackendTable, Selection
from bpcore.errors import BackendError, UnknownNameError, unknown

__all__ = [
    "backends",
    "get_backend",
    "gpu_visible",
    "register_backend",
    "selection",
    "set_backend",
    "use_backend",
]

VARIABLE = "BPCORE_BACKEND"
AUTO = "auto"
PREFERENCE = ("cupy", "numba", "numpy")
"""What ``auto`` tries, in this order."""

_log = logging.getLogger("bpcore")

Loader = Callable[[], type[Backend]]


def _class_of(module: str, name: str) -> Loader:
    return lambda: getattr(importlib.import_module(f"bpcore.backends.{module}"), name)


_loaders: dict[str, Loader] = {
    "numpy": _class_of("numpy_backend", "NumpyBackend"),
    "numba": _class_of("numba_backend", "NumbaBackend"),
    "cupy": _class_of("cupy_backend", "CupyBackend"),
}
_instances: dict[str, Backend] = {}
_lock = threading.RLock()
_process_wide: str | Backend | None = None
_scoped: ContextVar[str | Backend | None] = ContextVar("bpcore_backend", default=None)
_auto: tuple[str, str] | None = None


def _renew_lock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# -------------------------------------------------------------------------------- asking


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return a backend, ready to compute.

    Parameters
    ----------
    name : str or Backend, optional
        A name, ``"auto"``, or a backend (returned as it is). By default the backend in use, see the module.

    Returns
    -------
    Backend
        One object for each name and process.

    Raises
    ------
    UnknownNameError
        If there is no backend of that name.
    BackendError
        If it cannot run here; the message says why, what can, and how to repair it.

    Examples
    --------
    >>> get_backend("numpy")
    <backend numpy on cpu>
    """
    return _resolve(name)[0]


def selection(name: str | Backend | None = None) -> Selection:
    """Say which backend :func:`get_backend` returns for the same argument, and why.

    Parameters
    ----------
    name : str or Backend, optional
        As for :func:`get_backend`, which it calls, with the same errors.

    Returns
    -------
    Selection
        Name, source and reason.

    Examples
    --------
    >>> with use_backend("numpy"):
    ...     selection().source
    'use_backend'
    """
    return _resolve(name)[1]


def _resolve(argument: str | Backend | None) -> tuple[Backend, Selection]:
    asked, source = _request(argument)
    if isinstance(asked, Backend):
        return asked, Selection(asked.name, source, f"this object was given by {_spoken(source)}")
    if asked == AUTO:
        backend, why = _choose()
        if source != AUTO:
            why = f"'auto' was given by {_spoken(source)}: {why}"
        return backend, Selection(backend.name, source, why, automatic=True)
    _check_name(asked, source)
    backend = _instances.get(asked) or _start(asked, source)
    return backend, Selection(asked, source, f"{asked!r} was given by {_spoken(source)}")


def _request(argument: str | Backend | None) -> tuple[str | Backend, str]:
    """Return what is asked for, by the rule of choice, and where it was asked."""
    if argument is not None:
        return argument, "argument"
    scoped = _scoped.get()
    if scoped is not None:
        return scoped, "use_backend"
    if _process_wide is not None:
        return _process_wide, "set_backend"
    variable = os.environ.get(VARIABLE, "").strip()
    return (variable.lower(), VARIABLE) if variable else (AUTO, AUTO)


def _spoken(source: str) -> str:
    return {"argument": "the argument", VARIABLE: f"the variable {VARIABLE}"}.get(source, source)


def _check_name(name: object, source: str) -> None:
    if isinstance(name, str) and (name in _loaders or name == AUTO):
        return
    error = unknown("backend", name, [*_loaders, AUTO])
    if source == VARIABLE:
        raise UnknownNameError(f"{error} (from the environment variable {VARIABLE})")
    raise error


def _start(name: str, source: str) -> Backend:
    """Make the one instance of a backend, or raise the error that says why not."""
    with _lock:
        if name not in _instances:
            probe = _probe(name)
            if probe.usable:
                try:
                    _instances[name] = _loaders[name]()()
                    return _instances[name]
                except Exception as error:
                    # asked again: what failed may be known to the class now
                    again = _probe(name)
                    probe = Probe(False, str(error) or type(error).__name__, again.repair, probe.facts)
                    raise BackendError(_refusal(name, source, probe)) from error
            raise BackendError(_refusal(name, source, probe))
        return _instances[name]


def _probe(name: str) -> Probe:
    try:
        return _loaders[name]().probe()
    except Exception as error:
        return Probe(False, f"its module cannot be loaded ({type(error).__name__}: {error})")


def _refusal(name: str, source: str, probe: Probe) -> str:
    asked = "" if source == "argument" else f" (from {source})"
    others = [status.name for status in backends() if status.usable and status.name != name]
    text = f"backend {name!r}{asked} cannot run: {probe.reason.rstrip('.')}. Usable here: {', '.join(others)}."
    return f"{text} Repair: {probe.repair}" if probe.repair else text


# -------------------------------------------------------------------------------- auto


def _choose() -> tuple[Backend, str]:
    """Choose once for the process: the first of :data:`PREFERENCE` that runs."""
    global _auto
    if _auto is None:
        with _lock:
            if _auto is None:
                _auto = _try_in_order()
    name, why = _auto
    return _instances.get(name) or _start(name, AUTO), why


def _try_in_order() -> tuple[str, str]:
    passed_over: list[str] = []
    chosen = ""
    for name in PREFERENCE:
        try:
            _instances.get(name) or _start(name, AUTO)
        except BackendError:
            probe = _probe(name)
            passed_over.append(f"{name} cannot run ({probe.reason})")
            if name == "cupy" and gpu_visible():
                _log.warning(
                    "a GPU seems to be present, but the backend cupy cannot run: %s. Computing on the CPU. Repair: %s",
                    probe.reason,
                    probe.repair or "see bpcore doctor",
                )
            elif name == "numba":
                _log.warning(
                    "the backend numba cannot run: %s. NumPy is used, which is slower. Repair: %s",
                    probe.reason,
                    probe.repair,
                )
            continue
        chosen = name
        break
    why = "; ".join([*passed_over, f"{chosen} is the best that runs here"])
    _log.info("backend %s chosen automatically: %s", chosen, why)
    return chosen, why


def gpu_visible() -> bool:
    """Whether an NVIDIA GPU seems to be here, judged by files only."""
    return bool(glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi"))


# -------------------------------------------------------------------------------- choosing


def set_backend(name: str | Backend | None) -> None:
    """Set the backend of the process, for code that names none.

    Parameters
    ----------
    name : str, Backend or None
        A name, ``"auto"``, a backend; None takes the setting back. Networks that exist keep theirs.

    Raises
    ------
    UnknownNameError, BackendError
        As :func:`get_backend`; the former setting then stays.

    Examples
    --------
    >>> set_backend("numpy")
    >>> get_backend().name
    'numpy'
    >>> set_backend(None)
    """
    global _process_wide
    if name is not None:
        _resolve_for("set_backend", name)
    _process_wide = name


@contextlib.contextmanager
def use_backend(name: str | Backend) -> Iterator[Backend]:
    """Use a backend inside a ``with`` block, in this thread or asynchronous task only.

    Parameters
    ----------
    name : str or Backend
        A name, ``"auto"`` or a backend.

    Yields
    ------
    Backend
        The backend.

    Raises
    ------
    UnknownNameError, BackendError
        As :func:`get_backend`, on entering.

    Examples
    --------
    >>> with use_backend("numpy") as backend:
    ...     get_backend() is backend
    True
    """
    backend = _resolve_for("use_backend", name)
    token = _scoped.set(name)
    try:
        yield backend
    finally:
        _scoped.reset(token)


def _resolve_for(source: str, name: str | Backend) -> Backend:
    """Return the backend for a name given to `source`, with errors that say so."""
    if isinstance(name, Backend):
        return name
    _check_name(name, source)
    return _choose()[0] if name == AUTO else _instances.get(name) or _start(name, source)


# -------------------------------------------------------------------------------- the list


def backends() -> BackendTable:
    """List all backends with what is known about them; starts none.

    Returns
    -------
    list of BackendStatus
        In the order of registration; prints as a table.

    Examples
    --------
    >>> [status.name for status in backends()][:2]
    ['numpy', 'numba']
    """
    table = BackendTable()
    for name in list(_loaders):
        probe = _probe(name)
        table.append(BackendStatus(name, probe.usable, probe.reason, probe.repair, probe.facts))
    return table


def register_backend(name: str, loader: Loader | None) -> None:
    """Add a backend of your own, or take it away.

    Parameters
    ----------
    name : str
        Its name, lower case.
    loader : callable or None
        Returns the class (a subclass of :class:`Backend`) when it is first needed. None removes the name.

    Raises
    ------
    UnknownNameError
        If a name that is not registered is to be removed.
    """
    global _auto
    with _lock:
        if loader is None and name not in _loaders:
            raise unknown("backend", name, _loaders)
        _instances.pop(name, None)
        _auto = None
        if loader is None:
            del _loaders[name]
        else:
            _loaders[name] = loader
