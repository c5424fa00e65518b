"""Building blocks that work on the bits of floating-point numbers, and polynomials.

Python has no word for "these 32 bits, read as an integer", so these few functions are written as LLVM instructions.
They exist in compiled code only; :mod:`bpcore.kernels.numba.scalar` says what is built from them.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"
# The functions below are templates that Numba types for each argument; annotations would be ignored by it.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

__all__ = [
    "OPTIONS",
    "Format",
    "exponent",
    "format_of",
    "from_ordered",
    "fused_multiply_add",
    "mantissa",
    "nearest",
    "ordered",
    "polynomial",
    "power_of_two",
]

OPTIONS = {"fastmath": {"contract"}, "forceinline": True, "error_model": "numpy", "nogil": True}
"""How the overloads of scalar functions are compiled: always inlined, or nothing would vectorise."""


def polynomial(coefficients: Sequence[float]) -> Any:
    """Return a function of x that evaluates ``c[0] + c[1] x + c[2] x**2 + ...`` by Horner's rule."""

    @intrinsic
    def horner(typingctx, x):
        def codegen(context, builder, signature, args):
            real = args[0].type
            # one fused instruction where the processor has it, two otherwise
            step = builder.module.declare_intrinsic("llvm.fmuladd", [real], ir.FunctionType(real, [real] * 3))
            value = ir.Constant(real, _as_literal(real, coefficients[-1]))
            for c in reversed(coefficients[:-1]):
                value = builder.call(step, [value, args[0], ir.Constant(real, _as_literal(real, c))])
            return value

        return x(x), codegen

    return horner


def _as_literal(real: ir.Type, value: float) -> float:
    """Round a constant to the type first: LLVM refuses a float literal with more digits than the type holds."""
    return float(np.float32(value)) if isinstance(real, ir.FloatType) else value


class Format:
    """Bit layout and limits of one floating-point type."""

    def __init__(self, dtype: type, bits: int, mantissa: int, ln2_high: float, exp_low: float, exp_high: float) -> None:
        self.dtype: Any = dtype
        self.width = bits
        self.integer = ir.IntType(bits)
        self.real = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.mantissa = mantissa
        self.bias = (1 << (bits - mantissa - 2)) - 1
        # Adding this number leaves a small integer in the lowest mantissa bits.
        self.magic = 1.5 * 2.0**mantissa
        self.magic_bits = ((self.bias + mantissa) << mantissa) + (1 << (mantissa - 1))
        self.sqrt_half_bits = int(np.sqrt(dtype(0.5)).view(np.int32 if bits == 32 else np.int64))
        # ln2_high has so few bits that n * ln2_high is exact for every n that occurs.
        self.ln2_high = dtype(ln2_high)
        self.ln2_low = dtype(math.log(2.0) - ln2_high) if bits == 32 else dtype(1.90821492927058770002e-10)
        self.log2_e = dtype(math.log2(math.e))
        # Outside, exp is 0 or infinite anyway, and n would leave the range that two factors 2**n can express.
        self.exp_low, self.exp_high = dtype(exp_low), dtype(exp_high)
        self.expm1_low = dtype(-50.0 if bits == 32 else -100.0)
        self.tiny = np.finfo(dtype).tiny
        self.lift = dtype(2.0 ** (mantissa + 1))
        self.lift_exponent = dtype(mantissa + 1)
        # q of e**r = 1 + r + r**2 q(r), |r| <= ln2/2
        self.exp_tail = polynomial([1 / math.factorial(k) for k in range(2, 8 if bits == 32 else 14)])
        # p of 2 artanh(s) = 2 s + s z p(z), z = s**2 <= 0.0295
        self.artanh_tail = polynomial([2 / (2 * k + 1) for k in range(1, 5 if bits == 32 else 11)])


SINGLE = Format(np.float32, 32, 23, 0.693359375, -104.0, 89.0)
DOUBLE = Format(np.float64, 64, 52, 6.93147180369123816490e-01, -746.0, 710.0)


def format_of(kind: Any) -> Format:
    """Return the format of a Numba type."""
    return {types.float32: SINGLE, types.float64: DOUBLE}[kind]


@intrinsic
def power_of_two(typingctx, n):
    """Return 2**n for an integral n within the exponent range of normal numbers."""
    f = format_of(n)

    def codegen(context, builder, signature, args):
        shifted = builder.bitcast(builder.fadd(args[0], ir.Constant(f.real, f.magic)), f.integer)
        exponent = builder.shl(shifted, ir.Constant(f.integer, f.mantissa))
        return builder.bitcast(builder.add(exponent, ir.Constant(f.integer, f.bias << f.mantissa)), f.real)

    return n(n), codegen


@intrinsic
def nearest(typingctx, x):
    """Round to the nearest integer."""
    f = format_of(x)

    def codegen(context, builder, signature, args):
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [f.real]), args)

    return x(x), codegen


@intrinsic
def fused_multiply_add(typingctx, a, b, c):
    """Return ``a * b + c`` rounded once."""

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, b, c), codegen


def _exponent_bits(f: Format, builder: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the bits of x and its binary exponent, chosen so that the mantissa is at least sqrt(1/2)."""
    bits = builder.bitcast(x, f.integer)
    above = builder.sub(bits, ir.Constant(f.integer, f.sqrt_half_bits))
    return bits, builder.ashr(above, ir.Constant(f.integer, f.mantissa))


@intrinsic
def exponent(typingctx, x):
    """Return e of ``x = 2**e m`` with m in [sqrt(1/2), sqrt(2)), for a positive normal x."""
    f = format_of(x)

    def codegen(context, builder, signature, args):
        _, exponent = _exponent_bits(f, builder, args[0])
        shifted = builder.bitcast(builder.add(exponent, ir.Constant(f.integer, f.magic_bits)), f.real)
        return builder.fsub(shifted, ir.Constant(f.real, f.magic))

    return x(x), codegen


@intrinsic
def mantissa(typingctx, x):
    """Return m of ``x = 2**e m``; see :func:`exponent`."""
    f = format_of(x)

    def codegen(context, builder, signature, args):
        bits, exponent = _exponent_bits(f, builder, args[0])
        return builder.bitcast(builder.sub(bits, builder.shl(exponent, ir.Constant(f.integer, f.mantissa))), f.real)

    return x(x), codegen


@intrinsic
def ordered(typingctx, x):
    """Return an integer that orders as x does; a NaN without sign orders above infinity."""
    f = format_of(x)
    kind = types.int32 if f is SINGLE else types.int64

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], f.integer)
        sign = builder.ashr(bits, ir.Constant(f.integer, f.integer.width - 1))
        return builder.xor(bits, builder.lshr(sign, ir.Constant(f.integer, 1)))

    return kind(x), codegen


@intrinsic
def from_ordered(typingctx, key):
    """Invert :func:`ordered`."""
    f = SINGLE if key == types.int32 else DOUBLE
    kind = types.float32 if f is SINGLE else types.float64

    def codegen(context, builder, signature, args):
        sign = builder.ashr(args[0], ir.Constant(f.integer, f.integer.width - 1))
        bits = builder.xor(args[0], builder.lshr(sign, ir.Constant(f.integer, 1)))
        return builder.bitcast(bits, f.real)

    return kind(key), codegen
