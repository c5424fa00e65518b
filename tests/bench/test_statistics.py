"""Medians, spreads, who is best, and from which batch size on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpcore.bench import statistics


def row(microseconds: float, spread: float | None = 0.02, status: str = "ok") -> dict[str, Any]:
    around = 0.0 if spread is None else spread * microseconds
    times = {"median": microseconds, "q1": microseconds - around, "q3": microseconds + around, "spread": spread}
    return {"status": status, "why": "", "us_per_step": times | {"visits": [[microseconds]]}}


def network(*cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"cells": [{"batch": 4**k, "flops": 1000, "contenders": rows} for k, rows in enumerate(cells)]}


def test_summary_by_hand() -> None:
    found = statistics.summary([[1e-6, 2e-6, 9e-6], [4e-6, 4e-6, 4e-6]])
    assert found["median"] == pytest.approx(3)  # of the medians 2 and 4
    q1, q3 = np.quantile([1, 2, 9, 4, 4, 4], [0.25, 0.75])
    assert (found["q1"], found["q3"]) == (pytest.approx(q1), pytest.approx(q3))
    assert found["spread"] == pytest.approx((q3 - q1) / 2 / 3)
    assert found["visits"] == [[1, 2, 9], [4, 4, 4]]
    assert statistics.summary([[1e-6, 2e-6, 3e-6]])["spread"] is None, "one visit says nothing of the next"


def test_faster_needs_quartiles_that_do_not_overlap() -> None:
    assert statistics.faster(row(10, 0.05), row(12, 0.05))
    assert not statistics.faster(row(10, 0.1), row(11, 0.1))
    assert not statistics.faster(row(12, 0.05), row(10, 0.05))
    assert not statistics.faster(row(10, 0.0), row(10.4, 0.0)), "two runs never agree to the last digit"
    assert not statistics.faster(row(10, None), row(11.5, None)), "of a single visit little is known"
    assert statistics.faster(row(10, None), row(13, None))


def test_the_best_and_who_ties_with_it() -> None:
    rows = {"numpy": row(20), "numba": row(10, 0.1), "cupy": row(10.5, 0.1), "wrong": row(1, status="differs"),
            "absent": {"status": "skipped", "why": "x"}}  # fmt: skip
    assert statistics.best_of(rows) == ("numba", ["cupy"])
    assert statistics.best_of({"numpy": row(1, status="suspect")}) == (None, [])
    assert statistics.best_of({"numpy": row(1, 0.5, "noisy")}) == ("numpy", [])


def test_crossover_and_winners() -> None:
    found = network(
        {"numpy": row(10), "numba": row(1), "cupy": row(50)},
        {"numpy": row(20), "numba": row(5), "cupy": row(51)},
        {"numpy": row(40), "numba": row(30), "cupy": row(29, 0.1)},
        {"numpy": row(80), "numba": {"status": "skipped", "why": "no time"}, "cupy": row(55)},
        {"numpy": row(160), "numba": row(120), "cupy": row(60)},
    )
    statistics.judge(found, {"numpy": 1.0, "numba": 1.0, "cupy": None})
    assert [(cell["best"], cell["ties"]) for cell in found["cells"]] == [
        ("numba", []), ("numba", []), ("cupy", ["numba"]), ("cupy", []), ("cupy", []),
    ]  # fmt: skip
    # the third is a tie, which goes to whom the range has already
    assert found["winners"] == [
        {"from": 1, "to": 16, "best": "numba"}, {"from": 64, "to": 256, "best": "cupy"},
    ]  # fmt: skip
    over = {(cross["contender"], cross["over"]): cross["from_batch"] for cross in found["crossovers"]}
    assert over[("numba", "numpy")] == 1
    assert over[("cupy", "numpy")] == 16
    assert over[("cupy", "numba")] == 256, "at 64 there is nothing to compare, at 16 they tie"
    assert over[("numpy", "numba")] is None


def test_rates_and_verdicts() -> None:
    found = network({"numpy": row(10.0), "numba": row(2.0, 0.3), "wrong": row(1.0, status="differs")})
    statistics.judge(found, {"numpy": 0.1, "numba": 0.1})
    numpy, numba, wrong = found["cells"][0]["contenders"].values()
    assert numpy["samples_per_second"] == pytest.approx(1e5)
    assert numpy["gflops"] == pytest.approx(0.1)  # 1000 operations in 10 us
    assert (numpy["status"], numpy["of_peak"]) == ("ok", pytest.approx(1.0))
    assert (numba["status"], numba["over_numpy"]) == ("suspect", pytest.approx(5))
    assert (wrong["status"], wrong["of_peak"]) == ("differs", None)
    statistics.judge(found, {"numpy": 1.0, "numba": 1.0})
    assert numba["status"] == "noisy", "a larger peak is no accusation any more"
    assert "30 % or more away" in numba["why"]
