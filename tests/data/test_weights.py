"""Weights of samples and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpcore.data.weights import check_sample_weight, class_weight_to_row_weights
from bpcore.errors import DataError, ShapeError, UnknownNameError


@pytest.mark.parametrize("weights", [[1, 0, 2], np.array([1, 0, 2], np.float32), np.array([1, 9, 0, 9, 2])[::2]])
def test_sample_weights_become_float64(weights: Any) -> None:
    result = check_sample_weight(weights, n_rows=3)
    assert result.dtype == np.float64
    assert result.tolist() == [1, 0, 2]
    assert result.flags.c_contiguous


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1, 2], ShapeError, r"sample_weight has shape \(2,\); expected \(3,\), one weight for each row$"),
        ([[1], [2], [3]], ShapeError, r"has shape \(3, 1\); expected \(3,\).*use sample_weight\.ravel\(\)"),
        (1.0, ShapeError, r"has shape \(\)"),
        ([1, -2, -3], DataError, r"sample_weight\[1\] is -2; weights must be 0 or positive"),
        ([0, 0, 0], DataError, r"sample_weight is 0 for every row"),
        ([1, np.nan, 1], DataError, r"sample_weight contains 1 value .* nan in row 1"),
        ([1, np.inf, 1], DataError, r"sample_weight contains 1 value .* inf in row 1"),
        (["a", "b", "c"], DataError, r"sample_weight holds text"),
    ],
)
def test_sample_weights_refused(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_sample_weight(weights, n_rows=3)


def test_balanced_weights_give_every_class_the_same_sum(rng: np.random.Generator) -> None:
    labels = rng.choice(4, size=101, p=[0.7, 0.2, 0.1, 0.0])
    rows = class_weight_to_row_weights(labels, "balanced", n_classes=4)
    sums = [rows[labels == c].sum() for c in range(3)]
    # each is a sum of at most 101 equal terms
    np.testing.assert_allclose(sums, 101 / 3, rtol=101 * np.finfo(float).eps)
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    np.testing.assert_allclose(rows, sklearn.compute_sample_weight("balanced", labels), rtol=1e-15)


def test_weights_by_number_and_by_name() -> None:
    labels = np.array([0, 2, 1, 2])
    assert class_weight_to_row_weights(labels, {2: 3, 0: 0}).tolist() == [0, 3, 1, 3]
    assert class_weight_to_row_weights(labels, {"c": 0.5}, classes=["a", "b", "c"]).tolist() == [1, 0.5, 1, 0.5]
    assert class_weight_to_row_weights(labels, {7: 2.0}, classes=[5, 6, 7]).tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("class_weight", "error", "message"),
    [
        ("balance", UnknownNameError, r"unknown class_weight 'balance'.*Did you mean 'balanced'"),
        ({3: 1.0}, UnknownNameError, r"unknown class in class_weight 3; known: 0, 1, 2"),
        ({0: -1.0}, DataError, r"class_weight\[0\] is -1\.0; weights must be finite and 0 or positive"),
        ({0: np.nan}, DataError, r"class_weight\[0\] is nan"),
        ({0: "much"}, DataError, r"class_weight\[0\] is 'much'; a number is needed"),
        ({0: 0, 1: 0, 2: 0}, DataError, "gives every row the weight 0"),
    ],
)
def test_class_weights_refused(class_weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        class_weight_to_row_weights(np.array([0, 1, 2]), class_weight)
