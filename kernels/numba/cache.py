"""Compiled code on disk: where it lives, when it is used again, and the one way to compile a kernel.

Numba's own cache notices when the file of a function changes, but not when a function that it calls changes in
another file, and it writes next to the source, where a system-wide installation may not write. Therefore all
compiled code of bpcore goes into one folder whose name contains a digest of every kernel source and the version of
Numba: code from other sources is never even looked at. Text that is printed at run time (:func:`load_text`) is stored
there too, under a name that contains a digest of the text.

The folder is ``BPCORE_CACHE_DIR`` or the user's cache folder. If nothing can be written there, it is a temporary one,
in which the code that lies there already is found all the same.

Whoever wants to know what is compiled and what was there enters an :class:`Observer` with :func:`observed`.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import event, types

from bpcore import random
from bpcore.kernels.numba.cache_folders import UNUSED_SECONDS, mark_used, overlay, prune
from bpcore.settings import cache_dir

__all__ = ["Kernel", "Observer", "compile_function", "folder", "inner", "load_text", "observed", "own_folder"]

_log = logging.getLogger("bpcore")
_lock = threading.RLock()
_folders: dict[Path, Path] = {}
_observers: list[Observer] = []


def _renew_lock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def folder() -> Path:
    """Return the folder for compiled code, made if needed and known to be writable.

    Returns
    -------
    pathlib.Path
        ``<BPCORE_CACHE_DIR>/numba/<digest>``; a temporary folder, removed at exit, if that cannot be written. The
        variable is read at each call, so a change takes effect for what is compiled afterwards.
    """
    root = cache_dir()
    with _lock:
        found = _folders.get(root)
        if found is None:
            found = _folders[root] = _make_folder()
        return found


def own_folder() -> Path:
    """Return where compiled code of this version belongs, ``<cache folder>/numba/<digest>``; it need not exist.

    Beside it are the folders of other versions.
    """
    return cache_dir() / "numba" / _digest_of_sources()


def _make_folder() -> Path:
    path = own_folder()
    fresh = not path.is_dir()
    try:
        _make_writable(path)
    except OSError as error:
        temporary = _temporary_folder()
        found = 0 if fresh else overlay(path, temporary)
        if found:
            _log.info("using the compiled code in %s, which cannot be written (%s)", path, error)
        else:
            _log.warning(
                "cannot write compiled code to %s (%s); using %s for this process, so the next one compiles again. "
                "Set BPCORE_CACHE_DIR to a writable folder",
                path,
                error,
                temporary,
            )
        return temporary
    mark_used(path)
    if fresh:
        # a new version begins: the moment at which old ones are left behind
        for left in prune(path, UNUSED_SECONDS):
            _log.info("removed %s: compiled code of another version, long unused", left.path)
    return path


def _make_writable(path: Path) -> None:
    """Make a folder; raise OSError if it cannot be made or written."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


@functools.cache
def _temporary_folder() -> Path:
    path = Path(tempfile.mkdtemp(prefix="bpcore-"))
    owner = os.getpid()

    def remove() -> None:
        # a forked child must not take the folder away from its parent
        if os.getpid() == owner:
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path


@functools.cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256(f"numba {numba.__version__}".encode())
    # constants of the random numbers are compiled into the kernels
    for source in [*sorted(Path(__file__).parent.glob("*.py")), Path(random.__file__)]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


# -------------------------------------------------------------------------------- printed modules


def load_text(name: str, text: str) -> ModuleType:
    """Store a printed module in the cache folder and import it.

    Parameters
    ----------
    name : str
        Beginning of the file name.
    text : str
        The module. This text is executed, never what an existing file contains.

    Returns
    -------
    module
        The module; it is registered in :data:`sys.modules`.
    """
    stem = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    path = folder() / f"{stem}.py"
    _store(path, text)
    module = ModuleType(f"bpcore.kernels.numba.printed.{stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def _store(path: Path, text: str) -> None:
    """Write a file all at once; any number of processes may do so at the same time."""
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    try:
        # the folder may have been pruned since this process found it
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            # Numba compares time stamps: the same text, written by another process, must carry the same one
            os.utime(temporary, (1_000_000_000, 1_000_000_000))
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        _log.warning("cannot store %s (%s); it will be compiled again next time", path, error)


# -------------------------------------------------------------------------------- being told


class Observer:
    """Is told of every function that is compiled or loaded; both methods do nothing here."""

    def begins(self, name: str) -> None:
        """Be told that a function, which is not in the cache folder, is going to be compiled."""

    def ends(self, name: str, compiled: bool, seconds: float) -> None:
        """Be told that a function is ready: compiled, or else loaded, and how long that took."""


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Tell an observer of what all threads of this process compile or load inside a ``with`` block."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


class _Start(event.Listener):  # type: ignore[misc]
    """Hears from Numba that it found nothing in the cache folder and begins to compile."""

    def __init__(self, dispatcher: Any, name: str) -> None:
        self.dispatcher, self.name, self.compiled = dispatcher, name, False

    def on_start(self, event: Any) -> None:
        # functions that this one calls are compiled meanwhile, and other threads compile theirs
        if event.data["dispatcher"] is self.dispatcher:
            self.compiled = True
            for observer in tuple(_observers):
                observer.begins(self.name)

    def on_end(self, event: Any) -> None:
        pass


def _compile(dispatcher: Any, signature: Any) -> None:
    function = dispatcher.py_func
    name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}{signature.args}"
    start, begun = _Start(dispatcher, name), time.perf_counter()
    with event.install_listener("numba:compile", start):
        dispatcher.compile(signature)
    seconds = time.perf_counter() - begun
    _log.debug("%s %s in %.2f s", "compiled" if start.compiled else "loaded", name, seconds)
    for observer in tuple(_observers):
        observer.ends(name, start.compiled, seconds)


# -------------------------------------------------------------------------------- compiling


def compile_function(function: Callable[..., Any], signature: Any, *, reassociate: bool = False) -> Callable[..., Any]:
    """Compile for one signature, or load the compiled code from the cache folder.

    Parameters
    ----------
    function : callable
        A function of a file (its compiled code is filed under that file).
    signature : numba.core.typing.templates.Signature
        Types of the arguments. No other signature is ever compiled; a call with other types raises TypeError.
    reassociate : bool, default False
        Whether sums may be taken in another order, which lets them vectorise. The order depends on the sizes only.

    Returns
    -------
    callable
        Releases the GIL while it runs. With ``NUMBA_DISABLE_JIT=1`` it is the Python function itself.
    """
    if numba.config.DISABLE_JIT:
        return _interpreted(function)
    # "contract" and "reassoc" keep the meaning of NaN and infinity
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "fastmath": {"contract", "reassoc"} if reassociate else {"contract"},
    }
    try:
        with _lock:
            # Numba decides where to cache while it decorates; only for that moment our folder is its folder
            previous, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder())
            try:
                dispatcher = numba.njit(cache=True, **options)(function)
            finally:
                numba.config.CACHE_DIR = previous
        _compile(dispatcher, signature)
    except Exception as error:  # a full disk, a damaged cache file, a file system without locks, ...
        _log.warning("compiling %s without the cache (%s: %s)", function.__name__, type(error).__name__, error)
        dispatcher = numba.njit(**options)(function)
        _compile(dispatcher, signature)
    dispatcher.disable_compile()
    return dispatcher  # type: ignore[no-any-return]


def inner(function: Callable[..., Any] | None = None, *, reassociate: bool = False, inline: bool = False) -> Any:
    """Decorate a function that only compiled functions call; it becomes a part of each.

    Parameters
    ----------
    function : callable, optional
        The function.
    reassociate : bool, default False
        See :func:`compile_function`.
    inline : bool, default False
        Whether it must not be a call.

    Returns
    -------
    callable
        The function, without the code that would let Python call it, which takes long to compile.
    """
    if function is None:
        return functools.partial(inner, reassociate=reassociate, inline=inline)
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "forceinline": inline}
    options["fastmath"] = {"contract", "reassoc"} if reassociate else {"contract"}
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)


def _interpreted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return run


class Kernel(dict[Any, Callable[..., Any]]):
    """A function that is compiled for a dtype when that dtype is first asked for.

    ``kernel[dtype]`` takes C-contiguous arrays; ``kernel[dtype, "A"]`` takes any strides.

    Parameters
    ----------
    *arguments : str
        One for each argument of the function: ``"T2"`` is an array of the kernel's dtype with two axes that is only
        read, ``"T2!"`` one that is written, ``"int64 1"``, ``"float64 1!"`` arrays of a fixed dtype, ``"uint64"``
        a number.
    reassociate : bool, default False
        See :func:`compile_function`.
    """

    def __init__(self, *arguments: str, reassociate: bool = False) -> None:
        super().__init__()
        self.arguments = arguments
        self.reassociate = reassociate
        self.function: Callable[..., Any] | None = None

    def __call__(self, function: Callable[..., Any]) -> Kernel:
        """Decorate the function."""
        self.function = function
        return self

    def __missing__(self, key: Any) -> Callable[..., Any]:
        dtype, layout = key if isinstance(key, tuple) else (key, "C")
        assert self.function is not None
        # no lock: two threads that come here at once compile the same thing, and either result serves
        signature = types.void(*(self._type(text, dtype, layout) for text in self.arguments))
        self[key] = compiled = compile_function(self.function, signature, reassociate=self.reassociate)
        return compiled

    @staticmethod
    def _type(text: str, dtype: Any, layout: Any) -> Any:
        written = text.endswith("!")
        text = text.removesuffix("!")
        if text.startswith("T"):
            element: Any = numba.from_dtype(np.dtype(dtype))
            return types.Array(element, int(text[1:]), layout, readonly=not written)
        name, _, axes = text.partition(" ")
        scalar: Any = getattr(types, name)
        return types.Array(scalar, int(axes), layout, readonly=not written) if axes else scalar
