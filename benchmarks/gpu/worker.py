"""A process that holds one contestant of the race on a GPU: ``python -m benchmarks.gpu.worker NAME THREADS``."""

from __future__ import annotations

import gc
import math
import sys
import time
from typing import Any

import numpy as np

from benchmarks.gpu.contestants import CONTESTANTS
from benchmarks.gpu.workloads import get_workload
from benchmarks.peers.holder import Holder
from bpcore.bench.process import OK, answer_commands


class GpuHolder(Holder):
    """Takes the losses of the first chunk from whichever steps come first, so that a round may be long."""

    adapters = "benchmarks.gpu"

    def find_contestant(self) -> Any:
        return CONTESTANTS[self.name]

    def find_workload(self, name: str) -> Any:
        return get_workload(name)

    def prepare(self, workload: str) -> dict[str, Any]:
        """Build and compile; what is there then is no garbage, and need not be looked through before each round.

        With PyTorch imported that would take 0.2 s each time, more than the round.
        """
        reply = super().prepare(workload)
        gc.collect()
        gc.freeze()
        return reply

    def round(self, chunks: int, warm: int) -> dict[str, Any]:
        """Begin again, run some chunks to warm up, and time those after them.

        Plans are built, graphs captured and memory pools filled while warming up.
        """
        before, order = (self.runner.stage(self.problem.order(*part)) for part in ((0, warm), (warm, chunks)))
        steps = chunks * self.problem.orders.shape[1]
        self.runner.reset()
        losses = [self.runner.evidence(self.runner.run(before))] if warm else []
        gc.collect()
        begun = time.perf_counter()
        result = self.runner.run(order)
        elapsed = time.perf_counter() - begun
        timed = self.runner.evidence(result)
        if len(timed) != steps:
            raise ValueError(f"{steps} steps were asked for, {len(timed)} losses came back")
        last = float(np.mean(timed[-(steps // chunks) :]))
        return {
            "status": OK,
            "us_per_step": 1e6 * elapsed / steps,
            "evidence": np.concatenate([*losses, timed])[: steps // chunks].tolist(),
            "finite": bool(np.isfinite(timed).all()),
            "last_loss": last if math.isfinite(last) else None,
            "facts": self.runner.facts,
        }

    def release(self) -> dict[str, Any]:
        """Forget the workload, and give its memory on the device back."""
        gc.unfreeze()
        reply = super().release()
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
            sys.modules["torch"].cuda.empty_cache()
        if "cupy" in sys.modules and sys.modules["cupy"].cuda.is_available():
            sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
        return reply


if __name__ == "__main__":
    answer_commands(GpuHolder(sys.argv[1], int(sys.argv[2])))
