"""What every backend must do, as plain functions: ``check_<op>(be, dtype, rng, ...)``, the list `CASES` and `run_all`.

Each check makes its data on the host, brings it to the backend in the memory layout asked for, runs the operation
twice into fresh outputs, and compares with float64 NumPy:

* the object returned is ``out``; values, dtype and shape are those of the reference; both runs agree bit for bit,
* inputs are unchanged, and so is the memory around an output that is a view,
* a layout that the contract does not promise is computed rightly or refused with a ShapeError, never wrong
  (on the CPU it must be computed).

The tolerance follows from the length of the sums stated in the operation's table entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.backends import checks_elementwise, checks_memory, checks_rows, checks_sums
from tests.backends.judging import DTYPES, LAYOUTS

SIZES = [(0, 3), (1, 1), (5, 1), (1, 7), (13, 11), (64, 8), (65, 9), (31, 257), (127, 65), (3, 1030), (1100, 9)]
"""No rows, one element, one column, one row, primes, a tile, one past it, more than 8192 elements, wide, tall."""



@dataclass(frozen=True)
class Case:
    """One check with its parameters; `op` is the operation of the contract that it judges."""

    op: str
    name: str
    run: Callable[[Any, Any, np.random.Generator], None]


def _cases() -> Iterable[Case]:
    def case(judged: str, check: Callable[..., None], label: str = "", **kwargs: Any) -> Case:
        words = [check.__name__.removeprefix("check_"), label]
        return Case(judged, "-".join(word for word in words if word), partial(check, **kwargs))

    for m, k, n in [(1, 1, 1), (0, 3, 2), (3, 0, 2), (3, 2, 0), (2, 3, 5), (7, 1, 3), (17, 31, 13), (64, 64, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for m, k, n in [(65, 63, 66), (1, 1030, 3), (130, 7, 1), (2, 9001, 2), (131, 67, 64)]:
        yield case("matmul", check_matmul, f"{m}x{k}x{n}", sizes=(m, k, n))
    for flags in ((True, False), (False, True), (True, True)):
        for sizes in ((17, 31, 13), (5, 5, 5), (1, 4, 1), (65, 33, 2)):
            yield case("matmul", check_matmul, f"{sizes}-{flags}", sizes=sizes, transpose=flags)
        for layouts in (("padded", "padded", "C"), ("T", "T", "C"), ("step", "C", "C"), ("C", "padded", "padded")):
            yield case("matmul", check_matmul, f"{layouts}-{flags}", transpose=flags, layouts=layouts)
    for layouts in (
        ("padded", "C", "C"),
        ("C", "padded", "C"),
        ("T", "step", "C"),
        ("C", "C", "padded"),
        ("C", "C", "T"),
    ):
        yield case("matmul", check_matmul, f"{layouts}", layouts=layouts)
    yield case("matmul", check_matmul_edges)
    yield case("matmul", refuse_matmul)

    for sizes in [*SIZES, (9001, 2)]:
        yield case("column_sums", check_column_sums, f"{sizes}", sizes=sizes)
    for layout in LAYOUTS[1:]:
        yield case("column_sums", check_column_sums, layout, sizes=(67, 13), layout=layout)
    yield case("column_sums", check_column_sums_edges)
    yield case("column_sums", refuse_column_sums)

    for op, check in (("total", check_total), ("sum_squares", check_sum_squares)):
        for shape in [*SIZES, (0,), (1,), (8191,), (8192,), (8193,), (20_011,)]:
            yield case(op, check, f"{shape}", shape=shape)
        for layout in LAYOUTS[1:]:
            yield case(op, check, layout, shape=(67, 13), layout=layout)
        yield case(op, check_sums_in_float64, op, op=op)
        yield case(op, refuse_total, op, op=op)

    for op, check in (
        ("softmax", check_rows),
        ("log_softmax", check_rows),
        ("backprop_softmax", check_backprop_rows),
        ("backprop_log_softmax", check_backprop_rows),
    ):
        for sizes in SIZES:
            yield case(op, check, f"{op}-{sizes}", op=op, sizes=sizes)
        for layout in LAYOUTS[1:]:
            yield case(op, check, f"{op}-in-{layout}", op=op, layout=layout)
            yield case(op, check, f"{op}-out-{layout}", op=op, out_layout=layout)
        yield case(op, refuse_rows, op, op=op)
    yield case("softmax", check_rows_edges, "softmax", op="softmax")
    yield case("log_softmax", check_rows_edges, "log_softmax", op="log_softmax")

    for shape, m in [
        ((1, 1), 1),
        ((5, 1), 9),
        ((1, 7), 3),
        ((13, 11), 0),
        ((13, 11), 29),
        ((1100, 9), 997),
        ((3, 1030), 64),
    ]:
        yield case("take_rows", check_take_rows, f"{shape}-{m}", shape=shape, m=m)
    yield case("take_rows", check_take_rows, "vector", shape=(13,), m=29)
    yield case("take_rows", check_take_rows, "no-columns", shape=(4, 0), m=3)
    for layout in LAYOUTS[1:]:
        yield case("take_rows", check_take_rows, f"in-{layout}", layout=layout)
        yield case("take_rows", check_take_rows, f"out-{layout}", out_layout=layout)
    yield case("take_rows", refuse_take_rows)

    for sizes in [*SIZES, (9001, 1)]:
        yield case("row_hits", check_row_hits, f"{sizes}", sizes=sizes)
    for layout in LAYOUTS[1:]:
        yield case("row_hits", check_row_hits, layout, layout=layout)
    yield case("row_hits", check_row_hits_edges)

    for shape in [*SIZES, (3, 0), (), (1,), (7,), (8193,), (20_011,), (1, 9001), (9001, 1)]:
        yield case("elementwise", check_elementwise, f"{shape}", shape=shape, row="full" if len(shape) < 2 else "row")
        yield case("elementwise", check_elementwise_in_place, f"{shape}", shape=shape)
    yield case("elementwise", check_elementwise, "row1", row="row1")
    for layout in LAYOUTS[1:]:
        yield case("elementwise", check_elementwise, f"in-{layout}", layout=layout, row="full")
        yield case("elementwise", check_elementwise, f"out-{layout}", out_layout=layout)
        yield case("elementwise", check_elementwise_in_place, layout, layout=layout)
    yield case("elementwise", check_elementwise, "large-padded", shape=(127, 131), layout="padded", out_layout="step")
    yield case("elementwise", check_elementwise_swap)
    yield case("elementwise", check_functions_at_the_edges)
    yield case("elementwise", check_operators_at_the_edges)
    yield case("elementwise", refuse_elementwise)

    for n in (0, 1, 3, 4, 5, 127, 8192, 8195, 20_011):
        yield case("random_bits", check_random_bits, f"{n}", n=n, address=n % 4)
    for address in range(len(ADDRESSES)):
        yield case("random_bits", check_random_bits, f"address-{address}", n=21, address=address)
    yield case("random_bits", refuse_random_bits)

    for shape in ((0, 4), (1, 1), (13, 11), (130, 67), (9001, 1), (7,)):
        yield case("dropout_mask", check_dropout_mask, f"{shape}", shape=shape, address=3, rate=0.3)
    for rate in (0.0, 0.1, 0.5, 0.75, 0.999):
        yield case("dropout_mask", check_dropout_mask, f"rate-{rate}", rate=rate, address=2)
    for layout in LAYOUTS[1:]:
        yield case("dropout_mask", check_dropout_mask, layout, out_layout=layout, address=1)
    yield case("dropout_mask", check_dropout_rate)

    yield case("memory", check_memory)
    yield case("all_finite", check_all_finite)
    yield case("evaluate", check_evaluate)


CASES: list[Case] = list(_cases())


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
