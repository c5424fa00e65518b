"""The processes that measure: they sleep while others work, and whatever happens to them becomes a reply."""

from __future__ import annotations

import json
import os
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpcore.bench import process
from bpcore.bench.process import FAILED, OK, Worker, serve

HOLDER = """
import os, sys, time
from bpcore.bench.process import answer_commands

class Holder:
    def add(self, a, b):
        print("what libraries print")
        os.system("echo and what programs do")
        return {"status": "ok", "sum": a + b, "words": sys.argv[1:], "mark": os.environ.get("MARK"), "in": os.getcwd()}

    def rest(self, seconds):
        time.sleep(seconds)
        return {"status": "ok"}

    def die(self):
        print("no memory left", file=sys.stderr, flush=True)
        os._exit(3)

if __name__ == "__main__":
    answer_commands(Holder())
"""


class Steps:
    """A holder with a command that works and one that does not."""

    def double(self, number: float) -> dict[str, Any]:
        return {"status": OK, "twice": 2 * number}

    def fail(self) -> dict[str, Any]:
        raise ArithmeticError("no more\nthan this")


def asked(*commands: dict[str, Any]) -> list[dict[str, Any]]:
    replies: list[str] = []
    serve(Steps(), map(json.dumps, commands), replies.append)
    return [json.loads(reply) for reply in replies]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "holder.py").write_text(HOLDER, "utf-8")
    made = Worker("holder", ["first", "second"], {**os.environ, "MARK": "7"}, tmp_path)
    yield made
    made.close()
    assert not made.alive


# ------------------------------------------------------------------------------------------ inside


def test_it_waits_until_its_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet moment is not enough: a spinning thread may only have had to wait for a core."""
    use, now, used = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0], [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        used[0] += seconds * use.pop(0)

    clock = types.SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: used[0], sleep=sleep)
    monkeypatch.setattr(process, "time", clock)
    assert process.settle() == pytest.approx(8 * process.SETTLE_STEP)
    use[:] = [1.0] * 1000
    assert process.settle() == pytest.approx(process.SETTLE_LIMIT, abs=process.SETTLE_STEP)


def test_each_command_has_a_reply() -> None:
    first, second, third = asked({"do": "double", "number": 4}, {"do": "fail"}, {"do": "double", "number": 0.5})
    assert (first["status"], first["twice"], first["idle_load"]) == (OK, 8, None)
    assert first["settled_in"] > 0
    assert (second["status"], second["why"]) == (FAILED, "ArithmeticError: no more")
    assert any("in fail" in line for line in second["traceback"])
    assert third["twice"] == 1.0, "what failed before does not end it"


def test_a_command_that_is_not_there_has_failed() -> None:
    (reply,) = asked({"do": "triple"})
    assert reply["status"] == FAILED
    assert "no attribute 'triple'" in reply["why"]


# ------------------------------------------------------------------------------------------ the pipe


def test_what_libraries_print_is_no_reply(worker: Worker, tmp_path: Path) -> None:
    for a in (1, 2):
        reply = worker.ask("add", 60.0, a=a, b=40)
        assert reply["sum"] == a + 40
    assert (reply["words"], reply["mark"]) == (["first", "second"], "7")
    assert Path(reply["in"]).samefile(tmp_path)


def test_while_it_waits_it_sleeps(worker: Worker) -> None:
    assert worker.ask("rest", 60.0, seconds=0.0)["idle_load"] is None
    time.sleep(0.2)
    assert worker.ask("rest", 60.0, seconds=0.0)["idle_load"] < 0.1


def test_who_is_too_slow_is_ended(worker: Worker) -> None:
    worker.ask("rest", 60.0, seconds=0.0)  # it has begun
    reply = worker.ask("rest", 0.01, seconds=30.0)
    assert reply == {"status": FAILED, "why": "rest took more than 0 s"}
    assert not worker.alive
    assert worker.ask("rest", 5.0, seconds=0.0)["why"].startswith("the process ended with ")


def test_who_dies_says_its_last_words(worker: Worker) -> None:
    reply = worker.ask("die", 60.0)
    assert reply == {"status": FAILED, "why": "the process ended with 3: no memory left"}
    assert not worker.alive


def test_a_module_that_is_not_there_has_failed(tmp_path: Path) -> None:
    absent = Worker("no_such_module", [], dict(os.environ), tmp_path)
    try:
        reply = absent.ask("add", 60.0, a=1, b=2)
        assert reply["status"] == FAILED
        assert reply["why"].endswith("No module named no_such_module")
    finally:
        absent.close()
