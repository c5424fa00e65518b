"""How far products are from float64: float32, TF32, and three of TF32, by the number of terms that are added up.

Tensor cores add up in float32 as well, but how they round there is theirs. An error of one sign shows where all terms
have one, and grows with their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.cublas import WORKSPACE, Cublas, load_cublas

__all__ = ["digits", "errors"]

TERMS = (64, 1024, 4096, 16384)
ROWS, COLUMNS = 512, 256
PRECISIONS = ("float32", "tf32x3", "tf32")


def digits(bench: Any) -> dict[str, Any]:
    """Measure with terms of both signs, and of one."""
    be: Any = bp.get_backend("cupy")
    cublas = Cublas(load_cublas(be.xp), be.empty(WORKSPACE, np.uint8))
    cublas.use_stream(be.gpu.current_stream())
    return {
        f"{k} terms, {signs}": errors(be, cublas, k, signs == "one sign")
        for k in TERMS
        for signs in ("both signs", "one sign")
    }


def errors(be: Any, cublas: Cublas, k: int, one_sign: bool) -> dict[str, dict[str, float]]:
    """Mean and largest distance of an element from float64, as a share of the sum of the absolute values of its terms.

    Parameters
    ----------
    be : Backend
        CuPy's.
    cublas : Cublas
        On the same device.
    k : int
        Terms of each sum.
    one_sign : bool
        Whether all factors lie between 0 and 1; else they are normal.

    Returns
    -------
    dict of dict
        ``mean`` and ``largest`` for each precision.
    """
    rng = np.random.default_rng(k)
    draw = rng.random if one_sign else rng.standard_normal
    A, B = (draw(shape, np.float32) for shape in ((ROWS, k), (k, COLUMNS)))
    exact, scale = product(be, A, B), product(be, np.abs(A), np.abs(B))
    found = {}
    for precision in PRECISIONS:
        operands = [operand(be, matrix, precision) for matrix in (A, B)]
        out = be.empty((ROWS, COLUMNS), np.float32)
        cublas.multiply(operands[0], operands[1], out, precision)
        off = np.abs(be.to_numpy(out) - exact) / scale
        found[precision] = {"mean": float(off.mean()), "largest": float(off.max())}
    return found


def product(be: Any, A: Any, B: Any) -> Any:
    """Multiply in float64."""
    out = be.empty((len(A), B.shape[1]), np.float64)
    be.matmul(be.asarray(A.astype(np.float64)), be.asarray(B.astype(np.float64)), out=out)
    return be.to_numpy(out)


def operand(be: Any, x: Any, precision: str) -> Any:
    """Bring a matrix to the device; for ``tf32x3`` taken apart as ``kernels/cuda/operand.cuh`` does."""
    if precision != "tf32x3":
        return be.asarray(x)
    bits = x.view(np.uint32)
    high = ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)
    return be.asarray(high), be.asarray(x - high)
