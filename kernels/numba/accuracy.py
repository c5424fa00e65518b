"""What the elementary functions of :mod:`bpcore.kernels.numba.scalar` promise: their errors and their edge values.

The tests hold the functions to this table, and the page *Accuracy* of the reference is printed from it. This module
does not import Numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

__all__ = ["ACCURACY", "Accuracy"]


@dataclass(frozen=True)
class Accuracy:
    """The promise of one function.

    Attributes
    ----------
    float32, float64 : float
        Largest error in units of the last place, where the result is a normal number, with and without fused
        multiply-add instructions.
    subnormal : float
        Largest error of a result below the smallest normal number, in units of the smallest positive number;
        infinite where such a result may be 0.
    limits : tuple of pair of float
        Arguments and exact results at the edges; NaN gives NaN everywhere.
    method : str
        How it is computed.
    """

    float32: float
    float64: float
    subnormal: float
    limits: tuple[tuple[float, float], ...]
    method: str


ACCURACY: dict[str, Accuracy] = {
    "exp": Accuracy(
        1.1,
        1.1,
        1.0,
        ((-inf, 0.0), (-0.0, 1.0), (0.0, 1.0), (inf, inf)),
        "2ⁿ eʳ with x = n ln 2 + r, |r| ≤ ½ ln 2; Taylor series of eʳ",
    ),
    "expm1": Accuracy(
        1.8,
        2.0,
        1.0,
        ((-inf, -1.0), (-0.0, -0.0), (0.0, 0.0), (inf, inf)),
        "2ⁿ (eʳ - 1) + (2ⁿ - 1), with the series of exp",
    ),
    "log": Accuracy(
        1.1,
        1.0,
        0.0,
        ((-inf, nan), (-1.0, nan), (-0.0, -inf), (0.0, -inf), (1.0, 0.0), (inf, inf)),
        "e ln 2 + ln m with x = 2ᵉ m, √½ ≤ m < √2; ln m = 2 artanh((m - 1)/(m + 1)) by its series",
    ),
    "log1p": Accuracy(
        1.5,
        1.5,
        1.0,
        ((-inf, nan), (-2.0, nan), (-1.0, -inf), (-0.0, -0.0), (0.0, 0.0), (inf, inf)),
        "log(u) + (x - (u - 1))/u with u = 1 + x rounded",
    ),
    "tanh": Accuracy(
        2.6,
        2.6,
        1.0,
        ((-inf, -1.0), (-0.0, -0.0), (0.0, 0.0), (inf, 1.0)),
        "-q/(q + 2) with q = expm1(-2|x|), and the sign of x",
    ),
    "sigmoid": Accuracy(
        2.6,
        2.6,
        inf,
        ((-inf, 0.0), (-0.0, 0.5), (0.0, 0.5), (inf, 1.0)),
        "1/(1 + exp(-x))",
    ),
    "softplus": Accuracy(
        2.1,
        2.1,
        1.0,
        ((-inf, 0.0), (inf, inf)),
        "max(x, 0) + log1p(exp(-|x|))",
    ),
    "erf": Accuracy(
        2.6,
        2.1,
        1.0,
        ((-inf, -1.0), (-0.0, -0.0), (0.0, 0.0), (inf, 1.0)),
        "x P(x²) up to |x| = ¾, P a Chebyshev interpolant; 1 - erfc beyond",
    ),
    "erfc": Accuracy(
        4.8,
        4.9,
        2.5,
        ((-inf, 2.0), (-0.0, 1.0), (0.0, 1.0), (inf, 0.0)),
        "exp(-x²) Q(t)/(1 + 2x) with t = (x - K)/(x + K), Q a Chebyshev interpolant; 1 - erf up to |x| = ¾",
    ),
}
"""The functions by name."""
