"""Networks that predict, samples for them, and what their outputs have to be."""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from tests.helpers.compare import assert_close

__all__ = ["NETS", "begin", "check", "exact", "judge", "make", "samples"]


def exact(net: bp.MLP, X: Any) -> Any:
    """Return H[L] in float64, from the declared formulas."""
    H = np.asarray(X, np.float64)
    for l, (W, b) in enumerate(net.get_weights(), start=1):
        Z = H @ W.astype(np.float64) + b
        f = net.activations[l + 1]
        if f.rowwise:
            shifted = Z - Z.max(axis=1, keepdims=True)
            H = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            H = np.exp(H) if f.rowwise == "softmax" else H
        else:
            H = f.value_formula(z=Z)
    return H


# sizes, hidden activations, output
NETS: dict[str, tuple[list[int], Any, str]] = {
    "narrow": ([7, 5, 3], "tanh", "softmax"),
    "one layer": ([9, 4], "relu", "log_softmax"),
    "rows inside": ([5, 33, 6, 2], ["softmax", "log_softmax"], "identity"),
    "wide rows": ([6, 70, 130], ["log_softmax"], "softmax"),
    "wider rows than a warp": ([3, 600], "relu", "softmax"),
    "tiles": ([131, 67, 70, 1], ["gelu", "relu"], "sigmoid"),
}


def make(be: Any, name: str, dtype: Any = "float64") -> bp.MLP:
    return begin(be, *NETS[name], dtype=dtype)


def begin(be: Any, sizes: list[int], hidden: Any, output: str, dtype: Any = "float64") -> bp.MLP:
    """Return a network whose biases are not 0."""
    net, rng = bp.MLP(sizes, hidden, output, seed=1, dtype=dtype, backend=be), np.random.default_rng(9)
    return net.set_weights([(W, rng.normal(size=b.shape)) for W, b in net.get_weights()])


def samples(net: bp.MLP, m: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(m, net.sizes[0])).astype(net.dtype)


def judge(net: bp.MLP, X: Any, found: Any) -> None:
    """Compare outputs with float64."""
    expected = exact(net, X)
    # sums of as many terms as the layers have; a log-softmax subtracts numbers of the size of its input
    scale = np.maximum(np.abs(expected), 1.0)
    assert_close(found, expected, dtype=net.dtype, length=2 * sum(net.sizes), scale=scale)


def check(net: bp.MLP, X: Any) -> None:
    """Predict samples, and compare."""
    judge(net, X, net.predict(X))
