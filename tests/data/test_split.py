"""Division into a training and a test part."""

from __future__ import annotations

import numpy as np
import pytest

from bpcore.data.split import (
    group_split_indices,
    ordered_split_indices,
    part_of_rows,
    train_test_split_indices,
)
from bpcore.errors import ConfigurationError, DataError, ShapeError


@pytest.mark.parametrize("n", [2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("stratified", [False, True])
def test_every_row_is_in_exactly_one_part(n: int, fraction: float, stratified: bool) -> None:
    labels = np.arange(n) % 2 if n > 2 else np.zeros(n, int)
    train, test = train_test_split_indices(n, fraction, 5, labels if stratified else None)
    assert sorted([*train, *test]) == list(range(n))
    most = n - len(set(labels)) if stratified else n - 1  # every class keeps a row for training
    assert len(test) == min(max(round(n * fraction), 1), most)
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    assert len(train) >= 1


def test_the_seed_decides() -> None:
    first, again, other = (train_test_split_indices(100, 0.2, seed)[1] for seed in (1, 1, 2))
    assert (first == again).all()
    assert set(first) != set(other)


def test_rows_are_drawn_alike() -> None:
    hits = np.zeros(20)
    for seed in range(500):
        hits[train_test_split_indices(20, 0.25, seed)[1]] += 1
    # binomial: mean 125, standard deviation 9.7; six deviations
    assert abs(hits - 125).max() < 58


def test_classes_keep_their_proportion() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 30, 17, 3])
    shuffled = np.random.default_rng(0).permutation(labels)
    train, test = train_test_split_indices(100, 0.2, 3, shuffled)
    exact = np.array([10, 6, 3.4, 0.6])
    found = np.bincount(shuffled[test], minlength=4)
    assert found.sum() == 20
    assert (abs(found - exact) < 1).all()
    assert np.bincount(shuffled[train], minlength=4).min() >= 1


def test_a_class_of_one_row_stays_in_the_training_part() -> None:
    labels = np.array(["a", "b", "b", "b", "c", "b"])
    for seed in range(20):
        train, test = train_test_split_indices(6, 0.5, seed, labels)
        assert {"a", "c"} <= set(labels[train])
        assert len(test) == 3


def test_members_of_a_class_are_drawn_alike() -> None:
    labels = np.repeat([0, 1], [4, 8])
    hits = np.zeros(12)
    for seed in range(400):
        hits[train_test_split_indices(12, 0.5, seed, labels)[1]] += 1
    # binomial with p = 1/2: mean 200, standard deviation 10; six deviations
    assert abs(hits - 200).max() < 60


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match=r"test fraction must be between 0 and 1, got"):
        train_test_split_indices(10, fraction, 0)


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="1 rows cannot be divided"):
        train_test_split_indices(1, 0.5, 0)
    with pytest.raises(DataError, match="each of the 3 rows is the only one of its class"):
        train_test_split_indices(3, 0.5, 0, np.arange(3))


def test_labels_of_another_length() -> None:
    with pytest.raises(ShapeError, match=r"labels has shape \(4,\); expected \(5,\)"):
        train_test_split_indices(5, 0.5, 0, np.arange(4))


def test_in_order() -> None:
    train, test = ordered_split_indices(10, 0.25)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9])
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        ordered_split_indices(10, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_on_both_sides(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 30, 400).astype(str)
    train, test = group_split_indices(groups, 0.25, seed)
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(400))
    assert abs(len(test) - 100) <= 25  # half of the largest group
    assert (group_split_indices(groups, 0.25, seed)[1] == test).all()
    assert len(group_split_indices(np.array([1, 1, 1, 2]), 0.01, seed)[1]) in (1, 3)


def test_a_single_group_cannot_be_divided() -> None:
    with pytest.raises(DataError, match=r"all 3 rows are of the group 'a'"):
        group_split_indices(np.array(["a"] * 3), 0.5, 0)


def test_parts_drawn_row_by_row_do_not_depend_on_the_cuts() -> None:
    whole = part_of_rows(0, 30_000, [0.2, 0.12], seed=4)
    np.testing.assert_array_equal(
        np.concatenate([part_of_rows(i, 1000, [0.2, 0.12], 4) for i in range(0, 30_000, 1000)]), whole
    )
    shares = np.bincount(whole) / 30_000
    np.testing.assert_allclose(shares, [0.68, 0.2, 0.12], atol=0.01)  # four standard deviations
    groups = np.random.default_rng(0).integers(0, 3000, 30_000)
    by_group = part_of_rows(0, 30_000, [0.2], 4, groups)
    assert all(len(set(by_group[groups == g])) == 1 for g in range(50))
    assert 0.17 < by_group.mean() < 0.23
    with pytest.raises(ConfigurationError, match="together less than 1"):
        part_of_rows(0, 1, [0.5, 0.5], 0)
