"""The error function and its complement; see :mod:`bpcore.kernels.numba.scalar` for the rules."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

import math

from numba.extending import overload

from bpcore.kernels.numba import erf_coefficients
from bpcore.kernels.numba.bits import OPTIONS, format_of, fused_multiply_add, polynomial
from bpcore.kernels.numba.exponential import exp_

__all__ = ["erf_", "erfc_"]

_NEAR = {width: polynomial(coefficients) for width, coefficients in erf_coefficients.NEAR.items()}
_FAR = {width: polynomial(coefficients) for width, coefficients in erf_coefficients.FAR.items()}


def _erf_near(x):
    """Return erf x for ``|x| <= 3/4``."""


@overload(_erf_near, jit_options=OPTIONS)
def _erf_near_overload(x):
    near = _NEAR[format_of(x).width]

    def impl(x):
        return x * near(x * x)

    return impl


def _erfc_far(a):
    """Return erfc a for a >= 0."""


@overload(_erfc_far, jit_options=OPTIONS)
def _erfc_far_overload(a):
    f = format_of(a)
    far, centre, one, two = _FAR[f.width], f.dtype(erf_coefficients.CENTRE[f.width]), f.dtype(1), f.dtype(2)
    # erfc is 0 from here on, and the quotient below stays finite
    limit = f.dtype(12.0 if f.width == 32 else 28.0)

    def impl(a):
        y = limit if a > limit else a
        square = y * y
        # exp would multiply the rounding error of the square by the square
        lost = fused_multiply_add(y, y, -square)
        power = exp_(-square)
        power -= power * lost
        return power * far((y - centre) / (y + centre)) / (one + two * y)

    return impl


def erf_(x):
    """Return the error function."""
    return x.dtype.type(math.erf(x))


@overload(erf_, jit_options=OPTIONS)
def _erf_overload(x):
    f = format_of(x)
    one, border = f.dtype(1), f.dtype(0.75)

    def impl(x):
        a = abs(x)
        return _erf_near(x) if a < border else math.copysign(one - _erfc_far(a), x)

    return impl


def erfc_(x):
    """Return the complementary error function."""
    return x.dtype.type(math.erfc(x))


@overload(erfc_, jit_options=OPTIONS)
def _erfc_overload(x):
    f = format_of(x)
    zero, one, two, border = f.dtype(0), f.dtype(1), f.dtype(2), f.dtype(0.75)

    def impl(x):
        a = abs(x)
        tail = _erfc_far(a)
        return one - _erf_near(x) if a < border else (two - tail if x < zero else tail)

    return impl
