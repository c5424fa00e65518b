"""Ranges of sizes, what is stored of them, and when it counts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bpcore import tuning
from bpcore.bench import tune
from bpcore.errors import ConfigurationError, DataError
from bpcore.tuning import Range, Tuning, step_flops


def law(flops: float, fixed: float, rate: float) -> float:
    return fixed + flops / rate


def points(noise: float = 0.0, seed: int = 0) -> list[tuple[float, dict[str, float]]]:
    """Three devices: quick to start, in between, and fast; they cross at 1e6 and 1e9."""
    rng = np.random.default_rng(seed)
    devices = {"a": (1e-6, 1e10), "b": (9.1e-5, 1e11), "c": (9.0e-3 + 9.1e-5, 1e13)}
    found = []
    for flops in np.geomspace(1e3, 1e12, 37):
        times = {name: law(flops, *how) * math.exp(noise * rng.normal()) for name, how in devices.items()}
        found.append((float(flops), times))
    return found


def test_crossings_are_found_where_they_are() -> None:
    found = tune.ranges(points())
    assert [part.best for part in found] == ["a", "b", "c"]
    assert found[0].from_flops == 0
    assert found[1].from_flops == pytest.approx(1e6, rel=1)
    assert found[2].from_flops == pytest.approx(1e9, rel=1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_makes_no_ranges(seed: int) -> None:
    found = tune.ranges(points(noise=0.05, seed=seed))
    assert [part.best for part in found] == ["a", "b", "c"]


def test_who_is_missing_cannot_be_chosen() -> None:
    both = {"a": 1.0, "b": 2.0}
    found = tune.ranges([(10.0, both), (100.0, {"b": 9.0}), (1000.0, both)])
    assert [(part.best, round(part.from_flops)) for part in found] == [("a", 0), ("b", 32), ("a", 316)]
    assert tune.ranges([(5.0, {"a": 1.0})]) == (Range(0.0, "a"),)


def test_the_choice_and_its_reason() -> None:
    found = Tuning((Range(0.0, "numba"), Range(2e6, "cupy")), (), {}, "2026-01-31T10:00:00+00:00")
    assert found.backend(1e3) == (
        "numba", "tuned 2026-01-31: numba is the fastest here from 0 to 2 MFLOP; a step has 1 kFLOP",
    )  # fmt: skip
    assert found.backend(2e6)[0] == "cupy"
    assert found.backend(3e9)[1].endswith("cupy is the fastest here from 2 MFLOP on; a step has 3 GFLOP")
    assert found.plan(1.0) is None
    assert Tuning(found.backends[:1], found.backends, {}, "x").plan(5e6) is not None


def test_step_flops_are_those_of_the_workloads() -> None:
    from bpcore.bench.networks import NETWORKS

    for network in NETWORKS.values():
        assert step_flops(network.sizes, 7) == network.workload(7, "train", "float32").flops()


def store(found: Tuning) -> Path:
    path = tuning.tuning_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found.as_json())
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a tuning of this machine: numpy for small steps, numba for large ones."""
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    ranges = (Range(0.0, "numpy"), Range(1e5, "numba"))
    return store(Tuning(ranges, (), tuning.fingerprint(), "2026-01-31T10:00:00+00:00"))


def test_a_tuning_comes_back_and_counts_on_its_machine_only(
    measured: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, why_not = tuning.valid_tuning()
    assert found is not None
    assert why_not == ""
    assert found == tuning.load_tuning(measured)
    store(Tuning(found.backends, (), found.machine | {"cpu": "another"}, found.when))
    os.utime(measured, ns=(1, 1))
    found, why_not = tuning.valid_tuning()
    assert found is None
    assert "the tuning of 2026-01-31 does not count here (cpu was 'another', is " in why_not
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path / "empty"))
    assert tuning.valid_tuning() == (None, "this machine has not been tuned; `bpcore tune` does it")


def test_training_follows_what_was_measured(measured: Path, rng: np.random.Generator) -> None:
    import bpcore as bp

    X, y = rng.normal(size=(200, 8)), rng.integers(0, 2, 200)
    net = bp.MLP([8, 16, 2], seed=0)
    run = bp.train(net, X, y, batch_size=4, epochs=1, seed=0)
    assert run.record["backend"] == "numpy"
    assert run.record["backend_why"] == (
        "auto: tuned 2026-01-31: numpy is the fastest here from 0 to 100 kFLOP; a step has 2.82 kFLOP"
    )
    net.predict(X)
    assert net.backend.name == "numpy", "it stays where it was trained, as long as nobody names another"
    run = bp.train(net, X, y, batch_size=200, epochs=1, seed=0)
    assert (run.record["backend"], net.backend.name) == ("numba", "numba")
    assert "numba is the fastest here from 100 kFLOP on" in run.record["backend_why"]
    with bp.use_backend("numpy"):
        assert bp.train(net, X, y, batch_size=200, epochs=1, seed=0).record["backend"] == "numpy"
    run = bp.train(net, X, y, batch_size=4, epochs=1, seed=0, backend="numba")
    assert (run.record["backend"], run.record["backend_why"]) == ("numba", "argument backend=")
    run = bp.train(net.to("numba"), X, y, batch_size=4, epochs=1, seed=0)
    assert (run.record["backend"], run.record["backend_why"]) == ("numba", "held by the network")


def test_a_backend_that_can_no_longer_run_is_passed_over_and_named(measured: Path) -> None:
    import bpcore as bp
    from bpcore.training.choice import choose_backend

    found, _ = tuning.valid_tuning()
    assert found is not None
    store(Tuning((Range(0.0, "cupy"),), (), found.machine, found.when))
    os.utime(measured, ns=(1, 1))
    if any(status.name == "cupy" and status.usable for status in bp.backends()):
        pytest.skip("there is a GPU")
    be, why = choose_backend(bp.MLP([2, 2], seed=0), None, 10)
    assert be.name == "numba"
    assert "cupy was the fastest, but backend 'cupy' cannot run" in why


def test_the_plans_of_a_gpu_follow_what_was_measured(fake_backend: Any, measured: Path) -> None:
    import bpcore as bp
    from bpcore.training.plans import kind_on_gpu

    spec = bp.Trainer(bp.MLP([8, 16, 2], seed=0), batch_size=4, backend="numpy").spec(weighted=False, classes=True)
    assert kind_on_gpu("auto", spec, fake_backend)[0].name == "persistent"
    found, _ = tuning.valid_tuning()
    assert found is not None
    store(Tuning(found.backends, (Range(0.0, "graph"), Range(1e9, "wide")), found.machine, found.when))
    os.utime(measured, ns=(1, 1))
    kind, why = kind_on_gpu("auto", spec, fake_backend)
    assert kind.name == "graph"
    assert why.startswith("tuned 2026-01-31: graph is the fastest here from 0 to 1 GFLOP")
    assert kind_on_gpu("wide", spec, fake_backend)[0].name == "wide"


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.clear(),
        lambda found: found.update(format="other"),
        lambda found: found.update(backends=[]),
        lambda found: found["backends"][0].update(from_flops=5),
        lambda found: found["backends"][1].update(from_flops=0),
        lambda found: found["backends"][1].pop("best"),
        lambda found: found.update(machine=3),
    ],
)
def test_a_damaged_tuning_is_said_and_not_used(measured: Path, change: Callable[[Any], object]) -> None:
    found = json.loads(measured.read_text())
    change(found)
    measured.write_text(json.dumps(found))
    with pytest.raises(DataError, match="is no tuning of this version"):
        tuning.load_tuning(measured)
    assert tuning.valid_tuning()[0] is None
    measured.write_text("{")
    with pytest.raises(DataError, match="`bpcore tune` writes a new one"):
        tuning.load_tuning(measured)


def test_the_conclusion_from_a_sweep(in_process: Callable[..., dict[str, Any]]) -> None:
    result = in_process("numpy", "numba", "wrong", parts=False)
    times = {"numpy": 30.0, "numba": 10.0, "wrong": 1.0}
    for cell in result["networks"][0]["cells"]:
        for name, row in cell["contenders"].items():
            row["us_per_step"]["median"] = times[name]
            row["status"] = "differs" if name == "wrong" else "ok"
    rows = result["networks"][0]["cells"][0]["contenders"]
    rows["cupy:graph"] = rows["numba"]
    found = tune.tuning_of(result)
    assert found.backends == (Range(0.0, "numba"),)
    assert found.plans == (Range(0.0, "graph"),)
    assert found.machine == tuning.fingerprint()
    result["interrupted"] = True
    with pytest.raises(DataError, match="interrupted; nothing was stored"):
        tune.tuning_of(result)
    with pytest.raises(DataError, match="no backend computed anything"):
        tune.tuning_of({"interrupted": False, "networks": []})


def test_on_a_gpu_its_plans_are_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.bench.contender import Contender

    all_of_them = [Contender("numpy", "float32"), Contender("cupy", "float32"), Contender("cupy", "tf32")]
    monkeypatch.setattr(tune, "usable_contenders", lambda dtype: (all_of_them, {}))
    names = [contender.name for contender in tune.contenders()]
    assert names == ["numpy", "cupy", "cupy:persistent", "cupy:graph", "cupy:wide"]


def test_who_is_compared_can_be_named() -> None:
    def named(*words: str) -> list[str]:
        return [contender.name for contender in tune.contenders(words)]

    assert named("numba") == ["numpy", "numba"]
    assert named("cupy:graph", "cupy:wide") == ["numpy", "cupy", "cupy:graph", "cupy:wide"], "the backend takes part"
    with pytest.raises(ConfigurationError, match=r"'cupy:bf16:fused': a tuning decides .* in float32"):
        named("cupy:bf16:fused")
    with pytest.raises(ConfigurationError, match="use cupy:persistent, cupy:graph, cupy:wide, or numba"):
        named("numba:reference")
