"""``bpcore warmup``: what it says, and what it does with the cache folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from bpcore.kernels.numba import cache
from bpcore.training import warmup as work
from tests.cli.conftest import Run


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """An empty cache folder, and in the place of the work a stand-in that writes down what it was asked for."""
    monkeypatch.setenv("BPCORE_CACHE_DIR", str(tmp_path))
    asked: dict[str, Any] = {}

    def warm_up(dtype: Any, scope: str, **options: Any) -> work.WarmUpReport:
        asked.update(dtype=dtype, scope=scope, **options)
        options["progress"](1, 2)
        here = cache.folder()
        (here / "rowwise.total-117.py311.1.nbc").write_bytes(b"x" * 2_000_000)
        (here / "rowwise.total-117.py311.2.nbc").write_bytes(b"x" * 1_000_000)
        return work.WarmUpReport(("rowwise.total(float32)",), ("epoch.run(float32)", "b"), here, 1.25)

    monkeypatch.setattr(work, "warm_up", warm_up)
    return asked


def test_the_summary(bpcore: Run, compiled: dict[str, Any]) -> None:
    text = bpcore("warmup").stdout
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in re.sub(r"\n +", "", text).splitlines())
    assert rows["compiled"] == "1 function"
    assert rows["there already"] == "2 functions"
    assert rows["time"] == "1.2 s"
    assert rows["size"] == "3.0 MB"
    assert (compiled["dtype"], compiled["scope"]) == (("float32",), "usual")
    assert compiled["activations"] is None
    assert 1 <= compiled["processes"] <= 4


def test_the_summary_as_json(bpcore: Run, compiled: dict[str, Any]) -> None:
    found = json.loads(bpcore("warmup", "--json").stdout)
    assert found == {
        "compiled": ["rowwise.total(float32)"],
        "present": ["epoch.run(float32)", "b"],
        "seconds": 1.25,
        "folder": str(cache.folder()),
        "bytes": 3_000_000,
    }


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("--dtype", "both", "--quick"), {"dtype": ("float32", "float64"), "scope": "quick"}),
        (("--all", "--dtype", "float64"), {"dtype": ("float64",), "scope": "all"}),
        (("--activations", "relu, tanh", "--processes", 3), {"activations": ["relu", "tanh"], "processes": 3}),
        (("--losses", "mse", "--optimizers", "sgd,adam"), {"losses": ["mse"], "optimizers": ["sgd", "adam"]}),
    ],
)
def test_options(bpcore: Run, compiled: dict[str, Any], words: tuple[str, ...], asked: dict[str, Any]) -> None:
    bpcore("warmup", *words)
    assert {name: compiled[name] for name in asked} == asked


def test_listing(bpcore: Run, compiled: dict[str, Any]) -> None:
    bpcore("warmup")
    text = bpcore("warmup", "--list").stdout
    assert re.search(r"^ *rowwise\.total +2 *$", text, re.M)
    assert re.search(r"^functions +2 *$", text, re.M)
    assert re.search(r"^size +3\.0 MB *$", text, re.M)
    assert "other versions" not in text
    (cache.own_folder().parent / ("a" * 16)).mkdir()
    assert re.search(r"^other versions +1, 0\.0 MB; `bpcore warmup --prune`", bpcore("warmup", "--list").stdout, re.M)
    found = json.loads(bpcore("warmup", "--list", "--json").stdout)
    assert found["current"]["functions"] == ["rowwise.total", "rowwise.total"]
    assert found["current"]["bytes"] == 3_000_000
    assert [Path(other["folder"]).name for other in found["others"]] == ["a" * 16]


def test_pruning(bpcore: Run, compiled: dict[str, Any]) -> None:
    bpcore("warmup")
    other = cache.own_folder().parent / ("a" * 16)
    other.mkdir()
    assert re.search(rf"^{other.name} +0 +0\.0 MB +today *$", bpcore("warmup", "--prune").stdout, re.M)
    assert not other.exists()
    assert len(list(cache.folder().iterdir())) == 2
    assert bpcore("warmup", "--prune").stdout == "nothing to remove\n"
    other.mkdir()
    removed = json.loads(bpcore("warmup", "--prune", "--json").stdout)["removed"]
    assert [Path(found["folder"]).name for found in removed] == [other.name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--quick", "--all"), r"--quick and --all contradict"),
        (("--dtype", "float16"), r"unknown dtype 'float16'; known: float32, float64, both"),
        (("--activations", "relo"), r"unknown activation 'relo'.*Did you mean 'relu'"),
        (("--processes", "0"), r"processes is 0; it must be a whole number"),
    ],
)
def test_wrong_usage(bpcore: Run, words: tuple[str, ...], message: str) -> None:
    result = bpcore("warmup", *words, code=2)
    assert re.search(message, result.stderr)
    assert result.stdout == ""


def test_without_numba(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpcore.backends import registry
    from bpcore.backends.contract import Probe
    from bpcore.backends.numba_backend import NumbaBackend

    monkeypatch.setattr(NumbaBackend, "probe", classmethod(lambda cls: Probe(False, "none here", "pip install numba")))
    monkeypatch.setattr(registry, "_instances", {})
    for words in ((), ("--list",), ("--prune",)):
        assert "backend 'numba' cannot run: none here" in bpcore("warmup", *words, code=3).stderr
