"""Estimators in the manner of scikit-learn: bpcore behind the interface of :mod:`sklearn.neural_network`.

>>> from sklearn.datasets import load_iris
>>> from sklearn.preprocessing import scale
>>> X, y = load_iris(return_X_y=True)
>>> clf = MLPClassifier(hidden_layer_sizes=(8,), solver="lbfgs", random_state=1).fit(scale(X), y)
>>> bool(clf.score(scale(X), y) > 0.95)
True
"""

from bpcore.errors import missing_extra

try:
    import sklearn as _sklearn
except ImportError as error:
    raise missing_extra("scikit-learn", "sklearn", "bpcore.MLPClassifier or bpcore.MLPRegressor") from error

from bpcore.estimators.classifier import MLPClassifier
from bpcore.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]

del _sklearn
