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
from bpcore.layout import ByLayer, ParameterLayout
from bpcore.typing import Array, DType

if TYPE_CHECKING:
    from bpcore.network import MLP

__all__ = [
    "Gradients",
    "Trace",
    "activate",
    "backward_into",
    "bp1_output_delta",
    "bp2_hidden_delta",
    "bp3_bias_grad",
    "bp4_weight_grad",
    "forward_into",
    "loss_value",
]

# ------------------------------------------------------------------------------------------ the equations


def forward_into(be: Backend, net: MLP, trace: Trace) -> None:
    """Forward: ``Z[l+1] = H[l] @ W[l] + b[l]`` and ``H[l+1] = act(Z[l+1])``, from ``trace.H[1]`` on."""
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
    next to any other loss goes through its Jacobian.
    """
    _run(be, _bp1_program(loss, activation), out, z=Z, h=H, y=Y, scale=scale)
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
    """BP2, error of a layer from the next one: ``Delta[l] = (Delta[l+1] @ W[l].T) * act'(Z[l])``."""
    be.matmul(Delta_next, W, out=out, transpose_b=True)
    if activation.rowwise:
        if mask is not None:
            be.elementwise(_DROP, out=out, h=out, mask=mask)
        (be.backprop_softmax if activation.rowwise == "softmax" else be.backprop_log_softmax)(out, H, out=out)
        return out
    program = _bp2_program(activation, mask is not None)
    return _run(be, program, out, delta=out, z=Z, h=H, mask=mask)


def bp3_bias_grad(be: Backend, Delta_next: Array, out: Array) -> Array:
    """BP3, gradient of the biases: ``db[l] = column sums of Delta[l+1]``."""
    return be.column_sums(Delta_next, out=out)


def bp4_weight_grad(be: Backend, H: Array, Delta_next: Array, out: Array) -> Array:
    """BP4, gradient of the weights: ``dW[l] = H[l].T @ Delta[l+1]``."""
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
    _run(be, _loss_program(loss, activation), terms, z=Z, h=H, y=Y, scale=scale, logh=terms)
    return terms if out is None else be.total(terms, out=out)


def sample_scale(loss: Loss, n_outputs: int) -> float:
    """The factor s of a loss: one over the number of outputs when it is a mean over them, else 1."""
    return 1.0 / n_outputs if loss.reduce == "mean" else 1.0


# ------------------------------------------------------------------------------------------ element-wise programs


def _run(be: Backend, program: Program, out: Array, **values: Array | float | None) -> Array:
    """Run a program that needs only some of the values."""
    return be.elementwise(program, out=out, **{name: values[name] for name in program.inputs})  # type: ignore[arg-type]


_DROP = Program("h = h * mask", name="dropout")
_ADD_BIAS = Program("z = z + b", name="bias")


@lru_cache(maxsize=256)
def _forward_program(activation: Activation) -> Program:
    value = activation.value_formula
    return Program({"z": "z + b", "h": value}, name=f"forward {activation.name}")


@lru_cache(maxsize=256)
def _bp1_program(loss: Loss, activation: Activation) -> Program:
    pair = loss.pair_with(activation)
    if pair is not None:
        delta = f"scale * ({pair.delta})"
    else:
        dE_dH = loss.derivative_formula.substitute(a="h")
        delta = f"scale * ({dE_dH})"
        if not activation.rowwise:
            delta += f" * ({activation.derivative_formula})"
    return Program({"delta": delta}, name=f"BP1 {loss.name} {activation.name}")


@lru_cache(maxsize=256)
def _bp2_program(activation: Activation, dropped: bool) -> Program:
    delta = (
        f"delta * mask * ({activation.derivative_formula})" if dropped else f"delta * ({activation.derivative_formula})"
    )
    return Program({"delta": delta}, name=f"BP2 {activation.name}")


@lru_cache(maxsize=256)
def _loss_program(loss: Loss, activation: Activation) -> Program:
    pair = loss.pair_with(activation)
    value = pair.value if pair is not None else str(loss.value_formula.substitute(a="h"))
    return Program({"terms": f"scale * ({value})"}, name=f"loss {loss.name} {activation.name}")


# ------------------------------------------------------------------------------------------ memory


class Trace:
    """What the forward pass leaves behind, for up to m samples.

    Attributes
    ----------
    H : ByLayer of Array
        Activations, H[1] = X (m, n_1) up to H[L].
    Z : ByLayer of Array
        Pre-activations Z[2] ... Z[L].
    masks : ByLayer of (Array or None)
        Dropout masks of the layers 1 ... L, (n_l,) or (m, n_l), holding 0 or 1 / (1 - rate).
    passed : ByLayer of Array
        What each layer hands on: ``H[l]``, times the mask where there is one.
    """

    __slots__ = ("H", "Z", "masks", "passed")

    def __init__(
        self, H: ByLayer[Array], Z: ByLayer[Array], masks: ByLayer[Array | None], passed: ByLayer[Array]
    ) -> None:
        self.H, self.Z, self.masks, self.passed = H, Z, masks, passed

    @classmethod
    def allocate(
        cls,
        be: Backend,
        sizes: tuple[int, ...],
        m: int,
        dtype: DType,
        mask_shapes: dict[int, tuple[int, ...]] | None = None,
        X: Array | None = None,
    ) -> Trace:
        """Make room for m samples; with X given, H[1] is X itself."""
        shapes = mask_shapes or {}
        H = [be.empty((m, n), dtype) for n in sizes[1:]]
        H.insert(0, be.empty((m, sizes[0]), dtype) if X is None else X)
        layers = range(1, len(sizes) + 1)
        masks = [be.empty(shapes[l], dtype) if l in shapes else None for l in layers]
        passed = [be.empty((m, sizes[l - 1]), dtype) if l in shapes else H[l - 1] for l in layers]
        Z = [be.empty((m, n), dtype) for n in sizes[1:]]
        return cls(ByLayer(H, 1), ByLayer(Z, 2), ByLayer(masks, 1), ByLayer(passed, 1))

    def rows(self, m: int) -> Trace:
        """The same memory for the first m samples only."""
        masks = [mask if mask is None or mask.ndim == 1 else mask[:m] for mask in self.masks]
        H = [h[:m] for h in self.H]
        passed = [h if whole is given else given[:m] for h, whole, given in zip(H, self.H, self.passed, strict=True)]
        return Trace(ByLayer(H, 1), ByLayer([z[:m] for z in self.Z], 2), ByLayer(masks, 1), ByLayer(passed, 1))


class Gradients:
    """Errors and gradients of one backward pass.

    Attributes
    ----------
    Delta : ByLayer of Array
        Errors Delta[2] ... Delta[L], (m, n_l).
    dW, db : ByLayer of Array
        Gradients of W[1] ... W[L-1] and b[1] ... b[L-1]; views into ``flat``.
    flat : Array
        The gradient of theta, in the layout of the network.
    dX : Array or None
        Gradient by the input, when asked for.
    """

    __slots__ = ("Delta", "dW", "dX", "db", "flat")

    def __init__(
        self, Delta: ByLayer[Array], dW: ByLayer[Array], db: ByLayer[Array], flat: Array, dX: Array | None
    ) -> None:
        self.Delta, self.dW, self.db, self.flat, self.dX = Delta, dW, db, flat, dX

    @classmethod
    def allocate(
        cls,
        be: Backend,
        sizes: tuple[int, ...],
        layout: ParameterLayout,
        m: int,
        dtype: DType,
        input_grad: bool = False,
    ) -> Gradients:
        """Make room for m samples."""
        flat = be.zeros(layout.size, dtype)
        Delta = ByLayer([be.empty((m, n), dtype) for n in sizes[1:]], first=2)
        dX = be.empty((m, sizes[0]), dtype) if input_grad else None
        return cls(Delta, layout.views(flat, "W"), layout.views(flat, "b"), flat, dX)

    def rows(self, m: int) -> Gradients:
        """The same memory for the first m samples only."""
        Delta = ByLayer([delta[:m] for delta in self.Delta], first=2)
        return Gradients(Delta, self.dW, self.db, self.flat, None if self.dX is None else self.dX[:m])


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
