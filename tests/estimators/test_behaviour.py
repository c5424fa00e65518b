"""What the parameters of scikit-learn's multilayer perceptron do, in its users' terms."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from scipy import sparse  # noqa: E402
from sklearn.datasets import (  # noqa: E402
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.linear_model import PoissonRegressor  # noqa: E402
from sklearn.preprocessing import scale  # noqa: E402

import bpcore as bp  # noqa: E402
from bpcore.errors import BpcoreError, ConfigurationError, DataError, DivergenceError  # noqa: E402

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
ESTIMATORS = [bp.MLPClassifier, bp.MLPRegressor]
XOR = [[3, 2], [1, 6]]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(n_class=3, return_X_y=True)
    return X[:220] / 16, y[:220]


@pytest.fixture(scope="module")
def two(digits):
    X, y = digits
    return X[y < 2], y[y < 2]


@pytest.fixture(scope="module")
def noisy():
    X, y = make_regression(200, 10, bias=20.0, noise=100.0, random_state=7)
    return X, scale(y)


# ------------------------------------------------------------------------------------------ quality


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lbfgs_learns_digits(cpu_backend, digits, two, activation):
    for X, y in (digits, two):
        clf = bp.MLPClassifier(50, activation, solver="lbfgs", max_iter=150, random_state=1, backend=cpu_backend)
        predicted = clf.fit(X[:100], y[:100]).predict(X[100:])
        assert clf.score(X[:100], y[:100]) > 0.95
        assert predicted.shape == y[100:].shape
        assert predicted.dtype == y.dtype
        assert (predicted == y[100:]).mean() > 0.9


@quiet
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lbfgs_fits_noise_unless_it_is_linear(cpu_backend, noisy, activation):
    reg = bp.MLPRegressor(
        hidden_layer_sizes=50, activation=activation, solver="lbfgs", tol=1e-3, random_state=1, backend=cpu_backend
    )
    assert reg.fit(*noisy).score(*noisy) > (0.8 if activation == "identity" else 0.98)


@quiet
def test_diabetes(cpu_backend):
    X, y = load_diabetes(return_X_y=True)
    reg = bp.MLPRegressor(solver="lbfgs", alpha=1.0, max_iter=60, random_state=0, backend=cpu_backend)
    assert reg.fit(scale(X), scale(y)).score(scale(X), scale(y)) > 0.6


@quiet
def test_several_targets_and_labels(cpu_backend):
    X, Y = make_regression(200, n_targets=5, random_state=11)
    reg = bp.MLPRegressor(hidden_layer_sizes=50, solver="lbfgs", tol=1e-2, random_state=1, backend=cpu_backend)
    assert reg.fit(X, Y).score(X, Y) > 0.9
    X, Y = make_multilabel_classification(50, random_state=0)
    clf = bp.MLPClassifier(
        50, "logistic", solver="lbfgs", alpha=1e-5, max_iter=150, random_state=0, backend=cpu_backend
    )
    assert clf.fit(X, Y).score(X, Y) > 0.97
    P = clf.predict_proba(X)
    assert P.shape == Y.shape
    np.testing.assert_array_equal(P > 0.5, Y)
    assert np.ptp(P.sum(axis=1)) > 0.5, "labels do not exclude each other"
    np.testing.assert_allclose(clf.predict_log_proba(X), np.log(P))
    clf = bp.MLPClassifier(
        50, "logistic", solver="sgd", alpha=1e-5, learning_rate_init=0.2, random_state=0, backend=cpu_backend
    )
    for _ in range(100):
        clf.partial_fit(X, Y, classes=range(5))
    assert clf.score(X, Y) > 0.9


def test_poisson_regression_without_a_hidden_layer_is_the_generalised_linear_model(cpu_backend):
    X = np.linspace(0, 1, 100)[:, None]
    y = np.random.default_rng(3).poisson(np.exp(X[:, 0] + 1))
    linear = PoissonRegressor(alpha=0, tol=1e-7).fit(X, y)
    common = {"hidden_layer_sizes": (), "alpha": 0, "solver": "lbfgs", "tol": 1e-7, "backend": cpu_backend}
    np.testing.assert_allclose(bp.MLPRegressor("poisson", **common).fit(X, y).predict(X), linear.predict(X), rtol=1e-4)
    assert not np.allclose(bp.MLPRegressor(**common).fit(X, y).predict(X), linear.predict(X), rtol=1e-4)
    with pytest.raises(DataError, match=r"y is -1.0 in row 0 .*'poisson' needs 0 or more"):
        bp.MLPRegressor("poisson").fit(X, y - (np.arange(100) == 0) * (y[0] + 1))


# ------------------------------------------------------------------------------------------ parameters


@quiet
def test_alpha_makes_weights_small(cpu_backend, two):
    sums = [
        [np.abs(W).sum() for W in bp.MLPClassifier(10, alpha=a, random_state=1, backend=cpu_backend).fit(*two).coefs_]
        for a in (0, 1, 100)
    ]
    assert (np.diff(sums, axis=0) < 0).all()


@quiet
@pytest.mark.parametrize("shuffle", [True, False])
def test_shuffle_and_random_state(cpu_backend, shuffle):
    X, y = make_regression(50, 5, random_state=0)

    def weights(**changed):
        given = {"hidden_layer_sizes": 2, "max_iter": 1, "batch_size": 1, "random_state": 0, "shuffle": shuffle}
        return bp.MLPRegressor(**{**given, **changed}, backend=cpu_backend).fit(X, y).coefs_[0]

    np.testing.assert_array_equal(weights(), weights())
    np.testing.assert_array_equal(weights(), weights(random_state=np.random.RandomState(0)))
    assert not np.array_equal(weights(), weights(shuffle=not shuffle))
    assert not np.array_equal(weights(), weights(random_state=1))
    assert not np.array_equal(weights(random_state=None), weights(random_state=None))


def test_tolerance_ends_the_training(cpu_backend):
    clf = bp.MLPClassifier(tol=0.5, max_iter=3000, solver="sgd", random_state=0, backend=cpu_backend).fit(XOR, [1, 0])
    assert clf.n_iter_ < 100
    assert "did not improve more than tol=0.500000 for 10 consecutive epochs" in clf.run_.stopped_because


@pytest.mark.parametrize("epochs", [2, 5, 30])
def test_n_iter_no_change(cpu_backend, two, epochs):
    common = {"tol": 0.05, "solver": "sgd", "random_state": 0, "max_iter": 3000, "backend": cpu_backend}
    clf = bp.MLPClassifier(n_iter_no_change=epochs, **common).fit(*two)
    curve = np.array(clf.loss_curve_)
    best = np.minimum.accumulate(curve)
    worse = curve[1:] > best[:-1] - 0.05
    assert worse[-epochs - 1 :].all()
    assert len(curve) == clf.n_iter_ == epochs + 2 + max(np.flatnonzero(~worse[: -epochs - 1]) + 1, default=0)


def test_an_infinite_n_iter_no_change_never_stops(cpu_backend, two):
    clf = bp.MLPClassifier(2, tol=1e9, n_iter_no_change=np.inf, solver="sgd", max_iter=300, backend=cpu_backend)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(300\) reached"):
        clf.fit(*two)
    assert clf.n_iter_ == 300


def test_adaptive_learning_rate_falls_to_the_end(cpu_backend):
    clf = bp.MLPClassifier(
        tol=0.5, max_iter=3000, solver="sgd", learning_rate="adaptive", random_state=0, backend=cpu_backend
    )
    etas = clf.fit(XOR, [1, 0]).run_.history["eta"]
    assert clf.n_iter_ < 3000
    assert etas[-1] < 1e-6 < etas[-1] * 5
    assert "Learning rate too small" in clf.run_.stopped_because


@quiet
def test_invscaling_goes_on_and_the_first_rate_of_a_fit_is_the_initial_one(cpu_backend):
    X, y = [[3, 2], [1, 6], [5, 6], [-2, -4]], [1, 1, 1, 0]
    clf = bp.MLPClassifier(
        4, solver="sgd", learning_rate="invscaling", max_iter=2, power_t=0.25, warm_start=True, backend=cpu_backend
    )
    for samples in (0, 8):
        etas = clf.fit(X, y).run_.history["eta"]
        np.testing.assert_allclose(etas, [0.001, 0.001 / (samples + 4 + 1) ** 0.25])


@quiet
def test_batch_size_is_clipped_with_a_warning(two):
    with pytest.warns(UserWarning, match="larger than sample size. It is going to be clipped"):
        bp.MLPClassifier(2, batch_size=1000, max_iter=1).fit(*two)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_early_stopping(cpu_backend, two, Estimator):
    est = Estimator(tol=0.2, max_iter=3000, solver="sgd", early_stopping=True, random_state=0, backend=cpu_backend)
    est.fit(*two)
    assert est.n_iter_ < 3000
    assert est.best_loss_ is None
    assert max(est.validation_scores_) == est.best_validation_score_
    assert len(est.validation_scores_) == len(est.validation_loss_curve_) == est.n_iter_
    assert est.best_validation_score_ + 0.2 > max(est.validation_scores_[-11:])
    est = Estimator(tol=0.2, max_iter=3000, solver="sgd", random_state=0, backend=cpu_backend).fit(*two)
    assert est.validation_scores_ is est.best_validation_score_ is None
    assert est.best_loss_ == min(est.loss_curve_)


@quiet
def test_early_stopping_keeps_the_best_parameters(cpu_backend, digits):
    X, y = digits
    seen = []
    clf = bp.MLPClassifier(
        8,
        solver="sgd",
        learning_rate_init=0.5,
        early_stopping=True,
        max_iter=12,
        random_state=0,
        backend=cpu_backend,
        callbacks=[lambda net, progress: seen.append(net.get_weights()[0][0])],
    ).fit(X, y)
    best = int(np.argmax(clf.validation_scores_))
    assert best < len(seen) - 1, "the last epoch must not be the best one here"
    np.testing.assert_array_equal(clf.coefs_[0], seen[best])


def test_early_stopping_refuses_what_cannot_be_split(two):
    X = [[1, 2], [2, 3], [3, 4], [4, 5]]
    with pytest.raises(ValueError, match="least populated class"):
        bp.MLPClassifier(early_stopping=True).fit(X, [0, 0, 0, 1])
    with pytest.raises(ValueError, match="The validation set is too small"):
        bp.MLPRegressor(early_stopping=True).fit(X[:2], [1.0, 2.0])
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        bp.MLPClassifier(early_stopping=True).partial_fit(*two, classes=[0, 1])


@quiet
def test_early_stopping_with_names_of_classes(cpu_backend, digits):
    X, y = digits
    names = np.array(["naught", "one", "two"], dtype=object)[y]
    clf = bp.MLPClassifier(early_stopping=True, max_iter=20, random_state=4, backend=cpu_backend).fit(X, names)
    assert np.isfinite(clf.validation_scores_).all()
    assert clf.classes_.tolist() == ["naught", "one", "two"]
    assert set(clf.predict(X)) <= set(names)
    assert clf.score(X, names) == pytest.approx((clf.predict(X) == names).mean())


@pytest.mark.parametrize("verbose", [True, 10])
def test_verbose(capsys, two, verbose):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = bp.MLPClassifier(2, max_iter=2, verbose=verbose, random_state=0).fit(*two)
        printed = capsys.readouterr().out
        assert printed == "".join(f"Iteration {i}, loss = {loss:.8f}\n" for i, loss in enumerate(clf.loss_curve_, 1))
        bp.MLPClassifier(2, solver="lbfgs", max_iter=2, verbose=verbose).fit(*two)
        assert capsys.readouterr().out.startswith("Iteration 1, loss = ")
        bp.MLPClassifier(2, solver="sgd", early_stopping=True, verbose=verbose, tol=0.5, n_iter_no_change=1).fit(*two)
        printed = capsys.readouterr().out
    assert "Validation score: " in printed
    assert printed.endswith("Stopping.\n")


# ------------------------------------------------------------------------------------------ lbfgs


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_max_fun_and_max_iter_limit_lbfgs(cpu_backend, noisy, two, Estimator):
    data = two if Estimator is bp.MLPClassifier else noisy
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        est = Estimator(solver="lbfgs", tol=0.0, max_fun=10, random_state=1, backend=cpu_backend).fit(*data)
    assert est.n_iter_ <= 10
    with pytest.warns(ConvergenceWarning, match="increase max_iter"):
        est = Estimator(solver="lbfgs", tol=0.0, max_iter=4, random_state=1, backend=cpu_backend).fit(*data)
    assert est.n_iter_ == len(est.loss_curve_) == 4
    assert est.loss_ == est.loss_curve_[-1] < est.loss_curve_[0]


def test_lbfgs_at_a_minimum_does_nothing(cpu_backend, two):
    X, y = two
    clf = bp.MLPClassifier((), solver="lbfgs", alpha=100.0, tol=1e-3, warm_start=True, backend=cpu_backend).fit(X, y)
    before, loss = clf.coefs_[0], clf.loss_
    clf.set_params(tol=1.0).fit(X, y)
    assert clf.n_iter_ == 0
    np.testing.assert_array_equal(clf.coefs_[0], before)
    assert clf.loss_ == pytest.approx(loss)


def test_lbfgs_has_no_partial_fit():
    assert not hasattr(bp.MLPClassifier(solver="lbfgs"), "partial_fit")
    assert not hasattr(bp.MLPRegressor(solver=bp.LBFGS()), "partial_fit")
    assert hasattr(bp.MLPRegressor(solver=bp.RMSprop()), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        bp.MLPClassifier(solver="lbfgs").partial_fit(XOR, [0, 1])


# ------------------------------------------------------------------------------------------ several calls


@quiet
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_is_fit_epoch_by_epoch(cpu_backend, digits, solver):
    X, y = digits
    common = {"solver": solver, "random_state": 1, "batch_size": len(X), "learning_rate_init": 0.02, "shuffle": False}
    whole = bp.MLPClassifier(max_iter=20, tol=0, backend=cpu_backend, **common).fit(X, y)
    pieces = bp.MLPClassifier(backend=cpu_backend, **common)
    for _ in range(whole.n_iter_):
        pieces.partial_fit(X, y, classes=[0, 1, 2])
    np.testing.assert_allclose(pieces.coefs_[0], whole.coefs_[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(pieces.loss_curve_, whole.loss_curve_, rtol=1e-12)
    assert pieces.score(X, y) > 0.95
    assert pieces.t_ == whole.t_ == len(X) * whole.n_iter_


@quiet
def test_partial_fit_of_numbers(cpu_backend, noisy):
    X, y = noisy
    for momentum in (0, 0.9):
        common = {"solver": "sgd", "random_state": 1, "learning_rate_init": 0.01, "batch_size": 200}
        whole = bp.MLPRegressor(max_iter=100, momentum=momentum, backend=cpu_backend, **common).fit(X, y)
        pieces = bp.MLPRegressor(momentum=momentum, backend=cpu_backend, **common)
        for _ in range(100):
            pieces.partial_fit(X, y)
        np.testing.assert_allclose(pieces.predict(X), whole.predict(X))
        assert whole.score(X, y) > 0.65


def test_classes_of_partial_fit():
    X, y = [[3, 2]], [0]
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        bp.MLPClassifier().partial_fit(X, y)
    clf = bp.MLPClassifier().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="not the same as on last call to partial_fit"):
        clf.partial_fit(X, y, classes=[1, 2])
    with pytest.raises(ValueError, match="classes not in `self.classes_`"):
        bp.MLPClassifier().partial_fit(XOR, [1, 0], classes=[2])
    clf.partial_fit([[1, 1]], [1])
    with pytest.raises(ValueError, match=r"has \[0 1\]. 'y' has \[7\]"):
        clf.partial_fit(X, [7])


def test_classes_that_are_met_later(cpu_backend):
    clf = bp.MLPClassifier(random_state=0, backend=cpu_backend)
    clf.partial_fit([[1], [2], [3]], ["a", "b", "c"], classes=["a", "b", "c", "d"])
    clf.partial_fit([[4]], ["d"])
    assert clf.classes_.tolist() == ["a", "b", "c", "d"]
    assert clf.predict_proba([[1.0]]).shape == (1, 4)


@quiet
def test_partial_fit_after_a_pickle_remembers_the_optimiser(cpu_backend, digits):
    X, y = digits
    for begin in ("fit", "partial_fit"):
        clf = bp.MLPClassifier(max_iter=3, random_state=0, backend=cpu_backend.name)
        getattr(clf, begin)(X, y, **({"classes": [0, 1, 2]} if begin == "partial_fit" else {}))
        twin = pickle.loads(pickle.dumps(clf))
        np.testing.assert_array_equal(twin.predict_proba(X), clf.predict_proba(X))
        twin.partial_fit(X, y)
        clf.partial_fit(X, y)
        np.testing.assert_array_equal(twin.coefs_[0], clf.coefs_[0])


@quiet
def test_a_loaded_regressor_learns_anew(tmp_path, cpu_backend):
    import joblib

    reg = bp.MLPRegressor(
        hidden_layer_sizes=42, random_state=42, learning_rate_init=0.01, max_iter=200, backend=cpu_backend.name
    )
    joblib.dump(reg.fit([[2]], [4]), tmp_path / "model")
    reg = joblib.load(tmp_path / "model")
    for _ in range(200):
        reg.partial_fit([[2]], [1])
    np.testing.assert_allclose(reg.predict([[2]]), [1], rtol=1e-4)


@quiet
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_warm_start_goes_on_for_max_iter(cpu_backend, Estimator, solver):
    X, y = load_iris(return_X_y=True)
    est = Estimator(
        solver=solver, warm_start=True, max_iter=10, n_iter_no_change=np.inf, random_state=0, backend=cpu_backend, tol=0
    ).fit(X, y)
    loss = est.loss_
    assert est.n_iter_ == 10
    est.set_params(max_iter=20).fit(X, y)
    assert est.n_iter_ == 20
    assert len(est.loss_curve_) == 30
    assert est.loss_ < loss
    cold = Estimator(**{**est.get_params(), "warm_start": False}).fit(X, y)
    cold.fit(X, y)
    assert len(cold.loss_curve_) == 20


@quiet
def test_a_warm_start_with_early_stopping(cpu_backend):
    X, y = load_iris(return_X_y=True)
    clf = bp.MLPClassifier(max_iter=10, random_state=0, warm_start=True, early_stopping=True, backend=cpu_backend)
    first = len(clf.fit(X, y).validation_scores_)
    assert len(clf.fit(X, y).validation_scores_) > first


@quiet
def test_a_warm_start_keeps_classes_and_sizes(cpu_backend):
    X, y = load_iris(return_X_y=True)
    clf = bp.MLPClassifier(2, solver="lbfgs", warm_start=True, tol=1e-2, backend=cpu_backend).fit(X, y)
    clf.fit(X, np.roll(y, 7))
    for other in ((y > 0).astype(int), np.where(y == 2, 3, y), np.arange(150) % 4):
        with pytest.raises(ValueError, match=r"warm_start can only be used where `y` has the same classes.*\[0 1 2\]"):
            clf.fit(X, other)
    with pytest.raises(ConfigurationError, match=r"sizes \[4, 2, 3\], but parameters and data now ask for \[4, 9, 3\]"):
        clf.set_params(hidden_layer_sizes=9).fit(X, y)


# ------------------------------------------------------------------------------------------ data


def test_probabilities(cpu_backend, digits, two):
    for X, y in (digits, two):
        clf = bp.MLPClassifier(5, solver="lbfgs", random_state=1, backend=cpu_backend).fit(X, y)
        P = clf.predict_proba(X)
        assert P.shape == (len(X), len(np.unique(y)))
        np.testing.assert_allclose(P.sum(axis=1), 1)
        np.testing.assert_array_equal(clf.classes_[P.argmax(axis=1)], clf.predict(X))
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(clf.predict_log_proba(X), np.log(P))


@quiet
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.coo_matrix])
def test_sparse_is_dense(cpu_backend, two, form, monkeypatch):
    X, y = two
    monkeypatch.setattr("bpcore.estimators.inputs.DENSE_BYTES", 64 * 8 * 10)  # ten rows at a time
    for parameters in ({"solver": "lbfgs", "max_iter": 20}, {"early_stopping": True, "max_iter": 3}):
        made = {"random_state": 1, "backend": cpu_backend, **parameters}
        dense, thin = bp.MLPClassifier(15, **made).fit(X, y), bp.MLPClassifier(15, **made).fit(form(X), y)
        np.testing.assert_array_equal(dense.coefs_[0], thin.coefs_[0])
        np.testing.assert_allclose(thin.predict_proba(form(X)), dense.predict_proba(X), rtol=1e-12)
        thin.partial_fit(form(X), y) if not made.get("early_stopping") and made.get("solver") != "lbfgs" else None


def test_sparse_labels_come_back_sparse(cpu_backend):
    X, Y = make_multilabel_classification(60, random_state=1)
    made = {"solver": "lbfgs", "random_state": 1, "backend": cpu_backend}
    thin = bp.MLPClassifier(15, **made).fit(X, sparse.csr_matrix(Y))
    assert sparse.issparse(thin.predict(X))
    np.testing.assert_array_equal(thin.predict(X).toarray(), bp.MLPClassifier(15, **made).fit(X, Y).predict(X))


def test_one_class_only(cpu_backend):
    clf = bp.MLPClassifier(3, solver="lbfgs", backend=cpu_backend).fit(XOR, ["same", "same"])
    assert clf.predict(XOR).tolist() == ["same", "same"]
    np.testing.assert_array_equal(clf.predict_proba(XOR), [[1], [1]])


def test_columns_of_classes_are_refused():
    with pytest.raises(DataError, match="y has 2 columns of classes.*MultiOutputClassifier"):
        bp.MLPClassifier().fit(XOR, [[1, 2], [3, 0]])


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_numbers_that_are_too_large(cpu_backend, solver):
    rng = np.random.default_rng(0)
    reg = bp.MLPRegressor(solver=solver, backend=cpu_backend)
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights.*need to be preprocessed") as info:
        reg.fit(np.finfo(np.float64).max * rng.uniform(size=(10, 2)), rng.normal(size=10))
    assert isinstance(info.value, DivergenceError)


def test_early_stopping_survives_a_divergence(cpu_backend):
    X, y = load_iris(return_X_y=True)
    reg = bp.MLPRegressor(
        activation="identity", solver="sgd", learning_rate_init=1, max_iter=20, early_stopping=True, random_state=0,
        backend=cpu_backend,
    )  # fmt: skip
    with pytest.warns(ConvergenceWarning, match="best validation score are kept"):
        reg.fit(X, y)
    assert np.isnan(reg.validation_scores_[-1])
    assert np.isfinite(reg.predict(X)).all()


# ------------------------------------------------------------------------------------------ attributes and mistakes


def test_coefficients_are_copies_that_can_be_replaced(cpu_backend, two):
    clf = bp.MLPClassifier(3, solver="lbfgs", max_iter=500, random_state=0, backend=cpu_backend).fit(*two)
    with pytest.raises(ValueError, match="read-only"):
        clf.coefs_[0][0, 0] = 1
    clf.coefs_ = [np.zeros_like(W) for W in clf.coefs_]
    clf.intercepts_ = [np.zeros(3), [np.log(3)]]
    np.testing.assert_allclose(clf.predict_proba(two[0]), np.tile([0.25, 0.75], (len(two[0]), 1)))


def test_before_fit():
    for Estimator in ESTIMATORS:
        assert not hasattr(Estimator(), "coefs_")
        with pytest.raises(NotFittedError):
            Estimator().predict(XOR)


@pytest.mark.parametrize("Estimator", ESTIMATORS)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes must be > 0 and whole, got \(3, 0\)"),
        ({"hidden_layer_sizes": -1}, "hidden_layer_sizes must be > 0"),
        ({"activation": "rleu"}, "unknown activation 'rleu'.*Did you mean 'relu'"),
        ({"activation": ["relu", "tanh"]}, "activation lists 2 activations for 1 hidden layers"),
        ({"solver": "adma"}, "unknown solver 'adma'.*Did you mean 'adam'"),
        ({"solver": 3}, "unknown solver 3"),
        ({"alpha": -0.1}, r"alpha must be a finite number in \[0, inf\), got -0.1"),
        ({"batch_size": 0}, "batch_size .* must be an integer of at least 1, got 0"),
        ({"batch_size": "all"}, "batch_size .* got 'all'"),
        ({"learning_rate": "adaptative"}, "unknown learning_rate.*Did you mean 'adaptive'"),
        ({"learning_rate_init": 0}, "learning_rate_init"),
        ({"power_t": -1}, "power_t"),
        ({"max_iter": 0}, "max_iter must be an integer"),
        ({"max_iter": 2.5}, "max_iter must be an integer"),
        ({"max_fun": -1}, "max_fun"),
        ({"shuffle": "yes"}, "shuffle must be True or False, got 'yes'"),
        ({"tol": -1e-4}, "tol"),
        ({"momentum": 2}, "momentum"),
        ({"early_stopping": 3}, "early_stopping must be True or False"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"beta_1": 1.0}, "beta_1"),
        ({"beta_2": -0.5}, "beta_2"),
        ({"epsilon": 0}, "epsilon"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
        ({"n_iter_no_change": -np.inf}, "n_iter_no_change"),
        ({"time_limit": 0}, r"time_limit \(seconds\)"),
        ({"dtype": "float16"}, "float16"),
        ({"dropout": 1.5}, "dropout rate is 1.5"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_parameters_without_a_meaning(Estimator, parameters, message):
    est = Estimator(**parameters)
    with pytest.raises(ValueError, match=message) as info:
        est.fit(XOR, [0, 1])
    assert isinstance(info.value, BpcoreError)
    assert not hasattr(est, "loss_")
