"""Callbacks: code of the user's own that runs at the start, between steps, after every epoch and at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bpcore.errors import ConfigurationError
from bpcore.network import MLP
from bpcore.training.stopping import Progress

if TYPE_CHECKING:
    from bpcore.problem import Problem
    from bpcore.training.run import Run
    from bpcore.training.trainer import Trainer

__all__ = ["Callback", "CallbackLike", "as_callback"]


class Callback:
    """Base of callbacks; override what is needed. A plain function ``f(net, progress)`` serves as ``on_epoch``.

    Attributes
    ----------
    every_steps : int or None
        At multiples of how many steps of :func:`bpcore.train` :meth:`on_steps` runs; None (default) for never, which
        costs nothing.

    Examples
    --------
    >>> class Norms(Callback):
    ...     def on_epoch(self, net, progress):
    ...         print(progress.epoch, sorted(progress.row))
    """

    every_steps: int | None = None

    def on_data(self, trainer: Trainer, problem: Problem) -> None:
        """Run before :meth:`on_start`, with what trains and the checked data where it is; only look at them."""

    def on_start(self, net: MLP) -> None:
        """Run before the first step."""

    def on_steps(self, net: MLP, progress: Progress) -> bool | None:
        """Run after each multiple of :attr:`every_steps` steps, also inside an epoch; return True to stop."""
        return None

    def on_epoch(self, net: MLP, progress: Progress) -> bool | None:
        """Run after an epoch, with its row in ``progress.row``; return True to stop the training."""
        return None

    def on_end(self, run: Run) -> None:
        """Run once after the last step, whatever ended the training (except an error)."""


CallbackLike = Callback | Callable[[MLP, Progress], bool | None]


class _Function(Callback):
    def __init__(self, function: Callable[[MLP, Progress], bool | None]) -> None:
        self.function = function

    def on_epoch(self, net: MLP, progress: Progress) -> bool | None:
        """Call the function."""
        return self.function(net, progress)


def as_callback(callback: CallbackLike) -> Callback:
    """Turn a function into a callback.

    Raises
    ------
    ConfigurationError
        If it is neither a callback nor callable.
    """
    if isinstance(callback, Callback):
        return callback
    if not callable(callback):
        raise ConfigurationError(f"callback {callback!r} is neither a bp.Callback nor a function f(net, progress)")
    return _Function(callback)
