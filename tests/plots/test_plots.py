"""What pictures show: the numbers in their artists, on axes of their own or the caller's, without pyplot."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError, DataError, MissingExtraError, ShapeError, UnknownNameError

matplotlib = pytest.importorskip("matplotlib")
figure = pytest.importorskip("matplotlib.figure")
style = pytest.importorskip("matplotlib.style")
to_hex = pytest.importorskip("matplotlib.colors").to_hex
agg = pytest.importorskip("matplotlib.backends.backend_agg")


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(90, 2))
    return X, (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)


@pytest.fixture(scope="module")
def inspector():
    return bp.Inspector()


@pytest.fixture(scope="module")
def run(points, inspector):
    X, labels = points
    net = bp.MLP([2, 8, 6, 3], seed=0, backend="numpy")
    return bp.train(
        net, X[:60], labels[:60], epochs=6, batch_size=20, seed=0, validation=(X[60:], labels[60:]), keep="best",
        optimizer=bp.Adam(bp.Cosine(0.05, 18)), record_steps=True, callbacks=[inspector], verbose=False,
    )  # fmt: skip


@pytest.fixture
def ax():
    return figure.Figure().add_subplot()


def lines(axes):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}


# ------------------------------------------------------------------------------------------ curves


def test_curves_show_losses_and_accuracies(run):
    axes = bp.plots.curves(run)
    assert list(lines(axes)) == ["training loss", "validation loss"]
    np.testing.assert_array_equal(lines(axes)["training loss"], run.history["loss"])
    np.testing.assert_array_equal(lines(axes)["validation loss"], run.history["val_loss"])
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), run.history["epoch"])
    right = lines(axes.metric_axes)
    np.testing.assert_array_equal(right["validation accuracy"], run.history["val_accuracy"])
    np.testing.assert_array_equal(right["training accuracy"], run.history["accuracy"])
    named = [text.get_text() for text in axes.metric_axes.get_legend().get_texts()]
    assert named == ["training loss", "validation loss", "training accuracy", "validation accuracy"]
    marked = [line for line in axes.lines if line.get_label().startswith("_")]
    assert [line.get_xdata()[0] for line in marked] == [run.best_epoch]
    assert axes.get_yscale() == "linear"
    assert bp.plots.curves(run, log=True).get_yscale() == "log"


def test_run_plot_is_the_same_picture(run, ax):
    assert run.plot(ax) is ax
    assert list(lines(ax)) == list(lines(bp.plots.curves(run)))


def test_curves_of_other_sources(run, ax):
    rows, columns = list(run.history), {name: run.history[name] for name in ("loss", "val_loss")}
    for source in (run.history, rows, columns):
        np.testing.assert_array_equal(lines(bp.plots.curves(source))["validation loss"], run.history["val_loss"])
    assert bp.plots.curves(columns).metric_axes is None
    bp.plots.curves(run.history, metric=None, name="first", colour="C3", ax=ax)
    bp.plots.curves({"loss": [3, 2]}, metric=None, name="second", ax=ax)
    assert list(lines(ax)) == ["training loss, first", "validation loss, first", "training loss, second"]
    assert ax.lines[1].get_color() == "C3"
    assert len(ax.get_legend().get_texts()) == 3


def test_a_metric_of_the_users_own_and_a_single_epoch(points):
    X, labels = points
    net = bp.MLP([2, 4, 3], seed=0, backend="numpy")
    run = bp.train(
        net, X, labels, epochs=1, seed=0, validation=(X, labels), metrics={"mass": lambda Y, H: float(H.sum())},
        verbose=False,
    )  # fmt: skip
    axes = bp.plots.curves(run, metric="mass")
    np.testing.assert_array_equal(lines(axes.metric_axes)["validation mass"], run.history["val_mass"])
    assert axes.lines[0].get_marker() == "o"  # a line of one point would be invisible
    with pytest.raises(UnknownNameError, match="unknown metric of the history 'mas'; known: accuracy, mass"):
        bp.plots.curves(run, metric="mas")


def test_what_curves_refuse():
    with pytest.raises(ConfigurationError, match="curves: the history is empty; no epoch was finished"):
        bp.plots.curves([])
    with pytest.raises(ConfigurationError, match=r"curves needs a run of bp.train.*got int"):
        bp.plots.curves(3)
    with pytest.raises(ShapeError, match=r"columns must be vectors of one length; got loss \(2,\), val_loss \(1,\)"):
        bp.plots.curves({"loss": [1, 2], "val_loss": [1]})
    with pytest.raises(UnknownNameError, match="unknown column of the history 'loss'; known: epoch, eta"):
        bp.plots.curves({"eta": [0.1]})


def test_the_learning_rate_of_steps_epochs_and_schedules(run):
    steps = bp.plots.learning_rate(run)
    np.testing.assert_array_equal(steps.lines[0].get_ydata(), run.history.etas)
    np.testing.assert_array_equal(steps.lines[0].get_xdata(), np.arange(1, 19))
    assert steps.get_xlabel() == "step"
    epochs = bp.plots.learning_rate(list(run.history))
    np.testing.assert_array_equal(epochs.lines[0].get_ydata(), run.history["eta"])
    assert epochs.get_xlabel() == "epoch"
    planned = bp.plots.learning_rate(bp.Cosine(0.05, 18), steps=18)
    np.testing.assert_array_equal(planned.lines[0].get_ydata(), run.history.etas)
    by_epoch = bp.plots.learning_rate(bp.Step(0.4, 1, 0.5, per="epoch"), steps=6, steps_per_epoch=2)
    np.testing.assert_allclose(by_epoch.lines[0].get_ydata(), [0.4, 0.4, 0.2, 0.2, 0.1, 0.1])
    with pytest.raises(ConfigurationError, match="the history has no column eta; it has epoch, loss"):
        bp.plots.learning_rate({"loss": [1.0]})
    with pytest.raises(ConfigurationError, match="steps must be an integer of at least 1, got 0"):
        bp.plots.learning_rate(bp.Cosine(0.05, 18), steps=0)


# ------------------------------------------------------------------------------------------ classes


def test_the_plane_is_coloured_by_the_predicted_class(run, points, ax):
    X, labels = points
    assert bp.plots.decision_boundary(run, X, labels, points=25, margin=0, classes="abc", ax=ax) is ax
    (regions,) = [artist for artist in ax.collections if hasattr(artist, "levels")]
    assert regions.levels.tolist() == [-0.5, 0.5, 1.5, 2.5]
    for k, name in enumerate("abc"):
        (line,) = [line for line in ax.lines if line.get_label() == name]
        np.testing.assert_array_equal(line.get_xydata(), X[labels == k])
    assert ax.get_xlim() == (X[:, 0].min(), X[:, 0].max())
    # a point of the picture has the colour of its class
    canvas = agg.FigureCanvasAgg(ax.figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    seen: dict = {}
    for point in np.random.default_rng(0).uniform(X.min(axis=0), X.max(axis=0), (40, 2)):
        x, y = ax.transData.transform(point)
        seen.setdefault(int(run.net.predict_classes([point])[0]), []).append(pixels[int(len(pixels) - y), int(x)])
    typical = {k: np.median(colours, axis=0) for k, colours in seen.items()}
    assert len(typical) == 3
    assert all(np.abs(typical[a] - typical[b]).max() > 10 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_boundary_of_a_function_and_of_one_output(points):
    X, _ = points
    axes = bp.plots.decision_boundary(lambda P: P[:, 1] > 0, X, (X[:, 1] > 0)[:, None])
    assert [line.get_label() for line in axes.lines] == ["0", "1"]
    net = bp.MLP([2, 3, 1], output="sigmoid", seed=0, backend="numpy")
    net.meta |= {"classes": ["no", "yes"], "feature_names": ["width", "length"]}
    axes = bp.plots.decision_boundary(net, X, np.arange(len(X)) % 2)
    assert [line.get_label() for line in axes.lines] == ["no", "yes"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("width", "length")
    assert bp.plots.decision_boundary(net, X).get_legend() is None


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda X, y: (bp.MLP([3, 2], seed=0), X, y), ShapeError, "the network has 3 inputs"),
        (lambda X, y: (len, np.ones((4, 3)), None), ShapeError, r"X has shape \(4, 3\); a picture of the plane needs"),
        (lambda X, y: (lambda P: P, X, y), ShapeError, r"returned shape \(40000, 2\)"),
        (lambda X, y: (lambda P: P[:, 0] > 0, X, y[:-1]), ShapeError, r"Y has shape \(89,\)"),
        (lambda X, y: (lambda P: P[:, 0] > 0, X, y + 0.5), DataError, "Y must hold classes"),
        (lambda X, y: (lambda P: P[:, 0] > 0, X, y + 12), DataError, "15 classes; at most 10"),
        (lambda X, y: (bp.MLP([2, 1], output="identity", seed=0), X, y), ConfigurationError, "a number and no class"),
        (lambda X, y: (3, X, y), ConfigurationError, "needs a network"),
    ],
)
def test_what_a_boundary_refuses(make, error, match, points):
    with pytest.raises(error, match=match):
        bp.plots.decision_boundary(*make(*points))


def test_a_confusion_matrix_counts(run, points):
    X, labels = points
    predicted = run.net.predict_classes(X)
    wanted = [[int(((labels == i) & (predicted == j)).sum()) for j in range(3)] for i in range(3)]
    for axes in (
        bp.plots.confusion_matrix(run, X, labels),
        bp.plots.confusion_matrix(labels, predicted),
        bp.plots.confusion_matrix(wanted),
    ):
        assert axes.images[0].get_array().tolist() == wanted
        written = {text.get_position(): text.get_text() for text in axes.texts}
        assert written == {(j, i): str(wanted[i][j]) for i in range(3) for j in range(3) if wanted[i][j]}
    shares = bp.plots.confusion_matrix(wanted, normalise="rows").images[0].get_array()
    np.testing.assert_allclose(shares, np.array(wanted) / np.sum(wanted, axis=1, keepdims=True))
    shares = bp.plots.confusion_matrix([[2, 0], [2, 0]], normalise="columns").images[0].get_array()
    assert shares.tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_a_confusion_matrix_has_the_names_of_the_classes(points):
    net = bp.MLP([2, 3], seed=0, backend="numpy")
    net.meta["classes"] = ["ant", "bee", "cat"]
    X, labels = points
    names = np.array(["ant", "bee", "cat"])[labels]
    axes = bp.plots.confusion_matrix(net, X, names)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["ant", "bee", "cat"]
    counts = bp.plots.confusion_matrix(net, X, labels).images[0].get_array()
    assert axes.images[0].get_array().tolist() == counts.tolist()
    large = bp.plots.confusion_matrix(np.eye(30, dtype=int))
    assert len(large.texts) == 0
    assert len(large.figure.axes) == 2  # a colour bar says what colours mean
    with pytest.raises(UnknownNameError, match="unknown class 'dog'"):
        bp.plots.confusion_matrix(net, X[:1], ["dog"])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (([[1, 2]],), {}, ShapeError, r"counts have shape \(1, 2\); a square table"),
        (([[0.5]],), {}, DataError, "counts must be whole numbers"),
        (([0, 1], [0]), {}, ShapeError, r"Y has shape \(1,\)"),
        (([0, 1], [0, 1], [0, 1]), {}, ConfigurationError, "Y goes with a network"),
        (([0, 1], [0, 1]), {"classes": ["a"]}, ShapeError, "classes lists 1 names; there are 2 classes"),
        (([0, 1], [0, 1]), {"normalise": "all"}, UnknownNameError, "unknown value for normalise 'all'"),
    ],
)
def test_what_a_confusion_matrix_refuses(arguments, options, error, match):
    with pytest.raises(error, match=match):
        bp.plots.confusion_matrix(*arguments, **options)
    with pytest.raises(ConfigurationError, match="give X and Y"):
        bp.plots.confusion_matrix(bp.MLP([2, 2], seed=0))


# ------------------------------------------------------------------------------------------ weights and activations


def areas(axes):
    """Heights and edges of a filled histogram."""
    (patch,) = axes.patches
    x, y = patch.get_xy().T
    return x, y


def test_weights_are_counted(run):
    found = bp.plots.weight_histograms(run, bins=8)
    assert len(found.axes) == 3
    for axes, (W, b) in zip(found.axes, run.net.get_weights(), strict=True):
        density, edges = np.histogram(W.astype(float), bins=8, density=True)
        x, y = areas(axes)
        assert y.max() == pytest.approx(density.max())
        assert (x.min(), x.max()) == (pytest.approx(edges[0]), pytest.approx(edges[-1]))
        np.testing.assert_array_equal(lines(axes)["biases"] * 0 + 1, np.ones(len(b)))
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), b)
    assert found.axes[1].get_title() == "W[2] 8 x 6"
    one = figure.Figure().add_subplot()
    assert bp.plots.weight_histograms(run.net.get_weights(), layers=2, ax=one) is one.figure
    assert one.get_title() == "W[2] 8 x 6"
    fresh = bp.plots.weight_histograms(bp.MLP([2, 4, 1], output="sigmoid", seed=0, backend="numpy"))
    assert all(not axes.lines for axes in fresh.axes)  # biases that are all 0 are not drawn


def test_activations_are_counted(run, points):
    X, _ = points
    trace = bp.forward(run.net, X)
    for of, arrays in (("H", trace.H), ("Z", trace.Z)):
        found = bp.plots.activation_histograms(run, X, of=of, bins=10)
        for axes, layer in zip(found.axes, (2, 3, 4), strict=True):
            density, _ = np.histogram(arrays[layer].astype(float), bins=10, density=True)
            assert areas(axes)[1].max() == pytest.approx(density.max())
    share = round(100 * float(np.mean(trace.H[3] == 0)))
    titles = [axes.get_title() for axes in bp.plots.activation_histograms(run, X).axes]
    assert titles[1] == f"H[3] relu, {share} % zeros"
    assert titles[2] == "H[4] softmax"


def test_numbers_that_are_not_finite_and_that_are_equal_are_drawn():
    pairs = [(np.array([[1.0, np.nan, np.inf, 2.0]]), np.zeros(4)), (np.full((3, 1), 0.5), np.ones(1))]
    first, second = bp.plots.weight_histograms(pairs).axes
    assert first.patches[0].get_label() == "weights, 2 not finite"
    assert areas(second)[0].min() == pytest.approx(0.0)
    assert areas(second)[0].max() == pytest.approx(1.0)
    # so close that they have no room for bins
    (close,) = bp.plots.weight_histograms([(np.array([[1.0, np.nextafter(1, 2)]]), np.zeros(2))]).axes
    assert np.ptp(areas(close)[0]) == pytest.approx(1.0)


def test_what_histograms_refuse(run, points):
    with pytest.raises(UnknownNameError, match="unknown layer for weight_histograms 4; known: 1, 2, 3"):
        bp.plots.weight_histograms(run, layers=[1, 4])
    with pytest.raises(ConfigurationError, match="draws 3 panels and was given 1 axes; hand in one for each"):
        bp.plots.weight_histograms(run, ax=figure.Figure().add_subplot())
    with pytest.raises(ShapeError, match=r"W\[1\] has shape \(3,\)"):
        bp.plots.weight_histograms([(np.ones(3), np.ones(3))])
    with pytest.raises(ConfigurationError, match=r"a list of pairs \(W, b\)"):
        bp.plots.weight_histograms(5)
    with pytest.raises(UnknownNameError, match="unknown quantity 'Delta'; known: H, Z"):
        bp.plots.activation_histograms(run, points[0], of="Delta")
    with pytest.raises(ConfigurationError, match="ax is str; axes of matplotlib are needed"):
        bp.plots.curves({"loss": [1.0]}, ax="here")


def test_images_hold_the_weights_of_their_neurons(ax):
    net = bp.MLP([12, 5, 2], seed=0, dtype="float64", backend="numpy")
    W = net.get_weights()[0][0]
    bp.plots.first_layer(net, (3, 4), columns=2, ax=ax)
    mosaic = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert mosaic.shape == (3 * 4 - 1, 2 * 5 - 1)
    for unit in range(5):
        top, left = (unit // 2) * 4, (unit % 2) * 5
        np.testing.assert_array_equal(mosaic[top : top + 3, left : left + 4], W[:, unit].reshape(3, 4))
    assert np.isnan(mosaic[3]).all()
    assert np.isnan(mosaic[:, 4]).all()
    low, high = ax.images[0].get_clim()
    assert (-low, high) == (np.abs(W).max(), np.abs(W).max())
    some = bp.plots.first_layer(W, (4, 3), units=[4, 1], columns=2, same_scale=False).images[0].get_array()
    np.testing.assert_allclose(some[:, :3], W[:, 4].reshape(4, 3) / np.abs(W[:, 4]).max())


def test_what_images_refuse():
    net = bp.MLP([12, 5, 2], seed=0, backend="numpy")
    with pytest.raises(ShapeError, match=r"12 inputs are no square; give shape=\(rows, columns\)"):
        bp.plots.first_layer(net)
    with pytest.raises(ShapeError, match=r"shape \(5, 2\) has 10 pixels; the network has 12 inputs"):
        bp.plots.first_layer(net, (5, 2))
    with pytest.raises(UnknownNameError, match="unknown neuron of layer 2 5; known: 0 to 4"):
        bp.plots.first_layer(net, (3, 4), units=[5])


# ------------------------------------------------------------------------------------------ inspections


def test_a_look_by_layer(run, points):
    report = bp.inspect(run.net, *points, optimizer="sgd")
    sizes, ratios, shares = report.plot().axes
    for name in ("Z", "H", "Delta"):
        np.testing.assert_allclose(lines(sizes)[name], [getattr(layer, name).rms for layer in report.layers])
    np.testing.assert_allclose(lines(ratios)["update"], [layer.update_ratio for layer in report.layers])
    np.testing.assert_allclose(lines(ratios)["gradient"], [layer.gradient_ratio for layer in report.layers])
    flat, zeros = shares.containers
    np.testing.assert_allclose([bar.get_height() for bar in flat], [layer.flat_share or 0 for layer in report.layers])
    np.testing.assert_allclose([bar.get_height() for bar in zeros], [layer.H.zeros for layer in report.layers])
    assert "update" not in lines(bp.inspect(run.net, *points).plot().axes[1])


def test_looks_over_time(inspector, run):
    loss, errors, updates, flat = inspector.plot().axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [report.loss for report in inspector.reports])
    steps, values = inspector.series("Delta", "rms")
    for layer, found in lines(errors).items():
        np.testing.assert_array_equal(found, values[int(layer)])
        np.testing.assert_array_equal(errors.lines[0].get_xdata(), steps)
    assert list(lines(updates)) == ["2", "3", "4"]
    assert list(lines(flat)) == ["2", "3"]  # softmax is never flat
    one = bp.plots.over_time(inspector, "dW", "norm")
    np.testing.assert_array_equal(lines(one)["1"], inspector.series("dW", "norm")[1][1])
    assert one.get_yscale() == "log"
    assert bp.plots.over_time(inspector, "dead").get_yscale() == "linear"
    with pytest.raises(ConfigurationError, match="has not taken a look yet"):
        bp.Inspector().plot()


def test_many_layers_get_a_colour_bar(points):
    inspector = bp.Inspector()
    net = bp.MLP([2, *[4] * 10, 3], "tanh", seed=0, backend="numpy")
    bp.train(net, *points, epochs=1, seed=0, callbacks=[inspector], verbose=False)
    axes = bp.plots.over_time(inspector, "H", "std")
    assert axes.get_legend() is None
    assert axes.figure.axes[1].get_ylabel() == "layer"
    assert axes.figure.axes[1].get_ylim() == (2, 12)


# ------------------------------------------------------------------------------------------ all of them

DRAWN = {
    "curves": lambda run, inspector, X, y: bp.plots.curves(run),
    "learning_rate": lambda run, inspector, X, y: bp.plots.learning_rate(run),
    "decision_boundary": lambda run, inspector, X, y: bp.plots.decision_boundary(run, X, y, points=20),
    "confusion_matrix": lambda run, inspector, X, y: bp.plots.confusion_matrix(run, X, y),
    "weight_histograms": lambda run, inspector, X, y: bp.plots.weight_histograms(run),
    "activation_histograms": lambda run, inspector, X, y: bp.plots.activation_histograms(run, X),
    "first_layer": lambda run, inspector, X, y: bp.plots.first_layer(run, (1, 2)),
    "by_layer": lambda run, inspector, X, y: bp.plots.by_layer(inspector.reports[-1]),
    "over_time": lambda run, inspector, X, y: bp.plots.over_time(inspector),
}


def test_the_list_is_complete():
    assert set(DRAWN) == set(bp.plots.__all__)


@pytest.mark.parametrize("name", DRAWN)
def test_pyplot_and_settings_are_left_alone_and_a_notebook_gets_a_picture(name, run, inspector, points, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    settings = dict(matplotlib.rcParams.copy())
    drawn = DRAWN[name](run, inspector, *points)
    assert dict(matplotlib.rcParams.copy()) == settings
    assert drawn._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", DRAWN)
def test_a_dark_style_stays_dark(name, run, inspector, points):
    with style.context("dark_background"):
        drawn = DRAWN[name](run, inspector, *points)
        whole = getattr(drawn, "figure", None) or drawn
        assert to_hex(whole.get_facecolor()) == "#000000"
        axes = whole.axes[0]
        assert to_hex(axes.xaxis.label.get_color()) == "#ffffff"
        assert all(to_hex(line.get_color()) != "#000000" for line in axes.lines)


@pytest.mark.parametrize("name", DRAWN)
def test_without_matplotlib_the_extra_is_named(name, run, inspector, points, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=rf"bp\.plots\.{name} needs the package 'matplotlib'.*bpcore\[plot\]"):
        DRAWN[name](run, inspector, *points)
