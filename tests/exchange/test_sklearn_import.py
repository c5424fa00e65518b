"""Estimators of scikit-learn: the same probabilities, classes and numbers after the import."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError
from bpcore.exchange.numpy_export import numpy_source
from bpcore.exchange.sklearn_import import ACTIVATION
from bpcore.persistence.knowledge import Knowledge

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

X = np.random.default_rng(0).normal(size=(90, 4)) * [1, 10, 100, 1] + [0, 5, -3, 1e3]
CLASSES: dict[str, Any] = {
    "binary text": np.array(["yes", "no"])[np.arange(90) % 2],
    "binary numbers": np.array([7, -3])[np.arange(90) % 2],
    "truth": np.arange(90) % 2 == 0,
    "several": np.array(["c", "ä'\"", "b\n"])[np.arange(90) % 3],
    "whole floats": (np.arange(90) % 3).astype(float),
    "objects": np.array(["x", "y", "z"], object)[np.arange(90) % 3],
}


def fit(estimator: Any, X: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that so few iterations do not converge
        return estimator.fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("labels", CLASSES)
def test_classifiers(labels: str, activation: str) -> None:
    mlp = MLPClassifier([6, 5], activation=activation, max_iter=30, random_state=0)
    estimator = fit(make_pipeline(StandardScaler(), mlp), X, CLASSES[labels])
    net = bp.from_sklearn(estimator, backend="numpy")
    knowledge = Knowledge(net)
    assert knowledge.preprocessing is not None
    assert knowledge.classes is not None
    assert net.dtype == np.float64
    H = net.predict(knowledge.preprocessing.apply(X))
    np.testing.assert_allclose(knowledge.probabilities_of(H), estimator.predict_proba(X), rtol=1e-9, atol=1e-12)
    assert knowledge.classes.decode(knowledge.classes_of(H)).tolist() == estimator.predict(X).tolist()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("options", [{}, {"loss": "poisson"}], ids=["squares", "poisson"])
def test_regressors(outputs: int, options: dict[str, str]) -> None:
    if options and "loss" not in MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no Poisson loss")
    y = np.abs(X[:, :outputs]) + 1
    estimator = fit(
        MLPRegressor(hidden_layer_sizes=[6], max_iter=30, random_state=0, **options),
        X / [1, 10, 100, 1000],
        y.squeeze(),
    )
    net = bp.from_sklearn(estimator, backend="numpy")
    found = net.predict(X / [1, 10, 100, 1000])
    np.testing.assert_allclose(found.squeeze(), estimator.predict(X / [1, 10, 100, 1000]), rtol=1e-9)
    assert Knowledge(net).task == "regression"


def test_float32_and_names_of_features(tmp_path: Any) -> None:
    small = X.astype(np.float32) / [1, 10, 100, 1000]
    estimator = fit(MLPClassifier([4], max_iter=5, random_state=0), small.astype(np.float32), CLASSES["several"])
    net = bp.from_sklearn(estimator, backend="numpy")
    assert net.dtype == np.float32
    estimator.feature_names_in_ = np.array(list("abcd"), object)
    net = bp.from_sklearn(estimator, backend="numpy", dtype="float64")
    del estimator.feature_names_in_
    assert net.dtype == np.float64
    assert net.meta["feature_names"] == list("abcd")
    net.save(tmp_path / "m.safetensors")
    assert bp.load(tmp_path / "m.safetensors").meta == net.meta
    namespace: dict[str, Any] = {"__name__": "m"}
    exec(numpy_source(net), namespace)
    assert namespace["predict"](small).tolist() == estimator.predict(small.astype(np.float32)).tolist()


@pytest.mark.parametrize("options", [{"with_mean": False}, {"with_std": False}, {}])
def test_scalers_in_part(options: Any) -> None:
    y = CLASSES["several"]
    estimator = fit(make_pipeline(StandardScaler(**options), MLPClassifier([3], max_iter=5, random_state=0)), X, y)
    net = bp.from_sklearn(estimator, backend="numpy")
    fitted = Knowledge(net).preprocessing
    assert fitted is not None
    H = net.predict(fitted.apply(X))
    np.testing.assert_allclose(H, estimator.predict_proba(X), rtol=1e-8, atol=1e-12)


def test_the_activation_of_poisson_is_right() -> None:
    exp = ACTIVATION["exp"]
    assert isinstance(exp, bp.Activation)
    assert replace(exp, check=True) == exp


def test_what_cannot_be_imported() -> None:
    y = CLASSES["several"]
    small = X / [1, 10, 100, 1000]
    with pytest.raises(ConfigurationError, match=r"takes an MLPClassifier or MLPRegressor, .*; got LogisticRegression"):
        bp.from_sklearn(LogisticRegression())
    with pytest.raises(ConfigurationError, match="got NoneType"):
        bp.from_sklearn(None)
    with pytest.raises(ConfigurationError, match=r"this MLPClassifier is not fitted: call fit\(X, y\) first"):
        bp.from_sklearn(MLPClassifier())
    pipeline = fit(make_pipeline(MinMaxScaler(), MLPClassifier([3], max_iter=3)), X, y)
    with pytest.raises(ConfigurationError, match="the pipeline has the steps MinMaxScaler before the MLPClassifier"):
        bp.from_sklearn(pipeline)
    several = fit(
        MLPClassifier([3], max_iter=3), small, np.stack([small[:, 0] > 0, small[:, 1] > 0], axis=1).astype(int)
    )
    with pytest.raises(ConfigurationError, match="several labels at once"):
        bp.from_sklearn(several)
    halves = fit(MLPClassifier([3], max_iter=3), small, y)
    halves.classes_ = np.array([0.5, 1.0, 2.0])
    with pytest.raises(ConfigurationError, match=r"the classes \[0.5, 1.0, 2.0\] cannot be kept: label 0.5"):
        bp.from_sklearn(halves)
