#!/usr/bin/env python3
"""Training from a store on disk: its memory, and its speed beside data in memory.

    python benchmarks/stored_data.py --gib 4              # memory; nothing is kept afterwards
    python benchmarks/stored_data.py --gib 0.5 --compare  # speed beside the same rows in memory

Prints JSON, and writes it to a file with --json. The peak of the memory is that of this process (resident pages),
imports and code included. With --compare, disk and memory take turns for some rounds; times are the best epoch of a
round, in the median, and the share is the median of those of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import bpcore as bp
from bpcore.backends.diagnosis import cpu

COLUMNS, CLASSES, CHUNK = 100, 10, 20_000


def chunks(rows: int) -> Iterator[tuple[Any, Any]]:
    """Yield rows of noise around one of ten centres each; the noise of a chunk is a part of the same long one."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, COLUMNS)).astype(np.float32)
    noise = rng.normal(size=(2 * CHUNK, COLUMNS)).astype(np.float32)
    for start in range(0, rows, CHUNK):
        m = min(CHUNK, rows - start)
        y = rng.integers(0, CLASSES, m)
        shift = int(rng.integers(0, CHUNK))
        yield noise[shift : shift + m] + centres[y], y


def trained(data: Any, hidden: list[int], batch: int, epochs: int) -> float:
    net = bp.MLP([COLUMNS, *hidden, CLASSES], seed=0, dtype="float32")
    run = bp.train(net, *data, optimizer=bp.Adam(0.001), batch_size=batch, epochs=epochs, seed=0)
    assert run.history[-1]["accuracy"] > 0.9
    times = [0.0, *run.history["seconds"]]
    return min(after - before for before, after in itertools.pairwise(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=0.5)
    parser.add_argument("--hidden", default="128,64")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--folder")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--rounds", type=int, default=9, help="with --compare")
    parser.add_argument("--json", type=Path, help="write the result to this file, too")
    options = parser.parse_args()
    rows = int(options.gib * 2**30 / (4 * COLUMNS))
    hidden = [int(width) for width in options.hidden.split(",")]
    how = hidden, options.batch, options.epochs
    result: dict[str, Any] = {
        "rows": rows,
        "columns": COLUMNS,
        "gib": options.gib,
        "hidden": hidden,
        "batch": options.batch,
    }
    begun = time.perf_counter()
    with bp.data.from_chunks(lambda: chunks(rows), rows=rows, folder=options.folder, standardize=True) as store:
        result["writing_seconds"] = time.perf_counter() - begun
        result["epoch_seconds"] = trained((store,), *how)
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if options.compare:
            X, y = store.X(), store.y()
            pairs = [(trained((store,), *how), trained((X, y), *how)) for _ in range(options.rounds)]
            result["epoch_seconds"], result["in_memory_epoch_seconds"] = map(
                statistics.median, zip(*pairs, strict=True)
            )
            shares = [in_memory / on_disk for on_disk, in_memory in pairs]
            result["share_of_the_speed_in_memory"] = statistics.median(shares)
            result["shares"] = sorted(shares)
    backend = bp.get_backend()
    result |= {
        "backend": backend.name,
        "bpcore": bp.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "processor": cpu()["model"],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": date.today().isoformat(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
