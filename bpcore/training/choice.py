"""The backend of a training that names none: the fastest for steps of its size, where that was measured."""

from __future__ import annotations

from typing import Any

from bpcore.backends import get_backend, selection
from bpcore.backends.contract import Backend
from bpcore.errors import BackendError
from bpcore.network import MLP
from bpcore.tuning import step_flops, valid_tuning

__all__ = ["choose_backend"]


def choose_backend(net: MLP, backend: str | Backend | None, batch_size: int) -> tuple[Backend, str]:
    """Return the backend of a training, which then holds the parameters, and the reason.

    Parameters
    ----------
    net : MLP
        The network.
    backend : str, Backend or None
        What was asked for.
    batch_size : int
        Samples of a step.

    Returns
    -------
    backend : Backend
        Asked for, or held by the network, or in force; only where the choice is automatic, and ``bpcore tune`` has
        measured this machine, the fastest for steps of this size.
    why : str
        For the record of the run.

    Raises
    ------
    UnknownNameError, BackendError
        As :func:`bpcore.get_backend`.
    """
    if backend is not None:
        return net.on(backend), "argument backend="
    if net.pinned:
        return net.on(None), "held by the network"
    chosen = selection()
    tuned: Any = valid_tuning()[0] if chosen.automatic else None
    if tuned is not None:
        name, why = tuned.backend(step_flops(net.sizes, batch_size))
        try:
            return net.prefer(get_backend(name)), f"{chosen.source}: {why}"
        except BackendError as error:  # it could when it was measured
            return net.on(None), f"{chosen.source}: {chosen.why}; {name} was the fastest, but {error}"
    return net.on(None), f"{chosen.source}: {chosen.why}"
