"""Forward propagation and the four equations of backpropagation.

This file is the reference path: it runs on every backend, and every faster plan is compared with it. Samples are
rows. ``Delta[l]`` is the derivative of the loss E by ``Z[l]``; everything that makes E a mean (one over the number of
samples, sample weights, the mean over outputs) enters in BP1 and nowhere else, so BP3 and BP4 are plain sums.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.functions.activations import Activation
from bpcore.functions.losses import Loss
from bpcore.functions.program import Program
from bpcore.typing import Array
from bpcore.workspace import Gradients, Trace

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = [
    "activate",
    "backward_into",
    "bp1_output_delta",
    "bp1_program",
    "bp2_hidden_delta",
    "bp2_program",
    "bp3_bias_grad",
    "bp4_weight_grad",
    "forward_into",
    "loss_program",
    "loss_value",
    "row_weights",
    "sample_scale",
    "scale_column",
]

# ------------------------------------------------------------------------------------------ the equations


def forward_into(be: Backend, net: MLP, trace: Trace) -> None:
    """Forward: ``Z[l+1] = H[l] @ W[l] + b[l]`` and ``H[l+1] = act(Z[l+1])``, from ``trace.H[1]`` on.

    Explained at equation :eq:`eq-forward`.
    """
    for l in range(1, net.n_layers):
        be.matmul(trace.passed[l], net.W[l], out=trace.Z[l + 1])
        activate(be, net.activations[l + 1], trace.Z[l + 1], net.b[l], out=trace.H[l + 1])
        if trace.masks[l + 1] is not None:
            be.elementwise(_DROP, out=trace.passed[l + 1], h=trace.H[l + 1], mask=trace.masks[l + 1])


def bp1_output_delta(
    be: Backend, loss: Loss, activation: Activation, Z: Array, H: Array, Y: Array, scale: Array | float, out: Array
) -> Array:
    """BP1, error of the output layer: ``Delta[L] = scale * dE/dH[L] * act'(Z[L])``.

    A declared pair of loss and activation (softmax with cross-entropy, for example) is ``scale * (H - Y)``. Softmax
    next to any other loss goes through its Jacobian. Explained at equation :eq:`eq-bp1`.
    """
    _run(be, bp1_program(loss, activation, not isinstance(scale, float)), out, z=Z, h=H, y=Y, scale=scale)
    if activation.rowwise and loss.pair_with(activation) is None:
        (be.backprop_softmax if activation.rowwise == "softmax" else be.backprop_log_softmax)(out, H, out=out)
    return out


def bp2_hidden_delta(
    be: Backend,
    Delta_next: Array,
    W: Array,
    activation: Activation,
    Z: Array,
    H: Array,
    out: Array,
    mask: Array | None = None,
) -> Array:
    """BP2, error of a layer from the next one: ``Delta[l] = (Delta[l+1] @ W[l].T) * act'(Z[l])``.

    Explained at equation :eq:`eq-bp2`.
    """
    be.matmul(Delta_next, W, out=out, transpose_b=True)
    if activation.rowwise:
        if mask is not None:
            be.elementwise(_DROP, out=out, h=out, mask=mask)
        (be.backprop_softmax if activation.rowwise == "softmax" else be.backprop_log_softmax)(out, H, out=out)
        return out
    program = bp2_program(activation, mask is not None)
    return _run(be, program, out, delta=out, z=Z, h=H, mask=mask)


def bp3_bias_grad(be: Backend, Delta_next: Array, out: Array) -> Array:
    """BP3, gradient of the biases: ``db[l] = column sums of Delta[l+1]``.

    Explained at equation :eq:`eq-bp3`.
    """
    return be.column_sums(Delta_next, out=out)


def bp4_weight_grad(be: Backend, H: Array, Delta_next: Array, out: Array) -> Array:
    """BP4, gradient of the weights: ``dW[l] = H[l].T @ Delta[l+1]``.

    Explained at equation :eq:`eq-bp4`.
    """
    return be.matmul(H, Delta_next, out=out, transpose_a=True)


def backward_into(
    be: Backend, net: MLP, loss: Loss, trace: Trace, Y: Array, scale: Array | float, grads: Gradients
) -> None:
    """Backward: BP1 at the output, then BP3, BP4 and BP2 from the last layer to the first."""
    L, Z, H, Delta = net.n_layers, trace.Z, trace.H, grads.Delta
    bp1_output_delta(be, loss, net.activations[L], Z[L], H[L], Y, scale, out=Delta[L])
    for l in range(L - 1, 0, -1):
        bp3_bias_grad(be, Delta[l + 1], out=grads.db[l])
        bp4_weight_grad(be, trace.passed[l], Delta[l + 1], out=grads.dW[l])
        if l > 1:
            bp2_hidden_delta(
                be, Delta[l + 1], net.W[l], net.activations[l], Z[l], H[l], out=Delta[l], mask=trace.masks[l]
            )
        elif grads.dX is not None:
            be.matmul(Delta[2], net.W[1], out=grads.dX, transpose_b=True)


# ------------------------------------------------------------------------------------------ values


def activate(be: Backend, activation: Activation, Z: Array, b: Array, out: Array) -> Array:
    """Add the bias in place and apply the activation: ``Z += b; out = act(Z)``."""
    if activation.rowwise:
        be.elementwise(_ADD_BIAS, out=Z, z=Z, b=b)
        return (be.softmax if activation.rowwise == "softmax" else be.log_softmax)(Z, out=out)
    be.elementwise(_forward_program(activation), out=(Z, out), z=Z, b=b)
    return out


def loss_value(
    be: Backend,
    loss: Loss,
    activation: Activation,
    Z: Array,
    H: Array,
    Y: Array,
    scale: Array | float,
    terms: Array,
    out: Array | None,
) -> Array:
    """Loss of a batch, ``E = sum over samples and outputs of scale * e(h, y)``.

    Parameters
    ----------
    be, loss, activation
        Backend, loss and output activation.
    Z, H, Y : Array, shape (m, n)
        Pre-activations, outputs and targets.
    scale : Array (m, 1) or float
        The weight of each sample, as in BP1.
    terms : Array, shape (m, n)
        Receives the weighted loss of every output.
    out : Array, shape (1,), float64, or None
        Receives E; None to compute the terms only.

    Returns
    -------
    Array
        ``terms`` when out is None, else ``out``.
    """
    pair = loss.pair_with(activation)
    if pair is not None and "logh" in pair.value:
        be.log_softmax(Z, out=terms)
    _run(
        be, loss_program(loss, activation, not isinstance(scale, float)), terms, z=Z, h=H, y=Y, scale=scale, logh=terms
    )
    return terms if out is None else be.total(terms, out=out)


def sample_scale(loss: Loss, n_outputs: int) -> float:
    """The factor s of a loss: one over the number of outputs when it is a mean over them, else 1."""
    return 1.0 / n_outputs if loss.reduce == "mean" else 1.0


# ------------------------------------------------------------------------------------------ element-wise programs


def _run(be: Backend, program: Program, out: Array, **values: Array | float | None) -> Array:
    """Run a program that needs only some of the values."""
    return be.elementwise(program, out=out, **{name: values[name] for name in program.inputs})


_DROP = Program("h = h * mask", name="dropout")
_ADD_BIAS = Program("z = z + b", name="bias")


@lru_cache(maxsize=256)
def _forward_program(activation: Activation) -> Program:
    value = activation.value_formula
    return Program({"z": "z + b", "h": value}, name=f"forward {activation.name}")


@lru_cache(maxsize=256)
def bp1_program(loss: Loss, activation: Activation, weighted: bool) -> Program:
    """BP1 as a program of z, h, y and scale; without the Jacobian of a row-wise output."""
    pair = loss.pair_with(activation)
    if pair is not None:
        delta = pair.delta
    else:
        delta = str(loss.derivative_formula.substitute(a="h"))
        if not activation.rowwise:
            delta = f"({delta}) * ({activation.derivative_formula})"
    return Program({"delta": _scaled(delta, weighted)}, name=f"BP1 {loss.name} {activation.name}")


def _scaled(formula: str, weighted: bool) -> str:
    """Multiply by the scale; a row of weight 0 is absent, also where its value is infinite."""
    return f"where(scale == 0, 0, scale * ({formula}))" if weighted else f"scale * ({formula})"


@lru_cache(maxsize=256)
def bp2_program(activation: Activation, dropped: bool) -> Program:
    """BP2 after its matrix product, as a program of delta, z, h and, with dropout, mask."""
    delta = (
        f"delta * mask * ({activation.derivative_formula})" if dropped else f"delta * ({activation.derivative_formula})"
    )
    return Program({"delta": delta}, name=f"BP2 {activation.name}")


@lru_cache(maxsize=256)
def loss_program(loss: Loss, activation: Activation, weighted: bool) -> Program:
    """The weighted loss of every output, as a program of z, h, logh, y and scale."""
    pair = loss.pair_with(activation)
    value = pair.value if pair is not None else str(loss.value_formula.substitute(a="h"))
    return Program({"terms": _scaled(value, weighted)}, name=f"loss {loss.name} {activation.name}")


# ------------------------------------------------------------------------------------------ sample weights


def row_weights(be: Backend, loss: Loss, n_outputs: int, m: int, weights: Array | None) -> Array | float:
    """The scale of BP1 for a whole data set: ``s / m``, or ``s * w / sum(w)`` as a column."""
    s = sample_scale(loss, n_outputs)
    if weights is None:
        return s / m
    total = be.total(weights, out=be.empty(1, np.float64))
    return scale_column(be, weights, total, s, out=be.empty((m, 1), weights.dtype))


def scale_column(be: Backend, weights: Array, total: Array, s: float, out: Array) -> Array:
    """Write ``s * w / total`` as a column; zeros where all weights are zero."""
    small = be.copy(total, out=be.empty(1, weights.dtype)) if total.dtype != weights.dtype else total
    be.elementwise(_SCALE, out=out, w=weights.reshape(-1, 1), total=small, s=s)
    return out


_SCALE = Program("scale = where(total > 0, s * w / total, 0)", name="sample weights")
