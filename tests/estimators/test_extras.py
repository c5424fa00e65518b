"""What the estimators have beyond scikit-learn's: everything of bpcore, by parameters."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

from sklearn.datasets import load_iris, make_multilabel_classification, make_regression  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.metrics import log_loss  # noqa: E402
from sklearn.preprocessing import scale  # noqa: E402

import bpcore as bp  # noqa: E402
from bpcore.errors import ConfigurationError, DataError, ShapeError, UnknownNameError  # noqa: E402
from bpcore.estimators.outputs import POISSON  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return scale(X), y


@pytest.fixture(scope="module")
def numbers():
    X, y = make_regression(120, 4, random_state=3)
    return X, y / y.std()


# ------------------------------------------------------------------------------------------ losses and outputs


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("cross_entropy", "softmax"),
        (bp.CrossEntropy(label_smoothing=0.1), "softmax"),
        ("hinge", "identity"),
        ("exponential", "identity"),
        ("mse", "softmax"),
        ("binary_cross_entropy", "logistic"),
        ("binary_cross_entropy_logits", "identity"),
        (bp.Loss("quartic", "(a - y)**4"), "softmax"),
    ],
    ids=str,
)
def test_losses_of_a_classifier(cpu_backend, iris, loss, output):
    X, y = iris
    clf = bp.MLPClassifier(8, solver="lbfgs", loss=loss, max_iter=200, random_state=0, backend=cpu_backend).fit(X, y)
    assert clf.out_activation_ == output
    assert clf.score(X, y) > 0.95
    assert hasattr(clf, "predict_proba") == (loss not in ("hinge", "exponential"))
    if hasattr(clf, "predict_proba"):
        np.testing.assert_allclose(clf.predict_proba(X).sum(axis=1), 1)
        assert log_loss(y, clf.predict_proba(X)) < 0.4


@pytest.mark.parametrize("loss", ["hinge", "mse", "cross_entropy", "binary_cross_entropy_logits"])
def test_losses_of_two_classes(cpu_backend, iris, loss):
    X, y = iris
    named = np.where(y == 1, "middle", "outer")
    clf = bp.MLPClassifier(8, solver="lbfgs", loss=loss, max_iter=200, random_state=0, backend=cpu_backend)
    clf.fit(X, named, validation=(X[:50], named[:50]))
    assert clf.n_outputs_ == 1
    assert clf.score(X, named) > 0.95
    assert clf.validation_scores_[-1] == pytest.approx(clf.score(X[:50], named[:50]))
    if loss == "hinge":
        with pytest.raises(AttributeError, match="predict_proba") as info:
            clf.predict_proba(X)
        assert "'hinge' are no probabilities" in str(info.value.__cause__)
    else:
        P = clf.predict_proba(X)
        np.testing.assert_array_equal(clf.classes_[(P[:, 1] > 0.5).astype(int)], clf.predict(X))


@pytest.mark.parametrize("loss", ["hinge", "quadratic", "binary_cross_entropy"])
def test_losses_of_several_labels(cpu_backend, loss):
    X, Y = make_multilabel_classification(60, random_state=0)
    clf = bp.MLPClassifier(30, solver="lbfgs", loss=loss, random_state=0, backend=cpu_backend)
    assert clf.fit(scale(X), Y, validation=(scale(X), Y)).score(scale(X), Y) > 0.9
    assert clf.validation_scores_[-1] == pytest.approx(clf.score(scale(X), Y))


def test_losses_that_do_not_fit(iris):
    X, Y = make_multilabel_classification(20, random_state=0)
    with pytest.raises(ConfigurationError, match="labels do not exclude each other; use 'binary_cross_entropy'"):
        bp.MLPClassifier(loss="cross_entropy").fit(X, Y)
    with pytest.raises(ConfigurationError, match=r"one output tells two classes apart"):
        bp.MLPClassifier(loss=bp.CrossEntropy(label_smoothing=0.1)).fit(*[part[:100] for part in iris])
    with pytest.raises(ConfigurationError, match="first parameter of MLPRegressor is the loss.*hidden_layer_sizes="):
        bp.MLPRegressor((50,)).fit(*iris)
    with pytest.raises(UnknownNameError, match="unknown loss 'hubber'.*Did you mean 'huber'"):
        bp.MLPRegressor("hubber").fit(*iris)
    with pytest.raises(ConfigurationError, match=r"needs predictions in \[0, 1\]"):
        bp.MLPClassifier(out_activation="tanh").fit(*iris)


@pytest.mark.parametrize("loss", ["absolute", "huber", bp.Loss("log_cosh", "softplus(2*(a - y)) - (a - y) - log(2)")])
def test_robust_losses_of_a_regressor(cpu_backend, numbers, loss):
    X, y = numbers
    spoilt = y.copy()
    spoilt[::10] += 5
    scores = [
        bp.MLPRegressor(each, 20, learning_rate_init=0.02, max_iter=150, random_state=0, alpha=1, backend=cpu_backend)
        .fit(X, spoilt)
        .score(X[1::10], y[1::10])
        for each in (loss, "squared_error")
    ]
    assert scores[0] > 0.9 > scores[1]


def test_out_activation(cpu_backend, numbers):
    X, y = numbers
    reg = bp.MLPRegressor("absolute", 20, out_activation="softplus", max_iter=5, backend=cpu_backend).fit(X, y)
    assert reg.out_activation_ == "softplus"
    assert (reg.predict(X) > 0).all()


def test_the_poisson_loss_against_differences():
    """Its targets are counts; the check of declarations would try others."""
    y, z, step = np.array([0.0, 1.0, 2.0, 30.0]), np.array([-3.0, 0.2, 1.0, 2.5]), 1e-6
    value, slope, pair = POISSON.value_formula, POISSON.derivative_formula, POISSON.pairs["exp"]
    a = np.exp(z)
    np.testing.assert_allclose(slope(a=a, y=y), (value(a=a + step, y=y) - value(a=a - step, y=y)) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(bp.Formula(pair.value, ["z", "h", "y"])(z=z, h=a, y=y), value(a=a, y=y), atol=1e-12)
    np.testing.assert_allclose(bp.Formula(pair.delta, ["h", "y"])(h=a, y=y), slope(a=a, y=y) * a, atol=1e-12)


# ------------------------------------------------------------------------------------------ the network


def test_an_activation_for_each_layer(cpu_backend, iris):
    mine = bp.Activation("bent", "z + 0.1 * sin(z)")
    clf = bp.MLPClassifier((9, 8, 7), ["logistic", "gelu", mine], max_iter=2, random_state=0, backend=cpu_backend)
    assert [activation.name for activation in clf.fit(*iris).net_.activations] == ["sigmoid", "gelu", "bent", "softmax"]
    bounds = [np.sqrt(2 / 13), np.sqrt(6 / 17), np.sqrt(6 / 15), np.sqrt(6 / 10)]
    for W, bound in zip(clf.coefs_, bounds, strict=True):  # scikit-learn's rule, layer by layer
        assert 0.8 * bound < np.abs(W).max() < bound + 0.02


def test_initialisers(cpu_backend, iris):
    def first(**changed):
        clf = bp.MLPClassifier(8, max_iter=1, learning_rate_init=1e-9, backend=cpu_backend, **changed)
        return clf.fit(*iris)

    found = first(init="auto", random_state=3)
    assert np.abs(found.intercepts_[0]).max() < 1e-7, "He's begins with biases of 0"
    np.testing.assert_array_equal(found.coefs_[0], first(init="auto", random_state=3).coefs_[0])
    assert not np.array_equal(found.coefs_[0], first(init="auto", random_state=4).coefs_[0])


def test_dtype_and_threads(iris, cpu_backend):
    X, y = iris
    clf = bp.MLPClassifier(8, max_iter=2, dtype="float32", threads=1, backend=cpu_backend).fit(X, y)
    assert clf.coefs_[0].dtype == clf.predict_proba(X).dtype == np.float32
    assert clf.run_.record["threads"] == 1
    assert clf.run_.record["threads_why"] == "asked for"
    with bp.use_backend(cpu_backend):
        free = bp.MLPClassifier(8, max_iter=2).fit(X, y)
    assert free.run_.record["backend"] == cpu_backend.name
    assert not free.net_.pinned


def test_dropout_and_clipping(cpu_backend, iris):
    X, y = iris
    common = {"hidden_layer_sizes": 30, "max_iter": 3, "backend": cpu_backend}
    one, same, other, none = (
        bp.MLPClassifier(dropout=rate, random_state=seed, **common).fit(X, y).coefs_[0]
        for rate, seed in ((0.5, 0), ([0.5], 0), (0.5, 1), (None, 0))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, none)
    clf = bp.MLPClassifier(
        solver="sgd", momentum=0, clip=bp.ClipNorm(1e-3), learning_rate_init=1.0, batch_size=150, random_state=0,
        warm_start=True, alpha=0, **common,
    )  # fmt: skip
    before = np.concatenate([W.ravel() for W in clf.fit(X, y).coefs_ + clf.intercepts_])
    after = np.concatenate([W.ravel() for W in clf.fit(X, y).coefs_ + clf.intercepts_])
    assert 0 < np.linalg.norm(after - before) <= 3 * 1e-3 * (1 + 1e-9)
    with pytest.raises(ConfigurationError, match="dropout and clipping do not go with it"):
        bp.MLPClassifier(solver="lbfgs", dropout=0.5).fit(X, y)


# ------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_class_weights_are_weights_of_samples(cpu_backend, iris, solver):
    X, y = iris
    names = np.array(["a", "b", "c"])[y]
    common = {"solver": solver, "max_iter": 5, "random_state": 0, "alpha": 1.0, "backend": cpu_backend}
    given = np.random.default_rng(0).uniform(0.5, 1.5, len(X))
    by_class = bp.MLPClassifier(8, class_weight={"a": 3.0, "c": 0.5}, **common).fit(X, names, given)
    by_row = bp.MLPClassifier(8, **common).fit(X, names, given * np.array([3.0, 1.0, 0.5])[y])
    np.testing.assert_array_equal(by_class.coefs_[0], by_row.coefs_[0])
    rare = np.flatnonzero((y > 0) | (np.arange(150) < 5))
    balanced = bp.MLPClassifier(8, class_weight="balanced", **common).fit(X[rare], y[rare])
    weights = np.where(y[rare] == 0, 105 / 15, 105 / 150)
    by_row = bp.MLPClassifier(8, **common).fit(X[rare], y[rare], weights)
    np.testing.assert_allclose(balanced.coefs_[0], by_row.coefs_[0], rtol=1e-12)


def test_class_weights_of_partial_fit_and_of_labels(cpu_backend, iris):
    X, y = iris
    with pytest.raises(ConfigurationError, match="'balanced' needs all of the data"):
        bp.MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])
    clf = bp.MLPClassifier(class_weight={0: 1e6, 1: 1e-6, 2: 1e-6}, learning_rate_init=0.1, backend=cpu_backend)
    for _ in range(20):
        clf.partial_fit(X, y, classes=[0, 1, 2])
    assert (clf.predict(X) == 0).mean() > 0.5
    X, Y = make_multilabel_classification(40, n_classes=2, random_state=0)
    weight = [{0: 1.0, 1: 2.0}, {0: 1.0, 1: 3.0}]
    common = {"max_iter": 3, "random_state": 0, "backend": cpu_backend}
    by_label = bp.MLPClassifier(8, class_weight=weight, **common).fit(X, Y)
    by_row = bp.MLPClassifier(8, **common).fit(X, Y, (1 + Y[:, 0]) * (1 + 2 * Y[:, 1]))
    np.testing.assert_array_equal(by_label.coefs_[0], by_row.coefs_[0])


def test_weights_of_samples_are_repetitions(cpu_backend, numbers):
    X, y = numbers
    weights = np.arange(len(X)) % 3
    common = {"batch_size": 10**6, "max_iter": 8, "random_state": 0, "alpha": 2.0, "backend": cpu_backend}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        weighted = bp.MLPRegressor(**common).fit(X, y, weights)
        repeated = bp.MLPRegressor(**common).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-10)
    one = bp.MLPRegressor(**{**common, "batch_size": 120}).partial_fit(X, y, weights)
    np.testing.assert_allclose(one.loss_curve_, weighted.loss_curve_[:1])


def test_batches_without_any_weight(cpu_backend, numbers):
    X, y = numbers
    weights = np.r_[np.ones(40), np.zeros(80)]
    reg = bp.MLPRegressor(batch_size=40, shuffle=False, max_iter=3, alpha=0, solver="sgd", momentum=0, random_state=0)
    reg.set_params(backend=cpu_backend).fit(X, y, weights)
    part = bp.MLPRegressor(**reg.get_params()).fit(X[:40], y[:40])
    np.testing.assert_allclose(reg.coefs_[0], part.coefs_[0], rtol=1e-12)


def test_weights_that_are_none(iris):
    with pytest.raises(ShapeError, match=r"sample_weight has shape \(3,\); expected \(150,\)"):
        bp.MLPClassifier().fit(*iris, [1, 2, 3])
    with pytest.raises(DataError, match="weights must be 0 or positive"):
        bp.MLPClassifier().fit(*iris, -np.ones(150))


# ------------------------------------------------------------------------------------------ solvers and schedules


@pytest.mark.parametrize(
    "solver", ["rmsprop", "Nadam", bp.AdamW(0.05, weight_decay=0.01), bp.ScipyMinimize("bfgs", 80), bp.LBFGS(50)], ids=str
)
def test_solvers_of_bpcore(cpu_backend, iris, solver):
    clf = bp.MLPClassifier(8, solver=solver, learning_rate_init=0.01, random_state=0, backend=cpu_backend)
    assert clf.fit(*iris).score(*iris) > 0.93


def test_schedules(cpu_backend, iris):
    X, y = iris
    cosine = bp.Cosine(0.2, total=10)
    common = {"max_iter": 10, "batch_size": 150, "backend": cpu_backend, "random_state": 0}
    for solver in ("sgd", "adam", "rmsprop", bp.SGD(7.0)):
        clf = bp.MLPClassifier(8, solver=solver, learning_rate=cosine, **common).fit(X, y)
        np.testing.assert_allclose(clf.run_.history["eta"], [cosine.at(t, 0) for t in range(10)])
    clf = bp.MLPClassifier(8, solver=bp.SGD(cosine), learning_rate_init=99.0, **common).fit(X, y)
    np.testing.assert_allclose(clf.run_.history["eta"], [cosine.at(t, 0) for t in range(10)])
    plateau = bp.ReduceOnPlateau(0.5, factor=0.5, patience=0, threshold=0.9)
    etas = bp.MLPClassifier(8, learning_rate=plateau, **common).fit(X, y).run_.history["eta"]
    np.testing.assert_allclose(etas, 0.5 * 0.5 ** np.maximum(np.arange(10) - 1, 0), err_msg="seen at the end of an epoch")


def test_a_schedule_goes_on_in_partial_fit(cpu_backend, iris):
    X, y = iris
    falling = bp.Exponential(0.1, 0.5, per="epoch")
    clf = bp.MLPClassifier(8, learning_rate=falling, backend=cpu_backend)
    etas = [clf.partial_fit(X, y, classes=[0, 1, 2]).run_.history[-1]["eta"] for _ in range(4)]
    np.testing.assert_allclose(etas, 0.1 * 0.5 ** np.arange(4))


# ------------------------------------------------------------------------------------------ watching


def test_validation_data_of_the_user(cpu_backend, iris):
    X, y = iris
    names = np.array(["a", "b", "c"])[y]
    held = (X[::3], names[::3])
    clf = bp.MLPClassifier(8, max_iter=7, random_state=0, class_weight="balanced", backend=cpu_backend)
    clf.fit(X, names, validation=held)
    assert len(clf.validation_loss_curve_) == len(clf.validation_scores_) == 7
    assert clf.validation_scores_[-1] == pytest.approx(clf.score(*held))
    assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(held[1], clf.predict_proba(held[0])))
    assert clf.best_loss_ == min(clf.loss_curve_)
    same = bp.MLPClassifier(8, max_iter=7, random_state=0, class_weight="balanced", backend=cpu_backend).fit(X, names)
    np.testing.assert_array_equal(same.coefs_[0], clf.coefs_[0], "to watch must not change anything")
    stopped = bp.MLPClassifier(
        8, early_stopping=True, tol=2.0, n_iter_no_change=2, random_state=0, backend=cpu_backend
    ).fit(X, names, validation=held)
    assert stopped.n_iter_ == 4
    assert stopped.t_ == 4 * 150, "nothing was set aside"
    assert stopped.best_validation_score_ == max(stopped.validation_scores_) == pytest.approx(stopped.score(*held))


def test_validation_of_several_outputs_and_of_lbfgs(cpu_backend, numbers):
    X, y = numbers
    Y = np.column_stack([y, np.sin(y)])
    for solver in ("adam", "lbfgs"):
        reg = bp.MLPRegressor(solver=solver, max_iter=5, random_state=0, backend=cpu_backend)
        reg.fit(X, Y, validation=(X[:30], Y[:30]))
        assert reg.validation_scores_[-1] == pytest.approx(reg.score(X[:30], Y[:30]))
        assert reg.validation_loss_curve_[-1] == pytest.approx(((reg.predict(X[:30]) - Y[:30]) ** 2).mean() / 2)


def test_validation_that_does_not_fit(iris):
    X, y = iris
    with pytest.raises(DataError, match=r"validation must be a pair \(X, y\)"):
        bp.MLPClassifier().fit(X, y, validation=5)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4 features"):
        bp.MLPClassifier().fit(X, y, validation=(X[:, :3], y))
    with pytest.raises(ValueError, match="classes not in `self.classes_`"):
        bp.MLPClassifier().fit(X, y, validation=(X, y + 1))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks(cpu_backend, iris, solver):
    class Watch(bp.Callback):
        def __init__(self):
            self.seen = []

        def on_start(self, net):
            self.seen.append("start")

        def on_epoch(self, net, progress):
            self.seen.append(progress.row["loss"])

        def on_end(self, run):
            self.seen.append(run.stopped_because)

    watch = Watch()
    clf = bp.MLPClassifier(
        8, solver=solver, backend=cpu_backend, callbacks=[watch, lambda net, progress: progress.epoch == 3]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        clf.fit(*iris)
    assert clf.n_iter_ == 3
    assert watch.seen[0] == "start"
    np.testing.assert_array_equal(watch.seen[1:4], clf.run_.history["loss"])
    assert watch.seen[4:] == [clf.run_.stopped_because] == ["a callback asked to stop"]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_time_limit(cpu_backend, iris, solver):
    X, y = iris
    bp.MLPClassifier(8, solver=solver, max_iter=2, backend=cpu_backend).fit(X, y)  # compiles
    clf = bp.MLPClassifier(
        200, solver=solver, time_limit=0.3, max_iter=10**7, max_fun=10**9, tol=0, n_iter_no_change=np.inf, alpha=0,
        backend=cpu_backend, callbacks=[lambda net, progress: time.sleep(0.01)],
    )  # fmt: skip
    begun = time.perf_counter()
    clf.fit(np.tile(X, (20, 1)), np.random.default_rng(0).integers(0, 3, 3000))
    assert 0.3 <= time.perf_counter() - begun < 20
    assert clf.run_.stopped_because == "0.3 s have passed"
    assert clf.n_iter_ == len(clf.loss_curve_)


def test_a_time_limit_within_the_first_epoch(cpu_backend, iris, monkeypatch):
    X, y = iris
    monkeypatch.setattr("bpcore.training.session.Session.seconds", property(lambda self: 5.0))
    clf = bp.MLPClassifier(8, batch_size=1, time_limit=1.0, random_state=0, backend=cpu_backend).fit(X, y)
    assert clf.n_iter_ == 0
    assert clf.run_.stopped_because == "1 s have passed"
    assert np.isfinite(clf.loss_)
    assert clf.loss_curve_ == []
    assert clf.predict(X).shape == y.shape
