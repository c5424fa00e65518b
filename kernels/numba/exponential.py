"""Exponential, logarithm, and the functions made of them; see :mod:`bpcore.kernels.numba.scalar` for the rules."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

import math

import numpy as np
from numba.extending import overload

from bpcore.kernels.numba.bits import OPTIONS, exponent, format_of, mantissa, nearest, power_of_two

__all__ = ["exp_", "expm1_", "log1p_", "log_", "sigmoid_", "softplus_", "tanh_"]

# -------------------------------------------------------------------------------- exponential


def exp_(x):
    """Return e**x."""
    return np.exp(x)


@overload(exp_, jit_options=OPTIONS)
def _exp_overload(x):
    f = format_of(x)
    low, high, log2_e, ln2_high, ln2_low = f.exp_low, f.exp_high, f.log2_e, f.ln2_high, f.ln2_low
    one, half, tail = f.dtype(1), f.dtype(0.5), f.exp_tail

    def impl(x):
        # written so that NaN passes both limits
        y = low if x < low else (high if x > high else x)
        n = nearest(y * log2_e)
        r = (y - n * ln2_high) - n * ln2_low
        # two factors: 2**128 overflows although the result need not, 2**-150 underflows although it need not
        first = nearest(n * half)
        return (one + (r + r * r * tail(r))) * power_of_two(first) * power_of_two(n - first)

    return impl


def _expm1_but_for_zero(x):
    """Return e**x - 1, accurate near 0; 0 for -0."""


@overload(_expm1_but_for_zero, jit_options=OPTIONS)
def _expm1_but_for_zero_overload(x):
    f = format_of(x)
    low, high, log2_e, ln2_high, ln2_low = f.expm1_low, f.exp_high, f.log2_e, f.ln2_high, f.ln2_low
    one, half, two, tail = f.dtype(1), f.dtype(0.5), f.dtype(2), f.exp_tail

    def impl(x):
        y = low if x < low else (high if x > high else x)
        n = nearest(y * log2_e)
        r = (y - n * ln2_high) - n * ln2_low
        # half the result: 2**(n-1) does not overflow before the result does
        scale = power_of_two(n - one)
        return two * (scale * (r + r * r * tail(r)) + (scale - half))

    return impl


def expm1_(x):
    """Return e**x - 1, accurate near 0."""
    return np.expm1(x)


@overload(expm1_, jit_options=OPTIONS)
def _expm1_overload(x):
    return lambda x: math.copysign(_expm1_but_for_zero(x), x)


def sigmoid_(x):
    """Return ``1 / (1 + exp(-x))``."""
    return 1 / (1 + np.exp(-x))


@overload(sigmoid_, jit_options=OPTIONS)
def _sigmoid_overload(x):
    one = format_of(x).dtype(1)

    def impl(x):
        return one / (one + exp_(-x))

    return impl


def tanh_(x):
    """Return the hyperbolic tangent."""
    return np.tanh(x)


@overload(tanh_, jit_options=OPTIONS)
def _tanh_overload(x):
    two = format_of(x).dtype(2)

    def impl(x):
        minus = _expm1_but_for_zero(-two * abs(x))
        return math.copysign(minus / (minus + two), x)

    return impl


# -------------------------------------------------------------------------------- logarithm


def _log_normal(x):
    """Return ln x for a positive normal number."""


@overload(_log_normal, jit_options=OPTIONS)
def _log_normal_overload(x):
    f = format_of(x)
    one, two, half, ln2_high, ln2_low = f.dtype(1), f.dtype(2), f.dtype(0.5), f.ln2_high, f.ln2_low
    tail = f.artanh_tail

    def impl(x):
        e = exponent(x)
        g = mantissa(x) - one
        s = g / (two + g)
        z = s * s
        # 2 s = g - s g, and g is exact: the rounding of s enters only through the small second term
        square = half * g * g
        rest = s * (square + z * tail(z))
        return e * ln2_high + (g - (square - (rest + e * ln2_low)))

    return impl


def log_(x):
    """Return the natural logarithm; -inf at 0, NaN below."""
    return np.log(x)


@overload(log_, jit_options=OPTIONS)
def _log_overload(x):
    f = format_of(x)
    tiny, lift, lift_exponent, ln2 = f.tiny, f.lift, f.lift_exponent, f.dtype(math.log(2.0))
    zero, inf, nan = f.dtype(0), f.dtype(math.inf), f.dtype(math.nan)

    def impl(x):
        small = x < tiny
        normal = _log_normal(x * lift if small else x)
        shift = lift_exponent * ln2 if small else zero
        value = normal - shift
        # at the four special places the value above is meaningless: 0, below 0, +inf, NaN
        special = x if x > zero else (-inf if x == zero else nan)
        return value if (x > zero) & (x < inf) else special

    return impl


def log1p_(x):
    """Return ln(1 + x), accurate near 0."""
    return np.log1p(x)


@overload(log1p_, jit_options=OPTIONS)
def _log1p_overload(x):
    f = format_of(x)
    zero, one, inf, nan = f.dtype(0), f.dtype(1), f.dtype(math.inf), f.dtype(math.nan)

    def impl(x):
        u = one + x
        # what rounding took from 1 + x, to first order
        value = math.copysign(_log_normal(u) + (x - (u - one)) / u, x)
        special = u if u > zero else (-inf if u == zero else nan)
        return value if (u > zero) & (u < inf) else special

    return impl


def softplus_(x):
    """Return ``ln(1 + exp(x))``, without overflow."""
    return np.maximum(x, x.dtype.type(0)) + np.log1p(np.exp(-abs(x)))


@overload(softplus_, jit_options=OPTIONS)
def _softplus_overload(x):
    zero = format_of(x).dtype(0)

    def impl(x):
        return (zero if x < zero else x) + log1p_(exp_(-abs(x)))

    return impl
