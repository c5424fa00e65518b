"""How much of a device's memory is free, and the error for where it ends outside of training."""

from __future__ import annotations

from typing import Any

from bpcore.backends.contract import Backend
from bpcore.errors import DeviceMemoryError

__all__ = ["available_bytes", "in_words", "no_room", "samples"]


def available_bytes(be: Backend) -> int | None:
    """Bytes of the device that can be allocated; None where the backend does not say."""
    memory = be.memory()
    if be.device == "cpu" or "free" not in memory:
        return None
    free = memory["free"] + memory["held"] - memory["used"]
    return min(free, memory["limit"] - memory["used"]) if memory.get("limit") else free


def no_room(be: Backend, what: str, possible: str, said: str) -> DeviceMemoryError:
    """Build the error for a device that has refused an allocation; whatever it can give back is given back before.

    Parameters
    ----------
    be : Backend
        Of the device.
    what : str
        What has no room.
    possible : str
        What helps.
    said : str
        The words of the library that has refused.
    """
    be.release()
    return DeviceMemoryError(
        f"{what} does not fit in the memory of {be.device}, of which {in_words(available_bytes(be) or 0)} are free. "
        f"Possible: {possible}. {be.name} says: {said}"
    )


def samples(X: Any) -> str:
    """Write how many samples there are, where that can be seen.

    Examples
    --------
    >>> samples([[0.5]] * 2000), samples(object())
    ('2,000 samples', 'samples')
    """
    return f"{len(X):,} samples" if hasattr(X, "__len__") else "samples"


def in_words(size: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> in_words(3 * 2**30), in_words(5)
    ('3.00 GiB', '5 bytes')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"
