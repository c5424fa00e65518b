"""Functions of one number that printed formulas call: ``exp_(x)``, ``tanh_(x)``, ``max_(a, b)``, ...

Each function has two bodies. The Python body is its NumPy reference; it runs when Numba is told not to compile
(``NUMBA_DISABLE_JIT=1``). The ``overload`` body is what compiled loops contain: straight-line arithmetic without
branches or library calls, because LLVM turns a loop into SIMD instructions only when nothing in it is a call.
Numba brings no vector library of elementary functions; one scalar ``tanh`` costs about 18 ns, the one below about
half a nanosecond an element in float32 and one in float64.

Rules that hold for all of them:

* float32 in, float32 out; float64 in, float64 out.
* Errors and edge values are those of the table :data:`bpcore.kernels.numba.accuracy.ACCURACY`, to which the tests hold
  them.
* NaN gives NaN and infinities give the mathematical limit, hence of LLVM's fast-math flags only ``contract`` (fused
  multiply-add) is set. ``reassoc`` would cancel the compensated steps (``x - n*ln2_high - n*ln2_low``).

Notes
-----
``exp``: ``x = n ln2 + r`` with integer n and ``|r| <= ln2/2``; e**r by its Taylor series; ``2**n`` written into the
exponent bits (Cody and Waite, "Software Manual for the Elementary Functions", 1980). ``log``: ``x = 2**e m`` with m
between ``sqrt(1/2)`` and ``sqrt(2)``; ``ln m = 2 artanh((m - 1)/(m + 1))`` by its series. The degrees are the least
whose first neglected term is below a quarter of a unit in the last place. ``tanh``, ``sigmoid``, ``softplus`` follow
from these; ``erf`` has polynomials of its own (:mod:`bpcore.kernels.numba.erf_coefficients`).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

import math

import numpy as np
from numba.extending import overload

from bpcore.kernels.numba.bits import OPTIONS, format_of, from_ordered, ordered
from bpcore.kernels.numba.error_function import erf_, erfc_
from bpcore.kernels.numba.exponential import exp_, expm1_, log1p_, log_, sigmoid_, softplus_, tanh_

__all__ = [
    "abs_",
    "cos_",
    "cube_",
    "erf_",
    "erfc_",
    "exp_",
    "expm1_",
    "from_ordered_",
    "log1p_",
    "log_",
    "max_",
    "min_",
    "ordered_",
    "pow_",
    "sigmoid_",
    "sign_",
    "sin_",
    "softplus_",
    "sqrt_",
    "square_",
    "tanh_",
]

# -------------------------------------------------------------------------------- trigonometry, powers: the C library
# No activation, loss or update rule of bpcore needs these at speed; the calls are exact and scalar.


def sin_(x):
    """Return the sine."""
    return np.sin(x)


@overload(sin_, jit_options=OPTIONS)
def _sin_overload(x):
    return lambda x: math.sin(x)


def cos_(x):
    """Return the cosine."""
    return np.cos(x)


@overload(cos_, jit_options=OPTIONS)
def _cos_overload(x):
    return lambda x: math.cos(x)


def pow_(x, y):
    """Return x**y as C's ``pow`` does: NaN for a negative base with a fractional exponent."""
    return np.power(x, y)


@overload(pow_, jit_options=OPTIONS)
def _pow_overload(x, y):
    return lambda x, y: math.pow(x, y)


def square_(x):
    """Return x**2."""
    return x * x


@overload(square_, jit_options=OPTIONS)
def _square_overload(x):
    return lambda x: x * x


def cube_(x):
    """Return x**3."""
    return x * x * x


@overload(cube_, jit_options=OPTIONS)
def _cube_overload(x):
    return lambda x: x * x * x


def sqrt_(x):
    """Return the square root; NaN below 0."""
    return np.sqrt(x)


@overload(sqrt_, jit_options=OPTIONS)
def _sqrt_overload(x):
    return lambda x: math.sqrt(x)


# -------------------------------------------------------------------------------- signs and choices


def abs_(x):
    """Return the absolute value."""
    return abs(x)


@overload(abs_, jit_options=OPTIONS)
def _abs_overload(x):
    return lambda x: abs(x)


def sign_(x):
    """Return -1, 0 or 1; NaN for NaN."""
    return np.sign(x)


@overload(sign_, jit_options=OPTIONS)
def _sign_overload(x):
    f = format_of(x)
    zero, one = f.dtype(0), f.dtype(1)
    return lambda x: one if x > zero else (-one if x < zero else x)


def min_(a, b):
    """Return the smaller; NaN if either is NaN."""
    return np.minimum(a, b)


@overload(min_, jit_options=OPTIONS)
def _min_overload(a, b):
    return lambda a, b: a if (a < b) | (a != a) else b


def max_(a, b):
    """Return the larger; NaN if either is NaN."""
    return np.maximum(a, b)


@overload(max_, jit_options=OPTIONS)
def _max_overload(a, b):
    return lambda a, b: a if (a > b) | (a != a) else b


# -------------------------------------------------------------------------------- the largest of a row


def ordered_(x):
    """Return a key that orders as x does. Compiled it is an integer: LLVM vectorises the largest of integers only."""
    return x


@overload(ordered_, jit_options=OPTIONS)
def _ordered_overload(x):
    return lambda x: ordered(x)


def from_ordered_(key):
    """Return the number of a key."""
    return key


@overload(from_ordered_, jit_options=OPTIONS)
def _from_ordered_overload(key):
    return lambda key: from_ordered(key)
