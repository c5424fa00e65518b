"""Which plan is the fastest where: the points, what follows from times, and a rehearsal on the stand-in for CuPy."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bpcore as bp
from bpcore.backends.cupy_backend import CupyBackend
from bpcore.backends.cupy_products import CudaProducts
from bpcore.bench.problem import Problem
from bpcore.training import plans
from bpcore.training.persistent import PersistentPlan
from bpcore.tuning import step_flops
from tests.backends.conftest import fake_backend, fake_cupy
from tests.backends.fake_cupy import FakeCupy

__all__ = ["fake_backend", "fake_cupy"]

# by name, because the benchmarks are no part of what is type-checked
crossovers: Any = importlib.import_module("benchmarks.gpu.crossovers")
tables: Any = importlib.import_module("benchmarks.gpu.tables")
Point: Any = crossovers.Point


def test_the_most_informative_points_come_first() -> None:
    points = crossovers.grid()
    assert len(set(points)) == len(points) > 100
    assert {point.plans for point in points[:2]} == {("graph", "graph-late", "graph-apart")}
    small, large, lower, narrow = (points[k::4][:10] for k in range(2, 6))
    assert {point.plans for point in small} == {("persistent", "graph", "wide")}
    assert {point.plans for point in large} == {("graph", "wide")}
    assert {(point.precision, point.plans) for point in lower} == {("bf16", ("wide", "fused"))}
    assert {(point.precision, point.plans) for point in narrow} == {("float32", ("graph", "wide", "fused"))}
    for family, flops in ((small, plans.ON_CHIP_FLOPS), (large, plans.WIDE_FLOPS)):
        distances = [point.far(flops) for point in family]
        assert distances == sorted(distances)
        assert distances[0] < 1, "a step about as large as the number"
    assert {max(point.sizes[1:-1]) for point in points} >= {16, 32, 64, 128, 256, 512, 1024, 2048}
    for point in points:
        work = point.work
        assert work.flops() == step_flops(point.sizes, point.batch)
        assert work.rows >= work.batch
        assert 8 <= work.chunk <= 512
    assert max(point.work.chunk * point.work.flops() for point in points[:45]) < 3e11, "a chunk is milliseconds"


def test_persistent_is_asked_where_it_fits(fake_backend: CupyBackend) -> None:
    """On a device whose blocks have little shared memory less does."""
    fits = [point for point in crossovers.grid() if "persistent" in point.plans]
    small = crossovers.grid({**crossovers.HOPPER, "sharedMemPerBlockOptin": 60_000})
    assert 0 < len([point for point in small if "persistent" in point.plans]) < len(fits)
    assert all(PersistentPlan.supports(point.spec(), fake_backend) is None for point in fits[:5])


@pytest.fixture
def on_the_stand_in(fake_backend: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bp, "get_backend", lambda name: fake_backend)
    monkeypatch.setattr(crossovers, "compile_all", lambda points, seconds: 0)
    monkeypatch.setattr(crossovers, "ROUND_SECONDS", 1e-4)
    monkeypatch.setattr(Point, "work", property(small(Point.work.fget)))


def small(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda point: replace(work(point), chunk=2, rows=64)


@pytest.mark.usefixtures("on_the_stand_in")
def test_what_parts_of_the_graph_plan_gain(fake_cupy: FakeCupy) -> None:
    """Each pseudo-plan does without one of them, and is no plan when ranges are concluded."""
    point = Point((6, 5, 3), 4, plans=("graph", "graph-late", "graph-apart"))
    counts = []
    for plan in point.plans:
        fake_cupy.count.clear()
        crossovers.on_gpu(point.work, Problem.make(point.work), plan)
        counts.append(fake_cupy.count["early"] > 0)
    assert counts == [True, False, True]
    assert CudaProducts.early
    assert CudaProducts.clusters
    found = crossovers.measure(100, lambda result: None, lambda text: None, [point])
    assert set(found["rows"][0]["us"]) == set(point.plans)
    assert found["ranges"] == []


@pytest.mark.usefixtures("on_the_stand_in")
def test_points_are_timed_with_each_plan() -> None:
    """Small ones: the figures mean nothing, who was chosen and who refuses does."""
    points = [Point((6, 5, 3), 4), Point((6, 5, 3), 32, "bf16", ("wide", "fused"))]
    written: list[str] = []
    found = crossovers.measure(100, lambda result: written.append(json.dumps(result)), lambda text: None, points)
    assert found["status"] == "ok"
    assert len(written) == len(points)
    first, lower = found["rows"]
    assert set(first["us"]) == {"persistent", "graph", "wide"}
    assert (first["chosen"], first["refused"]) == ("persistent", {})
    assert first["over_fastest"] == first["us"]["persistent"] / min(first["us"].values()) >= 1
    assert (set(lower["us"]), lower["chosen"]) == ({"wide", "fused"}, "fused")
    assert found["ranges"][0]["from_flops"] == 0
    assert "| 6-5-3 | float32 | persistent |" in "\n".join(tables.crossovers(found))


@pytest.mark.usefixtures("on_the_stand_in")
def test_a_plan_that_breaks_down_is_a_failure_and_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = crossovers.on_gpu

    def breaks(work: Any, problem: Any, plan: str) -> Any:
        if plan == "wide":
            raise ArithmeticError("no such\nproduct")
        return whole(work, problem, plan)

    monkeypatch.setattr(crossovers, "on_gpu", breaks)
    found = crossovers.measure(100, lambda result: None, lambda text: None, [Point((6, 5, 3), 4)])
    assert found["status"] == "failed"
    assert found["rows"][0]["refused"] == {"wide": "failed: ArithmeticError: no such"}
    assert set(found["rows"][0]["us"]) == {"persistent", "graph"}
    assert "- 6-5-3, batch 4, wide: failed: ArithmeticError: no such" in tables.crossovers(found)


@pytest.mark.usefixtures("on_the_stand_in")
def test_without_time_what_there_is_counts(tmp_path: Path) -> None:
    found = crossovers.measure(0, lambda result: None, lambda text: None, [Point((6, 5, 3), 4)], tmp_path / "never")
    assert (found["status"], found["rows"]) == ("failed", [])
    assert found["why"] == "the time was over after 0 of 1 points"
    assert "Not measured: the time was over after 0 of 1 points." in tables.crossovers(found)


def row(flops: float, chosen: str, **us: float) -> dict[str, Any]:
    fastest = min(us, key=us.__getitem__)
    return {
        "sizes": [int(flops), 1], "batch": 1, "precision": "float32", "flops": flops, "us": us, "refused": {},
        "chosen": chosen, "fastest": fastest, "over_fastest": us[chosen] / us[fastest],
    }  # fmt: skip


def test_a_wrong_choice_is_seen() -> None:
    rows = [row(1e6, "persistent", persistent=1.0, graph=4.0), row(5e7, "persistent", persistent=6.0, graph=4.0)]
    rows += [row(1e9, "graph", graph=9.0, wide=30.0), row(4e9, "wide", graph=99.0, wide=50.0)]
    part = {
        "status": "ok", "of": 9, "rows": rows, "ranges": crossovers.conclude(rows),
        "chosen_by": {"persistent_up_to_flops": 60e6, "wide_from_flops": 2e9},
    }  # fmt: skip
    assert [(part["best"], round(part["from_flops"] / 1e6)) for part in part["ranges"]] == [
        ("persistent", 0), ("graph", 7), ("wide", 2000),
    ]  # fmt: skip
    text = "\n".join(tables.crossovers(part))
    assert "was the fastest for 3 of 4 points (9 in all), and takes at most 1.50 times" in text
    assert "persistent up to 60 MFLOP where it fits, wide from 2 GFLOP on." in text
    assert "Measured: persistent from 0, graph from 7.07 MFLOP, wide from 2 GFLOP." in text
    assert "| 50000000-1 | float32 | persistent | **graph** | 1 | 50 MFLOP | 6 | 4 |  |" in text
