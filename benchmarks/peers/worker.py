"""A process that holds one contestant: ``python -m benchmarks.peers.worker NAME THREADS CPUS``.

It is held to the cores that it may use before anything is imported: threads stay where they were started.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    name, threads, cpus = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if cpus != "all":
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    begun = time.perf_counter()
    from benchmarks.peers.holder import Holder
    from bpcore.bench.process import answer_commands

    answer_commands(Holder(name, threads, begun))


if __name__ == "__main__":
    main()
