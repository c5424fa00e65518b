"""A process that holds one contestant: ``python -m benchmarks.peers.worker NAME THREADS CPUS``.

Libraries in one process disturb each other: their pools of threads spin for a while after work, and each wants to be
first to choose how many threads there are. So each contestant has a process, held to the cores that it may use before
anything is imported. Commands come as lines of JSON on standard input, replies go out likewise; in between the process
is blocked. It replies only when its threads have gone to sleep, so that the next contestant has the machine to itself.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

SETTLE_STEP = 0.005
SETTLE_STEPS = 4
"""Quiet steps in succession: a thread that spins may have had to wait for a core during one."""
SETTLE_LIMIT = 0.5


def settle() -> float:
    """Wait until this process uses next to no processor time; return the seconds waited."""
    begun, quiet = time.perf_counter(), 0
    while quiet < SETTLE_STEPS and time.perf_counter() - begun < SETTLE_LIMIT:
        used = time.process_time()
        time.sleep(SETTLE_STEP)
        quiet = quiet + 1 if time.process_time() - used < 0.1 * SETTLE_STEP else 0
    return time.perf_counter() - begun


class Holder:
    """Carries out the commands for one contestant; a race of other contestants or workloads derives from it."""

    adapters = "benchmarks.peers.adapters"
    """The package with the modules of the contestants."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.runner: Any = None

    def find_contestant(self) -> Any:
        """Look the contestant up."""
        from benchmarks.peers.adapters import CONTESTANTS

        return CONTESTANTS[self.name]

    def find_workload(self, name: str) -> Any:
        """Look a workload up."""
        from benchmarks.peers.workloads import get_workload

        return get_workload(name)

    def load(self) -> dict[str, Any]:
        """Import the library; say what it is."""
        self.contestant = self.find_contestant()
        begun = time.perf_counter()
        try:
            module = importlib.import_module(f"{self.adapters}.{self.contestant.module}")
            for package in self.contestant.packages:
                importlib.metadata.version(package)
            if self.contestant.packages[0] == "tinygrad":
                importlib.import_module("tinygrad")
        except ModuleNotFoundError as error:
            return {"status": "skipped", "why": f"not installed: {error.name}"}
        self.function = getattr(module, self.contestant.function)
        versions = {package: importlib.metadata.version(package) for package in self.contestant.packages}
        return {"status": "ok", "seconds_to_import": time.perf_counter() - begun, "versions": versions}

    def prepare(self, workload: str) -> dict[str, Any]:
        """Build and compile a workload; time its second chunk; give the evidence of both."""
        import numpy as np

        from benchmarks.peers.adapters import Skip
        from benchmarks.peers.problem import Problem

        work = self.find_workload(workload)
        problem = Problem.make(work)
        begun = time.perf_counter()
        try:
            self.runner = self.function(work, problem, self.threads, **self.contestant.options)
        except Skip as reason:
            return {"status": "skipped", "why": str(reason)}
        self.problem = problem
        self.runner.reset()
        first = self.runner.run(problem.order(0, 1))
        # what was compiled lazily is compiled now; the same steps once more are pure running
        middle = time.perf_counter()
        second = self.runner.run(problem.order(1, 1))
        end = time.perf_counter()
        parts = [self.runner.evidence(first), self.runner.evidence(second)]
        if work.kind == "predict":
            parts = parts[1:]
        return {
            "status": "ok",
            "seconds_to_prepare": max((middle - begun) - (end - middle), 0.0),
            "chunk_seconds": end - middle,
            "evidence": np.concatenate(parts).tolist(),
            "facts": self.runner.facts,
        }

    def round(self, chunks: int, warm: bool) -> dict[str, Any]:
        """Begin again, warm up for one chunk if asked, and time the chunks after it."""
        order = self.problem.order(int(warm), chunks)
        self.runner.reset()
        if warm:
            self.runner.run(self.problem.order(0, 1))
        gc.collect()
        begun = time.perf_counter()
        result = self.runner.run(order)
        elapsed = time.perf_counter() - begun
        evidence = self.runner.evidence(result)
        if evidence.ndim == 1 and len(evidence) == len(order):
            evidence = evidence.reshape(chunks, -1).mean(axis=1)
        return {"status": "ok", "us_per_step": 1e6 * elapsed / len(order), "evidence": evidence.tolist()}

    def release(self) -> dict[str, Any]:
        """Forget the workload."""
        self.runner = self.problem = None  # type: ignore[assignment]
        gc.collect()
        return {"status": "ok"}

    def peak(self) -> dict[str, Any]:
        """GFLOP/s of NumPy's sgemm on big matrices, the best of several calls for each size."""
        import numpy as np

        rates = {}
        for n in (1024, 2048, 3072):
            A, B = np.random.default_rng(0).normal(size=(2, n, n)).astype(np.float32)
            C, best = np.empty_like(A), float("inf")
            end = time.perf_counter() + 0.7
            while time.perf_counter() < end:
                begun = time.perf_counter()
                np.dot(A, B, out=C)
                best = min(best, time.perf_counter() - begun)
            rates[str(n)] = 2 * n**3 / best * 1e-9
        return {"status": "ok", "gflops": rates}

    def pools(self) -> dict[str, Any]:
        """The pools of threads in this process, as threadpoolctl finds them."""
        from threadpoolctl import threadpool_info

        keep = ("user_api", "internal_api", "num_threads", "version", "threading_layer", "architecture")
        found = [{key: pool[key] for key in keep if key in pool} for pool in threadpool_info()]
        return {"status": "ok", "pools": found}


def serve(holder: Holder, commands: Any, reply: Callable[[str], None]) -> None:
    """Answer commands until there are no more."""
    idle_since: tuple[float, float] | None = None
    for line in commands:
        idle = None
        if idle_since is not None:
            wall = time.perf_counter() - idle_since[0]
            idle = (time.process_time() - idle_since[1]) / wall if wall > 0.01 else None
        asked = json.loads(line)
        try:
            answer = getattr(holder, asked.pop("do"))(**asked)
        except Exception as error:
            last = traceback.format_exc().strip().splitlines()[-12:]
            first_line = (str(error).strip().splitlines() or [""])[0]
            answer = {"status": "failed", "why": f"{type(error).__name__}: {first_line}", "traceback": last}
        answer |= {"idle_load": idle, "settled_in": settle()}
        idle_since = (time.perf_counter(), time.process_time())
        reply(json.dumps(answer))


def main(kind: type[Holder] = Holder) -> None:
    name, threads, cpus = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if cpus != "all":
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    # libraries may print; the replies keep the pipe to themselves
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(text: str) -> None:
        pipe.write(text + "\n")
        pipe.flush()

    serve(kind(name, threads), sys.stdin, reply)


if __name__ == "__main__":
    main()
