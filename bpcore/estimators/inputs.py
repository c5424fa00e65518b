"""What scikit-learn's users hand in: checked by scikit-learn's own checks, made dense, predicted with.

scikit-learn gives the messages and the attributes ``n_features_in_`` and ``feature_names_in_``. A call of predict
with an array that needs nothing skips its checks: bpcore looks at shape and values anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bpcore.data.arrays import is_plain
from bpcore.errors import BpcoreError
from bpcore.network import MLP
from bpcore.typing import FloatArray

__all__ = ["dense", "outputs_of", "validated"]

DENSE_BYTES = 2**24
"""Bytes of a sparse matrix that are made dense at a time in a prediction."""

FORMATS = ["csr", "csc"]


def validated(estimator: Any, X: Any, *y: Any, **how: Any) -> Any:
    """Check data with scikit-learn's ``validate_data``, which was a method of estimators before 1.6.

    Parameters
    ----------
    estimator : estimator
        Learns, or compares, the number and names of the features.
    X : array_like or sparse matrix
        Inputs.
    *y : array_like
        Targets, if there are some.
    **how
        Keyword arguments of scikit-learn's function.

    Returns
    -------
    X or (X, y)
        Checked.
    """
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:
        return estimator._validate_data(X, *y, accept_sparse=FORMATS, **how)
    return validate_data(estimator, X, *y, accept_sparse=FORMATS, **how)


def dense(X: Any) -> Any:
    """Return a sparse matrix as an array in rows, which takes m * n numbers of memory; an array as it is."""
    return X.toarray(order="C") if hasattr(X, "toarray") else X


def outputs_of(estimator: Any, X: Any) -> FloatArray:
    """Compute the outputs of a fitted network for inputs of any kind.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted.
    X : array_like or sparse matrix, shape (m, n)
        Inputs. Sparse ones are made dense in blocks of 16 MiB.

    Returns
    -------
    ndarray, shape (m, number of outputs)
        In the network's dtype.
    """
    net: MLP = estimator.net_
    if type(X) is np.ndarray and not hasattr(estimator, "feature_names_in_") and is_plain(X, _shape(X, net), net.dtype):
        try:
            return np.asarray(net.predict(X))
        except BpcoreError:
            pass  # scikit-learn finds the words for it
    X = validated(estimator, X, dtype=[net.dtype], order="C", reset=False)
    if not hasattr(X, "toarray"):
        return np.asarray(net.predict(X))
    rows, X = max(1, DENSE_BYTES // (net.dtype.itemsize * net.sizes[0])), X.tocsr()
    H = np.empty((X.shape[0], net.sizes[-1]), net.dtype)
    for start in range(0, len(H), rows):
        H[start : start + rows] = net.predict(dense(X[start : start + rows]))
    return H


def _shape(X: Any, net: MLP) -> tuple[int, int]:
    return len(X) if X.ndim else 0, net.sizes[0]
