"""Encoding of labels and targets for every kind of loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bpcore.data.targets import encode_targets
from bpcore.errors import DataError, ShapeError

INF = float("inf")


@dataclass
class FakeLoss:
    name: str
    target_kind: str
    target_range: tuple[float, float]
    label_smoothing: float = 0.0
    prediction_range: tuple[float, float] = (0.0, 1.0)


DISTRIBUTION = FakeLoss("cross_entropy", "distribution", (0.0, 1.0))
PROBABILITY = FakeLoss("binary_cross_entropy", "probability", (0.0, 1.0))
LOGITS = FakeLoss("binary_cross_entropy_logits", "probability", (0.0, 1.0), prediction_range=(-INF, INF))
SIGN = FakeLoss("hinge", "sign", (-1.0, 1.0), prediction_range=(-INF, INF))
REAL = FakeLoss("quadratic", "real", (-INF, INF), prediction_range=(-INF, INF))


def encode(Y: Any, n_out: int, loss: FakeLoss, dtype: str = "float64", **more: Any) -> Any:
    return encode_targets(Y, n_out=n_out, loss_targets=loss, dtype=dtype, **more)


@pytest.mark.parametrize("loss", [DISTRIBUTION, PROBABILITY, REAL, SIGN], ids=lambda loss: loss.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels_dtype", ["int8", "uint64", "int64"])
def test_integer_labels_become_coded_rows(loss: FakeLoss, dtype: str, labels_dtype: str) -> None:
    encoded = encode(np.array([2, 0, 1, 2], dtype=labels_dtype), 3, loss, dtype)
    low = -1 if loss is SIGN else 0
    assert encoded.Y.tolist() == [[low, low, 1], [1, low, low], [low, 1, low], [low, low, 1]]
    assert encoded.Y.dtype == dtype
    assert encoded.Y.flags.c_contiguous
    assert encoded.labels.tolist() == [2, 0, 1, 2]
    assert encoded.labels.dtype == np.int64


def test_bool_labels_and_plain_lists() -> None:
    assert encode([True, False], 2, DISTRIBUTION).Y.tolist() == [[0, 1], [1, 0]]
    assert encode([1, 0], 2, DISTRIBUTION).labels.tolist() == [1, 0]


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
def test_label_out_of_range_names_value_row_and_range(bad: int) -> None:
    message = rf"label {bad} in row 1 of Yv .*a network with 3 outputs has the labels 0 to 2"
    with pytest.raises(DataError, match=message):
        encode([0, bad, 7], 3, DISTRIBUTION, name="Yv")


def test_float_vector_with_several_outputs_is_refused() -> None:
    message = r"Y is a vector of float64 but the network has 3 outputs.*Y\.astype\(np\.int64\).*\(m, 3\)"
    with pytest.raises(DataError, match=message):
        encode([0.0, 1.0], 3, REAL)


@pytest.mark.parametrize(("loss", "threshold"), [(PROBABILITY, 0.5), (LOGITS, 0.0), (SIGN, 0.0), (REAL, 0.5)])
def test_threshold_of_one_output(loss: FakeLoss, threshold: float) -> None:
    encoded = encode(np.array([True, False]), 1, loss)
    assert encoded.threshold == threshold
    assert encoded.labels.tolist() == [1, 0]
    assert encoded.Y.tolist() == ([[1], [-1]] if loss is SIGN else [[1], [0]])


@pytest.mark.parametrize("Y", [[0, 1, 1], [[0], [1], [1]], [0.0, 1.0, 1.0], np.array([[0.0], [1.0], [1.0]])])
def test_one_column_of_zeros_and_ones_is_classes(Y: Any) -> None:
    encoded = encode(Y, 1, PROBABILITY)
    assert encoded.Y.tolist() == [[0], [1], [1]]
    assert encoded.labels.tolist() == [0, 1, 1]


def test_soft_targets_of_one_column_are_no_classes() -> None:
    encoded = encode([0.25, 1.0], 1, PROBABILITY)
    assert encoded.Y.tolist() == [[0.25], [1.0]]
    assert encoded.labels is None


@pytest.mark.parametrize("Y", [[-1, 1], [-1.0, 1.0], [0, 1], [False, True]])
def test_sign_targets_from_either_coding(Y: Any) -> None:
    encoded = encode(Y, 1, SIGN)
    assert encoded.Y.tolist() == [[-1], [1]]
    assert encoded.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        ([-1, 0, 1], r"Y contains 0 in row 1, column 0 .* but hinge needs targets that are -1 or 1$"),
        ([0.0, 1.0], r"Y contains 0\.0 in row 0, .* hinge needs targets that are -1 or 1; use 2 \* Y - 1"),
        ([0.5, 1.0], r"Y contains 0\.5 in row 0"),
    ],
)
def test_other_values_are_no_signs(Y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(Y, 1, SIGN)


def test_two_classes_only_with_one_output() -> None:
    message = r"label 2 in row 1 of Y .*one output tells two classes apart, 0 and 1; use one output for each class"
    with pytest.raises(DataError, match=message):
        encode([0, 2], 1, PROBABILITY)


@pytest.mark.parametrize("Y", [[1.5, -3.0], [[1.5], [-3.0]], [15, -3]])
def test_regression_has_no_classes(Y: Any) -> None:
    encoded = encode(Y, 1, REAL, "float32")
    assert encoded.Y.reshape(-1).tolist() == np.reshape(Y, -1).tolist()
    assert encoded.Y.shape == (2, 1)
    assert encoded.labels is None


def test_matrix_of_targets_is_used_as_is() -> None:
    Y = np.array([[0.5, -2.0], [3.0, 4.0]])
    encoded = encode(Y, 2, REAL)
    assert encoded.Y is Y
    assert encoded.labels is None


@pytest.mark.parametrize(
    ("Y", "labels"),
    [
        ([[0, 1], [1, 0]], [1, 0]),
        ([[0.0, 1.0], [1.0, 0.0]], [1, 0]),
        ([[0, 1], [1, 1]], None),
        ([[0, 0], [1, 0]], None),
        ([[0.5, 0.5], [1, 0]], None),
    ],
)
def test_one_hot_rows_are_recognised(Y: Any, labels: Any) -> None:
    found = encode(Y, 2, PROBABILITY).labels
    assert (None if found is None else found.tolist()) == labels


def test_sign_rows_are_recognised() -> None:
    assert encode([[-1.0, 1.0], [1.0, -1.0]], 2, SIGN).labels.tolist() == [1, 0]
    assert encode([[-1.0, -1.0], [1.0, -1.0]], 2, SIGN).labels is None
    with pytest.raises(DataError, match=r"0\.0 in row 0, column 0"):
        encode([[0.0, 1.0]], 2, SIGN)


def test_layout_of_input_does_not_matter_and_is_not_modified() -> None:
    Y = np.asfortranarray(np.array([[0.2, 0.8], [0.6, 0.4], [1.0, 0.0]]))
    Y.flags.writeable = False
    encoded = encode(Y[::-1], 2, DISTRIBUTION)
    assert encoded.Y.flags.c_contiguous
    assert encoded.Y.flags.writeable
    assert encoded.Y.tolist() == [[1.0, 0.0], [0.6, 0.4], [0.2, 0.8]]


def test_rows_of_a_distribution_must_sum_to_one() -> None:
    message = r"Y: row 1 .*sums to 0\.9, but cross_entropy needs rows that are probability distributions.*keepdims"
    with pytest.raises(DataError, match=message):
        encode([[0.5, 0.5], [0.5, 0.4]], 2, DISTRIBUTION)


def test_rounding_of_a_float32_softmax_is_no_error(rng: np.random.Generator) -> None:
    Z = rng.normal(size=(50, 1000)).astype(np.float32)
    E = np.exp(Z)
    soft = E / E.sum(axis=1, keepdims=True)
    # in float64 the same sums would be wrong by more than rounding
    assert np.abs(soft.sum(axis=1, dtype=np.float64) - 1).max() > 1e-9
    assert encode(soft, 1000, DISTRIBUTION, "float32").labels is None


def test_cross_entropy_with_one_output_points_to_the_binary_loss() -> None:
    with pytest.raises(DataError, match=r"row 0 .*sums to 0.*with a single output use binary_cross_entropy"):
        encode([0, 1], 1, DISTRIBUTION)


@pytest.mark.parametrize(
    ("loss", "Y", "message"),
    [
        (PROBABILITY, [[0.0, 1.5]], r"Y contains 1\.5 in row 0, column 1 .*binary_cross_entropy needs .* 0 to 1$"),
        (DISTRIBUTION, [[-0.5, 1.5]], r"Y contains -0\.5 in row 0, column 0 .*cross_entropy needs targets from 0 to 1"),
        (PROBABILITY, [[0.0, np.nan]], r"Y contains 1 value that is not finite; the first is nan in row 0, column 1"),
        (REAL, [[0.0, -np.inf]], r"Y contains 1 value that is not finite; the first is -inf"),
    ],
)
def test_values_that_the_loss_does_not_take(loss: FakeLoss, Y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(Y, 2, loss)


def test_label_smoothing() -> None:
    loss = FakeLoss("cross_entropy", "distribution", (0.0, 1.0), label_smoothing=0.3)
    expected = [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]
    for Y in ([2, 0], [[0, 0, 1], [1, 0, 0]]):
        encoded = encode(Y, 3, loss)
        # three roundings of numbers below 1
        np.testing.assert_allclose(encoded.Y, expected, rtol=0, atol=3 * np.finfo(float).eps)
        np.testing.assert_allclose(encoded.Y.sum(axis=1), 1, rtol=0, atol=3 * np.finfo(float).eps)
        assert encoded.labels.tolist() == [2, 0]
    soft = encode([[0.5, 0.5, 0.0]], 3, loss).Y
    np.testing.assert_allclose(soft, [[0.45, 0.45, 0.1]], rtol=0, atol=3 * np.finfo(float).eps)


@pytest.mark.parametrize(
    ("Y", "n_out", "message"),
    [
        (np.zeros((4, 1), int), 3, r"Y has shape \(4, 1\); expected \(m,\) or \(m, 3\).*use Y\.ravel\(\)"),
        (np.zeros((4, 2)), 3, r"Y has shape \(4, 2\); expected \(m,\) or \(m, 3\) for a network with 3 outputs$"),
        (np.zeros((4, 2)), 1, r"Y has shape \(4, 2\); expected \(m,\) or \(m, 1\) for a network with 1 output$"),
        (np.zeros((4, 3, 1)), 3, r"Y has shape \(4, 3, 1\)"),
        (np.float64(3), 1, r"Y has shape \(\)"),
    ],
)
def test_wrong_shapes(Y: Any, n_out: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        encode(Y, n_out, REAL)


def test_rows_must_match_the_samples() -> None:
    with pytest.raises(ShapeError, match=r"Y has 3 rows but X has 4; one target for each sample is needed"):
        encode([0, 1, 1], 2, DISTRIBUTION, n_rows=4)


def test_empty_targets() -> None:
    with pytest.raises(DataError, match=r"Y is empty \(shape \(0,\)\)"):
        encode(np.array([], dtype=int), 2, DISTRIBUTION)


def test_float16_targets_are_refused() -> None:
    with pytest.raises(DataError, match="Y: float16 is not supported"):
        encode(np.ones((2, 1), dtype=np.float16), 1, REAL)


def test_targets_too_large_for_float32() -> None:
    assert encode([1e300], 1, REAL).Y[0, 0] == 1e300
    with pytest.raises(DataError, match=r"Y as float32 contains 1 value .* row 0"):
        encode([1e300], 1, REAL, "float32")


@pytest.mark.parametrize("Y", [["dog", "cat", "dog"], np.array(["dog", "cat", "dog"], dtype=object), [1, 0, 1]])
def test_names_of_classes(Y: Any) -> None:
    encoded = encode(Y, 2, DISTRIBUTION, classes=["cat", "dog"])
    assert encoded.labels.tolist() == [1, 0, 1]
    assert encode(Y, 1, PROBABILITY, classes=["cat", "dog"]).Y.tolist() == [[1], [0], [1]]
    assert encode(Y, 1, REAL, classes=["cat", "dog"]).labels.tolist() == [1, 0, 1]


def test_integer_classes_are_values_not_indices() -> None:
    assert encode([7, 3, 5], 3, DISTRIBUTION, classes=[3, 5, 7]).labels.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"label 4 in row 1 is not one of the classes 3, 5, 7"):
        encode([3, 4], 3, DISTRIBUTION, classes=[3, 5, 7])


def test_unknown_names_and_missing_lists() -> None:
    with pytest.raises(DataError, match=r"label 'cow' in row 1 is not one of the classes 'cat', 'dog'"):
        encode(["cat", "cow"], 2, DISTRIBUTION, classes=["cat", "dog"])
    with pytest.raises(DataError, match=r"Y holds text .*give classes=.*ClassList\.fit\(Y\)\.encode\(Y\)"):
        encode(["cat", "dog"], 2, DISTRIBUTION)
    with pytest.raises(DataError, match="3 classes do not fit a network with 2 outputs, which tells 2 apart"):
        encode(["cat", "dog"], 2, DISTRIBUTION, classes=["a", "b", "c"])
    with pytest.raises(DataError, match="3 classes do not fit a network with 1 output, which tells 2 apart"):
        encode([0, 1], 1, PROBABILITY, classes=["a", "b", "c"])
    with pytest.raises(ShapeError, match=r"text in shape \(1, 2\); labels must be a vector"):
        encode([["cat", "dog"]], 2, DISTRIBUTION, classes=["cat", "dog"])


def test_the_losses_of_bpcore_have_what_the_encoding_asks_for() -> None:
    from bpcore.functions.losses import LOSSES

    for loss in LOSSES.values():
        Y = [1, 0] if loss.target_kind == "distribution" else [[1, 0], [0, 1]]
        if loss.target_kind == "sign":
            Y = [[1, -1], [-1, 1]]
        encoded = encode_targets(np.array(Y), n_out=2, loss_targets=loss, dtype="float32")
        assert encoded.Y.shape == (2, 2), loss.name
    assert encode_targets([0], n_out=1, loss_targets=LOSSES["binary_cross_entropy_logits"], dtype="f4").threshold == 0
    assert encode_targets([0], n_out=1, loss_targets=LOSSES["binary_cross_entropy"], dtype="f4").threshold == 0.5
