"""The process that holds one contender: ``python -m bpcore.bench.worker BACKEND PRECISION PLAN THREADS``."""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

import numpy as np

from bpcore.bench.contender import Contender
from bpcore.bench.evidence import Evidence, expected_evidence
from bpcore.bench.process import OK, SKIPPED, answer_commands
from bpcore.bench.workload import Workload

__all__ = ["Holder"]

KEPT_BYTES = 2**26
"""Largest workload that stays prepared between two visits."""

PEAK_SIZES = {"cpu": (256, 512, 1024, 2048), "gpu": (4096, 8192)}
PEAK_SECONDS = 0.3

COPIED_BYTES = 2**28


class Holder:
    """Carries out the commands for one contender.

    Parameters
    ----------
    contender : Contender
        Backend and precision.
    threads : int or None
        Number of threads; None leaves the choice to bpcore and to BLAS.
    """

    def __init__(self, contender: Contender, threads: int | None) -> None:
        self.contender, self.threads = contender, threads
        self.be: Any = None
        self.runners: dict[Workload, Any] = {}

    def load(self) -> dict[str, Any]:
        """Start the backend; say what it is and how long that took."""
        begun = time.perf_counter()
        import bpcore as bp
        from bpcore.errors import BackendError

        try:
            be = bp.get_backend(self.contender.backend)
        except BackendError as error:
            return {"status": SKIPPED, "why": str(error)}
        seconds = time.perf_counter() - begun
        import scipy.linalg.cython_blas  # noqa: F401  (compiled loops call it: it is to be among the libraries)

        from bpcore.backends.diagnosis import blas_libraries
        from bpcore.device_room import available_bytes
        from bpcore.training.record import versions

        self.be, free = be, available_bytes(be)
        return {
            "status": OK,
            "device": be.device,
            "seconds_to_start": seconds,
            "versions": versions(),
            "blas": [{name: pool[name] for name in ("library", "version", "core_type", "threads")}
                     for pool in blas_libraries()],
            "memory": {**be.memory(), **({} if free is None else {"available": free})},
        }  # fmt: skip

    def peak(self) -> dict[str, Any]:
        """GFLOP/s of products of square matrices, the best of several calls for each size."""
        found = {}
        for n in PEAK_SIZES["cpu" if self.be.device == "cpu" else "gpu"]:
            multiply = self._product(n)
            best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
            while time.perf_counter() < end:
                begun = time.perf_counter()
                multiply()
                self.be.synchronize()
                best = min(best, time.perf_counter() - begun)
            found[str(n)] = 2 * n**3 / best * 1e-9
        return {"status": OK, "gflops": found, "gb_per_second": self._bandwidth()}

    def _bandwidth(self) -> float:
        """GB/s of copying an array that no cache holds, read and written bytes together."""
        A = self.be.zeros(COPIED_BYTES // 8, np.float64)
        B = self.be.copy(A, out=self.be.empty(A.size, np.float64))  # pages come with the first touch
        best, end = float("inf"), time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < end:
            begun = time.perf_counter()
            self.be.copy(A, out=B)
            self.be.synchronize()
            best = min(best, time.perf_counter() - begun)
        return 2 * COPIED_BYTES / best * 1e-9

    def _product(self, n: int) -> Any:
        from bpcore.training.precision import LOWER

        dtype = np.dtype(np.float64 if self.contender.precision == "float64" else np.float32)
        rng = np.random.default_rng(0)
        A, B = (self.be.asarray(rng.standard_normal((n, n), np.float32).astype(dtype)) for _ in range(2))
        C = self.be.empty((n, n), dtype)
        if self.contender.precision in LOWER:
            return self._reduced_product(A, B, C)
        return lambda: self.be.matmul(A, B, out=C)

    def _reduced_product(self, A: Any, B: Any, C: Any) -> Any:
        """Return a product by an own handle of cuBLAS, as the plan for wide layers computes them."""
        from bpcore.backends.cublas import WORKSPACE, Cublas, load_cublas

        be, precision = self.be, self.contender.precision
        cublas = Cublas(load_cublas(be.xp), be.empty(WORKSPACE, np.uint8))
        cublas.use_stream(be.gpu.current_stream())
        if precision == "tf32x3":  # in two planes; which numbers they hold does not matter here
            A, B = (A, B), (B, A)
        elif precision != "tf32":  # operands of 16 bits
            A, B = (be.zeros(A.shape, np.uint16) for _ in range(2))
        return lambda: cublas.multiply(A, B, C, precision)

    def visit(self, workload: dict[str, Any], rounds: int, seconds: float, first: bool) -> dict[str, Any]:
        """Time rounds of a workload, and show afterwards what it computes; at the first visit before as well."""
        from bpcore.errors import BpcoreError

        work = Workload.from_json(workload)
        begun = time.perf_counter()
        try:
            runner, fresh = self._runner(work)
        except BpcoreError as error:
            return {"status": SKIPPED, "why": str(error)}
        found: dict[str, Any] = {"status": OK}
        if first:
            found["before"] = runner.evidence().as_json()
            found["seconds_to_prepare"] = time.perf_counter() - begun if fresh else 0.0
        found |= {"seconds_per_step": runner.rounds(rounds, seconds), "facts": runner.facts}
        found["after"] = runner.evidence().as_json()
        if work.memory() <= KEPT_BYTES:
            self.runners[work] = runner
        return found

    def _runner(self, work: Workload) -> tuple[Any, bool]:
        from bpcore.bench.problem import Problem
        from bpcore.bench.runner import make_runner

        if work in self.runners:
            return self.runners[work], False
        return make_runner(work, Problem.make(work), self.contender, self.threads), True

    def parts(self, workload: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Time the parts of a training step, each by itself."""
        from bpcore.bench.parts import time_parts

        runner, _ = self._runner(Workload.from_json(workload))
        return {"status": OK, **time_parts(runner, seconds)}

    def operation(self, operation: str, sizes: dict[str, int], seconds: float, rounds: int) -> dict[str, Any]:
        """Time one operation of the backend, and show what it computes."""
        from bpcore.bench.operations import time_operation

        dtype = np.dtype(np.float64 if self.contender.precision == "float64" else np.float32)
        return {"status": OK, **time_operation(self.be, operation, sizes, dtype, seconds, rounds)}

    def release(self) -> dict[str, Any]:
        """Forget all workloads, and give memory of a device back."""
        self.runners.clear()
        gc.collect()
        if "cupy" in sys.modules:
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
        return {"status": OK}


class Witness:
    """Holds the float64 witness, which is another contender as far as the machine is concerned."""

    def expected(self, workload: dict[str, Any]) -> dict[str, Any]:
        """Return the evidence that a workload should give."""
        from bpcore.bench.problem import Problem

        work = Workload.from_json(workload)
        found: Evidence = expected_evidence(work, Problem.make(work))
        return {"status": OK, "evidence": found.as_json()}


def main() -> None:
    """Answer commands until standard input ends."""
    backend, precision, plan, threads = sys.argv[1:5]
    if backend == "witness":
        answer_commands(Witness())
    else:
        answer_commands(Holder(Contender(backend, precision, plan), None if threads == "auto" else int(threads)))


if __name__ == "__main__":
    main()
