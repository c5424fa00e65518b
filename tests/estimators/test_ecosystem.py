"""The estimators among the tools of scikit-learn, with frames, in other processes, without their backend."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='scikit-learn is not installed; the extra "sklearn" brings it')

import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import bpcore as bp
from tests.conftest import backend_params, get_backend_or_skip

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def classifier(backend, **parameters):
    return bp.MLPClassifier(8, learning_rate_init=0.02, max_iter=60, random_state=0, backend=backend, **parameters)


def test_pipeline_cross_validation_and_search(iris, cpu_backend):
    X, y = iris
    pipe = make_pipeline(StandardScaler(), classifier(cpu_backend.name))
    assert (cross_val_predict(pipe, X, y) == y).mean() > 0.9
    assert cross_val_predict(pipe, X, y, method="predict_proba").shape == (150, 3)
    search = GridSearchCV(pipe, {"mlpclassifier__alpha": [1e-4, 1000.0]}, cv=3, n_jobs=2).fit(X, y)
    assert search.best_params_ == {"mlpclassifier__alpha": 1e-4}
    assert search.best_score_ > 0.9
    search = GridSearchCV(
        pipe,
        {
            "mlpclassifier__solver": ["lbfgs", bp.AdamW(0.01), bp.LBFGS()],
            "mlpclassifier__loss": [None, bp.CrossEntropy(label_smoothing=0.1)],
        },
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert (search.cv_results_["mean_test_score"] > 0.8).all()
    found = permutation_importance(search, X, y, n_repeats=2, random_state=0)
    assert found.importances_mean.shape == (4,)


def test_processes_compute_the_same(iris):
    X, y = iris
    found = [
        cross_validate(classifier("numba"), X, y, cv=2, n_jobs=jobs, return_estimator=True)["estimator"][1]
        for jobs in (None, 2)
    ]
    np.testing.assert_array_equal(found[0].coefs_[0], found[1].coefs_[0])


def test_a_backend_is_a_parameter_like_others(iris, cpu_backend):
    clf = classifier(cpu_backend)
    assert clone(clf).backend is cpu_backend
    twin = pickle.loads(pickle.dumps(clf.fit(*iris)))
    assert twin.backend == cpu_backend.name
    assert twin.net_.backend is cpu_backend
    assert clf.backend is cpu_backend


def test_clone_copies_parameters_of_bpcore(iris):
    given = classifier(
        "numpy",
        solver=bp.Nesterov(bp.Cosine(0.1, total=500)),
        loss=bp.Huber(2.0),
        activation=[bp.Activation("cube", "z * z * z / (1 + z * z)")],
        dropout=bp.Dropout(0.1),
        clip=bp.ClipNorm(1.0),
        class_weight={0: 2.0},
        learning_rate=bp.WarmUp(10, bp.Constant(0.1)),
    )
    twin = clone(given)
    for name, value in given.get_params().items():
        assert getattr(twin, name) == value, name
    X, y = iris
    np.testing.assert_array_equal(twin.fit(X, y).coefs_[0], given.fit(X, y).coefs_[0])


def skip_if_names_are_not_seen(frame):
    """scikit-learn before 1.6 asks other frames than those of pandas for a protocol that Polars 2 has given up."""
    from sklearn.utils.validation import _get_feature_names

    if _get_feature_names(frame) is None:
        pytest.skip(f"scikit-learn {sklearn.__version__} does not see the names of this {type(frame).__module__} frame")


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames(cpu_backend, name):
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    X, y = make_classification(80, 4, random_state=0)
    columns = ["a", "b", "c", "d"]
    frame = library.DataFrame({column: X[:, j] for j, column in enumerate(columns)})
    skip_if_names_are_not_seen(frame)
    labels = library.Series(name="label", **{"data" if name == "pandas" else "values": np.where(y, "yes", "no")})
    clf = classifier(cpu_backend, early_stopping=True).fit(frame, labels)
    assert clf.feature_names_in_.tolist() == columns
    assert clf.net_.meta["feature_names"] == columns
    assert clf.classes_.tolist() == ["no", "yes"]
    plain = classifier(cpu_backend, early_stopping=True).fit(X, np.where(y, "yes", "no"))
    np.testing.assert_array_equal(clf.predict_proba(frame), plain.predict_proba(X))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        clf.predict(X)
    with pytest.warns(UserWarning, match="X has feature names, but MLPClassifier was fitted without"):
        plain.predict(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_categories_of_frames_and_set_output(name, output):
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    if output == "polars":
        polars = pytest.importorskip("polars", reason="polars is not installed")
        skip_if_names_are_not_seen(polars.DataFrame({"x": [1]}))
    rng = np.random.default_rng(0)
    size, soil = rng.normal(size=120), rng.choice(["clay", "sand"], 120)
    y = np.where((size > 0) ^ (soil == "clay"), "b", "a")
    if name == "pandas":
        frame = library.DataFrame({"size": size, "soil": library.Categorical(soil)})
        labels = library.Series(library.Categorical(y))
    else:
        frame = library.DataFrame({"size": size, "soil": library.Series(soil, dtype=library.Categorical)})
        labels = library.Series(y, dtype=library.Categorical)
    skip_if_names_are_not_seen(frame)
    columns = make_column_transformer((StandardScaler(), ["size"]), (OneHotEncoder(sparse_output=False), ["soil"]))
    pipe = make_pipeline(columns.set_output(transform=output), classifier("numpy"))
    pipe.fit(frame, labels)
    assert pipe.classes_.tolist() == ["a", "b"]
    assert (pipe.predict(frame) == y).mean() > 0.95
    if output != "default":
        names = ["standardscaler__size", "onehotencoder__soil_clay", "onehotencoder__soil_sand"]
        assert pipe[-1].feature_names_in_.tolist() == names
        assert pipe[-1].net_.meta["feature_names"] == names
    twin = pickle.loads(pickle.dumps(pipe))
    assert twin.predict(frame[:3]).tolist() == pipe.predict(frame).tolist()[:3]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames_go_to_the_core_as_they_are(name):
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    X, y = make_classification(80, 4, random_state=0)
    frame = library.DataFrame({f"x{j}": X[:, j] for j in range(4)})
    nets = [bp.MLP([4, 6, 2], seed=0, backend="numpy") for _ in range(2)]
    for net, given in zip(nets, ((frame, library.Series(y)), (X, y)), strict=True):
        bp.train(net, *given, epochs=2, seed=0, verbose=False)
    np.testing.assert_array_equal(nets[0].predict(frame), nets[1].predict(X))
    assert nets[0].evaluate(frame, library.Series(y)) == nets[1].evaluate(X, y)


def test_metadata_routing(iris):
    X, y = iris
    weights = np.where(y == 2, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        inner = classifier("numpy").set_fit_request(sample_weight=True, validation=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), inner)
        pipe.fit(X, y, sample_weight=weights, validation=(StandardScaler().fit_transform(X), y))
    assert set(pipe.predict(X)) == {0, 1}, "the third class had no weight"
    assert len(pipe[-1].validation_loss_curve_) == pipe[-1].n_iter_
    with sklearn.config_context(enable_metadata_routing=True):
        one = classifier("numpy").set_partial_fit_request(sample_weight=True, classes=True)
    assert one.get_metadata_routing().partial_fit.requests == {"sample_weight": True, "classes": True}


def test_one_classifier_a_column(iris):
    X, y = iris
    Y = np.column_stack([y, y[::-1]])
    assert MultiOutputClassifier(classifier("numpy")).fit(X, Y).predict(X).shape == (150, 2)


@pytest.mark.parametrize("name", backend_params())
def test_the_network_of_an_estimator_is_one_of_bpcore(iris, name, request, tmp_path):
    backend = get_backend_or_skip(name, request.config)
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    clf = classifier(backend).fit(X, names)
    assert isinstance(clf.net_, bp.MLP)
    assert clf.net_.backend is backend
    assert clf.run_.net is clf.net_
    assert clf.run_.record["backend"] == name
    json.dumps(clf.run_.record)
    clf.net_.save(tmp_path / "iris.safetensors")
    net = bp.load(tmp_path / "iris.safetensors", backend="numpy")
    assert net.meta["classes"] == ["setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(net.predict(X), clf.predict_proba(X), rtol=1e-9)
    assert net.evaluate(X, names)["accuracy"] == pytest.approx(clf.score(X, names))
    assert clf.partial_fit(X, names).net_.meta["classes"] == net.meta["classes"]


def test_the_command_predicts_what_an_estimator_does(iris, tmp_path):
    """A saved network says what its outputs mean: numbers are not taken for classes."""
    from typer.testing import CliRunner

    from bpcore.cli.app import app

    X, y = iris
    np.save(tmp_path / "X.npy", X)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    reg = bp.MLPRegressor(hidden_layer_sizes=8, max_iter=5, random_state=0, backend="numpy")
    for estimator, target in ((classifier("numpy"), names), (classifier("numpy"), y), (reg, X[:, 1] * 3 + y)):
        estimator.fit(X, target).net_.save(tmp_path / "m.safetensors")
        words = ["predict", str(tmp_path / "m.safetensors"), str(tmp_path / "X.npy"), "--backend", "numpy"]
        found = CliRunner().invoke(app, words).stdout.split()[1:]
        if estimator is reg:
            np.testing.assert_allclose(np.array(found, float), estimator.predict(X), rtol=1e-6)
        else:
            assert found == [str(name) for name in estimator.predict(X)]


@pytest.mark.parametrize("name", backend_params())
def test_a_backend_in_data_of_several_kinds(name, request):
    """The same numbers on every backend, streams of validation, weights and a short batch included."""
    backend = get_backend_or_skip(name, request.config)
    X, y = make_regression(130, 5, random_state=2)
    y = y / y.std()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X))
    for parameters in ({"early_stopping": True}, {"solver": "lbfgs"}, {"solver": "sgd", "learning_rate": "invscaling"}):
        common = {"max_iter": 5, "batch_size": 50, "random_state": 0, "alpha": 1.0, **parameters}
        found, expected = (bp.MLPRegressor(backend=each, **common).fit(X, y, weights) for each in (backend, "numpy"))
        np.testing.assert_allclose(found.predict(X), expected.predict(X), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-9)
    found = bp.MLPRegressor(backend=backend, random_state=0)
    expected = bp.MLPRegressor(backend="numpy", random_state=0)
    for rows in (slice(0, 60), slice(60, 130), slice(0, 60)):
        found.partial_fit(X[rows], y[rows])
        expected.partial_fit(X[rows], y[rows])
    np.testing.assert_allclose(pickle.loads(pickle.dumps(found)).predict(X), expected.predict(X), rtol=1e-9, atol=1e-12)


def test_a_fitted_estimator_loads_where_its_backend_does_not_exist(iris, tmp_path, monkeypatch):
    X, y = iris
    clf = classifier("numba").fit(X, y)
    expected = clf.predict_proba(X)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((clf, X, expected)))
    code = """
        import sys, pickle
        sys.modules["numba"] = None  # as if it were not installed
        import numpy as np
        with open(sys.argv[1], "rb") as file:
            clf, X, expected = pickle.load(file)
        assert clf.net_.backend.name == "numpy", clf.net_.backend
        np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-9)
        print("loaded")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "model.pickle")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "loaded\n", done.stderr


def test_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import bpcore as bp\n"
        "assert 'MLPClassifier' in dir(bp) and 'sklearn' not in bp.__all__\n"
        "from bpcore import *\n"
        "try: bp.MLPClassifier\n"
        "except bp.errors.MissingExtraError as error: print(error)\n"
        "try: bp.MLPClasifier\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs the package 'scikit-learn'" in done.stdout, done.stderr
    assert 'pip install "bpcore[sklearn]"' in done.stdout
    assert "module 'bpcore' has no attribute 'MLPClasifier'" in done.stdout
