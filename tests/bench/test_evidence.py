"""The sketch of how parameters moved, and what it gives away."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from bpcore.bench.evidence import SUMS, Evidence, expected_evidence, sketch
from bpcore.bench.networks import NETWORKS
from bpcore.bench.problem import Problem


def test_a_sketch_keeps_lengths_and_differences() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, 200, 130))
    np.testing.assert_allclose(sketch(A, 3) - sketch(B, 3), sketch(A - B, 3), atol=1e-10)
    ratios = [np.linalg.norm(sketch(A, seed)) / np.linalg.norm(A) for seed in range(30)]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    assert np.std(ratios) < 0.1
    assert sketch(np.ones(5), 0).shape == (SUMS,)


def test_a_single_changed_weight_shows() -> None:
    work = replace(NETWORKS["tiny"].workload(16, "train", "float32"), rows=64, chunk=4)
    expected = expected_evidence(work, Problem.make(work))
    after = [(W.copy(), b.copy()) for W, b in Problem.make(work).weights]
    found = Evidence.from_json(json.loads(json.dumps(expected.as_json())))
    assert found.distance(expected) == (0.0, 0.0)
    assert found.agrees(expected, "float64")
    assert len(found.sketches) == 2 * len(after)
    changed = replace(found, sketches=[*found.sketches[:-1], found.sketches[-1] * 1.01])
    assert changed.distance(expected)[1] == pytest.approx(0.01)
    assert not changed.agrees(expected, "float32")
    assert changed.agrees(expected, "tf32")


def test_what_does_not_fit_is_infinitely_far() -> None:
    one = Evidence(np.array([1.0, 2.0]), [np.ones(SUMS)])
    assert one.distance(Evidence(np.array([1.0]), [np.ones(SUMS)])) == (math.inf, math.inf)
    assert one.distance(Evidence(np.array([1.0, 2.0]), [])) == (math.inf, math.inf)
    lost = Evidence(np.array([1.0, np.nan]), [np.ones(SUMS)])
    assert lost.distance(one)[0] == math.inf
    still = Evidence(one.values, [np.zeros(SUMS)])
    assert one.distance(still)[1] == math.inf, "nothing should have moved"
    assert still.distance(one)[1] == pytest.approx(1), "who does not train at all is as far away as can be"


@pytest.mark.parametrize("name", ["tiny", "digits", "deep"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_backend_agrees_with_the_witness(name: str, precision: str, cpu_backend: object) -> None:
    from bpcore.bench.contender import Contender
    from bpcore.bench.runner import make_runner

    for batch in (1, 20):
        work = replace(NETWORKS[name].workload(batch, "train", precision), rows=100)
        problem = Problem.make(work)
        runner = make_runner(work, problem, Contender(cpu_backend.name, precision), threads=1)  # type: ignore[attr-defined]
        expected = expected_evidence(work, problem)
        for _ in range(2):  # the second time after other steps: it begins again from the first weights
            assert runner.evidence().agrees(expected, precision)
            runner.run(50)
