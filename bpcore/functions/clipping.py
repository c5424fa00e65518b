"""Gradient clipping: three declarations and the programs that carry them out.

=================  =====================================================================================
declaration        what happens to the gradient g before the update
=================  =====================================================================================
``ClipValue``      every component is moved into [-limit, limit]
``ClipNorm``       all of g (every W and b) is scaled so that its Euclidean norm is at most limit
``ClipLayerNorm``  as ``ClipNorm``, but each layer (its W and b together) by itself
=================  =====================================================================================

A norm is clipped in three operations of a backend: ``sum_squares`` (float64), :data:`SCALE`, and
:data:`RESCALE` over g. A gradient within the limit is multiplied by exactly 1.0, hence not changed at all.
NaN is passed on, never hidden: one NaN component makes every component NaN when a norm is clipped, so that
divergence is noticed.

References
----------
.. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from bpcore.functions.program import Program
from bpcore.functions.ranges import check_number

__all__ = ["CLIP", "RESCALE", "SCALE", "ClipLayerNorm", "ClipNorm", "ClipValue", "Clipping"]

SMALLEST_LIMIT = 1e-30
"""Below it, limits would meet the ``tiny`` that keeps :data:`SCALE` from dividing by zero."""

CLIP = Program("g = clip(g, -limit, limit)", outputs=("g",), name="clip_value")
"""Clip in place: inputs g, limit."""

SCALE = Program(
    "scale = min(1, limit / max(sqrt(sumsq), 1e-37))",
    outputs=("scale",),
    name="clip_scale",
)
"""One number from two: inputs sumsq (sum of the squares of g) and limit. 1e-37 is normal in float32 too."""

RESCALE = Program("g = g * scale", outputs=("g",), name="clip_rescale")
"""Scale in place: inputs g, scale."""


@dataclass(frozen=True)
class _Clipping:
    limit: float

    scope: ClassVar[Literal["element", "all", "layer"]]

    def __post_init__(self) -> None:
        limit = check_number(f"{type(self).__name__}: limit", self.limit, f"[{SMALLEST_LIMIT:g}, inf)")
        object.__setattr__(self, "limit", limit)


@dataclass(frozen=True)
class ClipValue(_Clipping):
    """Move every component of the gradient into [-limit, limit].

    Parameters
    ----------
    limit : float
        At least 1e-30.

    Raises
    ------
    ConfigurationError
        If the limit is out of range.

    Examples
    --------
    >>> ClipValue(0.5).limit
    0.5
    """

    scope: ClassVar[Literal["element"]] = "element"


@dataclass(frozen=True)
class ClipNorm(_Clipping):
    """Scale the whole gradient so that its Euclidean norm is at most `limit`.

    Parameters
    ----------
    limit : float
        At least 1e-30.

    Raises
    ------
    ConfigurationError
        If the limit is out of range.

    Notes
    -----
    Pascanu et al. 2013 [1]_, algorithm 1.

    Examples
    --------
    >>> ClipNorm(5.0).scope
    'all'
    """

    scope: ClassVar[Literal["all"]] = "all"


@dataclass(frozen=True)
class ClipLayerNorm(_Clipping):
    """Scale the gradient of each layer so that its Euclidean norm is at most `limit`.

    Parameters
    ----------
    limit : float
        At least 1e-30.

    Raises
    ------
    ConfigurationError
        If the limit is out of range.

    Examples
    --------
    >>> ClipLayerNorm(1.0).scope
    'layer'
    """

    scope: ClassVar[Literal["layer"]] = "layer"


Clipping: TypeAlias = ClipValue | ClipNorm | ClipLayerNorm
