"""``bpcore gallery``: the list, the exit codes, the pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpcore.gallery import EXAMPLES, r03_one_variable

Run = Callable[..., Any]


def test_the_list(bpcore: Run) -> None:
    lines = bpcore("gallery").output.splitlines()
    for line, example in zip(lines, EXAMPLES.values(), strict=False):
        assert line.split()[:2] == [example.key, example.name]
        assert line.endswith(example.shows)
    told = json.loads(bpcore("gallery", "--json").stdout)
    assert [entry["number"] for entry in told["examples"]] == list(EXAMPLES)


def test_an_example_by_number_and_by_name(bpcore: Run) -> None:
    shown = bpcore("gallery", "r3").output
    assert shown.startswith("R3 one-variable: ")
    assert "    x <- x - eta 2 x = (1 - 2 eta) x" in shown
    assert "     4 0.03072 0.000944" in shown
    assert "7 checks passed" in shown
    by_name = bpcore("gallery", "one-variable").output
    assert by_name.splitlines()[:8] == shown.splitlines()[:8]


def test_several(bpcore: Run) -> None:
    shown = bpcore("gallery", "R3", "R5", "--backend", "numpy").output
    assert "R5 learning-rates" in shown
    assert shown.rstrip().endswith("2 examples: all passed")


def test_no_number_is_cut_off(bpcore: Run) -> None:
    shown = bpcore("gallery", "R8").output
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert "(e1*w10 + e2*w11 + e3*w12) * h2*(1 - h2) * x3" in shown


def test_a_wrong_number_is_exit_code_1(bpcore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(r03_one_variable, "ETA", 0.31)
    shown = bpcore("gallery", "R3", code=1).output
    assert "FAIL x after 1 updates: found 0.456, known 0.48 within 1e-12" in shown
    told = json.loads(bpcore("gallery", "R3", "R5", "--json", code=1).stdout)
    assert told["passed"] is False
    assert [example["passed"] for example in told["examples"]] == [False, True]
    check = told["examples"][0]["checks"][2]
    assert (check["what"], check["expected"], check["passed"]) == ("x after 1 updates", 0.48, False)
    assert check["found"] == pytest.approx(0.456)


@pytest.mark.parametrize("extension", ["png", "svg"])
def test_pictures(bpcore: Run, tmp_path: Path, extension: str) -> None:
    pytest.importorskip("matplotlib")
    shown = bpcore("gallery", "R3", "--out", tmp_path / "pictures", "--format", extension).output
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == f"r03-one-variable-path.{extension}"
    assert path.name in shown
    assert path.stat().st_size > 5000


def test_without_matplotlib_the_numbers_are_out_and_the_extra_is_named(
    bpcore: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bpcore("gallery", "R3", "R5", "--out", tmp_path, code=2)
    assert "7 checks passed" in result.stdout
    assert "2 examples: all passed" in result.stdout
    assert "bpcore[plot]" in result.stderr
    assert bpcore("gallery", "R3").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("R17",), 2, "unknown example 'R17'; known: R1, "),
        (("--all", "R3"), 2, "--all runs every example; leave it out to run R3 alone"),
        (("R3", "--format", "gif"), 2, "unknown format of pictures 'gif'; known: png, svg"),
        (("R3", "--backend", "cupi"), 2, "unknown backend 'cupi'"),
    ],
)
def test_what_is_refused(bpcore: Run, words: tuple[str, ...], code: int, message: str) -> None:
    assert message in bpcore("gallery", *words, code=code).stderr


@pytest.mark.slow
def test_all(bpcore: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = json.loads(bpcore("gallery", "--all", "--out", tmp_path, "--json").stdout)
    assert told["passed"] is True
    assert [example["number"] for example in told["examples"]] == list(EXAMPLES)
    assert sum(example["seconds"] for example in told["examples"]) < 180
    assert sum(len(example["pictures"]) for example in told["examples"]) == len(list(tmp_path.iterdir())) >= 16
