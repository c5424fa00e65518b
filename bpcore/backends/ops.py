"""The table of operations: shapes, costs and references, each stated once.

Conformance tests, benchmarks and the documentation read this table. Letters name sizes: m rows, n columns, k the
inner size of a product, p elements. FLOPs count additions, multiplications, comparisons and function calls as one
each; bytes count what must be read and written at least once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["OPS", "Op"]

Sizes = dict[str, int]


@dataclass(frozen=True)
class Op:
    """One operation of :class:`bpcore.backends.contract.Backend`.

    Attributes
    ----------
    signature : str
        Shapes of the operands and of the result, in letters.
    flops : callable
        Number of operations as a function of the sizes.
    elements : callable
        Number of array elements read and written; times the item size these are the bytes.
    reduction : callable
        Length of the longest sum, from which the tolerance of a comparison follows.
    reference : callable
        The result in float64 NumPy, written for the eye.
    """

    signature: str
    flops: Callable[[Sizes], int]
    elements: Callable[[Sizes], int]
    reduction: Callable[[Sizes], int]
    reference: Callable[..., Any]


def _softmax(Z: Any) -> Any:
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def _row_hits(H: Any, labels: Any, threshold: float) -> Any:
    guess = (H[:, 0] > threshold).astype(np.int64) if H.shape[1] == 1 else H.argmax(axis=1)
    return np.where(np.isnan(H).any(axis=1), False, guess == labels).astype(np.float64)


def _area(s: Sizes) -> int:
    return s["m"] * s["n"]


OPS: dict[str, Op] = {
    "matmul": Op(
        "(m,k), (k,n) -> (m,n)",
        flops=lambda s: 2 * s["m"] * s["k"] * s["n"],
        elements=lambda s: s["m"] * s["k"] + s["k"] * s["n"] + s["m"] * s["n"],
        reduction=lambda s: s["k"],
        reference=lambda A, B: A @ B,
    ),
    "column_sums": Op(
        "(m,n) -> (n,)",
        flops=_area,
        elements=lambda s: _area(s) + s["n"],
        reduction=lambda s: s["m"],
        reference=lambda A: A.sum(axis=0),
    ),
    "total": Op(
        "(m,n) -> (1,)",
        flops=_area,
        elements=_area,
        reduction=lambda s: 1,  # accumulated in float64
        reference=lambda A: A.sum(keepdims=True).reshape(1),
    ),
    "sum_squares": Op(
        "(m,n) -> (1,)",
        flops=lambda s: 2 * _area(s),
        elements=_area,
        reduction=lambda s: 1,
        reference=lambda A: (A * A).sum(keepdims=True).reshape(1),
    ),
    "softmax": Op(
        "(m,n) -> (m,n)",
        flops=lambda s: 5 * _area(s),
        elements=lambda s: 2 * _area(s),
        reduction=lambda s: s["n"],
        reference=_softmax,
    ),
    "log_softmax": Op(
        "(m,n) -> (m,n)",
        flops=lambda s: 5 * _area(s),
        elements=lambda s: 2 * _area(s),
        reduction=lambda s: s["n"],
        reference=lambda Z: np.log(_softmax(Z)),
    ),
    "backprop_softmax": Op(
        "(m,n), (m,n) -> (m,n)",
        flops=lambda s: 4 * _area(s),
        elements=lambda s: 3 * _area(s),
        reduction=lambda s: s["n"],
        reference=lambda G, H: H * (G - (G * H).sum(axis=1, keepdims=True)),
    ),
    "backprop_log_softmax": Op(
        "(m,n), (m,n) -> (m,n)",
        flops=lambda s: 4 * _area(s),
        elements=lambda s: 3 * _area(s),
        reduction=lambda s: s["n"],
        reference=lambda G, H: G - np.exp(H) * G.sum(axis=1, keepdims=True),
    ),
    "take_rows": Op(
        "(p,n), (m,) -> (m,n)",
        flops=lambda s: 0,
        elements=lambda s: 2 * _area(s) + s["m"],
        reduction=lambda s: 1,
        reference=lambda X, index: X[index],
    ),
    "row_hits": Op(
        "(m,n), (m,) -> (m,)",
        flops=_area,
        elements=lambda s: _area(s) + 2 * s["m"],
        reduction=lambda s: 1,
        reference=_row_hits,
    ),
    "elementwise": Op(
        "program over (m,n)",
        flops=_area,
        elements=lambda s: 2 * _area(s),
        reduction=lambda s: 1,
        reference=lambda function, *args: function(*args),
    ),
    "random_bits": Op(
        "-> (p,) uint32",
        flops=lambda s: 15 * s["p"],  # ten rounds of six operations give four words
        elements=lambda s: s["p"],
        reduction=lambda s: 1,
        reference=lambda bits: bits,
    ),
    "dropout_mask": Op(
        "-> (m,n)",
        flops=lambda s: 16 * _area(s),
        elements=_area,
        reduction=lambda s: 1,
        reference=lambda bits, rate: np.where(bits < int(rate * 2**32), 0.0, 1 / (1 - rate)),
    ),
}
