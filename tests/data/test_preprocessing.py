"""Transformations that are saved with a model: what they compute, and that JSON brings them back bit for bit."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from bpcore.data.preprocessing import ClassList, Scaler, Standardizer, preprocessing_from_dict
from bpcore.errors import ConfigurationError, DataError, ShapeError, UnknownNameError

EPS = np.finfo(np.float64).eps


def test_scaler_divides_and_keeps_the_dtype() -> None:
    X = np.array([[1, 3], [5, 16]], dtype=np.float32)
    result = Scaler(3.0).apply(X)
    assert result.dtype == np.float32
    assert result.tolist() == (X / np.float32(3)).tolist()
    assert X.tolist() == [[1, 3], [5, 16]]
    assert Scaler(16.0).undo(Scaler(16.0).apply(X)).tolist() == X.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardised_columns_have_mean_0_and_deviation_1(rng: np.random.Generator, dtype: str) -> None:
    X = (rng.normal(size=(400, 3)) * [1e-3, 1.0, 1e4] + [5.0, -2.0, 1e5]).astype(dtype)
    result = Standardizer.fit(X).apply(X)
    assert result.dtype == dtype
    # a result carries half an ulp of its dtype, and the ulp of the mean in units of the deviation (float64)
    tolerance = 4 * (float(np.finfo(dtype).eps) + EPS * np.abs(X.mean(axis=0)) / X.std(axis=0))
    assert (np.abs(result.mean(axis=0, dtype=np.float64)) <= tolerance).all()
    assert (np.abs(result.std(axis=0, dtype=np.float64) - 1) <= tolerance).all()


def test_standardizer_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    sklearn = pytest.importorskip("sklearn.preprocessing")
    X = rng.normal(size=(100, 4)) * 3 + 7
    peer = sklearn.StandardScaler().fit(X)
    ours = Standardizer.fit(X)
    np.testing.assert_allclose(ours.mean, peer.mean_, rtol=10 * EPS)
    np.testing.assert_allclose(ours.scale, peer.scale_, rtol=10 * EPS)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e16, -1e-300])
def test_constant_columns_become_zero(value: float) -> None:
    X = np.full((7, 1), value)
    fitted = Standardizer.fit(X)
    assert fitted.scale == (1.0,)
    assert fitted.apply(X).tolist() == [[0.0]] * 7


def test_huge_and_tiny_columns_do_not_overflow_or_vanish() -> None:
    X = np.array([[1.7e308, 1e-300], [-1.7e308, 3e-300]])
    fitted = Standardizer.fit(X)
    np.testing.assert_allclose(fitted.apply(X), [[1, -1], [-1, 1]], rtol=4 * EPS)


def test_large_mean_does_not_swallow_float32_differences() -> None:
    X = np.array([[16777216.0], [16777218.0]], dtype=np.float32)
    assert Standardizer.fit(X).apply(X).tolist() == [[-1.0], [1.0]]


def test_undo_is_the_inverse(rng: np.random.Generator) -> None:
    X = rng.normal(size=(20, 3)) * 5 + 2
    fitted = Standardizer.fit(X)
    np.testing.assert_allclose(fitted.undo(fitted.apply(X)), X, rtol=0, atol=4 * EPS * np.abs(X).max())


def test_width_is_checked() -> None:
    with pytest.raises(ShapeError, match=r"X has shape \(1, 3\); expected \(m, 2\)"):
        Standardizer((0.0, 0.0), (1.0, 1.0)).apply([[1, 2, 3]])


@pytest.mark.parametrize("fitted", [Scaler(0.1), Standardizer((0.1, 1 / 3), (math.pi, 1e-300))])
def test_json_brings_them_back_bit_for_bit(fitted: Any) -> None:
    assert preprocessing_from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Scaler(0.0), ConfigurationError, r"divisor must be finite and not 0, got 0\.0"),
        (lambda: Scaler(math.inf), ConfigurationError, "divisor must be finite"),
        (lambda: Standardizer((0.0,), (1.0, 1.0)), ConfigurationError, "same length, at least 1; got 1 and 2"),
        (lambda: Standardizer((), ()), ConfigurationError, "got 0 and 0"),
        (lambda: Standardizer((0.0,), (0.0,)), ConfigurationError, r"every scale must be positive, got 0\.0"),
        (lambda: Standardizer((math.nan,), (1.0,)), ConfigurationError, "mean and scale must be finite"),
        (lambda: preprocessing_from_dict({"kind": "scalar"}), UnknownNameError, "Did you mean 'scaler'"),
        (lambda: preprocessing_from_dict({"kind": "scaler"}), ConfigurationError, "scaler is damaged.*divisor"),
        (
            lambda: preprocessing_from_dict({"kind": "standardizer", "mean": [1], "scale": ["x"]}),
            ConfigurationError,
            "standardizer is damaged",
        ),
        (lambda: preprocessing_from_dict({"kind": "scaler", "divisor": 0}), ConfigurationError, "not 0, got 0"),
    ],
)
def test_descriptions_without_meaning(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "names", "codes"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([7, 3, 7], (3, 7), [1, 0, 1]),
        ([2.0, -1.0], (-1, 2), [1, 0]),
        ([True, False], (0, 1), [1, 0]),
    ],
)
def test_classes_are_sorted_and_encoded(labels: Any, names: Any, codes: list[int]) -> None:
    classes = ClassList.fit(labels)
    assert classes.names == names
    assert all(type(name) is type(names[0]) for name in classes.names)
    assert classes.encode(labels).tolist() == codes
    assert classes.decode(codes).tolist() == [names[code] for code in codes]
    assert ClassList.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ClassList.fit(["a", "a"]), DataError, "all labels are 'a': one class only.*at least two"),
        (lambda: ClassList.fit([]), DataError, "labels is empty"),
        (lambda: ClassList.fit([0.5, 1.0]), DataError, r"label 0\.5 in row 0 is not a whole number"),
        (lambda: ClassList.fit([1.0, np.nan]), DataError, "label nan in row 1 is not a whole number"),
        (lambda: ClassList.fit([[1], [2]]), DataError, r"labels must be a vector of shape \(m,\), got shape \(2, 1\)"),
        (lambda: ClassList(()), ConfigurationError, "at least one class"),
        (lambda: ClassList(("a", "a")), ConfigurationError, "a class occurs twice"),
        (lambda: ClassList((1, "a")), ConfigurationError, "all str or all int"),  # type: ignore[arg-type]
        (lambda: ClassList.from_dict({}), ConfigurationError, "classes is damaged"),
        (lambda: ClassList(("a", "b")).encode(["b", "c"]), DataError, "label 'c' in row 1 is not one of the classes"),
        (lambda: ClassList(("a", "b")).encode([0, 1]), DataError, "the labels are numbers, but the classes are"),
        (lambda: ClassList((1, 2)).encode(["1"]), DataError, "the labels are text, but the classes are"),
        (lambda: ClassList(tuple(range(50))).encode([60]), DataError, r"10, 11, \.\.\. \(50 in all\)"),
    ],
)
def test_classes_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
