"""Looks during a training: when they are taken, that they change nothing, and that they cost nothing when off."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import bpcore as bp


@pytest.fixture
def points(rng):
    X = rng.normal(size=(60, 4))
    return X, (X[:, 0] > 0).astype(np.int64)


def train(points, *callbacks, backend="numpy", **how):
    dtype, activation = how.pop("dtype", "float64"), how.pop("activation", "tanh")
    net = bp.MLP([4, 8, 2], activation, seed=0, dtype=dtype, backend=backend)
    how = {"epochs": 5, "batch_size": 8, "seed": 1, "optimizer": bp.Adam(0.02), "verbose": False, **how}
    return bp.train(net, *points, callbacks=callbacks, **how)


def theta(run):
    return run.net.backend.to_numpy(run.net.theta)


def test_a_look_is_taken_before_the_first_step_after_epochs_and_at_the_end(points):
    inspector = bp.Inspector(every_epochs=2)
    train(points, inspector)
    assert [(report.step, report.epoch) for report in inspector.reports] == [(0, 0), (16, 2), (32, 4), (40, 5)]


def test_a_look_is_taken_after_steps_also_inside_of_an_epoch(points):
    inspector = bp.Inspector(every_steps=7)
    train(points, inspector)
    assert [report.step for report in inspector.reports] == [0, 7, 14, 21, 28, 35, 40]
    both = bp.Inspector(2, 7)
    train(points, both)
    assert [report.step for report in both.reports] == [0, 7, 14, 16, 21, 28, 32, 35, 40]


def test_two_inspectors_and_checkpoints_keep_their_own_time(points, tmp_path):
    first, second = bp.Inspector(every_steps=6), bp.Inspector(every_steps=10)
    run = train(points, first, second, checkpoint=bp.Checkpoint(tmp_path, every_steps=15, keep=9))
    assert [report.step for report in first.reports] == [*range(0, 37, 6), 40]
    assert [report.step for report in second.reports] == [0, 10, 20, 30, 40]
    assert [int(path.stem[-12:]) for path in run.record and bp.Checkpoint(tmp_path).files()] == [40, 30, 15]


@pytest.mark.parametrize(
    ("backend", "plan"),
    [("numpy", "reference"), ("numba", "compiled"), pytest.param("cupy", "auto", marks=pytest.mark.gpu)],
    indirect=["backend"],
)
def test_a_training_ends_with_the_same_bits(backend, plan, points):
    # in float32 with ReLU, whose loops other tests have compiled
    how = {"backend": backend, "plan": plan, "dtype": "float32", "activation": "relu"}
    if plan == "reference":
        how |= {"dropout": 0.25, "penalty": bp.L2(1e-3), "clip": bp.ClipNorm(0.5)}
    without, inspector = train(points, **how), bp.Inspector(1, 3)
    watched = train(points, inspector, **how)
    np.testing.assert_array_equal(theta(watched), theta(without))
    np.testing.assert_array_equal(watched.history["loss"], without.history["loss"])
    assert len(inspector.reports) > 12


def test_off_it_touches_no_step(points, monkeypatch):
    """Without an inspector the steps are asked for as before: no stretch is cut, and the module is not even loaded."""
    seen = []
    steps = bp.Trainer.run_steps

    def spy(self, problem, index, between=None, every=None):
        seen.append(every)
        return steps(self, problem, index, between, every)

    monkeypatch.setattr(bp.Trainer, "run_steps", spy)
    train(points, lambda net, progress: None)
    assert set(seen) == {None}
    seen.clear()
    train(points, bp.Inspector())  # after epochs: no stretch is cut either
    assert set(seen) == {None}
    seen.clear()
    train(points, bp.Inspector(every_steps=5))
    assert set(seen) == {5}
    code = (
        "import sys, bpcore as bp\n"
        "net = bp.MLP([1, 2, 2], seed=0, backend='numpy')\n"
        "bp.train(net, [[0.0], [1.0]], [0, 1], epochs=1)\n"
        "print([name for name in sys.modules if name.startswith(('bpcore.inspection', 'bpcore.plots'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_looks_are_at_the_same_samples(points):
    inspector = bp.Inspector(samples=20, seed=3)
    run = train(points, inspector, epochs=1)
    rows = np.sort(np.random.default_rng(3).choice(60, 20, replace=False, shuffle=False))
    X, labels = points
    last = run.net.evaluate(X[rows], labels[rows])
    assert inspector.reports[-1].loss == pytest.approx(last["loss"], rel=1e-12)
    assert inspector.reports[-1].accuracy == pytest.approx(last["accuracy"])
    fresh = bp.MLP([4, 8, 2], "tanh", seed=0, dtype="float64", backend="numpy")
    assert inspector.reports[0].loss == pytest.approx(fresh.evaluate(X[rows], labels[rows])["loss"], rel=1e-12)


def test_series_hold_what_the_reports_say(points):
    inspector = bp.Inspector()
    train(points, inspector)
    steps, values = inspector.series("dW", "norm")
    assert steps.tolist() == [0, 8, 16, 24, 32, 40]
    assert sorted(values) == [1, 2]
    assert values[1].tolist() == [report["dW", 1].norm for report in inspector.reports]
    assert inspector.series("update_ratio")[1][3].tolist() == [report[3].update_ratio for report in inspector.reports]
    assert np.isnan(inspector.series("flat_share")[1][3]).all()  # softmax
    assert inspector.series("saturated")[1][2].tolist() == [len(report[2].saturated) for report in inspector.reports]
    with pytest.raises(bp.errors.UnknownNameError, match="unknown quantity 'Y'; known: Z, H, Delta"):
        inspector.series("Y")
    with pytest.raises(bp.errors.UnknownNameError, match=r"unknown statistic 'median'.*Did you mean 'mean'"):
        inspector.series("Z", "median")


def test_a_second_training_begins_anew_and_the_first_is_kept(points):
    inspector = bp.Inspector()
    train(points, inspector, epochs=1)
    train(points, inspector, epochs=2)
    assert [report.step for report in inspector.reports] == [0, 8, 0, 8, 16]
    assert inspector.series("Z")[0].tolist() == [0, 8, 16]


def test_an_alarm_is_told_once_and_can_stop_the_training(points):
    X, labels = points
    told: list = []
    run = train((1000 * X, labels), bp.Inspector(on_alarm=told.append), optimizer=bp.SGD(1e-9))
    assert [alarm.kind for alarm in told].count("inputs_not_scaled") == 1
    assert run.stopped_because == "reached 5 epochs"
    net = bp.MLP([4, 8, 2], seed=0, backend="numpy")

    def plant(net, progress):
        net.b[1][...] = -1e6

    inspector = bp.Inspector(on_alarm=lambda alarm: alarm.kind == "dead_layer")
    run = bp.train(net, X, labels, epochs=9, seed=0, batch_size=20, callbacks=[plant, inspector], verbose=False)
    assert (run.stopped_because, len(run.history)) == ("a callback asked to stop", 1)
    inside = bp.Inspector(every_steps=2, on_alarm=lambda alarm: True)
    run = train((1000 * X, labels), inside, optimizer=bp.SGD(1e-9))
    # what is wrong from the start is told before the first step, and ends the training where it can be ended
    assert (run.steps, run.stopped_because) == (2, "a callback asked to stop")


def test_callbacks_between_steps_can_stop_a_training(points):
    class Stop(bp.Callback):
        every_steps = 3

        def on_steps(self, net, progress):
            seen.append((progress.step, progress.row))
            return progress.step == 9

    seen: list = []
    run = train(points, Stop())
    assert seen == [(3, None), (6, None), (9, None)]
    assert (run.steps, run.stopped_because) == (9, "a callback asked to stop")


def test_a_loss_that_does_not_fall_is_told(points):
    inspector = bp.Inspector()
    train(points, inspector, optimizer=bp.SGD(1e-9))
    (alarm,) = inspector.alarms
    assert (alarm.kind, alarm.layer) == ("loss_does_not_fall", None)
    assert str(inspector).endswith(str(alarm))
    assert "6 looks" in str(inspector)


def test_full_batch_methods_have_no_update_to_compare(points):
    inspector = bp.Inspector()
    train(points, inspector, optimizer=bp.LBFGS(), epochs=4)
    assert [report.step for report in inspector.reports] == [0, 1, 2, 3, 4]
    assert all(layer.update_ratio is None for report in inspector.reports for layer in report.layers)
    assert inspector.reports[-1].loss < inspector.reports[0].loss


def test_the_best_parameters_are_not_taken_for_the_last(points):
    X, labels = points
    inspector = bp.Inspector(every_epochs=3)
    run = train(points, inspector, validation=(X[:20], labels[:20]), keep="best", optimizer=bp.SGD(0.3))
    assert run.kept == "best"
    assert [report.step for report in inspector.reports] == [0, 24]


def test_estimators_can_be_watched(points):
    pytest.importorskip("sklearn")
    inspector = bp.Inspector()
    estimator = bp.MLPClassifier(
        (6,), max_iter=3, batch_size=20, random_state=0, callbacks=[inspector], backend="numpy"
    )
    with pytest.warns(match="Maximum iterations"):
        estimator.fit(*points)
    assert [report.step for report in inspector.reports] == [0, 3, 6, 9]


def test_everything_is_json(points):
    inspector = bp.Inspector(every_steps=20)
    train(points, inspector)
    again = json.loads(json.dumps(inspector.to_dict()))
    assert again["every_steps"] == 20
    assert [report["step"] for report in again["reports"]] == [0, 20, 40]


def test_the_learning_rate_of_every_step_is_recorded(points):
    schedule = bp.WarmUp(10, bp.ReduceOnPlateau(0.3, factor=0.5, patience=0, threshold=0.5))
    run = train(points, optimizer=bp.SGD(schedule), record_steps=True)
    assert run.history.etas.shape == run.history.steps.shape == (40,)
    np.testing.assert_array_equal(run.history.etas[7::8], run.history["eta"])
    assert run.history.etas[0] < run.history.etas[5] < run.history.etas[9]
    assert len(set(run.history["eta"])) > 2
    cut = train(points, optimizer=bp.SGD(schedule), record_steps=True, stop=bp.MaxSteps(19))
    np.testing.assert_array_equal(cut.history.etas, run.history.etas[:19])
    assert len(train(points).history.etas) == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(bp.errors.ConfigurationError, match="Inspector: every_steps must be an integer of at least 1"):
        bp.Inspector(every_steps=0)
    with pytest.raises(bp.errors.ConfigurationError, match="on_alarm is 3; it must be a function"):
        bp.Inspector(on_alarm=3)
    assert str(bp.Inspector()) == "no look was taken yet"
    assert bp.Inspector().alarms == ()
