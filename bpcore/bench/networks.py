"""Networks that are measured: presets, and one of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpcore.bench.witness import HIDDEN
from bpcore.bench.workload import STATE_VECTORS, Workload
from bpcore.errors import ConfigurationError, unknown

__all__ = ["BATCH_SIZES", "NETWORKS", "QUICK", "Network", "custom_network", "find_network"]

BATCH_SIZES = tuple(2**k for k in range(17))
"""1 to 65536."""

LEAST_ROWS = 16384
"""Rows of the data, unless a batch needs more: enough that they do not lie in the nearest cache."""

TYPICAL = 64
"""Batch size from which the learning rate is the one that was named."""

INDICES = 2**18
"""Most sample numbers of a chunk of steps."""


@dataclass(frozen=True)
class Network:
    """A network, and how it is trained.

    Attributes
    ----------
    name : str
        What the tables call it.
    sizes : tuple of int
        Widths of its layers.
    activation, output, loss, optimizer : str
        As in :class:`~bpcore.bench.workload.Workload`.
    eta : float
        Learning rate, for batches that are not small.
    typical : int
        Batch size for which the parts of a step are looked at.
    """

    name: str
    sizes: tuple[int, ...]
    activation: str = "relu"
    output: str = "softmax"
    loss: str = "cross_entropy"
    optimizer: str = "momentum"
    eta: float = 0.02
    typical: int = TYPICAL

    def workload(self, batch: int, kind: str, precision: str) -> Workload:
        """Return the workload of a batch size; ``kind`` is ``"train"`` or ``"predict"``."""
        chunk = max(2, min(512, INDICES // batch)) if kind == "train" else 1
        return Workload(
            kind,
            self.sizes,
            self.activation,
            self.output,
            self.loss,
            self.optimizer,
            batch,
            max(LEAST_ROWS, batch + batch // 4),
            chunk,
            self.eta * min(1.0, batch / TYPICAL),  # single samples pull in all directions, and momentum adds them up
            precision=precision,
        )


NETWORKS = {
    network.name: network
    for network in (
        Network("tiny", (4, 32, 32, 1), "tanh", "identity", "mse", "adam", 1e-3, 128),
        Network("digits", (64, 128, 10)),
        Network("mnist", (784, 512, 512, 10), typical=128),
        Network("deep", (64, *(64,) * 8, 10), typical=256),
        Network("wide", (1024, 4096, 4096, 1000), typical=256),
    )
}
"""A small regression, two classifications of digits, a deep and narrow network, and a wide one."""

QUICK = ("tiny", "digits")
"""What ``--quick`` measures, with every fourth batch size."""


def find_network(name: str) -> Network:
    """Look a preset up.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name]


def custom_network(sizes: Sequence[int], activation: str = "relu", optimizer: str = "momentum") -> Network:
    """Return a network of these widths: a classifier, or with one output a regression.

    Parameters
    ----------
    sizes : sequence of int
        Widths, at least two, each at least 1.
    activation : str
        Of the hidden layers: relu, tanh or sigmoid.
    optimizer : str
        sgd, momentum or adam.

    Raises
    ------
    ConfigurationError
        If the widths are no network.
    UnknownNameError
        If the activation or the optimizer is none that the float64 witness knows.

    Examples
    --------
    >>> custom_network([784, 512, 10]).name
    '784-512-10'
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ConfigurationError(
            f"layers {','.join(map(str, sizes))}: at least an input and an output width are needed, each at least 1, "
            "such as 784,512,10"
        )
    if activation not in HIDDEN:
        raise unknown("activation of a benchmark", activation, HIDDEN)
    if optimizer not in STATE_VECTORS:
        raise unknown("optimizer of a benchmark", optimizer, STATE_VECTORS)
    eta = 1e-3 if optimizer == "adam" else 0.02
    output, loss = ("identity", "mse") if sizes[-1] == 1 else ("softmax", "cross_entropy")
    return Network("-".join(map(str, sizes)), tuple(sizes), activation, output, loss, optimizer, eta)
