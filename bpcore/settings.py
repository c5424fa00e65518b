"""Settings from the environment, read when they are needed and never at import.

========================  ============================================  ========================
variable                  meaning                                       default
========================  ============================================  ========================
``BPCORE_BACKEND``        backend of everything that names none         ``auto``
``BPCORE_DTYPE``          dtype of new networks: float32 or float64     ``float32``
``BPCORE_SEED``           seed of new networks and runs                 drawn afresh, recorded
``BPCORE_NUM_THREADS``    threads of matrix products during training    left as they are
``BPCORE_CACHE_DIR``      folder for compiled kernels and the tuning    the user's cache folder
========================  ============================================  ========================
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bpcore.errors import ConfigurationError, DataError

__all__ = [
    "FLOAT_DTYPES",
    "cache_dir",
    "check_dtype",
    "check_seed",
    "default_dtype",
    "default_seed",
    "default_threads",
]

T = TypeVar("T")

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype if bpcore can train in it.

    Raises
    ------
    DataError
        For anything but float32 and float64.
    """
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise DataError(f"dtype {dtype!r} is not known; possible: float32, float64") from None
    if found not in FLOAT_DTYPES:
        raise DataError(f"dtype {found} is not supported for training; possible: float32, float64")
    return found


def check_seed(seed: Any) -> int:
    """Return the seed as an int of at most 64 bits.

    Raises
    ------
    ConfigurationError
        If it is not a whole number in [0, 2**64).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**64:
        raise ConfigurationError(f"seed is {seed!r}; it must be a whole number from 0 to 2**64 - 1")
    return int(seed)


def default_dtype() -> np.dtype[Any]:
    """Dtype of new networks: ``BPCORE_DTYPE`` or float32."""
    return _from_environment("BPCORE_DTYPE", check_dtype, np.dtype(np.float32))


def default_seed() -> int:
    """Seed of a new network or run: ``BPCORE_SEED``, or 63 fresh random bits."""
    seed = _from_environment("BPCORE_SEED", lambda text: check_seed(int(text)), None)
    return secrets.randbits(63) if seed is None else seed


def default_threads() -> int | None:
    """Number of threads from ``BPCORE_NUM_THREADS``, or None to leave the libraries as they are."""
    return _from_environment("BPCORE_NUM_THREADS", lambda text: check_threads(int(text)), None)


def cache_dir() -> Path:
    """Folder for what is compiled and measured: ``BPCORE_CACHE_DIR``, or the user's cache folder. It need not exist."""
    root = os.environ.get("BPCORE_CACHE_DIR")
    if not root:
        import platformdirs

        root = platformdirs.user_cache_dir("bpcore", appauthor=False)
    return Path(root).expanduser().absolute()


def check_threads(threads: Any) -> int:
    """Return the number of threads.

    Raises
    ------
    ConfigurationError
        If it is not a whole number of at least 1.
    """
    return check_count("threads", threads)


def check_count(name: str, value: Any) -> int:
    """Return a number of things, of which there must be one.

    Parameters
    ----------
    name : str
        What to call it in the message.
    value
        What was given.

    Raises
    ------
    ConfigurationError
        If it is not a whole number of at least 1.

    Examples
    --------
    >>> check_count("epochs", 0)
    Traceback (most recent call last):
    ...
    bpcore.errors.ConfigurationError: epochs is 0; it must be a whole number of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def _from_environment(name: str, convert: Callable[[str], T], default: T) -> T:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        return convert(text)
    except ValueError as error:
        raise ConfigurationError(f"environment variable {name}={text!r}: {error}") from None
