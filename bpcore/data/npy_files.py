"""Reading single arrays: ``.npy`` files, mapped into memory instead of read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bpcore.errors import DataError
from bpcore.typing import NDArray

__all__ = ["RecordPart", "load_npy"]


def load_npy(path: str | Path) -> NDArray[Any]:
    """Map the array of a ``.npy`` file into memory, read-only.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    numpy.memmap
        Of any dtype but object; structured ones, too. An array without numbers is read.

    Raises
    ------
    DataError
        If the file cannot be read, was cut off, or holds pickled objects, which can run code.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "X.npy"), np.eye(2))
    ...     load_npy(Path(folder, "X.npy")).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    try:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "empty" not in str(error):
                raise
            array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # NumPy raises several classes for damaged headers; all of them mean the same here
        if "pickle" in str(error) or "objects" in str(error):
            raise DataError(
                f"{path} holds pickled Python objects, which are refused because they can run code; save an array of "
                "numbers (or of text, for labels)"
            ) from error
        raise DataError(f"cannot read {path} as an .npy file, which may have been cut off: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of several arrays; name it .npz")
    return array


@dataclass(frozen=True)
class RecordPart:
    """Rows of an array with named fields; see :class:`~bpcore.data.tables.TablePart`.

    Attributes
    ----------
    path : Path
        The file.
    array : ndarray, shape (m,)
        Its records.
    first_row : int
        Number of the first one in the file.
    """

    path: Path
    array: NDArray[Any]
    first_row: int = 0
    has_header: bool = True

    def __post_init__(self) -> None:
        if self.array.ndim != 1 or not len(self.array):
            raise DataError(
                f"{self.path} has named fields and shape {self.array.shape}; a vector with one record for each "
                "sample is needed"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields."""
        return tuple(self.array.dtype.names or ())

    @property
    def m(self) -> int:
        """Number of rows."""
        return len(self.array)

    def values(self, column: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a field as float64 or as text, and what is missing: NaN, or no text.

        Raises
        ------
        DataError
            If it holds dates, several numbers, or anything else that is neither a number nor text.
        """
        values = self.array[self.names[column]]
        if values.dtype.kind == "U" and values.ndim == 1:
            return np.array(values), np.asarray(values == "")
        if values.dtype.kind not in "biuf" or values.ndim != 1:
            what = f"{values.dtype}" if values.ndim == 1 else f"{values.shape[1:]} values a record"
            raise DataError(
                f"{self.path}: field {self.names[column]!r} holds {what}; possible: numbers, truth values, text. "
                f"Convert it, or leave it out with --drop {self.names[column]}"
            )
        numbers = values.astype(np.float64)
        if np.isinf(numbers).any():
            row = int(np.argmax(np.isinf(numbers)))
            raise DataError(f"{self.place(row, column)}: {numbers[row]} is not a finite number; repair or remove it")
        return numbers, np.isnan(numbers)

    def place(self, row: int, column: int) -> str:
        """Spell file, row (from 0) and field."""
        return f"{self.path}, row {self.first_row + row} (counted from 0), column {self.names[column]!r}"

    def cell(self, row: int, column: int) -> str:
        """Spell one value."""
        return str(self.array[self.names[column]][row])
