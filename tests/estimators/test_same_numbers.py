"""The estimators compute what scikit-learn's do: the same weights and losses, epoch by epoch, from the same seed.

The witness is scikit-learn itself, which shares no code with bpcore: its forward pass, gradients, optimisers and
random numbers are its own.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from sklearn import neural_network as theirs
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression

import bpcore as bp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RTOL = 1e-9
"""Sums in another order differ by some 1e-16 a step; thirty steps of Adam, which divides by small roots, magnify it."""

SIGNATURE_HAS_LOSS = "loss" in theirs.MLPRegressor().get_params()


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:450] / 16, y[:450]


@pytest.fixture(scope="module")
def numbers():
    X, y = make_regression(210, 6, random_state=3)
    return X, y / y.std()


def both(kind, X, y, backend, fit=None, **parameters):
    fit = fit or {}
    reference = getattr(theirs, kind)(**parameters).fit(X, y, **fit)
    ours = getattr(bp, kind)(backend=backend, **parameters).fit(X, y, **fit)
    return ours, reference


def assert_same(ours, reference, *, losses=True):
    assert ours.n_iter_ == reference.n_iter_
    assert ours.t_ == reference.t_ or reference.solver == "lbfgs"
    for mine, other in zip(ours.coefs_ + ours.intercepts_, reference.coefs_ + reference.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=RTOL, atol=1e-11)
    if losses:
        np.testing.assert_allclose(ours.loss_, reference.loss_, rtol=RTOL)
        if reference.solver != "lbfgs":
            np.testing.assert_allclose(ours.loss_curve_, reference.loss_curve_, rtol=RTOL)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(ours, name) == getattr(reference, name)


SOLVERS = {
    "adam": {"solver": "adam", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3, "learning_rate_init": 0.01},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.8, "learning_rate_init": 0.1},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.1},
    "plain": {"solver": "sgd", "momentum": 0, "learning_rate_init": 0.3},
    "lbfgs": {"solver": "lbfgs"},
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_full_batch_steps_with_a_strong_penalty(cpu_backend, digits, solver):
    """Here the loss that is reported is exact, too: every penalty is the one before its step."""
    X, y = digits
    ours, reference = both(
        "MLPClassifier", X, y, cpu_backend, alpha=20.0, batch_size=450, max_iter=6, random_state=2, **SOLVERS[solver]
    )
    assert_same(ours, reference)


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "lbfgs"])
def test_mini_batches_with_a_short_one_at_the_end(cpu_backend, digits, solver):
    """450 = 4 * 100 + 50, and the short batch has twice the penalty."""
    X, y = digits
    ours, reference = both(
        "MLPClassifier", X, y, cpu_backend, alpha=5.0, batch_size=100, max_iter=3, random_state=2, **SOLVERS[solver]
    )
    assert_same(ours, reference, losses=False)
    # the penalties within an epoch are not known: they lie between those at its ends
    ends = ours.run_.history["penalty"] * 5 * 100 / 450
    difference = np.abs(np.subtract(ours.loss_curve_, reference.loss_curve_))[1:]
    assert (difference <= np.abs(np.diff(ends)) / 2).all()
    assert (difference > 0).any()
    free, reference = both(
        "MLPClassifier", X, y, cpu_backend, alpha=0.0, batch_size=100, max_iter=3, random_state=2, **SOLVERS[solver]
    )
    assert_same(free, reference)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("classes", [2, 10])
def test_activations_and_numbers_of_classes(cpu_backend, digits, activation, classes):
    X, y = digits
    ours, reference = both(
        "MLPClassifier",
        X,
        np.where(y < classes, y, 0),
        cpu_backend,
        activation=activation,
        hidden_layer_sizes=(7, 5),
        alpha=0,
        max_iter=4,
        random_state=5,
    )
    assert_same(ours, reference)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), rtol=1e-8)
    np.testing.assert_array_equal(ours.predict(X), reference.predict(X))


@pytest.mark.parametrize(
    "rate",
    [
        {"learning_rate": "invscaling", "power_t": 0.3},
        {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    ],
)
def test_learning_rates_that_change(cpu_backend, digits, rate):
    X, y = digits
    ours, reference = both(
        "MLPClassifier",
        X,
        y,
        cpu_backend,
        solver="sgd",
        learning_rate_init=0.2,
        alpha=0,
        max_iter=25,
        random_state=0,
        **rate,
    )
    assert_same(ours, reference)
    etas = ours.run_.history["eta"]
    assert len(set(etas)) > 2
    if rate["learning_rate"] == "adaptive":
        assert set(np.round(0.2 / etas)) <= {5**k for k in range(9)}


@pytest.mark.parametrize("kind", ["binary", "several"])
def test_early_stopping_splits_scores_and_stops_alike(cpu_backend, digits, kind):
    X, y = digits
    y = y % 2 if kind == "binary" else y
    ours, reference = both(
        "MLPClassifier", X, y, cpu_backend, early_stopping=True, tol=0.01, n_iter_no_change=3, random_state=1, alpha=0
    )
    assert reference.n_iter_ < 200
    assert_same(ours, reference)
    np.testing.assert_allclose(ours.validation_scores_, reference.validation_scores_, rtol=1e-12)
    assert ours.best_validation_score_ == pytest.approx(reference.best_validation_score_)
    assert ours.best_loss_ is reference.best_loss_ is None


def test_several_labels(cpu_backend):
    X, Y = make_multilabel_classification(120, 8, random_state=0)
    for parameters in ({"solver": "lbfgs", "max_iter": 10}, {"max_iter": 10, "early_stopping": True}):
        ours, reference = both("MLPClassifier", X, Y, cpu_backend, alpha=0, random_state=0, **parameters)
        assert_same(ours, reference)
        np.testing.assert_array_equal(ours.predict(X), reference.predict(X))
    np.testing.assert_allclose(ours.validation_scores_, reference.validation_scores_)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_regression(cpu_backend, numbers, outputs, solver):
    X, y = numbers
    Y = y if outputs == 1 else np.column_stack([y, y**2, np.sin(y)])
    ours, reference = both(
        "MLPRegressor", X, Y, cpu_backend, solver=solver, alpha=0.7, batch_size=210, max_iter=9, random_state=4
    )
    assert_same(ours, reference)
    np.testing.assert_allclose(ours.predict(X), reference.predict(X), rtol=1e-8, atol=1e-10)
    assert ours.predict(X).shape == Y.shape


def test_regression_by_lbfgs(cpu_backend, numbers):
    ours, reference = both(
        "MLPRegressor", *numbers, cpu_backend, solver="lbfgs", alpha=0.7, max_iter=15, random_state=4
    )
    assert_same(ours, reference)


def test_regression_with_early_stopping(cpu_backend, numbers):
    ours, reference = both(
        "MLPRegressor", *numbers, cpu_backend, early_stopping=True, max_iter=12, random_state=4, alpha=0
    )
    assert_same(ours, reference)
    np.testing.assert_allclose(ours.validation_scores_, reference.validation_scores_, rtol=1e-9)


@pytest.mark.skipif(not SIGNATURE_HAS_LOSS, reason="this scikit-learn has no losses for its regressor (1.7 has)")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_poisson(cpu_backend, numbers, solver):
    X, y = numbers
    counts = np.random.default_rng(0).poisson(np.exp(y / 2))
    ours, reference = both(
        "MLPRegressor", X, counts, cpu_backend, loss="poisson", solver=solver, alpha=0.1, batch_size=210, max_iter=9,
        random_state=4,
    )  # fmt: skip
    assert_same(ours, reference)
    assert ours.out_activation_ == "exp"


@pytest.mark.skipif(not SIGNATURE_HAS_LOSS, reason="this scikit-learn has no sample weights here (1.7 has)")
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_sample_weights(cpu_backend, digits, solver):
    X, y = digits
    weights = np.random.default_rng(1).integers(0, 4, len(X)).astype(float)
    ours, reference = both(
        "MLPClassifier", X, y, cpu_backend, fit={"sample_weight": weights}, solver=solver, alpha=3.0, batch_size=450,
        max_iter=6, random_state=0,
    )  # fmt: skip
    assert_same(ours, reference)


def test_partial_fit_goes_on_with_the_optimiser(cpu_backend, digits):
    X, y = digits
    ours = bp.MLPClassifier(backend=cpu_backend, random_state=0, alpha=0)
    reference = theirs.MLPClassifier(random_state=0, alpha=0)
    for start in (0, 200, 100, 250):  # the last one has 200 samples, those before 100 and 200
        rows = slice(start, start + (100 if start == 200 else 200))
        for estimator in (ours, reference):
            estimator.partial_fit(X[rows], y[rows], classes=np.arange(10))
    assert_same(ours, reference)


def test_partial_fit_after_fit_and_a_warm_start(cpu_backend, digits):
    X, y = digits
    pair = [
        bp.MLPClassifier(backend=cpu_backend, random_state=0, max_iter=3, alpha=0, warm_start=True),
        theirs.MLPClassifier(random_state=0, max_iter=3, alpha=0, warm_start=True),
    ]
    for estimator in pair:
        estimator.fit(X, y).partial_fit(X, y).fit(X, y)
    assert_same(*pair)
    assert len(pair[0].loss_curve_) == 7


def test_float32_data_makes_a_float32_network(cpu_backend, digits):
    X, y = digits
    ours, reference = both("MLPClassifier", X.astype(np.float32), y, cpu_backend, max_iter=3, random_state=0)
    assert {W.dtype for W in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    assert ours.predict_proba(X[:2].astype(np.float32)).dtype == np.float32
    for mine, other in zip(ours.coefs_, reference.coefs_, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)
