"""The problem that all contenders are given: the same in each process, in the dtype of the workload."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bpcore.bench.problem import ORDERS, Problem
from bpcore.bench.workload import Workload

SMALL = Workload("train", (3, 4, 2), "tanh", "softmax", "cross_entropy", "momentum", 5, 50, 6, 0.1)


def test_the_orders_are_epochs_of_all_rows() -> None:
    problem = Problem.make(SMALL)
    assert problem.orders.shape == (ORDERS, 6, 5)
    flat = problem.orders.reshape(-1)
    # 240 numbers: four epochs, and the beginning of a fifth
    for k in range(4):
        assert sorted(flat[50 * k : 50 * (k + 1)]) == list(range(50))
    assert not np.array_equal(flat[:50], flat[50:100])
    np.testing.assert_array_equal(problem.order(7, 2)[:6], problem.orders[7])
    np.testing.assert_array_equal(problem.order(7, 2)[6:], problem.orders[0])


def test_rows_that_fill_no_mini_batch_are_left_out() -> None:
    """Each epoch leaves out others."""
    orders = Problem.make(replace(SMALL, rows=52)).orders.reshape(-1)
    assert len(set(orders[:50])) == len(set(orders[50:100])) == 50
    assert set(orders) == set(range(52))


def test_a_full_batch_is_taken_as_it_lies() -> None:
    problem = Problem.make(replace(SMALL, batch=50))
    np.testing.assert_array_equal(problem.order(0, 1), np.tile(np.arange(50), (6, 1)))
    assert problem.orders.nbytes == 8 * ORDERS * 6 * 50
    assert problem.orders.base is not None, "no copies of the same numbers"
    asked = problem.inputs()
    assert len(asked) == 6
    np.testing.assert_array_equal(asked[1][1:], problem.X[:-1])


def test_what_predict_is_asked_follows_the_order() -> None:
    problem = Problem.make(replace(SMALL, kind="predict"))
    for x, rows in zip(problem.inputs(), problem.orders[0], strict=True):
        np.testing.assert_array_equal(x, problem.X[rows])


def test_another_process_makes_the_same() -> None:
    code = (
        "import sys, zlib; from bpcore.bench.problem import Problem; from bpcore.bench.workload import Workload;"
        f"p = Problem.make({SMALL!r});"
        "print(*(zlib.crc32(a.tobytes()) for a in (p.X, p.Y, p.labels, p.orders, *(a for p in p.weights for a in p))))"
    )
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout]
    found.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert len(found[0].split()) == 8
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
@pytest.mark.parametrize(
    ("loss", "n_out"), [("cross_entropy", 3), ("binary_cross_entropy", 1), ("quadratic", 3), ("mse", 2)]
)
def test_targets_go_with_the_loss(loss: str, n_out: int, precision: str) -> None:
    work = replace(SMALL, sizes=(3, 4, n_out), loss=loss, precision=precision)
    problem = Problem.make(work)
    assert problem.X.dtype == problem.Y.dtype == work.dtype
    assert {array.dtype for pair in problem.weights for array in pair} == {work.dtype}
    assert [(W.shape, b.shape) for W, b in problem.weights] == [((3, 4), (4,)), ((4, n_out), (n_out,))]
    assert problem.Y.shape == (50, n_out)
    assert problem.Y.flags.c_contiguous
    if loss == "mse":
        assert not problem.labels.any()
        assert 0 < abs(problem.Y).max() < 1
        return
    assert len(set(problem.labels)) == max(n_out, 2), "each class is met"
    expected = problem.labels[:, None] if n_out == 1 else np.eye(n_out)[problem.labels]
    np.testing.assert_array_equal(problem.Y, expected)


def test_both_precisions_are_given_the_same_numbers() -> None:
    single, double = Problem.make(SMALL), Problem.make(replace(SMALL, precision="float64"))
    np.testing.assert_array_equal(single.X, double.X)
    for (W, b), (W_double, b_double) in zip(single.weights, double.weights, strict=True):
        np.testing.assert_array_equal(W, W_double)
        np.testing.assert_array_equal(b, b_double)
    assert all(np.abs(b).min() > 0 for _, b in single.weights), "a bias that is not 0 shows who forgets it"
