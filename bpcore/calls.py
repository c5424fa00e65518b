"""The equations as functions for users: checked inputs, fresh arrays, one call each.

The engine in :mod:`bpcore.backprop` writes into memory that it is given; these wrappers check what comes in, allocate,
and return. ``forward`` and ``backward`` are what a training step does, without the update.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.backprop import backward_into, forward_into, loss_value, row_weights, sample_scale
from bpcore.errors import ShapeError
from bpcore.functions.losses import Loss
from bpcore.inputs import bring_inputs
from bpcore.network import MLP
from bpcore.problem import Problem, choose_loss
from bpcore.typing import Array
from bpcore.workspace import Gradients, Trace

__all__ = ["backward", "forward", "sample_losses"]


@np.errstate(all="ignore")
def forward(net: MLP, X: Any, *, backend: str | Backend | None = None) -> Trace:
    """Propagate a batch through the network and keep everything.

    Parameters
    ----------
    net : MLP
        The network.
    X : array_like, shape (m, n_1)
        Samples as rows.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.

    Returns
    -------
    Trace
        ``Z[l]`` for l = 2 ... L and ``H[l]`` for l = 1 ... L, on the backend's device.

    Raises
    ------
    ShapeError, DataError
        If X does not fit the network.

    Examples
    --------
    >>> import bpcore as bp
    >>> net = bp.MLP([2, 1], output="identity", init="zeros", dtype="float64")
    >>> bp.forward(net, [[1.0, 2.0]]).H[2]
    array([[0.]])
    """
    be = net.on(backend)
    X = bring_inputs(X, be, net.sizes[0], net.dtype)
    trace = Trace.allocate(be, net.sizes, X.shape[0], net.dtype, X=X)
    forward_into(be, net, trace)
    return trace


@np.errstate(all="ignore")
def backward(
    net: MLP,
    trace: Trace,
    Y: Any,
    loss: str | Loss | None = None,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> Gradients:
    """Compute the errors and gradients of a batch that went through :func:`forward`.

    Parameters
    ----------
    net : MLP
        The network, unchanged since.
    trace : Trace
        What :func:`forward` returned.
    Y : array_like, shape (m,) or (m, n_L)
        Labels or target values.
    loss : str or Loss, optional
        The loss; by default the one that goes with the output activation.
    sample_weight, class_weight : optional
        As for :func:`bpcore.train`.

    Returns
    -------
    Gradients
        ``Delta[l]``, ``dW[l]``, ``db[l]`` and ``dX``, of the mean loss over the batch.

    Raises
    ------
    ShapeError, DataError
        If Y does not fit.
    ConfigurationError
        If the loss does not go with the output activation, or an activation has no derivative.

    Examples
    --------
    >>> import bpcore as bp
    >>> net = bp.MLP([2, 1], output="identity", init="zeros", dtype="float64")
    >>> grads = bp.backward(net, bp.forward(net, [[1.0, 2.0]]), [[3.0]], loss="quadratic")
    >>> grads.dW[1].ravel(), grads.db[1], grads.dX
    (array([-3., -6.]), array([-3.]), array([[0., 0.]]))
    """
    be = net.backend
    if not be.owns(trace.H[1]):
        raise ShapeError(f"the trace is not on {be!r}, where the network is now; call forward again")
    chosen = choose_loss(net, loss)
    problem = Problem.prepare(net, be, trace.H[1], Y, chosen, sample_weight=sample_weight, class_weight=class_weight)
    grads = Gradients.allocate(be, net.sizes, net.layout, problem.m, net.dtype, input_grad=True)
    scale = row_weights(be, chosen, net.sizes[-1], problem.m, problem.weights)
    backward_into(be, net, chosen, trace, problem.Y, scale, grads)
    return grads


@np.errstate(all="ignore")
def sample_losses(
    net: MLP, X: Any, Y: Any, loss: str | Loss | None = None, *, backend: str | Backend | None = None
) -> Array:
    """Compute the loss of every sample by itself: the reduction "none".

    Parameters
    ----------
    net : MLP
        The network.
    X : array_like, shape (m, n_1)
        Inputs.
    Y : array_like, shape (m,) or (m, n_L)
        Labels or target values.
    loss : str or Loss, optional
        The loss; by default the one that goes with the output activation.
    backend : str or Backend, optional
        Where to compute; see :meth:`bpcore.MLP.on`.

    Returns
    -------
    Array, shape (m,)
        Losses; their mean is what :meth:`bpcore.MLP.evaluate` reports.
    """
    be = net.on(backend)
    chosen = choose_loss(net, loss)
    trace = forward(net, X)
    problem = Problem.prepare(net, be, trace.H[1], Y, chosen)
    L = net.n_layers
    terms = be.empty((problem.m, net.sizes[-1]), net.dtype)
    s = sample_scale(chosen, net.sizes[-1])
    loss_value(be, chosen, net.output, trace.Z[L], trace.H[L], problem.Y, s, terms, out=None)
    ones = be.fill(be.empty((net.sizes[-1], 1), net.dtype), 1.0)
    return be.matmul(terms, ones, out=be.empty((problem.m, 1), net.dtype)).reshape(-1)
