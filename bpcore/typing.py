"""Names for the array types that appear in bpcore's signatures.

bpcore has no array class of its own: arrays are :class:`numpy.ndarray` on the CPU and ``cupy.ndarray`` on the GPU.
Both follow the same namespace, which Python's type system cannot yet spell, so :data:`Array` is deliberately loose.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "DType", "FloatArray", "IntArray", "NDArray"]

Array: TypeAlias = Any
"""An array of the backend in use: ``numpy.ndarray`` or ``cupy.ndarray``."""

DType: TypeAlias = np.dtype[Any]

FloatArray: TypeAlias = NDArray[np.floating[Any]]
"""A NumPy array of float32 or float64."""

IntArray: TypeAlias = NDArray[np.int64]
