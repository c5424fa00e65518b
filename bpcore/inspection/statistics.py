"""Statistics of arrays, taken where the arrays are: eight numbers of each cross to the host, all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.functions.program import Program
from bpcore.typing import Array, DType, FloatArray

__all__ = ["Gauge", "Statistics"]

TOTAL, SQUARES, SHIFT, SHIFTED, ZEROS, BAD, LOW, HIGH = range(8)

_MARKS = Program(
    "d = a - first; zero = where(a == 0, 1, 0); bad = where(abs(a) <= largest, 0, 1)", name="marks of an array"
)


@dataclass(frozen=True)
class Statistics:
    """Numbers that describe an array.

    Attributes
    ----------
    size : int
        Elements.
    mean, std, min, max : float
        Over all elements; std is that of the elements themselves (divided by size). NaN where the array holds NaN.
    norm : float
        Euclidean norm.
    zeros : float
        Share of elements that are exactly 0.
    not_finite : int
        Elements that are NaN or infinite.

    Examples
    --------
    >>> found = Statistics(size=4, mean=1.0, std=0.0, min=1.0, max=1.0, norm=2.0, zeros=0.0, not_finite=0)
    >>> found.rms
    1.0
    """

    size: int
    mean: float
    std: float
    min: float
    max: float
    norm: float
    zeros: float
    not_finite: int

    @property
    def rms(self) -> float:
        """Root of the mean square: the norm without the effect of the size."""
        return self.norm / math.sqrt(self.size)

    def to_dict(self) -> dict[str, float]:
        """Return the numbers, rms among them."""
        return {**vars(self), "rms": self.rms}


class Gauge:
    """Measures arrays of one dtype into a table on the device.

    Parameters
    ----------
    be : Backend
        Where the arrays are.
    dtype : dtype
        Theirs.
    count : int
        How many arrays will be measured.

    Examples
    --------
    >>> from bpcore import get_backend
    >>> gauge = Gauge(get_backend("numpy"), np.dtype(np.float64), 1)
    >>> gauge.measure("H", 2, np.array([[0.0, 3.0], [0.0, 5.0]]))
    >>> found = gauge.read()["H", 2]
    >>> found.mean, found.zeros, found.max
    (2.0, 0.5, 5.0)
    """

    def __init__(self, be: Backend, dtype: DType, count: int) -> None:
        self.be, self.dtype = be, np.dtype(dtype)
        self._table = be.zeros((count, 8), np.float64)
        self._keys: list[tuple[str, int, int]] = []
        self._memory = be.empty((3, 0), self.dtype)
        self._largest = float(np.finfo(self.dtype).max)

    def scratch(self, *shape: int, count: int = 1) -> tuple[Array, ...]:
        """Return memory for one to three arrays of a shape, whose content nobody relies on."""
        size = int(np.prod(shape))
        if self._memory.shape[1] < size:
            self._memory = self.be.empty((3, size), self.dtype)
        return tuple(self._memory[k, :size].reshape(shape) for k in range(count))

    @np.errstate(all="ignore")
    def measure(self, quantity: str, layer: int, array: Array) -> None:
        """Take the statistics of an array; it is only read, and may change afterwards."""
        be, row = self.be, self._table[len(self._keys)]
        flat = array.reshape(-1)
        size, first = flat.shape[0], flat[:1]
        self._keys.append((quantity, layer, size))
        # distances from one of the numbers, so that a small spread of large ones keeps its digits
        d, zero, bad = self.scratch(size, count=3)
        be.elementwise(_MARKS, out=(d, zero, bad), a=flat, first=first, largest=self._largest)
        for at, values in ((TOTAL, flat), (SHIFT, d), (ZEROS, zero), (BAD, bad)):
            be.total(values, out=row[at : at + 1])
        for at, values in ((SQUARES, flat), (SHIFTED, d)):
            be.sum_squares(values, out=row[at : at + 1])
        for at, values in ((LOW, be.xp.min(flat)), (HIGH, be.xp.max(flat))):
            be.copy(values.reshape(1), out=row[at : at + 1])

    def read(self) -> dict[tuple[str, int], Statistics]:
        """Bring the table to the host, the only crossing, and return the statistics by quantity and layer."""
        table: FloatArray = np.asarray(self.be.to_numpy(self._table), np.float64)
        return {
            (quantity, layer): self._statistics(size, row)
            for (quantity, layer, size), row in zip(self._keys, table, strict=False)
        }

    @np.errstate(all="ignore")
    def _statistics(self, size: int, row: Any) -> Statistics:
        shift = row[SHIFT] / size
        variance = row[SHIFTED] / size - shift * shift
        return Statistics(
            size=size,
            mean=float(row[TOTAL] / size),
            std=float(np.sqrt(max(variance, 0.0))) if not np.isnan(variance) else float("nan"),
            min=float(row[LOW]),
            max=float(row[HIGH]),
            norm=float(np.sqrt(row[SQUARES])),
            zeros=float(row[ZEROS] / size),
            not_finite=int(row[BAD]),
        )
