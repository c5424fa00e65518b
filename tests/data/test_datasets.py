"""The bundled data sets."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bpcore.data.datasets import DATASETS, load_dataset
from bpcore.errors import MissingExtraError, UnknownNameError

SHAPES = {
    "digits": (1797, 64, 10),
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "breast-cancer": (569, 30, 2),
    "diabetes": (442, 10, None),
}


@pytest.mark.parametrize("name", list(DATASETS))
def test_shapes_names_and_classes(name: str) -> None:
    pytest.importorskip("sklearn")
    data = load_dataset(name)
    m, n, n_classes = SHAPES[name]
    assert data.name == name
    assert data.X.shape == (m, n)
    assert data.X.dtype == np.float64
    assert data.X.flags.c_contiguous
    assert len(data.feature_names) == n
    assert data.y is not None
    assert data.y.shape == (m,)
    if n_classes is None:
        assert data.task == "regression"
        assert data.classes is None
        assert data.y.dtype == np.float64
    else:
        assert data.task == "classification"
        assert data.classes is not None
        assert len(data.classes) == n_classes
        assert data.y.dtype == np.int64
        assert set(data.y.tolist()) == set(range(n_classes))
    assert data.source.startswith("scikit-learn ")


def test_digits_are_scaled_to_one_and_say_so() -> None:
    pytest.importorskip("sklearn")
    digits = load_dataset("digits")
    assert (digits.X.min(), digits.X.max()) == (0.0, 1.0)
    assert digits.preprocessing is not None
    raw = digits.preprocessing.undo(digits.X)
    assert set(np.unique(raw)) == set(range(17))
    assert digits.classes == tuple(range(10))


def test_other_sets_are_raw() -> None:
    pytest.importorskip("sklearn")
    iris = load_dataset("iris")
    assert iris.preprocessing is None
    assert iris.X[0].tolist() == [5.1, 3.5, 1.4, 0.2]
    assert iris.classes == ("setosa", "versicolor", "virginica")
    # ages in years, not standardised
    assert load_dataset("diabetes").X[:, 0].min() == 19


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'digit'; known: digits, iris.*Did you mean 'digits'"):
        load_dataset("digit")


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        MissingExtraError, match=r"data set 'iris' needs .*scikit-learn.*pip install \"bpcore\[sklearn\]"
    ):
        load_dataset("iris")
