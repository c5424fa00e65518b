"""Stopping rules, alone and combined, and what is kept when they fire."""

from __future__ import annotations

import time

import numpy as np
import pytest

import bpcore as bp
from bpcore.errors import ConfigurationError
from bpcore.training.stopping import Progress, StopRule
from tests.helpers.compare import assert_same_bits


class Walk:
    """A net of one parameter that walks down |a - y| by eta a step, so that every loss is known beforehand.

    The batch is one sample, three steps an epoch; after step t the bias is 0.5 * t and the loss 100 - 0.5 * t.
    """

    def __init__(self, be):
        self.be = be
        self.net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=be)
        self.X, self.Y = np.zeros((3, 1)), np.full((3, 1), 100.0)

    def train(self, stop, **options):
        settings = {"loss": "absolute", "optimizer": bp.SGD(0.5), "batch_size": 1, "epochs": 50, "seed": 0, **options}
        return bp.train(self.net, self.X, self.Y, stop=stop, **settings)

    @property
    def position(self):
        return float(self.be.to_numpy(self.net.b[1])[0])


@pytest.fixture
def walk(cpu_backend):
    return Walk(cpu_backend)


# the loss of an epoch is the mean before its three updates: 100 - 0.5 - 1.5 * (epoch - 1)
@pytest.mark.parametrize(
    ("stop", "epochs", "steps", "reason"),
    [
        (None, 50, 150, "reached 50 epochs"),
        (bp.MaxSteps(6), 2, 6, "reached 6 steps"),
        (bp.LossBelow(95.0), 5, 15, "loss is 93.5, below 95"),
        (bp.LossChange(1.6), 2, 6, "loss changed by 1.5, less than 1.6"),
        (bp.GradientNorm(1.5), 1, 3, "gradient norm is 1, below 1.5"),
        ([bp.LossBelow(95.0), bp.MaxSteps(6)], 2, 6, "reached 6 steps"),
        (bp.LossBelow(95.0) | bp.MaxSteps(6), 2, 6, "reached 6 steps"),
        (bp.LossBelow(95.0) & bp.MaxSteps(6), 5, 15, "loss is 93.5, below 95 and reached 6 steps"),
        (bp.LossBelow(95.0) & bp.GradientNorm(1.5), 5, 15, "loss is 93.5, below 95 and gradient norm is 1, below 1.5"),
        (
            (bp.LossBelow(90.0) & bp.GradientNorm(1.5)) | bp.LossBelow(97.0),
            3,
            9,
            "loss is 96.5, below 97",
        ),
        (bp.LossChange(1.4), 50, 150, "reached 50 epochs"),
        (bp.GradientNorm(0.9), 50, 150, "reached 50 epochs"),
        ([], 50, 150, "reached 50 epochs"),
    ],
    ids=repr,
)
def test_rules_fire_at_the_right_epoch_with_their_reason(walk, stop, epochs, steps, reason):
    run = walk.train(stop)
    assert (len(run.history), run.steps, run.stopped_because) == (epochs, steps, reason)
    assert walk.position == pytest.approx(0.5 * steps)
    assert run.record["stopped_because"] == reason
    assert run.kept == "last"


def test_one_epoch_is_singular(walk):
    assert walk.train(None, epochs=1).stopped_because == "reached 1 epoch"


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 31, 149, 150])
def test_max_steps_is_exact_in_the_middle_of_an_epoch(walk, steps):
    run = walk.train(bp.MaxSteps(steps))
    assert run.steps == steps
    assert walk.position == pytest.approx(0.5 * steps)
    assert run.stopped_because == f"reached {steps} steps"
    assert len(run.history) == steps // 3, "only whole epochs have a row"


def test_max_steps_equals_the_first_steps_of_a_longer_run(cpu_backend, rng):
    X, y = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)
    nets = [bp.MLP([4, 5, 3], "tanh", dtype="float64", seed=1, backend=cpu_backend) for _ in range(2)]
    options = {"optimizer": bp.Adam(0.01), "batch_size": 8, "seed": 3}
    seen = []

    class Watch(bp.Callback):
        def on_epoch(self, net, progress):
            seen.append(np.array(net.theta))

    bp.train(nets[0], X, y, epochs=2, callbacks=[Watch()], **options)
    bp.train(nets[1], X, y, epochs=9, stop=bp.MaxSteps(7), **options)
    assert_same_bits(np.array(nets[1].theta), seen[0])


def test_max_steps_beyond_the_epochs_does_not_prolong(walk):
    run = walk.train(bp.MaxSteps(10**9), epochs=2)
    assert (run.steps, run.stopped_because) == (6, "reached 2 epochs")


def test_wall_clock_ends_in_the_middle_of_an_epoch(cpu_backend, rng):
    """An epoch of a million steps: the clock is looked at in between."""
    net = bp.MLP([1, 1], output="identity", init="zeros", backend=cpu_backend)
    X = np.zeros((1_000_000, 1), np.float32)
    bp.train(net, X[:2], X[:2], batch_size=1, epochs=1)  # what is compiled, is compiled before the clock starts
    begun = time.perf_counter()
    run = bp.train(net, X, X, batch_size=1, epochs=1, stop=bp.WallClock(0.3), shuffle=False)
    # a stretch of steps takes about 0.2 s; the rest is room for a busy machine
    assert 0.3 <= run.seconds < 5
    assert time.perf_counter() - begun < 10
    assert run.stopped_because == "0.3 s have passed"
    assert 0 < run.steps < 1_000_000
    assert len(run.history) == 0
    assert "no finished epoch" in str(run)


def test_accuracy_reached(cpu_backend, rng):
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(int)
    net = bp.MLP([2, 2], seed=0, backend=cpu_backend)
    options = {"optimizer": bp.SGD(0.5), "batch_size": 10, "epochs": 200, "seed": 0}
    run = bp.train(net, X, y, stop=bp.AccuracyReached(0.95), **options)
    assert run.history[-1]["accuracy"] >= 0.95
    assert all(row["accuracy"] < 0.95 for row in run.history[:-1])
    assert run.stopped_because == f"accuracy reached {run.history[-1]['accuracy']:.4g}"
    net = bp.MLP([2, 2], seed=0, backend=cpu_backend)
    run = bp.train(net, X, y, validation=(X[:20], y[:20]), stop=bp.AccuracyReached(1.0, "val_accuracy"), **options)
    assert run.history[-1]["val_accuracy"] == 1.0
    assert run.stopped_because == "val_accuracy reached 1"


# ------------------------------------------------------------------------------------------ patience


def overshoot(be, stop, *, epochs=30, keep="auto", **options):
    """The validation target is at 20, that of training at 100: the validation loss falls, then rises.

    A step an epoch, 3 each: the best epoch is the one that ends at 21 (19 is not visited), the seventh.
    """
    net = bp.MLP([1, 1], output="identity", dtype="float64", init="zeros", backend=be)
    positions = []
    run = bp.train(
        net,
        [[0.0]],
        [[100.0]],
        loss="absolute",
        optimizer=bp.SGD(3.0),
        batch_size=1,
        epochs=epochs,
        validation=([[0.0]], [[20.0]]),
        stop=stop,
        keep=keep,
        callbacks=[lambda net, progress: positions.append(float(be.to_numpy(net.b[1])[0]))],
        **options,
    )
    return run, float(be.to_numpy(net.b[1])[0]), positions


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_patience_stops_and_restores_the_best(backend, patience):
    run, position, positions = overshoot(backend, bp.Patience(patience))
    assert run.best_epoch == 7
    assert len(run.history) == 7 + patience
    assert position == pytest.approx(21.0)
    assert positions[-1] == pytest.approx(3.0 * (7 + patience))
    assert run.kept == "best"
    assert run.stopped_because == f"val_loss has not improved for {patience} epochs (best 1)"
    assert run.history["val_loss"].argmin() == 6


def test_patience_that_is_never_exhausted_still_keeps_the_best(cpu_backend):
    run, position, _ = overshoot(cpu_backend, bp.Patience(100))
    assert (run.stopped_because, run.best_epoch, run.kept) == ("reached 30 epochs", 7, "best")
    assert position == pytest.approx(21.0)


def test_keep(cpu_backend):
    _, position, _ = overshoot(cpu_backend, bp.Patience(2), keep="last")
    assert position == pytest.approx(27.0)
    run, position, _ = overshoot(cpu_backend, None, keep="best")
    assert (position, run.best_epoch, run.kept) == (pytest.approx(21.0), 7, "best")
    run, position, _ = overshoot(cpu_backend, None)
    assert (position, run.kept) == (pytest.approx(90.0), "last")


def test_patience_watches_the_column_that_it_names(cpu_backend):
    run, position, _ = overshoot(cpu_backend, bp.Patience(2, column="loss"), epochs=10)
    assert run.stopped_because == "reached 10 epochs", "the training loss only falls"
    assert position == pytest.approx(30.0)


def test_patience_counts_only_improvements_by_min_delta(cpu_backend):
    """Validation losses 17, 14, 11, 8, 5, 2, 1, 4, 7, ... from epoch 1 on."""
    # 14, 8 and 2 are not better than the best by 4, but 11 and 5 are; then 2, 1 and 4 are not
    run, _, _ = overshoot(cpu_backend, bp.Patience(3, min_delta=4.0))
    assert len(run.history) == 8
    assert run.stopped_because == "val_loss has not improved for 3 epochs (best 5)"
    assert run.best_epoch == 7, "what is kept is the best, however little better"
    run, _, _ = overshoot(cpu_backend, bp.Patience(3, min_delta=100.0))
    assert len(run.history) == 4


def test_accuracies_and_r2_should_rise(cpu_backend):
    rule = bp.Patience(2, column="val_accuracy")
    state = rule.initial_state()
    reasons = [
        rule.observe(state, Progress(k, k, 0.0, row={"val_accuracy": value}))
        for k, value in enumerate([0.5, 0.7, 0.6, 0.7])
    ]
    assert reasons == [None, None, None, "val_accuracy has not improved for 2 epochs (best 0.7)"]
    rule = bp.Patience(1, column="r2")
    state = rule.initial_state()
    assert rule.observe(state, Progress(1, 1, 0.0, row={"r2": -5.0})) is None
    assert rule.observe(state, Progress(2, 2, 0.0, row={"r2": 0.1})) is None
    assert rule.observe(state, Progress(3, 3, 0.0, row={"r2": 0.0})) is not None


def test_nan_is_never_an_improvement():
    rule = bp.Patience(2)
    state = rule.initial_state()
    nan = Progress(1, 1, 0.0, row={"val_loss": float("nan")})
    assert rule.observe(state, nan) is None
    assert rule.observe(state, nan) == "val_loss has not improved for 2 epochs (best none)"


def test_two_patiences_each_count_for_themselves(cpu_backend):
    run, position, _ = overshoot(cpu_backend, bp.Patience(4) | bp.Patience(2))
    assert len(run.history) == 9
    run, position, _ = overshoot(cpu_backend, bp.Patience(2) & bp.MaxSteps(12))
    assert len(run.history) == 12
    assert position == pytest.approx(21.0)


def test_the_state_of_a_rule_survives_json(cpu_backend):
    import json

    rule = bp.Patience(2) | (bp.LossBelow(1.0) & bp.MaxSteps(5))
    state = rule.initial_state()
    for k in range(2):
        rule.observe(state, Progress(k, k, 0.0, row={"val_loss": 2.0 + k, "loss": 3.0}))
    assert json.loads(json.dumps(state)) == state
    assert rule.observe(json.loads(json.dumps(state)), Progress(3, 3, 0.0, row={"val_loss": 9.0, "loss": 3.0}))


def test_a_rule_of_ones_own(walk):
    class EvenEpochs(StopRule):
        def observe(self, state, progress):
            return "an even epoch" if progress.row is not None and progress.epoch % 2 == 0 else None

    run = walk.train(EvenEpochs() & bp.MaxSteps(9))
    assert (len(run.history), run.stopped_because) == (4, "an even epoch and reached 9 steps")


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bp.MaxSteps(0), "MaxSteps: steps is 0"),
        (lambda: bp.MaxSteps(-3), "MaxSteps: steps is -3"),
        (lambda: bp.MaxSteps(2.5), "MaxSteps: steps is 2.5"),
        (lambda: bp.MaxSteps(True), "MaxSteps: steps is True"),
        (lambda: bp.WallClock(0), "WallClock: seconds is 0; it must be a number above 0"),
        (lambda: bp.WallClock("1"), "WallClock: seconds is '1'"),
        (lambda: bp.LossChange(-1e-3), "LossChange: below is -0.001"),
        (lambda: bp.LossChange(float("nan")), "LossChange: below is nan"),
        (lambda: bp.GradientNorm(0), "GradientNorm: below is 0"),
        (lambda: bp.AccuracyReached(97), r"AccuracyReached: value is 97; accuracies lie in \(0, 1\]"),
        (lambda: bp.AccuracyReached(0), "AccuracyReached: value is 0"),
        (lambda: bp.Patience(0), "Patience: epochs is 0"),
        (lambda: bp.Patience(1.5), "Patience: epochs is 1.5"),
    ],
)
def test_impossible_limits(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ([bp.Patience(2), 5], r"stop holds 5, which is not a stopping rule such as bp.Patience\(5\)"),
        (bp.Patience(2), "reads column 'val_loss', which this run does not have; it has loss, eta; columns that begin"),
        (bp.AccuracyReached(0.9), "reads column 'accuracy', which this run does not have; it has loss, eta"),
        (bp.LossBelow(1, "val_loss") & bp.MaxSteps(3), "reads column 'val_loss'"),
        ("patience", "stop holds 'p', which is not a stopping rule|stop holds 'patience'"),
        (3, "stop holds 3, which is not a stopping rule"),
    ],
)
def test_rules_that_cannot_work_are_refused_before_the_first_step(walk, stop, message):
    with pytest.raises(ConfigurationError, match=message):
        walk.train(stop)
    assert walk.position == 0
