"""Results side by side: what is a difference, what is noise, what cannot be compared."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bpcore.bench import statistics
from bpcore.bench.compare import compare_results, comparison_table, regressions
from bpcore.errors import DataError


def result(seed: int, noise: float = 0.03, slow: dict[str, float] | None = None, **machine: Any) -> dict[str, Any]:
    """A result of two contenders at six batch sizes; ``slow`` makes a contender take so many times as long."""
    rng, factors = np.random.default_rng(seed), slow or {}
    cells = []
    for k in range(6):
        rows = {}
        for name, base in (("numpy", 100.0), ("numba", 10.0)):
            true = base * (1 + k) * factors.get(name, 1.0)
            drift = 1 + noise * rng.normal(size=(4, 1)) / 2
            visits = (1e-6 * true * drift * (1 + noise * rng.normal(size=(4, 3)))).tolist()
            rows[name] = {"status": "ok", "why": "", "us_per_step": statistics.summary(visits)}
        cells.append({"batch": 4**k, "flops": 1000 * 4**k, "contenders": rows})
    network: dict[str, Any] = {"name": "digits", "cells": cells}
    statistics.judge(network, {})
    facts = {"cpu": "A", "cores": 2, "usable_cores": 2, "gpus": [], "python": "3.12.1", "commit": "abc",
             "removed_variables": []} | machine  # fmt: skip
    versions = {
        "numpy": {"versions": {"numpy": "2.1"}, "blas": [{"library": "openblas", "version": "1", "core_type": "X"}]}
    }
    return {"mode": "train", "bpcore": "0.1", "settings": {"dtype": "float32", "threads": None}, "machine": facts,
            "contenders": versions, "networks": [network]}  # fmt: skip


def verdicts(found: dict[str, Any], name: str) -> list[str]:
    return [row["against"][0]["verdict"] for row in found["rows"] if row["contender"] == name]


def test_two_runs_of_the_same_thing_are_the_same() -> None:
    wrong = 0
    for seed in range(0, 40, 2):
        found = compare_results([result(seed), result(seed + 1)], ["a", "b"])
        wrong += sum(verdict != "same" for name in ("numpy", "numba") for verdict in verdicts(found, name))
        assert regressions(found, 0.9) == []
    assert wrong <= 0.05 * 20 * 12


def test_a_fifth_more_time_is_found() -> None:
    found = compare_results([result(0), result(1, slow={"numba": 1.25})], ["before", "after"])
    assert verdicts(found, "numba").count("slower") >= 5
    assert set(verdicts(found, "numpy")) <= {"same"}
    lines = regressions(found, 0.9)
    assert len(lines) >= 5
    assert lines[0].startswith("after: digits, 1, numba: 0.")
    assert regressions(found, 0.5) == []
    back = compare_results([result(1, slow={"numba": 1.25}), result(0)], ["before", "after"])
    assert verdicts(back, "numba").count("faster") >= 5
    assert regressions(back, 0.9) == []


def test_noise_hides_what_it_must() -> None:
    found = compare_results([result(0, noise=0.5), result(1, noise=0.5, slow={"numba": 1.25})], ["a", "b"])
    assert "slower" not in verdicts(found, "numba")


def test_rows_that_one_lacks_are_unknown_and_say_why() -> None:
    first, second = result(0), result(1)
    second["networks"][0]["cells"][0]["contenders"]["numba"] = {"status": "failed", "why": "x"}
    del second["networks"][0]["cells"][5]
    found = compare_results([first, second, result(2)], ["a", "b", "c"])
    by_key = {(row["batch"], row["contender"]): row["against"] for row in found["rows"]}
    assert by_key[1, "numba"][0]["verdict"] == "unknown"
    assert by_key[1, "numba"][0]["why"] == "failed"
    assert by_key[4**5, "numpy"][0]["why"] == "not there"
    assert by_key[4**5, "numpy"][1]["verdict"] == "same"
    assert found["median_ratios"] == [pytest.approx(1, abs=0.05)] * 2


def test_what_differs_between_the_machines_is_shown() -> None:
    other = result(1, cpu="B", commit="def")
    other["contenders"]["numpy"]["versions"] = {"numpy": "2.2"}
    found = compare_results([result(0), other], ["a", "b"])
    assert found["differences"] == {"cpu": ["A", "B"], "commit": ["abc", "def"], "numpy of numpy": ["2.1", "2.2"]}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_table(found))
    text = console.export_text()
    assert "digits" in text
    assert "median ratio of speeds" in text
    assert "abc" in text


def test_nothing_in_common_is_an_error() -> None:
    other = copy.deepcopy(result(1))
    other["networks"][0]["name"] = "tiny"
    with pytest.raises(DataError, match="a and the others have no network, batch size and contender in common"):
        compare_results([result(0), other], ["a", "b"])
    other["mode"] = "inference"
    with pytest.raises(DataError, match="b measures inference, a train"):
        compare_results([result(0), other], ["a", "b"])
