"""Networks that scikit-learn has trained: MLPClassifier and MLPRegressor, alone or after a StandardScaler."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bpcore.data.preprocessing import ClassList, Standardizer
from bpcore.errors import BpcoreError, ConfigurationError
from bpcore.functions.activations import Activation

if TYPE_CHECKING:
    from bpcore.backends.contract import Backend
    from bpcore.network import MLP

__all__ = ["from_sklearn"]

ACTIVATION: dict[str, str | Activation] = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softmax": "softmax",
    # compared with differences by the tests, not at every import
    "exp": Activation("exp", "exp(z)", "h", range=(0, math.inf), source="a Poisson regression", check=False),
}
"""Activations here, by their names in scikit-learn."""
LOSS = {"softmax": "cross_entropy", "logistic": "binary_cross_entropy"}
"""Loss by the output of scikit-learn; a regression is measured by its squares."""


def from_sklearn(estimator: Any, *, dtype: Any = None, backend: str | Backend | None = None) -> MLP:
    """Build a network from a fitted multilayer perceptron of scikit-learn.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or Pipeline
        Fitted. A pipeline may hold a StandardScaler and the perceptron; the scaler becomes the preprocessing of the
        model, in ``net.meta``. Not modified.
    dtype : dtype, optional
        float32 or float64; by default that of the estimator's parameters.
    backend : str or Backend, optional
        As for :class:`bpcore.MLP`.

    Returns
    -------
    MLP
        Whose predictions are the estimator's. Classes and the names of the features are in ``net.meta``.

    Raises
    ------
    ConfigurationError
        If the estimator is something else, is not fitted, or has what an MLP of bpcore cannot say (several labels at
        once, classes that are neither text nor whole numbers, other steps in the pipeline).

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> fitted = MLPClassifier([5], solver="lbfgs", random_state=0).fit([[0.0], [1.0], [0.1], [0.9]], list("abab"))
    >>> net = from_sklearn(fitted, backend="numpy")
    >>> net.sizes, net.meta["classes"], net.predict_classes([[0.0], [1.0]]).tolist()
    ((1, 5, 1), ['a', 'b'], [0, 1])
    """
    from bpcore.network import MLP

    scaler, mlp, names = _parts(estimator)
    kind = type(mlp).__name__
    hidden, output = _activation(mlp.activation, kind), _activation(mlp.out_activation_, kind)
    coefs, intercepts = mlp.coefs_, mlp.intercepts_
    net = MLP(
        [len(coefs[0]), *(len(b) for b in intercepts)],
        activation=hidden,
        output=output,
        init="zeros",
        seed=0,
        dtype=np.asarray(coefs[0]).dtype if dtype is None else dtype,
        backend=backend,
    )
    net.set_weights(zip(coefs, intercepts, strict=True))
    classes = getattr(mlp, "classes_", None)
    net.meta = {
        "task": "regression" if classes is None else "classification",
        "classes": None if classes is None else _classes(mlp, np.asarray(classes)),
        "feature_names": names,
        "preprocessing": None if scaler is None else _standardizer(scaler, net.sizes[0]).to_dict(),
        "loss": LOSS.get(mlp.out_activation_, "mse"),
        "data": f"{kind} of scikit-learn",
    }
    if classes is not None and net.sizes[-1] == 1:
        net.meta["threshold"] = 0.5
    return net


def _parts(estimator: Any) -> tuple[Any, Any, list[str] | None]:
    """Take a pipeline apart: the scaler or None, the perceptron, the names of the features."""
    steps = getattr(estimator, "steps", None)
    objects = [estimator] if steps is None else [step for _, step in steps if step not in (None, "passthrough")]
    *before, mlp = objects or [None]
    kind = type(mlp).__name__
    if not all(hasattr(mlp, name) for name in ("activation", "hidden_layer_sizes")):
        raise ConfigurationError(
            f"from_sklearn takes an MLPClassifier or MLPRegressor, or a pipeline that ends in one; got {kind}"
        )
    if not all(hasattr(mlp, name) for name in ("coefs_", "intercepts_", "out_activation_")):
        raise ConfigurationError(f"this {kind} is not fitted: call fit(X, y) first")
    if len(before) > 1 or any(type(step).__name__ != "StandardScaler" for step in before):
        raise ConfigurationError(
            f"the pipeline has the steps {', '.join(type(step).__name__ for step in before)} before the {kind}; "
            "only one StandardScaler can become part of the model. Apply the others yourself, and hand in the last step"
        )
    if before and not hasattr(before[0], "n_features_in_"):
        raise ConfigurationError("the StandardScaler is not fitted: call fit(X, y) of the pipeline first")
    names = getattr(objects[0], "feature_names_in_", None)
    return (before[0] if before else None), mlp, None if names is None else [str(name) for name in names]


def _activation(name: Any, kind: str) -> str | Activation:
    if name not in ACTIVATION:
        raise ConfigurationError(f"this {kind} has the activation {name!r}, which is not known to from_sklearn")
    return ACTIVATION[name]


def _classes(mlp: Any, classes: Any) -> list[Any]:
    binarizer = getattr(mlp, "_label_binarizer", None)
    if getattr(binarizer, "y_type_", "").startswith("multilabel"):
        raise ConfigurationError(
            "this MLPClassifier gives several labels at once (multilabel); bpcore's classes exclude each other"
        )
    if classes.dtype.kind == "O" and all(isinstance(name, str) for name in classes):
        classes = classes.astype(np.str_)
    try:
        return list(ClassList.fit(classes).names)
    except BpcoreError as error:
        raise ConfigurationError(f"the classes {classes.tolist()[:8]!r:.120} cannot be kept: {error}") from error


def _standardizer(scaler: Any, n: int) -> Standardizer:
    mean = np.zeros(n) if scaler.mean_ is None or not scaler.with_mean else scaler.mean_
    scale = np.ones(n) if scaler.scale_ is None else scaler.scale_
    return Standardizer(tuple(map(float, mean)), tuple(map(float, scale)))
