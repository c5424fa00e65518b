"""What a prediction on an NVIDIA GPU needs besides its arrays, kept from call to call.

A *room* is what one call under way has of a device: a handle of cuBLAS with its workspace, memory for the parts of
split sums, and the word by which kernels say that samples are not finite. A call enters a room that nobody is in, or a
new one, and leaves it when the device has done everything. So a device has as many rooms as there are calls at the same
time, whatever the number of networks, and everything in a room, CUDA graphs too, is used by one call at a time on
whichever stream.

A network keeps what is its own, memory for H and the graphs, at a *place* in each room that it was in. The place goes
when the network goes, or the room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backends.cublas import WORKSPACE, Cublas, load_cublas
from bpcore.backends.cupy_device import CudaDevice
from bpcore.backends.cupy_products import CudaProducts
from bpcore.kernels.cuda.tiling import Tiling
from bpcore.typing import Array

__all__ = ["Layer", "Place", "Replay", "Room", "enter", "leave"]


class Room:
    """What one call under way has of a device.

    Parameters
    ----------
    be : Backend
        The CuPy backend.

    Attributes
    ----------
    odd : ndarray of uint32, shape (1,)
        Set by a kernel that has met numbers that are not finite; in the memory of the host, at ``odd_at``.
    places : mapping
        From a network's inference to its place here.
    """

    def __init__(self, be: Backend) -> None:
        gpu: CudaDevice = be.gpu
        self._empty, self._cupy = be.empty, be.xp
        self._stream = gpu.current_stream
        self.odd, self.odd_at = gpu.host_word()
        self.places: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()
        self._cublas: Cublas | None = None
        self._sums: dict[np.dtype[Any], tuple[Array, Array]] = {}

    @property
    def cublas(self) -> Cublas:
        """The handle, with its workspace; both are made at first use."""
        if self._cublas is None:
            self._cublas = Cublas(load_cublas(self._cupy), self._empty(WORKSPACE, np.uint8))
        return self._cublas

    def use_current_stream(self) -> None:
        """Let cuBLAS queue what follows where kernels are queued."""
        self.cublas.use_stream(self._stream())

    def sums(self, products: CudaProducts, tiling: Tiling) -> tuple[Array, Array]:
        """Return memory for the parts of sums that are cut so, and counters; longer ones may replace it later."""
        size = products.scratch_size([tiling])
        found = self._sums.get(products.dtype)
        if found is None or found[0].size < size:
            found = self._sums[products.dtype] = products.scratch(size)
        return found


@dataclass
class Layer:
    """One layer, made ready for a number of rows: ``H = act(A @ W + b)``.

    ``multiply(A, W, H)`` is the product by cuBLAS, of addresses; without it the kernel multiplies. ``launch`` takes all
    arguments of the kernel and is None where the next layer does what follows a product. ``H`` is None where the output
    of the network is written. ``rowwise`` follows where the kernel does not finish rows.
    """

    W: np.uint64
    b: np.uint64
    H: Array
    multiply: Callable[[int, int, int], None] | None
    launch: Callable[[tuple[Any, ...]], None] | None
    others: tuple[Any, ...]
    rowwise: Callable[..., Any] | None

    def queue(self, A: Array, H: Array) -> None:
        """Queue it on the current stream."""
        arguments = (H, self.b, *self.others)
        if self.multiply is None:
            arguments = (A, self.W, self.b, H, *self.others)
        else:
            self.multiply(A.data.ptr, int(self.W), H.data.ptr)
        if self.launch is not None:
            self.launch(arguments)
        if self.rowwise is not None:
            self.rowwise(H, out=H)


@dataclass
class Replay:
    """A CUDA graph and what it uses; ``X`` and ``out`` if these are its own."""

    launch: Callable[[], None]
    layers: list[Layer]
    X: Array = None
    out: Array = None


@dataclass
class Place:
    """What a network keeps in a room.

    Two vectors ``hidden`` hold H of ``rows`` rows of the widest layer. Layers and replays go by numbers of rows and
    addresses: ``layers`` by (rows, theta), ``replays`` by that or by (rows, theta, X, out), the one that was used last
    at the end. ``seen`` are calls of late that had no graph, and ``last`` is the last of them.
    """

    rows: int = 0
    hidden: list[Array] = field(default_factory=list)
    layers: dict[tuple[int, ...], list[Layer]] = field(default_factory=dict)
    replays: dict[tuple[int, ...], Replay] = field(default_factory=dict)
    seen: dict[tuple[int, ...], None] = field(default_factory=dict)
    last: tuple[int, ...] = ()


def enter(be: Backend, inference: Any) -> tuple[Room, Place]:
    """Return a room that nobody is in, and the place of a network there."""
    try:
        room: Room = be.gpu.rooms.pop()
    except IndexError:  # all are in use
        room = Room(be)
    place = room.places.get(inference)
    if place is None:
        place = room.places[inference] = Place()
    return room, place


def leave(be: Backend, room: Room) -> None:
    """Let others in. Who fails does not leave: nobody knows what the device is still doing there."""
    be.gpu.rooms.append(room)
