"""What the preparation of features is fitted from when rows come in chunks: moments, counts, medians."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bpcore.data.fitting import assemble, standardizer_of
from bpcore.data.medians import medians
from bpcore.data.missing import FILLS, Imputer
from bpcore.data.moments import Moments
from bpcore.data.one_hot import OneHot, Pipeline
from bpcore.data.preprocessing import Preprocessing
from bpcore.errors import DataError, unknown
from bpcore.typing import NDArray

__all__ = ["Statistics"]

MOST_DIFFERENT = 10_000
"""Different values of a column that are counted to find the most frequent one."""


class Statistics:
    """Gathers, chunk by chunk, what :func:`~bpcore.data.fitting.fit_preprocessing` finds in a matrix.

    Parameters
    ----------
    names : tuple of str, length n
        Names of the columns.
    missing : str
        What is done about missing values; see :func:`~bpcore.data.fitting.fit_preprocessing`.
    constant : float
        The value for ``"constant"``.
    categories : mapping of str to sequence of str
        Columns of categories, which may become more as chunks are added.
    """

    def __init__(
        self, names: tuple[str, ...], missing: str, constant: float, categories: Mapping[str, Sequence[str]]
    ) -> None:
        if missing != "refuse" and missing not in FILLS:
            raise unknown("value for missing", missing, ["refuse", *FILLS])
        self.names, self.missing, self.constant, self.categories = names, missing, constant, categories
        self.moments = Moments(len(names))
        self._counts: list[Counter[float]] = [Counter() for _ in names]

    def add(self, X: NDArray[Any]) -> None:
        """Add a chunk of rows, shape (m, n); NaN is a missing value."""
        if not len(X):
            return
        self.moments.add(X)
        if self.missing == "refuse":
            return
        for j, name in enumerate(self.names):
            if self.missing == "most-frequent" or name in self.categories:
                column = X[:, j]
                values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
                self._counts[j].update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
                if len(self._counts[j]) > MOST_DIFFERENT:
                    raise DataError(
                        f"column {name!r} has more than {MOST_DIFFERENT} different values, of which the most frequent "
                        "one says nothing; use --missing mean or median"
                    )

    def fit(
        self, blocks: Callable[[], Iterable[NDArray[Any]]], dtype: Any, *, standardize: bool
    ) -> Preprocessing | None:
        """Build the preprocessing.

        Parameters
        ----------
        blocks : callable
            Returns the rows that were added, in blocks; read again if medians are asked for.
        dtype : dtype
            Theirs.
        standardize : bool
            Whether numbers are standardised.

        Returns
        -------
        Preprocessing or None
            None if nothing is to be done.
        """
        imputer = None
        if self.missing != "refuse":
            values = self._values(blocks, dtype)
            self.moments.add_constant(values, self.moments.missing)
            imputer = Imputer(tuple(values.tolist()), self.missing)
        if standardize:
            return assemble(imputer, standardizer_of(self.moments), self.names, self.categories)
        steps: list[Preprocessing] = [] if imputer is None else [imputer]
        if self.categories:
            steps.append(OneHot(tuple(len(self.categories.get(name, ())) for name in self.names)))
        return None if not steps else steps[0] if len(steps) == 1 else Pipeline(tuple(steps))

    def _values(self, blocks: Callable[[], Iterable[NDArray[Any]]], dtype: Any) -> NDArray[np.float64]:
        by_count = np.array([name in self.categories or self.missing == "most-frequent" for name in self.names])
        if self.missing != "constant":
            self.moments.check_some(self.names)
        values = np.full(len(self.names), self.constant)
        if self.missing == "mean":
            values = self.moments.mean
        elif self.missing == "median" and not by_count.all():
            plain = np.flatnonzero(~by_count)
            found = medians(lambda: (block[:, plain] for block in blocks()), self.moments.count[plain], dtype)
            values[plain] = found
        for j in np.flatnonzero(by_count):
            counts = self._counts[j]
            if not counts:
                raise DataError(
                    f"in the training part every value of column {self.names[j]!r} is missing; remove the column"
                )
            most = max(counts.values())
            values[j] = min(value for value, count in counts.items() if count == most)
        return values
