"""The shared checks of numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bpcore.errors import ConfigurationError
from bpcore.functions.ranges import check_count, check_number


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (0, "[0, 1)"),
        (0.999, "[0, 1)"),
        (1, "(0, 1]"),
        (np.float32(0.5), "(0, 1)"),
        (np.int64(3), "[1, inf)"),
        (-1e300, "(-inf, inf)"),
    ],
)
def test_numbers_inside(value, interval):
    number = check_number("x", value, interval)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (1, "[0, 1)"),
        (0, "(0, 1]"),
        (-0.1, "[0, 1)"),
        (1.1, "(0, 1]"),
        (math.nan, "(-inf, inf)"),
        (math.inf, "[0, inf)"),
        ("0.5", "[0, 1]"),
        (None, "[0, 1]"),
        (True, "[0, 1]"),
        (1j, "[0, 1]"),
        (np.array([0.5]), "[0, 1]"),
    ],
)
def test_numbers_outside(value, interval):
    with pytest.raises(ConfigurationError, match=r"^x must be a finite number in [\[(].*, .*[\])], got "):
        check_number("x", value, interval)


def test_counts():
    assert check_count("k", np.int32(3), 3) == 3
    for value in (2, 3.0, "3", None, True, -5):
        with pytest.raises(ConfigurationError, match=r"^k must be an integer of at least 3, got "):
            check_count("k", value, 3)
    with pytest.raises(ConfigurationError, match="got True"):
        check_count("k", True, 0)
