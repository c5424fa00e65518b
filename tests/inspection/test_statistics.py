"""Statistics of arrays against NumPy in float64, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from bpcore.inspection.statistics import Gauge, Statistics
from tests.helpers.compare import assert_close


def measured(be, array):
    gauge = Gauge(be, array.dtype, 1)
    gauge.measure("H", 2, be.asarray(array))
    return gauge.read()["H", 2]


def expected(array):
    wide = array.astype(np.float64)
    return {
        "mean": wide.mean(), "std": wide.std(), "min": wide.min(), "max": wide.max(), "norm": np.linalg.norm(wide),
        "zeros": (wide == 0).mean(),
    }  # fmt: skip


def check(found, array, *, std_scale=None):
    wanted, spread = expected(array), float(np.abs(array).max())
    for name in ("min", "max", "zeros"):
        assert getattr(found, name) == wanted[name], name
    # sums are in float64, whatever the dtype of the array is
    assert_close(found.mean, wanted["mean"], dtype="float64", length=array.size, scale=spread)
    assert_close(found.norm, wanted["norm"], dtype="float64", length=array.size)
    # distances are rounded to the dtype of the array
    error = abs(found.std - wanted["std"])
    assert error <= 8 * np.finfo(array.dtype).eps * (wanted["std"] if std_scale is None else std_scale)
    assert found.size == array.size
    assert found.not_finite == 0


@pytest.mark.parametrize("shape", [(1, 1), (64, 33), (5,)])
def test_the_numbers_are_those_of_numpy(backend, dtype, shape, rng):
    array = rng.normal(0.3, 2.0, shape).astype(dtype)
    array[rng.random(shape) < 0.3] = 0
    check(measured(backend, array), array)


def test_a_small_spread_around_a_large_mean_keeps_its_digits(backend, dtype, rng):
    array = (1000 + 1e-2 * rng.normal(size=(200, 20))).astype(dtype)
    check(measured(backend, array), array)


def test_numbers_that_are_not_finite_are_counted(backend, dtype):
    array = np.array([[1.0, np.nan, -np.inf], [0.0, np.inf, 2.0]], dtype)
    found = measured(backend, array)
    assert found.not_finite == 3
    assert found.zeros == 1 / 6
    assert np.isnan(found.mean)
    largest = np.array([[np.finfo(dtype).max, -np.finfo(dtype).max]], dtype)
    assert measured(backend, largest).not_finite == 0


def test_on_the_stand_in_of_a_gpu_one_table_crosses(fake_backend, fake_cupy, rng):
    arrays = [rng.normal(size=(9, 4)).astype(np.float32) for _ in range(3)]
    gauge = Gauge(fake_backend, np.dtype(np.float32), 3)
    on_device = [fake_backend.asarray(array) for array in arrays]
    before = fake_cupy.count["to_host"]
    for k, array in enumerate(on_device):
        gauge.measure("Z", k, array)
    assert fake_cupy.count["to_host"] == before
    found = gauge.read()
    assert fake_cupy.count["to_host"] == before + 1
    for k, array in enumerate(arrays):
        check(found["Z", k], array)


def test_the_root_mean_square_does_not_depend_on_the_size():
    found = Statistics(size=4, mean=1.0, std=0.0, min=1.0, max=1.0, norm=2.0, zeros=0.0, not_finite=0)
    assert found.rms == 1.0
    assert found.to_dict()["rms"] == 1.0
