"""The conformance suite: what every backend must do. `CASES` lists the checks, `run_all` runs them on a backend.

The checks are plain functions ``check_<op>(be, dtype, rng, ...)`` in the files ``checks_*.py`` beside this one.

Each check makes its data on the host, brings it to the backend in the memory layout asked for, runs the operation
twice into fresh outputs, and compares with float64 NumPy:

* the object returned is ``out``; values, dtype and shape are those of the reference; both runs agree bit for bit,
* inputs are unchanged, and so is the memory around an output that is a view,
* a layout that the contract does not promise is computed rightly or refused with a ShapeError, never wrong
  (on the CPU it must be computed).

The tolerance follows from the length of the sums stated in the operation's table entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.backends import checks_elementwise, checks_memory, checks_rows, checks_sums
from tests.backends.judging import DTYPES, Case

__all__ = ["CASES", "DTYPES", "Case", "run_all", "run_case"]

CASES: list[Case] = [
    *checks_sums.cases(),
    *checks_rows.cases(),
    *checks_elementwise.cases(),
    *checks_memory.cases(),
]
"""Every check; those whose name begins with ``refuse`` judge what is refused, the others what is computed."""


def run_case(be: Any, case: Case, dtype: Any) -> None:
    """Run one case with the numbers that it always gets."""
    case.run(be, np.dtype(dtype), np.random.default_rng(20240229))


def run_all(be: Any, ops: Iterable[str] | None = None) -> int:
    """Run the whole suite, or that of some operations; raise at the first defect, return the number of checks."""
    chosen = [case for case in CASES if ops is None or case.op in set(ops)]
    for case in chosen:
        for dtype in DTYPES:
            try:
                run_case(be, case, dtype)
            except AssertionError as error:
                raise AssertionError(f"{case.op}: {case.name} in {dtype}: {error}") from error
    return 2 * len(chosen)
