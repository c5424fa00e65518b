"""Where the memory of a device ends outside of training: what was asked, what is free, and what helps."""

from __future__ import annotations

from typing import Any

from bpcore.backends.contract import Backend
from bpcore.errors import DeviceMemoryError

__all__ = ["in_words", "no_room", "samples"]


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
    memory = be.memory()
    free = memory.get("free", 0) + memory.get("held", 0) - memory.get("used", 0)
    if memory.get("limit"):
        free = min(free, memory["limit"] - memory["used"])
    return DeviceMemoryError(
        f"{what} does not fit in the memory of {be.device}, of which {in_words(free)} are free. "
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
