"""Statistics of arrays, taken where the arrays are: seven numbers of each cross to the host, all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpcore.backends.contract import Backend
from bpcore.functions.program import Program
from bpcore.typing import Array, DType, FloatArray

__all__ = ["Gauge", "Statistics"]

MEAN, CENTRED, LOW, HIGH, SQUARES, ZEROS, BAD = range(7)

_MEAN = Program("mean = total / n", name="mean")
_CENTRE = Program("d = a - mean", name="distance from the mean")
_ZERO = Program("found = where(a == 0, 1, 0)", name="zeros")
_BAD = Program("found = where(abs(a) <= largest, 0, 1)", name="not finite")


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
        self._table = be.zeros((count, 7), np.float64)
        self._keys: list[tuple[str, int, int]] = []
        self._mean64, self._mean = be.empty(1, np.float64), be.empty(1, self.dtype)
        self._scratch: dict[tuple[int, ...], Array] = {}
        self._largest = float(np.finfo(self.dtype).max)

    def scratch(self, shape: tuple[int, ...]) -> Array:
        """Return memory of a shape, whose content nobody relies on."""
        if shape not in self._scratch:
            self._scratch[shape] = self.be.empty(shape, self.dtype)
        return self._scratch[shape]

    @np.errstate(all="ignore")
    def measure(self, quantity: str, layer: int, array: Array) -> None:
        """Take the statistics of an array; it is only read, and may change afterwards."""
        be, row = self.be, self._table[len(self._keys)]
        size = int(np.prod(array.shape))
        self._keys.append((quantity, layer, size))
        be.total(array, out=row[MEAN : MEAN + 1])
        be.sum_squares(array, out=row[SQUARES : SQUARES + 1])
        be.elementwise(_MEAN, out=self._mean64, total=row[MEAN : MEAN + 1], n=float(size))
        be.copy(self._mean64, out=self._mean)
        # around the mean, so that a small spread of large numbers keeps its digits
        found = be.elementwise(_CENTRE, out=self.scratch(array.shape), a=array, mean=self._mean)
        be.sum_squares(found, out=row[CENTRED : CENTRED + 1])
        for program, at, numbers in ((_ZERO, ZEROS, {}), (_BAD, BAD, {"largest": self._largest})):
            be.elementwise(program, out=found, a=array, **numbers)
            be.total(found, out=row[at : at + 1])
        be.copy(be.xp.min(array).reshape(1), out=row[LOW : LOW + 1])
        be.copy(be.xp.max(array).reshape(1), out=row[HIGH : HIGH + 1])

    def read(self) -> dict[tuple[str, int], Statistics]:
        """Bring the table to the host, the only crossing, and return the statistics by quantity and layer."""
        table: FloatArray = np.asarray(self.be.to_numpy(self._table), np.float64)
        return {
            (quantity, layer): self._statistics(size, row)
            for (quantity, layer, size), row in zip(self._keys, table, strict=False)
        }

    @np.errstate(all="ignore")
    def _statistics(self, size: int, row: Any) -> Statistics:
        mean = row[MEAN] / size
        # the centre was rounded to the dtype of the array
        off = mean - np.float64(self.dtype.type(mean))
        variance = row[CENTRED] / size - off * off
        return Statistics(
            size=size,
            mean=float(mean),
            std=float(np.sqrt(max(variance, 0.0))) if not np.isnan(variance) else float("nan"),
            min=float(row[LOW]),
            max=float(row[HIGH]),
            norm=float(np.sqrt(row[SQUARES])),
            zeros=float(row[ZEROS] / size),
            not_finite=int(row[BAD]),
        )
