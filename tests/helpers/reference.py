"""Networks in float64 NumPy, written for the eye: the reference that the engine is judged by.

Nothing here comes from bpcore. Activations and losses are written out with SciPy's special functions, every layer
has its full Jacobian (samples, outputs, inputs), no product is cancelled, and the mean over samples is taken once,
at the loss. Differences of the loss are a second, still simpler, reference for the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Matrix = NDArray[np.float64]
Weights = list[tuple[Matrix, Matrix]]

__all__ = ["LANGUAGE", "LOSS_TARGETS", "Reference", "differences", "targets_for"]

LANGUAGE: dict[str, Callable[[Matrix], Matrix]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": special.erf,
    "erfc": special.erfc,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0, x),
}
"""Functions of one number in the formula language."""

PHI = np.sqrt(2 / np.pi)
SELU = 1.0507009873554805, 1.6732632423543772


def _gelu_tanh_slope(z: Matrix) -> Matrix:
    t = np.tanh(PHI * (z + 0.044715 * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * PHI * (1 + 3 * 0.044715 * z**2)


def _mish_slope(z: Matrix) -> Matrix:
    t = np.tanh(np.log1p(np.exp(z)))
    return t + z * (1 - t**2) / (1 + np.exp(-z))


# name: (value, slope), of one number
ELEMENTWISE: dict[str, tuple[Callable[[Matrix], Matrix], Callable[[Matrix], Matrix]]] = {
    "identity": (lambda z: z * 1.0, lambda z: np.ones_like(z)),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, np.exp(z) - 1), lambda z: np.where(z > 0, 1.0, np.exp(z))),
    "selu": (
        lambda z: SELU[0] * np.where(z > 0, z, SELU[1] * (np.exp(z) - 1)),
        lambda z: SELU[0] * np.where(z > 0, 1.0, SELU[1] * np.exp(z)),
    ),
    "gelu": (
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "gelu_tanh": (lambda z: 0.5 * z * (1 + np.tanh(PHI * (z + 0.044715 * z**3))), _gelu_tanh_slope),
    "silu": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) * (1 + z * (1 - special.expit(z))),
    ),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
    "mish": (lambda z: z * np.tanh(np.logaddexp(0, z)), _mish_slope),
    "hard_sigmoid": (
        lambda z: np.minimum(1, np.maximum(0, z / 6 + 0.5)),
        lambda z: np.where((z > -3) & (z < 3), 1 / 6, 0.0),
    ),
    "hard_tanh": (
        lambda z: np.minimum(1, np.maximum(-1, z)),
        lambda z: np.where((z > -1) & (z < 1), 1.0, 0.0),
    ),
}

# name: (value, slope by a, divided by the number of outputs?)
LOSSES: dict[str, tuple[Callable[[Matrix, Matrix], Any], Callable[[Matrix, Matrix], Any], bool]] = {
    "quadratic": (lambda a, y: (a - y) ** 2 / 2, lambda a, y: a - y, False),
    "mse": (lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), True),
    "absolute": (lambda a, y: np.abs(a - y), lambda a, y: np.where(a > y, 1.0, -1.0), True),
    "huber": (
        lambda a, y: np.where(np.abs(a - y) < 1, (a - y) ** 2 / 2, np.abs(a - y) - 0.5),
        lambda a, y: np.where(np.abs(a - y) < 1, a - y, np.sign(a - y)),
        True,
    ),
    "binary_cross_entropy": (
        lambda a, y: -special.xlogy(y, a) - special.xlogy(1 - y, 1 - a),
        lambda a, y: (a - y) / (a * (1 - a)),
        True,
    ),
    "binary_cross_entropy_logits": (
        lambda a, y: -special.xlogy(y, special.expit(a)) - special.xlogy(1 - y, special.expit(-a)),
        lambda a, y: special.expit(a) - y,
        True,
    ),
    "cross_entropy": (lambda a, y: -special.xlogy(y, a), lambda a, y: -y / a, False),
    "hinge": (lambda a, y: np.where(y * a < 1, 1 - y * a, 0.0), lambda a, y: np.where(y * a < 1, -y, 0.0), False),
    "exponential": (lambda a, y: np.exp(-y * a), lambda a, y: -y * np.exp(-y * a), False),
}

LOSS_TARGETS = {
    "quadratic": "real",
    "mse": "real",
    "absolute": "real",
    "huber": "real",
    "binary_cross_entropy": "probability",
    "binary_cross_entropy_logits": "probability",
    "cross_entropy": "distribution",
    "hinge": "sign",
    "exponential": "sign",
}


def targets_for(loss: str, rng: np.random.Generator, m: int, n: int) -> Matrix:
    """Random targets of the kind that a loss takes, away from the corners of their range."""
    kind = LOSS_TARGETS[loss]
    if kind == "real":
        return rng.normal(size=(m, n))
    if kind == "probability":
        return rng.uniform(0.05, 0.95, size=(m, n))
    if kind == "distribution":
        return rng.dirichlet(np.ones(n), size=m)
    return rng.choice([-1.0, 1.0], size=(m, n))


@dataclass
class Reference:
    """A network as a list of (W, b) with the names of its activations and loss."""

    weights: Weights
    activations: Sequence[str]
    loss: str

    def forward(self, X: Matrix) -> tuple[list[Matrix], list[Matrix]]:
        """Z[2] ... Z[L] and H[1] ... H[L], as plain lists."""
        Z, H = [], [np.asarray(X, np.float64)]
        for (W, b), name in zip(self.weights, self.activations, strict=True):
            Z.append(np.einsum("mi,ij->mj", H[-1], W) + b)
            H.append(_value(name, Z[-1]))
        return Z, H

    def losses(self, X: Matrix, Y: Matrix) -> Matrix:
        """Loss of every sample."""
        value, _, mean = LOSSES[self.loss]
        terms = value(self._prediction(self.forward(X)[1][-1]), Y)
        return terms.mean(axis=1) if mean else terms.sum(axis=1)

    def value(self, X: Matrix, Y: Matrix, w: Matrix | None = None) -> float:
        """Weighted mean of the losses."""
        return float(np.average(self.losses(X, Y), weights=w))

    def gradients(self, X: Matrix, Y: Matrix, w: Matrix | None = None) -> tuple[Weights, Matrix]:
        """(dW, db) of every layer, and dX, by the chain rule with full Jacobians."""
        Z, H = self.forward(X)
        m, n = H[-1].shape
        _, slope, mean = LOSSES[self.loss]
        c = np.full(m, 1 / m) if w is None else np.asarray(w) / np.sum(w)
        G = slope(self._prediction(H[-1]), Y) * c[:, None] / (n if mean else 1)
        if self.loss == "cross_entropy" and self.activations[-1] == "log_softmax":
            G = -Y * c[:, None]
        grads: Weights = []
        for l in reversed(range(len(Z))):
            Delta = np.einsum("mi,mij->mj", G, _jacobian(self.activations[l], Z[l]))
            grads.insert(0, (np.einsum("mi,mj->ij", H[l], Delta), Delta.sum(axis=0)))
            G = np.einsum("mj,ij->mi", Delta, self.weights[l][0])
        return grads, G

    def _prediction(self, H: Matrix) -> Matrix:
        # the one loss that takes logarithms of probabilities where the output gives them
        logarithms = self.loss == "cross_entropy" and self.activations[-1] == "log_softmax"
        return np.exp(H) if logarithms else H


def _value(name: str, Z: Matrix) -> Matrix:
    if name == "softmax":
        return special.softmax(Z, axis=1)
    if name == "log_softmax":
        return special.log_softmax(Z, axis=1)
    return ELEMENTWISE[name][0](Z)


def _jacobian(name: str, Z: Matrix) -> Matrix:
    """dH/dZ of every sample, shape (m, n, n)."""
    n = Z.shape[1]
    if name in ("softmax", "log_softmax"):
        P = special.softmax(Z, axis=1)
        shift = np.eye(n) - P[:, None, :]
        return P[:, :, None] * shift if name == "softmax" else shift
    return np.eye(n) * ELEMENTWISE[name][1](Z)[:, None, :]


def differences(f: Callable[[], Any], array: Matrix) -> Matrix:
    """Central differences of a number by every element of an array, which is changed and restored."""
    slopes = np.empty_like(array)
    for i in np.ndindex(array.shape):
        x = array[i]
        # where the errors of truncation (h**2) and of rounding (eps / h) meet
        h = np.cbrt(np.finfo(np.float64).eps) * max(1.0, abs(x))
        array[i] = x + h
        right = f()
        array[i] = x - h
        left = f()
        array[i] = x
        slopes[i] = (right - left) / (2 * h)
    return slopes
