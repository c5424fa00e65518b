"""scikit-learn's own checks of estimators, all of them, with no list of exceptions."""

from __future__ import annotations

import warnings

import pytest

sklearn = pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from sklearn.base import clone  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import bpcore as bp  # noqa: E402
from tests.conftest import backend_params, get_backend_or_skip  # noqa: E402

NAMES, CASES = (MARK := parametrize_with_checks([bp.MLPClassifier(), bp.MLPRegressor()])).args


@pytest.mark.parametrize(
    NAMES, list(CASES), **MARK.kwargs
)  # a list: pytest 9 refuses the generator of scikit-learn 1.5
@pytest.mark.parametrize("name", backend_params())
def test_checks_of_scikit_learn(estimator, check, name, request, monkeypatch):
    get_backend_or_skip(name, request.config)
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    chosen = clone(estimator).set_params(backend=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of short trainings, which the checks ask for
        check(chosen)
