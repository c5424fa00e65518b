"""Whose stream the work is queued on: streams of CuPy, of PyTorch, of anyone, as one context manager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bpcore.errors import ConfigurationError

__all__ = ["on_stream"]


class _Address:
    """The address of a stream, in the form of the CUDA stream protocol."""

    def __init__(self, address: int, owner: Any) -> None:
        self.address, self.owner = address, owner  # who owns the stream lives as long as CuPy's wrapper

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address  # version of the protocol, address


@contextmanager
def on_stream(cupy: Any, number: int, stream: Any) -> Iterator[None]:
    """Queue work on a stream inside a ``with`` block, in order with what the caller's current stream does.

    Two events tie the streams together: the stream begins after what was queued on the current one before the block,
    and what is queued there after the block waits for it. Neither waits on the host.

    Parameters
    ----------
    cupy : module
        CuPy.
    number : int
        The device that computes.
    stream : object
        A stream, see :meth:`bpcore.backends.contract.Backend.on_stream`.

    Raises
    ------
    ConfigurationError
        If it is no stream, or one of another device.
    """
    with cupy.cuda.Device(number):
        chosen = _as_stream(cupy, number, stream)
        outside = cupy.cuda.get_current_stream()
        _follow(cupy, outside, chosen)
        try:
            with chosen:
                yield
        finally:
            _follow(cupy, chosen, outside)


def _follow(cupy: Any, first: Any, then: Any) -> None:
    """Let one stream wait for what is queued on another now."""
    if first.ptr != then.ptr:
        event = cupy.cuda.Event(disable_timing=True)
        event.record(first)
        then.wait_event(event)


def _as_stream(cupy: Any, number: int, stream: Any) -> Any:
    device = getattr(stream, "device_id", None)  # CuPy, -1 where it is not known
    if device is None:
        device = getattr(stream, "device_index", -1)  # PyTorch
    if isinstance(device, int) and device not in (-1, number):
        raise ConfigurationError(
            f"stream= is a stream of cuda:{device}, and the network is on cuda:{number}; make the stream on that device"
        )
    if hasattr(stream, "__cuda_stream__"):
        return cupy.cuda.Stream.from_external(stream)
    address = getattr(stream, "cuda_stream", stream)
    if isinstance(address, bool) or not isinstance(address, int) or address < 0:
        raise ConfigurationError(
            f"stream= is {stream!r}; possible: a cupy.cuda.Stream, a torch.cuda.Stream, an object with "
            "__cuda_stream__, or the address of a CUDA stream as an int"
        )
    return cupy.cuda.Stream.from_external(_Address(address, stream))
