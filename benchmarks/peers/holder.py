"""One contestant, and the commands that its process carries out."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import time
from typing import Any

import numpy as np

from benchmarks.peers.adapters import CONTESTANTS, Skip
from benchmarks.peers.workloads import get_workload
from bpcore.bench.problem import Problem
from bpcore.bench.process import OK, SKIPPED

__all__ = ["Holder"]


class Holder:
    """Carries out the commands for one contestant; a race of other contestants or workloads derives from it.

    Parameters
    ----------
    name : str
        The contestant.
    threads : int
        How many threads it may use.
    begun : float, optional
        When imports began, by ``time.perf_counter``; by default now. NumPy, which all of them need, is here already.
    """

    adapters = "benchmarks.peers.adapters"
    """The package with the modules of the contestants."""

    def __init__(self, name: str, threads: int, begun: float | None = None) -> None:
        self.name, self.threads = name, threads
        self.imported_in = 0.0 if begun is None else time.perf_counter() - begun
        self.runner: Any = None

    def find_contestant(self) -> Any:
        """Look the contestant up."""
        return CONTESTANTS[self.name]

    def find_workload(self, name: str) -> Any:
        """Look a workload up."""
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
            return {"status": SKIPPED, "why": f"not installed: {error.name}"}
        self.function = getattr(module, self.contestant.function)
        versions = {package: importlib.metadata.version(package) for package in self.contestant.packages}
        return {"status": OK, "seconds_to_import": self.imported_in + time.perf_counter() - begun, "versions": versions}

    def prepare(self, workload: str) -> dict[str, Any]:
        """Build and compile a workload; time its second chunk; give the evidence of both."""
        work = self.find_workload(workload)
        problem = Problem.make(work)
        begun = time.perf_counter()
        try:
            self.runner = self.function(work, problem, self.threads, **self.contestant.options)
        except Skip as reason:
            return {"status": SKIPPED, "why": str(reason)}
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
            "status": OK,
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
        return {"status": OK, "us_per_step": 1e6 * elapsed / len(order), "evidence": evidence.tolist()}

    def release(self) -> dict[str, Any]:
        """Forget the workload."""
        self.runner = self.problem = None  # type: ignore[assignment]
        gc.collect()
        return {"status": OK}

    def peak(self) -> dict[str, Any]:
        """GFLOP/s of NumPy's sgemm on big matrices, the best of several calls for each size."""
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
        return {"status": OK, "gflops": rates}

    def pools(self) -> dict[str, Any]:
        """The pools of threads in this process, as threadpoolctl finds them."""
        from threadpoolctl import threadpool_info

        keep = ("user_api", "internal_api", "num_threads", "version", "threading_layer", "architecture")
        found = [{key: pool[key] for key in keep if key in pool} for pool in threadpool_info()]
        return {"status": OK, "pools": found}
