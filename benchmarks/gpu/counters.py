"""What the kernels that decide the goals do with the GPU: ``python -m benchmarks.gpu.counters --output FILE``.

Each target is a process under Nsight Compute that takes a few steps; the file is written after each. Without ncu, or
where the driver keeps its counters to itself, that is all that is said.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import ncu
from benchmarks.gpu.parts import run, tail
from benchmarks.gpu.telling import telling

__all__ = ["TARGETS", "Target", "measure"]


@dataclass(frozen=True)
class Target:
    """Kernels of a workload under a plan.

    Attributes
    ----------
    workload, plan : str
        As in the race.
    kernels : tuple of str
        Their names; empty for all.
    steps : int
        Steps that are taken; a persistent kernel does them in one launch.
    most : int
        Launches that are looked at; each is run again some ten times.
    """

    workload: str
    plan: str
    kernels: tuple[str, ...] = ()
    steps: int = 1
    most: int = 24

    @property
    def name(self) -> str:
        return f"{self.workload}, {self.plan}"


_TILES = ("forward", "forward_output", "backward", "gradient", "update_parameters")

TARGETS = (
    Target("digits-small", "persistent", ("resident",), steps=32, most=1),
    Target("mnist-mid", "graph", _TILES),
    Target("deep-narrow-bf16", "fused", ("fused_step", "add_slices", "move_parameters")),
    Target("deep-narrow-float32", "fused", ("fused_step",), most=1),
    Target("nielsen", "persistent", ("resident",), steps=32, most=1),
    Target("wide-bf16", "wide"),
    Target("wide-tf32x3", "wide"),
    Target("deep-narrow-float32", "wide"),
    Target("wide-tf32", "wide"),
    Target("wide-float32", "wide"),
)
"""The most informative first: those whose goals are open, and kernels of our own before those of cuBLAS."""

TARGET_LIMIT = 60.0
LEAST = 6.0
"""Seconds that must be left for a target to be begun."""
COMPILERS = 8


def measure(
    seconds: float,
    write: Callable[[dict[str, Any]], None],
    tell: Callable[[str], None] = print,
    targets: tuple[Target, ...] = TARGETS,
) -> dict[str, Any]:
    """Look at all targets, as far as the time goes.

    Parameters
    ----------
    seconds : float
        For everything.
    write : callable
        Is given everything found so far, after each target.
    tell : callable
        Is told what happens.
    targets : tuple of Target
        What is looked at.

    Returns
    -------
    dict
        ``status``: ok, failed, out of time, or skipped, then with ``why``; ``targets``: for each its status, and the
        ``kernels`` with the figures of :func:`benchmarks.gpu.ncu.facts`.
    """
    end = time.monotonic() + seconds
    result: dict[str, Any] = {"status": "ok", "targets": {}}
    program = ncu.find_ncu()
    if program is None:
        return result | {"status": "skipped", "why": "ncu (Nsight Compute) is not installed"}
    version = run([program, "--version"], 20, Path.cwd(), dict(os.environ))["output"]
    result["ncu"] = last_words(version)
    tell("compiling")
    prepare(targets, end - time.monotonic())
    for target in targets:
        if end - time.monotonic() < LEAST:
            result["targets"][target.name] = {"status": "not done", "why": "out of time", "kernels": [], "steps": 0}
            result["status"] = "out of time" if result["status"] == "ok" else result["status"]
            continue
        tell(target.name)
        found = look(program, target, min(TARGET_LIMIT, end - time.monotonic()))
        if found["status"] == "refused":
            return result | {"status": "skipped", "why": found["why"]}
        result["targets"][target.name] = found
        if found["status"] not in ("ok", "skipped"):
            result["status"] = found["status"]
        write(result)
    whys = {found["why"] for found in result["targets"].values() if found["status"] == "skipped"}
    if result["status"] == "ok" and not any(found["kernels"] for found in result["targets"].values()):
        return result | {"status": "skipped", "why": "; ".join(sorted(whys))}
    return result


def words(target: Target) -> list[str]:
    """The program that takes the steps."""
    few = [sys.executable, "-m", "benchmarks.gpu.few_steps", target.workload, target.plan]
    return [*few, "--steps", str(target.steps)]


def prepare(targets: tuple[Target, ...], seconds: float) -> None:
    """Take the steps without ncu, all targets at the same time: what they compile stays on the disk."""
    with ThreadPoolExecutor(COMPILERS) as pool:
        list(pool.map(lambda target: run(words(target), seconds, Path.cwd(), dict(os.environ)), targets))


def look(program: str, target: Target, limit: float) -> dict[str, Any]:
    """Run one target under ncu; say what its kernels did, or why nothing is known."""
    end = time.monotonic() + limit
    found: dict[str, Any] = {}
    for more in (True, False):
        found = try_to_look(program, target, end - time.monotonic(), more)
        if found["status"] != "failed" or "metric" not in found["why"] or end - time.monotonic() < LEAST:
            break
    return found


def try_to_look(program: str, target: Target, limit: float, more: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "ncu.csv")
        command = ncu.command(program, log, target.kernels, target.most, words(target), more=more)
        part = run(command, limit, Path.cwd(), dict(os.environ))
        text = log.read_text("utf-8", "replace") if log.exists() else ""
    told = text + part["output"]
    refused = ncu.refusal(told)
    if refused is not None:
        return {"status": "refused", "why": refused}
    kernels = [ncu.facts(columns) for columns in ncu.launches(text)]
    facts = {"seconds": part["seconds"], "steps": target.steps, "kernels": kernels}
    if "nothing was run: " in part["output"]:
        why = part["output"].partition("nothing was run: ")[2].splitlines()[0]
        return facts | {"status": "skipped", "why": why}
    if kernels:
        return facts | {"status": "ok"}
    why = "it took too long" if part["status"] == "out of time" else last_words(told)
    return facts | {"status": "failed", "why": why, "output": tail({"output": told})["output"]}


def last_words(text: str) -> str:
    """The line that says most: an error, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("==ERROR==", "==WARNING=="))]
    return (errors or lines or ["ncu wrote nothing"])[-1]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="write all figures here")
    parser.add_argument("--seconds", type=float, default=120.0, help="time for everything (default 120)")
    options = parser.parse_args(arguments)
    write, tell = telling(options.output)
    result = measure(options.seconds, write, tell)
    write(result)
    if "why" in result:
        print(result["why"])
    return 0 if result["status"] == "ok" else 1


if __name__ == "__main__":
    raise SystemExit(main())
