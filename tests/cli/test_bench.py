"""``bpcore bench`` with real processes, as small as it can be, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpcore.bench import contender
from bpcore.bench.contender import Contender
from bpcore.cli.bench import _exit_code, _settings, parse_budget
from bpcore.errors import ConfigurationError

Run = Callable[..., Any]


def test_a_small_sweep(bpcore: Run, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    words = ("bench", "--layers", "5,8,3", "--batch-sizes", "4,1", "--budget", "40s", "--threads", 1)
    shown = bpcore(*words, "--json", out, "--csv", tmp_path / "a.csv")
    assert re.search(r"^5-8-3: 5-8-3  relu, softmax; cross_entropy, momentum$", shown.output, re.M)
    assert re.search(r"^ +1 +[\d.]+ k?", shown.output, re.M)
    found = json.loads(out.read_text())
    assert [cell["batch"] for cell in found["networks"][0]["cells"]] == [1, 4]
    assert set(found["contenders"]) >= {"numpy", "numba"}
    assert found["settings"]["threads"] == 1
    for cell in found["networks"][0]["cells"]:
        for name in ("numpy", "numba"):
            row = cell["contenders"][name]
            assert row["status"] in ("ok", "noisy"), row
            assert row["checked"]
            assert len(row["us_per_step"]["visits"][0]) == 3, "how many visits there is time for depends on the load"
    assert (tmp_path / "a.csv").read_text().count("\n") == 1 + 2 * len(found["contenders"])
    table = bpcore("bench", "compare", out, out)
    assert "median ratio of speeds 1" in table.output
    told = json.loads(bpcore("bench", "compare", out, out, "--json", "--fail-below", 0.9).output)
    assert told["regressions"] == []


def test_a_slower_result_is_a_failure(bpcore: Run, tmp_path: Path) -> None:
    words = ("bench", "--layers", "5,3", "--batch-sizes", 1, "--budget", "20s", "--backends", "numpy", "--quick")
    shown = bpcore(*words, "--json", "-")
    found = json.loads(shown.stdout)
    (tmp_path / "a.json").write_text(json.dumps(found))
    times = found["networks"][0]["cells"][0]["contenders"]["numpy"]["us_per_step"]
    times.update({word: 3 * times[word] for word in ("median", "q1", "q3")})
    (tmp_path / "b.json").write_text(json.dumps(found))
    shown = bpcore("bench", "compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-below", 0.9, code=1)
    assert "1 below 0.9 of the first" in shown.output
    assert "b: 5-3, 1, numpy: 0.33" in shown.output
    bpcore("bench", "compare", tmp_path / "b.json", tmp_path / "a.json", "--fail-below", 0.9)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--backends", "cupi"), 2, "unknown backend 'cupi'; known: numpy, numba, cupy. Did you mean 'cupy'?"),
        (("--backends", "numba:bf16"), 2, "precision bf16 is one of a GPU"),
        (("--backends", "cupy:bf17"), 2, "unknown precision or plan 'bf17'"),
        (("--backends", "cupy:bf16:graph"), 2, "use cupy:bf16:wide or cupy:bf16:fused, or cupy:graph"),
        (("--backends", "cupy:bf16:fused", "--mode", "inference"), 2, "--mode inference measures a call of predict"),
        (("--backends", "numba:reference", "--mode", "ops"), 2, "--mode ops measures a single operation"),
        (("--layers", "7"), 2, "at least an input and an output width are needed"),
        (("--layers", "7,x"), 2, "whole numbers of at least 1 are needed"),
        (("--layers", "7,2", "--networks", "tiny"), 2, "exclude each other"),
        (("--layers", "7,2,2", "--activation", "gelu"), 2, "unknown activation of a benchmark 'gelu'"),
        (("--networks", "tini"), 2, "unknown network 'tini'; known: tiny, digits, mnist, deep, wide"),
        (("--batch-sizes", "0"), 2, "whole numbers of at least 1 are needed"),
        (("--budget", "soon"), 2, "a time is needed, such as 90s, 10m or 1h"),
        (("--mode", "x"), 2, "unknown mode 'x'; known: train, inference, ops"),
        (("--dtype", "int8"), 2, "dtype int8 is not supported"),
        (("--json", "/nowhere/a.json"), 2, "there is no folder /nowhere"),
        (("compare", "a.json"), 2, "at least two result files"),
        (("compare", "a.json", "b.json", "--fail-below", "2"), 2, "it is a share, above 0 and at most 1"),
        (("compare", "a.json", "b.json"), 2, "cannot read a.json"),
    ],
)
def test_what_is_refused_before_anything_is_measured(
    bpcore: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    shown = bpcore("bench", *words, code=code)
    assert message in " ".join(shown.output.split())


def test_precisions_are_measured_where_something_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of predict and a single operation compute in the dtype: under another name they would be shown twice."""
    found = [Contender("numpy", "float32"), Contender("cupy", "float32"), Contender("cupy", "bf16")]
    monkeypatch.setattr(contender, "usable_contenders", lambda dtype: (found, {}))

    def names(mode: str) -> list[str]:
        made = _settings(None, "tiny", None, "relu", "sgd", None, "float32", None, mode, None, False)
        return [contender.name for contender in made.contenders]

    assert names("train") == ["numpy", "cupy", "cupy:bf16"]
    assert names("inference") == names("ops") == ["numpy", "cupy"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backends", "cupy:bf16"), "no lower precision is ever chosen by itself"),
        (("--backends", "numba", "--show"), "--show and --forget measure nothing"),
        (("--backends", "cupi"), "unknown backend 'cupi'"),
    ],
)
def test_what_a_tuning_refuses(bpcore: Run, words: tuple[str, ...], message: str) -> None:
    shown = bpcore("tune", *words, code=2)
    assert message in " ".join(shown.output.split())


def test_a_backend_that_cannot_run_is_code_3(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.backends.contract import Probe
    from bpcore.backends.cupy_backend import CupyBackend

    monkeypatch.setattr(CupyBackend, "probe", classmethod(lambda cls: Probe(False, "no driver.", "install one")))
    for words in (
        ("bench", "--backends", "cupy"),
        ("bench", "--backends", "cupy:bf16:fused"),
        ("tune", "--backends", "cupy"),
    ):
        shown = bpcore(*words, code=3)
        assert "backend 'cupy' cannot run: no driver. Repair: install one" in shown.output


def test_without_matplotlib_a_report_is_refused_at_once(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shown = bpcore("bench", "--plot", "a.png", code=2)
    assert 'pip install "bpcore[plot]"' in shown.output


def test_budgets() -> None:
    assert [parse_budget(text) for text in ("90", "90s", "1.5m", "1 h")] == [90, 90, 90, 3600]
    with pytest.raises(ConfigurationError):
        parse_budget("0")


def test_exit_codes() -> None:
    def code(*statuses: str, interrupted: bool = False) -> int:
        rows = {str(k): {"status": status} for k, status in enumerate(statuses)}
        return _exit_code({"interrupted": interrupted, "networks": [{"cells": [{"contenders": rows}]}]})

    assert code("ok", "noisy", "skipped") == 0
    assert [code("ok", status) for status in ("differs", "suspect", "failed")] == [1, 1, 1]
    assert code("ok", interrupted=True) == 130
    assert _exit_code(
        {"interrupted": False, "networks": [], "operations": [{"contenders": {"a": {"status": "differs"}}}]}
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backends", "cupy", "--batch-sizes", "1"), "--quick, --threads, --json and not --backends, --batch-sizes;"),
        (("--mode", "train"), "and not --mode; `python -m benchmarks.peers --help`"),
        (("--json", "-"), "--json needs a file there"),
    ],
)
def test_what_a_race_does_not_know_is_refused(
    bpcore: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it races"))
    shown = bpcore("bench", "--peers", *words, code=2)
    assert message in " ".join(shown.output.split())


def test_peers_run_from_a_checkout_only(bpcore: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[Any] = []

    def run(words: list[str], **how: Any) -> Any:
        called.append((words[1:], how["cwd"]))
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(subprocess, "run", run)
    bpcore("bench", "--peers", "--quick", "--threads", 2, code=1)
    words, folder = called[0]
    assert words == ["-m", "benchmarks.peers", "--quick", "--threads", "2"]
    assert (folder / "benchmarks" / "peers").is_dir()
    import bpcore as package

    monkeypatch.setattr(package, "__file__", str(tmp_path / "bpcore" / "__init__.py"))
    shown = bpcore("bench", "--peers", code=2)
    assert "Clone it, run pip install" in " ".join(shown.output.split())
