"""Moments of columns against exact sums, missing values and categories, and their form in a model file."""

from __future__ import annotations

import decimal
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from bpcore.data import Imputer, Moments, OneHot, Pipeline, Scaler, Standardizer, fit_preprocessing
from bpcore.data.fitting import standardizer_of
from bpcore.data.preprocessing import preprocessing_from_dict
from bpcore.errors import ConfigurationError, DataError, UnknownNameError

NAN = float("nan")


def exact(column: Any) -> tuple[float, float]:
    """Mean and standard deviation by rational numbers."""
    values: list[Any] = [Fraction(float(value)) for value in column if not np.isnan(value)]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    with decimal.localcontext(prec=60):
        return float(mean), float((decimal.Decimal(variance.numerator) / variance.denominator).sqrt())


def hostile(rng: Any) -> dict[str, Any]:
    noise = rng.normal(size=600)
    gaps = np.where(rng.random(600) < 0.3, np.nan, noise)
    late = noise.copy()
    late[:300] = np.nan
    return {
        "plain": noise,
        "a mean that swallows the spread": 1e9 + 1e-3 * noise,
        "larger still": 1e15 + np.arange(600.0),
        "near the largest number": 1e300 * noise,
        "tiny": 1e-160 * noise,
        "growing": 10.0 ** np.linspace(-100, 150, 600),
        "falling": 10.0 ** np.linspace(150, -100, 600),
        "the first is an outlier": np.concatenate([[1e12], noise[1:]]),
        "missing here and there": gaps,
        "missing at first": late,
    }


@pytest.mark.parametrize("chunk", [1, 7, 100, 600])
@pytest.mark.parametrize("name", hostile(np.random.default_rng(0)))
def test_moments_of_hostile_columns(name: str, chunk: int) -> None:
    column = hostile(np.random.default_rng(0))[name]
    moments = Moments(1)
    for start in range(0, 600, chunk):
        moments.add(column[start : start + chunk, None])
    mean, deviation = exact(column)
    assert moments.count[0] == np.count_nonzero(~np.isnan(column))
    assert moments.missing[0] == np.count_nonzero(np.isnan(column))
    # a rounding for each chunk that is joined, of numbers as large as the distances from the first value
    distance = np.nanmax(np.abs(column - column[~np.isnan(column)][0]))
    roundings = 600**0.5 * np.finfo(np.float64).eps * distance
    assert moments.mean[0] == pytest.approx(mean, rel=4e-16, abs=roundings)
    assert moments.deviation[0] == pytest.approx(deviation, rel=1e-13)


def test_what_is_filled_in_counts() -> None:
    X = np.array([[1.0, NAN], [NAN, 2.0], [4.0, NAN]])
    moments = Moments(2)
    moments.add(X)
    values = np.array([7.0, -3.0])
    moments.add_constant(values, moments.missing)
    filled = np.where(np.isnan(X), values, X)
    np.testing.assert_allclose(moments.mean, filled.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(moments.deviation, filled.std(axis=0), rtol=1e-15)


def test_a_constant_column_is_not_blown_up() -> None:
    moments = Moments(2)
    for _ in range(50):
        moments.add(np.full((3, 2), [0.1, 0.0]))
    assert standardizer_of(moments) == Standardizer((0.1, 0.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("how", "values"),
    [("mean", (3.0, 2.0)), ("median", (2.0, 2.0)), ("most-frequent", (1.0, 2.0)), ("constant", (9.5, 9.5))],
)
def test_ways_to_fill(how: str, values: tuple[float, ...]) -> None:
    X = [[1.0, 2.0], [1.0, NAN], [NAN, NAN], [3.0, NAN], [7.0, NAN]]
    fitted = Imputer.fit(X, how, 9.5)
    assert fitted == Imputer(values, how)
    np.testing.assert_array_equal(fitted.apply(X), np.where(np.isnan(X), values, X))
    assert fitted.apply(np.array(X, np.float32)).dtype == np.float32


def test_what_cannot_be_filled() -> None:
    with pytest.raises(DataError, match=r"every value of column 1 .* is missing"):
        Imputer.fit([[1.0, NAN]], "mean")
    with pytest.raises(DataError, match=r"every value of column 'b' is missing.*--missing constant"):
        fit_preprocessing(np.array([[1.0, NAN]]), ("a", "b"), "median")
    with pytest.raises(UnknownNameError, match=r"'avg'; known: mean"):
        Imputer.fit([[1.0]], "avg")
    with pytest.raises(DataError, match=r"inf in row 0"):
        Imputer.fit([[np.inf]], "mean")
    with pytest.raises(DataError, match=r"inf in row 0"):
        Imputer((1.0,)).apply([[np.inf]])
    with pytest.raises(ConfigurationError, match="finite value"):
        Imputer((NAN,))


def test_one_hot() -> None:
    fitted = OneHot((2, 0, 3))
    X = np.array([[1.0, 0.5, 2.0], [0.0, -1.0, 0.0]])
    np.testing.assert_array_equal(fitted.apply(X), [[0, 1, 0.5, 0, 0, 1], [1, 0, -1, 1, 0, 0]])
    np.testing.assert_array_equal(fitted.undo(fitted.apply(X)), X)
    with pytest.raises(DataError, match=r"X\[0, 2\] is 3\.0; it must be the code of a category, 0 to 2"):
        fitted.apply([[0.0, 0.0, 3.0]])
    with pytest.raises(ConfigurationError, match="whole numbers"):
        OneHot((-1,))


def test_all_of_it_survives_json() -> None:
    X = np.array([[1.0, 0.0], [NAN, 1.0], [4.0, NAN], [9.0, 1.0]])
    fitted = fit_preprocessing(X, ("a", "c"), "median", categories={"c": ["red", "blue"]})
    assert isinstance(fitted, Pipeline)
    assert fitted == preprocessing_from_dict(json.loads(json.dumps(fitted.to_dict())))
    scaled = (np.array([1.0, 4.0, 4.0, 9.0]) - 4.5) / np.std([1.0, 4.0, 4.0, 9.0])
    np.testing.assert_allclose(fitted.apply(X), np.column_stack([scaled, [1, 0, 0, 0], [0, 1, 1, 1]]), rtol=1e-15)
    assert Pipeline((Scaler(2.0), Scaler(4.0))).undo([[1.0]]).tolist() == [[8.0]]
    with pytest.raises(ConfigurationError, match=r"description of the imputer is damaged"):
        preprocessing_from_dict({"kind": "pipeline", "steps": [{"kind": "imputer"}]})
