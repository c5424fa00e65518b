"""How far the elementary functions of the Numba loops are from the truth, in units of the last place.

A vectorised reference with more digits looks at every argument: float64 for float32, the processor's ``long double``
for float64. Where it finds the largest errors, and at some arguments drawn at random, mpmath decides. Neither shares
code with what it judges.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import scipy.special

from bpcore.functions.program import Program
from bpcore.kernels.numba.elementwise import compile_program
from bpcore.kernels.numba.operands import Operand

PRECISION = 200
"""Bits of mpmath: enough for ``1 + exp(-40)`` and the like to keep a hundred."""

_c_erf = np.frompyfunc(math.erf, 1, 1)
_c_erfc = np.frompyfunc(math.erfc, 1, 1)


def _error_function(x: Any) -> Any:
    return scipy.special.erf(x) if x.dtype == np.float64 else _c_erf(x).astype(x.dtype)


def _complementary(x: Any) -> Any:
    return scipy.special.erfc(x) if x.dtype == np.float64 else _c_erfc(x).astype(x.dtype)


WIDE: dict[str, Any] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    # SciPy has no long double; the C library's double is within one unit, which suffices to find what mpmath judges
    "erf": _error_function,
    "erfc": _complementary,
}
"""The vectorised references; they take the dtype with more digits."""

EXACT: dict[str, Any] = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
}
"""The same for numbers of mpmath."""


@functools.cache
def compiled(name: str, dtype: str) -> Any:
    """Return the compiled loop ``kernel(out, x)``, the one that a network uses; once for the whole process."""
    vector = (Operand("full", 1),)
    return compile_program(Program(f"h = {name}(x)"), vector, vector, np.dtype(dtype))


def evaluate(name: str, x: Any) -> Any:
    """Return the function of an array, computed by its compiled loop."""
    out = np.empty_like(x)
    compiled(name, x.dtype.name)(out, x)
    return out


# -------------------------------------------------------------------------------- arguments


def patterns(stride: int) -> Iterator[Any]:
    """Yield float32 numbers in blocks: every `stride`-th of the 2**32 bit patterns, hence all exponents and signs."""
    block = stride << 20
    for start in range(0, 2**32, block):
        yield np.arange(start, min(start + block, 2**32), stride, dtype=np.uint32).view(np.float32)


def saturation(name: str, dtype: Any) -> float:
    """Return about the argument beyond which the function stays 0, 1, -1 or infinite, or equal to its argument."""
    single = np.dtype(dtype) == np.float32
    return {"tanh": 10.0 if single else 20.0, "erf": 4.0 if single else 6.0, "erfc": 10.5 if single else 27.5}.get(
        name, 104.0 if single else 746.0
    )


def breakpoints(name: str, dtype: Any) -> Any:
    """Return where the ways of computing change, the edges of the range, and 25 neighbours to each side of them."""
    limits = np.finfo(dtype)
    ln2, largest, tiny = math.log(2.0), float(limits.max), float(limits.tiny)
    centres = [0.0, tiny, float(limits.smallest_subnormal), float(limits.eps), 1.0, largest, saturation(name, dtype)]
    # exp leaves the normal numbers here, then all numbers
    centres += [math.log(largest), -math.log(tiny), -math.log(float(limits.smallest_subnormal)) + ln2]
    powers = np.arange(-20.0, 21.0)
    centres += list((powers + 0.5) * ln2)  # exp rounds to another power of two
    centres += list((powers + 0.5) * ln2 / 2)  # and tanh, which calls it with 2x
    centres += list(np.sqrt(0.5) * 2.0**powers)  # log takes another exponent
    centres += list(np.sqrt(0.5) * 2.0**powers - 1)  # and log1p
    centres += [0.75, 3.0, 3.75, 9.194, 10.05, 26.54, 27.23]  # erf and erfc: the border, the centre, the last numbers
    middle = np.array([*centres, *(-c for c in centres)], dtype)
    bits = middle.view(np.int32 if limits.bits == 32 else np.int64)
    near = bits[:, None] + np.arange(-25, 26, dtype=bits.dtype)
    return near.ravel().view(dtype)


def arguments(name: str, dtype: Any, n: int, rng: np.random.Generator) -> Any:
    """Return about n numbers: random bit patterns, grids where the function is not constant, and breakpoints."""
    part = n // 4
    whole = np.int32 if np.dtype(dtype) == np.float32 else np.int64
    limits = np.iinfo(whole)
    end = saturation(name, dtype)
    return np.concatenate(
        [
            rng.integers(limits.min, limits.max, part, dtype=whole, endpoint=True).view(dtype),
            (np.linspace(-end, end, part) + rng.normal(0, end / part, part)).astype(dtype),
            rng.normal(0, 1.5, part).astype(dtype),
            (rng.choice([-1.0, 1.0], part) * 2.0 ** rng.uniform(-30, 3, part)).astype(dtype),
            breakpoints(name, dtype),
            # next to 1, where log is small and log1p(-1 + ...) large
            (1 + rng.normal(0, 1, part // 4) * 2.0 ** rng.uniform(-20, -1, part // 4)).astype(dtype),
            (2.0 ** rng.uniform(-30, 0, part // 4) - 1).astype(dtype),
        ]
    )


# -------------------------------------------------------------------------------- errors


@dataclass
class Errors:
    """The largest errors that were met.

    Attributes
    ----------
    ulp : float
        Of results that are normal numbers, in units of the last place.
    at : float
        The argument of that error.
    subnormal : float
        Of results below the smallest normal number, in units of the smallest number.
    """

    ulp: float = 0.0
    at: float = math.nan
    subnormal: float = 0.0

    def include(self, other: Errors) -> None:
        """Take over what is larger."""
        if other.ulp > self.ulp:
            self.ulp, self.at = other.ulp, other.at
        self.subnormal = max(self.subnormal, other.subnormal)


def exactly(name: str, x: float) -> Any:
    """Return the function as mpmath computes it: a number, possibly infinite, or NaN."""
    with mpmath.workprec(PRECISION):
        if math.isnan(x) or (name in ("log", "log1p") and x < (0 if name == "log" else -1)):
            return mpmath.nan
        if name in ("erf", "erfc") and abs(x) > 100:
            # mpmath would work with as many digits as the square has
            return mpmath.mpf(math.copysign(1, x) if name == "erf" else 1 - math.copysign(1, x))
        if name in ("log", "log1p") and x == (0 if name == "log" else -1):
            return -mpmath.inf
        return EXACT[name](mpmath.mpf(x))


def error_of(found: Any, exact: Any) -> tuple[float, bool]:
    """Return the distance of a finite result from the exact one in units, and whether that is a subnormal number."""
    limits = np.finfo(found.dtype)
    with mpmath.workprec(PRECISION):
        _, exponent = mpmath.frexp(abs(exact))
        small = abs(exact) < mpmath.mpf(float(limits.tiny))
        lowest = limits.minexp + 1
        unit = mpmath.ldexp(1, (lowest if small else max(int(exponent), lowest)) - 1 - limits.nmant)
        return float(abs(mpmath.mpf(float(found)) - exact) / unit), bool(small)


def overflows(exact: Any, dtype: Any) -> bool:
    """Whether a number of mpmath rounds to infinity."""
    limits = np.finfo(dtype)
    with mpmath.workprec(PRECISION):
        return bool(abs(exact) >= mpmath.ldexp(2 - mpmath.ldexp(1, -limits.nmant - 1), limits.maxexp - 1))


def judge(name: str, x: Any, found: Any) -> Errors:
    """Compare results with mpmath, one by one.

    Raises
    ------
    AssertionError
        If one is NaN or infinite where the other is not.
    """
    errors = Errors()
    for argument, result in zip(x, found, strict=True):
        exact = exactly(name, float(argument))
        what = f"{name}({argument!r}) = {result!r}, mpmath says {mpmath.nstr(exact, 20)}"
        assert np.isnan(result) == mpmath.isnan(exact), what
        if np.isnan(result):
            continue
        if math.isinf(result) or overflows(exact, result.dtype):
            # within the error of the function, infinity may begin one number earlier
            assert result == math.inf * mpmath.sign(exact), what
            assert overflows(exact * (1 + 4 * np.finfo(x.dtype).eps), x.dtype), what
            continue
        units, small = error_of(result, exact)
        errors.include(Errors(0.0, math.nan, units) if small else Errors(units, float(argument), 0.0))
    return errors


def search(name: str, x: Any, rng: np.random.Generator, judged: int = 60) -> Errors:
    """Return the largest errors of a function at the numbers x.

    Parameters
    ----------
    name : str
        A function of :data:`WIDE`.
    x : ndarray of float32 or float64
        The arguments.
    rng : Generator
        Draws some that mpmath sees in any case.
    judged : int
        How many of the worst, and how many at random, mpmath sees.
    """
    found = evaluate(name, x)
    with np.errstate(all="ignore"):
        wide = np.float64 if x.dtype == np.float32 else np.longdouble
        reference = WIDE[name](x.astype(wide))
        limits = np.finfo(x.dtype)
        small = np.abs(reference) < limits.tiny
        _, exponent = np.frexp(np.where(small, wide(limits.tiny), reference))
        off = np.abs(found.astype(wide) - reference) / np.ldexp(wide(1), exponent - 1 - limits.nmant)
        same = (np.isnan(found) & np.isnan(reference)) | (found == reference.astype(x.dtype))
        # NaN or infinity on one side only is the greatest error; rounding to the same number is looked at as well
        off = np.where(np.isfinite(off), off, np.where(same, 0, np.inf))
    errors = Errors()
    for part in (np.where(small, 0, off), np.where(small, off, 0)):
        worst = np.argpartition(part, -judged)[-judged:] if len(part) > judged else np.arange(len(part))
        errors.include(judge(name, x[worst], found[worst]))
    sample = rng.integers(0, len(x), judged)
    errors.include(judge(name, x[sample], found[sample]))
    return errors
