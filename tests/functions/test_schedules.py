"""Schedules against PyTorch's and against values worked out by hand; states survive JSON."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest

from bpcore.errors import ConfigurationError
from bpcore.functions.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Step,
    WarmUp,
    as_schedule,
)

WRONG: Any = "wrong"
SMALL: Any = np.float32(0.5)
HALF: Any = 1.5

ALL = [
    Constant(0.1),
    Step(0.1, every=3, factor=0.5),
    Exponential(0.1, 0.9),
    InverseTime(0.1, 0.01),
    Cosine(0.1, total=20, eta_min=0.01),
    OneCycle(0.1, total=20),
    WarmUp(5, after=Cosine(0.1, total=20)),
    ReduceOnPlateau(0.1),
]
NAMES = [type(schedule).__name__ for schedule in ALL]


def by_step(schedule, n):
    return [schedule.at(step, 0) for step in range(n)]


def test_values_by_hand():
    assert by_step(Constant(0.3), 2) == [0.3, 0.3]
    assert by_step(Step(1.0, every=2, factor=0.5), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert by_step(Exponential(2.0, 0.5), 3) == [2, 1, 0.5]
    assert by_step(InverseTime(1.0, 1.0), 4) == [1, 1 / 2, 1 / 3, 1 / 4]
    # cos(60 deg) = 1/2 a third of the way, cos(90 deg) = 0 half way
    assert by_step(Cosine(1.0, total=6, eta_min=0.2), 9) == pytest.approx(
        [
            1,
            0.2 + 0.4 * (1 + math.sqrt(3) / 2),
            0.8,
            0.6,
            0.4,
            0.2 + 0.4 * (1 - math.sqrt(3) / 2),
            0.2,
            0.2,
            0.2,
        ]
    )
    assert Cosine(1.0, total=6, eta_min=0.2).at(6, 0) == 0.2
    assert by_step(WarmUp(4, after=1.0), 6) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_each_reads_its_own_clock():
    assert Step(1.0, every=1, factor=0.5, per="epoch").at(step=100, epoch=2) == 0.25
    assert Step(1.0, every=1, factor=0.5).at(step=2, epoch=100) == 0.25


def test_warm_up_shifts_the_clock_that_it_shares():
    after = Step(1.0, every=1, factor=0.5)
    assert by_step(WarmUp(2, after=after), 5) == [0.5, 1, 1, 0.5, 0.25]
    epochs = WarmUp(2, after=Step(1.0, every=1, factor=0.5, per="epoch"), per="epoch")
    assert [epochs.at(99, epoch) for epoch in range(5)] == [0.5, 1, 1, 0.5, 0.25]
    mixed = WarmUp(2, after=Step(1.0, every=1, factor=0.5, per="epoch"))
    assert [mixed.at(step, step // 2) for step in range(6)] == [0.5, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.witness
@pytest.mark.parametrize("name", ["Step", "Exponential", "Cosine", "OneCycle", "OneCycle short", "OneCycle warm"])
def test_against_pytorch(name):
    import torch
    from torch.optim import lr_scheduler as theirs

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    ours, witness = {
        "Step": lambda: (Step(0.4, every=3, factor=0.7), theirs.StepLR(optimizer, 3, 0.7)),
        "Exponential": lambda: (Exponential(0.4, 0.8), theirs.ExponentialLR(optimizer, 0.8)),
        "Cosine": lambda: (Cosine(0.4, 12, 0.05), theirs.CosineAnnealingLR(optimizer, 12, 0.05)),
        "OneCycle": lambda: (OneCycle(0.4, 12), theirs.OneCycleLR(optimizer, 0.4, 12)),
        "OneCycle short": lambda: (
            OneCycle(0.4, 13, warm=0.5, div=10, final_div=50),
            theirs.OneCycleLR(optimizer, 0.4, 13, pct_start=0.5, div_factor=10, final_div_factor=50),
        ),
        "OneCycle warm": lambda: (
            OneCycle(0.4, 12, warm=0.9),
            theirs.OneCycleLR(optimizer, 0.4, 12, pct_start=0.9),
        ),
    }[name]()
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        witness.step()
    # PyTorch computes some of them by recursion, a dozen roundings
    np.testing.assert_allclose(by_step(ours, 12), expected, rtol=1e-12, atol=1e-15)


def test_one_cycle_at_its_corners():
    cycle = OneCycle(1.0, total=10, warm=0.4, div=10, final_div=100)
    values = by_step(cycle, 14)
    assert values[0] == pytest.approx(0.1)
    assert max(values) == values[3] == 1.0
    assert values[9:] == [pytest.approx(0.001)] * 5
    always_up = by_step(OneCycle(1.0, total=4, warm=1.0), 6)
    assert always_up[3:5] == [1.0, pytest.approx(1 / 25e4)]
    # a rise shorter than a step starts at the summit
    assert by_step(OneCycle(1.0, total=2, warm=0.5), 2) == [1.0, pytest.approx(1 / 25e4)]


LOSSES = [1.0, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.79999, 0.1, math.nan, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.witness
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("patience", "cooldown"), [(0, 0), (2, 0), (1, 2)])
def test_plateau_against_pytorch(mode, patience, cooldown):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    witness = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=patience, cooldown=cooldown, min_lr=0.03, eps=0
    )
    ours = ReduceOnPlateau(0.4, factor=0.5, patience=patience, cooldown=cooldown, eta_min=0.03, mode=mode)
    state = ours.initial_state()
    for loss in LOSSES:
        metric = loss if mode == "min" else 2 - loss
        state = ours.observe(state, metric)
        witness.step(metric)
        assert ours.at(0, 0, state) == optimizer.param_groups[0]["lr"]
    assert ours.at(0, 0, state) < 0.4


def test_plateau_by_hand():
    schedule = ReduceOnPlateau(1.0, factor=0.5, patience=1, eta_min=0.3)
    state, rates = schedule.initial_state(), []
    for loss in (5.0, 5.0, 5.0, 5.0, 4.0, 4.0, math.nan, 4.0, 4.0):
        state = schedule.observe(state, loss)
        rates.append(schedule.at(0, 0, state))
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
    assert schedule.at(0, 0) == 1.0


def test_plateau_takes_a_margin_of_the_best_value_also_when_that_is_negative():
    schedule = ReduceOnPlateau(1.0, factor=0.5, patience=0, threshold=0.1)
    state = schedule.observe(schedule.initial_state(), -10.0)
    assert schedule.observe(state, -10.5)["eta"] == 0.5
    assert schedule.observe(state, -11.5)["eta"] == 1.0


def test_plateau_state_is_a_value_that_survives_json():
    schedule = ReduceOnPlateau(0.4, factor=0.5, patience=1)
    state = schedule.initial_state()
    for k, loss in enumerate(LOSSES):
        before = dict(state)
        after = schedule.observe(json.loads(json.dumps(state, allow_nan=False)), loss)
        assert after == schedule.observe(state, loss)
        assert state == before, k
        state = after
    first = schedule.observe(schedule.initial_state(), math.nan)
    assert json.loads(json.dumps(first, allow_nan=False))["best"] is None


def test_warm_up_passes_observations_on():
    schedule = WarmUp(2, after=ReduceOnPlateau(1.0, factor=0.5, patience=0))
    assert schedule.stateful
    state = schedule.initial_state()
    for _ in range(2):
        state = schedule.observe(state, 1.0)
    assert [schedule.at(step, 0, state) for step in range(3)] == [0.25, 0.5, 0.5]


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_common_contract(schedule):
    state = schedule.initial_state()
    json.dumps(state, allow_nan=False)
    json.dumps(schedule.describe(), allow_nan=False)
    assert schedule.describe()["schedule"] == type(schedule).__name__
    assert bool(state) == schedule.stateful
    assert isinstance(schedule.at(0, 0, state), float)
    assert schedule.at(3, 1, state) > 0
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert hash(pickle.loads(pickle.dumps(schedule))) == hash(schedule)
    if not schedule.stateful:
        assert schedule.observe(state, 1.0) == {}
        assert schedule.at(3, 1) == schedule.at(3, 1, state)
    with pytest.raises(FrozenInstanceError):
        schedule.per = "epoch"


def test_ones_own_schedule():
    @dataclass(frozen=True)
    class Half(Schedule):
        eta: float

        def value(self, t):
            return self.eta / 2**t

    assert by_step(Half(1.0), 3) == [1, 0.5, 0.25]
    assert Half(1.0, per="epoch").at(0, 1) == 0.5
    assert as_schedule(Half(1.0)).describe() == {"schedule": "Half", "per": "step", "eta": 1.0}


def test_as_schedule():
    assert as_schedule(0.5) == Constant(0.5)
    assert as_schedule(SMALL) == Constant(0.5)
    assert as_schedule(1) == Constant(1.0)
    assert as_schedule(ALL[1]) is ALL[1]


@pytest.mark.parametrize("eta", [0, -0.1, math.inf, math.nan, "0.1", None, True])
def test_impossible_learning_rates(eta):
    with pytest.raises(ConfigurationError, match=r"the learning rate eta must be a finite number in \(0, inf\), got "):
        as_schedule(eta)
    with pytest.raises(ConfigurationError, match=r"Step: eta must be a finite number in \(0, inf\), got "):
        Step(eta, every=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0.1, per=WRONG), "Constant: per must be 'step' or 'epoch', got 'wrong'"),
        (lambda: Step(0.1, every=0), "Step: every must be an integer of at least 1, got 0"),
        (lambda: Step(0.1, every=2, factor=0), r"Step: factor must be a finite number in \(0, inf\), got 0"),
        (lambda: Exponential(0.1, -1), r"Exponential: factor must be .* \(0, inf\), got -1"),
        (lambda: InverseTime(0.1, -1), r"InverseTime: rate must be .* \[0, inf\), got -1"),
        (lambda: Cosine(0.1, 0), "Cosine: total must be an integer of at least 1, got 0"),
        (lambda: Cosine(0.1, 5, 0.2), r"Cosine: eta_min must be a finite number in \[0, 0.1\], got 0.2"),
        (lambda: OneCycle(0.1, 1), "OneCycle: total must be an integer of at least 2, got 1"),
        (lambda: OneCycle(0.1, 9, warm=1.5), r"OneCycle: warm must be a finite number in \(0, 1\], got 1.5"),
        (lambda: OneCycle(0.1, 9, div=0.5), r"OneCycle: div must be a finite number in \[1, inf\), got 0.5"),
        (lambda: OneCycle(0.1, 9, final_div=0), r"OneCycle: final_div must be .* \[1, inf\), got 0"),
        (lambda: WarmUp(0, 0.1), "WarmUp: steps must be an integer of at least 1, got 0"),
        (lambda: WarmUp(2, -1.0), "the learning rate eta must be"),
        (lambda: ReduceOnPlateau(0.1, factor=1.0), r"factor must be a finite number in \(0, 1\), got 1.0"),
        (lambda: ReduceOnPlateau(0.1, patience=-1), "patience must be an integer of at least 0, got -1"),
        (lambda: ReduceOnPlateau(0.1, cooldown=HALF), "cooldown must be an integer of at least 0, got 1.5"),
        (
            lambda: ReduceOnPlateau(0.1, threshold=-1),
            r"threshold must be a finite number in \[0, inf\), got -1",
        ),
        (lambda: ReduceOnPlateau(0.1, eta_min=1), r"eta_min must be a finite number in \[0, 0.1\], got 1"),
        (lambda: ReduceOnPlateau(0.1, mode=WRONG), "ReduceOnPlateau: mode must be 'min' or 'max', got 'wrong'"),
    ],
)
def test_parameters_out_of_range(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
