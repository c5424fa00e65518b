"""Targets that come in chunks: told apart as classes or numbers, and turned into numbers that a file can hold."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from bpcore.data.arrays import check_matrix, host_array
from bpcore.data.datasets import Task
from bpcore.data.files import MOST_NUMERIC_CLASSES
from bpcore.data.preprocessing import ClassList
from bpcore.data.store import LabelMap
from bpcore.errors import DataError, ShapeError
from bpcore.typing import NDArray

__all__ = ["TargetColumns"]

MOST_CLASSES = 100_000


class TargetColumns:
    """Collects the targets of a data set that is read once.

    Parameters
    ----------
    task : ``"auto"``, ``"classification"``, ``"regression"`` or ``"as given"``
        As for :func:`~bpcore.data.files.load_file`; ``"as given"``: text is collected as classes, numbers stay what
        they are.
    known : (LabelMap or None, classes), optional
        Those of another store, which these targets have to fit.
    """

    def __init__(
        self, task: Task | Literal["auto", "as given"], known: tuple[LabelMap | None, Any] | None = None
    ) -> None:
        self.task, self.known = task, known
        self.width: int | None = None
        self.rows = 0
        self._text: dict[str, int] | None = None
        self._different: set[float] = set()
        self._whole = True
        self._kind: str | None = None

    def add(self, y: object, first_row: int, m: int) -> NDArray[np.float64]:
        """Check the targets of a chunk of m rows and return what is written, float64 of shape (m, width)."""
        values = host_array(y, name="y", allow_text=True)
        kind = "text" if values.dtype.kind in "UT" else "numbers" if values.dtype.kind == "f" else "whole numbers"
        width = 1 if values.ndim == 1 else values.shape[1] if values.ndim == 2 else 0
        if values.ndim not in (1, 2) or len(values) != m or (kind == "text" and values.ndim != 1):
            raise ShapeError(f"y of the chunk at row {first_row} has shape {values.shape}; expected ({m},) or ({m}, n)")
        if (self._kind, self.width) not in ((None, None), (kind, width)):
            raise DataError(
                f"y of the chunk at row {first_row} holds {kind} ({width} for each sample), but before it were "
                f"{self._kind} ({self.width} for each sample); all chunks need the same"
            )
        self._kind, self.width = kind, width
        self.rows += m
        if kind == "text":
            return self._codes(values, first_row)
        matrix = check_matrix(values.reshape(m, width), name="y", dtype=np.float64, first_row=first_row)
        if self._collects and width == 1:
            self._collect(matrix, first_row)
        return matrix

    @property
    def _collects(self) -> bool:
        return self.task in ("auto", "classification") or (self.known is not None and self.known[0] is not None)

    @property
    def integers(self) -> bool:
        """Whether the targets are whole numbers that were not collected: labels, if the network has several outputs."""
        return self.task == "as given" and self.known_map is None and self._kind == "whole numbers" and self.width == 1

    @property
    def known_map(self) -> LabelMap | None:
        """How the targets of another store are read."""
        return None if self.known is None else self.known[0]

    def _codes(self, values: NDArray[Any], first_row: int) -> NDArray[np.float64]:
        if self.task == "regression":
            raise DataError("the targets are text, which cannot be a target of regression")
        if self._text is None:
            names = [] if self.known is None or self.known[1] is None else self.known[1]
            self._text = {str(name): i for i, name in enumerate(names)}
        unique, inverse = np.unique(values, return_inverse=True)
        codes = np.empty(len(unique))
        for i, text in enumerate(unique.tolist()):
            if text not in self._text:
                if self.known is not None:
                    row = first_row + int(np.argmax(values == text))
                    raise DataError(f"label {text!r} in row {row} is not one of the classes {list(self._text)}")
                if len(self._text) == MOST_CLASSES:
                    raise DataError(f"the targets are more than {MOST_CLASSES} different texts, too many to be classes")
                self._text[text] = len(self._text)
            codes[i] = self._text[text]
        return codes[inverse.reshape(-1), None]

    def _collect(self, matrix: NDArray[np.float64], first_row: int) -> None:
        limit = MOST_NUMERIC_CLASSES + 1 if self.task == "auto" else MOST_CLASSES
        if len(self._different) < limit:
            self._different |= set(np.unique(matrix).tolist())
        self._whole = self._whole and bool((matrix == np.floor(matrix)).all())
        if self.task == "auto":
            return
        if len(self._different) >= limit:
            raise DataError(f"the targets are {limit} or more different numbers, too many to be classes")
        if not self._whole:
            row = first_row + int(np.argmax(matrix[:, 0] != np.floor(matrix[:, 0])))
            raise DataError(f"label {matrix[row - first_row, 0]} in row {row} is not a whole number")

    def finish(self) -> tuple[LabelMap | None, tuple[str, ...] | tuple[int, ...] | None]:
        """Return how classes are read, and what they are called; both None for numbers.

        Raises
        ------
        DataError
            If there is only one class, or labels do not fit those of another store.
        """
        if self.known is not None:
            return self._fitting(*self.known)
        if self._text is not None:
            names = sorted(self._text)
            if len(names) == 1:
                ClassList.fit([names[0]])  # refuses
            order = {name: i for i, name in enumerate(names)}
            labels = np.array([order[name] for name in self._text], dtype=np.int64)
            return LabelMap(np.arange(len(names), dtype=np.float64), labels), tuple(names)
        if not self._collects or self.width != 1:
            if self.task == "classification":
                raise DataError(f"the targets are {self.width} numbers for each sample; class labels must be one")
            return None, None
        found = sorted(self._different)
        few = len(found) <= MOST_NUMERIC_CLASSES and 2 * len(found) <= self.rows
        if self.task == "auto" and not (self._whole and few):
            return None, None
        classes = ClassList.fit(np.array(found))
        return LabelMap(np.array(found), np.arange(len(found))), classes.names

    def _fitting(
        self, label_map: LabelMap | None, classes: Any
    ) -> tuple[LabelMap | None, tuple[str, ...] | tuple[int, ...] | None]:
        if self._text is not None:  # coded by the names of the classes
            if label_map is None or not classes:
                raise DataError("the targets are text, but those that they have to fit are not")
            return LabelMap(np.arange(len(classes), dtype=np.float64), np.arange(len(classes))), classes
        if label_map is not None:
            if classes and isinstance(classes[0], str):
                raise DataError(f"the targets are numbers, but those that they have to fit are {list(classes)}")
            other = sorted(self._different - set(label_map.values.tolist()))
            if other:
                raise DataError(f"label {other[0]:g} is not one of the classes {[int(v) for v in label_map.values]}")
        return label_map, classes
